//! An allocator that knows how much is in use, and refuses what no message can need.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Counts per thread: bytes in use since [`start`], and the most there were.
pub struct CountingAlloc;

/// A single allocation beyond this fails, which ends the program.
const REFUSED_BYTES: usize = 1 << 30;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn grow(bytes: isize) {
    // Not there any more while the thread ends: nothing is measured then.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

/// Begins to measure on this thread.
pub fn start() {
    LIVE.set(0);
    PEAK.set(0);
    ALLOCATIONS.set(0);
}

/// The most bytes in use at a time since [`start`], on this thread.
pub fn peak_bytes() -> usize {
    PEAK.get().max(0) as usize
}

/// Allocations since [`start`], on this thread.
#[allow(dead_code)] // Not every test asks.
pub fn allocations() -> u64 {
    ALLOCATIONS.get()
}

// SAFETY: memory comes from and goes back to the system's allocator, with the same layout; what
// happens besides is arithmetic on thread-local cells that allocate nothing.
unsafe impl GlobalAlloc for CountingAlloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > REFUSED_BYTES {
            return std::ptr::null_mut();
        }
        grow(layout.size() as isize);
        let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        grow(-(layout.size() as isize));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(memory, layout) }
    }
}
