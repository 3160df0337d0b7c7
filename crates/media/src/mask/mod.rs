//! Binary masks: COCO run-length coding and outlines.
//!
//! ```
//! use ultramotion_media::mask::{BinaryMask, CocoRle};
//!
//! let mask = BinaryMask::from_fn(7, 5, |x, y| (2..5).contains(&x) && (1..4).contains(&y));
//! let rle = CocoRle::encode(&mask);
//! assert_eq!(serde_json::to_string(&rle)?, r#"{"size":[5,7],"counts":";320009"}"#);
//! assert_eq!(rle.decode()?, mask);
//! assert_eq!(mask.outlines(), [vec![[2, 1], [5, 1], [5, 4], [2, 4]]]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod outline;
mod rle;

pub use rle::{CocoRle, RleError};

/// A set of pixels of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BinaryMask {
    width: usize,
    height: usize,
    bits: Vec<u8>,
}

impl BinaryMask {
    /// No pixel set.
    pub fn new(width: usize, height: usize) -> Self {
        Self { width, height, bits: vec![0; width * height] }
    }

    /// The pixels where `inside(x, y)`.
    pub fn from_fn(width: usize, height: usize, mut inside: impl FnMut(usize, usize) -> bool) -> Self {
        let mut mask = Self::new(width, height);
        for y in 0..height {
            for x in 0..width {
                mask.bits[y * width + x] = u8::from(inside(x, y));
            }
        }
        mask
    }

    /// From bytes `[height, width]`, set where they are not 0; `None` if their number is not `width * height`.
    pub fn from_bytes(width: usize, height: usize, mut bytes: Vec<u8>) -> Option<Self> {
        if bytes.len() != width.checked_mul(height)? {
            return None;
        }
        bytes.iter_mut().for_each(|byte| *byte = u8::from(*byte != 0));
        Some(Self { width, height, bits: bytes })
    }

    /// Pixels in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// One byte a pixel `[height, width]`, 1 where set and 0 elsewhere.
    pub fn bits(&self) -> &[u8] {
        &self.bits
    }

    /// Whether a pixel is set; false outside the image.
    pub fn get(&self, x: usize, y: usize) -> bool {
        x < self.width && y < self.height && self.bits[y * self.width + x] != 0
    }

    /// Sets or clears a pixel; nothing happens outside the image.
    pub fn set(&mut self, x: usize, y: usize, inside: bool) {
        if x < self.width && y < self.height {
            self.bits[y * self.width + x] = u8::from(inside);
        }
    }

    /// Number of set pixels.
    pub fn area_px(&self) -> usize {
        self.bits.iter().map(|&bit| usize::from(bit)).sum()
    }

    /// Left, top, right, bottom of the set pixels, right and bottom exclusive; `None` if none is set.
    pub fn box_xyxy(&self) -> Option<[usize; 4]> {
        let mut extent: Option<[usize; 4]> = None;
        for (y, row) in self.bits.chunks_exact(self.width.max(1)).enumerate() {
            let Some(first) = row.iter().position(|&bit| bit != 0) else { continue };
            let last = row.iter().rposition(|&bit| bit != 0).unwrap_or(first);
            let [x1, y1, x2, _] = extent.unwrap_or([first, y, last + 1, y + 1]);
            extent = Some([x1.min(first), y1, x2.max(last + 1), y + 1]);
        }
        extent
    }
}
