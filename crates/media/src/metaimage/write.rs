//! Writes sequences.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::layout::{Layout, dim_size, frame_lines};
use crate::error::MediaError;
use crate::sequence::ElementType;
use ultramotion_types::{Frame, NamedTransform, PixelFormat};

/// Writes a `.mha` file, or a `.mhd` file with its `.raw` or `.zraw` beside it.
///
/// The header of a sequence holds every frame's time and poses and comes first, so it can only be written at the
/// end: until [`finish`](Self::finish) the pixels are in a file named like the result with `.part` added (for
/// `.mhd`: in the data file itself). Dropping a writer finishes it too, but hides errors.
pub struct SequenceWriter {
    path: PathBuf,
    data_path: PathBuf,
    /// Name in the header of a data file that stays beside it.
    beside: Option<String>,
    layout: Layout,
    sink: Option<PixelSink>,
    frame_fields: String,
    frame_count: u64,
}

enum PixelSink {
    Plain(BufWriter<File>),
    Deflated(Box<ZlibEncoder<BufWriter<File>>>),
}

impl PixelSink {
    fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Plain(file) => file.write_all(bytes),
            Self::Deflated(encoder) => encoder.write_all(bytes),
        }
    }

    fn finish(self) -> std::io::Result<File> {
        let buffered = match self {
            Self::Plain(file) => file,
            Self::Deflated(encoder) => encoder.finish()?,
        };
        buffered.into_inner().map_err(std::io::IntoInnerError::into_error)
    }
}

impl std::fmt::Debug for SequenceWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SequenceWriter")
            .field("path", &self.path)
            .field("frame_count", &self.frame_count)
            .finish()
    }
}

impl SequenceWriter {
    /// Starts a file; `path` must end in `.mha` or `.mhd`.
    pub fn create(path: &Path, layout: Layout) -> Result<Self, MediaError> {
        layout.check(path)?;
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
        let (data_path, beside) = match ending.as_deref() {
            Some("mha") => {
                let mut part = path.as_os_str().to_owned();
                part.push(".part");
                (PathBuf::from(part), None)
            }
            Some("mhd") => {
                let data_path = path.with_extension(if layout.compressed { "zraw" } else { "raw" });
                let name = data_path.file_name().map(|name| name.to_string_lossy().into_owned());
                (data_path, name)
            }
            _ => {
                let problem = "its name does not end in .mha or .mhd".to_owned();
                return Err(MediaError::Mismatch { path: path.to_owned(), problem });
            }
        };
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&data_path)
            .map_err(MediaError::io("write", &data_path))?;
        let file = BufWriter::with_capacity(1 << 16, file);
        let sink = if layout.compressed {
            PixelSink::Deflated(Box::new(ZlibEncoder::new(file, Compression::fast())))
        } else {
            PixelSink::Plain(file)
        };
        Ok(Self {
            path: path.to_owned(),
            data_path,
            beside,
            layout,
            sink: Some(sink),
            frame_fields: String::new(),
            frame_count: 0,
        })
    }

    /// Frames written so far.
    pub fn frame_count(&self) -> u64 {
        self.frame_count
    }

    /// Adds an 8-bit frame; its size and format must be those of the layout.
    pub fn write(&mut self, frame: &Frame) -> Result<(), MediaError> {
        let format = if self.layout.channels == 3 { PixelFormat::Rgb8 } else { PixelFormat::Grey8 };
        let same = (frame.width, frame.height, frame.pixel_format)
            == (self.layout.width, self.layout.height, format)
            && self.layout.element == ElementType::U8;
        if !same {
            return Err(self.mismatch(format!(
                "it is {}x{} {:?}, the file holds {}x{} {format:?} of type {}",
                frame.width,
                frame.height,
                frame.pixel_format,
                self.layout.width,
                self.layout.height,
                self.layout.element.name()
            )));
        }
        self.write_raw(&frame.pixels, frame.timestamp_s, &frame.transforms)
    }

    /// Adds a frame whose values are in the layout's type and byte order already.
    pub fn write_raw(
        &mut self,
        values: &[u8],
        timestamp_s: f64,
        transforms: &[NamedTransform],
    ) -> Result<(), MediaError> {
        if let Some(problem) = self.layout.problem_with(values, transforms) {
            return Err(self.mismatch(problem));
        }
        let Some(sink) = &mut self.sink else {
            return Err(self.mismatch("the file is finished".to_owned()));
        };
        sink.write_all(values).map_err(MediaError::io("write", &self.data_path))?;
        frame_lines(&mut self.frame_fields, self.frame_count, timestamp_s, transforms);
        self.frame_count += 1;
        Ok(())
    }

    /// Completes the file. A sequence without frames is an error, and leaves no file.
    pub fn finish(mut self) -> Result<(), MediaError> {
        self.complete()
    }

    fn complete(&mut self) -> Result<(), MediaError> {
        let Some(sink) = self.sink.take() else { return Ok(()) };
        let mut data = sink.finish().map_err(MediaError::io("write", &self.data_path))?;
        if self.frame_count == 0 {
            let _ = std::fs::remove_file(&self.data_path);
            return Err(self.mismatch("the sequence has no frames".to_owned()));
        }
        let data_bytes = data.seek(SeekFrom::End(0)).map_err(MediaError::io("write", &self.data_path))?;
        let header = self.header(data_bytes);
        let mut file = File::create(&self.path).map_err(MediaError::io("write", &self.path))?;
        file.write_all(header.as_bytes()).map_err(MediaError::io("write", &self.path))?;
        if self.beside.is_none() {
            data.seek(SeekFrom::Start(0)).map_err(MediaError::io("read", &self.data_path))?;
            std::io::copy(&mut data.take(data_bytes), &mut file)
                .map_err(MediaError::io("write", &self.path))?;
            std::fs::remove_file(&self.data_path).map_err(MediaError::io("remove", &self.data_path))?;
        }
        Ok(())
    }

    fn header(&self, data_bytes: u64) -> String {
        let layout = &self.layout;
        let mut text = layout.lines(layout.compressed.then_some(data_bytes));
        text.push_str(&dim_size(layout.width, layout.height, self.frame_count));
        text.push_str(&self.frame_fields);
        let _ = writeln!(text, "ElementDataFile = {}", self.beside.as_deref().unwrap_or("LOCAL"));
        text
    }

    fn mismatch(&self, problem: String) -> MediaError {
        MediaError::Mismatch { path: self.path.clone(), problem }
    }
}

impl Drop for SequenceWriter {
    fn drop(&mut self) {
        // A recording that ends in an error elsewhere is still worth keeping.
        let _ = self.complete();
    }
}
