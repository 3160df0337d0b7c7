//! Multi-scale deformable attention's sampling (Zhu et al., "Deformable DETR", 2021, eq. 3; with a number of
//! points for each level as in D-FINE).
use super::elementwise::by_rows;
use super::rows::{SoftmaxRow, load, store};
use super::view::{View, ViewMut};
use crate::cpu::pool::Pool;
use crate::cpu::simd::{Kernel, Level, Simd};
use crate::graph::MAX_SAMPLING_POINTS;

/// A feature level of a [`deformable`] attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampledLevel {
    /// Height of the level's map.
    pub h: usize,
    /// Width of the level's map.
    pub w: usize,
    /// Points that each head samples in it.
    pub points: usize,
}

/// Where the heads of a [`deformable`] attention sample, and how much each point counts; P points for each head, level by level.
#[derive(Clone, Copy, Debug)]
pub struct SamplingPoints<'a> {
    /// `[batch · queries, heads · P · 2]`: `(x, y)` from the centre of the box, in shares of it.
    pub offsets: View<'a>,
    /// `[batch · queries, heads · P]`: a point counts by the softmax over those of its head.
    pub logits: View<'a>,
    /// `[batch · queries, 4]`: centre, width and height in `[0, 1]` of each map.
    pub boxes: View<'a>,
}

/// For each query and head, the weighted sum of bilinear samples (zeros outside, `align_corners=False`).
///
/// - `value` `[batch · Σ h·w, heads · d]`, levels one after the other
/// - `out` `[batch · queries, heads · d]`
#[allow(clippy::too_many_arguments)]
pub fn deformable(
    level: Level,
    pool: &Pool,
    batch: usize,
    heads: usize,
    levels: &[SampledLevel],
    value: View,
    at: SamplingPoints,
    out: ViewMut,
) {
    let pixels: usize = levels.iter().map(|l| l.h * l.w).sum();
    let points: usize = levels.iter().map(|l| l.points).sum();
    assert!(batch > 0 && heads > 0, "a deformable attention of {batch} images and {heads} heads");
    assert_eq!(value.rows(), batch * pixels, "rows of the values");
    assert!((1..=MAX_SAMPLING_POINTS).contains(&points), "{points} points");
    assert_eq!((at.offsets.rows(), at.offsets.cols()), (out.rows(), heads * points * 2), "offsets");
    assert_eq!((at.logits.rows(), at.logits.cols()), (out.rows(), heads * points), "logits");
    assert_eq!((at.boxes.rows(), at.boxes.cols()), (out.rows(), 4), "boxes");
    assert_eq!(value.cols(), out.cols(), "columns of values and output");
    assert_eq!(out.cols() % heads, 0, "columns of {heads} heads");
    assert_eq!(out.rows() % batch, 0, "queries of {batch} images");
    let queries = out.rows() / batch;
    by_rows(pool, out.rows(), heads * points * 64, 16 * 1024, |rows| {
        let kernel = Queries {
            heads,
            points,
            pixels,
            queries,
            levels,
            value,
            at,
            out: out.ptr(),
            out_pitch: out.pitch(),
            rows,
        };
        // SAFETY: sizes are checked above; chunks write disjoint rows.
        unsafe { level.dispatch(kernel) };
    });
}

struct Queries<'a> {
    heads: usize,
    points: usize,
    pixels: usize,
    queries: usize,
    levels: &'a [SampledLevel],
    value: View<'a>,
    at: SamplingPoints<'a>,
    out: *mut f32,
    out_pitch: usize,
    rows: std::ops::Range<usize>,
}

