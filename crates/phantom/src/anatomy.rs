//! What is under the probe: tissue layers, fasciae, vessels, nerves and bone, drawn at random by seed.
//!
//! Lengths are millimetres. `x` runs along the probe's face, 0 at the left edge of the view at rest, and the
//! world is wider than the view, so that structures enter and leave as the probe slides. `y` is the depth below
//! the skin. Echo strengths are decibels below the brightest grey of a display at neutral gain.

use crate::random::{Rng, SmoothLine};

/// A sheet of tissue between two interfaces.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    /// Depth of its lower interface.
    pub(crate) bottom_mm: f32,
    pub(crate) relief_mm: SmoothLine,
    pub(crate) echo_db: f32,
    /// How strongly the echo varies in long thin streaks (muscle fibres).
    pub(crate) streak_db: f32,
    /// How strongly it varies in round lumps.
    pub(crate) lump_db: f32,
}

impl Layer {
    pub(crate) fn bottom_at(&self, x_mm: f32) -> f32 {
        self.bottom_mm + self.relief_mm.at(x_mm)
    }
}

/// A thin bright sheet seen edge on: fascia, septum, perimysium.
#[derive(Clone, Debug)]
pub(crate) struct Stroke {
    pub(crate) from_x_mm: f32,
    pub(crate) to_x_mm: f32,
    pub(crate) depth_mm: f32,
    pub(crate) tilt: f32,
    pub(crate) bow_per_mm: f32,
    /// The relief it follows: that of a layer, with this weight.
    pub(crate) follows: Option<(usize, f32)>,
    pub(crate) wobble_mm: SmoothLine,
    pub(crate) beads_db: SmoothLine,
    pub(crate) echo_db: f32,
    pub(crate) thickness_mm: f32,
}

/// A closed outline close to an ellipse.
#[derive(Clone, Debug)]
pub(crate) struct Outline {
    pub(crate) center_mm: [f32; 2],
    pub(crate) half_width_mm: f32,
    pub(crate) half_height_mm: f32,
    pub(crate) angle_rad: f32,
    /// Amplitude and phase of the 2nd to 5th harmonic of the relative radius.
    harmonics: [(f32, f32); 4],
}

impl Outline {
    pub(crate) fn new(
        rng: &mut Rng,
        center_mm: [f32; 2],
        half_width_mm: f32,
        half_height_mm: f32,
        angle_rad: f32,
    ) -> Self {
        let irregularity = rng.log_range(0.015, 0.11);
        let harmonics =
            std::array::from_fn(|k| (irregularity * rng.unit() / (1.0 + k as f32 * 0.5), rng.phase()));
        Self { center_mm, half_width_mm, half_height_mm, angle_rad, harmonics }
    }

    /// Relative radius (below 1 inside) and the vertical part of the outward normal, -1 (up) to 1 (down).
    pub(crate) fn at(&self, x_mm: f32, y_mm: f32) -> (f32, f32) {
        let (dx, dy) = (x_mm - self.center_mm[0], y_mm - self.center_mm[1]);
        let (sin, cos) = self.angle_rad.sin_cos();
        let u = (dx * cos + dy * sin) / self.half_width_mm;
        let v = (-dx * sin + dy * cos) / self.half_height_mm;
        let theta = v.atan2(u);
        let bulge: f32 = self
            .harmonics
            .iter()
            .zip(2..)
            .map(|((height, phase), k)| height * (k as f32 * theta + phase).cos())
            .sum();
        let (nu, nv) = (u / self.half_width_mm, v / self.half_height_mm);
        let (nx, ny) = (nu * cos - nv * sin, nu * sin + nv * cos);
        ((u * u + v * v).sqrt() / (1.0 + bulge), ny / (nx * nx + ny * ny).sqrt().max(1e-9))
    }

    /// Millimetres for one unit of relative radius, roughly.
    pub(crate) fn scale_mm(&self) -> f32 {
        (self.half_width_mm * self.half_height_mm).sqrt()
    }

