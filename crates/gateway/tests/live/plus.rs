//! A peer that behaves as PlusServer's documentation and sources say, where it matters to a client:
//!
//! - It begins with header version 1 and raises it to what the client has sent, up to its own.
//! - It sends what its configuration says until a CLIENTINFO replaces that, with the version in it, or else version 1.
//! - TDATA goes to who has sent STT_TDATA, and its resolution is added to seconds.
//! - A transform whose tool was lost is left out, or else (`SendValidTransformsOnly="FALSE"`) sent as the identity.
//!   Images keep coming. In version 2 metadata says how each tool is.
//! - Names are cut to 20 characters. A TRANSFORM then has the whole one in its metadata, a TDATA in its keys; an IMAGE may
//!   be given another name altogether.
//! - What was buffered before a client came is sent to it first.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use ultramotion_gateway::receive::tracked_frame;
use ultramotion_igtlink::{
    Content, CoordinateSystem, DecoderConfig, DeviceName, HeaderVersion, Image, Message, Query, Status,
    StreamDecoder, Timestamp, TrackedTool, Transform,
};

use crate::bench::small::{self, HEIGHT, WIDTH};
use crate::bench::{SOON, placement};

/// A server's configuration.
#[derive(Debug, Clone)]
pub struct PlusConfig {
    pub message_types: Vec<&'static str>,
    pub image: (&'static str, &'static str),
    pub transforms: Vec<&'static str>,
    pub valid_transforms_only: bool,
    pub friendly_name: Option<&'static str>,
    /// Whether the metadata of an IMAGE has the tools of its frame.
    pub image_fields: bool,
    /// The latest header version that its library knows.
    pub max_version: u16,
}

impl Default for PlusConfig {
    fn default() -> Self {
        PlusConfig {
            // Poses first, so that a test need not wait for them.
            message_types: vec!["TRANSFORM", "TDATA", "IMAGE"],
            image: ("Image", "Probe"),
            transforms: vec!["ProbeToTracker"],
            valid_transforms_only: true,
            friendly_name: None,
            image_fields: true,
            max_version: 2,
        }
    }
}

/// What a server knows of its client.
#[derive(Debug, Clone)]
pub struct ClientState {
    pub version: u16,
    pub tdata: bool,
    message_types: Vec<String>,
    images: Vec<(String, String)>,
    transforms: Vec<String>,
    last_tdata_s: f64,
    tdata_resolution: f64,
    /// Types of all messages that came, with their header versions.
    pub heard: Vec<(String, u16)>,
}

/// A moment's image and tools.
#[derive(Debug, Clone)]
pub struct TrackedFrame {
    pub time: Timestamp,
    pub number: u64,
    /// Name, shift along x, and status.
    pub tools: Vec<(&'static str, f32, &'static str)>,
}

pub struct Plus {
    listener: TcpListener,
    config: PlusConfig,
}

/// A connected client, as the server sees it.
pub struct PlusClient {
    stream: TcpStream,
    config: PlusConfig,
    shared: Arc<(Mutex<ClientState>, Condvar)>,
    _reader: JoinHandle<()>,
}

impl Plus {
    pub fn new(config: PlusConfig) -> Self {
        Plus { listener: TcpListener::bind("127.0.0.1:0").unwrap(), config }
    }

    pub fn address(&self) -> String {
        self.listener.local_addr().unwrap().to_string()
    }

    pub fn accept(&self) -> PlusClient {
        let (stream, _) = self.listener.accept().unwrap();
        let config = self.config.clone();
        let own = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let shared = Arc::new((
            Mutex::new(ClientState {
                version: 1,
                tdata: false,
                message_types: own(&config.message_types),
                images: vec![(config.image.0.into(), config.image.1.into())],
                transforms: own(&config.transforms),
                last_tdata_s: -1.0,
                tdata_resolution: 0.0,
                heard: Vec::new(),
            }),
            Condvar::new(),
        ));
        let (listening, state) = (stream.try_clone().unwrap(), Arc::clone(&shared));
        let max_version = config.max_version;
        let reader = std::thread::spawn(move || listen_to(listening, &state, max_version));
        PlusClient { stream, config, shared, _reader: reader }
    }
}

