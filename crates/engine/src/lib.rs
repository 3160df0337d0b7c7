//! Static tensor graphs on a device: describe ([`graph`]), compile ([`compile`]), run ([`Program`]).
//!
//! In: a graph of a closed list of ops with static shapes. Out: a program that runs again and again without
//! allocating and without asking the host anything. Every transfer is counted in one place ([`ledger`]).
//!
//! ```
//! use ultramotion_engine::graph::{Graph, UnaryOp};
//! use ultramotion_engine::tensor::{DType, HostTensor};
//! use ultramotion_engine::{CompileOptions, Device, Program};
//!
//! let mut g = Graph::new("example");
//! let x = g.input("x", DType::F32, [3])?;
//! let y = g.unary(UnaryOp::Relu, x)?;
//! g.output("y", y)?;
//! let mut program = Program::compile(g, &Device::cpu(1), &CompileOptions::default())?;
//! let outputs = program.run(&[&HostTensor::f32([3], vec![-1.0, 0.0, 2.0])])?;
//! assert_eq!(outputs[0].as_f32(), Some(&[0.0, 0.0, 2.0][..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod compile;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod graph;
pub mod launch;
pub mod ledger;
pub mod reference;
pub mod tensor;
pub mod testing;

mod backend;
mod block;
mod by_format;
mod device;
mod device_slice;
mod error;
mod interpreted;
mod program;
mod state_store;
mod tune;
mod values;

pub use backend::{DeviceKind, KernelTime, Precision, StageTime};
pub use block::{Block, InputBlock, OutputBlock};
pub use by_format::ByFormat;
pub use device::Device;
pub use device_slice::{DeviceSlice, InputBytes};
pub use error::{CudaError, DeviceError, OutOfMemory};
pub use program::{CompileOptions, Event, Program};
pub use state_store::StateStore;
pub use tune::tune;
