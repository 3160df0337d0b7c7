//! Modes that must agree, and what the command line and the configuration choose.

use serde_json::Value;
use ultramotion_types::CocoRle;

use crate::program::{results_of, run, shelf};

fn lines(more: &[&str]) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    results_of(folder.path(), &shelf().sequence().display().to_string(), more)
}

/// Ids, labels and confirmations alike, boxes within a hundredth of a pixel, masks within a pixel in a thousand.
fn assert_same_objects(a: &[Value], b: &[Value]) {
    assert_eq!(a.len(), b.len());
    let mut compared = 0;
    for (a, b) in a.iter().zip(b) {
        assert_eq!(a["state"], b["state"]);
        let (a, b) = (a["objects"].as_array().unwrap(), b["objects"].as_array().unwrap());
        assert_eq!(a.len(), b.len());
        for (a, b) in a.iter().zip(b) {
            for key in ["track_id", "confirmed", "label"] {
                assert_eq!(a[key], b[key], "{key}");
            }
            for corner in 0..4 {
                let [x, y] = [a, b].map(|o| o["box_xyxy"][corner].as_f64().unwrap());
                assert!((x - y).abs() < 0.01, "{x} and {y}");
            }
            let [a, b] = [a, b]
                .map(|o| serde_json::from_value::<CocoRle>(o["mask"].clone()).unwrap().decode().unwrap());
            let differing = a.view().area_px() + b.view().area_px() - 2 * a.view().shared_px(b.view());
            assert!(differing * 1000 <= a.view().width() * a.view().height(), "{differing} pixels differ");
            compared += 1;
        }
    }
    assert!(compared > 0);
}

#[test]
fn host_residency_gives_the_same_and_copies_more() {
    let (device, host) = (lines(&[]), lines(&["--residency", "host"]));
    assert_same_objects(&device, &host);
    for (device, host) in device.iter().zip(&host) {
        assert_eq!(host["modes"]["residency"], "host");
        let count = |line: &Value, key: &str| line["transfers"][key].as_u64().unwrap();
        for key in ["h2d", "d2h", "host_syncs", "h2d_bytes", "d2h_bytes"] {
            assert!(count(host, key) > count(device, key), "{key}");
        }
    }
}

#[test]
fn the_optimal_matchers_agree() {
    let (exact, host) = (lines(&["--matcher", "exact"]), lines(&["--matcher", "host"]));
    assert_same_objects(&exact, &host);
    assert!(host.iter().all(|l| l["modes"]["matcher"] == "host"));
    let both = lines(&["--matcher", "host", "--residency", "host"]);
    assert_same_objects(&exact, &both);
}

#[test]
fn the_greedy_matcher_runs_and_says_so() {
    for line in lines(&["--matcher", "greedy"]) {
        assert_eq!(line["modes"]["matcher"], "greedy");
    }
}

#[test]
fn independent_frames_share_no_identity() {
    let lines = lines(&["--independent"]);
    let ids: Vec<i64> = lines
        .iter()
        .flat_map(|l| l["objects"].as_array().unwrap())
        .map(|o| o["track_id"].as_i64().unwrap())
        .collect();
    let mut unique = ids.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), ids.len(), "no identity twice");
    assert!(ids.len() > lines.len());
}

#[test]
fn frames_ends_early() {
    assert_eq!(lines(&["--frames", "3"]).len(), 3);
    assert_eq!(lines(&["--frames", "1000"]).len(), 12, "no more than there are");
}

#[test]
fn the_configuration_chooses_and_the_command_line_wins() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("settings.toml"),
        "matcher = \"greedy\"\nresidency = \"host\"\nmax_objects = 2\nscore_threshold = 0.05\n\
         [tracker]\nconfirm_hits = 1\nconfirm_window = 1\nbirth_score = 0.0\n",
    )
    .unwrap();
    let source = shelf().sequence().display().to_string();
    let lines = results_of(folder.path(), &source, &["--config", "settings.toml", "--residency", "device"]);
    for line in &lines {
        assert_eq!(
            (&line["modes"]["matcher"], &line["modes"]["residency"]),
            (&"greedy".into(), &"device".into())
        );
        let objects = line["objects"].as_array().unwrap();
        assert!(objects.len() <= 2);
        assert!(objects.iter().all(|o| o["confirmed"] == true), "confirmed at once, as [tracker] says");
    }
}

#[test]
fn a_summary_says_what_was_done_and_a_pipe_gets_no_progress_bar() {
    let folder = tempfile::tempdir().unwrap();
    let finished = run(folder.path(), &shelf().sequence().display().to_string(), &["--overlay"]);
    assert_eq!(finished.code, 0);
    assert_eq!(finished.stderr, "", "nothing to complain about, and no bar");
    let words: Vec<&str> = finished.stdout.lines().filter_map(|l| l.split_whitespace().next()).collect();
    for word in ["source", "models", "device", "frames", "objects", "latency", "results", "overlays"] {
        assert!(words.contains(&word), "{word} in {}", finished.stdout);
    }
    assert!(finished.stdout.contains("1 copy in, 1 out, 1 wait, 0 allocations"));
    assert_eq!(std::fs::read_dir(folder.path().join("out/overlays")).unwrap().count(), 12);
}
