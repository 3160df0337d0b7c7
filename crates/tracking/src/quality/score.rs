//! The scores of an object in a frame.

use super::QualityConfig;
use super::grid::{Bits, CELLS, GREY, Image, RING_CELLS, Region, count, dilated, largest_part};
use super::memory::{BLOCKS, Memory, Motion};

/// Scores of an object: edge, contrast, continuity, stability, likeness, mean.
pub const SCORES: usize = 6;
/// How far around a cell of the outline the step is looked for.
const REACH: usize = 2;
/// Step of grey whose edge is half as sharp as one can be.
const HALF_SHARP: f32 = 24.0;
/// Least step of grey that is an edge.
const LEAST_STEP: f32 = 8.0;
/// What the variances come to in an image that is not blurred, at least: speckle has a standard deviation of 5.6 dB (V. Dutt and
/// J. F. Greenleaf, "Adaptive speckle reduction filter for log-compressed B-scan images", IEEE Trans. Medical Imaging 15 (1996)),
/// 24 grey values in an image of 60 dB.
const LEAST_VARIANCE: f32 = 2.0 * 24.0 * 24.0;
/// Sharpness is summed in whole parts of 1.
const PARTS: f32 = 65536.0;

/// A mask in a frame.
#[derive(Clone, Copy, Debug)]
pub struct Mask<'m> {
    /// `[height, ceil(width / 8)]`: bit 0 is the leftmost of 8 pixels.
    pub bits: &'m [u8],
    /// The smallest box around it, pixels, its ends exclusive.
    pub box_xyxy: [i32; 4],
}

impl Mask<'_> {
    fn has(&self, [x, y]: [i32; 2], width: usize) -> bool {
        self.bits[y as usize * width.div_ceil(8) + x as usize / 8] >> (x % 8) & 1 == 1
    }
}

/// An object on its grid.
pub(super) struct Seen {
    pub region: Region,
    /// Cells in the frame.
    pub valid: Bits,
    pub mask: Bits,
    pub outline: Bits,
    pub ring: Bits,
}

impl Seen {
    pub(super) fn of(image: &Image<'_>, mask: &Mask<'_>) -> Option<Self> {
        let region = Region::around(mask.box_xyxy)?;
        let (mut valid, mut bits) = ([0; CELLS], [0; CELLS]);
        for row in 0..CELLS {
            for column in 0..CELLS {
                let [x, y] = region.middle(column, row);
                if (0..image.width as i32).contains(&x) && (0..image.height as i32).contains(&y) {
                    valid[row] |= 1 << column;
                    bits[row] |= u64::from(mask.has([x, y], image.width)) << column;
                }
            }
        }
        let outside: Bits = std::array::from_fn(|y| valid[y] & !bits[y]);
        let outline = std::array::from_fn(|y| {
            let row = outside[y];
            let above = if y > 0 { outside[y - 1] } else { 0 };
            let below = if y + 1 < CELLS { outside[y + 1] } else { 0 };
            bits[y] & (row << 1 | row >> 1 | above | below)
        });
        let (near, far) = (dilated(&bits, 1), dilated(&bits, RING_CELLS));
        let ring = std::array::from_fn(|y| far[y] & !near[y] & valid[y]);
        Some(Seen { region, valid, mask: bits, outline, ring })
    }
}

/// Grey of each cell in sixteenths, row by row.
struct Greys([[i32; CELLS]; CELLS]);

impl Greys {
    fn of(image: &Image<'_>, seen: &Seen) -> Self {
        let mut greys = Greys([[0; CELLS]; CELLS]);
        for (row, (cells, valid)) in greys.0.iter_mut().zip(seen.valid).enumerate() {
            for column in (0..CELLS).filter(|column| valid >> column & 1 == 1) {
                cells[column] = seen.region.grey(image, column, row);
            }
        }
        greys
    }

    fn at(&self, column: usize, row: usize) -> i32 {
        self.0[row][column]
    }
}

/// Number, sum and sum of squares.
#[derive(Clone, Copy, Default)]
struct Sums {
    n: u32,
    sum: u32,
    squares: u64,
}

