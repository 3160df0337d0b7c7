//! Frame after frame: what the detector sees without a threshold, what the segmenter draws in true boxes, and what a run
//! gives, each against the masks.

use std::collections::{BTreeMap, BTreeSet};

use ultramotion::{Device, Orchestrator, Settings};
use ultramotion_media::sink::OverlayObject;
use ultramotion_media::source::{FrameSource, ImageFiles, NOMINAL_FRAMES_PER_SECOND};
use ultramotion_models::segmenter::{ObjectPrompt, PredictOptions, PredictorOptions, SamPredictor};
use ultramotion_pipeline::{DeviceChoice, Run};
use ultramotion_types::boxes::BoxXyxy;
use ultramotion_types::{BitMask, Frame, MaskView};

use crate::average_precision::{FrameBoxes, IOU_50};
use crate::boxes::greedy_match;
use crate::classes::{MaskClasses, ObjectRule};
use crate::detector_alone::{DetectorAlone, Found};
use crate::error::EvaluationError;
use crate::gallery::Gallery;
use crate::identities::{Identified, IdentityTally, TrackingFigures, TrueIdentities};
use crate::mask_file::{self, MaskValue};
use crate::pairs::{Pair, Pairs};
use crate::report::{FrameFigures, Report, SequenceReport};
use crate::spacing::Spacing;
use crate::tally::{ClassTally, overall};
use crate::truth::{self, TrueObject};

/// How an evaluation is made.
pub struct EvaluationOptions {
    /// What the masks' values mean.
    pub classes: MaskClasses,
    /// How the pixels of a class become objects.
    pub rule: ObjectRule,
    /// How large a pixel is.
    pub spacing: Spacing,
    /// Images are frames of sequences, to be tracked; else they are unrelated.
    pub sequence: bool,
    /// Frames a second of a sequence.
    pub frame_rate: f64,
    /// Where pictures go.
    pub gallery: Option<Gallery>,
}

impl EvaluationOptions {
    /// Unrelated images, and no pictures.
    pub fn new(classes: MaskClasses, rule: ObjectRule) -> Self {
        EvaluationOptions {
            classes,
            rule,
            spacing: Spacing::default(),
            sequence: false,
            frame_rate: NOMINAL_FRAMES_PER_SECOND,
            gallery: None,
        }
    }
}

/// The convention of the masks, by the values that occur in any of them.
pub fn guess_classes(pairs: &Pairs) -> Result<(MaskClasses, ObjectRule), EvaluationError> {
    let mut values = BTreeSet::new();
    for pair in &pairs.pairs {
        let frame = read_image(pair)?;
        let mask = mask_file::read(&pair.mask, [frame.width, frame.height], false)?;
        values.extend(mask.values);
    }
    values.remove(&MaskValue::BACKGROUND);
    MaskClasses::guess(&values).ok_or_else(|| {
        let few: Vec<String> = values.iter().take(8).map(MaskValue::to_string).collect();
        EvaluationError::NoConvention(if few.is_empty() {
            "nothing but background".into()
        } else {
            format!("the values {}", few.join(", "))
        })
    })
}

