//! What can go wrong on a device.

use thiserror::Error;

use crate::ledger::OverBudget;

/// Host memory for a program, its weights or its blocks that could not be had.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "there is no memory for {bytes} bytes more; smaller frames, --max-objects or a smaller model need less"
)]
pub struct OutOfMemory {
    /// What was asked for; the highest number where no number is high enough.
    pub bytes: usize,
}

/// What can go wrong between the host and a device.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DeviceError {
    /// A transfer of the wrong size.
    #[error("{what} of program '{program}' is {expected} bytes, the transfer has {actual}")]
    Size {
        /// Program.
        program: String,
        /// Block or port.
        what: String,
        /// Bytes that fit.
        expected: usize,
        /// Bytes that came.
        actual: usize,
    },
    /// A port that the program does not have.
    #[error("program '{program}' has no {what}")]
    NoSuchPort {
        /// Program.
        program: String,
        /// What was asked for.
        what: String,
    },
    /// A state shared between programs that they do not agree on.
    #[error("the state '{name}' is {stored} in the store and {wanted} in program '{program}'")]
    StateMismatch {
        /// Program.
        program: String,
        /// State.
        name: String,
        /// Type and shape in the store.
        stored: String,
        /// Type and shape that the program declares.
        wanted: String,
    },
    /// States that were made on another device.
    #[error("the states of program '{program}' are on another device than the program")]
    StatesElsewhere {
        /// Program.
        program: String,
    },
    /// The host's memory.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
    /// Input bytes on a GPU that the program does not run on.
    #[error(
        "the input is on GPU {gpu}, but program '{program}' does not run there; copy it to the program's device, or to the \
         host's memory"
    )]
    InputElsewhere {
        /// Program.
        program: String,
        /// Number of the GPU that the bytes are on.
        gpu: usize,
    },
    /// The GPU or its driver.
    #[error(transparent)]
    Cuda(#[from] CudaError),
    /// A run did more than it may.
    #[error(transparent)]
    OverBudget(#[from] OverBudget),
}

/// What can go wrong with CUDA.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[allow(missing_docs)] // the messages name the fields
pub enum CudaError {
    #[error("this build has no CUDA backend; use --device cpu, or build it with the feature `cuda`")]
    NotBuilt,
    #[error("no NVIDIA driver was found (libcuda); install one, or use --device cpu")]
    NoDriver,
    #[error(
        "the NVIDIA driver supports CUDA {major}.{minor}; this program needs {needed_major}.{needed_minor} (driver \
         {needed_driver} or later); update the driver, or use --device cpu"
    )]
    DriverTooOld { major: i32, minor: i32, needed_major: i32, needed_minor: i32, needed_driver: u32 },
    #[error("there is no GPU {ordinal}; the driver sees {count}")]
    NoDevice { ordinal: usize, count: usize },
    #[error(
        "{name} has compute capability {major}.{minor}; 8.0 or later is needed (Ampere); use --device cpu"
    )]
    Unsupported { name: String, major: i32, minor: i32 },
    #[error(
        "the GPU has {free} of {total} bytes free, {needed} more are needed; smaller frames, --max-objects, a smaller \
         model or --precision f16 need less"
    )]
    OutOfMemory { needed: usize, free: usize, total: usize },
    #[error("CUDA: {call} failed: {reason}")]
    Call { call: &'static str, reason: String },
    #[error("the op '{op}' has no CUDA form; use --device cpu")]
    NoCudaForm { op: String },
    #[error("programs on this device are planned, not run: there is no GPU behind it")]
    PlanOnly,
    #[error("kernels for the host: {0}")]
    Host(String),
}