impl Sums {
    fn over(bits: &Bits, greys: &Greys) -> Self {
        let mut sums = Sums::default();
        for (row, greys) in bits.iter().zip(&greys.0) {
            for grey in (0..CELLS).filter(|column| row >> column & 1 == 1).map(|column| greys[column] as u32)
            {
                sums.n += 1;
                sums.sum += grey;
                sums.squares += u64::from(grey) * u64::from(grey);
            }
        }
        sums
    }

    /// In grey values.
    fn mean(&self) -> f32 {
        self.sum as f32 / self.n as f32 / GREY as f32
    }

    fn variance(&self) -> f32 {
        let n = u64::from(self.n);
        let sum = u64::from(self.sum);
        (n * self.squares - sum * sum) as f32 / (n * n) as f32 / (GREY * GREY) as f32
    }
}

/// What [`judge`] says of an object.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Judged {
    /// Edge, contrast, continuity, stability, likeness, mean: all 0 for no mask.
    pub scores: [f32; SCORES],
    /// Box around the largest connected part of the mask, pixels, its ends exclusive; zeros for no mask. Where the part ends inside
    /// of the mask's own box, its sides are as exact as a cell.
    pub core_xyxy: [i32; 4],
}

/// Judges an object and remembers it. `memory` is that of its track, `key` the track's: below 0, what is remembered is forgotten.
pub fn judge(
    config: &QualityConfig,
    image: &Image<'_>,
    mask: &Mask<'_>,
    motion: &Motion,
    key: i32,
    memory: &mut [i32; super::MEMORY_LEN],
) -> Judged {
    let mut memory = Memory(memory);
    memory.belong_to(key);
    let Some(seen) = Seen::of(image, mask) else { return Judged::default() };
    let cells = count(&seen.mask);
    if cells == 0 {
        return Judged { core_xyxy: mask.box_xyxy, ..Judged::default() };
    }
    let greys = Greys::of(image, &seen);
    let (inside, ring) = (Sums::over(&seen.mask, &greys), Sums::over(&seen.ring, &greys));
    let difference = if ring.n > 0 { ring.mean() - inside.mean() } else { 0.0 };
    let contrast = if ring.n > 0 {
        let noise = (inside.variance() + ring.variance()).max(LEAST_VARIANCE).sqrt();
        let ratio = difference.abs() / noise;
        ratio / (ratio + 1.0)
    } else {
        0.0
    };
    let [edge, continuity] = edges(&seen, &greys, difference);
    let is_new = memory.is_new();
    let stability = if is_new { 1.0 } else { stability(&seen, cells, motion, &memory) };
    let blocks = blocks(&seen, &greys);
    let likeness = if is_new { 1.0 } else { likeness(&blocks, memory.blocks()) };
    let values = [edge, contrast, continuity, stability, likeness];
    let counted = if is_new { 3 } else { values.len() };
    let (mut sum, mut weights) = (0.0, 0.0);
    for (value, weight) in values.iter().zip(config.weights()).take(counted) {
        sum += weight * value;
        weights += weight;
    }
    let mean = if weights > 0.0 { sum / weights } else { 0.0 };
    if is_new {
        *memory.blocks() = blocks;
    } else if mean >= config.least {
        for (known, new) in memory.blocks().iter_mut().zip(blocks) {
            *known = if *known < 0 || new < 0 { new } else { *known + (new - *known) / 4 };
        }
    }
    memory.set_mask(seen.region, &seen.mask, cells);
    Judged {
        scores: [edge, contrast, continuity, stability, likeness, mean],
        core_xyxy: core(&seen, mask.box_xyxy),
    }
}

/// Sharpness and continuity of the outline, where the surroundings are so much brighter than the object.
fn edges(seen: &Seen, greys: &Greys, difference: f32) -> [f32; 2] {
    let (mut cells, mut sharpness, mut continuous) = (0, 0, 0);
    for row in 0..CELLS {
        for column in (0..CELLS).filter(|column| seen.outline[row] >> column & 1 == 1) {
            let (mut sums, mut numbers) = ([0; 2], [0; 2]);
            for y in row.saturating_sub(REACH)..=(row + REACH).min(CELLS - 1) {
                for x in column.saturating_sub(REACH)..=(column + REACH).min(CELLS - 1) {
                    if seen.valid[y] >> x & 1 == 1 {
                        let side = usize::from(seen.mask[y] >> x & 1 == 1);
                        sums[side] += greys.at(x, y);
                        numbers[side] += 1;
                    }
                }
            }
            let [outside, inside] = [0, 1].map(|side| sums[side] as f32 / numbers[side] as f32 / GREY as f32);
            let step = if difference < 0.0 { inside - outside } else { outside - inside };
            cells += 1;
            if step > 0.0 {
                sharpness += (step / (step + HALF_SHARP) * PARTS) as u32;
                continuous += u32::from(step >= LEAST_STEP);
            }
        }
    }
    if cells == 0 {
        return [0.0; 2];
    }
    [sharpness as f32 / PARTS / cells as f32, continuous as f32 / cells as f32]
}

