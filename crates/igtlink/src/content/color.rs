//! COLORT: colours by pixel value.

use std::borrow::Cow;

use crate::codes::closed_enum;
use crate::content::body::{Body, Wire};
use crate::error::{DecodeError, EncodeError, Problem};
use crate::value::{Fields, Value};
use crate::wire::{Reader, Writer};

closed_enum! {
    /// Pixel values that the table covers.
    IndexType("3 or 5") {
        /// 0 to 255.
        Uint8 = 3,
        /// 0 to 65535.
        Uint16 = 5,
    }
}

closed_enum! {
    /// What the table gives for a pixel value.
    MapType("3, 5 or 19") {
        /// 8 bits of grey.
        Uint8 = 3,
        /// 16 bits of grey.
        Uint16 = 5,
        /// Three bytes: red, green, blue.
        Rgb = 19,
    }
}

/// A table of colours (protocol document, `colortable.md`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColorTable<'a> {
    /// Pixel values covered.
    pub index: IndexType,
    /// What each entry is.
    pub map: MapType,
    /// The entries, big-endian.
    pub table: Cow<'a, [u8]>,
    /// Whether the type name is `COLORTABLE`, as the reference library's first class writes it,
    /// and not `COLORT`.
    pub long_type_name: bool,
}

impl<'a> ColorTable<'a> {
    /// The same table with its own copy of the entries.
    pub fn into_owned(self) -> ColorTable<'static> {
        ColorTable { table: Cow::Owned(self.table.into_owned()), ..self }
    }

    fn expected_len(&self) -> u64 {
        let entries = match self.index {
            IndexType::Uint8 => 1 << 8,
            IndexType::Uint16 => 1 << 16,
        };
        let bytes = match self.map {
            MapType::Uint8 => 1,
            MapType::Uint16 => 2,
            MapType::Rgb => 3,
        };
        entries * bytes
    }
}

impl<'a> Body<'a> for ColorTable<'a> {
    fn decode(type_name: &'static str, content: &'a [u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("COLORT", content);
        let index = IndexType::read(&mut r, "index type")?;
        let map = MapType::read(&mut r, "map type")?;
        let table = Self {
            index,
            map,
            table: Cow::Borrowed(r.take_rest()),
            long_type_name: type_name == "COLORTABLE",
        };
        let (len, expected) = (table.table.len() as u64, table.expected_len());
        if len != expected {
            return Err(DecodeError::field("COLORT", "table bytes", len, Problem::Expected(expected)));
        }
        Ok(table)
    }
}

impl Wire for ColorTable<'_> {
    fn size(&self) -> Result<usize, EncodeError> {
        let (len, expected) = (self.table.len() as u64, self.expected_len());
        if len != expected {
            return Err(EncodeError::field("COLORT", "table bytes", len, Problem::Expected(expected)));
        }
        Ok(2 + self.table.len())
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.u8(self.index.code());
        w.u8(self.map.code());
        w.bytes(&self.table);
    }

    fn fields(&self, _: usize) -> Fields {
        vec![
            ("index_type", self.index.into()),
            ("map_type", self.map.into()),
            ("table", Value::Bytes(self.table.to_vec())),
        ]
    }
}
