//! `ultramotion run`: the main job on files, on the phantom, and on a scanner's stream.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ultramotion_gateway::receive::{Received, Receiver};
use ultramotion_igtlink::{ConnectError, Disconnect, RecvError};
use ultramotion_media::MediaError;
use ultramotion_media::sink::{JsonLines, Overlay};
use ultramotion_media::source::FrameSource;
use ultramotion_pipeline::kpi::Kpi;
use ultramotion_pipeline::{Orchestrator, PipelineError};
use ultramotion_types::{Frame, LatencyMs, Mailbox, ResultPacket};

use crate::device::DeviceArgs;
use crate::interrupt::Interrupt;
use crate::settings::PipelineArgs;
use crate::source;

/// Find, track and outline structures in a recording, images or simulated ultrasound
///
/// Writes DIR/results.jsonl, one JSON object a frame, and with --overlay a picture of each frame. A frame that cannot
/// be read is reported, counted and skipped.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// phantom[:SEED], a .mha/.mhd/.igs.mha sequence, an image, a folder of images, or a scanner that speaks
    /// OpenIGTLink: igtl://HOST[:PORT][/DEVICE]
    #[arg(default_value = "phantom")]
    source: String,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Stop after N frames [default: all; 150 of the phantom]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    frames: Option<u64>,
    /// Play at the source's own pace; frames that come while the pipeline is busy are dropped, oldest first
    #[arg(long)]
    realtime: bool,
    /// Folder for results
    #[arg(long, default_value = "out", value_name = "DIR")]
    out: PathBuf,
    /// Also write a picture of each frame with its results drawn in
    #[arg(long)]
    overlay: bool,
}

/// Where frames come from.
enum Source {
    /// Files or the phantom: frames wait until they are read.
    Recorded(Box<dyn FrameSource>),
    /// A scanner: frames come when they come.
    Scanner(Receiver),
}

/// Frames that wait for the pipeline in real time.
const MAILBOX_DEPTH: usize = 2;

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let settings = args.pipeline.resolve()?;
    let mut source = match source::live(&args.source) {
        Some(config) => Source::Scanner(Receiver::open(&config?)?),
        None => Source::Recorded(source::open(&args.source)?),
    };
    let mut pipeline = settings.build(args.device.open()?)?;
    let kernels = std::env::var("ULTRAMOTION_DEBUG").is_ok_and(|level| level.trim() == "2");
    if kernels {
        pipeline.profile_kernels();
    }
    let limit = args.frames.or_else(|| args.source.starts_with("phantom").then_some(source::PHANTOM_FRAMES));
    let hint = match &source {
        Source::Recorded(source) => source.frame_count_hint(),
        Source::Scanner(_) => None,
    };
    let total = match (limit, hint) {
        (Some(limit), Some(hint)) if !args.source.starts_with("phantom") => Some(limit.min(hint)),
        (limit, hint) => limit.or(hint),
    };
    let mut job = Job {
        pipeline,
        sinks: Sinks::create(&args.out, args.overlay)?,
        kpi: Kpi::default(),
        bar: progress_bar(total),
        bad_frames: 0,
        kernels,
    };
    let interrupt = Interrupt::listen();
    if let Source::Recorded(source) = &mut source {
        compile_ahead(source.as_mut(), &mut job.pipeline)?;
    }
    let start = Instant::now();
    let limit = limit.unwrap_or(u64::MAX);
    let dropped = match source {
        Source::Scanner(receiver) => Some(from_scanner(receiver, limit, &interrupt, &mut job)?),
        Source::Recorded(source) if args.realtime => Some(in_real_time(source, limit, &interrupt, &mut job)?),
        Source::Recorded(source) => {
            one_after_another(source, limit, &interrupt, &mut job)?;
            None
        }
    };
    job.bar.finish_and_clear();
    job.summarise(&args, start.elapsed(), dropped, interrupt.is_set());
    if job.kpi.frames() == 0 && !interrupt.is_set() {
        bail!("no frame of '{}' could be processed", args.source);
    }
    Ok(ExitCode::SUCCESS)
}

