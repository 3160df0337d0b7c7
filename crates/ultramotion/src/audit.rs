//! Does the data stay on the device? Device mode against host mode, figures side by side.
//!
//! The same frames of the phantom go through a pipeline with everything on the device and through one where every stage
//! goes through host memory. The [`Report`] is a table ([`Display`](fmt::Display)) or JSON
//! ([`Serialize`]).

use std::fmt;
use std::path::Path;

use serde::Serialize;
use ultramotion_engine::DeviceKind;
use ultramotion_engine::ledger::{Budget, Counts};
use ultramotion_pipeline::kpi::Kpi;
use ultramotion_pipeline::{DeviceChoice, Orchestrator, transfers};
use ultramotion_types::{Frame, LatencyMs, Residency, Transfers};

use crate::session::{SessionError, of_frame};
use crate::settings::Settings;
use crate::source::open_recorded;

/// What a frame in device mode may do.
const BUDGET: Budget = Budget::RESIDENT_FRAME;

/// Both modes' figures, and whether device mode keeps its budget.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Name of the device that computed.
    pub device: &'static str,
    /// Threads of the host that took part.
    pub threads: usize,
    /// Copies in, copies out, waits and allocations that a frame in device mode may make.
    pub budget: [u64; 4],
    /// Device mode, then host mode.
    pub modes: [Mode; 2],
    /// On a GPU: what CUPTI counted in device mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cupti: Option<SecondCount>,
    /// Whether every frame of device mode but the first kept the budget, by either count.
    pub pass: bool,
}

/// One mode's figures.
#[derive(Debug, Clone, Serialize)]
pub struct Mode {
    /// Which mode.
    pub residency: Residency,
    /// Frames processed.
    pub frames: u64,
    /// Medians over all frames but the first.
    pub latency_p50_ms: LatencyMs,
    /// Of the last frame.
    pub transfers: Transfers,
    /// Memory that the pipeline holds on the device.
    pub device_memory_mb: f64,
}

/// A second opinion on the ledger, by NVIDIA's CUPTI: it sees what the driver does, whatever this program says.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum SecondCount {
    /// It counted.
    Counted {
        /// Frames that it saw.
        frames: u64,
        /// Of all these frames.
        transfers: Transfers,
        /// Kernels that ran.
        kernels: u64,
        /// Whether that is within the budget of as many frames.
        kept: bool,
    },
    /// It could not.
    Missing {
        /// Why not.
        missing: String,
    },
}

/// Runs `frames` frames (2 at least) in each mode; `cupti` is CUPTI's library, where it is not found by itself.
///
/// # Errors
/// A device or a model that cannot be had, settings that make no pipeline, and a device that fails.
pub fn audit(
    settings: &Settings,
    choice: &DeviceChoice,
    frames: u64,
    cupti: Option<&Path>,
) -> Result<Report, SessionError> {
    let (device, mut pipeline, frame) = run(settings, choice, Residency::Device, frames)?;
    let second = (pipeline.device().kind() == DeviceKind::Cuda).then(|| {
        count_with_cupti(cupti, &mut pipeline, &frame)
            .unwrap_or_else(|error| SecondCount::Missing { missing: error.to_string() })
    });
    // Its memory is given back before the other mode wants its own.
    drop(pipeline);
    let (host, pipeline, _) = run(settings, choice, Residency::Host, frames)?;
    let confirmed = !matches!(second, Some(SecondCount::Counted { kept: false, .. }));
    Ok(Report {
        device: pipeline.device().name(),
        threads: pipeline.device().threads(),
        budget: [BUDGET.h2d, BUDGET.d2h, BUDGET.host_syncs, BUDGET.allocations],
        modes: [device.mode, host.mode],
        cupti: second,
        pass: confirmed && device.kept,
    })
}

/// A mode's figures, and whether its frames kept the budget.
struct Measured {
    mode: Mode,
    kept: bool,
}

