//! Attention over keys, inside windows, and over sampled points.

use super::networks::{linear_packed, values};
use super::{Context, Lowered};
use crate::cpu::kernels::{
    self, Act, AttentionShape, Epilogue, Heads, LayerNorm, Map, SampledLevel, SamplingPoints, WindowAttention,
};
use crate::error::OutOfMemory;
use crate::graph::Op;

pub(super) fn attention(context: &Context<'_>) -> Lowered {
    let Op::Attention { heads, scale, bias } = context.node.op else { unreachable!("dispatched on the op") };
    let [q_shape, k_shape, v_shape] = [0, 1, 2].map(|i| context.input_shape(i).clone());
    let (d, dv) = (q_shape[2] / heads, v_shape[2] / heads);
    let (lq, lk) = (q_shape[1], k_shape[1]);
    let (shared_q, shared_k) = (q_shape[0] == 1, k_shape[0] == 1);
    let (q, k, v, mut out) = (context.input(0), context.input(1), context.input(2), context.output());
    let bias = bias.then(|| context.input(3));
    let level = context.level;
    let flops = 2 * (context.output_shape()[0] * heads * lq * lk * (d + dv)) as u64;
    let kernel = Box::new(move |call: &super::Call<'_>| {
        let (q, k, v) = (q.view(call.entries), k.view(call.entries), v.view(call.entries));
        let mut out = out.view_mut(call.entries);
        let bias = bias.as_ref().map(|b| b.slice().f32());
        let batch = out.rows() / lq;
        // Sequences that share their queries or their keys are attended one at a time.
        let at_once = if batch > 1 && (shared_q || shared_k) { 1 } else { batch };
        for first in (0..batch).step_by(at_once.max(1)) {
            let shape = AttentionShape { batch: at_once, heads, lq, lk, d, dv, scale };
            let [q, k, v] = [(q, lq, shared_q, d), (k, lk, shared_k, d), (v, lk, shared_k, dv)].map(
                |(view, l, shared, dim)| {
                    let (start, n) = if shared { (0, 1) } else { (first, at_once) };
                    Heads::adjacent(view.row_range(start * l, n * l), dim)
                },
            );
            let out = out.reborrow().row_range(first * lq, at_once * lq);
            kernels::attention(level, call.pool, shape, q, k, v, bias, out);
        }
    });
    Lowered { kernel, name: "attention".into(), flops }
}

pub(super) fn window_attention(context: &Context<'_>) -> Result<Lowered, OutOfMemory> {
    let Op::WindowAttention { window, heads, epsilon } = context.node.op else {
        unreachable!("dispatched on the op")
    };
    let shape = context.input_shape(0).clone();
    let (h, w, c) = (shape[1], shape[2], shape[3]);
    let pack = |weight: usize, n: usize| {
        let bias = Some(values(context, weight + 1).to_vec());
        linear_packed(context, weight, n, c, Epilogue { bias, ..Epilogue::default() })
    };
    let (qkv, project) = (pack(3, 3 * c)?, pack(6, c)?);
    let (x, gamma, beta, bias, mut out) =
        (context.input(0), context.input(1), context.input(2), context.input(5), context.output());
    let d = c / heads;
    let area = window * window;
    let windows = shape[0] * h.div_ceil(window) * w.div_ceil(window);
    Ok(Lowered {
        name: "window_attention".into(),
        flops: 2 * (windows * area * (4 * c * c + 2 * c * area)) as u64,
        kernel: Box::new(move |call| {
            let view = x.view(call.entries);
            let layer = WindowAttention {
                map: Map::new(view.rows() / (h * w), h, w),
                side: window,
                norm: LayerNorm {
                    gamma: gamma.slice().f32(),
                    beta: beta.slice().f32(),
                    eps: epsilon,
                    act: Act::None,
                },
                qkv: &qkv,
                offsets: [0, c, 2 * c],
                head_stride: d,
                heads,
                d,
                dv: d,
                scale: 1.0 / (d as f32).sqrt(),
                bias: Some(bias.slice().f32()),
                project: &project,
            };
            kernels::window_attention(call.pool, view, &layer, Some(view), out.view_mut(call.entries));
        }),
    })
}

pub(super) fn deformable(context: &Context<'_>) -> Lowered {
    let Op::DeformableAttention { heads, levels_hw, points_per_level } = context.node.op.clone() else {
        unreachable!("dispatched on the op")
    };
    let levels: Vec<SampledLevel> = (levels_hw.iter().zip(&points_per_level))
        .map(|(&[h, w], &points)| SampledLevel { h, w, points })
        .collect();
    let [value, offsets, logits, boxes] = [0, 1, 2, 3].map(|i| context.input(i));
    let (level, mut out) = (context.level, context.output());
    Lowered::new("deformable_attention", move |call| {
        let out = out.view_mut(call.entries);
        let [offsets, logits, boxes] = [&offsets, &logits, &boxes].map(|o| o.leading(out.rows()));
        let points = SamplingPoints { offsets, logits, boxes };
        kernels::deformable(level, call.pool, 1, heads, &levels, value.view(None), points, out);
    })
}
