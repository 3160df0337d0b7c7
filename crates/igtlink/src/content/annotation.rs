//! Marks in space: POINT and TRAJ.

use crate::codes::open_enum;
use crate::content::body::Element;
use crate::error::DecodeError;
use crate::value::Value;
use crate::wire::{FixedString, Reader, Writer};

/// A landmark, target or other marked point (protocol document, `point.md`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Name or description.
    pub name: FixedString<64>,
    /// Group, such as `Labeled Point`, `Landmark`, `Fiducial`.
    pub group: FixedString<32>,
    /// Colour and opacity.
    pub rgba: [u8; 4],
    /// In millimetres.
    pub position: [f32; 3],
    /// Diameter in millimetres; may be 0.
    pub diameter: f32,
    /// Device name of the image that the point belongs to, or empty.
    pub owner: FixedString<20>,
}

impl Point {
    /// A yellow point without group, size or owner.
    pub fn new(name: FixedString<64>, position: [f32; 3]) -> Self {
        Self {
            name,
            group: FixedString::EMPTY,
            rgba: [255, 255, 0, 255],
            position,
            diameter: 0.0,
            owner: FixedString::EMPTY,
        }
    }
}

impl Element for Point {
    const PLURAL: &'static str = "points";
    const SIZE: usize = 136;

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            name: r.text("name")?,
            group: r.text("group name")?,
            rgba: r.array("rgba")?,
            position: r.f32s("position")?,
            diameter: r.f32("diameter")?,
            owner: r.text("owner")?,
        })
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.text(&self.name);
        w.text(&self.group);
        w.bytes(&self.rgba);
        w.f32s(&self.position);
        w.f32(self.diameter);
        w.text(&self.owner);
    }

    fn value(&self) -> Value {
        vec![
            ("name", self.name.into()),
            ("group", self.group.into()),
            ("rgba", self.rgba.into()),
            ("position_mm", self.position.into()),
            ("diameter_mm", self.diameter.into()),
            ("owner", self.owner.into()),
        ]
        .into()
    }
}

open_enum! {
    /// Which ends of a trajectory are meant.
    TrajectoryKind: u8 {
        /// The entry point alone.
        Entry = 1,
        /// The target point alone.
        Target = 2,
        /// Both.
        EntryAndTarget = 3,
    }
}

/// A planned or executed straight path (protocol document, `trajectory.md`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trajectory {
    /// Name or description.
    pub name: FixedString<64>,
    /// Group, such as `Trajectory`.
    pub group: FixedString<32>,
    /// Which ends are meant.
    pub kind: TrajectoryKind,
    /// Kept as it came; send 0.
    pub reserved: u8,
    /// Colour and opacity.
    pub rgba: [u8; 4],
    /// In millimetres.
    pub entry: [f32; 3],
    /// In millimetres.
    pub target: [f32; 3],
    /// Diameter in millimetres; may be 0.
    pub diameter: f32,
    /// Device name of the image that the path belongs to, or empty.
    pub owner: FixedString<20>,
}

impl Element for Trajectory {
    const PLURAL: &'static str = "trajectories";
    const SIZE: usize = 150;

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            name: r.text("name")?,
            group: r.text("group name")?,
            kind: r.u8("type")?.into(),
            reserved: r.u8("reserved")?,
            rgba: r.array("rgba")?,
            entry: r.f32s("entry")?,
            target: r.f32s("target")?,
            diameter: r.f32("diameter")?,
            owner: r.text("owner")?,
        })
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.text(&self.name);
        w.text(&self.group);
        w.u8(self.kind.into());
        w.u8(self.reserved);
        w.bytes(&self.rgba);
        w.f32s(&self.entry);
        w.f32s(&self.target);
        w.f32(self.diameter);
        w.text(&self.owner);
    }

    fn value(&self) -> Value {
        vec![
            ("name", self.name.into()),
            ("group", self.group.into()),
            ("kind", self.kind.into()),
            ("rgba", self.rgba.into()),
            ("entry_mm", self.entry.into()),
            ("target_mm", self.target.into()),
            ("diameter_mm", self.diameter.into()),
            ("owner", self.owner.into()),
        ]
        .into()
    }
}
