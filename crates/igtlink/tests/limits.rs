//! What the codec and the stream decoder refuse, and what they make of odd but legal messages.

use std::borrow::Cow;

use ultramotion_igtlink::*;

fn encode(content: Content<'_>) -> Result<Vec<u8>, EncodeError> {
    Message::new(DeviceName::EMPTY, content).to_bytes()
}

/// A message with this content and a right checksum.
fn raw(version: u16, type_name: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = version.to_be_bytes().to_vec();
    bytes.extend_from_slice(type_name.parse::<TypeName>().expect("a type").raw());
    bytes.extend_from_slice(&[0; 28]);
    bytes.extend_from_slice(&(body.len() as u64).to_be_bytes());
    bytes.extend_from_slice(&crc64(body).to_be_bytes());
    bytes.extend_from_slice(body);
    bytes
}

#[test]
fn what_does_not_fit_is_named() {
    assert_eq!(
        encode(Content::string("x".repeat(65536))),
        Err(EncodeError::TooLong { part: "STRING", field: "text", len: 65536, max: 65535 })
    );
    let error = encode(Content::Image(Image::grey8(4, 4, vec![0; 15]))).expect_err("a pixel is missing");
    assert_eq!(error.to_string(), "IMAGE: pixel bytes = 15, expected 16");
    let sensor = Sensor { status: 0, unit: Unit::NONE, values: vec![0.0; 256] };
    assert!(matches!(encode(Content::Sensor(sensor)), Err(EncodeError::TooLong { field: "values", .. })));
    let bind = Bind { children: vec![BindChild::new("a\0b", &Content::string("")).expect("a child")] };
    assert!(matches!(encode(Content::Bind(bind)), Err(EncodeError::Field { field: "name length", .. })));
    let mut message = Message::new(DeviceName::EMPTY, Content::string(""));
    message.metadata.push("", "value");
    assert!(matches!(message.to_bytes(), Err(EncodeError::Field { field: "key size", .. })));
}

#[test]
fn version_1_carries_no_extras() {
    let plain =
        || Message { version: HeaderVersion::V1, ..Message::new(DeviceName::EMPTY, Content::string("")) };
    assert!(plain().to_bytes().is_ok());
    let mut message = plain();
    message.metadata.push("key", "value");
    assert_eq!(message.to_bytes(), Err(EncodeError::NeedsVersion2 { what: "metadata" }));
    let message = Message { message_id: 1, ..plain() };
    assert_eq!(message.to_bytes(), Err(EncodeError::NeedsVersion2 { what: "a message id" }));
    let message = Message { extension: Cow::Borrowed(&[1]), ..plain() };
    assert!(matches!(message.to_bytes(), Err(EncodeError::NeedsVersion2 { .. })));
}

#[test]
fn a_subvolume_lies_within_its_image() {
    let mut image = Image::grey8(4, 4, vec![0; 4]);
    (image.subvolume_offset, image.subvolume_size) = ([2, 2, 0], [2, 2, 1]);
    assert!(!image.is_whole());
    assert!(encode(Content::Image(image.clone())).is_ok());
    image.subvolume_offset = [3, 2, 0];
    let error = encode(Content::Image(image)).expect_err("outside");
    assert_eq!(error.to_string(), "IMAGE: subvolume end = 5, but only 4 can be there");
}

#[test]
fn an_empty_body_says_that_there_is_no_data() {
    for (version, type_name) in [(1, "IMAGE"), (1, "TRANSFORM"), (2, "POLYDATA"), (3, "STATUS")] {
        let bytes = raw(version, type_name, &[]);
        let message = Message::decode(&bytes).expect("an empty reply");
        assert_eq!(message.content, Content::Unavailable(type_name.parse().expect("a type")));
        let again = message.to_bytes().expect("an empty reply");
        assert_eq!(Message::decode(&again), Ok(message));
    }
    let bytes = raw(1, "POINT", &[]);
    assert_eq!(Message::decode(&bytes).expect("no points").content, Content::Points(Vec::new()));
}

#[test]
fn a_status_needs_no_sentence() {
    let mut body = vec![0, 1];
    body.extend([0; 28]);
    for tail in [&b""[..], b"\0", b"fine", b"fine\0"] {
        let bytes = raw(1, "STATUS", &[&body[..], tail].concat());
        let message = Message::decode(&bytes).expect("a status");
        let Content::Status(status) = message.content else { panic!("no status") };
        assert_eq!(status.code, StatusCode::Ok);
        assert_eq!(status.message_lossy(), if tail.len() < 2 { "" } else { "fine" });
    }
    let error = Message::decode(&raw(1, "STATUS", &body[..29])).map(drop).expect_err("a name is cut");
    assert_eq!(error.to_string(), "STATUS: error name = 19, expected at least 20");
}

#[test]
fn headers_of_nonsense_are_refused() {
    for type_name in ["", "\u{1}IMAGE", "IMAGE\u{7f}", "Bild\u{e4}"] {
        let error = Message::decode(&raw(1, type_name, &[])).map(drop).expect_err("no type");
        assert_eq!(error.class(), ErrorClass::Malformed, "{type_name:?}: {error}");
    }
}

