//! `ultramotion parity`: is this implementation the official one?

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use ultramotion_models::parity::{self, ParityOptions};

use crate::device::DeviceArgs;
use crate::output::{self, say};

/// Compare the networks with outputs of the official implementations
///
/// Runs each fixture's network and compares features, scores, boxes and masks.
/// Exit code 1 if anything differs by more than its tolerance.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Reference outputs (.safetensors)
    #[arg(required = true, value_name = "FIXTURE")]
    fixtures: Vec<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Fill the weights with another salt and compare with the float64 interpreter instead
    #[arg(long, value_name = "SALT")]
    salt: Option<String>,
    /// One JSON object a fixture
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let device = args.device.open()?;
    let options = ParityOptions { salt: args.salt };
    let mut pass = true;
    for fixture in &args.fixtures {
        let report = parity::check(fixture, &device, &options)?;
        if args.json {
            say!("{}", serde_json::to_string(&report)?)?;
        } else {
            output::answer(format_args!("{report}"))?;
        }
        pass &= report.pass;
    }
    Ok(if pass { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
