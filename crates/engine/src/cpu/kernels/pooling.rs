//! Max pooling and upsampling by copies.
use super::elementwise::by_rows;
use super::rows::{load, store};
use super::view::{ConvShape, Map, View, ViewMut};
use crate::cpu::pool::Pool;
use crate::cpu::simd::{Kernel, Level, Simd};

/// Output elements below which a chunk is not worth a dispatch of its own.
const MIN_ELEMENTS: usize = 4 * 1024;

/// Max pooling. Pixels outside the image count as `outside`: `f32::NEG_INFINITY` as in PyTorch's
/// `MaxPool2d`, or 0 for a map that was zero padded before.
pub fn max_pool(
    level: Level,
    pool: &Pool,
    x: View,
    input: Map,
    shape: ConvShape,
    outside: f32,
    out: ViewMut,
) {
    input.check(x.rows(), "the input");
    let output = shape.output(input);
    output.check(out.rows(), "the output");
    assert_eq!(x.cols(), out.cols(), "input and output channels");
    by_rows(pool, output.n * output.h, output.w * x.cols(), MIN_ELEMENTS, |lines| {
        let kernel = MaxLines {
            x: x.ptr(),
            x_pitch: x.pitch(),
            out: out.ptr(),
            out_pitch: out.pitch(),
            channels: x.cols(),
            input,
            output,
            shape,
            outside,
            lines,
        };
        // SAFETY: the views are checked; chunks write disjoint lines.
        unsafe { level.dispatch(kernel) };
    });
}

struct MaxLines {
    x: *const f32,
    x_pitch: usize,
    out: *mut f32,
    out_pitch: usize,
    channels: usize,
    input: Map,
    output: Map,
    shape: ConvShape,
    outside: f32,
    lines: std::ops::Range<usize>,
}

impl Kernel for MaxLines {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let ([kh, kw], [sh, sw], [top, left, ..]) = (self.shape.kernel, self.shape.stride, self.shape.pad);
        // The part of a kernel's extent that lies inside the image.
        let clip = |at: usize, pad: usize, kernel: usize, size: usize| {
            let lo = pad.saturating_sub(at).min(kernel);
            (lo, (size + pad).saturating_sub(at).min(kernel).max(lo))
        };
        for line in self.lines.clone() {
            let (image, oy) = (line / self.output.h, line % self.output.h);
            let (y0, y1) = clip(oy * sh, top, kh, self.input.h);
            for ox in 0..self.output.w {
                let (x0, x1) = clip(ox * sw, left, kw, self.input.w);
                let all_inside = y1 - y0 == kh && x1 - x0 == kw;
                let start = if all_inside { f32::NEG_INFINITY } else { self.outside };
                let out = self.out.wrapping_add((line * self.output.w + ox) * self.out_pitch);
                let mut c = 0;
                while c < self.channels {
                    let n = S::LANES.min(self.channels - c);
                    // SAFETY: taps are clipped to the image; `n` channels are left in each pixel.
                    unsafe {
                        let mut m = S::splat(start);
                        if all_inside && kh == 2 && kw == 2 {
                            let row = (image * self.input.h + oy * sh - top) * self.input.w;
                            let at = self.x.add((row + ox * sw - left) * self.x_pitch + c);
                            let below = at.add(self.input.w * self.x_pitch);
                            let high = S::max(load::<S>(at, n), load::<S>(at.add(self.x_pitch), n));
                            let low = S::max(load::<S>(below, n), load::<S>(below.add(self.x_pitch), n));
                            store::<S>(out.add(c), S::max(high, low), n);
                            c += S::LANES;
                            continue;
                        }
                        for ky in y0..y1 {
                            let row = (image * self.input.h + oy * sh + ky - top) * self.input.w;
                            for kx in x0..x1 {
                                let at = (row + ox * sw + kx - left) * self.x_pitch + c;
                                m = S::max(m, load::<S>(self.x.add(at), n));
                            }
                        }
                        store::<S>(out.add(c), m, n);
                    }
                    c += S::LANES;
                }
            }
        }
    }
}

