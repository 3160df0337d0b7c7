//! MetaImage files and the sequences PLUS writes in them.
//!
//! A header of `Key = Value` lines, then the pixels, in the same file (`.mha`, `ElementDataFile = LOCAL`) or in one
//! beside it (`.mhd`). Format: ITK's MetaIO documentation; the per-frame fields `Seq_Frame0012_…` are those of the
//! PLUS toolkit's sequence files. [`open`] reads frames of any scalar type as 8 bits a channel;
//! [`SequenceWriter`] writes them; [`AppendWriter`] writes those that grow for hours and are readable all the while.
//!
//! What ITK's MetaIO takes is taken: one file, one a slice (`LIST`, `s%03d.raw 0 9 1`), binary numbers or text, plain, zlib or
//! gzip, two or four channels (of which transparency is dropped), headers with comments. What PLUS's reader does is done: B-mode
//! images in another orientation than MF (`UltrasoundImageOrientation`) are turned, because poses belong to MF pixels. Frames
//! without a time among others that have one lie between their neighbours.
//!
//! # From wide types to 8 bits
//! Unsigned 8-bit pixels are taken as they are. Every other type goes through one linear window for the whole
//! sequence, so that brightness does not flicker: from the header's `ElementMin` and `ElementMax` where both are
//! given, else from the smallest to the largest finite value of the first frame that is not all one value (frames
//! before it become black). Values outside are clamped, NaN is black.

mod append;
mod data_file;
mod frame_fields;
mod header;
mod layout;
mod lines;
mod values;
mod write;

pub use append::{AppendWriter, Recovery, export_mha, is_open, recover};
pub use layout::Layout;
pub use write::SequenceWriter;

use std::io::BufReader;
use std::path::Path;

use crate::error::MediaError;
pub use crate::sequence::ElementType;
use crate::sequence::{SequenceReader, open_file};

/// Opens a `.mha` or `.mhd` file, checks its header and that its first frame can be there.
pub fn open(path: &Path) -> Result<SequenceReader, MediaError> {
    SequenceReader::of(header::read(&mut BufReader::new(open_file(path)?), path)?, path, "MetaImage sequence")
}

#[cfg(test)]
mod append_tests;
#[cfg(test)]
mod quirks_tests;
#[cfg(test)]
mod tests;
