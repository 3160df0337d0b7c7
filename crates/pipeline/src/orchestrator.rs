//! Frame in, packet out.

use std::time::Instant;

use ultramotion_engine::CudaError;
use ultramotion_engine::{Device, DeviceError, KernelTime, StateStore};
use ultramotion_models::zoo::{Detector, Segmenter};
use ultramotion_tracking::track::{Detections, FrameClock, Tracker, Visibility};

use crate::by_format::ByFormat;
use crate::error::PipelineError;
use crate::frame::Frame;
use crate::options::{MAX_OBJECTS, Modes, PipelineOptions, Residency};
use crate::outcome::{FrameFormat, Outcome};
use crate::packet::{DetectedObject, LatencyMs, ResultPacket};
use crate::resident::{ResidentProgram, ms};
use crate::staged::StagedPrograms;
use crate::stages::track_capacity;

enum Programs {
    Resident(Box<ResidentProgram>),
    Staged(Box<StagedPrograms>),
}

/// The pipeline: detector, tracks and segmenter on a device.
///
/// A program is compiled for each size of frame that comes, and kept; tracks outlive a change of size.
pub struct Orchestrator {
    device: Device,
    detector: Detector,
    segmenter: Segmenter,
    options: PipelineOptions,
    states: StateStore,
    programs: ByFormat<FrameFormat, Programs>,
    host_tracker: Option<Tracker>,
    clock: FrameClock,
    outcome: Outcome,
    packet: ResultPacket,
    profile: bool,
}

impl Orchestrator {
    /// A pipeline without tracks, waiting for its first frame.
    pub fn new(
        device: Device,
        detector: Detector,
        segmenter: Segmenter,
        mut options: PipelineOptions,
    ) -> Result<Self, PipelineError> {
        if !(1..=MAX_OBJECTS).contains(&options.max_objects) {
            return Err(PipelineError::Option {
                option: "max-objects",
                value: options.max_objects.to_string(),
                range: format!("1 to {MAX_OBJECTS}"),
            });
        }
        for (option, value) in
            [("score-threshold", options.score_threshold), ("max-overlap-iou", options.max_overlap_iou)]
        {
            if !(0.0..=1.0).contains(&value) {
                let range = "0 to 1".into();
                return Err(PipelineError::Option { option, value: value.to_string(), range });
            }
        }
        options.tracker.solver = options.matcher.solver();
        options.tracker.validate()?;
        let host_tracker = options
            .matcher
            .on_host()
            .then(|| Tracker::new(options.tracker, options.max_objects, track_capacity(&options)))
            .transpose()?;
        let modes =
            Modes { residency: options.residency, matcher: options.matcher, precision: device.precision() };
        let packet = ResultPacket::new(&options, detector.labels(), &device, modes);
        Ok(Orchestrator {
            device,
            detector,
            segmenter,
            options,
            states: StateStore::new(),
            programs: ByFormat::default(),
            host_tracker,
            clock: FrameClock::default(),
            outcome: Outcome::default(),
            packet,
            profile: false,
        })
    }

    /// Times every kernel of the programs compiled from here on; see [`Orchestrator::kernel_times`].
    pub fn profile_kernels(&mut self) {
        self.profile = true;
    }

    /// Choices this pipeline was built with.
    pub fn options(&self) -> &PipelineOptions {
        &self.options
    }
    /// Device it runs on.
    pub fn device(&self) -> &Device {
        &self.device
    }
    /// Detector.
    pub fn detector(&self) -> &Detector {
        &self.detector
    }
    /// Segmenter.
    pub fn segmenter(&self) -> &Segmenter {
        &self.segmenter
    }

    /// Kernels of the program that ran last, in order, with their times when profiled. Empty with `residency = host`.
    pub fn kernel_times(&self) -> Vec<KernelTime> {
        match self.programs.current() {
            Some(Programs::Resident(program)) => program.program().kernel_times(),
            _ => Vec::new(),
        }
    }

    /// Memory on the device of the programs that are kept.
    pub fn memory_bytes(&self) -> usize {
        let of = |programs: &Programs| match programs {
            Programs::Resident(program) => program.program().memory_bytes(),
            Programs::Staged(programs) => programs.memory_bytes(),
        };
        self.programs.iter().map(of).sum()
    }

    /// Compiles for a format, so that the first frame of it does not wait.
    pub fn prepare(&mut self, frame: &Frame<'_>) -> Result<(), PipelineError> {
        frame.check()?;
        self.select_programs(FrameFormat::of(frame))
    }

    /// Processes a frame. The packet is valid until the next one.
    ///
    /// A GPU that fails is given up once: this frame and those after it are computed on the CPU, and their packets say so.
    /// Tracks begin anew.
    pub fn process(&mut self, frame: &Frame<'_>) -> Result<&ResultPacket, PipelineError> {
        let arrival = Instant::now();
        frame.check()?;
        let format = FrameFormat::of(frame);
        let dt_s = self.clock.step(frame.timestamp_s);
        self.outcome.fit(&self.options, format);
        let latency = match self.compute(frame, format, dt_s) {
            Err(PipelineError::Device(DeviceError::Cuda(error))) => {
                self.fall_back(&error);
                self.compute(frame, format, dt_s)?
            }
            result => result?,
        };
        self.fill_packet(frame);
        self.packet.latency_ms = latency;
        self.packet.latency_ms.total = ms(arrival.elapsed());
        Ok(&self.packet)
    }

