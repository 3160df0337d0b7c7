//! A whole message: header fields, metadata and content.

use std::borrow::Cow;
use std::fmt;

use crate::content::Content;
use crate::crc::crc64;
use crate::error::{DecodeError, EncodeError, fits};
use crate::header::{DeviceName, EXTENDED_HEADER_SIZE, HEADER_SIZE, Header, HeaderVersion, split_body};
use crate::metadata::Metadata;
use crate::timestamp::Timestamp;
use crate::value::{Fields, Value};
use crate::wire::Writer;

/// A message. Pixels, texts and other blocks borrow from the bytes it was decoded from.
///
/// ```
/// use ultramotion_igtlink::{Content, Message, Transform};
/// let mut message = Message::new("ProbeToTracker".parse()?, Content::Transform(Transform::IDENTITY));
/// message.metadata.push("ProbeToTrackerStatus", "OK");
/// let bytes = message.to_bytes()?;
/// assert_eq!(Message::decode(&bytes)?, message);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Message<'a> {
    /// Version of the header's layout; [`Message::new`] takes version 2.
    pub version: HeaderVersion,
    /// Who sends, or of whom something is asked.
    pub device_name: DeviceName,
    /// When the content was acquired.
    pub timestamp: Timestamp,
    /// The sender's number for this message; 0 where unused, and always in version 1.
    pub message_id: u32,
    /// Bytes of the extended header beyond those that the protocol names; normally none.
    pub extension: Cow<'a, [u8]>,
    /// Key-value pairs; none in version 1.
    pub metadata: Metadata<'a>,
    /// What the message says.
    pub content: Content<'a>,
}

impl<'a> Message<'a> {
    /// A message of header version 2 without timestamp or metadata.
    ///
    /// Peers whose library is older than protocol version 3 (2017) know header version 1 alone:
    /// set [`Message::version`] for them.
    pub fn new(device_name: DeviceName, content: Content<'a>) -> Self {
        Self {
            version: HeaderVersion::V2,
            device_name,
            timestamp: Timestamp::NONE,
            message_id: 0,
            extension: Cow::Borrowed(&[]),
            metadata: Metadata::default(),
            content,
        }
    }

    /// The same message with this timestamp.
    pub fn at(mut self, timestamp: Timestamp) -> Self {
        self.timestamp = timestamp;
        self
    }

