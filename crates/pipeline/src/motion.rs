//! How the image plane has moved from one frame to the next.

use ultramotion_tracking::quality::Motion;
use ultramotion_types::pose::{Matrix, inverse, product, with_unit_normal};

/// Where the last frame lay.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Plane {
    tracker_from_pixels: Option<Matrix>,
}

impl Plane {
    /// Takes in where a frame lies, and tells where its pixels were in the one before: seen along the plane's normal, for what
    /// it was left by.
    pub(crate) fn step(&mut self, tracker_from_pixels: Option<Matrix>) -> Motion {
        let before = std::mem::replace(&mut self.tracker_from_pixels, tracker_from_pixels);
        let moved = || {
            let pixels_from_tracker = inverse(&with_unit_normal(before?)?)?;
            let [x, y, ..] = product(&pixels_from_tracker, &tracker_from_pixels?);
            let values = [x[0], x[1], x[3], y[0], y[1], y[3]].map(|value| value as f32);
            values.iter().all(|value| value.is_finite()).then_some(Motion { previous_from_current: values })
        };
        moved().unwrap_or(Motion::NONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_that_slides_takes_the_pixels_along() {
        // Half a millimetre a pixel, the probe slid by 2 mm along x and 3 mm off its plane.
        let at = |x: f64, z: f64| {
            Some([[0.5, 0.0, 0.0, x], [0.0, 0.5, 0.0, 7.0], [0.0, 0.0, 1.0, z], [0.0, 0.0, 0.0, 1.0]])
        };
        let mut plane = Plane::default();
        assert_eq!(plane.step(at(1.0, 0.0)), Motion::NONE, "there is no frame before");
        assert_eq!(plane.step(at(3.0, 3.0)).previous_from_current, [1.0, 0.0, 4.0, 0.0, 1.0, 0.0]);
        assert_eq!(plane.step(None), Motion::NONE);
        assert_eq!(plane.step(Some([[0.0; 4]; 4])), Motion::NONE);
        assert_eq!(plane.step(at(1.0, 0.0)), Motion::NONE, "a flat matrix says nothing");
    }
}
