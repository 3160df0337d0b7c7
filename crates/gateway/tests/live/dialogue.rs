//! What clients are told beside results: the source's own messages, signs of life, answers.

use std::io::Read;
use std::net::TcpStream;

use ultramotion_gateway::service::{Gateway, Perceive};
use ultramotion_igtlink::{
    Client, ClientConfig, ClientEvent, Command, Content, FixedString, HeaderVersion, Message, Orientation,
    Point, Position, QTransform, Query, RawMessage, StatusCode, Text, TrackedTool, Transform, Verb,
};
use ultramotion_pipeline::PipelineOptions;
use ultramotion_tracking::follow::FollowConfig;

use crate::bench::{
    SOON, Scanner, client_of, complaints, config, next_of, picture, small, squares, time_of, wait_for,
    wait_for_complaint,
};

fn named(name: &str, content: Content<'static>, number: u64) -> Message<'static> {
    Message::new(name.parse().unwrap(), content).at(time_of(number))
}

fn pose() -> QTransform {
    QTransform { position: [1.0, 2.0, 3.0], quaternion: [0.0, 0.0, 0.6, 0.8] }
}

/// The messages that are passed on, by device, until the mask of a frame that comes last.
fn passed_on(scanner: &Scanner, client: &Client, messages: &[Message<'_>]) -> Vec<RawMessage> {
    messages.iter().for_each(|message| scanner.send(message));
    scanner.send(&picture(77));
    let mut passed = Vec::new();
    loop {
        let ClientEvent::Message(raw) = client.recv_timeout(SOON).unwrap() else {
            continue;
        };
        let device = raw.header().device_name.to_string_lossy().into_owned();
        if device == "UM_Mask" {
            return passed;
        }
        if device != "UM_Status" {
            passed.push(raw);
        }
    }
}

#[test]
fn poses_that_3d_slicer_does_not_read_are_converted_or_withheld() {
    let position =
        Position { position: [1.0, 2.0, 3.0], orientation: Orientation::Quaternion([0.0, 0.0, 0.6, 0.8]) };
    let tool = TrackedTool::new("Needle".parse().unwrap(), pose());
    let mut position = named("A", Content::Position(position), 1);
    position.metadata.push("TransformStatus", "OK");
    let messages = [
        position,
        named("B", Content::QTransform(pose()), 2),
        named("C", Content::QTrackingData(vec![tool]), 3),
    ];
    for convert in [true, false] {
        let scanner = Scanner::new();
        let mut config = config(scanner.address());
        config.output.convert_poses = convert;
        let gateway = Gateway::start(config, squares(1)).unwrap();
        let client = client_of(&gateway);
        scanner.wait_for_gateway();
        let passed = passed_on(&scanner, &client, &messages);
        assert_eq!(passed.len(), if convert { 3 } else { 0 });
        for (raw, original) in passed.iter().zip(&messages) {
            let message = raw.decode().unwrap();
            assert_eq!((message.device_name, message.timestamp), (original.device_name, original.timestamp));
            assert_eq!(message.metadata, original.metadata);
            let transform = match message.content {
                Content::Transform(transform) => transform,
                Content::TrackingData(tools) => {
                    assert_eq!((tools.len(), tools[0].name), (1, "Needle".parse().unwrap()));
                    tools[0].pose
                }
                other => panic!("{other}"),
            };
            let expected = [[0.28, -0.96, 0.0, 1.0], [0.96, 0.28, 0.0, 2.0], [0.0, 0.0, 1.0, 3.0]];
            for (row, expected) in transform.to_matrix().iter().zip(expected) {
                row.iter().zip(expected).for_each(|(a, b)| assert!((a - b).abs() < 1e-6, "{transform:?}"));
            }
        }
    }
}

#[test]
fn clients_of_version_1_get_version_1_and_no_tool_that_was_lost() {
    let scanner = Scanner::new();
    let mut config = config(scanner.address());
    config.output.version = 1;
    let gateway = Gateway::start(config, squares(1)).unwrap();
    let client = client_of(&gateway);
    scanner.wait_for_gateway();
    let transform = Transform { translation: [1.0, 2.0, 3.0], ..Transform::IDENTITY };
    let with = |mut message: Message<'static>, key: &'static str, status: &'static str| {
        message.metadata.push(key, status);
        message
    };
    let tools = ["Seen", "Lost"].map(|name| TrackedTool::new(name.parse().unwrap(), transform));
    let tools = named("TDATA_2Elem", Content::TrackingData(tools.to_vec()), 1);
    let passed = passed_on(
        &scanner,
        &client,
        &[
            with(named("A", Content::Transform(transform), 1), "TransformStatus", "OK"),
            with(named("B", Content::Transform(transform), 1), "TransformStatus", "MISSING"),
            with(with(tools, "SeenStatus", "OK"), "LostStatus", "INVALID"),
        ],
    );
    assert!(passed.iter().all(|raw| raw.header().version == HeaderVersion::V1));
    let devices: Vec<String> = passed.iter().map(|raw| raw.header().device_name.to_string()).collect();
    assert_eq!(devices, ["A", "TDATA_2Elem"]);
    let Content::TrackingData(tools) = passed[1].decode().unwrap().content else { panic!("a TDATA") };
    assert_eq!((tools.len(), tools[0].name), (1, "Seen".parse().unwrap()));
}

#[test]
fn the_source_itself_is_passed_on_under_names_of_ours() {
    let scanner = Scanner::new();
    let mut config = config(scanner.address());
    config.output.source = true;
    config.output.transforms = false;
    let gateway = Gateway::start(config, squares(1)).unwrap();
    let client = client_of(&gateway);
    scanner.wait_for_gateway();
    let transform = Transform { translation: [1.0, 2.0, 3.0], ..Transform::IDENTITY };
    let tool = TrackedTool::new("Needle".parse().unwrap(), transform);
    let mut tools = named("TDATA_1Elem", Content::TrackingData(vec![tool]), 1);
    tools.metadata.push("NeedleStatus", "OK");
    let long = named("StylusTipToReference", Content::Transform(transform), 1);
    let passed = passed_on(&scanner, &client, &[tools, long]);
    let messages: Vec<Message<'_>> = passed.iter().map(|raw| raw.decode().unwrap()).collect();
    let names: Vec<String> = messages.iter().map(|message| message.device_name.to_string()).collect();
    assert_eq!(names, ["UM_TDATA_1Elem", "UM_StylusTipToRefere", "UM_Image_Probe"]);
    let Content::TrackingData(tools) = &messages[0].content else { panic!("a TDATA") };
    assert_eq!(tools[0].name, "UM_Needle");
    assert_eq!(messages[0].metadata.get("UM_NeedleStatus").as_deref(), Some("OK"));
    assert_eq!(messages[1].metadata.get("IGTL_DEVICE_NAME").as_deref(), Some("UM_StylusTipToReference"));
    assert_eq!((messages[2].timestamp, &messages[2].content), (time_of(77), &picture(77).content));
}

#[test]
fn a_sign_of_life_says_how_it_is() {
    let scanner = Scanner::new();
    let mut config = config(scanner.address());
    config.output.keep_alive_s = 0.005;
    let gateway = Gateway::start(config, squares(1)).unwrap();
    let client = client_of(&gateway);
    scanner.wait_for_gateway();
    scanner.server.shutdown();
    // The first is the news, the others are repeated.
    let mut told = 0;
    while told < 3 {
        let message = next_of(&client, "UM_Status");
        let Content::Status(status) = message.decode().unwrap().content else { panic!("a STATUS") };
        if status.name == "SOURCE_LOST" {
            assert_eq!((status.code, message.header().version), (StatusCode::TimeOut, HeaderVersion::V2));
            told += 1;
        } else {
            assert_eq!(told, 0, "nothing else after it: {status:?}");
        }
    }
}

#[test]
fn commands_are_answered() {
    let scanner = Scanner::new();
    let gateway = Gateway::start(config(scanner.address()), squares(3)).unwrap();
    let client = client_of(&gateway);
    scanner.wait_for_gateway();
    let ask = |id: u32, name: &str, xml: &'static str| {
        let command = Command { id, name: name.parse().unwrap(), text: Text::new(xml) };
        client.send(&named("PlusServer", Content::Command(command), 0)).unwrap();
        let reply = next_of(&client, "PlusServer");
        let message = reply.decode().unwrap();
        let Content::CommandReply(reply) = message.content else { panic!("an RTS_COMMAND") };
        assert_eq!((reply.id, reply.name), (id, name.parse().unwrap()));
        let said = |key| message.metadata.get(key).map(|value| value.into_owned()).unwrap_or_default();
        (said("Status"), said("Message"), reply.text.to_str().unwrap().into_owned())
    };
    let (status, said, xml) = ask(7, "GetStatus", "<Command Name=\"GetStatus\"/>");
    assert_eq!((status.as_str(), said.starts_with("WAITING: ")), ("SUCCESS", true));
    assert_eq!(
        xml,
        format!("<CommandReply Name=\"GetStatus\" Status=\"SUCCESS\" Message=\"{said}\"></CommandReply>")
    );
    let (status, said, _) = ask(8, "StartRecording", "<Command Name=\"StartRecording\"/>");
    assert_eq!((status.as_str(), said.contains("StartRecording")), ("FAIL", true));
    // Of three squares with scores of 1/2, 1/3 and 1/4 two are left.
    let threshold =
        "<Command Name=\"SetParameter\"><Parameter Name=\"score_threshold\" Value=\"0.3\"/></Command>";
    assert_eq!(ask(9, "SetParameter", threshold).0, "SUCCESS");
    scanner.send(&picture(0));
    assert_eq!(
        next_of(&client, "UM_Mask").decode().unwrap().metadata.get("TrackIds").as_deref(),
        Some("1,2")
    );
    let Content::Points(points) = next_of(&client, "UM_Points").decode().unwrap().content else {
        panic!("POINT")
    };
    assert_eq!(points.len(), 2);

    let query = Content::Query(Query::new(Verb::Start, "TDATA").unwrap());
    client.send(&named("", query, 0)).unwrap();
    let reply = loop {
        let reply = next_of(&client, "UM_Status");
        if reply.header().type_name == "RTS_TDATA" {
            break reply;
        }
    };
    assert_eq!(
        reply.decode().unwrap().content,
        Content::Query(Query::answer("TDATA".parse().unwrap(), true))
    );
}

