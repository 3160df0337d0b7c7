//! DICOM: single pictures, films, and the series of a folder or a DICOMDIR.
//!
//! - `elements`: the attributes that pictures need. What identifies a patient is never read, and a frame's source is the path as it
//!   was given, so neither a frame nor a log nor an error can say it.
//! - `series`: the files that a path stands for, in order.
//! - `transfer`, `fragments`, `decode`: how pixels are coded, where each frame lies, and its samples.
//! - `pixels`, `palette`: samples to 8 bits.
//! - `region`, `times`: the part of the screen, the size of its pixels, and when a frame was taken.
//!
//! Memory holds one frame, coded and decoded, and the list of where the others are.

mod decode;
mod elements;
mod fragments;
mod palette;
mod pixels;
mod region;
mod series;
mod times;
mod transfer;

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use dicom_dictionary_std::tags;

pub use region::Region;
pub(super) use series::{is_dicom_file, is_dicom_folder};

use self::elements::Header;
use self::fragments::{Lost, Places};
use self::pixels::{Converter, Layout, Window};
use self::region::Cut;
use self::series::Entry;
use self::times::Times;
use self::transfer::Coding;
use super::FrameSource;
use crate::error::MediaError;
use ultramotion_types::Frame;

/// What of a study, and what of its pictures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DicomOptions {
    /// Number of the series, or its SeriesInstanceUID. Without it there must be only one series, or only one of ultrasound.
    pub series: Option<String>,
    /// Part of the screen.
    pub region: Region,
}

/// The frames of a DICOM series.
pub struct DicomFiles {
    path: PathBuf,
    name: String,
    region: Region,
    files: Vec<Entry>,
    next_file: usize,
    current: Option<Film>,
    /// Id of the next frame.
    next_frame_id: u64,
    /// Seconds from the first frame of the series to the first of the current file: those that files tell, and frames that were
    /// counted at the nominal rate.
    told_s: f64,
    counted: u64,
    /// One for the whole series, so that its brightness does not flicker.
    window: Option<Window>,
    /// The part of the screen that was spoken of last.
    said: Option<Cut>,
    said_burned_in: bool,
    has_begun: bool,
    encoded: Vec<u8>,
    samples: Vec<u8>,
    nominal_frames_per_second: f64,
}

impl std::fmt::Debug for DicomFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DicomFiles")
            .field("name", &self.name)
            .field("next", &self.next_frame_id)
            .finish_non_exhaustive()
    }
}

/// A file whose frames are being read.
struct Film {
    file: BufReader<File>,
    coding: Coding,
    big_endian: bool,
    layout: Layout,
    places: Places,
    converter: Converter,
    cut: Cut,
    times: Times,
    frame_count: u64,
    next: u64,
}

impl DicomFiles {
    /// Opens a file, a DICOMDIR or the folder of a study.
    ///
    /// The first file of the series is opened here, so a coding that is not decoded and a region that is not there are errors of
    /// this call; later files are opened when their frames are due.
    pub fn open(path: &Path, options: &DicomOptions) -> Result<Self, MediaError> {
        let files = series::choose(path, options.series.as_deref())?;
        let mut opened = Self {
            path: path.to_owned(),
            name: path.display().to_string(),
            region: options.region,
            files,
            next_file: 0,
            current: None,
            next_frame_id: 0,
            told_s: 0.0,
            counted: 0,
            window: None,
            said: None,
            said_burned_in: false,
            has_begun: false,
            encoded: Vec::new(),
            samples: Vec::new(),
            nominal_frames_per_second: super::NOMINAL_FRAMES_PER_SECOND,
        };
        let film = opened.open_film(0)?;
        // A film that was cut short ends with an error.
        opened.files[0].frame_count = film.frame_count.min(film.places.begun() + 1);
        (opened.current, opened.next_file) = (Some(film), 1);
        Ok(opened)
    }

    fn open_film(&mut self, index: usize) -> Result<Film, MediaError> {
        let problem = |problem: String| MediaError::Dicom { path: self.path.clone(), problem };
        let path = &self.files[index].path;
        let header = Header::read(path, &self.path)?;
        let data_set = &header.data_set;
        let element =
            header.pixels.ok_or_else(|| problem("it has no pixels: give a file with pictures".to_owned()))?;
        let coding = Coding::of(&header.transfer_syntax).ok_or_else(|| {
            problem(format!("its transfer syntax {}", transfer::not_decoded(&header.transfer_syntax)))
        })?;
        let layout = Layout::of(data_set).map_err(problem)?;
        if !layout.has_good_sides() {
            let (width, height) = (layout.width as u64, layout.height as u64);
            return Err(MediaError::Size { path: self.path.clone(), width, height });
        }
        if coding == Coding::Native {
            layout.check_native().map_err(problem)?;
        }
        let frame_count = match data_set.text(tags::NUMBER_OF_FRAMES) {
            Some(text) => text
                .parse::<u64>()
                .map_err(|_| problem("its number of frames is not a number".to_owned()))?
                .max(1),
            None => 1,
        };
        let mut file = BufReader::new(File::open(path).map_err(MediaError::io("open", &self.path))?);
        let frame_bytes = layout.native_bytes() as u64;
        let places =
            Places::find(&mut file, &header, element, coding, frame_count, frame_bytes).map_err(problem)?;
        let cut = region::cut(data_set, self.region, layout.width, layout.height).map_err(problem)?;
        let window = if self.has_begun { self.window } else { Window::of(data_set) };
        let converter = Converter::new(data_set, layout.clone(), window).map_err(problem)?;
        let times = Times::of(data_set, frame_count);
        let is_burned_in = data_set.text(tags::BURNED_IN_ANNOTATION).as_deref() == Some("YES");
        self.has_begun = true;
        self.window = window;
        if is_burned_in && !self.said_burned_in {
            self.said_burned_in = true;
            tracing::warn!(
                "{}: its pictures have text burned in that may say who the patient is: what is drawn on them shows it too",
                self.name
            );
        }
        if self.said != Some(cut) {
            self.said = Some(cut);
            self.say(cut);
        }
        let big_endian = data_set.big_endian();
        Ok(Film { file, coding, big_endian, layout, places, converter, cut, times, frame_count, next: 0 })
    }

