//! Everything that can be wrong with a file, one sentence each.

use std::path::{Path, PathBuf};

/// Why a source, a frame or a sink failed. Each message names the file, what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MediaError {
    /// The operating system refused to open, read or make something.
    #[error("cannot {action} {path}: {reason}", path = path.display(), reason = plain(source))]
    Io {
        /// What was tried: "open", "read", "write", …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Neither the content nor the name's ending is one of those that can be read.
    #[error("{path} is not a kind of file that can be read: give a folder of images, or a file of one of the kinds {kinds}", path = path.display())]
    UnknownKind {
        /// The file.
        path: PathBuf,
        /// Endings of those that can be.
        kinds: String,
    },
    /// A series or a region is asked for of something else than a study in DICOM.
    #[error("{path} is no study in DICOM: only such have series and regions to choose from", path = path.display())]
    NotDicom {
        /// The file or folder.
        path: PathBuf,
    },
    /// A folder without a single image.
    #[error("{path} holds no image (.png, .jpg, .bmp, .tif, .webp, .gif) and no DICOM file: give a folder with such", path = path.display())]
    EmptyFolder {
        /// The folder.
        path: PathBuf,
    },
    /// A MetaImage header field is missing, malformed or asks for what is not supported.
    #[error("{path}: {field} {problem}", path = path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// The header's key, as it is written in the file.
        field: String,
        /// What is wrong with its value and what to do.
        problem: String,
    },
    /// A DICOM file or study cannot be read as it is, or as it was asked for.
    #[error("{path}: {problem}", path = path.display())]
    Dicom {
        /// The path as it was given: names of files within a folder may tell who the patient is.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A picture with no pixels, or with sides beyond [`MAX_SIDE_PX`](ultramotion_types::MAX_SIDE_PX).
    #[error("{path} has frames of {width}x{height} pixels: sides from 1 to {limit} can be read", path = path.display(), limit = ultramotion_types::MAX_SIDE_PX)]
    Size {
        /// The file.
        path: PathBuf,
        /// Width it claims, pixels.
        width: u64,
        /// Height it claims, pixels.
        height: u64,
    },
    /// The file is shorter than its header says.
    #[error("{path} ends at frame {frame_id} of {frame_count}: {missing} bytes are missing, record or copy the file again", path = path.display())]
    Truncated {
        /// The file that holds the pixels.
        path: PathBuf,
        /// The first frame that is not whole.
        frame_id: u64,
        /// Frames the header announces.
        frame_count: u64,
        /// Bytes that are missing up to the end of that frame.
        missing: u64,
    },
    /// The content of a frame cannot be decoded.
    #[error("{path}, frame {frame_id}: {problem}", path = path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Index of the frame in its source.
        frame_id: u64,
        /// What is wrong.
        problem: String,
    },
    /// The recorder itself marked the frame as not valid.
    #[error("{path}, frame {frame_id}: the recording marks this image as {status}", path = path.display())]
    MarkedInvalid {
        /// The file.
        path: PathBuf,
        /// Index of the frame in its source.
        frame_id: u64,
        /// The status as written in the file.
        status: String,
    },
    /// A frame handed to a writer does not fit the file that is being written.
    #[error("cannot add a frame to {path}: {problem}", path = path.display())]
    Mismatch {
        /// The file being written.
        path: PathBuf,
        /// What differs.
        problem: String,
    },
    /// A sequence that is to be recovered is not a dead program's.
    #[error("{path} is being written: end the program that records it first", path = path.display())]
    BeingWritten {
        /// The sequence.
        path: PathBuf,
    },
    /// A line of `results.jsonl` is not what a run writes.
    #[error("{path}, line {line}: {problem}", path = path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Number of the line, from 1.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// Results cannot be put into the form that was asked for.
    #[error("cannot write {path}: {problem}", path = path.display())]
    Export {
        /// The file being written.
        path: PathBuf,
        /// What stands against it, and what to do.
        problem: String,
    },
    /// The program that makes and reads video is not there.
    #[error(
        "video needs the program ffmpeg, which is not installed here: apt-get install ffmpeg (Debian, Ubuntu), brew install \
         ffmpeg (macOS) or winget install ffmpeg (Windows)"
    )]
    NoFfmpeg,
    /// ffmpeg cannot decode something.
    #[error("{source_name} cannot be decoded by ffmpeg: {reason}")]
    Ffmpeg {
        /// What was to be decoded.
        source_name: String,
        /// Its last words.
        reason: String,
    },
    /// A value cannot be written as JSON.
    #[error("cannot write a line of {path}: {source}", path = path.display())]
    Json {
        /// The file being written.
        path: PathBuf,
        /// What the serializer says.
        source: serde_json::Error,
    },
}

impl MediaError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    pub(crate) fn header(path: &Path, field: &str, problem: impl Into<String>) -> Self {
        Self::Header { path: path.to_owned(), field: field.to_owned(), problem: problem.into() }
    }

    pub(crate) fn export(path: &Path, problem: impl Into<String>) -> Self {
        Self::Export { path: path.to_owned(), problem: problem.into() }
    }

    pub(crate) fn corrupt(path: &Path, frame_id: u64, problem: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), frame_id, problem: problem.into() }
    }
}

/// The reason without the system's error number.
fn plain(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file or folder".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        std::io::ErrorKind::AlreadyExists => "it exists already".to_owned(),
        std::io::ErrorKind::IsADirectory => "it is a folder".to_owned(),
        std::io::ErrorKind::NotADirectory => "part of the path is not a folder".to_owned(),
        std::io::ErrorKind::StorageFull => "the disk is full".to_owned(),
        _ => error.to_string(),
    }
}

/// The first characters of a text from a file, those that can be printed: a damaged one may hold anything.
pub(crate) fn printable(text: &str, most: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(most).collect()
}
