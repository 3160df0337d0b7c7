//! Messages and their parts for serde: as what they say, field by field.

use serde::ser::{Serialize, Serializer};

use crate::content::Content;
use crate::header::Header;
use crate::message::Message;
use crate::value::Value;

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let pair = |(key, value): &(String, String)| {
            Value::Fields(vec![("key", key.as_str().into()), ("value", value.as_str().into())])
        };
        match self {
            Value::None => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Unsigned(value) => serializer.serialize_u64(*value),
            Value::Signed(value) => serializer.serialize_i64(*value),
            Value::Single(value) => serializer.serialize_f32(*value),
            Value::Double(value) => serializer.serialize_f64(*value),
            Value::Text(text) => serializer.serialize_str(text),
            Value::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Value::Numbers(numbers) => serializer.collect_seq(numbers.iter()),
            Value::List(values) => serializer.collect_seq(values),
            Value::Fields(fields) => serializer.collect_map(fields.iter().map(|(name, value)| (name, value))),
            Value::Pairs(pairs) => serializer.collect_seq(pairs.iter().map(pair)),
        }
    }
}

macro_rules! serialise_fields {
    ($($type:ty),*) => {
        $(impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                Value::Fields(self.fields()).serialize(serializer)
            }
        })*
    };
}

serialise_fields!(Content<'_>, Header, Message<'_>);
