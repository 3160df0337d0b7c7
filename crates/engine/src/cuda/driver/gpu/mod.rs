//! A GPU, through the CUDA driver API: one context, one stream that orders everything, and graphs that are captured on streams
//! of their own, one for each branch.
#![allow(unsafe_code)]

mod capture;
mod handles;
mod kernels;

use std::sync::Arc;
use std::time::Duration;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

use super::{Driver, Replay, Schedule, ScheduledStep};
use crate::device_slice::DeviceSlice;
use crate::error::CudaError;
use crate::launch::Launch;
use capture::Captured;
use handles::{Event, Pinned};
use kernels::{Kernel, Kernels};

/// The oldest CUDA version of a driver that can do what is asked here, and the first driver that has it: it compiles for Ada and
/// Hopper. Newer GPUs come with newer drivers. cudarc's feature in `Cargo.toml` says the same.
const NEEDED: (i32, i32) = (11, 8);
const NEEDED_DRIVER: u32 = 520;
/// Compute capability that the PTX is for; later ones run it too.
const MIN_CAPABILITY: (i32, i32) = (8, 0);
/// From here on a kernel's blocks may begin before the one before it is done: compute capability, and the CUDA version of a
/// driver that captures it into graphs.
const OVERLAP_CAPABILITY: (i32, i32) = (9, 0);
const OVERLAP_VERSION: (i32, i32) = (12, 3);
/// `0` keeps kernels one after another, to measure what their overlap gives.
const OVERLAP_SETTING: &str = "ULTRAMOTION_OVERLAP";

/// The stream that work without a stream of its own goes to: CU_STREAM_LEGACY.
const LEGACY_STREAM: sys::CUstream = std::ptr::without_provenance_mut(1);

/// A GPU. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Gpu(Arc<Shared>);

struct Shared {
    device: sys::CUdevice,
    context: sys::CUcontext,
    /// Everything that programs start is ordered here.
    stream: sys::CUstream,
    kernels: Kernels,
    /// Whether kernels may begin before the one before them is done.
    overlap: bool,
    description: String,
}

// SAFETY: driver handles may be used from any thread that has made the context current, which every function here does.
unsafe impl Send for Shared {}
// SAFETY: as above; the map of kernels has a lock.
unsafe impl Sync for Shared {}

fn check<T>(call: &'static str, result: Result<T, DriverError>) -> Result<T, CudaError> {
    result.map_err(|e| {
        let name = e.error_name().map_or_else(|_| format!("{:?}", e.0), |n| n.to_string_lossy().into_owned());
        let text = e.error_string().map_or_else(|_| String::new(), |t| t.to_string_lossy().into_owned());
        CudaError::Call { call, reason: format!("{name}: {text}") }
    })
}

impl Gpu {
    /// Opens the GPU with this number.
    pub(crate) fn open(ordinal: usize) -> Result<Gpu, CudaError> {
        // SAFETY: looks for the driver's library, and loads it if it is there. It must be asked first: without the library,
        // every other call panics.
        if !unsafe { sys::is_culib_present() } {
            return Err(CudaError::NoDriver);
        }
        let version = {
            let mut version = 0;
            // SAFETY: writes one integer; needs no initialisation.
            check("cuDriverGetVersion", unsafe { sys::cuDriverGetVersion(&mut version) }.result())?;
            (version / 1000, version % 1000 / 10)
        };
        if version < NEEDED {
            return Err(CudaError::DriverTooOld {
                major: version.0,
                minor: version.1,
                needed_major: NEEDED.0,
                needed_minor: NEEDED.1,
                needed_driver: NEEDED_DRIVER,
            });
        }
        match result::init() {
            Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => {
                return Err(CudaError::NoDevice { ordinal, count: 0 });
            }
            started => check("cuInit", started)?,
        }
        let count = check("cuDeviceGetCount", result::device::get_count())?.max(0) as usize;
        if ordinal >= count {
            return Err(CudaError::NoDevice { ordinal, count });
        }
        let device = check("cuDeviceGet", result::device::get(ordinal as i32))?;
        let name = check("cuDeviceGetName", result::device::get_name(device))?;
        let attribute = |which| {
            // SAFETY: the device was just obtained.
            check("cuDeviceGetAttribute", unsafe { result::device::get_attribute(device, which) })
        };
        use sys::CUdevice_attribute as A;
        let major = attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        if (major, minor) < MIN_CAPABILITY {
            return Err(CudaError::Unsupported { name, major, minor });
        }
        // SAFETY: the device is valid; the context is released when the last user of `Shared` is gone.
        let context = check("cuDevicePrimaryCtxRetain", unsafe { result::primary_ctx::retain(device) })?;
        // SAFETY: the context was just obtained.
        check("cuCtxSetCurrent", unsafe { result::ctx::set_current(context) })?;
        let stream =
            check("cuStreamCreate", result::stream::create(result::stream::StreamKind::NonBlocking))?;
        let description = format!(
            "{name}, compute capability {major}.{minor}, driver for CUDA {}.{}",
            version.0, version.1
        );
        let overlap = (major, minor) >= OVERLAP_CAPABILITY
            && version >= OVERLAP_VERSION
            && std::env::var_os(OVERLAP_SETTING).is_none_or(|value| value != "0");
        let kernels = Kernels::default();
        Ok(Gpu(Arc::new(Shared { device, context, stream, kernels, overlap, description })))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: nobody holds memory, modules or graphs of this context any more: they hold an `Arc` of this.
        // Errors of a context that has failed are of no use to anyone here.
        unsafe {
            let _ = result::ctx::set_current(self.context);
            let _ = result::stream::destroy(self.stream);
            self.kernels.unload();
            let _ = result::primary_ctx::release(self.device);
        }
    }
}

