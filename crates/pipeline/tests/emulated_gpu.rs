//! A whole frame on the CUDA backend, its kernels emulated on the processor (or on the GPU that `ULTRAMOTION_GPU` names): what
//! the CPU backend finds, it finds.

#![allow(clippy::unwrap_used)]

mod small;

use std::path::Path;

use small::{grey, options, picture, pipeline, pipeline_on};
use ultramotion_engine::testing::device_for_tests;
use ultramotion_engine::{Device, Precision};
use ultramotion_types::ResultPacket;

fn device(precision: Precision) -> Option<Device> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let more = ["models/src/kernels", "tracking/src/ops/kernels"].map(|folder| crates.join(folder));
    device_for_tests(&more, precision)
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
