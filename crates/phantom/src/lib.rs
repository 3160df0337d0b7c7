//! Simulated B-mode ultrasound with ground truth.
//!
//! A seed goes in; out comes an endless stream of frames of one scene under a linear probe: speckle, tissue
//! layers, vessels, nerves, bone with its shadow, a moving probe, a beating heart, and for each frame the exact
//! outline of every visible structure. A frame depends on nothing but the configuration and its index (the same
//! bytes each time on one platform), so frames can be made in any order.
//!
//! How it works, in the order of the files: `anatomy` draws the scene, `echo` paints it on a grid in tissue
//! coordinates, `speckle` turns that into the detected envelope (all once, in [`Phantom::new`]); `motion` says
//! where probe and tissue are at a time, `render` samples the envelope there and adds gain, noise and
//! compression.
//!
//! ```
//! use ultramotion_phantom::{Phantom, PhantomConfig};
//!
//! let phantom = Phantom::new(PhantomConfig { seed: 7, width: 256, height: 256, ..Default::default() })?;
//! let frame = phantom.frame(30);
//! assert_eq!(frame.pixels.len(), 256 * 256);
//! for object in &frame.objects {
//!     println!("{} {} {:?}", object.id, object.class.label(), object.box_xyxy);
//! }
//! # Ok::<(), ultramotion_phantom::PhantomError>(())
//! ```

mod anatomy;
mod echo;
mod motion;
mod random;
mod render;
mod speckle;
#[cfg(test)]
mod tests;

use anatomy::Anatomy;
use echo::{EchoMap, Grid};
use motion::Motion;
use random::Rng;
use render::{Scanner, Scratch, World};

/// Smallest and largest side of a frame, in pixels.
pub const SIDE_LIMITS_PX: [usize; 2] = [64, 2048];

/// What to simulate.
#[derive(Clone, Debug, PartialEq)]
pub struct PhantomConfig {
    /// Decides everything about the scene.
    pub seed: u64,
    /// Pixels along the probe's face.
    pub width: usize,
    /// Pixels in depth; pixels are square.
    pub height: usize,
    /// Time between frames is its inverse; it does not change what a moment looks like.
    pub frames_per_second: f64,
    /// Depth of the view, millimetres; drawn by seed from 26 to 52 when absent.
    pub depth_mm: Option<f64>,
}

impl Default for PhantomConfig {
    fn default() -> Self {
        Self { seed: 0, width: 512, height: 512, frames_per_second: 25.0, depth_mm: None }
    }
}

/// Why a phantom cannot be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PhantomError {
    /// The frame is too small or too large.
    #[error("a phantom frame of {width}x{height} pixels is not possible: give sides from {} to {}", SIDE_LIMITS_PX[0], SIDE_LIMITS_PX[1])]
    Size {
        /// Asked width, pixels.
        width: usize,
        /// Asked height, pixels.
        height: usize,
    },
    /// The rate is not a positive number.
    #[error("a phantom rate of {0} frames per second is not possible: give a positive number")]
    Rate(f64),
    /// The depth is out of range.
    #[error("a phantom depth of {0} mm is not possible: give 15 to 150")]
    Depth(f64),
}

/// The kinds of structure in the ground truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// A peripheral nerve, cross-section.
    Nerve,
    /// An artery or a vein, cross-section: lumen and inner half of the wall.
    Vessel,
    /// The bright surface of a bone.
    Bone,
}

impl Class {
    /// All classes, in the order of their indices.
    pub const ALL: [Self; 3] = [Self::Nerve, Self::Vessel, Self::Bone];

    /// 0 nerve, 1 vessel, 2 bone.
    pub fn index(self) -> usize {
        self as usize
    }

    /// `"nerve"`, `"vessel"` or `"bone"`.
    pub fn label(self) -> &'static str {
        ["nerve", "vessel", "bone"][self as usize]
    }
}

/// One structure that can be seen in a frame.
#[derive(Clone, Debug, PartialEq)]
pub struct TruthObject {
    /// The same for a structure in every frame of a scene, from 1; also its value in [`PhantomFrame::instances`].
    pub id: u8,
    /// What it is.
    pub class: Class,
    /// Edges of its visible pixels, in pixels of the frame: left, top, right, bottom (right and bottom exclusive).
    pub box_xyxy: [f32; 4],
    /// Number of its visible pixels.
    pub area_px: u32,
}

