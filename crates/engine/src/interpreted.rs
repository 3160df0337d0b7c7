//! The reference as a backend: a program is its graph as the model wrote it, interpreted in float64 at every launch, so
//! that it judges the rewrites too.

use std::any::Any;
use std::time::Duration;

use crate::backend::{Backend, DeviceKind, Executable, KernelTime, StageTime};
use crate::compile::{BlockEntry, block};
use crate::error::DeviceError;
use crate::graph::Graph;
use crate::reference::{Interpreter, Values};
use crate::state_store::{StateAllocator, StateMemory, StateStore};
use crate::tensor::HostTensor;

pub(crate) struct ReferenceBackend;

impl StateAllocator for ReferenceBackend {
    fn state(&self, initial: &HostTensor) -> Result<Box<dyn StateMemory>, DeviceError> {
        Ok(Box::new(initial.clone()))
    }
    fn owns(&self, memory: &dyn StateMemory) -> bool {
        (memory as &dyn Any).is::<HostTensor>()
    }
}

impl Backend for ReferenceBackend {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Reference
    }
    fn name(&self) -> &'static str {
        "reference"
    }
    fn description(&self) -> String {
        "the float64 reference".into()
    }
    fn instructions(&self) -> &'static str {
        "float64"
    }
    fn precision(&self) -> &'static str {
        "f64"
    }
    fn compile(
        &self,
        graph: Graph,
        states: StateStore,
        positions: Vec<usize>,
        _profile: bool,
    ) -> Result<Box<dyn Executable>, DeviceError> {
        let (inputs, input_bytes) = block(&graph, graph.inputs());
        let (outputs, output_bytes) = block(&graph, graph.outputs());
        let (input, output) = (vec![0; input_bytes], vec![0; output_bytes]);
        Ok(Box::new(InterpretedProgram { graph, inputs, outputs, states, positions, input, output }))
    }
}

impl StateMemory for HostTensor {
    fn write(&mut self, bytes: &[u8]) -> Result<(), DeviceError> {
        *self = HostTensor::from_bytes(self.dtype(), self.shape().clone(), bytes);
        Ok(())
    }
}

struct InterpretedProgram {
    graph: Graph,
    inputs: Vec<BlockEntry>,
    outputs: Vec<BlockEntry>,
    states: StateStore,
    positions: Vec<usize>,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Executable for InterpretedProgram {
    fn upload(&mut self, offset: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        self.input[offset..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn launch(&mut self) -> Result<(), DeviceError> {
        let inputs: Vec<Values> = self.inputs.iter().map(|e| Values::from(&e.read(&self.input))).collect();
        let mut interpreter = Interpreter::new(&self.graph);
        let mut store = self.states.lock();
        for (state, &position) in interpreter.states_mut().iter_mut().zip(&self.positions) {
            *state = Values::from(&*store.memory::<HostTensor>(position));
        }
        let outputs = interpreter.run(&inputs);
        for (state, &position) in interpreter.states().iter().zip(&self.positions) {
            *store.memory(position) = state.to_host();
        }
        for (entry, value) in self.outputs.iter().zip(outputs) {
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
        let graph = &self.graph;
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
