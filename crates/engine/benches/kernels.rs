//! Kernel timings at the shapes of D-FINE and MobileSAM: `cargo bench -p ultramotion-engine [-- FILTER]`.
//!
//! Prints the median in ms, GFLOP/s, and the share of the threads' measured FMA peak. `ULTRAMOTION_SIMD`
//! chooses the instruction set, `THREADS` the threads (2), `SECONDS` the time spent on each (0.08); `DIRECT=1` keeps Winograd's
//! method out.
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
        let seconds = std::env::var("SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(0.08);
        let runs = ((seconds / once) as usize).clamp(5, 100_000);
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

    fn skips(&self, name: &str) -> bool {
        self.filter.as_ref().is_some_and(|f| !name.contains(f))
    }

    fn run(&self, name: &str, flops: f64, bytes: f64, body: impl FnMut()) {
        if self.skips(name) {
            return;
        }
        let t = Self::median(body);
        let speed = flops / t / 1e9;
        print!("{name:40} {:9.4} ms", t * 1e3);
        if flops > 0.0 {
            print!(" {speed:7.1} GFLOP/s {:5.1} % of peak", 100.0 * speed / self.peak);
        }
        println!(" {:6.1} GB/s", bytes / t / 1e9);
    }

    fn conv(&self, h: usize, cin: usize, cout: usize, k: usize, stride: usize) {
        let name = format!("conv{k}x{k}s{stride} {h}x{h} {cin}->{cout}");
        if self.skips(&name) {
            return;
        }
        let input = Map::new(1, h, h);
        let shape = ConvShape::square(k, stride, k / 2);
        let out = shape.output(input);
        let w = noise(cout * cin * k * k);
        let pack = if std::env::var("DIRECT").is_ok() { PackedConv::direct } else { PackedConv::new };
        let weight = pack(self.level, &w, cout, cin, 1, shape, Epilogue::bias_act(&noise(cout), Act::Relu))
            .expect("memory");
        let x = noise(input.pixels() * cin);
        let mut y = AlignedVec::zeros(out.pixels() * cout);
        let flops = 2.0 * (out.pixels() * cout * cin * k * k) as f64;
        let bytes = 4.0 * (x.len() + y.len() + w.len()) as f64;
        self.run(&name, flops, bytes, || {
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
        let name = format!("linear {m}x{k}->{n} {act:?}");
        if self.skips(&name) {
            return;
        }
        let w = noise(n * k);
        let weight =
            PackedLinear::new(self.level, &w, n, k, Epilogue::bias_act(&noise(n), act)).expect("memory");
        let x = noise(m * k);
        let mut y = AlignedVec::zeros(m * n);
        let bytes = 4.0 * (x.len() + y.len() + w.len()) as f64;
        self.run(&name, 2.0 * (m * n * k) as f64, bytes, || {
            linear(&self.pool, View::new(&x, m, k, k), &weight, None, ViewMut::new(&mut y, m, n, n));
        });
    }
}

/// Noise in an array of its own.
fn noise(n: usize) -> AlignedVec {
    let mut s = 0x1234_5678_9abc_def0u64;
    let mut v = AlignedVec::zeros(n);
    for x in v.iter_mut() {
        s = s.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *x = (s >> 40) as f32 / (1 << 23) as f32 - 1.0;
    }
    v
}

/// The FMA peak of the pool's threads together: the best of short products whose operands stay in the
/// first-level cache.
fn measured_peak(pool: &Pool, level: Level) -> f64 {
    let (m, k, n) = (24, 120, 32);
    let weight = PackedLinear::new(level, &noise(n * k), n, k, Epilogue::default()).expect("memory");
    let x = noise(m * k);
    let one = Pool::new(1);
    let mut y = AlignedVec::zeros(m * n);
    let mut best = 0f64;
    for _ in 0..50 {
        let begin = Instant::now();
        for _ in 0..200 {
            linear(&one, View::new(&x, m, k, k), &weight, None, ViewMut::new(&mut y, m, n, n));
        }
        best = best.max(200.0 * 2.0 * (m * n * k) as f64 / begin.elapsed().as_secs_f64() / 1e9);
    }
    best * pool.threads() as f64
}

impl Bench {
    fn depthwise(&self, h: usize, c: usize, k: usize, stride: usize, act: Act) {
        let name = format!("depthwise{k}x{k}s{stride} {h}x{h} {c} {act:?}");
        if self.skips(&name) {
            return;
        }
        let input = Map::new(1, h, h);
        let shape = ConvShape::square(k, stride, k / 2);
        let out = shape.output(input);
        let weight =
            PackedDepthwise::new(self.level, &noise(c * k * k), c, shape, Epilogue::bias_act(&noise(c), act))
                .expect("memory");
        let x = noise(input.pixels() * c);
        let mut y = AlignedVec::zeros(out.pixels() * c);
        let flops = 2.0 * (out.pixels() * c * k * k) as f64;
        let bytes = 4.0 * (x.len() + y.len()) as f64;
        self.run(&name, flops, bytes, || {
            depthwise(
                &self.pool,
                View::new(&x, input.pixels(), c, c),
                input,
                &weight,
                None,
                ViewMut::new(&mut y, out.pixels(), c, c),
            );
        });
    }

    fn attention(&self, batch: usize, heads: usize, lq: usize, lk: usize, d: usize, biased: bool) {
        let name = format!("attention {batch}x{heads} {lq}x{lk}x{d}{}", if biased { " bias" } else { "" });
        if self.skips(&name) {
            return;
        }
        let c = heads * d;
        let (q, k, v) = (noise(batch * lq * c), noise(batch * lk * c), noise(batch * lk * c));
        let bias = biased.then(|| noise(heads * lq * lk));
        let mut y = AlignedVec::zeros(batch * lq * c);
        let shape = AttentionShape { batch, heads, lq, lk, d, dv: d, scale: (d as f32).powf(-0.5) };
        let flops = 4.0 * (batch * heads * lq * lk * d) as f64;
        let bytes = 4.0 * (q.len() + k.len() + v.len() + y.len()) as f64;
        self.run(&name, flops, bytes, || {
            attention(
                self.level,
                &self.pool,
                shape,
                Heads::adjacent(View::new(&q, batch * lq, c, c), d),
                Heads::adjacent(View::new(&k, batch * lk, c, c), d),
                Heads::adjacent(View::new(&v, batch * lk, c, c), d),
                bias.as_deref(),
                ViewMut::new(&mut y, batch * lq, c, c),
            );
        });
    }

    fn rows(&self, r: usize, c: usize) {
        let (x, z, gamma) = (noise(r * c), noise(r * c), noise(c));
        let mut y = AlignedVec::zeros(r * c);
        let bytes = 8.0 * (r * c) as f64;
        let (level, pool) = (self.level, &self.pool);
        let view = || View::new(&x, r, c, c);
        self.run(&format!("layer_norm {r}x{c}"), 0.0, bytes, || {
            let norm = LayerNorm { gamma: &gamma, beta: &gamma, eps: 1e-5, act: Act::None };
            layer_norm(level, pool, view(), None, norm, None, ViewMut::new(&mut y, r, c, c));
        });
        self.run(&format!("softmax {r}x{c}"), 0.0, bytes, || {
            softmax(level, pool, view(), ViewMut::new(&mut y, r, c, c));
        });
        self.run(&format!("add {r}x{c}"), 0.0, 1.5 * bytes, || {
            let other = Broadcast::Full(View::new(&z, r, c, c));
            let out = ViewMut::new(&mut y, r, c, c);
            binary(level, pool, Binary::Add, Broadcast::Full(view()), other, Act::None, out);
        });
        for act in [Act::Relu, Act::Silu, Act::Gelu, Act::Sigmoid] {
            self.run(&format!("unary {r}x{c} {act:?}"), 0.0, bytes, || {
                unary(level, pool, Unary::Act(act), view(), ViewMut::new(&mut y, r, c, c));
            });
        }
    }

    fn maps(&self, h: usize, c: usize) {
        let input = Map::new(1, h, h);
        let x = noise(input.pixels() * c);
        let mut y = AlignedVec::zeros(input.pixels() * c * 4);
        let (level, pool) = (self.level, &self.pool);
        let bytes = 4.0 * x.len() as f64;
        let view = || View::new(&x, input.pixels(), c, c);
        self.run(&format!("max_pool2x2s1 {h}x{h} {c}"), 0.0, 2.0 * bytes, || {
            let shape = ConvShape { kernel: [2, 2], stride: [1, 1], pad: [0, 0, 1, 1] };
            let out = ViewMut::new(&mut y, input.pixels(), c, c);
            max_pool(level, pool, view(), input, shape, f32::NEG_INFINITY, out);
        });
        self.run(&format!("upsample2 {h}x{h} {c}"), 0.0, 5.0 * bytes, || {
            upsample_nearest2(level, pool, view(), input, ViewMut::new(&mut y, input.pixels() * 4, c, c));
        });
        self.run(&format!("transpose {h}x{h} {c}"), 0.0, 2.0 * bytes, || {
            let out = ViewMut::new(&mut y, c, input.pixels(), input.pixels());
            transpose(level, pool, view(), 1, out);
        });
    }

    fn up(&self, h: usize, cin: usize, cout: usize) {
        let name = format!("up2x2 {h}x{h} {cin}->{cout}");
        if self.skips(&name) {
            return;
        }
        let input = Map::new(1, h, h);
        let w = noise(cin * cout * 4);
        let weight =
            PackedConvTranspose::new(self.level, &w, cin, cout, Epilogue::bias_act(&noise(cout), Act::None))
                .expect("memory");
        let x = noise(input.pixels() * cin);
        let mut y = AlignedVec::zeros(input.pixels() * cout * 4);
        let flops = 8.0 * (input.pixels() * cin * cout) as f64;
        self.run(&name, flops, 4.0 * (x.len() + y.len()) as f64, || {
            conv_transpose2x2(
                &self.pool,
                View::new(&x, input.pixels(), cin, cin),
                input,
                &weight,
                None,
                ViewMut::new(&mut y, input.pixels() * 4, cout, cout),
            );
        });
    }

    fn detector_head(&self) {
        let (queries, heads, d, points) = (300, 8, 32, 12);
        let levels = [80, 40, 20].map(|h| SampledLevel { h, w: h, points: 4 });
        let value = noise(8400 * heads * d);
        let [offsets, logits] = [2, 1].map(|n| noise(queries * heads * points * n));
        let boxes: Vec<f32> = noise(queries * 4).iter().map(|x| x * 0.2 + 0.5).collect();
        let mut y = AlignedVec::zeros(queries * heads * d);
        let flops = 8.0 * (queries * heads * points * d) as f64;
        self.run("deformable 300x8x32 80,40,20x4", flops, 0.0, || {
            deformable(
                self.level,
                &self.pool,
                1,
                heads,
                &levels,
                View::new(&value, 8400, heads * d, heads * d),
                SamplingPoints {
                    offsets: View::new(&offsets, queries, heads * points * 2, heads * points * 2),
                    logits: View::new(&logits, queries, heads * points, heads * points),
                    boxes: View::new(&boxes, queries, 4, 4),
                },
                ViewMut::new(&mut y, queries, heads * d, heads * d),
            );
        });
        let scores = noise(8400);
        let (mut values, mut indices) = (AlignedVec::zeros(300), vec![0u32; 300]);
        self.run("top_k 300 of 8400", 0.0, 4.0 * 8400.0, || {
            let out = ViewMut::new(&mut values, 1, 300, 300);
            top_k(&self.pool, View::new(&scores, 1, 8400, 8400), 300, out, &mut indices);
        });
        let (table, rows) = (noise(2100 * 128), (0..300).map(|i| i * 7).collect::<Vec<i32>>());
        let mut gathered = AlignedVec::zeros(300 * 128);
        self.run("gather 300 of 2100x128", 0.0, 8.0 * 300.0 * 128.0, || {
            let out = ViewMut::new(&mut gathered, 300, 128, 128);
            gather(&self.pool, View::new(&table, 2100, 128, 128), &rows, out);
        });
    }

    fn mlp(&self, m: usize, c: usize, hidden: usize) {
        let name = format!("mlp {m}x{c}->{hidden} Gelu");
        if self.skips(&name) {
            return;
        }
        let first = Epilogue::bias_act(&noise(hidden), Act::Gelu);
        let first = PackedLinear::new(self.level, &noise(hidden * c), hidden, c, first).expect("memory");
        let second = Epilogue::bias_act(&noise(c), Act::None);
        let second = PackedLinear::new(self.level, &noise(c * hidden), c, hidden, second).expect("memory");
        let x = noise(m * c);
        let mut y = AlignedVec::zeros(m * c);
        let flops = 4.0 * (m * c * hidden) as f64;
        self.run(&name, flops, 8.0 * (m * c) as f64, || {
            let x = View::new(&x, m, c, c);
            mlp(&self.pool, x, &first, &second, Some(x), ViewMut::new(&mut y, m, c, c));
        });
    }

    fn bottleneck(&self, h: usize, cin: usize, c: usize, cout: usize, stride: usize) {
        let name = format!("bottleneck s{stride} {h}x{h} {cin}->{c}->{cout} Gelu");
        if self.skips(&name) {
            return;
        }
        let input = Map::new(1, h, h);
        let shape = ConvShape::square(3, stride, 1);
        let out = shape.output(input).pixels();
        let act = |n: usize| Epilogue::bias_act(&noise(n), Act::Gelu);
        let expand = PackedLinear::new(self.level, &noise(c * cin), c, cin, act(c)).expect("memory");
        let middle = PackedDepthwise::new(self.level, &noise(c * 9), c, shape, act(c)).expect("memory");
        let project = PackedLinear::new(self.level, &noise(c * cout), cout, c, act(cout)).expect("memory");
        let x = noise(input.pixels() * cin);
        let mut y = AlignedVec::zeros(out * cout);
        let flops = 2.0 * (c * (input.pixels() * cin + out * 9 + out * cout)) as f64;
        let bytes = 4.0 * (x.len() + y.len()) as f64;
        self.run(&name, flops, bytes, || {
            inverted_bottleneck(
                &self.pool,
                View::new(&x, input.pixels(), cin, cin),
                input,
                &expand,
                &middle,
                &project,
                None,
                ViewMut::new(&mut y, out, cout, cout),
            );
        });
    }

    fn windows(&self, h: usize, side: usize, heads: usize) {
        let (d, c, map) = (32, heads * 32, Map::new(1, h, h));
        let name = format!("window_attention {h}x{h} {side} {heads}x{d}");
        if self.skips(&name) {
            return;
        }
        let linear = |n: usize| {
            PackedLinear::new(self.level, &noise(n * c), n, c, Epilogue::bias_act(&noise(n), Act::None))
                .expect("memory")
        };
        let (qkv, project, pixels) = (linear(3 * c), linear(c), side * side);
        let (gamma, bias) = (noise(c), noise(heads * pixels * pixels));
        let layer = WindowAttention {
            map,
            side,
            norm: LayerNorm { gamma: &gamma, beta: &gamma, eps: 1e-5, act: Act::None },
            qkv: &qkv,
            offsets: [0, d, 2 * d],
            head_stride: 3 * d,
            heads,
            d,
            dv: d,
            scale: 0.18,
            bias: Some(&bias),
            project: &project,
        };
        let x = noise(map.pixels() * c);
        let mut y = AlignedVec::zeros(x.len());
        let flops = 4.0
            * (map.n * map.h.div_ceil(side) * map.w.div_ceil(side) * pixels) as f64
            * (2 * c * c + pixels * c) as f64;
        self.run(&name, flops, 8.0 * x.len() as f64, || {
            let x = View::new(&x, map.pixels(), c, c);
            window_attention(&self.pool, x, &layer, Some(x), ViewMut::new(&mut y, map.pixels(), c, c));
        });
    }

    fn image(&self, from: usize, to: usize, channels: usize) {
        let placement = ImagePlacement {
            size: [to, to],
            corner: [0, 0],
            input: [to, to],
            scale: [1.0 / 255.0; 3],
            shift: [0.0; 3],
        };
        let plan = ImagePlan::new(from, from, channels, placement).expect("the sizes are right");
        let frame = vec![100u8; plan.frame_len()];
        let mut y = AlignedVec::zeros(to * to * 3);
        self.run(
            &format!("image {from}x{from}x{channels} to {to}x{to}"),
            0.0,
            12.0 * (to * to) as f64,
            || {
                image(self.level, &self.pool, &plan, &frame, ViewMut::new(&mut y, to * to, 3, 3));
            },
        );
    }
}

fn main() {
    let threads = std::env::var("THREADS").ok().and_then(|t| t.parse().ok()).unwrap_or(2);
    let pool = Pool::new(threads);
    let level = Level::detect();
    let peak = measured_peak(&pool, level);
    let filter = std::env::args().skip(1).find(|a| !a.starts_with('-'));
    println!("{} threads, {}, FMA peak {peak:.0} GFLOP/s", pool.threads(), level.name());
    let b = Bench { filter, peak, pool, level };

    // D-FINE: stem and stages of HGNetV2-B0, then encoder and decoder.
    b.conv(640, 3, 16, 3, 2);
    b.conv(320, 32, 16, 3, 2);
    b.conv(160, 16, 16, 3, 1);
    b.conv(160, 64, 32, 1, 1);
    b.conv(160, 32, 64, 1, 1);
    b.conv(80, 64, 32, 3, 1);
    b.conv(80, 32, 32, 3, 1);
    b.conv(80, 160, 128, 1, 1);
    b.conv(80, 128, 256, 1, 1);
    b.conv(40, 448, 256, 1, 1);
    b.conv(40, 256, 512, 1, 1);
    b.conv(20, 512, 1024, 1, 1);
    b.conv(80, 64, 64, 3, 1);
    b.conv(80, 128, 128, 3, 1);
    b.conv(40, 128, 128, 3, 1);
    b.conv(20, 128, 128, 3, 1);
    b.conv(40, 64, 64, 3, 1);
    b.conv(80, 256, 256, 3, 2);
    b.depthwise(160, 64, 3, 2, Act::None);
    b.depthwise(80, 256, 3, 2, Act::None);
    b.depthwise(40, 64, 5, 1, Act::Relu);
    b.depthwise(80, 128, 5, 1, Act::Relu);
    b.depthwise(20, 128, 5, 1, Act::Relu);
    b.linear(400, 256, 1024, Act::Gelu);
    b.linear(400, 1024, 256, Act::None);
    b.linear(300, 256, 256, Act::None);
    b.linear(300, 128, 512, Act::Relu);
    b.linear(300, 256, 4, Act::None);
    b.linear(8400, 256, 256, Act::None);
    b.linear(2000, 128, 128, Act::None);
    b.attention(1, 8, 400, 400, 32, false);
    b.attention(1, 8, 400, 400, 16, false);
    b.attention(1, 8, 300, 300, 32, false);
    b.detector_head();
    b.image(700, 640, 1);
    b.image(700, 1024, 3);

    // MobileSAM's encoder: patch embedding, MBConv, windows, neck.
    b.conv(1024, 3, 32, 3, 2);
    b.conv(512, 32, 64, 3, 2);
    b.linear(65536, 64, 256, Act::Gelu);
    b.depthwise(256, 256, 3, 1, Act::Gelu);
    b.linear(65536, 256, 64, Act::None);
    b.bottleneck(256, 64, 256, 64, 1);
    b.bottleneck(256, 64, 128, 128, 2);
    b.bottleneck(128, 128, 160, 160, 2);
    b.windows(128, 7, 4);
    b.windows(64, 14, 5);
    b.windows(64, 7, 10);
    b.mlp(16384, 128, 512);
    b.mlp(4096, 160, 640);
    b.mlp(4096, 320, 1280);
    b.linear(17689, 128, 384, Act::None);
    b.linear(16384, 128, 512, Act::Gelu);
    b.linear(16384, 512, 128, Act::None);
    b.linear(4900, 160, 480, Act::None);
    b.linear(4096, 160, 640, Act::Gelu);
    b.linear(4096, 640, 160, Act::None);
    b.linear(4900, 320, 960, Act::None);
    b.linear(4096, 320, 1280, Act::Gelu);
    b.linear(4096, 1280, 320, Act::None);
    b.depthwise(128, 128, 3, 1, Act::None);
    b.depthwise(64, 320, 3, 1, Act::None);
    b.attention(361, 4, 49, 49, 32, true);
    b.attention(25, 5, 196, 196, 32, true);
    b.attention(100, 10, 49, 49, 32, true);
    b.conv(64, 256, 256, 3, 1);
    b.rows(16384, 128);

    // MobileSAM's decoder, one box.
    b.linear(4096, 256, 128, Act::None);
    b.linear(7, 256, 2048, Act::Relu);
    b.linear(1, 256, 256, Act::None);
    b.attention(1, 8, 7, 4096, 16, false);
    b.attention(1, 8, 4096, 7, 16, false);
    b.up(64, 256, 64);
    b.up(128, 64, 32);
    b.linear(65536, 32, 4, Act::None);
    b.maps(160, 32);
    b.rows(300, 256);
}