#[test]
fn peers_that_do_not_know_version_2_are_recognised() {
    // A scanner that ends each connection at the first message.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut gateway = Gateway::start(config(listener.local_addr().unwrap().to_string()), squares(1)).unwrap();
    for _ in 0..2 {
        let (mut scanner, _) = listener.accept().unwrap();
        let _ = scanner.read(&mut [0; 58]).unwrap();
    }
    wait_for_complaint(&mut gateway, "source_version");
    gateway.stop();

    // Clients that do so, and one that is only short of time.
    let scanner = Scanner::new();
    let mut gateway = Gateway::start(config(scanner.address()), squares(1)).unwrap();
    let visit = |gateway: &Gateway| {
        let mut client = TcpStream::connect(gateway.output_addr().unwrap()).unwrap();
        let _ = client.read(&mut [0; 58]).unwrap();
    };
    let polite = Client::start(ClientConfig::new(gateway.output_addr().unwrap().to_string())).unwrap();
    next_of(&polite, "UM_Status");
    polite.send(&named("", Content::Status(ultramotion_igtlink::Status::OK), 0)).unwrap();
    visit(&gateway);
    crate::bench::wait_for(&mut gateway, "one visitor to be gone", |r| r.clients == 1);
    assert_eq!(complaints(&gateway), []);
    visit(&gateway);
    wait_for_complaint(&mut gateway, "output_version");
}

