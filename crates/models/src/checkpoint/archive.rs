//! The zip container of PyTorch files: where each uncompressed entry lies, with its checksum verified.
//!
//! PyTorch stores entries uncompressed so that they can be mapped, which makes every tensor a slice of the file and
//! leaves no size to be believed: a range is inside the file or it is an error. That is why the directory is read
//! here (PKWARE APPNOTE 6.3.9, sections 4.3.7, 4.3.12 to 4.3.16 and 4.5.3) rather than by a general zip library,
//! whose directory is allocated from the entry count that the file claims.

use std::collections::HashMap;
use std::ops::Range;

use super::error::quoted;

const LOCAL_HEADER: u32 = 0x0403_4B50;
const CENTRAL_HEADER: u32 = 0x0201_4B50;
const END: u32 = 0x0605_4B50;
const END64: u32 = 0x0606_4B50;
const END64_LOCATOR: u32 = 0x0706_4B50;
const END_BYTES: usize = 22;
const CENTRAL_BYTES: usize = 46;
const LOCAL_BYTES: usize = 30;

/// What is wrong with an archive, without its path.
#[derive(Debug)]
pub(super) enum ArchiveError {
    Truncated(String),
    Damaged(String),
    Compressed(String),
}

struct Entry {
    local_header: u64,
    bytes: u64,
    stored_bytes: u64,
    crc32: u32,
    method: u16,
    encrypted: bool,
}

/// The directory of a zip file in memory.
pub(super) struct Archive<'a> {
    file: &'a [u8],
    entries: HashMap<&'a str, Entry>,
}

/// Little-endian fields of a record that may end early.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn at(file: &'a [u8], offset: u64, len: usize) -> Option<Self> {
        let start = usize::try_from(offset).ok()?;
        file.get(start..start.checked_add(len)?).map(Self)
    }

    fn array<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..)?.first_chunk::<N>().copied()
    }

    fn u16(self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_le_bytes)
    }

    fn u32(self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_le_bytes)
    }

    fn u64(self, at: usize) -> Option<u64> {
        self.array(at).map(u64::from_le_bytes)
    }
}

impl<'a> Archive<'a> {
    /// Reads the directory at the end of `file`.
    pub(super) fn open(file: &'a [u8]) -> Result<Self, ArchiveError> {
        let truncated = || {
            let detail = format!("its zip directory is not at its end ({} bytes are there)", file.len());
            ArchiveError::Truncated(detail)
        };
        // The end record may be followed by a comment of up to 65535 bytes.
        let earliest = file.len().saturating_sub(END_BYTES + usize::from(u16::MAX));
        let end = (earliest..=file.len().saturating_sub(END_BYTES))
            .rev()
            .find(|&at| file[at..].starts_with(&END.to_le_bytes()))
            .ok_or_else(truncated)?;
        let (count, directory) = Self::directory(file, end).ok_or_else(truncated)?;
        let entries = Self::read_entries(file, count, directory)?;
        Ok(Self { file, entries })
    }

    /// Number of entries and offset of the first, from the end record at `end` or its 64-bit form before it.
    fn directory(file: &[u8], end: usize) -> Option<(u64, u64)> {
        let record = Fields(&file[end..]);
        let small = (u64::from(record.u16(10)?), u64::from(record.u32(16)?));
        let locator = end.checked_sub(20).map(|at| Fields(&file[at..end]));
        match locator.filter(|l| l.u32(0) == Some(END64_LOCATOR)) {
            None => Some(small),
            Some(locator) => {
                let record = Fields::at(file, locator.u64(8)?, 56)?;
                (record.u32(0)? == END64).then_some((record.u64(32)?, record.u64(48)?))
            }
        }
    }

