//! The whole frame as one device program: one copy in, one copy out, nothing in between.

use std::time::Instant;

use ultramotion_engine::graph::{Graph, GraphError};
use ultramotion_engine::ledger::Budget;
use ultramotion_engine::tensor::DType;
use ultramotion_engine::{CompileOptions, Device, Program, StateStore};
use ultramotion_models::zoo::{Detector, Segmenter};
use ultramotion_types::{FrameFormat, FrameView, LatencyMs};

use crate::error::PipelineError;
use crate::options::PipelineOptions;
use crate::outcome::Outcome;
use crate::stages;

/// A program for frames of one format.
pub(crate) struct ResidentProgram {
    program: Program,
    input: Vec<u8>,
    output: Vec<u8>,
    tracks_on_device: bool,
}

const FRAME: &str = "frame";
const DT_S: &str = "dt_s";

impl ResidentProgram {
    pub(crate) fn new(
        device: &Device,
        states: &StateStore,
        detector: &Detector,
        segmenter: &Segmenter,
        options: &PipelineOptions,
        format: FrameFormat,
        profile: bool,
    ) -> Result<Self, PipelineError> {
        let graph = build(detector, segmenter, options, format)?;
        let compile = CompileOptions { states: Some(states.clone()), profile };
        let program = Program::compile(graph, device, &compile)?;
        let (input, output) = (vec![0; program.input_bytes()], vec![0; program.output_bytes()]);
        Ok(ResidentProgram { program, input, output, tracks_on_device: !options.matcher.on_host() })
    }

    pub(crate) fn program(&self) -> &Program {
        &self.program
    }

    /// Runs one frame. Copies, waits or allocations beyond the budget of a resident frame are an error.
    pub(crate) fn run(
        &mut self,
        frame: &FrameView<'_>,
        dt_s: f32,
        outcome: &mut Outcome,
    ) -> Result<LatencyMs, PipelineError> {
        let ports = self.program.inputs();
        self.input[ports[0].offset..][..frame.pixels.len()].copy_from_slice(frame.pixels);
        if let Some(port) = ports.get(1) {
            self.input[port.offset..][..4].copy_from_slice(&dt_s.to_le_bytes());
        }
        let ledger = self.program.ledger().clone();
        let before = ledger.counts();
        let start = Instant::now();
        self.program.upload(&self.input)?;
        let uploaded = Instant::now();
        let event = self.program.launch()?;
        self.program.wait(event)?;
        let computed = Instant::now();
        self.program.download(&mut self.output)?;
        let downloaded = Instant::now();
        Budget::RESIDENT_FRAME
            .check(ledger.counts() - before)
            .map_err(ultramotion_engine::DeviceError::from)?;

        let mut latency = LatencyMs {
            total: 0.0,
            upload: ms(uploaded - start),
            download: ms(downloaded - computed),
            ..LatencyMs::default()
        };
        for stage in self.program.stage_times() {
            match stage.stage {
                stages::DETECT => latency.detect += ms(stage.time),
                stages::MATCH => latency.matching += ms(stage.time),
                _ => latency.segment += ms(stage.time),
            }
        }
        let mut entries = self.program.outputs().iter();
        let mut next = || {
            let entry = entries.next().expect("the graph has the outputs that build() gives it");
            &self.output[entry.offset..][..entry.bytes()]
        };
        outcome.boxes_cxcywh.copy_from_slice(bytemuck::cast_slice(next()));
        outcome.scores.copy_from_slice(bytemuck::cast_slice(next()));
        outcome.classes.copy_from_slice(bytemuck::cast_slice(next()));
        outcome.count = bytemuck::cast_slice::<u8, i32>(next())[0];
        outcome.detector_check = bytemuck::cast_slice::<u8, f32>(next())[0];
        outcome.mask_scores.copy_from_slice(bytemuck::cast_slice(next()));
        outcome.mask_areas_px.copy_from_slice(bytemuck::cast_slice(next()));
        outcome.mask_bits.copy_from_slice(next());
        if self.tracks_on_device {
            outcome.track_ids.copy_from_slice(bytemuck::cast_slice(next()));
            outcome.confirmed.copy_from_slice(bytemuck::cast_slice(next()));
            outcome.scene = bytemuck::cast_slice::<u8, i32>(next())[0];
        }
        Ok(latency)
    }
}

pub(crate) fn ms(time: std::time::Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Detector, tracks and segmenter in one graph. The image encoder does not depend on the detector: a device that can
/// run both at once does.
pub(crate) fn build(
    detector: &Detector,
    segmenter: &Segmenter,
    options: &PipelineOptions,
    format: FrameFormat,
) -> Result<Graph, GraphError> {
    let FrameFormat { height, width, channels } = format;
    let mut g = Graph::new("frame");
    let frame = g.input(FRAME, DType::U8, [height, width, channels])?;
    let stages::Detected { detections, check } = stages::detect(&mut g, frame, detector, options)?;
    let tracks = if options.matcher.on_host() {
        None
    } else {
        let dt_s = g.input(DT_S, DType::F32, [1])?;
        Some(stages::track(&mut g, detections, dt_s, options)?)
    };
    let embedding = stages::encode(&mut g, frame, segmenter)?;
    let (boxes, count) = (detections.boxes_cxcywh, detections.count);
    let segments = stages::segment(&mut g, embedding, boxes, count, [height, width], segmenter)?;
    g.output("boxes_cxcywh", detections.boxes_cxcywh)?;
    g.output("scores", detections.scores)?;
    g.output("classes", detections.labels)?;
    g.output("count", detections.count)?;
    g.output("check", check)?;
    g.output("mask_scores", segments.iou)?;
    g.output("mask_areas_px", segments.masks.area_px)?;
    g.output("mask_bits", segments.masks.bits)?;
    if let Some(tracks) = tracks {
        g.output("track_ids", tracks.track_ids)?;
        g.output("confirmed", tracks.confirmed)?;
        g.output("scene", tracks.scene)?;
    }
    Ok(g)
}