    /// Reads the message at the start of `bytes`; what follows it is not looked at.
    ///
    /// The checksum is verified before anything in the body is.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let header = Header::decode(bytes)?;
        let after = bytes.get(HEADER_SIZE..).unwrap_or_default();
        let body = usize::try_from(header.body_size).ok().and_then(|size| after.get(..size)).ok_or(
            DecodeError::Short {
                needed: header.body_size.saturating_add(HEADER_SIZE as u64),
                have: bytes.len() as u64,
            },
        )?;
        verify_crc(&header, body)?;
        Self::from_parts(&header, body)
    }

    /// Reads a message whose header was decoded, and whose checksum was verified, before:
    /// see [`RawMessage::decode`](crate::RawMessage::decode).
    pub fn from_parts(header: &Header, body: &'a [u8]) -> Result<Self, DecodeError> {
        let parts = split_body(header.version, body)?;
        Ok(Self {
            version: header.version,
            device_name: header.device_name,
            timestamp: header.timestamp,
            message_id: parts.message_id,
            extension: Cow::Borrowed(parts.extension),
            metadata: Metadata::decode(parts.metadata_index, parts.metadata_body)?,
            content: Content::decode(&header.type_name, parts.content)?,
        })
    }

    /// Bytes of the encoded message, header included.
    pub fn encoded_len(&self) -> Result<usize, EncodeError> {
        Ok(self.sizes()?.total())
    }

    /// Writes the message to `out`, replacing what is there. A buffer that is used again and
    /// again stops allocating once it has the size of the largest message.
    pub fn encode_into(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let sizes = self.sizes()?;
        out.resize(sizes.total(), 0);
        self.write(sizes, out);
        Ok(())
    }

    /// Writes the message to the start of `buffer`, and returns how many bytes it has.
    pub fn encode_to_slice(&self, buffer: &mut [u8]) -> Result<usize, EncodeError> {
        let sizes = self.sizes()?;
        let needed = sizes.total();
        let have = buffer.len();
        let target = buffer.get_mut(..needed).ok_or(EncodeError::BufferTooSmall { needed, have })?;
        self.write(sizes, target);
        Ok(needed)
    }

    /// The encoded message in a buffer of its own.
    pub fn to_bytes(&self) -> Result<Vec<u8>, EncodeError> {
        let mut bytes = Vec::new();
        self.encode_into(&mut bytes)?;
        Ok(bytes)
    }

    /// The same message with its own copy of all bytes.
    pub fn into_owned(self) -> Message<'static> {
        Message {
            version: self.version,
            device_name: self.device_name,
            timestamp: self.timestamp,
            message_id: self.message_id,
            extension: Cow::Owned(self.extension.into_owned()),
            metadata: self.metadata.into_owned(),
            content: self.content.into_owned(),
        }
    }

    /// What it says: header, metadata and, as `content`, the content's fields.
    pub fn fields(&self) -> Fields {
        let mut fields = vec![
            ("type", self.content.type_name().into()),
            ("device_name", self.device_name.into()),
            ("version", (self.version as u16).into()),
            ("timestamp_s", self.timestamp.into()),
            // In 2^-32 s, since a float is not exact.
            ("timestamp_bits", self.timestamp.to_bits().into()),
        ];
        if self.version.is_extended() {
            let pairs = self.metadata.iter().map(|(key, value)| (key.into(), value.into()));
            fields.push(("message_id", self.message_id.into()));
            fields.push(("metadata", Value::Pairs(pairs.collect())));
        }
        if !self.extension.is_empty() {
            fields.push(("header_extension", Value::Bytes(self.extension.to_vec())));
        }
        fields.push(("content", self.content.fields().into()));
        fields
    }

    fn sizes(&self) -> Result<Sizes, EncodeError> {
        let content = self.content.size()?;
        if self.version.is_extended() {
            let most = usize::from(u16::MAX) - EXTENDED_HEADER_SIZE;
            fits("extended header", "extension", self.extension.len(), most as u64)?;
            let (index, metadata) = self.metadata.sizes()?;
            return Ok(Sizes {
                extended: EXTENDED_HEADER_SIZE + self.extension.len(),
                content,
                index,
                metadata,
            });
        }
        let carries = [
            ("metadata", !self.metadata.is_empty()),
            ("a message id", self.message_id != 0),
            ("an extension of the header", !self.extension.is_empty()),
        ];
        if let Some((what, _)) = carries.into_iter().find(|(_, there)| *there) {
            return Err(EncodeError::NeedsVersion2 { what });
        }
        Ok(Sizes { extended: 0, content, index: 0, metadata: 0 })
    }

    /// `buffer` has exactly `sizes.total()` bytes.
    fn write(&self, sizes: Sizes, buffer: &mut [u8]) {
        let (head, body) = buffer.split_at_mut(HEADER_SIZE);
        let mut w = Writer::new(body);
        if sizes.extended > 0 {
            w.u16(sizes.extended as u16);
            w.u16(sizes.index);
            w.u32(sizes.metadata);
            w.u32(self.message_id);
            w.bytes(&self.extension);
        }
        self.content.write(&mut w);
        if sizes.extended > 0 {
            self.metadata.write(&mut w);
        }
        debug_assert!(w.is_full(), "{} has another size than it says", self.content.type_name());

        let header = Header {
            version: self.version,
            type_name: self.content.type_name(),
            device_name: self.device_name,
            timestamp: self.timestamp,
            body_size: body.len() as u64,
            crc: crc64(body),
        };
        head.copy_from_slice(&header.encode());
    }
}

impl fmt::Display for Message<'_> {
    /// Time, device, content and metadata in a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.timestamp, self.device_name, self.content)?;
        for (position, (key, value)) in self.metadata.iter().enumerate() {
            let before = if position == 0 { " |" } else { "," };
            write!(f, "{before} {}={}", key.escape_debug(), Value::from(value))?;
        }
        Ok(())
    }
}

pub(crate) fn verify_crc(header: &Header, body: &[u8]) -> Result<(), DecodeError> {
    let computed = crc64(body);
    if computed == header.crc {
        return Ok(());
    }
    Err(DecodeError::Crc { stored: header.crc, computed })
}

/// Bytes of a message's parts.
#[derive(Clone, Copy)]
struct Sizes {
    extended: usize,
    content: usize,
    index: u16,
    metadata: u32,
}

impl Sizes {
    fn total(self) -> usize {
        HEADER_SIZE + self.extended + self.content + usize::from(self.index) + self.metadata as usize
    }
}
