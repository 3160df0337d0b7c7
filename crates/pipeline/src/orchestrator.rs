//! Frame in, packet out.

use std::sync::Arc;
use std::time::Instant;

use ultramotion_engine::CudaError;
use ultramotion_engine::ledger::Counts;
use ultramotion_engine::{Device, DeviceError, InputBytes, KernelTime, OutOfMemory, StateStore};
use ultramotion_models::zoo::{Detector, Segmenter};
use ultramotion_tracking::follow::status;
use ultramotion_tracking::quality::{Motion, QualityGate};
use ultramotion_tracking::track::{Detections, FrameClock, Tracker};
use ultramotion_types::{
    DetectedObject, Fault, FrameError, FrameFormat, FrameView, LatencyMs, Modes, PromptCommand, PromptError,
    Residency, ResultPacket, Transfers, Visibility, boxes,
};

use crate::error::PipelineError;
use crate::motion::Plane;
use crate::options::{MAX_OBJECTS, MAX_PROMPTS, PipelineOptions};
use crate::outcome::{Outcome, quality_of};
use crate::ports::Asked;
use crate::programs::{KeptPrograms, Programs};
use crate::prompting::Prompting;
use crate::resident::ms;
use crate::run::Run;
use crate::stages::{Parts, track_capacity};
use crate::time_unit::TimeUnit;

/// The pipeline: detector, tracks and segmenter on a device.
///
/// A program is compiled for each size of frame that comes, and kept; tracks outlive a change of size.
pub struct Orchestrator {
    run: Run,
    device: Device,
    detector: Detector,
    segmenter: Segmenter,
    options: PipelineOptions,
    states: StateStore,
    /// How often tracks began anew.
    epoch: u64,
    /// The highest identity that was given before this epoch.
    last_id: i32,
    programs: KeptPrograms,
    host_tracker: Option<Tracker>,
    clock: FrameClock,
    time_unit: TimeUnit,
    outcome: Outcome,
    prompting: Prompting,
    plane: Plane,
    gate: QualityGate,
    modes: Modes,
    fallback: Option<Arc<str>>,
    /// Of the last frame: a fault is said when it begins.
    fault: Option<Fault>,
    packet: ResultPacket,
    profile: bool,
}

impl Orchestrator {
    /// A pipeline without tracks, waiting for its first frame, in a run of its own.
    pub fn new(
        device: Device,
        detector: Detector,
        segmenter: Segmenter,
        options: PipelineOptions,
    ) -> Result<Self, PipelineError> {
        Self::in_run(&Run::default(), device, detector, segmenter, options)
    }

