//! Whatever can be written comes back as it was, in every header version, by every way of reading.

use std::borrow::Cow;

use proptest::collection::vec;
use proptest::prelude::*;
use ultramotion_igtlink::*;

fn text<const N: usize>() -> impl Strategy<Value = FixedString<N>> {
    "[ -~]{0,12}".prop_map(|text| FixedString::truncated(&text))
}

fn unknown_type() -> impl Strategy<Value = TypeName> {
    "X[A-Z0-9_]{0,11}".prop_map(|text| text.parse().expect("a name that fits"))
}

fn bytes(max: usize) -> impl Strategy<Value = Cow<'static, [u8]>> {
    vec(any::<u8>(), 0..max).prop_map(Cow::Owned)
}

fn floats<const N: usize>() -> impl Strategy<Value = [f32; N]> {
    vec(-1e6f32..1e6, N).prop_map(|values| values.try_into().expect("as many as asked for"))
}

fn name_bytes() -> impl Strategy<Value = Cow<'static, [u8]>> {
    vec(1u8.., 0..20).prop_map(Cow::Owned)
}

fn words() -> impl Strategy<Value = Text<'static>> {
    (any::<u16>(), bytes(200))
        .prop_map(|(encoding, bytes)| Text { encoding: CharacterEncoding(encoding), bytes })
}

fn pose() -> impl Strategy<Value = Transform> {
    (floats(), floats(), floats(), floats())
        .prop_map(|(a, b, c, translation)| Transform { columns: [a, b, c], translation })
}

fn q_transform() -> impl Strategy<Value = QTransform> {
    (floats(), floats()).prop_map(|(position, quaternion)| QTransform { position, quaternion })
}

fn placement() -> impl Strategy<Value = Placement> {
    (floats(), floats(), floats(), floats()).prop_map(|(step_i, step_j, step_k, center)| Placement {
        step_i,
        step_j,
        step_k,
        center,
    })
}

fn system() -> impl Strategy<Value = CoordinateSystem> {
    prop_oneof![Just(CoordinateSystem::Ras), Just(CoordinateSystem::Lps)]
}

fn endian() -> impl Strategy<Value = Endian> {
    prop_oneof![Just(Endian::Big), Just(Endian::Little)]
}

fn image() -> impl Strategy<Value = Image<'static>> {
    use ScalarType::*;
    let scalar = prop::sample::select(vec![Int8, Uint8, Int16, Uint16, Int32, Uint32, Float32, Float64]);
    let part = prop::array::uniform3(0u16..6);
    let around = prop::array::uniform3(0u16..900);
    (scalar, 1u8..5, endian(), system(), part, around, placement(), any::<u8>()).prop_map(
        |(scalar, components, endian, coordinates, part, around, placement, fill)| {
            let pixels: usize = part.iter().map(|&n| usize::from(n)).product();
            let len = pixels * usize::from(components) * scalar.size_bytes();
            Image {
                components,
                scalar,
                endian,
                coordinates,
                size: [0, 1, 2].map(|axis| part[axis] + around[axis]),
                placement,
                subvolume_offset: around.map(|n| n / 2),
                subvolume_size: part,
                pixels: (0..len).map(|n| fill.wrapping_add(n as u8)).collect(),
            }
        },
    )
}

fn point() -> impl Strategy<Value = Point> {
    (text(), text(), any::<[u8; 4]>(), floats(), -1e3f32..1e3, text()).prop_map(
        |(name, group, rgba, position, diameter, owner)| Point {
            name,
            group,
            rgba,
            position,
            diameter,
            owner,
        },
    )
}

fn trajectory() -> impl Strategy<Value = Trajectory> {
    (text(), text(), any::<u8>(), any::<u8>(), any::<[u8; 4]>(), floats(), floats(), 0f32..9.0, text())
        .prop_map(|(name, group, kind, reserved, rgba, entry, target, diameter, owner)| Trajectory {
            name,
            group,
            kind: kind.into(),
            reserved,
            rgba,
            entry,
            target,
            diameter,
            owner,
        })
}

fn tool<P: std::fmt::Debug>(pose: impl Strategy<Value = P>) -> impl Strategy<Value = TrackedTool<P>> {
    (text(), any::<u8>(), any::<u8>(), pose).prop_map(|(name, kind, reserved, pose)| TrackedTool {
        name,
        kind: kind.into(),
        reserved,
        pose,
    })
}

