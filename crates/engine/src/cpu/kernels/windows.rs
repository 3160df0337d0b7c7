//! Cutting maps into square windows and putting them together again (TinyViT's local attention).
use super::elementwise::by_rows;
use super::rows::{load, store};
use super::view::{Map, Out, View, ViewMut};
use crate::cpu::pool::Pool;
use crate::cpu::simd::{Kernel, Level, Simd};

/// Windows down and across a map, the last ones padded.
pub(super) fn windows(map: Map, side: usize) -> (usize, usize) {
    assert!(side > 0, "windows of no pixels");
    (map.h.div_ceil(side), map.w.div_ceil(side))
}

/// Rows of the windowed view of a map: `N · ceil(H / side) · ceil(W / side) · side²`.
pub fn window_rows(map: Map, side: usize) -> usize {
    let (down, across) = windows(map, side);
    map.n * down * across * side * side
}

/// `x[N, H, W, C]` to `out[N · windows, side², C]`, row by row of windows; pixels past the right and bottom
/// edges are zero.
pub fn window_partition(level: Level, pool: &Pool, x: View, input: Map, side: usize, out: ViewMut) {
    input.check(x.rows(), "the input");
    assert_eq!(out.rows(), window_rows(input, side), "rows of the windows");
    assert_eq!(x.cols(), out.cols(), "input and output channels");
    move_windows(
        level,
        pool,
        Windows {
            map: input,
            side,
            channels: x.cols(),
            whole: Out(x.ptr().cast_mut()),
            whole_pitch: x.pitch(),
            cut: Out(out.ptr()),
            cut_pitch: out.pitch(),
            residual: Out(std::ptr::null_mut()),
            residual_pitch: 0,
            merge: false,
        },
    );
}

/// The reverse of [`window_partition`], without the padding, plus the residual (as `out`, and it may be its
/// memory).
pub fn window_merge(
    level: Level,
    pool: &Pool,
    x: View,
    output: Map,
    side: usize,
    residual: Option<View>,
    out: ViewMut,
) {
    output.check(out.rows(), "the output");
    assert_eq!(x.rows(), window_rows(output, side), "rows of the windows");
    assert_eq!(x.cols(), out.cols(), "input and output channels");
    let (residual, residual_pitch) = residual.map_or((Out(std::ptr::null_mut()), 0), |r| {
        assert_eq!((r.rows(), r.cols()), (out.rows(), out.cols()), "residual and output sizes");
        (Out(r.ptr().cast_mut()), r.pitch())
    });
    move_windows(
        level,
        pool,
        Windows {
            map: output,
            side,
            channels: x.cols(),
            whole: Out(out.ptr()),
            whole_pitch: out.pitch(),
            cut: Out(x.ptr().cast_mut()),
            cut_pitch: x.pitch(),
            residual,
            residual_pitch,
            merge: true,
        },
    );
}

#[derive(Clone, Copy)]
struct Windows {
    map: Map,
    side: usize,
    channels: usize,
    /// The map, and the windows: one is read and the other written.
    whole: Out,
    whole_pitch: usize,
    cut: Out,
    cut_pitch: usize,
    residual: Out,
    residual_pitch: usize,
    merge: bool,
}

fn move_windows(level: Level, pool: &Pool, all: Windows) {
    let (down, _) = windows(all.map, all.side);
    // A line of the padded map is read and written by one chunk.
    by_rows(pool, all.map.n * down * all.side, all.map.w * all.channels, 8192, |lines| {
        level.dispatch(WindowLines { all, lines });
    });
}

struct WindowLines {
    all: Windows,
    lines: std::ops::Range<usize>,
}

impl Kernel for WindowLines {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let a = self.all;
        let (down, across) = windows(a.map, a.side);
        for line in self.lines {
            let (image, y) = (line / (down * a.side), line % (down * a.side));
            if a.merge && y >= a.map.h {
                continue;
            }
            let first = ((image * down + y / a.side) * across * a.side + y % a.side) * a.side;
            let width = if a.merge { a.map.w } else { across * a.side };
            for x in 0..width {
                let row = first + x / a.side * a.side * a.side + x % a.side;
                let inside = y < a.map.h && x < a.map.w;
                let pixel = (image * a.map.h + y) * a.map.w + x;
                // SAFETY: window rows are inside the windows' view; a pixel is touched only if inside.
                unsafe {
                    let cut = a.cut.get().add(row * a.cut_pitch);
                    let whole = a.whole.get().wrapping_add(pixel * a.whole_pitch);
                    let mut c = 0;
                    while c < a.channels {
                        let n = S::LANES.min(a.channels - c);
                        if a.merge {
                            let mut v = load::<S>(cut.add(c), n);
                            if !a.residual.get().is_null() {
                                let r = a.residual.get().add(pixel * a.residual_pitch + c);
                                v = S::add(v, load::<S>(r, n));
                            }
                            store::<S>(whole.add(c), v, n);
                        } else {
                            let v = if inside { load::<S>(whole.add(c), n) } else { S::zero() };
                            store::<S>(cut.add(c), v, n);
                        }
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
    fn windows_hold_their_pixels_and_merge_back() {
        let mut rng = Rng::seeded();
        everywhere(|level, pool| {
            for _ in 0..20 {
                let map = Map::new(rng.size(1, 2), rng.size(1, 20), rng.size(1, 20));
                let (side, c) = (rng.size(1, 8), rng.of(&[1, 16, 20, 64]));
                let x = rng.matrix(map.pixels(), c);
                let before = rng.matrix(window_rows(map, side), c);
                let mut cut = before.clone();
                window_partition(level, pool, x.view(), map, side, cut.view_mut());
                let (down, across) = windows(map, side);
                let what = format!("{level:?} {map:?} {side} {c}");
                cut.check(&before, 0.0, &what, |row, c| {
                    let (window, within) = (row / (side * side), row % (side * side));
                    let (image, window) = (window / (down * across), window % (down * across));
                    let y = window / across * side + within / side;
                    let ix = window % across * side + within % side;
                    if y < map.h && ix < map.w { x.at((image * map.h + y) * map.w + ix, c) } else { 0.0 }
                });
                let residual = rng.coin().then(|| rng.matrix(map.pixels(), c));
                let before = rng.matrix(map.pixels(), c);
                let mut out = before.clone();
                let r = residual.as_ref().map(|r| r.view());
                window_merge(level, pool, cut.view(), map, side, r, out.view_mut());
                out.check(&before, 1e-7, &what, |row, c| {
                    x.at(row, c) + residual.as_ref().map_or(0.0, |r| r.at(row, c))
                });
            }
        });
    }
}
