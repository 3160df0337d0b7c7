//! What lately was: the latencies of the last minute, a row for each second of the last hour, what the last frame said.
//!
//! All of it is bounded: whoever opens the page later finds the same as one who had it open all the time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use ultramotion_pipeline::kpi::nearest_rank as rank;
use ultramotion_types::{Fault, LatencyMs, Modes, ResultPacket, Transfers};

use crate::receive::LiveFrame;

/// Over which the quantiles of "the last minute" are taken.
const MINUTE: Duration = Duration::from_secs(60);
/// Frames of a minute that are remembered: 133 a second.
const MAX_SAMPLES: usize = 8000;
/// Rows of the history, one a second.
const MAX_ROWS: usize = 3600;
/// Latencies beyond count as this, microseconds.
const LONGEST_US: u64 = 120_000_000;
/// Upper ends of the page's histogram, milliseconds.
const HISTOGRAM_LE_MS: [f64; 16] =
    [1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 60.0, 80.0, 100.0, 150.0, 200.0, 300.0, 500.0, 1000.0];

/// Times of one frame, milliseconds.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    /// From its arrival to the hand-over.
    total: f64,
    age: f64,
    stages: LatencyMs,
}

/// What the last frame said.
#[derive(Debug, Clone)]
pub(crate) struct Last {
    pub at: Instant,
    pub frame_size: [usize; 2],
    pub transfers: Transfers,
    pub device: &'static str,
    pub modes: Modes,
    pub fallback: Option<Arc<str>>,
    pub fault: Option<Fault>,
    pub tracks: usize,
    pub prompted: usize,
}

/// A second of the history.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Row {
    pub time_s: f64,
    pub in_per_s: f64,
    pub out_per_s: f64,
    pub latency_p50_ms: f64,
    pub latency_p99_ms: f64,
    pub dropped_per_s: f64,
    pub tracks: usize,
    pub state: &'static str,
}

impl Row {
    /// Names of its values, in order.
    pub(crate) const KEYS: [&'static str; 8] = [
        "time_s",
        "in_per_s",
        "out_per_s",
        "latency_p50_ms",
        "latency_p99_ms",
        "dropped_per_s",
        "tracks",
        "state",
    ];
}

impl Serialize for Row {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let tenths = |value: f64| (value * 10.0).round() / 10.0;
        (
            tenths(self.time_s),
            tenths(self.in_per_s),
            tenths(self.out_per_s),
            tenths(self.latency_p50_ms),
            tenths(self.latency_p99_ms),
            tenths(self.dropped_per_s),
            self.tracks,
            self.state,
        )
            .serialize(serializer)
    }
}

/// How latencies are distributed, milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Distribution {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
    pub frames: u64,
}

/// Medians of the parts of a latency, milliseconds. `other` is waiting and sending.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct Stages {
    pub upload: f64,
    pub detect: f64,
    #[serde(rename = "match")]
    pub matching: f64,
    pub segment: f64,
    pub download: f64,
    pub other: f64,
}

/// Frames with a latency up to `le_ms` and above that of the bin before; the last bin has no upper end.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Bin {
    pub le_ms: Option<f64>,
    pub frames: u64,
}

/// Latencies as the page shows them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Latencies {
    pub minute: Distribution,
    pub start: Distribution,
    pub stages_minute: Stages,
    pub histogram_minute: Vec<Bin>,
}

/// Ages at the hand-over in the last minute, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Ages {
    pub p50: f64,
    pub p99: f64,
}

/// What is remembered.
#[derive(Debug)]
pub(crate) struct Observations(Mutex<Memory>);

#[derive(Debug)]
struct Memory {
    minute: VecDeque<Sample>,
    /// Microseconds.
    since_start: Histogram<u64>,
    rows: VecDeque<Row>,
    last: Option<Last>,
}