    fn say(&self, cut: Cut) {
        let size = cut.spacing_mm.map_or_else(
            || "the size of its pixels is not known".to_owned(),
            |[x, y]| format!("its pixels are {x:.4} x {y:.4} mm"),
        );
        match cut.rectangle {
            Some(r) => tracing::info!(
                "{}: frames are the region of {}x{} pixels at {},{} of the screen; {size}",
                self.name,
                r.width,
                r.height,
                r.left,
                r.top
            ),
            None if self.region == Region::Auto => tracing::info!(
                "{}: it names no region of two-dimensional tissue, so frames are the whole screen; {size}",
                self.name
            ),
            None => tracing::info!("{}: frames are the whole screen; {size}", self.name),
        }
    }

    /// Ends the current file, so that the next begins when it should.
    fn close_film(&mut self) {
        let Some(film) = self.current.take() else { return };
        let frame_count = film.frame_count.min(film.places.begun());
        match film.times {
            Times::Unknown => self.counted += frame_count,
            times => self.told_s += times.at(frame_count, self.nominal_frames_per_second),
        }
    }
}

impl Film {
    /// Reads frame `index` of the file into `frame`: its pixels, their size, and nothing else.
    fn read(
        &mut self,
        index: u64,
        window: &mut Option<Window>,
        encoded: &mut Vec<u8>,
        samples: &mut Vec<u8>,
        frame: &mut Frame,
    ) -> Result<(), Failure> {
        self.places.read(&mut self.file, index, encoded).map_err(Failure::Lost)?;
        let decoded = decode::decode(self.coding, &self.layout, self.big_endian, encoded, samples)
            .map_err(Failure::Bad)?;
        if self.converter.needs_window() {
            *window = window.or_else(|| self.converter.range(samples));
            if let Some(window) = *window {
                self.converter.set_window(window);
            }
        }
        self.converter.convert(decoded, samples, frame).map_err(Failure::Bad)?;
        if let Some(rectangle) = self.cut.rectangle {
            rectangle.keep_of(frame);
        }
        frame.spacing_mm = self.cut.spacing_mm;
        Ok(())
    }
}

/// Why a frame cannot be had.
enum Failure {
    Lost(Lost),
    Bad(String),
}

impl FrameSource for DicomFiles {
    fn name(&self) -> &str {
        &self.name
    }

    fn description(&self) -> String {
        match self.files.len() {
            1 => "DICOM".into(),
            files => format!("DICOM series of {files} files"),
        }
    }

    fn frame_count_hint(&self) -> Option<u64> {
        Some(self.files.iter().map(|file| file.frame_count).fold(0, u64::saturating_add))
    }

    fn read_into(&mut self, frame: &mut Frame) -> Option<Result<(), MediaError>> {
        if self.current.as_ref().is_some_and(|film| film.next >= film.frame_count) {
            self.close_film();
        }
        if self.current.is_none() {
            let entry = self.files.get(self.next_file)?;
            let claimed = entry.frame_count;
            self.next_file += 1;
            match self.open_film(self.next_file - 1) {
                Ok(film) => self.current = Some(film),
                Err(error) => {
                    self.next_frame_id += claimed;
                    return Some(Err(error));
                }
            }
        }
        let film = self.current.as_mut()?;
        let (index, frame_id) = (film.next, self.next_frame_id);
        film.next += 1;
        self.next_frame_id += 1;
        let pixels = std::mem::take(&mut frame.pixels);
        let rate = self.nominal_frames_per_second;
        let timestamp_s = match &film.times {
            Times::Unknown => self.told_s + (self.counted + index) as f64 / rate,
            times => self.told_s + self.counted as f64 / rate + times.at(index, rate),
        };
        *frame = Frame { frame_id, timestamp_s, source: self.name.clone(), pixels, ..Frame::default() };
        let read = film.read(index, &mut self.window, &mut self.encoded, &mut self.samples, frame);
        let path = &self.path;
        let frame_count = film.frame_count;
        Some(read.map_err(|failure| match failure {
            Failure::Bad(problem) => MediaError::corrupt(path, frame_id, problem),
            Failure::Lost(Lost::Io(error)) => MediaError::io("read", path)(error),
            // What follows is missing too.
            Failure::Lost(Lost::Missing(missing)) => {
                film.next = frame_count;
                MediaError::Truncated { path: path.clone(), frame_id, frame_count, missing }
            }
            Failure::Lost(Lost::Piece) => {
                film.next = frame_count;
                let problem = format!(
                    "of the {frame_count} frames that the file announces, it ends at this: copy it again"
                );
                MediaError::corrupt(path, frame_id, problem)
            }
        }))
    }

    fn rewind(&mut self) -> Result<(), MediaError> {
        self.current = None;
        (self.next_file, self.next_frame_id) = (0, 0);
        (self.told_s, self.counted) = (0.0, 0);
        Ok(())
    }

    fn set_nominal_frames_per_second(&mut self, frames_per_second: f64) {
        self.nominal_frames_per_second = frames_per_second;
    }
}
