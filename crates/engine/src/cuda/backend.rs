//! A GPU, or what stands in for one, as a backend.

use std::any::Any;
use std::path::Path;
use std::sync::Arc;

use super::driver::{Allocation, Driver, Emulated, Gpu, PlanOnly};
use super::lower::scratch;
use super::plan::{Chain, Plan, chains};
use super::program::CudaProgram;
use crate::backend::{Backend, DeviceKind, Executable, Precision};
use crate::compile::{Chains, Storage, Target, optimise};
use crate::error::{CudaError, DeviceError};
use crate::graph::{Graph, Node};
use crate::state_store::{StateAllocator, StateMemory, StateStore};
use crate::tensor::{DType, HostTensor};

/// A driver, and how features are stored.
pub(crate) struct CudaBackend {
    driver: Arc<dyn Driver>,
    precision: Precision,
    name: &'static str,
    ordinal: usize,
}

impl CudaBackend {
    /// The GPU with this number.
    pub(crate) fn gpu(ordinal: usize, precision: Precision) -> Result<Self, CudaError> {
        Ok(CudaBackend { driver: Arc::new(Gpu::open(ordinal)?), precision, name: "cuda", ordinal })
    }
    /// Kernels on this machine's processor.
    pub(crate) fn emulated(kernels: &Path, precision: Precision, seed: u64) -> Result<Self, CudaError> {
        let driver = Arc::new(Emulated::open(kernels, seed)?);
        Ok(CudaBackend { driver, precision, name: "cuda-emulated", ordinal: 0 })
    }
    /// Neither: programs can be looked at.
    pub(crate) fn plan_only(precision: Precision) -> Self {
        CudaBackend { driver: Arc::new(PlanOnly::new()), precision, name: "cuda", ordinal: 0 }
    }
}

impl StateAllocator for CudaBackend {
    fn state(&self, initial: &HostTensor) -> Result<Box<dyn StateMemory>, DeviceError> {
        let memory = Allocation::new(&self.driver, initial.bytes().len())?;
        Allocation::write(&memory, initial.bytes())?;
        Ok(Box::new(memory))
    }
    fn owns(&self, memory: &dyn StateMemory) -> bool {
        (memory as &dyn Any).is::<Allocation>()
    }
}

impl Backend for CudaBackend {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Cuda
    }
    fn name(&self) -> &'static str {
        self.name
    }
    fn description(&self) -> String {
        self.driver.description()
    }
    fn instructions(&self) -> &'static str {
        "ptx"
    }
    fn precision(&self) -> &'static str {
        match self.precision {
            Precision::F32 => "f32",
            Precision::F16 => "f16",
        }
    }
    fn gpu(&self) -> Option<usize> {
        Some(self.ordinal)
    }
    fn runs(&self) -> bool {
        self.driver.runs()
    }
    fn compile(
        &self,
        graph: Graph,
        states: StateStore,
        positions: Vec<usize>,
        profile: bool,
    ) -> Result<Box<dyn Executable>, DeviceError> {
        let plan = Plan::new(optimise(graph), &CudaTarget { f16: self.precision == Precision::F16 });
        Ok(Box::new(CudaProgram::new(&plan, &self.driver, states, &positions, profile)?))
    }
}

impl StateMemory for Allocation {
    fn write(&mut self, bytes: &[u8]) -> Result<(), DeviceError> {
        Ok(Allocation::write(self, bytes)?)
    }
}

/// What a plan for CUDA is: branches run at once.
pub(super) struct CudaTarget {
    /// Features are stored in f16.
    pub f16: bool,
}

impl Target for CudaTarget {
    type Chain = Chain;

    fn f16(&self) -> bool {
        self.f16
    }

    fn concurrent(&self) -> bool {
        true
    }

    fn chains(&self, graph: &Graph, storage: &[Storage], free: &[bool]) -> Chains<Chain> {
        chains(graph, storage, free)
    }

    fn scratch(&self, graph: &Graph, storage: &[Storage], node: &Node) -> Vec<(DType, usize)> {
        scratch(graph, storage, node)
    }
}
