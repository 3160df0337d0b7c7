//! The thresholds of tracking, and why their defaults are what they are.

use ultramotion_types::settings::{Range, SettingError, Table};

use crate::assignment::{CostWeights, Solver};
use crate::error::TrackingError;
use crate::quality::QualityConfig;

ultramotion_types::settings! {
    /// Tracking: lengths are fractions of the image (a box in (cx, cy, w, h), each 0 to 1), times are seconds of the
    /// source's timestamps, scores 0 to 1.
    ///
    /// The defaults suit hand-held ultrasound at 10 to 60 frames a second: structures drift and pulsate by a few percent
    /// of the image a second, detections jitter by about one percent, a lifted or slipped probe is back within a second
    /// or two, and the same class rarely shows twice at the same place.
    #[derive(Copy)]
    pub struct TrackerConfig in "tracker" {
        /// How detections and tracks are paired, exact or greedy, where no `matcher` is given.
        pub solver: Solver = Solver::Exact;
        /// The same as the `independent` that stands first: frames are unrelated images.
        pub independent: bool = false;
        /// Price of leaving a detection or a track without a partner: pairs that cost this or more are not made, and
        /// two poor pairs do not break up a good one. 4.5 lets a small box move by three times its width between two
        /// frames.
        pub max_cost: f32 = 4.5, in Range::POSITIVE;
        /// Whether a detection must have the class of its track. If not, a track's label follows the majority.
        pub class_must_agree: bool = true;
        /// Largest distance between the centres of a detection and a predicted box.
        pub gate_distance: f32 = 0.15, in Range::POSITIVE;
        /// How much `gate_distance` widens for each second a track has not been seen, up to `relocalize_s`.
        pub gate_growth_per_s: f32 = 0.15, in Range::NOT_NEGATIVE;
        /// Smallest generalised IoU of a detection and a predicted box. -0.7 lets boxes be four widths apart, so that
        /// the distance decides for small structures.
        pub gate_giou: f32 = -0.7, in Range::within(-1.0, 1.0);
        /// What a pair costs more for each second its track has not been seen, up to `relocalize_s`, so that a fresh
        /// track is preferred to a remembered one at the same place.
        pub age_cost_per_s: f32 = 0.5, in Range::NOT_NEGATIVE;
        /// What a pair costs more while its track is not confirmed, so that a flash beside a structure does not take
        /// its detections.
        pub unconfirmed_cost: f32 = 1.0, in Range::NOT_NEGATIVE;
        /// Lowest score that starts a track. Weaker detections can only continue one (Y. Zhang et al., "ByteTrack",
        /// ECCV 2022: low scores are evidence where something is expected).
        pub birth_score: f32 = 0.4, in Range::SHARE;
        /// A detection that overlaps a better one of its class by this IoU or more is a second answer for the same
        /// structure (D-FINE has no non-maximum suppression) and starts no track.
        pub duplicate_iou: f32 = 0.7, in Range::SHARE;
        /// A track is confirmed once it was seen in this many frames, at most `confirm_window`.
        pub confirm_hits: u32 = 3;
        /// The latest frames that `confirm_hits` counts in; 3 of 5 takes 0.05 s at 60 frames a second, 0.3 s at 10.
        pub confirm_window: u32 = 5, in Range::within(1.0, 32.0);
        /// How long a track that is not seen counts as RELOCALIZING; then it is LOST. The same for the scene.
        pub relocalize_s: f32 = 1.0, in Range::NOT_NEGATIVE;
        /// How long a track that is not seen is remembered, at least `relocalize_s`: found again before, it keeps its
        /// identity.
        pub forget_s: f32 = 3.0, in Range::NOT_NEGATIVE;
        /// The same in frames, for sources without timestamps.
        pub forget_frames: u32 = 180;
        /// Standard deviation of a detection's coordinates.
        pub measurement_noise: f32 = 0.01, in Range::POSITIVE;
        /// Standard deviation of the coordinates' acceleration, per second squared.
        pub acceleration_noise: f32 = 0.5, in Range::POSITIVE;
        /// Frame interval assumed for the filter's gains where timestamps stand still or run backwards.
        pub nominal_dt_s: f32 = 1.0 / 30.0, in Range::POSITIVE;
        /// How far a velocity carries an unseen track: its speed falls by 1/e in this time.
        pub coast_s: f32 = 0.3, in Range::POSITIVE;
        /// Share of the newest score in a track's smoothed score.
        pub score_gain: f32 = 0.3, in Range::SHARE;
    }
    tables {
        /// Weights of the pair cost.
        pub weights: CostWeights;
        /// How well objects show, and whether that decides over VISIBLE.
        pub quality: QualityConfig;
    }
}

impl TrackerConfig {
    /// Names the first setting that is out of range.
    pub fn validate(&self) -> Result<(), TrackingError> {
        self.check()?;
        let wrong = |key: &str, value: &dyn ToString, range: &str| {
            let key = format!("{}.{key}", Self::NAME);
            Err(SettingError { key, value: value.to_string(), range: range.to_owned() }.into())
        };
        if !(1..=self.confirm_window).contains(&self.confirm_hits) {
            return wrong("confirm_hits", &self.confirm_hits, "1 to confirm_window");
        }
        if self.forget_s < self.relocalize_s {
            return wrong("forget_s", &self.forget_s, "at least relocalize_s");
        }
        if self.quality.again < self.quality.least {
            return wrong("quality.again", &self.quality.again, "at least quality.least");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_survive_a_file() {
        let config = TrackerConfig::default();
        config.validate().unwrap();
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<TrackerConfig>(&text).unwrap(), config);
        let partial: TrackerConfig = serde_json::from_str(r#"{"solver":"greedy","forget_s":5}"#).unwrap();
        assert_eq!(partial, TrackerConfig { solver: Solver::Greedy, forget_s: 5.0, ..config });
        assert!(serde_json::from_str::<TrackerConfig>(r#"{"forget":5}"#).is_err());
    }

    #[test]
    fn a_wrong_setting_is_named() {
        let config = TrackerConfig { forget_s: 0.5, ..Default::default() };
        let error = config.validate().unwrap_err().to_string();
        assert_eq!(error, "tracker.forget_s is 0.5, but it must be at least relocalize_s");
        for config in [
            TrackerConfig { max_cost: f32::NAN, ..Default::default() },
            TrackerConfig { confirm_hits: 6, ..Default::default() },
            TrackerConfig { confirm_window: 33, ..Default::default() },
            TrackerConfig { coast_s: 0.0, ..Default::default() },
            TrackerConfig { score_gain: 1.5, ..Default::default() },
            TrackerConfig {
                quality: QualityConfig { least: 0.6, ..Default::default() },
                ..Default::default()
            },
        ] {
            assert!(config.validate().is_err());
        }
    }
}
