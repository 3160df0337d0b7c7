//! Every tile, split and not, against sums in float64: most networks' layers are too large for the op suite.

use std::sync::Arc;

use super::*;
use crate::cuda::driver::{Allocation, Driver, Emulated, Schedule, ScheduledStep};

/// SplitMix64 (Steele, Lea & Flood 2014).
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    fn size(&mut self, low: usize, high: usize) -> usize {
        low + (self.bits() % (high - low + 1) as u64) as usize
    }
    fn real(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// A matrix on the emulated device, in memory with gaps, and its values as they are stored.
struct Matrix {
    memory: Allocation,
    operand: Operand,
    values: Vec<f64>,
    first: usize,
}

impl Matrix {
    fn new(driver: &Arc<dyn Driver>, random: &mut Random, half: bool, rows: usize, cols: usize) -> Matrix {
        let allocate = |bytes| Allocation::new(driver, bytes).expect("memory");
        Matrix::fill(allocate, random, half, rows, cols)
    }

    /// One that kernels may read before they wait for the previous one.
    fn constant(
        driver: &Arc<dyn Driver>,
        random: &mut Random,
        half: bool,
        rows: usize,
        cols: usize,
    ) -> Matrix {
        let allocate = |bytes| Allocation::constants(driver, bytes).expect("memory");
        Matrix::fill(allocate, random, half, rows, cols)
    }

    fn fill(
        allocate: impl Fn(usize) -> Allocation,
        random: &mut Random,
        half: bool,
        rows: usize,
        cols: usize,
    ) -> Matrix {
        // Aligned for whole chunks, for four bytes, and for an element only.
        let first = [0, 8, 2, 1][random.size(0, 3)];
        let pitch = cols + [0, cols.next_multiple_of(8) - cols, 2, 3][random.size(0, 3)];
        let mut bytes = Vec::new();
        let mut values = Vec::new();
        for i in 0..first + rows * pitch {
            let inside = i >= first && (i - first) % pitch < cols;
            let value = if inside { random.real() } else { f32::NAN };
            let stored = if half { f16::from_f32(value).to_f32() } else { value };
            if inside {
                values.push(f64::from(stored));
            }
            if half {
                bytes.extend(f16::from_f32(value).to_le_bytes());
            } else {
                bytes.extend(value.to_le_bytes());
            }
        }
        let memory = allocate(bytes.len());
        memory.write(&bytes).expect("fits");
        let kind = if half { element::F16 } else { element::F32 };
        let data = memory.address + first as u64 * if half { 2 } else { 4 };
        let operand =
            Operand { data, rows: rows as u32, cols: cols as u32, pitch: pitch as u32, element: kind };
        Matrix { memory, operand, values, first }
    }

    fn at(&self, row: usize, col: usize) -> f64 {
        self.values[row * self.operand.cols as usize + col]
    }
}

/// Element (row, column) of the A that a product sees.
type ElementOf = Box<dyn Fn(&Matrix, usize, usize) -> f64>;

/// Runs a launch, twice, and reads back `output`.
fn run(driver: &Arc<dyn Driver>, launch: Launch, output: &Allocation) -> Vec<u8> {
    let steps = vec![ScheduledStep { launches: vec![launch], branch: 0, waits: Vec::new() }];
    let output = (output.address, output.bytes);
    let schedule = Schedule { steps, input: (output.0, 0), output, profile: false };
    let mut replay = driver.prepare(schedule).expect("kernels with these parameters");
    replay.launch().expect("no fault");
    let once = replay.output().to_vec();
    replay.launch().expect("no fault");
    assert!(once == replay.output(), "a second run finds everything as the first did");
    once
}

/// One product with a tile, whose A is a map for [`Form::Windows`].
fn check(
    driver: &Arc<dyn Driver>,
    random: &mut Random,
    half: bool,
    form: Form,
    Choice { tile, splits }: Choice,
) {
    let pipeline = Pipeline { half };
    let entries = if splits == 1 && form != Form::Windows { random.size(1, 3) } else { 1 };
    // Half of the time rows are whole chunks.
    let unit = [1, 8][random.size(0, 1)];
    let in_units = move |n: usize| n.next_multiple_of(unit);
    let (n, slice) = (in_units(random.size(1, 2 * tile.cols as usize)), pipeline.slice() as usize);
    let (a, m, k, window, at): (Matrix, usize, usize, Window, ElementOf);
    if form == Form::Windows {
        let (h, w, channels) = (random.size(3, 13), random.size(3, 13), in_units(random.size(1, slice)));
        let (kernel, stride, pad) = (random.size(1, 3), random.size(1, 2), random.size(0, 2));
        let [out_h, out_w] = [h, w].map(|s| (s + 2 * pad - kernel) / stride + 1);
        a = Matrix::new(driver, random, half, 2 * h * w, channels);
        let each = padded_channels(&a.operand) as usize;
        (m, k) = (2 * out_h * out_w, kernel * kernel * each);
        window = Window {
            in_h: h as u32,
            in_w: w as u32,
            out_h: out_h as u32,
            out_w: out_w as u32,
            kernel_h: kernel as u32,
            kernel_w: kernel as u32,
            stride_h: stride as u32,
            stride_w: stride as u32,
            pad_top: pad as u32,
            pad_left: pad as u32,
            channels: channels as u32,
            channels_padded: each as u32,
        };
        at = Box::new(move |a, row, col| {
            let (tap, c) = (col / each, col % each);
            let (ox, oy, image) = (row % out_w, row / out_w % out_h, row / out_w / out_h);
            let inside =
                |o: usize, t: usize, size: usize| (o * stride + t).checked_sub(pad).filter(|&v| v < size);
            match (inside(oy, tap / kernel, h), inside(ox, tap % kernel, w)) {
                (Some(y), Some(x)) if c < channels => a.at((image * h + y) * w + x, c),
                _ => 0.0,
            }
        });
    } else {
        (m, k) = (random.size(1, 2 * tile.rows as usize), in_units(random.size(1, 7 * slice)));
        a = Matrix::new(driver, random, half, entries * m, k);
        window = Window::default();
        at = Box::new(|a, row, col| a.at(row, col));
    }
    let b_constant = random.size(0, 1) == 1;
    let b_shape = if form == Form::Columns { [entries * k, n] } else { [entries * n, k] };
    let make = if b_constant { Matrix::constant } else { Matrix::new };
    let b = make(driver, random, half, b_shape[0], b_shape[1]);
    let out = Matrix::new(driver, random, half, entries * m, n);
    let partial = Allocation::new(driver, splits as usize * m * n.next_multiple_of(8) * 4).expect("memory");
    let rows = Rows { entries: 0, rows_per_entry: 1, bound: (entries * m) as u32 };
    let product = Product {
        form,
        a: a.operand,
        b: b.operand,
        out: out.operand,
        finish: EpilogueArguments::NONE,
        rows,
        entries: entries as u32,
        m: m as u32,
        n: n as u32,
        k: k as u32,
        tap_cols: 0,
        b_constant,
        window,
        norm: None,
    };
    let arrivals = Allocation::new(driver, 4 * tile.blocks(m as u32, n as u32) as usize).expect("memory");
    arrivals.write(&vec![0; arrivals.bytes]).expect("fits");
    let bytes =
        run(driver, product.bind(Choice { tile, splits }, partial.address, arrivals.address), &out.memory);
    let size = if half { 2 } else { 4 };
    let (mut error, mut norm) = (0.0, 0.0);
    for row in 0..entries * m {
        let entry = row / m;
        for col in 0..n {
            let b_at = |i: usize| match form {
                Form::Columns => b.at(entry * k + i, col),
                _ => b.at(entry * n + col, i),
            };
            let wanted: f64 = (0..k).map(|i| at(&a, row, i) * b_at(i)).sum();
            let from = &bytes[(out.first + row * out.operand.pitch as usize + col) * size..][..size];
            let actual = if half {
                f16::from_le_bytes([from[0], from[1]]).to_f64()
            } else {
                f64::from(f32::from_le_bytes([from[0], from[1], from[2], from[3]]))
            };
            error += (actual - wanted).powi(2);
            norm += wanted * wanted;
        }
    }
    let (error, tolerance) = ((error / norm.max(1e-6)).sqrt(), if half { 1e-3 } else { 2e-6 });
    assert!(error < tolerance, "{form:?} {tile:?}, {splits} splits, {m} x {n} x {k}: error {error:.2e}");
}

#[test]
#[allow(clippy::print_stdout)] // the seed, which the test runner shows when a case fails
fn every_tile_computes_the_same() {
    let Some(library) = crate::testing::kernels_for_tests(&[]) else { return };
    let seed = std::env::var("ULTRAMOTION_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |t| t.as_nanos() as u64 % 1_000_000_000)
    });
    println!("ULTRAMOTION_SEED={seed}");
    let mut random = Random(seed);
    let driver: Arc<dyn Driver> =
        Arc::new(Emulated::open(&library, seed).expect("kernels that were just built"));
    for half in [true, false] {
        let pipeline = Pipeline { half };
        for tile in pipeline.tiles() {
            for form in [Form::Rows, Form::Windows, Form::Columns] {
                if tile.kernel(form).is_some() {
                    check(&driver, &mut random, half, form, Choice { tile, splits: 1 });
                    check(&driver, &mut random, half, form, Choice { tile, splits: 3 });
                }
            }
        }
    }
}

