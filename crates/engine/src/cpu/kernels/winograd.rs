//! 3x3 convolutions with stride 1 by Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray, "Fast
//! algorithms for convolutional neural networks", 2016): a tile of 4x4 output pixels costs 36 products a
//! channel pair instead of 144.
//!
//! A block of tiles at a time, in scratch memory: inputs are transformed to 36 matrices `[tiles, cin]`, each
//! is multiplied by its `[cin, cout]` of transformed weights, and the 36 results are transformed back.
//!
//! The polynomials are taken at 0, ±3/4, ±3/2 and infinity instead of the usual 0, ±1, ±2: smaller powers halve the rounding
//! error, to about twice that of the direct way (points that differ from the usual ones: Barabasz et al., "Error analysis and
//! improving the accuracy of Winograd convolution for deep neural networks", 2020), and their products are exact in binary.
use super::epilogue::{Epilogue, Post};
use super::panels::Panels;
use super::rows::{load, store};
use super::tile::{ApplyEpilogue, Grid, Residual, product_here};
use super::view::{ConvShape, Map, Out, View};
use crate::cpu::pool::{Pool, SCRATCH_LEN};
use crate::cpu::simd::{Kernel, Level, Simd};
use crate::error::OutOfMemory;

/// Output pixels of a tile's side, and input pixels under them.
const TILE: usize = 4;
const SPAN: usize = TILE + 2;
/// Products of a tile.
const POINTS: usize = SPAN * SPAN;
/// The points ±A and ±B, and what the transforms need of them (Toom and Cook's construction).
const A: f64 = 0.75;
const B: f64 = 1.5;
const AA: f64 = A * A;
const BB: f64 = B * B;
/// Elements of scratch memory that a block of tiles should take.
const CACHED: usize = 160 * 1024;

/// Transformed weights.
pub(crate) struct Winograd {
    cin: usize,
    cout: usize,
    points: Vec<Panels>,
    bias: super::AlignedVec,
    post: Post,
}

impl Winograd {
    /// Whether it is faster than the direct way.
    pub fn suits(shape: &ConvShape, cin: usize, cout: usize) -> bool {
        shape.kernel == [3, 3] && shape.stride == [1, 1] && cin >= 20 && cout >= 20 && cin + cout <= 2048
    }

    /// `weight`: `[cout, cin, 3, 3]`.
    pub fn new(
        level: Level,
        weight: &[f32],
        cout: usize,
        cin: usize,
        epilogue: &Epilogue,
    ) -> Result<Self, OutOfMemory> {
        // The rows of G: powers of the points over the products of their distances from the others.
        let row = |p: f64, distances: f64| [1.0, p, p * p].map(|power| power / distances);
        let (near, far) = (2.0 * AA * (AA - BB), 2.0 * BB * (BB - AA));
        let g: [[f64; 3]; SPAN] =
            [row(0.0, AA * BB), row(A, near), row(-A, near), row(B, far), row(-B, far), [0.0, 0.0, 1.0]];
        let points = (0..POINTS)
            .map(|p| {
                let (gy, gx) = (g[p / SPAN], g[p % SPAN]);
                Panels::new(level, cout, cin, &Epilogue::default(), |o, i| {
                    let w = &weight[(o * cin + i) * 9..][..9];
                    (0..9).map(|t| gy[t / 3] * gx[t % 3] * w[t] as f64).sum::<f64>() as f32
                })
            })
            .collect::<Result<_, _>>()?;
        let bias = epilogue.padded_bias(cout, level.lanes())?;
        Ok(Winograd { cin, cout, points, bias, post: epilogue.post() })
    }

    pub fn bytes(&self) -> usize {
        self.points.iter().map(Panels::bytes).sum::<usize>() + self.bias.bytes()
    }

