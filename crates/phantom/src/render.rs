//! Renders one frame: samples the moving world, adds what belongs to the scanner, compresses to grey.

use crate::anatomy::Imaging;
use crate::echo::{Grid, HIDDEN, amplitude};
use crate::motion::{Moment, Motion};
use crate::random::Rng;

/// Pixels between the places where the movement of the tissue is computed exactly; linear in between.
const CELL: usize = 8;
const GREY_STEPS: usize = 1024;
const NOISE_LENGTH: usize = 1 << 16;

/// What a frame needs of the scanner, prepared once for a scene and frame size.
#[derive(Clone, Debug)]
pub(crate) struct Scanner {
    width: usize,
    height: usize,
    pitch_mm: f32,
    /// Power gain of each row and of each column.
    row_gain: Vec<f32>,
    column_gain: Vec<f32>,
    /// Power of the electronic noise in each row, after time-gain compensation.
    row_noise: Vec<f32>,
    /// Power of the near-field clutter in each row.
    row_clutter: Vec<f32>,
    /// Noise power samples of unit mean.
    noise: Vec<f32>,
    /// From steps over the dynamic range to grey.
    grey: Vec<u8>,
    steps_per_log2: f32,
    zero_db_step: f32,
}

/// Working memory of a frame.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scratch {
    nodes: Vec<[f32; 2]>,
    power: Vec<f32>,
}

impl Scanner {
    pub(crate) fn new(imaging: &Imaging, width: usize, height: usize, pitch_mm: f32, seed: u64) -> Self {
        let power = |db: f32| amplitude(db).powi(2);
        let depth_mm = |row: usize| (row as f32 + 0.5) * pitch_mm;
        let loss_db =
            |row: usize| imaging.residual_loss_db_per_mm * (depth_mm(row) - imaging.tgc_knee_mm).max(0.0);
        let edge = |share: f32, side: usize| {
            let inward = (1.0 - share / imaging.edge_reach[side]).max(0.0);
            -imaging.edge_loss_db[side] * inward * inward
        };
        let mut rng = Rng::new(seed, 4);
        let white: Vec<f32> = (0..2 * NOISE_LENGTH + 4).map(|_| rng.normal()).collect();
        let noise = (0..NOISE_LENGTH)
            .map(|i| {
                // A little correlation along the line; unit mean power.
                let part = |k: usize| (white[k] + 1.4 * white[k + 1] + white[k + 2]) / 1.99;
                0.5 * (part(i).powi(2) + part(i + NOISE_LENGTH).powi(2))
            })
            .collect();
        let grey = (0..GREY_STEPS)
            .map(|step| {
                let level = step as f32 / (GREY_STEPS - 1) as f32;
                (255.0 * level.powf(imaging.grey_gamma)).round() as u8
            })
            .collect();
        let steps_per_db = (GREY_STEPS - 1) as f32 / imaging.dynamic_range_db;
        Self {
            width,
            height,
            pitch_mm,
            row_gain: (0..height).map(|row| power(imaging.gain_db - loss_db(row))).collect(),
            column_gain: (0..width)
                .map(|column| {
                    let share = (column as f32 + 0.5) / width as f32;
                    power(edge(share, 0) + edge(1.0 - share, 1))
                })
                .collect(),
            row_noise: (0..height)
                .map(|row| {
                    power(
                        imaging.gain_db + imaging.noise_floor_db + 0.25 * depth_mm(row) - 0.5 * loss_db(row),
                    )
                })
                .collect(),
            row_clutter: (0..height)
                .map(|row| {
                    let d = depth_mm(row);
                    let rings = 4.0 * (std::f32::consts::TAU * d / 0.45).cos();
                    power(imaging.near_field_db + rings - 22.0 * d)
                })
                .collect(),
            noise,
            grey,
            // Power to decibels: 10 log10(p) = 3.0103 log2(p).
            steps_per_log2: 10.0 * std::f32::consts::LOG10_2 * steps_per_db,
            zero_db_step: imaging.dynamic_range_db * steps_per_db,
        }
    }

