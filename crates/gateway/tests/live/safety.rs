//! Beside a peer that behaves as PlusServer does: a tool that was lost is nowhere, and what is missing is named.

use std::time::{Duration, SystemTime};

use ultramotion_gateway::books::DropReason;
use ultramotion_gateway::config::GatewayConfig;
use ultramotion_gateway::service::Gateway;
use ultramotion_igtlink::{
    Client, ClientEvent, Content, CoordinateSystem, Endian, Message, RawMessage, Timestamp, Transform, Video,
};

use crate::bench::small::{HEIGHT, WIDTH};
use crate::bench::{
    SOON, Scanner, client_of, complaints, config, next_of, picture, placement, squares, time_of, wait_for,
    wait_for_complaint,
};
use crate::plus::{Plus, PlusClient, PlusConfig, TrackedFrame};

/// Times further apart than a pose may be from its frame.
fn far_apart(number: u64) -> Timestamp {
    time_of(10 * number)
}

fn tracker_config(plus: &Plus) -> GatewayConfig {
    let mut config = config(plus.address());
    config.output.tracker_contours = true;
    config
}

/// Everything about the frame of this time, up to its points, which come last.
fn all_about(client: &Client, time: Timestamp) -> Vec<RawMessage> {
    let mut messages = Vec::new();
    loop {
        let event = client.recv_timeout(SOON).unwrap();
        let ClientEvent::Message(raw) = event else { continue };
        if raw.header().timestamp != time {
            continue;
        }
        let is_last = raw.header().device_name == "UM_Points";
        messages.push(raw);
        if is_last {
            return messages;
        }
    }
}

/// Of a frame: the outlines in the tracker's frame, if any were sent, and what is said about its placement.
fn placed(client: &Client, time: Timestamp) -> (Option<usize>, Option<String>) {
    let messages = all_about(client, time);
    let of = |device: &str| {
        messages.iter().find(|raw| raw.header().device_name == device).map(|raw| raw.decode().unwrap())
    };
    let outlines = of("UM_TrackerContours").map(|message| match message.content {
        Content::PolyData(data) => data.lines.len(),
        other => panic!("{other}"),
    });
    let status = of("UM_Mask").unwrap().metadata.get("PlacementStatus").map(|status| status.into_owned());
    (outlines, status)
}

#[test]
fn a_scanner_that_begins_with_version_1_is_raised_to_2_and_asked_for_tdata() {
    let plus = Plus::new(PlusConfig::default());
    let gateway = Gateway::start(config(plus.address()), squares(2)).unwrap();
    let scanner = plus.accept();
    let client = scanner.wait_greeted();
    assert_eq!((client.version, client.tdata), (2, true));
    assert_eq!(client.heard, [("STATUS".to_owned(), 2), ("STT_TDATA".to_owned(), 2)]);
    assert_eq!(complaints(&gateway), []);
}