fn read_image(pair: &Pair) -> Result<Frame, EvaluationError> {
    let mut frame = Frame::default();
    let read = ImageFiles::open_file(&pair.image)?.read_into(&mut frame);
    read.ok_or_else(|| EvaluationError::NoFrame(pair.image.clone()))??;
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
pub struct Evaluation {
    choice: DeviceChoice,
    device: Device,
    settings: Settings,
    options: EvaluationOptions,
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
    /// Opens device and models.
    pub fn new(
        mut settings: Settings,
        choice: DeviceChoice,
        options: EvaluationOptions,
    ) -> Result<Self, EvaluationError> {
        settings.tracker.independent = !options.sequence;
        let classes = &options.classes;
        let device = choice.open()?;
        let pipeline = settings.build_in(&Run::new(choice.clone()), device.clone())?;
        let labels = pipeline.detector().labels();
        let detector_class = |name: &str| {
            labels.iter().position(|label| label == name).ok_or_else(|| {
                let few = labels.iter().take(FEW_LABELS).map(String::as_str).collect::<Vec<_>>().join(", ");
                let more = labels.len().saturating_sub(FEW_LABELS);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                EvaluationError::UnknownClass {
                    class: name.to_owned(),
                    detector: pipeline.detector().origin().to_string(),
                    known: format!("{few}{more}"),
                }
            })
        };
        let detector_classes: Vec<usize> =
            classes.names().into_iter().map(detector_class).collect::<Result<_, _>>()?;
        let overlap = settings.max_overlap_iou;
        let detector_alone = DetectorAlone::new(&device, pipeline.detector().clone(), overlap);
        let segmenter = pipeline.segmenter().clone();
        let segmenter_alone = SamPredictor::new(&device, segmenter, PredictorOptions::default())?;
        Ok(Evaluation {
            choice,
            device,
            settings,
            tallies: vec![ClassTally::default(); classes.names().len()],
            options,
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

    /// Evaluates all frames in their order; `progress` is called after each.
    pub fn run(&mut self, pairs: &Pairs, progress: &mut dyn FnMut()) -> Result<(), EvaluationError> {
        let sequence = self.options.sequence;
        let mut clip = pairs.pairs.first().map(Pair::clip).unwrap_or_default();
        for (index, pair) in pairs.pairs.iter().enumerate() {
            if sequence && pair.clip() != clip {
                self.end_clip(clip);
                clip = pair.clip();
                // A new pipeline in a new run has seen nothing yet.
                let run = Run::new(self.choice.clone());
                self.pipeline = self.settings.build_in(&run, self.device.clone())?;
            }
            let mut frame = read_image(pair)?;
            frame.frame_id = index as u64;
            frame.timestamp_s = index as f64 / self.options.frame_rate;
            self.frame(pair, &frame, sequence).map_err(|source| EvaluationError::Image {
                image: pair.image.clone(),
                source: source.into(),
            })?;
            progress();
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

    fn frame(&mut self, pair: &Pair, frame: &Frame, sequence: bool) -> Result<(), EvaluationError> {
        let mask =
            mask_file::read(&pair.mask, [frame.width, frame.height], self.options.classes.by_colour())?;
        let classes = &self.options.classes;
        let truth = truth::objects(&mask, classes, self.options.rule).map_err(|value| {
            let (value, classes) = (value.to_string(), classes.to_string());
            EvaluationError::UnknownValue { mask: pair.mask.clone(), value, classes }
        })?;
        let spacing_mm = self.options.spacing.of(&pair.name);
        self.tally_detector(frame, &truth)?;
        self.tally_true_boxes(frame, &truth, spacing_mm)?;
        let found = self.run_frame(frame)?;
        if sequence {
            self.tally_identities(&truth, &found);
        }
        self.tally_run(pair, frame, &truth, &found, spacing_mm)
    }

    /// Everything that the detector sees, for average precision.
    fn tally_detector(&mut self, frame: &Frame, truth: &[TrueObject]) -> Result<(), EvaluationError> {
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
    ) -> Result<(), EvaluationError> {
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
                let own = masks.get(i, 0).mask;
                self.tallies[object.class].true_boxes.add(object.mask.view(), own, spacing_mm);
            }
        }
        Ok(())
    }

    /// The run itself.
    fn run_frame(&mut self, frame: &Frame) -> Result<Vec<RunObject>, EvaluationError> {
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
    ) -> Result<(), EvaluationError> {
        let names: Vec<String> = self.options.classes.names().into_iter().map(str::to_owned).collect();
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
        if let Some(gallery) = &mut self.options.gallery {
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
        let ids = self.identities.identify(truth, self.options.rule == ObjectRule::OnePerClass);
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
                    class: self.options.classes.names().iter().position(|name| *name == object.label)?,
                    box_xyxy: object.box_xyxy.map(f64::from),
                })
            })
            .collect();
        self.tracking.add(&truth, &found);
        self.clip_tracking.add(&truth, &found);
    }

    /// What was found.
    pub fn report(mut self, pairs: &Pairs) -> Report {
        self.by_frame.sort_by(|a, b| a.quality.total_cmp(&b.quality));
        let all = overall(&self.tallies, self.frames_with_objects, self.frames_without_answer);
        let Settings { score_threshold, max_objects, max_overlap_iou, .. } = self.settings;
        let (detector, segmenter) = (self.pipeline.detector(), self.pipeline.segmenter());
        let [height, width] = detector.network().input_hw();
        let side = segmenter.network().input_hw()[0];
        Report {
            images: pairs.images.display().to_string(),
            masks: pairs.masks.display().to_string(),
            frames: pairs.pairs.len(),
            images_without_mask: pairs.without_mask,
            part: pairs.part.clone(),
            mask_classes: self.options.classes.to_string(),
            one_per_class: self.options.rule == ObjectRule::OnePerClass,
            detector: format!("{} {width}x{height}", detector.origin()),
            segmenter: format!("{} {side}x{side}", segmenter.origin()),
            device: self.device.name(),
            threads: self.device.threads(),
            precision: self.device.precision(),
            score_threshold,
            max_objects,
            max_overlap_iou,
            by_class: self
                .options
                .classes
                .names()
                .into_iter()
                .map(str::to_owned)
                .zip(self.tallies.iter().map(ClassTally::figures))
                .collect(),
            overall: all,
            sequence: self.options.sequence.then(|| SequenceReport {
                frames_per_second: self.options.frame_rate,
                all: self.tracking.figures(),
                by_clip: self.by_clip,
            }),
            by_frame: self.by_frame,
        }
    }
}
