//! Sizes of MobileSAM.

use thiserror::Error;

/// Channels of the image embedding and of every token.
pub const EMBED_DIM: usize = 256;

/// Pixels of the input per pixel of the image embedding.
pub const EMBEDDING_STRIDE: usize = 16;

/// Mean of the training images, per channel, on the 0 to 255 scale (Kirillov et al. 2023, official configuration).
pub const PIXEL_MEAN: [f32; 3] = [123.675, 116.28, 103.53];

/// Standard deviation of the training images, per channel, on the 0 to 255 scale.
pub const PIXEL_STD: [f32; 3] = [58.395, 57.12, 57.375];

/// What differs between builds of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MobileSamConfig {
    input_size: usize,
}

/// A configuration that cannot be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("MobileSAM takes a square input whose side is a multiple of 64 from 64 to 2048 pixels, not {0}")]
pub struct BadInputSize(pub usize);

impl MobileSamConfig {
    /// A square input of `input_size` pixels: a multiple of 64; 1024 for the official checkpoint.
    pub fn new(input_size: usize) -> Result<Self, BadInputSize> {
        let valid = input_size.is_multiple_of(64) && (64..=2048).contains(&input_size);
        if valid { Ok(MobileSamConfig { input_size }) } else { Err(BadInputSize(input_size)) }
    }

    /// Side of the input in pixels.
    pub fn input_size(&self) -> usize {
        self.input_size
    }

    /// Side of the image embedding in its pixels.
    pub fn embedding_size(&self) -> usize {
        self.input_size / EMBEDDING_STRIDE
    }

    /// Side of the low-resolution masks, for mask prompts and for the decoder's output.
    pub fn low_res_size(&self) -> usize {
        self.embedding_size() * 4
    }

    /// Height and width that a frame is resized to: its longest side fills the input (official rounding).
    pub fn resized_hw(&self, height: usize, width: usize) -> [usize; 2] {
        let scale = self.input_size as f64 / height.max(width) as f64;
        [height, width].map(|side| ((side as f64 * scale + 0.5) as usize).clamp(1, self.input_size))
    }
}

impl Default for MobileSamConfig {
    fn default() -> Self {
        MobileSamConfig { input_size: 1024 }
    }
}
