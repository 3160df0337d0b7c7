//! What a GPU did, as CUPTI saw it: NVIDIA's profiling library records copies, kernels, waits and allocations below this program,
//! and so can confirm what the [`ledger`](crate::ledger) says.
//!
//! Records have one layout from CUDA 11.8 to 13 as far as they are read here (CUPTI's `cupti_activity.h`).
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use libloading::Library;
use thiserror::Error;

use crate::ledger::Counts;

/// Where CUPTI is looked for: by name, then where CUDA's installer puts it.
const LIBRARIES: [&str; 6] = [
    "libcupti.so",
    "libcupti.so.13",
    "libcupti.so.12",
    "libcupti.so.11.8",
    "/usr/local/cuda/extras/CUPTI/lib64/libcupti.so",
    "/usr/local/cuda/lib64/libcupti.so",
];
/// Bytes of a buffer of records, of which CUPTI asks for as many as it fills.
const BUFFER_BYTES: usize = 1 << 18;
const KIND_MEMCPY: u32 = 1;
const KIND_KERNEL: u32 = 10;
const KIND_SYNCHRONIZATION: u32 = 38;
const KIND_MEMORY: u32 = 49;
const KINDS: [u32; 4] = [KIND_MEMCPY, KIND_KERNEL, KIND_SYNCHRONIZATION, KIND_MEMORY];
const HOST_TO_DEVICE: u8 = 1;
const DEVICE_TO_HOST: u8 = 2;
const DEVICE_TO_DEVICE: u8 = 8;
/// A stream that waits for an event does not keep the host.
const STREAM_WAIT_EVENT: u32 = 2;
const ALLOCATION: u32 = 1;
const FLUSH_FORCED: u32 = 1;

type Status = i32;
type Request = extern "C" fn(*mut *mut u8, *mut usize, *mut usize);
type Complete = extern "C" fn(*mut c_void, u32, *mut u8, usize, usize);

/// The functions of CUPTI that are used. The library stays loaded: it may call back at any time.
struct Cupti {
    register: unsafe extern "C" fn(Request, Complete) -> Status,
    enable: unsafe extern "C" fn(u32) -> Status,
    disable: unsafe extern "C" fn(u32) -> Status,
    flush: unsafe extern "C" fn(u32) -> Status,
    next: unsafe extern "C" fn(*mut u8, usize, *mut *mut u8) -> Status,
    _library: Library,
}

static CUPTI: OnceLock<Cupti> = OnceLock::new();
static RECORDING: AtomicBool = AtomicBool::new(false);
static SEEN: Mutex<Activity> = Mutex::new(Activity::NONE);

/// What the GPU did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Activity {
    /// Copies, waits and allocations.
    pub counts: Counts,
    /// Kernels that ran.
    pub kernels: u64,
}

impl Activity {
    const NONE: Activity = Activity {
        counts: Counts {
            h2d: 0,
            h2d_bytes: 0,
            d2h: 0,
            d2h_bytes: 0,
            d2d: 0,
            d2d_bytes: 0,
            host_syncs: 0,
            allocations: 0,
            allocated_bytes: 0,
        },
        kernels: 0,
    };
}

/// Why nothing can be recorded.
#[derive(Debug, Error)]
#[allow(missing_docs)] // the messages name the fields
pub enum ActivityError {
    #[error("CUPTI was not found ({tried}); it comes with CUDA, and with PyPI's nvidia-cuda-cupti")]
    NotFound { tried: String },
    #[error("{call} of CUPTI failed with {status}")]
    Call { call: &'static str, status: i32 },
    #[error("CUPTI is recording already")]
    Busy,
}

/// A recording of everything that GPUs do for this process. There is one at a time.
#[derive(Debug)]
pub struct Recording(());

impl Recording {
    /// Begins. `library`: CUPTI's file, where it is not found by itself. What is recorded is slower than what is not.
    pub fn start(library: Option<&Path>) -> Result<Recording, ActivityError> {
        if RECORDING.swap(true, Ordering::AcqRel) {
            return Err(ActivityError::Busy);
        }
        let recording = Recording(());
        let cupti = match CUPTI.get() {
            Some(cupti) => cupti,
            None => {
                let opened = open(library)?;
                CUPTI.get_or_init(|| opened)
            }
        };
        // SAFETY: the callbacks live as long as the program, and keep to what CUPTI asks of them.
        check("cuptiActivityRegisterCallbacks", unsafe { (cupti.register)(request, complete) })?;
        for kind in KINDS {
            // SAFETY: a kind that CUPTI knows.
            check("cuptiActivityEnable", unsafe { (cupti.enable)(kind) })?;
        }
        recording.take()?;
        Ok(recording)
    }

