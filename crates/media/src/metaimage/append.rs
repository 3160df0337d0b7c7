//! Writes sequences that are readable at any moment, and completes those that a dead program left.
//!
//! Of `frames.igs.mhd` there are, while it is written:
//!
//! | file | what is in it |
//! |---|---|
//! | `frames.raw` | pixels, one frame behind the other |
//! | `frames.igs.mhd.part` | the header so far: its lines about all frames, then those of each frame. Locked by who writes it, but on Windows |
//! | `frames.igs.mhd` | a whole header, of the frames up to its last [refresh](AppendWriter::refresh_header) |
//! | `frames.igs.mhd.new` | the next one, while it is made |
//!
//! Both of the first two only grow. A frame is there once its last line is; at the end two lines more make a whole header
//! of the `.part`, which then takes the header's name. So nothing is copied, and the end needs no room.

use std::fs::{File, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use super::header::read;
use super::layout::{Layout, dim_size, frame_lines, last_line};
use super::lines::MAX_LINE_BYTES;
use crate::error::MediaError;
use crate::sequence::Encoding;
use ultramotion_types::NamedTransform;

/// The key of the size of one frame, which a header without a `DimSize` needs.
const FRAME_SIZE: &str = "FrameSize";
/// More than the lines about all frames take.
const MAX_HEAD_BYTES: usize = 1 << 16;

/// A file that grows, and of which a half-written end can be cut off.
pub(super) trait Growing: Write {
    fn cut(&mut self, bytes: u64) -> io::Result<()>;
    fn sync(&self) -> io::Result<()>;
}

/// Opened for appending.
impl Growing for File {
    fn cut(&mut self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// The files of one sequence.
#[derive(Clone, Debug)]
pub(super) struct Files {
    pub(super) header: PathBuf,
    pub(super) part: PathBuf,
    new: PathBuf,
    pub(super) data: PathBuf,
    data_name: String,
}

impl Files {
    pub(super) fn of(header: &Path) -> Result<Self, MediaError> {
        let name = header.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let Some(stem) = name.strip_suffix(".mhd") else {
            let problem = "its name does not end in .mhd".to_owned();
            return Err(MediaError::Mismatch { path: header.to_owned(), problem });
        };
        let data_name = format!("{}.raw", stem.strip_suffix(".igs").unwrap_or(stem));
        Ok(Self {
            header: header.to_owned(),
            part: header.with_file_name(format!("{name}.part")),
            new: header.with_file_name(format!("{name}.new")),
            data: header.with_file_name(&data_name),
            data_name,
        })
    }

    /// What makes a header of its lines so far.
    fn end(&self, [width, height]: [usize; 2], frames: u64) -> String {
        format!("{}ElementDataFile = {}\n", dim_size(width, height, frames), self.data_name)
    }

    /// Gives the whole header its name.
    fn complete(&self, sync: bool) -> Result<(), MediaError> {
        std::fs::rename(&self.part, &self.header).map_err(MediaError::io("write", &self.header))?;
        let _ = std::fs::remove_file(&self.new);
        if sync { self.sync_folder() } else { Ok(()) }
    }

    /// Removes everything: of a sequence without frames.
    fn remove(&self) {
        for path in [&self.part, &self.new, &self.data, &self.header] {
            let _ = std::fs::remove_file(path);
        }
    }

    /// So that a new name survives a loss of power.
    fn sync_folder(&self) -> Result<(), MediaError> {
        if cfg!(not(unix)) {
            return Ok(());
        }
        let folder = match self.header.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(MediaError::io("write", folder))
    }
}

/// Writes a `.mhd` sequence, not compressed, with its `.raw` beside it, frame by frame as they come.
///
/// Whatever ends the program, the frames up to the last one but one are there: [`recover`] makes the header of them. A
/// write that fails leaves the frames before it, and the next one may go well. Dropping a writer finishes it too, but
/// hides errors.
pub struct AppendWriter {
    inner: Appending<File>,
}

impl std::fmt::Debug for AppendWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AppendWriter")
            .field("path", &self.inner.files.header)
            .field("frame_count", &self.inner.frame_count)
            .finish()
    }
}

impl AppendWriter {
    /// Starts a sequence; `path` must end in `.mhd`, and none of its files may be there. With `sync`, headers and what
    /// they speak of are on the disk itself when they get their name.
    pub fn create(path: &Path, layout: Layout, sync: bool) -> Result<Self, MediaError> {
        let files = Files::of(path)?;
        layout.check(path)?;
        if layout.compressed {
            let problem = "a compressed sequence cannot grow frame by frame".to_owned();
            return Err(MediaError::Mismatch { path: path.to_owned(), problem });
        }
        let create = |path: &Path| {
            File::options().append(true).create_new(true).open(path).map_err(MediaError::io("write", path))
        };
        let part = create(&files.part)?;
        // New, so it can only be refused where there are no locks. Windows would lock readers out, our own too.
        if cfg!(unix) {
            let _ = part.try_lock();
        }
        let data = create(&files.data)?;
        Ok(Self { inner: Appending::start(files, layout, data, part, sync)? })
    }

    /// Frames written so far.
    pub fn frame_count(&self) -> u64 {
        self.inner.frame_count
    }

    /// Adds a frame whose values are in the layout's type and byte order already.
    pub fn write_raw(
        &mut self,
        values: &[u8],
        timestamp_s: f64,
        transforms: &[NamedTransform],
    ) -> Result<(), MediaError> {
        self.inner.write_raw(values, timestamp_s, transforms)
    }

    /// Makes the header anew, of all frames up to here, on a thread of its own. Does nothing where the last one is still
    /// being made; gives what went wrong with that one.
    pub fn refresh_header(&mut self) -> Result<(), MediaError> {
        self.inner.refresh_header()
    }

    /// Makes the header anew, and waits for it.
    #[cfg(test)]
    pub(super) fn refresh_and_wait(&mut self) {
        self.inner.refresh_header().unwrap();
        self.inner.wait_for_header().unwrap();
    }

    /// Completes the sequence; gives how many frames it has. Without any, there are no files.
    pub fn finish(mut self) -> Result<u64, MediaError> {
        self.inner.complete()
    }
}

/// An [`AppendWriter`] on files of any kind.
pub(super) struct Appending<F: Growing> {
    files: Files,
    layout: Layout,
    data: F,
    part: F,
    sync: bool,
    frame_count: u64,
    /// Length of `part` up to its last whole frame, and up to the one before.
    part_bytes: u64,
    part_bytes_before: u64,
    /// A half-written end could not be cut off yet.
    torn: bool,
    ended: bool,
    lines: String,
    refreshing: Option<JoinHandle<Result<(), MediaError>>>,
}

impl<F: Growing> Appending<F> {
    pub(super) fn start(
        files: Files,
        layout: Layout,
        data: F,
        part: F,
        sync: bool,
    ) -> Result<Self, MediaError> {
        let head = format!("{}{FRAME_SIZE} = {} {}\n", layout.lines(None), layout.width, layout.height);
        let mut writer = Self {
            files,
            layout,
            data,
            part,
            sync,
            frame_count: 0,
            part_bytes: 0,
            part_bytes_before: 0,
            torn: false,
            ended: false,
            lines: String::new(),
            refreshing: None,
        };
        writer.part.write_all(head.as_bytes()).map_err(MediaError::io("write", &writer.files.part))?;
        writer.part_bytes = head.len() as u64;
        Ok(writer)
    }

    pub(super) fn write_raw(
        &mut self,
        values: &[u8],
        timestamp_s: f64,
        transforms: &[NamedTransform],
    ) -> Result<(), MediaError> {
        if let Some(problem) = self.layout.problem_with(values, transforms) {
            return Err(MediaError::Mismatch { path: self.files.header.clone(), problem });
        }
        self.mend()?;
        self.lines.clear();
        frame_lines(&mut self.lines, self.frame_count, timestamp_s, transforms);
        let data = self.data.write_all(values).map_err(MediaError::io("write", &self.files.data));
        let written = data.and_then(|()| {
            self.part.write_all(self.lines.as_bytes()).map_err(MediaError::io("write", &self.files.part))
        });
        if written.is_err() {
            self.torn = true;
            // Now rather than later: it may give the system back some room. What fails here is tried again.
            let _ = self.mend();
            return written;
        }
        self.part_bytes_before = self.part_bytes;
        self.part_bytes += self.lines.len() as u64;
        self.frame_count += 1;
        Ok(())
    }

    /// Cuts off what a failed write left.
    fn mend(&mut self) -> Result<(), MediaError> {
        if self.torn {
            let data_bytes = self.frame_count * self.layout.frame_bytes() as u64;
            self.data.cut(data_bytes).map_err(MediaError::io("write", &self.files.data))?;
            self.part.cut(self.part_bytes).map_err(MediaError::io("write", &self.files.part))?;
            self.torn = false;
        }
        Ok(())
    }

    fn refresh_header(&mut self) -> Result<(), MediaError> {
        if self.frame_count == 0 || self.refreshing.as_ref().is_some_and(|task| !task.is_finished()) {
            return Ok(());
        }
        let last = self.wait_for_header();
        let (files, bytes, sync) = (self.files.clone(), self.part_bytes, self.sync);
        let end = files.end([self.layout.width, self.layout.height], self.frame_count);
        let task = thread::Builder::new().name("header".into()).spawn(move || {
            let made = make_header(&files, bytes, &end, sync);
            if made.is_err() {
                let _ = std::fs::remove_file(&files.new);
            }
            made
        });
        self.refreshing = Some(task.map_err(MediaError::io("write", &self.files.new))?);
        last
    }

    fn wait_for_header(&mut self) -> Result<(), MediaError> {
        let made = self.refreshing.take().map(JoinHandle::join);
        // It has no panics of its own.
        made.and_then(Result::ok).unwrap_or(Ok(()))
    }

    pub(super) fn complete(&mut self) -> Result<u64, MediaError> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(self.frame_count);
        }
        // Else it would replace the whole header by an older one. That it failed does not matter any more.
        let _ = self.wait_for_header();
        self.mend()?;
        if self.frame_count > 0
            && let Err(error) = self.write_end()
        {
            // Not even this has room: that of the last frame will do.
            self.frame_count -= 1;
            self.part_bytes = self.part_bytes_before;
            self.torn = true;
            self.mend()?;
            if self.frame_count > 0 {
                self.write_end().map_err(|_| error)?;
            }
        }
        if self.frame_count == 0 {
            self.files.remove();
            return Ok(0);
        }
        let synced = if self.sync { self.data.sync().and_then(|()| self.part.sync()) } else { Ok(()) };
        self.files.complete(self.sync)?;
        synced.map_err(MediaError::io("write", &self.files.data))?;
        Ok(self.frame_count)
    }

    fn write_end(&mut self) -> Result<(), MediaError> {
        let end = self.files.end([self.layout.width, self.layout.height], self.frame_count);
        let written = self.part.write_all(end.as_bytes()).map_err(MediaError::io("write", &self.files.part));
        self.torn = written.is_err();
        written
    }
}

