//! A mutational fuzzer for stable Rust: takes messages, damages them, and holds codec and stream decoder
//! to their promises.
//!
//! For every input: no panic; memory in proportion to the bytes that are there; what decodes can be
//! encoded, and comes back the same. Inputs that lead to a new outcome (a type, or a field with a
//! problem) join the pool that later inputs are made from, and can be kept in a file.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::Path;

use ultramotion_igtlink::*;

use super::counting_alloc;

/// Bytes of memory that decoding may take for each byte of input, and besides. An empty attribute
/// of a POLYDATA is the extreme: 7 bytes on the wire, 2 times 64 in memory while it is read.
const MEMORY_PER_BYTE: usize = 20;
const MEMORY_BESIDES: usize = 256 << 10;
/// Inputs do not grow beyond this.
const LONGEST_INPUT: usize = 64 << 10;

/// SplitMix64 (Steele, Lea, Flood 2014).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`, which is not 0.
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// What has been tried, and what came of it.
pub struct Fuzzer {
    random: Random,
    pool: Vec<Vec<u8>>,
    outcomes: HashSet<String>,
    input: Vec<u8>,
    encoded: Vec<u8>,
    again: Vec<u8>,
    /// Inputs that were taken as messages.
    pub accepted: u64,
    /// The most memory that one input took, relative to what it may take.
    pub worst_memory: f64,
}

impl Fuzzer {
    /// Starts from these messages.
    pub fn new(seed: u64, messages: Vec<Vec<u8>>) -> Self {
        assert!(!messages.is_empty(), "nothing to start from");
        let mut fuzzer = Self {
            random: Random::new(seed),
            pool: Vec::new(),
            outcomes: HashSet::new(),
            input: Vec::new(),
            encoded: Vec::new(),
            again: Vec::new(),
            accepted: 0,
            worst_memory: 0.0,
        };
        for message in messages {
            fuzzer.input = message;
            fuzzer.try_message();
            fuzzer.pool.push(fuzzer.input.clone());
        }
        fuzzer
    }

    /// Different outcomes so far.
    pub fn outcomes(&self) -> usize {
        self.outcomes.len()
    }

    /// Makes and tries one input.
    pub fn step(&mut self) {
        if self.random.one_in(4) {
            self.make_stream();
            self.try_stream();
        } else {
            let mut input = std::mem::take(&mut self.input);
            self.make_message(&mut input);
            self.input = input;
            if self.try_message() {
                self.pool.push(self.input.clone());
            }
        }
    }

    /// The input in the works, for reports of failures.
    #[allow(dead_code)] // The test reports by itself.
    pub fn input(&self) -> &[u8] {
        &self.input
    }

    /// Writes one input for each outcome to a file that [`read_corpus`] reads.
    #[allow(dead_code)] // Only long runs keep what they find.
    pub fn write_corpus(&self, path: &Path) -> std::io::Result<()> {
        let mut seen = HashSet::new();
        let mut lines: Vec<(String, String)> = Vec::new();
        let mut smallest_first: Vec<_> = self.pool.iter().collect();
        smallest_first.sort_by_key(|input| input.len());
        for input in smallest_first {
            let outcome = outcome(&Message::decode(input));
            if seen.insert(outcome.clone()) {
                lines.push((
                    outcome,
                    input.iter().fold(String::new(), |mut hex, byte| {
                        let _ = write!(hex, "{byte:02x}");
                        hex
                    }),
                ));
            }
        }
        lines.sort();
        let text: String = lines.iter().map(|(outcome, hex)| format!("{outcome}\t{hex}\n")).collect();
        std::fs::write(path, text)
    }

    fn make_message(&mut self, out: &mut Vec<u8>) {
        let random = &mut self.random;
        out.clear();
        out.extend_from_slice(&self.pool[random.below(self.pool.len())]);
        for _ in 0..=random.below(6) {
            let other = &self.pool[random.below(self.pool.len())];
            damage(random, out, other);
        }
        out.truncate(LONGEST_INPUT);
        // Mostly with the right size and checksum, or nothing would get past them.
        if !random.one_in(12) {
            repair(out);
        }
    }

    fn make_stream(&mut self) {
        let mut stream = Vec::new();
        let mut message = Vec::new();
        for _ in 0..=self.random.below(3) {
            if self.random.one_in(6) {
                for _ in 0..self.random.below(100) {
                    stream.push(self.random.next() as u8);
                }
            }
            self.make_message(&mut message);
            stream.extend_from_slice(&message);
        }
        stream.truncate(LONGEST_INPUT);
        self.input = stream;
    }

