//! The service: four stages on threads, and what they share.
//!
//! ```text
//!              ┌──────────┐  mailbox,    ┌──────────┐  mailbox,    ┌────────┐
//!  scanner ───▶│ receive  │─ newest ────▶│ pipeline │─ newest ────▶│  send  │───▶ clients
//!              └──────────┘  frame wins  └──────────┘  result wins └────────┘
//!                    │ poses                  │ every result
//!                    └──▶ PoseBook ──────────▶└──────▶ record ───▶ files
//! ```
//!
//! `receive` never waits for `pipeline`, nor `pipeline` for `send`. It does wait for `record`, so that a recording is
//! whole; what that costs is counted as frames dropped before the pipeline. A stage that dies is started again, a
//! recording that cannot go on ends, and the rest goes on.

mod clients;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver as ChannelReceiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use thiserror::Error;
use ultramotion_igtlink::{Disconnect, RawMessage, RecvError, RejectReason, Server, ServerError, Timestamp};
use ultramotion_pipeline::kpi::Quantiles;
use ultramotion_pipeline::{Orchestrator, PipelineError};
use ultramotion_types::{FrameError, FrameView, Mailbox, ResultPacket};

use crate::books::{Account, DropReason};
use crate::complaints::Comings;
use crate::config::{ConfigError, GatewayConfig};
use crate::metrics::{MetricsError, MetricsPage};
use crate::receive::placement::Placed;
use crate::receive::poses::ChainGap;
use crate::receive::{LinkError, LiveFrame, Received, Receiver, SourceState};
use crate::record::{RecordError, Recorder};
use crate::recycle::{Recycled, Recycler};
use crate::report::Report;
use crate::send::{
    Answer, Audience, Composer, DeviceNames, Epoch, GatewayState, LiveParameters, Relay, StatusBoard,
    header_version, in_version_1,
};
pub use crate::supervise::BoxError;
use crate::supervise::{StopSignal, Supervisor};

/// What turns frames into packets.
pub trait Perceive {
    /// Processes a frame, and fills a packet, whose memory is used again.
    fn process_into(&mut self, frame: &FrameView<'_>, packet: &mut ResultPacket)
    -> Result<(), PipelineError>;

    /// How often tracks began anew since the pipeline was built.
    fn epoch(&self) -> u64;
}

impl Perceive for Orchestrator {
    fn process_into(
        &mut self,
        frame: &FrameView<'_>,
        packet: &mut ResultPacket,
    ) -> Result<(), PipelineError> {
        Orchestrator::process_into(self, frame, packet)
    }

