//! What messages say: one type for each message type of the protocol.
//!
//! In come a type name and the bytes between extended header and metadata; out goes a
//! [`Content`]. The way back measures first and then writes. Numbers and short texts are copied;
//! pixels, texts and other blocks are borrowed.
//!
//! ```
//! use ultramotion_igtlink::{Content, Image, Message};
//! let pixels = vec![7; 640 * 480];
//! let bytes = Message::new("Image".parse()?, Content::Image(Image::grey8(640, 480, &pixels))).to_bytes()?;
//! let Content::Image(image) = Message::decode(&bytes)?.content else { panic!("an image") };
//! assert!(matches!(image.pixels, std::borrow::Cow::Borrowed(_)), "pixels are not copied");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod annotation;
mod bind;
mod color;
mod image;
mod listing;
mod numbers;
mod polydata;
mod pose;
mod query;
mod summary;
mod text;
mod video;

pub use annotation::{Point, Trajectory, TrajectoryKind};
pub use bind::{Bind, BindChild};
pub use color::{ColorTable, IndexType, MapType};
pub use image::{CoordinateSystem, Endian, Image, Placement, ScalarType};
pub use listing::{ImageInfo, LabelInfo, VideoInfo};
pub use numbers::{ArrayType, NdArray, Sensor, Unit};
pub use polydata::{Attribute, AttributeKind, Cells, PolyData};
pub use pose::{Orientation, Position, QTransform, ToolKind, TrackedTool, Transform};
pub use query::{Parameters, Query, Verb};
pub use text::{Command, Status, StatusCode};
pub use video::Video;

use std::borrow::Cow;

use crate::error::{DecodeError, EncodeError};
use crate::header::TypeName;
use crate::wire::{Text, Wire, Writer, read_elements};

/// The types that [`Content`] has a variant for, by their names on the wire; queries are named
/// after them with a prefix.
pub const KNOWN_TYPES: [&str; 23] = [
    "BIND",
    "CAPABILITY",
    "COLORT",
    "COLORTABLE",
    "COMMAND",
    "IMAGE",
    "IMGMETA",
    "LBMETA",
    "NDARRAY",
    "POINT",
    "POLYDATA",
    "POSITION",
    "QTDATA",
    "QTRANS",
    "RTS_COMMAND",
    "SENSOR",
    "STATUS",
    "STRING",
    "TDATA",
    "TRAJ",
    "TRANSFORM",
    "VIDEO",
    "VIDEOMETA",
];

