//! Bad input: named once, counted, and the stream goes on.

use std::io::{Read, Write};
use std::net::TcpStream;

use ultramotion_gateway::books::DropReason;
use ultramotion_gateway::service::{Gateway, GatewayError};
use ultramotion_igtlink::{Content, Image, Message, ScalarType};

use crate::bench::{
    SOON, Scanner, client_of, complaints, config, next_of, picture, small_pipelines, squares, time_of,
    wait_for, wait_for_complaint,
};

#[test]
fn a_host_that_does_not_resolve_is_named_once_and_tried_on() {
    // RFC 2606 keeps this name from ever existing.
    let mut gateway = Gateway::start(config("nowhere.invalid:18944".into()), small_pipelines()).unwrap();
    wait_for(&mut gateway, "some attempts", |r| r.connect_failures >= 2);
    wait_for_complaint(&mut gateway, "connect");
    assert!(!gateway.report().connected);
    gateway.stop();
}

#[test]
fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut output = config("127.0.0.1:1".into());
    output.output.listen = address;
    let mut source = config(String::new());
    source.source.listen = Some(address);
    for (config, key) in [(output, "output.listen"), (source, "source.listen")] {
        let error = Gateway::start(config, small_pipelines()).err().expect("the port is taken");
        assert!(!matches!(error, GatewayError::Config(_)));
        let sentence = error.to_string();
        assert!(sentence.starts_with(key) && sentence.contains(&address.to_string()), "{sentence}");
    }
}

#[test]
fn images_that_are_no_frames_are_counted_by_reason_and_the_stream_goes_on() {
    let scanner = Scanner::new();
    let mut gateway = Gateway::start(config(scanner.address()), small_pipelines()).unwrap();
    let client = client_of(&gateway);
    scanner.wait_for_gateway();
    let image = |scalar: ScalarType, size: [u16; 3], components: u8| {
        let bytes = size.iter().map(|&n| usize::from(n)).product::<usize>();
        let bytes = bytes * usize::from(components) * scalar.size_bytes();
        let image = Image::new(scalar, components, size, vec![0; bytes]);
        Message::new("Image_Probe".parse().unwrap(), Content::Image(image))
    };
    for _ in 0..2 {
        scanner.send(&image(ScalarType::Uint8, [0, 4, 1], 1));
        scanner.send(&image(ScalarType::Uint8, [60000, 1, 1], 1));
        scanner.send(&image(ScalarType::Float32, [4, 4, 1], 1));
        scanner.send(&image(ScalarType::Uint16, [4, 4, 1], 1));
        scanner.send(&image(ScalarType::Uint8, [4, 4, 3], 1));
    }
    scanner.send(&picture(1));
    assert_eq!(next_of(&client, "UM_Mask").header().timestamp, time_of(1));
    let account = wait_for(&mut gateway, "the answer", |r| r.account.answered == 1).account;
    assert_eq!((account.received, account.dropped()), (11, 10));
    assert_eq!(account.dropped_for(DropReason::Size), 4);
    assert_eq!(account.dropped_for(DropReason::PixelType), 4);
    assert_eq!(account.dropped_for(DropReason::Volume), 2);
    assert_eq!(complaints(&gateway), [("pixel_type", 4), ("size", 4), ("volume", 2)]);
}

/// A scanner of bytes.
struct RawScanner {
    listener: std::net::TcpListener,
}

impl RawScanner {
    fn new() -> Self {
        RawScanner { listener: std::net::TcpListener::bind("127.0.0.1:0").unwrap() }
    }
    fn address(&self) -> String {
        self.listener.local_addr().unwrap().to_string()
    }
    fn accept(&self) -> TcpStream {
        self.listener.accept().unwrap().0
    }
}

