//! The simulator over real sockets: what it says that it sent is what its clients got.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ultramotion_igtlink::{
    Client, ClientConfig, ClientEvent, Content, Disconnect, HeaderVersion, Message, RejectReason,
};
use ultramotion_media::MediaError;
use ultramotion_media::source::FrameSource;
use ultramotion_types::Frame;

use super::*;

const WATCHDOG: Duration = Duration::from_secs(20);

/// Grey frames without end, or so many.
#[derive(Debug)]
struct Grey {
    next: u64,
    count: u64,
    side: usize,
}

impl Grey {
    fn frames(count: u64) -> Self {
        Self { next: 0, count, side: 24 }
    }
}

impl FrameSource for Grey {
    fn name(&self) -> &str {
        "grey"
    }
    fn description(&self) -> String {
        "frames of a test".into()
    }
    fn frame_count_hint(&self) -> Option<u64> {
        Some(self.count)
    }
    fn read_into(&mut self, frame: &mut Frame) -> Option<Result<(), MediaError>> {
        if self.next == self.count {
            return None;
        }
        *frame = Frame::grey8(self.side, self.side, vec![self.next as u8; self.side * self.side]);
        frame.timestamp_s = 50.0 + self.next as f64 / 64.0;
        self.next += 1;
        Some(Ok(()))
    }
    fn rewind(&mut self) -> Result<(), MediaError> {
        self.next = 0;
        Ok(())
    }
    fn set_nominal_frames_per_second(&mut self, _frames_per_second: f64) {}
}

fn config(mischief: Mischief) -> SimulatorConfig {
    SimulatorConfig {
        listen: "127.0.0.1:0".parse().expect("an address"),
        pace: Pace::Hertz(400.0),
        wait_clients: 1,
        queue: 64,
        mischief,
        ..SimulatorConfig::default()
    }
}

/// What a client got.
#[derive(Debug, Default)]
struct Got {
    images: u64,
    poses: u64,
    times: Vec<f64>,
    ended: Vec<Disconnect>,
    crc: u64,
    truncated: u64,
    dropped: u64,
}

/// Plays to one client that keeps itself connected.
fn play(config: SimulatorConfig, mut source: Grey) -> (Summary, Got) {
    let simulator = Simulator::start(config).expect("a free port");
    let mut settings = ClientConfig::new(simulator.local_addr().to_string());
    settings.first_retry = Duration::from_millis(1);
    settings.receive_queue = 100_000;
    let client = Client::start(settings).expect("a thread");
    std::thread::scope(|scope| {
        let playing = scope.spawn(move || {
            simulator.play(&mut source, &|| false, &mut |_| {}).expect("a source that can be played")
        });
        let mut got = Got::default();
        let mut summary = None;
        // Once all is sent, the simulator ends the last connection and listens no more.
        let playing = Cell::new(Some(playing));
        loop {
            match client.recv_timeout(WATCHDOG).expect("something happens") {
                ClientEvent::Message(raw) => match raw.decode().expect("a message").content {
                    Content::Image(image) => {
                        assert_eq!(image.pixels[0], image.pixels[image.pixels.len() - 1]);
                        got.images += 1;
                        got.times.push(raw.header().timestamp.as_secs_f64());
                    }
                    Content::Transform(_) | Content::TrackingData(_) => got.poses += 1,
                    Content::Status(_) => {}
                    other => panic!("{other}"),
                },
                ClientEvent::Disconnected { reason } => got.ended.push(reason),
                ClientEvent::ConnectFailed { .. } => {
                    summary = playing.take().map(|playing| playing.join().expect("no panic")).or(summary);
                    break;
                }
                ClientEvent::Connected { .. } | ClientEvent::Rejected(_) => {}
            }
        }
        let traffic = client.stats().traffic;
        got.crc = traffic.rejects.get(RejectReason::Crc);
        got.truncated = traffic.rejects.get(RejectReason::Truncated);
        got.dropped = traffic.dropped_in;
        (summary.expect("played"), got)
    })
}

fn assert_balanced(summary: &Summary) {
    for MessageCounts { offered, sent, bad_crc, halved, skipped, lost } in [summary.images, summary.poses] {
        assert_eq!(offered, sent + bad_crc + halved + skipped + lost, "{summary:?}");
    }
    let frames = summary.frames;
    assert_eq!(frames.made, frames.dropped + frames.unheard + summary.images.offered, "{summary:?}");
}

