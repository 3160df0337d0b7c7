//! What somebody points at in a frame, to have it followed.
//!
//! A [`Prompt`] becomes a track of its own: the object is outlined from the points or the box in the next frame, and
//! from its own outline in the frames after. As JSON a [`PromptCommand`] is
//!
//! ```
//! use ultramotion_types::{Prompt, PromptCommand};
//!
//! let text = r#"{"type":"follow","points":[{"x":120.5,"y":80.0}],"label":"tendon"}"#;
//! let command: PromptCommand = serde_json::from_str(text)?;
//! assert_eq!(command, PromptCommand::Follow(Prompt::at(120.5, 80.0).labelled("tendon")));
//! # Ok::<(), serde_json::Error>(())
//! ```

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Most points of one prompt.
pub const MAX_PROMPT_POINTS: usize = 2;
/// Longest label of a prompt, bytes.
pub const MAX_PROMPT_LABEL_BYTES: usize = 64;
/// The label of what was pointed at, where none is given.
pub const PROMPT_LABEL: &str = "user";

/// A point in pixels of the frame, of the object or beside it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptPoint {
    /// Pixels from the frame's left edge.
    pub x: f32,
    /// Pixels from its top edge.
    pub y: f32,
    /// Whether the point is in the object; beside it otherwise.
    #[serde(default = "yes")]
    pub positive: bool,
}

fn yes() -> bool {
    true
}

/// What to follow: points, a box, or both.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    /// At most [`MAX_PROMPT_POINTS`]; one of them in the object where there is no box.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub points: Vec<PromptPoint>,
    /// Left, top, right, bottom in pixels of the frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub box_xyxy: Option<[f32; 4]>,
    /// What to call it; [`PROMPT_LABEL`] otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

impl Prompt {
    /// A point in the object, in pixels of the frame.
    pub fn at(x: f32, y: f32) -> Self {
        Prompt { points: vec![PromptPoint { x, y, positive: true }], ..Prompt::default() }
    }

    /// A box around the object, in pixels of the frame.
    pub fn within(box_xyxy: [f32; 4]) -> Self {
        Prompt { box_xyxy: Some(box_xyxy), ..Prompt::default() }
    }

    /// The same under a name.
    pub fn labelled(self, label: impl Into<String>) -> Self {
        Prompt { label: Some(label.into()), ..self }
    }

    /// The same in a part of the frame, whose left top corner is here.
    pub fn seen_from(mut self, [left, top]: [f32; 2]) -> Self {
        for point in &mut self.points {
            (point.x, point.y) = (point.x - left, point.y - top);
        }
        self.box_xyxy = self.box_xyxy.map(|[x1, y1, x2, y2]| [x1 - left, y1 - top, x2 - left, y2 - top]);
        self
    }

    /// Whether it can be followed in a frame of this size.
    ///
    /// # Errors
    /// The reason why it cannot.
    pub fn check(&self, width: usize, height: usize) -> Result<(), PromptError> {
        if self.points.len() > MAX_PROMPT_POINTS {
            return Err(PromptError::Points(self.points.len()));
        }
        if self.box_xyxy.is_none() && !self.points.iter().any(|point| point.positive) {
            return Err(PromptError::Empty);
        }
        if self.label.as_ref().is_some_and(|label| {
            label.is_empty() || label.len() > MAX_PROMPT_LABEL_BYTES || label.contains(char::is_control)
        }) {
            return Err(PromptError::Label);
        }
        for point in &self.points {
            point.check(width, height)?;
        }
        let Some([left, top, right, bottom]) = self.box_xyxy else { return Ok(()) };
        for (x, y) in [(left, top), (right, bottom)] {
            inside(x, y, width, height)?;
        }
        // Below a pixel there is nothing to outline.
        if right - left < 1.0 || bottom - top < 1.0 { Err(PromptError::Box) } else { Ok(()) }
    }
}

impl PromptPoint {
    /// Whether it lies in a frame of this size.
    ///
    /// # Errors
    /// The reason why it does not.
    pub fn check(&self, width: usize, height: usize) -> Result<(), PromptError> {
        inside(self.x, self.y, width, height)
    }
}

