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
mod compute;
mod intake;
mod page;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver as ChannelReceiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use thiserror::Error;
use ultramotion_igtlink::{RejectReason, Server, ServerError, Timestamp};
use ultramotion_pipeline::kpi::Quantiles;
use ultramotion_pipeline::{Orchestrator, PipelineError};
use ultramotion_types::{FrameView, Mailbox, PromptCommand, PromptError, ResultPacket};

use crate::books::{Account, DropReason};
use crate::config::{ConfigError, GatewayConfig};
use crate::metrics::Metrics;
use crate::observe::Observations;
use crate::page::{Page, Rates, Tap};
use crate::prompts::PromptQueue;
use crate::receive::{LinkError, LiveFrame, SourceState};
use crate::record::{RecordError, Recorder};
use crate::report::Report;
use crate::send::{
    Answer, Audience, Composer, DeviceNames, GatewayState, LiveParameters, Plane, StatusBoard,
    header_version, in_version_1,
};
pub use crate::supervise::BoxError;
use crate::supervise::{StopSignal, Supervisor};

/// What turns frames into packets.
pub trait Perceive {
    /// Processes a frame, and fills a packet, whose memory is used again.
    fn process_into(&mut self, frame: &FrameView<'_>, packet: &mut ResultPacket)
    -> Result<(), PipelineError>;

    /// Obeys what somebody points at, from the next frame on.
    fn prompt(&mut self, _command: &PromptCommand) -> Result<(), PromptError> {
        Err(PromptError::Off)
    }

    /// Most objects that can be pointed at.
    fn max_prompts(&self) -> usize {
        0
    }

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

    fn prompt(&mut self, command: &PromptCommand) -> Result<(), PromptError> {
        Orchestrator::prompt(self, command)
    }

    fn max_prompts(&self) -> usize {
        self.options().max_prompts
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
    /// There can be no thread.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// The running service.
pub struct Gateway {
    shared: Arc<Shared>,
    supervisor: Supervisor,
    page: Option<Page>,
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
    observations: Observations,
    /// The books of a second ago, for the history.
    second: Mutex<Snapshot>,
    metrics: Metrics,
    tap: Arc<Tap>,
    prompts: PromptQueue,
    /// Where the last answered frame lies.
    plane: Mutex<Option<Plane>>,
    /// Most objects that can be pointed at.
    max_prompts: AtomicUsize,
    /// Stages that died and were started again.
    restarts: Arc<AtomicU64>,
    /// Lines that could not be written, as the program counts them.
    lost_words: OnceLock<Arc<AtomicU64>>,
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

impl Snapshot {
    fn now(account: Account) -> Self {
        Snapshot { at: Instant::now(), account }
    }

    /// Since an earlier one.
    fn rates_since(&self, before: &Snapshot) -> Rates {
        let elapsed_s = self.at.duration_since(before.at).as_secs_f64().max(1e-9);
        let per_s = |count: fn(&Account) -> u64| {
            count(&self.account).saturating_sub(count(&before.account)) as f64 / elapsed_s
        };
        Rates {
            in_per_s: per_s(|account| account.received),
            out_per_s: per_s(|account| account.answered),
            dropped_per_s: per_s(Account::dropped),
        }
    }
}

/// How long a stage waits for something to happen before it looks whether all is to stop.
const TICK: Duration = Duration::from_millis(100);
/// Results that may wait to be sent: a moment's pause of the sending stage costs none.
const ANSWERS: usize = 2;
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
        let recorder = config.record.is_wanted().then(|| Recorder::create(&config.record)).transpose()?;
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
            observations: Observations::default(),
            second: Mutex::new(Snapshot::now(Account::default())),
            metrics: Metrics::new(),
            tap: Arc::new(Tap::new(config.record.is_wanted())),
            prompts: PromptQueue::default(),
            plane: Mutex::default(),
            max_prompts: AtomicUsize::new(0),
            restarts: supervisor.restart_count(),
            lost_words: OnceLock::new(),
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
        let page = match page::start(&shared) {
            Ok(page) => page,
            Err(error) => {
                // The stream is what it is here for.
                shared.source.complaints.say("page", format_args!("there is no page: {error}"));
                None
            }
        };
        let last = Snapshot::now(Account::default());
        Ok(Gateway { shared, supervisor, page, last })
    }

    /// The address that results are served at, with its real port.
    pub fn output_addr(&self) -> Option<SocketAddr> {
        self.shared.server.local_addrs().first().copied()
    }

    /// The address that the scanner may connect to, where the gateway listens for it.
    pub fn source_addr(&self) -> Option<SocketAddr> {
        self.shared.source.link.local_addr()
    }

    /// The addresses of the page, with their real ports: none without one.
    pub fn page_addrs(&self) -> &[SocketAddr] {
        self.page.as_ref().map_or(&[], Page::addresses)
    }

    /// The source as a URL.
    pub fn source_url(&self) -> String {
        self.shared.source.link.url()
    }

    /// Lets the figures tell how many lines of its log and its figures the program could not write: it counts them here.
    pub fn count_lost_words(&mut self, lost: Arc<AtomicU64>) {
        // The first one counts.
        let _ = self.shared.lost_words.set(lost);
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
        let shared = &self.shared;
        let timings = std::mem::take(&mut *shared.timings());
        let (latency, age) = (Quantiles::of(&timings.latency_ms), Quantiles::of(&timings.age_ms));
        let counts = shared.counts();
        let now = Snapshot::now(counts.account);
        let Rates { in_per_s, out_per_s, dropped_per_s } = now.rates_since(&self.last);
        self.last = now;
        Report {
            in_per_s,
            out_per_s,
            dropped_per_s,
            latency_p50_ms: latency.p50,
            latency_p99_ms: latency.p99,
            age_p50_ms: age.p50,
            age_p99_ms: age.p99,
            pipeline_p50_ms: Quantiles::of(&timings.pipeline_ms).p50,
            ..counts
        }
    }

    /// Ends in order: takes no more frames, finishes the one in work, answers what is computed, says goodbye to the
    /// clients, completes the recording. Takes less than a second, but for a long recording.
    pub fn stop(mut self) -> Report {
        // Before the stages: it asks for what they share.
        drop(self.page.take());
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
    /// Everything that is counted, without rates and times.
    fn counts(&self) -> Report {
        let link = self.source.link.stats();
        let server = self.server.stats();
        Report {
            time_s: self.started.elapsed().as_secs_f64(),
            state: self.status.state().name(),
            account: self.source.books.account(),
            queue: self.queue.load(Relaxed),
            tracks: self.observations.tracks() as u64,
            prompted: self.observations.prompted() as u64,
            clocks_agree: self.clocks_agree.load(Relaxed),
            connected: link.connected,
            reconnects: link.connects.saturating_sub(1),
            connect_failures: link.connect_failures,
            messages: link.messages,
            messages_evicted: link.evicted,
            poses: self.source.pose_messages(),
            poses_evicted: self.source.poses_evicted(),
            other_images: self.source.other_images(),
            rejected: RejectReason::ALL.map(|reason| link.rejects.get(reason)),
            clients: server.clients as u64,
            clients_refused: server.refused,
            sent: server.traffic.queued_out,
            send_dropped: server.traffic.dropped_out,
            restarts: self.restarts.load(Relaxed),
            recorded: self.recorded.load(Relaxed),
            record_failed: self.record_failed.load(Relaxed),
            record_free_mb: self.record_free_mb.load(Relaxed),
            log_lost: self.lost_words.get().map_or(0, |lost| lost.load(Relaxed)),
            ..Report::default()
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
                Ok(()) => {
                    ticket.answered();
                    let (total, age) = (ticket.arrived().elapsed(), answer.frame.age());
                    let ms = |time: Duration| time.as_secs_f64() * 1e3;
                    self.metrics.answered(ms(total), ms(age), &answer.packet.latency_ms);
                    self.observations.note(&answer.frame, &answer.packet);
                    *self.plane.lock().unwrap_or_else(PoisonError::into_inner) = Plane::of(&answer);
                }
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