/// What a message says.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Content<'a> {
    /// `TRANSFORM`: a pose as a matrix.
    Transform(Transform),
    /// `POSITION`: a position, with or without orientation.
    Position(Position),
    /// `QTRANS`: a pose as position and quaternion.
    QTransform(QTransform),
    /// `IMAGE`: pixels.
    Image(Image<'a>),
    /// `STATUS`: how the sender is doing.
    Status(Status<'a>),
    /// `CAPABILITY`: the types that the sender takes.
    Capability(Vec<TypeName>),
    /// `STRING`: a text.
    String(Text<'a>),
    /// `POINT`: landmarks and the like.
    Points(Vec<Point>),
    /// `TDATA`: the tools of a tracker, as matrices.
    TrackingData(Vec<TrackedTool<Transform>>),
    /// `QTDATA`: the tools of a tracker, as quaternions.
    QTrackingData(Vec<TrackedTool<QTransform>>),
    /// `TRAJ`: straight paths.
    Trajectories(Vec<Trajectory>),
    /// `SENSOR`: readings with a unit.
    Sensor(Sensor),
    /// `NDARRAY`: an array of any rank.
    NdArray(NdArray<'a>),
    /// `BIND`: several messages in one.
    Bind(Bind<'a>),
    /// `COLORT`: colours by pixel value.
    ColorTable(ColorTable<'a>),
    /// `IMGMETA`: images that can be asked for.
    ImageList(Vec<ImageInfo>),
    /// `LBMETA`: labels that can be asked for.
    LabelList(Vec<LabelInfo>),
    /// `POLYDATA`: surfaces and lines.
    PolyData(PolyData<'a>),
    /// `COMMAND`: something to do.
    Command(Command<'a>),
    /// `RTS_COMMAND`: the answer to a command.
    CommandReply(Command<'a>),
    /// `VIDEO`: a compressed frame.
    Video(Video<'a>),
    /// `VIDEOMETA`: videos that can be asked for.
    VideoList(Vec<VideoInfo>),
    /// `GET_…`, `STT_…`, `STP_…` and `RTS_…`.
    Query(Query<'a>),
    /// An empty body of a type that has no empty value: the data asked for is not available
    /// (protocol document, `query.md`).
    Unavailable(TypeName),
    /// A type that this library does not know, as it came.
    Unknown {
        /// The type.
        type_name: TypeName,
        /// The bytes between extended header and metadata.
        bytes: Cow<'a, [u8]>,
    },
}

impl<'a> Content<'a> {
    /// A text of up to 65535 bytes.
    pub fn string(text: impl Into<Cow<'a, str>>) -> Self {
        Content::String(Text::new(text))
    }

    /// Reads the content of a message of this type.
    pub fn decode(type_name: &TypeName, content: &'a [u8]) -> Result<Self, DecodeError> {
        let name = type_name.as_bytes();
        if content.is_empty() && has_no_empty_value(name) {
            return Ok(Content::Unavailable(*type_name));
        }
        Ok(match name {
            b"TRANSFORM" => Content::Transform(Transform::decode(content)?),
            b"POSITION" => Content::Position(Position::decode(content)?),
            b"QTRANS" => Content::QTransform(QTransform::decode(content)?),
            b"IMAGE" => Content::Image(Image::decode(content)?),
            b"STATUS" => Content::Status(Status::decode(content)?),
            b"CAPABILITY" => Content::Capability(read_elements(content)?),
            b"STRING" => Content::String(text::decode_string(content)?),
            b"POINT" => Content::Points(read_elements(content)?),
            b"TDATA" => Content::TrackingData(read_elements(content)?),
            b"QTDATA" => Content::QTrackingData(read_elements(content)?),
            b"TRAJ" => Content::Trajectories(read_elements(content)?),
            b"SENSOR" => Content::Sensor(Sensor::decode(content)?),
            b"NDARRAY" => Content::NdArray(NdArray::decode(content)?),
            b"BIND" => Content::Bind(Bind::decode(content)?),
            b"COLORT" => Content::ColorTable(ColorTable::decode(content, false)?),
            b"COLORTABLE" => Content::ColorTable(ColorTable::decode(content, true)?),
            b"IMGMETA" => Content::ImageList(read_elements(content)?),
            b"LBMETA" => Content::LabelList(read_elements(content)?),
            b"POLYDATA" => Content::PolyData(PolyData::decode(content)?),
            b"COMMAND" => Content::Command(Command::decode("COMMAND", content)?),
            b"RTS_COMMAND" => Content::CommandReply(Command::decode("RTS_COMMAND", content)?),
            b"VIDEO" => Content::Video(Video::decode(content)?),
            b"VIDEOMETA" => Content::VideoList(read_elements(content)?),
            _ => match query::split_type_name(type_name) {
                Some((verb, target)) => Content::Query(Query::decode(verb, target, content)?),
                None => Content::Unknown { type_name: *type_name, bytes: Cow::Borrowed(content) },
            },
        })
    }

    /// The type's name on the wire.
    pub fn type_name(&self) -> TypeName {
        let name = match self {
            Content::Transform(_) => "TRANSFORM",
            Content::Position(_) => "POSITION",
            Content::QTransform(_) => "QTRANS",
            Content::Image(_) => "IMAGE",
            Content::Status(_) => "STATUS",
            Content::Capability(_) => "CAPABILITY",
            Content::String(_) => "STRING",
            Content::Points(_) => "POINT",
            Content::TrackingData(_) => "TDATA",
            Content::QTrackingData(_) => "QTDATA",
            Content::Trajectories(_) => "TRAJ",
            Content::Sensor(_) => "SENSOR",
            Content::NdArray(_) => "NDARRAY",
            Content::Bind(_) => "BIND",
            Content::ColorTable(table) if table.long_type_name => "COLORTABLE",
            Content::ColorTable(_) => "COLORT",
            Content::ImageList(_) => "IMGMETA",
            Content::LabelList(_) => "LBMETA",
            Content::PolyData(_) => "POLYDATA",
            Content::Command(_) => "COMMAND",
            Content::CommandReply(_) => "RTS_COMMAND",
            Content::Video(_) => "VIDEO",
            Content::VideoList(_) => "VIDEOMETA",
            Content::Query(query) => return query.type_name(),
            Content::Unavailable(type_name) | Content::Unknown { type_name, .. } => return *type_name,
        };
        // All of the names above have at most 12 bytes.
        TypeName::truncated(name)
    }

    /// The same content with its own copy of all bytes.
    pub fn into_owned(self) -> Content<'static> {
        match self {
            Content::Transform(x) => Content::Transform(x),
            Content::Position(x) => Content::Position(x),
            Content::QTransform(x) => Content::QTransform(x),
            Content::Image(x) => Content::Image(x.into_owned()),
            Content::Status(x) => Content::Status(x.into_owned()),
            Content::Capability(x) => Content::Capability(x),
            Content::String(x) => Content::String(x.into_owned()),
            Content::Points(x) => Content::Points(x),
            Content::TrackingData(x) => Content::TrackingData(x),
            Content::QTrackingData(x) => Content::QTrackingData(x),
            Content::Trajectories(x) => Content::Trajectories(x),
            Content::Sensor(x) => Content::Sensor(x),
            Content::NdArray(x) => Content::NdArray(x.into_owned()),
            Content::Bind(x) => Content::Bind(x.into_owned()),
            Content::ColorTable(x) => Content::ColorTable(x.into_owned()),
            Content::ImageList(x) => Content::ImageList(x),
            Content::LabelList(x) => Content::LabelList(x),
            Content::PolyData(x) => Content::PolyData(x.into_owned()),
            Content::Command(x) => Content::Command(x.into_owned()),
            Content::CommandReply(x) => Content::CommandReply(x.into_owned()),
            Content::Video(x) => Content::Video(x.into_owned()),
            Content::VideoList(x) => Content::VideoList(x),
            Content::Query(x) => Content::Query(x.into_owned()),
            Content::Unavailable(type_name) => Content::Unavailable(type_name),
            Content::Unknown { type_name, bytes } => {
                Content::Unknown { type_name, bytes: Cow::Owned(bytes.into_owned()) }
            }
        }
    }

    fn wire(&self) -> &dyn Wire {
        match self {
            Content::Transform(x) => x,
            Content::Position(x) => x,
            Content::QTransform(x) => x,
            Content::Image(x) => x,
            Content::Status(x) => x,
            Content::Capability(x) => x,
            Content::String(x) => x,
            Content::Points(x) => x,
            Content::TrackingData(x) => x,
            Content::QTrackingData(x) => x,
            Content::Trajectories(x) => x,
            Content::Sensor(x) => x,
            Content::NdArray(x) => x,
            Content::Bind(x) => x,
            Content::ColorTable(x) => x,
            Content::ImageList(x) => x,
            Content::LabelList(x) => x,
            Content::PolyData(x) => x,
            Content::Command(x) | Content::CommandReply(x) => x,
            Content::Video(x) => x,
            Content::VideoList(x) => x,
            Content::Query(x) => x,
            Content::Unavailable(_) => &NOTHING,
            Content::Unknown { bytes, .. } => bytes,
        }
    }
}

impl Content<'_> {
    pub(crate) fn size(&self) -> Result<usize, EncodeError> {
        self.wire().size()
    }

    pub(crate) fn write(&self, w: &mut Writer<'_>) {
        self.wire().write(w);
    }
}

/// Whether an empty body of this type means that there is no data, rather than an empty list.
fn has_no_empty_value(type_name: &[u8]) -> bool {
    matches!(
        type_name,
        b"TRANSFORM"
            | b"POSITION"
            | b"QTRANS"
            | b"IMAGE"
            | b"STATUS"
            | b"STRING"
            | b"SENSOR"
            | b"NDARRAY"
            | b"BIND"
            | b"COLORT"
            | b"COLORTABLE"
            | b"POLYDATA"
            | b"COMMAND"
            | b"RTS_COMMAND"
            | b"VIDEO"
    )
}

/// The body of [`Content::Unavailable`].
const NOTHING: Cow<'static, [u8]> = Cow::Borrowed(&[]);

impl Wire for Cow<'_, [u8]> {
    fn size(&self) -> Result<usize, EncodeError> {
        Ok(self.len())
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.bytes(self);
    }
}
