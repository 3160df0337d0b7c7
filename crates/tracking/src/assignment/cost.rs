//! What a pair of a prediction and a target costs, term by term.
//!
//! The terms are those of DETR (N. Carion et al., "End-to-End Object Detection with Transformers", ECCV 2020,
//! section 3.1 and appendix A.2), with the focal class cost of Deformable DETR (X. Zhu et al., ICLR 2021), as D-FINE
//! trains with. Everything is f32, like the tensors it comes from.

use serde::{Deserialize, Serialize};
use ultramotion_types::settings::Range;

ultramotion_types::settings! {
    /// Cost of a pair: class * (1 - probability of the track's class) + bbox * L1 + giou * (1 - generalised IoU)
    #[derive(Copy)]
    pub struct CostWeights in "tracker.weights" {
        /// Weight of the class term.
        pub class: f32 = 1.0, in Range::NOT_NEGATIVE;
        /// Weight of the L1 distance of the boxes as (cx, cy, w, h).
        pub bbox: f32 = 5.0, in Range::NOT_NEGATIVE;
        /// Weight of the generalised IoU.
        pub giou: f32 = 2.0, in Range::NOT_NEGATIVE;
    }
}

/// The class term: how little a query's logits speak for a target's class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClassCost {
    /// Minus the softmax probability of the class: −1 to 0.
    Softmax,
    /// The focal loss (T.-Y. Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, equation 5) for "this
    /// class" minus that for "not this class", on the sigmoid of the class's logit.
    Focal {
        /// Weight of the positive side, 0 to 1; 0.25 usually.
        alpha: f32,
        /// How fast an easy example stops counting; 2 usually.
        gamma: f32,
    },
}

impl ClassCost {
    /// The focal cost with alpha 0.25 and gamma 2.
    pub const FOCAL: Self = Self::Focal { alpha: 0.25, gamma: 2.0 };
}

/// One query's logits, prepared for asking after several classes.
#[derive(Clone, Copy, Debug)]
pub struct QueryLogits<'a> {
    logits: &'a [f32],
    kind: ClassCost,
    highest: f32,
    sum: f32,
}

impl<'a> QueryLogits<'a> {
    /// `logits` is `[C]`.
    pub fn new(logits: &'a [f32], kind: ClassCost) -> Self {
        // Softmax relative to the highest logit, so that no exponential overflows.
        let (mut highest, mut sum) = (f32::NEG_INFINITY, 0.0);
        if kind == ClassCost::Softmax {
            for &logit in logits {
                highest = if logit > highest { logit } else { highest };
            }
            for &logit in logits {
                sum += (logit - highest).exp();
            }
        }
        Self { logits, kind, highest, sum }
    }

    /// The class term for `label`, which must be an index of the logits. NaN if the logits are.
    pub fn class_cost(&self, label: usize) -> f32 {
        let logit = self.logits[label];
        match self.kind {
            ClassCost::Softmax => -((logit - self.highest).exp() / self.sum),
            ClassCost::Focal { alpha, gamma } => {
                const EPSILON: f32 = 1e-8; // keeps the logarithm finite
                let p = 1.0 / (1.0 + (-logit).exp());
                let q = 1.0 / (1.0 + logit.exp()); // 1 - p without the cancellation
                let negative = (1.0 - alpha) * p.powf(gamma) * -(q + EPSILON).ln();
                let positive = alpha * q.powf(gamma) * -(p + EPSILON).ln();
                positive - negative
            }
        }
    }
}

/// What a pair costs whose cost is NaN.
pub const NAN_COST: f32 = 1.0;

/// What a pair costs that should be made only when there is no other: one that overflows f32, or whose query is
/// already taken ([`return_topk`](super::HungarianMatcherBuilder::return_topk)).
pub const TAKEN_COST: f32 = 1e6;

/// Logits and boxes of queries, labels and boxes of targets: what the costs of one image follow from. Boxes are
/// (cx, cy, w, h), normally as fractions of the image.
#[derive(Clone, Copy, Debug)]
pub struct QueriesAndTargets<'a> {
    /// `[Q, C]`: class logits of the queries.
    pub logits: &'a [f32],
    /// C.
    pub num_classes: usize,
    /// `[Q, 4]`: boxes of the queries.
    pub boxes_cxcywh: &'a [f32],
    /// `[T]`: class of each target.
    pub target_labels: &'a [i32],
    /// `[T, 4]`: box of each target.
    pub target_boxes_cxcywh: &'a [f32],
}

/// Fills `[Q, T]` with what each pair costs: `class` · class cost + `bbox` · L1 − `giou` · GIoU.
///
/// NaN becomes [`NAN_COST`] and ±∞ becomes ±[`TAKEN_COST`], so every pair can be made, but for targets whose label
/// is no class: their pairs are +∞, forbidden. The slices must have the lengths that the shapes say.
pub fn fill_costs(of: &QueriesAndTargets<'_>, kind: ClassCost, weights: CostWeights, costs: &mut [f32]) {
    let targets = of.target_labels.len();
    if targets == 0 {
        return;
    }
    for (q, row) in costs.chunks_exact_mut(targets).enumerate() {
        let logits = QueryLogits::new(&of.logits[q * of.num_classes..][..of.num_classes], kind);
        let query_box = box_at(of.boxes_cxcywh, q);
        for (t, to) in row.iter_mut().enumerate() {
            let label = usize::try_from(of.target_labels[t]).unwrap_or(usize::MAX);
            if label >= of.num_classes {
                *to = f32::INFINITY;
                continue;
            }
            let target_box = box_at(of.target_boxes_cxcywh, t);
            let cost = weights.bbox * l1_cxcywh(query_box, target_box)
                + weights.class * logits.class_cost(label)
                - weights.giou * overlap_cxcywh(query_box, target_box).giou;
            *to = if cost.is_nan() {
                NAN_COST
            } else if cost.is_infinite() {
                TAKEN_COST.copysign(cost)
            } else {
                cost
            };
        }
    }
}

