//! A compiled graph, ready to run again and again.

use crate::backend::{Executable, KernelTime, StageTime};
use crate::block::{Block, InputBlock, OutputBlock};
use crate::compile::{ALIGNMENT, BlockEntry, block};
use crate::device::Device;
use crate::device_slice::InputBytes;
use crate::error::DeviceError;
use crate::graph::{Graph, InputPort};
use crate::ledger::{self, Budget, Counts, Ledger};
use crate::state_store::StateStore;
use crate::tensor::HostTensor;

/// Choices made when a program is compiled.
#[derive(Clone, Default)]
pub struct CompileOptions {
    /// States shared with other programs; a store of its own when `None`.
    pub states: Option<StateStore>,
    /// Time every kernel ([`Program::kernel_times`]); costs a little in every run.
    pub profile: bool,
}

/// Marks a launch; [`Program::wait`] returns when it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event(u64);

/// A graph compiled for a device.
pub struct Program {
    name: String,
    executable: Box<dyn Executable>,
    inputs: Vec<BlockEntry>,
    outputs: Vec<BlockEntry>,
    input_bytes: usize,
    output_bytes: usize,
    states: StateStore,
    /// Whose memory the input block is in.
    gpu: Option<usize>,
    ledger: Ledger,
    launches: u64,
}

impl Program {
    /// Optimises the graph, plans its memory, packs its weights. Everything a run needs is allocated here.
    pub fn compile(graph: Graph, device: &Device, options: &CompileOptions) -> Result<Program, DeviceError> {
        let name = graph.name().to_owned();
        let states = options.states.clone().unwrap_or_default();
        let ledger = device.ledger().clone();
        let (inputs, input_bytes) = block(&graph, graph.inputs());
        let (outputs, output_bytes) = block(&graph, graph.outputs());
        let positions = states.attach(&name, graph.states(), device.backend.as_ref(), &ledger)?;
        let executable = device.backend.compile(graph, states.clone(), positions, options.profile)?;
        let bytes = executable.memory_bytes() + executable.packed_bytes();
        ledger.record(ledger::Event::Allocation, bytes, "compile");
        Ok(Program {
            name,
            executable,
            inputs,
            outputs,
            input_bytes,
            output_bytes,
            states,
            gpu: device.gpu(),
            ledger,
            launches: 0,
        })
    }

