//! Masks against masks: overlap, and how far apart their outlines are.
//!
//! With A and B the sets of pixels, ∂A and ∂B their border pixels (those with one of their four neighbours outside;
//! beyond the image is outside), and d(a, ∂B) the distance from the centre of pixel a to the nearest centre in ∂B:
//!
//! - Dice = 2 |A ∩ B| / (|A| + |B|) (L. R. Dice, 1945), IoU = |A ∩ B| / |A ∪ B|;
//! - mean surface distance = (Σ d(a, ∂B) + Σ d(b, ∂A)) / (|∂A| + |∂B|), the average symmetric surface distance of
//!   T. Heimann et al., IEEE TMI 28(8), 2009;
//! - Hausdorff distance, 95 % = max of the 95th percentiles of d(a, ∂B) and of d(b, ∂A) (percentiles interpolated
//!   linearly), as MONAI and DeepMind's surface-distance take it.

use ultramotion_types::MaskView;

/// Overlap of two masks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Overlap {
    pub dice: f64,
    pub iou: f64,
}

/// Distances between two outlines, in the unit of the spacing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct SurfaceDistance {
    pub hausdorff95: f64,
    pub mean: f64,
}

/// Dice and IoU of masks of one size; 1 where both are empty.
pub(crate) fn overlap(a: MaskView<'_>, b: MaskView<'_>) -> Overlap {
    let shared = a.shared_px(b) as f64;
    let total = (a.area_px() + b.area_px()) as f64;
    if total == 0.0 {
        return Overlap { dice: 1.0, iou: 1.0 };
    }
    Overlap { dice: 2.0 * shared / total, iou: shared / (total - shared) }
}

/// How far apart the outlines of two masks of one size are. `spacing` is the width and height of a pixel (1, 1 gives
/// pixels). `None` where one of the masks is empty.
pub(crate) fn surface_distance(
    a: MaskView<'_>,
    b: MaskView<'_>,
    spacing: [f64; 2],
) -> Option<SurfaceDistance> {
    let ([ax1, ay1, ax2, ay2], [bx1, by1, bx2, by2]) = (a.box_xyxy()?, b.box_xyxy()?);
    // Nothing outside the two boxes matters.
    let window = Window { x: ax1.min(bx1), y: ay1.min(by1), width: 0, height: 0 };
    let window = Window { width: ax2.max(bx2) - window.x, height: ay2.max(by2) - window.y, ..window };
    let (border_a, border_b) = (window.border(a), window.border(b));
    let from_a = distances(&border_a, &window.distance_map(&border_b, spacing));
    let from_b = distances(&border_b, &window.distance_map(&border_a, spacing));
    let sum: f64 = from_a.iter().chain(&from_b).sum();
    Some(SurfaceDistance {
        mean: sum / (from_a.len() + from_b.len()) as f64,
        hausdorff95: percentile(from_a, 0.95).max(percentile(from_b, 0.95)),
    })
}

/// The value below which a share of the values lies, interpolated linearly between ranks; 0 of nothing.
pub(crate) fn percentile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return 0.0 };
    let rank = share * last as f64;
    let (below, above) = (values[rank.floor() as usize], values[rank.ceil() as usize]);
    below + (above - below) * rank.fract()
}

fn distances(border: &[bool], map: &[f64]) -> Vec<f64> {
    border.iter().zip(map).filter(|(is_border, _)| **is_border).map(|(_, squared)| squared.sqrt()).collect()
}

/// A part of the image.
#[derive(Debug, Clone, Copy)]
struct Window {
    x: usize,
    y: usize,
    width: usize,
    height: usize,
}

impl Window {
    /// Border pixels of a mask, `[height, width]`.
    fn border(&self, mask: MaskView<'_>) -> Vec<bool> {
        let mut border = Vec::with_capacity(self.width * self.height);
        for y in self.y..self.y + self.height {
            for x in self.x..self.x + self.width {
                let inside = x > 0
                    && y > 0
                    && mask.contains(x - 1, y)
                    && mask.contains(x + 1, y)
                    && mask.contains(x, y - 1)
                    && mask.contains(x, y + 1);
                border.push(mask.contains(x, y) && !inside);
            }
        }
        border
    }