impl<F: Growing> Drop for Appending<F> {
    fn drop(&mut self) {
        // A recording that ends in an error elsewhere is still worth keeping.
        let _ = self.complete();
    }
}

/// A whole header of the first `bytes` of the part and its `end`, which takes the place of the one that is there.
fn make_header(files: &Files, bytes: u64, end: &str, sync: bool) -> Result<(), MediaError> {
    let part = File::open(&files.part).map_err(MediaError::io("read", &files.part))?;
    if sync {
        let data = File::open(&files.data).map_err(MediaError::io("read", &files.data))?;
        data.sync_data().map_err(MediaError::io("write", &files.data))?;
        part.sync_data().map_err(MediaError::io("write", &files.part))?;
    }
    let mut new = File::create(&files.new).map_err(MediaError::io("write", &files.new))?;
    io::copy(&mut part.take(bytes), &mut new)
        .and_then(|_| new.write_all(end.as_bytes()))
        .and_then(|()| if sync { new.sync_all() } else { Ok(()) })
        .and_then(|()| std::fs::rename(&files.new, &files.header))
        .map_err(MediaError::io("write", &files.header))?;
    if sync { files.sync_folder() } else { Ok(()) }
}

/// Whether the `.mhd` sequence at `path` is being written, or was left by a program that was killed.
pub fn is_open(path: &Path) -> bool {
    Files::of(path).is_ok_and(|files| files.part.is_file())
}

