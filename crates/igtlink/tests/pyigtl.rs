//! pyigtl as a real peer, as client and as server: every type that it can read or write, with
//! metadata, in both directions.

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use ultramotion_igtlink::*;

const WATCHDOG: Duration = Duration::from_secs(60);

/// A running `pyigtl_peer.py` that ends with the test.
struct Peer {
    process: Child,
    output: BufReader<ChildStdout>,
}

impl Peer {
    fn start(python: &str, arguments: &[&str]) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pyigtl_peer.py");
        let mut process = Command::new(python)
            .arg(script)
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python starts, as it did before");
        let output = BufReader::new(process.stdout.take().expect("a pipe"));
        Self { process, output }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("readable output");
        assert!(!line.is_empty(), "the Python peer ended early: its own words are above");
        line.trim_end().to_owned()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn name<const N: usize>(text: &str) -> FixedString<N> {
    text.parse().expect("a name that fits")
}

const TIME: Timestamp = Timestamp::from_nanos(1_600_000_000, 123_456_789);

fn with_extras<'a>(device: &str, content: Content<'a>) -> Message<'a> {
    let mut message = Message { message_id: 77, ..Message::new(name(device), content).at(TIME) };
    message.metadata.push("Operator", "Zo\u{eb}");
    message.metadata.push("Depth", "50 mm");
    message
}

/// What we send.
fn questions() -> Vec<Message<'static>> {
    let placement = Placement::from_world_from_ijk(
        [[0.5, 0.0, 0.0, 1.0], [0.0, 0.25, 0.0, 2.0], [0.0, 0.0, 2.0, 3.0], [0.0, 0.0, 0.0, 1.0]],
        [4, 3, 1],
    );
    let pixels: Vec<u8> = (0..12).map(|n| n * 20).collect();
    let pose =
        Transform { columns: [[0., 1., 0.], [-1., 0., 0.], [0., 0., 1.]], translation: [10., 20., 30.] };
    let point = |text: &str, position| Point {
        group: name("Landmark"),
        diameter: 1.5,
        owner: name("Image"),
        ..Point::new(name(text), position)
    };
    vec![
        with_extras("Image", Content::Image(Image::grey8(4, 3, pixels).placed(placement))),
        with_extras("Transform", Content::Transform(pose)),
        with_extras("String", Content::string("Gr\u{fc}\u{df}e")),
        with_extras("Point", Content::Points(vec![point("tip", [1., 2., 3.]), point("entry", [4., 5., 6.])])),
    ]
}

/// Whether pyigtl understood [`questions`].
fn check_found(found: &str) {
    let found: serde_json::Value = serde_json::from_str(found).expect("valid JSON");
    for (key, type_name) in
        [("image", "IMAGE"), ("transform", "TRANSFORM"), ("string", "STRING"), ("point", "POINT")]
    {
        let message = &found[key];
        assert_eq!(message["type"], type_name);
        assert_eq!(message["version"], 2);
        assert_eq!(message["message_id"], 77);
        assert_eq!(message["metadata"], serde_json::json!({"Operator": "Zo\u{eb}", "Depth": "50 mm"}));
        let time = message["timestamp"].as_f64().expect("a number");
        assert!((time - TIME.as_secs_f64()).abs() < 1e-6, "{time}");
    }
    let image = &found["image"];
    assert_eq!(image["shape"], serde_json::json!([1, 3, 4]));
    assert_eq!(image["dtype"], "uint8");
    assert_eq!(image["system"], "lps");
    assert_eq!(image["pixels"], serde_json::json!((0..12).map(|n| n * 20).collect::<Vec<_>>()));
    let spaced = [[0.5, 0.0, 0.0, 1.0], [0.0, 0.25, 0.0, 2.0], [0.0, 0.0, 2.0, 3.0], [0.0, 0.0, 0.0, 1.0]];
    assert_eq!(image["matrix"], serde_json::json!(spaced));
    let turned = [[0.0, -1.0, 0.0, 10.0], [1.0, 0.0, 0.0, 20.0], [0.0, 0.0, 1.0, 30.0], [0.0, 0.0, 0.0, 1.0]];
    assert_eq!(found["transform"]["matrix"], serde_json::json!(turned));
    assert_eq!(found["string"]["string"], "Gr\u{fc}\u{df}e");
    let point = &found["point"];
    assert_eq!(point["names"], serde_json::json!(["tip", "entry"]));
    assert_eq!(point["groups"], serde_json::json!(["Landmark", "Landmark"]));
    assert_eq!(point["owners"], serde_json::json!(["Image", "Image"]));
    assert_eq!(point["rgba"], serde_json::json!([[255, 255, 0, 255], [255, 255, 0, 255]]));
    assert_eq!(point["positions"], serde_json::json!([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]));
    assert_eq!(point["diameters"], serde_json::json!([1.5, 1.5]));
}

