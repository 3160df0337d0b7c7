//! `ultramotion audit`: does the data stay on the device?

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;
use ultramotion::source::open_recorded;
use ultramotion_engine::DeviceKind;
use ultramotion_engine::ledger::{Budget, Counts};
use ultramotion_pipeline::Orchestrator;
use ultramotion_pipeline::kpi::Kpi;
use ultramotion_types::{Frame, LatencyMs, Residency, Transfers};

use crate::device::DeviceArgs;
use crate::settings::PipelineArgs;

/// Device mode against host mode: latency, memory, transfers; fails over budget
///
/// Runs the same frames with everything on the device and with every stage going through host memory, and prints
/// the figures side by side.
///
/// On a GPU, NVIDIA's CUPTI counts the same for some more frames in device mode, if it is there: it sees what the driver does,
/// whatever this program says.
///
/// Exit code 1 if a frame in device mode makes more than one copy in, one copy out and one wait, or allocates, by either count.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Frames in each mode
    #[arg(long, default_value_t = 30, value_name = "N")]
    frames: u64,
    /// CUPTI's library (libcupti.so), where it is not found by itself
    #[arg(long, value_name = "FILE")]
    cupti: Option<PathBuf>,
    /// One JSON object for both modes
    #[arg(long)]
    json: bool,
}

/// One mode's figures.
#[derive(Debug, Serialize)]
struct Mode {
    residency: Residency,
    frames: u64,
    latency_p50_ms: LatencyMs,
    /// Of one frame, after the first.
    transfers: Transfers,
    device_memory_mb: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    device: &'static str,
    threads: usize,
    budget: [u64; 4],
    modes: Vec<Mode>,
    /// On a GPU: what CUPTI counted in device mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    cupti: Option<Cupti>,
    pass: bool,
}

