//! Dense convolutions, straight from the channels-last map: no im2col, no padded copy.
use super::aligned::AlignedVec;
use super::epilogue::Epilogue;
use super::gemm::residual_of;
use super::panels::Panels;
use super::tile::{Grid, MAX_MR, MAX_RUNS, Run, TileAt, TileSource, product};
use super::view::{ConvShape, Element, Map, View, ViewMut};
use super::winograd::Winograd;
use crate::cpu::pool::Pool;
use crate::cpu::simd::Level;
use crate::error::OutOfMemory;
use std::mem::MaybeUninit;

/// The weights of a dense or grouped convolution, packed for one SIMD level.
pub struct PackedConv<W: Element = f32> {
    shape: ConvShape,
    cin: usize,
    cout: usize,
    /// For each group; empty where `winograd` takes over.
    groups: Vec<Panels<W>>,
    winograd: Option<Winograd>,
    /// What pixels outside the image read.
    zeros: AlignedVec,
}

impl PackedConv {
    /// `weight`: `[cout, cin / groups, kh, kw]` as PyTorch's `nn.Conv2d` stores it. Chooses the fastest way:
    /// where that is Winograd's, results differ from the direct way's by about 1e-6 of their size.
    ///
    /// # Errors
    /// [`OutOfMemory`] where there is no memory for them.
    pub fn new(
        level: Level,
        weight: &[f32],
        cout: usize,
        cin: usize,
        groups: usize,
        shape: ConvShape,
        epilogue: Epilogue,
    ) -> Result<Self, OutOfMemory> {
        if groups == 1 && Winograd::suits(&shape, cin, cout) {
            assert_eq!(weight.len(), cout * cin * 9, "weight elements for [{cout}, {cin}, 3, 3]");
            let winograd = Some(Winograd::new(level, weight, cout, cin, &epilogue)?);
            let zeros = AlignedVec::try_zeros(0)?;
            return Ok(PackedConv { shape, cin, cout, groups: Vec::new(), winograd, zeros });
        }
        Self::direct(level, weight, cout, cin, groups, shape, epilogue)
    }
}

