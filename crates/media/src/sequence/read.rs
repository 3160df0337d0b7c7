//! Reads sequences one frame at a time.

use std::path::Path;

use super::orientation::{Orientation, Turn};
use super::pixels::PixelReader;
use super::times::Times;
use super::{ElementType, Encoding, Header, Window};
use crate::error::{MediaError, printable};
use crate::source::FrameSource;
use ultramotion_types::{Frame, ImageStatus, PixelFormat};

/// A sequence being read. Memory holds one frame, however long the sequence is.
pub struct SequenceReader {
    name: String,
    /// What the header is, for people.
    format: &'static str,
    header: Header,
    turn: Turn,
    times: Times,
    pixels: PixelReader,
    next_frame_id: u64,
    finished: bool,
    /// Whether a frame without a time was spoken of.
    has_told_of_times: bool,
    window: Option<Window>,
    /// Frames that stand together as one, where they do.
    together: Vec<u8>,
    raw: Vec<u8>,
    scratch: Vec<u8>,
    nominal_frames_per_second: f64,
}

impl std::fmt::Debug for SequenceReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SequenceReader").field("name", &self.name).field("next", &self.next_frame_id).finish()
    }
}

impl SequenceReader {
    /// The frames behind a header that was read from `path`.
    pub(crate) fn of(header: Header, path: &Path, format: &'static str) -> Result<Self, MediaError> {
        let pixels = PixelReader::open(&header, path)?;
        Ok(Self {
            name: path.display().to_string(),
            format,
            window: header.window,
            turn: header.orientation.map(|orientation| orientation.turn()).unwrap_or_default(),
            times: Times::of(&header.fields),
            header,
            pixels,
            next_frame_id: 0,
            finished: false,
            has_told_of_times: false,
            together: Vec::new(),
            raw: Vec::new(),
            scratch: Vec::new(),
            nominal_frames_per_second: crate::source::NOMINAL_FRAMES_PER_SECOND,
        })
    }

    /// Frames the header announces.
    pub fn frame_count(&self) -> u64 {
        self.header.frame_count
    }

    /// Pixels in a row and number of rows, the same for all frames.
    pub fn size_px(&self) -> [usize; 2] {
        self.turn.sides([self.header.width, self.header.height])
    }

    /// The scalar type in the file.
    pub fn element_type(&self) -> ElementType {
        self.header.element
    }

    /// Reads the values of a frame, which must be the next, into `raw`.
    fn read_raw(&mut self, frame_id: u64) -> Result<(), MediaError> {
        let interleaved = self.header.interleaved;
        if interleaved == 1 {
            return self.pixels.read(&self.header, frame_id, &mut self.raw);
        }
        if frame_id.is_multiple_of(interleaved) {
            self.pixels.read(&self.header, frame_id, &mut self.together)?;
        }
        let value_bytes = self.header.channels * self.header.element.bytes();
        let at = (frame_id % interleaved) as usize * value_bytes;
        self.raw.clear();
        for values in self.together.chunks_exact(value_bytes * interleaved as usize) {
            self.raw.extend_from_slice(&values[at..at + value_bytes]);
        }
        Ok(())
    }

    fn decode_into(&mut self, frame_id: u64, frame: &mut Frame) -> Result<(), MediaError> {
        let header = &self.header;
        let fields = header.fields.get(&(frame_id / header.slices_per_entry));
        if let Some(status) = fields.and_then(|f| f.image_status.as_ref()).filter(|status| *status != "OK") {
            let status = printable(status, 40);
            let path = self.pixels.path(frame_id).to_owned();
            return Err(MediaError::MarkedInvalid { path, frame_id, status });
        }
        let rate = self.nominal_frames_per_second;
        frame.timestamp_s = match self.times.at(frame_id / header.slices_per_entry, rate) {
            Some((seconds, is_own)) => {
                if !is_own && !self.has_told_of_times {
                    self.has_told_of_times = true;
                    tracing::warn!(
                        frame = frame_id,
                        "{}: a frame has no time that is a number, and gets one between its neighbours'; so will others like it",
                        self.name
                    );
                }
                seconds
            }
            None => frame_id as f64 / rate,
        };
        frame.frame_id = frame_id;
        frame.source.clone_from(&self.name);
        [frame.width, frame.height] = self.turn.sides([header.width, header.height]);
        let colours = if header.channels >= 3 { 3 } else { 1 };
        frame.pixel_format = if colours == 3 { PixelFormat::Rgb8 } else { PixelFormat::Grey8 };
        frame.image_status = match fields.and_then(|f| f.image_status.as_ref()) {
            Some(_) => ImageStatus::Ok,
            None => ImageStatus::Unknown,
        };
        match fields {
            Some(fields) => frame.transforms.clone_from(&fields.transforms),
            None => frame.transforms.clear(),
        }
        let spacing_mm = fields.and_then(|fields| fields.spacing_mm).or(header.spacing_mm);
        frame.spacing_mm = spacing_mm.map(|spacing| self.turn.sides(spacing));
        match header.orientation {
            Some(Orientation::Known(_)) => frame.orientation = Some("MF".into()),
            Some(Orientation::Unknown) | None => frame.orientation = None,
        }
        let layout = (header.element, header.big_endian && header.encoding != Encoding::Text);
        if header.element == ElementType::U8 {
            std::mem::swap(&mut frame.pixels, &mut self.raw);
        } else {
            if self.window.is_none() {
                self.window = Window::of(&self.raw, layout.0, layout.1);
            }
            match self.window {
                Some(window) => window.apply(&self.raw, layout.0, layout.1, &mut frame.pixels),
                None => {
                    frame.pixels.clear();
                    frame.pixels.resize(self.raw.len() / layout.0.bytes(), 0);
                }
            }
        }
        drop_alpha(&mut frame.pixels, header.channels, colours);
        self.turn.apply(&mut frame.pixels, [header.width, header.height], colours, &mut self.scratch);
        Ok(())
    }
}

/// Keeps the first so many of each pixel's channels.
fn drop_alpha(pixels: &mut Vec<u8>, channels: usize, colours: usize) {
    if channels == colours {
        return;
    }
    let count = pixels.len() / channels;
    for pixel in 0..count {
        pixels.copy_within(pixel * channels..pixel * channels + colours, pixel * colours);
    }
    pixels.truncate(count * colours);
}

impl FrameSource for SequenceReader {
    fn name(&self) -> &str {
        &self.name
    }

    fn description(&self) -> String {
        let Header { element, channels, .. } = self.header;
        let values = element.name().trim_start_matches("MET_").to_ascii_lowercase();
        let window = match (element, self.window) {
            (ElementType::U8, _) => String::new(),
            (_, Some(Window { low, high })) => format!("; {low} to {high} become 0 to 255"),
            (_, None) => "; the range of the first frame becomes 0 to 255".into(),
        };
        format!("{}, {channels} x {values} a pixel{window}", self.format)
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
            return self.pixels.check_end(&self.header).err().map(Err);
        }
        self.next_frame_id += 1;
        if let Err(error) = self.read_raw(frame_id) {
            self.finished = self.pixels.is_lost();
            return Some(Err(error));
        }
        Some(self.decode_into(frame_id, frame))
    }

    fn rewind(&mut self) -> Result<(), MediaError> {
        self.pixels.rewind(&self.header)?;
        self.next_frame_id = 0;
        self.finished = false;
        Ok(())
    }

    fn set_nominal_frames_per_second(&mut self, frames_per_second: f64) {
        self.nominal_frames_per_second = frames_per_second;
    }
}
