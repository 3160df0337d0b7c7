//! `ultramotion simulate`: a scanner that speaks OpenIGTLink.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use ultramotion::source::open_recorded;
use ultramotion_igtlink::HeaderVersion;
use ultramotion_scanner::{
    Cuts, MessageCounts, Mischief, Pace, PoseMessages, Progress, SimulateError, Simulator, SimulatorConfig,
    Summary, Timestamps,
};

use crate::interrupt;
use crate::output::{self, Lines};
use crate::usage::{source_error, usage};

/// Serve simulated ultrasound or a recording over OpenIGTLink, as a scanner would
///
/// To whoever connects it sends, for each frame, an IMAGE with its place in space and the tracked poses as TRANSFORMs,
/// without being asked. Poses are the recording's or the phantom's; what a source lacks is made up: an image right under
/// the probe (ImageToProbe), a probe that sweeps 20 mm to and fro in 8 s (ProbeToTracker), a marker that does not move
/// (ReferenceToTracker). Frames go on whether anyone listens or not; what a slow client cannot take is skipped for it.
///
/// At the end it says what it sent and what it spoiled, message by message, so that a receiver's books can be checked:
/// offered = sent + bad CRC + halved + skipped + lost.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ultramotion simulate                            the phantom, 25 frames a second
  ultramotion simulate recording.igs.mha --loop   a tracked recording, over and over
  ultramotion simulate --rate 60 --bad-crc 0.01 --half-message 0.001 --disconnect 20s
                                                  a scanner on a bad line
  ultramotion run igtl://127.0.0.1:18944          what may listen to it, in another window

The same --seed spoils the same frames in the same way, whoever is connected. With
ULTRAMOTION_LOG=info key figures go to the log each second.")]
pub(crate) struct Args {
    /// phantom[:SEED], a .mha/.mhd/.igs.mha sequence, an image, or a folder of images
    #[arg(default_value = "phantom")]
    source: String,
    /// Where clients connect; other machines reach 0.0.0.0:18944
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:18944")]
    listen: SocketAddr,
    /// Frames a second, or real: as far apart as their times in the source
    #[arg(long, value_name = "HZ|real", default_value = "real", value_parser = parse_pace)]
    rate: Pace,
    /// Begin again when the source ends; the phantom never does
    #[arg(long = "loop")]
    repeat: bool,
    /// Stop after N frames
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    frames: Option<u64>,
    /// Begin once N clients are connected
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = parse_clients)]
    wait_clients: usize,
    /// The IMAGE's name; its matrix is the transform between the two systems in it, where poses connect them
    #[arg(long, value_name = "FROM_TO", default_value = "Image_Reference")]
    image_device: String,
    /// How poses are sent
    #[arg(long, value_name = "AS", default_value = "transform")]
    poses: Poses,
    /// Header version: 1 for programs of before 2017, without metadata
    #[arg(long, value_name = "1|2", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2))]
    header_version: u8,
    /// Times in the messages: clock, when the frame was due, as PlusServer does; or source, its own
    #[arg(long, value_name = "OF", default_value = "clock")]
    timestamps: Times,
    /// The summary as JSON, after a line {"event":"listening",...}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    mischief: MischiefArgs,
}

/// What goes wrong.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What goes wrong on purpose")]
struct MischiefArgs {
    /// Decides what goes wrong when
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Send frames up to MS late, evenly spread; their timestamps are not
    #[arg(long, value_name = "MS", default_value_t = 0.0)]
    jitter: f64,
    /// Leave out this share of frames, 0 to 1
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    drop: f64,
    /// Turn a bit in this share of messages, after the checksum was made
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    bad_crc: f64,
    /// End all connections after this share of frames, or each time that so many seconds have passed: 0.01, 20s
    #[arg(long, value_name = "P|Ss", value_parser = parse_cuts)]
    disconnect: Option<Cuts>,
    /// Send only a part of this share of messages, then end the connection
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    half_message: f64,
}

/// `--poses`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Poses {
    /// A TRANSFORM for each
    Transform,
    /// One TDATA for all
    Tdata,
    /// Not at all; the IMAGE keeps its matrix
    None,
}

/// `--timestamps`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Times {
    /// The system clock's, when the frame was due
    Clock,
    /// The source's own
    Source,
}

fn parse_pace(text: &str) -> Result<Pace, String> {
    if text == "real" {
        return Ok(Pace::Source);
    }
    text.parse().map(Pace::Hertz).map_err(|_| "give a number of frames a second, or real".into())
}

fn parse_clients(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|clients| *clients <= 16).ok_or_else(|| "give 0 to 16".into())
}

fn parse_cuts(text: &str) -> Result<Cuts, String> {
    let wrong = || "give a share of frames, as 0.01, or seconds, as 20s".to_owned();
    match text.strip_suffix('s') {
        Some(seconds) => {
            let interval = seconds.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
            interval.map(Cuts::Every).ok_or_else(wrong)
        }
        None => text.parse().map(Cuts::Share).map_err(|_| wrong()),
    }
}

