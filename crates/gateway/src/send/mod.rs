//! Results as messages, to all who are connected.
//!
//! | device | type | says |
//! |---|---|---|
//! | `UM_Mask` | IMAGE | the identity of the structure at each pixel, placed like the source's image |
//! | `UM_Contours` | POLYDATA | outlines, in the frame that the source's images are placed in |
//! | `UM_TrackerContours` | POLYDATA | the same in the tracker's frame, while its poses are there |
//! | `UM_Objects` | STRING | the objects as JSON |
//! | `UM_Points` | POINT | the middle of each object |
//! | `UM_Status` | STATUS | state of the scene and of the source, when it changes |
//!
//! `UM_` is [`OutputConfig::prefix`]. Every message but STATUS carries the source's own timestamp, bit for bit. In
//! header version 2 it also has metadata: `FrameId`, `Source`, `State`, `CoordinateSystem`, `TrackIds`, `Labels`,
//! `Scores`, `LatencyMs` from the frame's arrival to this moment, and `AcquisitionLatencyMs` from its timestamp, given
//! only where the scanner's clock is no more than a minute behind this machine's. `PlacementStatus` is the status of the
//! tools that place the image, as far as it is known; `TimeSource` is `arrival` where the source gives no time. A frame without structures sends
//! empty outlines and an empty mask, so that nothing old stays on a screen; its points are empty too, or in version 1
//! a single one that cannot be seen, since old readers skip a message without a body.

mod audience;
mod contours;
mod dialogue;
mod guests;
mod pace;
mod pointing;
mod relay;
mod status;

use std::borrow::Cow;
use std::time::{Instant, SystemTime};

pub(crate) use audience::{Audience, in_version_1};
use audience::{UNSELECTED, unseen_point};
pub use contours::{Contours, OutlineValues};
pub use dialogue::{Dialogue, LiveParameters};
pub(crate) use guests::Guests;
use pace::Pace;
pub(crate) use pointing::{Plane, Pointing};
pub use relay::{Passed, Relay, RelayError};
use serde::Serialize;
pub use status::{GatewayState, StatusBoard};
use ultramotion_igtlink::{
    Content, CoordinateSystem, DeviceName, EncodeError, FixedString, HeaderVersion, Image, Message, Metadata,
    Point, Timestamp,
};
use ultramotion_types::pose::{moved, product};
use ultramotion_types::{DetectedObject, MaskView, Matrix, Quality, ResultPacket, TimeSource};

use crate::config::OutputConfig;
use crate::receive::LiveFrame;
use crate::receive::placement::Placed;
use crate::recycle::Recycled;

/// A frame with everything that is known about it.
#[derive(Debug)]
pub struct Answer {
    /// The frame.
    pub frame: LiveFrame,
    /// What the pipeline found.
    pub packet: Recycled<ResultPacket>,
    /// Where the frame lies, with the poses at its time.
    pub placed: Placed,
    /// Since when its tracks are known.
    pub epoch: Epoch,
}

/// A time in which tracks go on: another one begins with another pipeline, and where a pipeline begins its tracks anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Epoch {
    /// Pipelines before the one that computes.
    pub pipelines_before: u64,
    /// Epochs of the pipeline before this one.
    pub of_pipeline: u64,
}

/// Names of the devices that results are sent as.
#[derive(Debug, Clone)]
pub struct DeviceNames {
    mask: DeviceName,
    contours: DeviceName,
    tracker_contours: DeviceName,
    objects: DeviceName,
    points: DeviceName,
    /// STATUS.
    pub status: DeviceName,
}

impl DeviceNames {
    /// With a checked prefix.
    pub fn new(prefix: &str) -> Self {
        let name = |suffix: &str| DeviceName::truncated(&format!("{prefix}{suffix}"));
        DeviceNames {
            mask: name("Mask"),
            contours: name("Contours"),
            tracker_contours: name("TrackerContours"),
            objects: name("Objects"),
            points: name("Points"),
            status: name("Status"),
        }
    }

    /// Those that are sent.
    pub(crate) fn sent(&self, config: &OutputConfig) -> Vec<String> {
        [
            (config.mask, self.mask),
            (config.contours, self.contours),
            (config.tracker_contours, self.tracker_contours),
            (config.objects, self.objects),
            (config.points, self.points),
            (config.status, self.status),
        ]
        .into_iter()
        .filter(|(is_sent, _)| *is_sent)
        .map(|(_, name)| name.to_string_lossy().into_owned())
        .collect()
    }
}