/// Whether this is what pyigtl sent as its answer of this number.
fn check_answer(number: usize, raw: &RawMessage) {
    let message = raw.decode().expect("a message");
    if number == 5 {
        assert_eq!(message.content, Content::string("plain"));
        assert_eq!((message.version, message.timestamp.subsec_nanos()), (HeaderVersion::V1, 500_000_000));
        return;
    }
    assert_eq!((message.version, message.message_id), (HeaderVersion::V2, number as u32));
    let metadata: Vec<_> = message.metadata.iter().collect();
    let depth = format!("{number} mm");
    assert_eq!(metadata, [("Sender".into(), "pyigtl".into()), ("Depth".into(), (&depth[..]).into())]);
    assert_eq!(message.timestamp, Timestamp::from_nanos(1_700_000_000 + number as u32, 250_000_000));
    match (&message.content, number) {
        (Content::Image(image), 0) => {
            assert_eq!((image.size, image.components, image.scalar), ([4, 3, 2], 1, ScalarType::Int16));
            assert_eq!(image.coordinates, CoordinateSystem::Ras);
            let pixels: Vec<i16> = image
                .native_pixels()
                .as_chunks::<2>()
                .0
                .iter()
                .map(|&pair| i16::from_ne_bytes(pair))
                .collect();
            assert_eq!(pixels, (0..24).map(|n| n - 5).collect::<Vec<_>>());
            let expected =
                [[0.5, 0.0, 0.0, 1.0], [0.0, 0.25, 0.0, 2.0], [0.0, 0.0, 2.0, 3.0], [0.0, 0.0, 0.0, 1.0]];
            assert_eq!(image.placement.world_from_ijk(image.size), expected);
        }
        (Content::Transform(pose), 1) => {
            let turned = [[0., -1., 0., 10.], [1., 0., 0., 20.], [0., 0., 1., 30.], [0., 0., 0., 1.]];
            assert_eq!(pose.to_matrix(), turned);
        }
        (Content::String(text), 2) => assert_eq!(text.to_str().as_deref(), Some("greetings")),
        (Content::Points(points), 3) => {
            let point = |text, position, rgba, diameter, group| Point {
                name: name(text),
                group: name(group),
                rgba,
                position,
                diameter,
                owner: name("PyImage"),
            };
            let expected = [
                point("a", [1., 2., 3.], [1, 2, 3, 4], 0.5, "g"),
                point("b", [4., 5., 6.], [5, 6, 7, 8], 1.5, "h"),
            ];
            assert_eq!(*points, expected);
        }
        (Content::PolyData(data), 4) => {
            let mut expected = PolyData::closed_contour(vec![[0., 0., 0.], [1., 0., 0.], [0., 1., 0.]]);
            expected.polygons.push(&[0, 1, 2]);
            assert_eq!(*data, expected);
            assert!(data.indices_are_valid());
        }
        (other, _) => panic!("answer {number} is a {}", other.type_name()),
    }
    // What pyigtl wrote is what we would write.
    let mut theirs = Vec::new();
    raw.write_to(&mut theirs);
    assert_eq!(message.to_bytes().expect("a message"), theirs);
}

fn done() -> Message<'static> {
    Message::new(name("Done"), Content::string("done"))
}

#[test]
fn pyigtl_as_client() {
    let Some(python) = support::python_with_pyigtl() else { return };
    let server = Server::start(ServerConfig::listening_on("127.0.0.1:0".parse().expect("an address")))
        .expect("a free port");
    let port = server.local_addrs()[0].port().to_string();
    let mut peer = Peer::start(&python, &["client", &port]);
    assert!(server.wait_clients(1, WATCHDOG), "pyigtl did not connect");
    for message in questions() {
        assert_eq!(server.broadcast(&message), Ok(1));
    }
    check_found(&peer.line());
    let mut answers = 0;
    while answers < 6 {
        match server.recv_timeout(WATCHDOG).expect("an event") {
            ServerEvent::Message { raw, .. } => {
                check_answer(answers, &raw);
                answers += 1;
            }
            ServerEvent::Connected { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(server.broadcast(&done()), Ok(1));
    assert_eq!(peer.line(), "done");
    assert_eq!(server.stats().traffic.rejects.total(), 0);
}

#[test]
fn pyigtl_as_server() {
    let Some(python) = support::python_with_pyigtl() else { return };
    let mut peer = Peer::start(&python, &["server"]);
    let client = Client::start(ClientConfig::new(format!("127.0.0.1:{}", peer.line()))).expect("a thread");
    assert!(client.wait_connected(WATCHDOG), "pyigtl did not take the connection");
    for message in questions() {
        client.send(&message).expect("connected");
    }
    check_found(&peer.line());
    let mut answers = 0;
    while answers < 6 {
        match client.recv_timeout(WATCHDOG).expect("an event") {
            ClientEvent::Message(raw) => {
                check_answer(answers, &raw);
                answers += 1;
            }
            ClientEvent::Connected { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    client.send(&done()).expect("connected");
    assert_eq!(peer.line(), "done");
    assert_eq!(client.stats().traffic.rejects.total(), 0);
}
