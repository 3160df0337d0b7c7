//! `results.jsonl` read back, line by line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use ultramotion_types::RecordedLine;

use crate::error::MediaError;

/// A longer line is none of a run's: 255 outlines of some thousand corners have room in it many times over.
const MAX_LINE_BYTES: u64 = 64 << 20;

/// The lines of a `results.jsonl`, first to last. Its last line, where it has no end, is half a one of a program that was
/// killed, and is passed over.
#[derive(Debug)]
pub struct RecordedLines {
    path: PathBuf,
    reader: BufReader<File>,
    text: Vec<u8>,
    line: u64,
    last_frame_id: Option<u64>,
    is_cut_short: bool,
    is_at_end: bool,
}

impl RecordedLines {
    /// Opens a file.
    ///
    /// # Errors
    /// [`MediaError::Io`] where it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, MediaError> {
        let file = File::open(path).map_err(MediaError::io("open", path))?;
        Ok(Self {
            path: path.to_owned(),
            reader: BufReader::new(file),
            text: Vec::new(),
            line: 0,
            last_frame_id: None,
            is_cut_short: false,
            is_at_end: false,
        })
    }

    /// Whether half a line at the end was passed over. Known once all lines are read.
    pub fn is_cut_short(&self) -> bool {
        self.is_cut_short
    }

    fn read(&mut self) -> Result<Option<RecordedLine>, MediaError> {
        self.text.clear();
        let mut bounded = self.reader.by_ref().take(MAX_LINE_BYTES + 1);
        bounded.read_until(b'\n', &mut self.text).map_err(MediaError::io("read", &self.path))?;
        if self.text.is_empty() {
            return Ok(None);
        }
        self.line += 1;
        if self.text.len() as u64 > MAX_LINE_BYTES {
            let most = MAX_LINE_BYTES >> 20;
            return Err(self.wrong(format!("it is longer than {most} MiB, which no line of results is")));
        }
        if !self.text.ends_with(b"\n") {
            self.is_cut_short = true;
            return Ok(None);
        }
        let line = parse_line(&self.text).map_err(|problem| self.wrong(problem))?;
        if let Some(last) = self.last_frame_id.replace(line.frame_id).filter(|last| *last >= line.frame_id) {
            let problem =
                format!("frame {} comes after frame {last}: each comes once, in order", line.frame_id);
            return Err(self.wrong(problem));
        }
        Ok(Some(line))
    }

    fn wrong(&self, problem: String) -> MediaError {
        MediaError::Line { path: self.path.clone(), line: self.line, problem }
    }
}

impl Iterator for RecordedLines {
    type Item = Result<RecordedLine, MediaError>;

    /// After an error there is nothing more.
    fn next(&mut self) -> Option<Self::Item> {
        if self.is_at_end {
            return None;
        }
        let line = self.read().transpose();
        self.is_at_end = !matches!(line, Some(Ok(_)));
        line
    }
}

/// One line, checked: see [`RecordedLine::check`].
///
/// # Errors
/// What is wrong with it.
pub fn parse_line(text: &[u8]) -> Result<RecordedLine, String> {
    let line: RecordedLine = serde_json::from_slice(text)
        .map_err(|error| format!("it is no line of results ({error}): give a results.jsonl"))?;
    line.check().map_err(|error| error.to_string())?;
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(frame_id: u64) -> String {
        format!(
            "{{\"frame_id\":{frame_id},\"timestamp\":0.5,\"source\":\"s\",\"width\":4,\"height\":2,\"objects\":[]}}\n"
        )
    }

    fn read(text: &str) -> (Vec<u64>, Option<String>, bool) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.jsonl");
        std::fs::write(&path, text).unwrap();
        let mut lines = RecordedLines::open(&path).unwrap();
        let (mut ids, mut problem) = (Vec::new(), None);
        for line in &mut lines {
            match line {
                Ok(line) => ids.push(line.frame_id),
                Err(error) => problem = Some(error.to_string().replace(&path.display().to_string(), "FILE")),
            }
        }
        assert!(lines.next().is_none());
        (ids, problem, lines.is_cut_short())
    }

    #[test]
    fn half_a_line_at_the_end_is_passed_over() {
        let whole = line(3) + &line(5);
        assert_eq!(read(&whole), (vec![3, 5], None, false));
        assert_eq!(read(&whole[..whole.len() - 1]), (vec![3], None, true));
        assert_eq!(read(""), (vec![], None, false));
    }

    #[test]
    fn what_is_no_line_ends_it_with_a_sentence() {
        let (ids, problem, _) = read(&(line(3) + "{\"frame_id\":4}\n" + &line(5)));
        let sentence = "FILE, line 2: it is no line of results (missing field `timestamp` at line 1 column 14): give a \
                        results.jsonl";
        assert_eq!((ids, problem.as_deref()), (vec![3], Some(sentence)));
        let (_, problem, _) = read(&(line(3) + &line(3)));
        let sentence = "FILE, line 2: frame 3 comes after frame 3: each comes once, in order";
        assert_eq!(problem.as_deref(), Some(sentence));
        let (_, problem, _) = read(&line(3).replace("\"width\":4", "\"width\":0"));
        let sentence = "FILE, line 1: a frame of 0x2 pixels is none: sides from 1 to 8192 are";
        assert_eq!(problem.as_deref(), Some(sentence));
    }

    #[test]
    fn a_line_without_an_end_is_not_read_into_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("zeros");
        File::create(&path).unwrap().set_len(1 << 34).unwrap();
        let problem = RecordedLines::open(&path).unwrap().next().unwrap().unwrap_err().to_string();
        assert!(
            problem.ends_with("line 1: it is longer than 64 MiB, which no line of results is"),
            "{problem}"
        );
    }
}
