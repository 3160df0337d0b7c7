//! The pool in every order of its threads' steps, up to a few forced changes of thread: loom's models of atomics, locks and
//! threads. `.ci/unsafe` runs them; they take minutes.

use loom::cell::UnsafeCell;
use loom::model::Builder;

use super::*;

/// A number that loom watches: an access that is not ordered after a write of another thread is a failure.
struct Watched(UnsafeCell<usize>);

// SAFETY: a test that lets two threads at it unordered fails.
unsafe impl Sync for Watched {}

impl Watched {
    fn new() -> Self {
        Watched(UnsafeCell::new(0))
    }
    fn add(&self, n: usize) -> usize {
        // SAFETY: as for `Sync`.
        self.0.with_mut(|value| unsafe {
            *value += n;
            *value
        })
    }
}

fn in_every_order(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

#[test]
fn chunks_run_once_and_none_after_its_loop() {
    in_every_order(|| {
        let pool = Pool::new(2);
        for _ in 0..2 {
            let hits = [Watched::new(), Watched::new()];
            pool.parallel_for(2, |chunk| {
                hits[chunk].add(1);
            });
            // Frees what chunks borrow: loom fails if one of them may still run.
            for hit in hits {
                assert_eq!(hit.add(0), 1);
            }
        }
    });
}

#[test]
fn a_pool_ends_whatever_its_workers_do() {
    in_every_order(|| drop(Pool::new(3)));
}

/// A payload whose drop panics ends the thread that drops it.
struct Bad;

impl Drop for Bad {
    fn drop(&mut self) {
        panic!("a payload's drop");
    }
}

#[test]
fn panics_of_several_chunks_end_no_loop_early() {
    std::panic::set_hook(Box::new(|_| {}));
    in_every_order(|| {
        let pool = Pool::new(2);
        let borrowed = [Watched::new(), Watched::new()];
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.parallel_for(2, |chunk| {
                borrowed[chunk].add(1);
                std::panic::panic_any(Bad);
            });
        }));
        // The payload may have come from either thread, and is given to the caller whole.
        let payload = result.unwrap_err();
        assert!(payload.is::<Bad>());
        std::mem::forget(payload);
        assert!(borrowed.iter().map(|chunk| chunk.add(0)).sum::<usize>() >= 1);
        // The pool goes on.
        let hits = [Watched::new(), Watched::new()];
        pool.parallel_for(2, |chunk| {
            hits[chunk].add(1);
        });
        assert!(hits.iter().all(|hit| hit.add(0) == 1));
    });
}