/// The figures, the pipeline that they are of, and the last frame.
fn run(
    settings: &Settings,
    choice: &DeviceChoice,
    residency: Residency,
    frames: u64,
) -> Result<(Measured, Orchestrator, Frame), SessionError> {
    let settings = Settings { residency, ..settings.clone() };
    let mut pipeline = settings.build(choice.clone())?;
    let mut source = open_recorded("phantom")?;
    let mut frame = Frame::default();
    let mut kpi = Kpi::default();
    let (mut counts, mut kept) = (Counts::default(), true);
    for index in 0..frames.max(2) {
        if let Some(read) = source.read_into(&mut frame) {
            read?;
        }
        let (kind, ledger) = (pipeline.device().kind(), pipeline.device().ledger().clone());
        let before = ledger.counts();
        let packet = pipeline.process(&frame.view()).map_err(|error| of_frame(&frame, error))?;
        kpi.add(packet);
        counts = ledger.counts() - before;
        // The first frame compiles: it allocates. A frame in which a GPU gave way to the CPU did more than this ledger says.
        kept &= index == 0 || (pipeline.device().kind() == kind && BUDGET.check(counts).is_ok());
    }
    let p50 = |part: fn(&LatencyMs) -> f64| kpi.latency(part).p50;
    let mode = Mode {
        residency,
        frames: kpi.frames(),
        latency_p50_ms: LatencyMs {
            total: p50(|l| l.total),
            upload: p50(|l| l.upload),
            detect: p50(|l| l.detect),
            matching: p50(|l| l.matching),
            segment: p50(|l| l.segment),
            download: p50(|l| l.download),
        },
        transfers: transfers(counts),
        device_memory_mb: pipeline.memory_bytes() as f64 / 1e6,
    };
    Ok((Measured { mode, kept }, pipeline, frame))
}

/// Some frames under CUPTI's eyes, which make them slower: none of those whose latency is reported.
#[cfg(feature = "cuda")]
fn count_with_cupti(
    library: Option<&Path>,
    pipeline: &mut Orchestrator,
    frame: &Frame,
) -> Result<SecondCount, Box<dyn std::error::Error>> {
    const FRAMES: u64 = 10;
    let recording = ultramotion_engine::cuda::Recording::start(library)?;
    for _ in 0..FRAMES {
        pipeline.process(&frame.view())?;
    }
    let activity = recording.take()?;
    let kept = BUDGET.times(FRAMES).check(activity.counts).is_ok();
    Ok(SecondCount::Counted {
        frames: FRAMES,
        transfers: transfers(activity.counts),
        kernels: activity.kernels,
        kept,
    })
}

#[cfg(not(feature = "cuda"))]
fn count_with_cupti(
    _: Option<&Path>,
    _: &mut Orchestrator,
    _: &Frame,
) -> Result<SecondCount, ultramotion_engine::CudaError> {
    Err(ultramotion_engine::CudaError::NotBuilt)
}