/// What [`recover`] found and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// It had been completed: nothing was to be done.
    Whole {
        /// Frames in it.
        frames: u64,
    },
    /// Its header was made of what is there.
    Completed {
        /// Frames in it.
        frames: u64,
        /// Bytes of a frame that is not whole, which are cut off.
        cut_bytes: u64,
    },
    /// It had not a single whole frame: its files are gone.
    Empty,
}

/// Completes the `.mhd` sequence that an [`AppendWriter`] left when its program was killed. Does no harm when it is
/// complete; one that is being written is an error.
pub fn recover(path: &Path) -> Result<Recovery, MediaError> {
    let files = Files::of(path)?;
    let mut part = match File::options().read(true).append(true).open(&files.part) {
        Ok(part) => part,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let frames = super::open(path)?.frame_count();
            return Ok(Recovery::Whole { frames });
        }
        Err(error) => return Err(MediaError::io("open", &files.part)(error)),
    };
    if let Err(TryLockError::WouldBlock) = part.try_lock() {
        return Err(MediaError::BeingWritten { path: path.to_owned() });
    }
    let part_len = part.metadata().map_err(MediaError::io("read", &files.part))?.len();
    let data_len = std::fs::metadata(&files.data).map_or(0, |data| data.len());
    let there =
        whole_frames(&mut part, &files.part, data_len).map_err(MediaError::io("read", &files.part))?;
    let Some(there) = there else {
        if data_len == 0 {
            files.remove();
            return Ok(Recovery::Empty);
        }
        let problem =
            "its header's beginning is lost, so its pixels cannot be told apart: they stay where they are";
        return Err(MediaError::corrupt(&files.data, 0, problem));
    };
    let data_bytes = there.frames * there.frame_bytes;
    // A death leaves one frame at most without its lines. Where more lost theirs, as a loss of power may do, nothing of
    // them is thrown away: readers pass over it.
    let data_rest = Some(data_len - data_bytes).filter(|rest| *rest <= there.frame_bytes);
    if there.frames == 0 {
        if data_rest.is_some() {
            files.remove();
            return Ok(Recovery::Empty);
        }
        let problem = "what its header said of the frames is lost: their pixels stay where they are";
        return Err(MediaError::corrupt(&files.data, 0, problem));
    }
    let mut data =
        File::options().append(true).open(&files.data).map_err(MediaError::io("open", &files.data))?;
    if data_rest.is_some() {
        data.cut(data_bytes).map_err(MediaError::io("write", &files.data))?;
    }
    let end = files.end(there.size, there.frames);
    part.cut(there.part_bytes)
        .and_then(|()| part.write_all(end.as_bytes()))
        .and_then(|()| data.sync().and_then(|()| part.sync()))
        .map_err(MediaError::io("write", &files.part))?;
    files.complete(true)?;
    let cut_bytes = data_rest.unwrap_or(0) + (part_len - there.part_bytes);
    Ok(Recovery::Completed { frames: there.frames, cut_bytes })
}

