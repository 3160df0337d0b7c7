//! Figures by the conventions of Prometheus: base units, `_total` for what only grows, a label for what is a kind.
//!
//! | metric | type | what |
//! |---|---|---|
//! | `ultramotion_build_info{version}` | gauge | 1 |
//! | `ultramotion_uptime_seconds` | gauge | since the start |
//! | `ultramotion_state{state}` | gauge | 1 for the state that it is in, 0 for the others |
//! | `ultramotion_frames_received_total`, `…_answered_total`, `…_dropped_total{reason}` | counter | the books |
//! | `ultramotion_frames_in_flight`, `ultramotion_frames_queued` | gauge | waiting or in work; waiting for the pipeline |
//! | `ultramotion_frame_latency_seconds` | histogram | arrival to hand-over of each answered frame |
//! | `ultramotion_stage_latency_seconds{stage}` | histogram | the pipeline's parts of it |
//! | `ultramotion_frame_age_seconds` | histogram | age at the hand-over |
//! | `ultramotion_tracks`, `ultramotion_prompted_objects` | gauge | in the last frame |
//! | `ultramotion_source_connected` | gauge | 1 while the scanner is connected |
//! | `ultramotion_source_reconnects_total`, `…_connect_failures_total` | counter | connections to it |
//! | `ultramotion_messages_received_total`, `…_evicted_total`, `…_rejected_total{reason}` | counter | the scanner's messages |
//! | `ultramotion_poses_received_total`, `ultramotion_pose_names_evicted_total`, `ultramotion_other_images_total` | counter | among them |
//! | `ultramotion_clients`, `ultramotion_page_viewers` | gauge | who is connected |
//! | `ultramotion_clients_refused_total`, `ultramotion_messages_sent_total`, `ultramotion_messages_dropped_total` | counter | what became of clients and of what they were sent |
//! | `ultramotion_stage_restarts_total`, `ultramotion_log_lines_lost_total` | counter | what went wrong inside |
//! | `ultramotion_recorded_frames_total`, `ultramotion_recording_failed`, `ultramotion_recording_free_bytes` | counter, gauges | the recording |

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};
use ultramotion_igtlink::RejectReason;
use ultramotion_types::LatencyMs;

use crate::report::Report;
use crate::send::GatewayState;

/// Upper ends of latencies, seconds: about four to an octave of ten.
const LATENCY_LE_S: [f64; 19] = [
    0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2,
    0.3, 0.5, 1.0,
];

/// Where a metric's value stands in a report.
type FigureOf = fn(&Report) -> u64;

/// All metrics.
pub(crate) struct Metrics {
    registry: Registry,
    latency: Histogram,
    age: Histogram,
    /// In the order of [`stages`].
    stages: [Histogram; 5],
    shown: Shown,
}

/// What is set from a report when somebody looks.
struct Shown {
    uptime: prometheus::Gauge,
    state: IntGaugeVec,
    dropped: IntCounterVec,
    rejected: IntCounterVec,
    counters: Vec<(IntCounter, FigureOf)>,
    gauges: Vec<(IntGauge, FigureOf)>,
    viewers: IntGauge,
}

