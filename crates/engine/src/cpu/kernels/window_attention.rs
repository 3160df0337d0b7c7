//! A transformer's attention layer over windows of a map, from the layer norm to the residual, one window at
//! a time in the second-level cache (TinyViT's `TinyViTBlock` up to its MLP).
use super::attention::{AttentionShape, HEAD_SCRATCH, Head, MAX_D, QUERIES};
use super::elementwise::ForRows;
use super::gemm::{PackedLinear, residual_of};
use super::rows::{LayerNorm, NormRow};
use super::tile::{Grid, product_here};
use super::view::{Map, View, ViewMut};
use crate::cpu::pool::{Pool, SCRATCH_LEN};

/// What [`window_attention`] computes.
#[derive(Clone, Copy)]
pub struct WindowAttention<'a> {
    /// The map that is cut into windows.
    pub map: Map,
    /// Side of a window in pixels; windows past the right and bottom edges are padded with zero pixels,
    /// which are normalised and attended to like others.
    pub side: usize,
    /// Applied to each pixel first.
    pub norm: LayerNorm<'a>,
    /// Queries, keys and values of all pixels of a window, from its normalised pixels.
    pub qkv: &'a PackedLinear,
    /// Columns of head 0's query, key and value in what `qkv` gives.
    pub offsets: [usize; 3],
    /// Columns from a head to the next.
    pub head_stride: usize,
    /// Heads.
    pub heads: usize,
    /// Elements of a query and of a key of one head.
    pub d: usize,
    /// Elements of a value of one head.
    pub dv: usize,
    /// Factor of the scores.
    pub scale: f32,
    /// `[heads, side², side²]`, added to the scores.
    pub bias: Option<&'a [f32]>,
    /// From the heads' results, side by side, to the output.
    pub project: &'a PackedLinear,
}

/// Windows down and across a map, the last ones padded.
fn windows(map: Map, side: usize) -> (usize, usize) {
    assert!(side > 0, "windows of no pixels");
    (map.h.div_ceil(side), map.w.div_ceil(side))
}

