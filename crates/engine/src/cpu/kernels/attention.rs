//! Fused multi-head attention: `softmax(scale · q kᵀ + bias) v`, a few query rows at a time.
//!
//! The keys of a head are transposed into scratch memory, a block at a time; scores of a register tile's
//! rows stay in the first-level cache between the two products. With more than one block of keys the
//! softmax is kept as a running maximum and sum (Milakov and Gimelshein, "Online normalizer calculation for
//! softmax", 2018), so nothing grows with the number of keys.
use super::epilogue::Post;
use super::tile::{MAX_MR, Micro, Run};
use super::transpose::TransposeBlock;
use super::view::{View, ViewMut};
use crate::cpu::pool::Pool;
use crate::cpu::simd::{Kernel, Level, Simd, math};

/// Sizes of an attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionShape {
    /// Independent sequences (windows, images).
    pub batch: usize,
    /// Heads.
    pub heads: usize,
    /// Queries of a sequence.
    pub lq: usize,
    /// Keys of a sequence.
    pub lk: usize,
    /// Elements of a query and of a key of one head; at most 128.
    pub d: usize,
    /// Elements of a value of one head; at most 128.
    pub dv: usize,
    /// Factor of the scores, usually `1 / √d`.
    pub scale: f32,
}

/// The heads of queries, keys or values inside a pitched view `[batch · L, …]`: element `e` of head `h` of
/// row `r` is column `offset + h · stride + e`.
#[derive(Clone, Copy, Debug)]
pub struct Heads<'a> {
    /// `[batch · L, columns]`
    pub view: View<'a>,
    /// Column of head 0.
    pub offset: usize,
    /// Columns from a head to the next.
    pub stride: usize,
}

impl<'a> Heads<'a> {
    /// Heads side by side, from the view's first column: `[batch · L, heads · d]`.
    pub fn adjacent(view: View<'a>, d: usize) -> Self {
        Heads { view, offset: 0, stride: d }
    }

    #[track_caller]
    fn check(&self, rows: usize, heads: usize, d: usize, what: &str) {
        assert_eq!(self.view.rows(), rows, "rows of the {what}");
        let need = self.offset + heads.saturating_sub(1) * self.stride + d;
        assert!(need <= self.view.cols(), "{what} reach column {need} of {}", self.view.cols());
    }
}

/// Keys of a block.
const KEYS: usize = 512;
/// Queries of a chunk.
pub(super) const QUERIES: usize = 256;
/// Largest head.
pub(super) const MAX_D: usize = 128;
/// Scratch memory, in elements: transposed keys, padded values, scores, results so far, maxima, sums.
const SCORES_PITCH: usize = KEYS + 16;
const AT_VALUES: usize = MAX_D * KEYS;
const AT_SCORES: usize = AT_VALUES + MAX_D * KEYS;
const AT_RESULT: usize = AT_SCORES + MAX_MR * SCORES_PITCH;
const AT_MAXIMA: usize = AT_RESULT + QUERIES * MAX_D;
const AT_SUMS: usize = AT_MAXIMA + QUERIES;
const AT_TILE: usize = AT_SUMS + QUERIES;
/// Scratch memory that a [`Head`] takes.
pub(super) const HEAD_SCRATCH: usize = AT_TILE + MAX_MR * 32;
const _: () = assert!(HEAD_SCRATCH <= crate::cpu::pool::SCRATCH_LEN);

