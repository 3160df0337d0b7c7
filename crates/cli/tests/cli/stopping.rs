//! Ctrl-C and other signals, real time, failures on the way, memory.
#![cfg(unix)]

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use crate::program::{Finished, command, hang_up, results, run, run_arguments, shelf, write_sequence};

/// Starts an endless run, sends it a signal after its first frames, and gives what it left.
fn interrupted(signal: &str, more: &[&str]) -> (Finished, Vec<serde_json::Value>) {
    let folder = tempfile::tempdir().unwrap();
    let arguments = run_arguments("phantom", more);
    let mut child = command(folder.path(), &arguments.iter().map(String::as_str).collect::<Vec<_>>())
        // Prints a table after each frame: that is how the test knows where the program is.
        .env("ULTRAMOTION_DEBUG", "2")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut progress = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains(" % ") {
        line.clear();
        assert_ne!(progress.read_line(&mut line).unwrap(), 0, "the run goes on until it is stopped");
    }
    let sent = Command::new("sh").args(["-c", &format!("kill -{signal} {}", child.id())]).status().unwrap();
    assert!(sent.success());
    let mut stderr = String::new();
    progress.read_to_string(&mut stderr).unwrap();
    let output = child.wait_with_output().unwrap();
    let finished = Finished {
        code: output.status.code().expect("ended by itself"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr,
    };
    (finished, results(&folder.path().join("out")))
}

#[test]
fn signals_end_a_run_in_order() {
    let frames = ["--frames", "1000000"];
    let in_real_time = ["--frames", "1000000", "--realtime"];
    for (signal, mode) in
        [("INT", &frames[..]), ("INT", &in_real_time), ("TERM", &frames), (hang_up(), &frames)]
    {
        let (finished, lines) = interrupted(signal, mode);
        assert_eq!(finished.code, 0, "{}", finished.stderr);
        assert!(finished.stdout.starts_with("stopped by a signal"), "{}", finished.stdout);
        assert!(!lines.is_empty());
        let counted = format!("frames       {}", lines.len());
        assert!(finished.stdout.contains(&counted), "{counted}: {}", finished.stdout);
    }
}

#[test]
fn real_time_counts_what_it_drops() {
    let folder = tempfile::tempdir().unwrap();
    let finished = run(folder.path(), "phantom", &["--realtime", "--frames", "6"]);
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    let line = finished.stdout.lines().find(|l| l.starts_with("frames ")).unwrap();
    let numbers: Vec<usize> =
        line.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
    assert!(line.contains("dropped to keep up"));
    assert_eq!(numbers[0] + numbers[1], 6, "{line}");
    assert_eq!(results(&folder.path().join("out")).len(), numbers[0]);
}

#[test]
fn what_is_written_stays_whole_when_the_run_fails() {
    // In real time the source would go on for more than an hour.
    for more in [&["--frames", "100"][..], &["--realtime", "--frames", "100000"]] {
        let folder = tempfile::tempdir().unwrap();
        // Folders where pictures must go: not even the superuser can write those.
        for frame in 3..100 {
            std::fs::create_dir_all(folder.path().join(format!("out/overlays/{frame:06}.png"))).unwrap();
        }
        let finished = run(folder.path(), "phantom", &[more, &["--overlay"]].concat());
        assert_eq!(finished.code, 1, "{}", finished.stdout);
        assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
        assert!(finished.stderr.starts_with("error: cannot write out/overlays/0000"), "{}", finished.stderr);
        let lines = results(&folder.path().join("out"));
        let ids: Vec<u64> = lines.iter().map(|l| l["frame_id"].as_u64().unwrap()).collect();
        let (last, earlier) = ids.split_last().unwrap();
        assert!(*last >= 3 && earlier.iter().all(|&id| id < 3), "everything up to the failure: {ids:?}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = command(
        folder.path(),
        &["models", "inspect", &shelf().detector().display().to_string(), "--tensors"],
    )
    .stdout(Stdio::piped())
    .stderr(Stdio::piped())
    .spawn()
    .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

/// Largest resident size that a run of some frames reports, MB.
fn peak_mb(frames: usize) -> Option<f64> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.mha");
    write_sequence(&path, frames);
    let finished = run(folder.path(), "long.mha", &["--overlay", "--threads", "1"]);
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    assert_eq!(results(&folder.path().join("out")).len(), frames);
    let line = finished.stdout.lines().find_map(|l| l.strip_prefix("memory "))?;
    line.trim().split(' ').next()?.parse().ok()
}

#[test]
fn memory_does_not_grow_with_the_number_of_frames() {
    let (Some(short), Some(long)) = (peak_mb(20), peak_mb(120)) else {
        println!("skipped: this system does not tell how much memory a program has");
        return;
    };
    assert!(long < short + 6.0, "{short} MB for 20 frames, {long} MB for 120");
}
