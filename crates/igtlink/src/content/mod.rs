//! What messages say: one type for each message type of the protocol.
//!
//! In come a type name and the bytes between extended header and metadata; out goes a
//! [`Content`]. The way back measures first and then writes. Numbers and short texts are copied;
//! pixels, texts and other blocks are borrowed.
//!
//! A message type is a file with its body ([`Body`](body::Body)) and a row in the table `contents!`, from which
//! everything comes that goes over all types.
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
mod body;
mod color;
mod image;
mod listing;
mod numbers;
mod polydata;
mod pose;
mod query;
mod text;
mod video;

pub use annotation::{Point, Trajectory, TrajectoryKind};
pub use bind::{Bind, BindChild};
pub use color::{ColorTable, IndexType, MapType};
pub use image::{CoordinateSystem, Image, Placement, ScalarType};
pub use listing::{ImageInfo, LabelInfo, VideoInfo};
pub use numbers::{ArrayType, NdArray, Sensor, Unit};
pub use polydata::{Attribute, AttributeKind, Cells, PolyData};
pub use pose::{Orientation, Position, QTransform, ToolKind, TrackedTool, Transform};
pub use query::{Parameters, Query, Verb};
pub use text::{Command, Status, StatusCode};
pub use video::Video;

use std::borrow::Cow;
use std::fmt;

use body::{Body, Wire};

use crate::error::{DecodeError, EncodeError};
use crate::header::TypeName;
use crate::value::Fields;
use crate::wire::{Text, Writer};