/// Names of the pipeline's parts, with their times.
fn stages(latency: &LatencyMs) -> [(&'static str, f64); 5] {
    [
        ("upload", latency.upload),
        ("detect", latency.detect),
        ("match", latency.matching),
        ("segment", latency.segment),
        ("download", latency.download),
    ]
}

/// Names, help and value of the counters without labels.
const COUNTERS: [(&str, &str, FigureOf); 15] = [
    ("frames_received_total", "Frames that came whole", |r| r.account.received),
    ("frames_answered_total", "Frames whose result was handed to the server", |r| r.account.answered),
    ("source_reconnects_total", "Connections to the scanner beyond the first", |r| r.reconnects),
    ("source_connect_failures_total", "Attempts to connect to the scanner that failed", |r| {
        r.connect_failures
    }),
    ("messages_received_total", "Messages from the scanner", |r| r.messages),
    ("messages_evicted_total", "Messages from the scanner that went because reading was slow", |r| {
        r.messages_evicted
    }),
    ("poses_received_total", "Messages from the scanner with poses", |r| r.poses),
    ("pose_names_evicted_total", "Names of poses that went because there were too many", |r| r.poses_evicted),
    ("other_images_total", "Images of devices that are not taken", |r| r.other_images),
    ("clients_refused_total", "Connections of clients that were turned away", |r| r.clients_refused),
    ("messages_sent_total", "Messages put into the clients' queues", |r| r.sent),
    ("messages_dropped_total", "Messages that went because their client was slow or gone", |r| {
        r.send_dropped
    }),
    ("stage_restarts_total", "Stages that died and were started again", |r| r.restarts),
    ("log_lines_lost_total", "Lines of the log and of figures that could not be written", |r| r.log_lost),
    ("recorded_frames_total", "Frames recorded", |r| r.recorded),
];

/// The same of the gauges.
const GAUGES: [(&str, &str, FigureOf); 7] = [
    ("frames_in_flight", "Frames that wait or are in work", |r| r.account.in_flight),
    ("frames_queued", "Frames that wait for the pipeline", |r| r.queue),
    ("tracks", "Confirmed tracks in the last frame", |r| r.tracks),
    ("prompted_objects", "Objects in the last frame that somebody pointed at", |r| r.prompted),
    ("source_connected", "1 while the scanner is connected", |r| r.connected.into()),
    ("clients", "Clients that are connected", |r| r.clients),
    ("recording_failed", "1 once a recording had to end early", |r| r.record_failed.into()),
];

impl Metrics {
    /// All metrics, at 0.
    pub(crate) fn new() -> Self {
        Self::registered().expect("names are correct and each is there once")
    }

    fn registered() -> prometheus::Result<Self> {
        let registry = Registry::new_custom(Some("ultramotion".into()), None)?;
        let latencies =
            |name: &str, help: &str| HistogramOpts::new(name, help).buckets(LATENCY_LE_S.to_vec());
        let latency = Histogram::with_opts(latencies(
            "frame_latency_seconds",
            "Time from a frame's arrival to the hand-over of its result",
        ))?;
        let age = Histogram::with_opts(latencies("frame_age_seconds", "Age of a frame at the hand-over"))?;
        let by_stage = HistogramVec::new(
            latencies("stage_latency_seconds", "Time that a part of the pipeline took for a frame"),
            &["stage"],
        )?;
        registry.register(Box::new(latency.clone()))?;
        registry.register(Box::new(age.clone()))?;
        registry.register(Box::new(by_stage.clone()))?;
        let info = IntGaugeVec::new(Opts::new("build_info", "1, with the program's version"), &["version"])?;
        info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        registry.register(Box::new(info))?;
        Ok(Metrics {
            stages: stages(&LatencyMs::default()).map(|(stage, _)| by_stage.with_label_values(&[stage])),
            shown: Shown::registered(&registry)?,
            registry,
            latency,
            age,
        })
    }

    /// Takes in the times of an answered frame, milliseconds. Allocates nothing.
    pub(crate) fn answered(&self, total_ms: f64, age_ms: f64, latency: &LatencyMs) {
        self.latency.observe(total_ms / 1e3);
        self.age.observe(age_ms / 1e3);
        for (histogram, (_, ms)) in self.stages.iter().zip(stages(latency)) {
            histogram.observe(ms / 1e3);
        }
    }

    /// Everything as text (Prometheus' format 0.0.4).
    pub(crate) fn text(&self, report: &Report, viewers: usize) -> String {
        self.shown.set(report, viewers);
        let mut text = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            Ok(()) => String::from_utf8(text).unwrap_or_default(),
            Err(error) => format!("# {error}\n"),
        }
    }
}

impl Shown {
    fn registered(registry: &Registry) -> prometheus::Result<Self> {
        let uptime = prometheus::Gauge::new("uptime_seconds", "Time since the start")?;
        registry.register(Box::new(uptime.clone()))?;
        let state =
            IntGaugeVec::new(Opts::new("state", "1 for the state that the gateway is in"), &["state"])?;
        registry.register(Box::new(state.clone()))?;
        let dropped =
            IntCounterVec::new(Opts::new("frames_dropped_total", "Frames without an answer"), &["reason"])?;
        registry.register(Box::new(dropped.clone()))?;
        let rejected = IntCounterVec::new(
            Opts::new("messages_rejected_total", "What came and was no message, or not one to take"),
            &["reason"],
        )?;
        registry.register(Box::new(rejected.clone()))?;
        let mut counters = Vec::new();
        for (name, help, value) in COUNTERS {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            counters.push((counter, value));
        }
        let mut gauges = Vec::new();
        let free: (&str, &str, FigureOf) =
            ("recording_free_bytes", "Room on the recording's disk", |r| r.record_free_mb << 20);
        for (name, help, value) in GAUGES.into_iter().chain([free]) {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            gauges.push((gauge, value));
        }
        let viewers = IntGauge::new("page_viewers", "Pages that are open")?;
        registry.register(Box::new(viewers.clone()))?;
        Ok(Shown { uptime, state, dropped, rejected, counters, gauges, viewers })
    }

    fn set(&self, report: &Report, viewers: usize) {
        self.uptime.set(report.time_s);
        for name in GatewayState::NAMES {
            self.state.with_label_values(&[name]).set((name == report.state).into());
        }
        for (reason, count) in report.account.dropped_by_reason() {
            raise(&self.dropped.with_label_values(&[reason.name()]), count);
        }
        for (reason, count) in RejectReason::ALL.into_iter().zip(report.rejected) {
            raise(&self.rejected.with_label_values(&[reason.name()]), count);
        }
        self.counters.iter().for_each(|(counter, value)| raise(counter, value(report)));
        for (gauge, value) in &self.gauges {
            gauge.set(value(report).try_into().unwrap_or(i64::MAX));
        }
        self.viewers.set(viewers as i64);
    }
}

/// The sums are kept elsewhere: a counter follows them.
fn raise(counter: &IntCounter, to: u64) {
    counter.inc_by(to.saturating_sub(counter.get()));
}
