//! Stages as threads: one that dies is started again.
//!
//! ```
//! use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
//! use std::sync::Arc;
//! use std::time::Duration;
//! use ultramotion_gateway::supervise::Supervisor;
//!
//! let mut supervisor = Supervisor::default();
//! let attempts = Arc::new(AtomicUsize::new(0));
//! let counter = Arc::clone(&attempts);
//! supervisor.start("work", move || {
//!     if counter.fetch_add(1, SeqCst) == 0 { Err("not yet".into()) } else { Ok(()) }
//! })?;
//! assert!(supervisor.wait("work", Duration::from_secs(5)));
//! assert_eq!((attempts.load(SeqCst), supervisor.restarts()), (2, 1));
//! # Ok::<(), std::io::Error>(())
//! ```

use std::any::Any;
use std::error::Error;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Any error.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Pause before a stage is started again; doubles with each death in a row.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A stage that lived so long was well: its next death is the first in a row.
const WELL_AFTER: Duration = Duration::from_secs(10);

/// Tells all stages to end.
#[derive(Debug, Default)]
pub struct StopSignal {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl StopSignal {
    /// From now on everything ends.
    pub fn set(&self) {
        *self.lock() = true;
        self.changed.notify_all();
    }

    /// Whether to end.
    pub fn is_set(&self) -> bool {
        *self.lock()
    }

    /// Waits so long, or until it is set; returns whether it is.
    pub fn wait(&self, timeout: Duration) -> bool {
        let wait = self.changed.wait_timeout_while(self.lock(), timeout, |stopped| !*stopped);
        *wait.unwrap_or_else(PoisonError::into_inner).0
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stages.
#[derive(Debug, Default)]
pub struct Supervisor {
    stop: Arc<StopSignal>,
    board: Arc<Board>,
}

#[derive(Debug, Default)]
struct Board {
    running: Mutex<Vec<&'static str>>,
    ended: Condvar,
    restarts: Arc<AtomicU64>,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, Vec<&'static str>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Supervisor {
    /// What tells the stages to end.
    pub fn stop(&self) -> &Arc<StopSignal> {
        &self.stop
    }

    /// Starts a stage. It ends when `body` returns `Ok`; on an error or a panic `body` is called again, after a pause
    /// that grows, unless all is to stop.
    pub fn start(
        &mut self,
        name: &'static str,
        mut body: impl FnMut() -> Result<(), BoxError> + Send + 'static,
    ) -> io::Result<()> {
        let (stop, board) = (Arc::clone(&self.stop), Arc::clone(&self.board));
        self.board.lock().push(name);
        let spawned = thread::Builder::new().name(name.into()).spawn(move || {
            let mut pause = FIRST_PAUSE;
            loop {
                let since = Instant::now();
                let cause = match catch_unwind(AssertUnwindSafe(&mut body)) {
                    Ok(Ok(())) => break,
                    Ok(Err(error)) => error.to_string(),
                    Err(panic) => format!("a defect: {}", panic_text(panic.as_ref())),
                };
                board.restarts.fetch_add(1, Relaxed);
                if since.elapsed() >= WELL_AFTER {
                    pause = FIRST_PAUSE;
                }
                // Whoever writes the log may be what panics.
                let _ = catch_unwind(|| {
                    tracing::warn!(
                        "the {name} stage died of {cause}; it starts again in {} ms",
                        pause.as_millis()
                    );
                });
                if stop.wait(pause) {
                    break;
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            drop(body);
            board.lock().retain(|&running| running != name);
            board.ended.notify_all();
        });
        if let Err(error) = spawned {
            self.board.lock().retain(|&running| running != name);
            return Err(error);
        }
        Ok(())
    }

    /// Waits at most so long for a stage to end; returns whether it has.
    pub fn wait(&self, name: &'static str, timeout: Duration) -> bool {
        let wait = self.board.ended.wait_timeout_while(self.board.lock(), timeout, |r| r.contains(&name));
        !wait.unwrap_or_else(PoisonError::into_inner).0.contains(&name)
    }

    /// How often a stage died and was started again.
    pub fn restarts(&self) -> u64 {
        self.board.restarts.load(Relaxed)
    }

    /// The same as it goes on.
    pub(crate) fn restart_count(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.board.restarts)
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a non-string panic payload")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn panics_and_errors_are_survived_and_counted() {
        let mut supervisor = Supervisor::default();
        let lives = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&lives);
        let body = move || match counter.fetch_add(1, Relaxed) {
            0 => panic!("a test's panic"),
            1 => Err("an error".into()),
            _ => Ok(()),
        };
        supervisor.start("mortal", body).unwrap();
        assert!(supervisor.wait("mortal", SOON));
        assert_eq!((lives.load(Relaxed), supervisor.restarts()), (3, 2));
    }

    #[test]
    fn a_stage_that_keeps_dying_is_left_dead_when_all_stops() {
        let mut supervisor = Supervisor::default();
        supervisor.start("hopeless", || Err("no luck".into())).unwrap();
        assert!(!supervisor.wait("hopeless", Duration::ZERO));
        supervisor.stop().set();
        assert!(supervisor.wait("hopeless", SOON));
    }
}