/// Compiles for the first frame, so that neither its latency nor the real-time clock pays for it. What is wrong with
/// that frame is said when its turn comes.
fn compile_ahead(source: &mut dyn FrameSource, pipeline: &mut Orchestrator) -> Result<()> {
    let mut frame = Frame::default();
    if let Some(Ok(())) = source.read_into(&mut frame) {
        match pipeline.prepare(&frame.view()) {
            Ok(()) | Err(PipelineError::Frame(_)) => {}
            Err(error) => return Err(error).context(format!("frame {} of {}", frame.frame_id, frame.source)),
        }
    }
    Ok(source.rewind()?)
}

pub(super) fn progress_bar(total: Option<u64>) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(total, target);
    let template = match total {
        Some(_) => "{bar:32} {pos}/{len} frames  {per_sec}  {msg}",
        None => "{spinner} {pos} frames  {per_sec}  {msg}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

fn one_after_another(
    mut source: Box<dyn FrameSource>,
    limit: u64,
    interrupt: &Interrupt,
    job: &mut Job,
) -> Result<()> {
    let mut frame = Frame::default();
    for _ in 0..limit {
        if interrupt.is_set() {
            break;
        }
        match source.read_into(&mut frame) {
            Some(read) => job.take(read.map(|()| &frame))?,
            None => break,
        }
    }
    Ok(())
}

/// Plays the source at its own pace on a thread of its own; returns how many frames were dropped.
fn in_real_time(
    mut source: Box<dyn FrameSource>,
    limit: u64,
    interrupt: &Interrupt,
    job: &mut Job,
) -> Result<u64> {
    let mailbox = Mailbox::new(MAILBOX_DEPTH);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut spare = Frame::default();
            let mut clock: Option<(Instant, f64)> = None;
            for _ in 0..limit {
                // Closed: the pipeline has failed, and nobody takes what is put.
                let stopped = || interrupt.is_set() || mailbox.is_closed();
                let Some(read) = source.read_into(&mut spare).filter(|_| !stopped()) else { break };
                let item = match read {
                    Ok(()) => {
                        let (start, first_s) = *clock.get_or_insert((Instant::now(), spare.timestamp_s));
                        let due_s = spare.timestamp_s - first_s;
                        if due_s.is_finite() && due_s > 0.0 {
                            let due = start + Duration::try_from_secs_f64(due_s).unwrap_or_default();
                            // Short naps, so that Ctrl-C is heard in a pause of the recording.
                            while let Some(rest) = due.checked_duration_since(Instant::now()) {
                                if stopped() {
                                    break;
                                }
                                thread::sleep(rest.min(Duration::from_millis(50)));
                            }
                        }
                        Ok(std::mem::take(&mut spare))
                    }
                    Err(error) => Err(error),
                };
                if let Some(Ok(pushed_out)) = mailbox.put(item) {
                    spare = pushed_out;
                }
            }
            mailbox.close();
        });
        let mut result = Ok(());
        while let Some(item) = mailbox.take() {
            result = job.take(item.as_ref());
            if result.is_err() || interrupt.is_set() {
                mailbox.close();
                break;
            }
        }
        result
    })?;
    Ok(mailbox.dropped())
}

/// How long a scanner's thread waits for a message before it looks whether to stop.
const TICK: Duration = Duration::from_millis(50);

/// Takes a scanner's frames as they come, up to `limit` of them, until it closes the connection; returns how many were
/// dropped because newer ones came.
fn from_scanner(mut receiver: Receiver, limit: u64, interrupt: &Interrupt, job: &mut Job) -> Result<u64> {
    let mailbox = Mailbox::<Result<Frame, String>>::new(MAILBOX_DEPTH);
    let ended = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let ended = read_scanner(&mut receiver, interrupt, &mailbox);
            mailbox.close();
            ended
        });
        let mut result = Ok(());
        for item in std::iter::from_fn(|| mailbox.take()).take(usize::try_from(limit).unwrap_or(usize::MAX)) {
            result = job.take(item.as_ref());
            if result.is_err() || interrupt.is_set() {
                break;
            }
        }
        mailbox.close();
        let ended = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        result.and(ended)
    });
    ended?;
    Ok(mailbox.dropped())
}

