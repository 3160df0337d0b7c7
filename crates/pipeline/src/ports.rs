//! What programs give, and where it goes in an [`Outcome`]: each stage's outputs are declared and read in one place.

use ultramotion_engine::OutputBlock;
use ultramotion_engine::graph::{Graph, GraphError, OutputPort};
use ultramotion_tracking::ops::TrackTensors;

use crate::outcome::Outcome;
use crate::stages::{Detected, SegmentTensors};

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
    scene: OutputPort<i32>,
}

impl TrackPorts {
    pub(crate) fn declare(g: &mut Graph, tracks: &TrackTensors) -> Result<Self, GraphError> {
        Ok(TrackPorts {
            track_ids: g.output_port("track_ids", tracks.track_ids)?,
            confirmed: g.output_port("confirmed", tracks.confirmed)?,
            scene: g.output_port("scene", tracks.scene)?,
        })
    }

    pub(crate) fn read(&self, block: &OutputBlock, outcome: &mut Outcome) {
        outcome.track_ids.copy_from_slice(self.track_ids.read(block));
        outcome.confirmed.copy_from_slice(self.confirmed.read(block));
        outcome.scene = self.scene.read(block)[0];
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
