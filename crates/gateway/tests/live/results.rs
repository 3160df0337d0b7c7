//! What a client gets for a frame.

use serde_json::Value;
use ultramotion_gateway::books::DropReason;
use ultramotion_gateway::send::label_of;
use ultramotion_gateway::service::Gateway;
use ultramotion_igtlink::{AttributeKind, Content, Message, StatusCode, TrackedTool, Transform};

use crate::bench::small::{self, HEIGHT, WIDTH};
use crate::bench::{Scanner, client_of, config, next_of, picture, placement, small_pipelines, time_of};

#[test]
fn a_frame_becomes_a_mask_contours_points_and_words() {
    let scanner = Scanner::new();
    let gateway = Gateway::start(config(scanner.address()), small_pipelines()).unwrap();
    let client = client_of(&gateway);
    scanner.wait_for_gateway();
    scanner.send(&picture(3));

    // What must come out.
    let mut pipeline = small::pipeline(1, small::options());
    let pixels = small::picture(3);
    let packet = pipeline.process(&small::grey(0, &pixels)).unwrap();
    assert!(!packet.objects.is_empty());
    let inside = |x: usize, y: usize| {
        let first = (0..packet.objects.len()).find(|&i| packet.mask(i).unwrap().contains(x, y));
        first.map_or(0, |i| label_of(packet.objects[i].track_id))
    };

    let mask = next_of(&client, "UM_Mask");
    let mask = mask.decode().unwrap();
    assert_eq!(mask.timestamp, time_of(3), "the source's own timestamp, to the bit");
    for (key, value) in [("FrameId", "0"), ("Source", "Image_Probe"), ("CoordinateSystem", "LPS")] {
        assert_eq!(mask.metadata.get(key).as_deref(), Some(value));
    }
    assert_eq!(mask.metadata.get("State").as_deref(), Some(packet.state.as_str()));
    let latency_ms: f64 = mask.metadata.get("LatencyMs").unwrap().parse().unwrap();
    assert!(latency_ms > 0.0);
    assert_eq!(mask.metadata.get("AcquisitionLatencyMs"), None, "the scanner's clock is another");
    let Content::Image(image) = mask.content else { panic!("an IMAGE") };
    assert_eq!((image.placement, image.size), (placement(), [WIDTH as u16, HEIGHT as u16, 1]));
    let expected: Vec<u8> = (0..WIDTH * HEIGHT).map(|i| inside(i % WIDTH, i / WIDTH)).collect();
    assert!(expected.iter().any(|&p| p > 0));
    assert_eq!(*image.pixels, *expected);

    let contours = next_of(&client, "UM_Contours");
    let contours = contours.decode().unwrap();
    assert_eq!(contours.timestamp, time_of(3));
    let Content::PolyData(data) = contours.content else { panic!("a POLYDATA") };
    assert!(data.indices_are_valid() && !data.lines.is_empty());
    let ids: Vec<f32> = packet.objects.iter().map(|o| o.track_id as f32).collect();
    let attribute = |name: &[u8]| data.attributes.iter().find(|a| *a.name == *name).unwrap();
    for name in [&b"TrackId"[..], b"Class", b"Score"] {
        assert_eq!(attribute(name).kind, AttributeKind::PointScalars, "the one kind that all readers read");
        assert_eq!(attribute(name).values.len(), data.points.len());
    }
    assert!(attribute(b"TrackId").values.iter().all(|id| ids.contains(id)));
    // All points lie on edges of pixels, within the image as it is placed.
    for [x, y, z] in &data.points {
        let (column, row) = (f64::from(y - 20.0) / 0.25 + 29.5, f64::from(10.0 - x) / 0.5 + 21.5);
        assert_eq!(*z, -30.0);
        assert!((-0.5..=59.5).contains(&column) && (-0.5..=43.5).contains(&row), "{column} {row}");
        assert_eq!(((column + 0.5).fract(), (row + 0.5).fract()), (0.0, 0.0));
    }

    let objects = next_of(&client, "UM_Objects");
    let Content::String(text) = objects.decode().unwrap().content else { panic!("a STRING") };
    let words: Value = serde_json::from_str(&text.to_str().unwrap()).unwrap();
    assert_eq!(words["objects"].as_array().unwrap().len(), packet.objects.len());
    assert_eq!(words["objects"][0]["track_id"], packet.objects[0].track_id);
    assert_eq!(words["timestamp"].as_f64(), Some(time_of(3).as_secs_f64()));

    let points = next_of(&client, "UM_Points");
    let Content::Points(points) = points.decode().unwrap().content else { panic!("a POINT") };
    assert_eq!(points.len(), packet.objects.len());
    assert_eq!(points[0].owner, "UM_Mask");
    for (point, object) in points.iter().zip(&packet.objects) {
        let group = if object.confirmed { packet.label(object.class) } else { "Unselected" };
        assert_eq!((point.group, point.rgba[3]), (group.parse().unwrap(), 255));
    }

    let account = gateway.stop().account;
    assert_eq!((account.received, account.answered, account.in_flight), (1, 1, 0));
    assert!(account.balances());
}

