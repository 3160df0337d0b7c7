//! A whole frame on the CUDA backend, its kernels emulated on the processor (or on the GPU that `ULTRAMOTION_GPU` names): what
//! the CPU backend finds, it finds.

#![allow(clippy::unwrap_used, unsafe_code)]

mod small;

use std::path::{Path, PathBuf};

use small::{HEIGHT, WIDTH, grey, on_gpu, options, picture, pipeline, pipeline_on};
use ultramotion_engine::testing::{device_for_tests, emulated_for_tests};
use ultramotion_engine::{Device, Precision};
use ultramotion_pipeline::{PipelineError, PipelineOptions};
use ultramotion_types::{FrameError, Residency, ResultPacket};

fn kernels() -> [PathBuf; 2] {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    ["models/src/kernels", "tracking/src/ops/kernels"].map(|folder| crates.join(folder))
}

fn device(precision: Precision) -> Option<Device> {
    device_for_tests(&kernels(), precision)
}

#[test]
fn a_frame_on_a_gpu_is_the_cpus() {
    let Some(device) = device(Precision::F32) else { return };
    let mut gpu = pipeline_on(device, options());
    let mut cpu = pipeline(0, options());
    for id in 0..2 {
        let pixels = picture(id);
        let expected = cpu.process(&grey(id, &pixels)).unwrap();
        let packet = gpu.process(&grey(id, &pixels)).unwrap();
        assert_resident(packet);
        assert_same(packet, expected);
    }
}

#[test]
fn a_frame_in_f16_stays_on_the_gpu_and_finite() {
    let Some(device) = device(Precision::F16) else { return };
    let mut gpu = pipeline_on(device, options());
    let packet = gpu.process(&grey(0, &picture(0))).unwrap();
    assert_resident(packet);
    assert_eq!(packet.modes.precision, "f16");
    assert!(!packet.objects.is_empty());
}

#[test]
fn a_frame_that_is_on_the_gpu_is_taken_from_there() {
    let Some(device) = emulated_for_tests(&kernels(), Precision::F32, 1) else { return };
    let pixels = picture(0);
    let frame = grey(0, &pixels);
    let mut fed_by_host = pipeline_on(device.clone(), options());
    let expected = fed_by_host.process(&frame).unwrap();
    assert_eq!((expected.transfers.d2d, expected.transfers.d2d_bytes), (0, 0));
    let mut fed_on_gpu = pipeline_on(device, options());
    for wrong in [on_gpu(1, &pixels), on_gpu(0, &pixels[1..])] {
        let error = fed_on_gpu.process(&frame.with_pixels(wrong)).unwrap_err();
        assert!(matches!(error, PipelineError::Frame(_)), "{error}");
    }
    let packet = fed_on_gpu.process(&frame.with_pixels(on_gpu(0, &pixels))).unwrap();
    assert_resident(packet);
    assert_eq!((&packet.objects, packet.mask_bits()), (&expected.objects, expected.mask_bits()));
    assert!(!packet.objects.is_empty());
    let t = packet.transfers;
    assert_eq!((t.d2d, t.d2d_bytes), (1, (WIDTH * HEIGHT) as u64));
    assert!(t.h2d_bytes < 200, "{t:?}: time and motion, not the frame");
}

#[test]
fn a_frame_on_a_gpu_that_is_not_computed_on_is_an_error_of_that_frame() {
    let pixels = picture(0);
    let frame = grey(0, &pixels).with_pixels(on_gpu(1, &pixels));
    let mut cpu = pipeline(0, options());
    let says = |error: PipelineError| {
        assert!(matches!(error, PipelineError::Frame(_)), "{error}");
        error.to_string()
    };
    let error = says(cpu.process(&frame).unwrap_err());
    assert!(error.contains("on GPU 1, but the pipeline computes on the CPU"), "{error}");
    assert!(cpu.process(&grey(0, &pixels)).is_ok(), "the next frame may be processed");
    let Some(device) = emulated_for_tests(&kernels(), Precision::F32, 1) else { return };
    let mut gpu = pipeline_on(device, PipelineOptions { residency: Residency::Host, ..options() });
    let error = says(gpu.process(&frame).unwrap_err());
    assert!(error.contains("computes on GPU 0"), "{error}");
    let error = gpu.process(&frame.with_pixels(on_gpu(0, &pixels))).unwrap_err();
    assert_eq!(error, PipelineError::Frame(FrameError::NotOnHost));
}

fn assert_resident(packet: &ResultPacket) {
    assert!(packet.device.starts_with("cuda"), "{}", packet.device);
    assert_eq!((&packet.fallback, packet.fault), (&None, None));
    let t = packet.transfers;
    assert_eq!([t.h2d, t.d2h, t.host_syncs, t.allocations], [1, 1, 1, 0]);
}

fn assert_same(packet: &ResultPacket, expected: &ResultPacket) {
    assert!(!expected.objects.is_empty());
    assert_eq!(packet.objects.len(), expected.objects.len());
    for (i, (object, expected_object)) in packet.objects.iter().zip(&expected.objects).enumerate() {
        assert_eq!((object.track_id, object.class), (expected_object.track_id, expected_object.class));
        assert!((object.score - expected_object.score).abs() < 1e-4);
        for (a, b) in object.box_xyxy.iter().zip(&expected_object.box_xyxy) {
            assert!((a - b).abs() < 1e-2, "{a} and {b} pixels");
        }
        let (mask, expected_mask) = (packet.mask(i).unwrap(), expected.mask(i).unwrap());
        let different: u32 =
            mask.bits().iter().zip(expected_mask.bits()).map(|(a, b)| (a ^ b).count_ones()).sum();
        let pixels = (mask.width() * mask.height()) as u32;
        assert!(different * 200 <= pixels, "{different} of {pixels} pixels differ");
    }
}
