//! TRACKEDFRAME, PlusServer's own message: an image and all that is known about it, in one.
//!
//! ```text
//! u16 scalar type    u16 components    u16 image type    u16 size[3]    u32 image bytes    u32 XML bytes
//! u16 orientation    f32 matrix[4][4]    XML    pixels
//! ```
//!
//! Scalar types are those of IMAGE. The matrix takes pixels to the frame that the image is placed in; it alone has the
//! sender's own byte order. The XML names fields of the frame, among them `ProbeToTrackerTransform` (16 numbers, by rows)
//! and `ProbeToTrackerTransformStatus`. (PlusLib, `igtlPlusTrackedFrameMessage.h`.)

use ultramotion_igtlink::{CoordinateSystem, Endian, Image, Placement, ScalarType};
use ultramotion_types::Matrix;

use crate::receive::validity::is_ok;
use crate::xml::elements;

/// The type's name.
pub const TRACKED_FRAME: &str = "TRACKEDFRAME";
/// Bytes in front of the XML.
const HEADER_BYTES: usize = 22 + 64;
/// Fields that are looked at; more are no frame's.
const MAX_FIELDS: usize = 256;

/// An image with the poses of its moment.
#[derive(Debug, Clone, PartialEq)]
pub struct TrackedFrame<'m> {
    /// The image, placed by the embedded matrix.
    pub image: Image<'m>,
    /// Poses by name, with the status of their tools.
    pub poses: Vec<TrackedPose>,
}

/// A transform of the frame.
#[derive(Debug, Clone, PartialEq)]
pub struct TrackedPose {
    /// Such as `ProbeToTracker`.
    pub name: String,
    /// By rows, if it is there and has 16 numbers.
    pub matrix: Option<Matrix>,
    /// What is said of its tool.
    pub status: Option<String>,
}

/// Why a message is no TRACKEDFRAME.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TrackedFrameError {
    /// It ends too early.
    #[error("TRACKEDFRAME: {have} bytes where {needed} are needed")]
    Short {
        /// Bytes that are there.
        have: usize,
        /// Bytes that its fields claim.
        needed: u64,
    },
    /// A type of pixels that IMAGE does not have.
    #[error("TRACKEDFRAME: scalar type = {0}, but it must be 2 to 7, 10 or 11")]
    Scalar(u16),
    /// The image's fields contradict each other.
    #[error("TRACKEDFRAME: image bytes = {0}, but size and type make {1}")]
    Pixels(u32, u64),
}

impl<'m> TrackedFrame<'m> {
    /// Reads a message's content.
    pub fn decode(content: &'m [u8]) -> Result<Self, TrackedFrameError> {
        let short = |needed| TrackedFrameError::Short { have: content.len(), needed };
        let (head, rest) = content.split_at_checked(HEADER_BYTES).ok_or(short(HEADER_BYTES as u64))?;
        let u16_at = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let u32_at = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (image_bytes, xml_bytes) = (u32_at(12), u32_at(16));
        let needed = HEADER_BYTES as u64 + u64::from(image_bytes) + u64::from(xml_bytes);
        if needed > content.len() as u64 {
            return Err(short(needed));
        }
        let (xml, rest) = rest.split_at(xml_bytes as usize);
        let pixels = &rest[..image_bytes as usize];
        let scalar = scalar_of(u16_at(0)).ok_or(TrackedFrameError::Scalar(u16_at(0)))?;
        let components = u8::try_from(u16_at(2)).unwrap_or(u8::MAX);
        let size = [u16_at(6), u16_at(8), u16_at(10)].map(|n| n.max(1));
        let made = size.iter().map(|&n| u64::from(n)).product::<u64>()
            * u64::from(components)
            * scalar.size_bytes() as u64;
        if made != u64::from(image_bytes) {
            return Err(TrackedFrameError::Pixels(image_bytes, made));
        }
        let placement = Placement::from_world_from_ijk(matrix_of(&head[22..]), size);
        let image = Image {
            endian: Endian::Little,
            coordinates: CoordinateSystem::Ras,
            ..Image::new(scalar, components, size, pixels)
        };
        Ok(TrackedFrame { image: image.placed(placement), poses: poses_of(&String::from_utf8_lossy(xml)) })
    }

