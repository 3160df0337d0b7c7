//! Paints the anatomy on a grid: how strongly each place scatters and reflects, what it is, what shades it.

use crate::anatomy::{Anatomy, Belly, Bone, Nerve, SIDE_MARGIN, Stroke, Vessel};
use crate::random::{Rng, SmoothField, SmoothLine};

/// A regular grid over the world, finer in depth than the frame, because the echo of a pulse is short.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    pub(crate) width: usize,
    pub(crate) height: usize,
    /// Across and in depth.
    pub(crate) pitch_mm: [f32; 2],
    /// World position of the centre of the first cell.
    pub(crate) origin_mm: [f32; 2],
}

/// Rows of the grid for each row of the frame.
pub(crate) const AXIAL_OVERSAMPLING: f32 = 1.5;

impl Grid {
    /// A grid over the world around a view, for frames with square pixels of `spacing_mm`.
    pub(crate) fn covering(view_mm: [f32; 2], spacing_mm: f32) -> Self {
        let pitch_mm = [spacing_mm, spacing_mm / AXIAL_OVERSAMPLING];
        let [width_mm, depth_mm] = view_mm;
        let top_mm = -1.5;
        Self {
            width: ((1.0 + 2.0 * SIDE_MARGIN) * width_mm / pitch_mm[0]).ceil() as usize + 8,
            height: ((1.08 * depth_mm - top_mm) / pitch_mm[1]).ceil() as usize + 8,
            pitch_mm,
            origin_mm: [-SIDE_MARGIN * width_mm, top_mm],
        }
    }

    fn x_mm(&self, column: usize) -> f32 {
        self.origin_mm[0] + column as f32 * self.pitch_mm[0]
    }

    pub(crate) fn y_mm(&self, row: usize) -> f32 {
        self.origin_mm[1] + row as f32 * self.pitch_mm[1]
    }

    fn columns(&self, from_mm: f32, to_mm: f32) -> std::ops::Range<usize> {
        let index = |x: f32| {
            ((x - self.origin_mm[0]) / self.pitch_mm[0]).ceil().clamp(0.0, self.width as f32) as usize
        };
        index(from_mm)..index(to_mm)
    }

    fn rows(&self, from_mm: f32, to_mm: f32) -> std::ops::Range<usize> {
        let index = |y: f32| {
            ((y - self.origin_mm[1]) / self.pitch_mm[1]).ceil().clamp(0.0, self.height as f32) as usize
        };
        index(from_mm)..index(to_mm)
    }
}

/// Set in a label where bone keeps the sound from what is there.
pub(crate) const HIDDEN: u8 = 0x80;

/// The painted world, row-major planes of `grid.width * grid.height`.
#[derive(Clone, Debug)]
pub(crate) struct EchoMap {
    pub(crate) grid: Grid,
    /// Strength of the diffuse scatterers (speckle), decibels.
    pub(crate) diffuse_db: Vec<f32>,
    /// Amplitude of coherent reflections, linear.
    pub(crate) specular: Vec<f32>,
    /// What enhancement and edge shadows add, decibels.
    pub(crate) gain_db: Vec<f32>,
    /// Object id (0 none), with [`HIDDEN`] where it lies in a shadow.
    pub(crate) labels: Vec<u8>,
}

pub(crate) fn amplitude(db: f32) -> f32 {
    (db * (std::f32::consts::LOG2_10 / 20.0)).exp2()
}

fn power_sum_db(a: f32, b: f32) -> f32 {
    10.0 * (10f32.powf(0.1 * a) + 10f32.powf(0.1 * b)).log10()
}

fn bell(distance: f32, sigma: f32) -> f32 {
    (-0.5 * (distance / sigma) * (distance / sigma)).exp()
}

