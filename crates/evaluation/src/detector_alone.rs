//! The detector without the rest of the pipeline and without a threshold: what average precision is computed from.

use ultramotion_engine::Device;
use ultramotion_models::detector::{DetectorPredictor, Selected, SelectionOptions};
use ultramotion_models::zoo::Detector;
use ultramotion_types::Frame;
use ultramotion_types::boxes::BoxXyxy;

use super::average_precision::MAX_DETECTIONS;
use super::error::EvaluationError;

/// A scored box of a class, in pixels of the frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Found {
    /// Of the detector's classes.
    pub class: usize,
    pub score: f64,
    pub box_xyxy: BoxXyxy,
}

/// Everything that the detector sees in a frame, best first.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answers {
    /// The 100 best of all queries and classes, as COCO's evaluation and D-FINE's own take them.
    pub all: Vec<Found>,
    /// The 100 best by the pipeline's rules: one class a query, none that overlaps a better one by too much.
    pub by_pipeline_rules: Vec<Found>,
}

/// The detector, with both kinds of answers.
pub(crate) struct DetectorAlone(DetectorPredictor);

impl DetectorAlone {
    /// `max_overlap_iou` is the pipeline's.
    pub(crate) fn new(device: &Device, detector: Detector, max_overlap_iou: f32) -> Self {
        let all = SelectionOptions {
            max_detections: MAX_DETECTIONS,
            score_threshold: 0.0,
            one_label_per_query: false,
            max_overlap_iou: 1.0,
        };
        let by_pipeline_rules = SelectionOptions { one_label_per_query: true, max_overlap_iou, ..all };
        DetectorAlone(DetectorPredictor::with_selections(device, detector, vec![all, by_pipeline_rules]))
    }

    /// Looks at a frame.
    pub(crate) fn detect(&mut self, frame: &Frame) -> Result<Answers, EvaluationError> {
        let mut selections = self.0.select(&frame.view())?;
        let mut next = || selections.next().map_or_else(Vec::new, |selected| in_pixels(selected, frame));
        Ok(Answers { all: next(), by_pipeline_rules: next() })
    }
}

/// The detections, in pixels of the frame.
fn in_pixels(selected: Selected<'_>, frame: &Frame) -> Vec<Found> {
    let (width, height) = (frame.width as f64, frame.height as f64);
    selected
        .boxes_cxcywh
        .iter()
        .zip(selected.scores)
        .zip(selected.classes)
        .map(|((cxcywh, &score), &class)| {
            let [cx, cy, w, h] = cxcywh.map(f64::from);
            Found {
                class: usize::try_from(class).unwrap_or(usize::MAX),
                score: score.into(),
                box_xyxy: [
                    (cx - w / 2.0) * width,
                    (cy - h / 2.0) * height,
                    (cx + w / 2.0) * width,
                    (cy + h / 2.0) * height,
                ],
            }
        })
        .collect()
}
