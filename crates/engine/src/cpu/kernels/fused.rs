//! Chains of layers whose intermediate results stay in the second-level cache: the map in the middle is four
//! times as wide as the ends, and writing it to memory costs more than computing it.
use super::depthwise::{Band, PackedDepthwise};
use super::gemm::{PackedLinear, residual_of};
use super::tile::{Grid, product_here};
use super::view::{Map, View, ViewMut};
use crate::cpu::pool::{Pool, SCRATCH_LEN};

/// Elements of scratch memory that a part should use: what leaves room for weights in 1 MiB of cache.
const CACHED: usize = 128 * 1024;

/// `out = second(first(x))`, two linear layers with their epilogues (a transformer's MLP), a few rows at a
/// time. The residual is `out`'s size and may be its memory, or that of `x`.
pub fn mlp(
    pool: &Pool,
    x: View,
    first: &PackedLinear,
    second: &PackedLinear,
    residual: Option<View>,
    out: ViewMut,
) {
    let hidden = first.n();
    assert_eq!(x.cols(), first.k(), "input columns");
    assert_eq!(second.k(), hidden, "columns of the second layer's input");
    assert_eq!((out.rows(), out.cols()), (x.rows(), second.n()), "the output's size");
    // Rows a large power of two apart would share a few cache sets.
    let pitch = hidden + 16;
    assert!(pitch * 12 <= SCRATCH_LEN, "a hidden layer of {hidden} columns is too wide");
    let residual = residual_of(residual, &out);
    let rows = x.rows();
    if rows == 0 {
        return;
    }
    // Rows in whole tiles; each part reads all weights, so not too few.
    let tile = first.panels.level.tile().0;
    let most = (CACHED / hidden / tile).clamp(1, 16) * tile;
    let wanted = if pool.threads() == 1 { 1 } else { pool.threads() * 4 };
    let parts = rows.div_ceil(most).max(wanted.min(rows.div_ceil(2 * tile)));
    pool.parallel_for_scratch(parts, |i, scratch| {
        let (r0, r1) = (i * rows / parts, (i + 1) * rows / parts);
        let middle = ViewMut::new(scratch, r1 - r0, hidden, pitch);
        let grid = Grid::matrix(x.row_range(r0, r1 - r0), first.panels.level);
        // SAFETY: sizes are checked above; parts write disjoint rows.
        unsafe {
            product_here(&grid, &first.panels, None, middle.ptr(), pitch);
            let grid = Grid { out_row: r0, ..Grid::matrix(middle.as_view(), second.panels.level) };
            product_here(&grid, &second.panels, residual, out.ptr(), out.pitch());
        }
    });
}

