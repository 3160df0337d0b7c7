//! The parts of a frame's computation, each added to whatever graph it is to run in: one graph for everything, or one
//! for each part.

use ultramotion_engine::graph::{Graph, GraphError, ReduceOp, Tensor};
use ultramotion_engine::tensor::HostTensor;
use ultramotion_engine::{CompileOptions, Device, Program, StateStore};
use ultramotion_models::detector::{DetectionTensors, SelectionOptions, select_detections};
use ultramotion_models::segmenter::{MaskOutput, Prompts, SourceMasks, TokenKind};
use ultramotion_models::zoo::{Detector, Segmenter};
use ultramotion_tracking::follow::token;
use ultramotion_tracking::ops::{
    self, FollowOutlines, QualityInputs, QualityTensors, TrackInputs, TrackTensors,
};
use ultramotion_tracking::track::TrackTable;

use crate::error::PipelineError;
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

/// What programs are made of.
pub(crate) struct Parts<'a> {
    pub device: &'a Device,
    pub states: &'a StateStore,
    pub detector: &'a Detector,
    pub segmenter: &'a Segmenter,
    pub options: &'a PipelineOptions,
    /// The highest identity that was given before these programs' tracks.
    pub last_id: i32,
}

impl Parts<'_> {
    pub(crate) fn compile(&self, graph: Graph, profile: bool) -> Result<Program, PipelineError> {
        let compile = CompileOptions { states: Some(self.states.clone()), profile };
        Ok(Program::compile(graph, self.device, &compile)?)
    }
}

/// What the detector found.
pub(crate) struct Detected {
    pub detections: DetectionTensors,
    /// `[1]` f32: 0, or not a number where one of the network's answers is not finite.
    pub check: Tensor,
}

/// Raw frame `[H, W, C]` → detections.
pub(crate) fn detect(g: &mut Graph, frame: Tensor, parts: &Parts<'_>) -> Result<Detected, GraphError> {
    g.set_stage(DETECT);
    let found = parts.detector.detect(g, frame)?;
    let selection = SelectionOptions {
        max_detections: parts.options.max_objects,
        score_threshold: parts.options.score_threshold,
        one_label_per_query: true,
        max_overlap_iou: parts.options.max_overlap_iou,
    };
    let detections = select_detections(g, found.pred_logits, found.pred_boxes, selection)?;
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
    parts: &Parts<'_>,
) -> Result<TrackTensors, GraphError> {
    g.set_stage(MATCH);
    let DetectionTensors { boxes_cxcywh, scores, classes, count } = detections;
    let inputs = TrackInputs { boxes_cxcywh, scores, classes, count, dt_s };
    let table = TrackTable::after(track_capacity(parts.options), parts.last_id);
    ops::track(g, parts.options.tracker, &table, inputs)
}

/// Raw frame `[H, W, C]` → image embedding.
pub(crate) fn encode(g: &mut Graph, frame: Tensor, parts: &Parts<'_>) -> Result<Tensor, GraphError> {
    g.set_stage(SEGMENT);
    parts.segmenter.encode(g, frame)
}

// The tracker's tokens are the segmenter's: neither crate knows the other.
const _: () = assert!(
    token::PADDING == TokenKind::Padding as i32
        && token::NEGATIVE == TokenKind::Negative as i32
        && token::POSITIVE == TokenKind::Positive as i32
        && token::TOP_LEFT == TokenKind::TopLeft as i32
        && token::BOTTOM_RIGHT == TokenKind::BottomRight as i32
);

/// Names of what is remembered of tracks' looks among the states: of those that the detector finds, and of what is followed.
const TRACK_MEMORY: &str = "track_memory";
const FOLLOW_MEMORY: &str = "follow_memory";

/// What the scores of a frame's objects need beside their masks.
pub(crate) struct Looks {
    /// Raw frame `[H, W, C]`.
    pub frame: Tensor,
    /// `[6]`: how the image plane has moved.
    pub motion: Tensor,
}

