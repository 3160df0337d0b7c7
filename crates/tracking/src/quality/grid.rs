//! The grid on which an object is looked at.

/// Cells of the grid along each axis: a row of them is a word of bits.
pub const CELLS: usize = 64;
/// Cells that the object's longer side has at most: the rest is what lies around it.
const OBJECT_CELLS: i32 = 48;
/// Pixels of a cell that are looked at, along each axis, at most.
const MAX_SAMPLES: i32 = 3;
/// How far the ring around an object goes, in cells.
pub const RING_CELLS: u32 = 6;
/// No box of a frame ends beyond.
const FARTHEST_PX: i32 = 1 << 20;
/// Grey values are counted in sixteenths.
pub(super) const GREY: i32 = 16;

/// Bits of a grid, row by row; bit 0 is the leftmost cell.
pub(super) type Bits = [u64; CELLS];

/// A frame's pixels.
#[derive(Clone, Copy, Debug)]
pub struct Image<'i> {
    /// `[height, width, channels]`: grey, or red, green, blue.
    pub pixels: &'i [u8],
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// 1 or 3.
    pub channels: usize,
}

impl Image<'_> {
    fn grey(&self, x: i32, y: i32) -> i32 {
        let clamp = |v: i32, side: usize| v.clamp(0, side as i32 - 1) as usize;
        let at = (clamp(y, self.height) * self.width + clamp(x, self.width)) * self.channels;
        match self.pixels[at..at + self.channels] {
            [red, green, blue] => {
                (77 * i32::from(red) + 150 * i32::from(green) + 29 * i32::from(blue) + 128) >> 8
            }
            _ => self.pixels[at].into(),
        }
    }
}

/// Where a grid lies in a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// Left top corner, pixels of the frame; it may lie outside of it.
    pub origin: [i32; 2],
    /// Side of a cell, pixels; 0 for no region.
    pub cell_px: i32,
}

impl Region {
    /// Around a box in pixels, its ends exclusive. An empty box has no region.
    pub fn around([left, top, right, bottom]: [i32; 4]) -> Option<Self> {
        let possible = 0..=FARTHEST_PX;
        if ![left, top, right, bottom].iter().all(|side| possible.contains(side))
            || left >= right
            || top >= bottom
        {
            return None;
        }
        let (width, height) = (right - left, bottom - top);
        let cell_px = (width.max(height) + OBJECT_CELLS - 1) / OBJECT_CELLS;
        let half = CELLS as i32 / 2 * cell_px;
        Some(Region { origin: [left + width / 2 - half, top + height / 2 - half], cell_px })
    }

    /// The pixel in the middle of a cell.
    pub(super) fn middle(&self, column: usize, row: usize) -> [i32; 2] {
        let [x, y] = self.origin;
        let half = self.cell_px / 2;
        [x + column as i32 * self.cell_px + half, y + row as i32 * self.cell_px + half]
    }

    /// The cell with a pixel in it, if the grid has one.
    pub(super) fn cell_at(&self, x: f32, y: f32) -> Option<[usize; 2]> {
        let cell = self.cell_px as f32;
        let place = |v: f32, origin: i32| ((v - origin as f32) / cell).floor();
        let [column, row] = [place(x, self.origin[0]), place(y, self.origin[1])];
        let inside = |v: f32| v >= 0.0 && v < CELLS as f32;
        (inside(column) && inside(row)).then_some([column as usize, row as usize])
    }

    /// Mean grey of a cell, in sixteenths.
    pub(super) fn grey(&self, image: &Image<'_>, column: usize, row: usize) -> i32 {
        let left = self.origin[0] + column as i32 * self.cell_px;
        let top = self.origin[1] + row as i32 * self.cell_px;
        let samples = self.cell_px.min(MAX_SAMPLES);
        let offset = |i: i32| (2 * i + 1) * self.cell_px / (2 * samples);
        let mut sum = 0;
        for j in 0..samples {
            for i in 0..samples {
                sum += image.grey(left + offset(i), top + offset(j));
            }
        }
        (GREY * sum + samples * samples / 2) / (samples * samples)
    }
}

/// All cells within so many of one that is set, along both axes.
pub(super) fn dilated(bits: &Bits, by: u32) -> Bits {
    let along = |row: u64| (1..=by).fold(row, |all, k| all | row << k | row >> k);
    let rows = bits.map(along);
    let by = by as usize;
    std::array::from_fn(|y| {
        rows[y.saturating_sub(by)..=(y + by).min(CELLS - 1)].iter().fold(0, |all, row| all | row)
    })
}

/// Cells that are set.
pub(super) fn count(bits: &Bits) -> u32 {
    bits.iter().map(|row| row.count_ones()).sum()
}

/// The largest connected part (by sides), looking at the first [`MAX_PARTS`] from the top.
pub(super) fn largest_part(bits: &Bits) -> Bits {
    let (mut rest, mut best, mut best_count) = (*bits, [0; CELLS], 0);
    for _ in 0..MAX_PARTS {
        let Some(first) = rest.iter().position(|&row| row != 0) else { break };
        let mut part = [0; CELLS];
        part[first] = rest[first] & rest[first].wrapping_neg();
        loop {
            let mut grown = part;
            for y in 0..CELLS {
                let row = part[y];
                let above = if y > 0 { part[y - 1] } else { 0 };
                let below = if y + 1 < CELLS { part[y + 1] } else { 0 };
                grown[y] = (row | row << 1 | row >> 1 | above | below) & rest[y];
            }
            if grown == part {
                break;
            }
            part = grown;
        }
        let cells = count(&part);
        if cells > best_count {
            (best, best_count) = (part, cells);
        }
        rest.iter_mut().zip(part).for_each(|(row, part)| *row &= !part);
    }
    best
}

/// Connected parts of a mask that are told apart.
pub(super) const MAX_PARTS: usize = 16;