/// A line of the table: its name, digits after the point, and how a mode's figure is found.
type Row = (&'static str, usize, fn(&Mode) -> f64);

const ROWS: [Row; 13] = [
    ("latency, ms", 2, |m| m.latency_p50_ms.total),
    ("  upload", 2, |m| m.latency_p50_ms.upload),
    ("  detect", 2, |m| m.latency_p50_ms.detect),
    ("  match", 2, |m| m.latency_p50_ms.matching),
    ("  segment", 2, |m| m.latency_p50_ms.segment),
    ("  download", 2, |m| m.latency_p50_ms.download),
    ("copies in", 0, |m| m.transfers.h2d as f64),
    ("  kilobytes", 2, |m| m.transfers.h2d_bytes as f64 / 1e3),
    ("copies out", 0, |m| m.transfers.d2h as f64),
    ("  kilobytes", 2, |m| m.transfers.d2h_bytes as f64 / 1e3),
    ("waits", 0, |m| m.transfers.host_syncs as f64),
    ("allocations", 0, |m| m.transfers.allocations as f64),
    ("device memory, MB", 2, |m| m.device_memory_mb),
];

/// The table, without a line feed at its end.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [device, host] = &self.modes;
        writeln!(f, "{} with {} threads, {} frames each, medians", self.device, self.threads, device.frames)?;
        writeln!(f, "{:<24} {:>12} {:>12}", "", "device mode", "host mode")?;
        for (name, digits, value) in ROWS {
            writeln!(f, "{name:<24} {:>12.digits$} {:>12.digits$}", value(device), value(host))?;
        }
        match &self.cupti {
            Some(SecondCount::Counted { frames, transfers: t, kernels, .. }) => writeln!(
                f,
                "CUPTI, {frames} more frames in device mode: {} copies in, {} out, {} waits, {} allocations, {kernels} kernels",
                t.h2d, t.d2h, t.host_syncs, t.allocations
            )?,
            Some(SecondCount::Missing { missing }) => writeln!(f, "not confirmed by CUPTI: {missing}")?,
            None => {}
        }
        let [h2d, d2h, waits, allocations] = self.budget;
        let verdict = if self.pass { "kept" } else { "EXCEEDED" };
        write!(
            f,
            "budget of a frame in device mode: {h2d} in, {d2h} out, {waits} wait, {allocations} allocations: {verdict}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(residency: Residency, transfers: Transfers) -> Mode {
        let latency_p50_ms = LatencyMs {
            total: 12.345,
            upload: 0.1,
            detect: 6.0,
            matching: 0.25,
            segment: 5.5,
            download: 0.495,
        };
        Mode { residency, frames: 30, latency_p50_ms, transfers, device_memory_mb: 123.456 }
    }

    fn report() -> Report {
        let resident = Transfers {
            h2d: 1,
            h2d_bytes: 1_515_360,
            d2h: 1,
            d2h_bytes: 40_000,
            host_syncs: 1,
            ..Transfers::default()
        };
        let staged = Transfers { h2d: 4, d2h: 4, host_syncs: 4, ..resident };
        Report {
            device: "cuda",
            threads: 2,
            budget: [1, 1, 1, 0],
            modes: [mode(Residency::Device, resident), mode(Residency::Host, staged)],
            cupti: None,
            pass: true,
        }
    }

    #[test]
    fn a_table() {
        let table = report().to_string();
        assert_eq!(
            table.lines().collect::<Vec<_>>(),
            [
                "cuda with 2 threads, 30 frames each, medians",
                "                          device mode    host mode",
                "latency, ms                     12.35        12.35",
                "  upload                         0.10         0.10",
                "  detect                         6.00         6.00",
                "  match                          0.25         0.25",
                "  segment                        5.50         5.50",
                "  download                       0.49         0.49",
                "copies in                           1            4",
                "  kilobytes                   1515.36      1515.36",
                "copies out                          1            4",
                "  kilobytes                     40.00        40.00",
                "waits                               1            4",
                "allocations                         0            0",
                "device memory, MB              123.46       123.46",
                "budget of a frame in device mode: 1 in, 1 out, 1 wait, 0 allocations: kept",
            ]
        );
        let transfers =
            Transfers { h2d: 10, d2h: 10, host_syncs: 10, allocations: 1, ..Transfers::default() };
        let counted = SecondCount::Counted { frames: 10, transfers, kernels: 5000, kept: false };
        let exceeded = Report { cupti: Some(counted), pass: false, ..report() }.to_string();
        let last: Vec<&str> = exceeded.lines().rev().take(2).collect();
        assert_eq!(
            last,
            [
                "budget of a frame in device mode: 1 in, 1 out, 1 wait, 0 allocations: EXCEEDED",
                "CUPTI, 10 more frames in device mode: 10 copies in, 10 out, 10 waits, 1 allocations, 5000 kernels",
            ]
        );
        let missing = SecondCount::Missing { missing: "it is elsewhere".into() };
        let unconfirmed = Report { cupti: Some(missing), ..report() }.to_string();
        assert!(unconfirmed.contains("\nnot confirmed by CUPTI: it is elsewhere\n"));
    }
}
