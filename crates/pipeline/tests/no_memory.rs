//! Memory that cannot be had is an error of the frame that needs it, whichever allocation it is, and the next one goes on.
#![allow(unsafe_code)]

mod small;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use small::{grey, options, picture, pipeline};
use ultramotion_pipeline::{Orchestrator, PipelineError, PipelineOptions};
use ultramotion_types::{FrameError, FrameView, MatcherMode, Residency};

/// What depends on the size of a large frame takes this or more; weights that rewrites fold take less.
const LARGE_BYTES: usize = 6 << 20;

/// Large allocations that are still granted.
static GRANTED: AtomicUsize = AtomicUsize::new(usize::MAX);

struct Failing;

fn is_granted(bytes: usize) -> bool {
    bytes < LARGE_BYTES
        || GRANTED.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

// SAFETY: passes on to the system's allocator, or gives nothing.
unsafe impl GlobalAlloc for Failing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise, passed on.
        if is_granted(layout.size()) { unsafe { System.alloc(layout) } } else { std::ptr::null_mut() }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise, passed on.
        if is_granted(layout.size()) { unsafe { System.alloc_zeroed(layout) } } else { std::ptr::null_mut() }
    }
    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(p, layout) }
    }
    unsafe fn realloc(&self, p: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise, passed on.
        if is_granted(size) { unsafe { System.realloc(p, layout, size) } } else { std::ptr::null_mut() }
    }
}

#[global_allocator]
static ALLOCATOR: Failing = Failing;

fn ids(pipeline: &mut Orchestrator, frame: &FrameView<'_>) -> Vec<i32> {
    pipeline.process(frame).expect("a frame that fits").objects.iter().map(|o| o.track_id).collect()
}

#[test]
fn whatever_cannot_be_had_is_an_error_of_its_frame() {
    const SIDE: usize = 4000;
    let (picture, blank) = (picture(0), vec![90u8; SIDE * SIDE]);
    // Packet and outcome; the frame and the masks, each on the host and on the device; by stages the frame comes twice.
    for (residency, matcher, large_allocations) in
        [(Residency::Device, MatcherMode::Exact, 6), (Residency::Host, MatcherMode::Host, 8)]
    {
        let failures = (0..).take_while(|&granted| {
            let mut pipeline = pipeline(1, PipelineOptions { residency, matcher, ..options() });
            let first = ids(&mut pipeline, &grey(0, &picture));
            GRANTED.store(granted, Ordering::SeqCst);
            let large = FrameView { width: SIDE, height: SIDE, pixels: &blank[..], ..grey(1, &blank) };
            let result = pipeline.process(&large).map(drop);
            GRANTED.store(usize::MAX, Ordering::SeqCst);
            assert_eq!(ids(&mut pipeline, &grey(2, &picture)), first, "{residency}, {granted}");
            let Err(error) = result else { return false };
            let is_memory = matches!(
                error,
                PipelineError::Frame(FrameError::Memory { width: SIDE, height: SIDE, bytes: LARGE_BYTES.. })
            );
            assert!(is_memory, "{residency}, allocation {granted}: {error}");
            true
        });
        assert_eq!(failures.count(), large_allocations, "{residency}");
    }
}
