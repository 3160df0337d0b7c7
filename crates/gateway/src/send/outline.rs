//! The shape of a mask, without looking at the whole picture more than once.

use ultramotion_media::mask::BinaryMask;
use ultramotion_pipeline::MaskView;

/// A mask cut out of its picture.
#[derive(Debug, Clone, Default)]
pub struct ObjectShape {
    /// Left and top of the cut-out.
    origin: [usize; 2],
    mask: BinaryMask,
}

impl ObjectShape {
    /// Cuts out the part with set pixels, to whole bytes.
    pub fn of(mask: MaskView<'_>) -> Self {
        let row_bytes = mask.width.div_ceil(8);
        let mut extent: Option<[usize; 4]> = None;
        for (y, row) in mask.bits.chunks_exact(row_bytes.max(1)).enumerate() {
            let Some(first) = row.iter().position(|&byte| byte != 0) else { continue };
            let last = row.iter().rposition(|&byte| byte != 0).unwrap_or(first);
            let [x1, y1, x2, _] = extent.unwrap_or([first, y, last, y]);
            extent = Some([x1.min(first), y1, x2.max(last), y]);
        }
        let Some([x1, y1, x2, y2]) = extent else { return Self::default() };
        let origin = [8 * x1, y1];
        let (width, height) = ((8 * (x2 + 1)).min(mask.width) - origin[0], y2 + 1 - y1);
        let mask = BinaryMask::from_fn(width, height, |x, y| mask.contains(origin[0] + x, origin[1] + y));
        ObjectShape { origin, mask }
    }

    /// The set pixels of the picture, `[x, y]`.
    pub fn pixels(&self) -> impl Iterator<Item = [usize; 2]> + '_ {
        let rows = self.mask.bits().chunks_exact(self.mask.width().max(1)).enumerate();
        let [left, top] = self.origin;
        rows.flat_map(move |(y, row)| {
            let set = row.iter().enumerate().filter(|(_, bit)| **bit != 0);
            set.map(move |(x, _)| [left + x, top + y])
        })
    }

    /// Middle of the set pixels, in indices of pixels: the middle of the first one is at 0, 0.
    pub fn centroid_px(&self) -> Option<[f64; 2]> {
        let (mut count, mut sum) = (0usize, [0usize; 2]);
        for [x, y] in self.pixels() {
            count += 1;
            sum = [sum[0] + x, sum[1] + y];
        }
        (count > 0).then(|| sum.map(|s| s as f64 / count as f64))
    }

    /// Closed outlines along the edges of the set pixels, in indices of pixels: the edge of the picture is at -0.5.
    pub fn outlines_px(&self) -> impl Iterator<Item = impl Iterator<Item = [f64; 2]> + '_> + '_ {
        let [left, top] = self.origin;
        self.mask.outlines().into_iter().map(move |outline| {
            let place =
                move |[x, y]: [u32; 2]| [left as f64 + f64::from(x) - 0.5, top as f64 + f64::from(y) - 0.5];
            outline.into_iter().map(place)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The cut-out says the same as the whole picture.
        #[test]
        fn a_shape_is_its_mask(
            width in 1usize..40,
            height in 1usize..12,
            set in proptest::collection::vec((0usize..40, 0usize..12), 0..30),
        ) {
            let whole = BinaryMask::from_fn(width, height, |x, y| set.contains(&(x, y)));
            let row_bytes = width.div_ceil(8);
            let mut bits = vec![0u8; row_bytes * height];
            for y in 0..height {
                for x in 0..width {
                    bits[y * row_bytes + x / 8] |= u8::from(whole.get(x, y)) << (x % 8);
                }
            }
            let shape = ObjectShape::of(MaskView { width, height, bits: &bits });
            let mut again = BinaryMask::new(width, height);
            shape.pixels().for_each(|[x, y]| again.set(x, y, true));
            prop_assert_eq!(&again, &whole);
            let outlines: Vec<Vec<[f64; 2]>> = shape.outlines_px().map(Iterator::collect).collect();
            let expected = whole.outlines().into_iter().map(|outline| {
                outline.into_iter().map(|corner| corner.map(|v| f64::from(v) - 0.5)).collect::<Vec<_>>()
            });
            prop_assert_eq!(outlines, expected.collect::<Vec<_>>());
            prop_assert_eq!(shape.centroid_px().is_some(), whole.area_px() > 0);
        }
    }
}
