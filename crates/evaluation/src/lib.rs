//! How good detections, outlines and identities are, against masks: the figures behind `ultramotion eval`.
//!
//! In: images and masks of the same names ([`Pairs`]), settings, and what the masks' values mean ([`MaskClasses`]).
//! Out: a [`Report`].
//!
//! | file | room for |
//! |---|---|
//! | `pairs` | which images, and which mask belongs to each |
//! | `mask_file`, `classes`, `truth` | a mask's pixels, what their values mean, the objects that they form |
//! | `spacing` | how large a pixel is |
//! | `evaluate` | frame after frame: what the detector sees, what the segmenter draws, what a run gives |
//! | `detector_alone` | everything the detector sees, without a threshold |
//! | `boxes`, `average_precision` | boxes against boxes, by COCO's rules |
//! | `outlines` | masks against masks: Dice, IoU, distances |
//! | `identities` | tracks against structures: switches, coverage |
//! | `tally`, `report`, `gallery` | sums by class; JSON and table; pictures |
//!
//! The figures are functions of plain values, each with its equation and source, and none knows a network.
//!
//! ```no_run
//! use ultramotion::Settings;
//! use ultramotion_evaluation::{Evaluation, EvaluationOptions, Pairs, guess_classes};
//! use ultramotion_pipeline::DeviceChoice;
//!
//! let pairs = Pairs::find("images".as_ref(), "masks".as_ref())?;
//! let (classes, rule) = guess_classes(&pairs)?;
//! let options = EvaluationOptions::new(classes, rule);
//! let mut evaluation = Evaluation::new(Settings::default(), DeviceChoice::default(), options)?;
//! evaluation.run(&pairs, &mut || {})?;
//! println!("{}", evaluation.report(&pairs));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod average_precision;
mod boxes;
mod classes;
mod detector_alone;
mod error;
mod evaluate;
mod gallery;
mod identities;
mod mask_file;
mod outlines;
mod pairs;
mod report;
mod spacing;
mod tally;
mod truth;

pub use classes::{MaskClasses, ObjectRule};
pub use error::EvaluationError;
pub use evaluate::{Evaluation, EvaluationOptions, guess_classes};
pub use gallery::Gallery;
pub use pairs::{Pairs, Part};
pub use report::Report;
pub use spacing::Spacing;
