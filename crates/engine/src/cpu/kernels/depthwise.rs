//! Depthwise convolutions: vectors along the channels, several output pixels in registers so that an input
//! vector is loaded once a kernel row and used for each tap it falls under.
use super::aligned::AlignedVec;
use super::epilogue::{Epilogue, Post};
use super::gemm::residual_of;
use super::tile::{ApplyEpilogue, Residual, Sums};
use super::view::{ConvShape, Element, Map, View, ViewMut};
use crate::cpu::pool::Pool;
use crate::cpu::simd::{Kernel, Level, Simd};
use crate::error::OutOfMemory;

/// The weights of a depthwise convolution, packed for one SIMD level.
pub struct PackedDepthwise<W: Element = f32> {
    pub(crate) level: Level,
    pub(crate) shape: ConvShape,
    pub(crate) channels: usize,
    /// `[kh * kw, padded channels]`
    weight: AlignedVec<W>,
    bias: AlignedVec,
    /// What pixels outside the image read: one pixel.
    zeros: AlignedVec,
    post: Post,
}

impl<W: Element> PackedDepthwise<W> {
    /// `weight`: `[channels, 1, kh, kw]` as PyTorch's `nn.Conv2d` with `groups = channels` stores it.
    ///
    /// # Errors
    /// [`OutOfMemory`] where there is no memory for them.
    pub fn new(
        level: Level,
        weight: &[W],
        channels: usize,
        shape: ConvShape,
        epilogue: Epilogue,
    ) -> Result<Self, OutOfMemory> {
        let taps = shape.kernel[0] * shape.kernel[1];
        assert_eq!(weight.len(), channels * taps, "weight elements of {channels} channels, {shape:?}");
        let padded = channels.next_multiple_of(level.lanes());
        let mut packed = AlignedVec::try_zeros(taps * padded)?;
        for tap in 0..taps {
            for c in 0..channels {
                packed[tap * padded + c] = weight[c * taps + tap];
            }
        }
        Ok(PackedDepthwise {
            level,
            shape,
            channels,
            weight: packed,
            bias: epilogue.padded_bias(channels, level.lanes())?,
            zeros: AlignedVec::try_zeros(padded)?,
            post: epilogue.post(),
        })
    }

    /// Kernel, stride and padding.
    pub fn shape(&self) -> ConvShape {
        self.shape
    }
    /// Memory that the packed weights take.
    pub fn bytes(&self) -> usize {
        self.weight.bytes() + self.bias.bytes() + self.zeros.bytes()
    }
}

/// `out[N, OH, OW, C] = epilogue(depthwise(x[N, H, W, C]))`. The residual has the output's size and may be
/// its memory.
pub fn depthwise(
    pool: &Pool,
    x: View,
    input: Map,
    weight: &PackedDepthwise,
    residual: Option<View>,
    out: ViewMut,
) {
    input.check(x.rows(), "the input");
    let output = weight.shape.output(input);
    output.check(out.rows(), "the output");
    assert_eq!(x.cols(), weight.channels, "input channels");
    assert_eq!(out.cols(), weight.channels, "output channels");
    let residual = residual_of(residual, &out);
    if out.rows() == 0 || weight.channels == 0 {
        return;
    }
    // The input rows under one output row stay in the second-level cache until the next one reads them.
    const BAND_BYTES: usize = 256 * 1024;
    let lanes = weight.level.lanes();
    let vectors = weight.channels.div_ceil(lanes);
    let line_bytes = weight.shape.kernel[0] * input.w * weight.channels * 4;
    let channel_blocks = line_bytes.div_ceil(BAND_BYTES).min(vectors.div_ceil(4)).max(1);
    let lines = output.n * output.h;
    let work = out.rows() * weight.channels * weight.shape.kernel[0] * weight.shape.kernel[1];
    let wanted = if pool.threads() == 1 { 1 } else { (pool.threads() * 6).min(work / 50_000).max(1) };
    let line_blocks = wanted.div_ceil(channel_blocks).min(lines);
    pool.parallel_for(line_blocks * channel_blocks, |chunk| {
        let (cb, lb) = (chunk / line_blocks, chunk % line_blocks);
        let part = |i: usize, n: usize, of: usize| i * of / n..(i + 1) * of / n;
        let kernel = Band {
            w: weight,
            pad: [weight.shape.pad[0], weight.shape.pad[1]],
            input,
            output,
            x: x.ptr(),
            x_pitch: x.pitch(),
            out: out.ptr(),
            out_pitch: out.pitch(),
            residual,
            lines: part(lb, line_blocks, lines),
            vectors: part(cb, channel_blocks, vectors),
        };
        // SAFETY: the views are checked; bands write disjoint parts of the output.
        unsafe { weight.level.dispatch(kernel) };
    });
}

