//! A GPU that fails gives way to the CPU, once, and every packet says so.

#![cfg(feature = "cuda")]

mod small;

use small::{grey, options, picture, pipeline, pipeline_on};
use ultramotion_engine::{Device, Precision};

#[test]
fn a_failing_gpu_gives_way_to_the_cpu_and_packets_say_so() {
    // A device that compiles and then refuses to run is what a GPU with an error that stays is like.
    let mut failing = pipeline_on(Device::cuda_plan_only(Precision::F16), options());
    let mut cpu = pipeline(0, options());
    for id in 0..3 {
        let pixels = picture(id);
        let packet = failing.process(&grey(id, &pixels)).unwrap().clone();
        let expected = cpu.process(&grey(id, &pixels)).unwrap();
        assert_eq!((packet.device, packet.modes.precision), ("cpu", "f32"));
        let reason = packet.fallback.as_deref().unwrap();
        assert!(reason.contains("there is no GPU behind it"), "{reason}");
        assert_eq!(expected.fallback, None);
        assert_eq!(packet.objects, expected.objects, "the frame that failed is not lost");
    }
}
