//! What the page asks the service.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde_json::json;
use ultramotion_types::PromptCommand;

use super::{Shared, Snapshot};
use crate::config::PageConfig;
use crate::observe::Row;
use crate::page::{
    Age, Client, DeviceState, Frames, Page, PageError, PerFrame, PromptState, Rates, RecordingState,
    SourceView, State, Subject,
};
use crate::prompts::{Refused, Reply};
use crate::record::save_moment;

/// Without an answered frame for so long, something is wrong.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// Serves the page of a service, if it is to have one.
pub(super) fn start(shared: &Arc<Shared>) -> Result<Option<Page>, PageError> {
    let report = &shared.config.report;
    let mut config: PageConfig = shared.config.page.clone();
    config.hosts.extend(report.hosts.iter().cloned());
    if report.metrics.is_some() {
        tracing::warn!("report.metrics is the page's address now: page.listen, with figures at /metrics");
    }
    let beyond = |address: &SocketAddr| !address.ip().is_loopback();
    if config.address().is_some_and(|address| beyond(&address)) {
        tracing::warn!(
            "the page is open to the network at {}: whoever has its token sees all frames and can point at things; it is \
             not encrypted",
            config.listen
        );
    }
    Page::start(&config, report.metrics, Arc::clone(shared) as Arc<dyn Subject>, Arc::clone(&shared.tap))
}

impl Subject for Shared {
    fn state(&self) -> State {
        let counts = self.counts();
        let last = self.observations.last();
        let row = self.observations.rows(1).pop();
        let config = &self.config;
        let transfers = last.as_ref().map(|last| last.transfers).unwrap_or_default();
        State {
            version: env!("CARGO_PKG_VERSION"),
            time_s: counts.time_s,
            state: counts.state,
            state_since_s: self.status.since().elapsed().as_secs_f64(),
            source: SourceView {
                url: self.source.link.url(),
                connected: counts.connected,
                frame_size: last.as_ref().map(|last| last.frame_size),
                last_frame_age_s: last.as_ref().map(|last| last.at.elapsed().as_secs_f64()),
                reconnects: counts.reconnects,
            },
            rates: row.map_or_else(Rates::default, |row| Rates {
                in_per_s: row.in_per_s,
                out_per_s: row.out_per_s,
                dropped_per_s: row.dropped_per_s,
            }),
            frames: Frames {
                received: counts.account.received,
                answered: counts.account.answered,
                in_flight: counts.account.in_flight,
                dropped: counts.account.dropped_by_reason().map(|(reason, n)| (reason.name(), n)).collect(),
            },
            latency_ms: self.observations.latencies(),
            age_ms: Age { minute: self.observations.ages(), clocks_agree: counts.clocks_agree },
            device: last.as_ref().map_or_else(DeviceState::default, |last| DeviceState {
                name: Some(last.device),
                modes: Some(last.modes),
                fallback: last.fallback.as_deref().map(str::to_owned),
                memory_mb: memory_mb(),
            }),
            per_frame: PerFrame {
                h2d: transfers.h2d,
                d2h: transfers.d2h,
                host_syncs: transfers.host_syncs,
                allocations: transfers.allocations,
            },
            tracks: last.as_ref().map_or(0, |last| last.tracks),
            fault: last.as_ref().and_then(|last| last.fault),
            clients: self.clients(),
            viewers: self.tap.viewers(),
            recording: config.record.is_wanted().then(|| RecordingState {
                folder: config.record.folder.display().to_string(),
                frames: counts.recorded,
                free_mb: counts.record_free_mb,
                failed: counts.record_failed,
            }),
            prompts: PromptState {
                most: self.max_prompts.load(Relaxed),
                followed: last.as_ref().map_or(0, |last| last.prompted),
            },
            complaints: self.source.complaints.counts().into_iter().collect::<BTreeMap<_, _>>(),
        }
    }

    fn tick(&self) {
        let now = Snapshot::now(self.source.books.account());
        let mut second = self.second.lock().unwrap_or_else(PoisonError::into_inner);
        // The first tick comes with the start: there is no second to speak of yet.
        let is_a_second = now.at.duration_since(second.at) >= Duration::from_millis(100);
        let Rates { in_per_s, out_per_s, dropped_per_s } = now.rates_since(&second);
        *second = now;
        drop(second);
        if !is_a_second {
            return;
        }
        let (latency_p50_ms, latency_p99_ms) = self.observations.last_second();
        self.observations.add(Row {
            time_s: self.started.elapsed().as_secs_f64(),
            in_per_s,
            out_per_s,
            latency_p50_ms,
            latency_p99_ms,
            dropped_per_s,
            tracks: self.observations.tracks(),
            state: self.status.state().name(),
        });
    }

    fn history(&self, seconds: usize) -> String {
        json!({"step_s": 1.0, "keys": Row::KEYS, "rows": self.observations.rows(seconds)}).to_string()
    }

    fn metrics(&self) -> String {
        self.metrics.text(&self.counts(), self.tap.viewers())
    }

    fn readiness(&self) -> Result<(), &'static str> {
        if !self.source.link.stats().connected {
            return Err("the scanner is not connected");
        }
        match self.observations.last() {
            Some(last) if last.at.elapsed() <= READY_WITHIN => Ok(()),
            Some(_) => Err("no frame was answered for 10 s"),
            None => Err("no frame was answered yet"),
        }
    }

    fn ask(&self, command: PromptCommand, reply: Reply) {
        if let Err(error) = self.check(&command) {
            return reply(Err(error));
        }
        self.prompts.put(command, reply);
    }

    fn save(&self, frame_id: u64) -> Result<String, String> {
        if !self.config.record.is_wanted() {
            return Err("nothing is recorded: start with --record DIR to keep moments".into());
        }
        let answer =
            self.tap.kept(frame_id).ok_or("this frame is not kept any more: only the last 10 seconds are")?;
        save_moment(&self.config.record.folder, &answer)
            .map(|path| path.display().to_string())
            .map_err(|error| error.to_string())
    }
}

impl Shared {
    /// What can be told at once, before the next frame comes.
    fn check(&self, command: &PromptCommand) -> Result<(), Refused> {
        let Some(last) = self.observations.last() else {
            return Err(Refused::Place("there is no frame yet to point into".into()));
        };
        let [width, height] = last.frame_size;
        match command {
            PromptCommand::Follow(prompt) => prompt.check(width, height)?,
            PromptCommand::Refine { point, .. } => point.check(width, height)?,
            PromptCommand::LetGo { .. } => {}
        }
        Ok(())
    }

    fn clients(&self) -> Vec<Client> {
        let output = &self.config.output;
        let receives = self.names.sent(output);
        let client = |info: ultramotion_igtlink::ClientInfo| Client {
            address: info.peer.to_string(),
            header_version: if output.version == 1 || self.audience.is_old(info.id) { 1 } else { 2 },
            sent: info.sent,
            dropped: info.dropped,
            waiting: info.queued,
            receives: receives.clone(),
        };
        self.server.clients().into_iter().map(client).collect()
    }
}

/// Memory of this process, where the system tells.
fn memory_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some((kib / 102.4).round() / 10.0)
}
