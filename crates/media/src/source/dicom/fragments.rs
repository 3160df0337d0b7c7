//! Where each frame of a file lies: one after the other, or in fragments (PS3.5 annex A.4).

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::ops::Range;

use dicom_dictionary_std::tags;

use super::elements::{Header, ITEM, PixelElement, SEQUENCE_END};
use super::transfer::Coding;

/// Bytes of a fragment's header: tag and length.
const ITEM_HEADER_BYTES: u64 = 8;

/// The bytes of every frame.
#[derive(Debug)]
pub(super) enum Places {
    /// Frames of one size, without anything between them; `swapped` where the two bytes of each word have changed places.
    Rows { start: u64, frame_bytes: u64, bytes: u64, swapped: bool },
    /// Fragments, and which of them each frame has.
    Pieces { fragments: Vec<Fragment>, frames: Vec<Range<usize>> },
}

/// A piece of coded pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fragment {
    /// Its first byte in the file.
    start: u64,
    bytes: u64,
    /// Bytes that the file has of it.
    there: u64,
}

/// Why a frame has no bytes.
#[derive(Debug)]
pub(super) enum Lost {
    /// The file ends before the frame does; so many bytes are missing.
    Missing(u64),
    /// A fragment of it is not there, or not whole.
    Piece,
    /// The system could not read.
    Io(std::io::Error),
}

impl Places {
    /// Finds the frames, of which the header claims `frame_count` of `frame_bytes` bytes each when native.
    pub(super) fn find(
        file: &mut BufReader<File>,
        header: &Header,
        element: PixelElement,
        coding: Coding,
        frame_count: u64,
        frame_bytes: u64,
    ) -> Result<Self, String> {
        let there = header.file_bytes.saturating_sub(element.start);
        // 16-bit samples are put in order when they are decoded.
        let has_bytes = header.data_set.word(tags::BITS_ALLOCATED) == Some(8);
        let swapped = has_bytes && element.is_words && header.data_set.big_endian();
        if let Some(bytes) = element.bytes {
            if coding != Coding::Native {
                return Err(
                    "its pixels are not coded as its transfer syntax says: write it anew by `dcmconv IN OUT`"
                        .to_owned(),
                );
            }
            return Ok(Self::Rows { start: element.start, frame_bytes, bytes: bytes.min(there), swapped });
        }
        let (offsets, fragments, cut_short) =
            walk(file, element.start, header.file_bytes).map_err(|error| error.to_string())?;
        let wide: Vec<u64> = header
            .data_set
            .bytes(tags::EXTENDED_OFFSET_TABLE)
            .unwrap_or_default()
            .as_chunks()
            .0
            .iter()
            .map(|offset| u64::from_le_bytes(*offset))
            .collect();
        let offsets = if wide.is_empty() { offsets } else { wide };
        let frames = group(file, &fragments, &offsets, frame_count, coding, cut_short)?;
        Ok(Self::Pieces { fragments, frames })
    }

    /// Frames that are there, the last perhaps in part.
    pub(super) fn begun(&self) -> u64 {
        match self {
            Self::Rows { frame_bytes, bytes, .. } => bytes.div_ceil(*frame_bytes),
            Self::Pieces { frames, .. } => frames.len() as u64,
        }
    }

    /// Reads the bytes of a frame.
    pub(super) fn read(
        &self,
        file: &mut BufReader<File>,
        index: u64,
        into: &mut Vec<u8>,
    ) -> Result<(), Lost> {
        into.clear();
        match self {
            Self::Rows { start, frame_bytes, bytes, swapped } => {
                let from = index.saturating_mul(*frame_bytes);
                let there = bytes.saturating_sub(from).min(*frame_bytes);
                if there < *frame_bytes {
                    return Err(Lost::Missing(frame_bytes - there));
                }
                if !swapped {
                    return append(file, start + from, there, into);
                }
                let first = from & !1;
                append(file, start + first, (from + there).next_multiple_of(2).min(*bytes) - first, into)?;
                into.as_chunks_mut::<2>().0.iter_mut().for_each(|word| word.reverse());
                into.drain(..(from - first) as usize);
                Ok(())
            }
            Self::Pieces { fragments, frames } => {
                let Some(range) = frames.get(index as usize) else { return Err(Lost::Piece) };
                for fragment in &fragments[range.clone()] {
                    if fragment.there < fragment.bytes {
                        return Err(Lost::Piece);
                    }
                    append(file, fragment.start, fragment.bytes, into)?;
                }
                Ok(())
            }
        }
    }
}

