//! Frames that the scanner had kept before the connection was made.
//!
//! PlusServer begins with the oldest frame in its buffer, some seconds of them, and sends them as fast as it can. They
//! arrive now, and are old: by their own timestamps, if the scanner's clock is this machine's. If it is not, frames that
//! come no faster than they were taken are the scanner's present, whatever its clock says.

use std::time::{Duration, Instant, SystemTime};

use ultramotion_igtlink::Timestamp;

/// Clocks that are further apart are not compared.
const MAX_LAG_S: f64 = 60.0;
/// How long it takes to see whether the scanner catches up.
const WATCHED: Duration = Duration::from_millis(500);

/// Tells old frames at the beginning of a connection.
#[derive(Debug)]
pub struct Backlog {
    max_lag_s: f64,
    first: Option<(Instant, f64)>,
    over: bool,
}

impl Backlog {
    /// A frame that is older than this is old.
    pub fn new(max_lag: Duration) -> Self {
        Backlog { max_lag_s: max_lag.as_secs_f64(), first: None, over: false }
    }

    /// A connection begins.
    pub fn restart(&mut self) {
        (self.first, self.over) = (None, false);
    }

    /// Whether a frame that arrives now was taken before the connection was made.
    pub fn is_old(&mut self, taken: Timestamp, arrived: Instant, now: SystemTime) -> bool {
        if self.over {
            return false;
        }
        let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let lag_s = since_1970.as_secs_f64() - taken.as_secs_f64();
        let (first_arrived, first_lag_s) = *self.first.get_or_insert((arrived, lag_s));
        let watched = arrived.saturating_duration_since(first_arrived);
        let catches_up = first_lag_s - lag_s >= watched.as_secs_f64() / 2.0;
        self.over = lag_s <= self.max_lag_s
            || lag_s.is_nan()
            || lag_s > MAX_LAG_S
            || (watched >= WATCHED && !catches_up);
        !self.over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: u64 = 1_700_000_000;

    /// Whether frames are old that arrive at these times and were taken at those, both in seconds from now on.
    fn old(frames: &[(f64, f64)]) -> Vec<bool> {
        let (begin, now) = (Instant::now(), SystemTime::UNIX_EPOCH + Duration::from_secs(NOW_S));
        let mut backlog = Backlog::new(Duration::from_millis(500));
        let is_old = |&(arrives, taken): &(f64, f64)| {
            let after = Duration::from_secs_f64(arrives);
            backlog.is_old(Timestamp::from_secs_f64(NOW_S as f64 + taken), begin + after, now + after)
        };
        frames.iter().map(is_old).collect()
    }

    #[test]
    fn frames_from_before_the_connection_are_old() {
        let frames = [(0.0, -5.0), (0.01, -4.0), (0.02, -3.0), (0.03, -0.6), (0.04, -0.4), (0.05, -9.0)];
        assert_eq!(old(&frames), [true, true, true, true, false, false], "only at the beginning");
        assert_eq!(old(&[(0.0, -0.1), (0.01, -3.0)]), [false, false], "a scanner without a backlog");
    }

    #[test]
    fn another_clock_makes_no_frame_old_for_long() {
        let behind: Vec<(f64, f64)> =
            (0..20).map(|n| (0.04 * f64::from(n), 0.04 * f64::from(n) - 2.0)).collect();
        let first_taken = old(&behind).iter().position(|old| !old).unwrap();
        assert!((12..15).contains(&first_taken), "after half a second: {first_taken}");
        assert_eq!(old(&[(0.0, -1e6), (0.01, -4.0)]), [false, false], "a clock that counts from its start");
        assert_eq!(old(&[(0.0, 30.0), (0.01, -4.0)]), [false, false], "a clock that is ahead");
    }
}
