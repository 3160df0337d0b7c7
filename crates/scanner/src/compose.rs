//! A frame as messages, spoiled where the dice say so.

use std::ops::Range;

use ultramotion_igtlink::{
    Content, CoordinateSystem, DeviceName, EncodeError, FixedString, HEADER_SIZE, HeaderVersion, Image,
    Message, Placement, ScalarType, Status, Timestamp, TrackedTool, Transform,
};
use ultramotion_types::{Frame, Matrix, NamedTransform, PixelFormat};

use super::config::{PoseMessages, SimulatorConfig};
use super::dice::{Dice, Roll};
use super::poses;

/// What a message is, for the books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Image,
    Pose,
}

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// A bit was turned.
    BadCrc,
    /// Only so many bytes are to be sent, and the connection is to end.
    Half(usize),
}

/// A message in a [`Bundle`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outgoing {
    pub(crate) bytes: Range<usize>,
    pub(crate) kind: Kind,
    pub(crate) fault: Fault,
}

/// All messages of a frame, in the order of sending.
#[derive(Debug, Default)]
pub(crate) struct Bundle {
    pub(crate) bytes: Vec<u8>,
    pub(crate) messages: Vec<Outgoing>,
}

/// Makes bundles of frames.
#[derive(Debug)]
pub(crate) struct Composer {
    config: SimulatorConfig,
    image_device: DeviceName,
    version: HeaderVersion,
    dice: Dice,
    poses: Vec<NamedTransform>,
    unplaced: bool,
}

impl Composer {
    pub(crate) fn new(config: &SimulatorConfig, image_device: DeviceName) -> Self {
        let dice = Dice { seed: config.mischief.seed };
        let version = config.header_version;
        Self { config: config.clone(), image_device, version, dice, poses: Vec::new(), unplaced: false }
    }

    /// Replaces what is in `bundle` by the messages of the frame with this number, which was taken `time_s` after the
    /// first, in this header version.
    pub(crate) fn compose(
        &mut self,
        frame: &Frame,
        (number, time_s): (u64, f64),
        stamp: Timestamp,
        version: HeaderVersion,
        bundle: &mut Bundle,
    ) -> Result<(), EncodeError> {
        bundle.bytes.clear();
        bundle.messages.clear();
        self.version = version;
        poses::collect(frame, time_s, &mut self.poses);
        let content = self.image(frame);
        let mut image = self.message(self.image_device, content, stamp, number);
        if image.version.is_extended() {
            image.metadata.push("FrameNumber", number.to_string());
            image.metadata.push("Timestamp", frame.timestamp_s.to_string());
            for pose in &self.poses {
                image.metadata.push(format!("{}Transform", pose.name), row_by_row(&pose.matrix));
                image.metadata.push(format!("{}TransformStatus", pose.name), status(pose));
            }
        }
        self.push(&image, Kind::Image, number, bundle)?;
        match self.config.poses {
            PoseMessages::None => Ok(()),
            PoseMessages::Transform => self.poses.iter().filter(|pose| pose.valid).try_for_each(|pose| {
                let content = Content::Transform(narrow(&pose.matrix));
                let mut message = self.message(DeviceName::truncated(&pose.name), content, stamp, number);
                if message.version.is_extended() {
                    message.metadata.push("TransformValid", "1");
                    message.metadata.push("TransformStatus", status(pose));
                    if pose.name.len() > message.device_name.raw().len() {
                        message.metadata.push("IGTL_DEVICE_NAME", &*pose.name);
                    }
                }
                self.push(&message, Kind::Pose, number, bundle)
            }),
            PoseMessages::TrackingData => {
                let valid = || self.poses.iter().filter(|pose| pose.valid);
                let tools: Vec<_> = valid()
                    .map(|pose| TrackedTool::new(FixedString::truncated(&pose.name), narrow(&pose.matrix)))
                    .collect();
                let device = DeviceName::truncated(&format!("TDATA_{}Elem", tools.len()));
                let mut message = self.message(device, Content::TrackingData(tools), stamp, number);
                if message.version.is_extended() {
                    for (index, pose) in valid().enumerate() {
                        message.metadata.push(format!("{}Status", pose.name), status(pose));
                        message.metadata.push(format!("{}Index", pose.name), index.to_string());
                    }
                }
                self.push(&message, Kind::Pose, number, bundle)
            }
        }
    }

