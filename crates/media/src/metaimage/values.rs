//! The lines of a header by their keys.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{MediaError, printable};

/// The lines that are not about one frame.
pub(super) struct Values<'a> {
    pub(super) path: &'a Path,
    pub(super) values: BTreeMap<String, String>,
}

impl Values<'_> {
    /// The first of these keys that is there: some have two spellings.
    pub(super) fn get(&self, keys: &[&str]) -> Option<&str> {
        keys.iter().find_map(|key| self.values.get(*key)).map(String::as_str)
    }

    pub(super) fn required(&self, key: &str) -> Result<&str, MediaError> {
        self.get(&[key]).ok_or_else(|| {
            MediaError::header(self.path, key, "is missing: the file is not a MetaImage or is damaged")
        })
    }

    pub(super) fn flag(&self, keys: &[&str]) -> Result<Option<bool>, MediaError> {
        match self.get(keys).map(|text| (text, text.to_ascii_lowercase())) {
            None => Ok(None),
            Some((_, text)) if ["true", "t", "1", "yes"].contains(&text.as_str()) => Ok(Some(true)),
            Some((_, text)) if ["false", "f", "0", "no"].contains(&text.as_str()) => Ok(Some(false)),
            Some((text, _)) => Err(self.wrong(keys[0], text, "is not True or False: correct the header")),
        }
    }

    pub(super) fn wrong(&self, field: &str, value: &str, problem: &str) -> MediaError {
        let shown = printable(value, 60);
        MediaError::header(self.path, field, format!("= {shown} {problem}"))
    }
}
