//! Poses: TRANSFORM, POSITION and QTRANS for one, TDATA and QTDATA for all tools of a tracker.

use crate::codes::open_enum;
use crate::content::body::{Body, Element, Wire};
use crate::error::{DecodeError, EncodeError, Problem};
use crate::value::{Fields, Value};
use crate::wire::{FixedString, Reader, Writer};

/// An affine transform without its last row, which is (0, 0, 0, 1) (protocol document,
/// `transform.md`): three columns of rotation and scale, then the translation in millimetres.
///
/// The device name says which: `ProbeToTracker` takes probe coordinates to tracker coordinates.
///
/// ```
/// use ultramotion_igtlink::Transform;
/// let shift = Transform { translation: [1.0, 2.0, 3.0], ..Transform::IDENTITY };
/// assert_eq!(Transform::from_matrix(shift.to_matrix()), shift);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Transform {
    /// Columns of the upper left 3x3 matrix.
    pub columns: [[f32; 3]; 3],
    /// The last column, in millimetres.
    pub translation: [f32; 3],
}

impl Transform {
    /// Moves nothing.
    pub const IDENTITY: Self =
        Self { columns: [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], translation: [0.0; 3] };

    /// From a 4x4 matrix by rows; the last row is not looked at.
    pub fn from_matrix(matrix: [[f32; 4]; 4]) -> Self {
        let column = |c: usize| [matrix[0][c], matrix[1][c], matrix[2][c]];
        Self { columns: [column(0), column(1), column(2)], translation: column(3) }
    }

    /// As a 4x4 matrix by rows.
    pub fn to_matrix(&self) -> [[f32; 4]; 4] {
        let row =
            |r: usize| [self.columns[0][r], self.columns[1][r], self.columns[2][r], self.translation[r]];
        [row(0), row(1), row(2), [0.0, 0.0, 0.0, 1.0]]
    }
}

fn expect_size(part: &'static str, content: &[u8], size: usize) -> Result<(), DecodeError> {
    if content.len() == size {
        return Ok(());
    }
    Err(DecodeError::field(part, "content size", content.len() as u64, Problem::Expected(size as u64)))
}

impl ToolPose for Transform {
    const SIZE: usize = 48;

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let columns = [r.f32s("matrix")?, r.f32s("matrix")?, r.f32s("matrix")?];
        Ok(Self { columns, translation: r.f32s("translation")? })
    }
}

impl Body<'_> for Transform {
    fn decode(_: &'static str, content: &[u8]) -> Result<Self, DecodeError> {
        expect_size("TRANSFORM", content, Self::SIZE)?;
        Self::read(&mut Reader::new("TRANSFORM", content))
    }
}

impl Wire for Transform {
    fn size(&self) -> Result<usize, EncodeError> {
        Ok(Self::SIZE)
    }

    fn write(&self, w: &mut Writer<'_>) {
        self.columns.iter().for_each(|column| w.f32s(column));
        w.f32s(&self.translation);
    }

    fn fields(&self, _: usize) -> Fields {
        vec![("matrix", self.to_matrix().into())]
    }
}

/// Which way something points, as far as a POSITION tells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Orientation {
    /// Nothing: the message has 12 bytes.
    None,
    /// Three elements of a quaternion: the message has 24 bytes.
    Compressed([f32; 3]),
    /// A quaternion (x, y, z, w): the message has 28 bytes.
    Quaternion([f32; 4]),
}

/// A position and an orientation (protocol document, `position.md`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Position {
    /// In millimetres.
    pub position: [f32; 3],
    /// As much of it as was sent.
    pub orientation: Orientation,
}

impl Body<'_> for Position {
    fn decode(_: &'static str, content: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("POSITION", content);
        if !matches!(content.len(), 12 | 24 | 28) {
            return Err(r.error("content size", content.len() as u64, Problem::OneOf("12, 24 or 28")));
        }
        let position = r.f32s("position")?;
        let orientation = match content.len() {
            12 => Orientation::None,
            24 => Orientation::Compressed(r.f32s("quaternion")?),
            _ => Orientation::Quaternion(r.f32s("quaternion")?),
        };
        Ok(Self { position, orientation })
    }
}