    fn message<'a>(
        &self,
        device: DeviceName,
        content: Content<'a>,
        stamp: Timestamp,
        number: u64,
    ) -> Message<'a> {
        let version = self.version;
        // The number goes round after 2^32 frames; version 1 has no place for it.
        let message_id = if version.is_extended() { number as u32 } else { 0 };
        Message { version, message_id, ..Message::new(device, content).at(stamp) }
    }

    fn image<'f>(&mut self, frame: &'f Frame) -> Content<'f> {
        // Sides are at most 8192, which `media` has seen to.
        let size = [frame.width as u16, frame.height as u16, 1];
        let components = match frame.pixel_format {
            PixelFormat::Grey8 => 1,
            PixelFormat::Rgb8 => 3,
        };
        let (from, to) = self.config.image_device.split_once('_').unwrap_or_default();
        let world_from_ijk = poses::between(&self.poses, from, to).unwrap_or_else(|| {
            if !std::mem::replace(&mut self.unplaced, true) {
                tracing::warn!(
                    "the poses of frame {} do not connect {from} with {to}: such an image is sent with its pixel spacing \
                     alone",
                    frame.frame_id
                );
            }
            let [x, y] = frame.spacing_mm.unwrap_or([1.0; 2]);
            [[x, 0.0, 0.0, 0.0], [0.0, y, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
        });
        let image = Image::new(ScalarType::Uint8, components, size, &frame.pixels[..])
            .placed(Placement::from_world_from_ijk(world_from_ijk, size));
        Content::Image(Image { coordinates: CoordinateSystem::Ras, ..image })
    }

    fn push(
        &self,
        message: &Message<'_>,
        kind: Kind,
        frame: u64,
        bundle: &mut Bundle,
    ) -> Result<(), EncodeError> {
        let (start, len) = (bundle.bytes.len(), message.encoded_len()?);
        bundle.bytes.resize(start + len, 0);
        message.encode_to_slice(&mut bundle.bytes[start..])?;
        let (index, mischief) = (bundle.messages.len() as u64, &self.config.mischief);
        let fault = if self.dice.strikes(mischief.half_message, Roll::Half, frame, index) {
            Fault::Half(1 + self.dice.pick(len - 1, Roll::HalfPlace, frame, index))
        } else if self.dice.strikes(mischief.bad_crc, Roll::BadCrc, frame, index) {
            let bit = self.dice.pick((len - HEADER_SIZE) * 8, Roll::BadCrcPlace, frame, index);
            bundle.bytes[start + HEADER_SIZE + bit / 8] ^= 1 << (bit % 8);
            Fault::BadCrc
        } else {
            Fault::None
        };
        bundle.messages.push(Outgoing { bytes: start..start + len, kind, fault });
        Ok(())
    }
}

fn narrow(matrix: &Matrix) -> Transform {
    Transform::from_matrix(matrix.map(|row| row.map(|value| value as f32)))
}

fn status(pose: &NamedTransform) -> &'static str {
    if pose.valid { "OK" } else { "MISSING" }
}

fn row_by_row(matrix: &Matrix) -> String {
    let numbers: Vec<String> = matrix.iter().flatten().map(|value| format!("{value}")).collect();
    numbers.join(" ")
}

