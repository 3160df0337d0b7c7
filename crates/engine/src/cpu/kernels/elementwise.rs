//! Operations element by element, with the broadcasts that occur: a row for all rows, a column, a scalar.
use super::epilogue::Act;
use super::view::{View, ViewMut};
use crate::cpu::pool::Pool;
use crate::cpu::simd::{Kernel, Level, Simd, math};

/// A function of one element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unary {
    /// An activation, or a copy with `Act::None`.
    Act(Act),
    /// `e^x`
    Exp,
    /// Natural logarithm
    Log,
    /// `√x`
    Sqrt,
    /// `|x|`
    Abs,
    /// `sin x`, radians
    Sin,
    /// `cos x`, radians
    Cos,
    /// `scale · x + shift`
    Affine {
        /// Factor
        scale: f32,
        /// Summand
        shift: f32,
    },
    /// `ln(max(x, eps) / max(1 - x, eps))` of `x` clamped to `[0, 1]`: D-FINE's inverse sigmoid.
    InverseSigmoid {
        /// Least numerator and denominator
        eps: f32,
    },
}

/// A function of two elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a · b`
    Mul,
    /// `a / b`
    Div,
    /// The larger
    Max,
    /// The smaller
    Min,
}

/// An operand of [`binary`], broadcast to the output's rows and columns.
#[derive(Clone, Copy, Debug)]
pub enum Broadcast<'a> {
    /// `[R, C]`, as the output.
    Full(View<'a>),
    /// `[C]`, the same for every row.
    Row(&'a [f32]),
    /// `[R, 1]`, the same along a row.
    Column(View<'a>),
    /// One number.
    Scalar(f32),
}

/// Elements below which a chunk is not worth a dispatch of its own.
const MIN_ELEMENTS: usize = 8 * 1024;

/// Cuts `rows` of `cols` elements into chunks of whole rows and runs them on the pool.
pub(crate) fn by_rows(
    pool: &Pool,
    rows: usize,
    cols: usize,
    least: usize,
    body: impl Fn(std::ops::Range<usize>) + Sync,
) {
    let chunks = if pool.threads() == 1 {
        1
    } else {
        (rows * cols / least).clamp(1, pool.threads() * 6).min(rows.max(1))
    };
    pool.parallel_for(chunks, |i| body(i * rows / chunks..(i + 1) * rows / chunks));
}

/// Runs a kernel for each row of a range, with one dispatch for all.
pub(crate) struct ForRows<F> {
    pub rows: std::ops::Range<usize>,
    pub kernel: F,
}

impl<K: Kernel<Output = ()>, F: Fn(usize) -> K> Kernel for ForRows<F> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for row in self.rows {
            // SAFETY: the caller's promise for each row's kernel.
            unsafe { (self.kernel)(row).run::<S>() };
        }
    }
}

/// Rows that lie densely are one long row, cut evenly.
fn flatten(rows: usize, cols: usize, dense: bool) -> (usize, usize) {
    if dense && cols < 1024 {
        let total = rows * cols;
        // Pieces of at least a few vectors that divide the whole.
        for piece in [1024, 512, 256, 128, 64] {
            if piece > cols && total.is_multiple_of(piece) {
                return (total / piece, piece);
            }
        }
        if cols < 64 {
            return (1, total);
        }
    }
    (rows, cols)
}

/// `out = f(x)`, element by element. `out` may be the memory of `x`.
pub fn unary(level: Level, pool: &Pool, f: Unary, x: View, out: ViewMut) {
    assert_eq!((x.rows(), x.cols()), (out.rows(), out.cols()), "input and output sizes");
    let dense = x.pitch() == x.cols() && out.pitch() == out.cols();
    let (rows, cols) = flatten(x.rows(), x.cols(), dense);
    let (xp, op) = if (rows, cols) == (x.rows(), x.cols()) { (x.pitch(), out.pitch()) } else { (cols, cols) };
    by_rows(pool, rows, cols, MIN_ELEMENTS, |range| {
        let row =
            |r| UnaryRow { f, x: x.ptr().wrapping_add(r * xp), y: out.ptr().wrapping_add(r * op), n: cols };
        // SAFETY: rows are inside both views, and each is written by one chunk.
        unsafe { level.dispatch(ForRows { rows: range, kernel: row }) };
    });
}

struct UnaryRow {
    f: Unary,
    x: *const f32,
    y: *mut f32,
    n: usize,
}

