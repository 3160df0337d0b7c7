//! Queues, restarts, the books.

use std::sync::mpsc;
use std::time::SystemTime;

use ultramotion_gateway::books::DropReason;
use ultramotion_gateway::service::{Gateway, Perceive};
use ultramotion_igtlink::{
    Client, ClientConfig, Content, Image, Message, ScalarType, Server, ServerConfig, Timestamp,
};
use ultramotion_pipeline::{Orchestrator, PipelineError};
use ultramotion_types::{FrameView, ResultPacket};

use crate::bench::{
    Scanner, client_of, complaints, config, next_of, picture, pipelines_after, small, small_pipelines,
    squares, time_of, wait_for,
};

#[test]
fn the_newest_frames_win_and_the_others_are_counted() {
    let scanner = Scanner::new();
    let (start, started) = mpsc::channel();
    let mut gateway = Gateway::start(config(scanner.address()), pipelines_after(started)).unwrap();
    let client = client_of(&gateway);
    scanner.wait_for_gateway();
    for number in 0..7 {
        scanner.send(&picture(number));
        wait_for(&mut gateway, "the frame", |r| r.account.received == number + 1);
    }
    let report = wait_for(&mut gateway, "the queue", |r| r.queue == 2 && r.account.dropped() == 5);
    assert_eq!(report.account.dropped_for(DropReason::Superseded), 5);
    assert_eq!(report.account.in_flight, 2);
    start.send(()).unwrap();
    for number in [5, 6] {
        assert_eq!(next_of(&client, "UM_Mask").header().timestamp, time_of(number));
    }
    let last = gateway.stop();
    assert_eq!((last.account.answered, last.account.in_flight, last.queue), (2, 0, 0));
    assert!(last.account.balances());
    assert!(
        last.summary()
            .contains("7 received = 2 answered + 5 dropped (superseded 5) + 0 in flight: the sums agree")
    );
}

#[test]
fn frames_that_waited_too_long_are_dropped() {
    let scanner = Scanner::new();
    let mut config = config(scanner.address());
    config.stream.max_lag_ms = 1;
    let (start, started) = mpsc::channel();
    let mut gateway = Gateway::start(config, pipelines_after(started)).unwrap();
    scanner.wait_for_gateway();
    scanner.send(&picture(0));
    let received = wait_for(&mut gateway, "the frame", |r| r.account.received == 1);
    wait_for(&mut gateway, "a moment", |r| r.time_s > received.time_s + 0.005);
    start.send(()).unwrap();
    let report = wait_for(&mut gateway, "the drop", |r| r.account.dropped() == 1);
    assert_eq!(report.account.dropped_for(DropReason::Stale), 1);
}

#[test]
fn age_counts_from_the_scanners_own_timestamp() {
    let scanner = Scanner::new();
    let mut config = config(scanner.address());
    config.stream.max_lag_ms = 50;
    let mut gateway = Gateway::start(config, squares(1)).unwrap();
    scanner.wait_for_gateway();
    let taken_s = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    scanner.send(&picture(0).at(Timestamp::from_secs_f64(taken_s)));
    let first = wait_for(&mut gateway, "the first frame", |r| r.account.received == 1);
    wait_for(&mut gateway, "a moment", |r| r.time_s > first.time_s + 0.2);
    // It was held up, by a pause of either machine: a moment before it reaches the socket nobody knows of it.
    scanner.send(&picture(1).at(Timestamp::from_secs_f64(taken_s + 0.04)));
    let report = wait_for(&mut gateway, "both", |r| r.account.received == 2 && r.account.in_flight == 0);
    assert!(report.account.dropped_for(DropReason::Stale) >= 1 && report.clocks_agree, "{report}");
    assert_eq!(complaints(&gateway), [("late", 1)]);
}

#[test]
fn frames_that_wait_when_the_service_ends_are_counted() {
    let scanner = Scanner::new();
    let (start, started) = mpsc::channel();
    let mut gateway = Gateway::start(config(scanner.address()), pipelines_after(started)).unwrap();
    scanner.wait_for_gateway();
    scanner.send(&picture(0));
    wait_for(&mut gateway, "the frame", |r| r.account.received == 1);
    // The pipeline stage waits for the test, which ends it: building fails then.
    drop(start);
    let last = gateway.stop();
    assert_eq!(last.account.dropped_for(DropReason::Shutdown), 1);
    assert!(last.account.balances() && last.account.in_flight == 0);
}