/// Obeys what a client sends until it goes.
fn listen_to(mut stream: TcpStream, shared: &(Mutex<ClientState>, Condvar), max_version: u16) {
    let mut decoder = StreamDecoder::new(DecoderConfig::default());
    let mut buffer = [0; 4096];
    while let Ok(len @ 1..) = stream.read(&mut buffer) {
        let mut rest = &buffer[..len];
        while let Some(raw) = decoder.feed(&mut rest) {
            let Ok(raw) = raw else { return };
            let mut client = shared.0.lock().unwrap();
            let version = raw.header().version as u16;
            if version > max_version {
                // A library from before 2017 takes the extended header for content.
                let _ = stream.shutdown(std::net::Shutdown::Both);
                return;
            }
            client.version = client.version.max(version.min(max_version));
            let type_name = raw.header().type_name.to_string_lossy().into_owned();
            match type_name.as_str() {
                "CLIENTINFO" => {
                    let body = raw.body();
                    // Behind extended header and in front of metadata; a text after encoding and length.
                    let xml = String::from_utf8_lossy(body).into_owned();
                    let all = |element: &str, attribute: &str| -> Vec<String> {
                        let value = |part: &str| {
                            let after = part.split_once(&format!("{attribute}=\""))?.1;
                            Some(after.split_once('"')?.0.to_owned())
                        };
                        xml.split(&format!("<{element} ")).skip(1).filter_map(value).collect()
                    };
                    let images =
                        all("Image", "Name").into_iter().zip(all("Image", "EmbeddedTransformToFrame"));
                    client.images = images.collect();
                    client.message_types = all("Message", "Type");
                    client.transforms = all("Transform", "Name");
                    client.tdata = all("ClientInfo", "TDATARequested") == ["TRUE"];
                    client.version = all("ClientInfo", "ClientHeaderVersion")
                        .first()
                        .map_or(1, |version| version.parse().unwrap());
                }
                "STT_TDATA" => {
                    client.tdata = true;
                    let Ok(Message { content: Content::Query(query), .. }) = raw.decode() else {
                        panic!("a query")
                    };
                    if let ultramotion_igtlink::Parameters::Tracking { resolution_ms, .. } = query.parameters
                    {
                        client.tdata_resolution = resolution_ms.into();
                    }
                    let answer = Content::Query(Query::answer("TDATA".parse().unwrap(), true));
                    let mut answer = Message::new(DeviceName::EMPTY, answer);
                    answer.version = header(client.version);
                    let _ = stream.write_all(&answer.to_bytes().unwrap());
                }
                "GET_STATUS" => {
                    let mut answer = Message::new(DeviceName::EMPTY, Content::Status(Status::OK));
                    answer.version = header(client.version);
                    let _ = stream.write_all(&answer.to_bytes().unwrap());
                }
                _ => {}
            }
            client.heard.push((type_name, version));
            drop(client);
            shared.1.notify_all();
        }
    }
}

fn header(version: u16) -> HeaderVersion {
    if version == 1 { HeaderVersion::V1 } else { HeaderVersion::V2 }
}

impl PlusClient {
    /// Waits until the server knows this of its client.
    pub fn wait(&self, what: &str, wanted: impl Fn(&ClientState) -> bool) -> ClientState {
        let (state, changed) = &*self.shared;
        let waited =
            changed.wait_timeout_while(state.lock().unwrap(), SOON, |state| !wanted(state)).unwrap().0;
        assert!(wanted(&waited), "waited for {what}: {waited:?}");
        waited.clone()
    }

    /// Waits for all that the gateway says on connecting, by default.
    pub fn wait_greeted(&self) -> ClientState {
        self.wait("the greeting", |client| client.tdata)
    }

    /// Sends a moment's messages, as the client wants them.
    pub fn send(&self, frame: &TrackedFrame) {
        let mut bytes = Vec::new();
        let mut client = self.shared.0.lock().unwrap();
        for message_type in client.message_types.clone() {
            match message_type.as_str() {
                "IMAGE" => self.images(&client, frame, &mut bytes),
                "TRANSFORM" => self.transforms(&client, frame, &mut bytes),
                "TDATA" => self.tracking(&mut client, frame, &mut bytes),
                "TRACKEDFRAME" => self.tracked_frames(&client, frame, &mut bytes),
                other => {
                    let type_name = other.parse().unwrap();
                    let content = Content::Unknown { type_name, bytes: vec![0; 99].into() };
                    push(&client, Message::new(DeviceName::EMPTY, content).at(frame.time), &mut bytes);
                }
            }
        }
        drop(client);
        (&self.stream).write_all(&bytes).unwrap();
    }

    fn images(&self, client: &ClientState, frame: &TrackedFrame, bytes: &mut Vec<u8>) {
        for (from, to) in &client.images {
            let image = Image::grey8(WIDTH as u16, HEIGHT as u16, small::picture(frame.number));
            let image = Image { coordinates: CoordinateSystem::Ras, ..image.placed(placement()) };
            let own = format!("{from}_{to}");
            let name = DeviceName::truncated(self.config.friendly_name.unwrap_or(&own));
            let mut message = Message::new(name, Content::Image(image)).at(frame.time);
            message.metadata.push("FrameNumber", frame.number.to_string());
            for (tool, shift, status) in frame.tools.iter().filter(|_| self.config.image_fields) {
                message
                    .metadata
                    .push(format!("{tool}Transform"), format!("1 0 0 {shift} 0 1 0 0 0 0 1 0 0 0 0 1"));
                message.metadata.push(format!("{tool}TransformStatus"), *status);
            }
            self.config
                .friendly_name
                .iter()
                .for_each(|name| message.metadata.push("FriendlyDeviceName", *name));
            push(client, message, bytes);
        }
    }

