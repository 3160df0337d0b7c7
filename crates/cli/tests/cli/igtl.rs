//! `ultramotion igtl decode`: messages in words, and what is wrong with them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use ultramotion_igtlink::{
    Attribute, AttributeKind, Bind, BindChild, Command, Content, HeaderVersion, Image, Message, NdArray,
    Orientation, Placement, Point, PolyData, Position, QTransform, Query, Sensor, Status, StatusCode,
    Timestamp, TrackedTool, Transform, Unit, Verb,
};

use crate::program::{Finished, command, start};

/// The conformance corpus: `igtl/` in the folder beside the checkout, or where `ULTRAMOTION_SHARED` points.
#[allow(clippy::print_stdout)] // says why it skips
fn corpus() -> Option<PathBuf> {
    let shared = std::env::var_os("ULTRAMOTION_SHARED").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared")),
        PathBuf::from,
    );
    let corpus = shared.join("igtl");
    if !corpus.join("upstream-fixtures.json").is_file() {
        println!("skipped: no OpenIGTLink corpus at {}", corpus.display());
        return None;
    }
    Some(corpus)
}

fn read_json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn from_hex(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap()).collect()
}

/// Decodes bytes that come through a pipe.
fn decode(bytes: &[u8], more: &[&str]) -> Finished {
    let folder = tempfile::tempdir().unwrap();
    let mut child = command(folder.path(), &[&["igtl", "decode", "-"], more].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let finished: Finished = child.wait_with_output().unwrap().into();
    assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
    finished
}

fn lines(finished: &Finished) -> Vec<Value> {
    finished.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn official_messages_are_told() {
    let Some(corpus) = corpus() else { return };
    let fixtures = read_json(&corpus.join("upstream-fixtures.json"))["fixtures"].take();
    let fixtures = fixtures.as_object().unwrap();
    assert_eq!(fixtures.len(), 24);
    // All of them one after another, as over a network.
    let mut stream = Vec::new();
    for fixture in fixtures.values() {
        stream.extend(from_hex(fixture["wire_hex"].as_str().unwrap()));
    }
    for more in [&["--json"][..], &["--json", "--full"]] {
        let finished = decode(&stream, more);
        assert_eq!((finished.code, finished.stderr.as_str()), (0, ""));
        let lines = lines(&finished);
        assert_eq!(lines.len(), 24);
        let mut offset = 0;
        for ((name, fixture), line) in fixtures.iter().zip(&lines) {
            assert_eq!(line["type"], fixture["type_id"], "{name}");
            assert_eq!(line["version"], fixture["version"], "{name}");
            assert_eq!(line["device_name"], fixture["device_name"], "{name}");
            assert_eq!(line["size"], fixture["body_size"].as_u64().unwrap() + 58, "{name}");
            assert_eq!(line["offset"], offset, "{name}");
            assert!(line["content"].as_object().is_some_and(|content| !content.is_empty()), "{name}");
            assert!(line["error"].is_null() && line["content"]["summary"].is_null(), "{name}");
            offset += line["size"].as_u64().unwrap();
        }
    }
    let text = decode(&stream, &[]);
    assert_eq!(text.code, 0);
    assert!(text.stdout.contains("First patient age: \"22\""), "{}", text.stdout);
}

#[test]
fn malformed_messages_are_named_by_class() {
    let Some(corpus) = corpus() else { return };
    let index = read_json(&corpus.join("negative/index.json"))["entries"].take();
    let entries = index.as_object().unwrap();
    assert_eq!(entries.len(), 32);
    for (name, entry) in entries {
        let path = corpus.join("negative").join(entry["path"].as_str().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let finished = start(folder.path(), &["igtl", "decode", path.to_str().unwrap(), "--json"]);
        assert_eq!(finished.code, 1, "{name}");
        let lines = lines(&finished);
        let class = &lines[0]["error"]["class"];
        assert_eq!(*class, entry["error_class"], "{name}: {}", finished.stdout);
        assert_eq!(lines[0]["offset"], 0, "{name}");
        assert!(finished.stderr.starts_with("error: ") && finished.stderr.lines().count() == 1, "{name}");
        let text = start(folder.path(), &["igtl", "decode", path.to_str().unwrap()]);
        assert_eq!(text.code, 1, "{name}");
        assert!(text.stdout.contains(class.as_str().unwrap()), "{name}: {}", text.stdout);
    }
}

/// A message of each kind that a person would look at.
fn examples() -> Vec<Message<'static>> {
    let placement = Placement { step_i: [0.1, 0.0, 0.0], step_j: [0.0, 0.2, 0.0], ..Placement::IDENTITY };
    let image = Image::grey8(8, 4, (0..32).collect::<Vec<u8>>()).placed(placement);
    let mut contour = PolyData::closed_contour(vec![[0.0, 0.0, 0.0], [1.5, 0.0, 0.0], [1.5, 2.0, 0.0]]);
    contour.attributes.push(Attribute {
        kind: AttributeKind::PointScalars,
        components: 1,
        name: b"score".into(),
        values: vec![0.5, 0.75, 1.0],
    });
    let pose = Transform { translation: [1.0, 2.0, 3.5], ..Transform::IDENTITY };
    let quaternion = QTransform { position: [1.0, 2.0, 3.0], quaternion: [0.0, 0.0, 0.0, 1.0] };
    let bind = Bind {
        children: vec![
            BindChild::new("Inner", &Content::string("inside")).unwrap(),
            BindChild::new("Pose", &Content::Transform(pose)).unwrap(),
        ],
    };
    let position = Position { position: [4.0, 5.0, 6.0], orientation: Orientation::None };
    let unit = Unit::new(0, &[(Unit::METER, 1), (Unit::SECOND, -1)]).unwrap();
    let contents = vec![
        ("Image_Reference", Content::Image(image)),
        ("ProbeToTracker", Content::Transform(pose)),
        ("Needle", Content::Position(position)),
        ("Outline", Content::PolyData(contour)),
        ("Note", Content::string("a line\u{1b}[2J that would clear the screen")),
        ("State", Content::Status(Status::new(StatusCode::Busy, "warming up"))),
        ("Target", Content::Points(vec![Point::new("here".parse().unwrap(), [7.0, 8.0, 9.0])])),
        ("TDATA_1Elem", Content::TrackingData(vec![TrackedTool::new("Probe".parse().unwrap(), pose)])),
        ("Q", Content::QTrackingData(vec![TrackedTool::new("Probe".parse().unwrap(), quaternion)])),
        ("Speed", Content::Sensor(Sensor { status: 0, unit, values: vec![0.25, 1e-9] })),
        ("Numbers", Content::NdArray(NdArray::from_f64(vec![2, 2], &[1.0, 2.0, 3.0, f64::NAN]))),
        ("Both", Content::Bind(bind)),
        (
            "Do",
            Content::Command(Command {
                id: 7,
                name: "Freeze".parse().unwrap(),
                text: ultramotion_igtlink::Text::new("<Command/>"),
            }),
        ),
        ("", Content::Query(Query::new(Verb::Get, "CAPABIL").unwrap())),
        ("Other", Content::Unknown { type_name: "XYZ".parse().unwrap(), bytes: vec![1, 2, 255].into() }),
    ];
    let mut messages: Vec<Message<'static>> = contents
        .into_iter()
        .map(|(device, content)| {
            Message::new(device.parse().unwrap(), content)
                .at(Timestamp::from_nanos(1_700_000_000, 250_000_000))
        })
        .collect();
    messages[0].metadata.push("FrameNumber", "12");
    messages[1].version = HeaderVersion::V1;
    messages
}

fn bytes_of(messages: &[Message<'_>]) -> Vec<u8> {
    messages.iter().flat_map(|message| message.to_bytes().unwrap()).collect()
}

#[test]
fn text() {
    let finished = decode(&bytes_of(&examples()), &[]);
    assert_eq!((finished.code, finished.stderr.as_str()), (0, ""));
    assert!(!finished.stdout.contains('\u{1b}'), "nothing that a terminal obeys");
    insta::assert_snapshot!(finished.stdout);
}

#[test]
fn json() {
    let finished = decode(&bytes_of(&examples()), &["--json"]);
    assert_eq!((finished.code, lines(&finished).len()), (0, examples().len()));
    insta::assert_snapshot!(finished.stdout);
    let full = decode(&bytes_of(&examples()[..1]), &["--json", "--full"]);
    let pixels = lines(&full)[0]["content"]["pixels"].take();
    assert_eq!(pixels.as_array().unwrap().len(), 32);
}

#[test]
fn what_is_wrong() {
    let whole = bytes_of(&examples()[..3]);
    let first = examples()[0].encoded_len().unwrap();
    // A bad checksum and a bad body cost one message each, …
    let mut damaged = whole.clone();
    damaged[first - 1] ^= 1;
    insta::assert_snapshot!("bad_checksum", outcome(&damaged));
    let mut bind = Bind::default();
    bind.children.push(BindChild {
        type_name: "TRANSFORM".parse().unwrap(),
        device_name: b"X"[..].into(),
        body: b"short"[..].into(),
    });
    let inside =
        [bytes_of(&[Message::new("B".parse().unwrap(), Content::Bind(bind))]), whole.clone()].concat();
    insta::assert_snapshot!("bad_child", outcome(&inside));
    // … a bad header and an early end cost the rest.
    let mut damaged = whole.clone();
    damaged[first + 1] = 9;
    insta::assert_snapshot!("bad_header", outcome(&damaged));
    insta::assert_snapshot!("cut_short", outcome(&whole[..whole.len() - 5]));
    insta::assert_snapshot!("empty", outcome(&[]));

    let folder = tempfile::tempdir().unwrap();
    let finished = start(folder.path(), &["igtl", "decode", "nowhere.bin"]);
    assert_eq!(finished.code, 1);
    insta::assert_snapshot!("missing_file", finished.stderr);
}

/// A claim of 2^40 bytes costs no memory, and messages in messages no stack.
#[test]
fn hostile_input_is_no_danger() {
    let mut claim = bytes_of(&examples()[1..2]);
    claim[42..50].copy_from_slice(&(1u64 << 40).to_be_bytes());
    let finished = decode(&claim, &["--json"]);
    assert_eq!((finished.code, lines(&finished)[0]["error"]["class"].as_str()), (1, Some("SHORT_BUFFER")));

    let mut content = Content::string("in the middle");
    for _ in 0..2_000 {
        content = Content::Bind(Bind { children: vec![BindChild::new("", &content).unwrap()] });
    }
    let nested = bytes_of(&[Message::new("Deep".parse().unwrap(), content)]);
    let finished = decode(&nested, &[]);
    assert_eq!((finished.code, finished.stderr.as_str()), (0, ""));
}

fn outcome(bytes: &[u8]) -> String {
    let finished = decode(bytes, &[]);
    let problems: Vec<&str> = finished
        .stdout
        .lines()
        .filter(|line| !line.starts_with(' ') || line.contains("class:") || line.contains("reason:"))
        .collect();
    format!("exit {}\n{}\n{}", finished.code, finished.stderr.trim_end(), problems.join("\n").trim_end())
}
