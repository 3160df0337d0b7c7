//! The CUDA backend: a frame is one graph of kernels, captured once and replayed.
//!
//! - `kernels/`: CUDA C++, in a subset that a host compiler takes too; `ptx/`: the same, compiled, part of the program.
//! - `plan/`: which nodes run as one kernel. `ptx`: a kernel's PTX as the driver gets it.
//! - `driver/`: where kernels run: a GPU through its driver, loaded at run time; or this machine's processor, one fiber for
//!   a CUDA thread, so that a machine without a GPU can check what they compute.
//! - `lower/`, `memory.rs`, `program.rs`, `backend.rs`: a plan's steps bound to kernels and addresses. Only these know of graphs.
//!
//! - `activity`: what the GPU did, as NVIDIA's profiling library saw it.
//!
//! In: a plan whose branches may run at once, features in f16 or f32. Out: a program that needs one copy in, one launch,
//! one copy out and one wait for a frame, and allocates nothing.

mod activity;
mod backend;
mod driver;
mod lower;
mod memory;
mod plan;
mod program;
mod ptx;

pub use activity::{Activity, ActivityError, Recording};
pub use driver::build_for_host;

pub(crate) use backend::CudaBackend;
pub(crate) use lower::with_candidate;
