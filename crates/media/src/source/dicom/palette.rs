//! Tables of colours (PS3.3 section C.7.6.3.1.5).

use dicom_core::Tag;
use dicom_dictionary_std::tags;

use super::elements::DataSet;

/// A table of colours.
#[derive(Debug)]
pub(super) struct Palette {
    /// The number that the first colour is of; less ones have it too.
    first: i32,
    colours: Vec<[u8; 3]>,
}

impl Palette {
    pub(super) fn of(data_set: &DataSet) -> Result<Self, String> {
        if data_set.bytes(tags::SEGMENTED_RED_PALETTE_COLOR_LOOKUP_TABLE_DATA).is_some() {
            return Err("its palette is written in segments, which are not read: write it anew by `gdcmconv --raw IN OUT`".to_owned());
        }
        let (first, red) = channel(
            data_set,
            tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
            tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DATA,
        )?;
        let (_, green) = channel(
            data_set,
            tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
            tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA,
        )?;
        let (_, blue) = channel(
            data_set,
            tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
            tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA,
        )?;
        // Some write 8 bits where they say 16.
        let shift = if [&red, &green, &blue].iter().any(|values| values.iter().any(|&value| value > 0xFF)) {
            8
        } else {
            0
        };
        let narrow = |value: u16| (value >> shift) as u8;
        let colours = red.into_iter().zip(green).zip(blue).map(|((r, g), b)| [r, g, b].map(narrow)).collect();
        Ok(Self { first, colours })
    }

    /// The colour of a number.
    pub(super) fn colour(&self, number: i32) -> [u8; 3] {
        let index = (number - self.first).clamp(0, self.colours.len() as i32 - 1);
        self.colours.get(index as usize).copied().unwrap_or_default()
    }
}

/// The first number of a table, and its values.
fn channel(data_set: &DataSet, descriptor: Tag, data: Tag) -> Result<(i32, Vec<u16>), String> {
    let wrong = || "its palette is missing or damaged".to_owned();
    let words: Vec<u16> = data_set.words(descriptor).collect();
    let &[count, first, bits] = words.as_slice() else { return Err(wrong()) };
    let count = if count == 0 { 1 << 16 } else { usize::from(count) };
    let bytes = data_set.bytes(data).ok_or_else(wrong)?;
    // Values of 8 bits lie two in a word, or one.
    let values: Vec<u16> = if bits == 8 && bytes.len() < 2 * count {
        let swap = usize::from(data_set.big_endian());
        (0..count).map_while(|index| bytes.get(index ^ swap).copied().map(u16::from)).collect()
    } else {
        data_set.words(data).take(count).collect()
    };
    if values.len() < count {
        return Err(wrong());
    }
    Ok((i32::from(first), values))
}