/// The message types: how [`Content`] calls them, what their body is, and their name on the wire.
macro_rules! contents {
    ($($(#[$doc:meta])* $variant:ident($body:ty) = $name:literal $(or $other:literal)?,)*) => {
        /// The types that [`Content`] has a variant for, by their names on the wire; queries are named
        /// after them with a prefix.
        pub const KNOWN_TYPES: &[&str] = &[$($name, $($other,)?)*];

        /// What a message says.
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub enum Content<'a> {
            $($(#[$doc])* $variant($body),)*
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
            /// Reads the content of a message of this type.
            #[allow(unused_parens)] // around the pattern of a type with one name
            pub fn decode(type_name: &TypeName, content: &'a [u8]) -> Result<Self, DecodeError> {
                let known = KNOWN_TYPES.iter().copied().find(|known| *type_name == **known);
                Ok(match known {
                    $(Some(name @ ($name $(| $other)?)) => read(name, content)?
                        .map_or(Content::Unavailable(*type_name), Content::$variant),)*
                    _ => match query::split_type_name(type_name) {
                        Some((verb, target)) => Content::Query(Query::decode(verb, target, content)?),
                        None => Content::Unknown { type_name: *type_name, bytes: Cow::Borrowed(content) },
                    },
                })
            }

            /// The type's name on the wire.
            pub fn type_name(&self) -> TypeName {
                // All of the names in the table have at most 12 bytes.
                TypeName::truncated(match self {
                    Content::ColorTable(table) if table.long_type_name => "COLORTABLE",
                    $(Content::$variant(_) => $name,)*
                    Content::Query(query) => return query.type_name(),
                    Content::Unavailable(type_name) | Content::Unknown { type_name, .. } => return *type_name,
                })
            }

            /// The same content with its own copy of all bytes.
            pub fn into_owned(self) -> Content<'static> {
                match self {
                    $(Content::$variant(body) => Content::$variant(body.into_owned()),)*
                    Content::Query(query) => Content::Query(query.into_owned()),
                    Content::Unavailable(type_name) => Content::Unavailable(type_name),
                    Content::Unknown { type_name, bytes } => {
                        Content::Unknown { type_name, bytes: Cow::Owned(bytes.into_owned()) }
                    }
                }
            }

            fn body(&self) -> &dyn Wire {
                match self {
                    $(Content::$variant(body) => body,)*
                    Content::Query(query) => query,
                    Content::Unavailable(_) => &NOTHING,
                    Content::Unknown { bytes, .. } => bytes,
                }
            }
        }
    };
}

contents! {
    /// `TRANSFORM`: a pose as a matrix.
    Transform(Transform) = "TRANSFORM",
    /// `POSITION`: a position, with or without orientation.
    Position(Position) = "POSITION",
    /// `QTRANS`: a pose as position and quaternion.
    QTransform(QTransform) = "QTRANS",
    /// `IMAGE`: pixels.
    Image(Image<'a>) = "IMAGE",
    /// `STATUS`: how the sender is doing.
    Status(Status<'a>) = "STATUS",
    /// `CAPABILITY`: the types that the sender takes.
    Capability(Vec<TypeName>) = "CAPABILITY",
    /// `STRING`: a text.
    String(Text<'a>) = "STRING",
    /// `POINT`: landmarks and the like.
    Points(Vec<Point>) = "POINT",
    /// `TDATA`: the tools of a tracker, as matrices.
    TrackingData(Vec<TrackedTool<Transform>>) = "TDATA",
    /// `QTDATA`: the tools of a tracker, as quaternions.
    QTrackingData(Vec<TrackedTool<QTransform>>) = "QTDATA",
    /// `TRAJ`: straight paths.
    Trajectories(Vec<Trajectory>) = "TRAJ",
    /// `SENSOR`: readings with a unit.
    Sensor(Sensor) = "SENSOR",
    /// `NDARRAY`: an array of any rank.
    NdArray(NdArray<'a>) = "NDARRAY",
    /// `BIND`: several messages in one.
    Bind(Bind<'a>) = "BIND",
    /// `COLORT`: colours by pixel value.
    ColorTable(ColorTable<'a>) = "COLORT" or "COLORTABLE",
    /// `IMGMETA`: images that can be asked for.
    ImageList(Vec<ImageInfo>) = "IMGMETA",
    /// `LBMETA`: labels that can be asked for.
    LabelList(Vec<LabelInfo>) = "LBMETA",
    /// `POLYDATA`: surfaces and lines.
    PolyData(PolyData<'a>) = "POLYDATA",
    /// `COMMAND`: something to do.
    Command(Command<'a>) = "COMMAND",
    /// `RTS_COMMAND`: the answer to a command.
    CommandReply(Command<'a>) = "RTS_COMMAND",
    /// `VIDEO`: a compressed frame.
    Video(Video<'a>) = "VIDEO",
    /// `VIDEOMETA`: videos that can be asked for.
    VideoList(Vec<VideoInfo>) = "VIDEOMETA",
}

impl<'a> Content<'a> {
    /// A text of up to 65535 bytes.
    pub fn string(text: impl Into<Cow<'a, str>>) -> Self {
        Content::String(Text::new(text))
    }

    /// What it says, by the names of the type's fields.
    pub fn fields(&self) -> Fields {
        self.fields_at(0)
    }

    /// The same of content that stands in so many messages.
    fn fields_at(&self, depth: usize) -> Fields {
        match self {
            Content::Unavailable(_) => vec![("available", false.into())],
            known => known.body().fields(depth),
        }
    }

    pub(crate) fn size(&self) -> Result<usize, EncodeError> {
        self.body().size()
    }

    pub(crate) fn write(&self, w: &mut Writer<'_>) {
        self.body().write(w);
    }
}

impl fmt::Display for Content<'_> {
    /// The type and its fields in a line.
    ///
    /// ```
    /// use ultramotion_igtlink::{Content, Sensor, Unit};
    /// let content = Content::Sensor(Sensor { status: 0, unit: Unit(0), values: vec![0.5; 9] });
    /// assert_eq!(content.to_string(), "SENSOR status 0, unit \"\", unit bits 0, values 9 values");
    /// ```
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.type_name())?;
        for (position, (name, value)) in self.fields().iter().enumerate() {
            write!(f, "{} {} {value}", if position > 0 { "," } else { "" }, name.replace('_', " "))?;
        }
        Ok(())
    }
}

/// The body of [`Content::Unavailable`].
const NOTHING: Cow<'static, [u8]> = Cow::Borrowed(&[]);

fn read<'a, B: Body<'a>>(type_name: &'static str, content: &'a [u8]) -> Result<Option<B>, DecodeError> {
    if content.is_empty() && !B::MAY_BE_EMPTY {
        return Ok(None);
    }
    B::decode(type_name, content).map(Some)
}
