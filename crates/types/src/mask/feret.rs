//! Diameters of masks, as a caliper measures them.

use super::MaskView;

/// How far apart two parallel lines are that a mask just fits between (Feret's diameters), in the unit of the pixels' size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FeretDiameters {
    /// In the direction in which they are farthest apart: the largest distance of two points of the outline.
    pub largest: f64,
    /// In the direction in which they are closest.
    pub smallest: f64,
}

impl MaskView<'_> {
    /// Diameters of all pixels inside together, measured along the edges of pixels that are so wide and high: one of
    /// 1 x 1 has the diameters √2 and 1. `None` for no pixel.
    pub fn feret_diameters(self, pixel_size: [f64; 2]) -> Option<FeretDiameters> {
        let hull = hull(self.row_ends(pixel_size));
        let largest =
            hull.iter().enumerate().flat_map(|(i, a)| hull[i + 1..].iter().map(|b| distance(*a, *b)));
        let largest = largest.reduce(f64::max)?;
        // The smallest width of a convex polygon is across one of its sides.
        let widths = (0..hull.len()).map(|i| {
            let (a, b) = (hull[i], hull[(i + 1) % hull.len()]);
            let reach = hull.iter().map(|point| cross(a, b, *point).abs()).fold(0.0, f64::max);
            reach / distance(a, b)
        });
        Some(FeretDiameters { largest, smallest: widths.reduce(f64::min)? })
    }

    /// The corners at both ends of each row, from the top and from the left.
    fn row_ends(self, [width, height]: [f64; 2]) -> Vec<[f64; 2]> {
        let Some([_, y1, _, y2]) = self.box_xyxy() else { return Vec::new() };
        let row_bytes = self.row_bytes();
        let mut ends = Vec::with_capacity(4 * (y2 - y1));
        for y in y1..y2 {
            let row = &self.bits[y * row_bytes..][..row_bytes];
            let filled = row.iter().position(|&byte| byte != 0).zip(row.iter().rposition(|&byte| byte != 0));
            let Some((first, last)) = filled else { continue };
            let left = 8 * first + row[first].trailing_zeros() as usize;
            let right = 8 * (last + 1) - row[last].leading_zeros() as usize;
            for (x, y) in [(left, y), (right, y), (left, y + 1), (right, y + 1)] {
                ends.push([x as f64 * width, y as f64 * height]);
            }
        }
        ends
    }
}

fn distance(a: [f64; 2], b: [f64; 2]) -> f64 {
    (a[0] - b[0]).hypot(a[1] - b[1])
}

/// Twice the signed area of a triangle.
fn cross(a: [f64; 2], b: [f64; 2], c: [f64; 2]) -> f64 {
    (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
}

/// The convex hull of points, in order around it, without points within its sides: A. M. Andrew, "Another efficient
/// algorithm for convex hulls in two dimensions" (1979).
fn hull(mut points: Vec<[f64; 2]>) -> Vec<[f64; 2]> {
    points.sort_by(|a, b| a[0].total_cmp(&b[0]).then(a[1].total_cmp(&b[1])));
    points.dedup();
    let half = |points: &mut dyn Iterator<Item = [f64; 2]>| {
        let mut chain: Vec<[f64; 2]> = Vec::new();
        for point in points {
            while let [.., a, b] = chain[..]
                && cross(a, b, point) <= 0.0
            {
                chain.pop();
            }
            chain.push(point);
        }
        // The other half begins with it.
        chain.pop();
        chain
    };
    let mut hull = half(&mut points.iter().copied());
    hull.append(&mut half(&mut points.iter().rev().copied()));
    hull
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::BitMask;
    use super::*;

    #[test]
    fn diameters_of_known_shapes() {
        let of = |mask: BitMask, pixel_size| mask.view().feret_diameters(pixel_size).unwrap();
        let rectangle = BitMask::from_fn(20, 10, |x, y| (2..14).contains(&x) && (3..8).contains(&y));
        assert_eq!(of(rectangle.clone(), [1.0; 2]), FeretDiameters { largest: 13.0, smallest: 5.0 });
        // 12 x 5 pixels of 0.25 x 2 mm are 3 x 10 mm.
        let uneven = of(rectangle, [0.25, 2.0]);
        assert!((uneven.largest - 109f64.sqrt()).abs() < 1e-12 && (uneven.smallest - 3.0).abs() < 1e-12);
        let disk = BitMask::from_fn(200, 200, |x, y| (x as f64 - 99.5).hypot(y as f64 - 99.5) < 60.0);
        let disk = of(disk, [0.1; 2]);
        assert!((disk.largest - 12.0).abs() < 0.15 && (disk.smallest - 12.0).abs() < 0.15, "{disk:?}");
        // A band at 45 degrees, 4 pixels high: its width is across the diagonal.
        let band = of(BitMask::from_fn(60, 60, |x, y| (x..x + 4).contains(&y)), [1.0; 2]);
        assert!((band.smallest - 5.0 / 2f64.sqrt()).abs() < 1e-12, "{band:?}");
        assert!(BitMask::new(9, 9).view().feret_diameters([1.0; 2]).is_none());
    }

    proptest! {
        /// The largest is that of any two corners of the outlines; turned by any angle, no mask is narrower or wider.
        #[test]
        fn no_direction_is_beyond_the_diameters(width in 1usize..12, height in 1usize..12, bits in 1u128..) {
            let mask = BitMask::from_fn(width, height, |x, y| bits >> ((y * width + x) % 128) & 1 == 1);
            let Some(found) = mask.view().feret_diameters([0.5, 0.75]) else {
                prop_assert_eq!(mask.view().area_px(), 0);
                return Ok(());
            };
            let corners: Vec<[f64; 2]> = mask.view().outlines().into_iter().flatten()
                .map(|[x, y]| [f64::from(x) * 0.5, f64::from(y) * 0.75]).collect();
            let pairs = corners.iter().flat_map(|a| corners.iter().map(|b| distance(*a, *b)));
            prop_assert!((pairs.fold(0.0, f64::max) - found.largest).abs() < 1e-9);
            let mut narrowest = f64::INFINITY;
            for step in 0..3600 {
                let (sine, cosine) = (f64::from(step) * std::f64::consts::PI / 3600.0).sin_cos();
                let along = corners.iter().map(|[x, y]| x * cosine + y * sine);
                let (least, most) = along.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
                prop_assert!(most - least >= found.smallest - 1e-9 && most - least <= found.largest + 1e-9);
                narrowest = narrowest.min(most - least);
            }
            prop_assert!(narrowest - found.smallest < 0.02);
        }
    }
}