/// Some lines and some channel vectors of a depthwise convolution.
pub(crate) struct Band<'a> {
    pub w: &'a PackedDepthwise,
    /// Padding at the top and at the left.
    pub pad: [usize; 2],
    pub input: Map,
    pub output: Map,
    pub x: *const f32,
    pub x_pitch: usize,
    pub out: *mut f32,
    pub out_pitch: usize,
    pub residual: Option<Residual>,
    /// Output lines of all images, one after the other.
    pub lines: std::ops::Range<usize>,
    pub vectors: std::ops::Range<usize>,
}

impl Kernel for Band<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: `depthwise` checked the views, and bands write disjoint parts of the output.
        unsafe {
            // Without vector instructions unrolling gains nothing.
            if const { S::MR < 6 } {
                return S::vectorize(AnyLines(self));
            }
            match (self.w.shape.kernel, self.w.shape.stride) {
                ([3, 3], [1, 1]) => S::vectorize(Lines::<3, 1>(self)),
                ([3, 3], [2, 2]) => S::vectorize(Lines::<3, 2>(self)),
                ([5, 5], [1, 1]) => S::vectorize(Lines::<5, 1>(self)),
                ([5, 5], [2, 2]) => S::vectorize(Lines::<5, 2>(self)),
                ([7, 7], [1, 1]) => S::vectorize(Lines::<7, 1>(self)),
                ([7, 7], [2, 2]) => S::vectorize(Lines::<7, 2>(self)),
                _ => S::vectorize(AnyLines(self)),
            }
        }
    }
}

/// Lines with a kernel of `K` by `K` and a stride known when compiled.
struct Lines<'a, const K: usize, const STRIDE: usize>(Band<'a>);

impl<const K: usize, const STRIDE: usize> Kernel for Lines<'_, K, STRIDE> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let mut b = self.0;
        let ow = b.output.w;
        // Channels that do not fill a vector go a pixel at a time.
        let (first, full) = (b.vectors.start, b.vectors.end.min(b.w.channels / S::LANES));
        let tail = full.max(first)..b.vectors.end;
        b.vectors = first..full;
        // SAFETY: the promises of `Band`.
        unsafe {
            for line in b.lines.clone() {
                let mut ox = 0;
                while ox < ow && !b.vectors.is_empty() {
                    let left = ow - ox;
                    let mut pixels = left.min(4);
                    // 16 registers hold 4 sums beside K weights; 32 hold 8.
                    if const { S::MR >= 8 } && left >= 8 {
                        pixels = 8;
                        S::vectorize(Strip::<K, STRIDE, 8> { b: &b, line, ox, pixels });
                    } else {
                        S::vectorize(Strip::<K, STRIDE, 4> { b: &b, line, ox, pixels });
                    }
                    ox += pixels;
                }
            }
            if !tail.is_empty() {
                b.vectors = tail;
                S::vectorize(AnyLines(b));
            }
        }
    }
}

/// `pixels <= P` neighbouring output pixels, all channels of the band, which fill their vectors.
struct Strip<'a, const K: usize, const STRIDE: usize, const P: usize> {
    b: &'a Band<'a>,
    line: usize,
    ox: usize,
    pixels: usize,
}

