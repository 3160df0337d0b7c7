//! Attention.

use super::{Lowered, Site};
use crate::cpu::kernels::{self, AttentionShape, Heads};
use crate::graph::Op;

pub(super) fn attention(site: &mut Site<'_>) -> Lowered {
    let Op::Attention { heads, scale, bias } = site.node.op else { unreachable!("dispatched on the op") };
    let [q_shape, k_shape, v_shape] = [0, 1, 2].map(|i| site.input_shape(i).clone());
    let (d, dv) = (q_shape[2] / heads, v_shape[2] / heads);
    let (lq, lk) = (q_shape[1], k_shape[1]);
    let (shared_q, shared_k) = (q_shape[0] == 1, k_shape[0] == 1);
    let (q, k, v, out) = (site.input(0), site.input(1), site.input(2), site.output());
    let bias = bias.then(|| site.input(3));
    let level = site.level;
    let flops = 2 * (site.output_shape()[0] * heads * lq * lk * (d + dv)) as u64;
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
    Lowered { kernel, name: "attention".into(), flops, packed_bytes: 0 }
}
