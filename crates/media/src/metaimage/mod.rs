//! MetaImage files and the sequences PLUS writes in them.
//!
//! A header of `Key = Value` lines, then the pixels, in the same file (`.mha`, `ElementDataFile = LOCAL`) or in one
//! beside it (`.mhd`). Format: ITK's MetaIO documentation; the per-frame fields `Seq_Frame0012_…` are those of the
//! PLUS toolkit's sequence files. [`SequenceReader`] reads frames of any scalar type as 8 bits a channel;
//! [`SequenceWriter`] writes them; [`AppendWriter`] writes those that grow for hours and are readable all the while.
//!
//! # From wide types to 8 bits
//! Unsigned 8-bit pixels are taken as they are. Every other type goes through one linear window for the whole
//! sequence, so that brightness does not flicker: from the header's `ElementMin` and `ElementMax` where both are
//! given, else from the smallest to the largest finite value of the first frame that is not all one value (frames
//! before it become black). Values outside are clamped, NaN is black.

mod append;
mod element;
mod header;
mod layout;
mod read;
mod write;

pub use append::{AppendWriter, Recovery, export_mha, is_open, recover};
pub use element::ElementType;
pub use layout::Layout;
pub use read::SequenceReader;
pub use write::SequenceWriter;

#[cfg(test)]
mod append_tests;
#[cfg(test)]
mod tests;