impl Args {
    fn config(&self) -> SimulatorConfig {
        let mischief = &self.mischief;
        SimulatorConfig {
            listen: self.listen,
            header_version: if self.header_version == 1 { HeaderVersion::V1 } else { HeaderVersion::V2 },
            image_device: self.image_device.clone(),
            poses: match self.poses {
                Poses::Transform => PoseMessages::Transform,
                Poses::Tdata => PoseMessages::TrackingData,
                Poses::None => PoseMessages::None,
            },
            pace: self.rate,
            timestamps: match self.timestamps {
                Times::Clock => Timestamps::Clock,
                Times::Source => Timestamps::Source,
            },
            repeat: self.repeat,
            frames: self.frames,
            wait_clients: self.wait_clients,
            mischief: Mischief {
                seed: mischief.seed,
                jitter_ms: mischief.jitter,
                drop: mischief.drop,
                bad_crc: mischief.bad_crc,
                half_message: mischief.half_message,
                cuts: mischief.disconnect,
            },
            ..SimulatorConfig::default()
        }
    }
}

/// A line of `--json`.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line<'a> {
    Listening {
        listen: String,
        source: &'a str,
    },
    Summary {
        interrupted: bool,
        #[serde(flatten)]
        summary: &'a Summary,
    },
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let mut source = open_recorded(&args.source).map_err(source_error)?;
    let simulator = Simulator::start(args.config()).map_err(|error| match error {
        SimulateError::Setting { .. } => usage(error),
        other => other.into(),
    })?;
    let interrupt = interrupt::listen();
    let address = simulator.local_addr();
    if !address.ip().is_loopback() {
        tracing::warn!("{address} can be reached from other machines, and OpenIGTLink has no encryption");
    }
    let listening = Line::Listening { listen: address.to_string(), source: &args.source };
    // A scanner goes on where nobody reads what it says.
    let lines = Lines::to(std::io::stdout());
    lines.say(if args.json {
        serde_json::to_string(&listening)?
    } else {
        format!("listening    {address}; Ctrl-C ends it")
    });
    let bar = progress_bar(args.frames);
    let mut bad_frames = 0u64;
    let summary =
        simulator.play(source.as_mut(), &|| interrupt.is_set(), &mut |progress| match progress {
            Progress::Frame { made, clients } => {
                bar.set_position(made);
                bar.set_message(format!("{clients} clients"));
            }
            Progress::Unreadable(problem) => {
                bad_frames += 1;
                // A broken file that is played over and over is reported once.
                if bad_frames <= MAX_REPORTED {
                    output::tell_above(&bar, format!("skipped: {problem}"));
                }
            }
        })?;
    bar.finish_and_clear();
    let interrupted = interrupt.is_set();
    if args.json {
        lines.say(serde_json::to_string(&Line::Summary { interrupted, summary: &summary })?);
    } else {
        tell_summary(&lines, &summary, interrupted);
    }
    lines.finish()?;
    if summary.frames.made == 0 && !interrupted {
        bail!("no frame of '{}' could be sent", args.source);
    }
    Ok(ExitCode::SUCCESS)
}

/// Bad frames that are reported one by one; all are counted.
const MAX_REPORTED: u64 = 10;

fn progress_bar(total: Option<u64>) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(total, target);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {pos} frames  {per_sec}  {msg}") {
        bar.set_style(style);
    }
    bar
}

fn tell_summary(lines: &Lines, summary: &Summary, interrupted: bool) {
    if interrupted {
        lines.say("stopped by a signal".into());
    }
    let frames = &summary.frames;
    lines.say(format!("source       {}", summary.source));
    lines.say(format!(
        "frames       {} in {:.1} s: {} left out, {} with nobody listening; {} late, {} unreadable",
        frames.made, summary.seconds, frames.dropped, frames.unheard, frames.late, frames.unreadable
    ));
    lines.say(format!(
        "             {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "offered", "sent", "bad CRC", "halved", "skipped", "lost"
    ));
    for (name, counts) in [("images", &summary.images), ("poses", &summary.poses)] {
        let MessageCounts { offered, sent, bad_crc, halved, skipped, lost } = counts;
        lines.say(format!(
            "{name:<12} {offered:>9} {sent:>9} {bad_crc:>9} {halved:>9} {skipped:>9} {lost:>9}"
        ));
    }
    let connections = &summary.connections;
    lines.say(format!(
        "connections  {} taken: {} cut, {} cut inside a message, {} left, {} stalled",
        connections.accepted, connections.cut, connections.halved, connections.left, connections.stalled
    ));
    let back = &connections.reconnects;
    if back.count > 0 {
        lines.say(format!(
            "reconnects   {}, after {:.0} ms on average, {:.0} ms at most",
            back.count, back.mean_ms, back.max_ms
        ));
    }
    lines.say(format!(
        "heard        {} messages, {} rejected",
        summary.heard.messages, summary.heard.rejected
    ));
}
