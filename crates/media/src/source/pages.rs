//! Files with several pictures: TIFF with pages, animated GIF.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use tiff::ColorType;
use tiff::decoder::{Decoder, DecodingResult, Limits};

use super::FrameSource;
use super::animation::Animation;
use super::images::narrow;
use crate::error::{MediaError, printable};
use ultramotion_types::{Frame, MAX_SIDE_PX};

/// The most that a page may take while it is decoded.
const MAX_PAGE_BYTES: usize = MAX_SIDE_PX * MAX_SIDE_PX * 8;

/// The pages of a file, one after the other.
pub struct Pages {
    path: PathBuf,
    name: String,
    reader: Reader,
    next_frame_id: u64,
    nominal_frames_per_second: f64,
    finished: bool,
}

enum Reader {
    Tiff(Box<Decoder<BufReader<File>>>),
    Gif(Box<Animation<BufReader<File>>>),
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pages").field("name", &self.name).field("next", &self.next_frame_id).finish()
    }
}

impl Pages {
    /// A TIFF file; a page is decoded when its frame is read. Grey and colour of 8 and 16 bits are taken, the latter scaled from
    /// their full range.
    pub fn open_tiff(path: &Path) -> Result<Self, MediaError> {
        Ok(Self::new(path, Reader::tiff(path)?))
    }

    /// A GIF file; frames have the times that it says.
    pub fn open_gif(path: &Path) -> Result<Self, MediaError> {
        Ok(Self::new(path, Reader::gif(path)?))
    }

    fn new(path: &Path, reader: Reader) -> Self {
        Pages {
            path: path.to_owned(),
            name: path.display().to_string(),
            reader,
            next_frame_id: 0,
            nominal_frames_per_second: super::NOMINAL_FRAMES_PER_SECOND,
            finished: false,
        }
    }

    /// Reads the next page; `None` behind the last one. Whether there may be more is in `finished`.
    fn read(&mut self) -> Option<Result<Frame, MediaError>> {
        let frame_id = self.next_frame_id;
        let damaged = |path: &Path, error: &dyn std::fmt::Display| {
            let reason = printable(&error.to_string(), 120);
            MediaError::corrupt(path, frame_id, format!("the picture is damaged or cut short ({reason})"))
        };
        match &mut self.reader {
            Reader::Tiff(decoder) => {
                if frame_id > 0 {
                    if !decoder.more_images() {
                        return None;
                    }
                    if let Err(error) = decoder.next_image() {
                        self.finished = true;
                        return Some(Err(damaged(&self.path, &error)));
                    }
                }
                Some(page(decoder, &self.path, frame_id).map_err(|problem| match problem {
                    Problem::Tiff(error) => damaged(&self.path, &error),
                    Problem::Ours(error) => error,
                }))
            }
            Reader::Gif(animation) => match animation.next() {
                Ok(frame) => frame.map(Ok),
                Err(error) => {
                    self.finished = true;
                    Some(Err(damaged(&self.path, &error)))
                }
            },
        }
    }
}

impl Reader {
    fn tiff(path: &Path) -> Result<Self, MediaError> {
        let file = File::open(path).map_err(MediaError::io("open", path))?;
        let mut limits = Limits::default();
        limits.decoding_buffer_size = MAX_PAGE_BYTES;
        limits.intermediate_buffer_size = MAX_PAGE_BYTES;
        let decoder = Decoder::new(BufReader::new(file)).map_err(|error| not_a(path, "TIFF", &error))?;
        Ok(Reader::Tiff(Box::new(decoder.with_limits(limits))))
    }

    fn gif(path: &Path) -> Result<Self, MediaError> {
        let file = File::open(path).map_err(MediaError::io("open", path))?;
        let animation = Animation::new(BufReader::new(file)).map_err(|error| not_a(path, "GIF", &error))?;
        let [width, height] = animation.size_px();
        check_size(path, width, height)?;
        Ok(Reader::Gif(Box::new(animation)))
    }
}

fn not_a(path: &Path, kind: &str, error: &dyn std::fmt::Display) -> MediaError {
    let reason = printable(&error.to_string(), 120);
    MediaError::corrupt(path, 0, format!("the {kind} data is damaged or cut short ({reason})"))
}

