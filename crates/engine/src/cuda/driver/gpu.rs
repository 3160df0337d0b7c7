//! A GPU, through the CUDA driver API: one context, one stream that orders everything, one more for each branch while a
//! schedule is captured into a CUDA graph.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

use super::{CudaError, Driver, Replay, Schedule};
use crate::cuda::launch::{Launch, Module};

/// CUDA version of the driver that the PTX in this program needs, and the first driver that has it.
const NEEDED: (i32, i32) = (13, 0);
const NEEDED_DRIVER: u32 = 580;
/// Compute capability that the PTX is for; later ones run it too.
const LEAST_CAPABILITY: (i32, i32) = (8, 0);
/// Dynamic shared memory above which a kernel has to ask for more.
const PLAIN_SHARED_BYTES: u32 = 48 << 10;

/// A GPU. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Gpu(Arc<Shared>);

struct Shared {
    device: sys::CUdevice,
    context: sys::CUcontext,
    /// Everything that programs start is ordered here.
    stream: sys::CUstream,
    modules: Mutex<HashMap<&'static str, sys::CUmodule>>,
    description: String,
}

// SAFETY: driver handles may be used from any thread that has made the context current, which every function here does.
unsafe impl Send for Shared {}
// SAFETY: as above; the map of modules has a lock.
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
        if let Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) = result::init() {
            return Err(CudaError::NoDevice { ordinal, count: 0 });
        }
        check("cuInit", result::init())?;
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
        if (major, minor) < LEAST_CAPABILITY {
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
        Ok(Gpu(Arc::new(Shared { device, context, stream, modules: Mutex::default(), description })))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: nobody holds memory, modules or graphs of this context any more: they hold an `Arc` of this.
        // Errors of a context that has failed are of no use to anyone here.
        unsafe {
            let _ = result::ctx::set_current(self.context);
            let _ = result::stream::destroy(self.stream);
            let modules = self.modules.get_mut().unwrap_or_else(PoisonError::into_inner);
            for &module in modules.values() {
                let _ = result::module::unload(module);
            }
            let _ = result::primary_ctx::release(self.device);
        }
    }
}

impl Shared {
    fn enter(&self) -> Result<(), CudaError> {
        // SAFETY: the context lives as long as `self`.
        check("cuCtxSetCurrent", unsafe { result::ctx::set_current(self.context) })
    }

    fn function(&self, module: &'static Module, kernel: &str) -> Result<sys::CUfunction, CudaError> {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = match modules.get(module.name) {
            Some(&loaded) => loaded,
            None => {
                let ptx = CString::new(module.ptx).map_err(|_| CudaError::Call {
                    call: "cuModuleLoadData",
                    reason: format!("the PTX of {} holds a zero", module.name),
                })?;
                // SAFETY: a null-terminated PTX text.
                let loaded =
                    check("cuModuleLoadData", unsafe { result::module::load_data(ptx.as_ptr().cast()) })?;
                modules.insert(module.name, loaded);
                loaded
            }
        };
        let name = CString::new(kernel).map_err(|_| CudaError::Call {
            call: "cuModuleGetFunction",
            reason: format!("'{kernel}' is no name"),
        })?;
        // SAFETY: the module is loaded and stays so.
        check("cuModuleGetFunction", unsafe { result::module::get_function(loaded, name) })
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
        // SAFETY: inside an allocation, as `Allocation` and the bump allocator of weights see to. What was started before is
        // done first, so that nothing reads the memory meanwhile.
        unsafe {
            check("cuStreamSynchronize", result::stream::synchronize(self.0.stream))?;
            check("cuMemcpyHtoD", result::memcpy_htod_sync(address, bytes))
        }
    }

    fn prepare(&self, schedule: Schedule) -> Result<Box<dyn Replay>, CudaError> {
        self.0.enter()?;
        let input = Pinned::new(&self.0, schedule.input.1)?;
        let output = Pinned::new(&self.0, schedule.output.1)?;
        let mut kernels = Vec::with_capacity(schedule.steps.len());
        for step in &schedule.steps {
            let bound: Result<Vec<Kernel>, CudaError> = step
                .launches
                .iter()
                .filter(|launch| !launch.grid.contains(&0))
                .map(|launch| Kernel::bind(&self.0, launch))
                .collect();
            kernels.push(bound?);
        }
        let done = Event::new(&self.0, false)?;
        let times = vec![Duration::ZERO; schedule.steps.len()];
        let work = if schedule.profile {
            let events: Result<Vec<Event>, CudaError> =
                (0..=kernels.len()).map(|_| Event::new(&self.0, true)).collect();
            Work::Profiled { kernels, events: events? }
        } else {
            Work::Captured(Captured::new(&self.0, &schedule, &kernels)?)
        };
        Ok(Box::new(GpuReplay { gpu: self.0.clone(), schedule, input, output, work, done, times }))
    }
}

/// A kernel with its arguments in memory that stays where it is.
struct Kernel {
    function: sys::CUfunction,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    /// Eight-byte units: the alignment of the structures.
    params: Box<[u64]>,
}

