//! What programs give, and where it goes in an [`Outcome`]: each stage's outputs are declared and read in one place.

use ultramotion_engine::graph::{Graph, GraphError, InputPort, OutputPort, Tensor};
use ultramotion_engine::{InputBlock, OutputBlock};
use ultramotion_tracking::follow::SLOT_LEN;
use ultramotion_tracking::ops::{QualityTensors, TrackTensors};
use ultramotion_tracking::quality::Motion;

use crate::outcome::{Followed, Outcome};
use crate::stages::{Detected, FollowTensors, SegmentTensors};

/// What goes in with a frame's pixels.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// Time since the last frame.
    pub dt_s: f32,
    /// How the image plane has moved since.
    pub motion: Motion,
    /// What is asked of the slots of what was pointed at.
    pub commands: &'a [f32],
}

/// Outputs of the detector.
pub(crate) struct DetectPorts {
    boxes_cxcywh: OutputPort<f32>,
    scores: OutputPort<f32>,
    classes: OutputPort<i32>,
    count: OutputPort<i32>,
    check: OutputPort<f32>,
}

impl DetectPorts {
    pub(crate) fn declare(g: &mut Graph, found: &Detected) -> Result<Self, GraphError> {
        let Detected { detections, check } = found;
        Ok(DetectPorts {
            boxes_cxcywh: g.output_port("boxes_cxcywh", detections.boxes_cxcywh)?,
            scores: g.output_port("scores", detections.scores)?,
            classes: g.output_port("classes", detections.classes)?,
            count: g.output_port("count", detections.count)?,
            check: g.output_port("check", *check)?,
        })
    }

    pub(crate) fn read(&self, block: &OutputBlock, outcome: &mut Outcome) {
        outcome.boxes_cxcywh.copy_from_slice(self.boxes_cxcywh.read(block));
        outcome.scores.copy_from_slice(self.scores.read(block));
        outcome.classes.copy_from_slice(self.classes.read(block));
        outcome.count = self.count.read(block)[0];
        outcome.detector_check = self.check.read(block)[0];
    }
}

/// Outputs of the matcher.
pub(crate) struct TrackPorts {
    track_ids: OutputPort<i32>,
    confirmed: OutputPort<i32>,
    slots: OutputPort<i32>,
    scene: OutputPort<i32>,
}

impl TrackPorts {
    pub(crate) fn declare(g: &mut Graph, tracks: &TrackTensors) -> Result<Self, GraphError> {
        Ok(TrackPorts {
            track_ids: g.output_port("track_ids", tracks.track_ids)?,
            confirmed: g.output_port("confirmed", tracks.confirmed)?,
            slots: g.output_port("slots", tracks.slots)?,
            scene: g.output_port("scene", tracks.scene)?,
        })
    }

    pub(crate) fn read(&self, block: &OutputBlock, outcome: &mut Outcome) {
        outcome.track_ids.copy_from_slice(self.track_ids.read(block));
        outcome.confirmed.copy_from_slice(self.confirmed.read(block));
        outcome.slots.copy_from_slice(self.slots.read(block));
        outcome.scene = self.scene.read(block)[0];
    }
}

/// How the image plane has moved: an input.
pub(crate) struct MotionPort(InputPort<f32>);

impl MotionPort {
    pub(crate) fn declare(g: &mut Graph) -> Result<(Tensor, Self), GraphError> {
        let (motion, port) = g.input_port("motion", [6])?;
        Ok((motion, MotionPort(port)))
    }

    pub(crate) fn write(&self, block: &mut InputBlock, motion: &Motion) {
        self.0.write(block, &motion.previous_from_current);
    }
}

/// How well tracked objects show.
pub(crate) struct QualityPort(OutputPort<f32>);

impl QualityPort {
    pub(crate) fn declare(g: &mut Graph, judged: &QualityTensors) -> Result<Self, GraphError> {
        Ok(QualityPort(g.output_port("quality", judged.scores)?))
    }

    pub(crate) fn read(&self, block: &OutputBlock, outcome: &mut Outcome) {
        outcome.quality.copy_from_slice(self.0.read(block));
    }
}