#[test]
fn clients_that_know_version_1_alone_get_it_beside_others() {
    let scanner = Scanner::new();
    let mut config = config(scanner.address());
    config.output.version = 0;
    let mut gateway = Gateway::start(config, squares(0)).unwrap();
    let address = gateway.output_addr().unwrap();
    for _ in 0..2 {
        // At the sight of version 2 it leaves.
        let mut old = TcpStream::connect(address).unwrap();
        let _ = old.read(&mut [0; 58]).unwrap();
    }
    wait_for_complaint(&mut gateway, "output_version");
    let old = client_of(&gateway);
    let new = Client::start(ClientConfig::new(address.to_string())).unwrap();
    next_of(&new, "UM_Status");
    new.send(&named("", Content::Query(Query::new(Verb::Get, "CAPABIL").unwrap()), 0)).unwrap();
    while next_of(&new, "UM_Status").header().type_name != "CAPABILITY" {}
    scanner.wait_for_gateway();
    let transform = Transform { translation: [1.0, 2.0, 3.0], ..Transform::IDENTITY };
    scanner.send(&named("ProbeToTracker", Content::Transform(transform), 0));
    scanner.send(&picture(0));
    for device in ["ProbeToTracker", "UM_Mask", "UM_Points"] {
        let (first, second) = (next_of(&old, device), next_of(&new, device));
        assert_eq!((first.header().version, second.header().version), (HeaderVersion::V1, HeaderVersion::V2));
        if let Content::Points(points) = first.decode().unwrap().content {
            assert_eq!(
                (points.len(), points[0].rgba[3]),
                (1, 0),
                "nothing to be seen, which clears what was"
            );
        }
    }
}

