//! The conformance corpus: every official message has the right values and comes back with the
//! same bytes; every malformed one is rejected, in the right class.

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use ultramotion_igtlink::*;

fn official(corpus: &Path) -> BTreeMap<String, Vec<u8>> {
    support::upstream_messages(corpus).into_iter().collect()
}

#[test]
fn official_messages_come_back_with_the_same_bytes() {
    let Some(corpus) = support::corpus() else { return };
    let messages = official(&corpus);
    assert_eq!(messages.len(), 24);
    for (name, bytes) in &messages {
        let message = Message::decode(bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(!matches!(message.content, Content::Unknown { .. } | Content::Unavailable(_)), "{name}");
        assert_eq!(message.to_bytes().unwrap_or_else(|e| panic!("{name}: {e}")), *bytes, "{name}");
        assert_eq!(message.clone().into_owned(), message, "{name}");
        let mut exact = vec![0; bytes.len()];
        assert_eq!(message.encode_to_slice(&mut exact), Ok(bytes.len()), "{name}");
        assert_eq!(exact, *bytes, "{name}");
        let short = message.encode_to_slice(&mut exact[1..]);
        assert_eq!(short, Err(EncodeError::BufferTooSmall { needed: bytes.len(), have: bytes.len() - 1 }));
    }
}

#[test]
fn every_cut_of_an_official_message_is_short() {
    let Some(corpus) = support::corpus() else { return };
    for (name, bytes) in &official(&corpus) {
        for len in 0..bytes.len() {
            let error = Message::decode(&bytes[..len]).expect_err("a part of a message");
            assert_eq!(error.class(), ErrorClass::ShortBuffer, "{name} cut to {len}");
        }
    }
}

#[test]
fn every_flipped_bit_of_an_official_body_is_seen() {
    let Some(corpus) = support::corpus() else { return };
    for (name, bytes) in &official(&corpus) {
        let mut damaged = bytes.clone();
        for at in HEADER_SIZE..bytes.len() {
            damaged[at] ^= 1 << (at % 8);
            let error = Message::decode(&damaged).expect_err("a damaged message");
            assert_eq!(error.class(), ErrorClass::CrcMismatch, "{name}, byte {at}");
            damaged[at] = bytes[at];
        }
    }
}

#[test]
fn malformed_messages_are_rejected_in_their_class() {
    let Some(corpus) = support::corpus() else { return };
    let folder = corpus.join("negative");
    let text = std::fs::read_to_string(folder.join("index.json")).expect("readable index");
    let index: serde_json::Value = serde_json::from_str(&text).expect("valid JSON");
    let entries = index["entries"].as_object().expect("an object of entries");
    assert_eq!(entries.len(), 32);
    for (name, entry) in entries {
        let class = match entry["error_class"].as_str().expect("a class") {
            "SHORT_BUFFER" => ErrorClass::ShortBuffer,
            "MALFORMED" => ErrorClass::Malformed,
            "CRC_MISMATCH" => ErrorClass::CrcMismatch,
            other => panic!("{name}: unknown class {other}"),
        };
        let bytes =
            std::fs::read(folder.join(entry["path"].as_str().expect("a path"))).expect("readable message");
        match Message::decode(&bytes) {
            Ok(message) => panic!("{name} was taken for {message:?}"),
            Err(error) => assert_eq!(error.class(), class, "{name}: {error}"),
        }
        // A stream must not take it either.
        let mut decoder = StreamDecoder::new(DecoderConfig::default());
        let taken = decoder.feed(&mut &bytes[..]).is_some_and(|r| r.is_ok_and(|raw| raw.decode().is_ok()));
        assert!(!taken, "{name} was taken from a stream");
    }
}

#[test]
fn official_headers_have_the_right_values() {
    let Some(corpus) = support::corpus() else { return };
    for (name, bytes) in &official(&corpus) {
        let message = Message::decode(bytes).expect(name);
        let (device, time) = match name.as_str() {
            "command" => ("", 0),
            "commandFormat2" => ("OpticalTracker", 0),
            _ => ("DeviceName", 1_234_567_892),
        };
        assert_eq!(message.device_name, device, "{name}");
        // The reference library's test puts a number of seconds where the fraction belongs.
        assert_eq!((message.timestamp.seconds(), message.timestamp.fraction()), (0, time), "{name}");
        let version2 = name.ends_with("Format2") || name == "videometa";
        assert_eq!(message.version, if version2 { HeaderVersion::V2 } else { HeaderVersion::V1 }, "{name}");
        if name.ends_with("Format2") {
            assert_eq!(message.message_id, 1, "{name}");
            let metadata: Vec<_> = message.metadata.iter().collect();
            let expected = [("First patient age", "22"), ("Second patient age", "25")];
            assert_eq!(metadata, expected.map(|(key, value)| (key.into(), value.into())), "{name}");
            assert_eq!(message.metadata.get("Second patient age").as_deref(), Some("25"));
        } else {
            assert!(message.metadata.is_empty(), "{name}");
        }
    }
}

/// The matrix that the reference library's tests use throughout.
fn test_placement() -> Placement {
    Placement {
        step_i: [-0.954_892, 0.196_632, -0.222_525],
        step_j: [-0.196_632, 0.142_857, 0.970_014],
        step_k: [0.222_525, 0.970_014, -0.097_749_1],
        center: [46.0531, 19.4709, 46.0531],
    }
}

fn test_pose() -> Transform {
    let Placement { step_i, step_j, step_k, center } = test_placement();
    Transform { columns: [step_i, step_j, step_k], translation: center }
}

/// `value` in `fixture`, in its plain and its version 2 form.
fn assert_content(messages: &BTreeMap<String, Vec<u8>>, fixtures: &[&str], value: &Content<'_>) {
    for name in fixtures {
        assert_eq!(Message::decode(&messages[*name]).expect(name).content, *value, "{name}");
    }
}

fn name<const N: usize>(text: &str) -> FixedString<N> {
    text.parse().expect("a name that fits")
}

#[test]
fn official_poses_have_the_right_values() {
    let Some(corpus) = support::corpus() else { return };
    let messages = official(&corpus);
    assert_content(&messages, &["transform", "transformFormat2"], &Content::Transform(test_pose()));
    let position = Position {
        position: [46.0531, 19.4709, 46.0531],
        orientation: Orientation::Quaternion([0.0, 0.577_350_26, 0.577_350_26, 0.333_333_34]),
    };
    assert_content(&messages, &["position", "positionFormat2"], &Content::Position(position));
    let tools = [0, 1, 2].map(|n| TrackedTool::new(name(&format!("Tracker{n}")), test_pose()));
    assert_content(&messages, &["tdata", "tdataFormat2"], &Content::TrackingData(tools.into()));
}

#[test]
fn official_words_have_the_right_values() {
    let Some(corpus) = support::corpus() else { return };
    let messages = official(&corpus);
    assert_content(&messages, &["string"], &Content::string("Welcome to OpenIGTLink"));
    let status = Status {
        subcode: 10,
        name: name("ACTUATOR_DISABLED"),
        ..Status::new(StatusCode::Disabled, "Actuator A is disabled.")
    };
    assert_content(&messages, &["status"], &Content::Status(status));
    let command = Command {
        id: 5,
        name: name("This is a test command"),
        text: Text::new("Start the tracking machine"),
    };
    assert_content(&messages, &["command", "commandFormat2"], &Content::Command(command));
    let types = ["IMAGE", "GET_IMAGE", "TRANSFORM", "GET_TRANS"].map(name);
    assert_content(&messages, &["capability"], &Content::Capability(types.into()));
}

#[test]
fn official_marks_and_shapes_have_the_right_values() {
    let Some(corpus) = support::corpus() else { return };
    let messages = official(&corpus);
    let colors = [[255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 255]];
    let point = |n: usize, position, diameter| Point {
        name: name(&format!("POINT_DESCRIPTION_{n}")),
        group: name("Landmark"),
        rgba: colors[n],
        position,
        diameter,
        owner: name("IMAGE_0"),
    };
    let points = vec![
        point(0, [10.0, 15.0, 20.0], 5.0),
        point(1, [25.0, 30.0, 35.0], 3.0),
        point(2, [40.0, 45.0, 50.0], 1.0),
    ];
    assert_content(&messages, &["point"], &Content::Points(points));

    let path = |n: usize, entry, target, diameter| Trajectory {
        name: name(&format!("TRAJECTORY_DESCRIPTION_{n}")),
        group: name("TRAJECTORY"),
        kind: TrajectoryKind::EntryAndTarget,
        reserved: 0,
        rgba: colors[n],
        entry,
        target,
        diameter,
        owner: name("IMAGE_0"),
    };
    let paths = vec![
        path(0, [10.0, 15.0, 20.0], [25.0, 30.0, 35.0], 5.0),
        path(1, [40.0, 45.0, 50.0], [55.0, 60.0, 65.0], 2.5),
        path(2, [70.0, 75.0, 80.0], [85.0, 90.0, 95.0], 0.0),
    ];
    assert_content(&messages, &["trajectory", "trajectoryFormat2"], &Content::Trajectories(paths));

    let square = [[0., 0.], [1., 0.], [1., 1.], [0., 1.]];
    let faces = [[0, 1, 2, 3], [4, 5, 6, 7], [0, 1, 5, 4], [1, 2, 6, 5], [2, 3, 7, 6], [3, 0, 4, 7]];
    let cube = PolyData {
        points: [0., 1.].into_iter().flat_map(|z| square.map(|[x, y]| [x, y, z])).collect(),
        polygons: faces.iter().map(|face| &face[..]).collect(),
        attributes: vec![Attribute {
            kind: AttributeKind::PointScalars,
            components: 1,
            name: b"attr".into(),
            values: (0..8u8).map(f32::from).collect(),
        }],
        ..PolyData::default()
    };
    assert!(cube.indices_are_valid());
    assert_content(&messages, &["polydata"], &Content::PolyData(cube));
}

#[test]
fn official_numbers_have_the_right_values() {
    let Some(corpus) = support::corpus() else { return };
    let messages = official(&corpus);
    let unit = Unit::new(0, &[(Unit::METER, 1), (Unit::SECOND, -2)]).expect("a unit");
    let values = vec![123456.78, 12345.678, 1234.5678, 123.45678, 12.345678, 1.2345678];
    assert_content(&messages, &["sensor"], &Content::Sensor(Sensor { status: 0, unit, values }));
    let values: Vec<f64> = (0..60u8).map(f64::from).collect();
    assert_content(&messages, &["ndarray"], &Content::NdArray(NdArray::from_f64(vec![5, 4, 3], &values)));
    let table: Vec<u8> = (0..=255).collect();
    for (fixture, long_type_name) in [("colortable", true), ("colortable2", false)] {
        let table = (&table[..]).into();
        let colors = ColorTable { index: IndexType::Uint8, map: MapType::Uint8, table, long_type_name };
        assert_content(&messages, &[fixture], &Content::ColorTable(colors));
    }
}

#[test]
fn official_images_have_the_right_values() {
    let Some(corpus) = support::corpus() else { return };
    let messages = official(&corpus);
    let decoded = Message::decode(&messages["image"]).expect("an image");
    let Content::Image(image) = &decoded.content else { panic!("no image") };
    let pixels = &messages["image"][HEADER_SIZE + 72..];
    let expected = Image {
        endian: Endian::Little,
        coordinates: CoordinateSystem::Ras,
        ..Image::grey8(50, 50, pixels).placed(test_placement())
    };
    assert_eq!(*image, expected);
    // Pixels are not copied.
    assert_eq!(image.pixels.as_ptr(), pixels.as_ptr());
    assert!(image.placement.spacing_mm().iter().all(|spacing| (spacing - 1.0).abs() < 1e-5));

    let decoded = Message::decode(&messages["bind"]).expect("a bind");
    let Content::Bind(bind) = &decoded.content else { panic!("no bind") };
    let names: Vec<_> = bind.children.iter().map(|child| &*child.device_name).collect();
    assert_eq!(names, [&b"ChildTrans"[..], b"ChildImage", b"ChildSensor"]);
    assert_eq!(bind.children[0].content(), Ok(Content::Transform(test_pose())));
    assert_eq!(bind.children[1].content(), Ok(Content::Image(expected)));
    let sensor = Message::decode(&messages["sensor"]).expect("a sensor").content;
    assert_eq!(bind.children[2].content(), Ok(sensor));
}

#[test]
fn official_lists_have_the_right_values() {
    let Some(corpus) = support::corpus() else { return };
    let messages = official(&corpus);
    let image = |n: u32, modality, size| ImageInfo {
        name: name(&format!("IMAGE_DESCRIPTION_{n}")),
        device_name: name(&format!("IMAGE_{n}")),
        modality: name(modality),
        patient_name: name(&format!("PATIENT_{n}")),
        patient_id: name(&format!("PATIENT_ID_{n}")),
        timestamp: Timestamp::from_bits(1_234_567_892 + 4 * u64::from(n)),
        size,
        scalar_type: 5,
        reserved: 0,
    };
    let images = vec![
        image(0, "CT", [512, 512, 64]),
        image(1, "MRI", [256, 128, 32]),
        image(2, "PET", [256, 256, 32]),
    ];
    assert_content(&messages, &["imgmeta"], &Content::ImageList(images));

    let label = |n: u8, rgba| LabelInfo {
        name: name(&format!("LABEL_DESCRIPTION_{n}")),
        device_name: name(&format!("LABEL_{n}")),
        label: n + 1,
        reserved: 0,
        rgba,
        size: [256, 128, 32],
        owner: name("IMAGE_0"),
    };
    let labels = vec![label(0, [255, 0, 0, 255]), label(1, [0, 255, 0, 255]), label(2, [0, 0, 255, 255])];
    assert_content(&messages, &["lbmeta"], &Content::LabelList(labels));

    let video = |n: u32, zoom_level, focal_length_mm, size, placement| VideoInfo {
        name: name(&format!("VIDEO_DESCRIPTION_{n}")),
        device_name: name(&format!("VIDEO_{n}")),
        patient_name: name(&format!("PATIENT_{n}")),
        patient_id: name(&format!("PATIENT_ID_{n}")),
        zoom_level,
        focal_length_mm,
        size,
        placement,
        scalar_type: 5,
        reserved: 0,
    };
    let mirrored = Placement { step_i: [-1.0, 0.0, 0.0], center: [50.0, 100.0, 16.0], ..Placement::IDENTITY };
    let elsewhere = Placement { center: [150.0, 0.0, 200.0], ..test_placement() };
    let videos = vec![
        video(0, 4, 50.0, [512, 512, 64], test_placement()),
        video(1, -2, 100.0, [256, 128, 32], mirrored),
        video(2, 0, 20.5, [256, 256, 32], elsewhere),
    ];
    assert_content(&messages, &["videometa"], &Content::VideoList(videos));
}

#[test]
fn official_messages_are_told_in_a_line() {
    let Some(corpus) = support::corpus() else { return };
    let messages = official(&corpus);
    let line = |name: &str| Message::decode(&messages[name]).expect(name).to_string();
    assert_eq!(
        line("positionFormat2"),
        "0.287445237 DeviceName POSITION position mm [46.0531, 19.4709, 46.0531], quaternion [0, 0.57735026, \
         0.57735026, 0.33333334] | First patient age=\"22\", Second patient age=\"25\""
    );
    assert_eq!(
        line("status"),
        "0.287445237 DeviceName STATUS code 15, meaning \"Disabled\", subcode 10, name \"ACTUATOR_DISABLED\", \
         message \"Actuator A is disabled.\""
    );
    assert_eq!(line("bind"), "0.287445237 DeviceName BIND messages [\"TRANSFORM\", \"IMAGE\", \"SENSOR\"]");
    assert_eq!(
        line("polydata"),
        "0.287445237 DeviceName POLYDATA points 8, coordinates mm 24 values, indices valid yes, vertices [], \
         lines [], polygons 6 values, triangle strips [], attributes [\"attr\"]"
    );
    for name in messages.keys() {
        let line = line(name);
        assert!(!line.contains(char::is_control) && line.len() < 400, "{name}: {line}");
    }
}
