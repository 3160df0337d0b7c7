//! The whole way under bad conditions: a scanner that misbehaves, the gateway, a client that listens, one that never
//! reads, and attackers (`attacks.rs`). At the end the books of all three must agree, to the frame.
//!
//! As a test this is about fifteen seconds of 60 frames a second, and nothing is judged by the clock. With
//! `ULTRAMOTION_SOAK_MINUTES` it goes on for so long, and reconnection, the honest client's rate, memory and the end are
//! judged as well: `bench/soak/README.md`.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod attacks;
#[path = "../cli/program.rs"]
#[allow(dead_code)]
mod program;

use std::fmt::Display;
use std::io::{BufRead, BufReader, Lines, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::Value;
use socket2::{Domain, Socket, Type};
use ultramotion_igtlink::{Client, ClientConfig, ClientEvent, Content, Message, RecvError, Timestamp};
use ultramotion_media::metaimage::{Layout, SequenceWriter};
use ultramotion_types::Frame;

const RATE_HZ: u64 = 60;
/// Frames of the short form.
const SHORT_FRAMES: u64 = 15 * RATE_HZ;
/// A step that takes longer hangs.
const WATCHDOG: Duration = Duration::from_secs(60);
const WATCHDOG_REPORTS: usize = 60;
/// What a gateway says before its addresses.
const RESULTS_AT: &str = "results at igtl://";
const PAGE_AT: &str = "page at http://";
const OPEN_AT: &str = "frames from igtl://";
const WIDTH: usize = 320;
const HEIGHT: usize = 240;

/// What happens how often: one in so many frames, or messages.
struct Weather {
    frames: u64,
    mischief: [&'static str; 10],
    /// Before the attackers come.
    quiet: Duration,
    /// Between two attacks of a kind.
    pause_ms: u64,
    judged_by_the_clock: bool,
}

impl Weather {
    fn from_environment() -> Self {
        match std::env::var("ULTRAMOTION_SOAK_MINUTES") {
            Ok(minutes) => {
                let minutes: f64 = minutes.parse().expect("ULTRAMOTION_SOAK_MINUTES is a number of minutes");
                Weather {
                    frames: (minutes * 60.0 * RATE_HZ as f64).max(1.0) as u64,
                    // A cut each 25 s, a half message each 40 s, a bad checksum each 2 s.
                    mischief: [
                        "--disconnect",
                        "0.00067",
                        "--half-message",
                        "0.0001",
                        "--bad-crc",
                        "0.002",
                        "--drop",
                        "0.005",
                        "--jitter",
                        "4",
                    ],
                    quiet: Duration::from_secs_f64((minutes * 60.0 / 5.0).min(60.0)),
                    pause_ms: 1,
                    judged_by_the_clock: true,
                }
            }
            Err(_) => Weather {
                frames: SHORT_FRAMES,
                mischief: [
                    "--disconnect",
                    "0.01",
                    "--half-message",
                    "0.002",
                    "--bad-crc",
                    "0.01",
                    "--drop",
                    "0.02",
                    "--jitter",
                    "4",
                ],
                quiet: Duration::from_secs(3),
                pause_ms: 50,
                judged_by_the_clock: false,
            },
        }
    }
}

/// A program that runs, and is killed if the test fails.
struct Running {
    child: Child,
    out: Lines<BufReader<ChildStdout>>,
    err: Option<BufReader<ChildStderr>>,
}

impl Running {
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        let mut command = program::command(folder, arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap()).lines();
        let err = child.stderr.take().map(BufReader::new);
        Self { child, out, err }
    }

    /// The next line of JSON; `None` at the end.
    fn line(&mut self) -> Option<Value> {
        let line = self.out.next()?.unwrap();
        Some(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}")))
    }

    /// The rest of a program that is about to end: its last line, and how it ended.
    fn end(&mut self) -> (Value, ExitStatus) {
        let mut last = None;
        while let Some(line) = self.line() {
            last = Some(line);
        }
        (last.expect("a line"), self.child.wait().unwrap())
    }
}

fn interrupt(process: u32) {
    let kill = format!("kill -INT {process}");
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Memory that a process has now, KiB, where the system tells.
fn resident_kib(process: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?
        .trim()
        .strip_suffix("kB")?
        .trim()
        .parse()
        .ok()
}

/// Reads the gateway's standard error up to where it says at which address it does something.
fn address_of(gateway: &mut Running, what: &str) -> SocketAddr {
    let err = gateway.err.as_mut().unwrap();
    loop {
        let mut line = String::new();
        assert_ne!(err.read_line(&mut line).unwrap(), 0, "the gateway says where: {what}");
        if let Some(address) = line.trim_end().strip_prefix(what) {
            return address.split('/').next().unwrap().parse().unwrap();
        }
    }
}

/// Reads reports, one a second, until one is as it should be.
fn wait_for(gateway: &mut Running, what: &str, mut done: impl FnMut(&Value) -> bool) {
    let mut report = Value::Null;
    for _ in 0..WATCHDOG_REPORTS {
        report = gateway.line().expect("the gateway goes on");
        if done(&report) {
            return;
        }
    }
    panic!("{what}: not after {WATCHDOG_REPORTS} reports; the last one: {report}");
}

/// What the client that listens has got.
#[derive(Debug, Default)]
struct Got {
    /// Number and time of the frame that the last mask is of.
    last: Option<(u64, Timestamp)>,
    masks: u64,
    in_order: bool,
    others: u64,
    rejected: u64,
    evicted: u64,
}

/// Receives until the gateway is gone.
fn listen(client: &Client, got: &Mutex<Got>) {
    loop {
        let event = client.recv();
        let mut got = got.lock().unwrap();
        match event {
            Ok(ClientEvent::Message(raw)) => {
                let message = raw.decode().unwrap();
                if !matches!(message.content, Content::Image(_)) {
                    got.others += 1;
                    continue;
                }
                let id: u64 = message.metadata.get("FrameId").unwrap().parse().unwrap();
                let time = message.timestamp;
                got.in_order &= got.last.is_none_or(|(last, then)| last < id && then < time);
                got.last = Some((id, time));
                got.masks += 1;
            }
            Ok(ClientEvent::Rejected(_)) => got.rejected += 1,
            Ok(ClientEvent::Disconnected { .. }) | Err(RecvError::Closed) => {
                got.evicted = client.stats().traffic.dropped_in;
                return;
            }
            _ => {}
        }
    }
}

/// A client that never reads, with as little room as the system gives.
fn deaf_client(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&address.into()).unwrap();
    socket.into()
}

/// Memory over time.
#[derive(Debug, Default)]
struct Memory {
    /// Seconds and KiB.
    samples: Vec<(f64, f64)>,
}

impl Memory {
    fn sample(&mut self, begin: Instant, resident_kib: Option<f64>) {
        self.samples.extend(resident_kib.map(|kib| (begin.elapsed().as_secs_f64(), kib)));
    }

    /// What is after the first 5 minutes, in a run that is longer than twice that, else the later three quarters: caches
    /// and queues fill up at first.
    fn settled(&self) -> &[(f64, f64)] {
        let is_long = self.samples.last().is_some_and(|sample| sample.0 > 600.0);
        let later = self.samples.partition_point(|sample| sample.0 < 300.0);
        &self.samples[if is_long { later } else { self.samples.len() / 4 }..]
    }

    /// Slope of the least-squares line, KiB a minute.
    fn slope_kib_per_min(&self) -> f64 {
        let samples = self.settled();
        let n = samples.len().max(1) as f64;
        let (mean_t, mean_m) =
            (samples.iter().map(|s| s.0).sum::<f64>() / n, samples.iter().map(|s| s.1).sum::<f64>() / n);
        let (mut above, mut below) = (0.0, 0.0);
        for (t, m) in samples {
            above += (t - mean_t) * (m - mean_m);
            below += (t - mean_t).powi(2);
        }
        if below > 0.0 { 60.0 * above / below } else { 0.0 }
    }

    /// Medians of the settled quarters, MB.
    fn quarters_mb(&self) -> Vec<f64> {
        let samples = self.settled();
        let quarter = samples.len().div_ceil(4).max(1);
        let median = |part: &[(f64, f64)]| {
            let mut kib: Vec<f64> = part.iter().map(|sample| sample.1).collect();
            kib.sort_by(f64::total_cmp);
            kib[kib.len() / 2] / 1024.0
        };
        samples.chunks(quarter).map(median).collect()
    }
}

/// The table, and whether all in it is well.
#[derive(Default)]
struct Verdict {
    failures: Vec<String>,
}

impl Verdict {
    fn tell(&mut self, what: &str, value: impl Display) {
        println!("{what:<44} {value}");
    }

    fn check(&mut self, what: &str, value: impl Display, well: bool) {
        println!("{what:<44} {value:<28} {}", if well { "ok" } else { "FAILED" });
        if !well {
            self.failures.push(format!("{what}: {value}"));
        }
    }

    /// What depends on how busy the machine is: judged in a long run alone.
    fn timed(&mut self, weather: &Weather, what: &str, value: impl Display, well: bool) {
        if weather.judged_by_the_clock { self.check(what, value, well) } else { self.tell(what, value) }
    }

    /// Two counts that must be the same.
    fn agree(&mut self, what: &str, left: u64, right: u64) {
        self.check(what, format!("{left} = {right}"), left == right);
    }
}

fn count(report: &Value, key: &str) -> u64 {
    report[key].as_u64().unwrap_or_else(|| panic!("no {key} in {report}"))
}

fn write_recording(path: &Path) {
    let layout = Layout { compressed: false, ..Layout::grey8(WIDTH, HEIGHT) };
    let mut writer = SequenceWriter::create(path, layout).unwrap();
    for i in 0..24 {
        let frame = Frame::grey8(WIDTH, HEIGHT, program::pixels(i, WIDTH, HEIGHT));
        writer.write(&Frame { timestamp_s: program::time_s(i), ..frame }).unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn the_books_agree_whatever_happens() {
    let weather = Weather::from_environment();
    let folder = tempfile::tempdir().unwrap();
    write_recording(&folder.path().join("scene.igs.mha"));
    // The scanner comes last, so that everyone is there when its first frame comes: its port is found beforehand.
    let scanner_address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let shelf = program::shelf();
    let settings = |source: String, lines: &str| {
        format!(
            "detector = {:?}\nsegmenter = {:?}\nscore_threshold = 0.05\nmax_objects = 4\n[source]\n{source}\n\
             [output]\nlisten = \"127.0.0.1:0\"\nqueue = 128\nstall_timeout_s = 5.0\n[report]\njson = true\n{lines}",
            shelf.detector(),
            shelf.segmenter(),
        )
    };
    let start = |file: &str, settings: String| {
        std::fs::write(folder.path().join(file), settings).unwrap();
        Running::start(folder.path(), &["serve", "--config", file, "--device", "cpu", "--threads", "1"])
    };
    // One that waits for its scanner, for the attackers to play scanner to.
    let open =
        settings("listen = \"127.0.0.1:0\"\nidle_timeout_s = 2.0".into(), "[page]\nlisten = \"off\"\n");
    let mut open_gateway = start("open.toml", open);
    attacks::pin(&open_gateway.child);
    let open_source = address_of(&mut open_gateway, OPEN_AT);
    let mut open_complaints = open_gateway.err.take().unwrap();
    let closed = settings(format!("connect = {scanner_address:?}"), "[page]\nlisten = \"127.0.0.1:0\"\n");
    let mut gateway = start("serve.toml", closed);
    let address = address_of(&mut gateway, RESULTS_AT);
    let page = address_of(&mut gateway, PAGE_AT);
    let mut complaints = gateway.err.take().unwrap();

    let mut config = ClientConfig::new(address.to_string());
    config.receive_queue = 100_000;
    let client = Client::start(config).unwrap();
    assert!(client.wait_connected(WATCHDOG), "the gateway takes clients");
    let got = Mutex::new(Got { in_order: true, ..Got::default() });
    let mut deaf = deaf_client(address);
    wait_for(&mut gateway, "both clients", |report| count(report, "clients") == 2);

    let begin = Instant::now();
    let (frames, rate) = (weather.frames.to_string(), RATE_HZ.to_string());
    let scan = [
        &["simulate", "scene.igs.mha", "--loop", "--json", "--seed", "2026", "--listen", &scanner_address][..],
        &["--rate", &rate, "--frames", &frames, "--wait-clients", "1"],
        &weather.mischief,
    ];
    let mut scanner = Running::start(folder.path(), &scan.concat());
    let (gateway_process, scanner_process) = (gateway.child.id(), scanner.child.id());
    let (mut gateway_memory, mut scanner_memory) = (Memory::default(), Memory::default());
    let mut deaf_clients = 1;
    let (mut latencies_ms, mut rates, mut quiet_rates) = (Vec::new(), Vec::new(), Vec::new());
    let sign_of_life = Message::new("Deaf".parse().unwrap(), Content::string("here")).to_bytes().unwrap();
    let mut attackers = None;
    let mut samples = std::env::var_os("ULTRAMOTION_SOAK_SAMPLES").map(|path| {
        let mut file = std::fs::File::create(path).unwrap();
        writeln!(file, "seconds,gateway_kib,scanner_kib,answered_per_s,send_dropped").unwrap();
        file
    });
    let (sent, last, open_last, attacked, ended_in) = std::thread::scope(|scope| {
        scope.spawn(|| listen(&client, &got));
        // Read all the time, or a program that has much to say would wait.
        scope.spawn(|| std::io::copy(&mut complaints, &mut std::io::sink()));
        scope.spawn(|| std::io::copy(&mut open_complaints, &mut std::io::sink()));
        let open_process = open_gateway.child.id();
        let open_ending = scope.spawn(|| open_gateway.end());
        let scanning = scope.spawn(|| scanner.end());
        // A report a second: that is the clock here.
        while !scanning.is_finished() {
            let report = gateway.line().expect("the gateway goes on");
            gateway_memory.sample(begin, resident_kib(gateway_process));
            scanner_memory.sample(begin, resident_kib(scanner_process));
            let figure = |key: &str| report[key].as_f64().unwrap();
            if figure("out_per_s") > 0.0 {
                latencies_ms.push((figure("latency_p50_ms"), figure("latency_p99_ms")));
            }
            if attackers.is_some() { &mut rates } else { &mut quiet_rates }.push(figure("out_per_s"));
            if attackers.is_none() && begin.elapsed() >= weather.quiet {
                attackers = Some(attacks::start(address, page, open_source, weather.pause_ms));
            }
            if let (Some(file), Some(gateway), Some(scanner)) =
                (&mut samples, gateway_memory.samples.last(), scanner_memory.samples.last())
            {
                let (rate, dropped) = (figure("out_per_s"), count(&report, "send_dropped"));
                writeln!(file, "{:.1},{},{},{rate},{dropped}", gateway.0, gateway.1, scanner.1).unwrap();
            }
            if deaf.write_all(&sign_of_life).is_err() {
                // The gateway has got rid of the deaf one: here is the next.
                deaf = deaf_client(address);
                deaf_clients += 1;
            }
        }
        let attacked = attacks::end(attackers.take().expect("the attackers came"));
        interrupt(open_process);
        let (open_last, status) = open_ending.join().unwrap();
        assert!(status.success(), "the open gateway ends well: {status}");
        let (sent, status) = scanning.join().unwrap();
        assert!(status.success(), "the scanner ends well: {status}");
        let images = count(&sent["images"], "sent");
        wait_for(&mut gateway, "the last frames", |report| {
            let here = count(report, "received") + count(report, "messages_evicted") >= images;
            here && count(report, "in_flight") == 0 && got.lock().unwrap().masks >= count(report, "answered")
        });
        let asked = Instant::now();
        interrupt(gateway_process);
        let (last, status) = gateway.end();
        assert!(status.success(), "the gateway ends well: {status}");
        (sent, last, open_last, attacked, asked.elapsed())
    });
    drop(deaf);
    let got = got.into_inner().unwrap();

    let mut verdict = Verdict::default();
    let frames = &sent["frames"];
    let (images, poses, links) = (&sent["images"], &sent["poses"], &sent["connections"]);
    verdict.tell(
        "length",
        format!("{:.0} s at {RATE_HZ} Hz, {WIDTH}x{HEIGHT}", sent["seconds"].as_f64().unwrap()),
    );
    verdict.tell("frames late at the scanner", count(frames, "late"));
    let told =
        ["dropped", "unheard"].map(|key| count(frames, key)).iter().sum::<u64>() + count(images, "offered");
    verdict.agree("scanner: made = left out + unheard + offered", count(frames, "made"), told);
    for (kind, counts) in [("images", images), ("poses", poses)] {
        let accounted = ["sent", "bad_crc", "halved", "skipped", "lost"].map(|key| count(counts, key));
        verdict.agree(
            &format!("scanner: {kind} offered = sent + ... + lost"),
            count(counts, "offered"),
            accounted.iter().sum(),
        );
    }
    let evicted = count(&last, "messages_evicted");
    if evicted == 0 {
        verdict.agree("images sent = frames received", count(images, "sent"), count(&last, "received"));
        verdict.agree("poses sent = poses received", count(poses, "sent"), count(&last, "poses"));
    } else {
        // What a receiver that was held up let go may have been either.
        let gap =
            count(images, "sent") + count(poses, "sent") - count(&last, "received") - count(&last, "poses");
        verdict.agree("messages sent but not received = evicted", gap, evicted);
    }
    verdict.agree(
        "bad checksums sent = rejected",
        count(images, "bad_crc") + count(poses, "bad_crc"),
        count(&last, "rejected_crc"),
    );
    verdict.agree(
        "half messages sent = rejected",
        count(links, "halved"),
        count(&last, "rejected_truncated"),
    );
    verdict.agree(
        "received = answered + dropped + in flight",
        count(&last, "received"),
        count(&last, "answered") + count(&last, "dropped") + count(&last, "in_flight"),
    );
    let reasons = last.as_object().unwrap().iter().filter(|(key, _)| key.starts_with("dropped_"));
    let reasons: Vec<(&str, u64)> =
        reasons.map(|(key, n)| (&key[8..], n.as_u64().unwrap())).filter(|r| r.1 > 0).collect();
    verdict.agree("dropped = sum of the reasons", count(&last, "dropped"), reasons.iter().map(|r| r.1).sum());
    verdict.tell("dropped for", format!("{reasons:?}"));
    verdict.agree("answered = masks that the client got", count(&last, "answered"), got.masks);
    verdict.check("masks came in order, each once", got.in_order, got.in_order && got.masks > 0);
    verdict.agree("client: rejected + evicted = 0", got.rejected + got.evicted, 0);
    verdict.tell("client: other messages", got.others);
    verdict.tell(
        "deaf clients, messages dropped for them",
        format!("{deaf_clients}, {}", count(&last, "send_dropped")),
    );
    verdict.agree("stages that died = 0", count(&last, "restarts"), 0);
    let (cuts, back) = (count(links, "cut") + count(links, "halved"), &links["reconnects"]);
    verdict.check("connections ended on purpose", cuts, cuts > 0 && count(links, "cut") > 0);
    // The last one may have been the end.
    let returned = count(back, "count");
    verdict.check("times that the gateway came back", returned, returned == cuts || returned + 1 == cuts);
    let (mean_ms, longest_ms) = (back["mean_ms"].as_f64().unwrap(), back["max_ms"].as_f64().unwrap());
    verdict.timed(&weather, "reconnected after, mean", format!("{mean_ms:.1} ms"), true);
    verdict.timed(
        &weather,
        "reconnected after, at most",
        format!("{longest_ms:.1} ms"),
        longest_ms <= 1000.0,
    );
    verdict.timed(
        &weather,
        "ended after Ctrl-C in",
        format!("{ended_in:.2?}"),
        ended_in <= Duration::from_secs(1),
    );
    for (whose, memory) in [("gateway", &gateway_memory), ("scanner", &scanner_memory)] {
        let (quarters, slope) = (memory.quarters_mb(), memory.slope_kib_per_min());
        let growth = quarters.last().zip(quarters.first()).map_or(0.0, |(last, first)| last / first - 1.0);
        let shown: Vec<String> = quarters.iter().map(|mb| format!("{mb:.1}")).collect();
        let value = format!("{} MB, {slope:+.1} KiB/min", shown.join(", "));
        let well = growth <= 0.03;
        verdict.timed(
            &weather,
            &format!("{whose}: memory by quarters, {} samples", memory.settled().len()),
            value,
            well,
        );
    }
    let seconds = latencies_ms.len().max(1) as f64;
    let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / seconds;
    let (p50, p99) =
        (mean(&mut latencies_ms.iter().map(|ms| ms.0)), mean(&mut latencies_ms.iter().map(|ms| ms.1)));
    verdict.tell("attacks", &attacked);
    verdict.tell("clients refused", count(&last, "clients_refused"));
    let attacks = attacked.as_object().unwrap();
    verdict.check("kinds of attack", attacks.len(), attacks.values().all(|count| count.as_u64() > Some(0)));
    verdict.agree(
        "open gateway: received = answered + dropped + in flight",
        count(&open_last, "received"),
        count(&open_last, "answered") + count(&open_last, "dropped") + count(&open_last, "in_flight"),
    );
    let (frames, names) = (count(&open_last, "answered"), count(&open_last, "poses_evicted"));
    verdict.check(
        "open gateway: answered, names that went",
        format!("{frames}, {names}"),
        frames > 0 && names > 0,
    );
    verdict.agree("open gateway: stages that died = 0", count(&open_last, "restarts"), 0);
    let rate = |rates: &[f64]| rates.iter().sum::<f64>() / rates.len().max(1) as f64;
    let (quiet, under_attack) = (rate(&quiet_rates), rate(&rates));
    verdict.timed(
        &weather,
        "frames answered a second: quiet, under attack",
        format!("{quiet:.1}, {under_attack:.1}"),
        under_attack >= 0.9 * quiet,
    );
    verdict.tell("latency p50, p99, mean over the seconds", format!("{p50:.1}, {p99:.1} ms"));
    assert!(verdict.failures.is_empty(), "{:#?}\n{sent}\n{last}", verdict.failures);
}
