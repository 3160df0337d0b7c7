//! What outlives a pipeline: a run may have several, one after another.

use std::sync::atomic::{AtomicI32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ultramotion_engine::CudaError;
use ultramotion_engine::{Device, DeviceKind};

use crate::device_choice::{DeviceChoice, RequestedDevice};

/// The first identity of what was pointed at: the tracker's begin at 1.
pub const FIRST_PROMPT_ID: i32 = 1_000_000_001;

/// A run: the device that was requested and what became of it, and the identities that were given. Cloning shares it.
///
/// Who builds a pipeline again after one has died gives the new one the run of the old, so that no identity is given
/// twice, and a GPU that was taken by itself is not tried again.
///
/// ```
/// use ultramotion_models::zoo::{Detector, Segmenter};
/// use ultramotion_pipeline::{DeviceChoice, Orchestrator, PipelineOptions, RequestedDevice, Run};
///
/// let run = Run::new(DeviceChoice::new(RequestedDevice::Cpu, 2, None)?);
/// let build = |device| {
///     let detector = Detector::open("dfine_n").expect("is built in").with_input_hw([64, 64])?;
///     let segmenter = Segmenter::open("mobile_sam").expect("is built in").with_input_size(64)?;
///     let options = PipelineOptions::default();
///     Ok::<_, Box<dyn std::error::Error>>(Orchestrator::in_run(&run, device, detector, segmenter, options)?)
/// };
/// let first = build(run.open()?)?;
/// assert_eq!(first.device().threads(), 2);
/// drop(first); // died
/// let second = build(run.open_again()?)?;
/// assert_eq!(second.device().threads(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Run(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    choice: DeviceChoice,
    last_id: AtomicI32,
    prompts: AtomicI32,
    gpu: Mutex<Gpu>,
}

/// What became of the GPU.
#[derive(Debug, Default)]
struct Gpu {
    /// Name of the GPU that the last pipeline computes on.
    in_use: Option<&'static str>,
    /// Why the GPU is not used any more.
    given_up: Option<String>,
}

impl Run {
    /// A run without pipelines yet.
    pub fn new(choice: DeviceChoice) -> Self {
        Run(Arc::new(Shared { choice, ..Shared::default() }))
    }

    /// What was requested.
    pub fn choice(&self) -> &DeviceChoice {
        &self.0.choice
    }

    /// Opens the device for the first pipeline.
    ///
    /// # Errors
    /// Those of [`DeviceChoice::open`].
    pub fn open(&self) -> Result<Device, CudaError> {
        self.choice().open()
    }

    /// Opens the device for a pipeline in place of one that has died. A GPU that was taken by itself, and on which it
    /// died, is not tried again.
    ///
    /// # Errors
    /// Those of [`DeviceChoice::open`].
    pub fn open_again(&self) -> Result<Device, CudaError> {
        if self.choice().device() != RequestedDevice::Auto {
            return self.open();
        }
        let mut gpu = self.gpu();
        if let (Some(name), None) = (gpu.in_use, &gpu.given_up) {
            let reason = format!("the pipeline died on {name}");
            tracing::warn!("device auto: the CPU from now on, because {reason}");
            gpu.given_up = Some(reason);
        }
        match &gpu.given_up {
            Some(reason) => Ok(self.choice().cpu_instead(reason.as_str())),
            None => self.open(),
        }
    }

    /// Highest identity given so far; 0 before the first.
    pub fn last_id(&self) -> i32 {
        self.0.last_id.load(Relaxed)
    }

    /// An identity for something that was pointed at. They begin far above those that the tracker gives on the device, so
    /// that they never meet.
    pub(crate) fn next_prompt_id(&self) -> i32 {
        FIRST_PROMPT_ID.saturating_add(self.0.prompts.fetch_add(1, Relaxed))
    }

    /// Notes that a pipeline computes on a device.
    pub(crate) fn computes_on(&self, device: &Device) {
        self.gpu().in_use = (device.kind() == DeviceKind::Cuda).then(|| device.name());
    }

    /// Notes identities that were given.
    pub(crate) fn gave(&self, track_ids: &[i32]) {
        let last_id = track_ids.iter().copied().max().unwrap_or(0);
        self.0.last_id.fetch_max(last_id, Relaxed);
    }

    /// The device that a pipeline goes on with after its GPU has failed.
    pub(crate) fn gpu_failed(&self, error: &CudaError) -> Device {
        tracing::error!("the GPU failed, going on with the CPU: {error}");
        let device = self.choice().cpu_instead(error.to_string());
        *self.gpu() = Gpu { in_use: None, given_up: Some(error.to_string()) };
        device
    }

    fn gpu(&self) -> MutexGuard<'_, Gpu> {
        // Whoever panicked while it was held has died with its pipeline, after the note was made.
        self.0.gpu.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(all(test, feature = "cuda"))]
mod tests {
    use ultramotion_engine::Precision;

    use super::*;

    fn run(device: RequestedDevice) -> Run {
        Run::new(DeviceChoice::new(device, 1, None).expect("can be had"))
    }

    #[test]
    fn a_gpu_on_which_a_pipeline_died_is_not_tried_again() {
        let run = run(RequestedDevice::Auto);
        run.computes_on(&Device::cuda_plan_only(Precision::F16));
        for _ in 0..2 {
            let device = run.open_again().expect("the CPU is there");
            let name = Device::cuda_plan_only(Precision::F16).name();
            assert_eq!((device.name(), device.threads()), ("cpu", 1));
            assert_eq!(device.fallback(), Some(format!("the pipeline died on {name}").as_str()));
            run.computes_on(&device);
        }
    }

    #[test]
    fn a_gpu_that_failed_in_a_stream_is_not_tried_again_and_keeps_its_reason() {
        let run = run(RequestedDevice::Auto);
        run.computes_on(&Device::cuda_plan_only(Precision::F16));
        let device = run.gpu_failed(&CudaError::PlanOnly);
        assert_eq!((device.name(), device.threads()), ("cpu", 1));
        let reason = CudaError::PlanOnly.to_string();
        assert_eq!(device.fallback(), Some(reason.as_str()));
        assert_eq!(run.open_again().expect("the CPU is there").fallback(), Some(reason.as_str()));
    }

    #[test]
    fn a_pipeline_that_died_on_the_cpu_is_followed_by_one_there() {
        let run = run(RequestedDevice::Cpu);
        run.computes_on(&Device::cpu(1));
        assert_eq!(run.open_again().expect("the CPU is there").fallback(), None);
    }

    #[test]
    fn the_highest_identity_is_kept() {
        let run = Run::default();
        run.gave(&[0, 7, 3]);
        run.gave(&[]);
        run.clone().gave(&[5]);
        assert_eq!(run.last_id(), 7);
    }
}
