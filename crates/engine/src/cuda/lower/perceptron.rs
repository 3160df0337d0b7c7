//! A few small linear layers in turn, with a sum before them and a layer norm after, as one kernel.

use bytemuck::{Pod, Zeroable};

use super::gemm::{self, EpilogueArguments};
use super::modules::PERCEPTRON;
use super::networks::{epilogue_arguments, values};
use super::{Context, Lowered};
use crate::cuda::plan::MAX_LAYERS;
use crate::error::CudaError;
use crate::graph::Op;
use crate::launch::Launch;
use crate::launch::abi::{Operand, Rows};

/// Rows and threads of a block, and how K is padded: as in `perceptron.cu`.
const ROWS: u32 = 16;
const THREADS: u32 = 512;
const SLAB: usize = 32;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Layer {
    finish: EpilogueArguments,
    weights: u64,
    n: u32,
    k: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct PerceptronParams {
    x: Operand,
    added: Operand,
    out: Operand,
    rows: Rows,
    layers: [Layer; MAX_LAYERS],
    gamma: u64,
    beta: u64,
    count: u32,
    x_width: u32,
    out_width: u32,
    pitch: u32,
    sums_pitch: u32,
    epsilon: f32,
}

/// Binds `nodes`, the last of which is the context's: perhaps a sum, linear layers, perhaps a layer norm.
pub(super) fn perceptron(context: &Context<'_>, nodes: &[usize]) -> Result<Lowered, CudaError> {
    let at = |index: usize| Context { index, node: &context.plan.graph.nodes()[index], ..*context };
    let (mut layers, mut count) = ([Layer::zeroed(); MAX_LAYERS], 0);
    let mut names = Vec::new();
    let (mut widest_n, mut widest_k, mut multiplied) = (0, 0, 0);
    let (mut gamma, mut beta, mut norm_epsilon) = (0, 0, 0.0);
    for context in nodes.iter().map(|&index| at(index)) {
        match &context.node.op {
            Op::Linear { bias, epilogue } => {
                let &[n, k] = context.input_shape(1).dims() else { unreachable!("checked by the builder") };
                let weight = values(&context, 1);
                let padded = [n.next_multiple_of(8), k.next_multiple_of(SLAB)];
                let weights = gemm::keep_weights(&context, true, padded, |row, col| {
                    if row < n && col < k { weight[row * k + col] } else { 0.0 }
                })?;
                let finish = epilogue_arguments(&context, epilogue, *bias)?;
                layers[count] = Layer { finish, weights: weights.data, n: n as u32, k: padded[1] as u32 };
                names.push(format!("linear{epilogue}"));
                (widest_n, widest_k) = (widest_n.max(padded[0] as u32), widest_k.max(padded[1] as u32));
                multiplied += n * k;
                count += 1;
            }
            Op::LayerNorm { epsilon, .. } => {
                (gamma, beta, norm_epsilon) = (context.input(1)?.data, context.input(2)?.data, *epsilon);
                names.push("layer_norm".into());
            }
            other => names.push(other.name().into()),
        }
    }
    let first = at(nodes[0]);
    let x = first.input(0)?;
    let added = if matches!(first.node.op, Op::Linear { .. }) { Operand::NONE } else { first.input(1)? };
    let (out, rows) = (context.output()?, context.rows()?);
    let x_width = EpilogueArguments::NONE.width(&x).min(if added.data == 0 {
        8
    } else {
        EpilogueArguments::NONE.width(&added)
    });
    // Rows of activations start on different banks, and so do those of sums.
    let (pitch, sums_pitch) = (widest_k.next_multiple_of(64) + 32, widest_n + 4);
    let params = PerceptronParams {
        x,
        added,
        out,
        rows,
        layers,
        gamma,
        beta,
        count: count as u32,
        x_width,
        out_width: layers[count - 1].finish.width(&out),
        pitch,
        sums_pitch,
        epsilon: norm_epsilon,
    };
    let launch = Launch::new(&PERCEPTRON, "perceptron_f16", &params)
        .grid([rows.bound.div_ceil(ROWS), 1, 1])
        .block([THREADS, 1, 1])
        .shared(ROWS * (4 * sums_pitch + 2 * pitch));
    let flops = 2 * (context.output_shape().rows() * multiplied) as u64;
    Ok(Lowered { flops, ..Lowered::new(names.join(", "), vec![launch]) })
}