/// `out = project(depthwise(expand(x)))`, two 1x1 convolutions around a depthwise one, each with its
/// epilogue (MobileNetV2's inverted residual block), in strips of a few lines and columns. The residual is
/// `out`'s size and may be its memory, but not that of `x` unless `out` is elsewhere.
#[allow(clippy::too_many_arguments)]
pub fn inverted_bottleneck(
    pool: &Pool,
    x: View,
    input: Map,
    expand: &PackedLinear,
    middle: &PackedDepthwise,
    project: &PackedLinear,
    residual: Option<View>,
    out: ViewMut,
) {
    let output = middle.shape.output(input);
    let channels = middle.channels;
    input.check(x.rows(), "the input");
    output.check(out.rows(), "the output");
    assert_eq!((x.cols(), expand.n()), (expand.k(), channels), "channels of the expansion");
    assert_eq!((project.k(), project.n()), (channels, out.cols()), "channels of the projection");
    let residual = residual_of(residual, &out);
    if out.rows() == 0 {
        return;
    }
    let ([kh, kw], [sh, sw]) = (middle.shape.kernel, middle.shape.stride);
    // Expanded pixels and depthwise results of a part of a strip.
    let needs = |lines: usize, width: usize| {
        (((lines - 1) * sh + kh) * ((width - 1) * sw + kw) + lines * width) * channels
    };
    let mut width = 32.min(output.w);
    while width > 4 && needs(1, width) > CACHED {
        width /= 2;
    }
    let lines = (1..=8).rev().find(|&l| needs(l, width) <= CACHED).unwrap_or(1).min(output.h);
    assert!(needs(lines, width) <= SCRATCH_LEN, "{channels} channels under {:?}: too many", middle.shape);
    let strips = output.w.div_ceil(width);
    let wanted = if pool.threads() == 1 { 1 } else { pool.threads() * 6 };
    let bands = wanted.div_ceil(strips * output.n).min(output.h.div_ceil(2 * lines)).max(1);
    pool.parallel_for_scratch(output.n * bands * strips, |chunk, scratch| {
        let (image, part) = (chunk / (bands * strips), chunk % (bands * strips));
        let (band, strip) = (part / strips, part % strips);
        let (ox0, ox1) = (strip * output.w / strips, (strip + 1) * output.w / strips);
        let (oy0, oy1) = (band * output.h / bands, (band + 1) * output.h / bands);
        let width = ox1 - ox0;
        let in_width = (width - 1) * sw + kw;
        let line_len = in_width * channels;
        let (expanded, filtered) = scratch.split_at_mut(((lines - 1) * sh + kh) * line_len);
        // Expanded columns inside the image.
        let left = middle.shape.pad[1].saturating_sub(ox0 * sw).min(in_width);
        let right = (input.w + middle.shape.pad[1]).saturating_sub(ox0 * sw).min(in_width).max(left);
        let tile = |level: crate::cpu::Level, width: usize| width.div_ceil(level.tile().0);
        let mut oy = oy0;
        while oy < oy1 {
            let now = lines.min(oy1 - oy);
            let in_lines = (now - 1) * sh + kh;
            // Lines that the part above has made already.
            let kept = if oy > oy0 { kh.saturating_sub(sh) } else { 0 };
            if kept > 0 {
                let from = lines * sh * line_len;
                expanded.copy_within(from..from + kept * line_len, 0);
            }
            // New lines inside the image; the others are zero.
            let top = middle.shape.pad[0].saturating_sub(oy * sh).clamp(kept, in_lines);
            let bottom = (input.h + middle.shape.pad[0]).saturating_sub(oy * sh).clamp(top, in_lines);
            expanded[kept * line_len..top * line_len].fill(0.0);
            expanded[bottom * line_len..in_lines * line_len].fill(0.0);
            for line in expanded[top * line_len..bottom * line_len].chunks_exact_mut(line_len) {
                line[..left * channels].fill(0.0);
                line[right * channels..].fill(0.0);
            }
            if top < bottom && left < right {
                let iy = oy * sh + top - middle.shape.pad[0];
                let ix = ox0 * sw + left - middle.shape.pad[1];
                let first = (image * input.h + iy) * input.w + ix;
                let grid = Grid {
                    x: x.ptr().wrapping_add(first * x.pitch()),
                    pitch: x.pitch(),
                    k: x.cols(),
                    lines: bottom - top,
                    width: right - left,
                    line_step: input.w,
                    out_row: top * in_width + left,
                    out_step: 1,
                    out_line_step: in_width,
                    tiles_per_line: tile(expand.panels.level, right - left),
                };
                // SAFETY: the pixels are inside the image, and the scratch memory holds all lines.
                unsafe { product_here(&grid, &expand.panels, None, expanded.as_mut_ptr(), channels) };
            }
            let kernel = Band {
                w: middle,
                pad: [0, 0],
                input: Map::new(1, in_lines, in_width),
                output: Map::new(1, now, width),
                x: expanded.as_ptr(),
                x_pitch: channels,
                out: filtered.as_mut_ptr(),
                out_pitch: channels,
                residual: None,
                lines: 0..now,
                vectors: 0..channels.div_ceil(middle.level.lanes()),
            };
            // SAFETY: the scratch memory holds the expanded lines and the results.
            unsafe { middle.level.dispatch(kernel) };
            let grid = Grid {
                x: filtered.as_ptr(),
                pitch: channels,
                k: channels,
                lines: now,
                width,
                line_step: width,
                out_row: (image * output.h + oy) * output.w + ox0,
                out_step: 1,
                out_line_step: output.w,
                tiles_per_line: tile(project.panels.level, width),
            };
            // SAFETY: the output rows are this part's own.
            unsafe { product_here(&grid, &project.panels, residual, out.ptr(), out.pitch()) };
            oy += now;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;
    use crate::cpu::kernels::testing::{Rng, everywhere};

    #[test]
    fn mlp_is_two_linear_layers() {
        let mut rng = Rng::seeded();
        everywhere(|level, pool| {
            for _ in 0..15 {
                let (m, k, hidden, n) =
                    (rng.size(1, 400), rng.size(1, 60), rng.size(1, 150), rng.size(1, 60));
                let first =
                    PackedLinear::new(level, &rng.vec(hidden * k), hidden, k, rng.epilogue(hidden)).unwrap();
                let second =
                    PackedLinear::new(level, &rng.vec(n * hidden), n, hidden, rng.epilogue(n)).unwrap();
                let x = rng.matrix(m, k);
                let residual = rng.coin().then(|| rng.matrix(m, n));
                let r = || residual.as_ref().map(|r| r.view());
                let before = rng.matrix(m, n);
                let (mut middle, mut want, mut out) = (rng.matrix(m, hidden), before.clone(), before.clone());
                linear(pool, x.view(), &first, None, middle.view_mut());
                linear(pool, middle.view(), &second, r(), want.view_mut());
                mlp(pool, x.view(), &first, &second, r(), out.view_mut());
                let what = format!("{level:?} {m} {k}->{hidden}->{n}");
                out.check(&before, 1e-6, &what, |i, j| want.at(i, j));
            }
        });
    }

    #[test]
    fn an_inverted_bottleneck_is_its_three_layers() {
        let mut rng = Rng::seeded();
        everywhere(|level, pool| {
            for _ in 0..30 {
                let (cin, channels, cout) =
                    (rng.of(&[3, 16, 33]), rng.of(&[16, 40, 128, 700]), rng.of(&[5, 16, 48]));
                let (k, s) = (rng.of(&[1, 3, 5]), rng.size(1, 3));
                let shape = ConvShape { kernel: [k; 2], stride: [s; 2], pad: [0; 4].map(|_| rng.size(0, k)) };
                let input = Map::new(rng.size(1, 2), rng.size(5, 40), rng.size(5, 70));
                let output = shape.output(input);
                let expand =
                    PackedLinear::new(level, &rng.vec(channels * cin), channels, cin, rng.epilogue(channels))
                        .unwrap();
                let middle = PackedDepthwise::new(
                    level,
                    &rng.vec(channels * k * k),
                    channels,
                    shape,
                    rng.epilogue(channels),
                )
                .unwrap();
                let project =
                    PackedLinear::new(level, &rng.vec(cout * channels), cout, channels, rng.epilogue(cout))
                        .unwrap();
                let x = rng.matrix(input.pixels(), cin);
                let residual = rng.coin().then(|| rng.matrix(output.pixels(), cout));
                let r = || residual.as_ref().map(|r| r.view());
                let before = rng.matrix(output.pixels(), cout);
                let (mut want, mut out) = (before.clone(), before.clone());
                let mut wide = rng.matrix(input.pixels(), channels);
                let mut filtered = rng.matrix(output.pixels(), channels);
                linear(pool, x.view(), &expand, None, wide.view_mut());
                depthwise(pool, wide.view(), input, &middle, None, filtered.view_mut());
                linear(pool, filtered.view(), &project, r(), want.view_mut());
                inverted_bottleneck(pool, x.view(), input, &expand, &middle, &project, r(), out.view_mut());
                let what = format!("{level:?} {input:?} {cin}->{channels}->{cout} {shape:?}");
                out.check(&before, 1e-6, &what, |i, j| want.at(i, j));
            }
        });
    }
}
