//! A recorded session, computed again.

use std::path::Path;

use serde_json::Value;
use ultramotion_engine::{Device, Precision};
use ultramotion_gateway::service::{Gateway, GatewayError, Perceive};
use ultramotion_igtlink::{Content, Image, Message, Transform};
use ultramotion_pipeline::Run;
use ultramotion_types::Frame;

use crate::bench::{Scanner, client_of, config, next_of, picture, small, small_pipelines, time_of, wait_for};
use crate::stages::Mortal;

/// What a frame gave, without what the clock and the file's name say.
fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| comparable(serde_json::from_str(line).unwrap())).collect()
}

fn comparable(mut line: Value) -> Value {
    let object = line.as_object_mut().unwrap();
    assert!(object.remove("latency_ms").is_some());
    assert!(object.remove("source").is_some());
    // The first frame of a program pays for more transfers than the later ones.
    assert!(object.remove("transfers").is_some());
    line
}

/// Computes a recording as `ultramotion run` does.
fn again(path: &Path) -> (Vec<Value>, Vec<Frame>) {
    let mut pipeline = small::pipeline(1, small::options());
    let frames: Vec<Frame> =
        ultramotion_media::source::frames(ultramotion_media::source::open(path).unwrap())
            .map(Result::unwrap)
            .collect();
    let results = frames.iter().map(|frame| {
        let line = serde_json::to_string(pipeline.process(&frame.view()).unwrap()).unwrap();
        comparable(serde_json::from_str(&line).unwrap())
    });
    (results.collect(), frames)
}

#[test]
fn a_recording_gives_the_same_results_frame_for_frame() {
    let folder = tempfile::tempdir().unwrap();
    let session = folder.path().join("session");
    let scanner = Scanner::new();
    let mut config = config(scanner.address());
    config.record.folder = session.clone();
    let mut gateway = Gateway::start(config.clone(), small_pipelines()).unwrap();
    let client = client_of(&gateway);
    scanner.wait_for_gateway();
    // Uneven steps in time, since tracking looks at them.
    let numbers = [0, 1, 2, 5, 6, 7, 40, 41, 42, 43];
    for number in numbers {
        let pose = Transform { translation: [number as f32, 1.0, 0.0], ..Transform::IDENTITY };
        let name = "ProbeToTracker".parse().unwrap();
        scanner.send(&Message::new(name, Content::Transform(pose)).at(time_of(number)));
        scanner.send(&picture(number));
        assert_eq!(next_of(&client, "UM_Mask").header().timestamp, time_of(number));
    }
    // Another size begins another file.
    let small_image = Image::grey8(40, 30, vec![90; 1200]);
    let small_image = Message::new("Image_Probe".parse().unwrap(), Content::Image(small_image));
    scanner.send(&small_image.at(time_of(50)));
    wait_for(&mut gateway, "the recording", |r| r.recorded == numbers.len() as u64 + 1);
    let last = gateway.stop();
    assert!(!last.record_failed);

    let live = lines(&session.join("results.jsonl"));
    let (replayed, frames) = again(&session.join("frames.igs.mhd"));
    assert_eq!(live.len(), numbers.len());
    assert!(live.iter().all(|line| !line["objects"].as_array().unwrap().is_empty()));
    // Not `assert_eq`, which would print all masks.
    assert!(live == replayed, "the results differ");
    for (frame, number) in frames.iter().zip(numbers) {
        assert_eq!(frame.timestamp_s, time_of(number).as_secs_f64());
        let names: Vec<&str> = frame.transforms.iter().map(|transform| transform.name.as_str()).collect();
        assert_eq!(names, ["ProbeToTracker", "UltramotionImageToTracker"]);
        assert_eq!((frame.transforms[0].name.as_str(), frame.transforms[0].valid), ("ProbeToTracker", true));
        assert_eq!(frame.transforms[0].matrix[0][3], number as f64);
        assert_eq!(frame.spacing_mm, Some([0.25, 0.5]));
    }
    assert_eq!(lines(&session.join("results-2.jsonl")).len(), 1);
    assert!(session.join("frames-2.igs.mhd").exists());

    // What is there is not overwritten.
    let error = Gateway::start(config, small_pipelines()).err().expect("a recording is there");
    assert!(matches!(error, GatewayError::Record(_)), "{error}");
    assert!(error.to_string().contains("frames.igs.mhd' is there already"), "{error}");
}

