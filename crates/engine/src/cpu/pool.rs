//! A persistent pool of threads for loops of a few microseconds.
//!
//! In: a number of chunks and a closure. Out: the closure was called once for each chunk, by the caller and
//! the workers together. A dispatch allocates nothing and takes no lock that a worker holds: workers spin
//! for a moment after a loop, because the next one of the same program is microseconds away, then park.
//! The caller never waits for a worker that has not joined in, so a sleeping worker costs nothing but its help.
//!
//! ```
//! use std::sync::atomic::{AtomicUsize, Ordering};
//! let pool = ultramotion_engine::cpu::Pool::new(2);
//! let sum = AtomicUsize::new(0);
//! pool.parallel_for(100, |chunk| { sum.fetch_add(chunk, Ordering::Relaxed); });
//! assert_eq!(sum.into_inner(), 4950);
//! ```
#![allow(unsafe_code)]

mod sync;

use super::kernels::AlignedVec;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{PoisonError, mpsc};
use std::thread::available_parallelism;
use sync::{
    Arc, AtomicBool, AtomicU64, AtomicUsize, Builder, IN_CHUNK, JoinHandle, Mutex, MutexGuard, Ordering,
    Patience, Thread, UnsafeCell, park, spin_loop, yield_now,
};

/// f32 elements of the scratch memory that each thread has: 2 MiB, one large page.
pub const SCRATCH_LEN: usize = 512 * 1024;

/// Keeps what different threads write in different cache lines.
#[repr(align(128))]
struct Line<T>(T);

/// The loop being run, written by the caller while `state` is closed.
#[derive(Clone, Copy)]
struct Job {
    call: unsafe fn(*const (), usize, &mut [f32]),
    data: *const (),
    chunks: usize,
}

struct Scratch(std::cell::UnsafeCell<AlignedVec>);

impl Scratch {
    fn new() -> Self {
        Scratch(std::cell::UnsafeCell::new(AlignedVec::zeros(SCRATCH_LEN)))
    }
    /// # Safety
    /// Only the thread that owns this slot, one loop at a time.
    #[allow(clippy::mut_from_ref)]
    unsafe fn get(&self) -> &mut [f32] {
        // SAFETY: exclusive by the caller's promise.
        unsafe { &mut *self.0.get() }
    }
}

/// `state`: bit 0 = a loop is open to join, bits 1..16 = workers inside, the rest counts loops.
const OPEN: u64 = 1;
const INSIDE: u64 = 2;
const INSIDE_MASK: u64 = 0xfffe;
const LOOP: u64 = 0x1_0000;

struct Shared {
    state: Line<AtomicU64>,
    next: Line<AtomicUsize>,
    job: UnsafeCell<Job>,
    panicked: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    sleeping: Box<[Line<AtomicBool>]>,
    scratch: Box<[Scratch]>,
    shutdown: AtomicBool,
}

// SAFETY: `job` is written only while the loop is closed and no worker is inside, and read only by threads
// inside; a scratch slot belongs to one thread.
unsafe impl Sync for Shared {}
// SAFETY: as above; the raw pointer in `job` is only followed while the caller's frame is alive.
unsafe impl Send for Shared {}

/// A persistent thread pool.
pub struct Pool {
    shared: Arc<Shared>,
    /// Held for the length of a loop, so that several programs can share a pool.
    turn: Mutex<()>,
    wake: Vec<Thread>,
    workers: Vec<JoinHandle<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// A pool that runs loops on `threads` threads, the caller being one of them. With one thread, nothing
    /// is started. Fewer run if the system refuses to start more. Returns when all have started: what a thread
    /// allocates to begin with must not fall into a frame.
    pub fn new(threads: usize) -> Pool {
        let wanted = threads.clamp(1, 1024) - 1;
        let shared = Arc::new(Shared {
            state: Line(AtomicU64::new(0)),
            next: Line(AtomicUsize::new(0)),
            job: UnsafeCell::new(Job { call: |_, _, _| {}, data: std::ptr::null(), chunks: 0 }),
            panicked: AtomicBool::new(false),
            panic: Mutex::new(None),
            sleeping: (0..wanted).map(|_| Line(AtomicBool::new(false))).collect(),
            scratch: (0..=wanted).map(|_| Scratch::new()).collect(),
            shutdown: AtomicBool::new(false),
        });
        let (starting, started) = mpsc::channel::<()>();
        let workers: Vec<JoinHandle<()>> = (0..wanted)
            .map_while(|i| {
                let (shared, starting) = (Arc::clone(&shared), starting.clone());
                let life = move || {
                    drop(starting);
                    shared.work(i);
                };
                Builder::new().name(format!("ultramotion-{i}")).spawn(life).ok()
            })
            .collect();
        drop(starting);
        // Nothing is ever sent: this ends when the last of the workers has dropped its end.
        #[cfg(not(all(test, loom)))]
        let _ = started.recv();
        #[cfg(all(test, loom))]
        drop(started);
        let wake = workers.iter().map(|w| w.thread().clone()).collect();
        Pool { shared, turn: Mutex::new(()), wake, workers }
    }

