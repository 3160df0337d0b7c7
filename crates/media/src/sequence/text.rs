//! Numbers that stand as text, as the bytes that they would be in binary data.

use std::io::{self, BufRead, Read};

use super::ElementType;
use crate::error::printable;

/// A number has no more characters than this.
const MAX_NUMBER: usize = 64;

/// Little-endian values of what is written as numbers with space between them.
pub(super) struct TextReader<R> {
    text: R,
    element: ElementType,
    word: Vec<u8>,
    /// What is left of the last value.
    value: Vec<u8>,
}

impl<R: BufRead> TextReader<R> {
    pub(super) fn new(text: R, element: ElementType) -> Self {
        TextReader { text, element, word: Vec::new(), value: Vec::new() }
    }

    /// The next number's characters in `word`; empty at the end.
    fn next_word(&mut self) -> io::Result<()> {
        self.word.clear();
        loop {
            let buffer = self.text.fill_buf()?;
            if buffer.is_empty() {
                return Ok(());
            }
            let is_space = |byte: &u8| byte.is_ascii_whitespace() || *byte == b',';
            if self.word.is_empty() {
                let spaces = buffer.iter().take_while(|byte| is_space(byte)).count();
                if spaces > 0 {
                    self.text.consume(spaces);
                    continue;
                }
            }
            let length = buffer.iter().take_while(|byte| !is_space(byte)).count();
            let is_end = length < buffer.len();
            if self.word.len() + length > MAX_NUMBER {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a number has more than 64 characters",
                ));
            }
            self.word.extend_from_slice(&buffer[..length]);
            self.text.consume(length);
            if is_end {
                return Ok(());
            }
        }
    }
}

impl<R: BufRead> Read for TextReader<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.value.is_empty() {
            self.next_word()?;
            if self.word.is_empty() {
                return Ok(0);
            }
            let value = std::str::from_utf8(&self.word).ok().and_then(|text| self.element.parse(text));
            self.value = value.ok_or_else(|| {
                let shown = printable(&String::from_utf8_lossy(&self.word), 20);
                io::Error::new(io::ErrorKind::InvalidData, format!("'{shown}' is not a number"))
            })?;
        }
        let length = self.value.len().min(to.len());
        to[..length].copy_from_slice(&self.value[..length]);
        self.value.drain(..length);
        Ok(length)
    }
}