    /// The largest distance of its edge from its centre.
    pub(crate) fn reach_mm(&self) -> f32 {
        1.25 * self.half_width_mm.max(self.half_height_mm)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Vessel {
    pub(crate) outline: Outline,
    pub(crate) wall_mm: f32,
    pub(crate) wall_echo_db: f32,
    pub(crate) lumen_echo_db: f32,
    /// Haze of reverberations under the near wall.
    pub(crate) clutter_db: f32,
    /// Gain of what lies behind, for each millimetre of blood on the way.
    pub(crate) enhancement_db_per_mm: f32,
    pub(crate) edge_shadow_db: f32,
    /// How gradually the lumen begins: the slice is thick and cuts the vessel obliquely.
    pub(crate) edge_softness_mm: f32,
    /// Relative change of radius at systole; 0 for a vein.
    pub(crate) pulse: f32,
    /// How much of its height is lost at full probe pressure; 0 for an artery.
    pub(crate) compressibility: f32,
}

#[derive(Clone, Debug)]
pub(crate) struct Nerve {
    pub(crate) outline: Outline,
    pub(crate) epineurium_echo_db: f32,
    pub(crate) fascicle_drop_db: f32,
    pub(crate) rim_echo_db: f32,
    /// Centres in units of the outline (u, v) and radius in millimetres.
    pub(crate) fascicles: Vec<([f32; 2], f32)>,
}

/// A dark muscle belly with a bright sheath: looks like a structure and is none.
#[derive(Clone, Debug)]
pub(crate) struct Belly {
    pub(crate) outline: Outline,
    pub(crate) drop_db: f32,
    pub(crate) sheath_echo_db: f32,
}

#[derive(Clone, Debug)]
pub(crate) struct Bone {
    pub(crate) center_x_mm: f32,
    pub(crate) half_width_mm: f32,
    pub(crate) depth_mm: f32,
    pub(crate) tilt: f32,
    pub(crate) bow_per_mm: f32,
    pub(crate) relief_mm: SmoothLine,
    pub(crate) echo_db: f32,
    pub(crate) shadow_db: f32,
    pub(crate) reverberation_mm: f32,
}

impl Bone {
    pub(crate) fn surface_at(&self, x_mm: f32) -> f32 {
        let dx = x_mm - self.center_x_mm;
        self.depth_mm + self.tilt * dx + self.bow_per_mm * dx * dx + self.relief_mm.at(x_mm)
    }
}

/// The scanner's settings for this scene.
#[derive(Clone, Debug)]
pub(crate) struct Imaging {
    pub(crate) dynamic_range_db: f32,
    pub(crate) gain_db: f32,
    /// Exponent of the grey curve.
    pub(crate) grey_gamma: f32,
    /// Number of compounded looks; 1 is fully developed speckle.
    pub(crate) looks: usize,
    pub(crate) axial_sigma_mm: f32,
    pub(crate) lateral_sigma_mm: f32,
    pub(crate) focus_mm: f32,
    /// Depth over which the beam widens by a factor of √2 away from the focus.
    pub(crate) depth_of_field_mm: f32,
    /// What time-gain compensation leaves uncompensated below `tgc_knee_mm`.
    pub(crate) residual_loss_db_per_mm: f32,
    pub(crate) tgc_knee_mm: f32,
    pub(crate) noise_floor_db: f32,
    pub(crate) near_field_db: f32,
    /// Loss at the left and the right edge, and the share of the width it reaches into.
    pub(crate) edge_loss_db: [f32; 2],
    pub(crate) edge_reach: [f32; 2],
}

/// Everything that is drawn once per scene.
#[derive(Clone, Debug)]
pub(crate) struct Anatomy {
    pub(crate) view_mm: [f32; 2],
    pub(crate) layers: Vec<Layer>,
    pub(crate) strokes: Vec<Stroke>,
    pub(crate) vessels: Vec<Vessel>,
    pub(crate) nerves: Vec<Nerve>,
    pub(crate) bellies: Vec<Belly>,
    pub(crate) bone: Option<Bone>,
    pub(crate) imaging: Imaging,
}

/// How far the world reaches beyond each side of the view, as a share of the view's width.
pub(crate) const SIDE_MARGIN: f32 = 0.45;

impl Anatomy {
    pub(crate) fn draw(seed: u64, view_mm: [f32; 2]) -> Self {
        let mut rng = Rng::new(seed, 1);
        let [width_mm, depth_mm] = view_mm;
        let layers = draw_layers(&mut rng, view_mm);
        let superficial_mm = layers[1].bottom_mm;
        let mut vessels: Vec<Vessel> = Vec::new();
        let mut nerves: Vec<Nerve> = Vec::new();

        // A bundle's centre lies in the view at rest, so that a scene does not start empty.
        let lowest_mm = superficial_mm + 1.5;
        let deepest_mm = (0.72 * depth_mm).max(lowest_mm + 4.0);
        let vessel_count = rng.count(1, 3);
        let nerve_count = [0, 1, 1, 2][rng.count(0, 3)];
        let scale = (width_mm / 38.0).clamp(0.6, 1.4);
        for attempt in 0..200 {
            if vessels.len() == vessel_count {
                break;
            }
            let vein = rng.chance(0.4);
            let half_width = scale * if vein { rng.log_range(2.0, 6.5) } else { rng.log_range(1.4, 5.5) };
            let half_height = half_width * if vein { rng.range(0.45, 0.85) } else { rng.range(0.85, 1.05) };
            let spread = if vessels.is_empty() { 0.25..0.75 } else { -0.25..1.25 };
            let x = match vessels.first() {
                // Vessels often run in pairs.
                Some(first) if rng.chance(0.55) => {
                    first.outline.center_mm[0]
                        + rng.sign() * (first.outline.half_width_mm + half_width) * rng.range(0.1, 1.4)
                }
                _ => width_mm * rng.range(spread.start, spread.end),
            };
            let y = rng.range(lowest_mm + half_height, deepest_mm.max(lowest_mm + half_height + 0.5));
            let tilt = rng.range(-0.25, 0.25);
            let outline = Outline::new(&mut rng, [x, y], half_width, half_height, tilt);
            if attempt < 199 && vessels.iter().any(|v| overlaps(&v.outline, &outline, 0.5)) {
                continue;
            }
            vessels.push(Vessel {
                wall_mm: if vein { rng.range(0.08, 0.18) } else { rng.range(0.12, 0.36) },
                wall_echo_db: if vein { rng.range(-36.0, -22.0) } else { rng.range(-28.0, -13.0) },
                lumen_echo_db: rng.range(-63.0, -47.0),
                clutter_db: rng.range(2.0, 16.0),
                enhancement_db_per_mm: rng.range(0.7, 2.4),
                edge_shadow_db: rng.range(1.0, 6.0),
                edge_softness_mm: rng.log_range(0.06, 0.5),
                pulse: if vein { 0.0 } else { rng.range(0.03, 0.09) },
                compressibility: if vein { rng.range(0.2, 0.8) } else { 0.0 },
                outline,
            });
        }
        for _ in 0..200 {
            if nerves.len() == nerve_count {
                break;
            }
            let half_width = scale * rng.log_range(1.8, 5.0);
            let half_height = (half_width * rng.range(0.4, 0.95)).max(1.0);
            let beside = rng.chance(0.75);
            let v = &vessels[rng.count(0, vessels.len() - 1)].outline;
            let (x, y) = if beside {
                let angle = rng.phase();
                let gap = rng.range(0.4, 2.5);
                (
                    v.center_mm[0] + angle.cos() * (v.half_width_mm + half_width + gap),
                    v.center_mm[1] + angle.sin() * (v.half_height_mm + half_height + gap),
                )
            } else {
                (width_mm * rng.range(-0.15, 1.15), rng.range(lowest_mm + half_height, deepest_mm))
            };
            let tilt = rng.range(-0.45, 0.45);
            let outline = Outline::new(&mut rng, [x, y], half_width, half_height, tilt);
            let fits = (lowest_mm - 1.0 + half_height..0.62 * depth_mm.max(30.0)).contains(&y)
                && y + half_height < depth_mm
                && !vessels.iter().any(|v| overlaps(&v.outline, &outline, 0.35))
                && !nerves.iter().any(|n| overlaps(&n.outline, &outline, 0.5));
            if fits {
                nerves.push(draw_nerve(&mut rng, outline));
            }
        }
        let bellies = draw_bellies(&mut rng, view_mm, superficial_mm, &vessels, &nerves);
        let bone = rng.chance(0.4).then(|| draw_bone(&mut rng, view_mm, superficial_mm, &vessels, &nerves));
        let strokes = draw_strokes(&mut rng, view_mm, &layers);
        let imaging = draw_imaging(&mut rng, view_mm);
        Self { view_mm, layers, strokes, vessels, nerves, bellies, bone, imaging }
    }
}

fn overlaps(a: &Outline, b: &Outline, gap_mm: f32) -> bool {
    let reach = |o: &Outline| {
        let (sin, cos) = o.angle_rad.sin_cos();
        [
            (o.half_width_mm * cos).hypot(o.half_height_mm * sin),
            (o.half_width_mm * sin).hypot(o.half_height_mm * cos),
        ]
    };
    let (ra, rb) = (reach(a), reach(b));
    let d: [f32; 2] =
        std::array::from_fn(|i| (a.center_mm[i] - b.center_mm[i]) / (1.08 * (ra[i] + rb[i]) + gap_mm));
    d[0] * d[0] + d[1] * d[1] < 1.0
}

fn draw_layers(rng: &mut Rng, [width_mm, depth_mm]: [f32; 2]) -> Vec<Layer> {
    let relief = |rng: &mut Rng, height: f32| SmoothLine::new(rng, height, 0.35 * width_mm, 2.5 * width_mm);
    let skin_mm = rng.range(1.0, 2.2);
    let mut layers = vec![Layer {
        bottom_mm: skin_mm,
        relief_mm: relief(rng, 0.12),
        echo_db: rng.range(-36.0, -27.0),
        streak_db: 2.0,
        lump_db: 1.0,
    }];
    let fat_mm = skin_mm + rng.log_range(0.05 * depth_mm, 0.25 * depth_mm);
    let fat_relief = rng.range(0.3, 1.0);
    layers.push(Layer {
        bottom_mm: fat_mm,
        relief_mm: relief(rng, fat_relief),
        echo_db: rng.range(-50.0, -38.0),
        streak_db: rng.range(1.0, 4.0),
        lump_db: rng.range(1.5, 3.5),
    });
    let mut depth = fat_mm;
    for _ in 0..rng.count(1, 3) {
        depth += rng.log_range(0.12 * depth_mm, 0.4 * depth_mm);
        // Muscle, or the brighter and more even tissue around bundles.
        let muscle = rng.chance(0.6);
        let height = rng.range(0.5, 2.2);
        layers.push(Layer {
            bottom_mm: depth,
            relief_mm: relief(rng, height),
            echo_db: if muscle { rng.range(-52.0, -40.0) } else { rng.range(-42.0, -33.0) },
            streak_db: if muscle { rng.range(3.0, 7.0) } else { rng.range(1.5, 4.0) },
            lump_db: rng.range(2.0, 5.0),
        });
    }
    if let Some(last) = layers.last_mut() {
        last.bottom_mm = last.bottom_mm.max(2.0 * depth_mm);
    }
    layers
}

fn draw_nerve(rng: &mut Rng, outline: Outline) -> Nerve {
    let size = outline.scale_mm();
    // Roots and small nerves are one dark fascicle with a bright rim; larger ones are honeycombs.
    let mut fascicles = Vec::new();
    if size < 1.6 && rng.chance(0.4) {
        fascicles.push(([rng.range(-0.1, 0.1), rng.range(-0.1, 0.1)], 0.62 * outline.half_height_mm));
    } else {
        let radius = rng.range(0.3, 0.6) * (size / 2.5).clamp(0.7, 1.35);
        for _ in 0..400 {
            let center = [rng.range(-0.85, 0.85), rng.range(-0.85, 0.85)];
            let r = radius * rng.range(0.6, 1.35);
            let to_mm = |c: [f32; 2]| [c[0] * outline.half_width_mm, c[1] * outline.half_height_mm];
            let here = to_mm(center);
            let inside = center[0].hypot(center[1]) + r / outline.half_height_mm < 0.98;
            let free = fascicles.iter().all(|(other, other_r): &([f32; 2], f32)| {
                let there = to_mm(*other);
                (here[0] - there[0]).hypot(here[1] - there[1]) > r + other_r + 0.12
            });
            if inside && free {
                fascicles.push((center, r));
            }
        }
    }
    Nerve {
        epineurium_echo_db: rng.range(-37.0, -26.0),
        fascicle_drop_db: rng.range(7.0, 18.0),
        rim_echo_db: rng.range(-42.0, -27.0),
        fascicles,
        outline,
    }
}

fn draw_bellies(
    rng: &mut Rng,
    [width_mm, depth_mm]: [f32; 2],
    superficial_mm: f32,
    vessels: &[Vessel],
    nerves: &[Nerve],
) -> Vec<Belly> {
    let wanted = rng.count(0, 3);
    let mut bellies: Vec<Belly> = Vec::new();
    for _ in 0..40 {
        if bellies.len() == wanted {
            break;
        }
        let half_width = width_mm * rng.range(0.1, 0.3);
        let half_height = half_width * rng.range(0.25, 0.55);
        let top = superficial_mm + half_height;
        let center = [width_mm * rng.range(-0.3, 1.3), rng.range(top, (0.8 * depth_mm).max(top + 1.0))];
        let tilt = rng.range(-0.35, 0.35);
        let outline = Outline::new(rng, center, half_width, half_height, tilt);
        let free = !vessels.iter().any(|v| overlaps(&v.outline, &outline, 0.3))
            && !nerves.iter().any(|n| overlaps(&n.outline, &outline, 0.3))
            && !bellies.iter().any(|b| overlaps(&b.outline, &outline, 0.0));
        if free {
            let (drop_db, sheath_echo_db) = (rng.range(3.0, 9.0), rng.range(-36.0, -22.0));
            bellies.push(Belly { outline, drop_db, sheath_echo_db });
        }
    }
    bellies
}

fn draw_bone(
    rng: &mut Rng,
    [width_mm, depth_mm]: [f32; 2],
    superficial_mm: f32,
    vessels: &[Vessel],
    nerves: &[Nerve],
) -> Bone {
    let half_width_mm = width_mm * rng.range(0.14, 0.45);
    let center_x_mm = width_mm * rng.range(-0.1, 1.1);
    // Most structures lie in front of bone; a few are left in its shadow.
    let respects_others = rng.chance(0.8);
    let mut depth = rng.range((0.35 * depth_mm).max(superficial_mm + 2.0), 0.85 * depth_mm);
    if respects_others {
        let outlines = vessels.iter().map(|v| &v.outline).chain(nerves.iter().map(|n| &n.outline));
        for o in outlines {
            if (o.center_mm[0] - center_x_mm).abs() < half_width_mm + o.reach_mm() {
                depth = depth.max(o.center_mm[1] + o.reach_mm() + 1.0);
            }
        }
    }
    Bone {
        center_x_mm,
        half_width_mm,
        depth_mm: depth.min(0.93 * depth_mm),
        tilt: rng.range(-0.2, 0.2),
        bow_per_mm: rng.log_range(0.01, 0.6) / half_width_mm,
        relief_mm: SmoothLine::new(rng, 0.25, 3.0, 14.0),
        echo_db: rng.range(-14.0, -2.0),
        shadow_db: rng.range(20.0, 45.0),
        reverberation_mm: rng.range(2.0, 5.0),
    }
}

fn draw_strokes(rng: &mut Rng, [width_mm, depth_mm]: [f32; 2], layers: &[Layer]) -> Vec<Stroke> {
    let mut strokes = Vec::new();
    let world = [-SIDE_MARGIN * width_mm - 5.0, (1.0 + SIDE_MARGIN) * width_mm + 5.0];
    for (index, layer) in layers.iter().enumerate() {
        let top_mm = if index == 0 { 0.0 } else { layers[index - 1].bottom_mm };
        let bottom_mm = layer.bottom_mm.min(1.1 * depth_mm);
        // The fascia at the interface: one to three sheets.
        if layer.bottom_mm < 1.1 * depth_mm {
            let sheets = if index == 0 { 1 } else { rng.count(1, 3) };
            let echo_db = if index == 0 { rng.range(-36.0, -24.0) } else { rng.range(-22.0, -8.0) };
            for sheet in 0..sheets {
                strokes.push(Stroke {
                    from_x_mm: world[0],
                    to_x_mm: world[1],
                    depth_mm: layer.bottom_mm + sheet as f32 * rng.range(0.5, 1.3),
                    tilt: 0.0,
                    bow_per_mm: 0.0,
                    follows: Some((index, rng.range(0.85, 1.1))),
                    wobble_mm: SmoothLine::new(rng, 0.12, 4.0, 30.0),
                    beads_db: SmoothLine::new(rng, 7.0, 2.0, 40.0),
                    echo_db: echo_db - 4.0 * sheet as f32,
                    thickness_mm: rng.range(0.04, 0.11),
                });
            }
        }
        if index == 0 {
            continue;
        }
        // Septa in fat, perimysium in muscle: short, roughly parallel to the layer.
        let per_square_cm = if index == 1 { rng.range(0.3, 2.0) } else { rng.range(1.0, 8.0) };
        let area_square_cm = (world[1] - world[0]) * (bottom_mm - top_mm).max(0.0) / 100.0;
        let pennation = rng.range(-0.15, 0.15);
        let loudness = rng.range(-39.0, -22.0);
        for _ in 0..(per_square_cm * area_square_cm) as usize {
            let length = rng.log_range(2.0, if index == 1 { 26.0 } else { 20.0 });
            let x = rng.range(world[0], world[1]);
            let depth = rng.range(top_mm + 0.3, bottom_mm - 0.2);
            // Near an interface a line follows that interface.
            let weight = (depth - top_mm) / (bottom_mm - top_mm).max(0.1);
            let follows = if weight > 0.5 { (index, weight) } else { (index - 1, 1.0 - weight) };
            strokes.push(Stroke {
                from_x_mm: x - 0.5 * length,
                to_x_mm: x + 0.5 * length,
                depth_mm: depth,
                tilt: pennation + 0.07 * rng.normal(),
                bow_per_mm: 0.06 * rng.normal() / length,
                follows: Some(follows),
                wobble_mm: SmoothLine::new(rng, 0.15, 2.5, 14.0),
                beads_db: SmoothLine::new(rng, 6.0, 1.0, 10.0),
                echo_db: loudness + 5.0 * rng.normal().clamp(-2.0, 2.0),
                thickness_mm: rng.range(0.03, 0.1),
            });
        }
    }
    strokes
}

fn draw_imaging(rng: &mut Rng, [_, depth_mm]: [f32; 2]) -> Imaging {
    let poor_contact = rng.chance(0.2).then(|| rng.count(0, 1));
    let edge = |rng: &mut Rng, side: usize| {
        if poor_contact == Some(side) {
            (rng.range(15.0, 35.0), rng.range(0.1, 0.3))
        } else {
            (rng.range(1.0, 8.0), rng.range(0.05, 0.2))
        }
    };
    let (left, right) = (edge(rng, 0), edge(rng, 1));
    // Finer wavelengths go with shallower views.
    let wavelength_mm = 0.15 * (depth_mm / 40.0).powf(0.6);
    Imaging {
        dynamic_range_db: rng.range(53.0, 70.0),
        gain_db: rng.range(-4.0, 3.5),
        grey_gamma: rng.range(0.9, 1.35),
        looks: [1, 2, 3, 4, 5, 6][rng.count(0, 5)],
        axial_sigma_mm: wavelength_mm * rng.range(0.4, 0.65),
        lateral_sigma_mm: wavelength_mm * rng.range(0.7, 1.3),
        focus_mm: depth_mm * rng.range(0.3, 0.7),
        depth_of_field_mm: depth_mm * rng.range(0.3, 0.6),
        residual_loss_db_per_mm: rng.range(0.1, 1.3) * 40.0 / depth_mm,
        tgc_knee_mm: depth_mm * rng.range(0.2, 0.6),
        noise_floor_db: rng.range(-84.0, -62.0),
        near_field_db: rng.range(-22.0, -6.0),
        edge_loss_db: [left.0, right.0],
        edge_reach: [left.1, right.1],
    }
}