#[test]
fn broken_messages_are_rejected_by_reason_and_the_gateway_comes_back() {
    let scanner = RawScanner::new();
    let mut gateway = Gateway::start(config(scanner.address()), small_pipelines()).unwrap();
    let client = client_of(&gateway);
    let good = picture(0).to_bytes().unwrap();
    let bad_crc = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x40;
        bytes
    };

    let mut stream = scanner.accept();
    // A wrong checksum costs one message.
    stream.write_all(&bad_crc(good.len() - 1)).unwrap();
    // An IMAGE with a good checksum that contradicts itself costs one frame.
    let mut lying = picture(0);
    lying.metadata.push("a", "b");
    let mut lying = lying.to_bytes().unwrap();
    // Columns of the part that the message carries, behind header, extended header and most of the image header.
    lying[58 + 12 + 66 + 1] ^= 1;
    let crc = ultramotion_igtlink::crc64(&lying[58..]);
    lying[50..58].copy_from_slice(&crc.to_be_bytes());
    stream.write_all(&lying).unwrap();
    stream.write_all(&good).unwrap();
    assert_eq!(next_of(&client, "UM_Mask").header().timestamp, time_of(0));
    // Half a message, a version that is not there, a body beyond all bounds: each costs the connection.
    stream.write_all(&good[..good.len() / 2]).unwrap();
    drop(stream);
    for (at, value) in [(1, 99u8), (42, 0x7f)] {
        let mut stream = scanner.accept();
        let mut bytes = good.clone();
        bytes[at] = value;
        // The gateway may be gone before all of it is written.
        let _ = stream.write_all(&bytes);
        let mut end = Vec::new();
        let _ = stream.read_to_end(&mut end);
    }
    let mut stream = scanner.accept();
    stream.write_all(&picture(7).to_bytes().unwrap()).unwrap();
    assert_eq!(next_of(&client, "UM_Mask").header().timestamp, time_of(7));

    let report = wait_for(&mut gateway, "the answers", |r| r.account.answered == 2);
    let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
    for reason in ["crc", "malformed", "truncated", "version", "too_large"] {
        assert_eq!(json[format!("rejected_{reason}")], 1, "{reason}: {json}");
    }
    assert_eq!(report.account.dropped_for(DropReason::Malformed), 1);
    assert_eq!((report.account.received, report.reconnects), (3, 3));
    assert!(report.account.balances());
}

#[test]
fn a_scanner_that_sends_nothing_is_named_and_left() {
    let scanner = RawScanner::new();
    let mut config = config(scanner.address());
    config.source.idle_timeout_s = 0.2;
    let mut gateway = Gateway::start(config, small_pipelines()).unwrap();
    let _silent = scanner.accept();
    let _second = scanner.accept();
    wait_for(&mut gateway, "the second connection", |r| r.reconnects >= 1);
    gateway.stop();

    let scanner = RawScanner::new();
    let mut gateway = Gateway::start(self::config(scanner.address()), small_pipelines()).unwrap();
    let _silent = scanner.accept();
    wait_for(&mut gateway, "the silence", |r| r.state == "SILENT");
    assert_eq!(gateway.complaints(), [("silent", 1)]);
}

#[test]
fn a_client_that_never_reads_holds_up_nobody() {
    let scanner = Scanner::new();
    let mut config = config(scanner.address());
    config.output.queue = 2;
    let mut gateway = Gateway::start(config, small_pipelines()).unwrap();
    let stalled = TcpStream::connect(gateway.output_addr().unwrap()).unwrap();
    let client = client_of(&gateway);
    wait_for(&mut gateway, "both clients", |r| r.clients == 2);
    scanner.wait_for_gateway();
    // Large notes fill what the sockets hold for the one that never reads.
    let big = Message::new(
        "ProbeToTracker".parse().unwrap(),
        Content::Transform(ultramotion_igtlink::Transform::IDENTITY),
    );
    let mut number = 0;
    loop {
        scanner.send(&picture(number));
        let mut poses = big.clone().at(time_of(number));
        poses.metadata.push("Padding", "x".repeat(1 << 20));
        scanner.send(&poses);
        assert_eq!(next_of(&client, "ProbeToTracker").header().timestamp, time_of(number));
        wait_for(&mut gateway, "the answer", |r| r.account.answered == number + 1);
        number += 1;
        if gateway.report().send_dropped > 20 {
            break;
        }
    }
    let last = gateway.stop();
    assert_eq!(last.account.answered, number);
    assert!(last.account.balances());
    drop(stalled);
}

#[test]
fn a_client_may_ask_but_not_send_images() {
    let scanner = Scanner::new();
    let mut gateway = Gateway::start(config(scanner.address()), small_pipelines()).unwrap();
    let honest = client_of(&gateway);
    scanner.wait_for_gateway();
    let mut greedy = TcpStream::connect(gateway.output_addr().unwrap()).unwrap();
    greedy.set_read_timeout(Some(SOON)).unwrap();
    // The announcement alone ends it: nothing of the body need come.
    let note = Message::new("Note".parse().unwrap(), Content::string("x".repeat(65_535)));
    greedy.write_all(&note.to_bytes().unwrap()[..58]).unwrap();
    assert!(greedy.read_to_end(&mut Vec::new()).is_ok(), "the gateway ends the connection");
    scanner.send(&picture(1));
    assert_eq!(next_of(&honest, "UM_Mask").header().timestamp, time_of(1));
    wait_for(&mut gateway, "one client", |r| r.clients == 1);
}