#[test]
fn points_are_followed_where_they_lie_and_let_go_when_they_are_gone() {
    let scanner = Scanner::new();
    let follow =
        FollowConfig { least_iou: 0.0, most_of_frame: 1.0, most_growth: 1000.0, ..FollowConfig::default() };
    let build = move || {
        let options = PipelineOptions { max_prompts: 2, follow, ..small::options() };
        Ok(Box::new(small::pipeline(1, options)) as Box<dyn Perceive>)
    };
    let mut gateway = Gateway::start(config(scanner.address()), Box::new(build)).unwrap();
    let client = client_of(&gateway);
    scanner.wait_for_gateway();
    let point = |name: &str, position| Point::new(FixedString::truncated(name), position);
    let send = |points: Vec<Point>| {
        client.send(&Message::new("F".parse().unwrap(), Content::Points(points))).unwrap();
    };
    // Replies and results come in any order.
    let replies = std::cell::RefCell::new(Vec::new());
    let next = || {
        let ClientEvent::Message(raw) = client.recv_timeout(SOON).unwrap() else { return None };
        match raw.decode().unwrap().content {
            Content::Status(status) if raw.header().device_name == "UM_Pointed" => {
                let words = String::from_utf8_lossy(&status.message).into_owned();
                replies.borrow_mut().push((status.code, words));
                None
            }
            Content::String(text) if raw.header().device_name == "UM_Objects" => {
                Some(serde_json::from_str::<serde_json::Value>(&text.to_str().unwrap()).unwrap())
            }
            _ => None,
        }
    };
    let deadline = std::time::Instant::now() + SOON;
    let said = |wanted: &str| loop {
        assert!(std::time::Instant::now() < deadline, "waited for {wanted}: {replies:?}");
        let found =
            replies.borrow().iter().position(|(_, words): &(StatusCode, String)| words.contains(wanted));
        if let Some(found) = found {
            break replies.borrow_mut().remove(found).0;
        }
        next();
    };
    let prompted = |number: u64| {
        scanner.send(&picture(number));
        let value = std::iter::from_fn(|| Some(next())).find_map(|value| value).unwrap();
        let objects = value["objects"].as_array().unwrap().clone();
        let labels = objects.iter().map(|object| object["label"].as_str().unwrap().to_owned());
        labels.filter(|label| label.starts_with("F-")).collect::<Vec<_>>()
    };
    send(vec![point("F-1", [10.0, 20.0, -30.0])]);
    said("no frame was answered yet");
    assert!(prompted(0).is_empty());
    wait_for(&mut gateway, "the answer", |r| r.account.answered == 1);
    // The middle of the image, and a point that is not on it.
    send(vec![point("F-2", [10.0, 20.0, -30.0]), point("F-3", [10.0, 20.0, -20.0])]);
    // What can be obeyed is, with the next frame.
    assert_eq!(said("F-3 is not followed: it lies 10.0 mm off the image"), StatusCode::IllegalInstruction);
    assert_eq!(prompted(1), ["F-2"]);
    said("F-1: heard");
    assert_eq!(said("F-2: heard"), StatusCode::Ok);
    wait_for(&mut gateway, "the answer", |r| r.account.answered == 2);
    // The same list again says nothing new; without the point it is let go.
    send(vec![point("F-2", [10.0, 20.0, -30.0]), point("F-3", [10.0, 20.0, -20.0])]);
    send(vec![point("F-4", [900.0, 20.0, -30.0])]);
    // Once this is said, what the list changes is on its way to the next frame.
    assert_eq!(said("F-4 is not followed: (30, -"), StatusCode::IllegalInstruction);
    assert!(prompted(2).is_empty());
    for heard in ["F-2: heard", "F-3: heard"] {
        assert_eq!(said(heard), StatusCode::Ok);
    }
    assert!(replies.borrow().is_empty(), "{replies:?}");
}
