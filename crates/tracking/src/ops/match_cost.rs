//! `match_cost`: the cost matrix of [`HungarianMatcher`] on the device, and with [`assign`](super::assign()) the
//! whole matcher.

use super::cuda::MATCH_COST;
use super::{Assign, AssignTensors, assign, describe, holds, tensor};
use crate::assignment::cost::{NAN_COST, QueriesAndTargets, TAKEN_COST, fill_costs};
use crate::assignment::{ClassCost, CostWeights, HungarianMatcher};
use bytemuck::{Pod, Zeroable};
use std::sync::Arc;
use ultramotion_engine::graph::{
    BinaryOp, CpuCall, CudaCall, CustomOp, Graph, GraphError, Tensor, TensorType,
};
use ultramotion_engine::launch::{Launch, Operand};
use ultramotion_engine::reference::Values;
use ultramotion_engine::tensor::{DType, HostTensor};

/// The op. Inputs: logits `[Q, C]`, boxes `[Q, 4]`, target labels `[T]` i32, target boxes `[T, 4]`. Output: costs
/// `[Q, T]` as by [`fill_costs`].
#[derive(Clone, Copy, Debug)]
pub struct MatchCost {
    /// Softmax probability or focal.
    pub class_cost: ClassCost,
    /// How much each term counts.
    pub weights: CostWeights,
}

/// Targets on the device, with room for T.
#[derive(Clone, Copy, Debug)]
pub struct TargetTensors {
    /// `[T]` i32, 0 to C − 1.
    pub labels: Tensor,
    /// `[T, 4]`.
    pub boxes_cxcywh: Tensor,
    /// `[1]` i32: how many there are.
    pub count: Tensor,
}

/// Adds a matcher to a graph: which of Q queries answers for which target, one round of
/// [`HungarianMatcher::assign`]. Rows of the result are queries, columns targets. `logits` is `[Q, C]`,
/// `boxes_cxcywh` `[Q, 4]`. A target whose label is no class stays unmatched.
pub fn match_targets(
    graph: &mut Graph,
    matcher: &HungarianMatcher,
    logits: Tensor,
    boxes_cxcywh: Tensor,
    targets: TargetTensors,
) -> Result<AssignTensors, GraphError> {
    match_above(graph, matcher, logits, boxes_cxcywh, targets, None)
}

/// The same, but that a query's pairs cost at least its `floor` (`[Q, 1]`).
pub(super) fn match_above(
    graph: &mut Graph,
    matcher: &HungarianMatcher,
    logits: Tensor,
    boxes_cxcywh: Tensor,
    targets: TargetTensors,
    floor: Option<Tensor>,
) -> Result<AssignTensors, GraphError> {
    let op = MatchCost { class_cost: matcher.class_cost(), weights: matcher.weights() };
    let inputs = [logits, boxes_cxcywh, targets.labels, targets.boxes_cxcywh];
    let mut cost = graph.custom(Arc::new(op), &inputs)?[0];
    if let Some(floor) = floor {
        cost = graph.binary(BinaryOp::Max, cost, floor)?;
    }
    let all_queries = i32::try_from(graph.shape(cost)[0]).unwrap_or(i32::MAX);
    let row_count = graph.constant(HostTensor::i32([1], vec![all_queries]));
    let op = Assign { solver: matcher.mode().into(), unmatched_cost: f64::INFINITY };
    assign(graph, op, cost, row_count, targets.count)
}

/// The params of `match_cost.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct MatchCostParams {
    logits: Operand,
    boxes: u64,
    labels: u64,
    targets: u64,
    costs: u64,
    target_count: u32,
    focal: u32,
    alpha: f32,
    gamma: f32,
    class_weight: f32,
    bbox_weight: f32,
    giou_weight: f32,
    nan_cost: f32,
    taken_cost: f32,
    reserved: u32,
}

impl CustomOp for MatchCost {
    fn name(&self) -> &str {
        "match_cost"
    }

