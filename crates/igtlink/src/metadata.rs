//! Key-value pairs after the content, from header version 2 on.

use std::borrow::Cow;

use crate::error::{DecodeError, EncodeError, Problem, fits};
use crate::wire::{Reader, Text, Writer};

/// One key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataEntry<'a> {
    /// The key's bytes: ASCII by the standard, UTF-8 in practice.
    pub key: Cow<'a, [u8]>,
    /// The value and its encoding.
    pub value: Text<'a>,
}

/// The metadata of a message, in the order of the wire.
///
/// ```
/// use ultramotion_igtlink::Metadata;
/// let mut metadata = Metadata::default();
/// metadata.push("LatencyMs", "12.5");
/// assert_eq!(metadata.get("LatencyMs").as_deref(), Some("12.5"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata<'a> {
    /// The pairs.
    pub entries: Vec<MetadataEntry<'a>>,
}

/// Bytes that an entry takes in the index: key size, encoding, value size.
const INDEX_ENTRY_SIZE: usize = 8;

impl<'a> Metadata<'a> {
    /// Appends a pair.
    pub fn push(&mut self, key: impl Into<Cow<'a, str>>, value: impl Into<Cow<'a, str>>) {
        let key = match key.into() {
            Cow::Borrowed(key) => Cow::Borrowed(key.as_bytes()),
            Cow::Owned(key) => Cow::Owned(key.into_bytes()),
        };
        self.entries.push(MetadataEntry { key, value: Text::new(value) });
    }

    /// The value of a key, if it is there and can be read as Unicode. Of several equal keys the
    /// last counts, as in the reference library.
    pub fn get(&self, key: &str) -> Option<Cow<'_, str>> {
        self.entries.iter().rev().find(|e| *e.key == *key.as_bytes()).and_then(|e| e.value.to_str())
    }

    /// Keys and values, with a replacement character for what is not Unicode.
    pub fn iter(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        self.entries.iter().map(|e| {
            let value = e.value.to_str().unwrap_or_else(|| String::from_utf8_lossy(&e.value.bytes));
            (String::from_utf8_lossy(&e.key), value)
        })
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The same pairs with their own copy of the bytes.
    pub fn into_owned(self) -> Metadata<'static> {
        let own = |e: MetadataEntry<'_>| MetadataEntry {
            key: Cow::Owned(e.key.into_owned()),
            value: e.value.into_owned(),
        };
        Metadata { entries: self.entries.into_iter().map(own).collect() }
    }

    pub(crate) fn decode(index: &'a [u8], body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut body = Reader::new("metadata", body);
        let mut index = Reader::new("metadata", index);
        if index.remaining() == 0 && body.remaining() == 0 {
            return Ok(Self::default());
        }
        let count = index.u16("count")?;
        let room = index.remaining();
        if usize::from(count) * INDEX_ENTRY_SIZE != room {
            return Err(index.error(
                "count",
                count.into(),
                Problem::Expected((room / INDEX_ENTRY_SIZE) as u64),
            ));
        }
        let mut entries = Vec::with_capacity(count.into());
        for _ in 0..count {
            let key_size = index.u16("key size")?;
            let encoding = crate::CharacterEncoding(index.u16("value encoding")?);
            let value_size = index.u32("value size")?;
            if key_size == 0 {
                return Err(index.error("key size", 0, Problem::AtLeast(1)));
            }
            let key = Cow::Borrowed(body.bytes("key size", key_size.into())?);
            let bytes = Cow::Borrowed(body.bytes("value size", value_size.into())?);
            entries.push(MetadataEntry { key, value: Text { encoding, bytes } });
        }
        let left = body.remaining();
        if left != 0 {
            return Err(body.error("unclaimed bytes", left as u64, Problem::Expected(0)));
        }
        Ok(Self { entries })
    }

    /// Sizes of index and body.
    pub(crate) fn sizes(&self) -> Result<(u16, u32), EncodeError> {
        let most = (usize::from(u16::MAX) - 2) / INDEX_ENTRY_SIZE;
        let index = 2 + INDEX_ENTRY_SIZE * fits("metadata", "count", self.entries.len(), most as u64)?;
        let mut body = 0;
        for entry in &self.entries {
            if entry.key.is_empty() {
                return Err(EncodeError::field("metadata", "key size", 0, Problem::AtLeast(1)));
            }
            body += fits("metadata", "key", entry.key.len(), u16::MAX.into())?;
            body += fits("metadata", "value", entry.value.bytes.len(), u32::MAX.into())?;
        }
        fits("metadata", "size", body, u32::MAX.into())?;
        Ok((index as u16, body as u32))
    }

    pub(crate) fn write(&self, w: &mut Writer<'_>) {
        w.u16(self.entries.len() as u16);
        for entry in &self.entries {
            w.u16(entry.key.len() as u16);
            w.u16(entry.value.encoding.0);
            w.u32(entry.value.bytes.len() as u32);
        }
        for entry in &self.entries {
            w.bytes(&entry.key);
            w.bytes(&entry.value.bytes);
        }
    }
}