/// How a scanner tells that a tool was lost, or does not.
struct Form {
    what: &'static str,
    plus: PlusConfig,
    status: &'static str,
    /// What is said about the placement of images in the probe's frame, and in the reference's, of whose tools the
    /// probe is lost.
    placements: [Option<&'static str>; 2],
}

fn forms() -> Vec<Form> {
    let base = PlusConfig { valid_transforms_only: false, ..PlusConfig::default() };
    let with = |message_types: &[&'static str], max_version| PlusConfig {
        message_types: message_types.to_vec(),
        max_version,
        ..base.clone()
    };
    vec![
        Form {
            what: "the status of a TRANSFORM",
            plus: PlusConfig { image_fields: false, ..with(&["TRANSFORM", "IMAGE"], 2) },
            status: "MISSING",
            placements: [None, Some("INVALID")],
        },
        Form {
            what: "the status of a TDATA",
            plus: PlusConfig { image_fields: false, ..with(&["TDATA", "IMAGE"], 2) },
            status: "INVALID",
            placements: [None, Some("INVALID")],
        },
        Form {
            what: "a field of the IMAGE alone, poses left out",
            plus: PlusConfig { valid_transforms_only: true, ..with(&["TRANSFORM", "IMAGE"], 2) },
            status: "OUT_OF_VIEW",
            placements: [None, Some("OUT_OF_VIEW")],
        },
        Form {
            what: "a TRANSFORM that is the identity, in version 1",
            plus: with(&["TRANSFORM", "IMAGE"], 1),
            status: "MISSING",
            placements: [None, Some("INVALID")],
        },
        Form {
            what: "a TDATA that is the identity, in version 1",
            plus: with(&["TDATA", "IMAGE"], 1),
            status: "MISSING",
            placements: [None, Some("INVALID")],
        },
        Form {
            what: "poses that end, in version 1",
            plus: PlusConfig { valid_transforms_only: true, ..with(&["TRANSFORM", "IMAGE"], 1) },
            status: "MISSING",
            placements: [None, Some("MISSING")],
        },
    ]
}

#[test]
fn a_lost_tool_in_every_form_gives_no_result_in_the_trackers_frame() {
    for Form { what, plus, status, placements } in forms() {
        for (frame, placement) in ["Probe", "Reference"].into_iter().zip(placements) {
            let max_version = plus.max_version;
            let plus = Plus::new(PlusConfig {
                image: ("Image", frame),
                transforms: vec!["ProbeToTracker", "ReferenceToTracker"],
                ..plus.clone()
            });
            let mut config = tracker_config(&plus);
            config.source.version = max_version;
            let mut gateway = Gateway::start(config, squares(2)).unwrap();
            let client = client_of(&gateway);
            let scanner = plus.accept();
            assert_eq!(scanner.wait_greeted().version, max_version);
            let mut number = 0;
            let mut send = |status| {
                number += 1;
                let tools = vec![("ProbeToTracker", 7.0, status), ("ReferenceToTracker", 9.0, "OK")];
                let time = far_apart(number);
                scanner.send(&TrackedFrame { time, number: 0, tools });
                placed(&client, time)
            };
            let (outlines, _) = send("OK");
            assert!(outlines.is_some_and(|lines| lines > 0), "{what}, {frame}: a tool that is seen");
            let (outlines, said) = send(status);
            assert_eq!(outlines, Some(0), "{what}, {frame}: what was shown is cleared");
            assert_eq!(said.as_deref(), placement, "{what}, {frame}");
            wait_for(&mut gateway, what, |r| (r.state == "UNPLACED") == placement.is_some());
            let (outlines, _) = send(status);
            assert_eq!(outlines, None, "{what}, {frame}: nothing while it is lost");
            let (outlines, _) = send("OK");
            assert!(outlines.is_some_and(|lines| lines > 0), "{what}, {frame}: it is seen again");
        }
    }
}

#[test]
fn the_identity_is_taken_if_the_configuration_says_so() {
    for believed in [false, true] {
        let plus =
            Plus::new(PlusConfig { valid_transforms_only: false, max_version: 1, ..PlusConfig::default() });
        let mut config = tracker_config(&plus);
        config.source.version = 1;
        config.source.identity_is_valid = believed;
        let gateway = Gateway::start(config, squares(2)).unwrap();
        let client = client_of(&gateway);
        let scanner = plus.accept();
        scanner.wait_greeted();
        for number in 0..2 {
            let tools = vec![("ProbeToTracker", 0.0, "OK")];
            scanner.send(&TrackedFrame { time: far_apart(number), number: 0, tools });
            assert_eq!(placed(&client, far_apart(number)).0.is_some(), believed);
        }
        let said = complaints(&gateway).iter().any(|(kind, _)| *kind == "identity");
        assert_eq!(said, !believed);
    }
}

const LONG: &str = "UltrasoundProbeTipToOpticalTracker";

#[test]
fn names_over_20_characters_are_met_in_every_form() {
    for (message_types, max_version) in [
        (["TRANSFORM", "IMAGE"], 2),
        (["TRANSFORM", "IMAGE"], 1),
        (["TDATA", "IMAGE"], 2),
        (["TDATA", "IMAGE"], 1),
    ] {
        let plus = Plus::new(PlusConfig {
            message_types: message_types.to_vec(),
            transforms: vec![LONG],
            valid_transforms_only: false,
            max_version,
            ..PlusConfig::default()
        });
        let mut config = tracker_config(&plus);
        config.source.version = max_version;
        config.source.image_to_tracker = vec![LONG.to_owned()];
        let gateway = Gateway::start(config, squares(2)).unwrap();
        let client = client_of(&gateway);
        let scanner = plus.accept();
        scanner.wait_greeted();
        let send = |number, status| {
            let tools = vec![(LONG, 7.0, status)];
            scanner.send(&TrackedFrame { time: far_apart(number), number: 0, tools });
            placed(&client, far_apart(number)).0
        };
        let what = format!("{message_types:?} in version {max_version}");
        assert!(send(0, "OK").is_some_and(|lines| lines > 0), "{what}");
        assert_eq!(send(1, "MISSING"), Some(0), "{what}");
    }
}

#[test]
fn a_transform_that_never_comes_is_named_with_those_that_do() {
    let plus = Plus::new(PlusConfig { image: ("Image", "Reference"), ..PlusConfig::default() });
    let mut gateway = Gateway::start(tracker_config(&plus), squares(2)).unwrap();
    let client = client_of(&gateway);
    let scanner = plus.accept();
    scanner.wait_greeted();
    for number in 0..12 {
        let tools = vec![("ProbeToTracker", 7.0, "OK")];
        scanner.send(&TrackedFrame { time: far_apart(number), number, tools });
        assert_eq!(placed(&client, far_apart(number)).0, None);
    }
    wait_for_complaint(&mut gateway, "transform_missing");
    assert_eq!(complaints(&gateway), [("transform_missing", 1)]);
}

#[test]
fn a_friendly_name_does_not_say_what_an_image_is_placed_in() {
    for friendly_name in ["Ultrasound", "Scan_Probe"] {
        let plus = Plus::new(PlusConfig { friendly_name: Some(friendly_name), ..PlusConfig::default() });
        for configured in [false, true] {
            let mut config = tracker_config(&plus);
            if configured {
                config.source.image_to_tracker = vec!["ProbeToTracker".to_owned()];
            }
            let gateway = Gateway::start(config, squares(2)).unwrap();
            let client = client_of(&gateway);
            let scanner = plus.accept();
            scanner.wait_greeted();
            scanner.send(&TrackedFrame {
                time: far_apart(0),
                number: 0,
                tools: vec![("ProbeToTracker", 7.0, "OK")],
            });
            assert_eq!(placed(&client, far_apart(0)).0.is_some(), configured, "{friendly_name}");
        }
    }
}

/// Seconds before now.
fn ago(seconds: f64) -> Timestamp {
    Timestamp::from(SystemTime::now() - Duration::from_secs_f64(seconds))
}

#[test]
fn frames_from_before_the_connection_are_stale() {
    let plus = Plus::new(PlusConfig::default());
    let mut config = config(plus.address());
    config.stream.max_lag_ms = 10_000;
    let mut gateway = Gateway::start(config, squares(2)).unwrap();
    let client = client_of(&gateway);
    let scanner = plus.accept();
    scanner.wait_greeted();
    let frame = |time| TrackedFrame { time, number: 0, tools: vec![("ProbeToTracker", 7.0, "OK")] };
    for buffered in 0..20 {
        scanner.send(&frame(ago(40.0 - f64::from(buffered))));
    }
    let present = ago(0.0);
    scanner.send(&frame(present));
    assert_eq!(next_of(&client, "UM_Mask").header().timestamp, present);
    let account = wait_for(&mut gateway, "the answer", |r| r.account.answered == 1).account;
    assert_eq!((account.received, account.dropped_for(DropReason::Stale)), (21, 20));
    assert_eq!(complaints(&gateway), [("backlog", 20)]);
}

#[test]
fn frames_without_a_timestamp_have_that_of_their_arrival() {
    let scanner = Scanner::new();
    let mut config = config(scanner.address());
    config.output.tracker_contours = true;
    let gateway = Gateway::start(config, squares(2)).unwrap();
    let client = client_of(&gateway);
    scanner.wait_for_gateway();
    let pose = Transform { translation: [1.0, 2.0, 3.0], ..Transform::IDENTITY };
    let mut times = Vec::new();
    for number in 0..3 {
        scanner.send(&Message::new("ProbeToTracker".parse().unwrap(), Content::Transform(pose)));
        scanner.send(&picture(number).at(Timestamp::NONE));
        let mask = next_of(&client, "UM_Mask");
        let mask = mask.decode().unwrap();
        assert_eq!(mask.metadata.get("TimeSource").as_deref(), Some("arrival"));
        times.push(mask.timestamp);
        assert_eq!(
            next_of(&client, "UM_TrackerContours").header().timestamp,
            times[number as usize],
            "its own pose"
        );
    }
    assert!(times.is_sorted() && times[0] > ago(600.0), "{times:?}");
    assert_eq!(complaints(&gateway), [("unstamped", 3)]);
}

#[test]
fn what_is_configured_is_asked_for() {
    // A server that by default sends nothing that is read.
    let plus = Plus::new(PlusConfig { message_types: vec!["USMESSAGE"], ..PlusConfig::default() });
    let mut config = tracker_config(&plus);
    config.source.ask_for =
        vec!["Image_Reference".into(), "ProbeToTracker".into(), "ReferenceToTracker".into()];
    let gateway = Gateway::start(config, squares(2)).unwrap();
    let client = client_of(&gateway);
    let scanner = plus.accept();
    let state = scanner.wait("the request", |client| client.heard.len() == 2);
    assert_eq!((state.version, state.tdata), (2, true));
    assert_eq!(state.heard[0], ("CLIENTINFO".to_owned(), 2));
    let tools = vec![("ProbeToTracker", 7.0, "OK"), ("ReferenceToTracker", 9.0, "OK")];
    scanner.send(&TrackedFrame { time: far_apart(0), number: 0, tools });
    let (outlines, status) = placed(&client, far_apart(0));
    assert_eq!((outlines.is_some(), status.as_deref()), (true, Some("OK")));
}

#[test]
fn pictures_in_a_form_that_is_not_read_are_named_once() {
    for message_type in ["USMESSAGE", "VIDEO"] {
        let plus = Plus::new(PlusConfig { message_types: vec![message_type], ..PlusConfig::default() });
        let mut gateway = Gateway::start(config(plus.address()), squares(2)).unwrap();
        let scanner: PlusClient = plus.accept();
        scanner.wait_greeted();
        for number in 0..15 {
            if message_type == "VIDEO" {
                let size = [4, 3, 1];
                let video = Video {
                    endian: Endian::NATIVE,
                    codec: *b"VP90",
                    frame_type: 1,
                    coordinates: CoordinateSystem::Ras,
                    size,
                    placement: placement(),
                    subvolume_offset: [0; 3],
                    subvolume_size: size,
                    data: vec![7; 20].into(),
                };
                scanner.send_message(&Message::new("Video".parse().unwrap(), Content::Video(video)));
            } else {
                scanner.send(&TrackedFrame { time: far_apart(number), number, tools: Vec::new() });
            }
        }
        wait_for_complaint(&mut gateway, "unread");
        assert_eq!(complaints(&gateway), [("unread", 1)]);
    }
}

#[test]
fn a_tracked_frame_has_image_and_poses_in_one() {
    for (device, way) in [("Image_Probe", vec![]), ("", vec!["ProbeToTracker".to_owned()])] {
        let plus = Plus::new(PlusConfig { message_types: vec!["TRACKEDFRAME"], ..PlusConfig::default() });
        let mut config = tracker_config(&plus);
        config.source.device = device.into();
        config.source.image_to_tracker = way;
        let gateway = Gateway::start(config, squares(2)).unwrap();
        let client = client_of(&gateway);
        let scanner = plus.accept();
        scanner.wait_greeted();
        let send = |number, status| {
            let tools = vec![("ProbeToTracker", 7.0, status)];
            scanner.send(&TrackedFrame { time: far_apart(number), number: 0, tools });
            all_about(&client, far_apart(number))
        };
        let seen = send(0, "OK");
        let of = |device: &str| {
            seen.iter().find(|raw| raw.header().device_name == device).unwrap().decode().unwrap()
        };
        let Content::Image(mask) = of("UM_Mask").content else { panic!("an IMAGE") };
        assert_eq!((mask.size, mask.coordinates), ([WIDTH as u16, HEIGHT as u16, 1], CoordinateSystem::Ras));
        let differs = |a: [f32; 3], b: [f32; 3]| a.iter().zip(b).any(|(a, b)| (a - b).abs() > 1e-4);
        assert!(!differs(mask.placement.center, placement().center), "{:?}", mask.placement);
        let points = |device: &str| match of(device).content {
            Content::PolyData(data) => data.points,
            other => panic!("{other}"),
        };
        for ([x, y, z], tracker) in points("UM_Contours").into_iter().zip(points("UM_TrackerContours")) {
            assert!(!differs([x + 7.0, y, z], tracker));
        }
        let lost = send(1, "MISSING");
        let outlines =
            lost.iter().find(|raw| raw.header().device_name == "UM_TrackerContours").unwrap().decode();
        assert!(matches!(outlines.unwrap().content, Content::PolyData(data) if data.points.is_empty()));
        // A device without a name does not say that its images are the probe's own.
        let expected: &[(&str, u64)] = if device.is_empty() { &[("placement", 1)] } else { &[] };
        assert_eq!(complaints(&gateway), expected);
    }
}
