//! `ultramotion run`: the main job on files, on the phantom, and on a scanner's stream.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ultramotion::source::default_limit;
use ultramotion::{Pace, Session, SessionError, Source};
use ultramotion_media::MediaError;
use ultramotion_media::sink::{JsonLines, Overlay};
use ultramotion_media::source::crop::Crop;
use ultramotion_media::source::{DicomOptions, Region};
use ultramotion_pipeline::kpi::Kpi;
use ultramotion_pipeline::{MAX_PROMPTS, Orchestrator};
use ultramotion_types::{Frame, LatencyMs, NamedTransform, Prompt, PromptCommand, ResultPacket};

use crate::device::DeviceArgs;
use crate::exports::{ExportArgs, Exports};
use crate::interrupt;
use crate::output::{self, OutputError, note, say};
use crate::settings::PipelineArgs;
use crate::usage::{source_error, usage};

/// Find, track and outline structures in a recording, images or simulated ultrasound
///
/// Writes DIR/results.jsonl, one JSON object a frame, and with --overlay a picture of each frame. A frame that cannot
/// be read is reported, counted and skipped.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// phantom[:SEED], a file (MetaImage and PLUS's .igs.mha, NRRD, TIFF, GIF, PNG, JPEG, BMP, WebP, video by ffmpeg), a folder of
    /// images or of a recording of `serve`, a camera or capture card (device:/dev/video0), or a scanner that speaks OpenIGTLink:
    /// igtl://HOST[:PORT][/DEVICE]
    #[arg(default_value = "phantom")]
    source: String,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Print what the source is, and compute nothing
    #[arg(long)]
    info: bool,
    /// Of a study in DICOM, the series with this number or SeriesInstanceUID [default: the only one, or the only one of ultrasound]
    #[arg(long, value_name = "NUMBER|UID")]
    series: Option<String>,
    /// Of a picture in DICOM, this region that the scanner names: its number, auto for the first B-mode, whole for all of the screen
    #[arg(long, value_name = "N|auto|whole", default_value = "whole", hide_default_value = true)]
    region: Region,
    /// Look only at this part of each frame, pixels, or at what moves in the first frames: screens of scanners have text and rulers
    /// around the picture. Results are in the coordinates of the whole frame
    #[arg(long, value_name = "LEFT,TOP,WIDTH,HEIGHT|auto")]
    crop: Option<Crop>,
    /// Stop after N frames [default: all; 150 of the phantom]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    frames: Option<u64>,
    /// Follow what is at this point of the first frame, pixels from its left top corner; may be given several times
    #[arg(long, value_name = "X,Y", value_parser = point)]
    prompt: Vec<[f32; 2]>,
    /// Follow what is in this box of the first frame: left, top, right, bottom in pixels; may be given several times
    #[arg(long, value_name = "X1,Y1,X2,Y2", value_parser = corners)]
    prompt_box: Vec<[f32; 4]>,
    /// What to call that, instead of user
    #[arg(long, value_name = "NAME")]
    prompt_label: Option<String>,
    /// Play at the source's own pace; frames that come while the pipeline is busy are dropped, oldest first
    #[arg(long)]
    realtime: bool,
    /// Folder for results
    #[arg(long, default_value = "out", value_name = "DIR")]
    out: PathBuf,
    /// Also write a picture of each frame with its results drawn in
    #[arg(long)]
    overlay: bool,
    #[command(flatten)]
    exports: ExportArgs,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    if args.info {
        return info(&args.source, &args.dicom());
    }
    let mut resolved = args.pipeline.resolve()?;
    let prompts = args.prompts();
    let room = prompts.len().min(MAX_PROMPTS);
    let most = resolved.settings.max_prompts.get_or_insert(room);
    if prompts.len() > *most {
        return Err(usage(anyhow!(
            "{} prompts are too many: at most {most} objects can be pointed at",
            prompts.len()
        )));
    }
    let mut source = Source::open_with(&args.source, &args.dicom()).map_err(source_error)?;
    let crop = args.crop.map(|crop| Session::find_picture(crop, &mut source)).transpose()?;
    if let (Some(Crop::Auto), Some(part)) = (args.crop, crop) {
        note!("the picture is taken to be at {part} (left, top, width, height)");
    }
    let mut pipeline = resolved.build(args.device.choice()?)?;
    for prompt in prompts {
        // What the pipeline gets begins at the part's own corner.
        let corner = crop.map_or([0.0; 2], |part| [part.left as f32, part.top as f32]);
        pipeline
            .prompt(&PromptCommand::Follow(prompt.seen_from(corner)))
            .map_err(|error| usage(anyhow!("--prompt: {error}")))?;
    }
    let kernels = std::env::var("ULTRAMOTION_DEBUG").is_ok_and(|level| level.trim() == "2");
    if kernels {
        pipeline.profile_kernels();
    }
    let endless = default_limit(&args.source);
    let limit = args.frames.or(endless);
    // The phantom gives as many frames as it is asked for.
    let there = source.frame_count_hint().filter(|_| endless.is_none());
    let mut job = Job {
        sinks: Sinks::create(&args)?,
        kpi: Kpi::default(),
        bar: progress_bar(limit.into_iter().chain(there).min()),
        bad_frames: 0,
    };
    let stop = interrupt::listen();
    let pace = if args.realtime { Pace::RealTime } else { Pace::AsAsked };
    let mut session = Session::start(pipeline, source, crop, pace, limit.unwrap_or(u64::MAX), stop.clone())?;
    let start = Instant::now();
    while let Some(result) = session.next_result() {
        job.take(result)?;
        if kernels {
            job.print_kernels(session.pipeline());
        }
    }
    let (pipeline, dropped) = session.finish();
    let dropped = dropped?;
    job.bar.finish_and_clear();
    job.sinks.exports.finish();
    let said = job.summarise(&args, &pipeline, start.elapsed(), dropped, stop.is_set());
    if job.kpi.frames() == 0 && !stop.is_set() {
        said?;
        bail!("no frame of '{}' could be processed", args.source);
    }
    // Before a reader of the summary who has seen enough: that is no failure, this is one.
    job.sinks.exports.check()?;
    said?;
    Ok(ExitCode::SUCCESS)
}