    /// Its transforms with the status of their tools.
    pub fn statuses(&self) -> Vec<(String, String)> {
        let status = |pose: &TrackedPose| Some((pose.name.clone(), pose.status.clone()?));
        self.poses.iter().filter_map(status).collect()
    }
}

fn scalar_of(code: u16) -> Option<ScalarType> {
    use ScalarType::{Float32, Float64, Int8, Int16, Int32, Uint8, Uint16, Uint32};
    let all = [Int8, Uint8, Int16, Uint16, Int32, Uint32, Float32, Float64];
    all.into_iter().find(|scalar| u16::from(scalar.code()) == code)
}

/// The matrix, in the byte order that makes its last row 0, 0, 0, 1.
fn matrix_of(bytes: &[u8]) -> Matrix {
    let read = |from: fn([u8; 4]) -> f32| -> Matrix {
        let value = |row: usize, column: usize| {
            let at = 4 * (4 * row + column);
            f64::from(from([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]))
        };
        std::array::from_fn(|row| std::array::from_fn(|column| value(row, column)))
    };
    let big = read(f32::from_be_bytes);
    if big[3] == [0.0, 0.0, 0.0, 1.0] { big } else { read(f32::from_le_bytes) }
}

/// The transforms among the fields, in their order.
fn poses_of(xml: &str) -> Vec<TrackedPose> {
    let mut poses: Vec<TrackedPose> = Vec::new();
    for element in elements(xml).take(MAX_FIELDS) {
        let Some((field, value)) = element.attribute("Name").zip(element.attribute("Value")) else {
            continue;
        };
        let (name, is_status) = match (field.strip_suffix("TransformStatus"), field.strip_suffix("Transform"))
        {
            (Some(name), _) => (name, true),
            (None, Some(name)) => (name, false),
            (None, None) => continue,
        };
        let index = poses.iter().position(|pose| pose.name == name).unwrap_or_else(|| {
            poses.push(TrackedPose { name: name.to_owned(), matrix: None, status: None });
            poses.len() - 1
        });
        if is_status {
            poses[index].status = Some(value.to_owned());
        } else {
            poses[index].matrix = numbers(value);
        }
    }
    poses
}

fn numbers(text: &str) -> Option<Matrix> {
    let mut all = text.split_whitespace().map(str::parse);
    let mut matrix = Matrix::default();
    for value in matrix.iter_mut().flatten() {
        *value = all.next()?.ok()?;
    }
    all.next().is_none().then_some(matrix)
}

impl TrackedPose {
    /// Its name, matrix and status, if it has a matrix or needs none.
    pub fn entry(&self) -> Option<(&str, Matrix, Option<&str>)> {
        let is_lost = self.status.as_deref().is_some_and(|status| !is_ok(status));
        let matrix = self.matrix.or_else(|| is_lost.then(Matrix::default))?;
        Some((&self.name, matrix, self.status.as_deref()))
    }
}

