//! Figures of the service: one line a second, and the account at the end.

use std::fmt;

use serde::{Serialize, Serializer};
use ultramotion_igtlink::RejectReason;

use crate::books::Account;

/// Everything that is counted, as it stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Seconds since the start.
    pub time_s: f64,
    /// `WAITING`, `SILENT`, `SOURCE_LOST`, `REBUILDING`, `UNPLACED`, `VISIBLE`, `RELOCALIZING`, `LOST` or `SHUTTING_DOWN`.
    pub state: &'static str,
    /// Frames received a second since the last report.
    pub in_per_s: f64,
    /// Frames answered a second since the last report.
    pub out_per_s: f64,
    /// Frames dropped a second since the last report, for all reasons.
    pub dropped_per_s: f64,
    /// Every frame: received, answered, dropped and why, in flight.
    pub account: Account,
    /// Frames that wait for the pipeline.
    pub queue: u64,
    /// Confirmed tracks in the last frame.
    pub tracks: u64,
    /// Objects in it that somebody pointed at.
    pub prompted: u64,
    /// Arrival to hand-over to the server, median since the last report.
    pub latency_p50_ms: f64,
    /// The same, 99 % are at most this.
    pub latency_p99_ms: f64,
    /// Age at the hand-over, median since the last report: from the source's own timestamp, where clocks agree, less the
    /// shortest time that a frame took to come; else from arrival.
    pub age_p50_ms: f64,
    /// The same, 99 % are at most this.
    pub age_p99_ms: f64,
    /// Whether ages count from the source's own timestamps.
    pub clocks_agree: bool,
    /// The pipeline alone, median since the last report.
    pub pipeline_p50_ms: f64,
    /// Whether the scanner is connected.
    pub connected: bool,
    /// Connections to the scanner beyond the first.
    pub reconnects: u64,
    /// Attempts to connect that failed.
    pub connect_failures: u64,
    /// Messages from the scanner of every kind.
    pub messages: u64,
    /// Messages among them that had to go because the receiving stage was slow.
    pub messages_evicted: u64,
    /// Messages with poses.
    pub poses: u64,
    /// Names of poses that went because there were too many.
    pub poses_evicted: u64,
    /// Images of other devices.
    pub other_images: u64,
    /// Rejected messages, by [`RejectReason`].
    pub rejected: [u64; RejectReason::ALL.len()],
    /// Clients that are connected.
    pub clients: u64,
    /// Connections of clients turned away.
    pub clients_refused: u64,
    /// Messages put into the clients' queues, each client counted.
    pub sent: u64,
    /// Messages among them that had to go because their client was slow or gone.
    pub send_dropped: u64,
    /// Stages that died and were started again.
    pub restarts: u64,
    /// Frames recorded.
    pub recorded: u64,
    /// Whether a recording had to end early.
    pub record_failed: bool,
    /// What is left on the recording's disk, MiB; 0 without a recording, or where the system does not tell.
    pub record_free_mb: u64,
    /// Lines of the log and of these figures that could not be written.
    pub log_lost: u64,
}

/// A figure of any kind.
enum Value {
    Text(&'static str),
    Count(u64),
    Flag(bool),
    /// With so many decimals.
    Real(f64, usize),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(text) => f.write_str(text),
            Value::Count(count) => write!(f, "{count}"),
            Value::Flag(flag) => write!(f, "{flag}"),
            Value::Real(value, decimals) => write!(f, "{value:.decimals$}"),
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Text(text) => serializer.serialize_str(text),
            Value::Count(count) => serializer.serialize_u64(*count),
            Value::Flag(flag) => serializer.serialize_bool(*flag),
            Value::Real(value, decimals) => {
                let scale = 10f64.powi(*decimals as i32);
                serializer.serialize_f64((value * scale).round() / scale)
            }
        }
    }
}

impl Report {
    /// Rejected messages of all kinds.
    pub fn rejected(&self) -> u64 {
        self.rejected.iter().sum()
    }

