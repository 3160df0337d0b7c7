//! The interpreter behind the interface of a compiled program.

use std::time::Duration;

use super::{Interpreter, Values};
use crate::compile::Plan;
use crate::device::DeviceError;
use crate::program::{Executable, KernelTime, StageTime};
use crate::state_store::StateStore;
use crate::tensor::HostTensor;

/// A plan's graph, interpreted in float64 at every launch.
pub(crate) struct InterpretedProgram {
    plan: Plan,
    states: StateStore,
    positions: Vec<usize>,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl InterpretedProgram {
    pub(crate) fn new(plan: Plan, states: StateStore, positions: Vec<usize>) -> Self {
        let (input, output) = (vec![0; plan.input_bytes], vec![0; plan.output_bytes]);
        InterpretedProgram { plan, states, positions, input, output }
    }
}

impl Executable for InterpretedProgram {
    fn upload(&mut self, offset: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        self.input[offset..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn launch(&mut self) -> Result<(), DeviceError> {
        let inputs: Vec<Values> =
            self.plan.inputs.iter().map(|e| Values::from(&e.read(&self.input))).collect();
        let mut interpreter = Interpreter::new(&self.plan.graph);
        let mut store = self.states.lock();
        for (index, &position) in self.positions.iter().enumerate() {
            let initial = &self.plan.graph.states()[index].initial;
            let bytes: &[u8] = bytemuck::cast_slice(store.memory(position));
            let bytes = &bytes[..initial.bytes().len()];
            let value = HostTensor::from_bytes(initial.dtype(), initial.shape().clone(), bytes);
            interpreter.states[index] = Values::from(&value);
        }
        let outputs = interpreter.run(&inputs);
        for (state, &position) in interpreter.states().iter().zip(&self.positions) {
            let value = state.to_host();
            let memory: &mut [u8] = bytemuck::cast_slice_mut(store.memory(position));
            memory[..value.bytes().len()].copy_from_slice(value.bytes());
        }
        for (entry, value) in self.plan.outputs.iter().zip(outputs) {
            self.output[entry.offset..][..entry.bytes()].copy_from_slice(value.to_host().bytes());
        }
        Ok(())
    }

    fn wait(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn download(&mut self, offset: usize, bytes: &mut [u8]) -> Result<(), DeviceError> {
        bytes.copy_from_slice(&self.output[offset..][..bytes.len()]);
        Ok(())
    }

    fn stage_times(&self) -> &[StageTime] {
        &[]
    }

    fn kernel_times(&self) -> Vec<KernelTime> {
        let graph = &self.plan.graph;
        graph
            .nodes()
            .iter()
            .map(|node| KernelTime {
                op: node.op.name().to_owned(),
                scope: node.scope.clone(),
                shape: graph.shape(node.outputs[0]).to_string(),
                stage: node.stage,
                branch: 0,
                waits: Vec::new(),
                flops: 0,
                bytes: 0,
                kernels: Vec::new(),
                tile: String::new(),
                time: Duration::ZERO,
            })
            .collect()
    }

    fn memory_bytes(&self) -> usize {
        self.input.len() + self.output.len()
    }
}