/// A message's content, for tests and simulators.
///
/// ```
/// use ultramotion_gateway::receive::tracked_frame::{TrackedFrame, encode};
///
/// let matrix = [[0.5, 0.0, 0.0, 1.0], [0.0, 0.5, 0.0, 2.0], [0.0, 0.0, 1.0, 3.0], [0.0, 0.0, 0.0, 1.0]];
/// let xml = r#"<TrackedFrame><CustomFrameField Name="ProbeToTrackerTransformStatus" Value="OK"/></TrackedFrame>"#;
/// let bytes = encode([3, 2], &[1, 2, 3, 4, 5, 6], matrix, xml);
/// let frame = TrackedFrame::decode(&bytes)?;
/// assert_eq!((frame.image.size, frame.poses[0].status.as_deref()), ([3, 2, 1], Some("OK")));
/// # Ok::<(), ultramotion_gateway::receive::tracked_frame::TrackedFrameError>(())
/// ```
pub fn encode(size: [u16; 2], grey_pixels: &[u8], world_from_ijk: [[f32; 4]; 4], xml: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let scalar = ScalarType::Uint8.code().into();
    for value in [scalar, 1, 1, size[0], size[1], 1u16] {
        bytes.extend_from_slice(&value.to_be_bytes());
    }
    for value in [grey_pixels.len() as u32, xml.len() as u32] {
        bytes.extend_from_slice(&value.to_be_bytes());
    }
    bytes.extend_from_slice(&1u16.to_be_bytes());
    world_from_ijk.iter().flatten().for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
    bytes.extend_from_slice(xml.as_bytes());
    bytes.extend_from_slice(grey_pixels);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MATRIX: [[f32; 4]; 4] =
        [[0.0, -0.5, 0.0, 1.0], [0.25, 0.0, 0.0, 2.0], [0.0, 0.0, 1.0, 3.0], [0.0, 0.0, 0.0, 1.0]];
    const XML: &str = "<TrackedFrame Timestamp=\"12.5\">\
        <CustomFrameField Name=\"ProbeToTrackerTransform\" Value=\"1 0 0 5 0 1 0 6 0 0 1 7 0 0 0 1 \"/>\
        <CustomFrameField Name=\"ProbeToTrackerTransformStatus\" Value=\"OK\"/>\
        <CustomFrameField Name=\"StylusToTrackerTransformStatus\" Value=\"MISSING\"/>\
        <CustomFrameField Name=\"FrameNumber\" Value=\"7\"/></TrackedFrame>";

    #[test]
    fn image_and_poses_are_read() {
        let bytes = encode([3, 2], &[1, 2, 3, 4, 5, 6], MATRIX, XML);
        let frame = TrackedFrame::decode(&bytes).unwrap();
        assert_eq!(*frame.image.pixels, [1, 2, 3, 4, 5, 6]);
        assert_eq!(frame.image.placement.world_from_ijk([3, 2, 1])[0], [0.0, -0.5, 0.0, 1.0]);
        assert_eq!(frame.poses.len(), 2);
        let (name, matrix, status) = frame.poses[0].entry().unwrap();
        assert_eq!((name, matrix[1], status), ("ProbeToTracker", [0.0, 1.0, 0.0, 6.0], Some("OK")));
        let (name, _, status) = frame.poses[1].entry().unwrap();
        assert_eq!((name, status), ("StylusToTracker", Some("MISSING")));
        // The matrix of a sender with the other byte order.
        let mut turned = bytes.clone();
        turned[22..86].as_chunks_mut::<4>().0.iter_mut().for_each(|value| value.reverse());
        assert_eq!(TrackedFrame::decode(&turned).unwrap(), frame);
    }

    #[test]
    fn lies_are_named() {
        let good = encode([3, 2], &[1, 2, 3, 4, 5, 6], MATRIX, XML);
        let refused = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            TrackedFrame::decode(&bytes).unwrap_err().to_string()
        };
        assert_eq!(refused(1, 9), "TRACKEDFRAME: scalar type = 9, but it must be 2 to 7, 10 or 11");
        assert_eq!(refused(7, 4), "TRACKEDFRAME: image bytes = 6, but size and type make 8");
        assert!(refused(12, 0xff).contains("are needed"));
        assert!(TrackedFrame::decode(&good[..50]).is_err());
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0usize..200, value: u8) {
            let _ = TrackedFrame::decode(&bytes);
            let mut near = encode([3, 2], &[1, 2, 3, 4, 5, 6], MATRIX, XML);
            let at = at % near.len();
            near[at] = value;
            let _ = TrackedFrame::decode(&near);
        }
    }
}
