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

mod animation;
pub mod crop;
mod dicom;
mod images;
mod pace;
mod pages;
mod video;

use std::io::Read;
use std::path::Path;

pub use dicom::{DicomFiles, DicomOptions, Region};
pub(crate) use images::SINGLE_ENDINGS;
pub use images::{ImageFiles, is_image_name};
pub use pace::wait_until;
pub use pages::Pages;
pub use video::Video;

use crate::error::MediaError;
use crate::{metaimage, nrrd};
use ultramotion_types::Frame;

/// Rate at which frames without a time of their own are counted, until
/// [`FrameSource::set_nominal_frames_per_second`] says otherwise.
pub const NOMINAL_FRAMES_PER_SECOND: f64 = 25.0;

/// A stream of frames from files.
pub trait FrameSource: Send + std::fmt::Debug {
    /// The path it was opened with.
    fn name(&self) -> &str;

    /// What it is, for people: the format, and how values become 8 bits.
    fn description(&self) -> String;

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

/// A kind of file that frames are in.
struct Format {
    /// Endings of file names, in lower case.
    endings: &'static [&'static str],
    /// Whether a file begins like one of them.
    begins: fn(&[u8]) -> bool,
    open: fn(&Path) -> Result<Box<dyn FrameSource>, MediaError>,
}

/// Every kind, in the order in which they are tried.
const FORMATS: &[Format] = &[
    Format {
        endings: &["mha", "mhd"],
        // A header has no mark of its own; these keys are what it begins with.
        begins: |head| [&b"ObjectType"[..], b"NDims"].iter().any(|key| head.starts_with(key)),
        open: |path| Ok(Box::new(metaimage::open(path)?)),
    },
    Format {
        endings: &["nrrd", "nhdr"],
        begins: |head| head.starts_with(b"NRRD000"),
        open: |path| Ok(Box::new(nrrd::open(path)?)),
    },
    Format {
        endings: &["tif", "tiff"],
        begins: |head| head.starts_with(b"II*\0") || head.starts_with(b"MM\0*"),
        open: |path| Ok(Box::new(Pages::open_tiff(path)?)),
    },
    Format {
        endings: &["gif"],
        begins: |head| head.starts_with(b"GIF8"),
        open: |path| Ok(Box::new(Pages::open_gif(path)?)),
    },
    Format {
        endings: &SINGLE_ENDINGS,
        begins: |head| {
            head.starts_with(b"\x89PNG")
                || head.starts_with(&[0xFF, 0xD8, 0xFF])
                || (head.starts_with(b"BM") && head.get(6..10) == Some(&[0; 4]))
                || (head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WEBP"))
        },
        open: |path| Ok(Box::new(ImageFiles::open_file(path)?)),
    },
    Format {
        endings: &video::ENDINGS,
        begins: video::is_video,
        open: |path| Ok(Box::new(Video::open(path)?)),
    },
];

/// The endings of files that can be read, in one line.
pub fn kinds() -> String {
    let endings = FORMATS.iter().flat_map(|format| format.endings).chain(&["dcm", "dicom"]);
    endings.map(|ending| format!(".{ending}")).collect::<Vec<_>>().join(" ")
}

/// Opens a file of any kind ([`kinds`]), a folder of images, or a study in DICOM.
///
/// What a file is, its content decides, and its name's ending (in any case of letters) where the content does not say. In a folder
/// every image counts, in the order of the names, with runs of digits compared as numbers ("9.png" before "10.png"); other files,
/// hidden files and subfolders are passed over. A folder without images may hold DICOM files, in subfolders too: [`DicomFiles`] says
/// which of them are read.
pub fn open(path: &Path) -> Result<Box<dyn FrameSource>, MediaError> {
    open_with(path, &DicomOptions::default())
}

/// The same, with what is to be read of a study. What is no DICOM has no series and no regions: asked for, they are an error.
pub fn open_with(path: &Path, dicom: &DicomOptions) -> Result<Box<dyn FrameSource>, MediaError> {
    let metadata = std::fs::metadata(path).map_err(MediaError::io("open", path))?;
    let study =
        || -> Result<Box<dyn FrameSource>, MediaError> { Ok(Box::new(DicomFiles::open(path, dicom)?)) };
    let not_for_dicom_alone = || match *dicom == DicomOptions::default() {
        true => Ok(()),
        false => Err(MediaError::NotDicom { path: path.to_owned() }),
    };
    if metadata.is_dir() {
        return match ImageFiles::open_folder(path) {
            Err(MediaError::EmptyFolder { .. }) if dicom::is_dicom_folder(path) => study(),
            opened => not_for_dicom_alone().and_then(|()| Ok(Box::new(opened?) as Box<dyn FrameSource>)),
        };
    }
    if !metadata.is_file() {
        // Reading a pipe would wait for somebody who writes.
        return Err(MediaError::io("open", path)(std::io::Error::other("it is not a file")));
    }
    if dicom::is_dicom_file(path) {
        return study();
    }
    not_for_dicom_alone()?;
    let mut head = Vec::new();
    let file = std::fs::File::open(path).map_err(MediaError::io("open", path))?;
    file.take(512).read_to_end(&mut head).map_err(MediaError::io("read", path))?;
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
    let by_content = FORMATS.iter().find(|format| (format.begins)(&head));
    let by_name =
        || ending.as_deref().and_then(|ending| FORMATS.iter().find(|f| f.endings.contains(&ending)));
    match by_content.or_else(by_name) {
        Some(format) => (format.open)(path),
        None => Err(MediaError::UnknownKind { path: path.to_owned(), kinds: kinds() }),
    }
}

/// All frames of `source`, each in memory of its own.
pub fn frames(mut source: Box<dyn FrameSource>) -> impl Iterator<Item = Result<Frame, MediaError>> {
    std::iter::from_fn(move || {
        let mut frame = Frame::default();
        source.read_into(&mut frame).map(|read| read.map(|()| frame))
    })
}