    fn epoch(&self) -> u64 {
        Orchestrator::epoch(self)
    }
}

/// Makes a pipeline: at the start, and again when one has died.
pub type BuildPipeline = Box<dyn FnMut() -> Result<Box<dyn Perceive>, BoxError> + Send>;

/// Why the service cannot start.
#[derive(Debug, Error)]
pub enum GatewayError {
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The source cannot be opened.
    #[error(transparent)]
    Source(#[from] LinkError),
    /// Results cannot be served.
    #[error("output.listen: {0}; choose another address or stop the process using it")]
    Output(#[from] ServerError),
    /// The session cannot be recorded.
    #[error("record.folder: {0}")]
    Record(#[from] RecordError),
    /// The page for Prometheus cannot be served.
    #[error("report.metrics: {0}")]
    Metrics(#[from] MetricsError),
    /// There can be no thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// The running service.
pub struct Gateway {
    shared: Arc<Shared>,
    supervisor: Supervisor,
    metrics: Option<MetricsPage>,
    lost_words: Arc<AtomicU64>,
    last: Snapshot,
}

/// What the stages share.
struct Shared {
    config: GatewayConfig,
    source: Arc<SourceState>,
    server: Server,
    names: DeviceNames,
    status: StatusBoard,
    saying: Mutex<()>,
    audience: Audience,
    parameters: LiveParameters,
    waiting: Mailbox<LiveFrame>,
    answers: Mailbox<Arc<Answer>>,
    /// Frames put into `waiting` and not taken or pushed out yet.
    queue: AtomicU64,
    /// Results in a row without a way to the tracker's frame.
    unplaced: AtomicU64,
    record: Mutex<Option<SyncSender<Arc<Answer>>>>,
    recorded: AtomicU64,
    record_failed: AtomicBool,
    record_free_mb: AtomicU64,
    timings: Mutex<Timings>,
    /// Whether the last frame's age counts from its own timestamp.
    clocks_agree: AtomicBool,
    stop: Arc<StopSignal>,
    started: Instant,
}

/// What a stage does until it ends or dies.
type StageBody = Box<dyn FnMut(&Shared) -> Result<(), BoxError> + Send>;

/// Times since the last report.
#[derive(Default)]
struct Timings {
    latency_ms: Vec<f64>,
    age_ms: Vec<f64>,
    pipeline_ms: Vec<f64>,
}

impl Timings {
    /// More than come in between two reports; beyond it the first ones count.
    const MAX_TIMES: usize = 4096;

    fn note(times: &mut Vec<f64>, elapsed: Duration) {
        if times.len() < Self::MAX_TIMES {
            times.push(elapsed.as_secs_f64() * 1e3);
        }
    }
}

/// What rates are computed from.
struct Snapshot {
    at: Instant,
    account: Account,
}

/// How long a stage waits for something to happen before it looks whether all is to stop.
const TICK: Duration = Duration::from_millis(100);
/// A connected scanner without frames for so long is said to be silent.
const SILENT_AFTER: Duration = Duration::from_secs(2);
/// A connection with frames that lasted so long was a good one.
const GOOD_CONNECTION: Duration = Duration::from_secs(10);
/// Results that may wait to be sent: a moment's pause of the sending stage costs none.
const ANSWERS: usize = 2;
/// So many frames in a row without the poses for the tracker's frame are worth a word: the first ones may come early.
const UNPLACED_WORTH_A_WORD: u64 = 10;
/// Results that may wait to be recorded before the pipeline waits.
const RECORD_QUEUE: usize = 8;
/// How long the end waits for all stages, and so for the frame in work. With what the server waits for slow clients it
/// is below a second.
const LAST_FRAME: Duration = Duration::from_millis(450);
/// How long the end waits for a recording to be completed: all of it is forced to the disk.
const LAST_RECORD: Duration = Duration::from_secs(600);

impl Gateway {
    /// Opens source and server, and starts the stages.
    pub fn start(config: GatewayConfig, build: BuildPipeline) -> Result<Self, GatewayError> {
        config.validate()?;
        let server = Server::start(config.output.server()?)?;
        let is_recorded = !config.record.folder.as_os_str().is_empty();
        let recorder = is_recorded.then(|| Recorder::create(&config.record)).transpose()?;
        let page = |address| MetricsPage::start(address, config.report.hosts.clone());
        let metrics = config.report.metrics.map(page).transpose()?;
        let source = Arc::new(SourceState::open(&config.source)?);
        let names = DeviceNames::new(&config.output.prefix);
        let mut supervisor = Supervisor::default();
        let (record, to_record) = recorder.is_some().then(|| sync_channel(RECORD_QUEUE)).unzip();
        let shared = Arc::new(Shared {
            status: StatusBoard::new(names.status, header_version(&config.output)),
            saying: Mutex::default(),
            audience: Audience::default(),
            parameters: LiveParameters::new(&config.output),
            waiting: Mailbox::new(config.stream.depth),
            answers: Mailbox::new(config.stream.depth.max(ANSWERS)),
            queue: AtomicU64::new(0),
            unplaced: AtomicU64::new(0),
            record: Mutex::new(record),
            recorded: AtomicU64::new(0),
            record_failed: AtomicBool::new(false),
            record_free_mb: AtomicU64::new(recorder.as_ref().and_then(Recorder::free_mb).unwrap_or(0)),
            timings: Mutex::default(),
            clocks_agree: AtomicBool::new(false),
            stop: Arc::clone(supervisor.stop()),
            started: Instant::now(),
            config,
            source,
            server,
            names,
        });
        shared.tell_status();
        let mut stage = |name, mut body: StageBody| {
            let shared = Arc::clone(&shared);
            supervisor.start(name, move || body(&shared)).map_err(GatewayError::Thread)
        };
        let mut build = build;
        stage("send", Box::new(Shared::send))?;
        stage("clients", Box::new(Shared::serve_clients))?;
        let mut lives = 0u64;
        stage(
            "pipeline",
            Box::new(move |shared| {
                if lives > 0 {
                    shared.say(GatewayState::Rebuilding, Timestamp::now());
                }
                lives += 1;
                shared.compute(&mut build, lives - 1)
            }),
        )?;
        if let Some(recorder) = recorder.zip(to_record) {
            let mut slot = Some(recorder);
            stage("record", Box::new(move |shared| shared.record(&mut slot)))?;
        }
        stage("receive", Box::new(Shared::receive))?;
        let last = Snapshot { at: Instant::now(), account: Account::default() };
        Ok(Gateway { shared, supervisor, metrics, lost_words: Arc::default(), last })
    }

    /// The address that results are served at, with its real port.
    pub fn output_addr(&self) -> Option<SocketAddr> {
        self.shared.server.local_addrs().first().copied()
    }

    /// The address that the scanner may connect to, where the gateway listens for it.
    pub fn source_addr(&self) -> Option<SocketAddr> {
        self.shared.source.link.local_addr()
    }

    /// The address of the page for Prometheus, if there is one.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(MetricsPage::local_addr)
    }

    /// The source as a URL.
    pub fn source_url(&self) -> String {
        self.shared.source.link.url()
    }

    /// Lets the figures tell how many lines of its log and its figures the program could not write: it counts them here.
    pub fn count_lost_words(&mut self, lost: Arc<AtomicU64>) {
        self.lost_words = lost;
    }

    /// How the gateway is doing.
    pub fn state(&self) -> GatewayState {
        self.shared.status.state()
    }

    /// What is wrong, by kind, with how often each came up.
    pub fn complaints(&self) -> Vec<(&'static str, u64)> {
        self.shared.source.complaints.counts()
    }

    /// All figures; rates and times are of the time since the last report.
    pub fn report(&mut self) -> Report {
        let now = Instant::now();
        let shared = &self.shared;
        let account = shared.source.books.account();
        let elapsed_s = now.duration_since(self.last.at).as_secs_f64().max(1e-9);
        let timings = std::mem::take(&mut *shared.timings());
        let (latency, age) = (Quantiles::of(&timings.latency_ms), Quantiles::of(&timings.age_ms));
        let link = shared.source.link.stats();
        let server = shared.server.stats();
        let report = Report {
            time_s: now.duration_since(shared.started).as_secs_f64(),
            state: shared.status.state().name(),
            in_per_s: (account.received - self.last.account.received) as f64 / elapsed_s,
            out_per_s: (account.answered - self.last.account.answered) as f64 / elapsed_s,
            account,
            queue: shared.queue.load(Relaxed),
            latency_p50_ms: latency.p50,
            latency_p99_ms: latency.p99,
            age_p50_ms: age.p50,
            age_p99_ms: age.p99,
            clocks_agree: shared.clocks_agree.load(Relaxed),
            pipeline_p50_ms: Quantiles::of(&timings.pipeline_ms).p50,
            connected: link.connected,
            reconnects: link.connects.saturating_sub(1),
            connect_failures: link.connect_failures,
            messages: link.messages,
            messages_evicted: link.evicted,
            poses: shared.source.pose_messages(),
            poses_evicted: shared.source.poses_evicted(),
            other_images: shared.source.other_images(),
            rejected: RejectReason::ALL.map(|reason| link.rejects.get(reason)),
            clients: server.clients as u64,
            clients_refused: server.refused,
            sent: server.traffic.queued_out,
            send_dropped: server.traffic.dropped_out,
            restarts: self.supervisor.restarts(),
            recorded: shared.recorded.load(Relaxed),
            record_failed: shared.record_failed.load(Relaxed),
            record_free_mb: shared.record_free_mb.load(Relaxed),
            log_lost: self.lost_words.load(Relaxed),
        };
        self.last = Snapshot { at: now, account };
        if let Some(metrics) = &self.metrics {
            metrics.show(report.prometheus());
        }
        report
    }

    /// Ends in order: takes no more frames, finishes the one in work, answers what is computed, says goodbye to the
    /// clients, completes the recording. Takes less than a second, but for a long recording.
    pub fn stop(mut self) -> Report {
        let shared = Arc::clone(&self.shared);
        let deadline = Instant::now() + LAST_FRAME;
        let supervisor = &self.supervisor;
        let ended = |stage| supervisor.wait(stage, deadline.saturating_duration_since(Instant::now()));
        supervisor.stop().set();
        shared.waiting.close();
        ended("receive");
        while let Some(frame) = shared.waiting.take() {
            shared.queue.fetch_sub(1, Relaxed);
            frame.ticket.dropped(DropReason::Shutdown);
        }
        ended("pipeline");
        shared.answers.close();
        ended("send");
        shared.say(GatewayState::ShuttingDown, Timestamp::now());
        ended("clients");
        // Without a sender the recorder knows that nothing more comes.
        drop(shared.recording().take());
        if !ended("record") {
            tracing::info!("completing the recording");
            supervisor.wait("record", LAST_RECORD);
        }
        self.report()
    }
}

impl Shared {
    /// Scanner to mailbox.
    fn receive(&self) -> Result<(), BoxError> {
        let max_lag = Duration::from_millis(self.config.stream.max_lag_ms);
        let receiver = Receiver::of(Arc::clone(&self.source), &self.config.source);
        let mut receiver = receiver.without_backlog(max_lag).with_messages(self.config.output.source);
        let relay = Relay::new(&self.config.output);
        let mut last_frame = Instant::now();
        let (mut connected_at, mut frames, mut news) = (Instant::now(), 0u64, true);
        let complaints = &self.source.complaints;
        let mut comings = Comings::new("connections to the scanner");
        while !self.stop.is_set() {
            match receiver.next(TICK) {
                Ok(Received::Frame(mut frame)) => {
                    frame.message.take().iter().for_each(|raw| self.pass(&relay, raw));
                    last_frame = Instant::now();
                    frames += 1;
                    complaints.over("silent");
                    self.put(frame);
                }
                Ok(Received::Poses(raw)) => self.pass(&relay, &raw),
                Ok(Received::Other) => {}
                Ok(Received::Connected { peer, only }) => {
                    if news {
                        comings.say(Instant::now(), format_args!("connected to the scanner at {peer}"));
                    }
                    if only {
                        last_frame = Instant::now();
                        (connected_at, frames) = (last_frame, 0);
                    }
                    if self.status.state() == GatewayState::SourceLost {
                        self.say(GatewayState::Waiting, Timestamp::now());
                    }
                }
                Ok(Received::Disconnected { reason: Disconnect::Shutdown, .. }) => {}
                Ok(Received::Disconnected { was_source: false, reason }) => {
                    complaints.say("peer_gone", format_args!("a peer of source.listen went: {reason}"));
                }
                Ok(Received::Disconnected { reason, .. }) => {
                    // A connection that went well is news again when it ends; one that flutters is not.
                    if frames > 0 && connected_at.elapsed() >= GOOD_CONNECTION {
                        complaints.over("disconnected");
                    }
                    news = complaints.say("disconnected", format_args!("lost the scanner: {reason}"));
                    if !self.source.link.stats().connected {
                        self.say(GatewayState::SourceLost, Timestamp::now());
                    }
                }
                Ok(Received::ConnectFailed(_)) | Err(RecvError::Timeout) => {}
                Err(RecvError::Closed) => break,
            }
            let silence = last_frame.elapsed();
            if silence > SILENT_AFTER
                && self.status.state() != GatewayState::Silent
                && self.source.link.stats().connected
            {
                let seconds = SILENT_AFTER.as_secs();
                self.source.complaints.say(
                    "silent",
                    format_args!("the scanner is connected, but sent no frame for {seconds} s"),
                );
                self.say(GatewayState::Silent, Timestamp::now());
            }
        }
        Ok(())
    }

    /// A message of the source, passed on to clients.
    fn pass(&self, relay: &Relay, raw: &RawMessage) {
        let passed = self.audience.pass(&self.server, relay, raw);
        if let Err(error) = passed {
            let device = raw.header().device_name;
            self.source.complaints.say("relay", format_args!("'{device}' is not passed on: {error}"));
        }
    }

    fn put(&self, frame: LiveFrame) {
        self.queue.fetch_add(1, Relaxed);
        if let Some(pushed_out) = self.waiting.put(frame) {
            self.queue.fetch_sub(1, Relaxed);
            let closed = self.waiting.is_closed();
            pushed_out.ticket.dropped(if closed { DropReason::Shutdown } else { DropReason::Superseded });
        }
    }

    /// Mailbox through the pipeline.
    fn compute(&self, build: &mut BuildPipeline, pipelines_before: u64) -> Result<(), BoxError> {
        let mut pipeline = build()?;
        let packets = Recycler::default();
        let max_lag = Duration::from_millis(self.config.stream.max_lag_ms);
        while let Some(frame) = self.waiting.take() {
            self.queue.fetch_sub(1, Relaxed);
            if self.stop.is_set() {
                frame.ticket.dropped(DropReason::Shutdown);
                continue;
            }
            self.clocks_agree.store(frame.late_by.is_some(), Relaxed);
            if frame.age() > max_lag {
                frame.ticket.dropped(DropReason::Stale);
                if frame.late_by.is_some_and(|late_by| late_by > max_lag) {
                    self.source.complaints.say(
                        "late",
                        format_args!(
                            "frames are older than stream.max_lag_ms when they come: they are left out"
                        ),
                    );
                }
                continue;
            }
            let start = Instant::now();
            let mut packet = packets.take();
            match pipeline.process_into(&frame.view(), &mut packet) {
                Ok(()) => {
                    Timings::note(&mut self.timings().pipeline_ms, start.elapsed());
                    let epoch = Epoch { pipelines_before, of_pipeline: pipeline.epoch() };
                    self.hand_on(frame, packet, epoch);
                }
                Err(PipelineError::Frame(FrameError::Compiling { .. })) => {
                    frame.ticket.dropped(DropReason::Compiling);
                }
                Err(error) => {
                    frame.ticket.dropped(DropReason::Pipeline);
                    let number = frame.ticket.frame_id();
                    if !matches!(error, PipelineError::Frame(_)) {
                        return Err(format!("frame {number}: {error}").into());
                    }
                    self.source.complaints.say("frame", format_args!("frame {number}: {error}"));
                }
            }
        }
        Ok(())
    }

    /// A result to those who send and record it.
    fn hand_on(&self, frame: LiveFrame, packet: Recycled<ResultPacket>, epoch: Epoch) {
        // Only now: poses come after the image that they belong to, most of the time.
        let image_to_tracker = &self.config.source.image_to_tracker;
        let (placed, way) = self.source.with_poses(|book| Placed::of(&frame, book, image_to_tracker));
        self.note_placement(&frame, &placed, way);
        let answer = Arc::new(Answer { frame, packet, placed, epoch });
        let recording = self.recording().clone();
        if let Some(recording) = recording {
            // Fails when the recording has ended, of which that stage has spoken.
            let _ = recording.send(Arc::clone(&answer));
        }
        if let Some(pushed_out) = self.answers.put(answer) {
            let closed = self.answers.is_closed();
            let reason = if closed { DropReason::Shutdown } else { DropReason::SendQueue };
            pushed_out.frame.ticket.dropped(reason);
        }
    }

    /// Says what is missing for results in the tracker's frame.
    fn note_placement(&self, frame: &LiveFrame, placed: &Placed, way: Result<(), Option<ChainGap>>) {
        let complaints = &self.source.complaints;
        if let Some(status) = placed.status.as_deref().filter(|_| placed.is_astray()) {
            let device = frame.device;
            complaints.say(
                "placement",
                format_args!(
                    "a tool that places the images of '{device}' was not seen ({status}): they lie elsewhere than they \
                     say, and nothing is sent in the tracker's frame"
                ),
            );
        }
        if !self.config.output.tracker_contours {
            return;
        }
        let missing = match way {
            Err(Some(gap @ ChainGap::Unknown(_))) => gap.to_string(),
            Err(None) => format!("the name of '{}' does not say what its images are placed in", frame.device),
            Ok(()) | Err(Some(_)) => return self.unplaced.store(0, Relaxed),
        };
        if self.unplaced.fetch_add(1, Relaxed) + 1 == UNPLACED_WORTH_A_WORD {
            let names = self.source.with_poses(|book| {
                book.names().map(|name| name.escape_debug().to_string()).collect::<Vec<_>>().join(", ")
            });
            let names = if names.is_empty() { "no transform at all".to_owned() } else { names };
            complaints.say(
                "transform_missing",
                format_args!(
                    "no outlines in the tracker's frame: {missing}; the scanner sent {names}, see source.image_to_tracker"
                ),
            );
        }
    }

    /// Results to clients.
    fn send(&self) -> Result<(), BoxError> {
        let mut composer = Composer::new(self.config.output.clone());
        while let Some(answer) = self.answers.take() {
            let ticket = &answer.frame.ticket;
            match composer
                .compose(&answer, &self.parameters, |message| self.audience.broadcast(&self.server, message))
            {
                Ok(()) => ticket.answered(),
                Err(error) => {
                    ticket.dropped(DropReason::Encode);
                    let number = ticket.frame_id();
                    let problem = format_args!("frame {number}: its results make no message: {error}");
                    self.source.complaints.say("encode", problem);
                }
            }
            let mut timings = self.timings();
            Timings::note(&mut timings.latency_ms, ticket.arrived().elapsed());
            Timings::note(&mut timings.age_ms, answer.frame.age());
            drop(timings);
            let scene = answer.packet.state.as_str();
            let state = if answer.placed.is_astray() {
                GatewayState::Unplaced(scene)
            } else {
                GatewayState::Scene(scene)
            };
            self.say(state, answer.frame.timestamp);
        }
        Ok(())
    }

    /// Results to files. A recording that fails is over, and does not come back.
    fn record(&self, slot: &mut Option<(Recorder, ChannelReceiver<Arc<Answer>>)>) -> Result<(), BoxError> {
        // Taken, so that nothing is left in it if this panics.
        let Some((mut recorder, answers)) = slot.take() else {
            self.record_failed.store(true, Relaxed);
            return Ok(());
        };
        let written = answers.iter().try_for_each(|answer| {
            recorder.write(&answer)?;
            self.recorded.fetch_add(1, Relaxed);
            self.record_free_mb.store(recorder.free_mb().unwrap_or(0), Relaxed);
            Ok::<(), RecordError>(())
        });
        // Said at once: to complete the files takes its time.
        if let Err(error) = written {
            self.record_failed.store(true, Relaxed);
            tracing::error!("the recording ends here, and the stream goes on: {error}");
        }
        if let Err(error) = recorder.finish() {
            self.record_failed.store(true, Relaxed);
            tracing::error!("the recording is not complete, `ultramotion recover` may make it so: {error}");
        }
        Ok(())
    }

    /// Notes a state, and tells all clients if it is new: now, and whenever they are told nothing else for a while.
    fn say(&self, state: GatewayState, at: Timestamp) {
        let _one_after_another = self.saying.lock().unwrap_or_else(PoisonError::into_inner);
        if self.status.change(state, at) {
            self.tell_status();
        }
    }

    /// A name, a code and a sentence always make a message.
    fn tell_status(&self) {
        let message = self.status.message();
        // All clients have the same sign of life, so it must be one that all of them know.
        let for_all = if self.config.output.version == 0 { in_version_1(&message) } else { message.clone() };
        let _ = self.server.set_keep_alive(&for_all);
        if self.config.output.status {
            let _ = self.audience.broadcast(&self.server, &message);
        }
    }

    fn timings(&self) -> MutexGuard<'_, Timings> {
        self.timings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recording(&self) -> MutexGuard<'_, Option<SyncSender<Arc<Answer>>>> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