impl Kernel for UnaryRow {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let UnaryRow { f, x, y, n } = self;
        macro_rules! each {
            ($v:ident => $e:expr) => {{
                let mut i = 0;
                // SAFETY: `n` elements behind both pointers.
                unsafe {
                    while i + S::LANES <= n {
                        let $v = S::load(x.add(i));
                        S::store(y.add(i), $e);
                        i += S::LANES;
                    }
                    if i < n {
                        let $v = S::load_n(x.add(i), n - i);
                        S::store_n(y.add(i), $e, n - i);
                    }
                }
            }};
        }
        // Rare ones, on small tensors, by the standard library.
        let scalar = |g: fn(f32) -> f32| {
            for i in 0..n {
                // SAFETY: `n` elements behind both pointers.
                unsafe { *y.add(i) = g(*x.add(i)) };
            }
        };
        match f {
            Unary::Act(Act::None) => each!(v => v),
            Unary::Act(Act::Relu) => each!(v => S::max(S::zero(), v)),
            Unary::Act(Act::Silu) => each!(v => Act::Silu.apply::<S>(v)),
            Unary::Act(Act::Gelu) => each!(v => math::gelu::<S>(v)),
            Unary::Act(Act::Sigmoid) => each!(v => math::sigmoid::<S>(v)),
            Unary::Act(Act::Tanh) => each!(v => math::tanh::<S>(v)),
            Unary::Act(act @ Act::Clamp { .. }) => each!(v => act.apply::<S>(v)),
            Unary::Exp => each!(v => math::exp::<S>(v)),
            Unary::Sqrt => each!(v => S::sqrt(v)),
            Unary::Abs => each!(v => S::abs(v)),
            Unary::Affine { scale, shift } => each!(v => S::fma(v, S::splat(scale), S::splat(shift))),
            Unary::Log => scalar(f32::ln),
            Unary::Sin => scalar(f32::sin),
            Unary::Cos => scalar(f32::cos),
            Unary::InverseSigmoid { eps } => {
                for i in 0..n {
                    // SAFETY: `n` elements behind both pointers.
                    unsafe {
                        let v = (*x.add(i)).clamp(0.0, 1.0);
                        *y.add(i) = (v.max(eps) / (1.0 - v).max(eps)).ln();
                    }
                }
            }
        }
    }
}

/// How an operand's row meets the columns.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Along {
    /// Element by element.
    Each,
    /// One element for all columns.
    Splat,
    /// One vector, again and again.
    Pattern,
}

/// An operand's row.
#[derive(Clone, Copy)]
struct Source {
    ptr: *const f32,
    /// From row to row; 0 repeats.
    pitch: usize,
    along: Along,
}
// SAFETY: read only; stands for a shared borrow.
unsafe impl Send for Source {}
// SAFETY: as above.
unsafe impl Sync for Source {}

