//! A frame as it comes from a file.

/// Longest side of a frame that is read, in pixels. More is taken for a broken file.
pub const MAX_SIDE_PX: usize = 8192;

/// How [`MediaFrame::pixels`] is laid out.
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
    /// The file does not say.
    #[default]
    Unknown,
    /// The file says it is valid.
    Ok,
}

/// A pose that came with a frame.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTransform {
    /// Its name in the file without the ending "Transform", such as "ProbeToTracker", which maps probe coordinates
    /// to the tracker's (`tracker_from_probe`).
    pub name: String,
    /// Row-major, lengths in millimetres.
    pub matrix: [[f64; 4]; 4],
    /// False when the tracker had lost the tool; the matrix then means nothing.
    pub valid: bool,
}

/// One frame of a source, 8 bits a channel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MediaFrame {
    /// Index in the source, from 0; skipped frames keep their numbers.
    pub frame_id: u64,
    /// The source's own time, seconds. A source without times counts at its nominal rate.
    pub timestamp_s: f64,
    /// The file it comes from.
    pub source: String,
    /// Pixels in a row.
    pub width: usize,
    /// Number of rows.
    pub height: usize,
    /// Layout of `pixels`.
    pub pixel_format: PixelFormat,
    /// Pixels, row-major, no padding: `height * width * channels` bytes.
    pub pixels: Vec<u8>,
    /// Poses recorded with the frame, in the file's order.
    pub transforms: Vec<NamedTransform>,
    /// Width and height of a pixel, millimetres, as the file says. (PLUS writes 1 x 1 when it does not know.)
    pub spacing_mm: Option<[f64; 2]>,
    /// What the recorder says about the image.
    pub image_status: ImageStatus,
    /// PLUS's orientation code of the pixels, such as "MF" (first axis to the marked side, second axis far).
    pub orientation: Option<String>,
}

impl MediaFrame {
    /// A grey frame without anything else; `pixels` is `[height, width]`.
    pub fn grey8(width: usize, height: usize, pixels: Vec<u8>) -> Self {
        Self { width, height, pixel_format: PixelFormat::Grey8, pixels, ..Self::default() }
    }

    /// A colour frame without anything else; `pixels` is `[height, width, 3]`.
    pub fn rgb8(width: usize, height: usize, pixels: Vec<u8>) -> Self {
        Self { width, height, pixel_format: PixelFormat::Rgb8, pixels, ..Self::default() }
    }
}