/// What was pointed at: inputs, and outputs.
pub(crate) struct FollowPorts {
    commands: InputPort<f32>,
    dt_s: InputPort<f32>,
    slots: OutputPort<i32>,
    count: OutputPort<i32>,
    statuses: OutputPort<i32>,
    mask_scores: OutputPort<f32>,
    mask_areas_px: OutputPort<i32>,
    boxes_xyxy: OutputPort<i32>,
    mask_bits: OutputPort<u8>,
    quality: OutputPort<f32>,
}

/// The inputs of [`FollowPorts`] in a graph.
pub(crate) struct FollowInputs {
    pub commands: (Tensor, InputPort<f32>),
    pub dt_s: (Tensor, InputPort<f32>),
}

impl FollowInputs {
    /// `None` where nothing can be pointed at.
    pub(crate) fn declare(g: &mut Graph, room: usize) -> Result<Option<Self>, GraphError> {
        if room == 0 {
            return Ok(None);
        }
        let commands = g.input_port("follow_commands", [room, SLOT_LEN])?;
        let dt_s = g.input_port("follow_dt_s", [1])?;
        Ok(Some(FollowInputs { commands, dt_s }))
    }
}

impl FollowPorts {
    pub(crate) fn declare(
        g: &mut Graph,
        inputs: &FollowInputs,
        followed: &FollowTensors,
    ) -> Result<Self, GraphError> {
        let FollowTensors { slots, count, statuses, quality, segments } = followed;
        Ok(FollowPorts {
            commands: inputs.commands.1,
            dt_s: inputs.dt_s.1,
            slots: g.output_port("follow_rows", *slots)?,
            count: g.output_port("follow_count", *count)?,
            statuses: g.output_port("follow_statuses", *statuses)?,
            mask_scores: g.output_port("follow_mask_scores", segments.iou)?,
            mask_areas_px: g.output_port("follow_mask_areas_px", segments.masks.area_px)?,
            boxes_xyxy: g.output_port("follow_boxes_xyxy", segments.masks.box_xyxy)?,
            mask_bits: g.output_port("follow_mask_bits", segments.masks.bits)?,
            quality: g.output_port("follow_quality", *quality)?,
        })
    }

    pub(crate) fn write(&self, block: &mut InputBlock, asked: &Asked<'_>) {
        self.commands.write(block, asked.commands);
        self.dt_s.write(block, &[asked.dt_s]);
    }

    pub(crate) fn read(&self, block: &OutputBlock, outcome: &mut Followed) {
        outcome.slots.copy_from_slice(self.slots.read(block));
        outcome.count = self.count.read(block)[0];
        outcome.statuses.copy_from_slice(self.statuses.read(block));
        outcome.mask_scores.copy_from_slice(self.mask_scores.read(block));
        outcome.mask_areas_px.copy_from_slice(self.mask_areas_px.read(block));
        outcome.boxes_xyxy.copy_from_slice(self.boxes_xyxy.read(block));
        outcome.mask_bits.copy_from_slice(self.mask_bits.read(block));
        outcome.quality.copy_from_slice(self.quality.read(block));
    }
}

/// Outputs of the segmenter.
pub(crate) struct SegmentPorts {
    mask_scores: OutputPort<f32>,
    mask_areas_px: OutputPort<i32>,
    mask_bits: OutputPort<u8>,
}

impl SegmentPorts {
    pub(crate) fn declare(g: &mut Graph, segments: &SegmentTensors) -> Result<Self, GraphError> {
        Ok(SegmentPorts {
            mask_scores: g.output_port("mask_scores", segments.iou)?,
            mask_areas_px: g.output_port("mask_areas_px", segments.masks.area_px)?,
            mask_bits: g.output_port("mask_bits", segments.masks.bits)?,
        })
    }

    pub(crate) fn read(&self, block: &OutputBlock, outcome: &mut Outcome) {
        outcome.mask_scores.copy_from_slice(self.mask_scores.read(block));
        outcome.mask_areas_px.copy_from_slice(self.mask_areas_px.read(block));
        outcome.mask_bits.copy_from_slice(self.mask_bits.read(block));
    }
}
