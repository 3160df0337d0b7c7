//! What is wrong is said once, and counted from then on; what others do as often as they like, so often a minute.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Problems by kind, with how often each came up.
///
/// ```
/// use ultramotion_gateway::complaints::Complaints;
///
/// let complaints = Complaints::default();
/// for width in [0, 0, 9000] {
///     complaints.say("image_size", format_args!("an image {width} pixels wide"));
/// }
/// assert_eq!(complaints.counts(), [("image_size", 3)]);
/// ```
#[derive(Debug, Default)]
pub struct Complaints {
    kinds: Mutex<BTreeMap<&'static str, Kind>>,
}

#[derive(Debug, Default)]
struct Kind {
    count: u64,
    quiet: bool,
}

impl Complaints {
    /// Logs a problem if it is the first of its kind, and counts it. Returns whether it was logged.
    pub fn say(&self, kind: &'static str, problem: impl fmt::Display) -> bool {
        let first = {
            let mut kinds = self.lock();
            let entry = kinds.entry(kind).or_default();
            entry.count += 1;
            !std::mem::replace(&mut entry.quiet, true)
        };
        if first {
            tracing::warn!("{problem} (said once, counted as {kind})");
        }
        first
    }

    /// The problem is over: the next of its kind is news again.
    pub fn over(&self, kind: &'static str) {
        if let Some(entry) = self.lock().get_mut(kind) {
            entry.quiet = false;
        }
    }

    /// Kinds and counts, by name.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        self.lock().iter().map(|(&kind, entry)| (kind, entry.count)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Kind>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lines about comings and goings, which anybody can cause: the first of a minute are logged, of others their number when
/// the minute is over.
///
/// ```
/// use std::time::{Duration, Instant};
/// use ultramotion_gateway::complaints::Comings;
///
/// let (mut clients, now) = (Comings::new("clients came or went"), Instant::now());
/// let said = (0..100).filter(|n| clients.say(now, format_args!("client {n} came"))).count();
/// assert_eq!(said, 20);
/// assert_eq!(clients.sum_up(now + Duration::from_secs(60)), 80);
/// assert!(clients.say(now + Duration::from_secs(61), "client 100 came"));
/// ```
#[derive(Debug)]
pub struct Comings {
    what: &'static str,
    minute: Instant,
    said: u32,
    more: u64,
}

impl Comings {
    /// Lines that are logged in a minute.
    const SAID: u32 = 20;

    /// Of these, as in "312 more … within a minute".
    pub fn new(what: &'static str) -> Self {
        Comings { what, minute: Instant::now(), said: 0, more: 0 }
    }

    /// Logs a line, if it is one of the first. Returns whether it was logged.
    pub fn say(&mut self, now: Instant, line: impl fmt::Display) -> bool {
        self.sum_up(now);
        let says = self.said < Self::SAID;
        if says {
            self.said += 1;
            tracing::info!("{line}");
        } else {
            self.more += 1;
        }
        says
    }

    /// If the minute is over, logs how many others there were, and returns it.
    pub fn sum_up(&mut self, now: Instant) -> u64 {
        if now.saturating_duration_since(self.minute) < Duration::from_secs(60) {
            return 0;
        }
        let more = std::mem::take(&mut self.more);
        if more > 0 {
            tracing::info!("{more} more {} within a minute", self.what);
        }
        (self.minute, self.said) = (now, 0);
        more
    }
}