/// `out = act(f(a, b))`, element by element. `out` may be the memory of a `Full` operand.
pub fn binary(level: Level, pool: &Pool, f: Binary, a: Broadcast, b: Broadcast, act: Act, out: ViewMut) {
    let (rows, cols) = (out.rows(), out.cols());
    let source = |o: &Broadcast, scalar: &f32| match o {
        Broadcast::Full(v) => {
            assert_eq!((v.rows(), v.cols()), (rows, cols), "operand and output sizes");
            Source { ptr: v.ptr(), pitch: v.pitch(), along: Along::Each }
        }
        Broadcast::Row(r) => {
            assert_eq!(r.len(), cols, "a row operand's and the output's columns");
            Source { ptr: r.as_ptr(), pitch: 0, along: Along::Each }
        }
        Broadcast::Column(v) => {
            assert_eq!((v.rows(), v.cols()), (rows, 1), "a column operand's size");
            Source { ptr: v.ptr(), pitch: v.pitch(), along: Along::Splat }
        }
        Broadcast::Scalar(_) => Source { ptr: scalar, pitch: 0, along: Along::Splat },
    };
    let number = |o: &Broadcast| if let Broadcast::Scalar(s) = o { *s } else { 0.0 };
    let (sa, sb) = (number(&a), number(&b));
    let (mut a, mut b) = (source(&a, &sa), source(&b, &sb));
    // A short row that divides a vector repeats in it.
    let mut patterns = [[0f32; 16]; 2];
    for (s, pattern) in [&mut a, &mut b].into_iter().zip(&mut patterns) {
        let repeats = cols < level.lanes() && level.lanes().is_multiple_of(cols);
        if out.pitch() == cols && s.along == Along::Each && s.pitch == 0 && repeats {
            for (i, p) in pattern.iter_mut().enumerate() {
                // SAFETY: a row operand has `cols` elements.
                *p = unsafe { *s.ptr.add(i % cols) };
            }
            *s = Source { ptr: pattern.as_ptr(), pitch: 0, along: Along::Pattern };
        }
    }
    // Dense rows with operands that do not tell them apart may be one long row.
    let flat = |s: &Source| if s.along == Along::Each { s.pitch == cols } else { s.pitch == 0 };
    let dense = out.pitch() == cols && flat(&a) && flat(&b);
    let (n_rows, n_cols) = flatten(rows, cols, dense);
    let mut pitch = out.pitch();
    if (n_rows, n_cols) != (rows, cols) {
        pitch = n_cols;
        for s in [&mut a, &mut b] {
            if s.along == Along::Each {
                s.pitch = n_cols;
            }
        }
    }
    by_rows(pool, n_rows, n_cols, MIN_ELEMENTS, |range| {
        let (a, b) = (a, b);
        let row = |r| BinaryRow {
            f,
            act,
            a: a.ptr.wrapping_add(r * a.pitch),
            a_along: a.along,
            b: b.ptr.wrapping_add(r * b.pitch),
            b_along: b.along,
            y: out.ptr().wrapping_add(r * pitch),
            n: n_cols,
        };
        // SAFETY: rows are inside all views, and each is written by one chunk.
        unsafe { level.dispatch(ForRows { rows: range, kernel: row }) };
    });
}

struct BinaryRow {
    f: Binary,
    act: Act,
    a: *const f32,
    a_along: Along,
    b: *const f32,
    b_along: Along,
    y: *mut f32,
    n: usize,
}

impl Kernel for BinaryRow {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let s = &self;
        macro_rules! each {
            ($op:path, $a:expr, $b:expr) => {{
                let mut i = 0;
                while i < s.n {
                    let n = S::LANES.min(s.n - i);
                    // SAFETY: `n` elements behind a pointer that is not splat, and behind the output.
                    unsafe {
                        let v = $op($a(i, n), $b(i, n));
                        if n == S::LANES { S::store(s.y.add(i), v) } else { S::store_n(s.y.add(i), v, n) }
                    }
                    i += S::LANES;
                }
            }};
        }
        macro_rules! operands {
            ($op:path) => {{
                // SAFETY: as above; one element behind a splat pointer.
                let load = |p: *const f32, i: usize, n: usize| unsafe {
                    if n == S::LANES { S::load(p.add(i)) } else { S::load_n(p.add(i), n) }
                };
                let fixed = |p: *const f32, along| match along {
                    // SAFETY: one element behind a splat pointer, a whole vector behind a pattern.
                    Along::Splat => unsafe { S::splat(*p) },
                    // SAFETY: as above.
                    Along::Pattern => unsafe { S::load(p) },
                    Along::Each => S::zero(),
                };
                let (va, vb) = (fixed(s.a, s.a_along), fixed(s.b, s.b_along));
                match (s.a_along == Along::Each, s.b_along == Along::Each) {
                    (true, true) => each!($op, |i, n| load(s.a, i, n), |i, n| load(s.b, i, n)),
                    (true, false) => each!($op, |i, n| load(s.a, i, n), |_, _| vb),
                    (false, true) => each!($op, |_, _| va, |i, n| load(s.b, i, n)),
                    (false, false) => each!($op, |_, _| va, |_, _| vb),
                }
            }};
        }
        match s.f {
            Binary::Add => operands!(S::add),
            Binary::Sub => operands!(S::sub),
            Binary::Mul => operands!(S::mul),
            Binary::Div => operands!(S::div),
            Binary::Max => operands!(S::max),
            Binary::Min => operands!(S::min),
        }
        if self.act != Act::None {
            // SAFETY: `n` elements behind the output.
            unsafe { UnaryRow { f: Unary::Act(self.act), x: self.y, y: self.y, n: self.n }.run::<S>() };
        }
    }
}