/// Overlap with the mask of the frame before.
fn stability(seen: &Seen, cells: u32, motion: &Motion, memory: &Memory<'_>) -> f32 {
    let before = memory.region();
    let mut common = 0;
    for row in 0..CELLS {
        for column in (0..CELLS).filter(|column| seen.mask[row] >> column & 1 == 1) {
            let [x, y] = motion.previous(seen.region.middle(column, row));
            common += u32::from(before.cell_at(x, y).is_some_and(|cell| memory.has(cell)));
        }
    }
    let scale = before.cell_px as f32 / seen.region.cell_px as f32;
    let union = cells as f32 + memory.cells() as f32 * (scale * scale) - common as f32;
    if union > 0.0 { (common as f32 / union).min(1.0) } else { 0.0 }
}

/// Mean grey of blocks of cells, −1 where there is no image.
fn blocks(seen: &Seen, greys: &Greys) -> [i32; BLOCKS * BLOCKS] {
    const SIDE: usize = CELLS / BLOCKS;
    std::array::from_fn(|block| {
        let (left, top) = (block % BLOCKS * SIDE, block / BLOCKS * SIDE);
        let (mut sum, mut n) = (0, 0);
        for y in top..top + SIDE {
            for x in (left..left + SIDE).filter(|x| seen.valid[y] >> x & 1 == 1) {
                sum += greys.at(x, y);
                n += 1;
            }
        }
        if n > 0 { sum / n } else { -1 }
    })
}

/// Normalised cross-correlation, at least 0, where both have an image.
fn likeness(a: &[i32; BLOCKS * BLOCKS], b: &[i32; BLOCKS * BLOCKS]) -> f32 {
    let (mut n, mut sum_a, mut sum_b, mut aa, mut bb, mut ab) = (0_i64, 0_i64, 0_i64, 0_i64, 0_i64, 0_i64);
    for (&a, &b) in a.iter().zip(b) {
        if a >= 0 && b >= 0 {
            let (a, b) = (i64::from(a), i64::from(b));
            n += 1;
            sum_a += a;
            sum_b += b;
            aa += a * a;
            bb += b * b;
            ab += a * b;
        }
    }
    let spread_a = (n * aa - sum_a * sum_a) as f32;
    let spread_b = (n * bb - sum_b * sum_b) as f32;
    if spread_a <= 0.0 || spread_b <= 0.0 {
        return 0.0;
    }
    ((n * ab - sum_a * sum_b) as f32 / (spread_a.sqrt() * spread_b.sqrt())).clamp(0.0, 1.0)
}

/// Box around the largest part of the mask.
fn core(seen: &Seen, box_xyxy: [i32; 4]) -> [i32; 4] {
    let bits = largest_part(&seen.mask);
    let columns = bits.iter().fold(0, |all, row| all | row);
    let first = bits.iter().position(|&row| row != 0).unwrap_or(0) as i32;
    let last = bits.iter().rposition(|&row| row != 0).unwrap_or(0) as i32;
    let ends =
        [columns.trailing_zeros() as i32, first, CELLS as i32 - columns.leading_zeros() as i32, last + 1];
    let Region { origin, cell_px } = seen.region;
    std::array::from_fn(|i| {
        // In which cell the mask's own box ends: if the part ends there too, so does its box.
        let (inner, after) = if i < 2 { (box_xyxy[i], 0) } else { (box_xyxy[i] - 1, 1) };
        let whole = (inner - origin[i % 2]) / cell_px + after;
        if ends[i] == whole { box_xyxy[i] } else { origin[i % 2] + ends[i] * cell_px }
    })
}