#[test]
fn poses_are_passed_on_and_place_the_contours_in_the_trackers_frame() {
    let scanner = Scanner::new();
    let mut config = config(scanner.address());
    config.source.image_to_tracker = vec!["ImageToProbe".into(), "ProbeToTracker".into()];
    let mut calibration = [0.0; 16];
    for diagonal in [0, 5, 10, 15] {
        calibration[diagonal] = 1.0;
    }
    calibration[3] = 100.0;
    config.source.transforms.insert("ImageToProbe".into(), calibration);
    config.output.tracker_contours = true;
    let gateway = Gateway::start(config, small_pipelines()).unwrap();
    let client = client_of(&gateway);
    scanner.wait_for_gateway();
    let pose = Transform { translation: [0.0, 0.0, 7.0], ..Transform::IDENTITY };
    let tool = TrackedTool::new("ProbeToTracker".parse().unwrap(), pose);
    let tracking = Message::new("Tracker".parse().unwrap(), Content::TrackingData(vec![tool])).at(time_of(0));
    scanner.send(&tracking);
    scanner.send(&picture(0));

    let passed = next_of(&client, "Tracker");
    assert_eq!(passed.decode().unwrap(), tracking);
    let points = |device: &str| {
        let frame = next_of(&client, device);
        let Content::PolyData(data) = frame.decode().unwrap().content else { panic!("a POLYDATA") };
        data.points
    };
    let (image, tracker) = (points("UM_Contours"), points("UM_TrackerContours"));
    assert!(!image.is_empty());
    let moved: Vec<[f32; 3]> = image.iter().map(|[x, y, z]| [x + 100.0, *y, z + 7.0]).collect();
    assert_eq!(tracker, moved);

    // Much later there is no pose that would fit: what was shown is cleared, and nothing more is said about the
    // tracker's frame.
    scanner.send(&picture(1_000_000));
    assert_eq!(next_of(&client, "UM_Contours").header().timestamp, time_of(1_000_000));
    assert!(points("UM_TrackerContours").is_empty());
    scanner.send(&picture(1_000_001));
    loop {
        let client_next = next_of_any(&client);
        assert_ne!(client_next.header().device_name, "UM_TrackerContours");
        if client_next.header().device_name == "UM_Points"
            && client_next.header().timestamp == time_of(1_000_001)
        {
            break;
        }
    }
}

fn next_of_any(client: &ultramotion_igtlink::Client) -> ultramotion_igtlink::RawMessage {
    loop {
        if let ultramotion_igtlink::ClientEvent::Message(frame) =
            client.recv_timeout(crate::bench::SOON).unwrap()
        {
            return frame;
        }
    }
}