impl Shared {
    fn enter(&self) -> Result<(), CudaError> {
        // SAFETY: the context lives as long as `self`.
        check("cuCtxSetCurrent", unsafe { result::ctx::set_current(self.context) })
    }
}

impl Driver for Gpu {
    fn description(&self) -> String {
        self.0.description.clone()
    }

    fn allocate(&self, bytes: usize) -> Result<u64, CudaError> {
        self.0.enter()?;
        // SAFETY: the memory is released by `release`, which `Allocation` calls.
        match unsafe { result::malloc_sync(bytes) } {
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => {
                let (free, total) = result::mem_get_info().unwrap_or((0, 0));
                Err(CudaError::OutOfMemory { needed: bytes, free, total })
            }
            other => check("cuMemAlloc", other),
        }
    }

    fn release(&self, address: u64) {
        if self.0.enter().is_ok() {
            // SAFETY: an address of `allocate`; freeing waits for whatever still runs.
            let _ = unsafe { result::free_sync(address) };
        }
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), CudaError> {
        self.0.enter()?;
        // In the stream, after what was started before: a copy outside of it may still be under way when it returns.
        // SAFETY: inside an allocation, as `Allocation` and the bump allocator of weights see to; the bytes are waited for.
        unsafe {
            check("cuMemcpyHtoDAsync", result::memcpy_htod_async(address, bytes, self.0.stream))?;
            check("cuStreamSynchronize", result::stream::synchronize(self.0.stream))
        }
    }

    fn prepare(&self, schedule: Schedule) -> Result<Box<dyn Replay>, CudaError> {
        self.0.enter()?;
        let input = Pinned::new(&self.0, schedule.input.1)?;
        let output = Pinned::new(&self.0, schedule.output.1)?;
        // A grid of nothing is no launch to the driver.
        let launched = |launch: &&Launch| !launch.grid.contains(&0);
        let launches = || schedule.steps.iter().flat_map(|step| &step.launches);
        self.0.kernels.load(&self.0, launches().filter(launched))?;
        let bind = |step: &ScheduledStep| -> Vec<Kernel> {
            step.launches.iter().filter(launched).map(|launch| self.0.kernels.bind(launch)).collect()
        };
        let kernels: Vec<Vec<Kernel>> = schedule.steps.iter().map(bind).collect();
        let made = Event::new(&self.0, false)?;
        let done = Event::new(&self.0, false)?;
        let times = vec![Duration::ZERO; schedule.steps.len()];
        let work = if schedule.profile {
            let events: Result<Vec<Event>, CudaError> =
                (0..=kernels.len()).map(|_| Event::new(&self.0, true)).collect();
            Work::Profiled { kernels, events: events? }
        } else {
            Work::Captured(Captured::new(&self.0, &schedule, &kernels)?)
        };
        Ok(Box::new(GpuReplay {
            gpu: self.0.clone(),
            schedule,
            input,
            output,
            work,
            made,
            done,
            in_flight: false,
            times,
        }))
    }
}

enum Work {
    Captured(Captured),
    /// One after another, with an event before the first and after each.
    Profiled {
        kernels: Vec<Vec<Kernel>>,
        events: Vec<Event>,
    },
}