    /// One thread for each processor that this process may use.
    pub fn per_core() -> Pool {
        Pool::new(available_parallelism().map_or(1, |n| n.get()))
    }

    /// Threads that take part in a loop, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `body` once for each chunk in `0..chunks`, in any order, on all threads; returns when all are
    /// done. A panic in a chunk skips the chunks not yet begun and continues in the caller.
    ///
    /// Panics if called from inside a chunk.
    pub fn parallel_for<F: Fn(usize) + Sync>(&self, chunks: usize, body: F) {
        self.parallel_for_scratch(chunks, |chunk, _| body(chunk));
    }

    /// As [`Pool::parallel_for`], with [`SCRATCH_LEN`] elements of 64-byte aligned scratch memory that no
    /// other thread touches. What it holds at the start of a chunk is unspecified.
    pub fn parallel_for_scratch<F: Fn(usize, &mut [f32]) + Sync>(&self, chunks: usize, body: F) {
        if chunks == 0 {
            return;
        }
        assert!(!IN_CHUNK.with(|flag| flag.get()), "a parallel loop inside a chunk of another one");
        unsafe fn call<F: Fn(usize, &mut [f32]) + Sync>(data: *const (), chunk: usize, scratch: &mut [f32]) {
            // SAFETY: `data` is the `&F` below, alive until the loop ends.
            unsafe { (*data.cast::<F>())(chunk, scratch) }
        }
        let turn = lock(&self.turn);
        let shared = &*self.shared;
        let job = Job { call: call::<F>, data: (&raw const body).cast(), chunks };
        let own = shared.scratch.len() - 1;
        let parallel = chunks > 1 && !self.workers.is_empty();
        shared.next.0.store(0, Ordering::Relaxed);
        if parallel {
            // SAFETY: closed and empty since the end of the last loop, and we hold the turn.
            shared.job.with_mut(|to| unsafe { *to = job });
            // SeqCst pairs with the worker's: either it sees the loop, or we see it asleep.
            shared.state.0.fetch_add(LOOP | OPEN, Ordering::SeqCst);
            for (i, thread) in self.wake.iter().enumerate().take(chunks - 1) {
                let sleeping = &shared.sleeping[i].0;
                if sleeping.load(Ordering::SeqCst) && sleeping.swap(false, Ordering::SeqCst) {
                    thread.unpark();
                }
            }
        }
        shared.run(job, own);
        if parallel {
            shared.state.0.fetch_and(!OPEN, Ordering::AcqRel);
            let mut spins = 0u32;
            while shared.state.0.load(Ordering::Acquire) & INSIDE_MASK != 0 {
                spins += 1;
                if spins < 20_000 {
                    spin_loop();
                } else {
                    yield_now();
                }
            }
        }
        if shared.panicked.swap(false, Ordering::AcqRel) {
            let payload = lock(&shared.panic).take();
            drop(turn);
            resume_unwind(payload.unwrap_or_else(|| Box::new("a chunk of a parallel loop panicked")));
        }
    }
}

impl Shared {
    /// Takes chunks until none is left.
    fn run(&self, job: Job, slot: usize) {
        let result = catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: the slot is this thread's own.
            let scratch = unsafe { self.scratch[slot].get() };
            loop {
                let chunk = self.next.0.fetch_add(1, Ordering::Relaxed);
                if chunk >= job.chunks {
                    break;
                }
                IN_CHUNK.with(|flag| flag.set(true));
                // SAFETY: `data` belongs to `call`, and the caller waits for us before it returns.
                unsafe { (job.call)(job.data, chunk, scratch) };
            }
        }));
        IN_CHUNK.with(|flag| flag.set(false));
        if let Err(payload) = result {
            // Far beyond any count, and far from wrapping.
            self.next.0.store(usize::MAX / 2, Ordering::Relaxed);
            let mut first = lock(&self.panic);
            if first.is_none() {
                *first = Some(payload);
            } else {
                // To drop it could panic again, and nobody may leave a loop before it has ended.
                std::mem::forget(payload);
            }
            self.panicked.store(true, Ordering::Release);
        }
    }

    /// A worker's life.
    fn work(&self, index: usize) {
        let sleeping = &self.sleeping[index].0;
        let mut seen = 0;
        loop {
            // Look for an open loop that we have not been in yet.
            let mut state = self.state.0.load(Ordering::Acquire);
            let mut patience = Patience::default();
            while state & OPEN == 0 || state / LOOP == seen {
                if self.shutdown.load(Ordering::Acquire) {
                    return;
                }
                if patience.is_over() {
                    sleeping.store(true, Ordering::SeqCst);
                    state = self.state.0.load(Ordering::SeqCst);
                    if (state & OPEN == 0 || state / LOOP == seen) && !self.shutdown.load(Ordering::SeqCst) {
                        park();
                    }
                    sleeping.store(false, Ordering::SeqCst);
                    patience = Patience::default();
                }
                state = self.state.0.load(Ordering::Acquire);
            }
            // Join, unless it closes or changes first.
            if self
                .state
                .0
                .compare_exchange(state, state + INSIDE, Ordering::AcqRel, Ordering::Relaxed)
                .is_err()
            {
                continue;
            }
            seen = state / LOOP;
            // SAFETY: we are inside, so the caller waits for us and does not write the job.
            let job = self.job.with(|job| unsafe { *job });
            self.run(job, index);
            self.state.0.fetch_sub(INSIDE, Ordering::AcqRel);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.shutdown.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches what its chunks throw, so it ends normally.
            let _ = worker.join();
        }
    }
}

