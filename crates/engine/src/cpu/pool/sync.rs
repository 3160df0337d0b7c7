//! What the pool is made of: the standard library's threads and atomics, or loom's, which run its tests in every order
//! (`.ci/unsafe`).

#[cfg(not(all(test, loom)))]
mod real {
    use std::cell::Cell;
    pub use std::hint::spin_loop;
    pub use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
    pub use std::sync::{Arc, Mutex, MutexGuard};
    pub use std::thread::{Builder, JoinHandle, Thread, park, yield_now};
    use std::time::{Duration, Instant};

    thread_local! {
        /// Set while this thread runs a chunk: a loop inside a loop could never get the pool.
        pub static IN_CHUNK: Cell<bool> = const { Cell::new(false) };
    }

    /// How long a worker looks for the next loop before it sleeps.
    pub const SPIN: Duration = Duration::from_micros(60);

    /// A worker's, between two loops.
    #[derive(Default)]
    pub struct Patience {
        spins: u32,
        begin: Option<Instant>,
    }

    impl Patience {
        /// Waits a moment. Whether it has been long enough.
        pub fn is_over(&mut self) -> bool {
            self.spins += 1;
            spin_loop();
            // The clock is looked at now and then: it costs more than a spin.
            self.spins.is_multiple_of(64) && self.begin.get_or_insert_with(Instant::now).elapsed() > SPIN
        }
    }

    /// [`std::cell::UnsafeCell`], with loom's interface.
    pub struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub fn new(value: T) -> Self {
            UnsafeCell(std::cell::UnsafeCell::new(value))
        }
        /// An address to read.
        pub fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
            read(self.0.get())
        }
        /// An address to write.
        pub fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
            write(self.0.get())
        }
    }
}

#[cfg(all(test, loom))]
mod real {
    pub use loom::cell::UnsafeCell;
    pub use loom::hint::spin_loop;
    pub use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
    pub use loom::sync::{Arc, Mutex, MutexGuard};
    pub use loom::thread::{Builder, JoinHandle, Thread, park, yield_now};
    use std::cell::Cell;

    loom::thread_local! {
        pub static IN_CHUNK: Cell<bool> = Cell::new(false);
    }

    /// None: a spin more is one order more.
    #[derive(Default)]
    pub struct Patience;

    impl Patience {
        pub fn is_over(&mut self) -> bool {
            true
        }
    }
}

pub use real::*;
