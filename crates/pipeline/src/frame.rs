//! A frame as it enters.

use thiserror::Error;

/// Layout of a frame's pixels, 8 bits a sample, rows without padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PixelFormat {
    /// One sample a pixel.
    Grey8,
    /// Red, green, blue.
    Rgb8,
}

impl PixelFormat {
    /// Samples of a pixel.
    pub fn channels(self) -> usize {
        match self {
            PixelFormat::Grey8 => 1,
            PixelFormat::Rgb8 => 3,
        }
    }
}

/// One frame of a stream, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Number in the source.
    pub frame_id: u64,
    /// The source's own time in seconds; never re-stamped.
    pub timestamp_s: f64,
    /// Where it comes from.
    pub source: &'a str,
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Layout.
    pub format: PixelFormat,
    /// `height * width * channels` samples.
    pub pixels: &'a [u8],
}

/// A frame that cannot be processed. The stream goes on.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FrameError {
    /// No pixels, or more than a frame may have.
    #[error("the frame is {width}x{height} pixels; frames of 1x1 to {most}x{most} are taken")]
    Size {
        /// Width.
        width: usize,
        /// Height.
        height: usize,
        /// Longest side.
        most: usize,
    },
    /// Fewer or more bytes than its size says.
    #[error("the frame is {width}x{height} pixels of {channels} samples but holds {bytes} bytes")]
    Bytes {
        /// Width.
        width: usize,
        /// Height.
        height: usize,
        /// Samples of a pixel.
        channels: usize,
        /// Bytes.
        bytes: usize,
    },
}

/// Longest side of a frame, in pixels: more is taken for a mistake.
pub const MAX_SIDE_PX: usize = 8192;

impl Frame<'_> {
    /// Checks size and number of bytes.
    pub fn check(&self) -> Result<(), FrameError> {
        let (width, height, channels) = (self.width, self.height, self.format.channels());
        if !(1..=MAX_SIDE_PX).contains(&width) || !(1..=MAX_SIDE_PX).contains(&height) {
            return Err(FrameError::Size { width, height, most: MAX_SIDE_PX });
        }
        if self.pixels.len() != width * height * channels {
            return Err(FrameError::Bytes { width, height, channels, bytes: self.pixels.len() });
        }
        Ok(())
    }
}
