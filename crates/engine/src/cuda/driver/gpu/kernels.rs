//! Kernels on the GPU: the driver compiles them from PTX, each once, as many at a time as there are processors.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, c_char, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use cudarc::driver::{result, sys};

use super::{Shared, check};
use crate::cuda::ptx::kernel_ptx;
use crate::error::CudaError;
use crate::launch::{Launch, Module};

/// What is kept of the compiler's complaints.
const LOG_BYTES: usize = 4096;

/// A module's name and a kernel's.
type Name = (&'static str, &'static str);

/// The kernels that programs of a GPU have asked for so far.
#[derive(Default)]
pub(super) struct Kernels(Mutex<HashMap<Name, Loaded>>);

struct Loaded {
    module: sys::CUmodule,
    function: sys::CUfunction,
    /// Dynamic shared memory that the driver allows it. Never lowered: a program that needs more may still be replayed.
    shared_bytes: u32,
}

// SAFETY: driver handles may be used from any thread that has made the context current.
unsafe impl Send for Loaded {}

impl Kernels {
    /// Makes sure that all kernels of `launches` are there, with the shared memory that they need. A program uses a few of
    /// each module's kernels, and compiling takes the driver long, so only those are given to it.
    pub(super) fn load<'l>(
        &self,
        gpu: &Shared,
        launches: impl Iterator<Item = &'l Launch>,
    ) -> Result<(), CudaError> {
        let mut wanted: BTreeMap<Name, (&'static Module, u32)> = BTreeMap::new();
        for launch in launches {
            let (_, most) = wanted.entry((launch.module.name, launch.kernel)).or_insert((launch.module, 0));
            *most = (*most).max(launch.shared_bytes);
        }
        let mut loaded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let missing: Vec<(Name, &'static Module)> = wanted
            .iter()
            .filter(|(name, _)| !loaded.contains_key(*name))
            .map(|(&name, &(module, _))| (name, module))
            .collect();
        if !missing.is_empty() {
            let started = Instant::now();
            compile(gpu, &missing, &mut loaded)?;
            tracing::debug!(
                kernels = missing.len(),
                ms = started.elapsed().as_millis() as u64,
                "compiled for the GPU"
            );
        }
        for (name, (_, needed)) in wanted {
            let kernel = loaded.get_mut(&name).expect("compiled above");
            // Always: how much a kernel may have without asking depends on how much it declares itself.
            if needed > kernel.shared_bytes {
                let which = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
                // SAFETY: the function belongs to a loaded module.
                check("cuFuncSetAttribute", unsafe {
                    result::function::set_function_attribute(kernel.function, which, needed as i32)
                })?;
                kernel.shared_bytes = needed;
            }
        }
        Ok(())
    }

    /// A kernel that was loaded, with its arguments.
    pub(super) fn bind(&self, launch: &Launch) -> Kernel {
        let loaded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let function = loaded[&(launch.module.name, launch.kernel)].function;
        let mut params = vec![0u64; launch.params.len().div_ceil(8)].into_boxed_slice();
        bytemuck::cast_slice_mut(&mut params)[..launch.params.len()].copy_from_slice(&launch.params);
        let (grid, block, shared_bytes) = (launch.grid, launch.block, launch.shared_bytes);
        Kernel { function, grid, block, shared_bytes, params }
    }

    /// Gives everything back to the driver.
    ///
    /// # Safety
    /// The context is current, and no kernel is bound any more.
    pub(super) unsafe fn unload(&mut self) {
        let loaded = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        for kernel in loaded.drain().map(|(_, kernel)| kernel) {
            // SAFETY: loaded by `compile`, and not in use, as the caller says. Errors of a context that has failed are of
            // no use to anyone here.
            let _ = unsafe { result::module::unload(kernel.module) };
        }
    }
}

/// Compiles `missing` on all processors and adds them to `loaded`, up to the first that fails.
fn compile(
    gpu: &Shared,
    missing: &[(Name, &'static Module)],
    loaded: &mut HashMap<Name, Loaded>,
) -> Result<(), CudaError> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some(&((module_name, kernel), module)) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
            let compiled = compile_one(gpu, module, kernel);
            let failed = compiled.is_err();
            done.push(((module_name, kernel), compiled));
            if failed {
                break;
            }
        }
        done
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(missing.len());
    let done: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|t| t.join().expect("compiling a kernel does not panic")).collect()
    });
    let mut outcome = Ok(());
    for (name, compiled) in done {
        match compiled {
            Ok(kernel) => _ = loaded.insert(name, kernel),
            Err(error) => outcome = Err(error),
        }
    }
    outcome
}