/// Each pixel becomes two by two: `[N, H, W, C]` to `[N, 2H, 2W, C]`.
pub fn upsample_nearest2(level: Level, pool: &Pool, x: View, input: Map, out: ViewMut) {
    input.check(x.rows(), "the input");
    Map::new(input.n, input.h * 2, input.w * 2).check(out.rows(), "the output");
    assert_eq!(x.cols(), out.cols(), "input and output channels");
    by_rows(pool, input.n * input.h, input.w * x.cols() * 4, MIN_ELEMENTS, |lines| {
        let kernel = RepeatLines {
            x: x.ptr(),
            x_pitch: x.pitch(),
            out: out.ptr(),
            out_pitch: out.pitch(),
            channels: x.cols(),
            width: input.w,
            lines,
        };
        // SAFETY: the views are checked; chunks write disjoint lines.
        unsafe { level.dispatch(kernel) };
    });
}

struct RepeatLines {
    x: *const f32,
    x_pitch: usize,
    out: *mut f32,
    out_pitch: usize,
    channels: usize,
    width: usize,
    lines: std::ops::Range<usize>,
}

impl Kernel for RepeatLines {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for line in self.lines.clone() {
            for x in 0..self.width {
                // SAFETY: input pixel (x, line) and its four output pixels are inside the views.
                unsafe {
                    let from = self.x.add((line * self.width + x) * self.x_pitch);
                    let to = self.out.add((line * 4 * self.width + 2 * x) * self.out_pitch);
                    let below = to.add(2 * self.width * self.out_pitch);
                    let mut c = 0;
                    while c < self.channels {
                        let n = S::LANES.min(self.channels - c);
                        let v = load::<S>(from.add(c), n);
                        store::<S>(to.add(c), v, n);
                        store::<S>(to.add(self.out_pitch + c), v, n);
                        store::<S>(below.add(c), v, n);
                        store::<S>(below.add(self.out_pitch + c), v, n);
                        c += S::LANES;
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
    fn max_pool_agrees_with_naive_loops() {
        let mut rng = Rng::seeded();
        everywhere(|level, pool| {
            for _ in 0..40 {
                let kernel = [rng.size(1, 5), rng.size(1, 5)];
                let shape = ConvShape {
                    kernel,
                    stride: [rng.size(1, 3), rng.size(1, 3)],
                    // Less than the kernel, so that every window holds a pixel.
                    pad: [0, 1, 0, 1].map(|axis: usize| rng.size(0, kernel[axis] - 1)),
                };
                let input = Map::new(rng.size(1, 2), rng.size(5, 20), rng.size(5, 30));
                let (output, c) = (shape.output(input), rng.of(&[1, 7, 16, 33, 64]));
                let outside = rng.of(&[f32::NEG_INFINITY, 0.0]);
                let x = rng.matrix(input.pixels(), c);
                let before = rng.matrix(output.pixels(), c);
                let mut out = before.clone();
                max_pool(level, pool, x.view(), input, shape, outside, out.view_mut());
                out.check(&before, 0.0, &format!("{level:?} {input:?} {c} {shape:?}"), |row, c| {
                    let (image, oy, ox) =
                        (row / output.w / output.h, row / output.w % output.h, row % output.w);
                    let mut best = f64::NEG_INFINITY;
                    for ky in 0..shape.kernel[0] {
                        for kx in 0..shape.kernel[1] {
                            let iy = (oy * shape.stride[0] + ky).wrapping_sub(shape.pad[0]);
                            let ix = (ox * shape.stride[1] + kx).wrapping_sub(shape.pad[1]);
                            best = best.max(if iy < input.h && ix < input.w {
                                x.at((image * input.h + iy) * input.w + ix, c)
                            } else {
                                outside as f64
                            });
                        }
                    }
                    best
                });
            }
        });
    }

    #[test]
    fn upsampling_repeats_pixels() {
        let mut rng = Rng::seeded();
        everywhere(|level, pool| {
            let input = Map::new(rng.size(1, 2), rng.size(1, 20), rng.size(1, 30));
            let c = rng.of(&[1, 16, 33, 64]);
            let x = rng.matrix(input.pixels(), c);
            let before = rng.matrix(input.pixels() * 4, c);
            let mut out = before.clone();
            upsample_nearest2(level, pool, x.view(), input, out.view_mut());
            out.check(&before, 0.0, &format!("{level:?} {input:?} {c}"), |row, c| {
                let (line, ox) = (row / (2 * input.w), row % (2 * input.w));
                let (image, oy) = (line / (2 * input.h), line % (2 * input.h));
                x.at((image * input.h + oy / 2) * input.w + ox / 2, c)
            });
        });
    }
}
