//! `ultramotion audit`: does the data stay on the device?

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use ultramotion::SessionError;
use ultramotion::audit::audit;

use crate::device::DeviceArgs;
use crate::output::say;
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

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let resolved = args.pipeline.resolve()?;
    let report = audit(&resolved.settings, &args.device.choice()?, args.frames, args.cupti.as_deref())
        .map_err(|error| match error {
            SessionError::Build(error) => resolved.by_fault(error),
            error => error.into(),
        })?;
    if args.json {
        say!("{}", serde_json::to_string(&report)?)?;
    } else {
        say!("{report}")?;
    }
    Ok(if report.pass { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
