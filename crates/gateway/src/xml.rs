//! As much XML as PlusServer's messages have: elements with attributes. Texts between them are passed over.
//!
//! ```
//! use ultramotion_gateway::xml::elements;
//!
//! let text = r#"<Command Name="SetParameter"><Parameter Name="a &lt; b" Value='1'/></Command>"#;
//! let all: Vec<_> = elements(text).collect();
//! assert_eq!(all[1].name, "Parameter");
//! assert_eq!(all[1].attribute("Name").as_deref(), Some("a < b"));
//! ```

use std::borrow::Cow;

/// An element's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element<'t> {
    /// Its name.
    pub name: &'t str,
    attributes: &'t str,
}

/// All elements in the order of their starts, whatever they are in.
pub fn elements(text: &str) -> impl Iterator<Item = Element<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let start = rest.find('<')? + 1;
            let (tag, after) = rest[start..].split_at(end_of_tag(&rest[start..]));
            rest = after;
            let name_len = tag.find(|c: char| c.is_whitespace() || c == '/').unwrap_or(tag.len());
            let (name, attributes) = tag.split_at(name_len);
            // Ends, declarations and comments are none.
            if name.starts_with(|c: char| c.is_alphabetic()) {
                return Some(Element { name, attributes });
            }
        }
    })
}

/// Where a tag ends: at the first `>` that is in no value.
fn end_of_tag(tag: &str) -> usize {
    let mut quote = None;
    for (at, character) in tag.char_indices() {
        match (quote, character) {
            (None, '>') => return at,
            (None, '"' | '\'') => quote = Some(character),
            (Some(open), _) if open == character => quote = None,
            _ => {}
        }
    }
    tag.len()
}

impl<'t> Element<'t> {
    /// The value of an attribute.
    pub fn attribute(&self, name: &str) -> Option<Cow<'t, str>> {
        let mut rest = self.attributes;
        loop {
            let equals = rest.find('=')?;
            let key = rest[..equals].trim();
            let after = rest[equals + 1..].trim_start();
            let quote = after.chars().next().filter(|quote| ['"', '\''].contains(quote))?;
            let (value, after) = after[1..].split_once(quote)?;
            if key == name {
                return Some(unescaped(value));
            }
            rest = after;
        }
    }
}

/// The five entities of XML, and what they stand for.
const ENTITIES: [(&str, char); 5] =
    [("&lt;", '<'), ("&gt;", '>'), ("&quot;", '"'), ("&apos;", '\''), ("&amp;", '&')];

fn unescaped(value: &str) -> Cow<'_, str> {
    if !value.contains('&') {
        return Cow::Borrowed(value);
    }
    let (mut plain, mut rest) = (String::with_capacity(value.len()), value);
    while let Some(at) = rest.find('&') {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        let entity = ENTITIES.iter().find(|(entity, _)| rest.starts_with(entity));
        // Others are left as they are.
        let (length, character) = entity.map_or((1, '&'), |(entity, character)| (entity.len(), *character));
        plain.push(character);
        rest = &rest[length..];
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}

/// A text as the value of an attribute.
pub fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match ENTITIES.iter().find(|(_, plain)| *plain == character) {
            Some((entity, _)) => escaped.push_str(entity),
            None => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn elements_and_attributes_are_found() {
        let text = "<?xml version='1.0'?><!-- <No A='1'/> --><A x = \"1>2\"\n y='&amp;lt; &unknown;'><B/>text</A><C x>";
        let all: Vec<Element<'_>> = elements(text).collect();
        let names: Vec<&str> = all.iter().map(|element| element.name).collect();
        assert_eq!(names, ["A", "B", "C"]);
        assert_eq!(all[0].attribute("x").as_deref(), Some("1>2"));
        assert_eq!(all[0].attribute("y").as_deref(), Some("&lt; &unknown;"));
        assert_eq!((all[0].attribute("z"), all[2].attribute("x")), (None, None));
    }

    proptest! {
        /// Nothing panics, and what was escaped is read again.
        #[test]
        fn any_text_is_read(text in ".{0,60}", name in "[a-z]{1,5}") {
            for element in elements(&text) {
                let _ = element.attribute(&name);
            }
            let whole = format!("<E {name}=\"{}\"/>", escaped(&text));
            let element = elements(&whole).next().unwrap();
            prop_assert_eq!(element.attribute(&name).unwrap(), text);
        }
    }
}
