//! `ultramotion eval`: how good the models are on images with masks.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use indicatif::ProgressBar;
use ultramotion_engine::Device;
use ultramotion_media::sink::OverlayObject;
use ultramotion_media::source::{FrameSource, ImageFiles, NOMINAL_FRAMES_PER_SECOND};
use ultramotion_models::segmenter::{ObjectPrompt, PredictOptions, PredictorOptions, SamPredictor};
use ultramotion_pipeline::{DeviceChoice, Orchestrator, PipelineOptions, Run};
use ultramotion_types::boxes::BoxXyxy;
use ultramotion_types::{BitMask, Frame, MaskView};

use crate::device::DeviceArgs;
use crate::evaluation::average_precision::{FrameBoxes, IOU_50};
use crate::evaluation::boxes::greedy_match;
use crate::evaluation::classes::{MaskClasses, ObjectRule};
use crate::evaluation::detector_alone::{DetectorAlone, Found};
use crate::evaluation::gallery::{Gallery, true_colour};
use crate::evaluation::identities::{Identified, IdentityTally, TrackingFigures, TrueIdentities};
use crate::evaluation::mask_file::{self, MaskValue};
use crate::evaluation::pairs::{self, Pair, Pairs, Part};
use crate::evaluation::report::{FrameFigures, Report, SequenceReport};
use crate::evaluation::spacing::Spacing;
use crate::evaluation::tally::{ClassTally, overall};
use crate::evaluation::truth::{self, TrueObject};
use crate::settings::{PipelineArgs, Resolved};
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
    part: Part,
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

#[allow(clippy::print_stdout)] // the report is the output
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    if !(args.frame_rate.is_finite() && args.frame_rate > 0.0) {
        return Err(usage(format!("--frame-rate {} is not a number above 0", args.frame_rate)));
    }
    let written = args.classes.as_deref().map(str::parse::<MaskClasses>).transpose();
    let written = written.map_err(|reason| usage(format!("--classes: {reason}")))?;
    let spacing = args.spacing_mm.as_deref().map(Spacing::parse).transpose().map_err(usage)?;
    let mut settings = args.pipeline.resolve()?;
    settings.settings.tracker.independent = !args.sequence;
    let mut found = pairs::find(&args.images, &args.masks)?;
    if let Some(split) = &args.split {
        found = pairs::choose(found, split, args.part, &args.images)?;
    }
    let (classes, rule) = match written {
        Some(classes) if args.one_per_class => (classes, ObjectRule::OnePerClass),
        Some(classes) => (classes, ObjectRule::Components),
        None => {
            let (classes, rule) = guess_classes(&found.pairs)?;
            (classes, if args.one_per_class { ObjectRule::OnePerClass } else { rule })
        }
    };
    let gallery = args.overlays.as_deref().map(Gallery::create).transpose()?;
    let mut evaluation =
        Evaluation::new(&args, settings, classes.clone(), rule, spacing.unwrap_or_default(), gallery)?;
    let bar = super::run::progress_bar(Some(found.pairs.len() as u64));
    evaluation.all(&found.pairs, args.sequence, &bar)?;
    bar.finish_and_clear();
    let report = evaluation.report(&args, &found);
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{report}");
        if let Some(folder) = &args.overlays {
            let colours: Vec<String> = classes
                .names()
                .into_iter()
                .enumerate()
                .map(|(class, name)| format!("{} is a true {name}", true_colour(class).0))
                .collect();
            println!(
                "overlays     {}, worst first; {}, white is found",
                folder.display(),
                colours.join(", ")
            );
        }
        println!("Research software, not a medical device.");
    }
    Ok(ExitCode::SUCCESS)
}

/// The convention of the masks, by the values that occur in any of them.
fn guess_classes(pairs: &[Pair]) -> Result<(MaskClasses, ObjectRule)> {
    let mut values = BTreeSet::new();
    for pair in pairs {
        let frame = read_image(pair)?;
        let mask = mask_file::read(&pair.mask, [frame.width, frame.height], false)?;
        values.extend(mask.values);
    }
    values.remove(&MaskValue::BACKGROUND);
    MaskClasses::guess(&values).ok_or_else(|| {
        let few: Vec<String> = values.iter().take(8).map(MaskValue::to_string).collect();
        let held = if few.is_empty() {
            "nothing but background".into()
        } else {
            format!("the values {}", few.join(", "))
        };
        usage(format!(
            "the masks hold {held}, which is no convention that is known; name the classes with --classes"
        ))
    })
}

