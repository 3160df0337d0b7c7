//! Seconds between frames, from a source's timestamps.

/// Turns timestamps into intervals.
#[derive(Clone, Copy, Debug, Default)]
pub struct FrameClock {
    last_s: Option<f64>,
}

impl FrameClock {
    /// The seconds from the last frame to this one, for [`update`](super::update()). 0 for the first frame, and where
    /// the timestamp is not a number, stands still or runs backwards (a recording that starts again): time then goes
    /// on from this frame.
    pub fn step(&mut self, timestamp_s: f64) -> f32 {
        if !timestamp_s.is_finite() {
            return 0.0;
        }
        let elapsed_s = self.last_s.map_or(0.0, |last_s| timestamp_s - last_s);
        self.last_s = Some(timestamp_s);
        // The difference in f64: seconds since 1970 need more digits than f32 has.
        elapsed_s.clamp(0.0, f64::from(f32::MAX)) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_of_a_bumpy_source() {
        let mut clock = FrameClock::default();
        let start = 1.7e9;
        let steps = [0.0, 0.05, f64::NAN, 0.10, 0.10, -20.0, -19.75].map(|t| clock.step(start + t));
        let expected = [0.0, 0.05, 0.0, 0.05, 0.0, 0.0, 0.25];
        assert!(steps.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{steps:?}");
        assert_eq!(FrameClock::default().step(f64::INFINITY), 0.0);
    }
}