    /// Without a name; its fields are those of the transforms that are configured.
    fn tracked_frames(&self, client: &ClientState, frame: &TrackedFrame, bytes: &mut Vec<u8>) {
        let mut xml =
            format!("<TrackedFrame Timestamp=\"{}\" ImageDataValid=\"true\">", frame.time.as_secs_f64());
        for name in &client.transforms {
            let (matrix, status) = look_up(frame, name);
            let rows = matrix.to_matrix().map(|row| row.map(|value| value.to_string()).join(" ")).join(" ");
            for (suffix, value) in [("Transform", rows.as_str()), ("TransformStatus", status)] {
                xml.push_str(&format!("<CustomFrameField Name=\"{name}{suffix}\" Value=\"{value}\" />"));
            }
        }
        xml.push_str("</TrackedFrame>");
        let size = [WIDTH as u16, HEIGHT as u16];
        let placed =
            placement().world_from_ijk([size[0], size[1], 1]).map(|row| row.map(|value| value as f32));
        let body = tracked_frame::encode(size, &small::picture(frame.number), placed, &xml);
        let content = Content::Unknown { type_name: "TRACKEDFRAME".parse().unwrap(), bytes: body.into() };
        push(client, Message::new(DeviceName::EMPTY, content).at(frame.time), bytes);
    }

    fn transforms(&self, client: &ClientState, frame: &TrackedFrame, bytes: &mut Vec<u8>) {
        for name in &client.transforms {
            let (matrix, status) = look_up(frame, name);
            if status != "OK" && self.config.valid_transforms_only {
                continue;
            }
            let mut message =
                Message::new(DeviceName::truncated(name), Content::Transform(matrix)).at(frame.time);
            message.metadata.push("TransformValid", if status == "OK" { "1" } else { "0" });
            message.metadata.push("TransformStatus", status);
            if name.len() > 20 {
                message.metadata.push("IGTL_DEVICE_NAME", name.clone());
            }
            push(client, message, bytes);
        }
    }

    fn tracking(&self, client: &mut ClientState, frame: &TrackedFrame, bytes: &mut Vec<u8>) {
        let time_s = frame.time.as_secs_f64();
        if !client.tdata || client.last_tdata_s + client.tdata_resolution >= time_s {
            return;
        }
        client.last_tdata_s = time_s;
        let client = &*client;
        let wanted = client.transforms.iter().map(|name| (name, look_up(frame, name)));
        let sent: Vec<_> =
            wanted.filter(|(_, (_, status))| *status == "OK" || !self.config.valid_transforms_only).collect();
        let tool = |(name, (matrix, _)): &(&String, (Transform, &'static str))| {
            TrackedTool::new(DeviceName::truncated(name), *matrix)
        };
        let device = format!("TDATA_{}Elem", sent.len()).parse().unwrap();
        let tools = Content::TrackingData(sent.iter().map(tool).collect());
        let mut message = Message::new(device, tools).at(frame.time);
        for (index, (name, (_, status))) in sent.iter().enumerate() {
            message.metadata.push(format!("{name}Status"), *status);
            message.metadata.push(format!("{name}Index"), index.to_string());
        }
        push(client, message, bytes);
    }

    /// Sends a message as it is.
    pub fn send_message(&self, message: &Message<'_>) {
        (&self.stream).write_all(&message.to_bytes().unwrap()).unwrap();
    }
}

/// A tool's matrix and status; the identity for one that was lost.
fn look_up(frame: &TrackedFrame, name: &str) -> (Transform, &'static str) {
    let found = frame.tools.iter().find(|(tool, ..)| *tool == name);
    let (_, shift, status) = *found.unwrap_or(&("", 0.0, "UNKNOWN"));
    let shift = if status == "OK" { shift } else { 0.0 };
    (Transform { translation: [shift, 0.0, 0.0], ..Transform::IDENTITY }, status)
}

/// In the version that the client has: metadata has no place in version 1.
fn push(client: &ClientState, mut message: Message<'static>, bytes: &mut Vec<u8>) {
    message.version = header(client.version);
    if client.version == 1 {
        message.metadata = ultramotion_igtlink::Metadata::default();
    }
    bytes.extend_from_slice(&message.to_bytes().unwrap());
}
