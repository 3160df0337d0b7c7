//! The page: what it serves, to whom, and that nobody who looks is in the way.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message as Said, WebSocket};
use ultramotion_gateway::config::{GatewayConfig, PageConfig};
use ultramotion_gateway::service::Gateway;
use ultramotion_types::ResultPacket;

use crate::bench::small::{HEIGHT, WIDTH};
use crate::bench::{
    SOON, Scanner, client_of, complaints, config, next_of, picture, small, small_pipelines, squares, wait_for,
};

fn with_page(scanner: &Scanner) -> GatewayConfig {
    let page = PageConfig { listen: "127.0.0.1:0".into(), ..PageConfig::default() };
    GatewayConfig { page, ..config(scanner.address()) }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

/// Status and the whole answer.
fn get(address: SocketAddr, path: &str, headers: &str) -> (u16, String) {
    let mut stream = connect(address);
    // Whoever is refused may be cut off, also before all of it is written.
    let _ = write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, answer)
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

/// A viewer on the stream.
struct Viewer(WebSocket<MaybeTlsStream<TcpStream>>);

/// A frame as a viewer gets it.
struct Frame {
    head: Value,
    picture: Vec<u8>,
}

impl Viewer {
    fn open(address: SocketAddr, query: &str) -> Self {
        let (socket, _) = tungstenite::connect(format!("ws://{address}/api/stream{query}")).unwrap();
        if let MaybeTlsStream::Plain(stream) = socket.get_ref() {
            stream.set_read_timeout(Some(SOON)).unwrap();
        }
        let mut viewer = Viewer(socket);
        // The first thing that is said is the state: from then on the viewer is known.
        assert_eq!(viewer.text(|text| text["type"] == "state")["type"], "state");
        viewer
    }

    fn text(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            if let Said::Text(text) = self.0.read().unwrap() {
                let value: Value = serde_json::from_str(&text).unwrap();
                if wanted(&value) {
                    return value;
                }
            }
        }
    }

    fn frame(&mut self) -> Frame {
        loop {
            if let Said::Binary(bytes) = self.0.read().unwrap() {
                let (length, rest) = bytes.split_at(4);
                let (head, picture) = rest.split_at(u32::from_le_bytes(length.try_into().unwrap()) as usize);
                return Frame { head: serde_json::from_slice(head).unwrap(), picture: picture.to_vec() };
            }
        }
    }

    fn say(&mut self, value: &Value) {
        self.0.send(Said::text(value.to_string())).unwrap();
    }

    fn ask(&mut self, mut command: Value) -> Value {
        command["request"] = 7.into();
        self.say(&command);
        self.text(|text| text["type"] == "reply" && text["request"] == 7)
    }
}

#[test]
fn every_file_of_the_page_is_there_and_asks_nobody_else() {
    let scanner = Scanner::new();
    let gateway = Gateway::start(with_page(&scanner), squares(1)).unwrap();
    let address = gateway.page_addrs()[0];
    let (status, index) = get(address, "/", "");
    assert_eq!(status, 200);
    assert!(index.contains("content-security-policy: default-src 'none'; script-src 'self'"), "{index}");
    assert!(index.contains("Research software, not a medical device"));
    let mut paths = vec!["/icon.svg".to_owned(), "/style.css".into(), "/app.js".into()];
    let mut seen = 0;
    while let Some(path) = paths.get(seen).cloned() {
        seen += 1;
        let (status, file) = get(address, &path, "");
        assert_eq!(status, 200, "{path}");
        let elsewhere = file.replace("http://www.w3.org/2000/svg", "");
        assert!(!elsewhere.contains("http://") && !elsewhere.contains("https://"), "{path}");
        for import in file.split("from './").skip(1) {
            let import = format!("/{}", import.split('\'').next().unwrap());
            if !paths.contains(&import) {
                paths.push(import);
            }
        }
    }
    assert!(seen > 8, "the modules import each other: {paths:?}");
    assert_eq!(get(address, "/nowhere", "").0, 404);
    assert_eq!(get(address, "/../Cargo.toml", "").0, 404);
}

