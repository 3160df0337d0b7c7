//! Where a box will be, and how far to believe a detection: an α–β filter on each of cx, cy, w and h.
//!
//! The model is constant velocity, disturbed by random acceleration. Its steady-state Kalman gains have a closed
//! form in one number, the tracking index λ = σ_a T² / σ_z (P. R. Kalata, "The Tracking Index: A Generalized
//! Parameter for α-β and α-β-γ Target Trackers", IEEE Trans. Aerospace and Electronic Systems 20 (1984): with
//! r = (4 + λ − √(λ² + 8λ)) / 4 they are α = 1 − r² and β = 2 (1 − r)²). So the filter needs no covariance in its
//! state, and adapts to the frame interval T: at the default noises α is 0.15 at 60 frames a second, 0.28 at 30 and
//! 0.63 at 10. A jittering detector is smoothed more the faster the frames come, and a gap makes the next detection
//! count more.
//!
//! Two departures, because ultrasound moves slowly and jitters:
//! - a new track starts at rest, not at the velocity of its first two detections, which would be jitter / T; its
//!   first positions are averaged instead (α is at least 1 / (hits + 1));
//! - the velocity of a track that is not seen fades with the time constant `coast_s`, so a prediction never runs
//!   further than `velocity * coast_s`; its size stays as it is.

use super::TrackerConfig;

/// Smallest width and height of a predicted box.
pub const MIN_SIZE: f32 = 1e-4;
/// Largest width and height of a predicted box.
pub const MAX_SIZE: f32 = 2.0;
/// How far a predicted centre may leave the image.
pub const MARGIN: f32 = 1.0;

/// Gains of one correction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gains {
    /// Share of the residual that the position takes.
    pub alpha: f32,
    /// What the velocity takes of the residual, per second; 0 where no time has passed.
    pub beta_per_s: f32,
}

/// Gains for a detection `elapsed_s` after the last one of a track that was seen `hits` times so far.
pub fn gains(config: &TrackerConfig, elapsed_s: f32, hits: i32) -> Gains {
    let moved = elapsed_s > 0.0;
    let t = if moved { elapsed_s } else { config.nominal_dt_s };
    let index = config.acceleration_noise * t * t / config.measurement_noise;
    // (4 + λ − √(λ² + 8λ)) / 4 without the cancellation.
    let r = 4.0 / (4.0 + index + (index * index + 8.0 * index).sqrt());
    let alpha = (1.0 - r * r).max(1.0 / (hits.max(0) as f32 + 1.0));
    let beta = 2.0 * (1.0 - r) * (1.0 - r);
    Gains { alpha, beta_per_s: if moved { beta / t } else { 0.0 } }
}

/// Moves a box on by `dt_s`. `coasting`: the track was not seen in the last frame.
pub fn predict(
    box_cxcywh: &mut [f32],
    velocity_per_s: &mut [f32],
    dt_s: f32,
    coasting: bool,
    config: &TrackerConfig,
) {
    // In view, the velocity is trusted in full for a frame interval, but not for a long gap.
    let fading = coasting || dt_s > config.coast_s;
    let fade = if fading { (-dt_s / config.coast_s).exp() } else { 1.0 };
    let span_s = if fading { config.coast_s * (1.0 - fade) } else { dt_s };
    for (i, (x, v)) in box_cxcywh.iter_mut().zip(velocity_per_s.iter_mut()).enumerate() {
        if fading && i >= 2 {
            *v = 0.0;
        }
        *x += *v * span_s;
        *v *= fade;
    }
    keep_in_range(box_cxcywh);
}

/// Takes a detection in.
pub fn correct(box_cxcywh: &mut [f32], velocity_per_s: &mut [f32], detected_cxcywh: [f32; 4], gains: Gains) {
    for ((x, v), z) in box_cxcywh.iter_mut().zip(velocity_per_s.iter_mut()).zip(detected_cxcywh) {
        let residual = z - *x;
        *x += gains.alpha * residual;
        *v += gains.beta_per_s * residual;
    }
    keep_in_range(box_cxcywh);
}

