//! Bytes to fields and back: bounds-checked reading, writing into a buffer of known size,
//! and the two kinds of text that the protocol has.
//!
//! All numbers are big-endian (protocol document, `header.md`).

use std::borrow::Cow;
use std::fmt;

use crate::error::{DecodeError, Problem};

/// A fixed-width text field, padded with zero bytes: device names (20), type names (12), labels.
///
/// All `N` bytes are kept as they came, so that a relayed message keeps its bytes; what comes
/// after the first zero byte is not part of the text.
///
/// ```
/// use ultramotion_igtlink::FixedString;
/// let name: FixedString<20> = "Probe".parse()?;
/// assert_eq!(name, "Probe");
/// assert!("a name of more than twenty bytes".parse::<FixedString<20>>().is_err());
/// # Ok::<(), ultramotion_igtlink::NameTooLong>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FixedString<const N: usize>([u8; N]);

/// A text does not fit its fixed-width field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a text of {len} bytes does not fit into a field of {max} bytes")]
pub struct NameTooLong {
    /// Bytes in the text.
    pub len: usize,
    /// Bytes in the field.
    pub max: usize,
}

impl<const N: usize> FixedString<N> {
    /// The empty text.
    pub const EMPTY: Self = Self([0; N]);

    /// The text, if its UTF-8 bytes fit.
    pub fn new(text: &str) -> Result<Self, NameTooLong> {
        Self::from_bytes(text.as_bytes())
    }

    /// As much of the text as fits, cut between characters.
    pub fn truncated(text: &str) -> Self {
        let mut end = text.len().min(N);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let mut raw = [0; N];
        raw[..end].copy_from_slice(&text.as_bytes()[..end]);
        Self(raw)
    }

    /// The bytes, if they fit.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NameTooLong> {
        let mut raw = [0; N];
        raw.get_mut(..bytes.len()).ok_or(NameTooLong { len: bytes.len(), max: N })?.copy_from_slice(bytes);
        Ok(Self(raw))
    }

    /// A field as it stands on the wire, padding included.
    pub const fn from_raw(raw: [u8; N]) -> Self {
        Self(raw)
    }

    /// The field as it stands on the wire, padding included.
    pub const fn raw(&self) -> &[u8; N] {
        &self.0
    }

    /// The text's bytes, up to the first zero byte.
    pub fn as_bytes(&self) -> &[u8] {
        let end = self.0.iter().position(|&b| b == 0).unwrap_or(N);
        &self.0[..end]
    }

    /// The text, if it is UTF-8 (ASCII, by the standard).
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(self.as_bytes()).ok()
    }

    /// The text, with a replacement character for what is not UTF-8.
    pub fn to_string_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.as_bytes())
    }

    /// Whether the text is empty.
    pub fn is_empty(&self) -> bool {
        N == 0 || self.0[0] == 0
    }
}

impl<const N: usize> Default for FixedString<N> {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl<const N: usize> std::str::FromStr for FixedString<N> {
    type Err = NameTooLong;
    fn from_str(text: &str) -> Result<Self, NameTooLong> {
        Self::new(text)
    }
}

impl<const N: usize> TryFrom<&str> for FixedString<N> {
    type Error = NameTooLong;
    fn try_from(text: &str) -> Result<Self, NameTooLong> {
        Self::new(text)
    }
}

impl<const N: usize> PartialEq<str> for FixedString<N> {
    fn eq(&self, other: &str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl<const N: usize> PartialEq<&str> for FixedString<N> {
    fn eq(&self, other: &&str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl<const N: usize> fmt::Display for FixedString<N> {
    /// The text, with control characters escaped: a name from outside must not move the cursor.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.to_string_lossy();
        if text.contains(char::is_control) {
            return f.pad(&text.escape_debug().to_string());
        }
        f.pad(&text)
    }
}

impl<const N: usize> fmt::Debug for FixedString<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_string_lossy(), f)
    }
}

/// A character encoding by its IANA MIBenum number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CharacterEncoding(pub u16);

impl CharacterEncoding {
    /// US-ASCII, the protocol's default.
    pub const US_ASCII: Self = Self(3);
    /// ISO 8859-1.
    pub const ISO_8859_1: Self = Self(4);
    /// UTF-8.
    pub const UTF_8: Self = Self(106);
}

/// A text with its encoding: STRING and COMMAND bodies, metadata values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text<'a> {
    /// How the bytes are to be read.
    pub encoding: CharacterEncoding,
    /// The bytes as they stand on the wire.
    pub bytes: Cow<'a, [u8]>,
}

impl<'a> Text<'a> {
    /// A text, marked US-ASCII if it is and UTF-8 if it is not.
    pub fn new(text: impl Into<Cow<'a, str>>) -> Self {
        let bytes = match text.into() {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        };
        let encoding = if bytes.is_ascii() { CharacterEncoding::US_ASCII } else { CharacterEncoding::UTF_8 };
        Self { encoding, bytes }
    }

