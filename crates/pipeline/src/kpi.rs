//! Key figures of a run: how many frames, how fast, how evenly.

use ultramotion_types::{LatencyMs, ResultPacket};

/// Median and tail of a latency, milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Quantiles {
    /// Median.
    pub p50: f64,
    /// 90 % are at most this.
    pub p90: f64,
    /// 99 % are at most this.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Quantiles {
    /// Of any number of values, by the nearest rank; zeros for none.
    pub fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let rank = |q: f64| nearest_rank(&sorted, q);
        Quantiles { p50: rank(0.5), p90: rank(0.9), p99: rank(0.99), max: rank(1.0) }
    }
}

/// The least of sorted values that a share `quantile` of them does not exceed; 0 for none.
pub fn nearest_rank(sorted: &[f64], quantile: f64) -> f64 {
    let index = ((quantile * sorted.len() as f64).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(index).copied().unwrap_or(0.0)
}

/// Collects packets' figures.
#[derive(Debug, Clone, Default)]
pub struct Kpi {
    latencies: Vec<LatencyMs>,
    objects: u64,
    confirmed: u64,
    frames_with_objects: u64,
    highest_track_id: i32,
    h2d: u64,
    d2h: u64,
    host_syncs: u64,
    allocations: u64,
}

impl Kpi {
    /// Takes a packet's figures in.
    pub fn add(&mut self, packet: &ResultPacket) {
        self.latencies.push(packet.latency_ms);
        self.objects += packet.objects.len() as u64;
        self.confirmed += packet.objects.iter().filter(|o| o.confirmed).count() as u64;
        self.frames_with_objects += u64::from(!packet.objects.is_empty());
        // What was pointed at has identities of its own.
        self.highest_track_id = packet
            .objects
            .iter()
            .filter(|o| !o.prompted)
            .map(|o| o.track_id)
            .fold(self.highest_track_id, i32::max);
        self.h2d += packet.transfers.h2d;
        self.d2h += packet.transfers.d2h;
        self.host_syncs += packet.transfers.host_syncs;
        self.allocations += packet.transfers.allocations;
    }

    /// Frames taken in.
    pub fn frames(&self) -> u64 {
        self.latencies.len() as u64
    }
    /// Detections in all frames.
    pub fn objects(&self) -> u64 {
        self.objects
    }
    /// Detections of confirmed tracks.
    pub fn confirmed(&self) -> u64 {
        self.confirmed
    }
    /// Frames with at least one detection.
    pub fn frames_with_objects(&self) -> u64 {
        self.frames_with_objects
    }
    /// Identities given so far.
    pub fn tracks(&self) -> i32 {
        self.highest_track_id
    }
    /// A part of the latency over all frames but the first, which pays for what the caches do not hold yet.
    pub fn latency(&self, part: impl Fn(&LatencyMs) -> f64) -> Quantiles {
        let steady = if self.latencies.len() > 1 { &self.latencies[1..] } else { &self.latencies[..] };
        Quantiles::of(&steady.iter().map(part).collect::<Vec<_>>())
    }
    /// Copies in, copies out, waits and allocations of a frame on average.
    pub fn transfers_per_frame(&self) -> [f64; 4] {
        let frames = self.frames().max(1) as f64;
        [self.h2d, self.d2h, self.host_syncs, self.allocations].map(|n| n as f64 / frames)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_by_nearest_rank() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(Quantiles::of(&values), Quantiles { p50: 50.0, p90: 90.0, p99: 99.0, max: 100.0 });
        assert_eq!(Quantiles::of(&[7.0]), Quantiles { p50: 7.0, p90: 7.0, p99: 7.0, max: 7.0 });
        assert_eq!(Quantiles::of(&[]), Quantiles::default());
    }
}