    /// What was done since the start, or since this was asked last. Nothing may be in flight.
    pub fn take(&self) -> Result<Activity, ActivityError> {
        if let Some(cupti) = CUPTI.get() {
            // SAFETY: callbacks are registered, and no lock of theirs is held.
            check("cuptiActivityFlushAll", unsafe { (cupti.flush)(FLUSH_FORCED) })?;
        }
        Ok(std::mem::take(&mut *seen()))
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if let Some(cupti) = CUPTI.get() {
            for kind in KINDS {
                // SAFETY: a kind that CUPTI knows. One that was never enabled is an error without consequence.
                let _ = unsafe { (cupti.disable)(kind) };
            }
        }
        RECORDING.store(false, Ordering::Release);
    }
}

fn seen() -> MutexGuard<'static, Activity> {
    SEEN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn check(call: &'static str, status: Status) -> Result<(), ActivityError> {
    if status == 0 { Ok(()) } else { Err(ActivityError::Call { call, status }) }
}

fn open(library: Option<&Path>) -> Result<Cupti, ActivityError> {
    let candidates: Vec<PathBuf> = match library {
        Some(path) => vec![path.to_owned()],
        None => LIBRARIES.map(PathBuf::from).to_vec(),
    };
    let mut tried = Vec::new();
    for path in &candidates {
        // SAFETY: NVIDIA's library, or the file that the user names; the signatures are those of its header.
        let opened = unsafe {
            Library::new(path).and_then(|library| {
                Ok(Cupti {
                    register: *library.get(b"cuptiActivityRegisterCallbacks")?,
                    enable: *library.get(b"cuptiActivityEnable")?,
                    disable: *library.get(b"cuptiActivityDisable")?,
                    flush: *library.get(b"cuptiActivityFlushAll")?,
                    next: *library.get(b"cuptiActivityGetNextRecord")?,
                    _library: library,
                })
            })
        };
        match opened {
            Ok(cupti) => return Ok(cupti),
            // Why matters where the user chose the file: the others are mostly not there.
            Err(error) if library.is_some() => tried.push(format!("{}: {error}", path.display())),
            Err(_) => tried.push(path.display().to_string()),
        }
    }
    Err(ActivityError::NotFound { tried: tried.join(", ") })
}

/// CUPTI asks for a buffer, aligned to eight bytes; as many records as fit.
extern "C" fn request(buffer: *mut *mut u8, bytes: *mut usize, most_records: *mut usize) {
    let block = Box::into_raw(vec![0u64; BUFFER_BYTES / 8].into_boxed_slice());
    // SAFETY: three places of CUPTI's to answer in. `complete` frees the block.
    unsafe {
        *buffer = block.cast();
        *bytes = BUFFER_BYTES;
        *most_records = 0;
    }
}

/// CUPTI gives a buffer back.
extern "C" fn complete(_context: *mut c_void, _stream: u32, buffer: *mut u8, _bytes: usize, filled: usize) {
    if let Some(cupti) = CUPTI.get() {
        let mut seen = seen();
        let mut record: *mut u8 = std::ptr::null_mut();
        // SAFETY: the buffer is one of `request`, filled up to `filled`; CUPTI sets `record` to one in it, or fails at the end.
        while unsafe { (cupti.next)(buffer, filled, &mut record) } == 0 {
            // SAFETY: every record is packed and begins with at least these 16 bytes.
            let head = unsafe { record.cast::<[u8; 16]>().read_unaligned() };
            count(&mut seen, head);
        }
    }
    // SAFETY: made by `request` with this length.
    drop(unsafe {
        Box::from_raw(std::ptr::slice_from_raw_parts_mut(buffer.cast::<u64>(), BUFFER_BYTES / 8))
    });
}

/// Adds a record by its first 16 bytes: its kind in four; then the direction of a copy in one and its bytes in the last
/// eight, or in four the type of a wait or of a change of memory.
fn count(seen: &mut Activity, head: [u8; 16]) {
    let word = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (kind, detail) = (word(0), word(4));
    let counts = &mut seen.counts;
    match kind {
        KIND_MEMCPY => {
            let bytes = u64::from(word(8)) | u64::from(word(12)) << 32;
            match head[4] {
                HOST_TO_DEVICE => (counts.h2d, counts.h2d_bytes) = (counts.h2d + 1, counts.h2d_bytes + bytes),
                DEVICE_TO_HOST => (counts.d2h, counts.d2h_bytes) = (counts.d2h + 1, counts.d2h_bytes + bytes),
                DEVICE_TO_DEVICE => {
                    (counts.d2d, counts.d2d_bytes) = (counts.d2d + 1, counts.d2d_bytes + bytes)
                }
                _ => {}
            }
        }
        KIND_KERNEL => seen.kernels += 1,
        KIND_SYNCHRONIZATION if detail != STREAM_WAIT_EVENT => counts.host_syncs += 1,
        KIND_MEMORY if detail == ALLOCATION => counts.allocations += 1,
        _ => {}
    }
}