/// `out = x`, between pitched views.
pub fn copy(level: Level, pool: &Pool, x: View, out: ViewMut) {
    unary(level, pool, Unary::Act(Act::None), x, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::kernels::testing::{Matrix, Rng, act64, everywhere};

    #[test]
    fn unary_agrees_with_f64() {
        let mut rng = Rng::seeded();
        everywhere(|level, pool| {
            for _ in 0..100 {
                let (r, c) = (rng.size(1, 300), rng.size(1, 100));
                let f = rng.of(&[
                    Unary::Act(Act::None),
                    Unary::Act(Act::Relu),
                    Unary::Act(Act::Silu),
                    Unary::Act(Act::Gelu),
                    Unary::Act(Act::Sigmoid),
                    Unary::Act(Act::Tanh),
                    Unary::Exp,
                    Unary::Log,
                    Unary::Sqrt,
                    Unary::Abs,
                    Unary::Sin,
                    Unary::Cos,
                    Unary::Affine { scale: 2.5, shift: -1.0 },
                    Unary::Act(Act::Clamp { low: -0.25, high: 0.5 }),
                    Unary::InverseSigmoid { eps: 1e-5 },
                ]);
                let mut x = rng.matrix(r, c);
                if matches!(f, Unary::Log | Unary::Sqrt) {
                    x.data.iter_mut().for_each(|v| *v = v.abs() + 0.01);
                }
                let before = rng.matrix(r, c);
                let mut out = before.clone();
                unary(level, pool, f, x.view(), out.view_mut());
                out.check(&before, 2e-6, &format!("{level:?} {f:?} {r}x{c}"), |i, j| {
                    let x = x.at(i, j);
                    match f {
                        Unary::Act(a) => act64(a, x),
                        Unary::Exp => x.exp(),
                        Unary::Log => x.ln(),
                        Unary::Sqrt => x.sqrt(),
                        Unary::Abs => x.abs(),
                        Unary::Sin => x.sin(),
                        Unary::Cos => x.cos(),
                        Unary::Affine { scale, shift } => x * scale as f64 + shift as f64,
                        Unary::InverseSigmoid { eps } => {
                            let x = x.clamp(0.0, 1.0);
                            (x.max(eps as f64) / (1.0 - x).max(eps as f64)).ln()
                        }
                    }
                });
            }
        });
    }

    #[test]
    fn binary_broadcasts_agree_with_naive_loops() {
        let mut rng = Rng::seeded();
        everywhere(|level, pool| {
            for _ in 0..150 {
                let (r, c) = (rng.size(1, 200), rng.size(1, 150));
                let f =
                    rng.of(&[Binary::Add, Binary::Sub, Binary::Mul, Binary::Div, Binary::Max, Binary::Min]);
                let mut make = || {
                    let kind = rng.size(0, 3);
                    let m = match kind {
                        0 => rng.matrix(r, c),
                        1 => Matrix { data: rng.vec(c), rows: 1, cols: c, pitch: c },
                        2 => rng.matrix(r, 1),
                        _ => rng.matrix(1, 1),
                    };
                    (kind, m)
                };
                let ((ka, mut a), (kb, mut b)) = (make(), make());
                a.data.iter_mut().chain(&mut b.data).for_each(|v| *v += if *v < 0.0 { -0.5 } else { 0.5 });
                fn operand(kind: usize, m: &Matrix) -> Broadcast<'_> {
                    match kind {
                        0 => Broadcast::Full(m.view()),
                        1 => Broadcast::Row(&m.data),
                        2 => Broadcast::Column(m.view()),
                        _ => Broadcast::Scalar(m.data[0]),
                    }
                }
                let get = |kind: usize, m: &Matrix, i: usize, j: usize| match kind {
                    0 => m.at(i, j),
                    1 => m.at(0, j),
                    2 => m.at(i, 0),
                    _ => m.at(0, 0),
                };
                let act = rng.of(&[Act::None, Act::Relu, Act::Sigmoid]);
                let before = rng.matrix(r, c);
                let mut out = before.clone();
                binary(level, pool, f, operand(ka, &a), operand(kb, &b), act, out.view_mut());
                out.check(&before, 1e-6, &format!("{level:?} {f:?} {ka} {kb} {r}x{c}"), |i, j| {
                    let (x, y) = (get(ka, &a, i, j), get(kb, &b, i, j));
                    act64(
                        act,
                        match f {
                            Binary::Add => x + y,
                            Binary::Sub => x - y,
                            Binary::Mul => x * y,
                            Binary::Div => x / y,
                            Binary::Max => x.max(y),
                            Binary::Min => x.min(y),
                        },
                    )
                });
            }
        });
    }
}
