//! What the official C++ library (Debian's `libopenigtlink-dev`) makes of every message that is sent.
//!
//! `read_all.cc` reads a file of messages with it and prints what it finds; the same is printed here of what was sent.
//! The test is skipped, with a sentence, where compiler or library are missing. Debian's version 1.11 knows header
//! version 1 alone. For a newer copy, which is asked about version 2 as well, give its folders, as in
//! `OPENIGTLINK="-I/src -I/build -L/build/bin -Wl,-rpath,/build/bin"`.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use ultramotion_gateway::service::Gateway;
use ultramotion_igtlink::{
    Cells, Content, HeaderVersion, Message, StatusCode, Timestamp, TrackedTool, Transform,
};

#[allow(dead_code)]
#[path = "../live/bench.rs"]
mod bench;

use bench::{Scanner, client_of, config, next_of, picture, squares, time_of};

/// The program, compiled with AddressSanitizer; none where that is not possible, and why.
fn compiled(folder: &Path) -> Result<PathBuf, String> {
    let program = folder.join("read_all");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/official/read_all.cc");
    let flags = std::env::var("OPENIGTLINK").unwrap_or_else(|_| "-I/usr/include/openigtlink".into());
    let compiler = Command::new("g++")
        .args(["-std=c++14", "-O1", "-g", "-fsanitize=address", "-o"])
        .args([&program, &source])
        .args(flags.split_whitespace())
        .args(["-lOpenIGTLink", "-lpthread"])
        .output();
    match compiler {
        Err(error) => Err(format!("no compiler: {error}")),
        Ok(output) if !output.status.success() => {
            let words = String::from_utf8_lossy(&output.stderr);
            let first = words.lines().find(|line| line.contains("error")).unwrap_or("no reason given");
            // A library that is there must compile.
            assert!(first.contains(".h: No such file") || first.contains("cannot find"), "{words}");
            Err(format!("no library: {first}"))
        }
        Ok(_) => Ok(program),
    }
}

fn run(program: &Path, argument: &str) -> String {
    let output = Command::new(program).arg(argument).env("ASAN_OPTIONS", "detect_leaks=0").output().unwrap();
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the official library ends with {}:\n{words}\n{errors}", output.status);
    words
}

/// Every message about two frames with so many structures, as bytes.
fn sent(version: u16, structures: usize) -> Vec<Vec<u8>> {
    let scanner = Scanner::new();
    let mut config = config(scanner.address());
    config.output.version = version;
    config.output.tracker_contours = true;
    config.output.prefix = "UM_".into();
    let gateway = Gateway::start(config, squares(structures)).unwrap();
    let client = client_of(&gateway);
    scanner.wait_for_gateway();
    let mut messages = Vec::new();
    for number in 0..2 {
        let pose = Transform { translation: [1.0, 2.0, 3.0], ..Transform::IDENTITY };
        let mut transform =
            Message::new("ProbeToTracker".parse().unwrap(), Content::Transform(pose)).at(time_of(number));
        let tool = TrackedTool::new("StylusToTracker".parse().unwrap(), pose);
        let mut tools = Message::new("TDATA_1Elem".parse().unwrap(), Content::TrackingData(vec![tool]))
            .at(time_of(number));
        (transform.version, tools.version) = (HeaderVersion::V1, HeaderVersion::V1);
        scanner.send(&transform);
        scanner.send(&tools);
        scanner.send(&picture(number));
        let devices = [
            "ProbeToTracker",
            "TDATA_1Elem",
            "UM_Mask",
            "UM_Contours",
            "UM_TrackerContours",
            "UM_Objects",
            "UM_Points",
        ];
        for device in devices {
            let frame = next_of(&client, device);
            let mut bytes = Vec::new();
            frame.write_to(&mut bytes);
            messages.push(bytes);
        }
    }
    messages
}

