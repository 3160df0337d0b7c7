//! `residency = host`: every stage is a program of its own and hands over through host memory, as frameworks that
//! return arrays do. For comparison and debugging.

use std::time::Instant;

use ultramotion_engine::graph::Graph;
use ultramotion_engine::tensor::{DType, HostTensor};
use ultramotion_engine::{CompileOptions, Device, Program, StateStore};
use ultramotion_models::dfine::DetectionTensors;
use ultramotion_models::zoo::{Detector, Segmenter};
use ultramotion_types::{FrameFormat, FrameView, LatencyMs};

use crate::error::PipelineError;
use crate::options::PipelineOptions;
use crate::outcome::Outcome;
use crate::resident::ms;
use crate::stages;

/// The stages' programs for frames of one format.
pub(crate) struct StagedPrograms {
    detect: Program,
    /// `None` when tracks are matched on the host.
    track: Option<Program>,
    encode: Program,
    segment: Program,
}

impl StagedPrograms {
    pub(crate) fn new(
        device: &Device,
        states: &StateStore,
        detector: &Detector,
        segmenter: &Segmenter,
        options: &PipelineOptions,
        format: FrameFormat,
    ) -> Result<Self, PipelineError> {
        let FrameFormat { height, width, channels } = format;
        let k = options.max_objects;
        let compile = |graph: Graph| {
            let compile = CompileOptions { states: Some(states.clone()), profile: false };
            Program::compile(graph, device, &compile)
        };

        let mut g = Graph::new("detect");
        let frame = g.input("frame", DType::U8, [height, width, channels])?;
        let stages::Detected { detections: found, check } = stages::detect(&mut g, frame, detector, options)?;
        g.output("boxes_cxcywh", found.boxes_cxcywh)?;
        g.output("scores", found.scores)?;
        g.output("classes", found.labels)?;
        g.output("count", found.count)?;
        g.output("check", check)?;
        let detect = compile(g)?;

        let track = if options.matcher.on_host() {
            None
        } else {
            let mut g = Graph::new("track");
            let detections = DetectionTensors {
                boxes_cxcywh: g.input("boxes_cxcywh", DType::F32, [k, 4])?,
                scores: g.input("scores", DType::F32, [k])?,
                labels: g.input("classes", DType::I32, [k])?,
                count: g.input("count", DType::I32, [1])?,
            };
            let dt_s = g.input("dt_s", DType::F32, [1])?;
            let tracks = stages::track(&mut g, detections, dt_s, options)?;
            g.output("track_ids", tracks.track_ids)?;
            g.output("confirmed", tracks.confirmed)?;
            g.output("scene", tracks.scene)?;
            Some(compile(g)?)
        };

        let mut g = Graph::new("encode");
        let frame = g.input("frame", DType::U8, [height, width, channels])?;
        let embedding = stages::encode(&mut g, frame, segmenter)?;
        let embedding_shape = g.shape(embedding).clone();
        g.output("embedding", embedding)?;
        let encode = compile(g)?;

        let mut g = Graph::new("segment");
        let embedding = g.input("embedding", DType::F32, embedding_shape)?;
        let boxes = g.input("boxes_cxcywh", DType::F32, [k, 4])?;
        let count = g.input("count", DType::I32, [1])?;
        let segments = stages::segment(&mut g, embedding, boxes, count, [height, width], segmenter)?;
        g.output("mask_scores", segments.iou)?;
        g.output("mask_areas_px", segments.masks.area_px)?;
        g.output("mask_bits", segments.masks.bits)?;
        let segment = compile(g)?;
        Ok(StagedPrograms { detect, track, encode, segment })
    }

    pub(crate) fn run(
        &mut self,
        frame: &FrameView<'_>,
        dt_s: f32,
        outcome: &mut Outcome,
    ) -> Result<LatencyMs, PipelineError> {
        let mut latency = LatencyMs::default();
        let shape = [frame.height, frame.width, frame.pixel_format.channels()];
        let pixels = HostTensor::u8(shape, frame.pixels);

        let start = Instant::now();
        let found = self.detect.run(&[&pixels])?;
        latency.detect = ms(start.elapsed());
        let [boxes, scores, classes, count, check] = &found[..] else {
            unreachable!("the detect program has five outputs")
        };
        copy_f32(boxes, &mut outcome.boxes_cxcywh);
        copy_f32(scores, &mut outcome.scores);
        copy_i32(classes, &mut outcome.classes);
        outcome.count = first_i32(count);
        outcome.detector_check = check.as_f32().expect("declared as f32")[0];

        if let Some(track) = &mut self.track {
            let start = Instant::now();
            let dt_s = HostTensor::f32([1], vec![dt_s]);
            let tracks = track.run(&[boxes, scores, classes, count, &dt_s])?;
            latency.matching = ms(start.elapsed());
            copy_i32(&tracks[0], &mut outcome.track_ids);
            copy_i32(&tracks[1], &mut outcome.confirmed);
            outcome.scene = first_i32(&tracks[2]);
        }

        let start = Instant::now();
        let embedding = self.encode.run(&[&pixels])?;
        let masks = self.segment.run(&[&embedding[0], boxes, count])?;
        latency.segment = ms(start.elapsed());
        copy_f32(&masks[0], &mut outcome.mask_scores);
        copy_i32(&masks[1], &mut outcome.mask_areas_px);
        outcome.mask_bits.copy_from_slice(masks[2].bytes());
        Ok(latency)
    }

    /// Device memory of all stages.
    pub(crate) fn memory_bytes(&self) -> usize {
        [Some(&self.detect), self.track.as_ref(), Some(&self.encode), Some(&self.segment)]
            .into_iter()
            .flatten()
            .map(Program::memory_bytes)
            .sum()
    }
}

fn copy_f32(from: &HostTensor, to: &mut [f32]) {
    to.copy_from_slice(from.as_f32().expect("declared as f32"));
}

fn copy_i32(from: &HostTensor, to: &mut [i32]) {
    to.copy_from_slice(from.as_i32().expect("declared as i32"));
}

fn first_i32(from: &HostTensor) -> i32 {
    from.as_i32().expect("declared as i32")[0]
}
