//! One kernel with its arguments: what the CUDA form of an op gives, as plain data. Nothing here needs a driver, so that an
//! op's crate is the same in a build without CUDA; only the PTX is not part of it then ([`ptx!`](crate::ptx)).

pub mod abi;

use bytemuck::NoUninit;

pub use abi::Operand;

/// Compiled kernels that are loaded together.
#[derive(Debug)]
pub struct Module {
    /// Name of the source file, without its suffix.
    pub name: &'static str,
    /// The file compiled to PTX for compute capability 8.0; the driver compiles it for the GPU at hand.
    pub ptx: &'static str,
}

/// The PTX at a path beside the source file, or nothing in a build without CUDA.
#[cfg(feature = "cuda")]
#[macro_export]
macro_rules! ptx {
    ($path:literal) => {
        include_str!($path)
    };
}
/// The PTX at a path beside the source file, or nothing in a build without CUDA.
#[cfg(not(feature = "cuda"))]
#[macro_export]
macro_rules! ptx {
    ($path:literal) => {
        ""
    };
}

/// A kernel, the threads that run it, and its arguments: one structure passed by value.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Where the kernel is.
    pub module: &'static Module,
    /// Its name.
    pub kernel: &'static str,
    /// Blocks in x, y and z. Nothing to compute may give a zero: then nothing is launched.
    pub grid: [u32; 3],
    /// Threads of a block in x, y and z.
    pub block: [u32; 3],
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// The bytes of its arguments.
    pub params: Vec<u8>,
}

impl Launch {
    /// `kernel` of `module` with one block of one warp.
    pub fn new(module: &'static Module, kernel: &'static str, params: &impl NoUninit) -> Self {
        Launch {
            module,
            kernel,
            grid: [1; 3],
            block: [32, 1, 1],
            shared_bytes: 0,
            params: bytemuck::bytes_of(params).to_vec(),
        }
    }
    /// Blocks in x, y and z. Nothing to compute may give a zero: then nothing is launched.
    pub fn grid(mut self, blocks: [u32; 3]) -> Self {
        self.grid = blocks;
        self
    }
    /// Threads of a block in x, y and z.
    pub fn block(mut self, threads: [u32; 3]) -> Self {
        self.block = threads;
        self
    }
    /// Dynamic shared memory of a block.
    pub fn shared(mut self, bytes: u32) -> Self {
        self.shared_bytes = bytes;
        self
    }
}
