//! What a message says as a tree of named values, for programs that show or store it.
//!
//! Every type lists its fields once, with their units in their names. Everything that is shown of
//! messages comes from these lists: the one line of `Display`, and whatever a program makes of a
//! [`Value`] or, with the feature `serde`, of a message. There is no way back: for that there are the
//! bytes on the wire.
//!
//! ```
//! use ultramotion_igtlink::{Content, Image, Value};
//! let fields = Content::Image(Image::grey8(2, 1, &[0, 255])).fields();
//! assert_eq!(fields[0], ("size", Value::from([2u16, 1, 1])));
//! ```

use std::fmt;

use crate::timestamp::Timestamp;
use crate::wire::{Endian, FixedString};

/// Values by name, in the order of the type's documentation.
pub type Fields = Vec<(&'static str, Value)>;

/// A value in a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing, where there could be something.
    None,
    /// Yes or no.
    Bool(bool),
    /// A whole number.
    Unsigned(u64),
    /// A whole number that could be negative.
    Signed(i64),
    /// A number in single precision.
    Single(f32),
    /// A number in double precision.
    Double(f64),
    /// A text, with replacement characters for what was not UTF-8.
    Text(String),
    /// A block of which no more is known.
    Bytes(Vec<u8>),
    /// A block of numbers.
    Numbers(Numbers),
    /// Values without names.
    List(Vec<Value>),
    /// Values with names.
    Fields(Fields),
    /// Texts whose names come from outside; a name may come twice.
    Pairs(Vec<(String, String)>),
}

/// A block of numbers as it stands on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbers {
    /// Their type, by the code that it has in IMAGE and NDARRAY.
    pub(crate) code: u8,
    pub(crate) endian: Endian,
    pub(crate) bytes: Vec<u8>,
}

impl Numbers {
    fn size_bytes(&self) -> usize {
        match self.code {
            2 | 3 => 1,
            4 | 5 => 2,
            6 | 7 | 10 => 4,
            _ => 8,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.bytes.len() / self.size_bytes()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The numbers; of a complex one first the real, then the imaginary part.
    pub fn iter(&self) -> impl Iterator<Item = Value> + Clone + '_ {
        self.bytes.chunks_exact(self.size_bytes()).map(|bytes| {
            let mut big = [0; 8];
            let bits = &mut big[8 - bytes.len()..];
            bits.copy_from_slice(bytes);
            if self.endian == Endian::Little {
                bits.reverse();
            }
            let bits = u64::from_be_bytes(big);
            match self.code {
                2 => (bits as i8).into(),
                4 => (bits as i16).into(),
                6 => (bits as i32).into(),
                3 | 5 | 7 => bits.into(),
                10 => f32::from_bits(bits as u32).into(),
                _ => f64::from_bits(bits).into(),
            }
        })
    }
}

macro_rules! value_from {
    ($($type:ty => $variant:ident,)*) => {
        $(impl From<$type> for Value {
            fn from(value: $type) -> Self {
                Value::$variant(value.into())
            }
        })*
    };
}

value_from! {
    bool => Bool,
    u8 => Unsigned, u16 => Unsigned, u32 => Unsigned, u64 => Unsigned,
    i8 => Signed, i16 => Signed, i32 => Signed, i64 => Signed,
    f32 => Single, f64 => Double,
    &str => Text, String => Text, std::borrow::Cow<'_, str> => Text,
    Fields => Fields,
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Value::Unsigned(value as u64)
    }
}

/// In seconds, to the precision of a float.
impl From<Timestamp> for Value {
    fn from(timestamp: Timestamp) -> Self {
        Value::Double(timestamp.as_secs_f64())
    }
}

impl From<Endian> for Value {
    fn from(endian: Endian) -> Self {
        format!("{endian:?}").into()
    }
}

impl<const N: usize> From<FixedString<N>> for Value {
    fn from(text: FixedString<N>) -> Self {
        text.to_string_lossy().into()
    }
}

impl<T: Into<Value>, const N: usize> From<[T; N]> for Value {
    fn from(values: [T; N]) -> Self {
        values.into_iter().collect()
    }
}

impl<T: Into<Value>> FromIterator<T> for Value {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        Value::List(values.into_iter().map(Into::into).collect())
    }
}

/// Bytes that should be a text.
pub(crate) fn lossy(bytes: &[u8]) -> Value {
    String::from_utf8_lossy(bytes).into()
}

/// Texts are cut to so many characters …
const LONGEST_TEXT: usize = 60;
/// … and the elements of longer lists are counted.
const LONGEST_LIST: usize = 4;

impl fmt::Display for Value {
    /// In little room, with what a terminal might obey made visible.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::None => f.write_str("none"),
            Value::Bool(value) => f.write_str(if *value { "yes" } else { "no" }),
            Value::Unsigned(value) => write!(f, "{value}"),
            Value::Signed(value) => write!(f, "{value}"),
            Value::Single(value) => write!(f, "{value}"),
            Value::Double(value) => write!(f, "{value}"),
            Value::Text(text) => match text.char_indices().nth(LONGEST_TEXT) {
                Some((end, _)) => write!(f, "{:?}…", &text[..end]),
                None => write!(f, "{text:?}"),
            },
            Value::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Value::Numbers(numbers) => write!(f, "{} numbers", numbers.len()),
            Value::List(values) if values.len() > LONGEST_LIST => write!(f, "{} values", values.len()),
            Value::List(values) => {
                f.write_str("[")?;
                for (position, value) in values.iter().enumerate() {
                    write!(f, "{}{value}", if position > 0 { ", " } else { "" })?;
                }
                f.write_str("]")
            }
            // The first is a name or a type.
            Value::Fields(fields) => fields.iter().take(1).try_for_each(|(_, value)| write!(f, "{value}")),
            Value::Pairs(pairs) => write!(f, "{} pairs", pairs.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ScalarType;

    #[test]
    fn numbers_are_of_their_type() {
        let expected = [
            (ScalarType::Int8, Value::Signed(-2)),
            (ScalarType::Uint8, Value::Unsigned(0xfe)),
            (ScalarType::Int16, Value::Signed(-0x1fe)),
            (ScalarType::Uint16, Value::Unsigned(0xfe02)),
            (ScalarType::Int32, Value::Signed(-0x1fd_fcfb)),
            (ScalarType::Uint32, Value::Unsigned(0xfe02_0305)),
            (ScalarType::Float32, Value::Single(f32::from_bits(0xfe02_0305))),
            (ScalarType::Float64, Value::Double(f64::from_bits(0xfe02_0305_0608_090b))),
        ];
        let bytes = [0xfe, 0x02, 0x03, 0x05, 0x06, 0x08, 0x09, 0x0b];
        for (scalar, value) in expected {
            let mut bytes = bytes[..scalar.size_bytes()].to_vec();
            for endian in [Endian::Big, Endian::Little] {
                let twice = Numbers { code: scalar.code(), endian, bytes: bytes.repeat(2) };
                assert_eq!(twice.iter().collect::<Vec<_>>(), [value.clone(), value.clone()], "{scalar:?}");
                bytes.reverse();
            }
        }
    }
}
