//! The attributes of a DICOM file that pictures need, and no others.
//!
//! Only the tags of [`READ`] ever reach memory: what says who the patient is is passed over where it lies, so it can be in no
//! frame, log or error. Layout of data sets: PS3.5 section 7, of files: PS3.10 section 7.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use dicom_core::{Tag, VR};
use dicom_dictionary_std::{tags, uids};
use dicom_encoding::decode::DecodeFrom;
use dicom_encoding::transfer_syntax::{TransferSyntax, TransferSyntaxIndex};
use dicom_transfer_syntax_registry::TransferSyntaxRegistry;

use super::transfer::{EXPLICIT_VR_BIG_ENDIAN, not_decoded};
use crate::error::MediaError;

/// What is kept of a data set and of the items of its sequences. None of these identifies a patient; the identity of a series
/// is kept to tell series apart, and never shown.
const READ: &[Tag] = &[
    tags::DIRECTORY_RECORD_SEQUENCE,
    tags::REFERENCED_FILE_ID,
    tags::MODALITY,
    tags::SERIES_DESCRIPTION,
    tags::SERIES_INSTANCE_UID,
    tags::SERIES_NUMBER,
    tags::INSTANCE_NUMBER,
    tags::NUMBER_OF_FRAMES,
    tags::ROWS,
    tags::COLUMNS,
    tags::SAMPLES_PER_PIXEL,
    tags::PHOTOMETRIC_INTERPRETATION,
    tags::PLANAR_CONFIGURATION,
    tags::BITS_ALLOCATED,
    tags::BITS_STORED,
    tags::HIGH_BIT,
    tags::PIXEL_REPRESENTATION,
    tags::RESCALE_SLOPE,
    tags::RESCALE_INTERCEPT,
    tags::WINDOW_CENTER,
    tags::WINDOW_WIDTH,
    tags::VOILUT_FUNCTION,
    tags::PIXEL_SPACING,
    tags::BURNED_IN_ANNOTATION,
    tags::FRAME_TIME,
    tags::FRAME_TIME_VECTOR,
    tags::CINE_RATE,
    tags::RECOMMENDED_DISPLAY_FRAME_RATE,
    tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
    tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
    tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
    tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DATA,
    tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA,
    tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA,
    tags::SEGMENTED_RED_PALETTE_COLOR_LOOKUP_TABLE_DATA,
    tags::EXTENDED_OFFSET_TABLE,
    tags::SEQUENCE_OF_ULTRASOUND_REGIONS,
    tags::REGION_SPATIAL_FORMAT,
    tags::REGION_DATA_TYPE,
    tags::REGION_LOCATION_MIN_X0,
    tags::REGION_LOCATION_MIN_Y0,
    tags::REGION_LOCATION_MAX_X1,
    tags::REGION_LOCATION_MAX_Y1,
    tags::PHYSICAL_UNITS_X_DIRECTION,
    tags::PHYSICAL_UNITS_Y_DIRECTION,
    tags::PHYSICAL_DELTA_X,
    tags::PHYSICAL_DELTA_Y,
];

/// What frames the items of a sequence, and the fragments of coded pixels (PS3.5 section 7.5).
pub(super) const ITEM: Tag = Tag(0xFFFE, 0xE000);
const ITEM_END: Tag = Tag(0xFFFE, 0xE00D);
pub(super) const SEQUENCE_END: Tag = Tag(0xFFFE, 0xE0DD);

/// Longest value that is kept. A palette has 128 KiB, the times of a hundred thousand frames 1 MiB.
const MAX_VALUE_BYTES: u32 = 4 << 20;
/// Most items of one sequence that are kept: records of a DICOMDIR.
const MAX_ITEMS: usize = 1 << 18;
/// Deepest nesting of sequences.
const MAX_NESTING: usize = 16;

/// A data set, as far as it is read.
#[derive(Debug, Default)]
pub(super) struct DataSet {
    big_endian: bool,
    values: BTreeMap<Tag, Vec<u8>>,
    items: BTreeMap<Tag, Vec<DataSet>>,
}

/// Where the pixels lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct PixelElement {
    /// First byte of the value.
    pub(super) start: u64,
    /// Its bytes; `None` where it is a sequence of fragments.
    pub(super) bytes: Option<u64>,
    /// Whether they are 16-bit words, each in the file's byte order, even where samples have 8 bits.
    pub(super) is_words: bool,
}