impl Kernel for Queries<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let d = self.value.cols() / self.heads;
        let pitch = self.value.pitch();
        for row in self.rows.clone() {
            let (offsets, logits, shape) =
                (self.at.offsets.row(row), self.at.logits.row(row), self.at.boxes.row(row));
            for head in 0..self.heads {
                let mut weights = [0.0; MAX_SAMPLING_POINTS];
                let (first, n) = (head * self.points, self.points);
                // SAFETY: as many logits of the head, and no more than there is room for.
                unsafe {
                    let x = logits[first..first + n].as_ptr();
                    SoftmaxRow { x, y: weights.as_mut_ptr(), n }.run::<S>();
                }
                let mut c = 0;
                while c < d {
                    let n = S::LANES.min(d - c);
                    // SAFETY: corners are checked against their map; `n` columns of the head are left.
                    unsafe {
                        let mut sum = S::zero();
                        let mut base = row / self.queries * self.pixels;
                        let mut point = first;
                        for l in self.levels {
                            let map = self.value.ptr().add(base * pitch + head * d + c);
                            for _ in 0..l.points {
                                let weight = weights[point - first];
                                let x = (shape[0] + offsets[2 * point] * shape[2]) * l.w as f32 - 0.5;
                                let y = (shape[1] + offsets[2 * point + 1] * shape[3]) * l.h as f32 - 0.5;
                                let (fx, fy) = (x.floor(), y.floor());
                                let (tx, ty) = (x - fx, y - fy);
                                // Saturates, so that one more does not overflow.
                                let (x0, y0) = (fx as i32 as i64, fy as i32 as i64);
                                let corners = [
                                    (x0, y0, (1.0 - tx) * (1.0 - ty)),
                                    (x0 + 1, y0, tx * (1.0 - ty)),
                                    (x0, y0 + 1, (1.0 - tx) * ty),
                                    (x0 + 1, y0 + 1, tx * ty),
                                ];
                                for (cx, cy, share) in corners {
                                    if cx >= 0 && cy >= 0 && cx < l.w as i64 && cy < l.h as i64 {
                                        let at = (cy as usize * l.w + cx as usize) * pitch;
                                        let v = load::<S>(map.add(at), n);
                                        sum = S::fma(v, S::splat(weight * share), sum);
                                    }
                                }
                                point += 1;
                            }
                            base += l.h * l.w;
                        }
                        store::<S>(self.out.add(row * self.out_pitch + head * d + c), sum, n);
                    }
                    c += S::LANES;
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
    fn deformable_agrees_with_naive_loops() {
        let mut rng = Rng::seeded();
        everywhere(|level, pool| {
            for _ in 0..20 {
                let (batch, heads, queries) = (rng.size(1, 2), rng.size(1, 8), rng.size(1, 60));
                let d = rng.of(&[1, 8, 16, 20, 32]);
                let levels: Vec<SampledLevel> = (0..rng.size(1, 3))
                    .map(|_| SampledLevel { h: rng.size(1, 12), w: rng.size(1, 12), points: rng.size(1, 6) })
                    .collect();
                let pixels: usize = levels.iter().map(|l| l.h * l.w).sum();
                let points: usize = levels.iter().map(|l| l.points).sum();
                let value = rng.matrix(batch * pixels, heads * d);
                let mut offsets = rng.matrix(batch * queries, heads * points * 2);
                let mut boxes = rng.matrix(batch * queries, 4);
                // Mostly inside, some outside, some absurd.
                boxes.data.iter_mut().for_each(|x| *x = *x * 0.4 + 0.6);
                offsets.data[0] = 1e30;
                let logits = rng.matrix(batch * queries, heads * points);
                let before = rng.matrix(batch * queries, heads * d);
                let mut out = before.clone();
                deformable(
                    level,
                    pool,
                    batch,
                    heads,
                    &levels,
                    value.view(),
                    SamplingPoints { offsets: offsets.view(), logits: logits.view(), boxes: boxes.view() },
                    out.view_mut(),
                );
                out.check(&before, 1e-5, &format!("{level:?} {levels:?} {heads} {d}"), |row, c| {
                    let (head, mut base, mut point, mut sum) = (c / d, row / queries * pixels, 0, 0.0);
                    let share = |p: usize| logits.at(row, p).exp();
                    let total: f64 = (head * points..(head + 1) * points).map(share).sum();
                    for l in &levels {
                        for _ in 0..l.points {
                            let p = head * points + point;
                            let along = |axis: usize, n: usize| {
                                let offset = offsets.at(row, 2 * p + axis) * boxes.at(row, 2 + axis);
                                (boxes.at(row, axis) + offset) * n as f64 - 0.5
                            };
                            let (x, y) = (along(0, l.w), along(1, l.h));
                            for iy in 0..l.h {
                                for ix in 0..l.w {
                                    let near = |a: f64, b: usize| (1.0 - (a - b as f64).abs()).max(0.0);
                                    let near = near(x, ix) * near(y, iy);
                                    sum += near * share(p) / total * value.at(base + iy * l.w + ix, c);
                                }
                            }
                            point += 1;
                        }
                        base += l.h * l.w;
                    }
                    sum
                });
            }
        });
    }
}
