//! A frame on its way from a source to the pipeline.

use thiserror::Error;

use crate::pose::{COMPUTED_PLANE, Matrix, NamedTransform};

/// Longest side of a frame, in pixels. More is taken for a mistake or a broken file.
pub const MAX_SIDE_PX: usize = 8192;

/// Layout of a frame's pixels: 8 bits a sample, rows without padding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PixelFormat {
    /// One byte a pixel, `[height, width]`.
    #[default]
    Grey8,
    /// Three bytes a pixel, red, green, blue, `[height, width, 3]`.
    Rgb8,
}

impl PixelFormat {
    /// Bytes of a pixel.
    pub fn channels(self) -> usize {
        match self {
            Self::Grey8 => 1,
            Self::Rgb8 => 3,
        }
    }
}

/// What the recorder says about an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ImageStatus {
    /// The source does not say.
    #[default]
    Unknown,
    /// The source says it is valid.
    Ok,
}

/// Where a frame's time is from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TimeSource {
    /// From its source.
    #[default]
    Source,
    /// The source gives none: it is the time of its arrival.
    Arrival,
}

/// One frame of a source with its pixels and all that the source says about it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Frame {
    /// Index in the source, from 0; skipped frames keep their numbers.
    pub frame_id: u64,
    /// The source's own time, seconds. A source without times counts at its nominal rate.
    pub timestamp_s: f64,
    /// Where that time is from.
    pub time_source: TimeSource,
    /// The file, or the URL, that it comes from.
    pub source: String,
    /// Pixels in a row.
    pub width: usize,
    /// Number of rows.
    pub height: usize,
    /// Layout of `pixels`.
    pub pixel_format: PixelFormat,
    /// Pixels, row-major, no padding: `height * width * channels` bytes.
    pub pixels: Vec<u8>,
    /// Poses recorded with the frame, in the source's order.
    pub transforms: Vec<NamedTransform>,
    /// Width and height of a pixel, millimetres, as the source says. (PLUS writes 1 x 1 when it does not know.)
    pub spacing_mm: Option<[f64; 2]>,
    /// What the recorder says about the image.
    pub image_status: ImageStatus,
    /// PLUS's orientation code of the pixels, such as "MF" (first axis to the marked side, second axis far).
    pub orientation: Option<String>,
}

impl Frame {
    /// A grey frame without anything else; `pixels` is `[height, width]`.
    pub fn grey8(width: usize, height: usize, pixels: Vec<u8>) -> Self {
        Self { width, height, pixel_format: PixelFormat::Grey8, pixels, ..Self::default() }
    }

    /// A colour frame without anything else; `pixels` is `[height, width, 3]`.
    pub fn rgb8(width: usize, height: usize, pixels: Vec<u8>) -> Self {
        Self { width, height, pixel_format: PixelFormat::Rgb8, pixels, ..Self::default() }
    }

    /// Its spacing, if that is [known](known_spacing_mm).
    pub fn known_spacing_mm(&self) -> Option<[f64; 2]> {
        self.spacing_mm.and_then(known_spacing_mm)
    }

    /// The part that the pipeline takes, with its plane where a recording has it ([`COMPUTED_PLANE`]).
    pub fn view(&self) -> FrameView<'_> {
        FrameView {
            frame_id: self.frame_id,
            timestamp_s: self.timestamp_s,
            time_source: self.time_source,
            source: &self.source,
            width: self.width,
            height: self.height,
            pixel_format: self.pixel_format,
            pixels: &self.pixels,
            tracker_from_pixels: self
                .transforms
                .iter()
                .find(|transform| transform.valid && transform.name == COMPUTED_PLANE)
                .map(|transform| transform.matrix),
        }
    }
}

/// Width and height of a pixel, millimetres, where its source knows them. 1 x 1 is what PLUS writes when it does not.
pub fn known_spacing_mm(spacing_mm: [f64; 2]) -> Option<[f64; 2]> {
    (spacing_mm != [1.0; 2] && spacing_mm.iter().all(|mm| mm.is_normal() && *mm > 0.0)).then_some(spacing_mm)
}