impl Wire for Position {
    fn size(&self) -> Result<usize, EncodeError> {
        Ok(match self.orientation {
            Orientation::None => 12,
            Orientation::Compressed(_) => 24,
            Orientation::Quaternion(_) => 28,
        })
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.f32s(&self.position);
        match &self.orientation {
            Orientation::None => {}
            Orientation::Compressed(q) => w.f32s(q),
            Orientation::Quaternion(q) => w.f32s(q),
        }
    }

    fn fields(&self, _: usize) -> Fields {
        let quaternion = match self.orientation {
            Orientation::None => Value::None,
            Orientation::Compressed(values) => values.into(),
            Orientation::Quaternion(values) => values.into(),
        };
        vec![("position_mm", self.position.into()), ("quaternion", quaternion)]
    }
}

/// A position and a quaternion (protocol document, `qtransform.md`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct QTransform {
    /// In millimetres.
    pub position: [f32; 3],
    /// (x, y, z, w).
    pub quaternion: [f32; 4],
}

impl ToolPose for QTransform {
    const SIZE: usize = 28;

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { position: r.f32s("position")?, quaternion: r.f32s("quaternion")? })
    }
}

impl Body<'_> for QTransform {
    fn decode(_: &'static str, content: &[u8]) -> Result<Self, DecodeError> {
        expect_size("QTRANS", content, Self::SIZE)?;
        Self::read(&mut Reader::new("QTRANS", content))
    }
}

impl Wire for QTransform {
    fn size(&self) -> Result<usize, EncodeError> {
        Ok(Self::SIZE)
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.f32s(&self.position);
        w.f32s(&self.quaternion);
    }

    fn fields(&self, _: usize) -> Fields {
        vec![("position_mm", self.position.into()), ("quaternion", self.quaternion.into())]
    }
}

open_enum! {
    /// What kind of tool is tracked.
    ToolKind: u8 {
        /// The tracker itself.
        Tracker = 1,
        /// A tool with position and full orientation.
        SixD = 2,
        /// A tool of which only the tip is known.
        ThreeD = 3,
        /// A tool with tip and direction.
        FiveD = 4,
    }
}

/// One tool of a tracker: `P` is [`Transform`] in TDATA and [`QTransform`] in QTDATA
/// (protocol documents, `trackingdata.md` and `qtrackingdata.md`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrackedTool<P> {
    /// The tool's name.
    pub name: FixedString<20>,
    /// Its kind.
    pub kind: ToolKind,
    /// Kept as it came; send 0.
    pub reserved: u8,
    /// Where it is.
    pub pose: P,
}

impl<P> TrackedTool<P> {
    /// A tool with position and full orientation.
    pub fn new(name: FixedString<20>, pose: P) -> Self {
        Self { name, kind: ToolKind::SixD, reserved: 0, pose }
    }
}

/// A pose of a tracker's tool.
pub(crate) trait ToolPose: Wire + Sized {
    const SIZE: usize;
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError>;
}

impl<P: ToolPose> Element for TrackedTool<P> {
    const PLURAL: &'static str = "tools";
    const SIZE: usize = 22 + P::SIZE;

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (name, kind, reserved) = (r.text("name")?, r.u8("type")?.into(), r.u8("reserved")?);
        Ok(Self { name, kind, reserved, pose: P::read(r)? })
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.text(&self.name);
        w.u8(self.kind.into());
        w.u8(self.reserved);
        self.pose.write(w);
    }

    fn value(&self) -> Value {
        let mut fields = vec![("name", self.name.into()), ("kind", self.kind.into())];
        fields.extend(self.pose.fields(0));
        fields.into()
    }
}
