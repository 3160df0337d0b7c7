//! Whether a source's timestamps are seconds.

/// Intervals whose median is judged.
const JUDGED: usize = 9;
/// Frames of ultrasound are this far apart, seconds: 200 to 1 a second.
const LIKELY_S: std::ops::RangeInclusive<f32> = 0.005..=1.0;
/// Other units of time, in parts of a second.
const UNITS: [(&str, f32); 3] = [("milliseconds", 1e3), ("microseconds", 1e6), ("nanoseconds", 1e9)];

/// Watches intervals until it has said once that tracks cannot live from one frame to the next.
#[derive(Debug, Default)]
pub(crate) struct TimeUnit {
    intervals_s: [f32; JUDGED],
    noted: usize,
    said: bool,
}

impl TimeUnit {
    /// Notes an interval; the words, once, when the median of some in a row is longer than tracks are remembered.
    pub(crate) fn note(&mut self, interval_s: f32, forget_s: f32) -> Option<String> {
        // The first frame, and a clock that stands still, say nothing.
        if self.said || interval_s <= 0.0 {
            return None;
        }
        self.intervals_s[self.noted] = interval_s;
        self.noted = (self.noted + 1) % JUDGED;
        if self.noted > 0 {
            return None;
        }
        self.intervals_s.sort_unstable_by(f32::total_cmp);
        let median_s = self.intervals_s[JUDGED / 2];
        if median_s <= forget_s {
            return None;
        }
        self.said = true;
        let unit = UNITS.iter().find(|(_, parts)| LIKELY_S.contains(&(median_s / parts)));
        let likely = unit.map_or_else(String::new, |(name, _)| {
            format!("; they are likely {name}, and must be seconds: correct them in the source")
        });
        Some(format!(
            "by their timestamps, frames are {median_s} s apart, longer than the {forget_s} s of tracker.forget_s, so each \
             gets new identities{likely}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of so many frames at such intervals.
    fn said(interval_s: impl Fn(usize) -> f32) -> Vec<String> {
        let mut unit = TimeUnit::default();
        (0..60).filter_map(|frame| unit.note(interval_s(frame), 3.0)).collect()
    }

    #[test]
    fn units_are_named_once_and_slow_or_bumpy_sources_are_not_accused() {
        for (interval_s, name) in [(40.0, "milliseconds"), (16_667.0, "microseconds"), (4e7, "nanoseconds")] {
            let words = said(|_| interval_s);
            assert_eq!(words.len(), 1);
            assert!(words[0].contains(&format!("they are likely {name}")), "{words:?}");
        }
        let words = said(|_| 3600.0);
        assert!(words.len() == 1 && !words[0].contains("likely"), "{words:?}");
        assert!(said(|_| 0.04).is_empty() && said(|_| 2.9).is_empty());
        // Pauses now and then, and a first frame that is long ago.
        assert!(said(|frame| if frame % 3 == 0 { 50.0 } else { 0.04 }).is_empty());
        assert!(said(|_| 0.0).is_empty());
    }
}
