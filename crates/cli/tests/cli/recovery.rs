//! What is recorded is there, however the recording ends. `bench/recovery/run` runs these tests in their long form.
#![cfg(unix)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use serde_json::Value;
use ultramotion_igtlink::{Content, Image, Message, Server, Timestamp, Transform};

use crate::live::{SOON, Serving, comparable, scanner};
use crate::program::{HEIGHT, WIDTH, by_shell, pixels, results, run, start, time_s};

/// How many programs are killed: a number in `ULTRAMOTION_RECOVERY_KILLS`.
const KILLS: usize = 8;
/// Folders on small disks, with colons between, in `ULTRAMOTION_RECOVERY_DISKS`.
const DISKS: &str = "ULTRAMOTION_RECOVERY_DISKS";

/// Sends frames with a pose each while something is done.
fn while_scanning<T>(scanner: &Server, work: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0.. {
                if done.load(Relaxed) {
                    break;
                }
                let at = Timestamp::from_secs_f64(time_s(number));
                let pose = Transform { translation: [number as f32, 1.0, 0.0], ..Transform::IDENTITY };
                let pose = Message::new("ProbeToTracker".parse().unwrap(), Content::Transform(pose));
                scanner.broadcast(&pose.at(at)).unwrap();
                let image = Image::grey8(WIDTH as u16, HEIGHT as u16, pixels(number, WIDTH, HEIGHT));
                let image = Message::new("Image_Probe".parse().unwrap(), Content::Image(image));
                scanner.broadcast(&image.at(at)).unwrap();
                // Nobody sends: a pause of one message.
                let _ = scanner.recv_timeout(Duration::from_millis(4));
            }
        });
        let result = work();
        done.store(true, Relaxed);
        result
    })
}

/// A figure of a line of `--json`.
fn figure(line: &str, key: &str) -> u64 {
    let line: Value = serde_json::from_str(line).unwrap();
    line[key].as_u64().unwrap_or_else(|| panic!("no number {key} in {line}"))
}

/// Reads figures until they are as they must be; the last line.
fn lines_until(out: &mut impl BufRead, enough: impl Fn(&Value) -> bool) -> String {
    loop {
        let mut line = String::new();
        assert_ne!(out.read_line(&mut line).unwrap(), 0, "the program goes on");
        if enough(&serde_json::from_str(&line).unwrap()) {
            return line;
        }
    }
}