fn array() -> impl Strategy<Value = NdArray<'static>> {
    use ArrayType::*;
    let scalar =
        prop::sample::select(vec![Int8, Uint8, Int16, Uint16, Int32, Uint32, Float32, Float64, Complex]);
    (scalar, vec(0u16..5, 1..5)).prop_map(|(scalar, shape)| {
        let len = shape.iter().map(|&n| usize::from(n)).product::<usize>() * scalar.size_bytes();
        NdArray { scalar, shape, data: (0..len).map(|n| n as u8).collect() }
    })
}

fn cells() -> impl Strategy<Value = Cells> {
    vec(vec(any::<u32>(), 0..6), 0..5).prop_map(|cells| cells.iter().map(|cell| &cell[..]).collect())
}

fn attribute() -> impl Strategy<Value = Attribute<'static>> {
    (any::<u8>(), 1u8..6, 0usize..4, name_bytes()).prop_map(|(kind, free, elements, name)| {
        let components = match kind & 0x0f {
            1 | 2 => 3,
            3 => 9,
            4 => 4,
            _ => free,
        };
        let values = (0..elements * usize::from(components)).map(|n| n as f32).collect();
        Attribute { kind: kind.into(), components, name, values }
    })
}

fn polydata() -> impl Strategy<Value = PolyData<'static>> {
    (vec(floats(), 0..9), cells(), cells(), cells(), cells(), vec(attribute(), 0..4)).prop_map(
        |(points, vertices, lines, polygons, triangle_strips, attributes)| PolyData {
            points,
            vertices,
            lines,
            polygons,
            triangle_strips,
            attributes,
        },
    )
}

fn colors() -> impl Strategy<Value = ColorTable<'static>> {
    let kinds = prop::sample::select(vec![(MapType::Uint8, 1), (MapType::Uint16, 2), (MapType::Rgb, 3)]);
    (kinds, any::<bool>(), any::<bool>()).prop_map(|((map, width), wide, long_type_name)| {
        let (index, entries) = if wide { (IndexType::Uint16, 1 << 16) } else { (IndexType::Uint8, 1 << 8) };
        ColorTable { index, map, table: (0..entries * width).map(|n| n as u8).collect(), long_type_name }
    })
}

fn video() -> impl Strategy<Value = Video<'static>> {
    let places = (placement(), any::<[u16; 3]>(), any::<[u16; 3]>(), any::<[u16; 3]>());
    (endian(), any::<[u8; 4]>(), any::<u16>(), system(), places, bytes(300)).prop_map(
        |(
            endian,
            codec,
            frame_type,
            coordinates,
            (placement, size, subvolume_offset, subvolume_size),
            data,
        )| Video {
            endian,
            codec,
            frame_type,
            coordinates,
            size,
            placement,
            subvolume_offset,
            subvolume_size,
            data,
        },
    )
}

fn image_info() -> impl Strategy<Value = ImageInfo> {
    (text(), text(), text(), text(), text(), any::<u64>(), any::<[u16; 3]>(), any::<u8>()).prop_map(
        |(name, device_name, modality, patient_name, patient_id, time, size, scalar_type)| ImageInfo {
            name,
            device_name,
            modality,
            patient_name,
            patient_id,
            timestamp: Timestamp::from_bits(time),
            size,
            scalar_type,
            reserved: 3,
        },
    )
}

fn label_info() -> impl Strategy<Value = LabelInfo> {
    (text(), text(), any::<u8>(), any::<[u8; 4]>(), any::<[u16; 3]>(), text()).prop_map(
        |(name, device_name, label, rgba, size, owner)| LabelInfo {
            name,
            device_name,
            label,
            reserved: 1,
            rgba,
            size,
            owner,
        },
    )
}

fn video_info() -> impl Strategy<Value = VideoInfo> {
    (text(), text(), text(), text(), any::<i16>(), 0f64..1e3, any::<[u16; 3]>(), placement()).prop_map(
        |(name, device_name, patient_name, patient_id, zoom_level, focal_length_mm, size, placement)| {
            VideoInfo {
                name,
                device_name,
                patient_name,
                patient_id,
                zoom_level,
                focal_length_mm,
                size,
                placement,
                scalar_type: 3,
                reserved: 0,
            }
        },
    )
}

