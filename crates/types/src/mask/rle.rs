//! COCO's compressed run-length coding of masks.
//!
//! Runs of unset and set pixels alternate, unset first, down the columns from left to right. Each length, from the
//! fourth on less the length two before it, is written in groups of five bits, the lowest first, with a sixth bit
//! that says whether another group follows, plus 48 to make it printable (`rleToString` of the COCO API, pycocotools).

use serde::{Deserialize, Serialize};

use super::{BitMask, MaskView};
use crate::frame::MAX_SIDE_PX;

/// A mask as `results.jsonl` holds it: `{"size":[height,width],"counts":"…"}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CocoRle {
    /// Height and width, pixels.
    pub size: [u32; 2],
    /// The coded run lengths.
    pub counts: String,
}

/// Why a text is no mask.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RleError {
    /// A size that no frame has.
    #[error("a mask of {width}x{height} pixels cannot be decoded: sides up to {MAX_SIDE_PX} are")]
    Size {
        /// Claimed width, pixels.
        width: u32,
        /// Claimed height, pixels.
        height: u32,
    },
    /// A character outside the code, or one that ends in the middle of a number.
    #[error("the mask's counts are damaged at character {0}")]
    Character(usize),
    /// The runs do not add up to the number of pixels.
    #[error("the mask's runs cover {covered} pixels, its size is {expected}")]
    Length {
        /// Sum of the runs up to where it was clear that they do not fit.
        covered: u64,
        /// Width times height.
        expected: u64,
    },
}

impl CocoRle {
    /// Encodes a mask.
    pub fn encode(mask: MaskView<'_>) -> Self {
        let (width, height) = (mask.width(), mask.height());
        let mut rle = CocoRle { size: [height as u32, width as u32], counts: String::new() };
        let mut runs =
            RunWriter { counts: &mut rle.counts, inside: false, length: 0, before: [0; 2], written: 0 };
        if let Some([x1, y1, x2, y2]) = mask.box_xyxy() {
            // Only the box is walked; all around it is unset.
            let row_bytes = width.div_ceil(8);
            runs.extend(false, x1 * height);
            for x in x1..x2 {
                runs.extend(false, y1);
                let column = mask.bits()[y1 * row_bytes + x / 8..].iter().step_by(row_bytes);
                column.take(y2 - y1).for_each(|byte| runs.extend(byte >> (x % 8) & 1 == 1, 1));
                runs.extend(false, height - y2);
            }
            runs.extend(false, (width - x2) * height);
        } else {
            runs.extend(false, width * height);
        }
        runs.finish();
        rle
    }

    /// Pixels inside, counted without a mask being made.
    pub fn area_px(&self) -> Result<u64, RleError> {
        self.check_size()?;
        let mut area = 0;
        for (index, run) in self.runs().enumerate() {
            area += run? * (index as u64 % 2);
        }
        Ok(area)
    }

    /// Decodes to a mask. No more is allocated than a bit for each pixel, and nothing where the runs do not fit the size.
    pub fn decode(&self) -> Result<BitMask, RleError> {
        let [height, width] = self.size;
        self.check_size()?;
        // Checked before a pixel is allocated.
        self.runs().try_for_each(|run| run.map(drop))?;
        let mut mask = BitMask::new(width as usize, height as usize);
        let (mut x, mut y, mut inside) = (0usize, 0usize, false);
        for run in self.runs() {
            let mut left = run? as usize;
            while left > 0 {
                let step = left.min(height as usize - y);
                if inside {
                    (y..y + step).for_each(|y| mask.set(x, y, true));
                }
                y += step;
                left -= step;
                if y == height as usize {
                    (x, y) = (x + 1, 0);
                }
            }
            inside = !inside;
        }
        Ok(mask)
    }

    fn check_size(&self) -> Result<(), RleError> {
        let [height, width] = self.size;
        if width as usize > MAX_SIDE_PX || height as usize > MAX_SIDE_PX {
            return Err(RleError::Size { width, height });
        }
        Ok(())
    }

    /// The run lengths, unset first, up to the first that is wrong.
    fn runs(&self) -> Runs<'_> {
        let [height, width] = self.size;
        Runs {
            counts: self.counts.as_bytes(),
            at: 0,
            before: [0; 2],
            given: 0,
            covered: 0,
            expected: u64::from(width) * u64::from(height),
        }
    }
}

/// Run lengths as they are read: none is kept, however many a text claims.
struct Runs<'a> {
    counts: &'a [u8],
    /// The next character.
    at: usize,
    /// The run before the last one, and the last one.
    before: [u64; 2],
    given: usize,
    covered: u64,
    expected: u64,
}

impl Runs<'_> {
    fn run(&mut self) -> Result<Option<u64>, RleError> {
        let (mut number, mut shift) = (0i64, 0);
        while let Some(byte) = self.counts.get(self.at) {
            let wrong = RleError::Character(self.at);
            let Some(group) = byte.checked_sub(48).filter(|group| *group < 64 && shift <= 40) else {
                return Err(wrong);
            };
            self.at += 1;
            number |= i64::from(group & 0x1F) << shift;
            shift += 5;
            if group & 0x20 != 0 {
                continue;
            }
            if group & 0x10 != 0 {
                number |= -1 << shift;
            }
            if self.given > 2 {
                number += self.before[0] as i64;
            }
            let run = u64::try_from(number).map_err(|_| wrong)?;
            self.covered += run;
            if self.covered > self.expected {
                return Err(self.length());
            }
            self.before = [self.before[1], run];
            self.given += 1;
            return Ok(Some(run));
        }
        match (shift, self.covered == self.expected) {
            (0, true) => Ok(None),
            (0, false) => Err(self.length()),
            _ => Err(RleError::Character(self.counts.len())),
        }
    }

    fn length(&self) -> RleError {
        RleError::Length { covered: self.covered, expected: self.expected }
    }
}

