//! So many a second, and no more.

use std::time::{Duration, Instant};

/// So many of something a second. A second's worth may come at once; from then on each waits for its turn.
///
/// ```
/// use std::time::Instant;
/// use ultramotion_igtlink::Budget;
///
/// let (mut budget, now) = (Budget::per_second(4), Instant::now());
/// let waits_ms: Vec<u128> = (0..6).map(|_| budget.take(now).as_millis()).collect();
/// assert_eq!(waits_ms, [0, 0, 0, 0, 250, 500]);
/// ```
#[derive(Debug, Clone)]
pub struct Budget {
    interval: Duration,
    /// When the next would come if all came evenly (the generic cell rate algorithm of ITU-T I.371).
    due: Option<Instant>,
}

impl Budget {
    const BURST: Duration = Duration::from_secs(1);

    /// A budget of so many a second, at least one.
    pub fn per_second(count: u32) -> Self {
        Self { interval: Self::BURST / count.max(1), due: None }
    }

    /// Takes one, and says how long it has to wait.
    pub fn take(&mut self, now: Instant) -> Duration {
        let due = self.due.map_or(now, |due| due.max(now));
        self.due = Some(due + self.interval);
        (due - now).saturating_sub(Self::BURST - self.interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_that_was_not_used_does_not_pile_up() {
        let (mut budget, begin) = (Budget::per_second(10), Instant::now());
        let mut free_at = |ms| {
            let now = begin + Duration::from_millis(ms);
            std::iter::from_fn(|| budget.take(now).is_zero().then_some(())).count()
        };
        // The one that has to wait is taken too.
        assert_eq!([free_at(0), free_at(150), free_at(300), free_at(3_600_000)], [10, 0, 1, 10]);
    }
}