fn query() -> impl Strategy<Value = Query<'static>> {
    let children = || vec((unknown_type(), name_bytes()), 0..5);
    let known = prop_oneof![
        (prop::sample::select(vec![Verb::Get, Verb::Start, Verb::Stop, Verb::ReturnStatus]), "[A-Z]{1,8}")
            .prop_map(|(verb, target)| (verb, target, Parameters::None)),
        any::<u8>().prop_map(|status| (Verb::ReturnStatus, "IMAGE".into(), Parameters::Status(status))),
        any::<u64>().prop_map(|bits| (
            Verb::Start,
            "SENSOR".into(),
            Parameters::Interval(Timestamp::from_bits(bits))
        )),
        any::<u64>().prop_map(|bits| (
            Verb::Start,
            "BIND".into(),
            Parameters::Interval(Timestamp::from_bits(bits))
        )),
        (any::<i32>(), text()).prop_map(|(resolution_ms, coordinate_name)| {
            (Verb::Start, "TDATA".into(), Parameters::Tracking { resolution_ms, coordinate_name })
        }),
        (any::<[u8; 4]>(), any::<u32>(), any::<Option<u8>>()).prop_map(
            |(codec, interval_ms, use_compression)| {
                (Verb::Start, "VIDEO".into(), Parameters::Video { codec, interval_ms, use_compression })
            }
        ),
        children().prop_map(|children| (
            Verb::Get,
            "BIND".into(),
            Parameters::Bind { interval: None, children }
        )),
        (any::<u64>(), children()).prop_map(|(bits, children)| {
            let interval = Some(Timestamp::from_bits(bits));
            (Verb::Start, "BIND".into(), Parameters::Bind { interval, children })
        }),
        vec(any::<u8>(), 1..9).prop_map(|bytes| (
            Verb::Stop,
            "IMAGE".into(),
            Parameters::Other(bytes.into())
        )),
    ];
    known.prop_map(|(verb, target, parameters)| Query {
        verb,
        target: target.parse().expect("a target"),
        parameters,
    })
}

fn content() -> impl Strategy<Value = Content<'static>> {
    let leaf = prop_oneof![
        pose().prop_map(Content::Transform),
        (
            floats(),
            prop_oneof![
                Just(Orientation::None),
                floats().prop_map(Orientation::Compressed),
                floats().prop_map(Orientation::Quaternion)
            ]
        )
            .prop_map(|(position, orientation)| Content::Position(Position { position, orientation })),
        q_transform().prop_map(Content::QTransform),
        image().prop_map(Content::Image),
        (any::<u16>(), any::<i64>(), text(), bytes(99)).prop_map(|(code, subcode, name, message)| {
            Content::Status(Status { code: code.into(), subcode, name, message })
        }),
        vec(text(), 0..9).prop_map(Content::Capability),
        words().prop_map(Content::String),
        vec(point(), 0..5).prop_map(Content::Points),
        vec(tool(pose()), 0..5).prop_map(Content::TrackingData),
        vec(tool(q_transform()), 0..5).prop_map(Content::QTrackingData),
        vec(trajectory(), 0..5).prop_map(Content::Trajectories),
        (any::<u8>(), any::<u64>(), vec(-1e9f64..1e9, 0..256))
            .prop_map(|(status, unit, values)| Content::Sensor(Sensor { status, unit: Unit(unit), values })),
        array().prop_map(Content::NdArray),
        colors().prop_map(Content::ColorTable),
        polydata().prop_map(Content::PolyData),
        (any::<u32>(), text(), words(), any::<bool>()).prop_map(|(id, name, text, reply)| {
            let command = Command { id, name, text };
            if reply { Content::CommandReply(command) } else { Content::Command(command) }
        }),
        video().prop_map(Content::Video),
        vec(image_info(), 0..4).prop_map(Content::ImageList),
        vec(label_info(), 0..4).prop_map(Content::LabelList),
        vec(video_info(), 0..4).prop_map(Content::VideoList),
        query().prop_map(Content::Query),
        (unknown_type(), bytes(500)).prop_map(|(type_name, bytes)| Content::Unknown { type_name, bytes }),
    ];
    leaf.prop_recursive(2, 8, 4, |inner| {
        vec(("[ -~]{0,20}", inner), 0..4).prop_map(|children| {
            let children = children
                .iter()
                .map(|(name, content)| BindChild::new(name, content).expect("content that can be written"));
            Content::Bind(Bind { children: children.collect() })
        })
    })
}