/// The lines with other identities.
fn shifted(mut lines: Vec<Value>, by: i64) -> Vec<Value> {
    for object in lines.iter_mut().flat_map(|line| line["objects"].as_array_mut().unwrap()) {
        object["track_id"] = (object["track_id"].as_i64().unwrap() + by).into();
    }
    lines
}

#[test]
fn each_pipelines_part_of_a_recording_gives_the_same_results() {
    let folder = tempfile::tempdir().unwrap();
    let scanner = Scanner::new();
    let mut config = config(scanner.address());
    config.record.folder = folder.path().to_owned();
    let run = Run::default();
    let of_all = run.clone();
    let build = move || {
        let inner = small::pipeline_in(&of_all, Device::cpu(1), small::options());
        Ok(Box::new(Mortal { inner, panics_at: 3, fails_at: u64::MAX }) as Box<dyn Perceive>)
    };
    let mut gateway = Gateway::start(config, Box::new(build)).unwrap();
    let client = client_of(&gateway);
    scanner.wait_for_gateway();
    let mut given_before = 0;
    for number in 0..6 {
        scanner.send(&picture(number));
        if number == 3 {
            wait_for(&mut gateway, "the death", |r| r.account.dropped() == 1);
            given_before = run.last_id();
        } else {
            assert_eq!(next_of(&client, "UM_Mask").header().timestamp, time_of(number));
        }
    }
    wait_for(&mut gateway, "the recording", |r| r.recorded == 5);
    gateway.stop();
    assert!(given_before > 0);
    for (part, frames, given_before) in [("", 3, 0), ("-2", 2, given_before)] {
        let live = lines(&folder.path().join(format!("results{part}.jsonl")));
        let (replayed, _) = again(&folder.path().join(format!("frames{part}.igs.mhd")));
        assert_eq!(live.len(), frames);
        assert!(live == shifted(replayed, given_before.into()), "the results differ in part '{part}'");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_recording_begins_another_part_where_a_gpu_fails() {
    use crate::driver::{calls_of, log};

    /// Every word that the GPU answers: an identity, and as masks nothing beyond a width of 60 pixels.
    const ANSWER: i32 = 0x0F00_0000;
    if log().is_none() {
        let settings = [("DRIVER_LAUNCHES", "2"), ("DRIVER_ANSWER", &ANSWER.to_string())];
        calls_of("recording::a_recording_begins_another_part_where_a_gpu_fails", &settings);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let scanner = Scanner::new();
    let mut config = config(scanner.address());
    config.record.folder = folder.path().to_owned();
    let build = || {
        let gpu = Device::cuda(0, Precision::F16)?;
        Ok(Box::new(small::pipeline_on(gpu, small::options())) as Box<dyn Perceive>)
    };
    let mut gateway = Gateway::start(config, Box::new(build)).unwrap();
    let client = client_of(&gateway);
    scanner.wait_for_gateway();
    for number in 0..5 {
        scanner.send(&picture(number));
        assert_eq!(next_of(&client, "UM_Mask").header().timestamp, time_of(number));
    }
    wait_for(&mut gateway, "the recording", |r| r.recorded == 5);
    let last = gateway.stop();
    assert_eq!(last.restarts, 0, "the pipeline goes on by itself");

    let on_gpu = lines(&folder.path().join("results.jsonl"));
    assert_eq!(on_gpu.len(), 2);
    assert!(on_gpu.iter().all(|line| line["device"] == "cuda" && line.get("fallback").is_none()));
    let mut on_cpu = lines(&folder.path().join("results-2.jsonl"));
    assert_eq!(on_cpu.len(), 3);
    for line in &mut on_cpu {
        let reason = line.as_object_mut().unwrap().remove("fallback").expect("each line says why");
        assert!(reason.as_str().unwrap().contains("CUDA_ERROR_ILLEGAL_ADDRESS"), "{reason}");
    }
    let (replayed, _) = again(&folder.path().join("frames-2.igs.mhd"));
    assert!(on_cpu == shifted(replayed, ANSWER.into()), "the results differ");
}
