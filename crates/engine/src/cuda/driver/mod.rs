//! Where kernels run: on a GPU through its driver, or, for tests, on this machine's processor.
//!
//! In: a schedule of launches with their branches. Out: something that replays it.

mod emulated;
mod gpu;
mod host_build;
mod plan_only;

use std::sync::Arc;
use std::time::Duration;

use crate::device_slice::DeviceSlice;
use crate::error::CudaError;
use crate::launch::Launch;

pub(crate) use emulated::Emulated;
pub(crate) use gpu::Gpu;
pub use host_build::build_for_host;
pub(crate) use plan_only::PlanOnly;

/// What runs kernels and owns memory for them.
pub(crate) trait Driver: Send + Sync {
    /// The device, for people: its name, and what kind of it.
    fn description(&self) -> String;
    /// Whether schedules can be replayed.
    fn runs(&self) -> bool {
        true
    }
    /// Device memory. Its content is undefined.
    fn allocate(&self, bytes: usize) -> Result<u64, CudaError>;
    /// Device memory for what no kernel writes.
    fn allocate_constants(&self, bytes: usize) -> Result<u64, CudaError> {
        self.allocate(bytes)
    }
    /// Gives memory back. Nothing that runs may use it.
    fn release(&self, address: u64);
    /// Copies to the device and returns when that is done.
    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), CudaError>;
    /// Makes a schedule ready to be replayed. Everything that a replay needs is allocated here.
    fn prepare(&self, schedule: Schedule) -> Result<Box<dyn Replay>, CudaError>;
}

/// Kernels in an order that respects their dependencies, and the two blocks that cross the border.
pub(crate) struct Schedule {
    pub steps: Vec<ScheduledStep>,
    /// Address and bytes of the block that is copied in.
    pub input: (u64, usize),
    /// Address and bytes of the block that is copied out.
    pub output: (u64, usize),
    /// Each step is timed, which keeps them from running at once.
    pub profile: bool,
}

/// Launches that run one after another.
pub(crate) struct ScheduledStep {
    pub launches: Vec<Launch>,
    /// Steps of one branch run in order.
    pub branch: usize,
    /// Steps of other branches that have to be done first.
    pub waits: Vec<usize>,
}

/// A schedule that is ready to run again and again.
pub(crate) trait Replay: Send {
    /// Starts a copy into the input block.
    fn upload(&mut self, offset: usize, bytes: &[u8]) -> Result<(), CudaError>;
    /// Starts a copy into the input block from another place of the same GPU, after whatever makes those bytes.
    fn copy_in(&mut self, offset: usize, from: DeviceSlice<'_>) -> Result<(), CudaError>;
    /// Starts a run, and the copy of the output block after it.
    fn launch(&mut self) -> Result<(), CudaError>;
    /// Returns when everything started is done.
    fn wait(&mut self) -> Result<(), CudaError>;
    /// What was copied from the output block.
    fn output(&self) -> &[u8];
    /// Time of each step in the last run, when the schedule asks for it.
    fn times(&self) -> &[Duration];
}

/// Device memory that is given back when nobody holds it.
pub(crate) struct Allocation {
    driver: Arc<dyn Driver>,
    pub address: u64,
    pub bytes: usize,
}

impl Allocation {
    pub(crate) fn new(driver: &Arc<dyn Driver>, bytes: usize) -> Result<Allocation, CudaError> {
        // An empty buffer has an address too.
        let address = driver.allocate(bytes.max(1))?;
        Ok(Allocation { driver: driver.clone(), address, bytes })
    }
    /// For what no kernel writes.
    pub(crate) fn constants(driver: &Arc<dyn Driver>, bytes: usize) -> Result<Allocation, CudaError> {
        let address = driver.allocate_constants(bytes.max(1))?;
        Ok(Allocation { driver: driver.clone(), address, bytes })
    }
    /// Copies bytes to the start.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<(), CudaError> {
        assert!(bytes.len() <= self.bytes, "a transfer past the end of its memory");
        self.driver.write(self.address, bytes)
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        self.driver.release(self.address);
    }
}
