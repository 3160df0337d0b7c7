//! What is remembered of a track from frame to frame.

use super::grid::{Bits, CELLS, Region};

/// Blocks of the grid along each axis in what a track looks like.
pub(super) const BLOCKS: usize = 16;
const BITS_AT: usize = 6;
const BLOCKS_AT: usize = BITS_AT + 2 * CELLS;
/// Integers of a track's memory: whose it is, the frames that are in it, the region (3) and the cells (1) of its last mask, that
/// mask's bits (128), and what it looks like (256).
pub const MEMORY_LEN: usize = BLOCKS_AT + BLOCKS * BLOCKS;

/// A track's memory: a row of the table.
#[derive(Debug)]
pub(super) struct Memory<'m>(pub &'m mut [i32; MEMORY_LEN]);

impl Memory<'_> {
    /// Makes it the memory of this key: what is remembered for another is forgotten. A key below 0 forgets at all events.
    pub(super) fn belong_to(&mut self, key: i32) {
        if key < 0 || self.0[0] != key {
            self.0.fill(0);
            self.0[0] = key.wrapping_abs();
        }
    }

    pub(super) fn is_new(&self) -> bool {
        self.0[1] == 0
    }

    pub(super) fn region(&self) -> Region {
        Region { origin: [self.0[2], self.0[3]], cell_px: self.0[4] }
    }

    /// Cells of the last mask.
    pub(super) fn cells(&self) -> u32 {
        self.0[5].unsigned_abs()
    }

    pub(super) fn has(&self, [column, row]: [usize; 2]) -> bool {
        self.0[BITS_AT + 2 * row + column / 32] as u32 >> (column % 32) & 1 == 1
    }

    /// Grey of each block in sixteenths, −1 where there is no image.
    pub(super) fn blocks(&mut self) -> &mut [i32; BLOCKS * BLOCKS] {
        (&mut self.0[BLOCKS_AT..]).try_into().expect("the blocks are its end")
    }

    pub(super) fn set_mask(&mut self, region: Region, bits: &Bits, cells: u32) {
        self.0[1] = self.0[1].saturating_add(1);
        [self.0[2], self.0[3]] = region.origin;
        (self.0[4], self.0[5]) = (region.cell_px, cells as i32);
        for (words, row) in self.0[BITS_AT..BLOCKS_AT].chunks_exact_mut(2).zip(bits) {
            (words[0], words[1]) = (*row as i32, (row >> 32) as i32);
        }
    }
}

/// Where the pixels of a frame were in the one before: `x' = xx x + xy y + x0`, `y' = yx x + yy y + y0`, pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Motion {
    /// `[xx, xy, x0, yx, yy, y0]`.
    pub previous_from_current: [f32; 6],
}

impl Motion {
    /// The plane has not moved, or nobody knows.
    pub const NONE: Motion = Motion { previous_from_current: [1.0, 0.0, 0.0, 0.0, 1.0, 0.0] };

    pub(super) fn previous(&self, [x, y]: [i32; 2]) -> [f32; 2] {
        let [xx, xy, x0, yx, yy, y0] = self.previous_from_current;
        let (x, y) = (x as f32, y as f32);
        [xx * x + xy * y + x0, yx * x + yy * y + y0]
    }
}