impl Default for Observations {
    fn default() -> Self {
        // Two digits are as exact as anybody reads a latency; what is beyond the end counts as the end.
        let since_start =
            Histogram::new_with_bounds(1, LONGEST_US, 2).expect("bounds and digits are in the crate's range");
        Observations(Mutex::new(Memory {
            minute: VecDeque::with_capacity(MAX_SAMPLES),
            since_start,
            rows: VecDeque::with_capacity(MAX_ROWS),
            last: None,
        }))
    }
}

impl Observations {
    /// Takes in a frame that was handed over. Allocates nothing.
    pub(crate) fn note(&self, frame: &LiveFrame, packet: &ResultPacket) {
        let now = Instant::now();
        let total = frame.ticket.arrived().elapsed();
        let sample = Sample {
            at: now,
            total: total.as_secs_f64() * 1e3,
            age: frame.age().as_secs_f64() * 1e3,
            stages: packet.latency_ms,
        };
        let mut memory = self.lock();
        memory.forget(now);
        memory.minute.push_back(sample);
        memory.since_start.saturating_record(u64::try_from(total.as_micros()).unwrap_or(u64::MAX).max(1));
        memory.last = Some(Last {
            at: now,
            frame_size: [packet.width, packet.height],
            transfers: packet.transfers,
            device: packet.device,
            modes: packet.modes,
            fallback: packet.fallback.clone(),
            fault: packet.fault,
            tracks: packet.objects.iter().filter(|object| object.confirmed).count(),
            prompted: packet.objects.iter().filter(|object| object.prompted).count(),
        });
    }

    /// Adds a second to the history.
    pub(crate) fn add(&self, row: Row) {
        let mut memory = self.lock();
        if memory.rows.len() == MAX_ROWS {
            memory.rows.pop_front();
        }
        memory.rows.push_back(row);
    }

    /// The last seconds of the history.
    pub(crate) fn rows(&self, seconds: usize) -> Vec<Row> {
        let memory = self.lock();
        memory.rows.iter().skip(memory.rows.len().saturating_sub(seconds)).copied().collect()
    }

    pub(crate) fn last(&self) -> Option<Last> {
        self.lock().last.clone()
    }

    /// Confirmed tracks in the last frame.
    pub(crate) fn tracks(&self) -> usize {
        self.lock().last.as_ref().map_or(0, |last| last.tracks)
    }

    /// Objects in it that somebody pointed at.
    pub(crate) fn prompted(&self) -> usize {
        self.lock().last.as_ref().map_or(0, |last| last.prompted)
    }

    /// Median and 99th percentile of the latencies of the last second.
    pub(crate) fn last_second(&self) -> (f64, f64) {
        let now = Instant::now();
        let memory = self.lock();
        let recent = memory.minute.iter().rev();
        let recent = recent.take_while(|sample| now - sample.at <= Duration::from_secs(1));
        let mut totals: Vec<f64> = recent.map(|sample| sample.total).collect();
        drop(memory);
        totals.sort_by(f64::total_cmp);
        (rank(&totals, 0.5), rank(&totals, 0.99))
    }

