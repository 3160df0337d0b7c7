//! The matrix product's inner loops, shared by linear layers and convolutions.
//!
//! A register tile computes `mr` rows by `NV` vectors of the output. Its operand rows come as pointers, in
//! *runs*: a linear layer is one run over K; a convolution has one run for each kernel tap (or, where pixels
//! lie densely, one for each kernel row). Pixels outside the image point to a row of zeros, or their run is
//! left out. So nothing is copied, and the one micro-kernel serves all.
use super::epilogue::Post;
use super::panels::Panels;
use super::rows::{load, store};
use super::view::{Out, View};
use crate::cpu::pool::Pool;
use crate::cpu::simd::{Kernel, Level, Simd};
use std::mem::MaybeUninit;

/// Rows of the tallest register tile of any level.
pub(crate) const MAX_MR: usize = 12;
/// Kernel taps that a tile can gather from.
pub(crate) const MAX_RUNS: usize = 64;

/// A part of the sum over K: `len` consecutive weights and, for each row of the tile, `len` operands.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    /// First weight row.
    pub k: usize,
    /// Operands of each tile row.
    pub rows: [*const f32; MAX_MR],
}

/// Where a tile's rows come from and go to.
pub(crate) struct TileAt {
    /// Rows of the tile, at most the level's `MR`.
    pub mr: usize,
    /// Runs filled in.
    pub runs: usize,
    /// Length of each run.
    pub len: usize,
    /// First output row.
    pub row: usize,
    /// Output rows from one tile row to the next.
    pub row_step: usize,
}

/// Cuts an operation's output rows into tiles.
pub(crate) trait TileSource: Sync {
    /// Number of tiles.
    fn tiles(&self) -> usize;
    /// Describes a tile and fills in its runs.
    fn tile(&self, index: usize, runs: &mut [MaybeUninit<Run>; MAX_RUNS]) -> TileAt;
    /// Bytes of operands behind a tile, to size blocks by.
    fn tile_bytes(&self) -> usize;
    /// Memory that the tile reads and its predecessor did not: first row, pitch, rows, elements of a row.
    fn fresh(&self, index: usize) -> (*const f32, usize, usize, usize);
}

/// Rows of operands in lines: the pixels of a part of a map, or one line of all rows of a matrix. Lines are
/// cut into tiles of nearly equal height.
#[derive(Clone, Copy)]
pub(crate) struct Grid {
    pub x: *const f32,
    pub pitch: usize,
    pub k: usize,
    pub lines: usize,
    /// Rows of a line.
    pub width: usize,
    /// Operand rows from a line to the next.
    pub line_step: usize,
    /// Output row of the first row, and steps to the next row and to the next line.
    pub out_row: usize,
    pub out_step: usize,
    pub out_line_step: usize,
    pub tiles_per_line: usize,
}
// SAFETY: read only; stands for a shared borrow.
unsafe impl Sync for Grid {}

impl Grid {
    /// All rows of a matrix, to the same rows of the output.
    pub fn matrix(x: View, level: Level) -> Self {
        Grid {
            x: x.ptr(),
            pitch: x.pitch(),
            k: x.cols(),
            lines: 1,
            width: x.rows(),
            line_step: 0,
            out_row: 0,
            out_step: 1,
            out_line_step: 0,
            tiles_per_line: x.rows().div_ceil(level.tile().0),
        }
    }

    /// Line, first row in it, and height of a tile.
    #[inline(always)]
    fn place(&self, index: usize) -> (usize, usize, usize) {
        let (line, part) = (index / self.tiles_per_line, index % self.tiles_per_line);
        let first = part * self.width / self.tiles_per_line;
        (line, first, (part + 1) * self.width / self.tiles_per_line - first)
    }
}