/// `out[batch · lq, heads · dv] = softmax(scale · q kᵀ + bias) v` for each head, heads side by side.
/// `bias`, if given, is `[heads, lq, lk]`, the same for all sequences.
#[allow(clippy::too_many_arguments)]
pub fn attention(
    level: Level,
    pool: &Pool,
    shape: AttentionShape,
    q: Heads,
    k: Heads,
    v: Heads,
    bias: Option<&[f32]>,
    out: ViewMut,
) {
    let s = shape;
    assert!(s.d <= MAX_D && s.dv <= MAX_D, "heads of {} and {}: at most {MAX_D} elements", s.d, s.dv);
    q.check(s.batch * s.lq, s.heads, s.d, "queries");
    k.check(s.batch * s.lk, s.heads, s.d, "keys");
    v.check(s.batch * s.lk, s.heads, s.dv, "values");
    assert_eq!((out.rows(), out.cols()), (s.batch * s.lq, s.heads * s.dv), "the output's size");
    if let Some(b) = bias {
        assert_eq!(b.len(), s.heads * s.lq * s.lk, "bias elements for {s:?}");
    }
    assert!(s.lk > 0 || out.rows() == 0, "an attention over no keys");
    let pairs = s.batch * s.heads;
    if pairs == 0 || s.lq == 0 {
        return;
    }
    // Cut the queries only as far as the threads need, since each part transposes the keys again.
    let wanted = if pool.threads() == 1 { 1 } else { pool.threads() * 4 };
    let parts = s.lq.div_ceil(QUERIES).max(wanted.div_ceil(pairs).min(s.lq.div_ceil(2 * MAX_MR)));
    // Small heads go several to a chunk, each asking for the memory of the next.
    let group = (pairs * parts / (wanted * 4)).clamp(1, s.heads.max(4));
    let all = pairs * parts;
    pool.parallel_for_scratch(all.div_ceil(group), |chunk, scratch| {
        let at = |h: &Heads, row: usize, head: usize| {
            h.view.ptr().wrapping_add(row * h.view.pitch() + h.offset + head * h.stride)
        };
        let place = |item: usize| {
            let (pair, part) = (item / parts, item % parts);
            let q0 = part * s.lq / parts;
            (pair / s.heads, pair % s.heads, q0, (part + 1) * s.lq / parts)
        };
        for item in chunk * group..((chunk + 1) * group).min(all) {
            let (batch, head, q0, q1) = place(item);
            let (next_batch, next_head, next_q0, _) = place((item + 1).min(all - 1));
            let kernel = Head {
                s,
                queries: q1 - q0,
                q: at(&q, batch * s.lq + q0, head),
                q_pitch: q.view.pitch(),
                k: at(&k, batch * s.lk, head),
                k_pitch: k.view.pitch(),
                v: at(&v, batch * s.lk, head),
                v_pitch: v.view.pitch(),
                bias: bias.map_or(std::ptr::null(), |b| b[(head * s.lq + q0) * s.lk..].as_ptr()),
                out: out.ptr().wrapping_add((batch * s.lq + q0) * out.pitch() + head * s.dv),
                out_pitch: out.pitch(),
                next: Some([
                    at(&q, next_batch * s.lq + next_q0, next_head),
                    at(&k, next_batch * s.lk, next_head),
                    at(&v, next_batch * s.lk, next_head),
                ]),
                scratch: scratch.as_mut_ptr(),
            };
            // SAFETY: sizes are checked above; items write disjoint rows or columns.
            unsafe { level.dispatch(kernel) };
        }
    });
}

/// Some queries of one head of one sequence.
pub(super) struct Head {
    pub s: AttentionShape,
    pub queries: usize,
    pub q: *const f32,
    pub q_pitch: usize,
    pub k: *const f32,
    pub k_pitch: usize,
    pub v: *const f32,
    pub v_pitch: usize,
    pub bias: *const f32,
    pub out: *mut f32,
    pub out_pitch: usize,
    /// Queries, keys and values of the head that comes next.
    pub next: Option<[*const f32; 3]>,
    /// [`HEAD_SCRATCH`] elements.
    pub scratch: *mut f32,
}

/// `S::NV` vectors at a time, the last time fewer.
#[inline(always)]
unsafe fn product<S: Simd>(micro: Micro, mr: usize, vectors: usize) {
    let mut v = 0;
    while v < vectors {
        let now = S::NV.min(vectors - v);
        let part = Micro {
            weights: micro.weights.wrapping_add(v * S::LANES),
            out: micro.out.wrapping_add(v * S::LANES),
            cols: now * S::LANES,
            ..micro
        };
        // SAFETY: the caller's promise: all `vectors` are there.
        unsafe { if now == 2 { part.rows::<S, 2>(mr) } else { part.rows::<S, 1>(mr) } }
        v += now;
    }
}