/// Until the scanner is gone, or nobody takes what is put.
fn read_scanner(
    receiver: &mut Receiver,
    interrupt: &Interrupt,
    mailbox: &Mailbox<Result<Frame, String>>,
) -> Result<()> {
    let mut frames = 0u64;
    while !interrupt.is_set() && !mailbox.is_closed() {
        match receiver.next(TICK) {
            Ok(Received::Frame(mut frame)) => {
                frames += 1;
                let poses = receiver.state().with_poses(|book| book.at(frame.timestamp));
                mailbox.put(Ok(frame.take_frame(&poses)));
                frame.ticket.answered();
            }
            Ok(Received::ConnectFailed(ConnectError::Connect { address, source })) => {
                // The kind alone: the system's own words differ from one to the next.
                let why = source.kind();
                bail!("cannot connect to {address}: {why}; is the scanner's server running there?")
            }
            Ok(Received::ConnectFailed(error)) => return Err(error.into()),
            Ok(Received::Disconnected { reason }) => {
                if frames == 0 {
                    bail!("{} sent no frame: {reason}", receiver.state().link.url());
                }
                if !matches!(reason, Disconnect::PeerClosed | Disconnect::Shutdown) {
                    tracing::warn!("the scanner's stream ended: {reason}");
                }
                return Ok(());
            }
            Ok(_) | Err(RecvError::Timeout) => {}
            Err(RecvError::Closed) => return Ok(()),
        }
    }
    Ok(())
}

/// A run in progress.
struct Job {
    pipeline: Orchestrator,
    sinks: Sinks,
    kpi: Kpi,
    bar: ProgressBar,
    bad_frames: u64,
    kernels: bool,
}

impl Job {
    /// Processes a frame and writes what came of it. A frame that cannot be used is reported, counted and skipped.
    fn take(&mut self, frame: Result<&Frame, impl std::fmt::Display>) -> Result<()> {
        match frame {
            Err(problem) => self.skip(&problem),
            Ok(frame) => {
                // One slot for borrowing: the packet lives in the pipeline.
                let Job { pipeline, sinks, kpi, bar, .. } = self;
                match pipeline.process(&frame.view()) {
                    Ok(packet) => {
                        kpi.add(packet);
                        sinks.write(frame, packet)?;
                        bar.set_message(format!("{:.1} ms", packet.latency_ms.total));
                        bar.inc(1);
                    }
                    Err(error @ PipelineError::Frame(_)) => {
                        let problem = format!("frame {} of {}: {error}", frame.frame_id, frame.source);
                        self.skip(&problem);
                    }
                    Err(error) => {
                        return Err(error).context(format!("frame {} of {}", frame.frame_id, frame.source));
                    }
                }
                if self.kernels {
                    self.print_kernels();
                }
            }
        }
        Ok(())
    }

    #[allow(clippy::print_stderr)] // a report for the user
    fn skip(&mut self, problem: &dyn std::fmt::Display) {
        self.bad_frames += 1;
        self.bar.inc(1);
        self.bar.suspend(|| eprintln!("skipped: {problem}"));
    }

    #[allow(clippy::print_stderr)] // asked for by ULTRAMOTION_DEBUG
    fn print_kernels(&self) {
        let kernels = self.pipeline.kernel_times();
        self.bar.suspend(|| eprint!("{}", super::bench::kernel_table(&kernels)));
    }

