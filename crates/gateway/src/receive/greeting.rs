//! What a scanner is told when the connection to it is made.
//!
//! PlusServer begins with header version 1, which has no metadata and so no word about lost tools, and raises it to
//! what a client has sent: so the first thing is a message of version 2. It sends TDATA only to who asks for it
//! (`STT_TDATA`), and what its configuration says unless told otherwise by a `CLIENTINFO`: a message whose body is that of
//! a STRING, with XML.

use ultramotion_igtlink::{
    CharacterEncoding, Content, DeviceName, FixedString, HeaderVersion, Message, Parameters, Query, Status,
    Timestamp, TypeName, Verb,
};

use crate::config::SourceConfig;
use crate::xml::escaped;

/// Header version of what is sent to the scanner.
pub fn source_version(config: &SourceConfig) -> HeaderVersion {
    if config.version == 1 { HeaderVersion::V1 } else { HeaderVersion::V2 }
}

/// STATUS OK, which asks for nothing: a greeting, and a sign of life later.
pub fn sign_of_life(config: &SourceConfig) -> Message<'static> {
    let message = Message::new(DeviceName::EMPTY, Content::Status(Status::OK)).at(Timestamp::now());
    Message { version: source_version(config), ..message }
}

/// The messages, in the order of sending; none in version 1 unless something is asked for.
pub fn greeting(config: &SourceConfig) -> Vec<Message<'static>> {
    let version = source_version(config);
    let message =
        |content| Message { version, ..Message::new(DeviceName::EMPTY, content).at(Timestamp::now()) };
    let mut messages = Vec::new();
    if !config.ask_for.is_empty() {
        messages.push(message(client_info(config)));
    } else if version.is_extended() {
        messages.push(sign_of_life(config));
    }
    if config.request_tdata {
        // PlusServer adds the resolution to seconds, so that more than 0 would thin the stream out.
        let parameters = Parameters::Tracking { resolution_ms: 0, coordinate_name: FixedString::EMPTY };
        let target = FixedString::truncated("TDATA");
        messages.push(message(Content::Query(Query { verb: Verb::Start, target, parameters })));
    }
    messages
}

/// What PlusServer shall send to this client in place of what it sends by default.
fn client_info(config: &SourceConfig) -> Content<'static> {
    let (mut images, mut transforms) = (String::new(), String::new());
    for name in &config.ask_for {
        match name.split_once('_') {
            Some((name, frame)) => {
                let (name, frame) = (escaped(name), escaped(frame));
                images.push_str(&format!("<Image Name=\"{name}\" EmbeddedTransformToFrame=\"{frame}\"/>"));
            }
            None => transforms.push_str(&format!("<Transform Name=\"{}\"/>", escaped(name))),
        }
    }
    // A version in the XML, since this replaces what PlusServer had concluded from the message that brings it. Poses
    // first, since PlusServer keeps the order, and an image's poses are then there when it comes.
    let xml = format!(
        "<ClientInfo ClientHeaderVersion=\"{}\" TDATARequested=\"{}\" TDATAResolution=\"0\"><MessageTypes>\
         <Message Type=\"TRANSFORM\"/><Message Type=\"IMAGE\"/></MessageTypes><ImageNames>{images}</ImageNames>\
         <TransformNames>{transforms}</TransformNames></ClientInfo>",
        if config.version == 1 { 1 } else { 2 },
        if config.request_tdata { "TRUE" } else { "FALSE" },
    );
    // The body of a STRING: encoding, length, text. Names are few and short, which the configuration has seen to.
    let mut bytes = [CharacterEncoding::US_ASCII.0.to_be_bytes(), (xml.len() as u16).to_be_bytes()].concat();
    bytes.extend_from_slice(xml.as_bytes());
    Content::Unknown { type_name: TypeName::truncated("CLIENTINFO"), bytes: bytes.into() }
}
