//! VIDEO: a frame in the form that a codec left it in.

use std::borrow::Cow;

use crate::content::body::{Body, Wire};
use crate::content::image::{CoordinateSystem, Placement};
use crate::error::{DecodeError, EncodeError, Problem};
use crate::value::{Fields, Value, lossy};
use crate::wire::{Endian, Reader, Writer};

const HEADER_SIZE: usize = 76;
/// The only version of the video header.
const VERSION: u16 = 1;

/// A compressed frame with its place in space.
///
/// The layout is that of the reference library since 2018 (`igtl_video.h`, a header of 76 bytes),
/// which 3D Slicer and PLUS speak; `video.md` still describes the 23 bytes that came before it.
#[derive(Debug, Clone, PartialEq)]
pub struct Video<'a> {
    /// Byte order of the pixels once decoded.
    pub endian: Endian,
    /// Four-character code: `H264`, `VP90`, `X265`, `AV10`, or `I420` for none.
    pub codec: [u8; 4],
    /// The codec's frame type; above 255 for grey frames.
    pub frame_type: u16,
    /// Axes of the world that `placement` speaks of.
    pub coordinates: CoordinateSystem,
    /// Pixels of the whole frame along i, j and k.
    pub size: [u16; 3],
    /// Where the whole frame lies.
    pub placement: Placement,
    /// First pixel of the part that this message carries.
    pub subvolume_offset: [u16; 3],
    /// Pixels of the part that this message carries.
    pub subvolume_size: [u16; 3],
    /// The codec's bytes.
    pub data: Cow<'a, [u8]>,
}

impl<'a> Video<'a> {
    /// The same frame with its own copy of the data.
    pub fn into_owned(self) -> Video<'static> {
        Video { data: Cow::Owned(self.data.into_owned()), ..self }
    }
}

impl<'a> Body<'a> for Video<'a> {
    fn decode(_: &'static str, content: &'a [u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("VIDEO", content);
        let version = r.u16("video version")?;
        if version != VERSION {
            return Err(r.error("video version", version.into(), Problem::Expected(VERSION.into())));
        }
        Ok(Self {
            endian: Endian::read(&mut r, "endian")?,
            codec: r.array("codec")?,
            frame_type: r.u16("frame type")?,
            coordinates: CoordinateSystem::read(&mut r, "coordinate system")?,
            size: r.u16s("size")?,
            placement: Placement::read(&mut r)?,
            subvolume_offset: r.u16s("subvolume offset")?,
            subvolume_size: r.u16s("subvolume size")?,
            data: Cow::Borrowed(r.take_rest()),
        })
    }
}

impl Wire for Video<'_> {
    fn size(&self) -> Result<usize, EncodeError> {
        Ok(HEADER_SIZE + self.data.len())
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.u16(VERSION);
        w.u8(self.endian.code());
        w.bytes(&self.codec);
        w.u16(self.frame_type);
        w.u8(self.coordinates.code());
        w.u16s(&self.size);
        self.placement.write(w);
        w.u16s(&self.subvolume_offset);
        w.u16s(&self.subvolume_size);
        w.bytes(&self.data);
    }

    fn fields(&self, _: usize) -> Fields {
        let mut fields = vec![
            ("codec", lossy(&self.codec)),
            ("frame_type", self.frame_type.into()),
            ("size", self.size.into()),
            ("endian", self.endian.into()),
            ("coordinates", format!("{:?}", self.coordinates).to_uppercase().into()),
        ];
        fields.extend(self.placement.fields(self.size));
        fields.push(("subvolume_offset", self.subvolume_offset.into()));
        fields.push(("subvolume_size", self.subvolume_size.into()));
        fields.push(("data", Value::Bytes(self.data.to_vec())));
        fields
    }
}