/// Header version of the messages.
pub(crate) fn header_version(config: &OutputConfig) -> HeaderVersion {
    if config.version == 1 { HeaderVersion::V1 } else { HeaderVersion::V2 }
}

/// Makes messages of answers, reusing memory.
#[derive(Debug)]
pub struct Composer {
    config: OutputConfig,
    names: DeviceNames,
    label_pixels: Vec<u8>,
    contours: Pace,
    /// Whether outlines in the tracker's frame may be on screens.
    tracker_contours_shown: bool,
}

/// One object of `UM_Objects`.
#[derive(Debug, Serialize)]
struct ObjectText<'a> {
    track_id: i32,
    confirmed: bool,
    label: &'a str,
    score: f32,
    box_xyxy: [f32; 4],
    mask_score: f32,
    mask_area_px: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    quality: Option<Quality>,
    center_mm: [f32; 3],
}

/// The text of `UM_Objects`.
#[derive(Debug, Serialize)]
struct ObjectsText<'a> {
    frame_id: u64,
    timestamp: f64,
    state: &'static str,
    objects: Vec<ObjectText<'a>>,
}

/// 3D Slicer has one colour for all selected points of a list and one for the others, of the first that comes: they must
/// not change from frame to frame. Both are told apart on grey, also without seeing red from green (after Okabe and Ito,
/// 2008).
const CONFIRMED_RGBA: [u8; 4] = [240, 228, 66, 255];
const UNCONFIRMED_RGBA: [u8; 4] = [86, 180, 233, 255];

/// The packet without objects of a lower score: the last ones, since the best come first.
fn above(packet: &ResultPacket, score_threshold: f32) -> Cow<'_, ResultPacket> {
    let count = packet.objects.iter().take_while(|object| object.score >= score_threshold).count();
    if count == packet.objects.len() {
        return Cow::Borrowed(packet);
    }
    let mut fewer = packet.clone();
    fewer.objects.truncate(count);
    Cow::Owned(fewer)
}

/// The pixel value of an identity: 1 to 255 and round again.
pub fn label_of(track_id: i32) -> u8 {
    (track_id.max(1) - 1).rem_euclid(255) as u8 + 1
}

impl Composer {
    /// For a checked configuration.
    pub fn new(config: OutputConfig) -> Self {
        let names = DeviceNames::new(&config.prefix);
        let contours = Pace::new(config.contours_per_s);
        Composer { config, names, label_pixels: Vec::new(), contours, tracker_contours_shown: false }
    }