/// Appends bytes of which it is known that the file has them.
fn append(file: &mut BufReader<File>, start: u64, bytes: u64, into: &mut Vec<u8>) -> Result<(), Lost> {
    file.seek(SeekFrom::Start(start)).map_err(Lost::Io)?;
    let before = into.len();
    into.try_reserve_exact(bytes as usize).map_err(|_| Lost::Io(std::io::ErrorKind::OutOfMemory.into()))?;
    file.by_ref().take(bytes).read_to_end(into).map_err(Lost::Io)?;
    match bytes - (into.len() - before) as u64 {
        0 => Ok(()),
        missing => Err(Lost::Missing(missing)),
    }
}

/// The basic offset table, the fragments, and whether the file ends before they do.
fn walk(
    file: &mut BufReader<File>,
    start: u64,
    file_bytes: u64,
) -> std::io::Result<(Vec<u64>, Vec<Fragment>, bool)> {
    let mut at = start;
    let mut offsets = None;
    let mut fragments = Vec::new();
    file.seek(SeekFrom::Start(start))?;
    loop {
        let mut header = [0; ITEM_HEADER_BYTES as usize];
        if file_bytes.saturating_sub(at) < ITEM_HEADER_BYTES || file.read_exact(&mut header).is_err() {
            return Ok((offsets.unwrap_or_default(), fragments, true));
        }
        at += ITEM_HEADER_BYTES;
        let [g0, g1, e0, e1, length @ ..] = header;
        let tag = dicom_core::Tag(u16::from_le_bytes([g0, g1]), u16::from_le_bytes([e0, e1]));
        let bytes = u64::from(u32::from_le_bytes(length));
        if tag != ITEM {
            // Anything else than the end is damage: what lies behind it cannot be found.
            return Ok((offsets.unwrap_or_default(), fragments, tag != SEQUENCE_END));
        }
        let there = bytes.min(file_bytes - at);
        if offsets.is_none() {
            let mut table = Vec::new();
            file.by_ref().take(there).read_to_end(&mut table)?;
            offsets = Some(
                table.as_chunks().0.iter().map(|offset| u64::from(u32::from_le_bytes(*offset))).collect(),
            );
        } else {
            fragments.push(Fragment { start: at, bytes, there });
            file.seek_relative(there as i64)?;
        }
        at += there;
    }
}

/// Which fragments belong to which frame. Frames at the end may be missing.
fn group(
    file: &mut BufReader<File>,
    fragments: &[Fragment],
    offsets: &[u64],
    frame_count: u64,
    coding: Coding,
    cut_short: bool,
) -> Result<Vec<Range<usize>>, String> {
    let count = fragments.len();
    // PS3.5 section A.4.2: a frame of run lengths is one fragment.
    let one_each = count == 0 || (coding == Coding::Rle && (count as u64) < frame_count);
    if one_each || count as u64 == frame_count {
        return Ok((0..count).map(|index| index..index + 1).collect());
    }
    if frame_count == 1 {
        return Ok(std::iter::once(0..count).collect());
    }
    // Where frames begin: by the table, else by the first bytes of JPEG and JPEG 2000 streams.
    let has_table = offsets.len() as u64 == frame_count;
    let mut firsts = Vec::new();
    if has_table {
        for offset in offsets {
            let start = fragments[0].start.saturating_add(*offset);
            firsts.extend(fragments.binary_search_by_key(&start, |fragment| fragment.start));
        }
    } else {
        for (index, fragment) in fragments.iter().enumerate() {
            let mut magic = [0; 2];
            let begins = fragment.there >= 2
                && file.seek(SeekFrom::Start(fragment.start)).is_ok()
                && file.read_exact(&mut magic).is_ok()
                && matches!(magic, [0xFF, 0xD8] | [0xFF, 0x4F]);
            if begins {
                firsts.push(index);
            }
        }
    }
    let found = firsts.len() as u64;
    let is_good = found == frame_count || (found < frame_count && (cut_short || !has_table));
    if !is_good || firsts.first() != Some(&0) || !firsts.is_sorted_by(|a, b| a < b) {
        return Err(format!(
            "it says that it has {frame_count} frames, and its {count} pieces of coded pixels cannot be told apart: write it \
             anew by `gdcmconv --raw IN OUT`"
        ));
    }
    let ends = firsts.iter().skip(1).copied().chain([count]);
    Ok(firsts.iter().copied().zip(ends).map(|(first, end)| first..end).collect())
}
