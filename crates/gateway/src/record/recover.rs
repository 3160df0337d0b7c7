//! Completes the recordings of programs that were killed.

use std::io;
use std::path::{Path, PathBuf};

use ultramotion_media::MediaError;
use ultramotion_media::metaimage::{self, Recovery};
use ultramotion_media::sink::keep_whole_lines;

use super::{PartFiles, RecordError};

/// What was found of a part of a recording, and done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredPart {
    /// Its sequence of frames.
    pub frames: PathBuf,
    /// What became of it.
    pub recovery: Recovery,
    /// Lines of its results that are whole, and bytes of what else was there, which are cut off.
    pub lines: Option<(u64, u64)>,
}

/// Completes every part of the recording in a folder. A recording that is complete stays as it is; one that is being
/// written is an error.
pub fn recover(folder: &Path) -> Result<Vec<RecoveredPart>, RecordError> {
    let mut parts = Vec::new();
    for number in 1.. {
        let files = PartFiles::of(folder, number);
        let recovery = match metaimage::recover(&files.frames) {
            Ok(recovery) => recovery,
            Err(MediaError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error.into()),
        };
        let frames = match recovery {
            Recovery::Whole { frames } | Recovery::Completed { frames, .. } => frames,
            Recovery::Empty => 0,
        };
        let lines = match keep_whole_lines(&files.lines, frames) {
            Ok(lines) => Some(lines),
            Err(MediaError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        parts.push(RecoveredPart { frames: files.frames, recovery, lines });
    }
    if parts.is_empty() {
        return Err(RecordError::NoRecording { folder: folder.to_owned() });
    }
    Ok(parts)
}