    pub(crate) fn latencies(&self) -> Latencies {
        let mut memory = self.lock();
        memory.forget(Instant::now());
        let samples: Vec<Sample> = memory.minute.iter().copied().collect();
        let ms = |us: u64| us as f64 / 1e3;
        let all = &memory.since_start;
        let start = Distribution {
            p50: ms(all.value_at_quantile(0.5)),
            p90: ms(all.value_at_quantile(0.9)),
            p99: ms(all.value_at_quantile(0.99)),
            p999: ms(all.value_at_quantile(0.999)),
            max: ms(all.max()),
            frames: all.len(),
        };
        drop(memory);
        let sorted = |part: &dyn Fn(&Sample) -> f64| {
            let mut values: Vec<f64> = samples.iter().map(part).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let median = |part: &dyn Fn(&Sample) -> f64| rank(&sorted(part), 0.5);
        let totals = sorted(&|s| s.total);
        let minute = Distribution {
            p50: rank(&totals, 0.5),
            p90: rank(&totals, 0.9),
            p99: rank(&totals, 0.99),
            p999: rank(&totals, 0.999),
            max: rank(&totals, 1.0),
            frames: totals.len() as u64,
        };
        let in_stages = |s: &LatencyMs| s.upload + s.detect + s.matching + s.segment + s.download;
        let stages_minute = Stages {
            upload: median(&|s| s.stages.upload),
            detect: median(&|s| s.stages.detect),
            matching: median(&|s| s.stages.matching),
            segment: median(&|s| s.stages.segment),
            download: median(&|s| s.stages.download),
            other: median(&|s| (s.total - in_stages(&s.stages)).max(0.0)),
        };
        Latencies { minute, start, stages_minute, histogram_minute: histogram(&totals) }
    }

    pub(crate) fn ages(&self) -> Ages {
        let mut ages: Vec<f64> = self.lock().minute.iter().map(|sample| sample.age).collect();
        ages.sort_by(f64::total_cmp);
        Ages { p50: rank(&ages, 0.5), p99: rank(&ages, 0.99) }
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        // Each entry is whole, whatever its writer died of.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn forget(&mut self, now: Instant) {
        while self.minute.len() >= MAX_SAMPLES || self.minute.front().is_some_and(|s| now - s.at > MINUTE) {
            self.minute.pop_front();
        }
    }
}

fn histogram(sorted: &[f64]) -> Vec<Bin> {
    let mut before = 0;
    let mut bin = |le_ms: Option<f64>| {
        let up_to = le_ms.map_or(sorted.len(), |le| sorted.partition_point(|&total| total <= le));
        let frames = (up_to - before) as u64;
        before = up_to;
        Bin { le_ms, frames }
    };
    HISTOGRAM_LE_MS.into_iter().map(Some).chain([None]).map(&mut bin).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_latency_is_in_one_bin() {
        let sorted = [0.5, 1.0, 1.1, 33.0, 999.0, 5000.0];
        let bins = histogram(&sorted);
        assert_eq!(bins.iter().map(|bin| bin.frames).sum::<u64>(), sorted.len() as u64);
        assert_eq!((bins[0].frames, bins[1].frames), (2, 1), "an end belongs to its bin");
        assert_eq!(bins.last(), Some(&Bin { le_ms: None, frames: 1 }));
    }

    #[test]
    fn quantiles_are_values_that_were_there() {
        let sorted: Vec<f64> = (1..=1000).map(f64::from).collect();
        assert_eq!(
            [0.5, 0.9, 0.99, 0.999, 1.0].map(|q| rank(&sorted, q)),
            [500.0, 900.0, 990.0, 999.0, 1000.0]
        );
        assert_eq!((rank(&[], 0.5), rank(&[7.0], 0.999)), (0.0, 7.0));
    }

    #[test]
    fn the_history_ends_and_begins_with_what_was_last() {
        let observations = Observations::default();
        let row = |time_s| Row {
            time_s,
            in_per_s: 30.04,
            out_per_s: 29.96,
            latency_p50_ms: 1.0,
            latency_p99_ms: 2.0,
            dropped_per_s: 0.0,
            tracks: 2,
            state: "VISIBLE",
        };
        (0..MAX_ROWS + 10).for_each(|second| observations.add(row(second as f64)));
        let rows = observations.rows(3);
        assert_eq!(rows.iter().map(|row| row.time_s).collect::<Vec<_>>(), [3607.0, 3608.0, 3609.0]);
        assert_eq!(observations.rows(usize::MAX).len(), MAX_ROWS);
        let text = serde_json::to_string(&rows[0]).unwrap();
        assert_eq!(text, r#"[3607.0,30.0,30.0,1.0,2.0,0.0,2,"VISIBLE"]"#);
    }
}