/// A file up to its pixels.
#[derive(Debug)]
pub(super) struct Header {
    /// UID of the transfer syntax.
    pub(super) transfer_syntax: String,
    pub(super) data_set: DataSet,
    pub(super) pixels: Option<PixelElement>,
    pub(super) file_bytes: u64,
}

impl Header {
    /// Reads a file up to its pixels. `shown` is the path that an error names.
    pub(super) fn read(path: &Path, shown: &Path) -> Result<Self, MediaError> {
        let problem = |problem: String| MediaError::Dicom { path: shown.to_owned(), problem };
        // Opening a pipe would block.
        let metadata = std::fs::metadata(path).map_err(MediaError::io("open", shown))?;
        if !metadata.is_file() {
            return Err(problem("it is not a file".to_owned()));
        }
        let file = File::open(path).map_err(MediaError::io("open", shown))?;
        let file_bytes = metadata.len();
        let mut walk = Walk { file: BufReader::new(file), at: 0, file_bytes };
        let transfer_syntax = walk.transfer_syntax().map_err(problem)?;
        let syntax = TransferSyntaxRegistry.get(&transfer_syntax);
        let (decoder, big_endian) = match syntax {
            Some(syntax) if transfer_syntax != uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN => {
                (decoder_of(syntax), transfer_syntax == EXPLICIT_VR_BIG_ENDIAN)
            }
            _ => {
                return Err(problem(format!("its transfer syntax {}", not_decoded(&transfer_syntax))));
            }
        };
        let mut data_set = DataSet { big_endian, ..DataSet::default() };
        let pixels = walk.data_set(&*decoder, file_bytes, 0, Some(&mut data_set)).map_err(problem)?;
        Ok(Self { transfer_syntax, data_set, pixels, file_bytes })
    }
}

type Decoder = dyn DecodeFrom<BufReader<File>>;

fn decoder_of(syntax: &TransferSyntax) -> Box<Decoder> {
    syntax.decoder_for().unwrap_or_else(|| {
        Box::<dicom_encoding::decode::explicit_le::ExplicitVRLittleEndianDecoder>::default()
    })
}

/// A position in a file.
struct Walk {
    file: BufReader<File>,
    at: u64,
    file_bytes: u64,
}

const DAMAGED_SEQUENCE: &str = "a sequence in its header is damaged: copy the file again";
const CUT_SHORT: &str = "it ends before its pixels: copy the file again";

impl Walk {
    /// Finds the beginning of the data set, and the UID of its transfer syntax.
    fn transfer_syntax(&mut self) -> Result<String, String> {
        let mut head = [0; 132];
        let there = self.file.by_ref().take(132).read(&mut head).map_err(|error| error.to_string())?;
        if there < 8 {
            return Err("it is too short for DICOM: copy the file again".to_owned());
        }
        // Files from before 1993 have no preamble, and start with their data set.
        let start = if head.ends_with(b"DICM") { 132 } else { 0 };
        self.go(start)?;
        if start == 0 && head[..2] != [2, 0] {
            return Ok(self.guessed_syntax()?.to_owned());
        }
        let decoder = dicom_encoding::decode::file_header_decoder();
        let mut uid = None;
        loop {
            let (header, header_bytes) =
                DecodeFrom::decode_header(&decoder, &mut self.file).map_err(|_| CUT_SHORT.to_owned())?;
            if header.tag.group() != 2 {
                break;
            }
            self.at += header_bytes as u64;
            let bytes =
                header.len.get().ok_or("its file meta information is damaged: copy the file again")?;
            if header.tag == tags::TRANSFER_SYNTAX_UID {
                uid = Some(text_of(&self.value(bytes)?));
            } else {
                self.skip(u64::from(bytes))?;
            }
        }
        self.go(self.at)?;
        match uid {
            Some(uid) => Ok(uid),
            None => Ok(self.guessed_syntax()?.to_owned()),
        }
    }

