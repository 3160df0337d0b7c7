//! Kernels on this machine's processor: the sources of the GPU's, built by a C++ compiler against `emulate/shim.h`, one
//! fiber for a CUDA thread, warps in a random order. Slow, and for tests: what a kernel computes can be checked
//! where there is no GPU.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::c_void;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use libloading::Library;

use super::{CudaError, Driver, Replay, Schedule, ScheduledStep};

/// Bytes before and after each allocation that nothing may change.
const GUARD_BYTES: usize = 256;
const GUARD: u8 = 0xA5;
/// What new memory holds: bytes that are not a number as f16 or f32, so that reading them shows.
const UNDEFINED: u8 = 0xFF;

type Kernel = unsafe extern "C" fn(*const c_void, *const u32, *const u32, u32, u64);

/// A GPU played by the processor.
pub(crate) struct Emulated {
    shared: Arc<Shared>,
}

struct Shared {
    library: Library,
    seed: u64,
    memory: Mutex<HashMap<u64, Block>>,
}

/// An allocation with its guards.
struct Block {
    /// In units of the strictest alignment that kernels rely on.
    storage: Vec<[u8; GUARD_BYTES]>,
    /// Without guards.
    bytes: usize,
}

impl Block {
    fn bytes(&self) -> &[u8] {
        self.storage.as_flattened()
    }
    fn guards_are_whole(&self) -> bool {
        let all = self.bytes();
        let (front, rest) = all.split_at(GUARD_BYTES);
        front.iter().chain(&rest[self.bytes..]).all(|&b| b == GUARD)
    }
}

impl Emulated {
    /// Opens kernels built by [`build_for_host`](super::build_for_host). `seed` sets the order of warps and of steps in
    /// branches that may run at once.
    pub(crate) fn open(library: &Path, seed: u64) -> Result<Emulated, CudaError> {
        // SAFETY: the library is our own kernels; loading it runs no code but constructors of plain data.
        let library = unsafe { Library::new(library) }
            .map_err(|e| CudaError::Host(format!("cannot open {}: {e}", library.display())))?;
        Ok(Emulated { shared: Arc::new(Shared { library, seed, memory: Mutex::default() }) })
    }
}

impl Shared {
    fn memory(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Block>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds an allocation around a range.
    fn check(&self, address: u64, bytes: usize) {
        let inside = self.memory().iter().any(|(&base, block)| {
            base <= address && address + bytes as u64 <= base + block.bytes as u64
        });
        assert!(inside, "a transfer of {bytes} bytes outside device memory");
    }

    fn kernel(&self, name: &str) -> Result<Kernel, CudaError> {
        // SAFETY: everything that `KERNEL` in `abi.cuh` exports has this signature.
        let symbol = unsafe { self.library.get::<Kernel>(name.as_bytes()) };
        symbol.map(|s| *s).map_err(|e| CudaError::Host(format!("kernel {name}: {e}")))
    }
}

impl Driver for Emulated {
    fn description(&self) -> String {
        "a GPU emulated on the processor".into()
    }

    fn allocate(&self, bytes: usize) -> Result<u64, CudaError> {
        let units = bytes.div_ceil(GUARD_BYTES);
        let mut storage = vec![[UNDEFINED; GUARD_BYTES]; units + 2];
        let all = storage.as_flattened_mut();
        all[..GUARD_BYTES].fill(GUARD);
        all[GUARD_BYTES + bytes..].fill(GUARD);
        // GPUs align allocations to 256 bytes; a vector of bytes does not, 16 are enough for every access of a kernel.
        let address = storage.as_ptr() as u64 + GUARD_BYTES as u64;
        assert!(address.is_multiple_of(16), "the allocator aligns to 16 bytes");
        self.shared.memory().insert(address, Block { storage, bytes });
        Ok(address)
    }

    fn release(&self, address: u64) {
        self.shared.memory().remove(&address);
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Result<(), CudaError> {
        self.shared.check(address, bytes.len());
        // SAFETY: inside an allocation, as just checked; no kernel runs meanwhile, since runs happen inside `launch`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
        Ok(())
    }

    fn prepare(&self, schedule: Schedule) -> Result<Box<dyn Replay>, CudaError> {
        for launch in schedule.steps.iter().flat_map(|s| &s.launches) {
            self.shared.kernel(launch.kernel)?;
        }
        Ok(Box::new(EmulatedReplay {
            shared: self.shared.clone(),
            output: vec![0; schedule.output.1],
            times: vec![Duration::ZERO; schedule.steps.len()],
            launches: 0,
            schedule,
        }))
    }
}

struct EmulatedReplay {
    shared: Arc<Shared>,
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
        self.shared.check(address, size);
        // SAFETY: inside an allocation, as just checked; no kernel runs meanwhile.
        unsafe {
            let target = (address as *mut u8).add(offset);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len());
        }
        Ok(())
    }

    fn launch(&mut self) -> Result<(), CudaError> {
        self.launches += 1;
        let mut random = self.shared.seed ^ self.launches.wrapping_mul(0xD134_2543_DE82_EF95);
        let mut done = vec![false; self.schedule.steps.len()];
        for _ in 0..done.len() {
            let index = Self::next(&self.schedule.steps, &done, &mut random);
            let start = Instant::now();
            for launch in &self.schedule.steps[index].launches {
                if launch.grid.contains(&0) {
                    continue;
                }
                let kernel = self.shared.kernel(launch.kernel)?;
                let (grid, block) = (launch.grid.as_ptr(), launch.block.as_ptr());
                // SAFETY: the parameters are the kernel's (a test compares their sizes), and hold addresses of memory that
                // the program keeps.
                unsafe {
                    kernel(launch.params.as_ptr().cast(), grid, block, launch.shared_bytes, mix(&mut random));
                }
                if let Some(block) = self.shared.memory().values().find(|b| !b.guards_are_whole()) {
                    let bytes = block.bytes;
                    return Err(CudaError::Host(format!(
                        "kernel {} writes outside a buffer of {bytes} bytes",
                        launch.kernel
                    )));
                }
            }
            self.times[index] = start.elapsed();
            done[index] = true;
        }
        let (address, size) = self.schedule.output;
        self.shared.check(address, size);
        // SAFETY: inside an allocation, as just checked; all kernels are done.
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
