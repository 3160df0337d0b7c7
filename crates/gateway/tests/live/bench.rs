//! A scanner, a gateway and a client on a bench.

use std::time::{Duration, Instant};

use ultramotion_gateway::config::{GatewayConfig, OutputConfig, PageConfig, SourceConfig};
use ultramotion_gateway::report::Report;
use ultramotion_gateway::service::{BoxError, BuildPipeline, Gateway, Perceive};
use ultramotion_igtlink::{
    Client, ClientConfig, ClientEvent, Content, Image, Message, Placement, RawMessage, Server, ServerConfig,
    Timestamp,
};

use ultramotion_pipeline::PipelineError;
use ultramotion_types::{DetectedObject, FrameView, ResultPacket, Visibility};

#[path = "../../../pipeline/tests/small/mod.rs"]
pub mod small;

use small::{HEIGHT, WIDTH};

/// Longer than anything here takes, unless there is a defect.
pub const SOON: Duration = Duration::from_secs(60);

/// A scanner that sends when it is told to.
pub struct Scanner {
    pub server: Server,
}

impl Scanner {
    pub fn new() -> Self {
        Scanner { server: Server::start(ServerConfig::listening_on("127.0.0.1:0".parse().unwrap())).unwrap() }
    }

    pub fn address(&self) -> String {
        self.server.local_addrs()[0].to_string()
    }

    pub fn wait_for_gateway(&self) {
        assert!(self.server.wait_clients(1, SOON), "the gateway connects");
    }

    pub fn send(&self, message: &Message<'_>) {
        assert_eq!(self.server.broadcast(message).unwrap(), 1);
    }
}

/// The time of a picture: unlike any that a program would make up, with all 64 bits in use.
pub fn time_of(number: u64) -> Timestamp {
    Timestamp::from_bits((1_234_567 << 32) + 0x1357_9bdf + number * 0x0a3d_70a4)
}

/// Where pictures lie: turned, with a spacing, away from the origin.
pub fn placement() -> Placement {
    Placement {
        step_i: [0.0, 0.25, 0.0],
        step_j: [-0.5, 0.0, 0.0],
        step_k: [0.0, 0.0, 1.0],
        center: [10.0, 20.0, -30.0],
    }
}

pub fn picture(number: u64) -> Message<'static> {
    let image = Image::grey8(WIDTH as u16, HEIGHT as u16, small::picture(number)).placed(placement());
    Message::new("Image_Probe".parse().unwrap(), Content::Image(image)).at(time_of(number))
}

/// A pipeline of the small networks whenever one is asked for.
pub fn small_pipelines() -> BuildPipeline {
    Box::new(|| Ok(Box::new(small::pipeline(1, small::options())) as Box<dyn Perceive>))
}

/// Stands in for the networks where it does not matter what is found: so many squares in every frame, the last of which
/// is not confirmed yet.
pub struct Squares(pub usize);

impl Squares {
    /// Their sides, in pixels.
    const SIDE: usize = 4;
}

impl Perceive for Squares {
    fn process_into(
        &mut self,
        frame: &FrameView<'_>,
        packet: &mut ResultPacket,
    ) -> Result<(), PipelineError> {
        packet.frame_id = frame.frame_id;
        (packet.timestamp_s, packet.time_source) = (frame.timestamp_s, frame.time_source);
        frame.source.clone_into(&mut packet.source);
        packet.state = if self.0 > 0 { Visibility::Visible } else { Visibility::Lost };
        packet.labels = ["vessel".to_owned()].into();
        packet.begin(frame.width, frame.height, self.0)?;
        for number in 0..self.0 {
            let left = number * (Self::SIDE + 1);
            let row_bytes = frame.width.div_ceil(8);
            let mut bits = vec![0; row_bytes * frame.height];
            for (y, x) in (0..Self::SIDE).flat_map(|y| (0..Self::SIDE).map(move |x| (y, left + x))) {
                bits[y * row_bytes + x / 8] |= 1 << (x % 8);
            }
            let side = Self::SIDE as f32;
            let object = DetectedObject {
                track_id: number as i32 + 1,
                confirmed: number + 1 < self.0,
                score: 1.0 / (number as f32 + 2.0),
                box_xyxy: [left as f32, 0.0, left as f32 + side, side],
                mask_area_px: Self::SIDE * Self::SIDE,
                ..DetectedObject::default()
            };
            packet.push(object, &bits);
        }
        Ok(())
    }

    fn epoch(&self) -> u64 {
        0
    }
}

/// Pipelines that find so many squares.
pub fn squares(count: usize) -> BuildPipeline {
    Box::new(move || Ok(Box::new(Squares(count)) as Box<dyn Perceive>))
}

/// A pipeline that does not start before it is told to, so that frames pile up in the meantime.
pub fn pipelines_after(start: std::sync::mpsc::Receiver<()>) -> BuildPipeline {
    let mut small = small_pipelines();
    Box::new(move || {
        start.recv().map_err(BoxError::from)?;
        small()
    })
}

/// The defaults, on a free port, with frames from `address`, which may be late, since test machines are slow, and with
/// the outlines of each.
pub fn config(address: String) -> GatewayConfig {
    let mut config = GatewayConfig {
        source: SourceConfig::connecting_to(address),
        output: OutputConfig { listen: "127.0.0.1:0".parse().unwrap(), ..OutputConfig::default() },
        page: PageConfig::off(),
        ..GatewayConfig::default()
    };
    config.stream.max_lag_ms = 600_000;
    config.stream.depth = 2;
    config.output.contours_per_s = 0.0;
    config
}

pub fn client_of(gateway: &Gateway) -> Client {
    let client = Client::start(ClientConfig {
        receive_queue: 4096,
        ..ClientConfig::new(gateway.output_addr().unwrap().to_string())
    });
    let client = client.unwrap();
    assert!(client.wait_connected(SOON));
    // The greeting says that the gateway knows of the client.
    next_of(&client, "UM_Status");
    client
}

/// The next message of a device.
pub fn next_of(client: &Client, device: &str) -> RawMessage {
    let deadline = Instant::now() + SOON;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let event = client.recv_timeout(left).unwrap_or_else(|e| panic!("waiting for {device}: {e}"));
        if let ClientEvent::Message(raw) = event
            && raw.header().device_name == device
        {
            return raw;
        }
    }
}

/// Reports until one is as wanted; the rates in it are of no use.
pub fn wait_for(gateway: &mut Gateway, what: &str, wanted: impl Fn(&Report) -> bool) -> Report {
    let deadline = Instant::now() + SOON;
    loop {
        let report = gateway.report();
        if wanted(&report) {
            return report;
        }
        assert!(Instant::now() < deadline, "waited for {what}: {report}");
        std::thread::yield_now();
    }
}

/// What was complained of, but for silence: on a slow machine any test's scanner may be silent for a while.
pub fn complaints(gateway: &Gateway) -> Vec<(&'static str, u64)> {
    gateway.complaints().into_iter().filter(|(kind, _)| *kind != "silent").collect()
}

/// Waits until this was complained of.
pub fn wait_for_complaint(gateway: &mut Gateway, kind: &str) {
    let deadline = Instant::now() + SOON;
    while !gateway.complaints().iter().any(|(k, _)| *k == kind) {
        assert!(Instant::now() < deadline, "waited for {kind}: {:?}", gateway.complaints());
        std::thread::yield_now();
    }
}