    /// The transfer syntax of a data set that does not say it, by its first element.
    fn guessed_syntax(&mut self) -> Result<&'static str, String> {
        let mut first = [0; 6];
        self.file.read_exact(&mut first).map_err(|_| CUT_SHORT.to_owned())?;
        self.go(self.at)?;
        let has_vr = VR::from_binary([first[4], first[5]]).is_some();
        // Groups of pictures are small and even.
        let is_group = |group: u16| (4..=0x40).contains(&group) && group.is_multiple_of(2);
        let group = [first[0], first[1]];
        if is_group(u16::from_le_bytes(group)) {
            return Ok(if has_vr {
                uids::EXPLICIT_VR_LITTLE_ENDIAN
            } else {
                uids::IMPLICIT_VR_LITTLE_ENDIAN
            });
        }
        if is_group(u16::from_be_bytes(group)) && has_vr {
            return Ok(EXPLICIT_VR_BIG_ENDIAN);
        }
        Err("its content is not DICOM".to_owned())
    }

    /// Reads elements up to `end`, a delimiter or the pixels; into nothing where nothing of them is wanted.
    fn data_set(
        &mut self,
        decoder: &Decoder,
        end: u64,
        nesting: usize,
        mut into: Option<&mut DataSet>,
    ) -> Result<Option<PixelElement>, String> {
        if nesting > MAX_NESTING {
            return Err(format!("its sequences are nested more than {MAX_NESTING} deep"));
        }
        while self.at < end {
            // Bytes that are too few for an element are padding.
            if nesting == 0 && self.file_bytes - self.at < 8 {
                break;
            }
            let (header, header_bytes) =
                decoder.decode_header(&mut self.file).map_err(|_| CUT_SHORT.to_owned())?;
            self.at += header_bytes as u64;
            let bytes = header.len.get();
            if header.tag == ITEM_END {
                return Ok(None);
            }
            if nesting == 0 && header.tag == tags::PIXEL_DATA {
                let is_words = header.vr == VR::OW;
                return Ok(Some(PixelElement { start: self.at, bytes: bytes.map(u64::from), is_words }));
            }
            let wanted = into.is_some() && READ.contains(&header.tag);
            match bytes {
                Some(bytes) if header.vr != VR::SQ && wanted => {
                    let value = self.value(bytes)?;
                    if let Some(data_set) = into.as_deref_mut() {
                        data_set.values.insert(header.tag, value);
                    }
                }
                Some(bytes) if !wanted => self.skip(u64::from(bytes))?,
                // Coded pixels of an icon.
                None if matches!(header.vr, VR::OB | VR::OW) => self.skip_fragments(decoder, end)?,
                _ => {
                    // PS3.5 section 6.2.2: what has no known VR and no length is encoded with implicit VR.
                    let implicit = (header.vr == VR::UN)
                        .then(|| TransferSyntaxRegistry.get(uids::IMPLICIT_VR_LITTLE_ENDIAN).map(decoder_of))
                        .flatten();
                    let end = bytes.map_or(end, |bytes| self.at.saturating_add(bytes.into()).min(end));
                    let to = into.as_deref_mut().filter(|_| wanted).map(|data_set| (header.tag, data_set));
                    self.sequence(implicit.as_deref().unwrap_or(decoder), end, nesting, to)?;
                }
            }
        }
        Ok(None)
    }

    fn sequence(
        &mut self,
        decoder: &Decoder,
        end: u64,
        nesting: usize,
        into: Option<(Tag, &mut DataSet)>,
    ) -> Result<(), String> {
        let big_endian = into.as_ref().is_some_and(|(_, data_set)| data_set.big_endian);
        let mut items = into.map(|(tag, data_set)| data_set.items.entry(tag).or_default());
        while self.at < end {
            let (header, header_bytes) =
                decoder.decode_header(&mut self.file).map_err(|_| CUT_SHORT.to_owned())?;
            self.at += header_bytes as u64;
            match header.tag {
                SEQUENCE_END => break,
                ITEM => {}
                _ => return Err(DAMAGED_SEQUENCE.to_owned()),
            }
            let item_end =
                header.len.get().map_or(end, |bytes| self.at.saturating_add(bytes.into()).min(end));
            let mut item = DataSet { big_endian, ..DataSet::default() };
            self.data_set(decoder, item_end, nesting + 1, items.is_some().then_some(&mut item))?;
            if let Some(items) = items.as_deref_mut().filter(|_| !item.values.is_empty()) {
                if items.len() == MAX_ITEMS {
                    return Err(format!("a sequence in it has more than {MAX_ITEMS} items"));
                }
                items.push(item);
            }
        }
        Ok(())
    }

    fn skip_fragments(&mut self, decoder: &Decoder, end: u64) -> Result<(), String> {
        while self.at < end {
            let (header, header_bytes) =
                decoder.decode_header(&mut self.file).map_err(|_| CUT_SHORT.to_owned())?;
            self.at += header_bytes as u64;
            match header.len.get() {
                Some(bytes) if header.tag == ITEM => self.skip(bytes.into())?,
                _ if header.tag == SEQUENCE_END => break,
                _ => return Err(DAMAGED_SEQUENCE.to_owned()),
            }
        }
        Ok(())
    }

    /// A value that is kept: no more of it than the file has.
    fn value(&mut self, bytes: u32) -> Result<Vec<u8>, String> {
        if u64::from(bytes) > self.file_bytes - self.at.min(self.file_bytes) {
            return Err(CUT_SHORT.to_owned());
        }
        if bytes > MAX_VALUE_BYTES {
            return Err(format!(
                "a value in its header has {bytes} bytes, more than the {MAX_VALUE_BYTES} that are read"
            ));
        }
        let mut value = vec![0; bytes as usize];
        self.file.read_exact(&mut value).map_err(|_| CUT_SHORT.to_owned())?;
        self.at += u64::from(bytes);
        Ok(value)
    }

    fn skip(&mut self, bytes: u64) -> Result<(), String> {
        if bytes > self.file_bytes - self.at.min(self.file_bytes) {
            return Err(CUT_SHORT.to_owned());
        }
        self.file.seek_relative(bytes as i64).map_err(|error| error.to_string())?;
        self.at += bytes;
        Ok(())
    }

    fn go(&mut self, to: u64) -> Result<(), String> {
        self.file.seek(SeekFrom::Start(to)).map_err(|error| error.to_string())?;
        self.at = to;
        Ok(())
    }
}