    /// Returns whether the outcome is new.
    fn try_message(&mut self) -> bool {
        counting_alloc::start();
        let decoded = Message::decode(&self.input);
        let memory = counting_alloc::peak_bytes();
        let new = self.outcomes.insert(outcome(&decoded));
        if let Ok(message) = &decoded {
            self.accepted += 1;
            visit(&message.content, 0);
            assert!(!message.to_string().contains(char::is_control), "a line that a terminal obeys");
            message.encode_into(&mut self.encoded).expect("what was decoded can be encoded");
            let again = Message::decode(&self.encoded).expect("what was encoded can be decoded");
            again.encode_into(&mut self.again).expect("what was decoded can be encoded");
            // Bytes, since not-a-number is not equal to itself.
            assert_eq!(self.encoded, self.again, "the same message twice");
        }
        let len = self.input.len();
        self.check_memory(memory, len);
        new
    }

    fn try_stream(&mut self) {
        let config = DecoderConfig {
            max_body_bytes: [100, 5000, 1 << 20, u64::MAX][self.random.below(4)],
            check_crc: !self.random.one_in(3),
            on_bad_header: if self.random.one_in(2) { BadHeader::Close } else { BadHeader::Resync },
        };
        counting_alloc::start();
        let mut decoder = StreamDecoder::new(config);
        let mut rest = &self.input[..];
        let (mut taken, mut messages) = (0, 0);
        while !rest.is_empty() {
            let longest = if self.random.one_in(2) { 20 } else { 5000 };
            let cut = 1 + self.random.below(longest);
            let direct = self.random.one_in(2);
            let room = decoder.body_room(if direct { 1 } else { usize::MAX });
            let mut piece = if room.is_empty() {
                let (piece, later) = rest.split_at(cut.min(rest.len()));
                rest = later;
                piece
            } else {
                let len = cut.min(rest.len()).min(room.len());
                room[..len].copy_from_slice(&rest[..len]);
                decoder.advance(len);
                rest = &rest[len..];
                &[]
            };
            while let Some(result) = decoder.feed(&mut piece) {
                if let Ok(raw) = result {
                    assert!(raw.header().body_size <= config.max_body_bytes);
                    taken += raw.wire_len();
                    messages += 1;
                    let _ = raw.decode();
                }
                if decoder.is_closed() {
                    break;
                }
            }
            if decoder.is_closed() {
                break;
            }
        }
        assert!(taken <= self.input.len(), "no byte is taken twice");
        decoder.end();
        self.accepted += messages;
        let (memory, len) = (counting_alloc::peak_bytes(), self.input.len());
        self.check_memory(memory, len);
    }

    fn check_memory(&mut self, memory: usize, input: usize) {
        let allowed = MEMORY_PER_BYTE * input + MEMORY_BESIDES;
        self.worst_memory = self.worst_memory.max(memory as f64 / allowed as f64);
        assert!(memory <= allowed, "{memory} bytes of memory for {input} bytes of input");
    }
}

/// Looks at everything that decoding puts off.
fn visit(content: &Content<'_>, depth: usize) {
    match content {
        Content::Bind(bind) if depth < 4 => {
            for child in &bind.children {
                if let Ok(content) = child.content() {
                    visit(&content, depth + 1);
                }
            }
        }
        Content::Image(image) => {
            let _ = image.native_pixels();
            let _ = image.placement.world_from_ijk(image.size);
        }
        Content::PolyData(data) => {
            let _ = data.indices_are_valid();
        }
        Content::Sensor(sensor) => {
            let _ = sensor.unit.to_string();
        }
        Content::String(text) => {
            let _ = text.to_str();
        }
        _ => {}
    }
}

/// What became of an input, without its numbers.
fn outcome(decoded: &Result<Message<'_>, DecodeError>) -> String {
    match decoded {
        Ok(message) => match &message.content {
            Content::Unknown { .. } => "ok unknown".into(),
            Content::Unavailable(_) => "ok unavailable".into(),
            Content::Query(query) => {
                let parameters = format!("{:?}", query.parameters);
                let kind = parameters.split(['(', ' ']).next().unwrap_or_default();
                format!("ok {} {kind}", query.verb.prefix())
            }
            content => format!("ok {} v{}", content.type_name(), message.version as u16),
        },
        Err(DecodeError::Short { .. }) => "short".into(),
        Err(DecodeError::Version { .. }) => "version".into(),
        Err(DecodeError::Crc { .. }) => "crc".into(),
        Err(DecodeError::Field { part, field, problem, .. }) => {
            let problem = format!("{problem:?}");
            format!("{part} / {field} / {}", problem.split('(').next().unwrap_or_default())
        }
    }
}