    #[allow(clippy::print_stdout)] // the summary is the output
    fn summarise(&self, args: &Args, elapsed: Duration, dropped: Option<u64>, interrupted: bool) {
        let kpi = &self.kpi;
        let device = self.pipeline.device();
        if interrupted {
            println!("stopped by Ctrl-C; everything up to here is written");
        }
        println!("source       {}", args.source);
        let (detector, segmenter) = (self.pipeline.detector(), self.pipeline.segmenter());
        println!(
            "models       {} {}x{}, {} {}x{}",
            detector.origin(),
            detector.config().input_hw[1],
            detector.config().input_hw[0],
            segmenter.origin(),
            segmenter.config().input_size(),
            segmenter.config().input_size(),
        );
        println!("device       {}, {} threads, {}", device.name(), device.threads(), device.instructions());
        let skipped = if self.bad_frames > 0 {
            format!(", {} bad ones skipped", self.bad_frames)
        } else {
            String::new()
        };
        let late = dropped.map_or_else(String::new, |dropped| format!(", {dropped} dropped to keep up"));
        println!("frames       {}{skipped}{late} in {:.1} s", kpi.frames(), elapsed.as_secs_f64());
        println!(
            "objects      {} in {} frames, {} of them confirmed, {} tracks",
            kpi.objects(),
            kpi.frames_with_objects(),
            kpi.confirmed(),
            kpi.tracks()
        );
        let total = kpi.latency(|l| l.total);
        println!(
            "latency      p50 {:.1} ms, p90 {:.1}, p99 {:.1}, max {:.1}  ({:.1} frames/s)",
            total.p50,
            total.p90,
            total.p99,
            total.max,
            if total.p50 > 0.0 { 1e3 / total.p50 } else { 0.0 }
        );
        let median = |part: fn(&LatencyMs) -> f64| kpi.latency(part).p50;
        println!(
            "  of which   upload {:.1}, detect {:.1}, match {:.2}, segment {:.1}, download {:.1}",
            median(|l| l.upload),
            median(|l| l.detect),
            median(|l| l.matching),
            median(|l| l.segment),
            median(|l| l.download)
        );
        let [h2d, d2h, waits, allocations] = kpi.transfers_per_frame();
        println!(
            "a frame      {h2d:.0} copy in, {d2h:.0} out, {waits:.0} wait, {allocations:.0} allocations on the device"
        );
        if let Some(peak) = super::bench::peak_memory_mb() {
            println!("memory       {peak:.0} MB at most");
        }
        println!("results      {}", self.sinks.results.display());
        if let Some(folder) = &self.sinks.overlay_folder {
            println!("overlays     {}", folder.display());
        }
        println!("Research software, not a medical device.");
    }
}

fn create_folder(path: &Path) -> Result<()> {
    if path.is_file() {
        bail!("'{}' is a file where a folder must be; choose another with --out", path.display());
    }
    std::fs::create_dir_all(path).map_err(|source| {
        let error = MediaError::Io { action: "create the folder", path: path.to_owned(), source };
        anyhow!("{error}; choose another with --out")
    })
}

/// Where results go.
struct Sinks {
    lines: JsonLines,
    results: PathBuf,
    overlay: Overlay,
    overlay_folder: Option<PathBuf>,
}

impl Sinks {
    fn create(out: &Path, overlay: bool) -> Result<Self> {
        create_folder(out)?;
        let results = out.join("results.jsonl");
        let lines = JsonLines::create(&results)?;
        let overlay_folder = overlay.then(|| out.join("overlays"));
        if let Some(folder) = &overlay_folder {
            create_folder(folder)?;
        }
        Ok(Sinks { lines, results, overlay: Overlay::new(), overlay_folder })
    }

    fn write(&mut self, frame: &Frame, packet: &ResultPacket) -> Result<()> {
        self.lines.write(packet)?;
        if let Some(folder) = &self.overlay_folder {
            self.overlay.draw_results(frame, packet);
            self.overlay.write_png(&folder.join(format!("{:06}.png", frame.frame_id)))?;
        }
        Ok(())
    }
}
