//! What the rooms hand to each other. Every crate may know this one; it knows none.
//!
//! - [`frame`]: a frame with its pixels ([`Frame`]), and the same borrowed ([`FrameView`]).
//! - [`pose`]: transforms by name, and the few operations on 4x4 matrices.
//! - [`mask`]: binary masks, one bit a pixel; COCO's run lengths; outlines.
//! - [`boxes`]: corner boxes, and their overlap.
//! - [`modes`]: the choices that a result names: residency, matcher.
//! - [`packet`]: everything that is known about a frame; serialised it is a line of `results.jsonl`.
//! - [`prompt`]: what somebody points at, to have it followed.
//! - [`settings`](mod@settings): tables of keys, each with default, range and sentence.
//! - [`mailbox`]: a queue in which the newest item wins.
//!
//! ```
//! use ultramotion_types::{BitMask, DetectedObject, ResultPacket};
//!
//! let mut packet = ResultPacket::default();
//! (packet.width, packet.height, packet.labels) = (4, 2, ["vessel".to_owned()].into());
//! let mask = BitMask::from_fn(4, 2, |x, _| x == 1);
//! packet.push(DetectedObject { track_id: 3, score: 0.9, ..DetectedObject::default() }, mask.view().bits());
//! let line = serde_json::to_value(&packet)?;
//! assert_eq!(line["objects"][0]["label"], "vessel");
//! assert_eq!(line["objects"][0]["mask"]["size"], serde_json::json!([2, 4]));
//! # Ok::<(), serde_json::Error>(())
//! ```

pub mod boxes;
pub mod frame;
pub mod mailbox;
pub mod mask;
pub mod modes;
pub mod packet;
pub mod pose;
pub mod prompt;
pub mod settings;

mod line;
mod recorded;

pub use frame::{
    Frame, FrameError, FrameFormat, FrameView, ImageStatus, MAX_SIDE_PX, PixelFormat, TimeSource,
    known_spacing_mm,
};
pub use line::ResultLine;
pub use mailbox::Mailbox;
pub use mask::{BitMask, CocoRle, FeretDiameters, MaskView, RleError};
pub use modes::{MatcherMode, Modes, Residency, UnknownMode};
pub use packet::{DetectedObject, Fault, LatencyMs, Quality, ResultPacket, Transfers, Visibility};
pub use pose::{Matrix, NamedTransform};
pub use prompt::{Prompt, PromptCommand, PromptError, PromptPoint};
pub use recorded::{LineError, MAX_RECORDED_OBJECTS, RecordedLine, RecordedObject};