    /// Runs the convolution.
    ///
    /// # Safety
    /// The view is of `input`, and the residual and `out` of `output`, with all channels.
    #[allow(clippy::too_many_arguments)]
    pub unsafe fn run(
        &self,
        pool: &Pool,
        x: View,
        input: Map,
        output: Map,
        shape: &ConvShape,
        residual: Option<Residual>,
        out: *mut f32,
        out_pitch: usize,
    ) {
        let (down, across) = (output.h.div_ceil(TILE), output.w.div_ceil(TILE));
        let tiles = output.n * down * across;
        if tiles == 0 {
            return;
        }
        let level = self.points[0].level;
        let mr = level.tile().0;
        // A block's tiles in whole register tiles, and no more than the scratch memory holds.
        let each = POINTS * (self.cin + self.cout);
        let most = ((SCRATCH_LEN - 2 * POINTS * 16) / each).max(1);
        let block = (CACHED / each).max(2 * mr).div_ceil(mr) * mr;
        let wanted = if pool.threads() == 1 { 1 } else { pool.threads() * 2 };
        let blocks = tiles.div_ceil(block.min(most)).max(wanted.min(tiles.div_ceil(mr)));
        let to = Out(out);
        pool.parallel_for_scratch(blocks, |i, scratch| {
            let first = i * tiles / blocks;
            let count = (i + 1) * tiles / blocks - first;
            // An odd number of cache lines apart, so that the 36 matrices do not share cache sets.
            let (in_step, out_step) = (odd_lines(count * self.cin), odd_lines(count * self.cout));
            let (transformed, products) = scratch.split_at_mut(POINTS * in_step);
            let tiles = Tiles { first, count, down, across, input, output, shape: *shape };
            let kernel = Forward {
                tiles: &tiles,
                x: x.ptr(),
                pitch: x.pitch(),
                channels: self.cin,
                to: transformed.as_mut_ptr(),
                step: in_step,
            };
            // SAFETY: the view is checked, and the scratch memory holds the block.
            unsafe { level.dispatch(kernel) };
            for (p, panels) in self.points.iter().enumerate() {
                let a = View::new(&transformed[p * in_step..], count, self.cin, self.cin);
                let product = &mut products[p * out_step..(p + 1) * out_step];
                // SAFETY: `product` has room for the result.
                unsafe {
                    product_here(&Grid::matrix(a, level), panels, None, product.as_mut_ptr(), self.cout)
                };
            }
            let kernel = Backward {
                tiles: &tiles,
                from: products.as_ptr(),
                step: out_step,
                channels: self.cout,
                bias: self.bias.as_ptr(),
                post: self.post,
                residual,
                out: to.get(),
                pitch: out_pitch,
            };
            // SAFETY: as above; blocks write disjoint pixels.
            unsafe { level.dispatch(kernel) };
        });
    }
}

/// At least `len` elements, an odd number of cache lines.
fn odd_lines(len: usize) -> usize {
    (len.div_ceil(16) | 1) * 16
}

/// A block of tiles of a map.
struct Tiles {
    first: usize,
    count: usize,
    down: usize,
    across: usize,
    input: Map,
    output: Map,
    shape: ConvShape,
}

impl Tiles {
    /// Image and first output pixel of a tile: `(n, y, x)`.
    #[inline(always)]
    fn place(&self, tile: usize) -> (usize, usize, usize) {
        let tile = self.first + tile;
        let (image, tile) = (tile / (self.down * self.across), tile % (self.down * self.across));
        (image, tile / self.across * TILE, tile % self.across * TILE)
    }
}

/// Input tiles to 36 matrices.
struct Forward<'a> {
    tiles: &'a Tiles,
    x: *const f32,
    pitch: usize,
    channels: usize,
    to: *mut f32,
    /// From a matrix to the next.
    step: usize,
}

/// A column of Bᵀd.
#[inline(always)]
fn forward<S: Simd>(d: [S::V; SPAN]) -> [S::V; SPAN] {
    let [aa, bb, product, sum] = [AA, BB, AA * BB, AA + BB].map(|v| S::splat(v as f32));
    let (even_near, odd_near) = (S::nfma(bb, d[2], d[4]), S::nfma(bb, d[1], d[3]));
    let (even_far, odd_far) = (S::nfma(aa, d[2], d[4]), S::nfma(aa, d[1], d[3]));
    let (a, b) = (S::splat(A as f32), S::splat(B as f32));
    [
        S::fma(product, d[0], S::nfma(sum, d[2], d[4])),
        S::fma(a, odd_near, even_near),
        S::nfma(a, odd_near, even_near),
        S::fma(b, odd_far, even_far),
        S::nfma(b, odd_far, even_far),
        S::fma(product, d[1], S::nfma(sum, d[3], d[5])),
    ]
}