#[test]
fn a_viewer_sees_frames_as_they_came_with_their_packets() {
    let scanner = Scanner::new();
    let mut gateway = Gateway::start(with_page(&scanner), small_pipelines()).unwrap();
    let address = gateway.page_addrs()[0];
    scanner.wait_for_gateway();
    let mut viewer = Viewer::open(address, "?image=png");
    let mut other = Viewer::open(address, "");
    let mut packet = ResultPacket::default();
    let mut alone = small::pipeline(1, small::options());
    for number in 0..3 {
        scanner.send(&picture(number));
        let Frame { head, picture } = viewer.frame();
        let decoded = image::load_from_memory(&picture).unwrap().into_luma8();
        assert_eq!(decoded.into_raw(), small::picture(number), "frame {number}");
        assert_eq!(head["image"], json!({"type": "image/png", "width": WIDTH, "height": HEIGHT}));
        assert_eq!(head["spacing_mm"], json!([0.25, 0.5]));
        let pixels = small::picture(number);
        let mut frame = small::grey(number, &pixels);
        frame.timestamp_s = crate::bench::time_of(number).as_secs_f64();
        alone.process_into(&frame, &mut packet).unwrap();
        // Through text, as numbers have their digits there.
        let line = serde_json::to_string(&packet).unwrap();
        let mut expected: Value = serde_json::from_str(&line).unwrap();
        for key in ["latency_ms", "source"] {
            expected[key] = head["packet"][key].clone();
        }
        assert_eq!(head["packet"], expected, "the same line as everywhere");
        viewer.say(&json!({"type": "drawn", "frame_id": number}));
        let Frame { head, picture } = other.frame();
        assert_eq!(head["image"]["type"], "image/jpeg");
        assert_eq!(image::load_from_memory(&picture).unwrap().width() as usize, WIDTH);
        other.say(&json!({"type": "drawn", "frame_id": number}));
    }
    let report = wait_for(&mut gateway, "the answers", |r| r.account.answered == 3);
    let state: Value = serde_json::from_str(body(&get(address, "/api/state", "").1)).unwrap();
    assert_eq!(state["frames"]["answered"], 3);
    assert_eq!(state["latency_ms"]["minute"]["frames"], 3);
    assert_eq!(state["latency_ms"]["start"]["frames"], 3);
    let (minute, start) = (&state["latency_ms"]["minute"]["p50"], &state["latency_ms"]["start"]["p50"]);
    let ratio = minute.as_f64().unwrap() / start.as_f64().unwrap();
    assert!((0.9..1.1).contains(&ratio), "the same frames: {minute}, {start}");
    assert_eq!(state["per_frame"], json!({"h2d": 1, "d2h": 1, "host_syncs": 1, "allocations": 0}));
    assert_eq!(state["tracks"], report.tracks);
    assert_eq!(state["viewers"], 2);
    assert_eq!(get(address, "/readyz", "").0, 200);
}

#[test]
fn a_viewer_that_draws_nothing_gets_two_frames_and_holds_up_nobody() {
    let scanner = Scanner::new();
    let mut gateway = Gateway::start(with_page(&scanner), squares(1)).unwrap();
    let address = gateway.page_addrs()[0];
    let client = client_of(&gateway);
    scanner.wait_for_gateway();
    let mut deaf = Viewer::open(address, "");
    let mut keen = Viewer::open(address, "");
    for number in 0..20 {
        scanner.send(&picture(number));
        next_of(&client, "UM_Mask");
        assert_eq!(keen.frame().head["packet"]["frame_id"], number);
        keen.say(&json!({"type": "drawn", "frame_id": number}));
    }
    let mut frames = 0;
    loop {
        match deaf.0.read().unwrap() {
            Said::Binary(_) => frames += 1,
            // A reply is behind all frames that were sent before it.
            Said::Text(text) if text.contains("reply") => break,
            _ if frames < 2 => {}
            _ => deaf.say(&json!({"type": "nonsense", "request": 1})),
        }
    }
    assert_eq!(frames, 2);
    let last = wait_for(&mut gateway, "the answers", |r| r.account.answered == 20);
    assert_eq!(last.account.dropped(), 0);
}