fn read_image(pair: &Pair) -> Result<Frame> {
    let mut frame = Frame::default();
    let read = ImageFiles::open_file(&pair.image)?.read_into(&mut frame);
    read.ok_or_else(|| anyhow!("{} holds no frame", pair.image.display()))??;
    Ok(frame)
}

/// What a run found in a frame, copied out of its packet.
struct RunObject {
    label: String,
    score: f32,
    track_id: i32,
    box_xyxy: [f32; 4],
    mask: BitMask,
}

/// Labels that an error lists.
const FEW_LABELS: usize = 8;

/// An evaluation in progress.
struct Evaluation {
    choice: DeviceChoice,
    device: Device,
    settings: Resolved,
    classes: MaskClasses,
    rule: ObjectRule,
    spacing: Spacing,
    frame_rate: f64,
    gallery: Option<Gallery>,
    /// The class of the detector for each class of the masks.
    detector_classes: Vec<usize>,
    pipeline: Orchestrator,
    detector_alone: DetectorAlone,
    segmenter_alone: SamPredictor,
    tallies: Vec<ClassTally>,
    frames_with_objects: usize,
    frames_without_answer: usize,
    identities: TrueIdentities,
    tracking: IdentityTally,
    clip_tracking: IdentityTally,
    by_clip: BTreeMap<String, TrackingFigures>,
    by_frame: Vec<FrameFigures>,
}

impl Evaluation {
    fn new(
        args: &Args,
        settings: Resolved,
        classes: MaskClasses,
        rule: ObjectRule,
        spacing: Spacing,
        gallery: Option<Gallery>,
    ) -> Result<Self> {
        let choice = args.device.choice()?;
        let device = choice.open()?;
        let pipeline = settings.build_in(&Run::new(choice.clone()), device.clone())?;
        let labels = pipeline.detector().labels();
        let detector_class = |name: &str| {
            labels.iter().position(|label| label == name).ok_or_else(|| {
                let few = labels.iter().take(FEW_LABELS).map(String::as_str).collect::<Vec<_>>().join(", ");
                let more = labels.len().saturating_sub(FEW_LABELS);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                usage(format!(
                    "the masks have the class '{name}', which the detector {} does not know; it knows {few}{more}",
                    pipeline.detector().origin()
                ))
            })
        };
        let detector_classes: Vec<usize> =
            classes.names().into_iter().map(detector_class).collect::<Result<_>>()?;
        let overlap = settings.settings.max_overlap_iou;
        let detector_alone = DetectorAlone::new(device.clone(), pipeline.detector().clone(), overlap);
        let segmenter = pipeline.segmenter().clone();
        let segmenter_alone = SamPredictor::new(&device, segmenter, PredictorOptions::default())?;
        Ok(Evaluation {
            choice,
            device,
            settings,
            rule,
            spacing,
            frame_rate: args.frame_rate,
            gallery,
            tallies: vec![ClassTally::default(); classes.names().len()],
            classes,
            detector_classes,
            pipeline,
            detector_alone,
            segmenter_alone,
            frames_with_objects: 0,
            frames_without_answer: 0,
            identities: TrueIdentities::default(),
            tracking: IdentityTally::default(),
            clip_tracking: IdentityTally::default(),
            by_clip: BTreeMap::new(),
            by_frame: Vec::new(),
        })
    }

    /// Evaluates all frames in their order.
    fn all(&mut self, pairs: &[Pair], sequence: bool, bar: &ProgressBar) -> Result<()> {
        let mut clip = pairs.first().map(Pair::clip).unwrap_or_default();
        for (index, pair) in pairs.iter().enumerate() {
            if sequence && pair.clip() != clip {
                self.end_clip(clip);
                clip = pair.clip();
                // A new pipeline in a new run has seen nothing yet.
                let run = Run::new(self.choice.clone());
                self.pipeline = self.settings.build_in(&run, self.device.clone())?;
            }
            let mut frame = read_image(pair)?;
            frame.frame_id = index as u64;
            frame.timestamp_s = index as f64 / self.frame_rate;
            self.frame(pair, &frame, sequence).with_context(|| pair.image.display().to_string())?;
            bar.inc(1);
        }
        if sequence {
            self.end_clip(clip);
        }
        Ok(())
    }