impl<W: Element> PackedConv<W> {
    /// As [`PackedConv::new`], but always a plain sum of products.
    ///
    /// # Errors
    /// As [`PackedConv::new`].
    pub fn direct(
        level: Level,
        weight: &[W],
        cout: usize,
        cin: usize,
        groups: usize,
        shape: ConvShape,
        epilogue: Epilogue,
    ) -> Result<Self, OutOfMemory> {
        let [kh, kw] = shape.kernel;
        let taps = kh * kw;
        assert!((1..=MAX_RUNS).contains(&taps), "a kernel of {kh}x{kw}: at most {MAX_RUNS} taps");
        assert!(
            groups > 0 && cin.is_multiple_of(groups) && cout.is_multiple_of(groups),
            "{cin} to {cout} in {groups} groups"
        );
        let (gi, go) = (cin / groups, cout / groups);
        assert_eq!(weight.len(), cout * gi * taps, "weight elements for [{cout}, {gi}, {kh}, {kw}]");
        let groups = (0..groups)
            .map(|g| {
                let own = Epilogue {
                    bias: epilogue.bias.as_ref().map(|b| {
                        assert_eq!(b.len(), cout, "a bias of {} for {cout} channels", b.len());
                        b[g * go..(g + 1) * go].to_vec()
                    }),
                    ..epilogue.clone()
                };
                Panels::new(level, go, gi * taps, &own, |c, k| {
                    weight[((g * go + c) * gi + k % gi) * taps + k / gi]
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(PackedConv { shape, cin, cout, groups, winograd: None, zeros: AlignedVec::try_zeros(gi)? })
    }

    /// Kernel, stride and padding.
    pub fn shape(&self) -> ConvShape {
        self.shape
    }
    /// Memory that the packed weights take.
    pub fn bytes(&self) -> usize {
        let direct = self.groups.iter().map(Panels::bytes).sum::<usize>() + self.zeros.bytes();
        direct + self.winograd.as_ref().map_or(0, Winograd::bytes)
    }
}

struct Pixels<'a> {
    x: *const f32,
    pitch: usize,
    input: Map,
    output: Map,
    shape: ConvShape,
    cin: usize,
    zeros: &'a AlignedVec,
    tiles_per_row: usize,
}
// SAFETY: read only; stands for a shared borrow.
unsafe impl Sync for Pixels<'_> {}

impl TileSource for Pixels<'_> {
    fn tiles(&self) -> usize {
        self.output.n * self.output.h * self.tiles_per_row
    }

    #[inline(always)]
    fn tile(&self, index: usize, runs: &mut [MaybeUninit<Run>; MAX_RUNS]) -> TileAt {
        let (line, part) = (index / self.tiles_per_row, index % self.tiles_per_row);
        let (image, oy) = (line / self.output.h, line % self.output.h);
        let ox = part * self.output.w / self.tiles_per_row;
        let mr = (part + 1) * self.output.w / self.tiles_per_row - ox;
        let ([kh, kw], [sh, sw], [top, left, ..]) = (self.shape.kernel, self.shape.stride, self.shape.pad);
        let (h, w) = (self.input.h as isize, self.input.w as isize);
        let iy0 = (oy * sh) as isize - top as isize;
        let ix0 = (ox * sw) as isize - left as isize;
        let inside = ix0 >= 0 && ix0 + ((mr - 1) * sw + kw) as isize <= w;
        let merged = inside && self.pitch == self.cin;
        let step = (sw * self.pitch) as isize;
        let mut count = 0;
        for ky in 0..kh {
            let iy = iy0 + ky as isize;
            if iy < 0 || iy >= h {
                continue;
            }
            // Wrapping arithmetic: for pixels outside, the address is formed but not used.
            let line = self.x.wrapping_offset(((image as isize * h + iy) * w + ix0) * self.pitch as isize);
            let mut rows = [line; MAX_MR];
            if inside {
                for kx in 0..if merged { 1 } else { kw } {
                    let first = line.wrapping_add(kx * self.pitch);
                    for (p, r) in rows.iter_mut().enumerate() {
                        *r = first.wrapping_offset(p as isize * step);
                    }
                    runs[count].write(Run { k: (ky * kw + kx) * self.cin, rows });
                    count += 1;
                }
            } else {
                for kx in 0..kw {
                    let first = line.wrapping_add(kx * self.pitch);
                    for (p, r) in rows.iter_mut().enumerate() {
                        let ix = ix0 + (p * sw + kx) as isize;
                        let pixel = first.wrapping_offset(p as isize * step);
                        *r = if ix >= 0 && ix < w { pixel } else { self.zeros.as_ptr() };
                    }
                    runs[count].write(Run { k: (ky * kw + kx) * self.cin, rows });
                    count += 1;
                }
            }
        }
        TileAt {
            mr,
            runs: count,
            len: if merged { kw * self.cin } else { self.cin },
            row: line * self.output.w + ox,
            row_step: 1,
        }
    }

    fn tile_bytes(&self) -> usize {
        // New input of a tile: neighbours share the rest.
        let [sh, sw] = self.shape.stride;
        sh * sw * self.output.w * self.cin * 4 / self.tiles_per_row
    }

    #[inline(always)]
    fn fresh(&self, index: usize) -> (*const f32, usize, usize, usize) {
        // The lowest of the kernel's lines; the others were read for the output line above.
        let (line, part) = (index / self.tiles_per_row, index % self.tiles_per_row);
        let (image, oy) = (line / self.output.h, line % self.output.h);
        let ox = part * self.output.w / self.tiles_per_row;
        let mr = (part + 1) * self.output.w / self.tiles_per_row - ox;
        let ([kh, _], [sh, sw], [top, left, ..]) = (self.shape.kernel, self.shape.stride, self.shape.pad);
        let lines = sh.min(kh);
        let iy = (oy * sh + kh - lines).saturating_sub(top);
        let ix = (ox * sw).saturating_sub(left);
        let first = self.x.wrapping_add(((image * self.input.h + iy) * self.input.w + ix) * self.pitch);
        // Whole pixels lie side by side, unless they are columns of a wider view.
        if self.pitch == self.cin {
            (first, self.input.w * self.pitch, lines, mr * sw * self.cin)
        } else {
            (first, self.pitch, mr * sw, self.cin)
        }
    }
}

/// `out[N, OH, OW, Cout] = epilogue(conv(x[N, H, W, Cin]))`. `input` gives N, H and W; the output's size is
/// [`ConvShape::output`]'s. The residual has the output's size and may be its memory.
pub fn conv2d(
    pool: &Pool,
    x: View,
    input: Map,
    weight: &PackedConv,
    residual: Option<View>,
    mut out: ViewMut,
) {
    input.check(x.rows(), "the input");
    let output = weight.shape.output(input);
    output.check(out.rows(), "the output");
    assert_eq!(x.cols(), weight.cin, "input channels");
    assert_eq!(out.cols(), weight.cout, "output channels");
    if let Some(winograd) = &weight.winograd {
        let residual = residual_of(residual, &out);
        let (to, pitch) = (out.ptr(), out.pitch());
        // SAFETY: the views are checked.
        unsafe { winograd.run(pool, x, input, output, &weight.shape, residual, to, pitch) };
        return;
    }
    let (gi, go) = (weight.cin / weight.groups.len(), weight.cout / weight.groups.len());
    for (g, panels) in weight.groups.iter().enumerate() {
        let x = x.columns(g * gi, gi);
        let out = out.reborrow().columns(g * go, go);
        let residual = residual_of(residual.map(|r| r.columns(g * go, go)), &out);
        let plain = ConvShape::square(1, 1, 0);
        // SAFETY: the views are checked; tiles cut the rows without overlap; runs stay inside the image or
        // point to `zeros`, which has as many elements as a pixel.
        unsafe {
            if weight.shape == plain {
                product(pool, &Grid::matrix(x, panels.level), panels, residual, out.ptr(), out.pitch());
            } else {
                let pixels = Pixels {
                    x: x.ptr(),
                    pitch: x.pitch(),
                    input,
                    output,
                    shape: weight.shape,
                    cin: gi,
                    zeros: &weight.zeros,
                    tiles_per_row: output.w.div_ceil(panels.level.tile().0),
                };
                product(pool, &pixels, panels, residual, out.ptr(), out.pitch());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::kernels::testing::{Rng, epilogue64, everywhere, same_layout};

    #[test]
    fn weights_of_any_element_lie_alike() {
        let mut rng = Rng::seeded();
        for level in Level::available() {
            let (shape, none) = (ConvShape::square(3, 2, 1), Epilogue::default);
            let (weight, floats) = rng.bytes(40 * 6 * 9);
            let bytes = PackedConv::direct(level, &weight, 40, 12, 2, shape, none()).unwrap();
            let floats = PackedConv::direct(level, &floats, 40, 12, 2, shape, none()).unwrap();
            assert_eq!((bytes.groups.len(), floats.groups.len()), (2, 2));
            bytes.groups.iter().zip(&floats.groups).for_each(|(a, b)| same_layout(a, b));
        }
    }

    #[test]
    fn winograd_agrees_with_the_direct_way() {
        let mut rng = Rng::seeded();
        everywhere(|level, pool| {
            for _ in 0..12 {
                let (cin, cout) = (rng.of(&[20, 22, 64, 100]), rng.of(&[20, 33, 64, 130]));
                let shape = ConvShape { kernel: [3, 3], stride: [1, 1], pad: [0; 4].map(|_| rng.size(0, 2)) };
                let input = Map::new(rng.size(1, 2), rng.size(3, 25), rng.size(3, 25));
                let output = shape.output(input);
                let (x, w) = (rng.matrix(input.pixels(), cin), rng.vec(cout * cin * 9));
                let e = rng.epilogue(cout);
                let residual = rng.coin().then(|| rng.matrix(output.pixels(), cout));
                let r = || residual.as_ref().map(|r| r.view());
                let before = rng.matrix(output.pixels(), cout);
                let (mut want, mut out) = (before.clone(), before.clone());
                let direct = PackedConv::direct(level, &w, cout, cin, 1, shape, e.clone()).unwrap();
                let fast = PackedConv::new(level, &w, cout, cin, 1, shape, e.clone()).unwrap();
                assert!(fast.winograd.is_some() && direct.winograd.is_none());
                conv2d(pool, x.view(), input, &direct, r(), want.view_mut());
                conv2d(pool, x.view(), input, &fast, r(), out.view_mut());
                // Finds what is in the wrong place; the next test is about digits.
                let what = format!("{level:?} {input:?} {cin}->{cout} {shape:?}");
                out.check(&before, 2e-3, &what, |i, j| want.at(i, j));
            }
        });
    }

    #[test]
    fn winograd_loses_little() {
        let mut rng = Rng::seeded();
        let pool = Pool::new(2);
        let (c, input, shape) = (256, Map::new(1, 32, 32), ConvShape::square(3, 1, 1));
        let (x, w) = (rng.matrix(input.pixels(), c), rng.vec(c * c * 9));
        let mut out = rng.matrix(input.pixels(), c);
        let packed = PackedConv::new(Level::detect(), &w, c, c, 1, shape, Epilogue::default()).unwrap();
        conv2d(&pool, x.view(), input, &packed, None, out.view_mut());
        let (mut error, mut size) = (0.0, 0.0);
        for row in (0..input.pixels()).step_by(37) {
            let (oy, ox) = (row / 32, row % 32);
            for o in (0..c).step_by(5) {
                let mut sum = 0.0;
                for t in 0..9 {
                    let (y, ix) = ((oy + t / 3).wrapping_sub(1), (ox + t % 3).wrapping_sub(1));
                    if y < 32 && ix < 32 {
                        for i in 0..c {
                            sum += x.at(y * 32 + ix, i) * w[(o * c + i) * 9 + t] as f64;
                        }
                    }
                }
                error += (out.at(row, o) - sum).powi(2);
                size += sum * sum;
            }
        }
        let relative = (error / size).sqrt();
        assert!(relative < 3e-6, "{relative:e}");
    }

    #[test]
    fn conv2d_agrees_with_naive_loops() {
        let mut rng = Rng::seeded();
        everywhere(|level, pool| {
            for _ in 0..60 {
                let groups = if rng.size(0, 5) == 0 { rng.size(2, 4) } else { 1 };
                let (gi, go) = (rng.of(&[1, 2, 3, 5, 16, 20]), rng.of(&[1, 3, 8, 16, 33, 40]));
                let (cin, cout) = (gi * groups, go * groups);
                let kernel = [rng.size(1, 5), rng.size(1, 5)];
                let shape = ConvShape {
                    kernel,
                    stride: [rng.size(1, 3), rng.size(1, 3)],
                    pad: [0; 4].map(|_| rng.size(0, 3)),
                };
                let input = Map::new(rng.size(1, 2), rng.size(5, 20), rng.size(5, 45));
                let output = shape.output(input);
                let taps = kernel[0] * kernel[1];
                let (x, w) = (rng.matrix(input.pixels(), cin), rng.vec(cout * gi * taps));
                let e = rng.epilogue(cout);
                let residual = rng.coin().then(|| rng.matrix(output.pixels(), cout));
                let before = rng.matrix(output.pixels(), cout);
                let mut out = before.clone();
                let packed = PackedConv::direct(level, &w, cout, cin, groups, shape, e.clone()).unwrap();
                conv2d(pool, x.view(), input, &packed, residual.as_ref().map(|r| r.view()), out.view_mut());
                let what = format!("{level:?} {input:?} {cin}->{cout}/{groups} {shape:?}");
                out.check(&before, 5e-5, &what, |row, c| {
                    let (image, oy, ox) =
                        (row / output.w / output.h, row / output.w % output.h, row % output.w);
                    let mut sum = 0.0;
                    for ky in 0..kernel[0] {
                        for kx in 0..kernel[1] {
                            let iy = (oy * shape.stride[0] + ky).wrapping_sub(shape.pad[0]);
                            let ix = (ox * shape.stride[1] + kx).wrapping_sub(shape.pad[1]);
                            if iy >= input.h || ix >= input.w {
                                continue;
                            }
                            for i in 0..gi {
                                let x = x.at((image * input.h + iy) * input.w + ix, c / go * gi + i);
                                sum += x * w[(c * gi + i) * taps + ky * kernel[1] + kx] as f64;
                            }
                        }
                    }
                    epilogue64(&e, sum, c, residual.as_ref().map(|m| m.at(row, c)))
                });
            }
        });
    }
}
