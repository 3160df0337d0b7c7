//! The processor as a backend.

use std::any::Any;
use std::sync::Arc;

use super::kernels::AlignedVec;
use super::packing::Shelf;
use super::plan::{CpuTarget, Plan};
use super::program::CpuProgram;
use super::{Level, Pool};
use crate::backend::{Backend, DeviceKind, Executable};
use crate::compile::optimise;
use crate::error::DeviceError;
use crate::graph::Graph;
use crate::state_store::{StateAllocator, StateMemory, StateStore};
use crate::tensor::HostTensor;

/// Threads and the instructions that they use.
pub(crate) struct CpuBackend {
    pool: Arc<Pool>,
    level: Level,
    shelf: Shelf,
}

impl CpuBackend {
    /// 0 threads are one for each core.
    pub(crate) fn new(threads: usize) -> CpuBackend {
        let pool = if threads == 0 { Pool::per_core() } else { Pool::new(threads) };
        CpuBackend { pool: Arc::new(pool), level: Level::detect(), shelf: Shelf::default() }
    }
}

impl StateAllocator for CpuBackend {
    fn state(&self, initial: &HostTensor) -> Result<Box<dyn StateMemory>, DeviceError> {
        let mut memory = AlignedVec::<u8>::try_zeros(initial.bytes().len())?;
        memory.write(initial.bytes())?;
        Ok(Box::new(memory))
    }
    fn owns(&self, memory: &dyn StateMemory) -> bool {
        (memory as &dyn Any).is::<AlignedVec<u8>>()
    }
}

impl Backend for CpuBackend {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Cpu
    }
    fn name(&self) -> &'static str {
        "cpu"
    }
    fn description(&self) -> String {
        format!("{} threads, {}", self.threads(), self.instructions())
    }
    fn instructions(&self) -> &'static str {
        self.level.name()
    }
    fn precision(&self) -> &'static str {
        "f32"
    }
    fn threads(&self) -> usize {
        self.pool.threads()
    }
    fn shared_bytes(&self) -> usize {
        self.shelf.bytes()
    }
    fn compile(
        &self,
        graph: Graph,
        states: StateStore,
        positions: Vec<usize>,
        profile: bool,
    ) -> Result<Box<dyn Executable>, DeviceError> {
        let plan = Plan::new(optimise(graph), &CpuTarget);
        let program =
            CpuProgram::new(plan, self.pool.clone(), self.level, &self.shelf, states, positions, profile)?;
        Ok(Box::new(program))
    }
}

impl StateMemory for AlignedVec<u8> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), DeviceError> {
        self.copy_from_slice(bytes);
        Ok(())
    }
}