const TELLING_NUMBERS: [u64; 22] = [
    0,
    1,
    2,
    3,
    4,
    5,
    7,
    8,
    11,
    12,
    13,
    19,
    58,
    127,
    128,
    255,
    256,
    65535,
    65536,
    0x7fff_ffff,
    0xffff_ffff,
    u64::MAX,
];

fn damage(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    if bytes.is_empty() {
        bytes.extend_from_slice(other);
        return;
    }
    // Where counts and sizes are: near the front of the body, or anywhere.
    let from = if random.one_in(5) { 0 } else { HEADER_SIZE.min(bytes.len() - 1) };
    let span = if random.one_in(2) { 60 } else { usize::MAX }.min(bytes.len() - from);
    let at = from + random.below(span);
    match random.below(10) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.next() as u8,
        2..=4 => {
            let number =
                TELLING_NUMBERS[random.below(TELLING_NUMBERS.len())].wrapping_sub(random.below(2) as u64);
            let width = 1 << random.below(4);
            let end = (at + width).min(bytes.len());
            let number = number.to_be_bytes();
            bytes[at..end].copy_from_slice(&number[8 - (end - at)..]);
        }
        5 => bytes.truncate(at),
        6 => {
            let more = random.below(40);
            bytes.extend((0..more).map(|_| random.next() as u8));
        }
        7 => {
            let end = at + random.below((bytes.len() - at).min(200)) + 1;
            bytes.drain(at..end.min(bytes.len()));
        }
        8 => {
            let end = (at + random.below(200)).min(bytes.len());
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
        _ => {
            // The tail of another message, or its type.
            if random.one_in(2) && bytes.len() >= 14 && other.len() >= 14 {
                bytes[2..14].copy_from_slice(&other[2..14]);
            } else {
                bytes.truncate(at);
                bytes.extend_from_slice(&other[at.min(other.len())..]);
            }
        }
    }
}

/// Puts the right size and checksum into the header.
fn repair(bytes: &mut [u8]) {
    let Some((header, body)) = bytes.split_at_mut_checked(HEADER_SIZE) else { return };
    header[42..50].copy_from_slice(&(body.len() as u64).to_be_bytes());
    header[50..58].copy_from_slice(&crc64(body).to_be_bytes());
}

/// The inputs in a file that [`Fuzzer::write_corpus`] wrote.
pub fn read_corpus(text: &str) -> Vec<Vec<u8>> {
    let digit = |c: u8| char::from(c).to_digit(16).expect("a hex digit") as u8;
    text.lines()
        .filter_map(|line| line.split('\t').nth(1))
        .map(|hex| hex.as_bytes().chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect())
        .collect()
}

