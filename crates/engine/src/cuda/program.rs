//! A plan bound to kernels and memory, ready to be replayed.

use std::sync::Arc;
use std::time::Duration;

use super::driver::{Allocation, Driver, Replay, Schedule, ScheduledStep};
use super::lower::lower;
use super::memory::Memory;
use super::plan::{Plan, Step};
use crate::backend::{Executable, KernelTime, StageTime};
use crate::device_slice::DeviceSlice;
use crate::error::{CudaError, DeviceError};
use crate::state_store::StateStore;

/// A program on a CUDA device.
pub(crate) struct CudaProgram {
    // Dropped before the memory: it waits for the run that may still use it.
    replay: Box<dyn Replay>,
    memory: Memory,
    states: StateStore,
    reports: Vec<KernelTime>,
    stages: Vec<StageTime>,
    /// Position in `stages` of each step.
    stage_of_step: Vec<usize>,
}

impl CudaProgram {
    pub(crate) fn new(
        plan: &Plan,
        driver: &Arc<dyn Driver>,
        states: StateStore,
        positions: &[usize],
        profile: bool,
    ) -> Result<Self, CudaError> {
        let addresses = {
            let mut store = states.lock();
            positions.iter().map(|&p| store.memory::<Allocation>(p).address).collect()
        };
        let memory = Memory::new(driver, plan, addresses)?;
        let mut reports = Vec::with_capacity(plan.steps.len());
        let mut steps = Vec::with_capacity(plan.steps.len());
        for (step, place) in plan.steps.iter().zip(&plan.branches) {
            let lowered = lower(plan, &memory, step)?;
            let (scope, stage, shape) = match step {
                Step::Node { index, .. } => {
                    let node = &plan.graph.nodes()[*index];
                    (node.scope.clone(), node.stage, plan.graph.shape(node.outputs[0]))
                }
                Step::Copy { from, .. } => (String::new(), "", plan.graph.shape(*from)),
                Step::Chain { nodes, .. } => {
                    let node = &plan.graph.nodes()[*nodes.last().expect("a chain has nodes")];
                    (node.scope.clone(), node.stage, plan.graph.shape(node.outputs[0]))
                }
            };
            reports.push(KernelTime {
                op: lowered.name,
                scope,
                shape: shape.to_string(),
                stage,
                branch: place.branch,
                waits: place.waits.clone(),
                flops: lowered.flops,
                bytes: plan.traffic_bytes(step),
                kernels: lowered.launches.iter().map(|launch| launch.kernel).collect(),
                tile: lowered.tile,
                time: Duration::ZERO,
            });
            steps.push(ScheduledStep {
                launches: lowered.launches,
                branch: place.branch,
                waits: place.waits.clone(),
            });
        }
        let mut stages: Vec<StageTime> = Vec::new();
        let stage_of_step = reports
            .iter()
            .map(|report| {
                stages.iter().position(|s| s.stage == report.stage).unwrap_or_else(|| {
                    stages.push(StageTime { stage: report.stage, time: Duration::ZERO });
                    stages.len() - 1
                })
            })
            .collect();
        let replay = driver.prepare(Schedule {
            steps,
            input: (memory.input.address, memory.input.bytes),
            output: (memory.output.address, memory.output.bytes),
            profile,
        })?;
        Ok(CudaProgram { memory, replay, states, reports, stages, stage_of_step })
    }
}

impl Executable for CudaProgram {
    fn upload(&mut self, offset: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        Ok(self.replay.upload(offset, bytes)?)
    }

    fn copy_in(&mut self, offset: usize, from: DeviceSlice<'_>) -> Result<(), DeviceError> {
        Ok(self.replay.copy_in(offset, from)?)
    }

    fn launch(&mut self) -> Result<(), DeviceError> {
        // Programs that share states take turns: the device runs what is started in the order in which it was started.
        let _turn = self.states.lock();
        Ok(self.replay.launch()?)
    }

    fn wait(&mut self) -> Result<(), DeviceError> {
        self.replay.wait()?;
        self.stages.iter_mut().for_each(|s| s.time = Duration::ZERO);
        for ((report, &stage), &time) in
            self.reports.iter_mut().zip(&self.stage_of_step).zip(self.replay.times())
        {
            report.time = time;
            self.stages[stage].time += time;
        }
        Ok(())
    }

    fn download(&mut self, offset: usize, bytes: &mut [u8]) -> Result<(), DeviceError> {
        bytes.copy_from_slice(&self.replay.output()[offset..][..bytes.len()]);
        Ok(())
    }

    fn stage_times(&self) -> &[StageTime] {
        &self.stages
    }

    fn kernel_times(&self) -> Vec<KernelTime> {
        self.reports.clone()
    }

    fn memory_bytes(&self) -> usize {
        self.memory.bytes()
    }
}