    /// Runs the frame's programs, and the matcher if it is the host's. Leaves the outcome, and the packet's transfers.
    fn compute(
        &mut self,
        frame: &Frame<'_>,
        format: FrameFormat,
        dt_s: f32,
    ) -> Result<LatencyMs, PipelineError> {
        self.select_programs(format)?;
        let before = self.device.ledger().counts();
        let programs = self.programs.current_mut().expect("select_programs() leaves one");
        let mut latency = match programs {
            Programs::Resident(program) => program.run(frame, dt_s, &mut self.outcome)?,
            Programs::Staged(programs) => programs.run(frame, dt_s, &mut self.outcome)?,
        };
        if let Some(tracker) = &mut self.host_tracker {
            let start = Instant::now();
            match_on_host(tracker, dt_s, &mut self.outcome)?;
            latency.matching = ms(start.elapsed());
        }
        self.packet.transfers = self.device.ledger().counts() - before;
        Ok(latency)
    }

    /// Goes on with the CPU after a GPU has failed.
    fn fall_back(&mut self, error: &CudaError) {
        tracing::error!("the GPU failed, going on with the CPU: {error}");
        self.programs.clear();
        self.states = StateStore::new();
        self.device = Device::cpu(0).instead(error.to_string());
        let modes = Modes { precision: self.device.precision(), ..self.packet.modes };
        self.packet = ResultPacket::new(&self.options, self.detector.labels(), &self.device, modes);
    }

    fn select_programs(&mut self, format: FrameFormat) -> Result<(), PipelineError> {
        let Orchestrator { device, states, detector, segmenter, options, profile, programs, .. } = self;
        programs.select(format, || {
            let start = Instant::now();
            let programs = match options.residency {
                Residency::Device => Programs::Resident(Box::new(ResidentProgram::new(
                    device, states, detector, segmenter, options, format, *profile,
                )?)),
                Residency::Host => Programs::Staged(Box::new(StagedPrograms::new(
                    device, states, detector, segmenter, options, format,
                )?)),
            };
            let FrameFormat { height, width, channels } = format;
            let build_ms = ms(start.elapsed());
            tracing::info!(width, height, channels, build_ms, "compiled for a frame format");
            Ok::<_, PipelineError>(programs)
        })?;
        Ok(())
    }

    fn fill_packet(&mut self, frame: &Frame<'_>) {
        let (packet, outcome) = (&mut self.packet, &self.outcome);
        packet.frame_id = frame.frame_id;
        packet.timestamp_s = frame.timestamp_s;
        packet.source.clear();
        packet.source.push_str(frame.source);
        (packet.width, packet.height) = (frame.width, frame.height);
        packet.state = Visibility::from_i32(outcome.scene);
        packet.latency_ms = LatencyMs::default();
        packet.objects.clear();
        let mask_bytes = FrameFormat::of(frame).mask_bytes();
        (packet.masks.width, packet.masks.height) = (frame.width, frame.height);
        packet.masks.bytes.clear();
        // Room for K at once: more objects than ever before must not cost an allocation.
        packet.masks.bytes.reserve(self.options.max_objects * mask_bytes);
        let fault = outcome.fault();
        if let (None, Some(network)) = (packet.fault, fault) {
            tracing::error!(
                frame = frame.frame_id,
                ?network,
                "answers that are not finite numbers: left out"
            );
        }
        packet.fault = fault;
        let objects = if fault.is_some() { 0 } else { outcome.len() };
        for i in 0..objects {
            // A row that the tracker took for no box is none.
            if outcome.track_ids[i] == 0 {
                continue;
            }
            let b = &outcome.boxes_cxcywh[4 * i..][..4];
            let (w, h) = (frame.width as f32, frame.height as f32);
            let box_xyxy = [
                (b[0] - b[2] / 2.0) * w,
                (b[1] - b[3] / 2.0) * h,
                (b[0] + b[2] / 2.0) * w,
                (b[1] + b[3] / 2.0) * h,
            ];
            packet.objects.push(DetectedObject {
                track_id: outcome.track_ids[i],
                confirmed: outcome.confirmed[i] != 0,
                class: usize::try_from(outcome.classes[i]).unwrap_or(usize::MAX),
                score: outcome.scores[i],
                box_xyxy,
                mask_score: outcome.mask_scores[i],
                mask_area_px: usize::try_from(outcome.mask_areas_px[i]).unwrap_or(0),
            });
            packet.masks.bytes.extend_from_slice(&outcome.mask_bits[i * mask_bytes..][..mask_bytes]);
        }
    }
}

fn match_on_host(tracker: &mut Tracker, dt_s: f32, outcome: &mut Outcome) -> Result<(), PipelineError> {
    let detections = Detections {
        boxes_cxcywh: &outcome.boxes_cxcywh,
        scores: &outcome.scores,
        classes: &outcome.classes,
        count: outcome.len(),
    };
    let tracked = tracker.update(&detections, dt_s)?;
    outcome.track_ids.copy_from_slice(tracked.track_ids);
    outcome.confirmed.copy_from_slice(tracked.confirmed);
    outcome.scene = tracked.scene as i32;
    Ok(())
}
