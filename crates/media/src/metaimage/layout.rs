//! How pixels are stored, and the header's lines that say so.

use std::fmt::Write as _;
use std::path::Path;

use crate::error::MediaError;
use crate::sequence::ElementType;
use ultramotion_types::{Frame, MAX_SIDE_PX, NamedTransform};

/// How the pixels of a sequence are stored; the same for all its frames.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// Pixels in a row.
    pub width: usize,
    /// Number of rows.
    pub height: usize,
    /// 1 (grey) or 3 (red, green, blue).
    pub channels: usize,
    /// Scalar type.
    pub element: ElementType,
    /// Most significant byte first.
    pub big_endian: bool,
    /// zlib, all frames as one stream.
    pub compressed: bool,
    /// Width and height of a pixel, millimetres.
    pub spacing_mm: Option<[f64; 2]>,
    /// PLUS's orientation code, such as "MF".
    pub orientation: Option<String>,
}

impl Layout {
    /// 8-bit grey frames, compressed.
    pub fn grey8(width: usize, height: usize) -> Self {
        Self {
            width,
            height,
            channels: 1,
            element: ElementType::U8,
            big_endian: false,
            compressed: true,
            spacing_mm: None,
            orientation: None,
        }
    }

    /// The layout that fits `frame`, compressed.
    pub fn of(frame: &Frame) -> Self {
        Self {
            channels: frame.pixel_format.channels(),
            spacing_mm: frame.spacing_mm,
            orientation: frame.orientation.clone(),
            ..Self::grey8(frame.width, frame.height)
        }
    }

    /// Bytes of a frame, before compression.
    pub(crate) fn frame_bytes(&self) -> usize {
        self.width * self.height * self.channels * self.element.bytes()
    }

    /// Whether a file at `path` can be written in it.
    pub(crate) fn check(&self, path: &Path) -> Result<(), MediaError> {
        let limit = 1..=MAX_SIDE_PX;
        if !limit.contains(&self.width) || !limit.contains(&self.height) {
            let (width, height) = (self.width as u64, self.height as u64);
            return Err(MediaError::Size { path: path.to_owned(), width, height });
        }
        if ![1, 3].contains(&self.channels) {
            let problem = format!("{} channels cannot be written: give 1 or 3", self.channels);
            return Err(MediaError::Mismatch { path: path.to_owned(), problem });
        }
        Ok(())
    }

    /// What is wrong with a frame of these values and transforms, if anything is.
    pub(crate) fn problem_with(&self, values: &[u8], transforms: &[NamedTransform]) -> Option<String> {
        if values.len() != self.frame_bytes() {
            let expected = self.frame_bytes();
            return Some(format!("it has {} bytes, a frame of the file has {expected}", values.len()));
        }
        let is_word = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let odd = transforms.iter().find(|transform| !is_word(&transform.name))?;
        Some(format!("the transform name '{}' is not letters and digits", odd.name.escape_debug()))
    }

    /// The header's lines about all frames, but for those that say how many there are and where: [`DimSize`](dim_size)
    /// and `ElementDataFile`. `data_bytes` is the length of compressed data.
    pub(crate) fn lines(&self, data_bytes: Option<u64>) -> String {
        let flag = |value| if value { "True" } else { "False" };
        let [spacing_x, spacing_y] = self.spacing_mm.unwrap_or([1.0, 1.0]);
        let mut text = format!(
            "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = {}\nCompressedData = {}\n",
            flag(self.big_endian),
            flag(self.compressed)
        );
        if let Some(bytes) = data_bytes {
            let _ = writeln!(text, "CompressedDataSize = {bytes}");
        }
        let _ = write!(
            text,
            "ElementSpacing = {spacing_x} {spacing_y} 1\nElementNumberOfChannels = {}\nElementType = {}\n",
            self.channels,
            self.element.name()
        );
        text.push_str("Offset = 0 0 0\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nKinds = domain domain list\n");
        if let Some(orientation) = self.orientation.as_deref().filter(|text| !text.contains(['\n', '\r'])) {
            let _ = writeln!(text, "UltrasoundImageOrientation = {orientation}");
        }
        text
    }
}

/// The header's line that says how many frames there are.
pub(crate) fn dim_size(width: usize, height: usize, frames: u64) -> String {
    format!("DimSize = {width} {height} {frames}\n")
}

/// The last of a frame's lines in a header, which tells that all of them are there.
pub(crate) fn last_line(index: u64) -> String {
    format!("Seq_Frame{index:04}_ImageStatus = OK\n")
}

/// Adds the lines of a frame in a header.
pub(crate) fn frame_lines(text: &mut String, index: u64, timestamp_s: f64, transforms: &[NamedTransform]) {
    for NamedTransform { name, matrix, valid } in transforms {
        let _ = write!(text, "Seq_Frame{index:04}_{name}Transform =");
        for value in matrix.iter().flatten() {
            let _ = write!(text, " {value}");
        }
        let status = if *valid { "OK" } else { "INVALID" };
        let _ = writeln!(text, "\nSeq_Frame{index:04}_{name}TransformStatus = {status}");
    }
    let _ = writeln!(text, "Seq_Frame{index:04}_Timestamp = {timestamp_s}");
    text.push_str(&last_line(index));
}
