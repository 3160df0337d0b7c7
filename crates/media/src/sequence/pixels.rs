//! The pixels of a sequence, frame by frame, as they stand in its files.

use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Take};
use std::path::{Path, PathBuf};

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::{MultiGzDecoder, ZlibDecoder};

use super::text::TextReader;
use super::{DataFile, Encoding, Header};
use crate::error::MediaError;

/// Deflate cannot make more of a byte than this (zlib's documentation gives 1032:1).
const MAX_INFLATION: u64 = 1032;
/// Frames of more bytes than this, and sixteen for each byte of their file, are not unpacked: memory is what a file brings.
const FREE_BYTES: u64 = 256 << 20;
const BYTES_PER_FILE_BYTE: u64 = 16;
/// Bytes that are read from a file at a time.
const BUFFER: usize = 1 << 16;
/// A line that is to be skipped is no longer than this.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// Files with pixels, being read.
pub(super) struct PixelReader {
    paths: Vec<PathBuf>,
    /// Reads of a file.
    frames_per_file: u64,
    /// Where the pixels of the one file start, and how many bytes are there.
    data_start: u64,
    data_bytes: u64,
    /// The file that is being read, of those in `paths`.
    at: usize,
    bytes: Box<dyn Read + Send>,
    /// Whether what follows cannot be found.
    is_lost: bool,
}

impl PixelReader {
    /// Opens the files of a header, and checks that the first frame can be there.
    pub(super) fn open(header: &Header, path: &Path) -> Result<Self, MediaError> {
        let paths = header.data_file.paths(path);
        let data_path = paths.first().cloned().unwrap_or_else(|| path.to_owned());
        let file_bytes = file_bytes(&data_path)?;
        let frame_bytes = header.frame_bytes();
        let frames_per_file = match header.data_file {
            DataFile::Each { frames, .. } => frames,
            // Frames that stand together are read as one.
            _ => header.frame_count / header.interleaved,
        };
        let data_start = data_start(header, file_bytes, frames_per_file);
        let there = file_bytes.saturating_sub(data_start);
        let data_bytes = match header.compressed_size {
            Some(size) if header.encoding.is_compressed() => size.min(there),
            _ => there,
        };
        let could_hold = match header.encoding {
            Encoding::Plain => data_bytes,
            Encoding::Deflated => data_bytes.saturating_mul(MAX_INFLATION),
            // Nothing is known of how much bzip2 makes of a byte.
            Encoding::Bzip2 => u64::MAX,
            // A digit and a space are a number.
            Encoding::Text => data_bytes.div_ceil(2).saturating_mul(header.element.bytes() as u64),
        };
        if could_hold < frame_bytes {
            return Err(MediaError::Truncated {
                path: data_path,
                frame_id: 0,
                frame_count: header.frame_count,
                missing: if header.encoding == Encoding::Deflated {
                    header.compressed_size.unwrap_or(0).max(frame_bytes / MAX_INFLATION + 1) - data_bytes
                } else {
                    frame_bytes - could_hold
                },
            });
        }
        if header.encoding.is_compressed()
            && frame_bytes > FREE_BYTES.saturating_add(file_bytes.saturating_mul(BYTES_PER_FILE_BYTE))
        {
            let problem = format!(
                "{frame_bytes} bytes are said to be in a compressed file of {file_bytes}, which is more than a file of its size \
                 may unpack to: save it without compression"
            );
            return Err(MediaError::corrupt(path, 0, problem));
        }
        let bytes = start(&data_path, header, data_start, data_bytes)?;
        Ok(PixelReader {
            paths: if paths.is_empty() { vec![data_path] } else { paths },
            frames_per_file: frames_per_file.max(1),
            data_start,
            data_bytes,
            at: 0,
            bytes,
            is_lost: false,
        })
    }

    /// The file that a frame is in.
    pub(super) fn path(&self, frame_id: u64) -> &Path {
        let at = usize::try_from(frame_id / self.frames_per_file).unwrap_or(usize::MAX);
        &self.paths[at.min(self.paths.len() - 1)]
    }

