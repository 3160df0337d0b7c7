//! Bilinear resize of feature maps and masks.
use super::elementwise::by_rows;
use super::rows::{load, store};
use super::view::{Map, Out, View, ViewMut};
use crate::cpu::pool::{Pool, SCRATCH_LEN};
use crate::cpu::simd::{Kernel, Level, Simd};

/// The two source positions of an output position, and the weight of the second.
#[derive(Clone, Copy, Debug)]
struct Tap {
    low: usize,
    high: usize,
    weight: f32,
}

/// Positions and weights of a bilinear resize with half-pixel centres (PyTorch's `interpolate` with
/// `mode="bilinear", align_corners=False`), worked out once for a pair of sizes.
#[derive(Clone, Debug)]
pub struct ResizePlan {
    input: Map,
    output: Map,
    rows: Vec<Tap>,
    cols: Vec<Tap>,
}

impl ResizePlan {
    /// From `input`'s height and width to `output`'s; both have the same number of images.
    pub fn new(input: Map, output: Map) -> Self {
        assert_eq!(input.n, output.n, "a resize keeps the number of images");
        assert!(input.h > 0 && input.w > 0 || output.pixels() == 0, "a resize of an empty map");
        let taps = |from: usize, to: usize| {
            (0..to)
                .map(|i| {
                    let at = ((i as f32 + 0.5) * (from as f32 / to as f32) - 0.5).max(0.0);
                    let low = (at as usize).min(from - 1);
                    Tap { low, high: (low + 1).min(from - 1), weight: at - low as f32 }
                })
                .collect()
        };
        ResizePlan { input, output, rows: taps(input.h, output.h), cols: taps(input.w, output.w) }
    }
}

/// `out[N, OH, OW, C]` = bilinear resize of `x[N, H, W, C]`.
pub fn resize_bilinear(level: Level, pool: &Pool, plan: &ResizePlan, x: View, out: ViewMut) {
    plan.input.check(x.rows(), "the input");
    plan.output.check(out.rows(), "the output");
    assert_eq!(x.cols(), out.cols(), "input and output channels");
    let (from, to) = (Out(x.ptr().cast_mut()), Out(out.ptr()));
    let (x_pitch, out_pitch, channels) = (x.pitch(), out.pitch(), x.cols());
    let lines = plan.output.n * plan.output.h;
    // One dense channel: vectors along the width, through a line of scratch memory.
    let mask = channels == 1 && x_pitch == 1 && out_pitch == 1 && plan.input.w <= SCRATCH_LEN;
    let chunks = if pool.threads() == 1 { 1 } else { (pool.threads() * 6).min(lines.max(1)) };
    if mask {
        pool.parallel_for_scratch(chunks, |i, scratch| {
            let lines = i * lines / chunks..(i + 1) * lines / chunks;
            let line = scratch.as_mut_ptr();
            level.dispatch(MaskLines { plan, x: from.get(), out: to.get(), lines, line });
        });
    } else {
        by_rows(pool, lines, plan.output.w * channels, 4096, |lines| {
            level.dispatch(MapLines {
                plan,
                x: from.get(),
                x_pitch,
                out: to.get(),
                out_pitch,
                channels,
                lines,
            });
        });
    }
}

struct MapLines<'a> {
    plan: &'a ResizePlan,
    x: *const f32,
    x_pitch: usize,
    out: *mut f32,
    out_pitch: usize,
    channels: usize,
    lines: std::ops::Range<usize>,
}