fn keep_in_range(box_cxcywh: &mut [f32]) {
    for (i, x) in box_cxcywh.iter_mut().enumerate() {
        let (low, high) = if i < 2 { (-MARGIN, 1.0 + MARGIN) } else { (MIN_SIZE, MAX_SIZE) };
        *x = x.max(low).min(high);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CONFIG: fn() -> TrackerConfig = TrackerConfig::default;

    /// Runs a Kalman filter with the same model to its steady state, in f64.
    fn kalman_gains(config: &TrackerConfig, t: f64) -> (f64, f64) {
        let (q, r) =
            (f64::from(config.acceleration_noise).powi(2), f64::from(config.measurement_noise).powi(2));
        let (mut p00, mut p01, mut p11) = (1.0, 0.0, 1.0);
        let mut k = (0.0, 0.0);
        for _ in 0..5000 {
            // Acceleration constant over each interval: Q = q [t⁴/4, t³/2; t³/2, t²].
            let a = p00 + 2.0 * t * p01 + t * t * p11 + q * t.powi(4) / 4.0;
            let b = p01 + t * p11 + q * t.powi(3) / 2.0;
            let c = p11 + q * t * t;
            k = (a / (a + r), b / (a + r));
            (p00, p01, p11) = ((1.0 - k.0) * a, (1.0 - k.0) * b, c - k.1 * b);
        }
        k
    }

    #[test]
    fn gains_are_the_kalman_filters_steady_state() {
        for rate in [5.0, 10.0, 30.0, 60.0] {
            let g = gains(&CONFIG(), 1.0 / rate as f32, 1_000_000);
            let (alpha, beta_per_s) = kalman_gains(&CONFIG(), 1.0 / rate);
            assert!((f64::from(g.alpha) - alpha).abs() < 1e-4, "{rate}: {g:?} {alpha}");
            assert!((f64::from(g.beta_per_s) - beta_per_s).abs() < 1e-3 * (1.0 + beta_per_s), "{rate}");
        }
    }

    #[test]
    fn a_steady_motion_is_followed_without_lag() {
        let (mut b, mut v) = ([0.2, 0.5, 0.1, 0.1], [0.0; 4]);
        for frame in 1..=90 {
            predict(&mut b, &mut v, 1.0 / 30.0, false, &CONFIG());
            let z = [0.2 + 0.1 * frame as f32 / 30.0, 0.5, 0.1, 0.1];
            correct(&mut b, &mut v, z, gains(&CONFIG(), 1.0 / 30.0, frame));
        }
        assert!((b[0] - 0.5).abs() < 1e-3 && (v[0] - 0.1).abs() < 5e-3, "{b:?} {v:?}");
    }

    #[test]
    fn jitter_is_smoothed() {
        let (mut b, mut v) = ([0.5, 0.5, 0.1, 0.1], [0.0; 4]);
        let (mut detected, mut filtered) = (0.0, 0.0);
        let mut random = 1u32;
        for frame in 1..=600 {
            random = random.wrapping_mul(1664525).wrapping_add(1013904223);
            let jitter = ((random >> 8) as f32 / (1 << 24) as f32 - 0.5) * 0.035; // standard deviation 0.01
            predict(&mut b, &mut v, 1.0 / 60.0, false, &CONFIG());
            correct(&mut b, &mut v, [0.5 + jitter, 0.5, 0.1, 0.1], gains(&CONFIG(), 1.0 / 60.0, frame));
            detected += jitter * jitter;
            filtered += (b[0] - 0.5) * (b[0] - 0.5);
        }
        assert!(filtered < 0.4 * detected, "{filtered} of {detected}");
    }

    proptest! {
        #[test]
        fn an_unseen_box_stays_within_what_its_speed_can_do(
            v in -3f32..3.0, steps in prop::collection::vec(0f32..2.0, 1..50),
        ) {
            let (mut b, mut velocity) = ([0.5, 0.5, 0.1, 0.1], [v, 0.0, -v, 0.0]);
            for dt in steps {
                predict(&mut b, &mut velocity, dt, true, &CONFIG());
                prop_assert!((b[0] - 0.5).abs() <= v.abs() * CONFIG().coast_s + 1e-4);
                prop_assert_eq!(b[2], 0.1);
            }
        }

        #[test]
        fn gains_are_stable_at_any_interval(dt in prop::num::f32::ANY, hits in any::<i32>()) {
            let g = gains(&CONFIG(), dt, hits);
            if dt.is_finite() && dt < 1e9 {
                prop_assert!(g.alpha > 0.0 && g.alpha <= 1.0 && g.beta_per_s >= 0.0 && g.beta_per_s.is_finite());
            }
        }
    }
}