impl TileSource for Grid {
    fn tiles(&self) -> usize {
        self.lines * self.tiles_per_line
    }
    #[inline(always)]
    fn tile(&self, index: usize, runs: &mut [MaybeUninit<Run>; MAX_RUNS]) -> TileAt {
        let (line, first, mr) = self.place(index);
        let start = self.x.wrapping_add((line * self.line_step + first) * self.pitch);
        let mut rows = [start; MAX_MR];
        for (i, r) in rows.iter_mut().enumerate() {
            *r = start.wrapping_add(i * self.pitch);
        }
        runs[0].write(Run { k: 0, rows });
        let row = self.out_row + line * self.out_line_step + first * self.out_step;
        TileAt { mr, runs: 1, len: self.k, row, row_step: self.out_step }
    }
    fn tile_bytes(&self) -> usize {
        self.width * self.k * 4 / self.tiles_per_line.max(1)
    }
    #[inline(always)]
    fn fresh(&self, index: usize) -> (*const f32, usize, usize, usize) {
        let (line, first, mr) = self.place(index);
        let start = self.x.wrapping_add((line * self.line_step + first) * self.pitch);
        (start, self.pitch, mr, self.k)
    }
}

/// The operand added before the last activation.
#[derive(Clone, Copy)]
pub(crate) struct Residual {
    pub ptr: *const f32,
    pub pitch: usize,
}
impl Residual {
    /// The residual of a tile: from row `row`, each `row_step`-th, and column `col`.
    #[inline(always)]
    pub fn at(self, row: usize, row_step: usize, col: usize) -> Residual {
        Residual { ptr: self.ptr.wrapping_add(row * self.pitch + col), pitch: row_step * self.pitch }
    }
}

// SAFETY: read only; stands for a shared borrow.
unsafe impl Send for Residual {}
// SAFETY: as above.
unsafe impl Sync for Residual {}

/// Runs all tiles of a product on the pool.
///
/// # Safety
/// The runs of `source` are readable, the output rows it names hold `n` writable elements at `pitch`, tiles
/// name disjoint rows, and the residual has the same rows.
pub(crate) unsafe fn product<T: TileSource>(
    pool: &Pool,
    source: &T,
    panels: &Panels,
    residual: Option<Residual>,
    out: *mut f32,
    pitch: usize,
) {
    let tiles = source.tiles();
    if tiles == 0 || panels.n == 0 {
        return;
    }
    let (tile_blocks, panel_blocks) = split(pool.threads(), source, panels);
    let out = Out(out);
    pool.parallel_for(tile_blocks * panel_blocks, |chunk| {
        let (pb, tb) = (chunk / tile_blocks, chunk % tile_blocks);
        let part = |i: usize, n: usize, of: usize| i * of / n..(i + 1) * of / n;
        let block = TileBlock {
            source,
            panels,
            tile_range: part(tb, tile_blocks, tiles),
            panel_range: part(pb, panel_blocks, panels.count()),
            residual,
            out: out.get(),
            pitch,
        };
        // SAFETY: the caller's promise; blocks are disjoint.
        unsafe { panels.level.dispatch(block) };
    });
}

/// Runs all tiles of a product on the calling thread, as a part of a chunk.
///
/// # Safety
/// As for [`product`].
pub(crate) unsafe fn product_here<T: TileSource>(
    source: &T,
    panels: &Panels,
    residual: Option<Residual>,
    out: *mut f32,
    pitch: usize,
) {
    let block = TileBlock {
        source,
        panels,
        tile_range: 0..source.tiles(),
        panel_range: 0..panels.count(),
        residual,
        out,
        pitch,
    };
    // SAFETY: the caller's promise.
    unsafe { panels.level.dispatch(block) };
}

/// Into how many blocks of tiles and of panels the work is cut.
fn split<T: TileSource>(threads: usize, source: &T, panels: &Panels) -> (usize, usize) {
    /// Operands of a block stay in the second-level cache while the panels pass.
    const BLOCK_BYTES: usize = 320 * 1024;
    /// Multiplications below which a chunk is not worth a dispatch of its own.
    const MIN_WORK: usize = 200_000;
    let (tiles, count) = (source.tiles(), panels.count());
    let by_cache = if count > 1 { (tiles * source.tile_bytes()).div_ceil(BLOCK_BYTES) } else { 1 };
    let work = tiles * panels.level.tile().0 * panels.n * panels.k;
    let wanted = if threads == 1 { 1 } else { (threads * 6).min(work / MIN_WORK).max(1) };
    let mut best = (usize::MAX, (1, 1));
    let mut panel_blocks = 1;
    while panel_blocks <= count {
        let tile_blocks = wanted.div_ceil(panel_blocks).max(by_cache).min(tiles);
        // Bytes moved: every tile block reads all weights, every panel block all operands.
        let mut cost = tile_blocks * panels.k * panels.n * 4 + panel_blocks * tiles * source.tile_bytes();
        if tile_blocks * panel_blocks < wanted {
            // Idle threads cost more than any traffic.
            cost = cost.saturating_mul(16);
        }
        if cost < best.0 {
            best = (cost, (tile_blocks, panel_blocks));
        }
        panel_blocks *= 2;
    }
    best.1
}

