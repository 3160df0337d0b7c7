//! The 58 bytes before every body, and the extended header that versions 2 and 3 put first in it.

use crate::error::{DecodeError, Problem};
use crate::timestamp::Timestamp;
use crate::value::Fields;
use crate::wire::{FixedString, Reader, Writer};

/// Bytes of the header.
pub const HEADER_SIZE: usize = 58;

/// Bytes of the extended header's known fields.
pub(crate) const EXTENDED_HEADER_SIZE: usize = 12;

/// A message type as it stands in the header: `IMAGE`, `GET_TRANS`, …
pub type TypeName = FixedString<12>;

/// A device name as it stands in the header.
pub type DeviceName = FixedString<20>;

/// The header's version field.
///
/// Protocol versions 1 and 2 use header version 1; protocol version 3 uses header version 2, which
/// brings the extended header and metadata. Header version 3 is accepted and laid out like 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum HeaderVersion {
    /// The body is the content.
    V1 = 1,
    /// The body is extended header, content, metadata.
    V2 = 2,
    /// As version 2.
    V3 = 3,
}

impl HeaderVersion {
    /// The version of this number, if there is one.
    pub const fn new(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::V1),
            2 => Some(Self::V2),
            3 => Some(Self::V3),
            _ => None,
        }
    }

    /// Whether bodies of this version begin with an extended header.
    pub const fn is_extended(self) -> bool {
        !matches!(self, Self::V1)
    }
}

/// What precedes every body (protocol document, `header.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Version of the header's layout.
    pub version: HeaderVersion,
    /// Type of the content.
    pub type_name: TypeName,
    /// Who sends, or of whom something is asked.
    pub device_name: DeviceName,
    /// When the content was acquired.
    pub timestamp: Timestamp,
    /// Bytes of the body that follows.
    pub body_size: u64,
    /// CRC-64 of the body.
    pub crc: u64,
}

impl Header {
    /// Reads the header at the start of `bytes`. Nothing is concluded from the body size yet.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let Some(raw) = bytes.first_chunk::<HEADER_SIZE>() else {
            return Err(DecodeError::Short { needed: HEADER_SIZE as u64, have: bytes.len() as u64 });
        };
        let mut r = Reader::new("header", raw);
        let version = r.u16("version")?;
        let version = HeaderVersion::new(version).ok_or(DecodeError::Version { version })?;
        let type_name: TypeName = r.text("type")?;
        if let Some(&bad) = type_name.as_bytes().iter().find(|b| !b.is_ascii_graphic() && **b != b' ') {
            return Err(r.error("type character", bad.into(), Problem::OneOf("printable ASCII")));
        }
        if type_name.is_empty() {
            return Err(r.error("type length", 0, Problem::AtLeast(1)));
        }
        Ok(Self {
            version,
            type_name,
            device_name: r.text("device name")?,
            timestamp: Timestamp::from_bits(r.u64("timestamp")?),
            body_size: r.u64("body size")?,
            crc: r.u64("crc")?,
        })
    }

    /// What it says, without the checksum.
    pub fn fields(&self) -> Fields {
        vec![
            ("type", self.type_name.into()),
            ("device_name", self.device_name.into()),
            ("version", (self.version as u16).into()),
            ("timestamp_s", self.timestamp.into()),
            ("body_size", self.body_size.into()),
        ]
    }

    /// The header's 58 bytes.
    pub fn encode(&self) -> [u8; HEADER_SIZE] {
        let mut bytes = [0; HEADER_SIZE];
        let mut w = Writer::new(&mut bytes);
        w.u16(self.version as u16);
        w.text(&self.type_name);
        w.text(&self.device_name);
        w.u64(self.timestamp.to_bits());
        w.u64(self.body_size);
        w.u64(self.crc);
        bytes
    }
}

/// A body cut into its parts.
pub(crate) struct Parts<'a> {
    pub(crate) message_id: u32,
    /// Bytes of the extended header beyond those that this version of the protocol names.
    pub(crate) extension: &'a [u8],
    pub(crate) content: &'a [u8],
    pub(crate) metadata_index: &'a [u8],
    pub(crate) metadata_body: &'a [u8],
}

pub(crate) fn split_body(version: HeaderVersion, body: &[u8]) -> Result<Parts<'_>, DecodeError> {
    let bare =
        Parts { message_id: 0, extension: &[], content: body, metadata_index: &[], metadata_body: &[] };
    // A reply "no data available" has no body at all (protocol document, `query.md`).
    if !version.is_extended() || body.is_empty() {
        return Ok(bare);
    }
    let mut r = Reader::new("extended header", body);
    let size = r.u16("size")?;
    let Some(extension) = usize::from(size).checked_sub(EXTENDED_HEADER_SIZE) else {
        return Err(r.error("size", size.into(), Problem::AtLeast(EXTENDED_HEADER_SIZE as u64)));
    };
    let index_size = r.u16("metadata header size")?;
    let body_size = r.u32("metadata size")?;
    let message_id = r.u32("message id")?;
    if extension > r.remaining() {
        return Err(r.error("size", size.into(), Problem::Exceeds(body.len() as u64)));
    }
    let extension = r.bytes("size", extension as u64)?;

    let metadata = u64::from(index_size) + u64::from(body_size);
    let left = r.remaining() as u64;
    let Some(content_size) = left.checked_sub(metadata) else {
        return Err(r.error("metadata size", metadata, Problem::Exceeds(left)));
    };
    Ok(Parts {
        message_id,
        extension,
        content: r.bytes("content", content_size)?,
        metadata_index: r.bytes("metadata header size", index_size.into())?,
        metadata_body: r.take_rest(),
    })
}