/// What is whole of a sequence.
struct Whole {
    size: [usize; 2],
    frame_bytes: u64,
    frames: u64,
    /// Length of the header's lines about these frames.
    part_bytes: u64,
}

/// Frames whose pixels and lines are all there; `None` if not even the lines about all frames are.
fn whole_frames(part: &mut File, path: &Path, data_len: u64) -> io::Result<Option<Whole>> {
    let mut part = BufReader::new(part);
    let (mut head, mut line) = (Vec::new(), Vec::new());
    let (mut size, mut part_bytes) = (None, 0);
    while size.is_none() {
        let length = read_line(&mut part, &mut line)?;
        if line.last() != Some(&b'\n') || head.len() > MAX_HEAD_BYTES {
            return Ok(None);
        }
        part_bytes += length;
        head.extend_from_slice(&line);
        size = frame_size(&line);
    }
    let Some([width, height]) = size else { return Ok(None) };
    head.extend_from_slice(dim_size(width, height, 1).as_bytes());
    head.extend_from_slice(b"ElementDataFile = LOCAL\n");
    let Ok(header) = read(&mut head.as_slice(), path) else { return Ok(None) };
    let frame_bytes = header.frame_bytes();
    let mut whole = Whole { size: [width, height], frame_bytes, frames: 0, part_bytes };
    let (mut prefix, mut last) = (prefix_of(0), last_line(0));
    while whole.frames < data_len / frame_bytes {
        part_bytes += read_line(&mut part, &mut line)?;
        if !line.starts_with(prefix.as_bytes()) || line.last() != Some(&b'\n') {
            break;
        }
        if line == last.as_bytes() {
            whole.frames += 1;
            whole.part_bytes = part_bytes;
            (prefix, last) = (prefix_of(whole.frames), last_line(whole.frames));
        }
    }
    Ok(Some(whole))
}