/// The activations of f16 products are approximations: how far they are from the functions, with sums that are exact.
#[test]
fn activations_of_f16_products_are_within_1e_4() {
    let Some(library) = crate::testing::kernels_for_tests(&[]) else { return };
    let driver: Arc<dyn Driver> =
        Arc::new(Emulated::open(&library, 1).expect("kernels that were just built"));
    // Each value once, in rows of eight times the first column of B, which is the unit matrix.
    let values: Vec<f16> = (-800..800).map(|i| f16::from_f32(i as f32 / 64.0)).collect();
    let keep = |elements: &[f16]| {
        let memory = Allocation::constants(&driver, 2 * elements.len()).expect("memory");
        memory.write(bytemuck::cast_slice(elements)).expect("fits");
        let rows = (elements.len() / 8) as u32;
        (Operand { data: memory.address, rows, cols: 8, pitch: 8, element: element::F16 }, memory)
    };
    let unit: Vec<f16> = (0..64).map(|i| f16::from_f32(if i % 9 == 0 { 1.0 } else { 0.0 })).collect();
    let ((a, _a), (b, _b)) = (keep(&values), keep(&unit));
    let memory = Allocation::new(&driver, 4 * values.len()).expect("memory");
    let out = Operand { data: memory.address, rows: a.rows, cols: 8, pitch: 8, element: element::F32 };
    let rows = Rows { entries: 0, rows_per_entry: 1, bound: a.rows };
    for op in [UnaryOp::Gelu, UnaryOp::Silu, UnaryOp::Sigmoid] {
        let finish = EpilogueArguments { activation: activation(Some(op)), ..EpilogueArguments::NONE };
        let product = Product::linear(a, b, out, finish, rows);
        let choice = Choice { splits: 1, ..product.sizes().choose() };
        let bytes = run(&driver, product.bind(choice, 0, 0), &memory);
        for (value, bytes) in values.iter().zip(bytes.chunks_exact(4)) {
            let actual = f64::from(f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
            let v = value.to_f64();
            let sigmoid = 1.0 / (1.0 + (-v).exp());
            let wanted = match op {
                UnaryOp::Gelu => 0.5 * v * (1.0 + libm::erf(v / 2f64.sqrt())),
                UnaryOp::Silu => v * sigmoid,
                _ => sigmoid,
            };
            assert!((actual - wanted).abs() < 1e-4, "{op:?} of {v}: {actual} instead of {wanted}");
        }
    }
}