/// Prints what a source is, from what it says and from its first frame.
fn info(name: &str, dicom: &DicomOptions) -> Result<ExitCode> {
    let Source::Recorded(mut source) = Source::open_with(name, dicom).map_err(source_error)? else {
        return Err(usage(anyhow!(
            "--info: a scanner says what it sends when it sends it, see `ultramotion igtl listen`"
        )));
    };
    let (mut first, mut second) = (Frame::default(), Frame::default());
    let frame = source.read_into(&mut first).ok_or_else(|| anyhow!("'{name}' has no frame"))?;
    let then = source.read_into(&mut second);
    say!("source       {}", source.name())?;
    say!("format       {}", source.description())?;
    match source.frame_count_hint() {
        Some(frames) => say!("frames       {frames}")?,
        None => say!("frames       not known before they are read")?,
    }
    frame?;
    let colour = if first.pixel_format.channels() == 3 { "red, green, blue" } else { "grey" };
    say!("size         {}x{} pixels, {colour}", first.width, first.height)?;
    match first.spacing_mm {
        Some([x, y]) => say!("spacing      {x} x {y} mm a pixel")?,
        None => say!("spacing      not said")?,
    }
    say!("first time   {} s", first.timestamp_s)?;
    if let Some(Ok(())) = then
        && second.timestamp_s > first.timestamp_s
    {
        say!("rate         {:.2} frames/s", 1.0 / (second.timestamp_s - first.timestamp_s))?;
    }
    if let Some(orientation) = &first.orientation {
        say!("orientation  {orientation}")?;
    }
    let pose =
        |pose: &NamedTransform| format!("{}{}", pose.name, if pose.valid { "" } else { " (not seen)" });
    let poses: Vec<String> = first.transforms.iter().map(pose).collect();
    say!("poses        {}", if poses.is_empty() { "none".to_owned() } else { poses.join(", ") })?;
    Ok(ExitCode::SUCCESS)
}

impl Args {
    /// What is to be read of a study.
    fn dicom(&self) -> DicomOptions {
        DicomOptions { series: self.series.clone(), region: self.region }
    }

    /// What the options point at.
    fn prompts(&self) -> Vec<Prompt> {
        let points = self.prompt.iter().map(|&[x, y]| Prompt::at(x, y));
        let boxes = self.prompt_box.iter().map(|&corners| Prompt::within(corners));
        let named = |prompt: Prompt| match &self.prompt_label {
            Some(label) => prompt.labelled(label),
            None => prompt,
        };
        points.chain(boxes).map(named).collect()
    }
}

/// Numbers with commas between.
fn numbers<const N: usize>(text: &str, form: &str) -> Result<[f32; N], String> {
    let numbers: Option<Vec<f32>> = text.split(',').map(|number| number.trim().parse().ok()).collect();
    numbers.and_then(|numbers| numbers.try_into().ok()).ok_or_else(|| format!("it must be {form}"))
}

fn point(text: &str) -> Result<[f32; 2], String> {
    numbers(text, "X,Y in pixels, as 120,80")
}

