//! Reads sequences one frame at a time.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use flate2::read::{GzDecoder, ZlibDecoder};

use super::element::{ElementType, Window};
use super::header::{DataFile, Header};
use crate::error::MediaError;
use crate::source::FrameSource;
use ultramotion_types::{Frame, ImageStatus, PixelFormat};

/// Deflate cannot make more of a byte than this (zlib's documentation gives 1032:1).
const MAX_INFLATION: u64 = 1032;
/// Frames of more bytes than this, and sixteen for each byte of their file, are not unpacked: memory is what a file brings.
const FREE_BYTES: u64 = 256 << 20;
const BYTES_PER_FILE_BYTE: u64 = 16;

/// A MetaImage file being read. Memory holds one frame, however long the sequence is.
pub struct SequenceReader {
    name: String,
    data_path: PathBuf,
    header: Header,
    /// Where the pixels start, and how many bytes are there.
    data_start: u64,
    data_bytes: u64,
    pixels: PixelReader,
    next_frame_id: u64,
    finished: bool,
    window: Option<Window>,
    raw: Vec<u8>,
    nominal_frames_per_second: f64,
}

enum PixelReader {
    Plain(BufReader<File>),
    /// Boxed: inflate's state is large.
    Inflated(Box<dyn Read + Send>),
}

impl std::fmt::Debug for SequenceReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SequenceReader").field("name", &self.name).field("next", &self.next_frame_id).finish()
    }
}

impl SequenceReader {
    /// Opens a `.mha` or `.mhd` file, checks its header and that its first frame can be there.
    pub fn open(path: &Path) -> Result<Self, MediaError> {
        let mut file = BufReader::new(open_file(path)?);
        let header = Header::read(&mut file, path)?;
        let data_path = header.data_path(path);
        let start = match &header.data_file {
            DataFile::Local => header.header_bytes,
            DataFile::Beside(_) => header.skip_bytes.max(0) as u64,
        };
        let data = open_file(&data_path)?;
        let file_bytes = data.metadata().map_err(MediaError::io("read", &data_path))?.len();
        let frame_bytes = header.frame_bytes() as u64;
        let data_start = match header.data_file {
            DataFile::Beside(_) if header.skip_bytes == -1 && !header.compressed => {
                file_bytes.saturating_sub(frame_bytes.saturating_mul(header.frame_count))
            }
            _ => start,
        };
        let there = file_bytes.saturating_sub(data_start);
        let data_bytes = match header.compressed_size {
            Some(size) if header.compressed => size.min(there),
            _ => there,
        };
        let could_hold =
            if header.compressed { data_bytes.saturating_mul(MAX_INFLATION) } else { data_bytes };
        if could_hold < frame_bytes {
            return Err(MediaError::Truncated {
                path: data_path,
                frame_id: 0,
                frame_count: header.frame_count,
                missing: if header.compressed {
                    header.compressed_size.unwrap_or(0).max(frame_bytes / MAX_INFLATION + 1) - data_bytes
                } else {
                    frame_bytes - could_hold
                },
            });
        }
        if header.compressed
            && frame_bytes > FREE_BYTES.saturating_add(file_bytes.saturating_mul(BYTES_PER_FILE_BYTE))
        {
            let problem = format!(
                "= True holds a frame of {frame_bytes} bytes in a file of {file_bytes}, which is more than a file of its size \
                 may unpack to: save it without compression"
            );
            return Err(MediaError::header(path, "CompressedData", problem));
        }
        let pixels = PixelReader::start(&data_path, &header, data_start, data_bytes)?;
        Ok(Self {
            name: path.display().to_string(),
            data_path,
            window: header.window,
            header,
            data_start,
            data_bytes,
            pixels,
            next_frame_id: 0,
            finished: false,
            raw: Vec::new(),
            nominal_frames_per_second: crate::source::NOMINAL_FRAMES_PER_SECOND,
        })
    }

    /// Frames the header announces.
    pub fn frame_count(&self) -> u64 {
        self.header.frame_count
    }

    /// Pixels in a row and number of rows, the same for all frames.
    pub fn size_px(&self) -> [usize; 2] {
        [self.header.width, self.header.height]
    }

    /// The scalar type in the file.
    pub fn element_type(&self) -> ElementType {
        self.header.element
    }

    /// Reads the raw values of frame `frame_id`, which must be the next, into `self.raw`.
    fn read_raw(&mut self, frame_id: u64) -> Result<(), MediaError> {
        let frame_bytes = self.header.frame_bytes() as u64;
        self.raw.clear();
        // In one piece, for a buffer that grows takes three times as much. Memory that nobody has written is not there yet.
        if self.raw.try_reserve_exact(self.header.frame_bytes()).is_err() {
            let problem = format!("there is no memory for a frame of {frame_bytes} bytes");
            return Err(MediaError::corrupt(&self.data_path, frame_id, problem));
        }
        let result = match &mut self.pixels {
            PixelReader::Plain(file) => file.take(frame_bytes).read_to_end(&mut self.raw),
            PixelReader::Inflated(stream) => stream.take(frame_bytes).read_to_end(&mut self.raw),
        };
        let length = self.raw.len() as u64;
        match result {
            Ok(_) if length == frame_bytes => Ok(()),
            Err(error) if error.kind() != std::io::ErrorKind::UnexpectedEof => match &self.pixels {
                PixelReader::Plain(_) => Err(MediaError::io("read", &self.data_path)(error)),
                PixelReader::Inflated(_) => {
                    let problem = "its compressed data is corrupt, and no frame after it can be read";
                    Err(MediaError::corrupt(&self.data_path, frame_id, problem))
                }
            },
            _ => Err(MediaError::Truncated {
                path: self.data_path.clone(),
                frame_id,
                frame_count: self.header.frame_count,
                missing: frame_bytes - length,
            }),
        }
    }

