//! The thresholds of tracking, and why their defaults are what they are.

use crate::assignment::{CostWeights, Solver};
use crate::error::TrackingError;
use serde::{Deserialize, Serialize};

/// Settings of the tracker. Lengths are fractions of the image (a box in (cx, cy, w, h), each 0 to 1), times are
/// seconds of the source's timestamps, scores 0 to 1.
///
/// The defaults suit hand-held ultrasound at 10 to 60 frames a second: structures drift and pulsate by a few percent
/// of the image a second, detections jitter by about one percent, a lifted or slipped probe is back within a second
/// or two, and the same class rarely shows twice at the same place.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrackerConfig {
    /// How detections and tracks are paired.
    pub solver: Solver,
    /// Frames are unrelated images: see [`update`](super::update()).
    pub independent: bool,

    /// Weights of the pair cost: `class` · (1 − probability of the track's class) + `bbox` · L1 + `giou` · (1 − GIoU).
    pub weights: CostWeights,
    /// Price of leaving a detection or a track without a partner: pairs that cost this or more are not made, and two
    /// poor pairs do not break up a good one. 4.5 lets a small box move by three times its width between two frames.
    pub max_cost: f32,
    /// Whether a detection must have the class of its track. If not, a track's label follows the majority.
    pub class_must_agree: bool,
    /// Largest distance between the centres of a detection and a predicted box.
    pub gate_distance: f32,
    /// How much `gate_distance` widens for each second a track has not been seen, up to `relocalize_s`.
    pub gate_growth_per_s: f32,
    /// Smallest GIoU of a detection and a predicted box, −1 to 1. −0.7 lets boxes be four widths apart, so that the
    /// distance decides for small structures.
    pub gate_giou: f32,
    /// What a pair costs more for each second its track has not been seen, up to `relocalize_s`, so that a fresh track
    /// is preferred to a remembered one at the same place.
    pub age_cost_per_s: f32,
    /// What a pair costs more while its track is not confirmed, so that a flash beside a structure does not take its
    /// detections.
    pub unconfirmed_cost: f32,

    /// Lowest score that starts a track. Weaker detections can only continue one (Y. Zhang et al., "ByteTrack",
    /// ECCV 2022: low scores are evidence where something is expected).
    pub birth_score: f32,
    /// A detection that overlaps a better one of its class by this IoU or more is a second answer for the same
    /// structure (D-FINE has no non-maximum suppression) and starts no track.
    pub duplicate_iou: f32,
    /// A track is confirmed once it was seen in this many ...
    pub confirm_hits: u32,
    /// ... of this many latest frames, at most 32; 3 of 5 takes 0.05 s at 60 frames a second, 0.3 s at 10.
    pub confirm_window: u32,
    /// How long a track that is not seen counts as RELOCALIZING; then it is LOST. The same for the scene.
    pub relocalize_s: f32,
    /// How long a track that is not seen is remembered: found again before, it keeps its id.
    pub forget_s: f32,
    /// The same in frames, for sources without timestamps.
    pub forget_frames: u32,

    /// Standard deviation of a detection's coordinates.
    pub measurement_noise: f32,
    /// Standard deviation of the coordinates' acceleration, per s².
    pub acceleration_noise: f32,
    /// Frame interval assumed for the filter's gains where timestamps stand still or run backwards.
    pub nominal_dt_s: f32,
    /// How far a velocity carries an unseen track: its speed falls by 1/e in this time.
    pub coast_s: f32,
    /// Share of the newest score in a track's smoothed score.
    pub score_gain: f32,
}