#[test]
fn a_new_size_does_not_hold_up_the_old_one() {
    let scanner = Scanner::new();
    let build = || {
        let mut pipeline = small::pipeline(1, small::options());
        pipeline.compile_aside(usize::MAX);
        Ok(Box::new(pipeline) as Box<dyn Perceive>)
    };
    let mut gateway = Gateway::start(config(scanner.address()), Box::new(build)).unwrap();
    let client = client_of(&gateway);
    scanner.wait_for_gateway();
    scanner.send(&picture(0));
    next_of(&client, "UM_Mask");
    let mut refused = 0;
    for number in 1.. {
        let is_new = number % 2 == 1;
        let (pixels, height) = (small::picture(number), small::HEIGHT / if is_new { 2 } else { 1 });
        let image = Image::grey8(small::WIDTH as u16, height as u16, &pixels[..small::WIDTH * height]);
        let message = Message::new("Image_Probe".parse().unwrap(), Content::Image(image));
        scanner.send(&message.at(time_of(number)));
        let report = wait_for(&mut gateway, "the frame", |r| {
            r.account.received == number + 1 && r.account.in_flight == 0
        });
        let compiling = report.account.dropped_for(DropReason::Compiling);
        assert_eq!(report.account.dropped(), compiling, "{report}");
        if !is_new {
            assert_eq!(compiling, refused, "a known size is answered");
        }
        if is_new && compiling == refused {
            break;
        }
        refused = compiling;
    }
    assert!(refused > 0, "the new size was waited for");
    assert!(complaints(&gateway).is_empty());
}

/// A pipeline that comes to grief at the frames whose numbers it is given.
pub struct Mortal {
    pub inner: Orchestrator,
    pub panics_at: u64,
    pub fails_at: u64,
}

impl Perceive for Mortal {
    fn process_into(
        &mut self,
        frame: &FrameView<'_>,
        packet: &mut ResultPacket,
    ) -> Result<(), PipelineError> {
        assert_ne!(frame.frame_id, self.panics_at, "a test's panic");
        if frame.frame_id == self.fails_at {
            let range = "something else".into();
            return Err(PipelineError::Option { option: "test", value: "wrong".into(), range });
        }
        self.inner.process_into(frame, packet)
    }

    fn epoch(&self) -> u64 {
        self.inner.epoch()
    }
}

#[test]
fn a_stage_that_dies_is_started_again() {
    let scanner = Scanner::new();
    let build = || {
        let inner = small::pipeline(1, small::options());
        Ok(Box::new(Mortal { inner, panics_at: 1, fails_at: 3 }) as Box<dyn Perceive>)
    };
    let mut gateway = Gateway::start(config(scanner.address()), Box::new(build)).unwrap();
    let client = client_of(&gateway);
    scanner.wait_for_gateway();
    for number in 0..5 {
        scanner.send(&picture(number));
        if number % 2 == 0 {
            assert_eq!(next_of(&client, "UM_Mask").header().timestamp, time_of(number));
        } else {
            wait_for(&mut gateway, "the drop", |r| r.account.dropped() == number.div_ceil(2));
            // Clients are told: what they have on their screens is old.
            loop {
                let frame = next_of(&client, "UM_Status");
                let Content::Status(status) = frame.decode().unwrap().content else { panic!("a STATUS") };
                if status.name == "REBUILDING" {
                    break;
                }
            }
        }
    }
    let last = gateway.stop();
    assert_eq!(last.restarts, 2);
    assert_eq!((last.account.received, last.account.answered), (5, 3));
    assert_eq!(last.account.dropped_for(DropReason::Lost), 1);
    assert_eq!(last.account.dropped_for(DropReason::Pipeline), 1);
    assert!(last.account.balances());
}

/// A log that panics when it cannot be written, as the usual one does.
struct FullLog;