#[test]
fn figures_follow_the_conventions_and_agree_with_the_books() {
    let scanner = Scanner::new();
    let mut gateway = Gateway::start(with_page(&scanner), small_pipelines()).unwrap();
    let address = gateway.page_addrs()[0];
    let client = client_of(&gateway);
    scanner.wait_for_gateway();
    assert_eq!(get(address, "/readyz", "").0, 503, "nothing is answered yet");
    for number in 0..5 {
        scanner.send(&picture(number));
        next_of(&client, "UM_Mask");
    }
    wait_for(&mut gateway, "the answers", |r| r.account.answered == 5);
    let (status, answer) = get(address, "/metrics", "");
    assert!(status == 200 && answer.contains("text/plain; version=0.0.4"), "{answer}");
    let text = body(&answer);
    let value = |name: &str| -> f64 {
        let lines = text.lines().filter_map(|line| line.rsplit_once(' '));
        let found: Vec<f64> =
            lines.filter(|(key, _)| *key == name).map(|(_, value)| value.parse().unwrap()).collect();
        assert_eq!(found.len(), 1, "{name} in {text}");
        found[0]
    };
    let dropped: f64 = text
        .lines()
        .filter(|line| line.starts_with("ultramotion_frames_dropped_total{"))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
        .sum();
    let answered = value("ultramotion_frames_answered_total");
    assert_eq!(
        value("ultramotion_frames_received_total"),
        answered + dropped + value("ultramotion_frames_in_flight")
    );
    assert_eq!(answered, 5.0);
    assert_eq!(value("ultramotion_frame_latency_seconds_count"), answered);
    assert_eq!(value("ultramotion_stage_latency_seconds_count{stage=\"segment\"}"), answered);
    let total = value("ultramotion_frame_latency_seconds_sum");
    let stages = ["upload", "detect", "match", "segment", "download"];
    let parts: f64 = stages
        .iter()
        .map(|s| value(&format!("ultramotion_stage_latency_seconds_sum{{stage=\"{s}\"}}")))
        .sum();
    assert!(parts > 0.0 && parts <= total, "{parts} of {total} s");
    let state = gateway.report().state;
    assert_eq!(value(&format!("ultramotion_state{{state=\"{state}\"}}")), 1.0);

    // The metrics that the dashboard asks for are there.
    let board = include_str!("../../../../docs/grafana/ultramotion.json");
    let asked: std::collections::BTreeSet<&str> = board
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("ultramotion_"))
        .collect();
    assert!(asked.len() > 8, "{asked:?}");
    for name in asked {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name} is asked for, and not there");
    }

    let Ok(mut promtool) = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    else {
        println!("skipped: promtool is not installed (Debian's prometheus), so the names were not checked");
        return;
    };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    assert!(
        said.status.success(),
        "{}{}",
        String::from_utf8_lossy(&said.stdout),
        String::from_utf8_lossy(&said.stderr)
    );
}

#[test]
fn who_asks_for_another_host_or_from_another_page_is_refused() {
    let scanner = Scanner::new();
    let gateway = Gateway::start(with_page(&scanner), squares(1)).unwrap();
    let address = gateway.page_addrs()[0];
    let mut stream = connect(address);
    write!(stream, "GET /api/state HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 421") && !answer.contains("answered"), "{answer}");
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (origin, expected) in [("http://evil.example", 403), ("null", 403)] {
        let (status, _) = get(address, "/api/stream", &format!("{upgrade}Origin: {origin}\r\n"));
        assert_eq!(status, expected, "{origin}");
    }
}