/// A message of every type, to start from.
pub fn first_messages() -> Vec<Vec<u8>> {
    let point = Point::new(FixedString::truncated("tip"), [1.0, 2.0, 3.0]);
    let mut surface = PolyData::closed_contour(vec![[0.0; 3], [1.0; 3], [2.0; 3]]);
    surface.polygons.push(&[0, 1, 2]);
    surface.vertices.push(&[1]);
    surface.triangle_strips.push(&[0, 1, 2, 0]);
    for (kind, components) in [(AttributeKind::PointScalars, 1), (AttributeKind::CellNormals, 3)] {
        let values = vec![0.5; 2 * usize::from(components)];
        surface.attributes.push(Attribute { kind, components, name: b"name".into(), values });
    }
    let children = [Content::Transform(Transform::IDENTITY), Content::string("odd")];
    let children = children.map(|content| BindChild::new("child", &content).expect("a child"));
    let table = |len| vec![7; len].into();
    let command = || Command { id: 1, name: FixedString::truncated("go"), text: Text::new("<go/>") };
    let query = |verb, target, parameters| {
        Content::Query(Query { verb, target: FixedString::truncated(target), parameters })
    };
    let bind_children =
        || vec![(TypeName::truncated("IMAGE"), b"a"[..].into()), (TypeName::EMPTY, b""[..].into())];
    let contents = [
        Content::Transform(Transform::IDENTITY),
        Content::Position(Position { position: [1.0; 3], orientation: Orientation::None }),
        Content::Position(Position { position: [1.0; 3], orientation: Orientation::Compressed([0.0; 3]) }),
        Content::QTransform(QTransform { position: [1.0; 3], quaternion: [0.0, 0.0, 0.0, 1.0] }),
        Content::Image(Image::grey8(8, 4, vec![9; 32])),
        Content::Image(Image::new(ScalarType::Float64, 3, [2, 2, 1], vec![9; 96])),
        Content::Status(Status::new(StatusCode::Busy, "wait")),
        Content::Capability(KNOWN_TYPES.iter().map(|name| TypeName::truncated(name)).collect()),
        Content::string("words"),
        Content::Points(vec![point; 2]),
        Content::TrackingData(vec![TrackedTool::new(FixedString::EMPTY, Transform::IDENTITY); 2]),
        Content::QTrackingData(vec![TrackedTool::new(
            FixedString::EMPTY,
            QTransform { position: [1.0; 3], quaternion: [0.0; 4] },
        )]),
        Content::Trajectories(vec![Trajectory {
            name: FixedString::EMPTY,
            group: FixedString::EMPTY,
            kind: TrajectoryKind::EntryAndTarget,
            reserved: 0,
            rgba: [1; 4],
            entry: [1.0; 3],
            target: [2.0; 3],
            diameter: 1.0,
            owner: FixedString::EMPTY,
        }]),
        Content::Sensor(Sensor { status: 0, unit: Unit(0x0044_3e00_0000_0000), values: vec![1.0, 2.0] }),
        Content::NdArray(NdArray::from_f64(vec![2, 1, 2], &[1.0; 4])),
        Content::Bind(Bind { children: children.into() }),
        Content::ColorTable(ColorTable {
            index: IndexType::Uint8,
            map: MapType::Rgb,
            table: table(768),
            long_type_name: false,
        }),
        Content::ColorTable(ColorTable {
            index: IndexType::Uint8,
            map: MapType::Uint8,
            table: table(256),
            long_type_name: true,
        }),
        Content::ImageList(vec![ImageInfo {
            name: FixedString::EMPTY,
            device_name: FixedString::EMPTY,
            modality: FixedString::truncated("US"),
            patient_name: FixedString::EMPTY,
            patient_id: FixedString::EMPTY,
            timestamp: Timestamp::NONE,
            size: [1, 2, 3],
            scalar_type: 3,
            reserved: 0,
        }]),
        Content::LabelList(vec![LabelInfo {
            name: FixedString::EMPTY,
            device_name: FixedString::EMPTY,
            label: 1,
            reserved: 0,
            rgba: [1; 4],
            size: [1, 2, 3],
            owner: FixedString::EMPTY,
        }]),
        Content::VideoList(vec![VideoInfo {
            name: FixedString::EMPTY,
            device_name: FixedString::EMPTY,
            patient_name: FixedString::EMPTY,
            patient_id: FixedString::EMPTY,
            zoom_level: 1,
            focal_length_mm: 50.0,
            size: [1, 2, 3],
            placement: Placement::IDENTITY,
            scalar_type: 3,
            reserved: 0,
        }]),
        Content::PolyData(surface),
        Content::Command(command()),
        Content::CommandReply(command()),
        Content::Video(Video {
            endian: Endian::Little,
            codec: *b"VP90",
            frame_type: 1,
            coordinates: CoordinateSystem::Lps,
            size: [8, 8, 1],
            placement: Placement::IDENTITY,
            subvolume_offset: [0; 3],
            subvolume_size: [8, 8, 1],
            data: table(20),
        }),
        query(Verb::Get, "IMAGE", Parameters::None),
        query(Verb::ReturnStatus, "IMAGE", Parameters::Status(0)),
        query(Verb::Start, "SENSOR", Parameters::Interval(Timestamp::from_bits(1))),
        query(
            Verb::Start,
            "TDATA",
            Parameters::Tracking { resolution_ms: 50, coordinate_name: FixedString::truncated("Patient") },
        ),
        query(
            Verb::Start,
            "VIDEO",
            Parameters::Video { codec: *b"H264", interval_ms: 50, use_compression: Some(1) },
        ),
        query(Verb::Get, "BIND", Parameters::Bind { interval: None, children: bind_children() }),
        query(
            Verb::Start,
            "BIND",
            Parameters::Bind { interval: Some(Timestamp::NONE), children: bind_children() },
        ),
        Content::Unknown { type_name: TypeName::truncated("CLIENTINFO"), bytes: b"<ClientInfo/>"[..].into() },
    ];
    let mut messages = Vec::new();
    for content in contents {
        let mut message =
            Message::new(DeviceName::truncated("Device"), content).at(Timestamp::from_bits(1 << 33));
        message.version = HeaderVersion::V1;
        messages.push(message.to_bytes().expect("a message"));
        message.version = HeaderVersion::V2;
        message.metadata.push("key", "value");
        message.metadata.push("other key", "\u{e4}");
        messages.push(message.to_bytes().expect("a message"));
    }
    messages
}