fn smoothstep(from: f32, to: f32, x: f32) -> f32 {
    let t = ((x - from) / (to - from)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

impl EchoMap {
    /// Paints `anatomy`. Objects get ids from 1: the vessels, then the nerves, then the bone.
    pub(crate) fn paint(anatomy: &Anatomy, grid: Grid, seed: u64) -> Self {
        let cells = grid.width * grid.height;
        let mut map = Self {
            grid,
            diffuse_db: vec![0.0; cells],
            specular: vec![0.0; cells],
            gain_db: vec![0.0; cells],
            labels: vec![0; cells],
        };
        let mut rng = Rng::new(seed, 2);
        map.paint_layers(anatomy, &mut rng);
        for stroke in &anatomy.strokes {
            map.paint_stroke(stroke, anatomy);
        }
        for belly in &anatomy.bellies {
            map.paint_belly(belly, &mut rng);
        }
        let haloes = SmoothField::new(&mut rng, 1.5, 0.8);
        let outlines =
            anatomy.vessels.iter().map(|v| &v.outline).chain(anatomy.nerves.iter().map(|n| &n.outline));
        for outline in outlines {
            // Bundles lie in bright connective tissue.
            let (echo_db, weight) = (rng.range(-41.0, -32.0), rng.range(0.45, 0.95));
            map.each_near(outline.center_mm, 2.2 * outline.reach_mm(), |map, cell, x, y| {
                let (rho, _) = outline.at(x, y);
                let w = weight * (1.0 - smoothstep(1.0, 1.9 + 0.45 * haloes.at(x, y).clamp(-1.5, 1.5), rho));
                map.diffuse_db[cell] += w * (echo_db + 3.5 * haloes.at(x + 31.0, y) - map.diffuse_db[cell]);
                map.specular[cell] *= 1.0 - 0.7 * w;
            });
        }
        let mut id = 0;
        for vessel in &anatomy.vessels {
            id += 1;
            map.paint_vessel(vessel, id, &mut rng);
        }
        for nerve in &anatomy.nerves {
            id += 1;
            map.paint_nerve(nerve, id, &mut rng);
        }
        if let Some(bone) = &anatomy.bone {
            id += 1;
            map.paint_bone(bone, id, &mut rng);
        }
        map
    }

    fn each_near(
        &mut self,
        center_mm: [f32; 2],
        reach_mm: f32,
        mut visit: impl FnMut(&mut Self, usize, f32, f32),
    ) {
        let grid = self.grid;
        for row in grid.rows(center_mm[1] - reach_mm, center_mm[1] + reach_mm) {
            for column in grid.columns(center_mm[0] - reach_mm, center_mm[0] + reach_mm) {
                visit(self, row * grid.width + column, grid.x_mm(column), grid.y_mm(row));
            }
        }
    }

    fn paint_layers(&mut self, anatomy: &Anatomy, rng: &mut Rng) {
        let grid = self.grid;
        let streaks = SmoothField::new(rng, 2.6, 0.28);
        let fine_streaks = SmoothField::new(rng, 1.1, 0.2);
        let lumps = SmoothField::new(rng, 6.0, 3.0);
        let patches = SmoothField::new(rng, 1.9, 0.9);
        for column in 0..grid.width {
            let x = grid.x_mm(column);
            let bottoms: Vec<f32> = anatomy.layers.iter().map(|layer| layer.bottom_at(x)).collect();
            let mut index = 0;
            for row in 0..grid.height {
                let y = grid.y_mm(row);
                while index + 1 < bottoms.len() && y > bottoms[index] {
                    index += 1;
                }
                let layer = &anatomy.layers[index];
                // Fibres follow the interface below them.
                let along = y - layer.relief_mm.at(x);
                let texture = 0.7 * streaks.at(x, along) + 0.5 * fine_streaks.at(x, along);
                self.diffuse_db[row * grid.width + column] = layer.echo_db
                    + layer.streak_db * texture
                    + layer.lump_db * (lumps.at(x, along) + 0.5 * patches.at(x, along));
            }
        }
    }

    fn paint_stroke(&mut self, stroke: &Stroke, anatomy: &Anatomy) {
        let grid = self.grid;
        let middle = 0.5 * (stroke.from_x_mm + stroke.to_x_mm);
        let half_length = 0.5 * (stroke.to_x_mm - stroke.from_x_mm);
        let spread = stroke.thickness_mm;
        let depth_at = |x: f32| {
            let dx = x - middle;
            let relief =
                stroke.follows.map_or(0.0, |(layer, weight)| weight * anatomy.layers[layer].relief_mm.at(x));
            let bowed = stroke.tilt * dx + stroke.bow_per_mm * dx * dx;
            stroke.depth_mm + relief + bowed + stroke.wobble_mm.at(x)
        };
        for column in grid.columns(stroke.from_x_mm, stroke.to_x_mm) {
            let x = grid.x_mm(column);
            let depth = depth_at(x);
            // A sheet reflects less to the probe where it is not square to the beam.
            let slope = (depth_at(x + 0.2) - depth_at(x - 0.2)) / 0.4;
            let ends = 1.0 - smoothstep(0.5, 1.0, ((x - middle) / half_length).abs());
            let echo = amplitude(stroke.echo_db + stroke.beads_db.at(x)) * ends * bell(slope, 0.45);
            for row in grid.rows(depth - 3.0 * spread, depth + 3.0 * spread) {
                let value = echo * bell(grid.y_mm(row) - depth, spread);
                let cell = row * grid.width + column;
                self.specular[cell] = self.specular[cell].max(0.6 * value);
                let diffuse = 20.0 * (0.8 * value).max(1e-5).log10();
                self.diffuse_db[cell] = self.diffuse_db[cell].max(diffuse);
            }
        }
    }

    fn paint_belly(&mut self, belly: &Belly, rng: &mut Rng) {
        let outline = &belly.outline;
        let scale = outline.scale_mm();
        let ragged = SmoothField::new(rng, 3.0, 1.2);
        self.each_near(outline.center_mm, outline.reach_mm() + 1.5, |map, cell, x, y| {
            let (rho, normal_y) = outline.at(x, y);
            let rho = rho + 0.08 * ragged.at(x, y);
            let inside = 1.0 - smoothstep(0.8, 1.0, rho);
            map.diffuse_db[cell] -= inside * belly.drop_db;
            let keep = amplitude(-inside * belly.drop_db);
            let sheath_db = belly.sheath_echo_db + 6.0 * ragged.at(x + 40.0, y) - 3.0;
            let sheath = amplitude(sheath_db) * bell((rho - 1.0) * scale, 0.12) * normal_y.abs().powi(4);
            map.specular[cell] = (map.specular[cell] * keep).max(sheath);
        });
    }

    fn paint_vessel(&mut self, vessel: &Vessel, id: u8, rng: &mut Rng) {
        let outline = &vessel.outline;
        let scale = outline.scale_mm();
        let wall = vessel.wall_mm / scale;
        let soft = vessel.edge_softness_mm / scale;
        let clutter = SmoothField::new(rng, 2.0, 0.7);
        // Angle to the beam decides how much of the wall shows; some walls show all around.
        let directivity = rng.count(2, 6) as i32;
        self.each_near(outline.center_mm, outline.reach_mm() + 2.0, |map, cell, x, y| {
            let (rho, normal_y) = outline.at(x, y);
            if rho < 1.0 + 0.5 * wall {
                map.labels[cell] = id;
            }
            let lumen = 1.0 - smoothstep(1.0 - soft, 1.0 + soft, rho);
            if lumen > 0.0 {
                // Reverberations of the near wall fill the top of the lumen with haze.
                let below_wall_mm =
                    ((y - outline.center_mm[1]) / outline.half_height_mm + 1.0).max(0.0) * scale;
                let haze = vessel.clutter_db * (-below_wall_mm / 1.6).exp() + 1.8 * clutter.at(x, y);
                let blood = vessel.lumen_echo_db + haze;
                map.diffuse_db[cell] += lumen * (blood - map.diffuse_db[cell]);
                map.specular[cell] *= 1.0 - lumen;
            }
            let ring = bell((rho - 1.0 - 0.5 * wall) / wall, 0.55);
            let facing = normal_y.abs().powi(directivity);
            let echo = amplitude(vessel.wall_echo_db) * ring * facing;
            map.specular[cell] = map.specular[cell].max(echo);
            let diffuse =
                vessel.wall_echo_db - 7.0 + 20.0 * (ring * (0.04 + 0.96 * facing)).max(1e-4).log10();
            map.diffuse_db[cell] = map.diffuse_db[cell].max(diffuse);
        });
        self.shade_below(vessel, id);
    }

    /// Enhancement behind the lumen and shadows of its refracting edges, along each beam.
    fn shade_below(&mut self, vessel: &Vessel, id: u8) {
        let grid = self.grid;
        let outline = &vessel.outline;
        let [cx, cy] = outline.center_mm;
        let reach = outline.reach_mm();
        let fade_mm = 2.5 * outline.half_height_mm + 5.0;
        for column in grid.columns(cx - reach - 1.0, cx + reach + 1.0) {
            let x = grid.x_mm(column);
            let from_edge = ((x - cx).abs() - outline.half_width_mm).abs();
            let edge_db = -vessel.edge_shadow_db * bell(from_edge, 0.25 + 0.04 * outline.half_width_mm);
            let mut enhancement_db = 0.0;
            for row in grid.rows(cy - reach, f32::INFINITY) {
                let cell = row * grid.width + column;
                if self.labels[cell] == id {
                    enhancement_db += vessel.enhancement_db_per_mm * grid.pitch_mm[1];
                    continue;
                }
                let behind_mm = grid.y_mm(row) - cy;
                let fade = if behind_mm > 0.0 { (-behind_mm / fade_mm).exp() } else { 0.0 };
                self.gain_db[cell] += enhancement_db.min(15.0) * fade + edge_db * fade;
            }
        }
    }

    fn paint_nerve(&mut self, nerve: &Nerve, id: u8, rng: &mut Rng) {
        let outline = &nerve.outline;
        let scale = outline.scale_mm();
        let grain = SmoothField::new(rng, 0.7, 0.35);
        let (sin, cos) = outline.angle_rad.sin_cos();
        self.each_near(outline.center_mm, outline.reach_mm() + 1.0, |map, cell, x, y| {
            let (rho, normal_y) = outline.at(x, y);
            if rho < 1.0 {
                map.labels[cell] = id;
            }
            let inside = 1.0 - smoothstep(0.9, 1.1, rho + 0.04 * grain.at(x, y + 9.0));
            if inside <= 0.0 {
                return;
            }
            let (dx, dy) = (x - outline.center_mm[0], y - outline.center_mm[1]);
            let (u_mm, v_mm) = (dx * cos + dy * sin, -dx * sin + dy * cos);
            let ragged = 0.12 * grain.at(x + 17.0, y);
            let fascicle = nerve.fascicles.iter().fold(0f32, |most, (center, radius)| {
                let (fu, fv) = (center[0] * outline.half_width_mm, center[1] * outline.half_height_mm);
                most.max(
                    1.0 - smoothstep(radius - 0.15, radius + 0.15, (u_mm - fu).hypot(v_mm - fv) + ragged),
                )
            });
            let echo = nerve.epineurium_echo_db + 2.5 * grain.at(x, y) - nerve.fascicle_drop_db * fascicle;
            map.diffuse_db[cell] += inside * (echo - map.diffuse_db[cell]);
            let rim = amplitude(nerve.rim_echo_db)
                * bell((rho - 0.97) * scale, 0.14)
                * (0.3 + 0.7 * normal_y.abs());
            map.specular[cell] = (map.specular[cell] * (1.0 - inside)).max(rim);
        });
    }

    fn paint_bone(&mut self, bone: &Bone, id: u8, rng: &mut Rng) {
        let grid = self.grid;
        let roughness = SmoothLine::new(rng, 2.5, 0.6, 5.0);
        let ripple_mm = rng.range(0.9, 2.0);
        let thickness_mm = rng.range(0.09, 0.2);
        for column in
            grid.columns(bone.center_x_mm - bone.half_width_mm, bone.center_x_mm + bone.half_width_mm)
        {
            let x = grid.x_mm(column);
            let surface = bone.surface_at(x);
            let slope = (bone.surface_at(x + 0.15) - bone.surface_at(x - 0.15)) / 0.3;
            let to_end = bone.half_width_mm - (x - bone.center_x_mm).abs();
            let solid = smoothstep(0.0, 0.15 * bone.half_width_mm + 0.8, to_end);
            let echo_db = bone.echo_db + roughness.at(x) - 14.0 * slope * slope;
            let echo = amplitude(echo_db) * solid;
            for row in grid.rows(surface - 3.0 * thickness_mm, f32::INFINITY) {
                let cell = row * grid.width + column;
                let below_mm = grid.y_mm(row) - surface;
                if below_mm > 0.0 {
                    let shadow_db = solid * bone.shadow_db * (1.0 - (-below_mm / 0.5).exp());
                    self.specular[cell] *= amplitude(-shadow_db);
                    self.gain_db[cell] -= self.gain_db[cell] * solid;
                    let ripple = 1.5 * (std::f32::consts::TAU * below_mm / ripple_mm).cos();
                    let echoes = bone.echo_db - 30.0 - 8.7 * below_mm / bone.reverberation_mm + ripple;
                    self.diffuse_db[cell] = power_sum_db(
                        self.diffuse_db[cell] - shadow_db,
                        echoes + 20.0 * solid.max(1e-3).log10(),
                    );
                    if shadow_db > 10.0 && self.labels[cell] != id {
                        self.labels[cell] |= HIDDEN;
                    }
                }
                // The near face is sharp, the far side trails.
                let sigma = if below_mm < 0.0 { 0.6 * thickness_mm } else { 1.2 * thickness_mm };
                let shape = bell(below_mm, sigma);
                self.specular[cell] = self.specular[cell].max(0.8 * echo * shape);
                let diffuse = 20.0 * (0.5 * echo * shape).max(1e-5).log10();
                self.diffuse_db[cell] = self.diffuse_db[cell].max(diffuse);
                if solid > 0.5 && (-1.6 * thickness_mm - 0.1..2.8 * thickness_mm + 0.15).contains(&below_mm) {
                    self.labels[cell] = id;
                }
            }
        }
    }
}
