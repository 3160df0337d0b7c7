//! Anchors: the boxes from which queries start, one per pixel of every level.

/// Side of an anchor on the finest level, as a share of the image; it doubles with each level.
const SIDE: f32 = 0.05;
/// Anchors with a coordinate or a side closer to 0 or 1 than this are not used.
const MARGIN: f32 = 0.01;
/// Stands for the official code's infinity: its sigmoid is 1 in every precision, and half precision can hold it.
const UNUSED_LOGIT: f32 = 1e4;

/// Anchors of an input.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Anchors {
    /// Logits of (cx, cy, w, h), `[L, 4]`, level by level, row by row.
    pub logits_cxcywh: Vec<f32>,
    /// 1 where the anchor is used, 0 elsewhere, `[L]`.
    pub used: Vec<f32>,
}

impl Anchors {
    /// For maps of these sizes, finest first. In f32 like the official code, which decides near the margin.
    pub fn new(levels_hw: &[[usize; 2]]) -> Self {
        let (mut logits_cxcywh, mut used) = (Vec::new(), Vec::new());
        for (level, &[h, w]) in levels_hw.iter().enumerate() {
            let side = SIDE * (level as f32).exp2();
            for y in 0..h {
                for x in 0..w {
                    let anchor = [(x as f32 + 0.5) / w as f32, (y as f32 + 0.5) / h as f32, side, side];
                    let valid = anchor.iter().all(|&v| v > MARGIN && v < 1.0 - MARGIN);
                    logits_cxcywh
                        .extend(anchor.map(|v| if valid { (v / (1.0 - v)).ln() } else { UNUSED_LOGIT }));
                    used.push(f32::from(u8::from(valid)));
                }
            }
        }
        Anchors { logits_cxcywh, used }
    }

    /// Number of anchors.
    pub fn len(&self) -> usize {
        self.used.len()
    }

    /// Whether none is left out.
    pub fn all_used(&self) -> bool {
        self.used.iter().all(|&u| u > 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_border_of_a_fine_level_is_left_out() {
        let anchors = Anchors::new(&[[80, 80], [40, 40], [20, 20]]);
        assert_eq!(anchors.len(), 8400);
        assert_eq!(anchors.used.iter().filter(|&&u| u == 0.0).count(), 4 * 79);
        assert!(Anchors::new(&[[40, 40], [20, 20]]).all_used());
        // The third anchor of the first row of the second level: x = 2.5 / 20, y = 0.5 / 10, sides 0.1.
        let anchors = Anchors::new(&[[20, 40], [10, 20]]);
        let expected = [0.125f32, 0.05, 0.1, 0.1].map(|v| (v / (1.0 - v)).ln());
        assert_eq!(anchors.logits_cxcywh[(800 + 2) * 4..][..4], expected);
    }
}