impl Default for TrackerConfig {
    fn default() -> Self {
        Self {
            solver: Solver::Exact,
            independent: false,
            weights: CostWeights::default(),
            max_cost: 4.5,
            class_must_agree: true,
            gate_distance: 0.15,
            gate_growth_per_s: 0.15,
            gate_giou: -0.7,
            age_cost_per_s: 0.5,
            unconfirmed_cost: 1.0,
            birth_score: 0.4,
            duplicate_iou: 0.7,
            confirm_hits: 3,
            confirm_window: 5,
            relocalize_s: 1.0,
            forget_s: 3.0,
            forget_frames: 180,
            measurement_noise: 0.01,
            acceleration_noise: 0.5,
            nominal_dt_s: 1.0 / 30.0,
            coast_s: 0.3,
            score_gain: 0.3,
        }
    }
}

impl TrackerConfig {
    /// Names the first setting that is out of range.
    pub fn validate(&self) -> Result<(), TrackingError> {
        const NUMBER: &str = "it must be 0 or more, and finite";
        const POSITIVE: &str = "it must be above 0, and finite";
        const SHARE: &str = "it must lie between 0 and 1";
        let not_negative = |v: f32| v.is_finite() && v >= 0.0;
        let positive = |v: f32| v.is_finite() && v > 0.0;
        let share = |v: f32| (0.0..=1.0).contains(&v);
        let rules = [
            ("weights.class", self.weights.class, not_negative(self.weights.class), NUMBER),
            ("weights.bbox", self.weights.bbox, not_negative(self.weights.bbox), NUMBER),
            ("weights.giou", self.weights.giou, not_negative(self.weights.giou), NUMBER),
            ("max_cost", self.max_cost, positive(self.max_cost), POSITIVE),
            ("gate_distance", self.gate_distance, positive(self.gate_distance), POSITIVE),
            ("gate_growth_per_s", self.gate_growth_per_s, not_negative(self.gate_growth_per_s), NUMBER),
            (
                "gate_giou",
                self.gate_giou,
                (-1.0..=1.0).contains(&self.gate_giou),
                "it must lie between -1 and 1",
            ),
            ("age_cost_per_s", self.age_cost_per_s, not_negative(self.age_cost_per_s), NUMBER),
            ("unconfirmed_cost", self.unconfirmed_cost, not_negative(self.unconfirmed_cost), NUMBER),
            ("birth_score", self.birth_score, share(self.birth_score), SHARE),
            ("duplicate_iou", self.duplicate_iou, share(self.duplicate_iou), SHARE),
            (
                "confirm_window",
                self.confirm_window as f32,
                (1..=32).contains(&self.confirm_window),
                "it must lie between 1 and 32 frames",
            ),
            (
                "confirm_hits",
                self.confirm_hits as f32,
                (1..=self.confirm_window).contains(&self.confirm_hits),
                "it must lie between 1 and confirm_window",
            ),
            ("relocalize_s", self.relocalize_s, not_negative(self.relocalize_s), NUMBER),
            (
                "forget_s",
                self.forget_s,
                self.forget_s.is_finite() && self.forget_s >= self.relocalize_s,
                "it must be at least relocalize_s, and finite",
            ),
            ("measurement_noise", self.measurement_noise, positive(self.measurement_noise), POSITIVE),
            ("acceleration_noise", self.acceleration_noise, positive(self.acceleration_noise), POSITIVE),
            ("nominal_dt_s", self.nominal_dt_s, positive(self.nominal_dt_s), POSITIVE),
            ("coast_s", self.coast_s, positive(self.coast_s), POSITIVE),
            ("score_gain", self.score_gain, share(self.score_gain), SHARE),
        ];
        for (field, value, fits, rule) in rules {
            if !fits {
                return Err(TrackingError::Config { field, value: f64::from(value), rule });
            }
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
        assert_eq!(error, "`forget_s` is 0.5, but it must be at least relocalize_s, and finite");
        for config in [
            TrackerConfig { max_cost: f32::NAN, ..Default::default() },
            TrackerConfig { confirm_hits: 6, ..Default::default() },
            TrackerConfig { confirm_window: 33, ..Default::default() },
            TrackerConfig { coast_s: 0.0, ..Default::default() },
            TrackerConfig { score_gain: 1.5, ..Default::default() },
        ] {
            assert!(config.validate().is_err());
        }
    }
}