/// A frame and its truth. Reuse one with [`Phantom::render_into`] to allocate nothing per frame.
#[derive(Clone, Debug, Default)]
pub struct PhantomFrame {
    /// Index in the stream.
    pub index: u64,
    /// Time since the stream began, seconds.
    pub timestamp_s: f64,
    /// Pixels along the probe's face.
    pub width: usize,
    /// Pixels in depth.
    pub height: usize,
    /// Side of a pixel, millimetres.
    pub spacing_mm: f64,
    /// Grey values `[height, width]`, row-major.
    pub pixels: Vec<u8>,
    /// Id of the object seen at each pixel `[height, width]`, 0 where there is none.
    pub instances: Vec<u8>,
    /// The visible objects, by id. Pixels in the shadow of bone do not count, and objects of which too little is
    /// visible are left out (of `instances` too).
    pub objects: Vec<TruthObject>,
    /// Rigid, row-major, millimetres: probe coordinates (x lateral with 0 in the middle of the image, y axial with
    /// 0 at the top of the image, z elevational) to the tracker's.
    pub tracker_from_probe: [[f64; 4]; 4],
    scratch: Scratch,
}

impl PhantomFrame {
    /// Mask of one object `[height, width]`, 1 inside and 0 outside.
    pub fn mask(&self, id: u8) -> Vec<u8> {
        self.instances.iter().map(|&instance| u8::from(instance == id)).collect()
    }
}

/// A scene, ready to render any of its frames.
#[derive(Clone, Debug)]
pub struct Phantom {
    config: PhantomConfig,
    spacing_mm: f32,
    grid: Grid,
    envelope: Vec<f32>,
    labels: Vec<u8>,
    classes: Vec<Class>,
    /// Pixels of each object in the world, at rest.
    areas_px: Vec<u32>,
    motion: Motion,
    scanner: Scanner,
}

/// An object is left out when less than this share of it is inside the view …
const MIN_SHARE_IN_VIEW: f32 = 0.15;
/// … or less than this share of that is lit, the rest being in the shadow of bone …
const MIN_SHARE_LIT: f32 = 0.35;
/// … or fewer pixels than this remain.
const MIN_AREA_PX: u32 = 24;

impl Phantom {
    /// Draws the scene of `config.seed`. Takes a fraction of a second, and memory for about three frames in f32.
    pub fn new(config: PhantomConfig) -> Result<Self, PhantomError> {
        let [smallest, largest] = SIDE_LIMITS_PX;
        let (width, height) = (config.width, config.height);
        if !(smallest..=largest).contains(&width) || !(smallest..=largest).contains(&height) {
            return Err(PhantomError::Size { width, height });
        }
        if !(config.frames_per_second.is_finite() && config.frames_per_second > 0.0) {
            return Err(PhantomError::Rate(config.frames_per_second));
        }
        let depth_mm = match config.depth_mm {
            Some(depth) if !(15.0..=150.0).contains(&depth) => return Err(PhantomError::Depth(depth)),
            Some(depth) => depth as f32,
            None => Rng::new(config.seed, 0).log_range(26.0, 52.0),
        };
        let spacing_mm = depth_mm / height as f32;
        let anatomy = Anatomy::draw(config.seed, [spacing_mm * width as f32, depth_mm]);
        Ok(Self::of_anatomy(config, &anatomy, spacing_mm))
    }

    fn of_anatomy(config: PhantomConfig, anatomy: &Anatomy, spacing_mm: f32) -> Self {
        let grid = Grid::covering(anatomy.view_mm, spacing_mm);
        let map = EchoMap::paint(anatomy, grid, config.seed);
        let mut classes = vec![Class::Vessel; anatomy.vessels.len()];
        classes.extend(anatomy.nerves.iter().map(|_| Class::Nerve));
        classes.extend(anatomy.bone.iter().map(|_| Class::Bone));
        let mut cells = vec![0u32; classes.len()];
        for label in &map.labels {
            if let Some(object) = ((label & !echo::HIDDEN) as usize).checked_sub(1) {
                cells[object] += 1;
            }
        }
        Self {
            envelope: speckle::envelope(&map, &anatomy.imaging, config.seed),
            scanner: Scanner::new(&anatomy.imaging, config.width, config.height, spacing_mm, config.seed),
            motion: Motion::new(config.seed, anatomy),
            labels: map.labels,
            config,
            spacing_mm,
            grid,
            classes,
            areas_px: cells.iter().map(|&cells| (cells as f32 / echo::AXIAL_OVERSAMPLING) as u32).collect(),
        }
    }

