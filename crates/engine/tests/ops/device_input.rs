//! Inputs that are on the GPU already.
#![allow(unsafe_code)]

use ultramotion_engine::graph::{Graph, InputPort, OutputPort};
use ultramotion_engine::{CompileOptions, Device, DeviceError, DeviceSlice, InputBytes, Precision, Program};

const BYTES: [u8; 5] = [3, 1, 4, 1, 5];

/// Bytes as the emulated GPU with this number has them: in the process's own memory.
fn on_gpu(gpu: usize, bytes: &[u8]) -> InputBytes<'_> {
    // SAFETY: a slice that is borrowed for as long, on the emulated GPU or refused.
    InputBytes::Device(unsafe { DeviceSlice::from_raw_parts(gpu, bytes.as_ptr() as u64, bytes.len()) })
}

struct Ports {
    before: InputPort<f32>,
    bytes: InputPort<u8>,
    after: InputPort<f32>,
    sum: OutputPort<f32>,
    same: OutputPort<u8>,
}

/// `before + after`, and the bytes.
fn program(device: &Device) -> (Program, Ports) {
    let mut g = Graph::new("sum");
    let (before, before_port) = g.input_port("before", [5]).expect("named once");
    let (bytes, bytes_port) = g.input_port("bytes", [5]).expect("named once");
    let (after, after_port) = g.input_port("after", [5]).expect("named once");
    let sum = g.add(before, after).expect("of one shape");
    let (sum, same) = (g.output_port("sum", sum).expect("f32"), g.output_port("same", bytes).expect("u8"));
    let program = Program::compile(g, device, &CompileOptions::default()).expect("a small program");
    (program, Ports { before: before_port, bytes: bytes_port, after: after_port, sum, same })
}

#[test]
fn bytes_on_the_gpu_are_copied_within_it() {
    let Some(device) = crate::cuda::emulated(Precision::F32, 1) else { return };
    let (mut program, ports) = program(&device);
    let (mut input, mut output) =
        (program.input_block().expect("small"), program.output_block().expect("small"));
    ports.before.write(&mut input, &[10.0; 5]);
    ports.after.write(&mut input, &[100.0; 5]);
    ports.bytes.write(&mut input, &[77; 5]);
    let before = device.ledger().counts();
    program.upload_with(&mut input, ports.bytes, on_gpu(0, &BYTES)).expect("of its size, on its GPU");
    let spent = device.ledger().counts() - before;
    assert_eq!((spent.d2d, spent.d2d_bytes), (1, 5));
    assert_eq!(
        (spent.h2d, spent.h2d_bytes),
        (2, 128),
        "the values before and after, not the bytes' own line"
    );
    let event = program.launch().expect("it runs");
    program.wait(event).expect("it ran");
    program.download(&mut output).expect("of its size");
    assert_eq!((ports.sum.read(&output), ports.same.read(&output)), (&[110.0; 5][..], &BYTES[..]));
}

#[test]
fn bytes_elsewhere_or_of_another_size_are_refused() {
    let refused = |device: &Device, bytes| {
        let (mut program, ports) = program(device);
        let mut input = program.input_block().expect("small");
        let before = device.ledger().counts();
        let error = program.upload_with(&mut input, ports.bytes, bytes).expect_err("it cannot be used");
        assert_eq!(device.ledger().counts(), before, "nothing was copied");
        error
    };
    let elsewhere = |gpu| DeviceError::InputElsewhere { program: "sum".into(), gpu };
    assert_eq!(refused(&Device::cpu(1), on_gpu(0, &BYTES)), elsewhere(0));
    assert_eq!(refused(&Device::reference(), on_gpu(0, &BYTES)), elsewhere(0));
    let Some(device) = crate::cuda::emulated(Precision::F32, 1) else { return };
    assert_eq!(refused(&device, on_gpu(1, &BYTES)), elsewhere(1));
    let size = refused(&device, on_gpu(0, &BYTES[1..])).to_string();
    assert_eq!(size, "input 'bytes' of program 'sum' is 5 bytes, the transfer has 4");
}
