//! Sequences of plain frames behind a header, whatever the header's format ([`metaimage`](crate::metaimage), NRRD).

mod element;
mod files;
mod orientation;
mod pixels;
mod read;
mod text;
mod times;

use std::collections::BTreeMap;

use ultramotion_types::NamedTransform;

pub use element::ElementType;
pub(crate) use element::Window;
pub(crate) use files::{DataFile, numbered};
pub(crate) use orientation::Orientation;
pub(crate) use pixels::open_file;
pub use read::SequenceReader;

/// What a sequence says about one frame.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct FrameFields {
    /// `None` also where it is not a number.
    pub(crate) timestamp_s: Option<f64>,
    pub(crate) image_status: Option<String>,
    pub(crate) transforms: Vec<NamedTransform>,
    /// Where a frame has a spacing of its own.
    pub(crate) spacing_mm: Option<[f64; 2]>,
}

/// How values stand in their file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// As they are.
    Plain,
    /// In zlib's or gzip's wrapping.
    Deflated,
    /// As bzip2 packs them.
    Bzip2,
    /// As numbers in text.
    Text,
}

impl Encoding {
    pub(crate) fn is_compressed(self) -> bool {
        matches!(self, Encoding::Deflated | Encoding::Bzip2)
    }
}

/// What is known of a sequence before its pixels are read, whatever format said it.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) frame_count: u64,
    /// Slices that share one set of per-frame fields; 1 but for sequences of volumes.
    pub(crate) slices_per_entry: u64,
    pub(crate) channels: usize,
    pub(crate) element: ElementType,
    pub(crate) big_endian: bool,
    pub(crate) encoding: Encoding,
    /// Frames that share their pixels' places: each has one of so many values that stand together. 1 where a frame is in one piece.
    pub(crate) interleaved: u64,
    pub(crate) compressed_size: Option<u64>,
    pub(crate) spacing_mm: Option<[f64; 2]>,
    pub(crate) window: Option<Window>,
    pub(crate) orientation: Option<Orientation>,
    pub(crate) data_file: DataFile,
    /// Bytes to skip before the pixels; -1 means that they are at the end of their file.
    pub(crate) skip_bytes: i64,
    /// Lines to skip before those.
    pub(crate) skip_lines: u64,
    /// Whether the bytes to skip are those of what was packed.
    pub(crate) skips_unpacked: bool,
    /// Length of the header itself.
    pub(crate) header_bytes: u64,
    /// Length of its last line, which says where the pixels are.
    pub(crate) last_line_bytes: u64,
    pub(crate) fields: BTreeMap<u64, FrameFields>,
}

impl Header {
    /// Bytes that are read at a time: of a frame, or of all those that stand together.
    pub(crate) fn frame_bytes(&self) -> u64 {
        // At most 8192 * 8192 * 4 * 8 for one, checked when the header is read.
        let one = (self.width * self.height * self.channels * self.element.bytes()) as u64;
        one.saturating_mul(self.interleaved)
    }
}