fn message() -> impl Strategy<Value = Message<'static>> {
    let version = prop::sample::select(vec![HeaderVersion::V1, HeaderVersion::V2, HeaderVersion::V3]);
    let pairs = vec((vec(any::<u8>(), 1..20).prop_map(Cow::Owned), words()), 0..5);
    (version, text(), any::<u64>(), any::<u32>(), bytes(9), pairs, content()).prop_map(
        |(version, device_name, time, id, extension, pairs, content)| {
            let mut message = Message::new(device_name, content).at(Timestamp::from_bits(time));
            message.version = version;
            if version.is_extended() {
                message.message_id = id;
                message.extension = extension;
                message.metadata.entries =
                    pairs.into_iter().map(|(key, value)| MetadataEntry { key, value }).collect();
            }
            message
        },
    )
}

proptest! {
    #[test]
    fn messages_survive(message in message()) {
        let bytes = message.to_bytes().expect("a message that can be written");
        prop_assert_eq!(message.encoded_len(), Ok(bytes.len()));
        let back = Message::decode(&bytes).expect("a message that can be read");
        prop_assert_eq!(&back, &message);
        prop_assert_eq!(&back.into_owned(), &message);
        // A used buffer makes no difference.
        let mut used = vec![0xaa; 777];
        message.encode_into(&mut used).expect("a message that can be written");
        prop_assert_eq!(used, bytes);
    }

    #[test]
    fn streams_are_cut_right(messages in vec(message(), 1..4), cuts in vec(1usize..3000, 1..20), wide in any::<bool>()) {
        let mut stream = Vec::new();
        for message in &messages {
            stream.extend(message.to_bytes().expect("a message that can be written"));
        }
        let mut decoder = StreamDecoder::new(DecoderConfig::default());
        let mut received = Vec::new();
        let mut rest = &stream[..];
        for &cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            // Through the door for large bodies, or through the one for everything.
            let room = decoder.body_room(if wide { 1 } else { usize::MAX });
            let mut piece = if room.is_empty() {
                let (piece, later) = rest.split_at(cut.min(rest.len()));
                rest = later;
                piece
            } else {
                let len = cut.min(rest.len()).min(room.len());
                room[..len].copy_from_slice(&rest[..len]);
                rest = &rest[len..];
                decoder.advance(len);
                &[]
            };
            while let Some(raw) = decoder.feed(&mut piece) {
                received.push(raw.expect("a good message"));
            }
        }
        prop_assert_eq!(decoder.pending_bytes(), 0);
        prop_assert_eq!(decoder.counts().total(), 0);
        prop_assert_eq!(received.len(), messages.len());
        let mut again = Vec::new();
        for (raw, message) in received.iter().zip(&messages) {
            prop_assert_eq!(&raw.decode().expect("a good message"), message);
            raw.write_to(&mut again);
            prop_assert_eq!(&again, &message.to_bytes().expect("a message that can be written"));
        }
    }

    #[test]
    fn a_stream_is_found_again(message in message(), noise in vec(any::<u8>(), 58..400), lead in vec(any::<u8>(), 0..60)) {
        // Noise that is no header: version 0xffff.
        let mut stream = vec![0xff; 2];
        stream.extend(lead);
        stream.extend(noise);
        let known = Message::new("known".parse().expect("a name"), Content::string("here")).to_bytes().expect("a message");
        stream.extend_from_slice(&known);
        stream.extend(message.to_bytes().expect("a message that can be written"));
        let mut decoder = StreamDecoder::new(DecoderConfig { on_bad_header: BadHeader::Resync, ..DecoderConfig::default() });
        let mut rest = &stream[..];
        let mut found = Vec::new();
        while let Some(result) = decoder.feed(&mut rest) {
            found.extend(result);
        }
        prop_assert_eq!(found.len(), 2);
        prop_assert_eq!(&found[1].decode().expect("a good message"), &message);
        prop_assert_eq!(decoder.counts().skipped_bytes as usize + found.iter().map(RawMessage::wire_len).sum::<usize>(), stream.len());
    }

    #[test]
    fn damaged_contents_are_errors_and_never_panics(message in message(), at in any::<prop::sample::Index>(), value: u8) {
        let mut bytes = message.to_bytes().expect("a message that can be written");
        let body = &mut bytes[HEADER_SIZE..];
        if !body.is_empty() {
            let at = at.index(body.len());
            body[at] = value;
        }
        let header = Header::decode(&bytes).expect("the header was left alone");
        if let Ok(damaged) = Message::from_parts(&header, &bytes[HEADER_SIZE..]) {
            let again = damaged.to_bytes().expect("what was read can be written");
            prop_assert_eq!(Message::decode(&again).expect("what was written can be read").content.type_name(), header.type_name);
        }
    }
}