impl DataSet {
    pub(super) fn bytes(&self, tag: Tag) -> Option<&[u8]> {
        self.values.get(&tag).map(Vec::as_slice).filter(|value| !value.is_empty())
    }

    pub(super) fn items(&self, tag: Tag) -> &[DataSet] {
        self.items.get(&tag).map_or(&[], Vec::as_slice)
    }

    /// Text without the padding at its ends.
    pub(super) fn text(&self, tag: Tag) -> Option<String> {
        self.bytes(tag).map(text_of).filter(|text| !text.is_empty())
    }

    /// Decimal numbers that are written as text (DS and IS).
    pub(super) fn decimals(&self, tag: Tag) -> Vec<f64> {
        let text = self.text(tag).unwrap_or_default();
        text.split('\\')
            .map_while(|number| number.trim().parse().ok())
            .filter(|n: &f64| n.is_finite())
            .collect()
    }

    /// The first of them.
    pub(super) fn decimal(&self, tag: Tag) -> Option<f64> {
        self.decimals(tag).first().copied()
    }

    /// Unsigned 16-bit numbers (US, or SS taken as such).
    pub(super) fn words(&self, tag: Tag) -> impl Iterator<Item = u16> {
        let big_endian = self.big_endian;
        self.bytes(tag).unwrap_or_default().chunks_exact(2).map(move |word| {
            let word = [word[0], word[1]];
            if big_endian { u16::from_be_bytes(word) } else { u16::from_le_bytes(word) }
        })
    }

    pub(super) fn word(&self, tag: Tag) -> Option<u16> {
        self.words(tag).next()
    }

    /// An unsigned 32-bit number (UL).
    pub(super) fn long(&self, tag: Tag) -> Option<u32> {
        let bytes = self.bytes(tag)?.first_chunk()?;
        Some(if self.big_endian { u32::from_be_bytes(*bytes) } else { u32::from_le_bytes(*bytes) })
    }

    /// A 64-bit floating-point number (FD) that is finite.
    pub(super) fn double(&self, tag: Tag) -> Option<f64> {
        let bytes = self.bytes(tag)?.first_chunk()?;
        let value = if self.big_endian { f64::from_be_bytes(*bytes) } else { f64::from_le_bytes(*bytes) };
        value.is_finite().then_some(value)
    }

    pub(super) fn big_endian(&self) -> bool {
        self.big_endian
    }
}

/// UTF-8 where it is, else ISO 8859-1: only a series' description is ever other than ASCII.
fn text_of(bytes: &[u8]) -> String {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|&byte| char::from(byte)).collect(),
    };
    text.trim_matches(['\0', ' ']).to_owned()
}
