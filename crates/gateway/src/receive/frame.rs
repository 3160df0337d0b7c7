//! A frame as it came from the scanner.

use std::sync::Arc;
use std::time::Duration;

use image::ExtendedColorType;
use ultramotion_igtlink::{CoordinateSystem, DeviceName, Placement, RawMessage, Timestamp};
use ultramotion_types::{Frame, FrameView, Matrix, NamedTransform, PixelFormat, TimeSource};

use crate::books::Ticket;
use crate::receive::poses::MatchedPose;
use crate::recycle::Recycled;

/// A live frame: pixels as the pipeline takes them, and all that the scanner said about them.
///
/// Its pixels' memory goes back to where it came from when it is dropped, and serves a later frame.
#[derive(Debug)]
pub struct LiveFrame {
    /// Its entry in the books, with its number and time of arrival.
    pub ticket: Ticket,
    /// The scanner's own time, to the bit; that of its arrival where the scanner gives none.
    pub timestamp: Timestamp,
    /// Which of the two it is.
    pub time_source: TimeSource,
    /// How much longer it was on its way than the fastest, where the scanner's clock says.
    pub late_by: Option<Duration>,
    /// Device name of its message.
    pub device: DeviceName,
    /// Where it comes from, as a URL with the device.
    pub source: Arc<str>,
    /// Pixels of the image along i, j and k; k is 1.
    pub size: [u16; 3],
    /// Layout of `pixels`.
    pub format: PixelFormat,
    /// `[height, width, channels]`.
    pub pixels: Recycled<Vec<u8>>,
    /// Where the image lies.
    pub placement: Placement,
    /// Where the middles of its pixels lie in the tracker's frame, as known when it is computed.
    pub tracker_from_pixels: Option<Matrix>,
    /// Axes that `placement` speaks of.
    pub coordinates: CoordinateSystem,
    /// Transforms of the frame with the status of their tools, as far as the scanner says.
    pub statuses: Vec<(String, String)>,
    /// Whether the device was given another name, which does not say what the image is placed in.
    pub is_renamed: bool,
    /// Its message, for one who has asked for it.
    pub message: Option<RawMessage>,
}

impl LiveFrame {
    /// Pixels in a row.
    pub fn width(&self) -> usize {
        self.size[0].into()
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.size[1].into()
    }

    /// How old it is: from its own timestamp, where that can be compared, less the shortest time that a frame took to come;
    /// else from its arrival.
    pub fn age(&self) -> Duration {
        self.ticket.arrived().elapsed() + self.late_by.unwrap_or_default()
    }

    /// The time by which poses are found: none for a frame that has none.
    pub fn pose_time(&self) -> Timestamp {
        match self.time_source {
            TimeSource::Source => self.timestamp,
            TimeSource::Arrival => Timestamp::NONE,
        }
    }

    /// As the pipeline takes it.
    pub fn view(&self) -> FrameView<'_> {
        FrameView {
            frame_id: self.ticket.frame_id(),
            timestamp_s: self.timestamp.as_secs_f64(),
            time_source: self.time_source,
            source: &self.source,
            width: self.width(),
            height: self.height(),
            pixel_format: self.format,
            pixels: &self.pixels,
            tracker_from_pixels: self.tracker_from_pixels,
        }
    }

    /// Layout of `pixels`, as encoders of pictures have it.
    pub(crate) fn color_type(&self) -> ExtendedColorType {
        match self.format {
            PixelFormat::Grey8 => ExtendedColorType::L8,
            PixelFormat::Rgb8 => ExtendedColorType::Rgb8,
        }
    }

    /// Width and height of a pixel.
    pub fn spacing_mm(&self) -> [f64; 2] {
        let [x, y, _] = self.placement.spacing_mm();
        [x, y]
    }

    /// As a frame of a file, with poses; takes the pixels out.
    pub fn take_frame(&mut self, poses: &[MatchedPose]) -> Frame {
        Frame {
            frame_id: self.ticket.frame_id(),
            timestamp_s: self.timestamp.as_secs_f64(),
            time_source: self.time_source,
            source: self.source.to_string(),
            width: self.width(),
            height: self.height(),
            pixel_format: self.format,
            pixels: std::mem::take(&mut *self.pixels),
            transforms: poses.iter().map(named_transform).collect(),
            spacing_mm: Some(self.spacing_mm()),
            ..Frame::default()
        }
    }
}

/// A pose as files hold it. Names of files are letters and digits: others are left out of them.
pub(crate) fn named_transform(pose: &MatchedPose) -> NamedTransform {
    let name: String = pose.name.chars().filter(char::is_ascii_alphanumeric).collect();
    let name = if name.is_empty() { "Unnamed".to_owned() } else { name };
    NamedTransform { name, matrix: pose.matrix, valid: pose.valid }
}
