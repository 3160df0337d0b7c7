//! Turns scatterers and reflectors into the envelope a scanner would detect.
//!
//! The echo of many scatterers in a resolution cell is complex Gaussian noise, shaped by the point spread
//! function; its magnitude is Rayleigh distributed (fully developed speckle: Wagner, Smith, Sandrik, Lopez,
//! "Statistics of speckle in ultrasound B-scans", IEEE Trans. Sonics Ultrason. 30(3), 1983), with a ratio of mean
//! to standard deviation of √(π / (4 - π)) = 1.91. Reflectors add coherently. Compounding averages envelopes of
//! independent looks, which smooths the speckle as scanners do.

use crate::anatomy::Imaging;
use crate::echo::{EchoMap, amplitude};
use crate::random::Rng;

/// A Gaussian kernel of odd length; `unit_energy` keeps the power of white noise, otherwise it keeps the mean.
fn gaussian_kernel(sigma: f32, unit_energy: bool) -> Vec<f32> {
    let radius = (2.7 * sigma).ceil().max(1.0) as i32;
    let taps: Vec<f32> = (-radius..=radius).map(|i| (-0.5 * (i as f32 / sigma).powi(2)).exp()).collect();
    let norm = if unit_energy { taps.iter().map(|t| t * t).sum::<f32>().sqrt() } else { taps.iter().sum() };
    taps.iter().map(|t| t / norm).collect()
}

/// A narrower spread would not survive sampling between pixels.
const FINEST_SIGMA_PX: f32 = 1.0;

/// The point spread function over a grid: lateral width grows away from the focus.
struct PointSpread {
    axial_sigma: f32,
    lateral_sigma: Vec<f32>,
    unit_energy: bool,
}

impl PointSpread {
    fn new(map: &EchoMap, imaging: &Imaging, unit_energy: bool) -> Self {
        let [pitch_x, pitch_y] = map.grid.pitch_mm;
        let lateral_sigma = (0..map.grid.height)
            .map(|row| {
                let defocus = (map.grid.y_mm(row) - imaging.focus_mm) / imaging.depth_of_field_mm;
                (imaging.lateral_sigma_mm * (1.0 + defocus * defocus).sqrt() / pitch_x).max(FINEST_SIGMA_PX)
            })
            .collect();
        Self {
            axial_sigma: (imaging.axial_sigma_mm / pitch_y).max(FINEST_SIGMA_PX),
            lateral_sigma,
            unit_energy,
        }
    }

    /// Filters a plane of `width` columns, along rows and then along columns.
    fn apply(&self, plane: &mut [f32], width: usize) {
        let mut padded: Vec<f32> = Vec::new();
        for (row, &sigma) in plane.chunks_exact_mut(width).zip(&self.lateral_sigma) {
            let kernel = gaussian_kernel(sigma, self.unit_energy);
            let radius = kernel.len() / 2;
            padded.clear();
            padded.resize(radius, 0.0);
            padded.extend_from_slice(row);
            padded.resize(width + 2 * radius, 0.0);
            row.fill(0.0);
            for (shift, tap) in kernel.iter().enumerate() {
                for (out, value) in row.iter_mut().zip(&padded[shift..]) {
                    *out += tap * value;
                }
            }
        }
        let kernel = gaussian_kernel(self.axial_sigma, self.unit_energy);
        let radius = kernel.len() / 2;
        let source = plane.to_vec();
        let height = source.len() / width;
        plane.fill(0.0);
        for (y, row) in plane.chunks_exact_mut(width).enumerate() {
            for (shift, tap) in kernel.iter().enumerate() {
                let Some(from) = (y + shift).checked_sub(radius).filter(|&from| from < height) else {
                    continue;
                };
                for (out, value) in row.iter_mut().zip(&source[from * width..]) {
                    *out += tap * value;
                }
            }
        }
    }
}

/// Envelope of the whole world, linear amplitude, in the layout of the map's planes.
pub(crate) fn envelope(map: &EchoMap, imaging: &Imaging, seed: u64) -> Vec<f32> {
    let width = map.grid.width;
    let mut gain_db = map.gain_db.clone();
    let soft_edges = PointSpread {
        axial_sigma: 0.15 / map.grid.pitch_mm[1],
        lateral_sigma: vec![0.3 / map.grid.pitch_mm[0]; map.grid.height],
        unit_energy: false,
    };
    soft_edges.apply(&mut gain_db, width);

    let mut coherent: Vec<f32> =
        map.specular.iter().zip(&gain_db).map(|(s, &db)| s * amplitude(db)).collect();
    PointSpread::new(map, imaging, false).apply(&mut coherent, width);

    let spread = PointSpread::new(map, imaging, true);
    // A complex normal number of unit mean magnitude squared has 1/√2 in each part.
    let strength: Vec<f32> = map
        .diffuse_db
        .iter()
        .zip(&gain_db)
        .map(|(diffuse, gain)| amplitude(diffuse + gain) * std::f32::consts::FRAC_1_SQRT_2)
        .collect();
    let mut envelope = vec![0f32; strength.len()];
    let (mut real, mut imaginary) = (vec![0f32; strength.len()], vec![0f32; strength.len()]);
    for look in 0..imaging.looks {
        let mut rng = Rng::new(seed, 100 + look as u64);
        for ((re, im), strength) in real.iter_mut().zip(&mut imaginary).zip(&strength) {
            let [a, b] = rng.normal_pair();
            (*re, *im) = (a * strength, b * strength);
        }
        spread.apply(&mut real, width);
        spread.apply(&mut imaginary, width);
        let share = 1.0 / imaging.looks as f32;
        for (((out, re), im), reflection) in envelope.iter_mut().zip(&real).zip(&imaginary).zip(&coherent) {
            *out += share * (re + reflection).hypot(*im);
        }
    }
    envelope
}
