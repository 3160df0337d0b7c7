//! Where frames come from: [`open`] takes a path and gives a [`FrameSource`].
//!
//! ```
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("one.png");
//! # image::save_buffer(&path, &[10, 20, 30, 40, 50, 60], 3, 2, image::ColorType::L8)?;
//! let source = ultramotion_media::source::open(&path)?;
//! for frame in ultramotion_media::source::frames(source) {
//!     let frame = frame?;
//!     println!("{} at {} s: {}x{}", frame.source, frame.timestamp_s, frame.width, frame.height);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod dicom;
mod images;
mod pace;

use std::path::Path;

pub use dicom::{DicomFiles, DicomOptions, Region};
pub use images::ImageFiles;
pub use pace::wait_until;

use crate::error::MediaError;
use crate::metaimage::SequenceReader;
use ultramotion_types::Frame;

/// Rate at which frames without a time of their own are counted, until
/// [`FrameSource::set_nominal_frames_per_second`] says otherwise.
pub const NOMINAL_FRAMES_PER_SECOND: f64 = 25.0;

/// A stream of frames from files.
pub trait FrameSource: Send + std::fmt::Debug {
    /// The path it was opened with.
    fn name(&self) -> &str;

    /// How many frames it will give at most, bad ones included, when that is known.
    fn frame_count_hint(&self) -> Option<u64>;

    /// Reads the next frame into `frame`, reusing its memory; `None` at the end.
    ///
    /// An error is about this one frame (it names it): report it and go on, the source says itself when nothing
    /// more can be read. After an error the content of `frame` means nothing.
    fn read_into(&mut self, frame: &mut Frame) -> Option<Result<(), MediaError>>;

    /// Goes back to the first frame.
    fn rewind(&mut self) -> Result<(), MediaError>;

    /// Sets the rate at which frames without a time of their own are counted; positive and finite.
    fn set_nominal_frames_per_second(&mut self, frames_per_second: f64);
}

/// Opens a `.mha` or `.mhd` file, an image, a DICOM file, a DICOMDIR, or a folder of images or of DICOM files.
///
/// The ending of the name decides (in any case of letters); what a `.png`, `.jpg` or `.jpeg` file really is, its
/// content decides. In a folder every image counts, in the order of the names, with runs of digits compared as
/// numbers ("9.png" before "10.png"); other files, hidden files and subfolders are passed over. A folder without images
/// may hold DICOM files, in subfolders too: [`DicomFiles`] says which of them are read. DICOM is known by its content,
/// or by the ending `.dcm` or `.dicom`.
pub fn open(path: &Path) -> Result<Box<dyn FrameSource>, MediaError> {
    let metadata = std::fs::metadata(path).map_err(MediaError::io("open", path))?;
    if metadata.is_dir() {
        return match ImageFiles::open_folder(path) {
            Err(MediaError::EmptyFolder { .. }) if dicom::is_dicom_folder(path) => {
                Ok(Box::new(DicomFiles::open(path, &DicomOptions::default())?))
            }
            opened => Ok(Box::new(opened?)),
        };
    }
    if dicom::is_dicom_file(path) {
        return Ok(Box::new(DicomFiles::open(path, &DicomOptions::default())?));
    }
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
    match ending.as_deref() {
        Some("mha" | "mhd") => Ok(Box::new(SequenceReader::open(path)?)),
        Some(ending) if images::ENDINGS.contains(&ending) => Ok(Box::new(ImageFiles::open_file(path)?)),
        _ => Err(MediaError::UnknownKind { path: path.to_owned() }),
    }
}

/// All frames of `source`, each in memory of its own.
pub fn frames(mut source: Box<dyn FrameSource>) -> impl Iterator<Item = Result<Frame, MediaError>> {
    std::iter::from_fn(move || {
        let mut frame = Frame::default();
        source.read_into(&mut frame).map(|read| read.map(|()| frame))
    })
}