    /// Hands the answer's messages to `send`, one after another.
    pub fn compose(
        &mut self,
        answer: &Answer,
        parameters: &LiveParameters,
        mut send: impl FnMut(&Message<'_>) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        let Answer { frame, packet, placed, .. } = answer;
        let packet = &*above(packet, parameters.score_threshold());
        self.draw_labels(packet);
        self.contours.set(parameters.contours_per_s());
        let outlines_due = self.contours.is_due(Instant::now(), packet.objects.is_empty());
        let tracker_from_image = placed.tracker_from_image.filter(|_| self.config.tracker_contours);
        // What is on screens must go when it is not known any more where it is.
        let clear = tracker_from_image.is_none() && std::mem::take(&mut self.tracker_contours_shown);
        let world_from_ijk = frame.placement.world_from_ijk(frame.size);
        let texts = MetadataTexts::of(answer, packet);
        let version = header_version(&self.config);
        let message = |name: DeviceName, content| {
            let mut message = Message::new(name, content).at(frame.timestamp);
            message.version = version;
            if version.is_extended() {
                message.metadata = texts.metadata();
            }
            message
        };
        if self.config.mask {
            let mut image = Image::grey8(frame.size[0], frame.size[1], &self.label_pixels[..]);
            (image.placement, image.coordinates) = (frame.placement, frame.coordinates);
            send(&message(self.names.mask, Content::Image(image)))?;
        }
        let outlines = |name: DeviceName, content| {
            let mut message = message(name, content);
            if version.is_extended() {
                // The node that 3D Slicer makes of it.
                message.metadata.push("MRMLNodeName", "Model");
            }
            message
        };
        if self.config.contours && outlines_due {
            send(&outlines(self.names.contours, Self::contours(packet, &world_from_ijk)))?;
        }
        if clear {
            let nothing = Content::PolyData(Contours::default().finish());
            send(&outlines(self.names.tracker_contours, nothing))?;
        } else if let Some(tracker_from_image) = tracker_from_image.filter(|_| outlines_due) {
            let tracker_from_ijk = product(&tracker_from_image, &world_from_ijk);
            send(&outlines(self.names.tracker_contours, Self::contours(packet, &tracker_from_ijk)))?;
            self.tracker_contours_shown = !packet.objects.is_empty();
        }
        if self.config.objects {
            let text = Self::objects_text(packet, &world_from_ijk);
            send(&message(self.names.objects, Content::string(text)))?;
        }
        if self.config.points {
            send(&message(self.names.points, self.points(frame, packet, &world_from_ijk)))?;
        }
        Ok(())
    }

    /// The picture of identities; where objects overlap the better one shows.
    fn draw_labels(&mut self, packet: &ResultPacket) {
        self.label_pixels.clear();
        self.label_pixels.resize(packet.width * packet.height, 0);
        for (object, mask) in packet.objects_with_masks() {
            let label = label_of(object.track_id);
            for [x, y] in mask.pixels() {
                let pixel = &mut self.label_pixels[y * packet.width + x];
                if *pixel == 0 {
                    *pixel = label;
                }
            }
        }
    }

    /// Outlines of all objects as closed lines, with the identity, class and score of their object.
    fn contours(packet: &ResultPacket, target_from_ijk: &Matrix) -> Content<'static> {
        let mut contours = Contours::default();
        // Corners lie on the edges of pixels; the middle of the first pixel is at 0, 0.
        let place = |[x, y]: [u32; 2]| {
            moved(target_from_ijk, [f64::from(x) - 0.5, f64::from(y) - 0.5, 0.0]).map(|v| v as f32)
        };
        for (object, mask) in packet.objects_with_masks() {
            let (track_id, class, score) = (object.track_id, object.class, object.score);
            for outline in mask.outlines() {
                contours.push(outline.into_iter().map(place), OutlineValues { track_id, class, score });
            }
        }
        Content::PolyData(contours.finish())
    }

    /// Middle of an object in pixels: of its mask, or else of its box.
    fn middle_px(packet: &ResultPacket, index: usize) -> [f64; 2] {
        let in_mask = packet.mask(index).and_then(MaskView::centroid_px);
        in_mask.unwrap_or_else(|| {
            let [left, top, right, bottom] = packet.objects[index].box_xyxy.map(f64::from);
            [(left + right) / 2.0 - 0.5, (top + bottom) / 2.0 - 0.5]
        })
    }

    fn middle_mm(packet: &ResultPacket, index: usize, world_from_ijk: &Matrix) -> [f32; 3] {
        let [x, y] = Self::middle_px(packet, index);
        moved(world_from_ijk, [x, y, 0.0]).map(|v| v as f32)
    }

    fn objects_text(packet: &ResultPacket, world_from_ijk: &Matrix) -> String {
        let object = |(index, object): (usize, &DetectedObject)| ObjectText {
            track_id: object.track_id,
            confirmed: object.confirmed,
            label: packet.label(object.class),
            score: object.score,
            box_xyxy: object.box_xyxy,
            mask_score: object.mask_score,
            mask_area_px: object.mask_area_px,
            quality: object.quality,
            center_mm: Self::middle_mm(packet, index, world_from_ijk),
        };
        let text = ObjectsText {
            frame_id: packet.frame_id,
            timestamp: packet.timestamp_s,
            state: packet.state.as_str(),
            objects: packet.objects.iter().enumerate().map(object).collect(),
        };
        // Numbers and texts alone: this cannot fail.
        serde_json::to_string(&text).unwrap_or_default()
    }

