//! What is wrong is said once, and counted from then on.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

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
