//! `ultramotion eval`: how good the models are on images with masks.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;
use ultramotion_evaluation::{
    Evaluation, EvaluationError, EvaluationOptions, Gallery, MaskClasses, ObjectRule, Pairs, Part, Spacing,
    guess_classes,
};
use ultramotion_media::source::NOMINAL_FRAMES_PER_SECOND;

use crate::device::DeviceArgs;
use crate::output::{self, say};
use crate::settings::PipelineArgs;
use crate::usage::usage;

/// What `--help` says below the options.
const HELP: &str = "\
Masks:
  A mask is a PNG with the name and size of its image. 0 is background; every other value (grey value, palette index
  or colour) is a class. Values 1 and 2 are taken as nerve and vessel, each connected component an object; a single
  value as one vessel a frame. --classes says otherwise.

Figures:
  AP is COCO's, over everything that the detector sees. All else is of the run as it would be: its threshold, boxes and
  outlines. An object is found when a box of its class overlaps its own by half or more.

Examples:
  ultramotion eval --images usgra/images --masks usgra/masks
  ultramotion eval --images carotid/images --masks carotid/masks --sequence
  ultramotion eval --images usgra/images --masks usgra/masks --overlays worst-first --json";

/// Measure the models on images with masks: AP, Dice, outline distances, identities
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Folder of images (.png, .jpg, .jpeg)
    #[arg(long, value_name = "DIR")]
    images: PathBuf,
    /// Folder of masks (.png), each with the name and the size of its image
    #[arg(long, value_name = "DIR")]
    masks: PathBuf,
    /// Meaning of the masks' values, as in nerve=1,vessel=2 or vessel=#ff0000 [default: by the values that occur]
    #[arg(long, value_name = "NAME=VALUE,…")]
    classes: Option<String>,
    /// All pixels of a class are one object, rather than each connected component [default for masks of one value,
    /// unless --classes is given]
    #[arg(long)]
    one_per_class: bool,
    /// Evaluate only a part: a JSON file with sets that each list "held_out" names or clips, as training/splits.json
    #[arg(long, value_name = "FILE")]
    split: Option<PathBuf>,
    /// Which part of --split
    #[arg(long, value_name = "PART", default_value = "held_out", requires = "split")]
    part: PartName,
    /// Size of a pixel in mm (X, or WIDTH,HEIGHT), or a CSV file with lines such as name,0.1: distances in mm too
    #[arg(long, value_name = "X|FILE")]
    spacing_mm: Option<String>,
    /// Images are frames of a sequence in the order of their names (of several, if they are named CLIP_NUMBER): track
    /// them, and count identity switches
    #[arg(long, conflicts_with = "independent")]
    sequence: bool,
    /// Frames a second of a sequence
    #[arg(long, value_name = "HZ", default_value_t = NOMINAL_FRAMES_PER_SECOND, requires = "sequence")]
    frame_rate: f64,
    /// New folder for a picture of each frame with true (coloured) and found (white) outlines; by name, the worst come first
    #[arg(long, value_name = "DIR")]
    overlays: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    pipeline: PipelineArgs,
}

/// `--part`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum PartName {
    /// Names that the file lists
    HeldOut,
    /// All others
    Train,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    if !(args.frame_rate.is_finite() && args.frame_rate > 0.0) {
        return Err(usage(format!("--frame-rate {} is not a number above 0", args.frame_rate)));
    }
    let written = args.classes.as_deref().map(str::parse::<MaskClasses>).transpose().map_err(by_fault)?;
    let spacing = args.spacing_mm.as_deref().map(Spacing::parse).transpose().map_err(by_fault)?;
    let resolved = args.pipeline.resolve()?;
    let mut pairs = Pairs::find(&args.images, &args.masks)?;
    if let Some(spacing) = &spacing {
        spacing.check(&pairs).map_err(by_fault)?;
    }
    if let Some(split) = &args.split {
        let part = match args.part {
            PartName::HeldOut => Part::HeldOut,
            PartName::Train => Part::Train,
        };
        pairs = pairs.choose(split, part)?;
    }
    let (classes, rule) = match written {
        Some(classes) => (classes, ObjectRule::Components),
        None => guess_classes(&pairs).map_err(by_fault)?,
    };
    let gallery = args.overlays.as_deref().map(Gallery::create).transpose().map_err(by_fault)?;
    let legend = gallery.as_ref().map(|gallery| gallery.legend(&classes));
    let options = EvaluationOptions {
        classes,
        rule: if args.one_per_class { ObjectRule::OnePerClass } else { rule },
        spacing: spacing.unwrap_or_default(),
        sequence: args.sequence,
        frame_rate: args.frame_rate,
        gallery,
    };
    let settings = resolved.settings.clone();
    let mut evaluation =
        Evaluation::new(settings, args.device.choice()?, options).map_err(|error| match error {
            EvaluationError::Build(error) => resolved.by_fault(error),
            other => by_fault(other),
        })?;
    let bar = super::run::progress_bar(Some(pairs.len() as u64));
    evaluation.run(&pairs, &mut || bar.inc(1)).map_err(by_fault)?;
    bar.finish_and_clear();
    let report = evaluation.report(&pairs);
    if args.json {
        say!("{}", serde_json::to_string(&report)?)?;
    } else {
        output::answer(format_args!("{report}"))?;
        if let Some(legend) = legend {
            say!("overlays     {legend}")?;
        }
        say!("Research software, not a medical device.")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn by_fault(error: EvaluationError) -> anyhow::Error {
    if error.is_in_request() { usage(error) } else { error.into() }
}