    /// A pipeline in a run that may have had others: its identities go on where theirs end.
    pub fn in_run(
        run: &Run,
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
        if options.max_prompts > MAX_PROMPTS {
            return Err(PipelineError::Option {
                option: "max-prompts",
                value: options.max_prompts.to_string(),
                range: format!("0 to {MAX_PROMPTS}"),
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
        options.tracker.solver = options.matcher.into();
        options.tracker.validate()?;
        if options.tracker.quality.gate && options.matcher.on_host() {
            return Err(PipelineError::Option {
                option: "tracker.quality.gate",
                value: "true".into(),
                range: "false with a matcher on the host, which has no quality to go by".into(),
            });
        }
        let last_id = run.last_id();
        let mut host_tracker = options
            .matcher
            .on_host()
            .then(|| Tracker::new(options.tracker, options.max_objects, track_capacity(&options)))
            .transpose()?;
        if let Some(tracker) = &mut host_tracker {
            tracker.begin_anew(last_id);
        }
        run.computes_on(&device);
        let modes =
            Modes { residency: options.residency, matcher: options.matcher, precision: device.precision() };
        Ok(Orchestrator {
            run: run.clone(),
            prompting: Prompting::new(options.max_prompts, detector.labels()),
            plane: Plane::default(),
            gate: new_gate(&options),
            modes,
            fallback: device.fallback().map(Arc::from),
            fault: None,
            device,
            detector,
            segmenter,
            options,
            states: StateStore::new(),
            epoch: 0,
            last_id,
            programs: KeptPrograms::default(),
            host_tracker,
            clock: FrameClock::default(),
            time_unit: TimeUnit::default(),
            outcome: Outcome::default(),
            packet: ResultPacket::default(),
            profile: false,
        })
    }

    /// Times every kernel of the programs compiled from here on; see [`Orchestrator::kernel_times`].
    pub fn profile_kernels(&mut self) {
        self.profile = true;
    }

    /// For live streams: the program for a new format of frames is compiled beside the stream, and until it is there
    /// frames of that format are refused ([`FrameError::Compiling`]) while others go on. Programs are kept as long as they
    /// have no more than so much memory together; the one in use always is.
    pub fn compile_aside(&mut self, max_program_bytes: usize) {
        self.programs.compile_aside(max_program_bytes);
    }

    /// Takes what somebody points at, for the next frame on: something to follow, a point more about it, or that it is to be let
    /// go. What is followed is outlined beside what the detector finds, as objects of their own
    /// ([`prompted`](DetectedObject::prompted)), until it is not seen for `prompts.forget_s`.
    ///
    /// # Errors
    /// The reason why not; everything goes on as it was.
    pub fn prompt(&mut self, command: &PromptCommand) -> Result<(), PromptError> {
        self.prompting.take(command, &self.run)
    }

    /// Where stages hand over from the next frame on. Programs are compiled anew when that changes; tracks go on.
    pub fn set_residency(&mut self, residency: Residency) {
        if residency != self.options.residency {
            self.options.residency = residency;
            self.modes.residency = residency;
            self.programs.clear();
        }
    }

    /// Forgets all tracks, for a stream that has nothing to do with the frames so far: identities begin where this
    /// pipeline's began. Programs stay.
    pub fn begin_stream(&mut self) -> Result<(), PipelineError> {
        self.states.reset()?;
        self.prompting.end();
        if let Some(tracker) = &mut self.host_tracker {
            tracker.begin_anew(self.last_id);
        }
        self.clock = FrameClock::default();
        self.plane = Plane::default();
        self.gate = new_gate(&self.options);
        self.fault = None;
        Ok(())
    }

    /// Choices this pipeline was built with.
    pub fn options(&self) -> &PipelineOptions {
        &self.options
    }
    /// Device it runs on.
    pub fn device(&self) -> &Device {
        &self.device
    }
    /// How often tracks began anew, as after a GPU has failed. Identities go on all the same: none is given twice.
    pub fn epoch(&self) -> u64 {
        self.epoch
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

    /// Memory on the device of the programs that are kept, with the weights that they share.
    pub fn memory_bytes(&self) -> usize {
        self.programs.memory_bytes(&self.device)
    }

    /// Compiles for a format, so that the first frame of it does not wait. A GPU that fails at it is given up, as in
    /// [`Orchestrator::process_into`].
    pub fn prepare(&mut self, frame: &FrameView<'_>) -> Result<(), PipelineError> {
        frame.check()?;
        self.or_on_cpu(|pipeline| pipeline.select_programs(frame.format()))
    }

    /// Processes a frame. The packet is valid until the next one.
    ///
    /// # Errors
    /// As [`Orchestrator::process_into`].
    pub fn process<'a, P: Into<InputBytes<'a>> + Copy>(
        &mut self,
        frame: &FrameView<'a, P>,
    ) -> Result<&ResultPacket, PipelineError> {
        let mut packet = std::mem::take(&mut self.packet);
        let result = self.process_into(frame, &mut packet);
        self.packet = packet;
        result.map(|()| &self.packet)
    }

    /// Processes a frame, and fills a packet of the caller's, whose memory is used again.
    ///
    /// Pixels that are on the pipeline's own GPU ([`DeviceSlice`](ultramotion_engine::DeviceSlice)) stay there: one copy within
    /// the device takes them in.
    ///
    /// A GPU that fails is given up once: this frame and those after it are computed on the CPU, and their packets say so.
    /// Tracks begin anew ([`Orchestrator::epoch`]).
    ///
    /// # Errors
    /// A [`PipelineError::Frame`] is about this frame alone. The packet's content means nothing then.
    pub fn process_into<'a, P: Into<InputBytes<'a>> + Copy>(
        &mut self,
        frame: &FrameView<'a, P>,
        packet: &mut ResultPacket,
    ) -> Result<(), PipelineError> {
        self.process_bytes(&frame.with_pixels(frame.pixels.into()), packet)
    }

    fn process_bytes(
        &mut self,
        frame: &FrameView<'_, InputBytes<'_>>,
        packet: &mut ResultPacket,
    ) -> Result<(), PipelineError> {
        let arrival = Instant::now();
        frame.check_bytes(frame.pixels.bytes())?;
        // Before the clock, which a frame that cannot be processed must not move.
        self.check_place(frame.pixels)?;
        let format = frame.format();
        self.or_on_cpu(|pipeline| pipeline.select_programs(format))?;
        let dt_s = self.clock.step(frame.timestamp_s);
        let tracker = &self.options.tracker;
        if !tracker.independent
            && let Some(words) = self.time_unit.note(dt_s, tracker.forget_s)
        {
            tracing::warn!("{words}");
        }
        packet.begin(format.width, format.height, self.options.max_objects + self.options.max_prompts)?;
        self.outcome.fit(&self.options, format)?;
        self.prompting.ask(format.width, format.height);
        let motion = self.plane.step(frame.tracker_from_pixels);
        let (latency, counts) = self.or_on_cpu(|pipeline| pipeline.compute(frame, format, dt_s, motion))?;
        self.run.gave(&self.outcome.track_ids);
        self.fill(packet, frame, dt_s);
        packet.transfers = transfers(counts);
        packet.latency_ms = LatencyMs { total: ms(arrival.elapsed()), ..latency };
        Ok(())
    }

    /// Runs the frame's programs, and the matcher if it is the host's. Leaves the outcome.
    fn compute(
        &mut self,
        frame: &FrameView<'_, InputBytes<'_>>,
        format: FrameFormat,
        dt_s: f32,
        motion: Motion,
    ) -> Result<(LatencyMs, Counts), PipelineError> {
        // Again: where a GPU has failed, the CPU cannot read what is on it.
        self.check_place(frame.pixels)?;
        self.select_programs(format)?;
        let before = self.device.ledger().counts();
        let asked = Asked { dt_s, motion, commands: self.prompting.commands() };
        let programs = self.programs.current_mut().expect("select_programs() leaves one");
        let mut latency = match (programs, frame.pixels) {
            (Programs::Resident(program), _) => program.run(frame, &asked, &mut self.outcome)?,
            (Programs::Staged(programs), InputBytes::Host(pixels)) => {
                programs.run(&frame.with_pixels(pixels), &asked, &mut self.outcome)?
            }
            (Programs::Staged(_), InputBytes::Device(_)) => return Err(FrameError::NotOnHost.into()),
        };
        if let Some(tracker) = &mut self.host_tracker {
            let start = Instant::now();
            match_on_host(tracker, dt_s, &mut self.outcome)?;
            latency.matching = ms(start.elapsed());
        }
        Ok((latency, self.device.ledger().counts() - before))
    }

    /// An error where the pipeline cannot take pixels from where they are.
    fn check_place(&self, pixels: InputBytes<'_>) -> Result<(), FrameError> {
        let InputBytes::Device(slice) = pixels else { return Ok(()) };
        if self.device.gpu() != Some(slice.gpu()) {
            let computes_on = self.device.gpu().map_or_else(|| "the CPU".into(), |gpu| format!("GPU {gpu}"));
            return Err(FrameError::Elsewhere { gpu: slice.gpu(), computes_on });
        }
        match self.options.residency {
            Residency::Device => Ok(()),
            Residency::Host => Err(FrameError::NotOnHost),
        }
    }

    /// Does something, and does it again on the CPU if a GPU fails at it.
    fn or_on_cpu<T>(
        &mut self,
        work: impl Fn(&mut Self) -> Result<T, PipelineError>,
    ) -> Result<T, PipelineError> {
        match work(self) {
            Err(PipelineError::Device(DeviceError::Cuda(error))) => {
                self.fall_back(&error);
                work(self)
            }
            result => result,
        }
    }

    /// Goes on with the CPU after a GPU has failed.
    fn fall_back(&mut self, error: &CudaError) {
        self.device = self.run.gpu_failed(error);
        self.programs.clear();
        self.states = StateStore::new();
        self.prompting.end();
        self.gate = new_gate(&self.options);
        self.epoch += 1;
        self.last_id = self.run.last_id();
        if let Some(tracker) = &mut self.host_tracker {
            tracker.begin_anew(self.last_id);
        }
        self.modes.precision = self.device.precision();
        self.fallback = self.device.fallback().map(Arc::from);
    }

    fn select_programs(&mut self, format: FrameFormat) -> Result<(), PipelineError> {
        let Orchestrator { device, states, detector, segmenter, options, profile, programs, .. } = self;
        let parts = Parts { device, states, detector, segmenter, options, last_id: self.last_id };
        programs.select(&parts, format, *profile).map_err(|error| of_frame(error, format))
    }

    /// Everything but times, transfers, and what [`ResultPacket::begin`] has set.
    fn fill(&mut self, packet: &mut ResultPacket, frame: &FrameView<'_, InputBytes<'_>>, dt_s: f32) {
        let outcome = &self.outcome;
        packet.frame_id = frame.frame_id;
        packet.timestamp_s = frame.timestamp_s;
        packet.time_source = frame.time_source;
        packet.source.clear();
        packet.source.push_str(frame.source);
        packet.state = Visibility::from_i32(outcome.scene);
        packet.device = self.device.name();
        packet.modes = self.modes;
        packet.fallback.clone_from(&self.fallback);
        packet.labels.clone_from(self.prompting.labels());
        packet.fault = outcome.fault();
        if let (None, Some(network)) = (self.fault, packet.fault) {
            tracing::error!(
                frame = frame.frame_id,
                ?network,
                "answers that are not finite numbers: left out"
            );
        }
        self.fault = packet.fault;
        let quality = self.options.tracker.quality;
        let mut in_view = false;
        self.gate.begin();
        let objects = if packet.fault.is_some() { 0 } else { outcome.len() };
        let mask_bytes = frame.format().mask_bytes();
        let (boxes_cxcywh, _) = outcome.boxes_cxcywh.as_chunks::<4>();
        for (i, &box_cxcywh) in boxes_cxcywh.iter().enumerate().take(objects) {
            // A row without an identity is one that the tracker could not take for a box.
            if outcome.track_ids[i] == 0 {
                continue;
            }
            let object = DetectedObject {
                track_id: outcome.track_ids[i],
                confirmed: outcome.confirmed[i] != 0,
                class: usize::try_from(outcome.classes[i]).unwrap_or(usize::MAX),
                score: outcome.scores[i],
                box_xyxy: boxes::xyxy_from_cxcywh(box_cxcywh, frame.width, frame.height),
                mask_score: outcome.mask_scores[i],
                mask_area_px: usize::try_from(outcome.mask_areas_px[i]).unwrap_or(0),
                prompted: false,
                quality: quality_of(&outcome.quality, i),
            };
            let mean = object.quality.map_or(0.0, |quality| quality.mean);
            in_view |= quality.gate && self.gate.passes(&quality, object.track_id, mean) && object.confirmed;
            packet.push(object, &outcome.mask_bits[i * mask_bytes..][..mask_bytes]);
        }
        in_view |= self.fill_followed(packet, mask_bytes);
        if quality.gate {
            packet.state = self.gate.scene(packet.state, in_view, dt_s, self.options.tracker.relocalize_s);
        }
    }

    /// Objects that were pointed at, behind those that were found. One that is in sight makes the scene visible. Gives whether one
    /// passes the gate.
    fn fill_followed(&mut self, packet: &mut ResultPacket, mask_bytes: usize) -> bool {
        let quality = &self.options.tracker.quality;
        let mut in_view = false;
        let followed = &self.outcome.followed;
        let rows = if packet.fault.is_some() { 0 } else { followed.len() };
        let (boxes_xyxy, _) = followed.boxes_xyxy.as_chunks::<4>();
        for row in (0..rows).filter(|&row| followed.statuses[row] == status::SEEN) {
            let slot = usize::try_from(followed.slots[row]).unwrap_or(usize::MAX);
            let Some((track_id, class)) = self.prompting.of(slot) else { continue };
            let object = DetectedObject {
                track_id,
                confirmed: true,
                class,
                score: followed.mask_scores[row],
                box_xyxy: boxes_xyxy[row].map(|side| side as f32),
                mask_score: followed.mask_scores[row],
                mask_area_px: usize::try_from(followed.mask_areas_px[row]).unwrap_or(0),
                prompted: true,
                quality: quality_of(&followed.quality, row),
            };
            let mean = object.quality.map_or(0.0, |quality| quality.mean);
            in_view |= quality.gate && self.gate.passes(quality, track_id, mean);
            packet.push(object, &followed.mask_bits[row * mask_bytes..][..mask_bytes]);
            packet.state = Visibility::Visible;
        }
        let rows = followed.len();
        self.prompting.took(&followed.slots[..rows], &followed.statuses[..rows]);
        in_view
    }
}

fn new_gate(options: &PipelineOptions) -> QualityGate {
    QualityGate::new(options.max_objects + options.max_prompts)
}

/// Memory that cannot be had for a frame is that frame's fault: a smaller one may find it.
fn of_frame(error: PipelineError, FrameFormat { height, width, .. }: FrameFormat) -> PipelineError {
    match error {
        PipelineError::Device(DeviceError::OutOfMemory(OutOfMemory { bytes })) => {
            FrameError::Memory { width, height, bytes }.into()
        }
        error => error,
    }
}

/// What a packet says of the ledger's counts.
pub fn transfers(counts: Counts) -> Transfers {
    let Counts { h2d, h2d_bytes, d2h, d2h_bytes, d2d, d2d_bytes, host_syncs, allocations, .. } = counts;
    Transfers { h2d, h2d_bytes, d2h, d2h_bytes, d2d, d2d_bytes, host_syncs, allocations }
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