#[test]
fn requests_that_do_not_end_hold_up_nobody() {
    let scanner = Scanner::new();
    let mut gateway = Gateway::start(with_page(&scanner), squares(1)).unwrap();
    let address = gateway.page_addrs()[0];
    let client = client_of(&gateway);
    scanner.wait_for_gateway();
    let halves: Vec<TcpStream> = (0..40).map(|_| connect(address)).collect();
    halves.iter().for_each(|mut half| half.write_all(b"GET / HTTP/1.1\r\nHost: ").unwrap());
    let (status, _) = get(address, "/", &format!("X-Long: {}\r\n", "x".repeat(100_000)));
    assert!(status == 431 || status == 0, "{status}");
    let mut garbage = connect(address);
    let _ = garbage.write_all(&[0xff; 4096]);
    let _ = garbage.read_to_end(&mut Vec::new());
    assert_eq!(get(address, "/healthz", "").0, 200);
    scanner.send(&picture(0));
    next_of(&client, "UM_Mask");
    assert_eq!(wait_for(&mut gateway, "the answer", |r| r.account.answered == 1).restarts, 0);
}

#[test]
fn a_page_that_cannot_be_served_is_done_without() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let scanner = Scanner::new();
    let page = PageConfig { listen: taken.local_addr().unwrap().to_string(), ..PageConfig::default() };
    let mut gateway =
        Gateway::start(GatewayConfig { page, ..config(scanner.address()) }, squares(1)).unwrap();
    assert!(gateway.page_addrs().is_empty());
    assert_eq!(complaints(&gateway), [("page", 1)]);
    let client = client_of(&gateway);
    scanner.wait_for_gateway();
    scanner.send(&picture(0));
    next_of(&client, "UM_Mask");
    wait_for(&mut gateway, "the answer", |r| r.account.answered == 1);
}

#[test]
fn what_cannot_be_followed_is_refused_with_a_reason() {
    let scanner = Scanner::new();
    let mut gateway = Gateway::start(with_page(&scanner), squares(1)).unwrap();
    let address = gateway.page_addrs()[0];
    scanner.wait_for_gateway();
    let mut viewer = Viewer::open(address, "");
    let reason = |reply: Value| {
        assert_eq!(reply["ok"], false, "{reply}");
        reply["reason"].as_str().unwrap().to_owned()
    };
    let follow = |x: f64, y: f64| json!({"type": "follow", "points": [{"x": x, "y": y}]});
    assert!(reason(viewer.ask(follow(1.0, 1.0))).contains("no frame yet"));
    scanner.send(&picture(0));
    wait_for(&mut gateway, "the answer", |r| r.account.answered == 1);
    assert!(reason(viewer.ask(follow(WIDTH as f64 + 1.0, 1.0))).contains("outside the frame"));
    assert!(
        reason(viewer.ask(json!({"type": "follow", "points": [{"x": null, "y": 1}]}))).contains("no command")
    );
    assert!(reason(viewer.ask(json!({"type": "shout"}))).contains("no command"));
    assert!(reason(viewer.ask(json!({"type": "save", "frame_id": 0}))).contains("--record"));
}

#[test]
fn a_moment_is_saved_beside_the_recording() {
    let scanner = Scanner::new();
    let folder = tempfile::tempdir().unwrap();
    let mut config = with_page(&scanner);
    config.record.folder = folder.path().join("session");
    config.record.warn_below_mb = 0;
    let gateway = Gateway::start(config, squares(2)).unwrap();
    scanner.wait_for_gateway();
    let mut viewer = Viewer::open(gateway.page_addrs()[0], "");
    scanner.send(&picture(4));
    let shown = viewer.frame().head["packet"].clone();
    let reply = viewer.ask(json!({"type": "save", "frame_id": shown["frame_id"]}));
    let path = reply["path"].as_str().unwrap_or_else(|| panic!("{reply}"));
    assert_eq!(image::open(path).unwrap().into_luma8().into_raw(), small::picture(4));
    let line: Value = serde_json::from_slice(&std::fs::read(path.replace(".png", ".json")).unwrap()).unwrap();
    assert_eq!(line, shown);
    let gone = viewer.ask(json!({"type": "save", "frame_id": 99}));
    assert!(gone["reason"].as_str().unwrap().contains("last 10 seconds"), "{gone}");
    gateway.stop();
}
