//! Kernels on this machine's processor: the sources of the GPU's, built by a C++ compiler against `emulate/shim.h`, one
//! fiber for a CUDA thread, warps in a random order, memory with guards. Slow, and for tests: what a kernel computes
//! can be checked where there is no GPU.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_void};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libloading::Library;

use super::{Driver, Replay, Schedule, ScheduledStep};
use crate::device_slice::DeviceSlice;
use crate::error::CudaError;

/// What `KERNEL` in `abi.cuh` makes of a kernel: parameters, grid, block, bytes of dynamic shared memory, seed.
type Kernel = unsafe extern "C" fn(*const c_void, *const u32, *const u32, u32, u64);

type Allocate = unsafe extern "C" fn(u64) -> *mut c_void;

/// A GPU played by the processor.
pub(crate) struct Emulated {
    library: Arc<KernelLibrary>,
    seed: u64,
}

/// Kernels, and the memory they work on.
struct KernelLibrary {
    library: Library,
    allocate: Allocate,
    allocate_constants: Allocate,
    free: unsafe extern "C" fn(*mut c_void),
    fault: unsafe extern "C" fn() -> *const c_char,
}

impl Emulated {
    /// Opens kernels built by [`build_for_host`](super::build_for_host). `seed` sets the order of warps and of steps in
    /// branches that may run at once.
    pub(crate) fn open(path: &Path, seed: u64) -> Result<Emulated, CudaError> {
        let failed = |e| CudaError::Host(format!("cannot open {}: {e}", path.display()));
        // SAFETY: the library is our own kernels; loading it runs no code but constructors of plain data. The signatures
        // are those that `emulate/shim.h` declares.
        let library = unsafe {
            let library = Library::new(path).map_err(failed)?;
            let allocate = *library.get(b"emulate_allocate").map_err(failed)?;
            let allocate_constants = *library.get(b"emulate_allocate_constants").map_err(failed)?;
            let free = *library.get(b"emulate_free").map_err(failed)?;
            let fault = *library.get(b"emulate_fault").map_err(failed)?;
            KernelLibrary { library, allocate, allocate_constants, free, fault }
        };
        Ok(Emulated { library: Arc::new(library), seed })
    }
}

impl KernelLibrary {
    fn kernel(&self, name: &str) -> Result<Kernel, CudaError> {
        // SAFETY: everything that `KERNEL` exports has this signature.
        let symbol = unsafe { self.library.get::<Kernel>(name) };
        symbol.map(|s| *s).map_err(|e| CudaError::Host(format!("kernel {name}: {e}")))
    }

    /// Bytes of the parameters of a kernel, as its source has them.
    fn params_bytes(&self, name: &str) -> Result<usize, CudaError> {
        // SAFETY: `KERNEL` exports an integer of this name beside each kernel.
        let symbol = unsafe { self.library.get::<*const u32>(format!("{name}_params_bytes")) };
        let symbol = symbol.map_err(|e| CudaError::Host(format!("kernel {name}: {e}")))?;
        // SAFETY: as above.
        Ok(unsafe { **symbol } as usize)
    }

    fn get_memory(&self, allocate: Allocate, bytes: usize) -> Result<u64, CudaError> {
        // SAFETY: one of the library's own two; given back by `Emulated::release`.
        let address = unsafe { allocate(bytes as u64) } as u64;
        if address == 0 {
            return Err(CudaError::OutOfMemory { needed: bytes, free: 0, total: 0 });
        }
        Ok(address)
    }

    /// What a kernel did wrong since this was asked last.
    fn check(&self) -> Result<(), CudaError> {
        // SAFETY: the text lives until this thread asks again.
        let fault = unsafe { (self.fault)() };
        if fault.is_null() {
            return Ok(());
        }
        // SAFETY: a null-terminated text, see above.
        Err(CudaError::Host(unsafe { CStr::from_ptr(fault) }.to_string_lossy().into_owned()))
    }
}

impl Driver for Emulated {
    fn description(&self) -> String {
        "a GPU emulated on the processor".into()
    }

    fn allocate(&self, bytes: usize) -> Result<u64, CudaError> {
        self.library.get_memory(self.library.allocate, bytes)
    }

    fn allocate_constants(&self, bytes: usize) -> Result<u64, CudaError> {
        self.library.get_memory(self.library.allocate_constants, bytes)
    }

    fn release(&self, address: u64) {
        // SAFETY: an address of `allocate`, which nobody uses any more.
        unsafe { (self.library.free)(address as *mut c_void) };
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), CudaError> {
        // SAFETY: inside an allocation, as `Allocation` and the weights' bump allocator see to; no kernel runs meanwhile,
        // since runs happen inside `launch`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
        Ok(())
    }