    /// Squared distance of every pixel to the nearest of `to`, `[height, width]`: the exact transform of
    /// P. F. Felzenszwalb and D. P. Huttenlocher, "Distance Transforms of Sampled Functions", Theory of Computing 8,
    /// 2012, section 2, first along columns, then along rows.
    fn distance_map(&self, to: &[bool], spacing: [f64; 2]) -> Vec<f64> {
        let mut map: Vec<f64> = to.iter().map(|&near| if near { 0.0 } else { f64::INFINITY }).collect();
        let mut envelope = LowerEnvelope::default();
        for x in 0..self.width {
            envelope.transform(&mut map, x, self.width, self.height, spacing[1]);
        }
        for y in 0..self.height {
            envelope.transform(&mut map, y * self.width, 1, self.width, spacing[0]);
        }
        map
    }
}

/// Lower envelope of parabolas rooted at the samples of a line; memory is reused from line to line.
#[derive(Debug, Default)]
struct LowerEnvelope {
    line: Vec<f64>,
    /// Samples whose parabolas are part of the envelope, from left to right, and where each begins to be.
    parts: Vec<(usize, f64)>,
}

impl LowerEnvelope {
    /// Replaces `count` values, `stride` apart, by min over q of (spacing · (p − q))² + value(q).
    fn transform(&mut self, map: &mut [f64], start: usize, stride: usize, count: usize, spacing: f64) {
        self.line.clear();
        self.line.extend((0..count).map(|i| map[start + i * stride]));
        self.parts.clear();
        let square = |at: usize| (spacing * at as f64).powi(2);
        for (q, value) in self.line.iter().enumerate().filter(|(_, value)| value.is_finite()) {
            let mut begins = f64::NEG_INFINITY;
            while let Some(&(p, p_begins)) = self.parts.last() {
                let crossing = ((value + square(q)) - (self.line[p] + square(p)))
                    / (2.0 * spacing * spacing * (q - p) as f64);
                if crossing > p_begins {
                    begins = crossing;
                    break;
                }
                self.parts.pop();
            }
            self.parts.push((q, begins));
        }
        let mut part = 0;
        for i in 0..count {
            while self.parts.get(part + 1).is_some_and(|(_, begins)| *begins < i as f64) {
                part += 1;
            }
            if let Some(&(q, _)) = self.parts.get(part) {
                map[start + i * stride] = square(i.abs_diff(q)) + self.line[q];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use ultramotion_types::BitMask;

    use super::*;

    fn rectangle(x1: usize, y1: usize, x2: usize, y2: usize) -> BitMask {
        BitMask::from_fn(40, 30, |x, y| (x1..x2).contains(&x) && (y1..y2).contains(&y))
    }

    #[test]
    fn known_masks() {
        let a = rectangle(5, 5, 15, 15);
        assert_eq!(overlap(a.view(), a.view()), Overlap { dice: 1.0, iou: 1.0 });
        assert_eq!(
            surface_distance(a.view(), a.view(), [1.0; 2]),
            Some(SurfaceDistance { hausdorff95: 0.0, mean: 0.0 })
        );
        let half = overlap(a.view(), rectangle(10, 5, 15, 15).view());
        assert_eq!((half.dice, half.iou), (100.0 / 150.0, 0.5));
        // Single pixels, 3 to the right and 4 below; a pixel is 2 wide and 0.5 high.
        let (p, q) = (rectangle(4, 4, 5, 5), rectangle(7, 8, 8, 9));
        assert_eq!(surface_distance(p.view(), q.view(), [1.0; 2]).unwrap().mean, 5.0);
        let apart = (36.0f64 + 4.0).sqrt();
        assert!(
            (surface_distance(p.view(), q.view(), [2.0, 0.5]).unwrap().hausdorff95 - apart).abs() < 1e-12
        );
        let empty = BitMask::new(40, 30);
        assert_eq!(surface_distance(a.view(), empty.view(), [1.0; 2]), None);
        assert_eq!(
            (overlap(a.view(), empty.view()).dice, overlap(empty.view(), empty.view()).dice),
            (0.0, 1.0)
        );
    }

    #[test]
    fn percentiles_as_numpy_has_them() {
        assert_eq!(percentile(vec![3.0, 1.0, 2.0, 4.0], 0.5), 2.5);
        assert!((percentile((0..=10).map(f64::from).collect(), 0.95) - 9.5).abs() < 1e-12);
        assert_eq!(percentile(vec![7.0], 0.95), 7.0);
        assert_eq!(percentile(vec![], 0.95), 0.0);
    }

    /// Border pixels by definition, and every distance by looking at every pair.
    fn by_brute_force(a: MaskView<'_>, b: MaskView<'_>, spacing: [f64; 2]) -> Option<SurfaceDistance> {
        let border = |mask: MaskView<'_>| -> Vec<(i64, i64)> {
            let at = |x: i64, y: i64| x >= 0 && y >= 0 && mask.contains(x as usize, y as usize);
            (0..mask.height() as i64)
                .flat_map(|y| (0..mask.width() as i64).map(move |x| (x, y)))
                .filter(|&(x, y)| at(x, y) && !(at(x - 1, y) && at(x + 1, y) && at(x, y - 1) && at(x, y + 1)))
                .collect()
        };
        let (a, b) = (border(a), border(b));
        if a.is_empty() || b.is_empty() {
            return None;
        }
        let nearest = |from: &[(i64, i64)], to: &[(i64, i64)]| -> Vec<f64> {
            let distance = |p: &(i64, i64), q: &(i64, i64)| {
                (((p.0 - q.0) as f64 * spacing[0]).powi(2) + ((p.1 - q.1) as f64 * spacing[1]).powi(2)).sqrt()
            };
            from.iter().map(|p| to.iter().map(|q| distance(p, q)).fold(f64::INFINITY, f64::min)).collect()
        };
        let (ab, ba) = (nearest(&a, &b), nearest(&b, &a));
        let mean = ab.iter().chain(&ba).sum::<f64>() / (ab.len() + ba.len()) as f64;
        Some(SurfaceDistance { hausdorff95: percentile(ab, 0.95).max(percentile(ba, 0.95)), mean })
    }

    proptest! {
        #[test]
        fn distances_are_those_of_every_pair(
            width in 1usize..24,
            height in 1usize..20,
            density in 0.02f64..1.0,
            bits in prop::collection::vec((0.0f64..1.0, 0.0f64..1.0), 24 * 20),
            spacing in prop::array::uniform2(0.05f64..3.0),
        ) {
            let a = BitMask::from_fn(width, height, |x, y| bits[y * 24 + x].0 < density);
            let b = BitMask::from_fn(width, height, |x, y| bits[y * 24 + x].1 < density * 0.7);
            let (got, expected) = (surface_distance(a.view(), b.view(), spacing), by_brute_force(a.view(), b.view(), spacing));
            prop_assert_eq!(got.is_some(), expected.is_some());
            if let (Some(got), Some(expected)) = (got, expected) {
                prop_assert!((got.mean - expected.mean).abs() < 1e-9, "{:?} {:?}", got, expected);
                prop_assert!((got.hausdorff95 - expected.hausdorff95).abs() < 1e-9, "{:?} {:?}", got, expected);
                // Symmetric.
                let turned = surface_distance(b.view(), a.view(), spacing).unwrap();
                prop_assert!((turned.mean - got.mean).abs() < 1e-9 && turned.hausdorff95 == got.hausdorff95);
            }
        }
    }
}