#[test]
fn deep_nesting_costs_no_stack() {
    let mut content = encode_body(&Content::string("x"));
    let mut type_name = "STRING";
    for _ in 0..200 {
        let child = BindChild {
            type_name: type_name.parse().expect("a type"),
            device_name: Cow::Borrowed(b""),
            body: Cow::Owned(content),
        };
        content = encode_body(&Content::Bind(Bind { children: vec![child] }));
        type_name = "BIND";
    }
    let bytes = raw(1, "BIND", &content);
    assert!(matches!(Message::decode(&bytes).expect("a bind").content, Content::Bind(_)));
}

fn encode_body(content: &Content<'_>) -> Vec<u8> {
    BindChild::new("", content).expect("content that can be written").body.into_owned()
}

fn transform() -> Vec<u8> {
    let content = Content::Transform(Transform::IDENTITY);
    Message::new("T".parse().expect("a name"), content).to_bytes().expect("a transform")
}

/// All that the decoder makes of these bytes.
fn feed(decoder: &mut StreamDecoder, mut bytes: &[u8]) -> Vec<Result<DeviceName, StreamError>> {
    let mut results = Vec::new();
    while let Some(result) = decoder.feed(&mut bytes) {
        results.push(result.map(|raw| raw.header().device_name));
        if decoder.is_closed() {
            break;
        }
    }
    results
}

#[test]
fn the_size_limit_holds() {
    let mut decoder = StreamDecoder::new(DecoderConfig { max_body_bytes: 61, ..DecoderConfig::default() });
    let header = Header::decode(&transform()).expect("a header");
    assert_eq!(header.body_size, 62);
    assert_eq!(feed(&mut decoder, &transform()), [Err(StreamError::TooLarge { body_size: 62, limit: 61 })]);
    assert!(decoder.is_closed());
    assert_eq!(feed(&mut decoder, &transform()), [Err(StreamError::Closed)]);
    assert_eq!((decoder.counts().get(RejectReason::TooLarge), decoder.counts().total()), (1, 1));

    let mut decoder =
        StreamDecoder::new(DecoderConfig { max_body_bytes: u64::MAX, ..DecoderConfig::default() });
    let mut huge = transform();
    huge[42..50].copy_from_slice(&u64::MAX.to_be_bytes());
    assert!(matches!(feed(&mut decoder, &huge)[..], [Err(StreamError::TooLarge { .. })]));
}

#[test]
fn a_bad_checksum_costs_one_message() {
    let mut decoder = StreamDecoder::new(DecoderConfig::default());
    let mut damaged = transform();
    damaged[100] ^= 1;
    let stream = [transform(), damaged.clone(), transform()].concat();
    let results = feed(&mut decoder, &stream);
    assert!(matches!(results[..], [Ok(_), Err(StreamError::Crc { .. }), Ok(_)]), "{results:?}");
    assert_eq!(decoder.counts().get(RejectReason::Crc), 1);

    let mut trusting = StreamDecoder::new(DecoderConfig { check_crc: false, ..DecoderConfig::default() });
    assert!(feed(&mut trusting, &damaged)[0].is_ok());
}

#[test]
fn a_bad_header_closes_or_is_passed_over() {
    let mut bad = transform();
    bad[1] = 99;
    let stream = [transform(), bad, transform()].concat();

    let mut closing = StreamDecoder::new(DecoderConfig::default());
    let results = feed(&mut closing, &stream);
    let version = DecodeError::Version { version: 99 };
    assert!(
        matches!(results[..], [Ok(_), Err(StreamError::Header(error))] if error == version),
        "{results:?}"
    );

    let mut searching =
        StreamDecoder::new(DecoderConfig { on_bad_header: BadHeader::Resync, ..DecoderConfig::default() });
    let results = feed(&mut searching, &stream);
    assert!(matches!(results[..], [Ok(_), Err(StreamError::Header(_)), Ok(_)]), "{results:?}");
    assert_eq!(searching.counts().get(RejectReason::Version), 1);
    assert_eq!(searching.counts().skipped_bytes, 120);
    let counts: Vec<_> =
        searching.counts().iter().filter(|(_, n)| *n > 0).map(|(r, n)| (r.name(), n)).collect();
    assert_eq!(counts, [("version", 1)]);
}

#[test]
fn an_end_inside_a_message_is_counted() {
    let mut decoder = StreamDecoder::new(DecoderConfig::default());
    for cut in [1, 57, 58, 100] {
        assert!(feed(&mut decoder, &transform()[..cut]).is_empty());
        assert_eq!(decoder.pending_bytes(), cut);
        assert!(decoder.end());
        assert_eq!(decoder.pending_bytes(), 0);
    }
    assert!(!decoder.end());
    assert_eq!(decoder.counts().get(RejectReason::Truncated), 4);
    assert_eq!(feed(&mut decoder, &transform()).len(), 1);
}

#[test]
fn unknown_types_are_carried() {
    let bytes =
        raw(2, "CLIENTINFO", &[&[0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5][..], b"<ClientInfo/>"].concat());
    let message = Message::decode(&bytes).expect("a message");
    let Content::Unknown { type_name, bytes: content } = &message.content else { panic!("known?") };
    assert_eq!((type_name.as_str(), &content[..]), (Some("CLIENTINFO"), &b"<ClientInfo/>"[..]));
    assert_eq!(message.message_id, 5);
    let again = message.to_bytes().expect("a message");
    assert_eq!(Message::decode(&again).expect("a message").content, message.content);
}