fn compile_one(gpu: &Shared, module: &'static Module, kernel: &'static str) -> Result<Loaded, CudaError> {
    gpu.enter()?;
    let failed = |reason: String| CudaError::Call { call: "cuModuleLoadDataEx", reason };
    let ptx = kernel_ptx(module, kernel, gpu.overlap)
        .and_then(|ptx| CString::new(ptx).ok())
        .ok_or_else(|| failed(format!("the PTX of {} has no kernel '{kernel}'", module.name)))?;
    let name = CString::new(kernel).map_err(|_| failed(format!("'{kernel}' is no name")))?;
    let mut log = vec![0u8; LOG_BYTES];
    let mut options =
        [sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER, sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
    // The driver takes the size in place of a pointer.
    let mut values = [log.as_mut_ptr().cast::<c_void>(), LOG_BYTES as *mut c_void];
    let mut loaded: sys::CUmodule = std::ptr::null_mut();
    // SAFETY: a null-terminated PTX text; two options with their values; the log is as long as is said and outlives the call.
    let status = unsafe {
        sys::cuModuleLoadDataEx(
            &mut loaded,
            ptx.as_ptr().cast::<c_char>().cast(),
            options.len() as u32,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    };
    check("cuModuleLoadDataEx", status.result()).map_err(|error| match error {
        CudaError::Call { call, reason } => {
            let log = log.split(|&b| b == 0).next().map(String::from_utf8_lossy).unwrap_or_default();
            CudaError::Call { call, reason: format!("{kernel}: {reason} {}", log.trim()) }
        }
        other => other,
    })?;
    // SAFETY: the module was just loaded.
    match check("cuModuleGetFunction", unsafe { result::module::get_function(loaded, name) }) {
        Ok(function) => Ok(Loaded { module: loaded, function, shared_bytes: 0 }),
        Err(error) => {
            // SAFETY: as above; nothing of it is in use.
            let _ = unsafe { result::module::unload(loaded) };
            Err(error)
        }
    }
}

/// A kernel with its arguments in memory that stays where it is.
pub(super) struct Kernel {
    function: sys::CUfunction,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    /// Eight-byte units: the alignment of the structures.
    params: Box<[u64]>,
}

impl Kernel {
    /// Starts it after what the stream has. With `early`, which needs [`Shared::overlap`] and a kernel as the last thing in
    /// the stream, its blocks may begin before that one is done.
    pub(super) fn launch(&self, stream: sys::CUstream, early: bool) -> Result<(), CudaError> {
        let mut arguments = [self.params.as_ptr() as *mut c_void];
        let mut attribute = sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            pad: [0; 4],
            value: sys::CUlaunchAttributeValue { programmaticStreamSerializationAllowed: 1 },
        };
        let [grid, block] = [self.grid, self.block];
        let config = sys::CUlaunchConfig {
            gridDimX: grid[0],
            gridDimY: grid[1],
            gridDimZ: grid[2],
            blockDimX: block[0],
            blockDimY: block[1],
            blockDimZ: block[2],
            sharedMemBytes: self.shared_bytes,
            hStream: stream,
            attrs: &mut attribute,
            numAttrs: early.into(),
        };
        // SAFETY: one structure by value, of the kernel's own type (a test compares the sizes); the driver copies it, and the
        // configuration, during the call. It holds addresses of memory that the program keeps.
        check("cuLaunchKernelEx", unsafe {
            sys::cuLaunchKernelEx(&config, self.function, arguments.as_mut_ptr(), std::ptr::null_mut())
                .result()
        })
    }
}