/// The number in `pattern` of what `recover` printed, such as `" frames,"`.
fn number_before(text: &str, pattern: &str) -> u64 {
    let before = &text[..text.find(pattern).unwrap_or_else(|| panic!("no '{pattern}' in {text}"))];
    before.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Replays a recording, and finds in each frame what is in its results; gives frames and lines.
fn check_replay(folder: &Path, session: &Path) -> (usize, usize) {
    let live = comparable(results(session));
    let replay = run(folder, session.to_str().unwrap(), &[]);
    assert_eq!(replay.code, 0, "{}", replay.stderr);
    let replayed = comparable(results(&folder.join("out")));
    let both = live.len().min(replayed.len());
    assert!(live[..both] == replayed[..both], "the results differ");
    (replayed.len(), live.len())
}

#[test]
fn a_program_that_is_killed_leaves_every_frame_that_it_counted() {
    let kills = std::env::var("ULTRAMOTION_RECOVERY_KILLS").map_or(KILLS, |text| text.parse().unwrap());
    let scanner = scanner();
    let mut seen = HashMap::<&str, u64>::new();
    let mut dice = 0x9E37_79B9_7F4A_7C15u64;
    while_scanning(&scanner, || {
        for _ in 0..kills {
            let folder = tempfile::tempdir().unwrap();
            let settings = "[record]\nheader_every_s = 0.1\nfsync = false\n[report]\nevery_s = 0.01\n";
            let more = ["--json", "--record", "session"];
            let mut serving = Serving::start_as(&scanner, &more, folder, settings, |program| program);
            let mut out = BufReader::new(serving.child.stdout.take().unwrap());
            lines_until(&mut out, |line| line["recorded"].as_u64() > Some(0));
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let until = Duration::from_micros((dice >> 33) % 300_000);
            std::thread::scope(|scope| {
                let reading = scope.spawn(|| {
                    let mut text = String::new();
                    out.read_to_string(&mut text).unwrap();
                    text
                });
                std::thread::sleep(until);
                serving.child.kill().unwrap();
                serving.child.wait().unwrap();
                let text = reading.join().unwrap();
                // The last line may be half a one.
                let counted = text.rsplit_once('\n').map_or(0, |(whole, _)| {
                    whole.lines().next_back().map_or(0, |line| figure(line, "recorded"))
                });
                let session = serving.folder.path().join("session");
                let recovered = start(serving.folder.path(), &["recover", "session"]);
                assert_eq!(recovered.code, 0, "{}", recovered.stderr);
                let (frames, lines) = check_replay(serving.folder.path(), &session);
                assert_eq!(number_before(&recovered.stdout, " frames,"), frames as u64);
                assert!(frames == lines || frames == lines + 1, "{frames} frames, {lines} lines");
                assert!(frames as u64 >= counted, "{frames} frames of {counted} counted ones");
                let again = start(serving.folder.path(), &["recover", "session"]);
                assert!(again.stdout.contains("complete already"), "{}", again.stdout);
                *seen.entry("programs killed").or_default() += 1;
                *seen.entry("frames counted in their last lines of figures").or_default() += counted;
                *seen.entry("frames readable, each with the same results").or_default() += frames as u64;
                *seen.entry("frames without a line of results").or_default() += (frames - lines) as u64;
                *seen.entry("with half a frame or half a line cut off").or_default() +=
                    u64::from(recovered.stdout.contains("cut off"));
            });
        }
    });
    let mut table: Vec<_> = seen.into_iter().collect();
    table.sort_unstable();
    table.iter().for_each(|(what, number)| println!("| {what} | {number} |"));
}

/// Records until a write fails, and a while longer; what must hold then.
fn record_on_a_full_disk(
    folder: tempfile::TempDir,
    session: &Path,
    change: impl FnOnce(Command) -> Command,
) -> (u64, usize) {
    let scanner = scanner();
    let settings = "[record]\nstop_below_mb = 0\nwarn_below_mb = 0\n[report]\nevery_s = 0.05\n";
    let more = ["--json", "--record", session.to_str().unwrap()];
    let mut serving = Serving::start_as(&scanner, &more, folder, settings, change);
    let mut out = BufReader::new(serving.child.stdout.take().unwrap());
    assert!(scanner.wait_clients(1, SOON));
    while_scanning(&scanner, || {
        let failed = lines_until(&mut out, |line| line["record_failed"] == true);
        let answered = figure(&failed, "answered");
        lines_until(&mut out, |line| line["answered"].as_u64() > Some(answered + 20));
    });
    serving.child.stdout = Some(out.into_inner());
    let (code, _, stderr, folder) = serving.stop_by("TERM");
    // The end of the lines went the other way.
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("the recording ends here, and the stream goes on"), "{stderr}");
    let (frames, lines) = check_replay(folder.path(), session);
    assert!(lines <= frames && frames <= lines + 1, "{frames} frames, {lines} lines");
    let files = std::fs::read_dir(session).unwrap().count();
    assert_eq!(files, 3, "nothing half-made is left");
    (std::fs::metadata(session.join("frames.raw")).unwrap().len(), frames)
}

#[test]
fn where_a_write_fails_the_recording_ends_and_the_stream_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let session = folder.path().join("session");
    // No file may grow beyond 64 blocks: as on a full disk, but for the system's words.
    let script = "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\"";
    let limited = |program: Command| by_shell(&program, script);
    let (_, frames) = record_on_a_full_disk(folder, &session, limited);
    assert!(frames > 2, "{frames}");
}

#[test]
fn small_disks() {
    let disks = std::env::var(DISKS).unwrap_or_default();
    for disk in disks.split(':').filter(|disk| !disk.is_empty()) {
        let session = PathBuf::from(disk).join("session");
        let (bytes, frames) =
            record_on_a_full_disk(tempfile::tempdir().unwrap(), &session, |program| program);
        println!("| {disk} | {frames} frames | {bytes} bytes of pixels |");
    }
}
