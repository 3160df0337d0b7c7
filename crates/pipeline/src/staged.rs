//! `residency = host`: every stage is a program of its own and hands over through host memory, as frameworks that
//! return arrays do. For comparison and debugging.

use std::time::Instant;

use ultramotion_engine::graph::{Graph, InputPort, OutputPort};
use ultramotion_engine::ledger::Budget;
use ultramotion_engine::{Device, InputBlock, OutputBlock, Program};
use ultramotion_models::detector::DetectionTensors;
use ultramotion_types::{FrameFormat, FrameView, LatencyMs};

use crate::error::PipelineError;
use crate::outcome::Outcome;
use crate::ports::{
    Asked, DetectPorts, FollowInputs, FollowPorts, MotionPort, QualityPort, SegmentPorts, TrackPorts,
};
use crate::resident::ms;
use crate::stages::{self, Looks, Parts};

/// The stages' programs for frames of one format.
pub(crate) struct StagedPrograms {
    detect: Stage<InputPort<u8>, DetectPorts>,
    /// `None` when tracks are matched on the host.
    track: Option<Stage<TrackInputPorts, TrackPorts>>,
    encode: Stage<InputPort<u8>, OutputPort<f32>>,
    segment: Stage<SegmentInputPorts, SegmentOutputPorts>,
}

/// A program with its values on the host, and the ports to reach them by.
struct Stage<I, O> {
    program: Program,
    input: InputBlock,
    output: OutputBlock,
    inputs: I,
    outputs: O,
}

struct TrackInputPorts {
    boxes_cxcywh: InputPort<f32>,
    scores: InputPort<f32>,
    classes: InputPort<i32>,
    count: InputPort<i32>,
    dt_s: InputPort<f32>,
}

struct SegmentInputPorts {
    embedding: InputPort<f32>,
    boxes_cxcywh: InputPort<f32>,
    count: InputPort<i32>,
    /// Where objects are judged.
    looks: Option<(InputPort<u8>, MotionPort)>,
    /// Slots and identities, where tracks are matched on the device.
    tracks: Option<[InputPort<i32>; 2]>,
}

struct SegmentOutputPorts {
    segment: SegmentPorts,
    quality: Option<QualityPort>,
    follow: Option<FollowPorts>,
}

impl<I, O> Stage<I, O> {
    fn new(parts: &Parts<'_>, graph: Graph, inputs: I, outputs: O) -> Result<Self, PipelineError> {
        let program = parts.compile(graph, false)?;
        let (input, output) = (program.input_block()?, program.output_block()?);
        Ok(Stage { program, input, output, inputs, outputs })
    }

    fn run(&mut self) -> Result<(), PipelineError> {
        Ok(self.program.run_frame(&self.input, &mut self.output, Budget::RESIDENT_FRAME)?)
    }
}

impl StagedPrograms {
    pub(crate) fn new(parts: &Parts<'_>, format: FrameFormat) -> Result<Self, PipelineError> {
        let FrameFormat { height, width, channels } = format;
        let k = parts.options.max_objects;

        let mut g = Graph::new("detect");
        let (frame, frame_port) = g.input_port("frame", [height, width, channels])?;
        let found = stages::detect(&mut g, frame, parts)?;
        let outputs = DetectPorts::declare(&mut g, &found)?;
        let detect = Stage::new(parts, g, frame_port, outputs)?;

        let track = if parts.options.matcher.on_host() {
            None
        } else {
            let mut g = Graph::new("track");
            let (boxes_cxcywh, boxes_port) = g.input_port("boxes_cxcywh", [k, 4])?;
            let (scores, scores_port) = g.input_port("scores", [k])?;
            let (classes, classes_port) = g.input_port("classes", [k])?;
            let (count, count_port) = g.input_port("count", [1])?;
            let (dt_s, dt_s_port) = g.input_port("dt_s", [1])?;
            let detections = DetectionTensors { boxes_cxcywh, scores, classes, count };
            let tracks = stages::track(&mut g, detections, dt_s, parts)?;
            let inputs = TrackInputPorts {
                boxes_cxcywh: boxes_port,
                scores: scores_port,
                classes: classes_port,
                count: count_port,
                dt_s: dt_s_port,
            };
            let outputs = TrackPorts::declare(&mut g, &tracks)?;
            Some(Stage::new(parts, g, inputs, outputs)?)
        };

        let mut g = Graph::new("encode");
        let (frame, frame_port) = g.input_port("frame", [height, width, channels])?;
        let embedding = stages::encode(&mut g, frame, parts)?;
        let embedding_shape = g.shape(embedding).clone();
        let outputs = g.output_port("embedding", embedding)?;
        let encode = Stage::new(parts, g, frame_port, outputs)?;

        let mut g = Graph::new("segment");
        let (embedding, embedding_port) = g.input_port("embedding", embedding_shape)?;
        let (boxes, boxes_port) = g.input_port("boxes_cxcywh", [k, 4])?;
        let (count, count_port) = g.input_port("count", [1])?;
        let follow = FollowInputs::declare(&mut g, parts.options.max_prompts)?;
        let segments = stages::segment(&mut g, embedding, boxes, count, [height, width], parts)?;
        let (looks, look_ports) = if track.is_some() || follow.is_some() {
            let (frame, frame_port) = g.input_port("frame", [height, width, channels])?;
            let (motion, motion_port) = MotionPort::declare(&mut g)?;
            (Some(Looks { frame, motion }), Some((frame_port, motion_port)))
        } else {
            (None, None)
        };
        let (quality, tracks) = match (&looks, &track) {
            (Some(looks), Some(_)) => {
                let (slots, slots_port) = g.input_port("slots", [k])?;
                let (track_ids, ids_port) = g.input_port("track_ids", [k])?;
                let judged = stages::judge(&mut g, looks, &segments, [count, slots, track_ids], parts)?;
                (Some(QualityPort::declare(&mut g, &judged)?), Some([slots_port, ids_port]))
            }
            _ => (None, None),
        };
        let follow = match (&looks, &follow) {
            (Some(looks), Some(inputs)) => {
                let asked = [inputs.commands.0, inputs.dt_s.0];
                let tensors = stages::follow(&mut g, embedding, looks, asked, [height, width], parts)?;
                Some(FollowPorts::declare(&mut g, inputs, &tensors)?)
            }
            _ => None,
        };
        let inputs = SegmentInputPorts {
            embedding: embedding_port,
            boxes_cxcywh: boxes_port,
            count: count_port,
            looks: look_ports,
            tracks,
        };
        let outputs =
            SegmentOutputPorts { segment: SegmentPorts::declare(&mut g, &segments)?, quality, follow };
        let segment = Stage::new(parts, g, inputs, outputs)?;
        Ok(StagedPrograms { detect, track, encode, segment })
    }