/// Input columns under the widest strip: 7 strides of 2 and a kernel of 7.
const MAX_COLUMNS: usize = 7 * 2 + 7;

impl<const K: usize, const STRIDE: usize, const P: usize> Kernel for Strip<'_, K, STRIDE, P> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Strip { b, line, ox, pixels } = self;
        let (w, post) = (b.w, b.w.post);
        let [top, left] = b.pad;
        let (image, oy) = (line / b.output.h, line % b.output.h);
        let columns = (P - 1) * STRIDE + K;
        // Where each input column of each kernel row begins; columns outside the image read zeros.
        let mut inputs = [[w.zeros.as_ptr(); MAX_COLUMNS]; K];
        let mut kernel_rows = [0; K];
        let mut rows = 0;
        for ky in 0..K {
            let iy = (oy * STRIDE + ky).wrapping_sub(top);
            if iy >= b.input.h {
                continue;
            }
            let from = b.x.wrapping_add((image * b.input.h + iy) * b.input.w * b.x_pitch);
            for (i, input) in inputs[rows][..columns].iter_mut().enumerate() {
                let ix = (ox * STRIDE + i).wrapping_sub(left);
                if ix < b.input.w {
                    *input = from.wrapping_add(ix * b.x_pitch);
                }
            }
            kernel_rows[rows] = ky;
            rows += 1;
        }
        let padded = w.weight.len() / (K * K);
        let row0 = line * b.output.w + ox;
        let direct = post.is_simple() && b.residual.is_none();
        for v in b.vectors.clone() {
            let c = v * S::LANES;
            // SAFETY: `c + LANES` channels are in every pixel and in `zeros`; the strip's pixels are in
            // the output.
            unsafe {
                let mut acc = [S::load(w.bias.as_ptr().add(c)); P];
                for r in 0..rows {
                    let weights = w.weight.as_ptr().add(kernel_rows[r] * K * padded + c);
                    let mut taps = [S::zero(); K];
                    for kx in 0..K {
                        taps[kx] = S::load(weights.add(kx * padded));
                    }
                    for i in 0..columns {
                        let x = S::load(inputs[r][i].add(c));
                        for kx in 0..K {
                            if i >= kx && (i - kx) % STRIDE == 0 && (i - kx) / STRIDE < P {
                                let p = (i - kx) / STRIDE;
                                acc[p] = S::fma(x, taps[kx], acc[p]);
                            }
                        }
                    }
                }
                let to = b.out.add(row0 * b.out_pitch + c);
                if direct {
                    post.apply_simple::<S, P>(&mut acc);
                    for p in 0..P {
                        if p < pixels {
                            S::store(to.add(p * b.out_pitch), acc[p]);
                        }
                    }
                } else {
                    let mut sums = Sums::new();
                    for p in 0..P {
                        S::store(sums.get().add(p * S::LANES), acc[p]);
                    }
                    S::vectorize(ApplyEpilogue {
                        sums: sums.get(),
                        sums_pitch: S::LANES,
                        rows: pixels,
                        cols: S::LANES,
                        post,
                        residual: b.residual.map(|r| r.at(row0, 1, c)),
                        out: to,
                        step: b.out_pitch,
                    });
                }
            }
        }
    }
}

/// Lines with any kernel and stride, a pixel at a time.
struct AnyLines<'a>(Band<'a>);