    /// Whether no frame can be found any more after one that failed.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost
    }

    pub(super) fn rewind(&mut self, header: &Header) -> Result<(), MediaError> {
        (self.at, self.is_lost) = (0, false);
        self.bytes = start(&self.paths[0], header, self.data_start, self.data_bytes)?;
        Ok(())
    }

    /// Reads the values of a frame, which must be the next.
    pub(super) fn read(
        &mut self,
        header: &Header,
        frame_id: u64,
        raw: &mut Vec<u8>,
    ) -> Result<(), MediaError> {
        let at = usize::try_from(frame_id / self.frames_per_file).unwrap_or(usize::MAX);
        if self.paths.len() > 1 && (at != self.at || self.is_lost) {
            // A file that cannot be read takes its own frames along, and no other's.
            (self.at, self.is_lost) = (at, false);
            let path = self.path(frame_id).to_owned();
            let data_start = data_start(header, file_bytes(&path)?, self.frames_per_file);
            self.bytes = start(&path, header, data_start, u64::MAX)?;
        }
        let frame_bytes = header.frame_bytes();
        let path = self.path(frame_id).to_owned();
        raw.clear();
        // In one piece, for a buffer that grows takes three times as much. Memory that nobody has written is not there yet.
        let room = usize::try_from(frame_bytes).ok();
        if room.is_none_or(|bytes| raw.try_reserve_exact(bytes).is_err()) {
            let problem = format!("there is no memory for a frame of {frame_bytes} bytes");
            return Err(MediaError::corrupt(&path, frame_id, problem));
        }
        let result = (&mut self.bytes).take(frame_bytes).read_to_end(raw);
        let length = raw.len() as u64;
        if result.is_ok() && length == frame_bytes {
            return Ok(());
        }
        self.is_lost = self.paths.len() == 1;
        Err(match result {
            Err(error) if error.kind() == ErrorKind::InvalidData && header.encoding == Encoding::Text => {
                MediaError::corrupt(&path, frame_id, error.to_string())
            }
            Err(error) if error.kind() != ErrorKind::UnexpectedEof => {
                if header.encoding.is_compressed() {
                    let problem = "its compressed data is corrupt, and no frame after it can be read";
                    MediaError::corrupt(&path, frame_id, problem)
                } else {
                    MediaError::io("read", &path)(error)
                }
            }
            _ => MediaError::Truncated {
                path,
                frame_id,
                frame_count: header.frame_count,
                missing: frame_bytes - length,
            },
        })
    }

    /// After the last frame: a compressed stream must end here, with the right checksum.
    pub(super) fn check_end(&mut self, header: &Header) -> Result<(), MediaError> {
        if !header.encoding.is_compressed() {
            return Ok(());
        }
        let last = header.frame_count - 1;
        let problem = match self.bytes.read(&mut [0]) {
            Ok(0) => return Ok(()),
            Ok(_) => "more pixels follow than the header announces",
            Err(_) => "the compressed data up to here fails its checksum, so some frames may be damaged",
        };
        Err(MediaError::corrupt(self.path(last), last, problem))
    }
}

/// Where the frames of a file of this length begin, lines aside.
fn data_start(header: &Header, file_bytes: u64, frames: u64) -> u64 {
    let behind_header = if header.data_file == DataFile::Local { header.header_bytes } else { 0 };
    match header.skip_bytes {
        -1 if header.encoding == Encoding::Plain && (header.skips_unpacked || behind_header == 0) => {
            file_bytes.saturating_sub(header.frame_bytes().saturating_mul(frames))
        }
        _ if header.skips_unpacked && header.encoding.is_compressed() => behind_header,
        // MetaIO passes nothing over behind a header.
        _ if header.data_file == DataFile::Local && !header.skips_unpacked => behind_header,
        bytes => behind_header + bytes.max(0) as u64,
    }
}

/// The bytes of frames, from a place in a file on.
fn start(
    path: &Path,
    header: &Header,
    data_start: u64,
    data_bytes: u64,
) -> Result<Box<dyn Read + Send>, MediaError> {
    let read = || -> io::Result<Box<dyn Read + Send>> {
        let mut file = File::open(path)?;
        let is_compressed = header.encoding.is_compressed();
        // Bytes are counted from the lines on.
        let lines_start = if header.data_file == DataFile::Local { header.header_bytes } else { 0 };
        let has_lines = header.skip_lines > 0 && header.skip_bytes != -1;
        file.seek(SeekFrom::Start(if has_lines { lines_start } else { data_start }))?;
        let mut packed = BufReader::with_capacity(BUFFER, file);
        if has_lines {
            for _ in 0..header.skip_lines {
                (&mut packed).take(MAX_LINE_BYTES).skip_until(b'\n')?;
            }
            skip(&mut packed, data_start - lines_start)?;
        }
        let mut bytes: Box<dyn BufRead + Send> =
            if is_compressed { unpacked(packed.take(data_bytes))? } else { Box::new(packed) };
        if is_compressed && header.skips_unpacked {
            skip(&mut bytes, header.skip_bytes.max(0) as u64)?;
        }
        Ok(match header.encoding {
            Encoding::Text => Box::new(TextReader::new(bytes, header.element)),
            _ => Box::new(bytes),
        })
    };
    read().map_err(MediaError::io("read", path))
}

fn skip(bytes: &mut impl Read, count: u64) -> io::Result<u64> {
    io::copy(&mut bytes.take(count), &mut io::sink())
}

/// What is packed. zlib is told from gzip and bzip2 by how these begin.
fn unpacked(mut packed: Take<BufReader<File>>) -> io::Result<Box<dyn BufRead + Send>> {
    let is_gzip = packed.fill_buf()?.starts_with(&[0x1F, 0x8B]);
    let is_bzip2 = packed.fill_buf()?.starts_with(b"BZh");
    Ok(if is_gzip {
        Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(packed)))
    } else if is_bzip2 {
        Box::new(BufReader::with_capacity(BUFFER, MultiBzDecoder::new(packed)))
    } else {
        Box::new(BufReader::with_capacity(BUFFER, ZlibDecoder::new(packed)))
    })
}

fn file_bytes(path: &Path) -> Result<u64, MediaError> {
    Ok(open_file(path)?.metadata().map_err(MediaError::io("read", path))?.len())
}

pub(crate) fn open_file(path: &Path) -> Result<File, MediaError> {
    // Opening a pipe would block, and a folder opens without complaint on some systems.
    let metadata = std::fs::metadata(path).map_err(MediaError::io("open", path))?;
    if !metadata.is_file() {
        let reason = std::io::Error::other("it is not a file");
        return Err(MediaError::io("open", path)(reason));
    }
    File::open(path).map_err(MediaError::io("open", path))
}