/// Sum of the absolute differences of two boxes in (cx, cy, w, h).
pub fn l1_cxcywh(a: [f32; 4], b: [f32; 4]) -> f32 {
    (a[0] - b[0]).abs() + (a[1] - b[1]).abs() + (a[2] - b[2]).abs() + (a[3] - b[3]).abs()
}

/// Overlap of two boxes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Overlap {
    /// Intersection over union, 0 to 1.
    pub iou: f32,
    /// Generalised IoU, −1 to 1 (H. Rezatofighi et al., CVPR 2019, algorithm 1): IoU minus the share of the
    /// enclosing box that neither covers.
    pub giou: f32,
}

/// Overlap of two boxes in (cx, cy, w, h). A negative width or height counts as 0; two boxes without area have a
/// union of 0, and NaN for an answer.
pub fn overlap_cxcywh(a: [f32; 4], b: [f32; 4]) -> Overlap {
    let (a, b) = (xyxy_from_cxcywh(a), xyxy_from_cxcywh(b));
    let area = |b: [f32; 4]| (b[2] - b[0]) * (b[3] - b[1]);
    let width = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let height = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let intersection = width * height;
    let union = area(a) + area(b) - intersection;
    let enclosing = (a[2].max(b[2]) - a[0].min(b[0])) * (a[3].max(b[3]) - a[1].min(b[1]));
    let iou = intersection / union;
    Overlap { iou, giou: iou - (enclosing - union) / enclosing }
}

fn xyxy_from_cxcywh(b: [f32; 4]) -> [f32; 4] {
    let (half_w, half_h) = (0.5 * b[2].max(0.0), 0.5 * b[3].max(0.0));
    [b[0] - half_w, b[1] - half_h, b[0] + half_w, b[1] + half_h]
}

/// Box `i` of a `[N, 4]` tensor.
pub(crate) fn box_at(boxes: &[f32], i: usize) -> [f32; 4] {
    let b = &boxes[4 * i..4 * i + 4];
    [b[0], b[1], b[2], b[3]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn class_costs_of_known_logits() {
        // softmax([0, ln 3]) = [0.25, 0.75]
        let logits = [0.0, 3f32.ln()];
        let q = QueryLogits::new(&logits, ClassCost::Softmax);
        assert!((q.class_cost(0) + 0.25).abs() < 1e-6 && (q.class_cost(1) + 0.75).abs() < 1e-6);
        // p = 0.5: 0.25 * 0.25 * ln 2 - 0.75 * 0.25 * ln 2
        let q = QueryLogits::new(&logits, ClassCost::FOCAL);
        assert!((q.class_cost(0) + 0.125 * 2f32.ln()).abs() < 1e-6);
        // A class that is certain saves, one that is excluded costs, and neither is infinite.
        let q = QueryLogits::new(&[100.0, -100.0], ClassCost::FOCAL);
        assert!(q.class_cost(0) < -10.0 && q.class_cost(0).is_finite());
        assert!(q.class_cost(1) > 4.0 && q.class_cost(1).is_finite());
    }

    #[test]
    fn softmax_does_not_overflow() {
        let q = QueryLogits::new(&[1e30, 0.0, f32::NEG_INFINITY], ClassCost::Softmax);
        assert_eq!([q.class_cost(0), q.class_cost(1), q.class_cost(2)], [-1.0, -0.0, -0.0]);
        assert!(QueryLogits::new(&[f32::NAN, 0.0], ClassCost::Softmax).class_cost(1).is_nan());
    }

    #[test]
    fn overlaps_of_known_boxes() {
        let unit = [0.5, 0.5, 1.0, 1.0];
        assert_eq!(overlap_cxcywh(unit, unit), Overlap { iou: 1.0, giou: 1.0 });
        // Half a box beside: union 1.5, intersection 0.5, the enclosing box is full.
        let beside = overlap_cxcywh(unit, [1.0, 0.5, 1.0, 1.0]);
        assert!((beside.iou - 1.0 / 3.0).abs() < 1e-6 && (beside.giou - 1.0 / 3.0).abs() < 1e-6);
        // One box width apart: a third of the enclosing box is empty.
        let apart = overlap_cxcywh(unit, [2.5, 0.5, 1.0, 1.0]);
        assert!(apart.iou == 0.0 && (apart.giou + 1.0 / 3.0).abs() < 1e-6);
        assert!(overlap_cxcywh([0.5, 0.5, 0.0, 0.0], [0.5, 0.5, -1.0, 0.0]).giou.is_nan());
    }

    proptest! {
        #[test]
        fn overlap_is_bounded_symmetric_and_moves_with_the_boxes(
            a in prop::array::uniform4(0.05f32..1.0), b in prop::array::uniform4(0.05f32..1.0), shift in -2f32..2.0,
        ) {
            let o = overlap_cxcywh(a, b);
            prop_assert!((-1.0..=1.0 + 1e-6).contains(&o.giou) && (0.0..=1.0 + 1e-6).contains(&o.iou));
            prop_assert!(o.giou <= o.iou + 1e-6);
            prop_assert_eq!(o, overlap_cxcywh(b, a));
            let moved = |b: [f32; 4]| [b[0] + shift, b[1] - shift, b[2], b[3]];
            prop_assert!((overlap_cxcywh(moved(a), moved(b)).giou - o.giou).abs() < 1e-3);
        }
    }
}