struct TileBlock<'a, T: TileSource> {
    source: &'a T,
    panels: &'a Panels,
    tile_range: std::ops::Range<usize>,
    panel_range: std::ops::Range<usize>,
    residual: Option<Residual>,
    out: *mut f32,
    pitch: usize,
}

/// A tile's sums on their way to the epilogue.
#[repr(align(64))]
pub(crate) struct Sums([MaybeUninit<f32>; MAX_MR * 2 * 16]);

impl Sums {
    #[inline(always)]
    pub fn new() -> Self {
        Sums([const { MaybeUninit::uninit() }; MAX_MR * 2 * 16])
    }
    #[inline(always)]
    pub fn get(&mut self) -> *mut f32 {
        self.0.as_mut_ptr().cast()
    }
}

impl<T: TileSource> Kernel for TileBlock<'_, T> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let mut runs = [const { MaybeUninit::<Run>::uninit() }; MAX_RUNS];
        let mut sums = Sums::new();
        let sums = sums.get();
        let p = self.panels;
        let post = p.post;
        let direct = post.is_simple() && self.residual.is_none();
        let first_panel = self.panel_range.start;
        for panel in self.panel_range {
            let col = panel * p.width;
            let cols = p.width.min(p.n - col);
            let vectors = cols.div_ceil(S::LANES);
            for index in self.tile_range.clone() {
                let at = self.source.tile(index, &mut runs);
                // SAFETY: the promise of `product`; the tile's rows and columns are inside the output.
                unsafe {
                    let out = self.out.add(at.row * self.pitch + col);
                    let step = at.row_step * self.pitch;
                    let micro = Micro {
                        runs: runs.as_ptr().cast(),
                        count: at.runs,
                        len: at.len,
                        weights: p.panel(panel).as_ptr(),
                        weights_step: vectors * S::LANES,
                        bias: p.bias.as_ptr().add(col),
                        out: if direct { out } else { sums },
                        step: if direct { step } else { 2 * S::LANES },
                        cols: if direct { cols } else { vectors * S::LANES },
                        post: if direct { post } else { Post::NONE },
                    };
                    // The output's lines arrive while the sums are made, the next operands as well.
                    for i in 0..at.mr {
                        for v in 0..vectors {
                            S::prefetch::<true>(out.add(i * step + v * S::LANES));
                        }
                    }
                    if panel == first_panel && index + 1 < self.tile_range.end {
                        let (first, pitch, rows, len) = self.source.fresh(index + 1);
                        for row in 0..rows {
                            for c in (0..len).step_by(16) {
                                S::prefetch::<false>(first.wrapping_add(row * pitch + c));
                            }
                        }
                    }
                    if vectors == 2 {
                        micro.rows::<S, 2>(at.mr)
                    } else {
                        micro.rows::<S, 1>(at.mr)
                    }
                    if direct {
                        continue;
                    }
                    S::vectorize(ApplyEpilogue {
                        sums,
                        sums_pitch: 2 * S::LANES,
                        rows: at.mr,
                        cols,
                        post,
                        residual: self.residual.map(|r| r.at(at.row, at.row_step, col)),
                        out,
                        step,
                    });
                }
            }
        }
    }
}

/// Takes the sums of a tile through the epilogue, in a loop rather than unrolled: it may be long code.
pub(crate) struct ApplyEpilogue {
    pub sums: *const f32,
    pub sums_pitch: usize,
    pub rows: usize,
    pub cols: usize,
    pub post: Post,
    pub residual: Option<Residual>,
    pub out: *mut f32,
    /// Elements from an output row to the next.
    pub step: usize,
}