struct GpuReplay {
    gpu: Arc<Shared>,
    schedule: Schedule,
    input: Pinned,
    output: Pinned,
    work: Work,
    /// Reached when what others have started on the legacy default stream is done.
    made: Event,
    done: Event,
    /// Something was started that `done` was not waited for.
    in_flight: bool,
    times: Vec<Duration>,
}

// SAFETY: driver handles, used with the context current; the memory behind `Kernel` is its own.
unsafe impl Send for GpuReplay {}

impl GpuReplay {
    /// Returns when nothing is in flight.
    fn settle(&mut self) -> Result<(), CudaError> {
        if self.in_flight {
            // SAFETY: the event is valid, and recorded after what was started last.
            check("cuEventSynchronize", unsafe { result::event::synchronize(self.done.event) })?;
            self.in_flight = false;
        }
        Ok(())
    }
}

impl Replay for GpuReplay {
    fn upload(&mut self, offset: usize, bytes: &[u8]) -> Result<(), CudaError> {
        self.gpu.enter()?;
        // The last copy from the staging memory must be over; for a caller that waits for each run it is.
        self.settle()?;
        self.input.bytes_mut()[offset..][..bytes.len()].copy_from_slice(bytes);
        let staged = &self.input.bytes()[offset..][..bytes.len()];
        // SAFETY: source and target are as long as `bytes`, checked by the slices above and by the sizes that both blocks
        // share; the source stays unchanged until `done` is reached.
        check("cuMemcpyHtoDAsync", unsafe {
            result::memcpy_htod_async(self.schedule.input.0 + offset as u64, staged, self.gpu.stream)
        })?;
        self.in_flight = true;
        self.done.record(self.gpu.stream)
    }

    fn copy_in(&mut self, offset: usize, from: DeviceSlice<'_>) -> Result<(), CudaError> {
        self.gpu.enter()?;
        assert!(offset + from.bytes() <= self.schedule.input.1, "a transfer past the end of its block");
        let stream = self.gpu.stream;
        // In this program's stream, after the runs that still read the block; and after what makes the bytes, which the
        // legacy default stream has or waits for. This stream does not wait for that one by itself.
        self.made.record(LEGACY_STREAM)?;
        self.made.hold_back(stream)?;
        self.in_flight = true;
        // SAFETY: the source is the slice's, which is kept until the run is waited for; the target is inside the input block, as
        // just checked.
        check("cuMemcpyDtoDAsync", unsafe {
            result::memcpy_dtod_async(
                self.schedule.input.0 + offset as u64,
                from.address(),
                from.bytes(),
                stream,
            )
        })?;
        self.done.record(stream)
    }

    fn launch(&mut self) -> Result<(), CudaError> {
        self.gpu.enter()?;
        let stream = self.gpu.stream;
        self.in_flight = true;
        match &self.work {
            Work::Captured(captured) => {
                // SAFETY: both handles are valid.
                let launched = unsafe { result::graph::launch(captured.graph, stream) };
                check("cuGraphLaunch", launched)?
            }
            Work::Profiled { kernels, events } => {
                events[0].record(stream)?;
                for (kernels, event) in kernels.iter().zip(&events[1..]) {
                    kernels.iter().try_for_each(|k| k.launch(stream, false))?;
                    event.record(stream)?;
                }
            }
        }
        if self.output.bytes > 0 {
            let (target, source) = (self.output.bytes_mut(), self.schedule.output.0);
            // SAFETY: both are as long as the block; nobody reads the target before `wait`.
            let copied = unsafe { result::memcpy_dtoh_async(target, source, stream) };
            check("cuMemcpyDtoHAsync", copied)?;
        }
        self.done.record(stream)
    }

    fn wait(&mut self) -> Result<(), CudaError> {
        self.gpu.enter()?;
        self.settle()?;
        if let Work::Profiled { events, .. } = &self.work {
            for (time, pair) in self.times.iter_mut().zip(events.windows(2)) {
                // SAFETY: both events are recorded and over.
                let ms = unsafe { result::event::elapsed(pair[0].event, pair[1].event) };
                *time = Duration::from_secs_f32(check("cuEventElapsedTime", ms)?.max(0.0) / 1e3);
            }
        }
        Ok(())
    }

    fn output(&self) -> &[u8] {
        self.output.bytes()
    }

    fn times(&self) -> &[Duration] {
        &self.times
    }
}

impl Drop for GpuReplay {
    fn drop(&mut self) {
        // Nothing may be in flight when the memory under it goes.
        let _ = self.wait();
    }
}
