//! How the probe and the tissue move, as functions of time alone.

use crate::anatomy::{Anatomy, SIDE_MARGIN};
use crate::random::Rng;

/// A sum of slow sinusoids, bounded by 1.
#[derive(Clone, Debug)]
struct Sway {
    waves: [(f32, f64, f32); 3],
}

impl Sway {
    fn new(rng: &mut Rng, shortest_s: f32, longest_s: f32) -> Self {
        let shares = [0.6, 0.27, 0.13];
        Self {
            waves: shares.map(|share| {
                let period_s = rng.log_range(shortest_s, longest_s);
                (share, std::f64::consts::TAU / f64::from(period_s), rng.phase())
            }),
        }
    }

    fn at(&self, time_s: f64) -> f32 {
        self.waves
            .iter()
            .map(|(share, omega, phase)| {
                let angle = (omega * time_s).rem_euclid(std::f64::consts::TAU) as f32;
                share * (angle + phase).sin()
            })
            .sum()
    }
}

/// Where the probe is against its rest position and how hard it presses, at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) lateral_mm: f32,
    pub(crate) axial_mm: f32,
    pub(crate) elevation_mm: f32,
    /// Rotation in the image plane about the middle of the probe's face.
    pub(crate) roll_rad: f32,
    /// 0 (light) to 1 (full).
    pub(crate) pressure: f32,
    /// Arterial pressure wave, 0 to 1.
    pub(crate) systole: f32,
    /// Slow change of size as the section moves along the vessels, -1 to 1.
    pub(crate) section: f32,
}

/// The movement of one scene.
#[derive(Clone, Debug)]
pub(crate) struct Motion {
    drift: Sway,
    drift_mm: f32,
    axial: Sway,
    elevation: Sway,
    elevation_mm: f32,
    roll: Sway,
    roll_rad: f32,
    press: Sway,
    tremor: [Sway; 2],
    tremor_mm: f32,
    heart_period_s: f64,
    vessels: Vec<VesselMotion>,
    base: [[f64; 4]; 4],
}

#[derive(Clone, Debug)]
struct VesselMotion {
    center_mm: [f32; 2],
    half_mm: [f32; 2],
    pulse: f32,
    compressibility: f32,
    section: f32,
}

impl Motion {
    pub(crate) fn new(seed: u64, anatomy: &Anatomy) -> Self {
        let mut rng = Rng::new(seed, 3);
        let width_mm = anatomy.view_mm[0];
        let drift = Sway::new(&mut rng, 9.0, 40.0);
        let drift_mm = width_mm * rng.range(0.1, SIDE_MARGIN - 0.05);
        let vessels = anatomy
            .vessels
            .iter()
            .map(|v| VesselMotion {
                center_mm: v.outline.center_mm,
                half_mm: [v.outline.half_width_mm, v.outline.half_height_mm],
                pulse: v.pulse,
                compressibility: v.compressibility,
                section: rng.range(0.0, 0.1),
            })
            .collect();
        Self {
            drift,
            drift_mm,
            axial: Sway::new(&mut rng, 4.0, 12.0),
            elevation: Sway::new(&mut rng, 8.0, 30.0),
            elevation_mm: rng.range(0.5, 4.0),
            roll: Sway::new(&mut rng, 6.0, 25.0),
            roll_rad: rng.range(0.0, 0.03),
            press: Sway::new(&mut rng, 5.0, 18.0),
            tremor: [Sway::new(&mut rng, 0.11, 0.2), Sway::new(&mut rng, 0.11, 0.2)],
            tremor_mm: rng.range(0.02, 0.15),
            heart_period_s: f64::from(rng.range(0.63, 1.1)),
            vessels,
            base: random_pose(&mut rng),
        }
    }