impl Kernel for Forward<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let t = self.tiles;
        let (top, left) = (t.shape.pad[0], t.shape.pad[1]);
        for tile in 0..t.count {
            let (image, oy, ox) = t.place(tile);
            // Offsets of the 36 pixels; those outside the image are zero.
            let mut pixels = [std::ptr::null::<f32>(); POINTS];
            for (i, pixel) in pixels.iter_mut().enumerate() {
                let (y, x) = ((oy + i / SPAN).wrapping_sub(top), (ox + i % SPAN).wrapping_sub(left));
                if y < t.input.h && x < t.input.w {
                    *pixel = self.x.wrapping_add(((image * t.input.h + y) * t.input.w + x) * self.pitch);
                }
            }
            let mut c = 0;
            while c < self.channels {
                let n = S::LANES.min(self.channels - c);
                // SAFETY: pixels are null or inside the view; `n` channels are left; the matrices have
                // `count` rows.
                unsafe {
                    let mut rows = [[S::zero(); SPAN]; SPAN];
                    for x in 0..SPAN {
                        let mut column = [S::zero(); SPAN];
                        for y in 0..SPAN {
                            let pixel = pixels[y * SPAN + x];
                            if !pixel.is_null() {
                                column[y] = load::<S>(pixel.add(c), n);
                            }
                        }
                        let column = forward::<S>(column);
                        for y in 0..SPAN {
                            rows[y][x] = column[y];
                        }
                    }
                    for y in 0..SPAN {
                        let row = forward::<S>(rows[y]);
                        for x in 0..SPAN {
                            let to = self.to.add((y * SPAN + x) * self.step + tile * self.channels + c);
                            store::<S>(to, row[x], n);
                        }
                    }
                }
                c += S::LANES;
            }
        }
    }
}

/// 36 products to output tiles, through the epilogue.
struct Backward<'a> {
    tiles: &'a Tiles,
    from: *const f32,
    /// From a matrix to the next.
    step: usize,
    channels: usize,
    bias: *const f32,
    post: Post,
    residual: Option<Residual>,
    out: *mut f32,
    pitch: usize,
}

/// A column of Aᵀm.
#[inline(always)]
fn backward<S: Simd>(m: [S::V; SPAN]) -> [S::V; TILE] {
    let (even_a, odd_a) = (S::add(m[1], m[2]), S::sub(m[1], m[2]));
    let (even_b, odd_b) = (S::add(m[3], m[4]), S::sub(m[3], m[4]));
    let weighed = |a: f64, x, b: f64, y| S::fma(S::splat(a as f32), x, S::mul(S::splat(b as f32), y));
    [
        S::add(S::add(m[0], even_a), even_b),
        weighed(A, odd_a, B, odd_b),
        weighed(AA, even_a, BB, even_b),
        S::add(weighed(A * AA, odd_a, B * BB, odd_b), m[5]),
    ]
}

impl Kernel for Backward<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let t = self.tiles;
        for tile in 0..t.count {
            let (image, oy, ox) = t.place(tile);
            let (high, wide) = (TILE.min(t.output.h - oy), TILE.min(t.output.w - ox));
            let row0 = (image * t.output.h + oy) * t.output.w + ox;
            let mut c = 0;
            while c < self.channels {
                let n = S::LANES.min(self.channels - c);
                // SAFETY: the matrices have `count` rows of `channels`; only pixels inside the output are
                // written.
                unsafe {
                    let mut rows = [[S::zero(); SPAN]; TILE];
                    for x in 0..SPAN {
                        let mut column = [S::zero(); SPAN];
                        for y in 0..SPAN {
                            let from = self.from.add((y * SPAN + x) * self.step + tile * self.channels + c);
                            column[y] = load::<S>(from, n);
                        }
                        let column = backward::<S>(column);
                        for y in 0..TILE {
                            rows[y][x] = column[y];
                        }
                    }
                    let bias = S::load(self.bias.add(c));
                    let mut sums = super::tile::Sums::new();
                    for y in 0..TILE {
                        let row = backward::<S>(rows[y]);
                        for x in 0..TILE {
                            S::store(sums.get().add((y * TILE + x) * S::LANES), S::add(row[x], bias));
                        }
                    }
                    for y in 0..high {
                        let row = row0 + y * t.output.w;
                        S::vectorize(ApplyEpilogue {
                            sums: sums.get().add(y * TILE * S::LANES),
                            sums_pitch: S::LANES,
                            rows: wide,
                            cols: n,
                            post: self.post,
                            residual: self.residual.map(|r| r.at(row, 1, c)),
                            out: self.out.add(row * self.pitch + c),
                            step: self.pitch,
                        });
                    }
                }
                c += S::LANES;
            }
        }
    }
}
