//! The detector without the rest of the pipeline and without a threshold: what average precision is computed from.

use ultramotion_engine::graph::{Graph, InputPort, OutputPort};
use ultramotion_engine::ledger::Budget;
use ultramotion_engine::{CompileOptions, Device, InputBlock, OutputBlock, Program};
use ultramotion_models::detector::{DetectorTensors, SelectionOptions, select_detections};
use ultramotion_models::zoo::Detector;
use ultramotion_pipeline::ByFormat;
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

/// The detector, compiled for each format of frame (height, width, channels).
pub(crate) struct DetectorAlone {
    device: Device,
    detector: Detector,
    max_overlap_iou: f32,
    programs: ByFormat<[usize; 3], Compiled>,
}

/// The detector for frames of a format, with both kinds of answers.
struct Compiled {
    program: Program,
    input: InputBlock,
    output: OutputBlock,
    frame: InputPort<u8>,
    all: SelectionPorts,
    by_pipeline_rules: SelectionPorts,
}

/// Detections, boxes in shares of the frame.
struct SelectionPorts {
    boxes_cxcywh: OutputPort<f32>,
    scores: OutputPort<f32>,
    classes: OutputPort<i32>,
    count: OutputPort<i32>,
}

impl DetectorAlone {
    /// `max_overlap_iou` is the pipeline's.
    pub(crate) fn new(device: Device, detector: Detector, max_overlap_iou: f32) -> Self {
        DetectorAlone { device, detector, max_overlap_iou, programs: ByFormat::default() }
    }

    /// Looks at a frame.
    pub(crate) fn detect(&mut self, frame: &Frame) -> Result<Answers, EvaluationError> {
        let format = [frame.height, frame.width, frame.pixel_format.channels()];
        let DetectorAlone { device, detector, max_overlap_iou, programs } = self;
        let compiled =
            programs.select(format, || Compiled::new(device, detector, *max_overlap_iou, format))?;
        let Compiled { program, input, output, .. } = compiled;
        compiled.frame.write(input, &frame.pixels);
        program.run_frame(input, output, Budget::RESIDENT_FRAME)?;
        Ok(Answers {
            all: compiled.all.read(output, frame),
            by_pipeline_rules: compiled.by_pipeline_rules.read(output, frame),
        })
    }
}

impl Compiled {
    fn new(
        device: &Device,
        detector: &Detector,
        max_overlap_iou: f32,
        format: [usize; 3],
    ) -> Result<Self, EvaluationError> {
        let mut g = Graph::new("detector alone");
        let (frame, frame_port) = g.input_port("frame", format)?;
        let found = detector.detect(&mut g, frame)?;
        let all = SelectionOptions {
            max_detections: MAX_DETECTIONS,
            score_threshold: 0.0,
            one_label_per_query: false,
            max_overlap_iou: 1.0,
        };
        let by_pipeline_rules = SelectionOptions { one_label_per_query: true, max_overlap_iou, ..all };
        let all = SelectionPorts::declare(&mut g, "all", &found, all)?;
        let by_pipeline_rules = SelectionPorts::declare(&mut g, "rules", &found, by_pipeline_rules)?;
        let program = Program::compile(g, device, &CompileOptions::default())?;
        let (input, output) = (program.input_block()?, program.output_block()?);
        Ok(Compiled { program, input, output, frame: frame_port, all, by_pipeline_rules })
    }
}

impl SelectionPorts {
    fn declare(
        g: &mut Graph,
        prefix: &str,
        found: &DetectorTensors,
        options: SelectionOptions,
    ) -> Result<Self, EvaluationError> {
        let selected = select_detections(g, found.pred_logits, found.pred_boxes, options)?;
        Ok(SelectionPorts {
            boxes_cxcywh: g.output_port(format!("{prefix}.boxes"), selected.boxes_cxcywh)?,
            scores: g.output_port(format!("{prefix}.scores"), selected.scores)?,
            classes: g.output_port(format!("{prefix}.classes"), selected.classes)?,
            count: g.output_port(format!("{prefix}.count"), selected.count)?,
        })
    }

    /// The detections, in pixels of the frame.
    fn read(&self, block: &OutputBlock, frame: &Frame) -> Vec<Found> {
        let count = usize::try_from(self.count.read(block)[0]).unwrap_or(0);
        let boxes = self.boxes_cxcywh.read(block).as_chunks::<4>().0;
        let (width, height) = (frame.width as f64, frame.height as f64);
        boxes
            .iter()
            .zip(self.scores.read(block))
            .zip(self.classes.read(block))
            .take(count)
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
}
