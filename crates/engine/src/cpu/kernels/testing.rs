//! Random operands for the kernels' tests, and the comparison with what naive loops give.
use super::epilogue::{Act, Epilogue};
use super::panels::Panels;
use super::view::{View, ViewMut};
use crate::cpu::pool::Pool;
use crate::cpu::simd::Level;

/// splitmix64.
pub(crate) struct Rng(u64);

impl Rng {
    /// A generator whose seed is printed, so that a failure can be repeated with `ULTRAMOTION_TEST_SEED`.
    pub fn seeded() -> Self {
        let seed = match std::env::var("ULTRAMOTION_TEST_SEED") {
            Ok(s) => s.parse().unwrap(),
            Err(_) => std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64,
        };
        println!("ULTRAMOTION_TEST_SEED={seed}");
        Rng(seed)
    }
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    /// In `lo..=hi`.
    pub fn size(&mut self, lo: usize, hi: usize) -> usize {
        lo + (self.next() % (hi - lo + 1) as u64) as usize
    }
    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.size(0, choices.len() - 1)]
    }
    pub fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
    /// In `[-1, 1)`.
    pub fn f32(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
    pub fn vec(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.f32()).collect()
    }
    /// Weights of one byte, and the same as floats.
    pub fn bytes(&mut self, n: usize) -> (Vec<i8>, Vec<f32>) {
        let bytes: Vec<i8> = (0..n).map(|_| self.next() as i8).collect();
        let floats = bytes.iter().map(|&b| f32::from(b)).collect();
        (bytes, floats)
    }
    /// A random matrix with a pitch that is often more than its columns.
    pub fn matrix(&mut self, rows: usize, cols: usize) -> Matrix {
        let pitch = cols + if self.coin() { 0 } else { self.size(1, 20) };
        Matrix { data: self.vec(rows * pitch), rows, cols, pitch }
    }
    pub fn epilogue(&mut self, n: usize) -> Epilogue {
        let clamp = Act::Clamp { low: -0.5, high: 0.25 };
        let acts = [Act::None, Act::Relu, Act::Silu, Act::Gelu, Act::Sigmoid, Act::Tanh, clamp];
        Epilogue {
            bias: self.coin().then(|| self.vec(n)),
            act1: self.of(&acts),
            scale_shift: self.coin().then(|| (self.f32(), self.f32())),
            act2: if self.coin() { Act::None } else { self.of(&acts) },
        }
    }
}

/// A pitched matrix that owns its elements.
#[derive(Clone, Debug)]
pub(crate) struct Matrix {
    pub data: Vec<f32>,
    pub rows: usize,
    pub cols: usize,
    pub pitch: usize,
}

impl Matrix {
    pub fn view(&self) -> View<'_> {
        View::new(&self.data, self.rows, self.cols, self.pitch)
    }
    pub fn view_mut(&mut self) -> ViewMut<'_> {
        ViewMut::new(&mut self.data, self.rows, self.cols, self.pitch)
    }
    pub fn at(&self, row: usize, col: usize) -> f64 {
        assert!(row < self.rows && col < self.cols);
        self.data[row * self.pitch + col] as f64
    }
    /// Compares with `want(row, col)`; and the elements between the rows must be as in `before`.
    #[track_caller]
    pub fn check(&self, before: &Matrix, tolerance: f64, what: &str, want: impl Fn(usize, usize) -> f64) {
        for r in 0..self.rows {
            for c in 0..self.pitch.min(self.data.len() - r * self.pitch) {
                let got = self.data[r * self.pitch + c];
                if c >= self.cols {
                    assert_eq!(got, before.data[r * self.pitch + c], "{what}: wrote outside at {r}, {c}");
                    continue;
                }
                let w = want(r, c);
                let error = (got as f64 - w).abs();
                assert!(error <= tolerance * (1.0 + w.abs()), "{what}: [{r}, {c}] is {got}, not {w}");
            }
        }
    }
}

/// The same weights lie at the same places, whatever their element.
#[track_caller]
pub(crate) fn same_layout(bytes: &Panels<i8>, floats: &Panels) {
    assert_eq!(bytes.count(), floats.count());
    for panel in 0..bytes.count() {
        let bytes = bytes.panel(panel).iter().map(|&w| f32::from(w));
        assert!(bytes.eq(floats.panel(panel).iter().copied()), "panel {panel}");
    }
}

pub(crate) fn act64(act: Act, x: f64) -> f64 {
    match act {
        Act::None => x,
        Act::Relu => x.max(0.0),
        Act::Silu => x / (1.0 + (-x).exp()),
        Act::Gelu => {
            // Simpson's rule on the normal density: accurate to 1e-10 over these arguments.
            let n = 400;
            let h = x / n as f64;
            let f = |t: f64| (-t * t / 2.0).exp();
            let odd: f64 = (0..n / 2).map(|i| f(h * (2 * i + 1) as f64)).sum();
            let even: f64 = (1..n / 2).map(|i| f(h * (2 * i) as f64)).sum();
            let area = h / 3.0 * (f(0.0) + f(x) + 4.0 * odd + 2.0 * even);
            x * (0.5 + area / (2.0 * std::f64::consts::PI).sqrt())
        }
        Act::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Act::Tanh => x.tanh(),
        Act::Clamp { low, high } => x.clamp(low as f64, high as f64),
    }
}

/// The epilogue in f64, for column `c`.
pub(crate) fn epilogue64(e: &Epilogue, sum: f64, c: usize, residual: Option<f64>) -> f64 {
    let y = act64(e.act1, sum + e.bias.as_ref().map_or(0.0, |b| b[c] as f64));
    let (scale, shift) = e.scale_shift.unwrap_or((1.0, 0.0));
    act64(e.act2, y * scale as f64 + shift as f64 + residual.unwrap_or(0.0))
}

/// Every level that this processor has, with pools of one and of several threads.
pub(crate) fn everywhere(mut test: impl FnMut(Level, &Pool)) {
    for threads in [1, 3] {
        let pool = Pool::new(threads);
        for level in Level::available() {
            test(level, &pool);
        }
    }
}
