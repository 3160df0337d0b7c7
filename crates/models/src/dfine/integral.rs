//! Boxes from the distributions of their edges, as one op: the softmax over an edge's bins, the mean offset under it, and the
//! initial box with its edges moved by these offsets (D-FINE, section 4.1, equations 1 and 2).

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use ultramotion_engine::graph::{CpuCall, CudaCall, CustomOp, Graph, GraphError, Tensor, TensorType};
use ultramotion_engine::launch::{Launch, Module};
use ultramotion_engine::reference::Values;
use ultramotion_engine::tensor::DType;

/// Adds the op. edge_logits `[Q, 4 · bins]` (left, top, right, bottom), initial boxes (cx, cy, w, h) `[Q, 4]`, offsets of the
/// bins `[bins]`, outwards, in widths or heights of the initial box → boxes (cx, cy, w, h) `[Q, 4]`.
pub(super) fn box_integral(
    g: &mut Graph,
    edge_logits: Tensor,
    initial: Tensor,
    offsets: Tensor,
) -> Result<Tensor, GraphError> {
    Ok(g.custom(Arc::new(BoxIntegral), &[edge_logits, initial, offsets])?[0])
}

#[derive(Debug)]
struct BoxIntegral;

static MODULE: Module =
    Module { name: "box_integral", ptx: ultramotion_engine::ptx!("../kernels/ptx/box_integral.ptx") };
/// Threads of a block; a warp takes a query.
const THREADS: u32 = 128;

/// The params of `box_integral.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct CudaParams {
    logits: u64,
    initial: u64,
    offsets: u64,
    boxes: u64,
    queries: u32,
    bins: u32,
}

impl CustomOp for BoxIntegral {
    fn name(&self) -> &str {
        "box_integral"
    }

    fn output_types(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, String> {
        let [logits, initial, offsets] = inputs else {
            return Err(format!("takes logits, boxes and offsets, got {} tensors", inputs.len()));
        };
        let shapes = [logits, initial, offsets].map(|t| &t.shape);
        let fits = inputs.iter().all(|t| t.dtype == DType::F32)
            && shapes[0].rank() == 2
            && shapes[1].dims() == [shapes[0][0], 4]
            && shapes[2].numel() > 0
            && shapes[2].dims() == [shapes[0][1] / 4]
            && shapes[0][1].is_multiple_of(4);
        if !fits {
            let [l, i, o] = shapes;
            return Err(format!(
                "needs f32 logits [Q, 4 · bins], boxes [Q, 4], offsets [bins], got {l}, {i}, {o}"
            ));
        }
        Ok(vec![TensorType { dtype: DType::F32, shape: initial.shape.clone(), rows: None }])
    }

    fn reference(&self, inputs: &[Values], outputs: &mut [Values]) {
        let [logits, initial, offsets] = [0, 1, 2].map(|i| inputs[i].as_f64());
        let bins = offsets.len();
        for (query, to) in outputs[0].f64_mut().chunks_exact_mut(4).enumerate() {
            let moved = [0, 1, 2, 3].map(|edge| {
                let own = &logits[(query * 4 + edge) * bins..][..bins];
                let highest = own.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights = own.iter().map(|l| (l - highest).exp());
                let total: f64 = weights.clone().sum();
                weights.zip(offsets).map(|(w, o)| w * o).sum::<f64>() / total
            });
            let from = &initial[query * 4..][..4];
            for axis in 0..2 {
                let (before, after, extent) = (moved[axis], moved[axis + 2], from[axis + 2]);
                to[axis] = from[axis] + (after - before) / 2.0 * extent;
                to[axis + 2] = extent + (before + after) * extent;
            }
        }
    }

    fn cpu(&self, call: &mut CpuCall<'_>) {
        let [logits, initial, offsets] = [0, 1, 2].map(|i| call.inputs[i].f32());
        let bins = offsets.len();
        let boxes = call.outputs[0].f32();
        let queries = logits.chunks_exact(4 * bins).zip(initial.as_chunks::<4>().0);
        for ((edges, from), to) in queries.zip(boxes.as_chunks_mut::<4>().0) {
            let mut moved = [0.0; 4];
            for (own, moved) in edges.chunks_exact(bins).zip(&mut moved) {
                let highest = own.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let (mut total, mut sum) = (0.0, 0.0);
                for (logit, offset) in own.iter().zip(offsets) {
                    let weight = (logit - highest).exp();
                    total += weight;
                    sum += weight * offset;
                }
                *moved = sum / total;
            }
            for axis in 0..2 {
                let (before, after, extent) = (moved[axis], moved[axis + 2], from[axis + 2]);
                to[axis] = from[axis] + 0.5 * (after - before) * extent;
                to[axis + 2] = extent + (before + after) * extent;
            }
        }
    }

    fn cuda(&self, call: &CudaCall<'_>) -> Option<Vec<Launch>> {
        let [logits, initial, offsets] = [0, 1, 2].map(|i| call.inputs[i].data);
        let (queries, bins) = (call.outputs[0].rows, call.input_types[2].shape.numel() as u32);
        let params = CudaParams { logits, initial, offsets, boxes: call.outputs[0].data, queries, bins };
        let launch = Launch::new(&MODULE, "box_integral", &params);
        Some(vec![launch.grid([(queries * 32).div_ceil(THREADS), 1, 1]).block([THREADS, 1, 1])])
    }
}
