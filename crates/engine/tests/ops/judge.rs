//! Random numbers, and the comparison of a backend's outputs with the reference's.

use ultramotion_engine::graph::{Graph, Tensor};
use ultramotion_engine::reference::{Interpreter, Values};
use ultramotion_engine::tensor::{DType, HostData, HostTensor, Shape};
use ultramotion_engine::{CompileOptions, Device, Program};

/// SplitMix64 (Steele, Lea & Flood 2014).
pub struct Random(u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    /// From `low` to `high`, both included.
    pub fn size(&mut self, low: usize, high: usize) -> usize {
        low + (self.bits() % (high - low + 1) as u64) as usize
    }
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.size(0, from.len() - 1)]
    }
    pub fn flag(&mut self) -> bool {
        self.bits() & 1 == 1
    }
    /// From -1 to 1.
    pub fn real(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
    pub fn values(&mut self, shape: impl Into<Shape>) -> HostTensor {
        let shape = shape.into();
        let values: Vec<f32> = (0..shape.numel()).map(|_| self.real()).collect();
        HostTensor::f32(shape, values)
    }
    pub fn bytes(&mut self, shape: impl Into<Shape>) -> HostTensor {
        let shape = shape.into();
        let values: Vec<u8> = (0..shape.numel()).map(|_| self.bits() as u8).collect();
        HostTensor::u8(shape, values)
    }
    pub fn indices(&mut self, shape: impl Into<Shape>, low: i32, high: i32) -> HostTensor {
        let shape = shape.into();
        let span = (high - low + 1) as u64;
        let values: Vec<i32> = (0..shape.numel()).map(|_| low + (self.bits() % span) as i32).collect();
        HostTensor::i32(shape, values)
    }
}

/// A graph under construction with the inputs it will be run on.
pub struct Case {
    pub graph: Graph,
    pub inputs: Vec<HostTensor>,
    /// Largest ‖a − b‖ / ‖b‖ of a float output.
    pub tolerance: f64,
    /// Runs, for states.
    pub runs: usize,
}

impl Case {
    pub fn new() -> Self {
        Case { graph: Graph::new("case"), inputs: Vec::new(), tolerance: 2e-6, runs: 1 }
    }
    /// An input with these values.
    pub fn input(&mut self, value: HostTensor) -> Tensor {
        let name = format!("input{}", self.inputs.len());
        let tensor = self.graph.input(name, value.dtype(), value.shape().clone()).expect("unique name");
        self.inputs.push(value);
        tensor
    }
    /// An output.
    pub fn output(&mut self, tensor: Tensor) {
        let name = format!("output{}", self.graph.outputs().len());
        self.graph.output(name, tensor).expect("unique name");
    }
}

/// Relative error of a float output where features are stored in f16, whose spacing is 1e-3 of a value.
const F16_TOLERANCE: f64 = 1e-2;

/// Runs a case many times with new random numbers on `device` and on the reference, and compares.
#[allow(clippy::print_stdout)] // the seed, which the test runner shows when a case fails
pub fn check(name: &str, device: &Device, case: fn(&mut Random) -> Case) {
    let given = std::env::var("ULTRAMOTION_SEED").ok().and_then(|s| s.parse::<u64>().ok());
    let first = given.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |t| t.as_nanos() as u64 % 1_000_000_000)
    });
    let emulated = device.name() == "cuda-emulated";
    let rounds = match given {
        Some(_) => 1,
        None if emulated => 4,
        None => 12,
    };
    for seed in first..first + rounds {
        println!("{name} on {device:?}: ULTRAMOTION_SEED={seed}");
        let case = case(&mut Random(seed));
        let types: Vec<(DType, usize)> = case
            .graph
            .outputs()
            .iter()
            .map(|p| (case.graph.ty(p.tensor).dtype, case.graph.shape(p.tensor).numel()))
            .collect();
        let arguments: Vec<Values> = case.inputs.iter().map(Values::from).collect();
        let mut interpreter = Interpreter::new(&case.graph);
        let mut program =
            Program::compile(case.graph.clone(), device, &CompileOptions::default()).expect("compiles");
        let inputs: Vec<&HostTensor> = case.inputs.iter().collect();
        let narrow = device.precision() == "f16";
        for run in 0..case.runs {
            let expected = interpreter.run(&arguments);
            let actual = program.run(&inputs).expect("runs");
            assert_eq!(actual.len(), types.len());
            for (index, (expected, actual)) in expected.iter().zip(&actual).enumerate() {
                let tolerance = if narrow { case.tolerance.max(F16_TOLERANCE) } else { case.tolerance };
                compare(expected, actual, tolerance)
                    .unwrap_or_else(|why| panic!("{name}, seed {seed}, run {run}, output {index}: {why}"));
            }
        }
    }
}

fn compare(expected: &Values, actual: &HostTensor, tolerance: f64) -> Result<(), String> {
    if expected.shape != *actual.shape() {
        return Err(format!("shape {} instead of {}", actual.shape(), expected.shape));
    }
    match actual.data() {
        HostData::I32(v) => {
            if expected.as_i32() != &v[..] {
                return Err(format!("{:?} instead of {:?}", v, expected.as_i32()));
            }
        }
        HostData::U8(v) => {
            if expected.as_u8() != &v[..] {
                return Err("bytes differ".into());
            }
        }
        HostData::F32(v) => {
            let expected = expected.as_f64();
            let worst = v.iter().zip(expected).enumerate().find(|(_, (a, b))| a.is_finite() != b.is_finite());
            if let Some((i, (a, b))) = worst {
                return Err(format!("element {i} is {a} instead of {b}"));
            }
            let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|d| d * d).sum::<f64>().sqrt();
            let size = norm(&mut expected.iter().copied().filter(|b| b.is_finite()));
            let difference = |(a, b): (&f32, &f64)| if b.is_finite() { f64::from(*a) - b } else { 0.0 };
            let error = norm(&mut v.iter().zip(expected).map(difference));
            if error > tolerance * size.max(1e-3) {
                return Err(format!(
                    "relative error {:.2e}, tolerance {tolerance:.0e}",
                    error / size.max(1e-3)
                ));
            }
        }
    }
    Ok(())
}
