//! As much XML as PlusServer's messages have: elements with attributes. Texts between them are passed over.
//!
//! ```
//! use ultramotion_gateway::xml::elements;
//!
//! let text = r#"<Command Name="SetParameter"><Parameter Name="a &lt; b" Value='1'/></Command>"#;
//! let all: Vec<_> = elements(text).collect();
//! assert_eq!(all[1].name, "Parameter");
//! assert_eq!(all[1].attribute("Name"), Some("a < b"));
//! ```

use std::borrow::Cow;

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

/// An element's start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// Its name.
    pub name: String,
    /// Names and values, without those that cannot be read.
    attributes: Vec<(String, String)>,
}

/// All elements in the order of their starts, whatever they are in, up to where the text is no XML any more.
pub fn elements(text: &str) -> impl Iterator<Item = Element> {
    let mut reader = Reader::from_str(text);
    reader.config_mut().check_end_names = false;
    std::iter::from_fn(move || {
        loop {
            match reader.read_event() {
                Ok(Event::Start(start) | Event::Empty(start)) => return Some(Element::of(&start)),
                Ok(Event::Eof) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    })
}

impl Element {
    fn of(start: &BytesStart<'_>) -> Self {
        let attributes = start.attributes().flatten().filter_map(|attribute| {
            let value = attribute.normalized_value(XmlVersion::default()).ok()?.into_owned();
            Some((attribute.key.as_ref().to_owned(), value))
        });
        Element { name: start.name().as_ref().to_owned(), attributes: attributes.collect() }
    }

    /// The value of an attribute.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// A text as the value of an attribute.
pub fn escaped(text: &str) -> Cow<'_, str> {
    quick_xml::escape::escape(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn elements_and_attributes_are_found() {
        let text =
            "<?xml version='1.0'?><!-- <No A='1'/> --><A x = \"1>2\"\n y='&amp;lt;'><B/>text</A><C/> < ";
        let all: Vec<Element> = elements(text).collect();
        let names: Vec<&str> = all.iter().map(|element| element.name.as_str()).collect();
        assert_eq!(names, ["A", "B", "C"]);
        assert_eq!(all[0].attribute("x"), Some("1>2"));
        assert_eq!(all[0].attribute("y"), Some("&lt;"));
        assert_eq!((all[0].attribute("z"), all[2].attribute("x")), (None, None));
    }

    proptest! {
        /// Nothing panics, and what was escaped is read again.
        #[test]
        fn any_text_is_read(text in "[^\\p{Cc}]{0,60}", name in "[a-z]{1,5}") {
            for element in elements(&text) {
                let _ = element.attribute(&name);
            }
            let whole = format!("<E {name}=\"{}\"/>", escaped(&text));
            let element = elements(&whole).next().unwrap();
            prop_assert_eq!(element.attribute(&name).unwrap(), text);
        }
    }
}