    fn points(&self, frame: &LiveFrame, packet: &ResultPacket, world_from_ijk: &Matrix) -> Content<'static> {
        let [spacing_x, spacing_y] = frame.spacing_mm();
        let point = |(index, object): (usize, &DetectedObject)| {
            let label = packet.label(object.class);
            let area_mm2 = object.mask_area_px as f64 * spacing_x * spacing_y;
            let (group, rgba) =
                if object.confirmed { (label, CONFIRMED_RGBA) } else { (UNSELECTED, UNCONFIRMED_RGBA) };
            Point {
                group: FixedString::truncated(group),
                rgba,
                // Of the circle with the mask's area.
                diameter: (2.0 * (area_mm2 / std::f64::consts::PI).sqrt()) as f32,
                owner: self.names.mask,
                ..Point::new(
                    FixedString::truncated(&format!("{label} {}", object.track_id)),
                    Self::middle_mm(packet, index, world_from_ijk),
                )
            }
        };
        let mut points: Vec<Point> = packet.objects.iter().enumerate().map(point).collect();
        if points.is_empty() && !header_version(&self.config).is_extended() {
            points.push(unseen_point(self.names.mask, frame.placement.center));
        }
        Content::Points(points)
    }
}

/// Values of the metadata of an answer's messages.
struct MetadataTexts {
    entries: Vec<(&'static str, String)>,
}

impl MetadataTexts {
    fn of(answer: &Answer, packet: &ResultPacket) -> Self {
        let frame = &answer.frame;
        let joined = |text: &dyn Fn(&DetectedObject) -> String| {
            packet.objects.iter().map(text).collect::<Vec<_>>().join(",")
        };
        let axes = match frame.coordinates {
            CoordinateSystem::Ras => "RAS",
            CoordinateSystem::Lps => "LPS",
        };
        let latency_ms = frame.ticket.arrived().elapsed().as_secs_f64() * 1e3;
        let mut entries = vec![
            ("FrameId", packet.frame_id.to_string()),
            ("Source", frame.device.to_string_lossy().into_owned()),
            ("State", packet.state.as_str().to_owned()),
            ("CoordinateSystem", axes.to_owned()),
            ("TrackIds", joined(&|object| object.track_id.to_string())),
            ("Labels", joined(&|object| packet.label(object.class).to_owned())),
            ("Scores", joined(&|object| format!("{:.3}", object.score))),
            ("LatencyMs", format!("{latency_ms:.3}")),
        ];
        if packet.objects.iter().any(|object| object.quality.is_some()) {
            let mean = |object: &DetectedObject| object.quality.map_or(f32::NAN, |quality| quality.mean);
            entries.push(("Quality", joined(&|object| format!("{:.3}", mean(object)))));
        }
        if let Some(status) = &answer.placed.status {
            entries.push(("PlacementStatus", status.clone()));
        }
        if frame.time_source == TimeSource::Arrival {
            entries.push(("TimeSource", "arrival".to_owned()));
        } else if let Some(latency_ms) = acquisition_latency_ms(frame.timestamp, SystemTime::now()) {
            entries.push(("AcquisitionLatencyMs", format!("{latency_ms:.3}")));
        }
        MetadataTexts { entries }
    }

    fn metadata(&self) -> Metadata<'_> {
        let mut metadata = Metadata::default();
        self.entries.iter().for_each(|(key, value)| metadata.push(*key, value.as_str()));
        metadata
    }
}

/// Milliseconds from a timestamp to now, if the clocks seem to be the same.
pub fn acquisition_latency_ms(timestamp: Timestamp, now: SystemTime) -> Option<f64> {
    let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let latency_s = since_1970.as_secs_f64() - timestamp.as_secs_f64();
    (0.0..60.0).contains(&latency_s).then_some(1e3 * latency_s)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn identities_become_pixel_values_that_are_never_0() {
        assert_eq!([1, 2, 255, 256, 257, i32::MAX].map(label_of), [1, 2, 255, 1, 2, 127]);
        assert_eq!([0, -5].map(label_of), [1, 1]);
    }

    #[test]
    fn the_acquisition_latency_is_of_clocks_that_agree() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let at = |seconds: f64| acquisition_latency_ms(Timestamp::from_secs_f64(seconds), now);
        assert!((at(1_699_999_999.5).unwrap() - 500.0).abs() < 0.01);
        assert_eq!(at(12.0), None, "a scanner that counts from its start");
        assert_eq!(at(1_700_000_001.0), None, "a clock that is ahead");
        assert_eq!(acquisition_latency_ms(Timestamp::NONE, now), None);
    }
}
