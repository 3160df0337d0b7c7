//! What the engine's middle knows of a backend: it describes itself, gives states memory, makes a graph a program.

use std::time::Duration;

use crate::device_slice::DeviceSlice;
use crate::error::DeviceError;
use crate::graph::Graph;
use crate::state_store::{StateAllocator, StateStore};

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

/// Where programs run.
pub(crate) trait Backend: StateAllocator + Send + Sync {
    fn kind(&self) -> DeviceKind;
    /// As in packets and reports.
    fn name(&self) -> &'static str;
    /// For people.
    fn description(&self) -> String;
    /// Instructions in use.
    fn instructions(&self) -> &'static str;
    /// Number format of stored features.
    fn precision(&self) -> &'static str;
    /// Threads of the host that take part in a run.
    fn threads(&self) -> usize {
        1
    }
    /// Number of the GPU whose memory programs use, if they use a GPU's.
    fn gpu(&self) -> Option<usize> {
        None
    }
    /// Whether programs can run, or only be looked at.
    fn runs(&self) -> bool {
        true
    }
    /// Memory of the packed weights that programs share.
    fn shared_bytes(&self) -> usize {
        0
    }
    /// Optimises a graph, plans its memory, packs its weights. `positions` are those of its states in the store.
    fn compile(
        &self,
        graph: Graph,
        states: StateStore,
        positions: Vec<usize>,
        profile: bool,
    ) -> Result<Box<dyn Executable>, DeviceError>;
}

/// How long a stage took in the last run, summed over its kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageTime {
    /// Stage, as set by [`Graph::set_stage`].
    pub stage: &'static str,
    /// Time.
    pub time: Duration,
}

/// One kernel of a program, with its time in the last run.
#[derive(Debug, Clone, PartialEq)]
pub struct KernelTime {
    /// Operation, with what was fused into it.
    pub op: String,
    /// Scope in the model.
    pub scope: String,
    /// Shape of the result.
    pub shape: String,
    /// Stage.
    pub stage: &'static str,
    /// Branch that it belongs to; kernels of different branches may run at once on a device that can.
    pub branch: usize,
    /// Positions of the kernels in other branches that it waits for.
    pub waits: Vec<usize>,
    /// Of the last run when profiled, else of all rows; multiply-adds count two.
    pub flops: u64,
    /// Memory that is read and written at least: arguments, weights and results once each, all rows.
    pub bytes: u64,
    /// The GPU kernels that it starts, in order; none on a CPU.
    pub kernels: Vec<&'static str>,
    /// On a GPU, for a product: its sizes, its tile and into how many parts its sums are split; else empty.
    pub tile: String,
    /// Time in the last run; zero unless profiled.
    pub time: Duration,
}

/// What a backend makes of a plan.
pub(crate) trait Executable: Send {
    /// Copies into the input block; may return before the copy is done.
    fn upload(&mut self, offset: usize, bytes: &[u8]) -> Result<(), DeviceError>;
    /// Copies into the input block from another place of the same GPU; may return before the copy is done.
    fn copy_in(&mut self, _offset: usize, _from: DeviceSlice<'_>) -> Result<(), DeviceError> {
        unreachable!("a program whose backend names a GPU has a copy of its own, and no other is asked")
    }
    /// Starts a run; may return before it is done.
    fn launch(&mut self) -> Result<(), DeviceError>;
    /// Returns when everything started so far is done.
    fn wait(&mut self) -> Result<(), DeviceError>;
    /// Copies from the output block.
    fn download(&mut self, offset: usize, bytes: &mut [u8]) -> Result<(), DeviceError>;
    fn stage_times(&self) -> &[StageTime];
    fn kernel_times(&self) -> Vec<KernelTime>;
    /// Device memory of its own: arena, blocks, and weights where it does not share them.
    fn memory_bytes(&self) -> usize;
    /// Device memory of weights that it packed for itself and all programs after it.
    fn packed_bytes(&self) -> usize {
        0
    }
}