#[test]
fn header_version_1_has_no_metadata_and_outputs_can_be_off() {
    let scanner = Scanner::new();
    let mut config = config(scanner.address());
    config.output.version = 1;
    config.output.mask = false;
    config.output.points = false;
    config.output.prefix = "X".into();
    config.output.status = true;
    let gateway = Gateway::start(config, small_pipelines()).unwrap();
    let client = ultramotion_igtlink::Client::start(ultramotion_igtlink::ClientConfig::new(
        gateway.output_addr().unwrap().to_string(),
    ))
    .unwrap();
    next_of(&client, "XStatus");
    scanner.wait_for_gateway();
    scanner.send(&picture(0));
    for device in ["XContours", "XObjects"] {
        let message = loop {
            let message = next_of_any(&client);
            // Changes of state and keep-alives are a matter of time.
            if message.header().type_name != "STATUS" {
                break message;
            }
        };
        assert_eq!(message.header().device_name, device, "nothing else in between");
        let message = message.decode().unwrap();
        assert_eq!(message.version, ultramotion_igtlink::HeaderVersion::V1);
        assert!(message.metadata.is_empty());
    }
}

#[test]
fn the_state_is_told_when_it_changes_and_to_who_comes() {
    let mut scanner = Scanner::new();
    let address: std::net::SocketAddr = scanner.address().parse().unwrap();
    let gateway = Gateway::start(config(scanner.address()), small_pipelines()).unwrap();
    let client = ultramotion_igtlink::Client::start(ultramotion_igtlink::ClientConfig::new(
        gateway.output_addr().unwrap().to_string(),
    ))
    .unwrap();
    let status = |name: &str| loop {
        let frame = next_of(&client, "UM_Status");
        let Content::Status(status) = frame.decode().unwrap().content else { panic!("a STATUS") };
        if status.name == name {
            break status.into_owned();
        }
    };
    assert_eq!(status("WAITING").code, StatusCode::NotReady);
    scanner.wait_for_gateway();
    scanner.send(&picture(0));
    let scene = loop {
        let frame = next_of(&client, "UM_Status");
        let Content::Status(status) = frame.decode().unwrap().content else { panic!("a STATUS") };
        // The same is said again while there is nothing else to say.
        if status.name != "SILENT" && status.name != "WAITING" {
            assert_eq!(frame.header().timestamp, time_of(0), "a scene's state is of its frame");
            break status.name;
        }
    };
    assert!(["VISIBLE", "RELOCALIZING", "LOST"].iter().any(|&name| scene == name));
    scanner.server.shutdown();
    assert_eq!(status("SOURCE_LOST").code, StatusCode::TimeOut);
    scanner.server =
        ultramotion_igtlink::Server::start(ultramotion_igtlink::ServerConfig::listening_on(address)).unwrap();
    status("WAITING");
    let report = gateway.stop();
    assert_eq!(status("SHUTTING_DOWN").code, StatusCode::ShutDown);
    assert_eq!(report.reconnects, 1);
    assert_eq!(report.account.dropped_for(DropReason::Lost), 0);
}

#[test]
fn questions_are_answered() {
    let scanner = Scanner::new();
    let gateway = Gateway::start(config(scanner.address()), small_pipelines()).unwrap();
    let client = client_of(&gateway);
    let ask = |target: &str| {
        let query = ultramotion_igtlink::Query::new(ultramotion_igtlink::Verb::Get, target).unwrap();
        client.send(&Message::new("Question".parse().unwrap(), Content::Query(query))).unwrap();
        next_of(&client, "UM_Status")
    };
    assert!(matches!(ask("STATUS").decode().unwrap().content, Content::Status(_)));
    let Content::Capability(types) = ask("CAPABIL").decode().unwrap().content else { panic!("CAPABILITY") };
    assert!(types.iter().any(|&t| t == "POLYDATA"));
}
