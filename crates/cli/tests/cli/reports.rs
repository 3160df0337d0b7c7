//! `audit`, `bench`, `doctor`, `parity`: their JSON, and what they refuse.

use serde_json::Value;

use crate::program::{Finished, error_of, shelf, start};

fn json_lines(finished: &Finished) -> Vec<Value> {
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    finished.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A subcommand with the small networks.
fn with_networks(command: &str, more: &[&str]) -> Finished {
    let folder = tempfile::tempdir().unwrap();
    let (detector, segmenter) =
        (shelf().detector().display().to_string(), shelf().segmenter().display().to_string());
    let networks = [command, "--device", "cpu", "--detector", &detector, "--segmenter", &segmenter];
    start(folder.path(), &[&networks, more].concat())
}

fn assert_measurement(value: &Value) {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    let mut expected = [
        "model",
        "input",
        "boxes",
        "device",
        "threads",
        "precision",
        "runs",
        "p50_ms",
        "p90_ms",
        "p99_ms",
        "max_ms",
        "gflops",
        "peak_memory_mb",
    ];
    expected.sort_unstable();
    assert_eq!(keys, expected);
    let ms = ["p50_ms", "p90_ms", "p99_ms", "max_ms"].map(|key| value[key].as_f64().unwrap());
    assert!(ms[0] >= 0.0 && ms.is_sorted(), "{ms:?}");
    assert_eq!(value["runs"], 2);
    assert_eq!((&value["device"], &value["precision"]), (&"cpu".into(), &"f32".into()));
}

#[test]
fn bench_of_a_frame_has_a_line_for_each_stage_and_the_total() {
    let lines = json_lines(&with_networks("bench", &["--runs", "2", "--threads", "1", "--json"]));
    lines.iter().for_each(assert_measurement);
    let models: Vec<&str> = lines.iter().map(|l| l["model"].as_str().unwrap()).collect();
    assert_eq!(models, ["upload", "detect", "match", "segment", "download", "frame"]);
    assert!(lines.iter().all(|l| l["threads"] == 1));
}

#[test]
fn bench_of_one_network() {
    for (model, input, boxes) in [
        ("dfine_n", "64", Value::Null),
        ("mobile_sam_encoder", "64", Value::Null),
        ("mobile_sam_decoder", "64", 3.into()),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let arguments = [
            "bench", "--model", model, "--input", input, "--boxes", "3", "--runs", "2", "--device", "cpu",
            "--json",
        ];
        let lines = json_lines(&start(folder.path(), &arguments));
        assert_eq!(lines.len(), 1);
        assert_measurement(&lines[0]);
        assert_eq!((&lines[0]["model"], &lines[0]["input"]), (&model.into(), &serde_json::json!([64, 64])));
        assert_eq!(lines[0]["boxes"], boxes);
        assert!(lines[0]["gflops"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn bench_times_an_assignment_alone() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["bench", "--model", "assignment_30x10", "--runs", "2", "--device", "cpu", "--json"];
    let [line] = &json_lines(&start(folder.path(), &arguments))[..] else { panic!("one line") };
    assert_measurement(line);
    assert_eq!(line["input"], serde_json::json!([30, 10]));
}

#[test]
fn bench_refuses_what_it_cannot_measure() {
    let folder = tempfile::tempdir().unwrap();
    for more in [
        &["--model", "resnet"][..],
        &["--model", "assignment_0x5"],
        &["--model", "dfine_n", "--tune", "--device", "cpu"],
        &["--model", "dfine_n", "--input", "100"],
        &["--model", "mobile_sam_encoder", "--input", "100"],
        &["--model", "mobile_sam_decoder", "--boxes", "0"],
        &["--runs", "0"],
        &["--device", "cpu", "--precision", "f16"],
        &["--device", "tpu"],
        &["--device", "cuda:x"],
    ] {
        let refused = start(folder.path(), &[&["bench"], more].concat());
        assert_eq!(refused.code, 2, "{more:?}: {}", refused.stderr);
        assert_eq!(error_of(&refused, folder.path()).lines().count(), 1, "{}", refused.stderr);
    }
}

#[test]
#[cfg(feature = "cuda")]
fn the_plan_for_a_gpu_can_be_printed_without_one() {
    let folder = tempfile::tempdir().unwrap();
    let plan = ["bench", "--model", "dfine_n", "--input", "64", "--runs", "1", "--device", "cuda", "--plan"];
    let planned = start(folder.path(), &plan);
    assert_eq!(planned.code, 0, "{}", planned.stderr);
    let mut rest = planned.stdout.lines().skip_while(|line| !line.contains("in all, "));
    let sum = rest.next().expect("a line with the sum");
    assert!(sum.contains("branches") && sum.contains("MFLOP"), "{sum}");
    assert!(
        rest.any(|line| line.trim_start().starts_with("3 x  deformable_attention")),
        "{}",
        planned.stdout
    );
}

#[test]
fn audit_keeps_the_budget() {
    let audited = with_networks("audit", &["--frames", "3", "--json"]);
    let [report] = &json_lines(&audited)[..] else { panic!("one object: {}", audited.stdout) };
    assert_eq!((&report["pass"], &report["budget"]), (&true.into(), &serde_json::json!([1, 1, 1, 0])));
    let [device, host] = &report["modes"].as_array().unwrap()[..] else { panic!("two modes: {report}") };
    assert_eq!((&device["residency"], &host["residency"]), (&"device".into(), &"host".into()));
    for key in ["h2d", "d2h", "host_syncs"] {
        assert_eq!(device["transfers"][key], 1);
        assert!(host["transfers"][key].as_u64().unwrap() > 1);
    }
    let table = with_networks("audit", &["--frames", "3"]);
    assert!(
        table.stdout.contains("budget of a frame in device mode: 1 in, 1 out, 1 wait, 0 allocations: kept")
    );
}

#[test]
fn doctor_names_what_runs_and_what_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let doctor = start(folder.path(), &["doctor"]);
    assert_eq!(doctor.code, 0);
    for line in ["ultramotion ", "threads ", "instructions ", "cpu           ready", "cuda ", "models "] {
        assert!(doctor.stdout.lines().any(|l| l.starts_with(line)), "{line}: {}", doctor.stdout);
    }
}

#[test]
fn parity_refuses_what_is_no_fixture() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("noise.safetensors"), [7; 100]).unwrap();
    for name in ["nowhere.safetensors", "noise.safetensors"] {
        let refused = start(folder.path(), &["parity", "--device", "cpu", name]);
        assert_eq!(refused.code, 1);
        let error = error_of(&refused, folder.path());
        assert!(error.contains(name) && error.lines().count() == 1, "{error}");
    }
    assert_eq!(start(folder.path(), &["parity"]).code, 2, "a fixture must be named");
}