impl tracing::Subscriber for FullLog {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        panic!("the log is full");
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn frames_pass_after_stages_have_died_of_their_log() {
    const ALONE: &str = "ULTRAMOTION_TEST_FULL_LOG";
    // The log is the whole process's.
    if std::env::var_os(ALONE).is_none() {
        let mut test = std::process::Command::new(std::env::current_exe().unwrap());
        test.args(["--exact", "stages::frames_pass_after_stages_have_died_of_their_log", "--nocapture"]);
        let ran = test.env(ALONE, "1").output().unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success() && said.contains("1 passed"), "{said}{:?}", ran.stderr);
        return;
    }
    tracing::subscriber::set_global_default(FullLog).unwrap();
    let folder = tempfile::tempdir().unwrap();
    // The recording cannot go on where the pipeline's second life begins.
    std::fs::write(folder.path().join("results-2.jsonl"), "").unwrap();
    let scanner = Scanner::new();
    let mut config = config(scanner.address());
    config.record.folder = folder.path().to_owned();
    // A small disk is no matter of this test.
    config.record.warn_below_mb = 0;
    let build = || {
        let inner = small::pipeline(1, small::options());
        Ok(Box::new(Mortal { inner, panics_at: 3, fails_at: u64::MAX }) as Box<dyn Perceive>)
    };
    let mut gateway = Gateway::start(config, Box::new(build)).unwrap();
    let client = client_of(&gateway);
    scanner.wait_for_gateway();
    let passes = |number| {
        scanner.send(&picture(number));
        assert_eq!(next_of(&client, "UM_Mask").header().timestamp, time_of(number));
    };
    passes(0);
    // An image that is not taken is frame 1, and worth a word, of which the receiving stage dies.
    let image = Image::new(ScalarType::Float32, 1, [4, 4, 1], vec![0; 64]);
    // On a slow machine it may have died before, of a word about the scanner's silence.
    let before = gateway.report().restarts;
    scanner.send(&Message::new("Image_Probe".parse().unwrap(), Content::Image(image)));
    wait_for(&mut gateway, "the receiving stage's death", |r| r.restarts > before);
    passes(1);
    scanner.send(&picture(2));
    wait_for(&mut gateway, "the pipeline's death", |r| r.account.dropped_for(DropReason::Lost) == 1);
    passes(3);
    wait_for(&mut gateway, "the recording's end", |r| r.record_failed);
    passes(4);
    let last = gateway.stop();
    assert_eq!((last.account.answered, last.recorded), (4, 2));
}

#[test]
fn the_scanner_may_connect_to_the_gateway() {
    let mut config = config(String::new());
    config.source.listen = Some("127.0.0.1:0".parse().unwrap());
    let mut gateway = Gateway::start(config, small_pipelines()).unwrap();
    let scanner = Client::start(ClientConfig::new(gateway.source_addr().unwrap().to_string())).unwrap();
    assert!(scanner.wait_connected(crate::bench::SOON));
    let client = client_of(&gateway);
    scanner.send(&picture(0)).unwrap();
    assert_eq!(next_of(&client, "UM_Mask").header().timestamp, time_of(0));
    let report = wait_for(&mut gateway, "the answer", |r| r.account.answered == 1);
    assert!(report.connected);
    let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
    assert_eq!((json["received"].as_u64(), json["dropped_stale"].as_u64()), (Some(1), Some(0)));
}

#[test]
fn one_device_is_taken_and_others_are_left_aside() {
    let scanner = Scanner::new();
    let mut gateway = Gateway::start(config(scanner.address()), small_pipelines()).unwrap();
    let client = client_of(&gateway);
    scanner.wait_for_gateway();
    let other = |number| Message { device_name: "Image_Other".parse().unwrap(), ..picture(number) };
    scanner.send(&picture(0));
    scanner.send(&other(1));
    scanner.send(&other(2));
    scanner.send(&Message::new("Note".parse().unwrap(), Content::string("no image")));
    let report = wait_for(&mut gateway, "all of it", |r| r.messages == 4 && r.account.answered == 1);
    assert_eq!(next_of(&client, "UM_Mask").header().timestamp, time_of(0));
    assert_eq!((report.account.received, report.other_images), (1, 2));
    assert_eq!(complaints(&gateway), [("other_images", 2)]);
}

#[test]
fn a_scanner_that_comes_back_may_have_another_device() {
    let scanner = Scanner::new();
    let address: std::net::SocketAddr = scanner.address().parse().unwrap();
    let gateway = Gateway::start(config(scanner.address()), small_pipelines()).unwrap();
    let client = client_of(&gateway);
    scanner.wait_for_gateway();
    scanner.send(&picture(0));
    assert_eq!(next_of(&client, "UM_Mask").decode().unwrap().metadata.get("Source").unwrap(), "Image_Probe");
    scanner.server.shutdown();
    let scanner = Scanner { server: Server::start(ServerConfig::listening_on(address)).unwrap() };
    scanner.wait_for_gateway();
    scanner.send(&Message { device_name: "Image_Other".parse().unwrap(), ..picture(1) });
    assert_eq!(next_of(&client, "UM_Mask").decode().unwrap().metadata.get("Source").unwrap(), "Image_Other");
    assert_eq!(gateway.stop().other_images, 0);
}