/// Masks of tracked objects → how well they show.
pub(crate) fn judge(
    g: &mut Graph,
    looks: &Looks,
    segments: &SegmentTensors,
    [count, slots, track_ids]: [Tensor; 3],
    parts: &Parts<'_>,
) -> Result<QualityTensors, GraphError> {
    g.set_stage(SEGMENT);
    let SourceMasks { bits, box_xyxy, .. } = segments.masks;
    let Looks { frame, motion } = *looks;
    let inputs = QualityInputs { frame, mask_bits: bits, box_xyxy, count, slots, keys: track_ids, motion };
    let rows = track_capacity(parts.options);
    ops::quality(g, parts.options.tracker.quality, TRACK_MEMORY, rows, inputs)
}

/// What was pointed at, row by row, with its masks.
pub(crate) struct FollowTensors {
    /// `[P]` i32: slot of each row.
    pub slots: Tensor,
    /// `[1]` i32: rows.
    pub count: Tensor,
    /// `[P]` i32: what became of each.
    pub statuses: Tensor,
    /// `[P, 6]`: how well each shows.
    pub quality: Tensor,
    pub segments: SegmentTensors,
}

/// Embedding and what is asked of P slots (`[P, 12]`) → masks of what is followed; the slots are states of the device.
pub(crate) fn follow(
    g: &mut Graph,
    embedding: Tensor,
    looks: &Looks,
    [commands, dt_s]: [Tensor; 2],
    source_hw: [usize; 2],
    parts: &Parts<'_>,
) -> Result<FollowTensors, GraphError> {
    g.set_stage(SEGMENT);
    let (segmenter, options) = (parts.segmenter, parts.options);
    let [h, w] = segmenter.network().image_transform(source_hw).resized_hw.map(|side| side as f32);
    let prompts = ops::follow_begin(g, options.tracker, commands, dt_s, [w, h])?;
    let positions = g.limit_rows(prompts.positions, prompts.count)?;
    let kinds = g.limit_rows(prompts.kinds, prompts.count)?;
    let tokens = Prompts::tokens(positions, kinds);
    let decoded = g.scoped("followed", |g| segmenter.decode(g, embedding, &tokens, MaskOutput::One))?;
    let masks = segmenter.network().masks_to_source(g, decoded.low_res_masks, source_hw)?;
    let judged = QualityInputs {
        frame: looks.frame,
        mask_bits: masks.bits,
        box_xyxy: masks.box_xyxy,
        count: prompts.count,
        slots: prompts.slots,
        keys: prompts.keys,
        motion: looks.motion,
    };
    let judged = ops::quality(g, options.tracker.quality, FOLLOW_MEMORY, options.max_prompts, judged)?;
    let quality = judged.scores;
    let outlines =
        FollowOutlines { iou: decoded.iou, area_px: masks.area_px, box_xyxy: judged.core_xyxy, quality };
    let frame_wh = [source_hw[1] as f32, source_hw[0] as f32];
    let statuses =
        ops::follow_finish(g, options.tracker, options.follow, &prompts, outlines, dt_s, frame_wh)?;
    let segments = SegmentTensors { masks, iou: decoded.iou };
    Ok(FollowTensors { slots: prompts.slots, count: prompts.count, statuses, quality, segments })
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
    parts: &Parts<'_>,
) -> Result<SegmentTensors, GraphError> {
    g.set_stage(SEGMENT);
    let segmenter = parts.segmenter;
    let [h, w] = segmenter.network().image_transform(source_hw).resized_hw.map(|side| side as f32);
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
    let prompts = Prompts::boxes(boxes_xyxy);
    let decoded = g.scoped("segmenter", |g| segmenter.decode(g, embedding, &prompts, MaskOutput::One))?;
    let masks = segmenter.network().masks_to_source(g, decoded.low_res_masks, source_hw)?;
    Ok(SegmentTensors { masks, iou: decoded.iou })
}
