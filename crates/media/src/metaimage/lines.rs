//! The lines of a header, as leniently as ITK's MetaIO takes them: `=` or `:` between key and value, lines without a key and
//! those that begin with `#` passed over.

use std::collections::BTreeMap;
use std::io::{BufRead, Read};
use std::path::Path;

use super::frame_fields::{Index, keep_frame_field};
use crate::error::MediaError;
use crate::sequence::FrameFields;

/// A line longer than this is not a header's.
pub(super) const MAX_LINE_BYTES: u64 = 1 << 16;
/// Lines that say nothing have no more bytes than this, all together: a file of other content is told soon.
const MAX_IDLE_BYTES: u64 = 1 << 16;
/// Files that a header may name.
const MAX_FILES: usize = 1 << 20;

/// What stands behind `ElementDataFile`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DataFileLine {
    pub(super) value: String,
    /// The lines that follow `LIST`.
    pub(super) listed: Vec<String>,
}

/// A header line by line.
pub(super) struct Lines {
    pub(super) values: BTreeMap<String, String>,
    pub(super) fields: BTreeMap<u64, FrameFields>,
    pub(super) data_file: DataFileLine,
    /// Length of all lines.
    pub(super) header_bytes: u64,
    /// Length of the line `ElementDataFile`.
    pub(super) last_line_bytes: u64,
}

/// The next line in `line`; gives its length, 0 at the end.
fn next_line(reader: &mut impl BufRead, line: &mut Vec<u8>, path: &Path) -> Result<u64, MediaError> {
    line.clear();
    let read = reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', line);
    Ok(read.map_err(MediaError::io("read", path))? as u64)
}

/// Key and value of a line.
fn key_and_value(text: &str) -> Option<(&str, &str)> {
    if text.trim_start().starts_with('#') {
        return None;
    }
    let (key, value) = text.split_once('=').or_else(|| text.split_once(':'))?;
    let (key, value) = (key.trim(), value.trim());
    (!key.is_empty()).then_some((key, value))
}

impl Lines {
    pub(super) fn read(reader: &mut impl BufRead, path: &Path) -> Result<Self, MediaError> {
        let mut values: BTreeMap<String, String> = BTreeMap::new();
        let mut fields: BTreeMap<u64, FrameFields> = BTreeMap::new();
        let mut indices: BTreeMap<u64, Index> = BTreeMap::new();
        let (mut header_bytes, mut idle_bytes) = (0, 0);
        let mut line = Vec::new();
        let value = loop {
            let length = next_line(reader, &mut line, path)?;
            header_bytes += length;
            if length == 0 {
                let problem = if values.is_empty() {
                    "is missing: the file is not a MetaImage"
                } else {
                    "is missing: the header ends early, record or copy the file again"
                };
                return Err(MediaError::header(path, "ElementDataFile", problem));
            }
            // Names of people and places in a header are not always UTF-8.
            let text = String::from_utf8_lossy(&line);
            let is_whole = line.last() == Some(&b'\n') || length < MAX_LINE_BYTES;
            let is_text = !line.iter().any(|&byte| byte < 32 && !byte.is_ascii_whitespace());
            let Some((key, value)) = key_and_value(&text).filter(|_| is_whole) else {
                idle_bytes += length;
                if is_whole && is_text && idle_bytes <= MAX_IDLE_BYTES {
                    continue;
                }
                let problem = "is missing before a line that is not 'Key = Value': the file is not a MetaImage or is damaged";
                return Err(MediaError::header(path, "ElementDataFile", problem));
            };
            if key == "ElementDataFile" {
                // Behind it come the pixels, so a header without a line end has none; names of files may end with it.
                if line.last() != Some(&b'\n') && (value.is_empty() || is_local(value)) {
                    let problem =
                        "is the last thing in the file and cut short: record or copy the file again";
                    return Err(MediaError::header(path, key, problem));
                }
                break value.to_owned();
            }
            match key.strip_prefix("Seq_Frame").and_then(|rest| rest.split_once('_')) {
                Some((number, name)) => {
                    let index: u64 = number.parse().map_err(|_| {
                        MediaError::header(path, key, "has no frame number: correct the header")
                    })?;
                    let of_frame = (fields.entry(index).or_default(), indices.entry(index).or_default());
                    keep_frame_field(of_frame, name, value);
                }
                None => {
                    values.insert(key.to_owned(), value.to_owned());
                }
            }
        };
        let last_line_bytes = line.len() as u64;
        let mut listed = Vec::new();
        if value.starts_with("LIST") {
            while listed.len() <= MAX_FILES && next_line(reader, &mut line, path)? > 0 {
                let name = String::from_utf8_lossy(&line).trim().to_owned();
                if !name.is_empty() {
                    listed.push(name);
                }
            }
        }
        Ok(Lines { values, fields, data_file: DataFileLine { value, listed }, header_bytes, last_line_bytes })
    }
}

/// Whether the pixels are behind the header.
pub(super) fn is_local(value: &str) -> bool {
    value.eq_ignore_ascii_case("local")
}
