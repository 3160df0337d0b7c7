//! What every message type has: how its body is read, written and shown.

use std::borrow::Cow;

use crate::error::{DecodeError, EncodeError, Problem};
use crate::value::{Fields, Value};
use crate::wire::{Reader, Writer};

/// A body that can be written.
pub(crate) trait Wire {
    /// Bytes on the wire, or why this cannot be written.
    fn size(&self) -> Result<usize, EncodeError>;
    /// Writes exactly [`Wire::size`] bytes.
    fn write(&self, w: &mut Writer<'_>);
    /// What it says. `depth` is the number of messages that it stands in.
    fn fields(&self, depth: usize) -> Fields;
}

/// The body of a message type.
pub(crate) trait Body<'a>: Wire + Sized {
    /// Whether a body of no bytes is a value. If not, it is the answer that there is no data.
    const MAY_BE_EMPTY: bool = false;

    /// Reads the body of a message of the type of this name.
    fn decode(type_name: &'static str, content: &'a [u8]) -> Result<Self, DecodeError>;

    /// The body with its own copy of all bytes. A type that borrows has a method of this name of its
    /// own, which is preferred to this one.
    fn into_owned(self) -> Self {
        self
    }
}

/// One of the elements of a fixed size that fill a body.
pub(crate) trait Element: Sized {
    /// What they are called together.
    const PLURAL: &'static str;
    /// Bytes of one element.
    const SIZE: usize;
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError>;
    fn write(&self, w: &mut Writer<'_>);
    /// What it says: its fields, the name first.
    fn value(&self) -> Value;
}

impl<T: Element> Wire for Vec<T> {
    fn size(&self) -> Result<usize, EncodeError> {
        Ok(self.len() * T::SIZE)
    }

    fn write(&self, w: &mut Writer<'_>) {
        self.iter().for_each(|element| element.write(w));
    }

    fn fields(&self, _: usize) -> Fields {
        vec![(T::PLURAL, self.iter().map(Element::value).collect())]
    }
}

impl<T: Element> Body<'_> for Vec<T> {
    const MAY_BE_EMPTY: bool = true;

    fn decode(type_name: &'static str, content: &[u8]) -> Result<Self, DecodeError> {
        if !content.len().is_multiple_of(T::SIZE) {
            let problem = Problem::MultipleOf(T::SIZE as u64);
            return Err(DecodeError::field(type_name, "content size", content.len() as u64, problem));
        }
        let mut elements = Vec::with_capacity(content.len() / T::SIZE);
        for chunk in content.chunks_exact(T::SIZE) {
            elements.push(T::read(&mut Reader::new(type_name, chunk))?);
        }
        Ok(elements)
    }
}

/// A body that nothing is known of.
impl Wire for Cow<'_, [u8]> {
    fn size(&self) -> Result<usize, EncodeError> {
        Ok(self.len())
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.bytes(self);
    }

    fn fields(&self, _: usize) -> Fields {
        vec![("known", false.into()), ("bytes", Value::Bytes(self.to_vec()))]
    }
}
