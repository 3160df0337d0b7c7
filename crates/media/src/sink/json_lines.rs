//! One JSON value a line.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::MediaError;

/// Writes values as lines of JSON. A line goes out in one write as soon as it is there, so that none that was written
/// is lost, whatever happens later. Where the disk is full or the program is killed in the middle, the last line may be a
/// half one: readers pass over it, and [`keep_whole_lines`] cuts it off.
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

/// Cuts off what follows the last whole line of a file, and lines beyond the first `most`; gives the lines that stay,
/// and the bytes that went.
pub fn keep_whole_lines(path: &Path, most: u64) -> Result<(u64, u64), MediaError> {
    let file = File::options().read(true).write(true).open(path).map_err(MediaError::io("open", path))?;
    let (mut lines, mut kept, mut all) = (0, 0, 0);
    let mut reader = BufReader::new(&file);
    loop {
        let bytes = reader.fill_buf().map_err(MediaError::io("read", path))?;
        if bytes.is_empty() {
            break;
        }
        for (i, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
            if lines < most {
                (lines, kept) = (lines + 1, all + i as u64 + 1);
            }
        }
        let length = bytes.len();
        all += length as u64;
        reader.consume(length);
    }
    if kept < all {
        file.set_len(kept).and_then(|()| file.sync_data()).map_err(MediaError::io("write", path))?;
    }
    Ok((lines, all - kept))
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

    /// The last line, as it was written.
    pub fn last_line(&self) -> &[u8] {
        &self.line
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
        assert_eq!(lines.last_line(), b"[1.5]\n");
        assert_eq!(String::from_utf8(lines.into_writer()).unwrap(), "{\"text\":\"two\\nlines\"}\n[1.5]\n");
    }

    #[test]
    fn half_a_line_is_cut_off_and_so_are_lines_too_many() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.jsonl");
        for (text, most, kept, left) in [
            ("", 9, (0, 0), ""),
            ("{\"a\":1}\n{\"b\"", 9, (1, 4), "{\"a\":1}\n"),
            ("{\"a\"", 9, (0, 4), ""),
            ("1\n2\n", 9, (2, 0), "1\n2\n"),
            ("1\n2\n3\n", 2, (2, 2), "1\n2\n"),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(keep_whole_lines(&path, most).unwrap(), kept, "{text:?}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), left);
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let problem = JsonLines::create(Path::new("/no/such/folder/results.jsonl")).unwrap_err().to_string();
        assert_eq!(problem, "cannot write /no/such/folder/results.jsonl: there is no such file or folder");
    }
}
