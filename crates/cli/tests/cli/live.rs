//! `ultramotion serve` and `ultramotion run igtl://`, as processes between a scanner and a client on this machine.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use ultramotion_igtlink::{
    Client, ClientConfig, ClientEvent, Content, Image, Message, RawMessage, Server, ServerConfig, Timestamp,
};

#[cfg(unix)]
use crate::program::hang_up;
use crate::program::{HEIGHT, WIDTH, command, error_of, pixels, results, run, run_arguments, start, time_s};

/// Longer than anything here takes, unless there is a defect.
pub const SOON: Duration = Duration::from_secs(60);

pub fn scanner() -> Server {
    Server::start(ServerConfig::listening_on("127.0.0.1:0".parse().unwrap())).unwrap()
}

pub fn send(scanner: &Server, number: usize) {
    let image = Image::grey8(WIDTH as u16, HEIGHT as u16, pixels(number, WIDTH, HEIGHT));
    let message = Message::new("Image_Probe".parse().unwrap(), Content::Image(image));
    let message = message.at(Timestamp::from_secs_f64(time_s(number)));
    assert_eq!(scanner.broadcast(&message).unwrap(), 1);
}

/// `ultramotion serve` with the small networks, in this folder.
pub fn serve_command(scanner: &Server, folder: &Path, settings: &str, more: &[&str]) -> Command {
    // The test machine is slow, and a frame that waited is dropped.
    let settings = format!("{settings}\n[stream]\nmax_lag_ms = 600000\n");
    std::fs::write(folder.join("slow.toml"), settings).unwrap();
    let address = scanner.local_addrs()[0].to_string();
    let fixed = ["--score-threshold", "0.05", "--max-objects", "4", "--config", "slow.toml"];
    let mut arguments = run_arguments("", &fixed);
    arguments.drain(..2);
    arguments.insert(0, "serve".into());
    let live = ["--connect", &address, "--listen", "127.0.0.1:0", "--page", "off"];
    arguments.extend(live.iter().chain(more).map(|&s| s.to_owned()));
    command(folder, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// A running `ultramotion serve`.
pub struct Serving {
    pub child: Child,
    pub stderr: BufReader<ChildStderr>,
    pub folder: TempDir,
}

impl Serving {
    fn start(scanner: &Server, more: &[&str]) -> Self {
        Self::start_as(scanner, more, tempfile::tempdir().unwrap(), "", |program| program)
    }

    /// In this folder, with more settings, and as it is started by whatever `change` makes of it.
    pub fn start_as(
        scanner: &Server,
        more: &[&str],
        folder: TempDir,
        settings: &str,
        change: impl FnOnce(Command) -> Command,
    ) -> Self {
        let program = serve_command(scanner, folder.path(), settings, more);
        let mut child = change(program).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Serving { child, stderr, folder }
    }

    /// The rest of a line of its standard error that begins so.
    pub fn told(&mut self, beginning: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(self.stderr.read_line(&mut line).unwrap(), 0, "it speaks of '{beginning}'");
            if let Some(rest) = line.strip_prefix(beginning) {
                return rest.trim_end().to_owned();
            }
        }
    }

    pub fn client(&mut self) -> Client {
        let client = Client::start(ClientConfig::new(self.told("results at igtl://"))).unwrap();
        next_of(&client, "UM_Status");
        client
    }

    /// Sends a signal; its code, standard output and the rest of its standard error.
    pub fn stop_by(mut self, signal: &str) -> (i32, String, String, TempDir) {
        let kill = format!("kill -{signal} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        let mut stderr = String::new();
        self.stderr.read_to_string(&mut stderr).unwrap();
        let output = self.child.wait_with_output().unwrap();
        let code = output.status.code().expect("ended by itself");
        (code, String::from_utf8(output.stdout).unwrap(), stderr, self.folder)
    }
}

pub fn next_of(client: &Client, device: &str) -> RawMessage {
    let deadline = Instant::now() + SOON;
    loop {
        let event = client.recv_timeout(deadline.saturating_duration_since(Instant::now())).unwrap();
        if let ClientEvent::Message(raw) = event
            && raw.header().device_name == device
        {
            return raw;
        }
    }
}

/// What a frame gave, without what the clock and the file's name say.
pub fn comparable(lines: Vec<Value>) -> Vec<Value> {
    let strip = |mut line: Value| {
        for key in ["latency_ms", "transfers", "source"] {
            assert!(line.as_object_mut().unwrap().remove(key).is_some());
        }
        line
    };
    lines.into_iter().map(strip).collect()
}

#[test]
#[cfg(unix)]
fn serve_answers_every_frame_and_its_recording_runs_again_with_the_same_results() {
    let scanner = scanner();
    let mut serving = Serving::start(&scanner, &["--json", "--record", "session"]);
    let client = serving.client();
    assert!(scanner.wait_clients(1, SOON));
    let frames = 6;
    for number in 0..frames {
        send(&scanner, number);
        let mask = next_of(&client, "UM_Mask");
        assert_eq!(mask.header().timestamp.as_secs_f64(), time_s(number), "the source's own time");
    }
    // As systemd and Docker ask.
    let (code, stdout, stderr, folder) = serving.stop_by("TERM");
    assert_eq!(code, 0, "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    let status = next_of(&client, "UM_Status");
    let status = status.decode().unwrap();
    let Content::Status(status) = &status.content else { panic!("{status:?}") };
    assert_eq!(status.name, "SHUTTING_DOWN");
    let lines: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.last().unwrap();
    for (key, value) in [("received", frames), ("answered", frames), ("dropped", 0), ("in_flight", 0)] {
        assert_eq!(last[key].as_u64(), Some(value as u64), "{key}: {last}");
    }
    assert_eq!(last["recorded"].as_u64(), Some(frames as u64));
    assert_eq!(last["state"], "SHUTTING_DOWN");

    let session = folder.path().join("session");
    let live = comparable(results(&session));
    assert_eq!(live.len(), frames);
    assert!(live.iter().any(|line| !line["objects"].as_array().unwrap().is_empty()));
    let again = run(folder.path(), "session", &[]);
    assert_eq!(again.code, 0, "{}", again.stderr);
    assert!(live == comparable(results(&folder.path().join("out"))), "the results differ");
}

#[test]
#[cfg(unix)]
fn serve_prints_figures_and_an_account() {
    let scanner = scanner();
    let mut serving = Serving::start(&scanner, &[]);
    let client = serving.client();
    assert!(scanner.wait_clients(1, SOON));
    send(&scanner, 0);
    next_of(&client, "UM_Points");
    // As a terminal that is closed does.
    let (code, stdout, stderr, _folder) = serving.stop_by(hang_up());
    assert_eq!(code, 0, "{stderr}");
    let line = stdout.lines().next().unwrap();
    assert!(line.contains(" in ") && line.contains(" dropped/s, ") && line.ends_with(" client"), "{line}");
    let account = "frames       1 received = 1 answered + 0 dropped + 0 in flight: the sums agree";
    assert!(stdout.contains(account), "{stdout}");
}

#[test]
fn run_takes_a_scanners_stream() {
    let scanner = scanner();
    let folder = tempfile::tempdir().unwrap();
    let address = scanner.local_addrs()[0].to_string();
    let source = format!("igtl://{address}/Image_Probe");
    let finished = std::thread::scope(|scope| {
        let run = scope.spawn(|| run(folder.path(), &source, &["--frames", "2"]));
        assert!(scanner.wait_clients(1, SOON));
        // Frames come until the program has its two; which ones it drops in between is a matter of time.
        let deadline = Instant::now() + SOON;
        let mut number = 0;
        while !run.is_finished() && Instant::now() < deadline {
            let image = Image::grey8(WIDTH as u16, HEIGHT as u16, pixels(number, WIDTH, HEIGHT));
            let message = Message::new("Image_Probe".parse().unwrap(), Content::Image(image));
            let message = message.at(Timestamp::from_secs_f64(time_s(number)));
            scanner.broadcast(&message).unwrap();
            number += 1;
            // Nobody sends: a pause of one message.
            let _ = scanner.recv_timeout(Duration::from_millis(5));
        }
        run.join().unwrap()
    });
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    assert!(finished.stdout.contains("dropped to keep up"), "{}", finished.stdout);
    let lines = results(&folder.path().join("out"));
    assert_eq!(lines.len(), 2);
    for line in &lines {
        assert_eq!(line["source"], source);
        let number = line["frame_id"].as_u64().unwrap();
        assert_eq!(line["timestamp"].as_f64(), Some(time_s(number as usize)));
    }
}

#[test]
fn a_scanner_without_frames_fails_the_run() {
    let scanner = scanner();
    let folder = tempfile::tempdir().unwrap();
    let address = scanner.local_addrs()[0].to_string();
    let finished = std::thread::scope(|scope| {
        let run = scope.spawn(|| run(folder.path(), &format!("igtl://{address}"), &[]));
        assert!(scanner.wait_clients(1, SOON));
        scanner.shutdown();
        run.join().unwrap()
    });
    assert_eq!(finished.code, 1, "{}", finished.stdout);
    let error = error_of(&finished, folder.path()).replace(&address, "ADDRESS");
    assert_eq!(error, "error: igtl://ADDRESS sent no frame: the peer closed the connection");
}

#[test]
fn the_example_configuration_is_for_run_too() {
    let folder = tempfile::tempdir().unwrap();
    let printed = start(folder.path(), &["serve", "--print-config"]);
    assert_eq!((printed.code, printed.stderr.as_str()), (0, ""));
    std::fs::write(folder.path().join("serve.toml"), &printed.stdout).unwrap();
    let finished = run(folder.path(), "phantom", &["--config", "serve.toml", "--frames", "1"]);
    assert_eq!(finished.code, 0, "{}", finished.stderr);
}

#[test]
fn wrong_settings_of_serve_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let failure = |text: &str| {
        std::fs::write(folder.path().join("serve.toml"), text).unwrap();
        let finished = start(folder.path(), &["serve", "--config", "serve.toml"]);
        format!("exit {}\n{}", finished.code, error_of(&finished, folder.path()))
    };
    insta::assert_snapshot!("serve_unknown_key", failure("[source]\nhost = \"plus\"\n"));
    insta::assert_snapshot!("serve_depth_0", failure("[stream]\ndepth = 0\n"));
    insta::assert_snapshot!("serve_no_address", failure("[output]\nlisten = \"localhost\"\n"));
    insta::assert_snapshot!("serve_no_network", failure("[output]\nallow = \"everyone\"\n"));
    insta::assert_snapshot!("serve_no_page", failure("[page]\nlisten = \"localhost\"\n"));
    insta::assert_snapshot!(
        "serve_open_page",
        failure("[page]\nlisten = \"0.0.0.0:8080\"\nnetwork = true\n")
    );
    insta::assert_snapshot!("serve_short_token", failure("[page]\ntoken = \"secret\"\n"));
}

#[test]
fn a_port_in_use_ends_serve_with_one_sentence() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let mut arguments = run_arguments("", &[]);
    arguments.drain(..2);
    arguments.insert(0, "serve".into());
    arguments.extend(["--listen".into(), address.clone()]);
    let finished = start(folder.path(), &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(finished.code, 1);
    let error = error_of(&finished, folder.path());
    assert!(error.starts_with(&format!("error: output.listen: cannot listen on {address}")), "{error}");
    assert_eq!(error.lines().count(), 1);
}