fn inside(x: f32, y: f32, width: usize, height: usize) -> Result<(), PromptError> {
    if !x.is_finite() || !y.is_finite() {
        return Err(PromptError::NotANumber);
    }
    let is_inside = |value: f32, side: usize| (0.0..=side as f32).contains(&value);
    if is_inside(x, width) && is_inside(y, height) {
        Ok(())
    } else {
        Err(PromptError::Outside { x, y, width, height })
    }
}

/// What is asked of those who follow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum PromptCommand {
    /// Follow something new.
    Follow(Prompt),
    /// A point more about something that is followed.
    Refine {
        /// Identity, as packets have it.
        track_id: i32,
        /// The point.
        point: PromptPoint,
    },
    /// Follow no more: all that was pointed at, or what has this identity, this label, or both.
    LetGo {
        /// Identity, as packets have it.
        #[serde(default)]
        track_id: Option<i32>,
        /// Label.
        #[serde(default)]
        label: Option<String>,
    },
}

/// Why something is not followed.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum PromptError {
    /// A coordinate is not finite.
    #[error("the prompt's coordinates must be numbers")]
    NotANumber,
    /// A point or a corner is not in the frame.
    #[error("({x}, {y}) is outside the frame of {width} x {height} pixels; point inside")]
    Outside {
        /// Pixels.
        x: f32,
        /// Pixels.
        y: f32,
        /// Pixels.
        width: usize,
        /// Pixels.
        height: usize,
    },
    /// The box is turned or too small.
    #[error("the prompt's box must be left, top, right, bottom, a pixel or more each way")]
    Box,
    /// Nothing says where the object is.
    #[error("the prompt needs a box, or a point in the object")]
    Empty,
    /// Too many points.
    #[error("a prompt has at most {MAX_PROMPT_POINTS} points, not {0}")]
    Points(usize),
    /// The label cannot be shown.
    #[error("a prompt's label has 1 to {MAX_PROMPT_LABEL_BYTES} bytes and no control characters")]
    Label,
    /// Every place is taken.
    #[error("{0} objects are followed already, which is the most; let one go first")]
    Full(usize),
    /// Nobody follows this.
    #[error("no object that was pointed at has identity {0}")]
    Unknown(i32),
    /// The pipeline was built without room for prompts.
    #[error("nothing can be pointed at here: max_prompts is 0")]
    Off,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_lies_in_its_frame() {
        let check = |prompt: &Prompt| prompt.check(64, 48);
        assert_eq!(check(&Prompt::at(64.0, 0.0)), Ok(()));
        assert!(matches!(check(&Prompt::at(64.5, 0.0)), Err(PromptError::Outside { width: 64, .. })));
        assert!(matches!(check(&Prompt::at(3.0, -0.1)), Err(PromptError::Outside { .. })));
        assert_eq!(check(&Prompt::at(f32::NAN, 0.0)), Err(PromptError::NotANumber));
        assert_eq!(check(&Prompt::within([3.0, 4.0, 9.0, 9.0])), Ok(()));
        assert_eq!(check(&Prompt::within([9.0, 4.0, 3.0, 9.0])), Err(PromptError::Box));
        assert_eq!(check(&Prompt::within([3.0, 4.0, f32::INFINITY, 9.0])), Err(PromptError::NotANumber));
        assert_eq!(check(&Prompt::default()), Err(PromptError::Empty));
        let mut beside = Prompt::at(1.0, 1.0);
        beside.points[0].positive = false;
        assert_eq!(check(&beside), Err(PromptError::Empty));
        beside.points = vec![beside.points[0]; 3];
        assert_eq!(check(&beside), Err(PromptError::Points(3)));
        for label in [String::new(), "a\nb".into(), "x".repeat(65)] {
            assert_eq!(check(&Prompt::at(1.0, 1.0).labelled(label)), Err(PromptError::Label));
        }
    }

    #[test]
    fn commands_are_read_strictly() {
        let read = |text| serde_json::from_str::<PromptCommand>(text);
        assert_eq!(
            read(r#"{"type":"let_go"}"#).unwrap(),
            PromptCommand::LetGo { track_id: None, label: None }
        );
        let refine =
            read(r#"{"type":"refine","track_id":4,"point":{"x":1,"y":2,"positive":false}}"#).unwrap();
        let point = PromptPoint { x: 1.0, y: 2.0, positive: false };
        assert_eq!(refine, PromptCommand::Refine { track_id: 4, point });
        for wrong in [r#"{"type":"shout"}"#, r#"{"type":"follow","where":1}"#, r#"{"type":"refine"}"#] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
