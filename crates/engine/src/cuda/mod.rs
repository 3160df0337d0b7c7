//! The CUDA backend: a frame is one graph of kernels, captured once and replayed.
//!
//! - `kernels/`: CUDA C++, in a subset that a host compiler takes too; `ptx/`: the same, compiled, part of the program.
//! - [`abi`]: what kernels and host agree on. [`Launch`]: one kernel with its arguments.
//! - `driver/`: where kernels run: a GPU through its driver, loaded at run time; or this machine's processor, one fiber for
//!   a CUDA thread, so that a machine without a GPU can check what they compute.
//! - `lower/`, `memory.rs`, `program.rs`: a plan's steps bound to kernels and addresses. Only these know of graphs.
//!
//! - `activity`: what the GPU did, as NVIDIA's profiling library saw it.
//!
//! In: a plan whose branches may run at once, features in f16 or f32. Out: a program that needs one copy in, one launch,
//! one copy out and one wait for a frame, and allocates nothing.

pub mod abi;
mod activity;
mod driver;
mod launch;
mod lower;
mod memory;
mod program;
mod testing;
mod tune;

pub use activity::{Activity, ActivityError, Recording};
pub use driver::{CudaError, build_for_host};
pub use launch::{CudaCall, Launch, Module};
pub use testing::{device_for_tests, kernels_for_tests};
pub use tune::tune;

pub(crate) use driver::{Allocation, Driver, Emulated, Gpu, PlanOnly};
pub(crate) use lower::scratch;
pub(crate) use program::CudaProgram;