    /// After the last frame: the compressed stream must end here, with the right checksum.
    fn check_end(&mut self) -> Result<(), MediaError> {
        let PixelReader::Inflated(stream) = &mut self.pixels else { return Ok(()) };
        let last = self.header.frame_count - 1;
        match stream.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(MediaError::corrupt(
                &self.data_path,
                last,
                "more pixels follow than the header announces",
            )),
            Err(_) => {
                let problem =
                    "the compressed data up to here fails its checksum, so some frames may be damaged";
                Err(MediaError::corrupt(&self.data_path, last, problem))
            }
        }
    }

    fn decode_into(&mut self, frame_id: u64, frame: &mut Frame) -> Result<(), MediaError> {
        let header = &self.header;
        let fields = header.fields.get(&(frame_id / header.slices_per_entry));
        if let Some(status) = fields.and_then(|f| f.image_status.as_ref()).filter(|status| *status != "OK") {
            let status = status.chars().filter(|c| !c.is_control()).take(40).collect();
            return Err(MediaError::MarkedInvalid { path: self.data_path.clone(), frame_id, status });
        }
        frame.timestamp_s = match fields.and_then(|f| f.timestamp_s.as_ref()) {
            Some(Ok(seconds)) => *seconds,
            None => frame_id as f64 / self.nominal_frames_per_second,
            Some(Err(text)) => {
                let shown: String = text.chars().filter(|c| !c.is_control()).take(40).collect();
                let problem = format!("its Timestamp '{shown}' is not a number of seconds");
                return Err(MediaError::corrupt(&self.data_path, frame_id, problem));
            }
        };
        frame.frame_id = frame_id;
        frame.source.clone_from(&self.name);
        (frame.width, frame.height) = (header.width, header.height);
        frame.pixel_format = if header.channels == 3 { PixelFormat::Rgb8 } else { PixelFormat::Grey8 };
        frame.image_status = match fields.and_then(|f| f.image_status.as_ref()) {
            Some(_) => ImageStatus::Ok,
            None => ImageStatus::Unknown,
        };
        match fields {
            Some(fields) => frame.transforms.clone_from(&fields.transforms),
            None => frame.transforms.clear(),
        }
        frame.spacing_mm = header.spacing_mm;
        frame.orientation.clone_from(&header.orientation);
        if header.element == ElementType::U8 {
            std::mem::swap(&mut frame.pixels, &mut self.raw);
            return Ok(());
        }
        if self.window.is_none() {
            self.window = Window::of(&self.raw, header.element, header.big_endian);
        }
        match self.window {
            Some(window) => window.apply(&self.raw, header.element, header.big_endian, &mut frame.pixels),
            None => {
                frame.pixels.clear();
                frame.pixels.resize(self.raw.len() / header.element.bytes(), 0);
            }
        }
        Ok(())
    }
}

impl PixelReader {
    fn start(path: &Path, header: &Header, data_start: u64, data_bytes: u64) -> Result<Self, MediaError> {
        let mut file = open_file(path)?;
        file.seek(SeekFrom::Start(data_start)).map_err(MediaError::io("read", path))?;
        if !header.compressed {
            return Ok(Self::Plain(BufReader::with_capacity(1 << 16, file)));
        }
        // MetaIO accepts zlib and gzip wrapping; gzip announces itself.
        let mut magic = [0u8; 2];
        let is_gzip = file.read_exact(&mut magic).is_ok() && magic == [0x1F, 0x8B];
        file.seek(SeekFrom::Start(data_start)).map_err(MediaError::io("read", path))?;
        let bytes = BufReader::with_capacity(1 << 16, file).take(data_bytes);
        Ok(Self::Inflated(if is_gzip {
            Box::new(GzDecoder::new(bytes))
        } else {
            Box::new(ZlibDecoder::new(bytes))
        }))
    }
}

impl FrameSource for SequenceReader {
    fn name(&self) -> &str {
        &self.name
    }

    fn frame_count_hint(&self) -> Option<u64> {
        Some(self.header.frame_count)
    }

    fn read_into(&mut self, frame: &mut Frame) -> Option<Result<(), MediaError>> {
        if self.finished {
            return None;
        }
        let frame_id = self.next_frame_id;
        if frame_id == self.header.frame_count {
            self.finished = true;
            return self.check_end().err().map(Err);
        }
        self.next_frame_id += 1;
        if let Err(error) = self.read_raw(frame_id) {
            // What follows a gap cannot be found again.
            self.finished = true;
            return Some(Err(error));
        }
        Some(self.decode_into(frame_id, frame))
    }

    fn rewind(&mut self) -> Result<(), MediaError> {
        self.pixels = PixelReader::start(&self.data_path, &self.header, self.data_start, self.data_bytes)?;
        self.next_frame_id = 0;
        self.finished = false;
        Ok(())
    }

    fn set_nominal_frames_per_second(&mut self, frames_per_second: f64) {
        self.nominal_frames_per_second = frames_per_second;
    }
}

fn open_file(path: &Path) -> Result<File, MediaError> {
    // Opening a pipe would block, and a folder opens without complaint on some systems.
    let metadata = std::fs::metadata(path).map_err(MediaError::io("open", path))?;
    if !metadata.is_file() {
        let reason = std::io::Error::other("it is not a file");
        return Err(MediaError::io("open", path)(reason));
    }
    File::open(path).map_err(MediaError::io("open", path))
}
