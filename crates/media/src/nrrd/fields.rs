//! The lines of a NRRD header.

use std::collections::BTreeMap;
use std::io::{BufRead, Read};
use std::path::Path;

use crate::error::{MediaError, printable};

/// A header has no more bytes than this: 3D Slicer writes an index value and attributes for each of thousands of frames.
const MAX_HEADER_BYTES: u64 = 64 << 20;

/// Fields and key/value pairs, by name.
pub(super) struct Fields<'a> {
    pub(super) path: &'a Path,
    values: BTreeMap<String, String>,
    /// The lines that follow `data file: LIST`.
    pub(super) listed: Vec<String>,
    /// Length of the header with the empty line at its end.
    pub(super) header_bytes: u64,
}

impl<'a> Fields<'a> {
    pub(super) fn read(reader: &mut impl BufRead, path: &'a Path) -> Result<Self, MediaError> {
        let mut fields = Fields { path, values: BTreeMap::new(), listed: Vec::new(), header_bytes: 0 };
        let mut line = Vec::new();
        let mut is_list = false;
        loop {
            line.clear();
            let length = reader
                .by_ref()
                .take(MAX_HEADER_BYTES - fields.header_bytes)
                .read_until(b'\n', &mut line)
                .map_err(MediaError::io("read", path))? as u64;
            let is_first = fields.header_bytes == 0;
            fields.header_bytes += length;
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end_matches(['\r', '\n']);
            if is_first {
                let version = text.strip_prefix("NRRD").filter(|version| version.len() == 4);
                if version.and_then(|version| version.parse::<u32>().ok()).is_none() {
                    return Err(MediaError::header(
                        path,
                        "NRRD",
                        "is not what the file begins with: it is no NRRD file",
                    ));
                }
                continue;
            }
            // A detached header may end with the file.
            if length == 0 || (text.is_empty() && !is_list) {
                if length == 0 && fields.get("data file").or(fields.get("datafile")).is_none() {
                    let problem =
                        "is not followed by an empty line: the header ends early, copy the file again";
                    return Err(MediaError::header(path, "the last field", problem));
                }
                return Ok(fields);
            }
            if is_list {
                if !text.trim().is_empty() {
                    fields.listed.push(text.trim().to_owned());
                }
                continue;
            }
            if text.starts_with('#') {
                continue;
            }
            // `field: value`, and `key:=value` of what the format does not know.
            let Some((key, value)) = text
                .split_once(":=")
                .or_else(|| text.split_once(": "))
                .or_else(|| text.strip_suffix(':').map(|key| (key, "")))
            else {
                let shown = printable(text, 40);
                let problem = format!(
                    "is followed by '{shown}', which is no field: the file is damaged or no NRRD file"
                );
                return Err(MediaError::header(path, "NRRD", problem));
            };
            let (key, value) = (key.trim().to_ascii_lowercase(), value.trim().to_owned());
            is_list = matches!(key.as_str(), "data file" | "datafile") && value.starts_with("LIST");
            fields.values.insert(key, value);
        }
    }

    /// A field, by its name in small letters.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    pub(super) fn required(&self, key: &str) -> Result<&str, MediaError> {
        self.get(key).ok_or_else(|| {
            MediaError::header(self.path, key, "is missing: the header is not that of a whole NRRD file")
        })
    }

    pub(super) fn wrong(&self, field: &str, value: &str, problem: &str) -> MediaError {
        let shown = printable(value, 60);
        MediaError::header(self.path, field, format!("{shown} {problem}"))
    }
}