/// A frame as the pipeline takes it: borrowed, wherever its pixels are. `P` is what has them: a slice of the host's memory,
/// or what a device's owner names memory on it by.
#[derive(Clone, Copy, Debug)]
pub struct FrameView<'a, P = &'a [u8]> {
    /// Index in the source.
    pub frame_id: u64,
    /// The source's own time in seconds; never re-stamped.
    pub timestamp_s: f64,
    /// Where that time is from.
    pub time_source: TimeSource,
    /// Where it comes from.
    pub source: &'a str,
    /// Pixels in a row.
    pub width: usize,
    /// Number of rows.
    pub height: usize,
    /// Layout of `pixels`.
    pub pixel_format: PixelFormat,
    /// `height * width * channels` samples.
    pub pixels: P,
    /// Where the middle of pixel `(x, y)` lies in a frame of reference in which the probe moves, `tracker_from_pixels * (x, y, 0)`,
    /// millimetres; `None` if nobody knows.
    pub tracker_from_pixels: Option<Matrix>,
}

impl<'a, P> FrameView<'a, P> {
    /// Size and channels.
    pub fn format(&self) -> FrameFormat {
        FrameFormat { height: self.height, width: self.width, channels: self.pixel_format.channels() }
    }

    /// The same frame with its pixels named by something else.
    pub fn with_pixels<Q>(&self, pixels: Q) -> FrameView<'a, Q> {
        FrameView {
            frame_id: self.frame_id,
            timestamp_s: self.timestamp_s,
            time_source: self.time_source,
            source: self.source,
            width: self.width,
            height: self.height,
            pixel_format: self.pixel_format,
            pixels,
            tracker_from_pixels: self.tracker_from_pixels,
        }
    }

    /// Checks the size, and that so many bytes of pixels are what it needs.
    pub fn check_bytes(&self, bytes: usize) -> Result<(), FrameError> {
        let FrameFormat { height, width, channels } = self.format();
        if !(1..=MAX_SIDE_PX).contains(&width) || !(1..=MAX_SIDE_PX).contains(&height) {
            return Err(FrameError::Size { width, height });
        }
        if bytes != width * height * channels {
            return Err(FrameError::Bytes { width, height, channels, bytes });
        }
        Ok(())
    }
}

impl FrameView<'_> {
    /// Checks size and number of bytes.
    pub fn check(&self) -> Result<(), FrameError> {
        self.check_bytes(self.pixels.len())
    }
}

/// Size and channels of a frame: programs are compiled for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrameFormat {
    /// Number of rows.
    pub height: usize,
    /// Pixels in a row.
    pub width: usize,
    /// Samples of a pixel.
    pub channels: usize,
}

impl FrameFormat {
    /// Bytes of a mask of this size, one bit a pixel, rows padded to whole bytes.
    pub fn mask_bytes(self) -> usize {
        self.height * self.width.div_ceil(8)
    }
}

/// A frame that cannot be processed. The stream goes on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// No pixels, or more than a frame may have.
    #[error("the frame is {width}x{height} pixels; frames of 1x1 to {MAX_SIDE_PX}x{MAX_SIDE_PX} are taken")]
    Size {
        /// Width.
        width: usize,
        /// Height.
        height: usize,
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
    /// There is no memory for what a frame of this size needs.
    #[error(
        "there is no memory for a frame of {width}x{height} pixels ({bytes} bytes more); smaller frames, --max-objects or a \
         smaller model need less"
    )]
    Memory {
        /// Width.
        width: usize,
        /// Height.
        height: usize,
        /// Bytes that were asked for in vain.
        bytes: usize,
    },
    /// The first frames of a size in a live stream: others go on meanwhile.
    #[error(
        "frames of {width}x{height} pixels are new, and what computes them is still being compiled; send the next one"
    )]
    Compiling {
        /// Width.
        width: usize,
        /// Height.
        height: usize,
    },
    /// Pixels on a GPU that the pipeline does not compute on.
    #[error(
        "the frame's pixels are on GPU {gpu}, but the pipeline computes on {computes_on}; copy them there, or to the host's \
         memory"
    )]
    Elsewhere {
        /// Number of the GPU with the pixels.
        gpu: usize,
        /// What computes.
        computes_on: String,
    },
    /// Pixels on a GPU where every stage takes its input from the host.
    #[error(
        "the frame's pixels are on a GPU, but with residency = host every stage is fed from the host's memory; use residency = \
         device, or copy the pixels to the host's memory"
    )]
    NotOnHost,
}
