//! One line about a message, for logs and terminals.

use std::fmt;

use crate::content::Content;
use crate::message::Message;
use crate::wire::Text;

/// Texts are cut to so many characters.
const LONGEST_TEXT: usize = 60;

impl fmt::Display for Content<'_> {
    /// The type, and what is most telling about its content.
    ///
    /// ```
    /// use ultramotion_igtlink::{Content, Image};
    /// let content = Content::Image(Image::grey8(2, 1, &[0, 255]));
    /// assert_eq!(content.to_string(), "IMAGE 2x1x1, 1 x Uint8, spacing 1 1 1 mm, Lps");
    /// ```
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.type_name())?;
        match self {
            Content::Unavailable(_) => f.write_str(" not available"),
            known => known.body().summarise(f),
        }
    }
}

impl fmt::Display for Message<'_> {
    /// Time, device, content and metadata.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.timestamp, self.device_name, self.content)?;
        for (position, entry) in self.metadata.entries.iter().enumerate() {
            write!(f, "{} {}=", if position == 0 { " |" } else { "," }, Name(&entry.key))?;
            write_cut(f, &String::from_utf8_lossy(&entry.value.bytes))?;
        }
        Ok(())
    }
}

/// A name without quotes, with what a terminal might obey made visible.
pub(crate) struct Name<'n>(pub(crate) &'n [u8]);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", String::from_utf8_lossy(self.0).escape_debug())
    }
}

pub(crate) fn write_point(f: &mut fmt::Formatter<'_>, name: &str, [x, y, z]: [f32; 3]) -> fmt::Result {
    write!(f, " {name} {x} {y} {z} mm")
}

pub(crate) fn write_words(f: &mut fmt::Formatter<'_>, text: &Text<'_>) -> fmt::Result {
    match text.to_str() {
        Some(text) => write_text(f, &text),
        None => write!(f, " {} bytes in encoding {}", text.bytes.len(), text.encoding.0),
    }
}

pub(crate) fn write_text(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    if text.is_empty() {
        return Ok(());
    }
    f.write_str(" ")?;
    write_cut(f, text)
}

/// The beginning of a text in quotes, with what a terminal might obey made visible.
fn write_cut(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    match text.char_indices().nth(LONGEST_TEXT) {
        Some((end, _)) => write!(f, "{:?}…", &text[..end]),
        None => write!(f, "{text:?}"),
    }
}
