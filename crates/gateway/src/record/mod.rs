//! Results as lines of JSON, and recordings of live sessions.
//!
//! A [`Recorder`] writes every frame that was computed, with the poses at its time, to `frames.igs.mha`, and what was
//! found in it to `results.jsonl`, in the form of `ultramotion run`. The frames are those that the pipeline saw, in
//! its order, with their timestamps to the last digit, so `ultramotion run` on the recording finds the same again,
//! frame for frame. `frames-2.igs.mha` and `results-2.jsonl` begin where tracks begin anew, as the replay's do: where a
//! GPU failed, or a pipeline died and another took over. Identities go on counting in the session, so those of the replay
//! are the same less a constant. They begin, too, where the size or format of the frames changes, which tracks outlive,
//! so that identities of such a part differ in its replay.
//!
//! The sequence's header holds every frame's time and comes first, so a file is complete only when the recording
//! ends; until then its pixels are in `frames.igs.mha.part`.

use std::path::{Path, PathBuf};

use ultramotion_media::MediaError;
use ultramotion_media::metaimage::{Layout, SequenceWriter};
use ultramotion_media::sink::JsonLines;
use ultramotion_types::{PixelFormat, ResultLine};

use crate::receive::named_transform;
use crate::send::{Answer, Epoch};

/// Why a recording cannot be made, or not go on.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A recording is there already.
    #[error("'{}' is there already; choose another folder for the recording", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The folder cannot be made.
    #[error("cannot create the folder '{}' for the recording: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Media(#[from] MediaError),
}

/// Writes a live session to a folder.
#[derive(Debug)]
pub struct Recorder {
    folder: PathBuf,
    parts: usize,
    part: Option<Part>,
}

/// Frames of one size and format, with tracks that go on.
#[derive(Debug)]
struct Part {
    kind: (usize, usize, PixelFormat, Epoch),
    name: String,
    frames: SequenceWriter,
    lines: JsonLines,
}

impl Recorder {
    /// Makes the folder. An older recording in it is not overwritten.
    pub fn create(folder: &Path) -> Result<Self, RecordError> {
        std::fs::create_dir_all(folder)
            .map_err(|source| RecordError::Folder { path: folder.to_owned(), source })?;
        let recorder = Recorder { folder: folder.to_owned(), parts: 0, part: None };
        recorder.paths(1)?;
        Ok(recorder)
    }

    /// Files of a part, neither of which is there yet.
    fn paths(&self, part: usize) -> Result<[PathBuf; 2], RecordError> {
        let suffix = if part == 1 { String::new() } else { format!("-{part}") };
        let paths = [format!("frames{suffix}.igs.mha"), format!("results{suffix}.jsonl")];
        let paths = paths.map(|name| self.folder.join(name));
        match paths.iter().find(|path| path.exists()) {
            Some(path) => Err(RecordError::Exists { path: path.clone() }),
            None => Ok(paths),
        }
    }

    /// Adds a frame with its poses and results.
    pub fn write(&mut self, answer: &Answer) -> Result<(), RecordError> {
        let frame = &answer.frame;
        let kind = (frame.width(), frame.height(), frame.format, answer.epoch);
        if self.part.as_ref().is_some_and(|part| part.kind != kind) {
            self.finish_part()?;
        }
        if self.part.is_none() {
            self.parts += 1;
            let [frames, lines] = self.paths(self.parts)?;
            // Not compressed: a live session has better uses for the processor.
            let layout = Layout {
                channels: frame.format.channels(),
                spacing_mm: Some(frame.spacing_mm()),
                compressed: false,
                ..Layout::grey8(frame.width(), frame.height())
            };
            self.part = Some(Part {
                kind,
                name: frames.display().to_string(),
                frames: SequenceWriter::create(&frames, layout)?,
                lines: JsonLines::create(&lines)?,
            });
        }
        let Some(part) = &mut self.part else { return Ok(()) };
        let number = part.frames.frame_count();
        let transforms: Vec<_> = answer.placed.poses.iter().map(named_transform).collect();
        part.frames.write_raw(&frame.pixels, frame.timestamp.as_secs_f64(), &transforms)?;
        part.lines.write(&ResultLine::new(&answer.packet).renamed(number, &part.name))?;
        Ok(())
    }

    /// Completes the files.
    pub fn finish(mut self) -> Result<(), RecordError> {
        self.finish_part()
    }

    fn finish_part(&mut self) -> Result<(), RecordError> {
        match self.part.take() {
            Some(part) => Ok(part.frames.finish()?),
            None => Ok(()),
        }
    }
}
