//! The times of frames: their own, or between their neighbours'.

use std::collections::BTreeMap;

use super::FrameFields;

/// Times that entries of a sequence have, in order of the entries.
#[derive(Debug, Default)]
pub(super) struct Times(Vec<(u64, f64)>);

impl Times {
    pub(super) fn of(fields: &BTreeMap<u64, FrameFields>) -> Self {
        Times(fields.iter().filter_map(|(&entry, fields)| Some((entry, fields.timestamp_s?))).collect())
    }

    /// Seconds of an entry, and whether they are its own. One without a time among others that have one lies between its
    /// neighbours, or as far beyond the last ones as frames of this rate are apart; `None` where no entry has a time.
    pub(super) fn at(&self, entry: u64, frames_per_second: f64) -> Option<(f64, bool)> {
        let after = self.0.partition_point(|&(known, _)| known < entry);
        let (before, after) = (after.checked_sub(1).map(|at| self.0[at]), self.0.get(after).copied());
        let apart = |a: u64, b: u64| a.abs_diff(b) as f64 / frames_per_second;
        match (before, after) {
            (_, Some((known, seconds))) if known == entry => Some((seconds, true)),
            (Some((a, from)), Some((b, to))) => {
                Some((from + (to - from) * ((entry - a) as f64 / (b - a) as f64), false))
            }
            (Some((a, from)), None) => Some((from + apart(entry, a), false)),
            (None, Some((b, to))) => Some((to - apart(b, entry), false)),
            (None, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_without_a_time_lies_between_its_neighbours() {
        let times = Times(vec![(2, 10.0), (6, 12.0)]);
        let at = |entry| times.at(entry, 10.0).unwrap();
        assert_eq!([at(2), at(6)], [(10.0, true), (12.0, true)]);
        assert_eq!([at(3), at(5)], [(10.5, false), (11.5, false)]);
        assert_eq!([at(0), at(9)], [(9.8, false), (12.3, false)]);
        assert_eq!(Times::default().at(3, 10.0), None);
    }
}