    pub(crate) fn at(&self, time_s: f64) -> Moment {
        // A gamma-like wave: a fast rise and a slow fall.
        let beat = (time_s / self.heart_period_s).rem_euclid(1.0) as f32 / 0.15;
        Moment {
            lateral_mm: self.drift_mm * self.drift.at(time_s) + self.tremor_mm * self.tremor[0].at(time_s),
            axial_mm: 0.25 + 0.2 * self.axial.at(time_s) + 0.3 * self.tremor_mm * self.tremor[1].at(time_s),
            elevation_mm: self.elevation_mm * self.elevation.at(time_s),
            roll_rad: self.roll_rad * self.roll.at(time_s),
            pressure: 0.5 + 0.5 * self.press.at(time_s),
            systole: beat * (1.0 - beat).exp(),
            section: self.elevation.at(time_s),
        }
    }

    /// Where the tissue now at world position `(x, y)` mm lies when nothing moves.
    pub(crate) fn rest_position(&self, moment: &Moment, x: f32, y: f32) -> [f32; 2] {
        let mut shift = [0f32; 2];
        for vessel in &self.vessels {
            let (dx, dy) = (x - vessel.center_mm[0], y - vessel.center_mm[1]);
            let [a, b] = vessel.half_mm;
            // The lumen swells by a factor; the tissue around it keeps its area, so what it gives way fades as 1/r.
            let swell = 1.0 + vessel.pulse * moment.systole + vessel.section * moment.section;
            let rho = (dx / a).hypot(dy / b);
            let scale = if rho <= swell {
                1.0 / swell
            } else {
                (1.0 - (swell * swell - 1.0) / (rho * rho)).max(0.0).sqrt()
            };
            shift[0] += dx * (scale - 1.0);
            shift[1] += dy * (scale - 1.0);
            // Pressure flattens a vein, most over its middle, and the tissue around it follows.
            let window = 1.0 - (dx / (1.6 * a)) * (dx / (1.6 * a));
            if vessel.compressibility > 0.0 && window > 0.0 {
                let height = 1.0 - vessel.compressibility * moment.pressure * window * window;
                let beyond = dy.abs() - b * height;
                let rest = if beyond <= 0.0 {
                    dy / height
                } else {
                    dy + dy.signum() * b * (1.0 - height) * (-beyond / (3.0 * b)).exp()
                };
                shift[1] += rest - dy;
            }
        }
        [x + shift[0], y + shift[1]]
    }

    /// Rigid transform, row-major: probe coordinates (x lateral, y axial, z elevational; mm) to the tracker's.
    pub(crate) fn tracker_from_probe(&self, moment: &Moment) -> [[f64; 4]; 4] {
        let (sin, cos) = f64::from(moment.roll_rad).sin_cos();
        let local = [
            [cos, -sin, 0.0, f64::from(moment.lateral_mm)],
            [sin, cos, 0.0, f64::from(moment.axial_mm)],
            [0.0, 0.0, 1.0, f64::from(moment.elevation_mm)],
            [0.0, 0.0, 0.0, 1.0],
        ];
        std::array::from_fn(|i| std::array::from_fn(|j| (0..4).map(|k| self.base[i][k] * local[k][j]).sum()))
    }
}

fn random_pose(rng: &mut Rng) -> [[f64; 4]; 4] {
    // A random unit quaternion is a random rotation.
    let [w, x] = rng.normal_pair().map(f64::from);
    let [y, z] = rng.normal_pair().map(f64::from);
    let norm = (w * w + x * x + y * y + z * z).sqrt().max(1e-9);
    let [w, x, y, z] = [w / norm, x / norm, y / norm, z / norm];
    let mut place = || f64::from(rng.range(-250.0, 250.0));
    [
        [1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - w * z), 2.0 * (x * z + w * y), place()],
        [2.0 * (x * y + w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - w * x), place()],
        [2.0 * (x * z - w * y), 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y), place()],
        [0.0, 0.0, 0.0, 1.0],
    ]
}

#[cfg(test)]
impl Motion {
    /// Takes away all movement, for measurements at known places.
    pub(crate) fn hold_still(&mut self) {
        (self.drift_mm, self.tremor_mm, self.roll_rad) = (0.0, 0.0, 0.0);
        for vessel in &mut self.vessels {
            (vessel.pulse, vessel.compressibility, vessel.section) = (0.0, 0.0, 0.0);
        }
    }
}
