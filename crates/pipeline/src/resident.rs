//! The whole frame as one device program: one copy in, one copy out, nothing in between. Pixels that are on the device
//! already are taken from there.

use std::time::Instant;

use ultramotion_engine::graph::{Graph, GraphError, InputPort};
use ultramotion_engine::ledger::Budget;
use ultramotion_engine::{Device, InputBlock, InputBytes, OutputBlock, Program};
use ultramotion_types::{FrameFormat, FrameView, LatencyMs};

use crate::error::PipelineError;
use crate::outcome::Outcome;
use crate::ports::{
    Asked, DetectPorts, FollowInputs, FollowPorts, MotionPort, QualityPort, SegmentPorts, TrackPorts,
};
use crate::stages::{self, Looks, Parts};

/// A program for frames of one format.
pub(crate) struct ResidentProgram {
    program: Program,
    input: InputBlock,
    output: OutputBlock,
    ports: Ports,
}

struct Ports {
    frame: InputPort<u8>,
    detect: DetectPorts,
    segment: SegmentPorts,
    /// `None` where nothing can be pointed at.
    follow: Option<FollowPorts>,
    /// How the image plane has moved, where somebody wants to know, and what comes of it.
    motion: Option<MotionPort>,
    quality: Option<QualityPort>,
    /// The seconds since the last frame, and what comes of them. `None` when tracks are matched on the host.
    track: Option<(InputPort<f32>, TrackPorts)>,
}

impl ResidentProgram {
    pub(crate) fn new(parts: &Parts<'_>, format: FrameFormat, profile: bool) -> Result<Self, PipelineError> {
        let (graph, ports) = build(parts, format)?;
        let program = parts.compile(graph, profile)?;
        let (input, output) = (program.input_block()?, program.output_block()?);
        Ok(ResidentProgram { program, input, output, ports })
    }

    /// See [`Program::count_with`].
    pub(crate) fn count_with(&mut self, device: &Device) {
        self.program.count_with(device);
    }

    pub(crate) fn program(&self) -> &Program {
        &self.program
    }

    /// Runs one frame. Copies, waits or allocations beyond the budget of a resident frame are an error.
    pub(crate) fn run(
        &mut self,
        frame: &FrameView<'_, InputBytes<'_>>,
        asked: &Asked<'_>,
        outcome: &mut Outcome,
    ) -> Result<LatencyMs, PipelineError> {
        if let Some(port) = &self.ports.follow {
            port.write(&mut self.input, asked);
        }
        if let Some(port) = &self.ports.motion {
            port.write(&mut self.input, &asked.motion);
        }
        if let Some((port, _)) = &self.ports.track {
            port.write(&mut self.input, &[asked.dt_s]);
        }
        let ledger = self.program.ledger().clone();
        let before = ledger.counts();
        let start = Instant::now();
        self.program.upload_with(&mut self.input, self.ports.frame, frame.pixels)?;
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
        self.ports.detect.read(&self.output, outcome);
        self.ports.segment.read(&self.output, outcome);
        if let Some(quality) = &self.ports.quality {
            quality.read(&self.output, outcome);
        }
        if let Some(follow) = &self.ports.follow {
            follow.read(&self.output, &mut outcome.followed);
        }
        if let Some((_, tracks)) = &self.ports.track {
            tracks.read(&self.output, outcome);
        }
        Ok(latency)
    }
}

pub(crate) fn ms(time: std::time::Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Detector, tracks and segmenter in one graph. The image encoder does not depend on the detector: a device that can
/// run both at once does.
fn build(parts: &Parts<'_>, format: FrameFormat) -> Result<(Graph, Ports), GraphError> {
    let FrameFormat { height, width, channels } = format;
    let mut g = Graph::new("frame");
    let (frame, frame_port) = g.input_port("frame", [height, width, channels])?;
    let found = stages::detect(&mut g, frame, parts)?;
    let detections = found.detections;
    let tracks = if parts.options.matcher.on_host() {
        None
    } else {
        let (dt_s, port) = g.input_port("dt_s", [1])?;
        Some((port, stages::track(&mut g, detections, dt_s, parts)?))
    };
    let follow = FollowInputs::declare(&mut g, parts.options.max_prompts)?;
    let embedding = stages::encode(&mut g, frame, parts)?;
    let (boxes, count) = (detections.boxes_cxcywh, detections.count);
    let segments = stages::segment(&mut g, embedding, boxes, count, [height, width], parts)?;
    let (looks, motion) = if tracks.is_some() || follow.is_some() {
        let (motion, port) = MotionPort::declare(&mut g)?;
        (Some(Looks { frame, motion }), Some(port))
    } else {
        (None, None)
    };
    let judged = match (&looks, &tracks) {
        (Some(looks), Some((_, tracks))) => {
            let tracked = [count, tracks.slots, tracks.track_ids];
            Some(stages::judge(&mut g, looks, &segments, tracked, parts)?)
        }
        _ => None,
    };
    let followed = match (&looks, &follow) {
        (Some(looks), Some(inputs)) => {
            let asked = [inputs.commands.0, inputs.dt_s.0];
            Some((inputs, stages::follow(&mut g, embedding, looks, asked, [height, width], parts)?))
        }
        _ => None,
    };
    let detect = DetectPorts::declare(&mut g, &found)?;
    let segment = SegmentPorts::declare(&mut g, &segments)?;
    let quality = match &judged {
        Some(judged) => Some(QualityPort::declare(&mut g, judged)?),
        None => None,
    };
    let follow = match &followed {
        Some((inputs, tensors)) => Some(FollowPorts::declare(&mut g, inputs, tensors)?),
        None => None,
    };
    let track = match tracks {
        Some((port, tracks)) => Some((port, TrackPorts::declare(&mut g, &tracks)?)),
        None => None,
    };
    Ok((g, Ports { frame: frame_port, detect, segment, follow, motion, quality, track }))
}
