//! The devices that programs run on.

use std::fmt;
use std::sync::Arc;

use crate::backend::{Backend, DeviceKind, Precision};
use crate::cpu::CpuBackend;
#[cfg(feature = "cuda")]
use crate::cuda::CudaBackend;
use crate::error::CudaError;
use crate::interpreted::ReferenceBackend;
use crate::ledger::Ledger;

/// A place where programs run. Cloning shares it, its threads and its ledger.
#[derive(Clone)]
pub struct Device {
    pub(crate) backend: Arc<dyn Backend>,
    ledger: Ledger,
    fallback: Option<Arc<str>>,
}

impl Device {
    fn on(backend: impl Backend + 'static) -> Device {
        Device { backend: Arc::new(backend), ledger: Ledger::default(), fallback: None }
    }

    /// The float64 interpreter, for tests: exact and slow.
    pub fn reference() -> Device {
        Device::on(ReferenceBackend)
    }

    /// This machine's processor with a number of threads; 0 takes one for each core.
    pub fn cpu(threads: usize) -> Device {
        Device::on(CpuBackend::new(threads))
    }

    /// The NVIDIA GPU with this number.
    #[cfg(feature = "cuda")]
    pub fn cuda(ordinal: usize, precision: Precision) -> Result<Device, CudaError> {
        Ok(Device::on(CudaBackend::gpu(ordinal, precision)?))
    }

    /// The CUDA backend without a GPU: programs are compiled and can be looked at ([`Program::kernel_times`]), and every
    /// launch is an error.
    ///
    /// [`Program::kernel_times`]: crate::Program::kernel_times
    #[cfg(feature = "cuda")]
    pub fn cuda_plan_only(precision: Precision) -> Device {
        Device::on(CudaBackend::plan_only(precision))
    }

    /// An error: this build has no CUDA backend.
    #[cfg(not(feature = "cuda"))]
    pub fn cuda(_ordinal: usize, _precision: Precision) -> Result<Device, CudaError> {
        Err(CudaError::NotBuilt)
    }

    /// The CUDA backend with kernels that [`build_for_host`](crate::cuda::build_for_host) built for this machine's processor:
    /// for tests where there is no GPU. `seed` sets the order of warps, and of steps in branches that may run at once.
    #[cfg(feature = "cuda")]
    pub fn emulated_cuda(
        kernels: &std::path::Path,
        precision: Precision,
        seed: u64,
    ) -> Result<Device, CudaError> {
        Ok(Device::on(CudaBackend::emulated(kernels, precision, seed)?))
    }

    /// The same device, taken because another could not be had, and why not.
    pub fn instead(self, reason: impl Into<Arc<str>>) -> Device {
        Device { fallback: Some(reason.into()), ..self }
    }

    /// The same device, which counts by itself what is done through this handle: for what is compiled beside a run,
    /// whose budget must not be charged for it. See [`Program::count_with`](crate::Program::count_with).
    pub fn counting_aside(&self) -> Device {
        Device { ledger: Ledger::default(), ..self.clone() }
    }

    /// Memory of what its programs share: packed weights, where the backend lets them share these.
    pub fn shared_bytes(&self) -> usize {
        self.backend.shared_bytes()
    }

    /// Why it was taken instead of another.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// Whether programs on it can run: false for `Device::cuda_plan_only`.
    pub fn runs(&self) -> bool {
        self.backend.runs()
    }

    /// What kind of device it is.
    pub fn kind(&self) -> DeviceKind {
        self.backend.kind()
    }

    /// Name as it stands in packets and reports: `cpu`, `cuda`, `reference`; `cuda-emulated` in tests.
    pub fn name(&self) -> &'static str {
        self.backend.name()
    }

    /// The device, for people.
    pub fn description(&self) -> String {
        self.backend.description()
    }

    /// Number of the GPU whose memory its programs use; 0 for the emulated one, `None` where they use the host's.
    pub fn gpu(&self) -> Option<usize> {
        self.backend.gpu()
    }

    /// Threads of the host that take part in a run.
    pub fn threads(&self) -> usize {
        self.backend.threads()
    }

    /// Instructions in use: `avx512`, `avx2`, `neon`, `portable`; `float64` for the reference, `ptx` on a GPU.
    pub fn instructions(&self) -> &'static str {
        self.backend.instructions()
    }

    /// Number format of stored features: `f32` or `f16`, or `f64` for the reference.
    pub fn precision(&self) -> &'static str {
        self.backend.precision()
    }

    /// Counts this device's transfers, waits and allocations.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({}, {}, {})", self.name(), self.precision(), self.description())
    }
}
