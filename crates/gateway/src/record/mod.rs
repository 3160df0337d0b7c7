//! Results as lines of JSON, and recordings of live sessions.
//!
//! A [`Recorder`] writes every frame that was computed, with the poses at its time, to `frames.raw` and `frames.igs.mhd`,
//! and what was found in it to `results.jsonl`, in the form of `ultramotion run`. The frames are those that the pipeline
//! saw, in its order, with their timestamps to the last digit, so `ultramotion run` on the recording finds the same
//! again, frame for frame. `frames-2.igs.mhd` and `results-2.jsonl` begin where tracks begin anew, as the replay's do:
//! where a GPU failed, or a pipeline died and another took over. Identities go on counting in the session, so those of
//! the replay are the same less a constant. They begin, too, where the size or format of the frames changes, which
//! tracks outlive, so that identities of such a part differ in its replay.
//!
//! Frames, poses and results are on their way to the disk as they come, and nothing is copied at the end. Whatever kills
//! the program, [`recover`] completes what it left. Where the room on the disk comes to its end, so does the recording, in
//! order, and the stream goes on.

mod moment;
mod recover;
mod room;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ultramotion_media::MediaError;
use ultramotion_media::metaimage::{self, AppendWriter, Layout};
use ultramotion_media::sink::{JsonLines, keep_whole_lines};
use ultramotion_types::pose::COMPUTED_PLANE;
use ultramotion_types::{NamedTransform, PixelFormat, ResultLine};

pub(crate) use moment::save_moment;
pub use recover::{RecoveredPart, recover};
use room::Room;

use crate::config::RecordConfig;
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
    /// The disk is as good as full.
    #[error("{free_mb} MiB are left in '{}', and record.stop_below_mb is {stop_below_mb}; make room or choose another folder", folder.display())]
    NoRoom {
        /// The folder.
        folder: PathBuf,
        /// What is left, MiB.
        free_mb: u64,
        /// What must be.
        stop_below_mb: u64,
    },
    /// A folder without a recording cannot be recovered.
    #[error("'{}' holds no recording: give a folder with frames.igs.mhd or frames.igs.mhd.part", folder.display())]
    NoRecording {
        /// The folder.
        folder: PathBuf,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Media(#[from] MediaError),
}

/// The files of one part of a recording.
#[derive(Debug, Clone)]
pub(crate) struct PartFiles {
    pub(crate) frames: PathBuf,
    pub(crate) lines: PathBuf,
}

impl PartFiles {
    /// Of part 1, 2, and so on.
    pub(crate) fn of(folder: &Path, part: usize) -> Self {
        let suffix = if part == 1 { String::new() } else { format!("-{part}") };
        PartFiles {
            frames: folder.join(format!("frames{suffix}.igs.mhd")),
            lines: folder.join(format!("results{suffix}.jsonl")),
        }
    }

    /// The first of its files that is there.
    fn there(&self) -> Option<&PathBuf> {
        [&self.frames, &self.lines].into_iter().find(|path| path.exists())
    }
}

/// The first part of the recording in a folder, which `ultramotion run FOLDER` plays; `None` if there is no recording.
pub fn first_part(folder: &Path) -> Option<PathBuf> {
    let header = PartFiles::of(folder, 1).frames;
    let is_open = metaimage::is_open(&header);
    if is_open {
        let folder = folder.display();
        tracing::warn!(
            "the recording in '{folder}' goes on, or its program was killed: its latest frames may be missing; \
             `ultramotion recover {folder}` completes it"
        );
    }
    (is_open || header.is_file()).then_some(header)
}

/// Writes a live session to a folder.
#[derive(Debug)]
pub struct Recorder {
    config: RecordConfig,
    room: Room,
    parts: usize,
    part: Option<Part>,
}

/// Frames of one size and format, with tracks that go on.
#[derive(Debug)]
struct Part {
    kind: (usize, usize, PixelFormat, Epoch),
    files: PartFiles,
    name: String,
    frames: AppendWriter,
    lines: JsonLines,
    header_due: Instant,
}

impl Recorder {
    /// Makes the folder. An older recording in it is not overwritten.
    pub fn create(config: &RecordConfig) -> Result<Self, RecordError> {
        let folder = &config.folder;
        std::fs::create_dir_all(folder)
            .map_err(|source| RecordError::Folder { path: folder.clone(), source })?;
        if let Some(path) = PartFiles::of(folder, 1).there() {
            return Err(RecordError::Exists { path: path.clone() });
        }
        let mut room = Room::new(config);
        room.check()?;
        Ok(Recorder { config: config.clone(), room, parts: 0, part: None })
    }

    /// What is left on the disk, MiB, as it was a second ago at most; `None` where the system does not tell.
    pub fn free_mb(&self) -> Option<u64> {
        self.room.free_mb()
    }

    /// Adds a frame with its poses and results.
    pub fn write(&mut self, answer: &Answer) -> Result<(), RecordError> {
        self.room.check()?;
        let frame = &answer.frame;
        let kind = (frame.width(), frame.height(), frame.format, answer.epoch);
        if self.part.as_ref().is_some_and(|part| part.kind != kind) {
            self.finish_part()?;
        }
        if self.part.is_none() {
            self.parts += 1;
            let files = PartFiles::of(&self.config.folder, self.parts);
            if let Some(path) = files.there() {
                return Err(RecordError::Exists { path: path.clone() });
            }
            let layout = Layout {
                channels: frame.format.channels(),
                spacing_mm: Some(frame.spacing_mm()),
                compressed: false,
                ..Layout::grey8(frame.width(), frame.height())
            };
            self.part = Some(Part {
                kind,
                name: files.frames.display().to_string(),
                frames: AppendWriter::create(&files.frames, layout, self.config.fsync)?,
                lines: JsonLines::create(&files.lines)?,
                files,
                header_due: Instant::now(),
            });
        }
        let Some(part) = &mut self.part else { return Ok(()) };
        let number = part.frames.frame_count();
        let mut transforms: Vec<_> = answer.placed.poses.iter().map(named_transform).collect();
        // Played again, it gives the same results.
        transforms.extend(frame.tracker_from_pixels.map(|matrix| NamedTransform {
            name: COMPUTED_PLANE.to_owned(),
            matrix,
            valid: true,
        }));
        part.frames.write_raw(&frame.pixels, frame.timestamp.as_secs_f64(), &transforms)?;
        part.lines.write(&ResultLine::new(&answer.packet).renamed(number, &part.name))?;
        self.room.note(frame.pixels.len());
        if part.header_due <= Instant::now() {
            part.header_due = Instant::now() + Duration::from_secs_f64(self.config.header_every_s);
            if let Err(error) = part.frames.refresh_header() {
                tracing::warn!("{error}: until the recording ends, its header lacks the latest frames");
            }
        }
        Ok(())
    }

    /// Completes the files.
    pub fn finish(mut self) -> Result<(), RecordError> {
        self.finish_part()
    }

    fn finish_part(&mut self) -> Result<(), RecordError> {
        let Some(part) = self.part.take() else { return Ok(()) };
        let frames = part.frames.finish()?;
        // Where a write failed there may be half a line, and a line of a frame that had to go.
        keep_whole_lines(&part.files.lines, frames)?;
        Ok(())
    }
}
