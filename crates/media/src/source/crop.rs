//! The part of a frame in which the ultrasound picture is: screens of scanners have text and rulers around it.

use std::fmt;
use std::str::FromStr;

use ultramotion_types::{Frame, FrameView};

/// Frames that are looked at for the part that moves.
pub const FRAMES_LOOKED_AT: usize = 16;
/// Side of the squares in which a frame is looked at, pixels.
const BLOCK_PX: usize = 8;
/// Change of a pixel that is no noise of a video, grey values.
const LEAST_CHANGE: u8 = 12;
/// Grey value of a pixel that is not black.
const LEAST_GREY: u8 = 16;
/// Pixels of a square that must be so, of a hundred: letters are thin.
const LEAST_PERCENT: usize = 25;
/// Smallest side of what is found, pixels.
const LEAST_SIDE_PX: usize = 32;

/// Which part of a frame is to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crop {
    /// What moves in the first frames.
    Auto,
    /// This rectangle.
    At(Rectangle),
}

/// A rectangle of pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rectangle {
    /// First column.
    pub left: usize,
    /// First row.
    pub top: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl fmt::Display for Rectangle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{},{}", self.left, self.top, self.width, self.height)
    }
}

impl FromStr for Crop {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Crop::Auto);
        }
        let numbers: Option<Vec<usize>> = text.split(',').map(|number| number.trim().parse().ok()).collect();
        match numbers.as_deref() {
            Some(&[left, top, width, height]) if width > 0 && height > 0 => {
                Ok(Crop::At(Rectangle { left, top, width, height }))
            }
            _ => Err("it must be auto, or LEFT,TOP,WIDTH,HEIGHT in pixels, as 120,80,640,480".into()),
        }
    }
}

impl Rectangle {
    /// Whether a frame of this size has all of it.
    pub fn is_in(&self, width: usize, height: usize) -> bool {
        self.left.checked_add(self.width).is_some_and(|right| right <= width)
            && self.top.checked_add(self.height).is_some_and(|bottom| bottom <= height)
    }

    /// Copies this part of a frame, which must have all of it, into memory that is used again.
    pub fn cut<'a>(&self, frame: &'a Frame, pixels: &'a mut Vec<u8>) -> FrameView<'a> {
        let channels = frame.pixel_format.channels();
        pixels.clear();
        pixels.reserve(self.width * self.height * channels);
        for row in frame.pixels.chunks_exact(frame.width * channels).skip(self.top).take(self.height) {
            pixels.extend_from_slice(&row[self.left * channels..][..self.width * channels]);
        }
        FrameView { width: self.width, height: self.height, pixels, ..frame.view() }
    }

    /// Leaves only this part of a frame, which must have all of it.
    pub(super) fn keep_of(&self, frame: &mut Frame) {
        let channels = frame.pixel_format.channels();
        let row_bytes = self.width * channels;
        for row in 0..self.height {
            let from = ((self.top + row) * frame.width + self.left) * channels;
            frame.pixels.copy_within(from..from + row_bytes, row * row_bytes);
        }
        frame.pixels.truncate(self.height * row_bytes);
        (frame.width, frame.height) = (self.width, self.height);
    }
}

/// Looks for the picture in frames of one size.
#[derive(Debug, Default)]
pub struct PictureFinder {
    size: Option<[usize; 2]>,
    /// Smallest and largest grey of each pixel so far.
    low: Vec<u8>,
    high: Vec<u8>,
    frames: usize,
}

impl PictureFinder {
    /// Takes a frame in; one of another size than the first is passed over.
    pub fn look_at(&mut self, frame: &Frame) {
        let size = *self.size.get_or_insert([frame.width, frame.height]);
        if size != [frame.width, frame.height] {
            return;
        }
        let channels = frame.pixel_format.channels();
        // Green is nearest to what is seen of a colour.
        let grey: Vec<u8> = frame.pixels.chunks_exact(channels).map(|pixel| pixel[channels / 2]).collect();
        if self.frames == 0 {
            (self.low, self.high) = (grey.clone(), grey);
        } else {
            self.low.iter_mut().zip(&grey).for_each(|(low, &grey)| *low = grey.min(*low));
            self.high.iter_mut().zip(&grey).for_each(|(high, &grey)| *high = grey.max(*high));
        }
        self.frames += 1;
    }

