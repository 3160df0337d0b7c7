//! Adds up what frames show, class by class.

use serde::Serialize;
use ultramotion_types::MaskView;

use super::average_precision::{AveragePrecision, FrameBoxes, average_precision};
use super::outlines::{overlap, percentile, surface_distance};

/// Outlines against true outlines.
#[derive(Debug, Clone, Default)]
pub(crate) struct OutlineTally {
    dice: Vec<f64>,
    iou: Vec<f64>,
    hausdorff95_px: Vec<f64>,
    mean_distance_px: Vec<f64>,
    hausdorff95_mm: Vec<f64>,
    mean_distance_mm: Vec<f64>,
}

impl OutlineTally {
    /// Adds an object, and gives its Dice. `spacing_mm` is the width and height of a pixel, where known.
    pub(crate) fn add(
        &mut self,
        truth: MaskView<'_>,
        own: MaskView<'_>,
        spacing_mm: Option<[f64; 2]>,
    ) -> f64 {
        let shared = overlap(truth, own);
        self.dice.push(shared.dice);
        self.iou.push(shared.iou);
        if let Some(distance) = surface_distance(truth, own, [1.0; 2]) {
            self.hausdorff95_px.push(distance.hausdorff95);
            self.mean_distance_px.push(distance.mean);
        }
        if let Some(distance) = spacing_mm.and_then(|spacing| surface_distance(truth, own, spacing)) {
            self.hausdorff95_mm.push(distance.hausdorff95);
            self.mean_distance_mm.push(distance.mean);
        }
        shared.dice
    }

    fn extend(&mut self, other: &OutlineTally) {
        self.dice.extend(&other.dice);
        self.iou.extend(&other.iou);
        self.hausdorff95_px.extend(&other.hausdorff95_px);
        self.mean_distance_px.extend(&other.mean_distance_px);
        self.hausdorff95_mm.extend(&other.hausdorff95_mm);
        self.mean_distance_mm.extend(&other.mean_distance_mm);
    }

    /// Means over the objects.
    fn figures(&self) -> OutlineFigures {
        OutlineFigures {
            outlined: self.dice.len(),
            empty: self.dice.len() - self.hausdorff95_px.len(),
            dice: mean(&self.dice),
            dice_p10: (!self.dice.is_empty()).then(|| percentile(self.dice.clone(), 0.1)),
            iou: mean(&self.iou),
            hausdorff95_px: mean(&self.hausdorff95_px),
            mean_distance_px: mean(&self.mean_distance_px),
            hausdorff95_mm: mean(&self.hausdorff95_mm),
            mean_distance_mm: mean(&self.mean_distance_mm),
        }
    }
}

/// Means over objects; nothing where there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct OutlineFigures {
    /// Objects.
    pub outlined: usize,
    /// Of them, those whose outline is empty: Dice 0, no distance.
    pub empty: usize,
    pub dice: Option<f64>,
    /// A tenth of the objects have a lower Dice.
    pub dice_p10: Option<f64>,
    pub iou: Option<f64>,
    pub hausdorff95_px: Option<f64>,
    pub mean_distance_px: Option<f64>,
    /// Over the objects whose pixel size is known.
    pub hausdorff95_mm: Option<f64>,
    pub mean_distance_mm: Option<f64>,
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// One class, over all frames.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClassTally {
    /// Of each frame, everything that the detector alone sees.
    pub all: Vec<FrameBoxes>,
    /// The same by the pipeline's rules.
    pub by_pipeline_rules: Vec<FrameBoxes>,
    pub objects: usize,
    /// Detections of the run.
    pub detections: usize,
    /// Of them, those that have an object.
    pub right: usize,
    /// Frames that show an object.
    pub frames: usize,
    /// Of them, those in which the run detects nothing of the class.
    pub frames_without_answer: usize,
    /// Of the objects that were found, with the run's own boxes.
    pub end_to_end: OutlineTally,
    /// Of all objects, with true boxes as prompts.
    pub true_boxes: OutlineTally,
}

/// A class's figures, or those of all.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Figures {
    /// Frames that show an object.
    pub frames: usize,
    pub objects: usize,
    pub detection: DetectionFigures,
    pub end_to_end: EndToEndFigures,
    pub true_boxes: OutlineFigures,
}

/// How well objects are found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct DetectionFigures {
    pub ap50: Option<f64>,
    pub ap50_95: Option<f64>,
    /// The same of what the pipeline's rules leave.
    pub ap50_by_pipeline_rules: Option<f64>,
    pub ap50_95_by_pipeline_rules: Option<f64>,
    /// Detections of the run, at its threshold.
    pub detections: usize,
    /// Of them, those that overlap an object by half or more, one each.
    pub right: usize,
    pub precision: Option<f64>,
    pub recall: Option<f64>,
    pub frames_without_answer: usize,
    /// At IoU 0.50 and recall 0, 0.01, …, 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision_at_recall: Option<Vec<f64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision_at_recall_by_pipeline_rules: Option<Vec<f64>>,
}

/// How well the objects that the run found are outlined.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct EndToEndFigures {
    /// Over all objects; one that was not found counts as 0.
    pub dice_of_all: Option<f64>,
    #[serde(flatten)]
    pub outlines: OutlineFigures,
}

impl ClassTally {
    /// The class's figures.
    pub(crate) fn figures(&self) -> Figures {
        self.figures_with([&self.all, &self.by_pipeline_rules].map(|boxes| average_precision(boxes)))
    }

