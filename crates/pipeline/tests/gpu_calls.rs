//! What a CUDA driver is asked for, counted by a driver: nothing of this program has a say in it. The driver runs no kernels, so
//! these tests are about calls, not results; `emulated_gpu` is about results.

#![cfg(all(target_os = "linux", feature = "cuda"))]
#![allow(clippy::unwrap_used)]

mod driver;
mod small;

use std::io::Write;
use std::path::Path;

use driver::{calls_of, log};
use small::{grey, on_gpu, options, picture, pipeline_in, pipeline_on};
use ultramotion_engine::cuda::{ActivityError, Recording};
use ultramotion_engine::{Device, Precision};
use ultramotion_pipeline::{DeviceChoice, MAX_OBJECTS, PipelineOptions, RequestedDevice, Run};
use ultramotion_types::{MatcherMode, Residency, ResultPacket, Transfers};

const MARK: &str = "---";
/// For `DRIVER_ANSWER`: as many objects as there may be, with a box, a score and an identity of this number, which as a float
/// is one half.
const HALF: i32 = 0x3F00_0000;

fn mark() {
    let mut file = std::fs::OpenOptions::new().append(true).open(log().unwrap()).unwrap();
    writeln!(file, "{MARK}").unwrap();
}

#[test]
fn a_frame_is_one_copy_in_one_graph_one_copy_out_and_one_wait() {
    const FRAMES: usize = 5;
    if log().is_some() {
        let mut pipeline = pipeline_on(Device::cuda(0, Precision::F16).unwrap(), options());
        for id in 0..1 + FRAMES as u64 {
            if id == 1 {
                mark();
            }
            let packet = pipeline.process(&grey(id, &picture(id))).unwrap();
            assert_eq!((packet.device, &packet.fallback), ("cuda", &None));
        }
        mark();
        return;
    }
    let name = "a_frame_is_one_copy_in_one_graph_one_copy_out_and_one_wait";
    let Some(calls) = calls_of(name, &[]) else { return };
    let parts: Vec<&[String]> = calls.split(|call| call == MARK).collect();
    let frames: Vec<&str> =
        parts[1].iter().map(String::as_str).filter(|&call| call != "cuCtxSetCurrent").collect();
    let frame = [
        "cuMemcpyHtoDAsync_v2",
        "cuEventRecord",
        "cuGraphLaunch",
        "cuMemcpyDtoHAsync_v2",
        "cuEventRecord",
        "cuEventSynchronize",
    ];
    assert_eq!(frames, frame.repeat(FRAMES));

    let count = |name: &str| calls.iter().filter(|call| *call == name).count();
    for (made, gone) in [
        ("cuMemAlloc_v2", "cuMemFree_v2"),
        ("cuMemHostAlloc", "cuMemFreeHost"),
        ("cuStreamCreate", "cuStreamDestroy_v2"),
        ("cuEventCreate", "cuEventDestroy_v2"),
        ("cuModuleLoadDataEx", "cuModuleUnload"),
        ("cuStreamBeginCapture_v2", "cuGraphDestroy"),
        ("cuGraphInstantiateWithFlags", "cuGraphExecDestroy"),
        ("cuDevicePrimaryCtxRetain", "cuDevicePrimaryCtxRelease_v2"),
    ] {
        assert!(
            count(made) > 0 && count(made) == count(gone),
            "{made} {} {gone} {}",
            count(made),
            count(gone)
        );
    }
}