    /// The picture: the largest part that moves, or of a single frame, that is not black. `None` if there is none worth the name.
    pub fn found(&self) -> Option<Rectangle> {
        let [width, height] = self.size?;
        let counts = |at: usize| {
            if self.frames > 1 {
                self.high[at] - self.low[at] >= LEAST_CHANGE
            } else {
                self.high[at] >= LEAST_GREY
            }
        };
        let [columns, rows] = [width, height].map(|side| side.div_ceil(BLOCK_PX));
        let mut blocks: Vec<bool> = (0..columns * rows)
            .map(|block| {
                let (left, top) = (block % columns * BLOCK_PX, block / columns * BLOCK_PX);
                let (right, bottom) = ((left + BLOCK_PX).min(width), (top + BLOCK_PX).min(height));
                let pixels = (top..bottom).flat_map(|y| (left..right).map(move |x| y * width + x));
                let moving = pixels.filter(|&at| counts(at)).count();
                100 * moving >= LEAST_PERCENT * (right - left) * (bottom - top)
            })
            .collect();
        let largest = largest_part(&mut blocks, columns)?;
        let [left, top, right, bottom] = largest.map(|side| side * BLOCK_PX);
        let (right, bottom) = (right.min(width), bottom.min(height));
        let found = Rectangle { left, top, width: right - left, height: bottom - top };
        (found.width >= LEAST_SIDE_PX && found.height >= LEAST_SIDE_PX).then_some(found)
    }
}

/// Left, top, right and bottom (exclusive) of the connected part with the most blocks.
fn largest_part(blocks: &mut [bool], columns: usize) -> Option<[usize; 4]> {
    let rows = blocks.len() / columns;
    let mut best: Option<(usize, [usize; 4])> = None;
    let mut waiting = Vec::new();
    for first in 0..blocks.len() {
        if !std::mem::take(&mut blocks[first]) {
            continue;
        }
        waiting.push(first);
        let (mut count, mut around) = (0, [columns, rows, 0, 0]);
        while let Some(block) = waiting.pop() {
            let (x, y) = (block % columns, block / columns);
            count += 1;
            around = [around[0].min(x), around[1].min(y), around[2].max(x + 1), around[3].max(y + 1)];
            let beside = [
                (x > 0).then(|| block - 1),
                (x + 1 < columns).then_some(block + 1),
                (y > 0).then(|| block - columns),
                (y + 1 < rows).then_some(block + columns),
            ];
            waiting.extend(beside.into_iter().flatten().filter(|&next| std::mem::take(&mut blocks[next])));
        }
        if best.is_none_or(|(most, _)| count > most) {
            best = Some((count, around));
        }
    }
    best.map(|(_, around)| around)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A screen with a fan of speckle in the middle, text and a ruler beside it.
    fn screen(seed: u32) -> Frame {
        let (width, height) = (320, 240);
        let mut state = seed.wrapping_mul(2_654_435_761).max(1);
        let pixels = (0..width * height)
            .map(|at| {
                let (x, y) = (at % width, at / width);
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                let (dx, dy) = (x as f32 - 160.0, y as f32 - 20.0);
                if dy > 20.0 && dx.abs() < 0.5 * dy && dx.hypot(dy) < 200.0 {
                    (state % 160) as u8 + 40
                } else if (x < 60 && y < 16 && x % 4 == 0) || (x == 310 && y % 10 == 0) {
                    255
                } else {
                    0
                }
            })
            .collect();
        Frame::grey8(width, height, pixels)
    }

    #[test]
    fn the_fan_is_found_beside_text_and_rulers() {
        for frames in [1, 5] {
            let mut finder = PictureFinder::default();
            (1..=frames).for_each(|seed| finder.look_at(&screen(seed)));
            let found = finder.found().unwrap();
            let near = |a: usize, b: usize| a.abs_diff(b) <= 2 * BLOCK_PX;
            let right = found.left + found.width;
            assert!(near(found.left, 71) && near(right, 249) && near(found.top, 40), "{frames}: {found:?}");
            assert!(near(found.top + found.height, 220), "{frames}: {found:?}");
        }
        let mut nothing = PictureFinder::default();
        (0..3).for_each(|_| nothing.look_at(&Frame::grey8(64, 64, vec![90; 64 * 64])));
        assert_eq!(nothing.found(), None, "nothing moves");
        assert_eq!(PictureFinder::default().found(), None);
    }

    #[test]
    fn a_rectangle_is_cut_out() {
        let frame = Frame::rgb8(3, 2, (0..18).collect());
        let rectangle = Rectangle { left: 1, top: 1, width: 2, height: 1 };
        let mut pixels = Vec::new();
        let cut = rectangle.cut(&frame, &mut pixels);
        assert_eq!((cut.width, cut.height, cut.pixels), (2, 1, &[12, 13, 14, 15, 16, 17][..]));
        assert!(rectangle.is_in(3, 2) && !rectangle.is_in(2, 2));
        assert!(!Rectangle { left: usize::MAX, ..rectangle }.is_in(3, 2));
    }

    #[test]
    fn a_crop_is_said_in_words() {
        assert_eq!("auto".parse(), Ok(Crop::Auto));
        let at = Rectangle { left: 1, top: 2, width: 3, height: 4 };
        assert_eq!("1, 2,3,4".parse(), Ok(Crop::At(at)));
        assert_eq!(at.to_string(), "1,2,3,4");
        for wrong in ["", "1,2,3", "1,2,0,4", "-1,2,3,4", "everything"] {
            assert!(wrong.parse::<Crop>().is_err(), "{wrong}");
        }
    }
}