    /// Fills `pixels` (grey) and `instances` (object ids), and counts for each id its visible and hidden pixels.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn render(
        &self,
        world: &World<'_>,
        moment: &Moment,
        noise_seed: u64,
        pixels: &mut [u8],
        instances: &mut [u8],
        scratch: &mut Scratch,
        counts: &mut [[u32; 2]; 128],
    ) {
        let columns = self.width.div_ceil(CELL) + 1;
        self.place_nodes(world, moment, columns, &mut scratch.nodes);
        scratch.power.resize(columns * CELL, 0.0);
        let mut rng = Rng::new(noise_seed, 5);
        let stride = world.grid.width;
        for y in 0..self.height {
            let (cell_y, within) = (y / CELL, (y % CELL) as f32 / CELL as f32);
            let upper = &scratch.nodes[cell_y * columns..][..columns];
            let lower = &scratch.nodes[(cell_y + 1) * columns..][..columns];
            let at = |i: usize| -> [f32; 2] {
                std::array::from_fn(|axis| upper[i][axis] + (lower[i][axis] - upper[i][axis]) * within)
            };
            let id_row = &mut instances[y * self.width..][..self.width];
            let mut from = at(0);
            for cell in 0..columns - 1 {
                let to = at(cell + 1);
                let step = [(to[0] - from[0]) / CELL as f32, (to[1] - from[1]) / CELL as f32];
                let power = &mut scratch.power[cell * CELL..][..CELL];
                let mut ids = [0u8; CELL];
                for (k, (power, id)) in power.iter_mut().zip(&mut ids).enumerate() {
                    // Nodes are inside the grid by construction, so positions between them are too.
                    let (wx, wy) = (from[0] + step[0] * k as f32, from[1] + step[1] * k as f32);
                    let (xi, yi) = (wx as i32, wy as i32);
                    let (tx, ty) = (wx - xi as f32, wy - yi as f32);
                    let index = yi as usize * stride + xi as usize;
                    let a = &world.envelope[index..index + 2];
                    let b = &world.envelope[index + stride..index + stride + 2];
                    let top = a[0] + (a[1] - a[0]) * tx;
                    let bottom = b[0] + (b[1] - b[0]) * tx;
                    let envelope = top + (bottom - top) * ty;
                    *power = envelope * envelope;
                    *id = world.labels[index + usize::from(tx >= 0.5) + if ty >= 0.5 { stride } else { 0 }];
                }
                let start = cell * CELL;
                let end = (start + CELL).min(self.width);
                id_row[start..end].copy_from_slice(&ids[..end - start]);
                from = to;
            }
            for id in id_row.iter_mut() {
                if *id != 0 {
                    let hidden = *id & HIDDEN != 0;
                    counts[(*id & !HIDDEN) as usize][usize::from(hidden)] += 1;
                    if hidden {
                        *id = 0;
                    }
                }
            }
            let offset = rng.count(0, NOISE_LENGTH - self.width - 1);
            let (gain, noise_gain, clutter) = (self.row_gain[y], self.row_noise[y], self.row_clutter[y]);
            let row = &mut pixels[y * self.width..][..self.width];
            for (((power, column_gain), noise), pixel) in
                scratch.power.iter().zip(&self.column_gain).zip(&self.noise[offset..]).zip(row)
            {
                let total = power * gain * column_gain + noise * noise_gain + clutter + 1e-12;
                let step = log2(total) * self.steps_per_log2 + self.zero_db_step;
                *pixel = self.grey[step.clamp(0.0, (GREY_STEPS - 1) as f32) as usize];
            }
        }
    }

    /// Positions in the world's grid of every [`CELL`]th pixel.
    fn place_nodes(&self, world: &World<'_>, moment: &Moment, columns: usize, nodes: &mut Vec<[f32; 2]>) {
        let rows = self.height.div_ceil(CELL) + 1;
        let half_width_mm = 0.5 * self.width as f32 * self.pitch_mm;
        let (sin, cos) = moment.roll_rad.sin_cos();
        let grid = world.grid;
        let limit = [(grid.width - 2) as f32 - 0.01, (grid.height - 2) as f32 - 0.01];
        nodes.clear();
        for row in 0..rows {
            for column in 0..columns {
                let x_mm = ((column * CELL) as f32 + 0.5) * self.pitch_mm - half_width_mm;
                let y_mm = ((row * CELL) as f32 + 0.5) * self.pitch_mm;
                let x = half_width_mm + moment.lateral_mm + cos * x_mm - sin * y_mm;
                let y = moment.axial_mm + sin * x_mm + cos * y_mm;
                let rest = world.motion.rest_position(moment, x, y);
                nodes.push(std::array::from_fn(|axis| {
                    ((rest[axis] - grid.origin_mm[axis]) / grid.pitch_mm[axis]).clamp(0.0, limit[axis])
                }));
            }
        }
    }
}

/// The world at rest, on its grid.
pub(crate) struct World<'a> {
    pub(crate) grid: Grid,
    pub(crate) envelope: &'a [f32],
    pub(crate) labels: &'a [u8],
    pub(crate) motion: &'a Motion,
}

/// Base-2 logarithm of a positive normal number, within 0.01: the exponent plus a parabola for the mantissa.
fn log2(value: f32) -> f32 {
    let bits = value.to_bits();
    let exponent = ((bits >> 23) as i32 - 127) as f32;
    let mantissa = f32::from_bits((bits & 0x007F_FFFF) | 0x3F80_0000);
    exponent + (-0.336_55 * mantissa + 2.009_7) * mantissa - 1.673_1
}

#[cfg(test)]
mod tests {
    #[test]
    fn fast_logarithm_is_close() {
        for i in 1..4000 {
            let value = (i as f32 * 0.37).powi(3) * 1e-6;
            assert!((super::log2(value) - value.log2()).abs() < 0.012, "{value}");
        }
    }
}
