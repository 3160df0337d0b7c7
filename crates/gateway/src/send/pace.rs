//! How often outlines are sent.

use std::time::{Duration, Instant};

/// Lets so many a second pass, and whatever clears what was shown.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    next: Option<Instant>,
    cleared: bool,
}

impl Pace {
    /// 0 lets everything pass.
    pub(super) fn new(per_s: f64) -> Self {
        let interval = if per_s > 0.0 { Duration::from_secs_f64(1.0 / per_s) } else { Duration::ZERO };
        Pace { interval, next: None, cleared: false }
    }

    /// So many a second from now on.
    pub(super) fn set(&mut self, per_s: f64) {
        self.interval = Self::new(per_s).interval;
    }

    /// Whether to send now.
    pub(super) fn is_due(&mut self, now: Instant, is_empty: bool) -> bool {
        let clears = is_empty && !self.cleared;
        let next = self.next.unwrap_or(now);
        if now < next && !clears {
            return false;
        }
        // On a grid, so that the mean is as configured; a pause is not made up for.
        self.next = Some((next + self.interval).max(now));
        self.cleared = is_empty;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_a_second_and_what_clears() {
        let start = Instant::now();
        let sent = |per_s: f64, empty_at: Option<u32>| {
            let mut pace = Pace::new(per_s);
            let due = |n: &u32| pace.is_due(start + Duration::from_millis(40) * *n, Some(*n) == empty_at);
            (0..25).filter(due).collect::<Vec<_>>()
        };
        assert_eq!(sent(0.0, None).len(), 25);
        assert_eq!(sent(10.0, None).len(), 10, "{:?}", sent(10.0, None));
        assert!(
            !sent(10.0, None).contains(&1) && sent(10.0, Some(1)).contains(&1),
            "empty ones are not held back"
        );
    }
}
