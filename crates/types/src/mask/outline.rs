//! Outlines of masks, along the edges of pixels.

use super::MaskView;

/// Directions clockwise from right, in image coordinates (y down).
const STEPS: [[i32; 2]; 4] = [[1, 0], [0, 1], [-1, 0], [0, -1]];

impl MaskView<'_> {
    /// Closed polygons around the set pixels, as corners `[x, y]` on the grid of pixel edges (0 to width and 0 to
    /// height).
    ///
    /// Outer outlines run clockwise on the screen, outlines of holes the other way. Pixels that only touch at a
    /// corner have separate outlines. Points within straight edges are left out; the first is not repeated.
    pub fn outlines(self) -> Vec<Vec<[u32; 2]>> {
        let mut outlines = Vec::new();
        let Some([x1, y1, x2, y2]) = self.box_xyxy() else { return outlines };
        // The top edges that have been walked: each outline has at least one, left to right (outer) on its way.
        let mut walked =
            Walked { origin: [x1, y1], width: x2 - x1, edges: vec![false; (x2 - x1) * (y2 - y1)] };
        for y in y1..y2 {
            for x in x1..x2 {
                let is_top_edge = self.contains(x, y) && (y == 0 || !self.contains(x, y - 1));
                if is_top_edge && !*walked.edge(x, y) {
                    outlines.push(self.walk(x as i32, y as i32, &mut walked));
                }
            }
        }
        outlines
    }

    fn at(self, x: i32, y: i32) -> bool {
        x >= 0 && y >= 0 && self.contains(x as usize, y as usize)
    }

    /// Follows the edge that starts at the top left corner of pixel `(x, y)`, with the set pixels on the right.
    fn walk(self, start_x: i32, start_y: i32, walked: &mut Walked) -> Vec<[u32; 2]> {
        let (mut x, mut y, mut direction) = (start_x, start_y, 0usize);
        let mut corners = vec![[x as u32, y as u32]];
        loop {
            if direction == 0 {
                *walked.edge(x as usize, y as usize) = true;
            }
            x += STEPS[direction][0];
            y += STEPS[direction][1];
            // The two pixels ahead of this corner, right and left of the way.
            let (ahead_right, ahead_left) = match direction {
                0 => ((x, y), (x, y - 1)),
                1 => ((x - 1, y), (x, y)),
                2 => ((x - 1, y - 1), (x - 1, y)),
                _ => ((x, y - 1), (x - 1, y - 1)),
            };
            let turn = if !self.at(ahead_right.0, ahead_right.1) {
                1
            } else if self.at(ahead_left.0, ahead_left.1) {
                3
            } else {
                0
            };
            direction = (direction + turn) % 4;
            if (x, y, direction) == (start_x, start_y, 0) {
                break;
            }
            if turn != 0 {
                corners.push([x as u32, y as u32]);
            }
        }
        // The walk may have begun within a straight edge.
        let first_is_corner = {
            let (last, first, second) = (corners[corners.len() - 1], corners[0], corners[1 % corners.len()]);
            (last[0] != first[0] || first[0] != second[0]) && (last[1] != first[1] || first[1] != second[1])
        };
        if !first_is_corner {
            corners.remove(0);
        }
        corners
    }
}

/// The top edges of the pixels in a mask's box.
struct Walked {
    origin: [usize; 2],
    width: usize,
    edges: Vec<bool>,
}

impl Walked {
    fn edge(&mut self, x: usize, y: usize) -> &mut bool {
        &mut self.edges[(y - self.origin[1]) * self.width + x - self.origin[0]]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::BitMask;

    /// Twice the signed area (shoelace), positive for clockwise on the screen.
    fn twice_area(polygon: &[[u32; 2]]) -> i64 {
        let point = |i: usize| polygon[i % polygon.len()].map(i64::from);
        (0..polygon.len()).map(|i| point(i)[0] * point(i + 1)[1] - point(i + 1)[0] * point(i)[1]).sum()
    }

    #[test]
    fn outer_outlines_and_holes() {
        let ring =
            BitMask::from_fn(5, 5, |x, y| (1..4).contains(&x) && (1..4).contains(&y) && (x, y) != (2, 2));
        let outlines = ring.view().outlines();
        assert_eq!(outlines.len(), 2);
        assert_eq!(outlines[0], [[1, 1], [4, 1], [4, 4], [1, 4]]);
        assert_eq!((twice_area(&outlines[0]), twice_area(&outlines[1])), (18, -2));
        let diagonal = BitMask::from_fn(2, 2, |x, y| x == y);
        assert_eq!(diagonal.view().outlines().len(), 2);
        assert!(BitMask::new(3, 3).view().outlines().is_empty());
    }

    proptest! {
        /// Outlines with holes subtracted enclose exactly the set pixels, and every side turns a corner.
        #[test]
        fn outlines_enclose_the_mask(width in 1usize..14, height in 1usize..14, bits in any::<[u64; 4]>()) {
            let mask = BitMask::from_fn(width, height, |x, y| {
                let bit = y * width + x;
                bits[bit / 64] >> (bit % 64) & 1 != 0
            });
            let outlines = mask.view().outlines();
            let area: i64 = outlines.iter().map(|outline| twice_area(outline)).sum();
            prop_assert_eq!(area, 2 * mask.view().area_px() as i64);
            for outline in &outlines {
                for i in 0..outline.len() {
                    let side = |i: usize| {
                        let (a, b) = (outline[i % outline.len()], outline[(i + 1) % outline.len()]);
                        (a[0] == b[0], a[1] == b[1])
                    };
                    prop_assert_ne!(side(i), side(i + 1));
                    prop_assert_ne!(side(i), (true, true));
                }
            }
        }
    }
}
