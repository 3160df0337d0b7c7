//! The parts of a frame's computation, each added to whatever graph it is to run in: one graph for everything, or one
//! for each part.

use ultramotion_engine::graph::{Graph, GraphError, ReduceOp, Tensor};
use ultramotion_engine::tensor::HostTensor;
use ultramotion_models::dfine::{self, DetectionTensors, SelectionOptions};
use ultramotion_models::mobile_sam::{self, MaskGeometry, MaskOutput, Prompts, SourceMasks};
use ultramotion_models::parameters::Parameters;
use ultramotion_models::zoo::{Detector, Segmenter};
use ultramotion_tracking::ops::{self, TrackTensors};

use crate::options::PipelineOptions;

/// Stage names, for timing.
pub(crate) const DETECT: &str = "detect";
pub(crate) const MATCH: &str = "match";
pub(crate) const SEGMENT: &str = "segment";

/// Tracks that are remembered for each object that a frame can have.
const TRACKS_PER_OBJECT: usize = 4;

/// Slots in the table of tracks.
pub(crate) fn track_capacity(options: &PipelineOptions) -> usize {
    options.max_objects * TRACKS_PER_OBJECT
}

/// What the detector found.
pub(crate) struct Detected {
    pub detections: DetectionTensors,
    /// `[1]` f32: 0, or not a number where one of the network's answers is none or is infinite.
    pub check: Tensor,
}

/// Raw frame `[H, W, C]` → detections. D-FINE sees the whole frame, stretched to its input.
pub(crate) fn detect(
    g: &mut Graph,
    frame: Tensor,
    detector: &Detector,
    options: &PipelineOptions,
) -> Result<Detected, GraphError> {
    g.set_stage(DETECT);
    let config = detector.config();
    let image = g.image_to_tensor(frame, config.image_transform())?;
    let mut parameters = Parameters::new(detector.weights());
    let found = g.scoped("detector", |g| dfine::build(g, image, &mut parameters, config))?;
    let selection = SelectionOptions {
        max_detections: options.max_objects,
        score_threshold: options.score_threshold,
        one_label_per_query: true,
        max_overlap_iou: options.max_overlap_iou,
    };
    let detections = dfine::select_detections(g, found.pred_logits, found.pred_boxes, selection)?;
    let logits = zero_if_finite(g, found.pred_logits)?;
    let boxes = zero_if_finite(g, found.pred_boxes)?;
    Ok(Detected { detections, check: g.add(logits, boxes)? })
}

/// `[1]`: the sum of 0 times each value, which is not a number if one of them is not, or is infinite.
fn zero_if_finite(g: &mut Graph, values: Tensor) -> Result<Tensor, GraphError> {
    let zeros = g.affine(values, 0.0, 0.0)?;
    let rows = g.reduce(ReduceOp::Sum, zeros)?;
    let row = g.reshape(rows, [1, g.shape(rows).numel()])?;
    let sum = g.reduce(ReduceOp::Sum, row)?;
    g.reshape(sum, [1])
}

/// Detections → identities; the tracks are states of the device.
pub(crate) fn track(
    g: &mut Graph,
    detections: DetectionTensors,
    dt_s: Tensor,
    options: &PipelineOptions,
) -> Result<TrackTensors, GraphError> {
    g.set_stage(MATCH);
    let DetectionTensors { boxes_cxcywh, scores, labels, count } = detections;
    let detections = ops::DetectionTensors { boxes_cxcywh, scores, classes: labels, count };
    ops::track(g, options.tracker, track_capacity(options), detections, dt_s)
}

/// Raw frame `[H, W, C]` → image embedding. SAM keeps the aspect: the longest side fills its input.
pub(crate) fn encode(g: &mut Graph, frame: Tensor, segmenter: &Segmenter) -> Result<Tensor, GraphError> {
    g.set_stage(SEGMENT);
    let config = segmenter.config();
    let source_hw = [g.shape(frame)[0], g.shape(frame)[1]];
    let image = g.image_to_tensor(frame, config.image_transform(source_hw))?;
    let mut parameters = Parameters::new(segmenter.weights());
    g.scoped("segmenter", |g| mobile_sam::build_encoder(g, image, &mut parameters, config))
}

/// Masks of K objects with their scores.
pub(crate) struct SegmentTensors {
    pub masks: SourceMasks,
    pub iou: Tensor,
}

/// Embedding and boxes (fractions of the frame, `[K, 4]`, `count` of them valid) → masks at the frame's size.
pub(crate) fn segment(
    g: &mut Graph,
    embedding: Tensor,
    boxes_cxcywh: Tensor,
    count: Tensor,
    source_hw: [usize; 2],
    segmenter: &Segmenter,
) -> Result<SegmentTensors, GraphError> {
    g.set_stage(SEGMENT);
    let config = segmenter.config();
    let [h, w] = config.resized_hw(source_hw[0], source_hw[1]).map(|side| side as f32);
    // Centre and size in fractions to corners in pixels of the network's input: a linear map.
    #[rustfmt::skip]
    let corners_from_cxcywh = vec![
        w, 0.0, -0.5 * w, 0.0,
        0.0, h, 0.0, -0.5 * h,
        w, 0.0, 0.5 * w, 0.0,
        0.0, h, 0.0, 0.5 * h,
    ];
    let map = g.constant(HostTensor::f32([4, 4], corners_from_cxcywh));
    let boxes = g.limit_rows(boxes_cxcywh, count)?;
    let boxes_xyxy = g.linear(boxes, map, None)?;
    let mut parameters = Parameters::new(segmenter.weights());
    let decoded = g.scoped("segmenter", |g| {
        let prompts = Prompts { boxes_xyxy: Some(boxes_xyxy), ..Prompts::default() };
        let prompts = mobile_sam::encode_prompts(g, &prompts, &mut parameters, config)?;
        mobile_sam::build_decoder(g, embedding, &prompts, &mut parameters, config, MaskOutput::One)
    })?;
    let geometry = MaskGeometry::new(config, source_hw);
    let masks = mobile_sam::masks_to_source(g, decoded.low_res_masks, geometry, None)?;
    Ok(SegmentTensors { masks, iou: decoded.iou })
}