impl Iterator for Runs<'_> {
    type Item = Result<u64, RleError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.run().transpose()
    }
}

struct RunWriter<'a> {
    counts: &'a mut String,
    /// What the current run is of, and its length so far.
    inside: bool,
    length: i64,
    /// The run before the last one, and the last one.
    before: [i64; 2],
    written: usize,
}

impl RunWriter<'_> {
    fn extend(&mut self, inside: bool, by: usize) {
        if by == 0 {
            return;
        }
        if inside != self.inside {
            self.push();
            self.inside = inside;
        }
        self.length += by as i64;
    }

    fn finish(&mut self) {
        if self.length > 0 || self.written == 0 {
            self.push();
        }
    }

    fn push(&mut self) {
        let length = std::mem::take(&mut self.length);
        let mut rest = if self.written > 2 { length - self.before[0] } else { length };
        loop {
            let group = (rest & 0x1F) as u8;
            rest >>= 5;
            let more = if group & 0x10 != 0 { rest != -1 } else { rest != 0 };
            self.counts.push(char::from(48 + group + if more { 0x20 } else { 0 }));
            if !more {
                break;
            }
        }
        self.before = [self.before[1], length];
        self.written += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Written by pycocotools 2.0.
    #[test]
    fn coding_is_that_of_pycocotools() {
        let disk = "kRS3k0P>:F:H6J6J6K4K6K4L4L4M2M4L4M2M4M2N2M4M2N2N2M4M2N2N2N2N2N2N2O0O2N2N2N2O0O2N2N2O0O2N2O0O2O0O2N2O0O2O0O2O0O2O000O2O0O2O000O2O000O2O000O2O0000000O2O0000000O2O0000000000000000000000000000000000000000000000000001N100000001N100000001N10001N10001N10001N101N10001N101N101N101N2N101N101N2N101N2N2N101N2N2N2N101N2N2N2N2N2N2N3L3N2N2N3L3N2N3L3N3L4L3N3L4L4L5J5L5J6J6J8F:FZPe3";
        let ring = "Te09a14M2N2N2N2N2O0O2O0O2O0O2O000O2O000O2O000000000O2O000000_OZOLf02^OLb03@L`03BL>4BL>3DL<4DL=3CL>5@L`04@L`05^OLb05\\OLd06XOLi0b010001N10001N101N101N101N2N2N2N2N3LRU1";
        let cases: [(BitMask, &str); 7] = [
            (BitMask::new(6, 4), "h0"),
            (BitMask::from_fn(6, 4, |_, _| true), "0h0"),
            (BitMask::from_fn(7, 5, |x, y| (2..5).contains(&x) && (1..4).contains(&y)), ";320009"),
            (BitMask::from_fn(1, 1, |_, _| true), "01"),
            (
                BitMask::from_fn(640, 480, |x, y| (x as i32 - 300).pow(2) + (y as i32 - 200).pow(2) < 8100),
                disk,
            ),
            (
                BitMask::from_fn(90, 60, |x, y| {
                    let (x, y) = (x as i32, y as i32);
                    (x - 40).pow(2) / 3 + (y - 20).pow(2) < 300 && (x - 45).pow(2) + (y - 22).pow(2) >= 40
                }),
                ring,
            ),
            (BitMask::default(), "0"),
        ];
        for (mask, counts) in cases {
            let rle = CocoRle::encode(mask.view());
            assert_eq!(rle.counts, counts);
            assert_eq!(rle.size, [mask.view().height() as u32, mask.view().width() as u32]);
            assert_eq!(rle.decode().unwrap(), mask);
        }
    }

    #[test]
    fn damaged_codes_are_refused() {
        let decode = |size, counts: &str| CocoRle { size, counts: counts.to_owned() }.decode().unwrap_err();
        assert_eq!(decode([4, 6], "h"), RleError::Character(1));
        assert_eq!(decode([4, 6], "h0 "), RleError::Character(2));
        assert_eq!(decode([4, 6], "ö"), RleError::Character(0));
        assert_eq!(decode([4, 6], "1"), RleError::Length { covered: 1, expected: 24 });
        assert_eq!(decode([4, 6], "hhh0"), RleError::Length { covered: 25368, expected: 24 });
        assert_eq!(decode([4, 6], "N"), RleError::Character(0));
        assert_eq!(decode([4, 6], &"o".repeat(40)), RleError::Character(9));
        let huge = decode([u32::MAX, u32::MAX], "0");
        assert_eq!(huge, RleError::Size { width: u32::MAX, height: u32::MAX });
    }

    proptest! {
        #[test]
        fn masks_survive(width in 1usize..40, height in 1usize..40, density in 0u8..=8, noise in any::<u64>()) {
            let mut state = noise;
            let mask = BitMask::from_fn(width, height, |_, _| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 61) as u8 >= density
            });
            let rle = CocoRle::encode(mask.view());
            prop_assert_eq!(rle.area_px(), Ok(mask.view().area_px() as u64));
            prop_assert_eq!(rle.decode().unwrap(), mask);
        }

        #[test]
        fn any_text_is_decoded_or_refused(height in 0u32..50, width in 0u32..50, counts in "[ -~]{0,30}") {
            if let Ok(mask) = (CocoRle { size: [height, width], counts }).decode() {
                prop_assert_eq!(CocoRle::encode(mask.view()).decode().unwrap(), mask);
            }
        }
    }
}