/// What each of a frame's lines begins with.
fn prefix_of(index: u64) -> String {
    format!("Seq_Frame{index:04}_")
}

fn read_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<u64> {
    line.clear();
    Ok(reader.take(MAX_LINE_BYTES).read_until(b'\n', line)? as u64)
}

fn frame_size(line: &[u8]) -> Option<[usize; 2]> {
    let text = std::str::from_utf8(line).ok()?;
    let mut numbers = text.strip_prefix(FRAME_SIZE)?.trim_start().strip_prefix('=')?.split_whitespace();
    let mut side = || numbers.next()?.parse().ok();
    Some([side()?, side()?])
}

/// Copies a `.mhd` sequence with its pixels into one `.mha` file; gives the bytes of the file.
///
/// There is a half-made file beside `to` until the copy is whole, and never one under its name.
pub fn export_mha(from: &Path, to: &Path) -> Result<u64, MediaError> {
    let mut header = BufReader::new(File::open(from).map_err(MediaError::io("open", from))?);
    let checked = read(&mut header, from)?;
    let data = checked.data_file.paths(from);
    if checked.encoding != Encoding::Plain || checked.skip_bytes != 0 || data.len() != 1 {
        let problem = "the pixels do not stand in the sequence's own file as they are".to_owned();
        return Err(MediaError::Mismatch { path: to.to_owned(), problem });
    }
    if to.extension().is_none_or(|ending| !ending.eq_ignore_ascii_case("mha")) {
        let problem = "its name does not end in .mha".to_owned();
        return Err(MediaError::Mismatch { path: to.to_owned(), problem });
    }
    let mut part = to.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let copy = || -> io::Result<u64> {
        let mut file = File::create(&part)?;
        let lines = checked.header_bytes - checked.last_line_bytes;
        let mut bytes = io::copy(&mut File::open(from)?.take(lines), &mut file)?;
        let end = b"ElementDataFile = LOCAL\n";
        file.write_all(end)?;
        bytes += end.len() as u64;
        let pixels = checked.frame_bytes() * checked.frame_count;
        bytes += io::copy(&mut File::open(&data[0])?.take(pixels), &mut file)?;
        std::fs::rename(&part, to)?;
        Ok(bytes)
    };
    copy().map_err(|error| {
        let _ = std::fs::remove_file(&part);
        MediaError::io("write", to)(error)
    })
}
