//! What a peer has to offer: CAPABILITY, IMGMETA, LBMETA and VIDEOMETA.

use crate::content::body::Element;
use crate::content::image::Placement;
use crate::error::DecodeError;
use crate::header::TypeName;
use crate::timestamp::Timestamp;
use crate::value::Value;
use crate::wire::{FixedString, Reader, Writer};

/// CAPABILITY is a list of type names (protocol document, `capability.md`).
impl Element for TypeName {
    const PLURAL: &'static str = "types";
    const SIZE: usize = 12;

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.text("type name")
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.text(self);
    }

    fn value(&self) -> Value {
        (*self).into()
    }
}

/// An image that can be asked for (protocol document, `imagemeta.md`).
///
/// Name and number of the patient go over the wire in the clear: leave them empty where that matters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ImageInfo {
    /// Name or description.
    pub name: FixedString<64>,
    /// Device name to ask for.
    pub device_name: FixedString<20>,
    /// Modality, such as `US`.
    pub modality: FixedString<32>,
    /// Name of the patient.
    pub patient_name: FixedString<64>,
    /// Number of the patient.
    pub patient_id: FixedString<64>,
    /// When it was acquired.
    pub timestamp: Timestamp,
    /// Pixels along i, j and k.
    pub size: [u16; 3],
    /// Scalar type as in IMAGE, unchecked.
    pub scalar_type: u8,
    /// Kept as it came; send 0.
    pub reserved: u8,
}

impl Element for ImageInfo {
    const PLURAL: &'static str = "images";
    const SIZE: usize = 260;

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            name: r.text("name")?,
            device_name: r.text("device name")?,
            modality: r.text("modality")?,
            patient_name: r.text("patient name")?,
            patient_id: r.text("patient id")?,
            timestamp: Timestamp::from_bits(r.u64("timestamp")?),
            size: r.u16s("size")?,
            scalar_type: r.u8("scalar type")?,
            reserved: r.u8("reserved")?,
        })
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.text(&self.name);
        w.text(&self.device_name);
        w.text(&self.modality);
        w.text(&self.patient_name);
        w.text(&self.patient_id);
        w.u64(self.timestamp.to_bits());
        w.u16s(&self.size);
        w.u8(self.scalar_type);
        w.u8(self.reserved);
    }

    fn value(&self) -> Value {
        vec![
            ("name", self.name.into()),
            ("device_name", self.device_name.into()),
            ("modality", self.modality.into()),
            ("patient_name", self.patient_name.into()),
            ("patient_id", self.patient_id.into()),
            ("timestamp_s", self.timestamp.into()),
            ("size", self.size.into()),
            ("scalar_type", self.scalar_type.into()),
        ]
        .into()
    }
}

/// A label of a label map that can be asked for (protocol document, `labelmeta.md`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LabelInfo {
    /// Name or description.
    pub name: FixedString<64>,
    /// Device name to ask for.
    pub device_name: FixedString<20>,
    /// The label's value in the map.
    pub label: u8,
    /// Kept as it came; send 0.
    pub reserved: u8,
    /// Colour and opacity.
    pub rgba: [u8; 4],
    /// Pixels along i, j and k.
    pub size: [u16; 3],
    /// Device name of the image that the map belongs to, or empty.
    pub owner: FixedString<20>,
}

impl Element for LabelInfo {
    const PLURAL: &'static str = "labels";
    const SIZE: usize = 116;

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            name: r.text("name")?,
            device_name: r.text("device name")?,
            label: r.u8("label")?,
            reserved: r.u8("reserved")?,
            rgba: r.array("rgba")?,
            size: r.u16s("size")?,
            owner: r.text("owner")?,
        })
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.text(&self.name);
        w.text(&self.device_name);
        w.u8(self.label);
        w.u8(self.reserved);
        w.bytes(&self.rgba);
        w.u16s(&self.size);
        w.text(&self.owner);
    }

    fn value(&self) -> Value {
        vec![
            ("name", self.name.into()),
            ("device_name", self.device_name.into()),
            ("label", self.label.into()),
            ("rgba", self.rgba.into()),
            ("size", self.size.into()),
            ("owner", self.owner.into()),
        ]
        .into()
    }
}

/// A video that can be asked for (protocol document, `videometa.md`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct VideoInfo {
    /// Name or description.
    pub name: FixedString<64>,
    /// Device name to ask for; wider than the header's field.
    pub device_name: FixedString<64>,
    /// Name of the patient.
    pub patient_name: FixedString<64>,
    /// Number of the patient.
    pub patient_id: FixedString<64>,
    /// The camera's zoom, in its own units.
    pub zoom_level: i16,
    /// The camera's focal length in millimetres.
    pub focal_length_mm: f64,
    /// Pixels along i, j and k.
    pub size: [u16; 3],
    /// Where the frames lie.
    pub placement: Placement,
    /// Scalar type as in IMAGE, unchecked.
    pub scalar_type: u8,
    /// Kept as it came; send 0.
    pub reserved: u8,
}

impl Element for VideoInfo {
    const PLURAL: &'static str = "videos";
    const SIZE: usize = 322;

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            name: r.text("name")?,
            device_name: r.text("device name")?,
            patient_name: r.text("patient name")?,
            patient_id: r.text("patient id")?,
            zoom_level: r.u16("zoom level")? as i16,
            focal_length_mm: r.f64("focal length")?,
            size: r.u16s("size")?,
            placement: Placement::read(r)?,
            scalar_type: r.u8("scalar type")?,
            reserved: r.u8("reserved")?,
        })
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.text(&self.name);
        w.text(&self.device_name);
        w.text(&self.patient_name);
        w.text(&self.patient_id);
        w.u16(self.zoom_level as u16);
        w.f64(self.focal_length_mm);
        w.u16s(&self.size);
        self.placement.write(w);
        w.u8(self.scalar_type);
        w.u8(self.reserved);
    }

    fn value(&self) -> Value {
        let mut fields = vec![
            ("name", self.name.into()),
            ("device_name", self.device_name.into()),
            ("patient_name", self.patient_name.into()),
            ("patient_id", self.patient_id.into()),
            ("zoom_level", self.zoom_level.into()),
            ("focal_length_mm", self.focal_length_mm.into()),
            ("size", self.size.into()),
        ];
        fields.extend(self.placement.fields(self.size));
        fields.push(("scalar_type", self.scalar_type.into()));
        fields.into()
    }
}
