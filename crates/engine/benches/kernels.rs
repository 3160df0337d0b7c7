//! Kernel timings at the shapes of D-FINE and MobileSAM: `cargo bench -p ultramotion-engine [-- FILTER]`.
//!
//! Prints the median in ms, GFLOP/s, and the share of the threads' measured FMA peak. `ULTRAMOTION_SIMD`
//! chooses the instruction set, `THREADS` the threads (2).
#![allow(clippy::print_stdout, missing_docs)]

use std::time::Instant;
use ultramotion_engine::cpu::kernels::*;
use ultramotion_engine::cpu::{Level, Pool};

struct Bench {
    filter: Option<String>,
    peak: f64,
    pool: Pool,
    level: Level,
}

impl Bench {
    fn median(mut body: impl FnMut()) -> f64 {
        let begin = Instant::now();
        body();
        let once = begin.elapsed().as_secs_f64();
        let runs = ((0.15 / once) as usize).clamp(5, 400);
        for _ in 0..runs / 5 {
            body();
        }
        let mut times: Vec<f64> = (0..runs)
            .map(|_| {
                let begin = Instant::now();
                body();
                begin.elapsed().as_secs_f64()
            })
            .collect();
        times.sort_by(f64::total_cmp);
        times[runs / 2]
    }

    fn run(&self, name: &str, flops: f64, bytes: f64, body: impl FnMut()) {
        if self.filter.as_ref().is_some_and(|f| !name.contains(f)) {
            return;
        }
        let t = Self::median(body);
        println!(
            "{name:44} {:9.3} ms {:7.1} GFLOP/s {:5.1} % of peak {:6.1} GB/s",
            t * 1e3,
            flops / t / 1e9,
            100.0 * flops / t / 1e9 / self.peak,
            bytes / t / 1e9
        );
    }

    fn conv(&self, h: usize, cin: usize, cout: usize, k: usize, stride: usize) {
        let input = Map::new(1, h, h);
        let shape = ConvShape::square(k, stride, k / 2);
        let out = shape.output(input);
        let w = noise(cout * cin * k * k);
        let weight =
            PackedConv::new(self.level, &w, cout, cin, 1, shape, Epilogue::bias_act(&noise(cout), Act::Relu));
        let x = noise(input.pixels() * cin);
        let mut y = vec![0.0; out.pixels() * cout];
        let flops = 2.0 * (out.pixels() * cout * cin * k * k) as f64;
        let bytes = 4.0 * (x.len() + y.len() + w.len()) as f64;
        self.run(&format!("conv{k}x{k}s{stride} {h}x{h} {cin}->{cout}"), flops, bytes, || {
            conv2d(
                &self.pool,
                View::new(&x, input.pixels(), cin, cin),
                input,
                &weight,
                None,
                ViewMut::new(&mut y, out.pixels(), cout, cout),
            );
        });
    }

    fn linear(&self, m: usize, k: usize, n: usize, act: Act) {
        let w = noise(n * k);
        let weight = PackedLinear::new(self.level, &w, n, k, Epilogue::bias_act(&noise(n), act));
        let x = noise(m * k);
        let mut y = vec![0.0; m * n];
        let bytes = 4.0 * (x.len() + y.len() + w.len()) as f64;
        self.run(&format!("linear {m}x{k}->{n} {act:?}"), 2.0 * (m * n * k) as f64, bytes, || {
            linear(&self.pool, View::new(&x, m, k, k), &weight, None, ViewMut::new(&mut y, m, n, n));
        });
    }
}

fn noise(n: usize) -> Vec<f32> {
    let mut s = 0x1234_5678_9abc_def0u64;
    (0..n)
        .map(|_| {
            s = s.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (s >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// The FMA peak of the pool's threads together: a product whose operands stay in the first-level cache.
fn measured_peak(pool: &Pool, level: Level) -> f64 {
    let (m, k, n) = (24, 64, 64);
    let weight = PackedLinear::new(level, &noise(n * k), n, k, Epilogue::default());
    let x = noise(m * k);
    let one = Pool::new(1);
    let mut y = vec![0.0; m * n];
    let mut best = 0f64;
    for _ in 0..20 {
        let begin = Instant::now();
        for _ in 0..200 {
            linear(&one, View::new(&x, m, k, k), &weight, None, ViewMut::new(&mut y, m, n, n));
        }
        best = best.max(200.0 * 2.0 * (m * n * k) as f64 / begin.elapsed().as_secs_f64() / 1e9);
    }
    best * pool.threads() as f64
}

fn main() {
    let threads = std::env::var("THREADS").ok().and_then(|t| t.parse().ok()).unwrap_or(2);
    let pool = Pool::new(threads);
    let level = Level::detect();
    let peak = measured_peak(&pool, level);
    let filter = std::env::args().skip(1).find(|a| !a.starts_with('-'));
    println!("{} threads, {}, small-product peak {peak:.0} GFLOP/s", pool.threads(), level.name());
    let b = Bench { filter, peak, pool, level };

    b.conv(640, 3, 16, 3, 2);
    b.conv(320, 32, 16, 3, 2);
    b.conv(160, 16, 16, 3, 1);
    b.conv(160, 64, 64, 3, 1);
    b.conv(80, 32, 32, 3, 1);
    b.conv(80, 64, 64, 3, 1);
    b.conv(40, 128, 128, 3, 1);
    b.conv(40, 256, 256, 3, 1);
    b.conv(20, 256, 256, 3, 1);
    b.conv(40, 128, 128, 3, 2);
    b.conv(1024, 3, 32, 3, 2);
    b.conv(64, 256, 256, 3, 1);
    b.conv(160, 64, 64, 1, 1);
    b.conv(80, 256, 64, 1, 1);
    b.conv(40, 512, 256, 1, 1);
    b.conv(20, 1024, 512, 1, 1);
    b.linear(400, 256, 1024, Act::Gelu);
    b.linear(400, 1024, 256, Act::None);
    b.linear(300, 256, 256, Act::None);
    b.linear(300, 128, 512, Act::Relu);
    b.linear(300, 256, 4, Act::None);
    b.linear(1, 256, 256, Act::None);
    b.linear(7, 256, 2048, Act::Relu);
    b.linear(8400, 128, 128, Act::None);
    b.linear(16384, 64, 256, Act::Gelu);
    b.linear(16384, 256, 64, Act::None);
    b.linear(4096, 160, 480, Act::None);
    b.linear(4096, 320, 1280, Act::Gelu);
    b.linear(4096, 1280, 320, Act::None);
    b.linear(65536, 32, 4, Act::None);
}
