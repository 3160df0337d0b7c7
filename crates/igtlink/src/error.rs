//! What can be wrong with bytes that came in, or with a message about to go out.
//!
//! [`DecodeError`] names the part of the message, the field and the value found there;
//! [`DecodeError::class`] folds it into the three classes that conformance suites use.

use std::fmt;

/// Why bytes are not an OpenIGTLink message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Fewer bytes are there than the header, or the body size in it, calls for.
    #[error("the message is cut short: {needed} bytes are needed, {have} are there")]
    Short {
        /// Bytes that the header calls for, header included.
        needed: u64,
        /// Bytes that were given.
        have: u64,
    },
    /// The header's version is none of 1, 2, 3.
    #[error("header: version = {version}, expected 1, 2 or 3")]
    Version {
        /// The version found.
        version: u16,
    },
    /// The body does not have the checksum that the header announces.
    #[error("header: crc = {stored:#018x}, but the body's CRC-64 is {computed:#018x}")]
    Crc {
        /// What the header says.
        stored: u64,
        /// What the body has.
        computed: u64,
    },
    /// A field holds a value that the format forbids, or one that contradicts another field.
    #[error("{part}: {field} = {value}, {problem}")]
    Field {
        /// The message type, or `header`, `extended header`, `metadata`.
        part: &'static str,
        /// The field's name.
        field: &'static str,
        /// The value found.
        value: u64,
        /// What is wrong with it.
        problem: Problem,
    },
}

/// What is wrong with a field's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// Other fields require exactly this value.
    Expected(u64),
    /// The format knows only these values.
    OneOf(&'static str),
    /// The value must be a multiple of this.
    MultipleOf(u64),
    /// The value claims more than the bytes, or elements, that are there.
    Exceeds(u64),
    /// The value is below this minimum.
    AtLeast(u64),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Expected(n) => write!(f, "expected {n}"),
            Problem::OneOf(list) => write!(f, "expected {list}"),
            Problem::MultipleOf(n) => write!(f, "expected a multiple of {n}"),
            Problem::Exceeds(n) => write!(f, "but only {n} can be there"),
            Problem::AtLeast(n) => write!(f, "expected at least {n}"),
        }
    }
}

/// The three ways in which conformance suites class a bad message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// Not all bytes are there: on a stream, wait for more.
    ShortBuffer,
    /// The bytes contradict the format or themselves.
    Malformed,
    /// The body was changed on its way.
    CrcMismatch,
}

impl DecodeError {
    /// The class of this error.
    pub fn class(&self) -> ErrorClass {
        match self {
            DecodeError::Short { .. } => ErrorClass::ShortBuffer,
            DecodeError::Crc { .. } => ErrorClass::CrcMismatch,
            DecodeError::Version { .. } | DecodeError::Field { .. } => ErrorClass::Malformed,
        }
    }

    pub(crate) fn field(part: &'static str, field: &'static str, value: u64, problem: Problem) -> Self {
        DecodeError::Field { part, field, value, problem }
    }
}

/// Why a message cannot be written as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A text, list or block is longer than its length field, or its fixed width, can hold.
    #[error("{part}: {field} has length {len}, at most {max} fit")]
    TooLong {
        /// The message type, or `header`, `metadata`.
        part: &'static str,
        /// The field's name.
        field: &'static str,
        /// Its length, in bytes or elements.
        len: u64,
        /// The longest that the format can carry.
        max: u64,
    },
    /// Two fields of the message contradict each other.
    #[error("{part}: {field} = {value}, {problem}")]
    Field {
        /// The message type.
        part: &'static str,
        /// The field's name.
        field: &'static str,
        /// Its value.
        value: u64,
        /// What it would have to be.
        problem: Problem,
    },
    /// Header version 1 has no place for metadata, message id or header extension.
    #[error("header version 1 cannot carry {what}; use version 2")]
    NeedsVersion2 {
        /// What the message carries.
        what: &'static str,
    },
    /// The caller's buffer is too small.
    #[error("a buffer of {have} bytes is too small for a message of {needed}")]
    BufferTooSmall {
        /// Bytes of the encoded message.
        needed: usize,
        /// Bytes in the buffer.
        have: usize,
    },
}

impl EncodeError {
    pub(crate) fn field(part: &'static str, field: &'static str, value: u64, problem: Problem) -> Self {
        EncodeError::Field { part, field, value, problem }
    }
}

/// `Ok(len)` if `len` is no more than `max`.
pub(crate) fn fits(
    part: &'static str,
    field: &'static str,
    len: usize,
    max: u64,
) -> Result<usize, EncodeError> {
    if len as u64 > max {
        return Err(EncodeError::TooLong { part, field, len: len as u64, max });
    }
    Ok(len)
}
