//! The devices that programs run on.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::cpu::{Level, Pool};
use crate::ledger::{Ledger, OverBudget};

/// A place where programs run. Cloning shares it, its threads and its ledger.
#[derive(Clone)]
pub struct Device {
    pub(crate) backend: Backend,
    ledger: Ledger,
}

#[derive(Clone)]
pub(crate) enum Backend {
    Reference,
    Cpu { pool: Arc<Pool>, level: Level },
}

/// What kind of device it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// The float64 interpreter: for tests.
    Reference,
    /// Threads and vector instructions of this machine.
    Cpu,
}

impl Device {
    /// The float64 interpreter, for tests: exact and slow.
    pub fn reference() -> Device {
        Device { backend: Backend::Reference, ledger: Ledger::default() }
    }

    /// This machine's processor with a number of threads; 0 takes one for each core.
    pub fn cpu(threads: usize) -> Device {
        let pool = if threads == 0 { Pool::per_core() } else { Pool::new(threads) };
        Device {
            backend: Backend::Cpu { pool: Arc::new(pool), level: Level::detect() },
            ledger: Ledger::default(),
        }
    }

    /// What kind of device it is.
    pub fn kind(&self) -> DeviceKind {
        match self.backend {
            Backend::Reference => DeviceKind::Reference,
            Backend::Cpu { .. } => DeviceKind::Cpu,
        }
    }

    /// Name as it stands in packets and reports: `cpu`, `reference`.
    pub fn name(&self) -> &'static str {
        match self.backend {
            Backend::Reference => "reference",
            Backend::Cpu { .. } => "cpu",
        }
    }

    /// Threads that take part in a run.
    pub fn threads(&self) -> usize {
        match &self.backend {
            Backend::Reference => 1,
            Backend::Cpu { pool, .. } => pool.threads(),
        }
    }

    /// Vector instructions in use: `avx512`, `avx2`, `neon`, `portable`; `float64` for the reference.
    pub fn instructions(&self) -> &'static str {
        match &self.backend {
            Backend::Reference => "float64",
            Backend::Cpu { level, .. } => level.name(),
        }
    }

    /// Number format of stored activations: `f32`, or `f64` for the reference.
    pub fn precision(&self) -> &'static str {
        match self.backend {
            Backend::Reference => "f64",
            Backend::Cpu { .. } => "f32",
        }
    }

    /// Counts this device's transfers, waits and allocations.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({}, {} threads, {})", self.name(), self.threads(), self.instructions())
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
    /// A run did more than it may.
    #[error(transparent)]
    OverBudget(#[from] OverBudget),
}
