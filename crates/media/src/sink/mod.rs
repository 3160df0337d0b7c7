//! Where results go: [`JsonLines`] and [`Overlay`] pictures; and what is made from the lines for other tools, [`export`].
//!
//! ```
//! use ultramotion_media::sink::{JsonLines, Overlay, OverlayObject};
//! use ultramotion_types::{BitMask, Frame};
//!
//! let folder = tempfile::tempdir()?;
//! let frame = Frame::grey8(64, 48, vec![20; 64 * 48]);
//! let mask = BitMask::from_fn(64, 48, |x, y| (20..40).contains(&x) && (16..30).contains(&y));
//! let object = OverlayObject {
//!     track_id: Some(3),
//!     confirmed: true,
//!     label: "vessel",
//!     score: 0.91,
//!     box_xyxy: [20.0, 16.0, 40.0, 30.0],
//!     mask: Some(mask.view()),
//! };
//! let mut overlay = Overlay::new();
//! overlay.draw(&frame, &[object]);
//! overlay.write_png(&folder.path().join("000000.png"))?;
//!
//! let mut lines = JsonLines::create(&folder.path().join("results.jsonl"))?;
//! lines.write(&[1, 2, 3])?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod export;
mod font;
mod json_lines;
mod overlay;

pub use json_lines::{JsonLines, keep_whole_lines};
pub use overlay::{Overlay, OverlayObject, track_colour};
