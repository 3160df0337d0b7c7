//! How good detections, outlines and identities are, against masks: the figures behind `ultramotion eval`.
//!
//! In: images and masks of the same names. Out: a [`report::Report`].
//!
//! | file | room for |
//! |---|---|
//! | [`pairs`] | which images, and which mask belongs to each |
//! | [`mask_file`], [`classes`], [`truth`] | a mask's pixels, what their values mean, the objects that they form |
//! | [`spacing`] | how large a pixel is |
//! | [`detector_alone`] | everything the detector sees, without a threshold |
//! | [`boxes`], [`average_precision`] | boxes against boxes, by COCO's rules |
//! | [`outlines`] | masks against masks: Dice, IoU, distances |
//! | [`identities`] | tracks against structures: switches, coverage |
//! | [`tally`], [`report`], [`gallery`] | sums by class; JSON and table; pictures |
//!
//! The figures are functions of plain values, each with its equation and source, and none knows a network:
//!
//! ```text
//! let truth = [[10.0, 10.0, 30.0, 40.0]];
//! assert_eq!(boxes::greedy_match(&truth, &[[11.0, 10.0, 31.0, 40.0]], 0.5), [Some(0)]);
//! ```

pub(crate) mod average_precision;
pub(crate) mod boxes;
pub(crate) mod classes;
pub(crate) mod detector_alone;
pub(crate) mod gallery;
pub(crate) mod identities;
pub(crate) mod mask_file;
pub(crate) mod outlines;
pub(crate) mod pairs;
pub(crate) mod report;
pub(crate) mod spacing;
pub(crate) mod tally;
pub(crate) mod truth;
