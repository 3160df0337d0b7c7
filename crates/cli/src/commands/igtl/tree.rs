//! Named values in a fixed order, printed as text or JSON.

use std::fmt::{self, Write};

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Single(f32),
    Double(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(&'static str, Node)>),
    /// Names that come from outside.
    Pairs(Vec<(String, String)>),
}

macro_rules! node_from {
    ($($type:ty => $variant:ident,)*) => {
        $(impl From<$type> for Node {
            fn from(value: $type) -> Self {
                Node::$variant(value.into())
            }
        })*
    };
}

node_from! {
    bool => Bool,
    u8 => Unsigned, u16 => Unsigned, u32 => Unsigned, u64 => Unsigned,
    i8 => Signed, i16 => Signed, i32 => Signed, i64 => Signed,
    f32 => Single, f64 => Double,
    &str => Text, String => Text,
}

impl From<usize> for Node {
    fn from(value: usize) -> Self {
        Node::Unsigned(value as u64)
    }
}

impl<T: Into<Node>, const N: usize> From<[T; N]> for Node {
    fn from(values: [T; N]) -> Self {
        Node::List(values.into_iter().map(Into::into).collect())
    }
}

impl<T: Into<Node>> From<Vec<T>> for Node {
    fn from(values: Vec<T>) -> Self {
        Node::List(values.into_iter().map(Into::into).collect())
    }
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Node::Null => serializer.serialize_unit(),
            Node::Bool(value) => serializer.serialize_bool(*value),
            Node::Unsigned(value) => serializer.serialize_u64(*value),
            Node::Signed(value) => serializer.serialize_i64(*value),
            Node::Single(value) => serializer.serialize_f32(*value),
            Node::Double(value) => serializer.serialize_f64(*value),
            Node::Text(text) => serializer.serialize_str(text),
            Node::List(values) => {
                let mut list = serializer.serialize_seq(Some(values.len()))?;
                values.iter().try_for_each(|value| list.serialize_element(value))?;
                list.end()
            }
            Node::Map(fields) => {
                let mut map = serializer.serialize_map(Some(fields.len()))?;
                fields.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))?;
                map.end()
            }
            // A list of pairs, since a name may come twice.
            Node::Pairs(pairs) => {
                let mut list = serializer.serialize_seq(Some(pairs.len()))?;
                for (key, value) in pairs {
                    list.serialize_element(&Node::Map(vec![
                        ("key", key.as_str().into()),
                        ("value", value.as_str().into()),
                    ]))?;
                }
                list.end()
            }
        }
    }
}

impl Node {
    /// Whether it stands on a line with its name.
    fn is_short(&self) -> bool {
        match self {
            Node::Map(fields) => fields.is_empty(),
            Node::Pairs(pairs) => pairs.is_empty(),
            Node::List(values) => {
                !values.iter().any(|v| matches!(v, Node::Map(_) | Node::Pairs(_) | Node::List(_)))
            }
            _ => true,
        }
    }

    /// A value that is short.
    fn write_short(&self, out: &mut String) -> fmt::Result {
        match self {
            Node::Null => out.write_str("none"),
            Node::Bool(value) => write!(out, "{}", if *value { "yes" } else { "no" }),
            Node::Unsigned(value) => write!(out, "{value}"),
            Node::Signed(value) => write!(out, "{value}"),
            Node::Single(value) => write!(out, "{value}"),
            Node::Double(value) => write!(out, "{value}"),
            // What a terminal might obey is made visible.
            Node::Text(text) => write!(out, "{text:?}"),
            Node::List(values) => {
                out.push('[');
                for (position, value) in values.iter().enumerate() {
                    if position > 0 {
                        out.push_str(", ");
                    }
                    value.write_short(out)?;
                }
                out.write_char(']')
            }
            Node::Map(_) | Node::Pairs(_) => out.write_str("none"),
        }
    }

    /// Lines of text, indented by so many steps.
    pub(crate) fn write_text(&self, out: &mut String, depth: usize) -> fmt::Result {
        match self {
            Node::Map(fields) => {
                fields.iter().try_for_each(|(name, value)| write_field(out, depth, name, value))
            }
            Node::Pairs(pairs) => pairs.iter().try_for_each(|(name, value)| {
                let name = name.escape_debug().to_string();
                write_field(out, depth, &name, &Node::Text(value.clone()))
            }),
            Node::List(values) => values.iter().enumerate().try_for_each(|(position, value)| {
                if value.is_short() {
                    indent(out, depth);
                    value.write_short(out)?;
                    return out.write_char('\n');
                }
                indent(out, depth);
                writeln!(out, "{}:", position + 1)?;
                value.write_text(out, depth + 1)
            }),
            short => {
                indent(out, depth);
                short.write_short(out)?;
                out.write_char('\n')
            }
        }
    }
}

fn indent(out: &mut String, depth: usize) {
    (0..depth).for_each(|_| out.push_str("  "));
}

fn write_field(out: &mut String, depth: usize, name: &str, value: &Node) -> fmt::Result {
    indent(out, depth);
    let name = name.replace('_', " ");
    if value.is_short() {
        write!(out, "{name}: ")?;
        value.write_short(out)?;
        return out.write_char('\n');
    }
    writeln!(out, "{name}:")?;
    value.write_text(out, depth + 1)
}