impl Kernel for ApplyEpilogue {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for i in 0..self.rows {
            let mut c = 0;
            while c < self.cols {
                let n = S::LANES.min(self.cols - c);
                // SAFETY: the caller's promise: whole vectors of sums, and `cols` elements in each row of
                // the residual and of the output.
                unsafe {
                    let x = S::load(self.sums.add(i * self.sums_pitch + c));
                    let residual = self.residual.map(|r| load::<S>(r.ptr.add(i * r.pitch + c), n));
                    store::<S>(self.out.add(i * self.step + c), self.post.apply::<S>(x, residual), n);
                }
                c += S::LANES;
            }
        }
    }
}

/// One register tile: `mr` rows by `NV` vectors, the sum of its runs.
#[derive(Clone, Copy)]
pub(crate) struct Micro {
    pub runs: *const Run,
    pub count: usize,
    /// Length of each run.
    pub len: usize,
    /// Row 0 of the weights: `NV` vectors behind each row.
    pub weights: *const f32,
    /// Elements from a weight row to the next.
    pub weights_step: usize,
    /// `NV` vectors that start the sums, or null.
    pub bias: *const f32,
    pub out: *mut f32,
    /// Elements from an output row to the next.
    pub step: usize,
    /// Columns to write; all but the last vector are full.
    pub cols: usize,
    /// Simple, and applied before the output is written.
    pub post: Post,
}

impl Micro {
    /// Runs with a height of `mr`.
    ///
    /// # Safety
    /// `len` operands behind each of the `mr` row pointers of each run, weights and bias as described,
    /// `cols` writable elements in each output row.
    #[inline(always)]
    pub unsafe fn rows<S: Simd, const NV: usize>(self, mr: usize) {
        macro_rules! by_height {
            ($($n:literal)*) => {
                match mr {
                    // SAFETY: the caller's promises; heights beyond the level's tile are never asked for.
                    $($n if const { $n <= S::MR && NV <= S::NV } => unsafe { S::vectorize(Sized::<$n, NV>(self)) },)*
                    _ => unreachable!("a register tile of {mr} rows"),
                }
            };
        }
        by_height!(1 2 3 4 5 6 7 8 9 10 11 12)
    }
}

struct Sized<const MR: usize, const NV: usize>(Micro);

impl<const MR: usize, const NV: usize> Kernel for Sized<MR, NV> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let t = self.0;
        // SAFETY: the promises of `product`: `len` operands behind each row pointer, `NV` vectors of weights
        // behind each k, `cols` writable elements in each output row.
        unsafe {
            let mut acc = [[S::zero(); NV]; MR];
            if !t.bias.is_null() {
                for j in 0..NV {
                    let b = S::load(t.bias.add(j * S::LANES));
                    for row in &mut acc {
                        row[j] = b;
                    }
                }
            }
            for r in 0..t.count {
                let run = &*t.runs.add(r);
                let mut rows = [std::ptr::null::<f32>(); MR];
                rows.copy_from_slice(&run.rows[..MR]);
                let mut w = t.weights.add(run.k * t.weights_step);
                for c in 0..t.len {
                    let mut b = [S::zero(); NV];
                    for j in 0..NV {
                        b[j] = S::load(w.add(j * S::LANES));
                    }
                    w = w.add(t.weights_step);
                    for i in 0..MR {
                        let a = S::splat(*rows[i].add(c));
                        for j in 0..NV {
                            acc[i][j] = S::fma(a, b[j], acc[i][j]);
                        }
                    }
                }
            }
            for row in &mut acc {
                t.post.apply_simple::<S, NV>(row);
            }
            if t.cols == NV * S::LANES {
                for i in 0..MR {
                    for j in 0..NV {
                        S::store(t.out.add(i * t.step + j * S::LANES), acc[i][j]);
                    }
                }
            } else {
                let last = t.cols - (NV - 1) * S::LANES;
                for i in 0..MR {
                    for j in 0..NV - 1 {
                        S::store(t.out.add(i * t.step + j * S::LANES), acc[i][j]);
                    }
                    S::store_n(t.out.add(i * t.step + (NV - 1) * S::LANES), acc[i][NV - 1], last);
                }
            }
        }
    }
}