impl Kernel for MapLines<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (input, output) = (self.plan.input, self.plan.output);
        for line in self.lines.clone() {
            let (image, oy) = (line / output.h, line % output.h);
            let ty = self.plan.rows[oy];
            for (ox, tx) in self.plan.cols.iter().enumerate() {
                let at = |y: usize, x: usize| {
                    self.x.wrapping_add(((image * input.h + y) * input.w + x) * self.x_pitch)
                };
                let (a, b) = (at(ty.low, tx.low), at(ty.low, tx.high));
                let (c, d) = (at(ty.high, tx.low), at(ty.high, tx.high));
                let to = self.out.wrapping_add((line * output.w + ox) * self.out_pitch);
                let mut i = 0;
                while i < self.channels {
                    let n = S::LANES.min(self.channels - i);
                    // SAFETY: the plan's positions are inside the input; `n` channels are left.
                    unsafe {
                        let (wx, wy) = (S::splat(tx.weight), S::splat(ty.weight));
                        let mix = |p: S::V, q: S::V, w: S::V| S::fma(w, S::sub(q, p), p);
                        let top = mix(load::<S>(a.add(i), n), load::<S>(b.add(i), n), wx);
                        let bottom = mix(load::<S>(c.add(i), n), load::<S>(d.add(i), n), wx);
                        store::<S>(to.add(i), mix(top, bottom, wy), n);
                    }
                    i += S::LANES;
                }
            }
        }
    }
}

struct MaskLines<'a> {
    plan: &'a ResizePlan,
    x: *const f32,
    out: *mut f32,
    lines: std::ops::Range<usize>,
    /// Scratch for one input line.
    line: *mut f32,
}

impl Kernel for MaskLines<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (input, output) = (self.plan.input, self.plan.output);
        for line in self.lines.clone() {
            let (image, oy) = (line / output.h, line % output.h);
            let ty = self.plan.rows[oy];
            // SAFETY: the plan's positions are inside the input line, which is inside the scratch memory.
            unsafe {
                let low = self.x.add((image * input.h + ty.low) * input.w);
                let high = self.x.add((image * input.h + ty.high) * input.w);
                let w = S::splat(ty.weight);
                let mut i = 0;
                while i < input.w {
                    let n = S::LANES.min(input.w - i);
                    let (p, q) = (load::<S>(low.add(i), n), load::<S>(high.add(i), n));
                    store::<S>(self.line.add(i), S::fma(w, S::sub(q, p), p), n);
                    i += S::LANES;
                }
                let to = self.out.add(line * output.w);
                for (ox, t) in self.plan.cols.iter().enumerate() {
                    let (p, q) = (*self.line.add(t.low), *self.line.add(t.high));
                    *to.add(ox) = p + t.weight * (q - p);
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
    fn resize_agrees_with_naive_loops() {
        let mut rng = Rng::seeded();
        everywhere(|level, pool| {
            for _ in 0..40 {
                let input = Map::new(rng.size(1, 2), rng.size(1, 20), rng.size(1, 30));
                let output = Map::new(input.n, rng.size(1, 40), rng.size(1, 60));
                let c = rng.of(&[1, 1, 7, 16, 33]);
                let x = rng.matrix(input.pixels(), c);
                let before = rng.matrix(output.pixels(), c);
                let mut out = before.clone();
                let plan = ResizePlan::new(input, output);
                resize_bilinear(level, pool, &plan, x.view(), out.view_mut());
                out.check(&before, 1e-5, &format!("{level:?} {input:?} {output:?} {c}"), |row, c| {
                    let (image, oy, ox) =
                        (row / output.w / output.h, row / output.w % output.h, row % output.w);
                    let axis = |i: usize, from: usize, to: usize| {
                        let at =
                            ((i as f64 + 0.5) * from as f64 / to as f64 - 0.5).clamp(0.0, from as f64 - 1.0);
                        (at.floor() as usize, (at.floor() as usize + 1).min(from - 1), at.fract())
                    };
                    let (y0, y1, wy) = axis(oy, input.h, output.h);
                    let (x0, x1, wx) = axis(ox, input.w, output.w);
                    let at = |y: usize, ix: usize| x.at((image * input.h + y) * input.w + ix, c);
                    (1.0 - wy) * ((1.0 - wx) * at(y0, x0) + wx * at(y0, x1))
                        + wy * ((1.0 - wx) * at(y1, x0) + wx * at(y1, x1))
                });
            }
        });
    }
}