/// A second opinion.
#[derive(Debug, Serialize)]
#[serde(untagged)]
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
enum Cupti {
    Counted {
        frames: u64,
        /// Of all these frames.
        transfers: Transfers,
        kernels: u64,
        /// Whether that is within the budget of as many frames.
        kept: bool,
    },
    Missing {
        missing: String,
    },
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let settings = args.pipeline.resolve()?;
    let mut worst = Transfers::default();
    let mut modes = Vec::new();
    let mut described = None;
    let mut cupti = None;
    for residency in [Residency::Device, Residency::Host] {
        let mut settings = settings.clone();
        settings.settings.residency = residency;
        let mut pipeline = settings.build(args.device.choice()?)?;
        let mut source = open_recorded("phantom")?;
        let mut frame = Frame::default();
        let mut kpi = Kpi::default();
        let mut last = Transfers::default();
        for index in 0..args.frames.max(2) {
            if let Some(read) = source.read_into(&mut frame) {
                read?;
            }
            let packet = pipeline.process(&frame.view())?;
            kpi.add(packet);
            // The first frame compiles: it allocates.
            if index > 0 {
                last = packet.transfers;
                if residency == Residency::Device {
                    worst = largest(worst, last);
                }
            }
        }
        if residency == Residency::Device && pipeline.device().kind() == DeviceKind::Cuda {
            let counted = count_with_cupti(args.cupti.as_deref(), &mut pipeline, &frame);
            cupti = Some(counted.unwrap_or_else(|error| Cupti::Missing { missing: format!("{error:#}") }));
        }
        let p50 = |part: fn(&LatencyMs) -> f64| kpi.latency(part).p50;
        modes.push(Mode {
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
            transfers: last,
            device_memory_mb: pipeline.memory_bytes() as f64 / 1e6,
        });
        described = Some((pipeline.device().name(), pipeline.device().threads()));
    }
    let budget = Budget::RESIDENT_FRAME;
    let (device, threads) = described.unwrap_or(("cpu", 0));
    let confirmed = !matches!(cupti, Some(Cupti::Counted { kept: false, .. }));
    let report = Report {
        device,
        threads,
        budget: [budget.h2d, budget.d2h, budget.host_syncs, budget.allocations],
        modes,
        cupti,
        pass: confirmed && budget.check(ledger_counts(worst)).is_ok(),
    };
    print(&report, args.json)?;
    Ok(if report.pass { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Some frames under CUPTI's eyes, which make them slower: none of those whose latency is reported.
#[cfg(feature = "cuda")]
fn count_with_cupti(library: Option<&Path>, pipeline: &mut Orchestrator, frame: &Frame) -> Result<Cupti> {
    const FRAMES: u64 = 10;
    let recording = ultramotion_engine::cuda::Recording::start(library)?;
    for _ in 0..FRAMES {
        pipeline.process(&frame.view())?;
    }
    let activity = recording.take()?;
    let kept = Budget::RESIDENT_FRAME.times(FRAMES).check(activity.counts).is_ok();
    Ok(Cupti::Counted {
        frames: FRAMES,
        transfers: ultramotion_pipeline::transfers(activity.counts),
        kernels: activity.kernels,
        kept,
    })
}

#[cfg(not(feature = "cuda"))]
fn count_with_cupti(_: Option<&Path>, _: &mut Orchestrator, _: &Frame) -> Result<Cupti> {
    Err(ultramotion_engine::CudaError::NotBuilt.into())
}

fn largest(a: Transfers, b: Transfers) -> Transfers {
    Transfers {
        h2d: a.h2d.max(b.h2d),
        d2h: a.d2h.max(b.d2h),
        host_syncs: a.host_syncs.max(b.host_syncs),
        allocations: a.allocations.max(b.allocations),
        ..b
    }
}

/// As a budget takes them.
fn ledger_counts(transfers: Transfers) -> Counts {
    let Transfers { h2d, h2d_bytes, d2h, d2h_bytes, d2d, d2d_bytes, host_syncs, allocations } = transfers;
    Counts { h2d, h2d_bytes, d2h, d2h_bytes, d2d, d2d_bytes, host_syncs, allocations, ..Counts::default() }
}

/// A line of the report: its name, and how a mode's figure is found.
type Row = (&'static str, fn(&Mode) -> f64);

#[allow(clippy::print_stdout)] // the report is the output
fn print(report: &Report, json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string(report)?);
        return Ok(());
    }
    let [device, host] = &report.modes[..] else { return Ok(()) };
    println!("{} with {} threads, {} frames each, medians", report.device, report.threads, device.frames);
    println!("{:<24} {:>12} {:>12}", "", "device mode", "host mode");
    let rows: [Row; 13] = [
        ("latency, ms", |m| m.latency_p50_ms.total),
        ("  upload", |m| m.latency_p50_ms.upload),
        ("  detect", |m| m.latency_p50_ms.detect),
        ("  match", |m| m.latency_p50_ms.matching),
        ("  segment", |m| m.latency_p50_ms.segment),
        ("  download", |m| m.latency_p50_ms.download),
        ("copies in", |m| m.transfers.h2d as f64),
        ("  kilobytes", |m| m.transfers.h2d_bytes as f64 / 1e3),
        ("copies out", |m| m.transfers.d2h as f64),
        ("  kilobytes", |m| m.transfers.d2h_bytes as f64 / 1e3),
        ("waits", |m| m.transfers.host_syncs as f64),
        ("allocations", |m| m.transfers.allocations as f64),
        ("device memory, MB", |m| m.device_memory_mb),
    ];
    for (name, value) in rows {
        let digits =
            if name.ends_with("in") || name.ends_with("out") || name == "waits" || name == "allocations" {
                0
            } else {
                2
            };
        println!("{name:<24} {:>12.digits$} {:>12.digits$}", value(device), value(host));
    }
    match &report.cupti {
        Some(Cupti::Counted { frames, transfers: t, kernels, .. }) => println!(
            "CUPTI, {frames} more frames in device mode: {} copies in, {} out, {} waits, {} allocations, {kernels} kernels",
            t.h2d, t.d2h, t.host_syncs, t.allocations
        ),
        Some(Cupti::Missing { missing }) => println!("not confirmed by CUPTI: {missing}"),
        None => {}
    }
    let [h2d, d2h, waits, allocations] = report.budget;
    let verdict = if report.pass { "kept" } else { "EXCEEDED" };
    println!(
        "budget of a frame in device mode: {h2d} in, {d2h} out, {waits} wait, {allocations} allocations: {verdict}"
    );
    Ok(())
}