#[test]
fn a_well_behaved_scanner_sends_everything_in_time() {
    let (summary, got) = play(config(Mischief::default()), Grey::frames(40));
    assert_balanced(&summary);
    // Image to probe, probe to tracker, and the reference.
    assert_eq!((summary.images.sent, summary.poses.sent), (40, 120));
    assert_eq!((got.images, got.poses, got.crc, got.truncated, got.dropped), (40, 120, 0, 0, 0));
    assert_eq!(got.ended, [Disconnect::PeerClosed]);
    assert!(got.times.windows(2).all(|pair| pair[0] < pair[1]), "in order");
    assert_eq!(summary.connections.accepted, 1);
}

#[test]
fn a_client_gets_the_header_version_that_it_speaks() {
    for (configured, spoken) in
        [(HeaderVersion::V2, HeaderVersion::V2), (HeaderVersion::V1, HeaderVersion::V1)]
    {
        let settings = SimulatorConfig { header_version: configured, ..config(Mischief::default()) };
        let simulator = Simulator::start(settings).expect("a free port");
        let client = Client::start(ClientConfig::new(simulator.local_addr().to_string())).expect("a thread");
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let stop = || done.load(std::sync::atomic::Ordering::SeqCst);
            scope.spawn(move || {
                simulator
                    .play(&mut Grey::frames(u64::MAX), &stop, &mut |_| {})
                    .expect("a source that can be played")
            });
            let next = || loop {
                match client.recv_timeout(WATCHDOG).expect("something happens") {
                    ClientEvent::Message(raw) if raw.header().type_name == "IMAGE" => {
                        break raw.header().version;
                    }
                    _ => {}
                }
            };
            assert_eq!(next(), HeaderVersion::V1, "a client that has said nothing");
            let name = "Greeting".parse().expect("a name");
            let greeting = ultramotion_igtlink::Message::new(name, Content::string("of version 2"));
            client.send(&greeting).expect("a connection");
            match spoken {
                HeaderVersion::V1 => (0..5).for_each(|_| assert_eq!(next(), spoken, "as configured")),
                _ => while next() != spoken {},
            }
            done.store(true, std::sync::atomic::Ordering::SeqCst);
        });
    }
}

#[test]
fn what_is_spoiled_arrives_spoiled_and_the_books_agree() {
    let mischief = Mischief {
        seed: 11,
        jitter_ms: 1.0,
        drop: 0.1,
        bad_crc: 0.05,
        half_message: 0.01,
        cuts: Some(Cuts::Share(0.03)),
    };
    let (summary, got) = play(config(mischief), Grey::frames(600));
    assert_balanced(&summary);
    assert_eq!(summary.frames.made, 600);
    assert!((20..120).contains(&summary.frames.dropped), "{summary:?}");
    assert_eq!((got.images, got.poses), (summary.images.sent, summary.poses.sent), "{summary:?} {got:?}");
    assert_eq!(got.crc, summary.images.bad_crc + summary.poses.bad_crc, "{summary:?} {got:?}");
    assert_eq!(got.truncated, summary.connections.halved);
    assert_eq!(summary.images.halved + summary.poses.halved, summary.connections.halved);
    assert!(summary.connections.cut > 0 && summary.connections.halved > 0 && got.crc > 0, "{summary:?}");
    let ended = |reason| got.ended.iter().filter(|&&ended| ended == reason).count() as u64;
    assert_eq!(ended(Disconnect::MidMessage), summary.connections.halved);
    // And one more at the end.
    assert_eq!(summary.connections.reconnects.count + 1, summary.connections.accepted);
}

#[test]
fn the_sources_own_times_are_kept() {
    let config = SimulatorConfig {
        timestamps: Timestamps::Source,
        repeat: true,
        frames: Some(5),
        ..config(Mischief::default())
    };
    let (_, got) = play(config, Grey::frames(3));
    assert_eq!(got.times, [50.0, 50.0 + 1.0 / 64.0, 50.0 + 2.0 / 64.0, 50.0 + 3.0 / 64.0, 50.0 + 4.0 / 64.0]);
}