impl Kernel for AnyLines<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let b = &self.0;
        let w = b.w;
        let ([kh, kw], [sh, sw], [top, left]) = (w.shape.kernel, w.shape.stride, b.pad);
        let padded = w.weight.len() / (kh * kw);
        for line in b.lines.clone() {
            let (image, oy) = (line / b.output.h, line % b.output.h);
            for ox in 0..b.output.w {
                let row = line * b.output.w + ox;
                for v in b.vectors.clone() {
                    let c = v * S::LANES;
                    let n = S::LANES.min(w.channels - c);
                    // SAFETY: pixels outside the image are skipped; `n` elements are inside each row.
                    unsafe {
                        let mut acc = S::load(w.bias.as_ptr().add(c));
                        for ky in 0..kh {
                            for kx in 0..kw {
                                let iy = (oy * sh + ky).wrapping_sub(top);
                                let ix = (ox * sw + kx).wrapping_sub(left);
                                if iy < b.input.h && ix < b.input.w {
                                    let at = (image * b.input.h + iy) * b.input.w + ix;
                                    let x = S::load_n(b.x.add(at * b.x_pitch + c), n);
                                    let tap = S::load(w.weight.as_ptr().add((ky * kw + kx) * padded + c));
                                    acc = S::fma(x, tap, acc);
                                }
                            }
                        }
                        let residual = b.residual.map(|r| S::load_n(r.ptr.add(row * r.pitch + c), n));
                        let y = w.post.apply::<S>(acc, residual);
                        S::store_n(b.out.add(row * b.out_pitch + c), y, n);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::kernels::testing::{Rng, epilogue64, everywhere};

    #[test]
    fn weights_of_any_element_lie_alike() {
        let mut rng = Rng::seeded();
        for level in Level::available() {
            let (weight, floats) = rng.bytes(19 * 25);
            let shape = ConvShape::square(5, 1, 2);
            let bytes = PackedDepthwise::new(level, &weight, 19, shape, Epilogue::default()).unwrap();
            let floats = PackedDepthwise::new(level, &floats, 19, shape, Epilogue::default()).unwrap();
            assert!(bytes.weight.iter().map(|&w| f32::from(w)).eq(floats.weight.iter().copied()));
        }
    }

    #[test]
    fn depthwise_agrees_with_naive_loops() {
        let mut rng = Rng::seeded();
        everywhere(|level, pool| {
            for case in 0..60 {
                let shape = if case % 6 == 0 {
                    ConvShape {
                        kernel: [rng.size(1, 4), rng.size(1, 4)],
                        stride: [rng.size(1, 3), rng.size(1, 3)],
                        pad: [0; 4].map(|_| rng.size(0, 2)),
                    }
                } else {
                    let (k, s) = (rng.of(&[3, 5, 7]), rng.of(&[1, 2]));
                    ConvShape { kernel: [k; 2], stride: [s; 2], pad: [0; 4].map(|_| rng.size(0, k / 2 + 1)) }
                };
                let input = Map::new(rng.size(1, 2), rng.size(7, 20), rng.size(7, 45));
                let output = shape.output(input);
                let c = rng.of(&[1, 7, 16, 24, 33, 64, 130]);
                let [kh, kw] = shape.kernel;
                let (x, w, e) = (rng.matrix(input.pixels(), c), rng.vec(c * kh * kw), rng.epilogue(c));
                let residual = rng.coin().then(|| rng.matrix(output.pixels(), c));
                let before = rng.matrix(output.pixels(), c);
                let mut out = before.clone();
                let packed = PackedDepthwise::new(level, &w, c, shape, e.clone()).unwrap();
                let r = residual.as_ref().map(|r| r.view());
                depthwise(pool, x.view(), input, &packed, r, out.view_mut());
                out.check(&before, 1e-5, &format!("{level:?} {input:?} {c} {shape:?}"), |row, c| {
                    let (image, oy, ox) =
                        (row / output.w / output.h, row / output.w % output.h, row % output.w);
                    let mut sum = 0.0;
                    for ky in 0..kh {
                        for kx in 0..kw {
                            let iy = (oy * shape.stride[0] + ky).wrapping_sub(shape.pad[0]);
                            let ix = (ox * shape.stride[1] + kx).wrapping_sub(shape.pad[1]);
                            if iy < input.h && ix < input.w {
                                let tap = w[c * kh * kw + ky * kw + kx] as f64;
                                sum += x.at((image * input.h + iy) * input.w + ix, c) * tap;
                            }
                        }
                    }
                    epilogue64(&e, sum, c, residual.as_ref().map(|m| m.at(row, c)))
                });
            }
        });
    }
}