    fn output_types(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, String> {
        let refused = || {
            format!(
                "needs logits f32 [Q, C], boxes f32 [Q, 4], target labels i32 [T], target boxes f32 [T, 4], got {}",
                describe(inputs)
            )
        };
        let [logits, boxes, labels, target_boxes] = inputs else { return Err(refused()) };
        if logits.shape.rank() != 2 || logits.dtype != DType::F32 || labels.dtype != DType::I32 {
            return Err(refused());
        }
        let (queries, targets) = (logits.shape[0], labels.shape.numel());
        if !holds(boxes, DType::F32, 4 * queries) || !holds(target_boxes, DType::F32, 4 * targets) {
            return Err(refused());
        }
        Ok(vec![tensor(DType::F32, [queries, targets])])
    }

    fn reference(&self, inputs: &[Values], outputs: &mut [Values]) {
        let [logits, boxes, labels, target_boxes] = inputs else { panic!("match_cost has four arguments") };
        let classes = logits.shape[1];
        let targets = labels.as_i32().len();
        for (k, to) in outputs[0].f64_mut().iter_mut().enumerate() {
            let (q, t) = (k / targets, k % targets);
            let row = &logits.as_f64()[q * classes..][..classes];
            let (a, b) = (&boxes.as_f64()[4 * q..][..4], &target_boxes.as_f64()[4 * t..][..4]);
            *to = match usize::try_from(labels.as_i32()[t]) {
                Ok(label) if label < classes => self.cost_f64(row, label, a, b),
                _ => f64::INFINITY,
            };
        }
    }

    fn cpu(&self, call: &mut CpuCall<'_>) {
        let [logits, boxes, labels, target_boxes] = call.inputs else {
            panic!("match_cost has four arguments")
        };
        let of = QueriesAndTargets {
            logits: logits.f32(),
            num_classes: (4 * logits.f32().len()).checked_div(boxes.f32().len()).unwrap_or(0),
            boxes_cxcywh: boxes.f32(),
            target_labels: labels.i32(),
            target_boxes_cxcywh: target_boxes.f32(),
        };
        fill_costs(&of, self.class_cost, self.weights, call.outputs[0].f32());
    }
    fn cuda(&self, call: &CudaCall<'_>) -> Option<Vec<Launch>> {
        let &[logits, boxes, labels, targets] = call.inputs else { panic!("match_cost has four arguments") };
        let (focal, alpha, gamma) = match self.class_cost {
            ClassCost::Softmax => (0, 0.0, 0.0),
            ClassCost::Focal { alpha, gamma } => (1, alpha, gamma),
        };
        let target_count = labels.rows * labels.cols;
        let params = MatchCostParams {
            logits,
            boxes: boxes.data,
            labels: labels.data,
            targets: targets.data,
            costs: call.outputs[0].data,
            target_count,
            focal,
            alpha,
            gamma,
            class_weight: self.weights.class,
            bbox_weight: self.weights.bbox,
            giou_weight: self.weights.giou,
            nan_cost: NAN_COST,
            taken_cost: TAKEN_COST,
            reserved: 0,
        };
        let blocks = (logits.rows * target_count).div_ceil(128);
        let launch = Launch::new(&MATCH_COST, "match_cost", &params);
        Some(vec![launch.grid([blocks, 1, 1]).block([128, 1, 1])])
    }
}

impl MatchCost {
    /// The definition: one pair, in float64, term by term as in the papers.
    fn cost_f64(&self, logits: &[f64], label: usize, a: &[f64], b: &[f64]) -> f64 {
        let class = match self.class_cost {
            ClassCost::Softmax => {
                // Relative to the largest: the same quotient, without overflow.
                let highest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                -(logits[label] - highest).exp() / logits.iter().map(|l| (l - highest).exp()).sum::<f64>()
            }
            ClassCost::Focal { alpha, gamma } => {
                let (alpha, gamma) = (f64::from(alpha), f64::from(gamma));
                let p = 1.0 / (1.0 + (-logits[label]).exp());
                alpha * (1.0 - p).powf(gamma) * -(p + 1e-8).ln()
                    - (1.0 - alpha) * p.powf(gamma) * -(1.0 - p + 1e-8).ln()
            }
        };
        let l1: f64 = a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum();
        let side = |b: &[f64], axis: usize| {
            let half = 0.5 * b[2 + axis].max(0.0);
            (b[axis] - half, b[axis] + half)
        };
        let (mut intersection, mut enclosing, mut area_a, mut area_b) = (1.0, 1.0, 1.0, 1.0);
        for axis in 0..2 {
            let ((a0, a1), (b0, b1)) = (side(a, axis), side(b, axis));
            intersection *= (a1.min(b1) - a0.max(b0)).max(0.0);
            enclosing *= a1.max(b1) - a0.min(b0);
            area_a *= a1 - a0;
            area_b *= b1 - b0;
        }
        let union = area_a + area_b - intersection;
        let giou = intersection / union - (enclosing - union) / enclosing;
        let CostWeights { class: w_class, bbox, giou: w_giou } = self.weights;
        let cost = f64::from(w_class) * class + f64::from(bbox) * l1 - f64::from(w_giou) * giou;
        if cost.is_nan() {
            f64::from(NAN_COST)
        } else if cost.is_infinite() {
            f64::from(TAKEN_COST).copysign(cost)
        } else {
            cost
        }
    }
}