#[test]
fn who_takes_nothing_stalls_nobody() {
    let settings =
        SimulatorConfig { queue: 2, wait_clients: 2, pace: Pace::Hertz(60.0), ..config(Mischief::default()) };
    let simulator = Simulator::start(settings).expect("a free port");
    let address = simulator.local_addr();
    let stalled = TcpStream::connect(address).expect("a connection");
    let good = std::thread::spawn(move || {
        let mut good = TcpStream::connect(address).expect("a connection");
        good.read_to_end(&mut Vec::new()).expect("an orderly end")
    });
    // Far more than the system takes on its own for the one that does not read.
    let mut source = Grey { side: 1024, ..Grey::frames(60) };
    let begin = Instant::now();
    let summary = simulator.play(&mut source, &|| begin.elapsed() > WATCHDOG, &mut |_| {}).expect("played");
    let images = summary.images;
    assert_eq!((summary.frames.made, images.offered), (60, 120), "{summary:?}");
    assert!(images.skipped > 0 && images.lost > 0 && images.sent > 20, "{summary:?}");
    assert_eq!(images.offered, images.sent + images.skipped + images.lost, "{summary:?}");
    assert_eq!(summary.connections.stalled, 1, "{summary:?}");
    assert!(good.join().expect("no panic") > 10 << 20, "the other one has got its images");
    drop(stalled);
}

#[test]
fn a_stop_is_heard_and_nonsense_is_named() {
    let mischief = Mischief::default();
    let simulator =
        Simulator::start(SimulatorConfig { wait_clients: 0, ..config(mischief) }).expect("a free port");
    let taken = simulator.local_addr();
    let error =
        Simulator::start(SimulatorConfig { listen: taken, ..config(mischief) }).expect_err("a port in use");
    assert!(error.to_string().starts_with(&format!("cannot listen on {taken}: ")), "{error}");
    let made = Cell::new(0);
    let summary = simulator
        .play(&mut Grey::frames(u64::MAX), &|| made.get() >= 3, &mut |progress| {
            if let Progress::Frame { made: now, .. } = progress {
                made.set(now);
            }
        })
        .expect("played");
    assert_eq!((summary.frames.made, summary.frames.unheard), (3, 3));

    for (wrong, named) in [
        (SimulatorConfig { image_device: "Image".into(), ..config(mischief) }, "image device = Image"),
        (
            SimulatorConfig { image_device: "Image_OfTheReferenceMarker".into(), ..config(mischief) },
            "image device",
        ),
        (SimulatorConfig { pace: Pace::Hertz(0.0), ..config(mischief) }, "rate = 0 Hz"),
        (SimulatorConfig { queue: 0, ..config(mischief) }, "queue = 0"),
        (config(Mischief { drop: 1.5, ..mischief }), "drop = 1.5"),
        (config(Mischief { bad_crc: f64::NAN, ..mischief }), "bad CRC = NaN"),
        (config(Mischief { jitter_ms: -1.0, ..mischief }), "jitter = -1 ms"),
        (config(Mischief { cuts: Some(Cuts::Share(2.0)), ..mischief }), "disconnect = 2"),
        (config(Mischief { cuts: Some(Cuts::Every(Duration::ZERO)), ..mischief }), "disconnect = 0 s"),
    ] {
        let error = Simulator::start(wrong).expect_err(named).to_string();
        assert!(error.starts_with(named), "{error}");
    }
}

#[test]
fn clients_have_limits() {
    let simulator = Simulator::start(config(Mischief::default())).expect("a free port");
    let connect = || {
        let peer = TcpStream::connect(simulator.local_addr()).expect("a connection");
        peer.set_read_timeout(Some(WATCHDOG)).expect("a time-out");
        peer
    };
    // Everyone gets signs of life, until there are too many of one address.
    let mut peers: Vec<TcpStream> = (0..8).map(|_| connect()).collect();
    peers.iter_mut().for_each(|peer| peer.read_exact(&mut [0; 58]).expect("a sign of life"));
    assert_eq!(connect().read(&mut [0]).expect("an end"), 0);
    // An announcement of too much ends a connection.
    let note = Message::new("Note".parse().expect("a name"), Content::string("x".repeat(65_535)));
    peers[0].write_all(&note.to_bytes().expect("a message")[..58]).expect("room in the socket");
    peers[0].read_to_end(&mut Vec::new()).expect("an end");
    let summary = simulator.play(&mut Grey::frames(1), &|| false, &mut |_| {}).expect("played");
    let connections = summary.connections;
    assert_eq!((connections.accepted, connections.refused, connections.left), (8, 1, 1), "{summary:?}");
}