    fn read_entries(
        file: &'a [u8],
        count: u64,
        directory: u64,
    ) -> Result<HashMap<&'a str, Entry>, ArchiveError> {
        let mut entries = HashMap::new();
        let mut at = directory;
        for index in 0..count {
            let damaged =
                || ArchiveError::Damaged(format!("entry {index} of its zip directory is not readable"));
            let (name, entry, len) = Self::central_entry(file, at).ok_or_else(damaged)?;
            if entries.insert(name, entry).is_some() {
                let name = quoted(name.as_bytes());
                return Err(ArchiveError::Damaged(format!("its zip directory names `{name}` twice")));
            }
            at += len;
        }
        Ok(entries)
    }

    /// One entry of the directory, and the bytes it takes there.
    fn central_entry(file: &'a [u8], at: u64) -> Option<(&'a str, Entry, u64)> {
        let fixed = Fields::at(file, at, CENTRAL_BYTES)?;
        if fixed.u32(0)? != CENTRAL_HEADER {
            return None;
        }
        let (name_len, extra_len, comment_len) = (fixed.u16(28)?, fixed.u16(30)?, fixed.u16(32)?);
        let len = CENTRAL_BYTES as u64 + u64::from(name_len) + u64::from(extra_len) + u64::from(comment_len);
        let whole = Fields::at(file, at, usize::try_from(len).ok()?)?.0;
        let (name, rest) = whole.get(CENTRAL_BYTES..)?.split_at_checked(usize::from(name_len))?;
        let extra = rest.get(..usize::from(extra_len))?;

        let mut wide = zip64_extra(extra).into_iter().flat_map(|f| f.as_chunks::<8>().0);
        let mut widen = |narrow: u32| match narrow {
            u32::MAX => wide.next().map(|c| u64::from_le_bytes(*c)),
            narrow => Some(u64::from(narrow)),
        };
        // The order of the 64-bit fields is fixed: size, stored size, offset.
        let bytes = widen(fixed.u32(24)?)?;
        let stored_bytes = widen(fixed.u32(20)?)?;
        let local_header = widen(fixed.u32(42)?)?;
        let entry = Entry {
            local_header,
            bytes,
            stored_bytes,
            crc32: fixed.u32(16)?,
            method: fixed.u16(10)?,
            encrypted: fixed.u16(8)? & 1 != 0,
        };
        Some((std::str::from_utf8(name).ok()?, entry, len))
    }

    /// Names of the entries, in no particular order.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.entries.keys().copied()
    }

    /// Where in the file the content of an entry lies, after a check of its CRC-32; `None` if there is none.
    pub(super) fn range(&self, name: &str) -> Result<Option<Range<usize>>, ArchiveError> {
        let Some(entry) = self.entries.get(name) else { return Ok(None) };
        let shown = quoted(name.as_bytes());
        if entry.method != 0 || entry.encrypted || entry.bytes != entry.stored_bytes {
            return Err(ArchiveError::Compressed(shown));
        }
        let range = self.stored_range(entry).ok_or_else(|| {
            ArchiveError::Damaged(format!(
                "entry `{shown}` ({} bytes) is not where its directory says",
                entry.bytes
            ))
        })?;
        if crc32fast::hash(&self.file[range.clone()]) != entry.crc32 {
            return Err(ArchiveError::Damaged(format!("the checksum of entry `{shown}` does not match")));
        }
        Ok(Some(range))
    }

    fn stored_range(&self, entry: &Entry) -> Option<Range<usize>> {
        let header = Fields::at(self.file, entry.local_header, LOCAL_BYTES)?;
        if header.u32(0)? != LOCAL_HEADER {
            return None;
        }
        let skipped = LOCAL_BYTES + usize::from(header.u16(26)?) + usize::from(header.u16(28)?);
        let start = usize::try_from(entry.local_header).ok()?.checked_add(skipped)?;
        let end = start.checked_add(usize::try_from(entry.bytes).ok()?)?;
        (end <= self.file.len()).then_some(start..end)
    }
}

/// The 64-bit sizes in an entry's extra field (header id 1).
fn zip64_extra(mut extra: &[u8]) -> Option<&[u8]> {
    while let Some((head, rest)) = extra.split_first_chunk::<4>() {
        let (id, len) = (u16::from_le_bytes([head[0], head[1]]), u16::from_le_bytes([head[2], head[3]]));
        let (data, next) = rest.split_at_checked(usize::from(len))?;
        if id == 1 {
            return Some(data);
        }
        extra = next;
    }
    None
}