    /// Name of the graph.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Counter of the device that this program runs on.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }
    /// Counts with a device from here on, what its compilation did included: after it was compiled for
    /// [`Device::counting_aside`].
    pub fn count_with(&mut self, device: &Device) {
        device.ledger().take_in(&self.ledger);
        self.ledger = device.ledger().clone();
    }
    /// Values in the input block.
    pub fn inputs(&self) -> &[BlockEntry] {
        &self.inputs
    }
    /// Values in the output block.
    pub fn outputs(&self) -> &[BlockEntry] {
        &self.outputs
    }
    /// Size of the input block.
    pub fn input_bytes(&self) -> usize {
        self.input_bytes
    }
    /// Size of the output block.
    pub fn output_bytes(&self) -> usize {
        self.output_bytes
    }
    /// Host memory for all inputs, which [`InputPort`](crate::graph::InputPort)s write and [`Program::upload`] takes.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    pub fn input_block(&self) -> Result<InputBlock, DeviceError> {
        Ok(Block::new(&self.inputs, self.input_bytes)?)
    }
    /// Host memory for all outputs, which [`Program::download`] fills and [`OutputPort`](crate::graph::OutputPort)s read.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`].
    pub fn output_block(&self) -> Result<OutputBlock, DeviceError> {
        Ok(Block::new(&self.outputs, self.output_bytes)?)
    }
    /// States of this program.
    pub fn states(&self) -> &StateStore {
        &self.states
    }
    /// Time by stage in the last run.
    pub fn stage_times(&self) -> &[StageTime] {
        self.executable.stage_times()
    }
    /// The kernels in execution order.
    pub fn kernel_times(&self) -> Vec<KernelTime> {
        self.executable.kernel_times()
    }
    /// Memory that the program holds on the device by itself; [`Device::shared_bytes`] is what all of them hold.
    pub fn memory_bytes(&self) -> usize {
        self.executable.memory_bytes()
    }

    /// One host-to-device copy of the whole input block (see [`Program::inputs`] for its layout).
    pub fn upload(&mut self, block: &[u8]) -> Result<(), DeviceError> {
        self.check_size("the input block", self.input_bytes, block.len())?;
        self.ledger.record(ledger::Event::HostToDevice, block.len(), "upload");
        self.executable.upload(0, block)
    }

    /// As [`Program::upload`], with the bytes of one value from wherever they are. Bytes on the program's own GPU go from there
    /// into the input by one device-to-device copy, and only the rest of the block comes from the host: by one copy, if the value
    /// is the first or the last of the block.
    ///
    /// # Panics
    /// As [`InputPort::write`](crate::graph::Port::write) for bytes on the host.
    pub fn upload_with(
        &mut self,
        block: &mut InputBlock,
        port: InputPort<u8>,
        bytes: InputBytes<'_>,
    ) -> Result<(), DeviceError> {
        let from = match bytes {
            InputBytes::Host(bytes) => {
                port.write(block, bytes);
                return self.upload(block);
            }
            InputBytes::Device(from) => from,
        };
        self.check_size("the input block", self.input_bytes, block.len())?;
        let entry = &self.inputs[port.index];
        let (start, end) = (entry.offset, entry.offset + entry.bytes());
        if end - start != from.bytes() {
            return self.check_size(&format!("input '{}'", entry.name), end - start, from.bytes());
        }
        if self.gpu != Some(from.gpu()) {
            return Err(DeviceError::InputElsewhere { program: self.name.clone(), gpu: from.gpu() });
        }
        // First, since an upload waits for the copies before it. What lies between the value's end and the next one's start is
        // padding.
        for rest in [0..start, end.next_multiple_of(ALIGNMENT)..block.len()] {
            if !rest.is_empty() {
                self.ledger.record(ledger::Event::HostToDevice, rest.len(), "upload");
                self.executable.upload(rest.start, &block[rest])?;
            }
        }
        self.ledger.record(ledger::Event::DeviceToDevice, from.bytes(), "input");
        self.executable.copy_in(start, from)
    }

    /// Starts a run.
    pub fn launch(&mut self) -> Result<Event, DeviceError> {
        self.executable.launch()?;
        self.launches += 1;
        Ok(Event(self.launches))
    }

    /// Returns when the run that `event` marks is done.
    pub fn wait(&mut self, event: Event) -> Result<(), DeviceError> {
        self.ledger.record(ledger::Event::HostSync, 0, "wait");
        debug_assert!(event.0 <= self.launches, "an event of another program");
        self.executable.wait()
    }

    /// One device-to-host copy of the whole output block.
    pub fn download(&mut self, block: &mut [u8]) -> Result<(), DeviceError> {
        self.check_size("the output block", self.output_bytes, block.len())?;
        self.ledger.record(ledger::Event::DeviceToHost, block.len(), "download");
        self.executable.download(0, block)
    }

    /// One frame: upload, launch, download, wait, and an error if that took more than `budget`.
    pub fn run_frame(&mut self, input: &[u8], output: &mut [u8], budget: Budget) -> Result<(), DeviceError> {
        let before = self.ledger.counts();
        self.upload(input)?;
        self.finish_frame(before, output, budget)
    }

    /// As [`Program::run_frame`], with the bytes of one input as [`Program::upload_with`] takes them.
    pub fn run_frame_with(
        &mut self,
        input: &mut InputBlock,
        (port, bytes): (InputPort<u8>, InputBytes<'_>),
        output: &mut [u8],
        budget: Budget,
    ) -> Result<(), DeviceError> {
        let before = self.ledger.counts();
        self.upload_with(input, port, bytes)?;
        self.finish_frame(before, output, budget)
    }

    fn finish_frame(&mut self, before: Counts, output: &mut [u8], budget: Budget) -> Result<(), DeviceError> {
        let event = self.launch()?;
        self.wait(event)?;
        self.download(output)?;
        Ok(budget.check(self.ledger.counts() - before)?)
    }

    /// One run with host tensors in the order of [`Program::inputs`]; outputs in the order of [`Program::outputs`].
    /// Convenient rather than fast: it allocates.
    pub fn run(&mut self, inputs: &[&HostTensor]) -> Result<Vec<HostTensor>, DeviceError> {
        if inputs.len() != self.inputs.len() {
            let what = format!("{} inputs; it has {}", inputs.len(), self.inputs.len());
            return Err(DeviceError::NoSuchPort { program: self.name.clone(), what });
        }
        let mut block = self.input_block()?;
        for (entry, value) in self.inputs.iter().zip(inputs) {
            if entry.dtype != value.dtype() || entry.shape != *value.shape() {
                let what = format!(
                    "input '{}' of {} {}; it is {} {}",
                    entry.name,
                    value.dtype(),
                    value.shape(),
                    entry.dtype,
                    entry.shape
                );
                return Err(DeviceError::NoSuchPort { program: self.name.clone(), what });
            }
            block[entry.offset..][..entry.bytes()].copy_from_slice(value.bytes());
        }
        self.upload(&block)?;
        let event = self.launch()?;
        self.wait(event)?;
        let mut block = self.output_block()?;
        self.download(&mut block)?;
        Ok(self.outputs.iter().map(|entry| entry.read(&block)).collect())
    }

    fn check_size(&self, what: &str, expected: usize, actual: usize) -> Result<(), DeviceError> {
        if expected == actual {
            return Ok(());
        }
        Err(DeviceError::Size { program: self.name.clone(), what: what.into(), expected, actual })
    }
}
