//! Sources and sinks that are files.
//!
//! - [`source`]: MetaImage sequences (`.mha`, `.mhd`, `.igs.mha` as PLUS records them), DICOM, PNG and JPEG images, and
//!   folders of images or of DICOM files come in; [`Frame`](ultramotion_types::Frame)s of 8-bit pixels go out, one at a time, each bad frame as an error
//!   value that does not end the source.
//! - [`sink`]: results go out as JSON lines and as overlay pictures, and from the lines as the files that other tools read.
//! - [`results`]: `results.jsonl` read back.
//! - [`metaimage`]: the file format itself, with a writer for sequences.
//!
//! ```
//! use ultramotion_media::source::{FrameSource, open};
//! use ultramotion_media::metaimage::{Layout, SequenceWriter};
//! use ultramotion_types::{Frame, PixelFormat};
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("two.igs.mha");
//! let mut writer = SequenceWriter::create(&path, Layout::grey8(4, 3))?;
//! for time in [0.0, 0.04] {
//!     let frame = Frame { timestamp_s: time, ..Frame::grey8(4, 3, vec![7; 12]) };
//!     writer.write(&frame)?;
//! }
//! writer.finish()?;
//!
//! let mut source = open(&path)?;
//! let mut frame = Frame::default();
//! while let Some(read) = source.read_into(&mut frame) {
//!     match read {
//!         Ok(()) => assert_eq!((frame.width, frame.height, frame.pixel_format), (4, 3, PixelFormat::Grey8)),
//!         Err(problem) => eprintln!("{problem}"),
//!     }
//! }
//! assert_eq!(frame.timestamp_s, 0.04);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod ffmpeg;
pub mod metaimage;
pub mod nrrd;
pub mod results;
pub mod sequence;
pub mod sink;
pub mod source;

pub use error::MediaError;
