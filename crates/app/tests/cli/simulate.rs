//! `ultramotion simulate`: what it says that it sent is what a client got.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use serde_json::Value;
use ultramotion_igtlink::{Client, ClientConfig, ClientEvent, Content, RejectReason};

use crate::program::{HEIGHT, WIDTH, command, shelf, start, time_s};

const WATCHDOG: Duration = Duration::from_secs(60);

/// A simulator at work.
struct Scanner {
    child: Child,
    out: BufReader<ChildStdout>,
    address: String,
}

impl Scanner {
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        let all = [&["simulate", "--listen", "127.0.0.1:0", "--json"], arguments].concat();
        let mut child = command(folder, &all).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["event"], "listening");
        let address = line["listen"].as_str().unwrap().to_owned();
        Self { child, out, address }
    }

    /// The summary, once it has ended.
    fn summary(mut self) -> Value {
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        let mut errors = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success() && errors.is_empty(), "{errors}");
        let summary: Value = serde_json::from_str(&rest).unwrap();
        assert_eq!(summary["event"], "summary");
        for kind in ["images", "poses"] {
            let count = |name: &str| summary[kind][name].as_u64().unwrap();
            let accounted: u64 = ["sent", "bad_crc", "halved", "skipped", "lost"].map(count).iter().sum();
            assert_eq!(count("offered"), accounted, "{summary}");
        }
        summary
    }

    /// Receives until the simulator is gone: number of images and poses, times of the images, and the client.
    fn listen(&self, mut look: impl FnMut(&Content<'_>)) -> (u64, u64, Vec<f64>, Client) {
        let mut config = ClientConfig::new(&*self.address);
        config.first_retry = Duration::from_millis(1);
        // Nothing is to be lost here, however busy the machine is.
        config.receive_queue = 100_000;
        let client = Client::start(config).unwrap();
        let (mut images, mut poses, mut times) = (0, 0, Vec::new());
        loop {
            match client.recv_timeout(WATCHDOG).unwrap() {
                ClientEvent::Message(raw) => {
                    let message = raw.decode().unwrap();
                    look(&message.content);
                    match message.content {
                        Content::Image(_) => {
                            images += 1;
                            times.push(message.timestamp.as_secs_f64());
                        }
                        Content::Transform(_) | Content::TrackingData(_) => poses += 1,
                        _ => {}
                    }
                }
                ClientEvent::ConnectFailed { .. } => return (images, poses, times, client),
                _ => {}
            }
        }
    }
}

#[test]
fn a_recording_is_sent_whole_with_its_own_times() {
    let folder = tempfile::tempdir().unwrap();
    let sequence = shelf().sequence();
    let scanner = Scanner::start(
        folder.path(),
        &[sequence.to_str().unwrap(), "--wait-clients", "1", "--rate", "40", "--timestamps", "source"],
    );
    let (images, poses, times, _client) = scanner.listen(|content| {
        if let Content::Image(image) = content {
            assert_eq!(image.size, [WIDTH as u16, HEIGHT as u16, 1]);
        }
    });
    // The recording has no poses, so there are three stand-ins.
    assert_eq!((images, poses), (12, 36));
    assert_eq!(times, (0..12).map(time_s).collect::<Vec<_>>());
    let summary = scanner.summary();
    assert_eq!(summary["images"]["sent"], 12);
    assert_eq!(summary["poses"]["sent"], 36);
    assert_eq!(summary["frames"]["made"], 12);
}

#[test]
fn mischief_is_done_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let sequence = shelf().sequence();
    let arguments = ["--loop", "--frames", "400", "--wait-clients", "1", "--rate", "400", "--poses", "tdata"];
    let mischief = [
        "--seed",
        "5",
        "--drop",
        "0.1",
        "--bad-crc",
        "0.05",
        "--half-message",
        "0.01",
        "--disconnect",
        "0.02",
    ];
    let scanner = Scanner::start(
        folder.path(),
        &[&[sequence.to_str().unwrap()], &arguments[..], &mischief, &["--jitter", "1"]].concat(),
    );
    let (images, poses, times, client) = scanner.listen(|_| {});
    let summary = scanner.summary();
    let count = |kind: &str, name: &str| summary[kind][name].as_u64().unwrap();
    assert_eq!((images, poses), (count("images", "sent"), count("poses", "sent")), "{summary}");
    let rejects = client.stats().traffic.rejects;
    assert_eq!(
        rejects.get(RejectReason::Crc),
        count("images", "bad_crc") + count("poses", "bad_crc"),
        "{summary}"
    );
    assert_eq!(rejects.get(RejectReason::Truncated), count("connections", "halved"), "{summary}");
    assert!(count("connections", "cut") > 0 && count("connections", "halved") > 0, "{summary}");
    assert!(rejects.get(RejectReason::Crc) > 0 && count("frames", "dropped") > 0, "{summary}");
    // The clock's times, and not those of the recording.
    assert!(times.iter().all(|&time| time > 1.6e9), "{times:?}");
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let sequence = shelf().sequence();
    let scanner = Scanner::start(folder.path(), &[sequence.to_str().unwrap(), "--loop", "--rate", "200"]);
    let mut interrupted = false;
    let (images, ..) = scanner.listen(|_| {
        if !std::mem::replace(&mut interrupted, true) {
            let kill = format!("kill -INT {}", scanner.child.id());
            assert!(std::process::Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        }
    });
    let summary = scanner.summary();
    assert_eq!(summary["interrupted"], true);
    // What was sent has arrived, to the last image.
    assert_eq!(summary["images"]["sent"], images);
}

#[test]
fn text_summary() {
    let folder = tempfile::tempdir().unwrap();
    let sequence = shelf().sequence();
    let arguments = ["simulate", sequence.to_str().unwrap(), "--listen", "127.0.0.1:0", "--rate", "500"];
    let finished = start(folder.path(), &arguments);
    assert_eq!((finished.code, finished.stderr.as_str()), (0, ""));
    assert!(finished.stdout.starts_with("listening    127.0.0.1:"), "{}", finished.stdout);
    assert!(finished.stdout.contains("frames       12 in 0."), "{}", finished.stdout);
    assert!(finished.stdout.contains("12 with nobody listening"), "{}", finished.stdout);
}

#[test]
fn nonsense_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut said = String::new();
    for arguments in [
        &["--drop", "2"][..],
        &["--rate", "0"],
        &["--jitter=-1"],
        &["--disconnect", "0s"],
        &["--image-device", "Image"],
        &["nowhere.mha"],
    ] {
        let finished = start(folder.path(), &[&["simulate"], arguments].concat());
        said += &format!("{}: exit {}\n{}", arguments.join(" "), finished.code, finished.stderr);
    }
    insta::assert_snapshot!(said);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let finished = start(folder.path(), &["simulate", "--listen", &address]);
    assert_eq!(finished.code, 1);
    let expected = format!("error: cannot listen on {address}: ");
    let said = &finished.stderr;
    assert!(said.starts_with(&expected) && said.lines().count() == 1, "{said}");
}
