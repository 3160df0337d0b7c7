//! A plan bound to kernels and memory, ready to run.
#![allow(unsafe_code)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::kernels::AlignedVec;
use super::lower::{Call, Kernel, lower};
use super::memory::{Memory, Operand};
use super::packing::{Packing, Shelf};
use super::plan::{Plan, Step};
use super::{Level, Pool};
use crate::backend::{Executable, KernelTime, StageTime};
use crate::error::{DeviceError, OutOfMemory};
use crate::graph::Op;
use crate::state_store::StateStore;

struct BoundStep {
    kernel: Kernel,
    /// The device-resident count, the rows that one counted item occupies, and the bound.
    count: Option<(Operand, usize, usize)>,
    /// Custom ops decide themselves what no valid rows mean.
    runs_on_nothing: bool,
    stage: usize,
    /// For all rows.
    flops: u64,
    report: KernelTime,
}

/// A program on the CPU.
pub(crate) struct CpuProgram {
    memory: Memory,
    steps: Vec<BoundStep>,
    pool: Arc<Pool>,
    states: StateStore,
    stages: Vec<StageTime>,
    profile: bool,
    /// Of weights that no program before it has packed.
    packed_bytes: usize,
}

impl CpuProgram {
    pub(crate) fn new(
        plan: Plan,
        pool: Arc<Pool>,
        level: Level,
        shelf: &Shelf,
        states: StateStore,
        positions: Vec<usize>,
        profile: bool,
    ) -> Result<Self, OutOfMemory> {
        let addresses = {
            let mut store = states.lock();
            let place = |&p: &usize| {
                let memory = store.memory::<AlignedVec<u8>>(p);
                (memory.base(), memory.bytes())
            };
            positions.iter().map(place).collect()
        };
        let memory = Memory::new(&plan, addresses)?;
        let mut stages: Vec<StageTime> = Vec::new();
        let packing = Packing::new(shelf);
        let steps = plan
            .steps
            .iter()
            .zip(&plan.branches)
            .map(|(step, place)| {
                // SAFETY: the program keeps the memory beside its kernels; `launch` runs them one at a time, in the plan's
                // order, and holds the states' lock.
                let lowered = unsafe { lower(&plan, &memory, level, &packing, step) }?;
                let runs_on_nothing =
                    matches!(step, Step::Node { index, .. } if matches!(plan.graph.nodes()[*index].op, Op::Custom(_)));
                let last = match step {
                    Step::Node { index, .. } => Some(*index),
                    Step::Chain { nodes, .. } => nodes.last().copied(),
                    Step::Copy { .. } => None,
                };
                let (scope, stage, shape, count) = match (last, step) {
                    (Some(index), _) => {
                        let node = &plan.graph.nodes()[index];
                        let ty = plan.graph.ty(node.outputs[0]);
                        let count = ty.rows.map(|rows| {
                            // SAFETY: as above; a count is read in the step's turn.
                            let items = unsafe { memory.operand(&plan, rows.count) };
                            (items, rows.rows_per_item, ty.shape.dims()[0])
                        });
                        (node.scope.clone(), node.stage, ty.shape.to_string(), count)
                    }
                    (None, Step::Copy { from, .. }) => {
                        (String::new(), "", plan.graph.shape(*from).to_string(), None)
                    }
                    (None, _) => unreachable!("every step but a copy ends with a node"),
                };
                memory.end_step();
                let stage_index = stages.iter().position(|s| s.stage == stage).unwrap_or_else(|| {
                    stages.push(StageTime { stage, time: Duration::ZERO });
                    stages.len() - 1
                });
                let report = KernelTime {
                    op: lowered.name,
                    scope,
                    shape,
                    stage,
                    branch: place.branch,
                    waits: place.waits.clone(),
                    flops: lowered.flops,
                    bytes: plan.traffic_bytes(step),
                    kernels: Vec::new(),
                    tile: String::new(),
                    time: Duration::ZERO,
                };
                let flops = lowered.flops;
                Ok(BoundStep { kernel: lowered.kernel, count, runs_on_nothing, stage: stage_index, flops, report })
            })
            .collect::<Result<_, _>>()?;
        Ok(CpuProgram { memory, steps, pool, states, stages, profile, packed_bytes: packing.new_bytes() })
    }
}

impl Executable for CpuProgram {
    fn upload(&mut self, offset: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        self.memory.input.write(offset, bytes);
        Ok(())
    }

    fn launch(&mut self) -> Result<(), DeviceError> {
        // Programs that share states take turns.
        let _turn = self.states.lock();
        self.stages.iter_mut().for_each(|s| s.time = Duration::ZERO);
        let mut stage = usize::MAX;
        let mut stage_start = Instant::now();
        for step in &mut self.steps {
            if step.stage != stage {
                let now = Instant::now();
                if let Some(previous) = self.stages.get_mut(stage) {
                    previous.time += now - stage_start;
                }
                (stage, stage_start) = (step.stage, now);
            }
            let entries = step.count.map(|(count, rows_per_item, bound)| {
                let items = usize::try_from(count.slice().i32()[0]).unwrap_or(0);
                items.saturating_mul(rows_per_item).min(bound)
            });
            if entries == Some(0) && !step.runs_on_nothing {
                (step.report.time, step.report.flops) = (Duration::ZERO, 0);
                continue;
            }
            let start = self.profile.then(Instant::now);
            (step.kernel)(&Call { pool: &self.pool, entries });
            if let Some(start) = start {
                step.report.time = start.elapsed();
                if let (Some(entries), Some((_, _, bound))) = (entries, step.count) {
                    step.report.flops = step.flops * entries as u64 / bound.max(1) as u64;
                }
            }
        }
        if let Some(last) = self.stages.get_mut(stage) {
            last.time += stage_start.elapsed();
        }
        Ok(())
    }

    fn wait(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn download(&mut self, offset: usize, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.memory.output.read(offset, bytes);
        Ok(())
    }

    fn stage_times(&self) -> &[StageTime] {
        &self.stages
    }

    fn kernel_times(&self) -> Vec<KernelTime> {
        self.steps.iter().map(|s| s.report.clone()).collect()
    }

    fn memory_bytes(&self) -> usize {
        self.memory.bytes()
    }

    fn packed_bytes(&self) -> usize {
        self.packed_bytes
    }
}