#[test]
fn a_frame_on_the_gpu_is_copied_there_after_what_makes_it() {
    if log().is_some() {
        let mut pipeline = pipeline_on(Device::cuda(0, Precision::F16).unwrap(), options());
        pipeline.prepare(&grey(0, &picture(0))).unwrap();
        for id in 0..2 {
            mark();
            let pixels = picture(id);
            let packet = pipeline.process(&grey(id, &[]).with_pixels(on_gpu(0, &pixels))).unwrap();
            let t = packet.transfers;
            assert_eq!([t.h2d, t.d2h, t.host_syncs, t.allocations], [1, 1, 1, 0]);
            assert_eq!([t.d2d, t.d2d_bytes], [1, pixels.len() as u64]);
            assert!(t.h2d_bytes < 200, "{t:?}: time and motion, not the frame");
        }
        mark();
        return;
    }
    let name = "a_frame_on_the_gpu_is_copied_there_after_what_makes_it";
    let Some(calls) = calls_of(name, &[]) else { return };
    let frames: Vec<&str> = calls
        .split(|call| call == MARK)
        .nth(2)
        .unwrap()
        .iter()
        .map(String::as_str)
        .filter(|&call| call != "cuCtxSetCurrent")
        .collect();
    let expected = [
        "cuMemcpyHtoDAsync_v2",
        "cuEventRecord",
        "cuEventRecord",
        "legacy",
        "cuStreamWaitEvent",
        "cuMemcpyDtoDAsync_v2",
        "cuEventRecord",
        "cuGraphLaunch",
        "cuMemcpyDtoHAsync_v2",
        "cuEventRecord",
        "cuEventSynchronize",
    ];
    assert_eq!(frames, expected);
}

#[test]
fn kernels_overlap_from_hopper_on() {
    if log().is_some() {
        let mut pipeline = pipeline_on(Device::cuda(0, Precision::F16).unwrap(), options());
        let packet = pipeline.process(&grey(0, &picture(0))).unwrap();
        assert_eq!((packet.device, &packet.fallback), ("cuda", &None));
        return;
    }
    let hopper = [("DRIVER_CAPABILITY", "90"), ("DRIVER_VERSION", "12030")];
    // Kernels of the last capture, and how many of them may begin before the one before is done.
    let captured = |settings: &[(&str, &str)]| {
        let calls = calls_of("kernels_overlap_from_hopper_on", settings)?;
        let begin = calls.iter().rposition(|call| call == "cuStreamBeginCapture_v2").unwrap();
        let count = |name: &str| calls[begin..].iter().filter(|call| *call == name).count();
        Some((count("cuLaunchKernelEx"), count("early")))
    };
    let Some((kernels, early)) = captured(&hopper) else { return };
    // All but the first of each branch, and those that wait for another branch.
    assert!(early < kernels && early * 10 > kernels * 9, "{early} of {kernels}");
    for setting in [("DRIVER_CAPTURES_EARLY", "0"), ("DRIVER_CAPABILITY", "89"), ("DRIVER_VERSION", "12020")]
    {
        assert_eq!(captured(&[&hopper[..], &[setting]].concat()), Some((kernels, 0)), "{setting:?}");
    }
    let off = [&hopper[..], &[("ULTRAMOTION_OVERLAP", "0"), ("DRIVER_OVERLAP", "0")]].concat();
    assert_eq!(captured(&off), Some((kernels, 0)));
}

#[test]
fn every_number_of_objects_fits_into_shared_memory() {
    if log().is_some() {
        for max_objects in [1, 16, 32, MAX_OBJECTS] {
            let options = PipelineOptions { max_objects, ..options() };
            let mut pipeline = pipeline_on(Device::cuda(0, Precision::F16).unwrap(), options);
            assert_eq!(
                pipeline.process(&grey(0, &picture(0))).unwrap().fallback,
                None,
                "{max_objects} objects"
            );
        }
        return;
    }
    calls_of("every_number_of_objects_fits_into_shared_memory", &[]);
}

