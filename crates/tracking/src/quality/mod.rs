//! How well an object shows: five scores, each 0 (not at all) to 1, of its mask and the pixels under and around it.
//!
//! An object is looked at on a grid of 64 x 64 cells around its box ([`Region`]), of as many pixels each as it takes: so the work
//! does not depend on its size, and neither do the scores. Grey values are 0 to 255; of colours, the luma counts (ITU-R BT.601).
//! With `M` the cells of the mask, `O` those of its outline (in `M`, beside a cell that is not), and `R` a ring around it, 2 to
//! [`RING_CELLS`] cells away:
//!
//! | score | what |
//! |---|---|
//! | `edge` | mean over `O` of `d / (d + 24)`. `d` is the step at a cell: the mean of the cells of `M` within 2 cells, against that of the others there, as far as it goes the way in which `M` differs from `R` |
//! | `contrast` | `c / (c + 1)`, `c = abs(mean(M) - mean(R)) / sqrt(max(var(M) + var(R), 2 · 24²))`: the contrast-to-noise ratio (M. S. Patterson, F. S. Foster, "The improvement and quantification of B-mode images produced by annular array/cone hybrids", Ultrasonic Imaging 5 (1983)), where the noise is that of speckle at least: a blur makes no contrast |
//! | `continuity` | share of `O` where `d` is 8 or more |
//! | `stability` | `area(M ∩ P) / area(M ∪ P)` (P. Jaccard, 1912), `P` the mask of the frame before, moved as the image plane has moved where that is known |
//! | `likeness` | normalised cross-correlation (J. P. Lewis, "Fast Normalized Cross-Correlation", 1995), at least 0, of 16 x 16 means of the grid with those of the track's last good frames, of which the newest counts for a quarter |
//! | `mean` | of these, weighted; in a track's first frame, of the first three |
//!
//! The last two are 1 in a track's first frame. What is asked of an edge is measured in steps of grey, not against the noise: a
//! gain that is too low, a shadow and a blur all make it smaller.
//!
//! What is summed is summed in whole numbers, so that every device gives the same scores.

mod gate;
mod grid;
mod memory;
mod score;
mod weights;

pub use gate::QualityGate;
pub use grid::{CELLS, Image, RING_CELLS, Region};
pub use memory::{MEMORY_LEN, Motion};
pub use score::{Judged, Mask, SCORES, judge};
pub use weights::{WeightMaps, weight_maps};

use ultramotion_types::settings::Range;

ultramotion_types::settings! {
    /// How well objects show in the image (scores of 0 to 1), and whether that decides over VISIBLE
    #[derive(Copy)]
    pub struct QualityConfig in "tracker.quality" {
        /// Whether an object that shows badly counts as out of view: the scene is then RELOCALIZING, and LOST when that goes on,
        /// although the detector finds the object. Masks and boxes stay as they are.
        pub gate: bool = false;
        /// Weighted mean of its scores below which an object shows badly. Objects of the phantom have 0.6 to 0.9, what is found in
        /// speckle and behind a shadow 0.2 to 0.4.
        pub least: f32 = 0.4, in Range::SHARE;
        /// What one that showed badly must reach to be in view again, at least `least`.
        pub again: f32 = 0.5, in Range::SHARE;
        /// Weight of the edge's sharpness in the mean.
        pub edge_weight: f32 = 1.0, in Range::NOT_NEGATIVE;
        /// Weight of the contrast.
        pub contrast_weight: f32 = 1.0, in Range::NOT_NEGATIVE;
        /// Weight of the continuity of the edge.
        pub continuity_weight: f32 = 1.0, in Range::NOT_NEGATIVE;
        /// Weight of the stability.
        pub stability_weight: f32 = 1.0, in Range::NOT_NEGATIVE;
        /// Weight of the likeness.
        pub likeness_weight: f32 = 1.0, in Range::NOT_NEGATIVE;
    }
}

impl QualityConfig {
    /// In the scores' order.
    pub(crate) fn weights(&self) -> [f32; SCORES - 1] {
        [
            self.edge_weight,
            self.contrast_weight,
            self.continuity_weight,
            self.stability_weight,
            self.likeness_weight,
        ]
    }
}
