//! Binary masks, one bit a pixel, as they leave a device: COCO run-length coding and outlines without unpacking them.
//!
//! ```
//! use ultramotion_types::mask::{BitMask, CocoRle};
//!
//! let mask = BitMask::from_fn(7, 5, |x, y| (2..5).contains(&x) && (1..4).contains(&y));
//! let rle = CocoRle::encode(mask.view());
//! assert_eq!(serde_json::to_string(&rle)?, r#"{"size":[5,7],"counts":";320009"}"#);
//! assert_eq!(rle.decode()?, mask);
//! assert_eq!(mask.view().outlines(), [vec![[2, 1], [5, 1], [5, 4], [2, 4]]]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod feret;
mod outline;
mod rle;

pub use feret::FeretDiameters;
pub use rle::{CocoRle, RleError};

/// A set of pixels of an image, borrowed: how masks are read, wherever their bits are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaskView<'a> {
    width: usize,
    height: usize,
    /// `[height, ceil(width / 8)]`: bit 0 of a byte is the leftmost of its 8 pixels, bits beyond the width are 0.
    bits: &'a [u8],
}

/// A set of pixels of an image, owned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BitMask {
    width: usize,
    height: usize,
    bits: Vec<u8>,
}

impl<'a> MaskView<'a> {
    /// Bits `[height, ceil(width / 8)]`, bit 0 of a byte the leftmost of its 8 pixels, bits beyond the width 0; `None`
    /// for another number of bytes.
    pub fn new(width: usize, height: usize, bits: &'a [u8]) -> Option<Self> {
        (Some(bits.len()) == height.checked_mul(width.div_ceil(8))).then_some(MaskView {
            width,
            height,
            bits,
        })
    }

    /// Pixels in a row.
    pub fn width(self) -> usize {
        self.width
    }

    /// Number of rows.
    pub fn height(self) -> usize {
        self.height
    }

    /// The bits, as [`MaskView::new`] takes them.
    pub fn bits(self) -> &'a [u8] {
        self.bits
    }

    fn row_bytes(self) -> usize {
        self.width.div_ceil(8)
    }

    /// Whether a pixel is inside; false beyond the image.
    pub fn contains(self, x: usize, y: usize) -> bool {
        x < self.width && y < self.height && self.bits[y * self.row_bytes() + x / 8] >> (x % 8) & 1 == 1
    }

    /// Number of pixels inside.
    pub fn area_px(self) -> usize {
        self.bits.iter().map(|byte| byte.count_ones() as usize).sum()
    }

    /// Left, top, right, bottom of the pixels inside, right and bottom exclusive; `None` if there is none.
    pub fn box_xyxy(self) -> Option<[usize; 4]> {
        let mut extent: Option<[usize; 4]> = None;
        for (y, row) in self.bits.chunks_exact(self.row_bytes().max(1)).enumerate() {
            let Some(first) = row.iter().position(|&byte| byte != 0) else { continue };
            let last = row.iter().rposition(|&byte| byte != 0).unwrap_or(first);
            let left = 8 * first + row[first].trailing_zeros() as usize;
            let right = 8 * (last + 1) - row[last].leading_zeros() as usize;
            let [x1, y1, x2, _] = extent.unwrap_or([left, y, right, y]);
            extent = Some([x1.min(left), y1, x2.max(right), y + 1]);
        }
        extent
    }

    /// The pixels inside, `[x, y]`, row by row.
    pub fn pixels(self) -> impl Iterator<Item = [usize; 2]> + 'a {
        let row_bytes = self.row_bytes().max(1);
        self.bits.iter().enumerate().filter(|(_, byte)| **byte != 0).flat_map(move |(at, &byte)| {
            let (x, y) = (8 * (at % row_bytes), at / row_bytes);
            (0..8).filter(move |bit| byte >> bit & 1 == 1).map(move |bit| [x + bit, y])
        })
    }

    /// Middle of the pixels inside, in indices of pixels: the middle of the first one is at 0, 0. `None` for none.
    pub fn centroid_px(self) -> Option<[f64; 2]> {
        let (mut count, mut sum) = (0usize, [0usize; 2]);
        for [x, y] in self.pixels() {
            count += 1;
            sum = [sum[0] + x, sum[1] + y];
        }
        (count > 0).then(|| sum.map(|s| s as f64 / count as f64))
    }

    /// Pixels inside both of two masks of one size.
    pub fn shared_px(self, other: MaskView<'_>) -> usize {
        self.bits.iter().zip(other.bits).map(|(a, b)| (a & b).count_ones() as usize).sum()
    }

    /// A copy.
    pub fn to_owned(self) -> BitMask {
        BitMask { width: self.width, height: self.height, bits: self.bits.to_vec() }
    }
}

impl BitMask {
    /// No pixel inside.
    pub fn new(width: usize, height: usize) -> Self {
        Self { width, height, bits: vec![0; width.div_ceil(8) * height] }
    }

    /// The pixels where `inside(x, y)`.
    pub fn from_fn(width: usize, height: usize, mut inside: impl FnMut(usize, usize) -> bool) -> Self {
        let mut mask = Self::new(width, height);
        for (y, row) in mask.bits.chunks_exact_mut(width.div_ceil(8).max(1)).enumerate() {
            for x in 0..width {
                row[x / 8] |= u8::from(inside(x, y)) << (x % 8);
            }
        }
        mask
    }

    /// Puts a pixel in or out; nothing happens beyond the image.
    pub fn set(&mut self, x: usize, y: usize, inside: bool) {
        if x < self.width && y < self.height {
            let byte = &mut self.bits[y * self.width.div_ceil(8) + x / 8];
            *byte = *byte & !(1 << (x % 8)) | u8::from(inside) << (x % 8);
        }
    }

    /// The mask, to read.
    pub fn view(&self) -> MaskView<'_> {
        MaskView { width: self.width, height: self.height, bits: &self.bits }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Every way of reading a mask speaks of the same pixels.
        #[test]
        fn a_mask_is_its_pixels(
            width in 0usize..40,
            height in 0usize..12,
            set in proptest::collection::vec((0usize..40, 0usize..12), 0..30),
        ) {
            let mut mask = BitMask::from_fn(width, height, |x, y| set.contains(&(x, y)));
            let mut expected: Vec<[usize; 2]> =
                set.iter().map(|&(x, y)| [x, y]).filter(|[x, y]| *x < width && *y < height).collect();
            expected.sort_by_key(|[x, y]| (*y, *x));
            expected.dedup();
            let view = mask.view();
            prop_assert_eq!(view.pixels().collect::<Vec<_>>(), expected.clone());
            prop_assert_eq!(view.area_px(), expected.len());
            prop_assert_eq!(view.shared_px(view), expected.len());
            prop_assert!(expected.iter().all(|[x, y]| view.contains(*x, *y)));
            let bound = |axis: usize| {
                let values = || expected.iter().map(move |pixel| pixel[axis]);
                values().min().zip(values().max())
            };
            let extent = bound(0).zip(bound(1)).map(|((x1, x2), (y1, y2))| [x1, y1, x2 + 1, y2 + 1]);
            prop_assert_eq!(view.box_xyxy(), extent);
            prop_assert_eq!(view.centroid_px().is_some(), !expected.is_empty());
            prop_assert_eq!(MaskView::new(width, height, view.bits()), Some(view));
            prop_assert!(MaskView::new(width + 8, height + 1, view.bits()).is_none());
            for [x, y] in expected {
                mask.set(x, y, false);
            }
            mask.set(width, height, true);
            prop_assert_eq!(mask, BitMask::new(width, height));
        }
    }
}
