//! The emulation itself: a sound kernel passes in every order of its warps, and each kind of mistake shows in some.

use std::sync::Arc;

use ultramotion_engine::graph::{CpuCall, CudaCall, CustomOp, Graph, TensorType};
use ultramotion_engine::launch::{Launch, Module, Operand};
use ultramotion_engine::reference::Values;
use ultramotion_engine::tensor::{DType, HostData, HostTensor};
use ultramotion_engine::{CompileOptions, Device, Precision, Program};

const THREADS: usize = 128;
const SLICES: usize = 3;
/// Runs, each in another order, in which a mistake has to show.
const RUNS: usize = 40;

/// Mistakes in `flawed.cu`, by their number there.
const FLAWS: [&str; 13] = [
    "sound",
    "no wait for copies",
    "no barrier after copies",
    "no barrier before the next copies",
    "no barrier of the warp",
    "a barrier for some threads of a warp",
    "a write past a shared variable",
    "a write past dynamic shared memory",
    "a write past an operand",
    "a read of undefined shared memory",
    "a write past an allocation",
    "an access that is not aligned",
    "no wait for the previous kernel",
];

/// Sums of opposite elements, reversed in each warp.
#[derive(Debug)]
struct Flawed(u32);

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct FlawedParams {
    x: Operand,
    out: Operand,
    flaw: u32,
    slices: u32,
}

impl CustomOp for Flawed {
    fn name(&self) -> &str {
        "flawed"
    }
    fn output_types(&self, _inputs: &[TensorType]) -> Result<Vec<TensorType>, String> {
        Ok(vec![TensorType { dtype: DType::F32, shape: [THREADS].into(), rows: None }])
    }
    fn reference(&self, _inputs: &[Values], _outputs: &mut [Values]) {
        unreachable!("the test knows what to expect")
    }
    fn cpu(&self, _call: &mut CpuCall<'_>) {
        unreachable!("runs on CUDA only")
    }
    fn cuda(&self, call: &CudaCall<'_>) -> Option<Vec<Launch>> {
        static MODULE: Module = Module { name: "flawed", ptx: include_str!("kernels/ptx/flawed.ptx") };
        let (x, out) = (call.inputs[0], call.outputs[0]);
        let params = FlawedParams { x, out, flaw: self.0, slices: SLICES as u32 };
        let launch = Launch::new(&MODULE, "flawed", &params);
        Some(vec![launch.block([THREADS as u32, 1, 1]).shared(4 * THREADS as u32)])
    }
}

fn expected(x: &[f32]) -> Vec<f32> {
    let sum = |t: usize| (0..SLICES).map(|i| x[i * THREADS + THREADS - 1 - t]).sum();
    (0..THREADS).map(|t| sum(t / 32 * 32 + 31 - t % 32)).collect()
}

/// How many of the runs gave something else than a sound kernel does, or ended in a fault, and the first fault.
fn wrong_runs(device: &Device, flaw: usize) -> (usize, Option<String>) {
    let mut graph = Graph::new("flawed");
    let x = graph.input("x", DType::F32, [SLICES * THREADS]).expect("an input");
    let y = graph.custom(Arc::new(Flawed(flaw as u32)), &[x]).expect("fits");
    graph.output("y", y[0]).expect("named once");
    let mut program = Program::compile(graph, device, &CompileOptions::default()).expect("compiles");
    let (mut wrong, mut fault) = (0, None);
    for run in 0..RUNS {
        // Whole numbers, so that sums are exact, and others in each run, so that nothing left behind is right.
        let values: Vec<f32> = (0..SLICES * THREADS).map(|i| (i * 7 + run * 1000) as f32).collect();
        let wanted = expected(&values);
        match program.run(&[&HostTensor::f32([SLICES * THREADS], values)]) {
            Ok(outputs) => {
                let HostData::F32(actual) = outputs[0].data() else { panic!("floats") };
                wrong += usize::from(actual[..] != wanted[..]);
            }
            Err(error) => {
                wrong += 1;
                fault.get_or_insert(error.to_string());
            }
        }
    }
    (wrong, fault)
}

#[test]
fn the_emulation_finds_every_mistake() {
    for (flaw, name) in FLAWS.iter().enumerate() {
        let Some(device) = crate::cuda::emulated(Precision::F32, 1 + flaw as u64) else { return };
        let (wrong, fault) = wrong_runs(&device, flaw);
        match flaw {
            0 => assert_eq!((wrong, fault), (0, None), "the sound kernel"),
            5..=8 | 10..=12 => {
                assert_eq!(wrong, RUNS, "{name}");
                let fault = fault.unwrap_or_else(|| panic!("{name}: no fault"));
                assert!(fault.contains("flawed"), "{name}: '{fault}' does not say where");
            }
            9 => assert_eq!(wrong, RUNS, "{name}"),
            _ => assert!(wrong > 0, "{name}: {RUNS} runs were right all the same"),
        }
    }
}