/// What a client gets that was sent nothing else for a while.
pub(crate) fn keep_alive() -> Vec<u8> {
    let message = Message::new(DeviceName::EMPTY, Content::Status(Status::OK)).at(Timestamp::now());
    // Version 1, which every peer understands; nothing in it can fail to fit.
    Message { version: HeaderVersion::V1, ..message }.to_bytes().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::config::Mischief;
    use super::*;
    use ultramotion_igtlink::{DecodeError, ErrorClass};

    fn frame() -> Frame {
        let tracked = |name: &str, x: f64, valid| NamedTransform {
            name: name.into(),
            matrix: [[1., 0., 0., x], [0., 1., 0., 0.], [0., 0., 1., 0.], [0., 0., 0., 1.]],
            valid,
        };
        Frame {
            timestamp_s: 12.5,
            spacing_mm: Some([0.5, 0.25]),
            transforms: vec![
                tracked("ProbeToTracker", 10.0, true),
                tracked("ReferenceToTracker", 4.0, true),
                tracked("StylusToTracker", 0.0, false),
                tracked("NeedleHolderToReference", 1.0, true),
            ],
            ..Frame::grey8(3, 2, vec![1, 2, 3, 4, 5, 6])
        }
    }

    fn composed(config: &SimulatorConfig, number: u64) -> Bundle {
        let mut bundle = Bundle::default();
        let device = config.check().expect("a valid configuration");
        Composer::new(config, device)
            .compose(
                &frame(),
                (number, 0.0),
                Timestamp::from_nanos(1_700_000_000, 500),
                config.header_version,
                &mut bundle,
            )
            .expect("a frame that can be sent");
        bundle
    }

    #[test]
    fn a_frame_goes_out_as_plus_sends_it() {
        let bundle = composed(&SimulatorConfig::default(), 9);
        let messages: Vec<Message<'_>> = bundle
            .messages
            .iter()
            .map(|message| Message::decode(&bundle.bytes[message.bytes.clone()]).expect("a whole message"))
            .collect();
        let names: Vec<String> = messages.iter().map(|message| message.device_name.to_string()).collect();
        // Without the stylus, which the tracker has lost; names are cut to 20 bytes.
        let expected = [
            "Image_Reference",
            "ProbeToTracker",
            "ReferenceToTracker",
            "NeedleHolderToRefere",
            "ImageToProbe",
        ];
        assert_eq!(names, expected);
        assert!(
            messages.iter().all(|message| message.timestamp == Timestamp::from_nanos(1_700_000_000, 500))
        );
        assert_eq!(messages[3].metadata.get("IGTL_DEVICE_NAME").as_deref(), Some("NeedleHolderToReference"));
        assert_eq!(messages[1].metadata.get("TransformStatus").as_deref(), Some("OK"));
        let image = &messages[0];
        for (key, value) in [
            ("FrameNumber", "9"),
            ("Timestamp", "12.5"),
            ("StylusToTrackerTransformStatus", "MISSING"),
            ("ProbeToTrackerTransform", "1 0 0 10 0 1 0 0 0 0 1 0 0 0 0 1"),
        ] {
            assert_eq!(image.metadata.get(key).as_deref(), Some(value), "{key}");
        }
        let Content::Image(image) = &image.content else { panic!("no image") };
        assert_eq!((&*image.pixels, image.size), (&[1, 2, 3, 4, 5, 6][..], [3, 2, 1]));
        // Image to probe, to tracker, and back from there to the reference: 6 mm to the side.
        let matrix = image.placement.world_from_ijk(image.size);
        let expected = [[0.5, 0., 0., 5.5], [0., 0.25, 0., 0.125], [0., 0., 0.5, 0.], [0., 0., 0., 1.]];
        for (found, expected) in matrix.iter().flatten().zip(expected.iter().flatten()) {
            assert!((found - expected).abs() < 1e-5, "{matrix:?}");
        }
    }

    #[test]
    fn poses_go_out_together_or_not_at_all() {
        let with = |poses| composed(&SimulatorConfig { poses, ..SimulatorConfig::default() }, 0);
        let bundle = with(PoseMessages::TrackingData);
        let message =
            Message::decode(&bundle.bytes[bundle.messages[1].bytes.clone()]).expect("a whole message");
        assert_eq!((message.device_name.to_string().as_str(), bundle.messages.len()), ("TDATA_4Elem", 2));
        assert_eq!(message.metadata.get("ReferenceToTrackerIndex").as_deref(), Some("1"));
        assert_eq!(with(PoseMessages::None).messages.len(), 1);
    }

    #[test]
    fn an_image_without_a_place_keeps_its_spacing() {
        let config = SimulatorConfig {
            image_device: "Image_Needle".into(),
            header_version: HeaderVersion::V1,
            ..SimulatorConfig::default()
        };
        let bundle = composed(&config, 0);
        let message = Message::decode(&bundle.bytes).expect("a whole message");
        assert!(message.metadata.is_empty());
        let Content::Image(image) = &message.content else { panic!("no image") };
        assert_eq!(image.placement.spacing_mm(), [0.5, 0.25, 1.0]);
    }

    #[test]
    fn faults_are_what_they_are_called() {
        let mischief = Mischief { seed: 3, bad_crc: 0.3, half_message: 0.2, ..Mischief::default() };
        let config = SimulatorConfig { mischief, ..SimulatorConfig::default() };
        let mut counts = [0; 3];
        for number in 0..200 {
            let bundle = composed(&config, number);
            for message in &bundle.messages {
                let bytes = &bundle.bytes[message.bytes.clone()];
                let result = Message::decode(bytes).map(drop).map_err(|error: DecodeError| error.class());
                match message.fault {
                    Fault::None => assert_eq!(result, Ok(())),
                    Fault::BadCrc => assert_eq!(result, Err(ErrorClass::CrcMismatch)),
                    Fault::Half(len) => assert!((1..bytes.len()).contains(&len), "{len} of {}", bytes.len()),
                }
                counts[match message.fault {
                    Fault::None => 0,
                    Fault::BadCrc => 1,
                    Fault::Half(_) => 2,
                }] += 1;
            }
            assert_eq!(composed(&config, number).bytes, bundle.bytes, "the same again");
        }
        assert!((200..300).contains(&counts[1]) && (150..250).contains(&counts[2]), "{counts:?} of 1000");
    }
}
