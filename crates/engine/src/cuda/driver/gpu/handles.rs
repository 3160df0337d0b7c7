//! Pinned memory and events, released on drop.

use std::sync::Arc;

use cudarc::driver::{result, sys};

use super::{Shared, check};
use crate::error::CudaError;

/// Host memory that the GPU copies from and to by itself.
pub(super) struct Pinned {
    gpu: Arc<Shared>,
    address: *mut u8,
    pub bytes: usize,
}

// SAFETY: plain memory with one owner.
unsafe impl Send for Pinned {}

impl Pinned {
    pub(super) fn new(gpu: &Arc<Shared>, bytes: usize) -> Result<Pinned, CudaError> {
        // SAFETY: freed on drop.
        let address = check("cuMemHostAlloc", unsafe { result::malloc_host(bytes.max(1), 0) })?.cast::<u8>();
        // SAFETY: the memory was just allocated with at least this size.
        unsafe { address.write_bytes(0, bytes) };
        Ok(Pinned { gpu: gpu.clone(), address, bytes })
    }
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: allocated and initialised in `new`; the GPU writes it only between a launch and the wait for it.
        unsafe { std::slice::from_raw_parts(self.address, self.bytes) }
    }
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
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
pub(super) struct Event {
    gpu: Arc<Shared>,
    pub event: sys::CUevent,
}

// SAFETY: a driver handle, used with the context current.
unsafe impl Send for Event {}

impl Event {
    pub(super) fn new(gpu: &Arc<Shared>, timed: bool) -> Result<Event, CudaError> {
        use sys::CUevent_flags as F;
        let flags = if timed { F::CU_EVENT_DEFAULT } else { F::CU_EVENT_DISABLE_TIMING };
        let event = check("cuEventCreate", result::event::create(flags))?;
        Ok(Event { gpu: gpu.clone(), event })
    }
    pub(super) fn record(&self, stream: sys::CUstream) -> Result<(), CudaError> {
        // SAFETY: both handles are valid and of the same context.
        check("cuEventRecord", unsafe { result::event::record(self.event, stream) })
    }
    pub(super) fn hold_back(&self, stream: sys::CUstream) -> Result<(), CudaError> {
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
