//! `ultramotion models`: what there is, what is in a file, from one format to another.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use ultramotion_models::checkpoint::{self, Checkpoint, StoredPrecision};
use ultramotion_models::zoo::{ARCHITECTURES, Architecture, BUILTIN, Detector, Kind, Segmenter};

use crate::output::{OutputError, say};
use crate::settings::by_fault;
use crate::usage::{report, usage};

/// List, inspect, convert and verify models
///
/// Checkpoints are official .pth/.pt files of D-FINE and MobileSAM, Hugging Face .safetensors of D-FINE, and this
/// program's own .safetensors. Reading one runs no code.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The models known by name
    List,
    /// What is in a checkpoint
    Inspect {
        /// Checkpoint
        file: PathBuf,
        /// Also list every tensor
        #[arg(long)]
        tensors: bool,
    },
    /// Write a checkpoint as this program's own .safetensors
    Convert {
        /// Checkpoint of any known format
        from: PathBuf,
        /// New file
        to: PathBuf,
        /// Store f32 instead of f16
        #[arg(long)]
        f32: bool,
        /// Class names in order, with commas
        #[arg(long, value_name = "A,B")]
        classes: Option<String>,
        /// Side of the input in pixels
        #[arg(long, value_name = "SIZE")]
        input: Option<usize>,
        /// Licence of the weights
        #[arg(long, value_name = "TEXT")]
        license: Option<String>,
    },
    /// Check that a checkpoint has every tensor of its network, in shape and finite
    Verify {
        /// Checkpoints, or names
        #[arg(required = true, value_name = "NAME|PATH")]
        models: Vec<String>,
    },
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    match args.command {
        Command::List => list()?,
        Command::Inspect { file, tensors } => inspect(&file, tensors)?,
        Command::Convert { from, to, f32, classes, input, license } => {
            let mut checkpoint = checkpoint::load(&from)?;
            if let Some(classes) = classes {
                checkpoint.classes = Some(classes.split(',').map(|c| c.trim().to_owned()).collect());
            }
            if let Some(side) = input {
                checkpoint.input_size = Some([side, side]);
            }
            checkpoint.license = license.or(checkpoint.license);
            check_input(&checkpoint)?;
            let precision = if f32 { StoredPrecision::F32 } else { StoredPrecision::F16 };
            let written = checkpoint::save(&to, &checkpoint, precision)?;
            let kept = match written.kept_f32.len() {
                0 => String::new(),
                n => format!("; {n} tensors stay f32, as f16 would lose digits"),
            };
            say!("{}: {:.1} MB{kept}", to.display(), written.bytes as f64 / 1e6)?;
        }
        Command::Verify { models } => {
            let mut worst = ExitCode::SUCCESS;
            for model in models {
                match verify(&model) {
                    Ok(verdict) => say!("{model}: {verdict}")?,
                    // Each model gets its verdict.
                    Err(error) => worst = report(&error),
                }
            }
            return Ok(worst);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A file that could not be opened as a model again is not written.
fn check_input(checkpoint: &Checkpoint) -> Result<()> {
    match (checkpoint.architecture, checkpoint.input_size) {
        (Some(architecture), Some(_)) => architecture.network(checkpoint.sizes()).map(drop).map_err(usage),
        _ => Ok(()),
    }
}

fn list() -> Result<(), OutputError> {
    for builtin in BUILTIN {
        let about = builtin.card.lines().find(|l| !l.trim().is_empty() && !l.starts_with('#')).unwrap_or("");
        say!(
            "{:<16} {:<10} {:>5.1} MB  {}",
            builtin.name,
            builtin.kind,
            builtin.bytes.len() as f64 / 1e6,
            about
        )?;
    }
    if BUILTIN.is_empty() {
        say!("no models are built in (the feature builtin-weights is off)")?;
    }
    for architecture in ARCHITECTURES {
        let (name, kind) = (architecture.name(), architecture.kind());
        say!("{name:<16} {kind:<10}           untrained, for benchmarks")?;
    }
    Ok(())
}

fn inspect(file: &std::path::Path, tensors: bool) -> Result<()> {
    let checkpoint = checkpoint::load(file)?;
    say!("file          {}", file.display())?;
    say!("format        {}", checkpoint.format)?;
    say!("architecture  {}", checkpoint.architecture.map_or("unknown".into(), |a| a.to_string()))?;
    match (&checkpoint.classes, checkpoint.num_classes()) {
        (Some(names), _) => say!("classes       {}", names.join(", "))?,
        (None, Some(n)) => say!("classes       {n}, without names")?,
        (None, None) => {}
    }
    if let Some([h, w]) = checkpoint.input_size {
        say!("input         {w}x{h}")?;
    }
    if let Some(license) = &checkpoint.license {
        say!("licence       {license}")?;
    }
    say!("tensors       {}", checkpoint.weights.len())?;
    say!("parameters    {:.2} million", checkpoint.weights.parameter_count() as f64 / 1e6)?;
    for (key, value) in &checkpoint.metadata {
        say!("{key:<13} {value}")?;
    }
    if tensors {
        for (name, tensor) in checkpoint.weights.iter() {
            say!("  {name} {} {:?}", tensor.dtype(), tensor.shape())?;
        }
    }
    Ok(())
}

fn verify(model: &str) -> Result<String> {
    // A name says itself what it is; a file is asked.
    let kind = match std::path::Path::new(model) {
        path if path.is_file() => checkpoint::load(path)?.architecture.map(|a| a.kind()),
        _ => {
            let builtin = BUILTIN.iter().find(|b| b.name == model).map(|b| b.kind);
            builtin.or_else(|| model.parse::<Architecture>().ok().map(|a| a.kind()))
        }
    };
    if kind == Some(Kind::Segmenter) {
        let segmenter = Segmenter::open(model).map_err(by_fault)?;
        let [h, w] = segmenter.network().input_hw();
        return Ok(format!("{} for {w}x{h}, complete", segmenter.architecture().family()));
    }
    let detector = Detector::open(model).map_err(by_fault)?;
    let [h, w] = detector.network().input_hw();
    let labels = detector.labels();
    if labels.is_empty() {
        return Err(usage("a detector without classes"));
    }
    Ok(format!("{} for {w}x{h}, classes {}, complete", detector.architecture(), labels.join(", ")))
}