    fn end_clip(&mut self, clip: &str) {
        self.by_clip.insert(clip.to_owned(), std::mem::take(&mut self.clip_tracking).figures());
        self.tracking.end_sequence();
        self.identities.end_sequence();
    }

    fn frame(&mut self, pair: &Pair, frame: &Frame, sequence: bool) -> Result<()> {
        let mask = mask_file::read(&pair.mask, [frame.width, frame.height], self.classes.by_colour())?;
        let truth = truth::objects(&mask, &self.classes, self.rule).map_err(|value| {
            anyhow!(
                "the mask {} has the value {value}, which is none of {}; name its class with --classes",
                pair.mask.display(),
                self.classes
            )
        })?;
        let spacing_mm = self.spacing.of(&pair.name);
        self.tally_detector(frame, &truth)?;
        self.tally_true_boxes(frame, &truth, spacing_mm)?;
        let found = self.run_frame(frame)?;
        if sequence {
            self.tally_identities(&truth, &found);
        }
        self.tally_run(pair, frame, &truth, &found, spacing_mm)
    }

    /// Everything that the detector sees, for average precision.
    fn tally_detector(&mut self, frame: &Frame, truth: &[TrueObject]) -> Result<()> {
        let answers = self.detector_alone.detect(frame)?;
        for (class, tally) in self.tallies.iter_mut().enumerate() {
            let of_class = |found: &[Found]| FrameBoxes {
                truth: truth
                    .iter()
                    .filter(|object| object.class == class)
                    .map(|object| object.box_xyxy)
                    .collect(),
                found: found
                    .iter()
                    .filter(|found| found.class == self.detector_classes[class])
                    .map(|found| (found.score, found.box_xyxy))
                    .collect(),
            };
            tally.all.push(of_class(&answers.all));
            tally.by_pipeline_rules.push(of_class(&answers.by_pipeline_rules));
        }
        Ok(())
    }

    /// Outlines that the segmenter gives for true boxes.
    fn tally_true_boxes(
        &mut self,
        frame: &Frame,
        truth: &[TrueObject],
        spacing_mm: Option<[f64; 2]>,
    ) -> Result<()> {
        if truth.is_empty() {
            return Ok(());
        }
        let (width, height) = (frame.width, frame.height);
        self.segmenter_alone.set_image(&frame.pixels, width, height, frame.pixel_format.channels())?;
        // As many at once as a call may have.
        for objects in truth.chunks(PredictorOptions::default().max_objects) {
            let prompts: Vec<ObjectPrompt<'_>> = objects
                .iter()
                .map(|object| ObjectPrompt::from_box(object.box_xyxy.map(|v| v as f32)))
                .collect();
            let masks = self.segmenter_alone.predict(&prompts, PredictOptions::default())?;
            for (i, object) in objects.iter().enumerate() {
                let own = MaskView::new(width, height, masks.get(i, 0).bits)
                    .context("a mask of the segmenter has not the frame's size")?;
                self.tallies[object.class].true_boxes.add(object.mask.view(), own, spacing_mm);
            }
        }
        Ok(())
    }

    /// The run itself.
    fn run_frame(&mut self, frame: &Frame) -> Result<Vec<RunObject>> {
        let packet = self.pipeline.process(&frame.view())?;
        let objects = packet.objects.iter().enumerate().map(|(i, object)| RunObject {
            label: packet.label(object.class).to_owned(),
            score: object.score,
            track_id: object.track_id,
            box_xyxy: object.box_xyxy,
            mask: packet.mask(i).map(MaskView::to_owned).unwrap_or_default(),
        });
        Ok(objects.collect())
    }

