//! The programs of a pipeline, by the format of frames: compiled when a frame needs them, or beside the frames.

use std::panic::resume_unwind;
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

use ultramotion_engine::{ByFormat, Device, StateStore};
use ultramotion_models::zoo::{Detector, Segmenter};
use ultramotion_types::{FrameError, FrameFormat, Residency};

use crate::error::PipelineError;
use crate::options::PipelineOptions;
use crate::resident::{ResidentProgram, ms};
use crate::staged::StagedPrograms;
use crate::stages::Parts;

/// What is compiled for frames of one format.
pub(crate) enum Programs {
    Resident(Box<ResidentProgram>),
    Staged(Box<StagedPrograms>),
}

impl Programs {
    fn compile(parts: &Parts<'_>, format: FrameFormat, profile: bool) -> Result<Self, PipelineError> {
        let start = Instant::now();
        let programs = match parts.options.residency {
            Residency::Device => Programs::Resident(Box::new(ResidentProgram::new(parts, format, profile)?)),
            Residency::Host => Programs::Staged(Box::new(StagedPrograms::new(parts, format)?)),
        };
        let FrameFormat { height, width, channels } = format;
        tracing::info!(
            width,
            height,
            channels,
            build_ms = ms(start.elapsed()),
            "compiled for a frame format"
        );
        Ok(programs)
    }

    fn memory_bytes(&self) -> usize {
        match self {
            Programs::Resident(program) => program.program().memory_bytes(),
            Programs::Staged(programs) => programs.memory_bytes(),
        }
    }

    fn count_with(&mut self, device: &Device) {
        match self {
            Programs::Resident(program) => program.count_with(device),
            Programs::Staged(programs) => programs.count_with(device),
        }
    }
}

/// Programs that are kept, and the one that is being compiled beside the frames.
#[derive(Default)]
pub(crate) struct KeptPrograms {
    by_format: ByFormat<FrameFormat, Programs>,
    /// Memory that programs may have together; `None` where a frame waits for its program.
    aside: Option<usize>,
    in_work: Option<(FrameFormat, JoinHandle<Result<Programs, PipelineError>>)>,
}

impl KeptPrograms {
    /// Compiles beside the frames from here on, and keeps what fits into so much memory.
    pub(crate) fn compile_aside(&mut self, max_bytes: usize) {
        self.aside = Some(max_bytes);
    }

    /// Lets all go. What is in work is thrown away when it is done.
    pub(crate) fn clear(&mut self) {
        self.by_format.clear();
        self.in_work = None;
    }

    pub(crate) fn current(&self) -> Option<&Programs> {
        self.by_format.current()
    }

    pub(crate) fn current_mut(&mut self) -> Option<&mut Programs> {
        self.by_format.current_mut()
    }

    /// Memory on the device, with what programs share.
    pub(crate) fn memory_bytes(&self, device: &Device) -> usize {
        own_bytes(&self.by_format) + device.shared_bytes()
    }

    /// Makes the programs for a format the current ones.
    ///
    /// # Errors
    /// [`FrameError::Compiling`] where they are compiled beside the frames and are not there yet: frames of other formats
    /// go on. The first format of all has nothing to go on beside it, and is waited for.
    pub(crate) fn select(
        &mut self,
        parts: &Parts<'_>,
        format: FrameFormat,
        profile: bool,
    ) -> Result<(), PipelineError> {
        let Some(max_bytes) = self.aside.filter(|_| self.by_format.current().is_some()) else {
            self.by_format.select(format, || Programs::compile(parts, format, profile))?;
            return Ok(());
        };
        if let Some((of, thread)) = self.in_work.take_if(|(_, thread)| thread.is_finished()) {
            let compiled = thread.join().unwrap_or_else(|panic| resume_unwind(panic));
            match compiled {
                Ok(mut programs) => {
                    programs.count_with(parts.device);
                    self.put(of, programs, max_bytes, parts.device);
                }
                Err(error) if of == format => return Err(error),
                // Its next frame will tell.
                Err(_) => {}
            }
        }
        if self.by_format.find(&format).is_some() {
            return Ok(());
        }
        if self.in_work.is_none() {
            let work = Work::of(parts, format, profile);
            match Builder::new().name("compile".into()).spawn(move || work.compile()) {
                Ok(thread) => self.in_work = Some((format, thread)),
                // Without another thread it is this one's work.
                Err(_) => {
                    let programs = Programs::compile(parts, format, profile)?;
                    self.put(format, programs, max_bytes, parts.device);
                    return Ok(());
                }
            }
        }
        Err(FrameError::Compiling { width: format.width, height: format.height }.into())
    }

    fn put(&mut self, format: FrameFormat, programs: Programs, max_bytes: usize, device: &Device) {
        self.by_format.put(format, programs);
        self.by_format.let_go_until(|kept| own_bytes(kept) + device.shared_bytes() <= max_bytes);
    }
}

fn own_bytes(programs: &ByFormat<FrameFormat, Programs>) -> usize {
    programs.iter().map(Programs::memory_bytes).sum()
}

/// [`Parts`] that a thread of its own can have.
struct Work {
    device: Device,
    states: StateStore,
    detector: Detector,
    segmenter: Segmenter,
    options: PipelineOptions,
    last_id: i32,
    format: FrameFormat,
    profile: bool,
}

impl Work {
    fn of(parts: &Parts<'_>, format: FrameFormat, profile: bool) -> Self {
        Work {
            // The frames meanwhile are not charged for it.
            device: parts.device.counting_aside(),
            states: parts.states.clone(),
            detector: parts.detector.clone(),
            segmenter: parts.segmenter.clone(),
            options: *parts.options,
            last_id: parts.last_id,
            format,
            profile,
        }
    }

    fn compile(self) -> Result<Programs, PipelineError> {
        let Work { device, states, detector, segmenter, options, last_id, format, profile } = &self;
        let parts = Parts { device, states, detector, segmenter, options, last_id: *last_id };
        Programs::compile(&parts, *format, *profile)
    }
}