    fn figures_with(&self, [all, by_rules]: [Option<AveragePrecision>; 2]) -> Figures {
        let share = |of: usize| (of > 0).then(|| self.right as f64 / of as f64);
        let dice_sum = self.end_to_end.dice.iter().fold(0.0, |sum, dice| sum + dice);
        let curve = |ap: Option<AveragePrecision>| {
            ap.map(|ap| ap.precision_at_recall).filter(|curve| !curve.is_empty())
        };
        Figures {
            frames: self.frames,
            objects: self.objects,
            detection: DetectionFigures {
                ap50: all.as_ref().map(|ap| ap.ap50),
                ap50_95: all.as_ref().map(|ap| ap.ap50_95),
                ap50_by_pipeline_rules: by_rules.as_ref().map(|ap| ap.ap50),
                ap50_95_by_pipeline_rules: by_rules.as_ref().map(|ap| ap.ap50_95),
                detections: self.detections,
                right: self.right,
                precision: share(self.detections),
                recall: share(self.objects),
                frames_without_answer: self.frames_without_answer,
                precision_at_recall: curve(all),
                precision_at_recall_by_pipeline_rules: curve(by_rules),
            },
            end_to_end: EndToEndFigures {
                dice_of_all: (self.objects > 0).then(|| dice_sum / self.objects as f64),
                outlines: self.end_to_end.figures(),
            },
            true_boxes: self.true_boxes.figures(),
        }
    }
}

/// Figures of all classes together: AP is the mean over the classes that occur, as COCO's; all else is over objects and
/// detections of every class alike. Frames are those with any object, and any detection is an answer: both are counted
/// by the caller.
pub(crate) fn overall(classes: &[ClassTally], frames: usize, frames_without_answer: usize) -> Figures {
    let mut sum = ClassTally { frames, frames_without_answer, ..ClassTally::default() };
    for class in classes {
        sum.objects += class.objects;
        sum.detections += class.detections;
        sum.right += class.right;
        sum.end_to_end.extend(&class.end_to_end);
        sum.true_boxes.extend(&class.true_boxes);
    }
    let mean_ap = |boxes: fn(&ClassTally) -> &[FrameBoxes]| {
        let aps: Vec<AveragePrecision> =
            classes.iter().filter_map(|class| average_precision(boxes(class))).collect();
        let mean = |value: fn(&AveragePrecision) -> f64| mean(&aps.iter().map(value).collect::<Vec<_>>());
        // A curve belongs to one class.
        let precision_at_recall = Vec::new();
        Some(AveragePrecision {
            ap50: mean(|ap| ap.ap50)?,
            ap50_95: mean(|ap| ap.ap50_95)?,
            precision_at_recall,
        })
    };
    sum.figures_with([mean_ap(|class| &class.all), mean_ap(|class| &class.by_pipeline_rules)])
}

#[cfg(test)]
mod tests {
    use ultramotion_types::BitMask;

    use super::*;

    fn square(side: usize) -> BitMask {
        BitMask::from_fn(20, 20, |x, y| x < side && y < side)
    }

    #[test]
    fn figures_of_a_class() {
        let b = [0.0, 0.0, 10.0, 10.0];
        let boxes = vec![FrameBoxes { truth: vec![b, [12.0, 12.0, 20.0, 20.0]], found: vec![(0.9, b)] }];
        let mut class = ClassTally {
            all: boxes.clone(),
            by_pipeline_rules: boxes,
            objects: 2,
            detections: 2,
            right: 1,
            frames: 1,
            ..ClassTally::default()
        };
        assert_eq!(class.end_to_end.add(square(10).view(), square(10).view(), Some([0.5, 0.5])), 1.0);
        class.true_boxes.add(square(10).view(), square(8).view(), Some([0.5, 0.5]));
        class.true_boxes.add(square(10).view(), square(0).view(), None);
        let figures = class.figures();
        assert_eq!((figures.detection.precision, figures.detection.recall), (Some(0.5), Some(0.5)));
        assert!((figures.detection.ap50.unwrap() - 51.0 / 101.0).abs() < 1e-9);
        assert_eq!(
            (figures.end_to_end.outlines.dice, figures.end_to_end.dice_of_all),
            (Some(1.0), Some(0.5))
        );
        let outlines = figures.true_boxes;
        assert_eq!((outlines.outlined, outlines.empty), (2, 1));
        assert!((outlines.dice.unwrap() - 128.0 / 164.0 / 2.0).abs() < 1e-12);
        assert_eq!(outlines.mean_distance_mm, outlines.mean_distance_px.map(|px| px / 2.0));

        let other = ClassTally { objects: 2, detections: 0, ..ClassTally::default() };
        let all = overall(&[class, other], 1, 0);
        assert_eq!((all.objects, all.detection.recall), (4, Some(0.25)));
        // A class without objects has no AP, and does not pull the mean.
        assert_eq!(all.detection.ap50, figures.detection.ap50);
        assert_eq!(all.end_to_end.dice_of_all, Some(0.25));
    }

    #[test]
    fn nothing_gives_nothing() {
        let figures = overall(&[ClassTally::default()], 0, 0);
        assert_eq!((figures.detection.ap50, figures.detection.precision), (None, None));
        assert_eq!(figures.true_boxes, OutlineFigures::default());
    }
}