#[test]
fn cupti_counts_what_the_ledger_counts() {
    const FRAMES: u64 = 3;
    if let Some(log) = log() {
        let mut pipeline = pipeline_on(Device::cuda(0, Precision::F16).unwrap(), options());
        let nowhere = Recording::start(Some(Path::new("/nowhere/libcupti.so"))).unwrap_err().to_string();
        assert!(nowhere.contains("/nowhere/libcupti.so"), "{nowhere}");
        let cupti = log.with_file_name("libcuda.so");
        let recording = Recording::start(Some(&cupti)).unwrap();
        assert!(matches!(Recording::start(Some(&cupti)), Err(ActivityError::Busy)));
        // The first frame builds the program.
        pipeline.process(&grey(0, &picture(0))).unwrap();
        assert!(recording.take().unwrap().counts.allocations > 0);
        let pixels = picture(1);
        let packet = pipeline.process(&grey(1, &[]).with_pixels(on_gpu(0, &pixels))).unwrap();
        let (said, seen) = (packet.transfers, recording.take().unwrap().counts);
        assert_eq!([seen.d2d, seen.d2d_bytes, seen.h2d], [1, said.d2d_bytes, 1]);
        assert_eq!((seen.h2d_bytes, seen.host_syncs), (said.h2d_bytes, 1));
        let mut said = Transfers::default();
        for id in 1..=FRAMES {
            said = pipeline.process(&grey(id, &picture(id))).unwrap().transfers;
        }
        let seen = recording.take().unwrap();
        let each = seen.counts;
        assert_eq!([each.h2d, each.d2h, each.host_syncs, each.allocations], [FRAMES, FRAMES, FRAMES, 0]);
        assert_eq!([each.h2d_bytes, each.d2h_bytes], [said.h2d_bytes * FRAMES, said.d2h_bytes * FRAMES]);
        let kernels: usize = pipeline.kernel_times().iter().map(|k| k.kernels.len()).sum();
        assert_eq!(seen.kernels, kernels as u64 * FRAMES);
        return;
    }
    calls_of("cupti_counts_what_the_ledger_counts", &[]);
}

#[test]
fn a_gpu_that_fails_on_the_way_gives_way_to_the_cpu_on_the_same_frame() {
    if log().is_some() {
        let mut pipeline = pipeline_on(Device::cuda(0, Precision::F16).unwrap(), options());
        for id in 0..4 {
            let packet = pipeline.process(&grey(id, &picture(id))).unwrap();
            if id < 2 {
                assert_eq!((packet.device, &packet.fallback), ("cuda", &None));
            } else {
                assert_eq!(packet.device, "cpu");
                let reason = packet.fallback.as_deref().unwrap();
                assert!(reason.contains("CUDA_ERROR_ILLEGAL_ADDRESS"), "{reason}");
                assert!(!packet.objects.is_empty(), "the CPU finds what the driver's empty packets lack");
            }
        }
        return;
    }
    let name = "a_gpu_that_fails_on_the_way_gives_way_to_the_cpu_on_the_same_frame";
    let Some(calls) = calls_of(name, &[("DRIVER_LAUNCHES", "2")]) else { return };
    assert_eq!(calls.iter().filter(|call| *call == "cuGraphLaunch").count(), 3, "it is not tried again");
}

