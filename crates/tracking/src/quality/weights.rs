//! Which pixels of a frame the scores of an object look at.

use super::grid::{Bits, Image};
use super::score::{Mask, Seen};

/// Weights of a frame's pixels, 0 or more, each map `[height, width]`; each sums up to 1, or is 0 everywhere where there is nothing
/// of its kind.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightMaps {
    /// The outline, along which edge and continuity are looked for.
    pub edge: Vec<f32>,
    /// The object.
    pub inside: Vec<f32>,
    /// The ring around it, against which its contrast is measured.
    pub outside: Vec<f32>,
}

/// The maps of an object. All are 0 for an empty mask.
pub fn weight_maps(image: &Image<'_>, mask: &Mask<'_>) -> WeightMaps {
    let pixels = image.width * image.height;
    let Some(seen) = Seen::of(image, mask) else {
        let nothing = || vec![0.0; pixels];
        return WeightMaps { edge: nothing(), inside: nothing(), outside: nothing() };
    };
    let map = |bits: &Bits| {
        let mut weights = vec![0.0; pixels];
        let mut covered = 0_usize;
        for (y, row) in weights.chunks_exact_mut(image.width).enumerate() {
            for (x, weight) in row.iter_mut().enumerate() {
                if let Some([column, cell_row]) = seen.region.cell_at(x as f32, y as f32)
                    && bits[cell_row] >> column & 1 == 1
                {
                    *weight = 1.0;
                    covered += 1;
                }
            }
        }
        weights.iter_mut().for_each(|weight| *weight /= covered.max(1) as f32);
        weights
    };
    WeightMaps { edge: map(&seen.outline), inside: map(&seen.mask), outside: map(&seen.ring) }
}
