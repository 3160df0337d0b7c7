//! The devices that programs run on.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use thiserror::Error;

use crate::cpu::{Level, Pool};
use crate::cuda::{CudaError, Driver, Emulated, Gpu, PlanOnly};
use crate::ledger::{Ledger, OverBudget};

/// A place where programs run. Cloning shares it, its threads and its ledger.
#[derive(Clone)]
pub struct Device {
    pub(crate) backend: Backend,
    ledger: Ledger,
    fallback: Option<Arc<str>>,
}

#[derive(Clone)]
pub(crate) enum Backend {
    Reference,
    Cpu { pool: Arc<Pool>, level: Level },
    Cuda { driver: Arc<dyn Driver>, precision: Precision, emulated: bool },
}

/// How features are stored on a device that has a choice. Sums, statistics and whatever decides about boxes are in f32
/// either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// 32-bit floats.
    F32,
    /// 16-bit floats, for tensor cores.
    #[default]
    F16,
}

/// What kind of device it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// The float64 interpreter: for tests.
    Reference,
    /// Threads and vector instructions of this machine.
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
}

impl Device {
    /// The float64 interpreter, for tests: exact and slow.
    pub fn reference() -> Device {
        Device { backend: Backend::Reference, ledger: Ledger::default(), fallback: None }
    }

    /// This machine's processor with a number of threads; 0 takes one for each core.
    pub fn cpu(threads: usize) -> Device {
        let pool = if threads == 0 { Pool::per_core() } else { Pool::new(threads) };
        Device {
            backend: Backend::Cpu { pool: Arc::new(pool), level: Level::detect() },
            ledger: Ledger::default(),
            fallback: None,
        }
    }

    /// The NVIDIA GPU with this number.
    pub fn cuda(ordinal: usize, precision: Precision) -> Result<Device, CudaError> {
        let driver: Arc<dyn Driver> = Arc::new(Gpu::open(ordinal)?);
        Ok(Device {
            backend: Backend::Cuda { driver, precision, emulated: false },
            ledger: Ledger::default(),
            fallback: None,
        })
    }

    /// The CUDA backend with kernels that [`build_for_host`](crate::cuda::build_for_host) built for this machine's processor:
    /// for tests where there is no GPU. `seed` sets the order of warps, and of steps in branches that may run at once.
    pub fn emulated_cuda(kernels: &Path, precision: Precision, seed: u64) -> Result<Device, CudaError> {
        let driver: Arc<dyn Driver> = Arc::new(Emulated::open(kernels, seed)?);
        Ok(Device {
            backend: Backend::Cuda { driver, precision, emulated: true },
            ledger: Ledger::default(),
            fallback: None,
        })
    }

    /// The CUDA backend without a GPU: programs are compiled and can be looked at ([`Program::kernel_times`]), and every
    /// launch is an error.
    ///
    /// [`Program::kernel_times`]: crate::Program::kernel_times
    pub fn cuda_plan_only(precision: Precision) -> Device {
        let driver: Arc<dyn Driver> = Arc::new(PlanOnly::new());
        Device {
            backend: Backend::Cuda { driver, precision, emulated: false },
            ledger: Ledger::default(),
            fallback: None,
        }
    }

    /// The same device, taken because another could not be had, and why not.
    pub fn instead(self, reason: impl Into<Arc<str>>) -> Device {
        Device { fallback: Some(reason.into()), ..self }
    }

    /// Why it was taken instead of another.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// Whether programs on it can run: false for [`Device::cuda_plan_only`].
    pub fn runs(&self) -> bool {
        !matches!(&self.backend, Backend::Cuda { driver, .. } if !driver.runs())
    }

    /// What kind of device it is.
    pub fn kind(&self) -> DeviceKind {
        match self.backend {
            Backend::Reference => DeviceKind::Reference,
            Backend::Cpu { .. } => DeviceKind::Cpu,
            Backend::Cuda { .. } => DeviceKind::Cuda,
        }
    }

    /// Name as it stands in packets and reports: `cpu`, `cuda`, `reference`; `cuda-emulated` in tests.
    pub fn name(&self) -> &'static str {
        match self.backend {
            Backend::Reference => "reference",
            Backend::Cpu { .. } => "cpu",
            Backend::Cuda { emulated: false, .. } => "cuda",
            Backend::Cuda { emulated: true, .. } => "cuda-emulated",
        }
    }

    /// The device, for people.
    pub fn description(&self) -> String {
        match &self.backend {
            Backend::Reference => "the float64 reference".into(),
            Backend::Cpu { .. } => format!("{} threads, {}", self.threads(), self.instructions()),
            Backend::Cuda { driver, .. } => driver.description(),
        }
    }

    /// Threads of the host that take part in a run.
    pub fn threads(&self) -> usize {
        match &self.backend {
            Backend::Reference | Backend::Cuda { .. } => 1,
            Backend::Cpu { pool, .. } => pool.threads(),
        }
    }

    /// Instructions in use: `avx512`, `avx2`, `neon`, `portable`; `float64` for the reference, `ptx` on a GPU.
    pub fn instructions(&self) -> &'static str {
        match &self.backend {
            Backend::Reference => "float64",
            Backend::Cpu { level, .. } => level.name(),
            Backend::Cuda { .. } => "ptx",
        }
    }

    /// Number format of stored features: `f32` or `f16`, or `f64` for the reference.
    pub fn precision(&self) -> &'static str {
        match self.backend {
            Backend::Reference => "f64",
            Backend::Cpu { .. } | Backend::Cuda { precision: Precision::F32, .. } => "f32",
            Backend::Cuda { precision: Precision::F16, .. } => "f16",
        }
    }

    /// Counts this device's transfers, waits and allocations.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({}, {}, {})", self.name(), self.precision(), self.description())
    }
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
    /// The GPU or its driver.
    #[error(transparent)]
    Cuda(#[from] CudaError),
    /// A run did more than it may.
    #[error(transparent)]
    OverBudget(#[from] OverBudget),
}