/// `out = project(attention(qkv(norm(x)))) + residual` within windows of the map. Both `residual` and `out`
/// may be the memory of `x`.
pub fn window_attention(pool: &Pool, x: View, layer: &WindowAttention, residual: Option<View>, out: ViewMut) {
    let l = layer;
    let level = l.qkv.panels.level;
    let (map, side, pixels) = (l.map, l.side, l.side * l.side);
    map.check(x.rows(), "the input");
    map.check(out.rows(), "the output");
    let (channels, wide, attended) = (x.cols(), l.qkv.n(), l.heads * l.dv);
    assert_eq!((l.norm.gamma.len(), l.norm.beta.len()), (channels, channels), "gamma and beta");
    assert_eq!(l.qkv.k(), channels, "columns that queries, keys and values are made from");
    assert_eq!((l.project.k(), l.project.n()), (attended, out.cols()), "sizes of the projection");
    assert!(l.d <= MAX_D && l.dv <= MAX_D, "heads of {} and {}: at most {MAX_D} elements", l.d, l.dv);
    for (offset, d) in [(l.offsets[0], l.d), (l.offsets[1], l.d), (l.offsets[2], l.dv)] {
        let need = offset + l.heads.saturating_sub(1) * l.head_stride + d;
        assert!(need <= wide, "heads reach column {need} of {wide}");
    }
    if let Some(b) = l.bias {
        assert_eq!(b.len(), l.heads * pixels * pixels, "bias elements of {} heads", l.heads);
    }
    let need = HEAD_SCRATCH + pixels * (channels + wide + attended) + channels;
    assert!(need <= SCRATCH_LEN, "windows of {side}x{side} pixels of {channels} channels are too large");
    let residual = residual_of(residual, &out);
    let (down, across) = windows(map, side);
    pool.parallel_for_scratch(map.n * down * across, |window, scratch| {
        let (image, window) = (window / (down * across), window % (down * across));
        let (y0, x0) = (window / across * side, window % across * side);
        let (high, broad) = (side.min(map.h - y0), side.min(map.w - x0));
        let first = (image * map.h + y0) * map.w + x0;
        let (head_scratch, rest) = scratch.split_at_mut(HEAD_SCRATCH);
        let (zeros, rest) = rest.split_at_mut(channels);
        let (normed, rest) = rest.split_at_mut(pixels * channels);
        let (qkv, rest) = rest.split_at_mut(pixels * wide);
        let gathered = &mut rest[..pixels * attended];
        zeros.fill(0.0);
        let normed_ptr = normed.as_mut_ptr();
        let kernel = |i: usize| {
            let (y, ix) = (i / side, i % side);
            let inside = y < high && ix < broad;
            let pixel = x.ptr().wrapping_add((first + y * map.w + ix) * x.pitch());
            NormRow {
                x: if inside { pixel } else { zeros.as_ptr() },
                residual: std::ptr::null(),
                sum: std::ptr::null_mut(),
                y: normed_ptr.wrapping_add(i * channels),
                norm: l.norm,
            }
        };
        // SAFETY: pixels inside the map are inside the view; `normed` and the zeros hold `channels` elements for each.
        unsafe { level.dispatch(ForRows { rows: 0..pixels, kernel }) };
        let grid = Grid::matrix(View::new(normed, pixels, channels, channels), level);
        // SAFETY: `qkv` has room for all rows.
        unsafe { product_here(&grid, &l.qkv.panels, None, qkv.as_mut_ptr(), wide) };
        for head in 0..l.heads {
            let at = |offset: usize| qkv.as_ptr().wrapping_add(offset + head * l.head_stride);
            for q0 in (0..pixels).step_by(QUERIES) {
                let kernel = Head {
                    s: AttentionShape {
                        batch: 1,
                        heads: 1,
                        lq: pixels,
                        lk: pixels,
                        d: l.d,
                        dv: l.dv,
                        scale: l.scale,
                    },
                    queries: QUERIES.min(pixels - q0),
                    q: at(l.offsets[0]).wrapping_add(q0 * wide),
                    q_pitch: wide,
                    k: at(l.offsets[1]),
                    k_pitch: wide,
                    v: at(l.offsets[2]),
                    v_pitch: wide,
                    bias: l.bias.map_or(std::ptr::null(), |b| b[(head * pixels + q0) * pixels..].as_ptr()),
                    out: gathered.as_mut_ptr().wrapping_add(q0 * attended + head * l.dv),
                    out_pitch: attended,
                    next: None,
                    scratch: head_scratch.as_mut_ptr(),
                };
                // SAFETY: the scratch memory holds all pixels of a window and what a head needs.
                unsafe { level.dispatch(kernel) };
            }
        }
        let grid = Grid {
            x: gathered.as_ptr(),
            pitch: attended,
            k: attended,
            lines: high,
            width: broad,
            line_step: side,
            out_row: first,
            out_step: 1,
            out_line_step: map.w,
            tiles_per_line: broad.div_ceil(l.project.panels.level.tile().0),
        };
        // SAFETY: the output rows are this window's own.
        unsafe { product_here(&grid, &l.project.panels, residual, out.ptr(), out.pitch()) };
    });
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;
    use crate::cpu::kernels::testing::{Rng, everywhere};

    #[test]
    fn a_window_attention_is_its_parts() {
        let mut rng = Rng::seeded();
        everywhere(|level, pool| {
            for case in 0..12 {
                let side = if case == 0 { 17 } else { rng.size(1, 8) };
                let map = Map::new(rng.size(1, 2), rng.size(1, 20), rng.size(1, 20));
                let (heads, d, dv) = (rng.size(1, 3), rng.of(&[8, 16, 20]), rng.of(&[8, 16, 20]));
                let (c, n) = (rng.size(2, 40), rng.size(1, 40));
                let (stride, attended, pixels) = (2 * d + dv, heads * dv, side * side);
                let wide = heads * stride;
                let qkv = PackedLinear::new(level, &rng.vec(wide * c), wide, c, rng.epilogue(wide)).unwrap();
                let project =
                    PackedLinear::new(level, &rng.vec(n * attended), n, attended, rng.epilogue(n)).unwrap();
                let (gamma, beta) = (rng.vec(c), rng.vec(c));
                let norm = LayerNorm { gamma: &gamma, beta: &beta, eps: 1e-5, act: Act::None };
                let bias = rng.coin().then(|| rng.vec(heads * pixels * pixels));
                let x = rng.matrix(map.pixels(), c);
                let residual = rng.coin().then(|| rng.matrix(map.pixels(), n));
                let r = || residual.as_ref().map(|r| r.view());
                let before = rng.matrix(map.pixels(), n);
                // Pixel of the map, if any, of each pixel of the windows.
                let (down, across) = windows(map, side);
                let places: Vec<Option<usize>> = (0..map.n * down * across * pixels)
                    .map(|i| {
                        let (pixel, window) = (i % pixels, i / pixels);
                        let (at, image) = (window % (down * across), window / (down * across));
                        let y = at / across * side + pixel / side;
                        let x = at % across * side + pixel % side;
                        (y < map.h && x < map.w).then_some((image * map.h + y) * map.w + x)
                    })
                    .collect();
                let rows = places.len();

                let (mut cut, mut wide_rows) = (rng.matrix(rows, c), rng.matrix(rows, wide));
                let mut heads_out = rng.matrix(rows, attended);
                for (row, place) in places.iter().enumerate() {
                    match place {
                        Some(pixel) => cut.view_mut().row_mut(row).copy_from_slice(x.view().row(*pixel)),
                        None => cut.view_mut().row_mut(row).fill(0.0),
                    }
                }
                let mut normed = cut.clone();
                layer_norm(level, pool, cut.view(), None, norm, None, normed.view_mut());
                linear(pool, normed.view(), &qkv, None, wide_rows.view_mut());
                let part = |offset| Heads { view: wide_rows.view(), offset, stride };
                let shape =
                    AttentionShape { batch: rows / pixels, heads, lq: pixels, lk: pixels, d, dv, scale: 0.5 };
                let (q, k, v) = (part(0), part(d), part(2 * d));
                attention(level, pool, shape, q, k, v, bias.as_deref(), heads_out.view_mut());
                // The projection's epilogue ends with the residual, so pixels go back to their place first.
                let mut placed = rng.matrix(map.pixels(), attended);
                for (row, pixel) in places.iter().enumerate().filter_map(|(row, p)| p.map(|p| (row, p))) {
                    placed.view_mut().row_mut(pixel).copy_from_slice(heads_out.view().row(row));
                }
                let mut want = before.clone();
                linear(pool, placed.view(), &project, r(), want.view_mut());

                let layer = WindowAttention {
                    map,
                    side,
                    norm,
                    qkv: &qkv,
                    offsets: [0, d, 2 * d],
                    head_stride: stride,
                    heads,
                    d,
                    dv,
                    scale: 0.5,
                    bias: bias.as_deref(),
                    project: &project,
                };
                let mut out = before.clone();
                window_attention(pool, x.view(), &layer, r(), out.view_mut());
                let what = format!("{level:?} {map:?} {side} {heads} {d} {dv}");
                out.check(&before, 1e-5, &what, |i, j| want.at(i, j));
            }
        });
    }
}
