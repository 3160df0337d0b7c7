//! POINT messages of clients: what somebody points at in 3D Slicer.
//!
//! 3D Slicer sends a list of points again whenever one of them changes. A point that is new in its list is followed under its
//! name, one that has moved is followed anew, and one that is gone is let go. Points lie where `UM_Points` does: in the frame that the
//! images are placed in, or, if they do not lie on the image there, in the tracker's.

use std::collections::HashMap;

use ultramotion_igtlink::{ClientId, DeviceName, Point};
use ultramotion_types::pose::{inverse, moved, product, with_unit_normal};
use ultramotion_types::{Matrix, Prompt, PromptCommand};

use crate::send::Answer;

/// A point may lie so far from the image's plane.
const MAX_OFF_PLANE_MM: f64 = 3.0;
/// Points of a list that are looked at.
const MAX_POINTS: usize = 32;
/// Lists that are remembered.
const MAX_LISTS: usize = 64;
/// Points closer than this are at the same place, millimetres.
const SAME_PLACE_MM: f32 = 0.01;

/// Where the pixels of a frame lie.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plane {
    /// Pixels, and millimetres off the plane.
    pixels_from_world: Matrix,
    pixels_from_tracker: Option<Matrix>,
}

impl Plane {
    /// Of a frame; `None` if its placement is flat.
    pub(crate) fn of(answer: &Answer) -> Option<Self> {
        let frame = &answer.frame;
        let world_from_ijk = with_unit_normal(frame.placement.world_from_ijk(frame.size))?;
        let pixels_from_world = inverse(&world_from_ijk)?;
        let tracker = answer.placed.tracker_from_image;
        let pixels_from_tracker = tracker.and_then(|tracker| inverse(&product(&tracker, &world_from_ijk)));
        Some(Plane { pixels_from_world, pixels_from_tracker })
    }

    /// A position in pixels of the frame, from its left top corner.
    fn pixel_of(&self, position_mm: [f32; 3]) -> Result<[f32; 2], String> {
        let position = position_mm.map(f64::from);
        let on = |matrix: &Matrix| moved(matrix, position);
        let places = [Some(on(&self.pixels_from_world)), self.pixels_from_tracker.as_ref().map(on)];
        let nearest = places.into_iter().flatten().min_by(|a, b| a[2].abs().total_cmp(&b[2].abs()));
        match nearest {
            // The middle of the first pixel is at 0, 0.
            Some([i, j, off_mm]) if off_mm.abs() <= MAX_OFF_PLANE_MM => {
                Ok([(i + 0.5) as f32, (j + 0.5) as f32])
            }
            Some([_, _, off_mm]) => Err(format!(
                "it lies {:.1} mm off the image, and at most {MAX_OFF_PLANE_MM} mm are taken{}",
                off_mm.abs(),
                if self.pixels_from_tracker.is_none() {
                    "; where the image lies in the tracker's frame is not known"
                } else {
                    ""
                }
            )),
            None => Err("its place is no number".into()),
        }
    }
}

/// Points by name, millimetres.
type List = Vec<(String, [f32; 3])>;

/// The lists of points of all clients.
#[derive(Debug, Default)]
pub(crate) struct Pointing {
    lists: HashMap<(ClientId, DeviceName), List>,
}

/// What comes of a point: its name, and what is asked, or why it cannot be.
pub(crate) type Wish = (String, Result<PromptCommand, String>);

impl Pointing {
    /// Takes in a list of a client, as of a frame.
    pub(crate) fn take(
        &mut self,
        client: ClientId,
        device: DeviceName,
        points: &[Point],
        plane: Option<&Plane>,
    ) -> Vec<Wish> {
        if self.lists.len() >= MAX_LISTS && !self.lists.contains_key(&(client, device)) {
            return vec![(
                device.to_string_lossy().into_owned(),
                Err("too many lists of points are in use".into()),
            )];
        }
        let list = self.lists.entry((client, device)).or_default();
        let new: List = points
            .iter()
            .take(MAX_POINTS)
            .map(|point| (point.name.to_string_lossy().into_owned(), point.position))
            .collect();
        let let_go = |name: &str| PromptCommand::LetGo { track_id: None, label: Some(name.to_owned()) };
        let mut wishes = Vec::new();
        for (name, _) in list.iter().filter(|(name, _)| !new.iter().any(|(other, _)| other == name)) {
            wishes.push((name.clone(), Ok(let_go(name))));
        }
        for (name, position) in &new {
            match list.iter().find(|(known, _)| known == name) {
                Some((_, before)) if is_same_place(before, position) => continue,
                Some(_) => wishes.push((name.clone(), Ok(let_go(name)))),
                None => {}
            }
            let pixel = plane.ok_or_else(|| "no frame was answered yet that it could lie on".to_owned());
            let follow = pixel.and_then(|plane| plane.pixel_of(*position)).map(|[x, y]| {
                let prompt = Prompt::at(x, y);
                PromptCommand::Follow(if name.is_empty() { prompt } else { prompt.labelled(name) })
            });
            wishes.push((name.clone(), follow));
        }
        *list = new;
        wishes
    }

    /// A client went: what it pointed at is followed on, its lists are forgotten.
    pub(crate) fn gone(&mut self, client: ClientId) {
        self.lists.retain(|(of, _), _| *of != client);
    }
}

fn is_same_place(a: &[f32; 3], b: &[f32; 3]) -> bool {
    a.iter().zip(b).all(|(a, b)| (a - b).abs() < SAME_PLACE_MM)
}