fn corners(text: &str) -> Result<[f32; 4], String> {
    numbers(text, "LEFT,TOP,RIGHT,BOTTOM in pixels, as 100,60,180,120")
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

/// A run in progress.
struct Job {
    sinks: Sinks,
    kpi: Kpi,
    bar: ProgressBar,
    bad_frames: u64,
}

impl Job {
    /// Writes what came of a frame. A frame that cannot be used is reported, counted and skipped.
    fn take(&mut self, result: Result<(&Frame, &ResultPacket), SessionError>) -> Result<()> {
        match result {
            Ok((frame, packet)) => {
                self.kpi.add(packet);
                self.sinks.write(frame, packet, &self.bar)?;
                self.bar.set_message(format!("{:.1} ms", packet.latency_ms.total));
                self.bar.inc(1);
            }
            Err(problem) if problem.is_about_one_frame() => self.skip(&problem),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn skip(&mut self, problem: &dyn std::fmt::Display) {
        self.bad_frames += 1;
        self.bar.inc(1);
        output::tell_above(&self.bar, format!("skipped: {problem}"));
    }

    fn print_kernels(&self, pipeline: &Orchestrator) {
        let kernels = pipeline.kernel_times();
        output::tell_above(&self.bar, super::bench::kernel_table(&kernels));
    }

    fn summarise(
        &self,
        args: &Args,
        pipeline: &Orchestrator,
        elapsed: Duration,
        dropped: Option<u64>,
        interrupted: bool,
    ) -> Result<(), OutputError> {
        let kpi = &self.kpi;
        let device = pipeline.device();
        if interrupted {
            say!("stopped by a signal; everything up to here is written")?;
        }
        say!("source       {}", args.source)?;
        let (detector, segmenter) = (pipeline.detector(), pipeline.segmenter());
        say!(
            "models       {} {}, {} {}",
            detector.origin(),
            width_by_height(detector.network().input_hw()),
            segmenter.origin(),
            width_by_height(segmenter.network().input_hw()),
        )?;
        say!("device       {}, {} threads, {}", device.name(), device.threads(), device.instructions())?;
        let skipped = if self.bad_frames > 0 {
            format!(", {} bad ones skipped", self.bad_frames)
        } else {
            String::new()
        };
        let late = dropped.map_or_else(String::new, |dropped| format!(", {dropped} dropped to keep up"));
        say!("frames       {}{skipped}{late} in {:.1} s", kpi.frames(), elapsed.as_secs_f64())?;
        say!(
            "objects      {} in {} frames, {} of them confirmed, {} tracks",
            kpi.objects(),
            kpi.frames_with_objects(),
            kpi.confirmed(),
            kpi.tracks()
        )?;
        let total = kpi.latency(|l| l.total);
        say!(
            "latency      p50 {:.1} ms, p90 {:.1}, p99 {:.1}, max {:.1}  ({:.1} frames/s)",
            total.p50,
            total.p90,
            total.p99,
            total.max,
            if total.p50 > 0.0 { 1e3 / total.p50 } else { 0.0 }
        )?;
        let median = |part: fn(&LatencyMs) -> f64| kpi.latency(part).p50;
        say!(
            "  of which   upload {:.1}, detect {:.1}, match {:.2}, segment {:.1}, download {:.1}",
            median(|l| l.upload),
            median(|l| l.detect),
            median(|l| l.matching),
            median(|l| l.segment),
            median(|l| l.download)
        )?;
        let [h2d, d2h, waits, allocations] = kpi.transfers_per_frame();
        say!(
            "a frame      {h2d:.0} copy in, {d2h:.0} out, {waits:.0} wait, {allocations:.0} allocations on the device"
        )?;
        if let Some(peak) = super::bench::peak_memory_mb() {
            say!("memory       {peak:.0} MB at most")?;
        }
        say!("results      {}", self.sinks.results.display())?;
        if let Some(folder) = &self.sinks.overlay_folder {
            say!("overlays     {}", folder.display())?;
        }
        self.sinks.exports.list()?;
        say!("Research software, not a medical device.")
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
    exports: Exports,
}

impl Sinks {
    fn create(args: &Args) -> Result<Self> {
        let out = &args.out;
        create_folder(out)?;
        let results = out.join("results.jsonl");
        let overlay_folder = args.overlay.then(|| out.join("overlays"));
        if let Some(folder) = &overlay_folder {
            create_folder(folder)?;
        }
        let mut taken = vec![("SOURCE", Path::new(&args.source)), ("--out", &results)];
        taken.extend(overlay_folder.as_deref().map(|folder| ("--overlay", folder)));
        // What was found before is replaced once there is nothing against it.
        let exports = args.exports.create(&taken)?;
        let lines = JsonLines::create(&results)?;
        Ok(Sinks { lines, results, overlay: Overlay::new(), overlay_folder, exports })
    }

    fn write(&mut self, frame: &Frame, packet: &ResultPacket, bar: &ProgressBar) -> Result<()> {
        self.lines.write(packet)?;
        self.exports.take_text(self.lines.last_line(), frame, bar);
        if let Some(folder) = &self.overlay_folder {
            self.overlay.draw_results(frame, packet);
            self.overlay.write_png(&folder.join(format!("{:06}.png", frame.frame_id)))?;
        }
        Ok(())
    }
}

fn width_by_height([height, width]: [usize; 2]) -> String {
    format!("{width}x{height}")
}