#[cfg(all(test, loom))]
mod interleavings;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::thread;
    use std::time::Instant;
    use sync::SPIN;

    #[test]
    fn every_chunk_runs_once_for_any_number_of_threads() {
        for threads in [1, 2, 3, 8] {
            let pool = Pool::new(threads);
            assert_eq!(pool.threads(), threads);
            for round in 0..if cfg!(miri) { 10 } else { 500 } {
                let chunks = round % 37;
                let hits: Vec<AtomicUsize> = (0..chunks).map(|_| AtomicUsize::new(0)).collect();
                pool.parallel_for(chunks, |c| {
                    hits[c].fetch_add(1, Ordering::Relaxed);
                });
                assert!(hits.iter().all(|h| h.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn workers_help_after_they_slept() {
        let pool = Pool::new(2);
        for _ in 0..3 {
            // Long enough that the worker parks in between.
            let until = Instant::now() + SPIN * 20;
            while Instant::now() < until {
                std::hint::spin_loop();
            }
            // Both chunks must be in flight at once, or neither ends.
            let inside = AtomicUsize::new(0);
            pool.parallel_for(2, |_| {
                inside.fetch_add(1, Ordering::SeqCst);
                while inside.load(Ordering::SeqCst) < 2 {
                    thread::yield_now();
                }
            });
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(3);
        for round in 0..if cfg!(miri) { 3 } else { 50 } {
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.parallel_for(64, |c| assert!(c != round, "chunk {c} is bad"));
            }));
            let payload = result.unwrap_err();
            let text = payload.downcast_ref::<String>().map(String::as_str).unwrap_or("");
            assert!(text.contains("is bad"), "{text}");
            let sum = AtomicUsize::new(0);
            pool.parallel_for(10, |c| {
                sum.fetch_add(c, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 45);
        }
    }

    #[test]
    fn a_payload_that_panics_when_it_is_dropped_does_not_end_a_loop_early() {
        struct Second;
        impl Drop for Second {
            fn drop(&mut self) {
                panic!("a payload's drop");
            }
        }
        let pool = Pool::new(2);
        let caller = thread::current().id();
        // The caller's payload comes second, then the worker's.
        for caller_is_second in [true, false] {
            let inside = AtomicUsize::new(0);
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.parallel_for(2, |_| {
                    inside.fetch_add(1, Ordering::SeqCst);
                    while inside.load(Ordering::SeqCst) < 2 {
                        thread::yield_now();
                    }
                    if (thread::current().id() == caller) == caller_is_second {
                        while !pool.shared.panicked.load(Ordering::Acquire) {
                            thread::yield_now();
                        }
                        std::panic::panic_any(Second);
                    }
                    std::panic::panic_any("first");
                });
            }));
            assert_eq!(result.unwrap_err().downcast_ref(), Some(&"first"));
            let sum = AtomicUsize::new(0);
            pool.parallel_for(10, |c| {
                sum.fetch_add(c, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 45);
        }
    }

    #[test]
    fn a_nested_loop_is_refused() {
        let pool = Pool::new(2);
        let result =
            catch_unwind(AssertUnwindSafe(|| pool.parallel_for(1, |_| pool.parallel_for(1, |_| ()))));
        assert!(result.is_err());
        pool.parallel_for(4, |_| ());
    }

    #[test]
    fn several_callers_take_turns() {
        let pool = Pool::new(2);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..if cfg!(miri) { 5 } else { 200 } {
                        let sum = AtomicUsize::new(0);
                        pool.parallel_for(20, |c| {
                            sum.fetch_add(c, Ordering::Relaxed);
                        });
                        assert_eq!(sum.into_inner(), 190);
                    }
                });
            }
        });
    }
}
