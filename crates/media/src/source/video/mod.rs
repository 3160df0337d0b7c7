//! Videos, cameras and capture cards, decoded by the `ffmpeg` that is installed.
//!
//! Frames come through a pipe, with their presentation times (so a variable rate is kept) and turned as the file says; no file
//! is written. Colour comes as red, green, blue, and grey as grey.

mod ffmpeg;
mod showinfo;

use std::ffi::OsString;
use std::path::Path;

use ffmpeg::{Decoder, Delivery};

use super::FrameSource;
use crate::error::MediaError;
use ultramotion_types::{Frame, PixelFormat};

/// Endings of file names that are taken for videos, in lower case.
pub(super) const ENDINGS: [&str; 11] =
    ["mp4", "m4v", "mov", "avi", "mkv", "webm", "wmv", "mpg", "mpeg", "ts", "ogv"];

/// Whether a file begins like a video: ISO base media (MP4, MOV), RIFF AVI, Matroska (WebM), ASF (WMV), MPEG program stream, Ogg.
pub(super) fn is_video(head: &[u8]) -> bool {
    head.get(4..8) == Some(b"ftyp")
        || (head.starts_with(b"RIFF") && head.get(8..12) == Some(b"AVI "))
        || [&[0x1A, 0x45, 0xDF, 0xA3][..], &[0x30, 0x26, 0xB2, 0x75], &[0, 0, 1, 0xBA], b"OggS"]
            .iter()
            .any(|magic| head.starts_with(magic))
}

/// How each system names what captures images, for ffmpeg.
#[cfg(target_os = "linux")]
const CAPTURE: (&str, &str) = ("v4l2", "");
#[cfg(target_os = "macos")]
const CAPTURE: (&str, &str) = ("avfoundation", "");
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
const CAPTURE: (&str, &str) = ("dshow", "video=");

/// A video, or what a camera sees.
#[derive(Debug)]
pub struct Video {
    name: String,
    input: Vec<OsString>,
    delivery: Delivery,
    frame_count: Option<u64>,
    decoder: Decoder,
    next_frame_id: u64,
    finished: bool,
}

impl Video {
    /// A file. Its first frame is decoded, so that what is no video is told at once.
    pub fn open(path: &Path) -> Result<Self, MediaError> {
        // Never another protocol, whatever the name looks like, and no option.
        let mut url = OsString::from("file:");
        url.push(path);
        let input = vec!["-protocol_whitelist".into(), "file".into(), "-i".into(), url.clone()];
        let frame_count = ffmpeg::frame_count(&url);
        Self::start(path.display().to_string(), input, Delivery::All, frame_count)
    }

    /// A camera or capture card: a device file (Linux), a name (Windows) or a number (macOS). Frames that nobody has read when the
    /// next one comes are left out.
    pub fn open_device(device: &str) -> Result<Self, MediaError> {
        let (format, prefix) = CAPTURE;
        let input = ["-f", format, "-i", &format!("{prefix}{device}")].map(OsString::from).to_vec();
        Self::start(format!("device:{device}"), input, Delivery::Newest, None)
    }

    fn start(
        name: String,
        input: Vec<OsString>,
        delivery: Delivery,
        frame_count: Option<u64>,
    ) -> Result<Self, MediaError> {
        let mut decoder = Decoder::start(&name, &input, delivery)?;
        decoder.wait_for_first(&name)?;
        Ok(Video { name, input, delivery, frame_count, decoder, next_frame_id: 0, finished: false })
    }
}

impl FrameSource for Video {
    fn name(&self) -> &str {
        &self.name
    }

    fn description(&self) -> String {
        match self.delivery {
            Delivery::All => "video, decoded by ffmpeg".into(),
            Delivery::Newest => "camera or capture card, read by ffmpeg".into(),
        }
    }

    fn frame_count_hint(&self) -> Option<u64> {
        self.frame_count
    }

    fn read_into(&mut self, frame: &mut Frame) -> Option<Result<(), MediaError>> {
        if self.finished {
            return None;
        }
        let spare = std::mem::take(&mut frame.pixels);
        let picture = match self.decoder.next(&self.name, spare) {
            Ok(Some(picture)) => picture,
            Ok(None) => {
                self.finished = true;
                return None;
            }
            Err(error) => {
                self.finished = true;
                return Some(Err(error));
            }
        };
        let frame_id = picture.number.max(self.next_frame_id);
        self.next_frame_id = frame_id + 1;
        *frame = Frame {
            frame_id,
            timestamp_s: picture.time_s,
            source: std::mem::take(&mut frame.source),
            width: picture.width,
            height: picture.height,
            pixel_format: if picture.channels == 3 { PixelFormat::Rgb8 } else { PixelFormat::Grey8 },
            pixels: picture.pixels,
            ..Frame::default()
        };
        frame.source.clone_from(&self.name);
        Some(Ok(()))
    }

    fn rewind(&mut self) -> Result<(), MediaError> {
        // A camera can be open once.
        self.decoder.stop();
        self.decoder = Decoder::start(&self.name, &self.input, self.delivery)?;
        (self.next_frame_id, self.finished) = (0, false);
        Ok(())
    }

    /// Frames of a video have times of their own.
    fn set_nominal_frames_per_second(&mut self, _frames_per_second: f64) {}
}