    /// The configuration this scene was made from.
    pub fn config(&self) -> &PhantomConfig {
        &self.config
    }

    /// Side of a pixel, millimetres.
    pub fn spacing_mm(&self) -> f64 {
        f64::from(self.spacing_mm)
    }

    /// The classes of all objects of the scene, that of id 1 first, whether they are ever in view or not.
    pub fn classes(&self) -> &[Class] {
        &self.classes
    }

    /// Renders frame `index`, at `index / frames_per_second` seconds.
    pub fn frame(&self, index: u64) -> PhantomFrame {
        let mut frame = PhantomFrame::default();
        self.render_into(index, &mut frame);
        frame
    }

    /// Renders frame `index` into `frame`, reusing its memory; what was in it does not matter.
    pub fn render_into(&self, index: u64, frame: &mut PhantomFrame) {
        let (width, height) = (self.config.width, self.config.height);
        frame.index = index;
        frame.timestamp_s = index as f64 / self.config.frames_per_second;
        (frame.width, frame.height) = (width, height);
        frame.spacing_mm = self.spacing_mm();
        frame.pixels.resize(width * height, 0);
        frame.instances.resize(width * height, 0);
        let moment = self.motion.at(frame.timestamp_s);
        frame.tracker_from_probe = self.motion.tracker_from_probe(&moment);
        let world =
            World { grid: self.grid, envelope: &self.envelope, labels: &self.labels, motion: &self.motion };
        let mut counts = [[0; 2]; 128];
        // Every frame has its own electronic noise.
        let noise_seed = self.config.seed ^ index.wrapping_mul(0xA24B_AED4_963E_E407);
        self.scanner.render(
            &world,
            &moment,
            noise_seed,
            &mut frame.pixels,
            &mut frame.instances,
            &mut frame.scratch,
            &mut counts,
        );
        self.collect_truth(&counts, frame);
    }

    fn collect_truth(&self, counts: &[[u32; 2]; 128], frame: &mut PhantomFrame) {
        frame.objects.clear();
        let mut dropped = [false; 128];
        for (object, (&class, &area)) in self.classes.iter().zip(&self.areas_px).enumerate() {
            let [lit, hidden] = counts[object + 1];
            let in_view = (lit + hidden) as f32;
            let seen = lit >= MIN_AREA_PX
                && in_view >= MIN_SHARE_IN_VIEW * area as f32
                && lit as f32 >= MIN_SHARE_LIT * in_view;
            if seen {
                let nothing = [f32::INFINITY, f32::INFINITY, 0.0, 0.0];
                frame.objects.push(TruthObject {
                    id: object as u8 + 1,
                    class,
                    box_xyxy: nothing,
                    area_px: lit,
                });
            } else {
                dropped[object + 1] = lit > 0;
            }
        }
        let any_dropped = dropped.contains(&true);
        let mut extents = [[u32::MAX, u32::MAX, 0, 0]; 128];
        for (y, row) in frame.instances.chunks_exact_mut(frame.width).enumerate() {
            for (x, id) in row.iter_mut().enumerate() {
                if *id == 0 {
                    continue;
                }
                if any_dropped && dropped[*id as usize] {
                    *id = 0;
                    continue;
                }
                let [x1, y1, x2, y2] = &mut extents[*id as usize];
                (*x1, *y1) = ((*x1).min(x as u32), (*y1).min(y as u32));
                (*x2, *y2) = ((*x2).max(x as u32 + 1), (*y2).max(y as u32 + 1));
            }
        }
        for object in &mut frame.objects {
            object.box_xyxy = extents[object.id as usize].map(|edge| edge as f32);
        }
    }
}