fn check_size(path: &Path, width: u32, height: u32) -> Result<(), MediaError> {
    let limit = 1..=MAX_SIDE_PX as u32;
    if limit.contains(&width) && limit.contains(&height) {
        return Ok(());
    }
    Err(MediaError::Size { path: path.to_owned(), width: width.into(), height: height.into() })
}

enum Problem {
    Tiff(tiff::TiffError),
    Ours(MediaError),
}

impl From<tiff::TiffError> for Problem {
    fn from(error: tiff::TiffError) -> Self {
        Problem::Tiff(error)
    }
}

/// Decodes the current page.
fn page(decoder: &mut Decoder<BufReader<File>>, path: &Path, frame_id: u64) -> Result<Frame, Problem> {
    let (width, height) = decoder.dimensions()?;
    check_size(path, width, height).map_err(Problem::Ours)?;
    let colours = decoder.colortype()?;
    let channels = match colours {
        ColorType::Gray(_) => 1,
        ColorType::GrayA(_) => 2,
        ColorType::RGB(_) => 3,
        ColorType::RGBA(_) => 4,
        other => {
            let problem = format!(
                "its pixels are {other:?}: only grey and red-green-blue can be read, convert the file"
            );
            return Err(Problem::Ours(MediaError::corrupt(path, frame_id, problem)));
        }
    };
    let samples: Vec<u8> = match decoder.read_image()? {
        DecodingResult::U8(samples) => samples,
        DecodingResult::U16(samples) => samples.into_iter().map(narrow).collect(),
        _ => {
            let problem =
                format!("its samples are {colours:?}: only 8 and 16 bits can be read, convert the file");
            return Err(Problem::Ours(MediaError::corrupt(path, frame_id, problem)));
        }
    };
    let (width, height) = (width as usize, height as usize);
    // Samples of fewer than 8 bits come packed.
    if samples.len() != width * height * channels {
        let problem =
            format!("its samples are {colours:?}: only 8 and 16 bits can be read, convert the file");
        return Err(Problem::Ours(MediaError::corrupt(path, frame_id, problem)));
    }
    Ok(match channels {
        1 => Frame::grey8(width, height, samples),
        2 => Frame::grey8(width, height, samples.chunks_exact(2).map(|pixel| pixel[0]).collect()),
        3 => Frame::rgb8(width, height, samples),
        _ => Frame::rgb8(width, height, samples.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect()),
    })
}

impl FrameSource for Pages {
    fn name(&self) -> &str {
        &self.name
    }

    fn description(&self) -> String {
        match self.reader {
            Reader::Tiff(_) => "TIFF image; 16-bit values are scaled from 0 to 65535".into(),
            Reader::Gif(_) => "GIF animation".into(),
        }
    }

    fn frame_count_hint(&self) -> Option<u64> {
        None
    }

    fn read_into(&mut self, frame: &mut Frame) -> Option<Result<(), MediaError>> {
        if self.finished {
            return None;
        }
        let read = self.read();
        if read.is_none() {
            self.finished = true;
        }
        let frame_id = self.next_frame_id;
        self.next_frame_id += 1;
        Some(read?.map(|page| {
            let counted_s = frame_id as f64 / self.nominal_frames_per_second;
            let is_animation = matches!(self.reader, Reader::Gif(_));
            let timestamp_s = if is_animation { page.timestamp_s } else { counted_s };
            let source = self.name.clone();
            *frame = Frame { frame_id, timestamp_s, source, ..page };
        }))
    }

    fn rewind(&mut self) -> Result<(), MediaError> {
        self.reader = match self.reader {
            Reader::Tiff(_) => Reader::tiff(&self.path)?,
            Reader::Gif(_) => Reader::gif(&self.path)?,
        };
        (self.next_frame_id, self.finished) = (0, false);
        Ok(())
    }

    fn set_nominal_frames_per_second(&mut self, frames_per_second: f64) {
        self.nominal_frames_per_second = frames_per_second;
    }
}