    /// Every figure with its key; the same keys in every report.
    fn figures(&self) -> Vec<(String, Value)> {
        let count = |key: &str, value: u64| (key.to_owned(), Value::Count(value));
        let mut figures = vec![
            ("time_s".to_owned(), Value::Real(self.time_s, 1)),
            ("state".to_owned(), Value::Text(self.state)),
            ("in_per_s".to_owned(), Value::Real(self.in_per_s, 1)),
            ("out_per_s".to_owned(), Value::Real(self.out_per_s, 1)),
            ("drops_per_s".to_owned(), Value::Real(self.dropped_per_s, 1)),
            count("received", self.account.received),
            count("answered", self.account.answered),
            count("dropped", self.account.dropped()),
        ];
        for (reason, dropped) in self.account.dropped_by_reason() {
            figures.push(count(&format!("dropped_{}", reason.name()), dropped));
        }
        figures.extend([
            count("in_flight", self.account.in_flight),
            count("queue", self.queue),
            count("tracks", self.tracks),
            count("prompted", self.prompted),
            ("latency_p50_ms".to_owned(), Value::Real(self.latency_p50_ms, 2)),
            ("latency_p99_ms".to_owned(), Value::Real(self.latency_p99_ms, 2)),
            ("age_p50_ms".to_owned(), Value::Real(self.age_p50_ms, 2)),
            ("age_p99_ms".to_owned(), Value::Real(self.age_p99_ms, 2)),
            ("clocks_agree".to_owned(), Value::Flag(self.clocks_agree)),
            ("pipeline_p50_ms".to_owned(), Value::Real(self.pipeline_p50_ms, 2)),
            ("connected".to_owned(), Value::Flag(self.connected)),
            count("reconnects", self.reconnects),
            count("connect_failures", self.connect_failures),
            count("messages", self.messages),
            count("messages_evicted", self.messages_evicted),
            count("poses", self.poses),
            count("poses_evicted", self.poses_evicted),
            count("other_images", self.other_images),
            count("rejected", self.rejected()),
        ]);
        for (reason, rejected) in RejectReason::ALL.into_iter().zip(self.rejected) {
            figures.push(count(&format!("rejected_{}", reason.name()), rejected));
        }
        figures.extend([
            count("clients", self.clients),
            count("clients_refused", self.clients_refused),
            count("sent", self.sent),
            count("send_dropped", self.send_dropped),
            count("restarts", self.restarts),
            count("recorded", self.recorded),
            ("record_failed".to_owned(), Value::Flag(self.record_failed)),
            count("record_free_mb", self.record_free_mb),
            count("log_lost", self.log_lost),
        ]);
        figures
    }

    /// As one JSON object.
    pub fn json(&self) -> String {
        let figures = self.figures();
        let map: serde_json::Map<String, serde_json::Value> = figures
            .into_iter()
            .map(|(key, value)| (key, serde_json::to_value(value).unwrap_or_default()))
            .collect();
        serde_json::Value::Object(map).to_string()
    }

    /// The account in words, for the end.
    pub fn summary(&self) -> String {
        let list = |counts: &mut dyn Iterator<Item = (&'static str, u64)>| {
            let parts: Vec<String> =
                counts.filter(|(_, n)| *n > 0).map(|(name, n)| format!("{name} {n}")).collect();
            if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
        };
        let account = &self.account;
        let dropped = list(&mut account.dropped_by_reason().map(|(r, n)| (r.name(), n)));
        let rejected =
            list(&mut RejectReason::ALL.into_iter().zip(self.rejected).map(|(r, n)| (r.name(), n)));
        let balance = if account.balances() { "the sums agree" } else { "THE SUMS DO NOT AGREE" };
        format!(
            "frames       {} received = {} answered + {} dropped{dropped} + {} in flight: {balance}\n\
             messages     {} from the scanner, {} of them with poses; {} rejected{rejected}, {} evicted\n\
             connections  {} reconnects, {} failed attempts; {} stages started again\n\
             sent         {} messages, {} of them dropped for slow clients",
            account.received,
            account.answered,
            account.dropped(),
            account.in_flight,
            self.messages,
            self.poses,
            self.rejected(),
            self.messages_evicted,
            self.reconnects,
            self.connect_failures,
            self.restarts,
            self.sent,
            self.send_dropped,
        )
    }
}

/// What a person looks at: the state, and a few figures; all of them are in [`Report::json`].
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let some = |count: u64, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        write!(
            f,
            "{} {:.1} in {:.1} out, p50 {:.0} ms p99 {:.0} ms, {:.1} dropped/s, {}, {}",
            self.state,
            self.in_per_s,
            self.out_per_s,
            self.latency_p50_ms,
            self.latency_p99_ms,
            self.dropped_per_s,
            some(self.tracks, "track"),
            some(self.clients, "client"),
        )?;
        for (count, what) in
            [(self.prompted, "pointed at"), (self.restarts, "restarts"), (self.log_lost, "lines lost")]
        {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        if self.record_failed {
            f.write_str(", RECORDING FAILED")?;
        }
        Ok(())
    }
}