/// The line that the program prints about a message.
fn line(message: &Message<'_>) -> String {
    let mut line = format!("{} {}", message.content.type_name(), message.device_name);
    let bits = message.timestamp.to_bits();
    write!(line, " {}.{:08x}", bits >> 32, bits as u32).unwrap();
    let mut metadata: Vec<(String, String)> =
        message.metadata.iter().map(|(key, value)| (key.into_owned(), value.into_owned())).collect();
    metadata.sort();
    metadata.iter().for_each(|(key, value)| write!(line, " {key}={value}").unwrap());
    let number = |line: &mut String, value: f32| write!(line, " {:08x}", value.to_bits()).unwrap();
    let matrix = |line: &mut String, pose: &Transform| {
        pose.to_matrix()[..3].iter().flatten().for_each(|&value| number(line, value));
    };
    match &message.content {
        Content::Image(image) => {
            let [i, j, k] = image.size;
            let sum = image.pixels.iter().fold(0u64, |sum, &p| sum.wrapping_mul(31).wrapping_add(p.into()));
            write!(line, " {i}x{j}x{k} scalar {} pixels {sum}", image.scalar.code()).unwrap();
        }
        Content::PolyData(data) => {
            line.push_str(" points");
            data.points.iter().flatten().for_each(|&value| number(&mut line, value));
            let cells = |line: &mut String, name: &str, cells: &Cells| {
                write!(line, " {name}").unwrap();
                for cell in cells.iter() {
                    let points: String = cell.iter().map(|point| format!(" {point}")).collect();
                    write!(line, " [{points} ]").unwrap();
                }
            };
            cells(&mut line, "vertices", &data.vertices);
            cells(&mut line, "lines", &data.lines);
            cells(&mut line, "polygons", &data.polygons);
            cells(&mut line, "strips", &data.triangle_strips);
            for attribute in &data.attributes {
                let (name, kind) = (String::from_utf8_lossy(&attribute.name), u8::from(attribute.kind));
                write!(line, " {name} {kind} {}", attribute.components).unwrap();
                attribute.values.iter().for_each(|&value| number(&mut line, value));
            }
        }
        Content::Points(points) => {
            for point in points {
                write!(line, " {}|{}|{}", point.name, point.group, point.owner).unwrap();
                point.rgba.iter().for_each(|value| write!(line, " {value}").unwrap());
                point.position.iter().for_each(|&value| number(&mut line, value));
                number(&mut line, point.diameter);
            }
        }
        Content::String(text) => write!(line, " {}", text.to_str().unwrap()).unwrap(),
        Content::Status(status) => {
            let (code, words) = (u16::from(status.code), status.message_lossy());
            write!(line, " {code} {} {words}", status.name).unwrap();
        }
        Content::Transform(pose) => matrix(&mut line, pose),
        Content::TrackingData(tools) => {
            for tool in tools {
                write!(line, " {}", tool.name).unwrap();
                matrix(&mut line, &tool.pose);
            }
        }
        other => panic!("{other}"),
    }
    line
}

#[test]
fn the_official_library_reads_every_message_that_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let program = match compiled(folder.path()) {
        Ok(program) => program,
        Err(why) => return println!("skipped: libopenigtlink-dev and g++ are needed ({why})"),
    };
    let protocol: u16 = run(&program, "--protocol").trim().parse().unwrap();
    for version in [1, 2] {
        if version == 2 && protocol < 3 {
            println!("version 2 is skipped: this copy of the library knows protocol version {protocol}");
            continue;
        }
        let header = if version == 1 { HeaderVersion::V1 } else { HeaderVersion::V2 };
        let status = ultramotion_igtlink::Status::new(StatusCode::TimeOut, "the connection is lost");
        let mut status =
            Message::new("UM_Status".parse().unwrap(), Content::Status(status)).at(Timestamp::now());
        status.version = header;
        let results = (0..=12).flat_map(|structures| sent(version, structures));
        let messages: Vec<Vec<u8>> = results.chain([status.to_bytes().unwrap()]).collect();
        let file = folder.path().join(format!("version-{version}.igtl"));
        std::fs::write(&file, messages.concat()).unwrap();
        let read = run(&program, &file.display().to_string());
        assert_eq!(read.lines().count(), messages.len());
        for (bytes, read) in messages.iter().zip(read.lines()) {
            assert_eq!(read, line(&Message::decode(bytes).unwrap()));
        }
    }
}