impl Kernel for Head {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let s = self.s;
        let tiles = self.queries.div_ceil(S::MR);
        let dv_vectors = s.dv.div_ceil(S::LANES);
        let blocks = s.lk.div_ceil(KEYS);
        // SAFETY: `attention` checked all sizes, and the constants above lay out the scratch memory. Queries,
        // keys and values are read inside their rows, except that values whose size fills no vector are
        // first copied and padded.
        unsafe {
            let keys = self.scratch;
            let scores = self.scratch.add(AT_SCORES);
            let result = self.scratch.add(AT_RESULT);
            let (maxima, sums) = (self.scratch.add(AT_MAXIMA), self.scratch.add(AT_SUMS));
            let tile_out = self.scratch.add(AT_TILE);
            if let Some([q, k, v]) = self.next.filter(|_| s.lq.max(s.lk) <= 256) {
                // The hardware does not foresee a walk down the columns of a head.
                for (first, pitch, rows, d) in [
                    (q, self.q_pitch, s.lq, s.d),
                    (k, self.k_pitch, s.lk, s.d),
                    (v, self.v_pitch, s.lk, s.dv),
                ] {
                    for row in 0..rows {
                        for c in (0..d).step_by(16) {
                            S::prefetch::<false>(first.wrapping_add(row * pitch + c));
                        }
                    }
                }
            }
            for block in 0..blocks {
                let k0 = block * s.lk / blocks;
                let n = (block + 1) * s.lk / blocks - k0;
                let vectors = n.div_ceil(S::LANES);
                let pitch = vectors * S::LANES;
                let k = self.k.add(k0 * self.k_pitch);
                let full = n / S::LANES * S::LANES;
                let block_of = |src, src_pitch, rows, dst| TransposeBlock {
                    src,
                    src_pitch,
                    rows,
                    cols: s.d,
                    dst,
                    dst_pitch: pitch,
                };
                S::vectorize(block_of(k, self.k_pitch, full, keys));
                if full < n {
                    // The last keys with zeros after them, so that they too go as whole vectors.
                    let tail = self.scratch.add(AT_VALUES);
                    std::slice::from_raw_parts_mut(tail, S::LANES * s.d).fill(0.0);
                    for r in full..n {
                        let to = tail.add((r - full) * s.d);
                        std::ptr::copy_nonoverlapping(k.add(r * self.k_pitch), to, s.d);
                    }
                    S::vectorize(block_of(tail.cast_const(), s.d, S::LANES, keys.add(full)));
                }
                let (mut values, mut values_step) = (self.v.add(k0 * self.v_pitch), self.v_pitch);
                if !s.dv.is_multiple_of(S::LANES) {
                    let padded = self.scratch.add(AT_VALUES);
                    let step = dv_vectors * S::LANES;
                    for r in 0..n {
                        for v in 0..dv_vectors {
                            let c = v * S::LANES;
                            let x = S::load_n(values.add(r * values_step + c), S::LANES.min(s.dv - c));
                            S::store(padded.add(r * step + c), x);
                        }
                    }
                    (values, values_step) = (padded, step);
                }
                // Added to a row's last vector: keys past the end get no weight.
                let mut past_end = [0f32; 16];
                let last = n - (vectors - 1) * S::LANES;
                past_end[last..].fill(f32::NEG_INFINITY);
                let past_end = S::load(past_end.as_ptr());

                for tile in 0..tiles {
                    let row = tile * self.queries / tiles;
                    let mr = (tile + 1) * self.queries / tiles - row;
                    let mut rows = [self.q; MAX_MR];
                    for (i, r) in rows.iter_mut().enumerate() {
                        *r = self.q.wrapping_add((row + i) * self.q_pitch);
                    }
                    let run = Run { k: 0, rows };
                    let to_scores = Micro {
                        runs: &run,
                        count: 1,
                        len: s.d,
                        weights: keys,
                        weights_step: pitch,
                        bias: std::ptr::null(),
                        out: scores,
                        step: SCORES_PITCH,
                        cols: 0,
                        post: Post::NONE,
                    };
                    product::<S>(to_scores, mr, vectors);

                    let scale = S::splat(s.scale);
                    for i in 0..mr {
                        let line = scores.add(i * SCORES_PITCH);
                        let mut top = S::splat(f32::NEG_INFINITY);
                        let tail = (vectors - 1) * S::LANES;
                        if self.bias.is_null() {
                            let mut c = 0;
                            while c < tail {
                                let x = S::mul(S::load(line.add(c)), scale);
                                S::store(line.add(c), x);
                                top = S::max(top, x);
                                c += S::LANES;
                            }
                            let x = S::fma(S::load(line.add(tail)), scale, past_end);
                            S::store(line.add(tail), x);
                            top = S::max(top, x);
                        } else {
                            let bias = self.bias.add((row + i) * s.lk + k0);
                            let mut c = 0;
                            while c < tail {
                                let x = S::fma(S::load(line.add(c)), scale, S::load(bias.add(c)));
                                S::store(line.add(c), x);
                                top = S::max(top, x);
                                c += S::LANES;
                            }
                            let b = S::add(S::load_n(bias.add(tail), last), past_end);
                            let x = S::fma(S::load(line.add(tail)), scale, b);
                            S::store(line.add(tail), x);
                            top = S::max(top, x);
                        }
                        let mut best = S::reduce_max(top);
                        let mut kept = 0.0;
                        if block > 0 {
                            let old = *maxima.add(row + i);
                            if old > best {
                                best = old;
                            }
                            // Minus infinity twice: nothing to keep.
                            kept = if old == best { 1.0 } else { (old - best).exp() };
                        }
                        *maxima.add(row + i) = best;
                        // A row whose keys are all masked has no finite maximum.
                        let shift = S::splat(if best == f32::NEG_INFINITY { 0.0 } else { best });
                        let mut sum = S::zero();
                        let mut c = 0;
                        while c < pitch {
                            let e = math::exp::<S>(S::sub(S::load(line.add(c)), shift));
                            S::store(line.add(c), e);
                            sum = S::add(sum, e);
                            c += S::LANES;
                        }
                        let mut total = S::reduce_add(sum);
                        if block > 0 {
                            total += kept * *sums.add(row + i);
                            let held = result.add((row + i) * MAX_D);
                            for v in 0..dv_vectors {
                                let p = held.add(v * S::LANES);
                                S::store(p, S::mul(S::load(p), S::splat(kept)));
                            }
                        }
                        *sums.add(row + i) = total;
                    }

                    let mut rows = [scores.cast_const(); MAX_MR];
                    for (i, r) in rows.iter_mut().enumerate() {
                        *r = scores.add(i * SCORES_PITCH);
                    }
                    let run = Run { k: 0, rows };
                    // `S::NV` vectors of values at a time, through a small buffer.
                    let mut v = 0;
                    while v < dv_vectors {
                        let now = S::NV.min(dv_vectors - v);
                        let to_values = Micro {
                            runs: &run,
                            count: 1,
                            len: n,
                            weights: values.add(v * S::LANES),
                            weights_step: values_step,
                            bias: std::ptr::null(),
                            out: tile_out,
                            step: now * S::LANES,
                            cols: 0,
                            post: Post::NONE,
                        };
                        product::<S>(to_values, mr, now);
                        for i in 0..mr {
                            let scale = S::splat(1.0 / *sums.add(row + i));
                            for j in 0..now {
                                let c = (v + j) * S::LANES;
                                let mut x = S::load(tile_out.add((i * now + j) * S::LANES));
                                let held = result.add((row + i) * MAX_D + c);
                                if block > 0 {
                                    x = S::add(x, S::load(held));
                                }
                                if block + 1 < blocks {
                                    S::store(held, x);
                                } else {
                                    let to = self.out.add((row + i) * self.out_pitch + c);
                                    let n = S::LANES.min(s.dv - c);
                                    super::rows::store::<S>(to, S::mul(x, scale), n);
                                }
                            }
                        }
                        v += now;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::kernels::testing::{Rng, everywhere};

    #[test]
    fn attention_agrees_with_f64() {
        let mut rng = Rng::seeded();
        everywhere(|level, pool| {
            for case in 0..40 {
                let (heads, d) = (rng.size(1, 4), rng.of(&[1, 8, 16, 20, 32, 64]));
                let dv = if rng.coin() { d } else { rng.of(&[3, 16, 24, 32]) };
                let (batch, lq, lk) = match case % 4 {
                    0 => (rng.size(1, 6), 49, 49),
                    1 => (1, rng.size(1, 9), rng.size(500, 1300)),
                    2 => (1, rng.size(200, 600), rng.size(1, 9)),
                    _ => (rng.size(1, 3), rng.size(1, 60), rng.size(1, 80)),
                };
                let shape = AttentionShape { batch, heads, lq, lk, d, dv, scale: rng.f32().abs() + 0.1 };
                // Queries, keys and values side by side in one buffer, with gaps.
                let (gap, rows) = (rng.size(0, 3), batch * lq.max(lk));
                let (sk, sv) = (d + gap, dv + gap);
                let mut buffer = rng.matrix(rows, heads * (2 * sk + sv));
                buffer.data.iter_mut().for_each(|x| *x *= 2.0);
                let all = buffer.view();
                let q = Heads { view: all.row_range(0, batch * lq), offset: 0, stride: sk };
                let k = Heads { view: all.row_range(0, batch * lk), offset: heads * sk, stride: sk };
                let v = Heads { view: all.row_range(0, batch * lk), offset: 2 * heads * sk, stride: sv };
                let bias = rng.coin().then(|| rng.vec(heads * lq * lk));
                let before = rng.matrix(batch * lq, heads * dv);
                let mut out = before.clone();
                attention(level, pool, shape, q, k, v, bias.as_deref(), out.view_mut());
                // Softmax weights of each row, once.
                let mut want = vec![0f64; batch * lq * heads * dv];
                for b in 0..batch {
                    for h in 0..heads {
                        for i in 0..lq {
                            let score = |j: usize| {
                                let dot: f64 = (0..d)
                                    .map(|e| {
                                        buffer.at(b * lq + i, q.offset + h * q.stride + e)
                                            * buffer.at(b * lk + j, k.offset + h * k.stride + e)
                                    })
                                    .sum();
                                let bias = bias.as_ref().map_or(0.0, |x| x[(h * lq + i) * lk + j] as f64);
                                dot * shape.scale as f64 + bias
                            };
                            let scores: Vec<f64> = (0..lk).map(score).collect();
                            let top = scores.iter().copied().fold(f64::MIN, f64::max);
                            let sum: f64 = scores.iter().map(|s| (s - top).exp()).sum();
                            for e in 0..dv {
                                let y: f64 = (0..lk)
                                    .map(|j| {
                                        (scores[j] - top).exp()
                                            * buffer.at(b * lk + j, v.offset + h * v.stride + e)
                                    })
                                    .sum();
                                want[((b * lq + i) * heads + h) * dv + e] = y / sum;
                            }
                        }
                    }
                }
                out.check(&before, 2e-5, &format!("{level:?} {shape:?}"), |r, c| want[r * heads * dv + c]);
            }
        });
    }

    #[test]
    fn scores_far_from_zero_and_masked_keys_do_no_harm() {
        everywhere(|level, pool| {
            let (lk, d) = (700, 16);
            let q = vec![100.0; d];
            let k: Vec<f32> = (0..lk * d).map(|i| -1.0 - (i / d) as f32).collect();
            let v: Vec<f32> = (0..lk * d).map(|i| (i / d) as f32).collect();
            let shape = AttentionShape { batch: 1, heads: 1, lq: 1, lk, d, dv: d, scale: 1.0 };
            let mut bias = vec![0.0; lk];
            bias[0] = f32::NEG_INFINITY;
            let mut out = vec![0.0; d];
            attention(
                level,
                pool,
                shape,
                Heads::adjacent(View::new(&q, 1, d, d), d),
                Heads::adjacent(View::new(&k, lk, d, d), d),
                Heads::adjacent(View::new(&v, lk, d, d), d),
                Some(&bias),
                ViewMut::new(&mut out, 1, d, d),
            );
            // Key 1 outweighs the rest by e^1600.
            assert_eq!(out, vec![1.0; d]);
        });
    }
}
