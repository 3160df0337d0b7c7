//! Trees of named values: cut short, and printed as text.

use std::fmt::{self, Write};

use ultramotion_igtlink::Value;

/// Longer lists and blocks are summarised …
const LONGEST_LIST: usize = 24;
/// … and this much of them is shown.
const SHOWN: usize = 8;
/// Longer texts are cut.
const LONGEST_TEXT: usize = 400;

/// The same value with numbers in place of blocks of them and, unless it is to be told in full, with long lists of
/// numbers or of lists summarised, and long texts and blocks of bytes cut.
pub(crate) fn tell(value: Value, full: bool) -> Value {
    match value {
        Value::Text(text) => cut(text, full).into(),
        Value::Pairs(pairs) => {
            Value::Pairs(pairs.into_iter().map(|(key, value)| (cut(key, full), cut(value, full))).collect())
        }
        Value::Bytes(bytes) => {
            let shown = if full { bytes.len() } else { bytes.len().min(LONGEST_LIST) };
            let mut hex: String = bytes[..shown].iter().map(|byte| format!("{byte:02x}")).collect();
            hex.push_str(if shown < bytes.len() { "…" } else { "" });
            Value::Fields(vec![("count", bytes.len().into()), ("hex", hex.into())])
        }
        Value::Numbers(numbers) if full || numbers.len() <= LONGEST_LIST => numbers.iter().collect(),
        Value::Numbers(numbers) => summary(numbers.len(), numbers.iter()),
        Value::List(values) => match values.first() {
            Some(Value::List(_)) if !full && values.len() > LONGEST_LIST => {
                let first = values.iter().take(SHOWN).map(|value| tell(value.clone(), full)).collect();
                Value::Fields(vec![("count", values.len().into()), ("first", first)])
            }
            Some(first) if !full && values.len() > LONGEST_LIST && as_number(first).is_some() => {
                summary(values.len(), values.iter().cloned())
            }
            _ => values.into_iter().map(|value| tell(value, full)).collect(),
        },
        Value::Fields(fields) => {
            Value::Fields(fields.into_iter().map(|(name, value)| (name, tell(value, full))).collect())
        }
        short => short,
    }
}

fn cut(text: String, full: bool) -> String {
    match text.char_indices().nth(LONGEST_TEXT) {
        Some((end, _)) if !full => format!("{}… ({} bytes)", &text[..end], text.len()),
        _ => text,
    }
}

/// How many numbers there are, their range, and the first of them.
fn summary(count: usize, numbers: impl Iterator<Item = Value> + Clone) -> Value {
    let range = |least: bool| {
        // What is not a number is neither the least nor the greatest.
        let ordered = numbers.clone().filter(|value| as_number(value).is_some_and(|number| !number.is_nan()));
        let before = |a: &Value, b: &Value| {
            if least { as_number(b) < as_number(a) } else { as_number(b) > as_number(a) }
        };
        ordered.reduce(|a, b| if before(&a, &b) { b } else { a }).unwrap_or(Value::None)
    };
    let first = numbers.clone().take(SHOWN).collect();
    Value::Fields(vec![
        ("count", count.into()),
        ("least", range(true)),
        ("greatest", range(false)),
        ("first", first),
    ])
}

/// To compare by: whole numbers of lists and blocks have at most 32 bits.
fn as_number(value: &Value) -> Option<f64> {
    match *value {
        Value::Unsigned(value) => Some(value as f64),
        Value::Signed(value) => Some(value as f64),
        Value::Single(value) => Some(value.into()),
        Value::Double(value) => Some(value),
        _ => None,
    }
}

/// Whether it stands on a line with its name.
fn is_short(value: &Value) -> bool {
    match value {
        Value::Fields(fields) => fields.is_empty(),
        Value::Pairs(pairs) => pairs.is_empty(),
        Value::List(values) => !values.iter().any(|v| matches!(v, Value::Fields(_) | Value::List(_))),
        _ => true,
    }
}

/// A value that is short.
fn write_short(value: &Value, out: &mut String) -> fmt::Result {
    match value {
        // What a terminal might obey is made visible.
        Value::Text(text) => write!(out, "{text:?}"),
        Value::List(values) => {
            out.push('[');
            for (position, value) in values.iter().enumerate() {
                out.push_str(if position > 0 { ", " } else { "" });
                write_short(value, out)?;
            }
            out.write_char(']')
        }
        Value::Fields(_) | Value::Pairs(_) => out.write_str("none"),
        scalar => write!(out, "{scalar}"),
    }
}

/// Lines of text, indented by so many steps.
pub(crate) fn write_text(value: &Value, out: &mut String, depth: usize) -> fmt::Result {
    match value {
        Value::Fields(fields) => fields.iter().try_for_each(|(name, value)| {
            write_field(out, depth, &format!("{}: ", name.replace('_', " ")), value)
        }),
        Value::Pairs(pairs) => pairs.iter().try_for_each(|(name, value)| {
            let name = name.escape_debug().to_string().replace('_', " ");
            write_field(out, depth, &format!("{name}: "), &value.as_str().into())
        }),
        Value::List(values) => values.iter().enumerate().try_for_each(|(position, value)| {
            let name = if is_short(value) { String::new() } else { format!("{}: ", position + 1) };
            write_field(out, depth, &name, value)
        }),
        short => write_field(out, depth, "", short),
    }
}

/// A short value beside its name, or another below it.
fn write_field(out: &mut String, depth: usize, name: &str, value: &Value) -> fmt::Result {
    out.extend(std::iter::repeat_n("  ", depth));
    if is_short(value) {
        out.push_str(name);
        write_short(value, out)?;
        return out.write_char('\n');
    }
    writeln!(out, "{}", name.trim_end())?;
    write_text(value, out, depth + 1)
}
