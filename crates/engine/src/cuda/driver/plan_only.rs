//! No GPU at all: programs are planned and bound, so that their plan can be looked at, but they do not run.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Driver, Replay, Schedule};
use crate::device_slice::DeviceSlice;
use crate::error::CudaError;

/// Alignment of made-up addresses: a GPU's.
const ALIGNMENT: u64 = 256;

/// Gives out addresses without memory.
pub(crate) struct PlanOnly {
    next: AtomicU64,
}

impl PlanOnly {
    pub(crate) fn new() -> Self {
        PlanOnly { next: AtomicU64::new(ALIGNMENT) }
    }
}

impl Driver for PlanOnly {
    fn description(&self) -> String {
        "no GPU: plans only".into()
    }
    fn runs(&self) -> bool {
        false
    }
    fn allocate(&self, bytes: usize) -> Result<u64, CudaError> {
        Ok(self.next.fetch_add((bytes as u64).next_multiple_of(ALIGNMENT), Ordering::Relaxed))
    }
    fn release(&self, _address: u64) {}
    fn write(&self, _address: u64, _bytes: &[u8]) -> Result<(), CudaError> {
        Ok(())
    }
    fn prepare(&self, schedule: Schedule) -> Result<Box<dyn Replay>, CudaError> {
        Ok(Box::new(Nothing { output: vec![0; schedule.output.1] }))
    }
}

struct Nothing {
    output: Vec<u8>,
}

impl Replay for Nothing {
    fn upload(&mut self, _offset: usize, _bytes: &[u8]) -> Result<(), CudaError> {
        Ok(())
    }
    fn copy_in(&mut self, _offset: usize, _from: DeviceSlice<'_>) -> Result<(), CudaError> {
        Ok(())
    }
    fn launch(&mut self) -> Result<(), CudaError> {
        Err(CudaError::PlanOnly)
    }
    fn wait(&mut self) -> Result<(), CudaError> {
        Err(CudaError::PlanOnly)
    }
    fn output(&self) -> &[u8] {
        &self.output
    }
    fn times(&self) -> &[Duration] {
        &[]
    }
}