    fn tally_run(
        &mut self,
        pair: &Pair,
        frame: &Frame,
        truth: &[TrueObject],
        found: &[RunObject],
        spacing_mm: Option<[f64; 2]>,
    ) -> Result<()> {
        let names: Vec<String> = self.classes.names().into_iter().map(str::to_owned).collect();
        let (mut dice, mut detections) = (Vec::new(), 0);
        for (class, tally) in self.tallies.iter_mut().enumerate() {
            let truth: Vec<&TrueObject> = truth.iter().filter(|object| object.class == class).collect();
            // Best first, as packets have them.
            let found: Vec<&RunObject> = found.iter().filter(|object| object.label == names[class]).collect();
            let true_boxes: Vec<BoxXyxy> = truth.iter().map(|object| object.box_xyxy).collect();
            let found_boxes: Vec<BoxXyxy> =
                found.iter().map(|object| object.box_xyxy.map(f64::from)).collect();
            tally.objects += truth.len();
            tally.detections += found.len();
            tally.frames += usize::from(!truth.is_empty());
            tally.frames_without_answer += usize::from(!truth.is_empty() && found.is_empty());
            detections += found.len();
            for (own, index) in found.iter().zip(greedy_match(&true_boxes, &found_boxes, IOU_50)) {
                let Some(object) = index.map(|index| truth[index]) else { continue };
                tally.right += 1;
                dice.push(tally.end_to_end.add(object.mask.view(), own.mask.view(), spacing_mm));
            }
        }
        if !truth.is_empty() {
            self.frames_with_objects += 1;
            self.frames_without_answer += usize::from(detections == 0);
        }
        let figures = FrameFigures::new(&pair.name, &dice, truth.len(), detections);
        if let Some(gallery) = &mut self.gallery {
            let drawn: Vec<OverlayObject<'_>> = found
                .iter()
                .map(|object| OverlayObject {
                    track_id: None,
                    confirmed: true,
                    label: &object.label,
                    score: object.score,
                    box_xyxy: object.box_xyxy,
                    mask: Some(object.mask.view()),
                })
                .collect();
            gallery.add(&pair.name, figures.quality, frame, &drawn, truth)?;
        }
        self.by_frame.push(figures);
        Ok(())
    }

    fn tally_identities(&mut self, truth: &[TrueObject], found: &[RunObject]) {
        let ids = self.identities.identify(truth, self.rule == ObjectRule::OnePerClass);
        let truth: Vec<Identified> = truth
            .iter()
            .zip(ids)
            .map(|(object, id)| Identified { id, class: object.class, box_xyxy: object.box_xyxy })
            .collect();
        let found: Vec<Identified> = found
            .iter()
            .filter_map(|object| {
                Some(Identified {
                    id: u64::try_from(object.track_id).ok()?,
                    // What the masks do not know is neither right nor wrong.
                    class: self.classes.names().iter().position(|name| *name == object.label)?,
                    box_xyxy: object.box_xyxy.map(f64::from),
                })
            })
            .collect();
        self.tracking.add(&truth, &found);
        self.clip_tracking.add(&truth, &found);
    }

    fn report(mut self, args: &Args, pairs: &Pairs) -> Report {
        self.by_frame.sort_by(|a, b| a.quality.total_cmp(&b.quality));
        let all = overall(&self.tallies, self.frames_with_objects, self.frames_without_answer);
        let PipelineOptions { score_threshold, max_objects, max_overlap_iou, .. } =
            self.settings.settings.pipeline_options();
        let (detector, segmenter) = (self.pipeline.detector(), self.pipeline.segmenter());
        let [height, width] = detector.network().input_hw();
        let side = segmenter.network().input_hw()[0];
        let show = |path: &Path| path.display().to_string();
        Report {
            images: show(&args.images),
            masks: show(&args.masks),
            frames: pairs.pairs.len(),
            images_without_mask: pairs.without_mask,
            part: args.split.as_deref().map(|split| format!("{} of {}", args.part, split.display())),
            mask_classes: self.classes.to_string(),
            one_per_class: self.rule == ObjectRule::OnePerClass,
            detector: format!("{} {width}x{height}", detector.origin()),
            segmenter: format!("{} {side}x{side}", segmenter.origin()),
            device: self.device.name(),
            threads: self.device.threads(),
            precision: self.device.precision(),
            score_threshold,
            max_objects,
            max_overlap_iou,
            by_class: self
                .classes
                .names()
                .into_iter()
                .map(str::to_owned)
                .zip(self.tallies.iter().map(ClassTally::figures))
                .collect(),
            overall: all,
            sequence: args.sequence.then(|| SequenceReport {
                frames_per_second: self.frame_rate,
                all: self.tracking.figures(),
                by_clip: self.by_clip,
            }),
            by_frame: self.by_frame,
        }
    }
}
