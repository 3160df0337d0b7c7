//! The CPU backend's machine room: threads, vector instructions, kernels.
//!
//! - [`pool`]: a persistent thread pool whose dispatch costs microseconds and allocates nothing.
//! - [`simd`]: one trait over AVX-512, AVX2+FMA, NEON and portable code, chosen at run time.
//! - [`kernels`]: the tensor operations, on raw pitched views, channels last.
//!
//! In: pitched f32 views and weights packed once at build time. Out: the output view, written in place.
//! - `plan`, `lower`, `packing`, `memory`, `program`, `backend`: a plan's steps bound to kernels and to the program's memory. Only
//!   these know of graphs.
//!
//! ```
//! use ultramotion_engine::cpu::{Level, Pool};
//! use ultramotion_engine::cpu::kernels::{linear, Epilogue, PackedLinear, View, ViewMut};
//!
//! let pool = Pool::new(2);
//! // y = x · Wᵀ, W is [N = 3, K = 2] as in PyTorch.
//! let w = PackedLinear::new(Level::detect(), &[1., 0., 0., 1., 1., 1.], 3, 2, Epilogue::default())?;
//! let x = [1.0, 2.0, 3.0, 4.0];
//! let mut y = [0.0; 6];
//! linear(&pool, View::new(&x, 2, 2, 2), &w, None, ViewMut::new(&mut y, 2, 3, 3));
//! assert_eq!(y, [1.0, 2.0, 3.0, 3.0, 4.0, 7.0]);
//! # Ok::<(), ultramotion_engine::OutOfMemory>(())
//! ```

pub mod kernels;
pub mod pool;
pub mod simd;

mod backend;
mod lower;
mod memory;
mod packing;
mod plan;
mod program;

pub(crate) use backend::CpuBackend;

pub use pool::Pool;
pub use simd::Level;
