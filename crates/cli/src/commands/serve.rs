//! `ultramotion serve`: the live gateway.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use ultramotion::{Run, Settings};
use ultramotion_gateway::config::ConfigError;
use ultramotion_gateway::receive::LinkError;
use ultramotion_gateway::service::{BuildPipeline, Gateway, GatewayError, Perceive};
use ultramotion_pipeline::MAX_PROMPTS;

use crate::device::DeviceArgs;
use crate::interrupt;
use crate::output::{self, Lines, note};
use crate::settings::{PipelineArgs, Resolved};
use crate::usage::usage;

/// The live gateway: frames from a scanner in, tracked outlines to 3D Slicer and others out
///
/// The newest frame wins: one that comes while the pipeline is busy waits, and goes when a newer one comes. Every
/// frame is answered or counted as dropped, for a reason. A lost connection is made again, a stage that dies is
/// started again. A browser on this machine shows all of it, at http://127.0.0.1:8080. Each second a line of figures goes to
/// standard output, messages for people to standard error.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ultramotion serve                              a PlusServer here; results at localhost:18945
  ultramotion serve --connect plus.local:18944   a PlusServer elsewhere
  ultramotion serve --print-config > serve.toml  every setting, with its default and what it means
  ultramotion serve --config serve.toml
  ultramotion serve --page off                   without the live page
  ultramotion serve --record session             keeps frames, poses and results in session/
  ultramotion run session                        computes the same from them again
  ultramotion recover session                    completes it first, if the program was killed

3D Slicer: in OpenIGTLinkIF add a connector, as client, to localhost and port 18945. UM_Contours are
the outlines as a model, UM_Mask is an image with the identity of the structure at each pixel; poses
from the scanner are passed on under their own names.")]
pub(crate) struct Args {
    /// The scanner's server, instead of source.connect
    #[arg(long, value_name = "HOST:PORT")]
    connect: Option<String>,
    /// Where results are served, instead of output.listen
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// Where the live page is served, instead of page.listen
    #[arg(long, value_name = "ADDR:PORT|off")]
    page: Option<String>,
    /// Folder for a recording, instead of record.folder
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,
    /// Lines of all figures, as JSON objects
    #[arg(long)]
    json: bool,
    /// Print a configuration file with every setting explained, and end
    #[arg(long)]
    print_config: bool,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    pipeline: PipelineArgs,
}

/// How long a signal may go unheard.
const NAP: Duration = Duration::from_millis(20);

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    if args.print_config {
        output::answer(format_args!("{}", Settings::explained()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut resolved = args.pipeline.resolve()?;
    let settings = &mut resolved.settings;
    if let Some(address) = args.connect {
        (settings.source.connect, settings.source.listen) = (address, None);
    }
    settings.output.listen = args.listen.unwrap_or(settings.output.listen);
    settings.page.listen = args.page.unwrap_or_else(|| std::mem::take(&mut settings.page.listen));
    settings.record.folder = args.record.unwrap_or_else(|| std::mem::take(&mut settings.record.folder));
    settings.report.json |= args.json;
    settings.max_prompts.get_or_insert(MAX_PROMPTS);
    let config = settings.gateway();
    let max_program_bytes = usize::try_from(config.stream.max_program_mb << 20).unwrap_or(usize::MAX);
    let report = config.report.clone();
    config.validate().map_err(|error| in_file(error, &resolved))?;

    let stop = interrupt::listen();
    // What is wrong with models and device is said before anybody connects.
    let run = Run::new(args.device.choice()?);
    let mut first = Some(resolved.build_in(&run, run.open()?)?);
    let again = resolved.clone();
    let build: BuildPipeline = Box::new(move || {
        let mut pipeline = match first.take() {
            Some(pipeline) => pipeline,
            None => again.build_in(&run, run.open_again()?)?,
        };
        pipeline.compile_aside(max_program_bytes);
        Ok(Box::new(pipeline) as Box<dyn Perceive>)
    });
    let mut gateway = Gateway::start(config, build).map_err(|error| match error {
        GatewayError::Config(error) | GatewayError::Source(LinkError::Config(error)) => {
            in_file(error, &resolved)
        }
        other => other.into(),
    })?;
    note!("frames from {}", gateway.source_url());
    if let Some(address) = gateway.output_addr() {
        note!("results at igtl://{address}");
    }
    for address in gateway.page_addrs() {
        note!("page at http://{address}/, figures for Prometheus at http://{address}/metrics");
    }

    gateway.count_lost_words(output::lost());
    // Nobody may read them: then they are lost, and the service goes on.
    let lines = Lines::to(std::io::stdout());

    let every = Duration::try_from_secs_f64(report.every_s).ok().filter(|every| !every.is_zero());
    let mut due = every.map(|every| Instant::now() + every);
    while !stop.is_set() {
        thread::sleep(NAP);
        let Some((at, period)) = due.zip(every).filter(|(at, _)| *at <= Instant::now()) else { continue };
        let figures = gateway.report();
        lines.say(if report.json { figures.json() } else { figures.to_string() });
        due = Some((at + period).max(Instant::now()));
    }
    let complaints = gateway.complaints();
    let last = gateway.stop();
    if report.json {
        lines.say(last.json());
    } else {
        lines.say(last.to_string());
        lines.say(format!("stopped by a signal after {:.1} s", last.time_s));
        lines.say(last.summary());
        for (kind, count) in complaints {
            lines.say(format!("complaint    {kind}: {count}"));
        }
        lines.say("Research software, not a medical device.".into());
    }
    lines.finish()?;
    Ok(ExitCode::SUCCESS)
}

/// A wrong setting is the configuration's fault.
fn in_file(error: ConfigError, resolved: &Resolved) -> anyhow::Error {
    usage(resolved.with_file(error))
}
