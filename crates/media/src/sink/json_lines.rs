//! One JSON value a line.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::MediaError;

/// Writes values as lines of JSON. A line goes out whole in one write as soon as it is there, so that whatever
/// happens later, every line in the file is complete and none that was written is lost.
#[derive(Debug)]
pub struct JsonLines<W: Write = File> {
    path: PathBuf,
    writer: W,
    line: Vec<u8>,
}

impl JsonLines<File> {
    /// Starts an empty file; one that is there already is replaced.
    pub fn create(path: &Path) -> Result<Self, MediaError> {
        let file = File::create(path).map_err(MediaError::io("write", path))?;
        Ok(Self::to_writer(file, path))
    }
}

impl<W: Write> JsonLines<W> {
    /// Writes to something else, such as standard output; `name` stands in errors.
    pub fn to_writer(writer: W, name: impl Into<PathBuf>) -> Self {
        Self { path: name.into(), writer, line: Vec::new() }
    }

    /// Writes one value as one line, reusing memory.
    pub fn write<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), MediaError> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, value)
            .map_err(|source| MediaError::Json { path: self.path.clone(), source })?;
        self.line.push(b'\n');
        self.writer
            .write_all(&self.line)
            .and_then(|()| self.writer.flush())
            .map_err(MediaError::io("write", &self.path))
    }

    /// Where the lines went.
    pub fn into_writer(self) -> W {
        self.writer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_a_line_and_a_bad_value_is_none() {
        let mut lines = JsonLines::to_writer(Vec::new(), "out");
        lines.write(&serde_json::json!({"text": "two\nlines"})).unwrap();
        // A map with keys that are not strings has no JSON.
        let bad: std::collections::BTreeMap<[u8; 2], u8> = [([1, 2], 3)].into();
        let problem = lines.write(&bad).unwrap_err().to_string();
        assert_eq!(problem, "cannot write a line of out: key must be a string");
        lines.write(&[1.5]).unwrap();
        assert_eq!(String::from_utf8(lines.into_writer()).unwrap(), "{\"text\":\"two\\nlines\"}\n[1.5]\n");
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let problem = JsonLines::create(Path::new("/no/such/folder/results.jsonl")).unwrap_err().to_string();
        assert_eq!(problem, "cannot write /no/such/folder/results.jsonl: there is no such file or folder");
    }
}