    fn prepare(&self, schedule: Schedule) -> Result<Box<dyn Replay>, CudaError> {
        for launch in schedule.steps.iter().flat_map(|s| &s.launches) {
            self.library.kernel(launch.kernel)?;
            let (ours, theirs) = (launch.params.len(), self.library.params_bytes(launch.kernel)?);
            if ours != theirs {
                let why = format!("kernel {} takes {theirs} bytes of parameters, not {ours}", launch.kernel);
                return Err(CudaError::Host(why));
            }
        }
        Ok(Box::new(EmulatedReplay {
            library: self.library.clone(),
            seed: self.seed,
            output: vec![0; schedule.output.1],
            times: vec![Duration::ZERO; schedule.steps.len()],
            launches: 0,
            schedule,
        }))
    }
}

struct EmulatedReplay {
    library: Arc<KernelLibrary>,
    seed: u64,
    schedule: Schedule,
    output: Vec<u8>,
    times: Vec<Duration>,
    launches: u64,
}

impl EmulatedReplay {
    /// Any of the steps whose turn it may be: the first that is left of a branch, if what it waits for is done.
    fn next(steps: &[ScheduledStep], done: &[bool], random: &mut u64) -> usize {
        let mut seen: Vec<usize> = Vec::new();
        let mut ready: Vec<usize> = Vec::new();
        for (index, step) in steps.iter().enumerate().filter(|(i, _)| !done[*i]) {
            if !seen.contains(&step.branch) {
                seen.push(step.branch);
                if step.waits.iter().all(|&w| done[w]) {
                    ready.push(index);
                }
            }
        }
        ready[(mix(random) % ready.len() as u64) as usize]
    }
}

/// SplitMix64 (Steele, Lea & Flood 2014).
fn mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Replay for EmulatedReplay {
    fn upload(&mut self, offset: usize, bytes: &[u8]) -> Result<(), CudaError> {
        let (address, size) = self.schedule.input;
        assert!(offset + bytes.len() <= size, "a transfer past the end of its block");
        // SAFETY: inside the input block, as just checked; no kernel runs meanwhile.
        unsafe {
            let target = (address as *mut u8).add(offset);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len());
        }
        Ok(())
    }

    fn copy_in(&mut self, offset: usize, from: DeviceSlice<'_>) -> Result<(), CudaError> {
        let (address, size) = self.schedule.input;
        assert!(offset + from.bytes() <= size, "a transfer past the end of its block");
        // SAFETY: the source is the slice's, in memory of this process; the target is inside the input block, as just checked,
        // which nobody but this program has; no kernel runs meanwhile.
        unsafe {
            let target = (address as *mut u8).add(offset);
            std::ptr::copy_nonoverlapping(from.address() as *const u8, target, from.bytes());
        }
        Ok(())
    }

    fn launch(&mut self) -> Result<(), CudaError> {
        self.launches += 1;
        let mut random = self.seed ^ self.launches.wrapping_mul(0xD134_2543_DE82_EF95);
        let mut done = vec![false; self.schedule.steps.len()];
        for _ in 0..done.len() {
            let index = Self::next(&self.schedule.steps, &done, &mut random);
            let start = Instant::now();
            for launch in &self.schedule.steps[index].launches {
                if launch.grid.contains(&0) {
                    continue;
                }
                // Eight-byte units: the alignment of the structures.
                let mut params = vec![0u64; launch.params.len().div_ceil(8)];
                bytemuck::cast_slice_mut(&mut params)[..launch.params.len()].copy_from_slice(&launch.params);
                let kernel = self.library.kernel(launch.kernel)?;
                let (grid, block) = (launch.grid.as_ptr(), launch.block.as_ptr());
                // SAFETY: parameters of the size that the kernel has (`prepare`), with addresses of memory that the
                // program keeps.
                unsafe {
                    kernel(params.as_ptr().cast(), grid, block, launch.shared_bytes, mix(&mut random));
                }
                self.library.check()?;
            }
            self.times[index] = start.elapsed();
            done[index] = true;
        }
        let (address, size) = self.schedule.output;
        // SAFETY: the whole output block; all kernels are done.
        unsafe { std::ptr::copy_nonoverlapping(address as *const u8, self.output.as_mut_ptr(), size) };
        Ok(())
    }

    fn wait(&mut self) -> Result<(), CudaError> {
        Ok(())
    }

    fn output(&self) -> &[u8] {
        &self.output
    }

    fn times(&self) -> &[Duration] {
        &self.times
    }
}