impl Kernel {
    fn bind(gpu: &Shared, launch: &Launch) -> Result<Kernel, CudaError> {
        let function = gpu.function(launch.module, launch.kernel)?;
        if launch.shared_bytes > PLAIN_SHARED_BYTES {
            let which = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function was just obtained.
            check("cuFuncSetAttribute", unsafe {
                result::function::set_function_attribute(function, which, launch.shared_bytes as i32)
            })?;
        }
        let mut params = vec![0u64; launch.params.len().div_ceil(8)].into_boxed_slice();
        bytemuck::cast_slice_mut(&mut params)[..launch.params.len()].copy_from_slice(&launch.params);
        let (grid, block, shared_bytes) = (launch.grid, launch.block, launch.shared_bytes);
        Ok(Kernel { function, grid, block, shared_bytes, params })
    }

    fn launch(&self, stream: sys::CUstream) -> Result<(), CudaError> {
        let mut arguments = [self.params.as_ptr() as *mut c_void];
        let [grid, block] = [self.grid, self.block].map(|[x, y, z]| (x, y, z));
        // SAFETY: one structure by value, of the kernel's own type (a test compares the sizes); the driver copies it during
        // the call. It holds addresses of memory that the program keeps.
        check("cuLaunchKernel", unsafe {
            result::launch_kernel(self.function, grid, block, self.shared_bytes, stream, &mut arguments)
        })
    }
}

/// Host memory that the GPU copies from and to by itself.
struct Pinned {
    gpu: Arc<Shared>,
    address: *mut u8,
    bytes: usize,
}

// SAFETY: plain memory with one owner.
unsafe impl Send for Pinned {}

impl Pinned {
    fn new(gpu: &Arc<Shared>, bytes: usize) -> Result<Pinned, CudaError> {
        // SAFETY: freed on drop.
        let address = check("cuMemHostAlloc", unsafe { result::malloc_host(bytes.max(1), 0) })?.cast::<u8>();
        // SAFETY: the memory was just allocated with at least this size.
        unsafe { address.write_bytes(0, bytes) };
        Ok(Pinned { gpu: gpu.clone(), address, bytes })
    }
    fn bytes(&self) -> &[u8] {
        // SAFETY: allocated and initialised in `new`; the GPU writes it only between a launch and the wait for it.
        unsafe { std::slice::from_raw_parts(self.address, self.bytes) }
    }
    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `bytes`, and the GPU has read what was uploaded before: `GpuReplay::upload` sees to it.
        unsafe { std::slice::from_raw_parts_mut(self.address, self.bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if self.gpu.enter().is_ok() {
            // SAFETY: allocated by `new`, and the replay has waited for its copies.
            let _ = unsafe { result::free_host(self.address.cast()) };
        }
    }
}

/// A point in a stream.
struct Event {
    gpu: Arc<Shared>,
    event: sys::CUevent,
}

// SAFETY: a driver handle, used with the context current.
unsafe impl Send for Event {}

impl Event {
    fn new(gpu: &Arc<Shared>, timed: bool) -> Result<Event, CudaError> {
        use sys::CUevent_flags as F;
        let flags = if timed { F::CU_EVENT_DEFAULT } else { F::CU_EVENT_DISABLE_TIMING };
        let event = check("cuEventCreate", result::event::create(flags))?;
        Ok(Event { gpu: gpu.clone(), event })
    }
    fn record(&self, stream: sys::CUstream) -> Result<(), CudaError> {
        // SAFETY: both handles are valid and of the same context.
        check("cuEventRecord", unsafe { result::event::record(self.event, stream) })
    }
    fn hold_back(&self, stream: sys::CUstream) -> Result<(), CudaError> {
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: both handles are valid and of the same context.
        check("cuStreamWaitEvent", unsafe { result::stream::wait_event(stream, self.event, flags) })
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if self.gpu.enter().is_ok() {
            // SAFETY: created by `new`; the driver keeps what still waits for it.
            let _ = unsafe { result::event::destroy(self.event) };
        }
    }
}

/// Streams that exist while a graph is captured: branch 0 is the device's own.
struct Branches {
    gpu: Arc<Shared>,
    others: Vec<sys::CUstream>,
}

impl Branches {
    fn new(gpu: &Arc<Shared>, count: usize) -> Result<Branches, CudaError> {
        let mut branches = Branches { gpu: gpu.clone(), others: Vec::new() };
        for _ in 1..count {
            let kind = result::stream::StreamKind::NonBlocking;
            branches.others.push(check("cuStreamCreate", result::stream::create(kind))?);
        }
        Ok(branches)
    }
    fn stream(&self, branch: usize) -> sys::CUstream {
        if branch == 0 { self.gpu.stream } else { self.others[branch - 1] }
    }
}

impl Drop for Branches {
    fn drop(&mut self) {
        for &stream in &self.others {
            // SAFETY: created by `new`, and the capture that used it has ended.
            let _ = unsafe { result::stream::destroy(stream) };
        }
    }
}

/// A CUDA graph that can be launched.
struct Captured {
    gpu: Arc<Shared>,
    graph: sys::CUgraphExec,
}

// SAFETY: a driver handle, used with the context current.
unsafe impl Send for Captured {}

impl Captured {
    fn new(gpu: &Arc<Shared>, schedule: &Schedule, kernels: &[Vec<Kernel>]) -> Result<Captured, CudaError> {
        let count = schedule.steps.iter().map(|s| s.branch + 1).max().unwrap_or(1);
        let branches = Branches::new(gpu, count)?;
        // SAFETY: the stream is valid; relaxed, because other threads may allocate meanwhile.
        check("cuStreamBeginCapture", unsafe {
            let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
            result::stream::begin_capture(gpu.stream, mode)
        })?;
        let recorded = Self::record(gpu, schedule, kernels, &branches);
        // The capture is ended whatever came of it, so that the stream can be used again.
        // SAFETY: the stream is capturing.
        let graph = unsafe { result::stream::end_capture(gpu.stream) };
        recorded?;
        let graph = check("cuStreamEndCapture", graph)?;
        // SAFETY: the graph was just captured, and is destroyed here.
        let executable = unsafe {
            let executable = result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0));
            let _ = result::graph::destroy(graph);
            check("cuGraphInstantiate", executable)?
        };
        let captured = Captured { gpu: gpu.clone(), graph: executable };
        // SAFETY: both handles are valid.
        check("cuGraphUpload", unsafe { result::graph::upload(executable, gpu.stream) })?;
        Ok(captured)
    }

    /// Every step on its branch's stream. Branches begin after the capture's first event and are joined at its end.
    fn record(
        gpu: &Arc<Shared>,
        schedule: &Schedule,
        kernels: &[Vec<Kernel>],
        branches: &Branches,
    ) -> Result<(), CudaError> {
        let begin = Event::new(gpu, false)?;
        begin.record(gpu.stream)?;
        for &stream in &branches.others {
            begin.hold_back(stream)?;
        }
        let mut waited_for = vec![false; schedule.steps.len()];
        schedule.steps.iter().flat_map(|s| &s.waits).for_each(|&w| waited_for[w] = true);
        let mut ends: Vec<Option<Event>> = Vec::with_capacity(schedule.steps.len());
        for (index, step) in schedule.steps.iter().enumerate() {
            let stream = branches.stream(step.branch);
            for &earlier in &step.waits {
                if let Some(end) = &ends[earlier] {
                    end.hold_back(stream)?;
                }
            }
            for kernel in &kernels[index] {
                kernel.launch(stream)?;
            }
            ends.push(if waited_for[index] {
                let end = Event::new(gpu, false)?;
                end.record(stream)?;
                Some(end)
            } else {
                None
            });
        }
        for &stream in &branches.others {
            let end = Event::new(gpu, false)?;
            end.record(stream)?;
            end.hold_back(gpu.stream)?;
        }
        Ok(())
    }
}