/// A GPU that fails after two frames, on each of which `launches` programs run. Identities of before, of the CPU after it, and
/// of a pipeline after that one has died, never meet; each packet says why; the CPU has the threads that were requested.
fn fails_on_the_way(name: &str, launches: u64, options: PipelineOptions) {
    const FRAMES: u64 = 2;
    if log().is_none() {
        let settings =
            [("DRIVER_LAUNCHES", (FRAMES * launches).to_string()), ("DRIVER_ANSWER", HALF.to_string())];
        calls_of(name, &settings.each_ref().map(|(key, value)| (*key, value.as_str())));
        return;
    }
    let ids = |packet: &ResultPacket| packet.objects.iter().map(|o| o.track_id).collect::<Vec<_>>();
    let run = Run::new(DeviceChoice::new(RequestedDevice::Auto, 3, None).unwrap());
    let mut pipeline = pipeline_in(&run, run.open().unwrap(), options);
    let mut highest = 0;
    for id in 0..FRAMES {
        let packet = pipeline.process(&grey(id, &picture(id))).unwrap();
        assert_eq!((packet.device, &packet.fallback), ("cuda", &None));
        highest = highest.max(*ids(packet).iter().max().unwrap());
        assert_eq!(pipeline.epoch(), 0);
    }
    assert_eq!(run.last_id(), highest);
    let mut seen = Vec::new();
    for id in FRAMES..FRAMES + 3 {
        let packet = pipeline.process(&grey(id, &picture(id))).unwrap();
        assert_eq!(packet.device, "cpu");
        let reason = packet.fallback.as_deref().unwrap();
        assert!(reason.contains("CUDA_ERROR_ILLEGAL_ADDRESS"), "{reason}");
        seen.push(ids(packet));
        assert_eq!((pipeline.epoch(), pipeline.device().threads()), (1, 3));
    }
    let begun = seen.iter().flatten().copied().min().unwrap();
    assert_eq!(begun, highest + 1, "the table of tracks begins empty, where identities ended");
    let (first, last) = (&seen[0], &seen[2]);
    assert!(first.iter().any(|id| last.contains(id)), "tracks go on after it: {seen:?}");

    let highest = run.last_id();
    drop(pipeline);
    let mut pipeline = pipeline_in(&run, run.open_again().unwrap(), options);
    let packet = pipeline.process(&grey(9, &picture(9))).unwrap();
    assert_eq!(packet.device, "cpu");
    assert!(packet.fallback.as_deref().unwrap().contains("CUDA_ERROR_ILLEGAL_ADDRESS"));
    assert_eq!(ids(packet).into_iter().min(), Some(highest + 1));
    assert_eq!(pipeline.device().threads(), 3);
}

#[test]
fn identities_go_on_where_those_of_a_failing_gpu_end() {
    fails_on_the_way("identities_go_on_where_those_of_a_failing_gpu_end", 1, options());
}

#[test]
fn identities_of_the_hosts_matcher_go_on_where_a_gpu_fails() {
    let options = PipelineOptions { matcher: MatcherMode::Host, ..options() };
    fails_on_the_way("identities_of_the_hosts_matcher_go_on_where_a_gpu_fails", 1, options);
}

#[test]
fn identities_go_on_where_a_gpu_fails_in_host_mode() {
    let options = PipelineOptions { residency: Residency::Host, ..options() };
    fails_on_the_way("identities_go_on_where_a_gpu_fails_in_host_mode", 4, options);
}

/// What opening the GPU, or building a program on it, says.
fn refusal(name: &str, settings: &[(&str, &str)], expected: &[&str]) {
    if log().is_some() {
        let error = match Device::cuda(0, Precision::F16) {
            Err(error) => error.to_string(),
            Ok(device) => {
                let mut pipeline = pipeline_on(device, options());
                pipeline.prepare(&grey(0, &picture(0))).unwrap();
                let packet = pipeline.process(&grey(0, &picture(0))).cloned();
                packet.map(|p| p.fallback.unwrap().to_string()).unwrap_or_else(|error| format!("{error:#}"))
            }
        };
        for part in expected {
            assert!(error.contains(part), "{error}");
        }
        return;
    }
    calls_of(name, settings);
}

#[test]
fn a_driver_that_is_too_old_is_named() {
    let expected = ["supports CUDA 11.2", "needs 11.8", "driver 520", "--device cpu"];
    refusal("a_driver_that_is_too_old_is_named", &[("DRIVER_VERSION", "11020")], &expected);
}

#[test]
fn a_gpu_that_is_too_old_is_named() {
    let expected = ["GPU 0 of a test", "7.5", "8.0 or later"];
    refusal("a_gpu_that_is_too_old_is_named", &[("DRIVER_CAPABILITY", "75")], &expected);
}

#[test]
fn a_machine_without_a_gpu_is_told() {
    refusal("a_machine_without_a_gpu_is_told", &[("DRIVER_GPUS", "0")], &["the driver sees 0"]);
}

#[test]
fn memory_that_does_not_suffice_is_counted() {
    let expected = ["65536 bytes free", "more are needed", "--max-objects"];
    refusal(
        "memory_that_does_not_suffice_is_counted",
        &[("DRIVER_MEMORY", "65536")],
        &["of 65536 bytes free", expected[1], expected[2]],
    );
}
