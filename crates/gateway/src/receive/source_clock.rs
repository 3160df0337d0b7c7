//! How old a frame is by its own timestamp.
//!
//! The scanner's clock and this machine's need not show the same time. The frame that was on its way for the shortest
//! time shows how far they are apart, and every other frame is older than that one by what it took longer: on the way, in
//! the sockets, while this process was stopped. That holds for a clock that runs as fast as time goes by. Others, such as
//! those of a recording that is sent slowly, are found out and not believed.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use ultramotion_igtlink::Timestamp;

/// At first clocks are only believed if they are no further apart.
const MAX_OFFSET_S: f64 = 60.0;
/// A clock is judged over so long.
const SPAN: Duration = Duration::from_secs(2);
/// The shortest delay is that of so many of the last spans: a way that has become longer for good is known after them.
const SPANS: usize = 5;
/// A clock that runs slower than this for two spans, in seconds a second, is none.
const MIN_PACE: f64 = 0.9;

/// The clock of one connection's frames.
#[derive(Debug)]
pub struct SourceClock {
    begin: Instant,
    is_believed: bool,
    /// Whether it ran slow in the last span.
    was_slow: bool,
    /// Shortest delays of the spans before this one, in seconds.
    shortest_s: VecDeque<f64>,
    span: Option<Span>,
}

/// Frames one after another, times in seconds.
#[derive(Debug)]
struct Span {
    first_arrived_s: f64,
    first_taken_s: f64,
    last_arrived_s: f64,
    last_taken_s: f64,
    shortest_s: f64,
}

impl SourceClock {
    /// A clock of which nothing is known, on a connection that begins now.
    pub fn new() -> Self {
        let shortest_s = VecDeque::with_capacity(SPANS);
        SourceClock { begin: Instant::now(), is_believed: false, was_slow: false, shortest_s, span: None }
    }

    /// How much longer a frame was on its way than the one that came fastest; `None` if the clock is not believed. Frames
    /// are shown in the order of their arrival.
    pub fn late_by(&mut self, taken: Timestamp, arrived: Instant, now: SystemTime) -> Option<Duration> {
        let taken_s = taken.as_secs_f64();
        let arrived_s = arrived.saturating_duration_since(self.begin).as_secs_f64();
        let delay_s = arrived_s - taken_s;
        match &mut self.span {
            None => {
                let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                self.is_believed = (since_1970.as_secs_f64() - taken_s).abs() <= MAX_OFFSET_S;
            }
            // It was set back: what was before is of another time.
            Some(span) if taken_s < span.last_taken_s => self.restart(),
            Some(span) if arrived_s - span.first_arrived_s >= SPAN.as_secs_f64() => {
                let (time_s, clock_s) =
                    (span.last_arrived_s - span.first_arrived_s, span.last_taken_s - span.first_taken_s);
                let (is_slow, shortest_s) = (clock_s < MIN_PACE * time_s, span.shortest_s);
                // Once may be a way that has become longer.
                if is_slow && (self.was_slow || !self.is_believed) {
                    self.is_believed = false;
                    self.restart();
                } else {
                    self.is_believed = true;
                    self.shortest_s.truncate(SPANS - 1);
                    self.shortest_s.push_front(shortest_s);
                    self.span = None;
                }
                self.was_slow = is_slow;
            }
            Some(_) => {}
        }
        let span = self.span.get_or_insert(Span {
            first_arrived_s: arrived_s,
            first_taken_s: taken_s,
            last_arrived_s: arrived_s,
            last_taken_s: taken_s,
            shortest_s: delay_s,
        });
        (span.last_arrived_s, span.last_taken_s) = (arrived_s, taken_s);
        span.shortest_s = span.shortest_s.min(delay_s);
        let shortest_s = self.shortest_s.iter().copied().fold(span.shortest_s, f64::min);
        self.is_believed.then(|| Duration::try_from_secs_f64(delay_s - shortest_s).unwrap_or_default())
    }

    fn restart(&mut self) {
        self.shortest_s.clear();
        self.span = None;
    }
}

impl Default for SourceClock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: f64 = 1_700_000_000.0;

    /// By how much frames are late, in seconds, that arrive and were taken at these times, by a clock that shows so much
    /// more than ours; -1 where the clock is not believed.
    fn late_s(offset_s: f64, frames: impl IntoIterator<Item = (f64, f64)>) -> Vec<f64> {
        let mut clock = SourceClock::new();
        let (begin, wall) = (clock.begin, SystemTime::UNIX_EPOCH + Duration::from_secs_f64(NOW_S));
        let late_by = |(arrives_s, taken_s): (f64, f64)| {
            let after = Duration::from_secs_f64(arrives_s);
            let taken = Timestamp::from_secs_f64(NOW_S + offset_s + taken_s);
            let late = clock.late_by(taken, begin + after, wall + after);
            late.map_or(-1.0, |late| (late.as_secs_f64() * 1e3).round() / 1e3)
        };
        frames.into_iter().map(late_by).collect()
    }

    /// Frames each 40 ms from a time on, which take 10 ms.
    fn at_once(from_s: f64, count: u32) -> impl Iterator<Item = (f64, f64)> {
        (0..count).map(move |n| from_s + 0.04 * f64::from(n)).map(|taken_s| (taken_s + 0.01, taken_s))
    }

    #[test]
    fn what_waited_in_the_sockets_is_late_by_as_much() {
        for offset_s in [0.0, -30.0, 30.0] {
            // The process stands still from 3 s to 15 s, then finds all that came in the meantime.
            let stopped = (0..300).map(|n| 3.0 + 0.04 * f64::from(n)).map(|taken_s| (15.0, taken_s));
            let late = late_s(offset_s, at_once(0.0, 75).chain(stopped).chain(at_once(15.0, 75)));
            assert!(late[..75].iter().all(|&s| s == 0.0), "{late:?}");
            assert_eq!((late[75], late[200], late[374]), (11.99, 6.99, 0.03));
            assert!(late[375..].iter().all(|&s| s == 0.0), "{late:?}");
        }
    }

    #[test]
    fn a_longer_way_is_known_after_a_while() {
        let longer = at_once(3.0, 500).map(|(arrives_s, taken_s)| (arrives_s + 1.0, taken_s));
        let late = late_s(0.0, at_once(0.0, 75).chain(longer));
        assert_eq!((late[76], late[200], late[574]), (1.0, 1.0, 0.0));
    }

    #[test]
    fn a_clock_that_is_none_is_found_out() {
        // A recording at half its pace, one moment for ever, and a clock of long ago.
        let slowly = late_s(0.0, at_once(0.0, 200).map(|(arrives_s, taken_s)| (2.0 * arrives_s, taken_s)));
        let never = late_s(0.0, at_once(0.0, 200).map(|(arrives_s, _)| (arrives_s, 0.0)));
        for late in [slowly, never] {
            let late = &late[110..];
            assert!(late.iter().all(|&s| s == -1.0), "{late:?}");
        }
        let long_ago = late_s(-1e9, at_once(0.0, 100));
        assert_eq!((long_ago[0], long_ago[99]), (-1.0, 0.0), "believed once it was seen to go");
    }

    #[test]
    fn a_clock_that_is_set_makes_nothing_late() {
        for step_s in [-5.0, 5.0] {
            let set = at_once(3.0, 200).map(|(arrives_s, taken_s)| (arrives_s, taken_s + step_s));
            let late = late_s(0.0, at_once(0.0, 75).chain(set));
            assert!(late.iter().all(|&s| s == 0.0), "{step_s}: {late:?}");
        }
    }
}
