//! Random numbers and smooth random functions that stay the same for a seed in every version of this crate.

/// SplitMix64 (Steele, Lea, Flood 2014): small, good enough for pictures, and fixed for ever.
#[derive(Clone, Debug)]
pub(crate) struct Rng {
    state: u64,
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Rng {
    /// An independent stream of numbers for each `(seed, stream)`.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        Self { state: mix(seed ^ mix(stream.wrapping_add(0x9E37_79B9_7F4A_7C15))) }
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.state)
    }

    /// Uniform in [0, 1).
    pub(crate) fn unit(&mut self) -> f32 {
        (self.next_u64() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// Uniform in [low, high).
    pub(crate) fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Log-uniform in [low, high), both positive.
    pub(crate) fn log_range(&mut self, low: f32, high: f32) -> f32 {
        low * (high / low).powf(self.unit())
    }

    /// One of `low..=high`.
    pub(crate) fn count(&mut self, low: usize, high: usize) -> usize {
        low + (self.next_u64() % (high - low + 1) as u64) as usize
    }

    pub(crate) fn chance(&mut self, probability: f32) -> bool {
        self.unit() < probability
    }

    pub(crate) fn sign(&mut self) -> f32 {
        if self.chance(0.5) { 1.0 } else { -1.0 }
    }

    /// An angle in [0, 2π).
    pub(crate) fn phase(&mut self) -> f32 {
        self.range(0.0, std::f32::consts::TAU)
    }

    /// Two independent standard normal numbers (Box and Muller 1958).
    pub(crate) fn normal_pair(&mut self) -> [f32; 2] {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        let (sin, cos) = self.phase().sin_cos();
        [radius * cos, radius * sin]
    }

    pub(crate) fn normal(&mut self) -> f32 {
        self.normal_pair()[0]
    }
}

/// A smooth random function of one variable: a sum of sinusoids, about unit variance before `amplitude`.
#[derive(Clone, Debug)]
pub(crate) struct SmoothLine {
    waves: [(f32, f32, f32); 4],
}

impl SmoothLine {
    /// `amplitude` in the unit of the result; wavelengths between `shortest` and `longest`, in the unit of `x`.
    pub(crate) fn new(rng: &mut Rng, amplitude: f32, shortest: f32, longest: f32) -> Self {
        let waves = std::array::from_fn(|_| {
            let wavelength = rng.log_range(shortest, longest);
            // Longer waves are higher, as in tissue.
            let height = amplitude * rng.range(0.4, 1.0) * (wavelength / longest).powf(0.7);
            (height, std::f32::consts::TAU / wavelength, rng.phase())
        });
        Self { waves }
    }

    pub(crate) fn at(&self, x: f32) -> f32 {
        self.waves.iter().map(|(height, k, phase)| height * (k * x + phase).sin()).sum()
    }
}

/// A smooth random function of two variables: normal numbers on a lattice, interpolated (value noise).
#[derive(Clone, Debug)]
pub(crate) struct SmoothField {
    lattice: Vec<f32>,
    cells_per_x: f32,
    cells_per_y: f32,
}

const LATTICE: usize = 128;

impl SmoothField {
    /// `cell_x` and `cell_y`: the size of a feature, in the unit of the coordinates.
    pub(crate) fn new(rng: &mut Rng, cell_x: f32, cell_y: f32) -> Self {
        let lattice = (0..LATTICE * LATTICE).map(|_| rng.normal()).collect();
        Self { lattice, cells_per_x: 1.0 / cell_x, cells_per_y: 1.0 / cell_y }
    }

    pub(crate) fn at(&self, x: f32, y: f32) -> f32 {
        let (x, y) = (x * self.cells_per_x, y * self.cells_per_y);
        let (x_floor, y_floor) = (x.floor(), y.floor());
        let ease = |t: f32| t * t * (3.0 - 2.0 * t);
        let (tx, ty) = (ease(x - x_floor), ease(y - y_floor));
        let wrap = |v: f32| (v as i64).rem_euclid(LATTICE as i64) as usize;
        let (x0, y0) = (wrap(x_floor), wrap(y_floor));
        let (x1, y1) = ((x0 + 1) % LATTICE, (y0 + 1) % LATTICE);
        let value = |xi: usize, yi: usize| self.lattice[yi * LATTICE + xi];
        let top = value(x0, y0) + (value(x1, y0) - value(x0, y0)) * tx;
        let bottom = value(x0, y1) + (value(x1, y1) - value(x0, y1)) * tx;
        top + (bottom - top) * ty
    }
}
