//! The detector without the rest of the pipeline and without a threshold: what average precision is computed from.

use anyhow::Result;
use ultramotion_engine::graph::Graph;
use ultramotion_engine::tensor::{DType, HostTensor};
use ultramotion_engine::{CompileOptions, Device, Program};
use ultramotion_models::dfine::{self, DetectionTensors, SelectionOptions};
use ultramotion_models::parameters::Parameters;
use ultramotion_models::zoo::Detector;
use ultramotion_pipeline::ByFormat;
use ultramotion_types::Frame;
use ultramotion_types::boxes::BoxXyxy;

use super::average_precision::MAX_DETECTIONS;

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

/// The detector, compiled for each format of frame (height, width, channels).
pub(crate) struct DetectorAlone {
    device: Device,
    detector: Detector,
    max_overlap_iou: f32,
    programs: ByFormat<[usize; 3], Program>,
}

impl DetectorAlone {
    /// `max_overlap_iou` is the pipeline's.
    pub(crate) fn new(device: Device, detector: Detector, max_overlap_iou: f32) -> Self {
        DetectorAlone { device, detector, max_overlap_iou, programs: ByFormat::default() }
    }

    /// Looks at a frame.
    pub(crate) fn detect(&mut self, frame: &Frame) -> Result<Answers> {
        let format = [frame.height, frame.width, frame.pixel_format.channels()];
        let DetectorAlone { device, detector, max_overlap_iou, programs } = self;
        let program = programs.select(format, || compile(device, detector, *max_overlap_iou, format))?;
        let outputs = program.run(&[&HostTensor::u8(format, &frame.pixels[..])])?;
        let [all, by_pipeline_rules] = [&outputs[..4], &outputs[4..]].map(|tensors| found(tensors, frame));
        Ok(Answers { all, by_pipeline_rules })
    }
}

/// The detector for frames of a format, with both kinds of answers.
fn compile(
    device: &Device,
    detector: &Detector,
    max_overlap_iou: f32,
    [height, width, channels]: [usize; 3],
) -> Result<Program> {
    let config = detector.config();
    let mut g = Graph::new("detector alone");
    let frame = g.input("frame", DType::U8, [height, width, channels])?;
    let image = g.image_to_tensor(frame, config.image_transform())?;
    let out = dfine::build(&mut g, image, &mut Parameters::new(detector.weights()), config)?;
    let all = SelectionOptions {
        max_detections: MAX_DETECTIONS,
        score_threshold: 0.0,
        one_label_per_query: false,
        max_overlap_iou: 1.0,
    };
    let by_pipeline_rules = SelectionOptions { one_label_per_query: true, max_overlap_iou, ..all };
    for (prefix, options) in [("all", all), ("rules", by_pipeline_rules)] {
        let DetectionTensors { boxes_cxcywh, scores, labels, count } =
            dfine::select_detections(&mut g, out.pred_logits, out.pred_boxes, options)?;
        for (name, tensor) in
            [("boxes", boxes_cxcywh), ("scores", scores), ("labels", labels), ("count", count)]
        {
            g.output(format!("{prefix}.{name}"), tensor)?;
        }
    }
    Ok(Program::compile(g, device, &CompileOptions::default())?)
}

/// Boxes (shares of the frame), scores, labels and count as detections.
fn found(tensors: &[HostTensor], frame: &Frame) -> Vec<Found> {
    let f32s = |i: usize| tensors[i].as_f32().unwrap_or_default();
    let i32s = |i: usize| tensors[i].as_i32().unwrap_or_default();
    let count = i32s(3).first().map_or(0, |&count| usize::try_from(count).unwrap_or(0));
    let (boxes, _) = f32s(0).as_chunks::<4>();
    let (width, height) = (frame.width as f64, frame.height as f64);
    boxes
        .iter()
        .zip(f32s(1))
        .zip(i32s(2))
        .take(count)
        .map(|((cxcywh, &score), &label)| {
            let [cx, cy, w, h] = cxcywh.map(f64::from);
            Found {
                class: usize::try_from(label).unwrap_or(usize::MAX),
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