#[test]
fn peers_that_only_drip_do_not_keep_the_scanner_out() {
    let mut config = config(String::new());
    config.source.listen = Some("127.0.0.1:0".parse().unwrap());
    let mut gateway = Gateway::start(config, small_pipelines()).unwrap();
    let client = client_of(&gateway);
    let address = gateway.source_addr().unwrap();
    let drips: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(address).unwrap()).collect();
    drips.iter().for_each(|mut drip| drip.write_all(&[0]).unwrap());
    let mut scanner = TcpStream::connect(address).unwrap();
    scanner.write_all(&picture(0).to_bytes().unwrap()).unwrap();
    assert_eq!(next_of(&client, "UM_Mask").header().timestamp, time_of(0));
    wait_for(&mut gateway, "the answer", |r| r.account.answered == 1);
}

#[test]
fn the_first_peer_of_many_does_not_choose_the_device_for_ever() {
    let mut config = config(String::new());
    config.source.listen = Some("127.0.0.1:0".parse().unwrap());
    let mut gateway = Gateway::start(config, small_pipelines()).unwrap();
    let client = client_of(&gateway);
    let address = gateway.source_addr().unwrap();
    let from = |device: &str, number| {
        Message { device_name: device.parse().unwrap(), ..picture(number) }.to_bytes().unwrap()
    };
    let (mut first, mut second) =
        (TcpStream::connect(address).unwrap(), TcpStream::connect(address).unwrap());
    first.write_all(&from("Image_Stray", 0)).unwrap();
    assert_eq!(next_of(&client, "UM_Mask").header().timestamp, time_of(0));
    // While the first is there its device is taken, and no other connection's, even under the same name.
    second.write_all(&from("Image_Probe", 1)).unwrap();
    second.write_all(&from("Image_Stray", 2)).unwrap();
    wait_for(&mut gateway, "both", |r| r.other_images == 2);
    drop(first);
    wait_for_complaint(&mut gateway, "disconnected");
    second.write_all(&from("Image_Probe", 3)).unwrap();
    let mask = next_of(&client, "UM_Mask");
    assert_eq!(mask.header().timestamp, time_of(3));
    assert_eq!(mask.decode().unwrap().metadata.get("Source").unwrap(), "Image_Probe");
}

#[test]
fn pose_names_without_end_do_not_displace_those_that_are_needed() {
    let scanner = Scanner::new();
    let mut config = config(scanner.address());
    config.output.tracker_contours = true;
    config.source.image_to_tracker = vec!["ProbeToTracker".into()];
    let mut gateway = Gateway::start(config, squares(2)).unwrap();
    let client = client_of(&gateway);
    scanner.wait_for_gateway();
    let shift = ultramotion_igtlink::Transform {
        translation: [1.0, 2.0, 3.0],
        ..ultramotion_igtlink::Transform::IDENTITY
    };
    let pose = |name: &str| Message::new(name.parse().unwrap(), Content::Transform(shift)).at(time_of(0));
    scanner.send(&pose("ProbeToTracker"));
    for number in 0..100 {
        scanner.send(&pose(&format!("T{number}")));
        wait_for(&mut gateway, "the name", |r| r.poses == number + 2);
    }
    assert_eq!(gateway.report().poses_evicted, 37);
    scanner.send(&picture(0));
    let outlines = next_of(&client, "UM_TrackerContours");
    assert!(matches!(outlines.decode().unwrap().content, Content::PolyData(data) if data.lines.len() == 2));
    assert_eq!(complaints(&gateway), [("pose_names", 37)]);
}

#[test]
fn the_largest_frame_that_is_documented_is_taken() {
    let scanner = Scanner::new();
    let mut gateway = Gateway::start(config(scanner.address()), squares(1)).unwrap();
    scanner.wait_for_gateway();
    let image = Image::grey8(8192, 8192, vec![7; 8192 * 8192]);
    scanner.send(&Message::new("Image_Probe".parse().unwrap(), Content::Image(image)).at(time_of(0)));
    wait_for(&mut gateway, "the answer", |r| r.account.answered == 1);
}

#[test]
fn a_link_that_fails_the_same_way_again_names_the_setting() {
    let scanner = RawScanner::new();
    let mut config = config(scanner.address());
    config.source.max_message_mb = 1;
    let mut gateway = Gateway::start(config, small_pipelines()).unwrap();
    let image = Image::grey8(2048, 1024, vec![7; 2048 * 1024]);
    let image = Message::new("Image_Probe".parse().unwrap(), Content::Image(image)).to_bytes().unwrap();
    for _ in 0..2 {
        // The header alone ends the connection.
        scanner.accept().write_all(&image[..58]).unwrap();
    }
    wait_for_complaint(&mut gateway, "always_too_large");
    assert!(complaints(&gateway).contains(&("too_large", 2)));
}