impl Drop for Captured {
    fn drop(&mut self) {
        if self.gpu.enter().is_ok() {
            // SAFETY: instantiated by `new`; the replay has waited for its runs.
            let _ = unsafe { result::graph::exec_destroy(self.graph) };
        }
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
    done: Event,
    times: Vec<Duration>,
}

// SAFETY: driver handles, used with the context current; the memory behind `Kernel` is its own.
unsafe impl Send for GpuReplay {}

impl Replay for GpuReplay {
    fn upload(&mut self, offset: usize, bytes: &[u8]) -> Result<(), CudaError> {
        self.gpu.enter()?;
        // The last copy from the staging memory must be over; for a caller that waits for each run it is, and this is a
        // look at an event.
        // SAFETY: the event is valid.
        check("cuEventSynchronize", unsafe { result::event::synchronize(self.done.event) })?;
        self.input.bytes_mut()[offset..][..bytes.len()].copy_from_slice(bytes);
        let staged = &self.input.bytes()[offset..][..bytes.len()];
        // SAFETY: source and target are as long as `bytes`, checked by the slices above and by the sizes that both blocks
        // share; the source stays unchanged until `done` is reached.
        check("cuMemcpyHtoDAsync", unsafe {
            result::memcpy_htod_async(self.schedule.input.0 + offset as u64, staged, self.gpu.stream)
        })?;
        self.done.record(self.gpu.stream)
    }

    fn launch(&mut self) -> Result<(), CudaError> {
        self.gpu.enter()?;
        let stream = self.gpu.stream;
        match &self.work {
            Work::Captured(captured) => {
                // SAFETY: both handles are valid.
                let launched = unsafe { result::graph::launch(captured.graph, stream) };
                check("cuGraphLaunch", launched)?
            }
            Work::Profiled { kernels, events } => {
                events[0].record(stream)?;
                for (kernels, event) in kernels.iter().zip(&events[1..]) {
                    kernels.iter().try_for_each(|k| k.launch(stream))?;
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
        // SAFETY: the event is valid.
        check("cuEventSynchronize", unsafe { result::event::synchronize(self.done.event) })?;
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