    pub(crate) fn run(
        &mut self,
        frame: &FrameView<'_>,
        asked: &Asked<'_>,
        outcome: &mut Outcome,
    ) -> Result<LatencyMs, PipelineError> {
        let mut latency = LatencyMs::default();
        let StagedPrograms { detect, track, encode, segment } = self;

        let start = Instant::now();
        detect.inputs.write(&mut detect.input, frame.pixels);
        detect.run()?;
        detect.outputs.read(&detect.output, outcome);
        latency.detect = ms(start.elapsed());

        if let Some(track) = track {
            let start = Instant::now();
            track.inputs.boxes_cxcywh.write(&mut track.input, &outcome.boxes_cxcywh);
            track.inputs.scores.write(&mut track.input, &outcome.scores);
            track.inputs.classes.write(&mut track.input, &outcome.classes);
            track.inputs.count.write(&mut track.input, &[outcome.count]);
            track.inputs.dt_s.write(&mut track.input, &[asked.dt_s]);
            track.run()?;
            track.outputs.read(&track.output, outcome);
            latency.matching = ms(start.elapsed());
        }

        let start = Instant::now();
        encode.inputs.write(&mut encode.input, frame.pixels);
        encode.run()?;
        segment.inputs.embedding.write(&mut segment.input, encode.outputs.read(&encode.output));
        segment.inputs.boxes_cxcywh.write(&mut segment.input, &outcome.boxes_cxcywh);
        segment.inputs.count.write(&mut segment.input, &[outcome.count]);
        if let Some((frame_port, motion)) = &segment.inputs.looks {
            frame_port.write(&mut segment.input, frame.pixels);
            motion.write(&mut segment.input, &asked.motion);
        }
        if let Some([slots, track_ids]) = &segment.inputs.tracks {
            slots.write(&mut segment.input, &outcome.slots);
            track_ids.write(&mut segment.input, &outcome.track_ids);
        }
        let SegmentOutputPorts { segment: segments, quality, follow } = &segment.outputs;
        if let Some(follow) = follow {
            follow.write(&mut segment.input, asked);
        }
        segment.program.run_frame(&segment.input, &mut segment.output, Budget::RESIDENT_FRAME)?;
        segments.read(&segment.output, outcome);
        if let Some(quality) = quality {
            quality.read(&segment.output, outcome);
        }
        if let Some(follow) = follow {
            follow.read(&segment.output, &mut outcome.followed);
        }
        latency.segment = ms(start.elapsed());
        Ok(latency)
    }

    /// See [`Program::count_with`].
    pub(crate) fn count_with(&mut self, device: &Device) {
        for program in [&mut self.detect.program, &mut self.encode.program, &mut self.segment.program] {
            program.count_with(device);
        }
        if let Some(track) = &mut self.track {
            track.program.count_with(device);
        }
    }

    /// Device memory of all stages.
    pub(crate) fn memory_bytes(&self) -> usize {
        let track = self.track.as_ref().map_or(0, |track| track.program.memory_bytes());
        [&self.detect.program, &self.encode.program, &self.segment.program]
            .map(Program::memory_bytes)
            .iter()
            .sum::<usize>()
            + track
    }
}