    /// The text as Unicode, or `None` where the encoding is none of US-ASCII, ISO 8859-1 and
    /// UTF-8, or where the bytes are not valid in it.
    ///
    /// Text marked US-ASCII is read as UTF-8, since senders mark it so by default.
    pub fn to_str(&self) -> Option<Cow<'_, str>> {
        match self.encoding {
            CharacterEncoding::US_ASCII | CharacterEncoding::UTF_8 => {
                std::str::from_utf8(&self.bytes).ok().map(Cow::Borrowed)
            }
            CharacterEncoding::ISO_8859_1 => {
                Some(Cow::Owned(self.bytes.iter().map(|&b| char::from(b)).collect()))
            }
            _ => None,
        }
    }

    /// The same text with its own copy of the bytes.
    pub fn into_owned(self) -> Text<'static> {
        Text { encoding: self.encoding, bytes: Cow::Owned(self.bytes.into_owned()) }
    }
}

/// Reads fields in order from one part of a message; errors name the part and the field.
pub(crate) struct Reader<'a> {
    part: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(part: &'static str, bytes: &'a [u8]) -> Self {
        Self { part, rest: bytes }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn error(&self, field: &'static str, value: u64, problem: Problem) -> DecodeError {
        DecodeError::field(self.part, field, value, problem)
    }

    /// `len` bytes, where `field` is what claims them.
    pub(crate) fn bytes(&mut self, field: &'static str, len: u64) -> Result<&'a [u8], DecodeError> {
        match usize::try_from(len).ok().and_then(|len| self.rest.split_at_checked(len)) {
            Some((head, tail)) => {
                self.rest = tail;
                Ok(head)
            }
            None => Err(self.error(field, len, Problem::Exceeds(self.rest.len() as u64))),
        }
    }

    pub(crate) fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        match self.rest.split_first_chunk::<N>() {
            Some((head, tail)) => {
                self.rest = tail;
                Ok(*head)
            }
            // The part ends inside this field.
            None => Err(self.error(field, self.rest.len() as u64, Problem::AtLeast(N as u64))),
        }
    }

    pub(crate) fn text<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<FixedString<N>, DecodeError> {
        Ok(FixedString(self.array(field)?))
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        Ok(u8::from_be_bytes(self.array(field)?))
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        Ok(u16::from_be_bytes(self.array(field)?))
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array(field)?))
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        Ok(u64::from_be_bytes(self.array(field)?))
    }

    pub(crate) fn f32(&mut self, field: &'static str) -> Result<f32, DecodeError> {
        Ok(f32::from_be_bytes(self.array(field)?))
    }

    pub(crate) fn f64(&mut self, field: &'static str) -> Result<f64, DecodeError> {
        Ok(f64::from_be_bytes(self.array(field)?))
    }

    pub(crate) fn u16s<const N: usize>(&mut self, field: &'static str) -> Result<[u16; N], DecodeError> {
        let mut values = [0; N];
        for value in &mut values {
            *value = self.u16(field)?;
        }
        Ok(values)
    }

    pub(crate) fn f32s<const N: usize>(&mut self, field: &'static str) -> Result<[f32; N], DecodeError> {
        let mut values = [0.0; N];
        for value in &mut values {
            *value = self.f32(field)?;
        }
        Ok(values)
    }

    /// How many bytes there are before the next zero byte.
    pub(crate) fn position_of_zero(&self) -> Option<usize> {
        self.rest.iter().position(|&b| b == 0)
    }

    /// Everything that is left.
    pub(crate) fn take_rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// An error if bytes are left over.
    pub(crate) fn finish(self, part_size: usize) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        let expected = part_size - self.rest.len();
        Err(self.error("size", part_size as u64, Problem::Expected(expected as u64)))
    }
}

/// Writes fields in order into a buffer that `Wire::size` has measured.
pub(crate) struct Writer<'a> {
    rest: &'a mut [u8],
}

impl<'a> Writer<'a> {
    pub(crate) fn new(buffer: &'a mut [u8]) -> Self {
        Self { rest: buffer }
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        // `size` and `write` of one type must agree: the round-trip tests hold them to it.
        let (head, tail) = std::mem::take(&mut self.rest).split_at_mut(bytes.len());
        head.copy_from_slice(bytes);
        self.rest = tail;
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }

    pub(crate) fn f32(&mut self, value: f32) {
        self.bytes(&value.to_be_bytes());
    }

    pub(crate) fn f64(&mut self, value: f64) {
        self.bytes(&value.to_be_bytes());
    }

    pub(crate) fn u16s(&mut self, values: &[u16]) {
        values.iter().for_each(|&value| self.u16(value));
    }

    pub(crate) fn f32s(&mut self, values: &[f32]) {
        values.iter().for_each(|&value| self.f32(value));
    }

    pub(crate) fn text<const N: usize>(&mut self, text: &FixedString<N>) {
        self.bytes(&text.0);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.rest.is_empty()
    }
}

/// Byte order of the pixels; all other numbers of the protocol are big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Endian {
    /// Most significant byte first.
    Big = 1,
    /// Least significant byte first.
    Little = 2,
}

impl Endian {
    /// This machine's byte order.
    pub const NATIVE: Self = if cfg!(target_endian = "big") { Self::Big } else { Self::Little };

    pub(crate) fn read(r: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        match r.u8(field)? {
            1 => Ok(Self::Big),
            2 => Ok(Self::Little),
            other => Err(r.error(field, other.into(), Problem::OneOf("1 or 2"))),
        }
    }

    /// The value on the wire.
    pub const fn code(self) -> u8 {
        self as u8
    }
}
