//! NRRD files, attached (`.nrrd`) and detached (`.nhdr`), and 3D Slicer's sequences in them (`.seq.nrrd`).
//!
//! Format: "Definition of NRRD File Format", teem.sourceforge.net/nrrd/format.html; sequences: 3D Slicer's developer guide,
//! "Volume sequence file format". Fields are read as leniently as Teem writes them: in any order, with their other spellings.

mod axes;
mod fields;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;

use axes::Axes;
use fields::Fields;

use crate::error::MediaError;
use crate::sequence::{
    DataFile, ElementType, Encoding, FrameFields, Header, SequenceReader, Window, numbered, open_file,
};

/// Opens a `.nrrd` or `.nhdr` file, checks its header and that its first frame can be there.
pub fn open(path: &Path) -> Result<SequenceReader, MediaError> {
    SequenceReader::of(read(&mut BufReader::new(open_file(path)?), path)?, path, "NRRD sequence")
}

/// Reads a header.
fn read(reader: &mut impl BufRead, path: &Path) -> Result<Header, MediaError> {
    let fields = Fields::read(reader, path)?;
    let axes = Axes::of(&fields)?;
    let encoding = match fields.required("encoding")?.to_ascii_lowercase().as_str() {
        "raw" => Encoding::Plain,
        "gzip" | "gz" => Encoding::Deflated,
        "bzip2" | "bz2" => Encoding::Bzip2,
        "text" | "txt" | "ascii" => Encoding::Text,
        other => {
            let problem = "is not raw, gzip, bzip2 or text: convert it with `unu save -e gzip`";
            return Err(fields.wrong("encoding", other, problem));
        }
    };
    let type_name = fields.required("type")?;
    let element = element(type_name).ok_or_else(|| {
        fields.wrong("type", type_name, "is not a type of numbers: only images can be read")
    })?;
    let big_endian = match fields.get("endian").map(str::to_ascii_lowercase).as_deref() {
        Some("little") => false,
        Some("big") => true,
        None if element.bytes() == 1 || encoding == Encoding::Text => false,
        None => return Err(MediaError::header(path, "endian", "is missing, and values have several bytes")),
        Some(other) => return Err(fields.wrong("endian", other, "is not little or big")),
    };
    let whole = |key: &str| match fields.get(key) {
        None => Ok(0),
        Some(text) => text
            .parse::<i64>()
            .ok()
            .filter(|&number| number >= -1)
            .ok_or_else(|| fields.wrong(key, text, "is not a number of bytes or lines")),
    };
    let (skip_bytes, skip_lines) = (whole("byte skip")?, whole("line skip")?.max(0) as u64);
    let data_file = data_file(&fields, &axes)?;
    let is_several = matches!(data_file, DataFile::Each { .. });
    if is_several && (encoding != Encoding::Plain || axes.interleaved > 1) {
        let problem =
            "names several files, which can be read as plain frames alone: save the image in one file";
        return Err(MediaError::header(path, "data file", problem));
    }
    let bound = |key: &str| fields.get(key)?.parse::<f64>().ok().filter(|value| value.is_finite());
    let window = match (bound("min"), bound("max")) {
        (Some(low), Some(high)) if low < high => Some(Window { low, high }),
        _ => None,
    };
    Ok(Header {
        width: axes.width,
        height: axes.height,
        frame_count: axes.frame_count,
        slices_per_entry: axes.slices_per_entry,
        channels: axes.channels,
        element,
        big_endian,
        encoding,
        interleaved: axes.interleaved,
        compressed_size: None,
        spacing_mm: axes.spacing_mm,
        window,
        orientation: None,
        data_file,
        skip_bytes,
        skip_lines,
        skips_unpacked: true,
        header_bytes: fields.header_bytes,
        last_line_bytes: 0,
        fields: times(&fields, &axes)?,
    })
}

/// The type of a field `type`, of whose spellings there are many.
fn element(name: &str) -> Option<ElementType> {
    let name = name.to_ascii_lowercase();
    Some(match name.split_whitespace().collect::<Vec<_>>().join(" ").as_str() {
        "uchar" | "unsigned char" | "uint8" | "uint8_t" => ElementType::U8,
        "signed char" | "int8" | "int8_t" => ElementType::I8,
        "ushort" | "unsigned short" | "unsigned short int" | "uint16" | "uint16_t" => ElementType::U16,
        "short" | "short int" | "signed short" | "signed short int" | "int16" | "int16_t" => ElementType::I16,
        "uint" | "unsigned int" | "uint32" | "uint32_t" => ElementType::U32,
        "int" | "signed int" | "int32" | "int32_t" => ElementType::I32,
        "ulonglong" | "unsigned long long" | "unsigned long long int" | "uint64" | "uint64_t" => {
            ElementType::U64
        }
        "longlong"
        | "long long"
        | "long long int"
        | "signed long long"
        | "signed long long int"
        | "int64"
        | "int64_t" => ElementType::I64,
        "float" => ElementType::F32,
        "double" => ElementType::F64,
        _ => return None,
    })
}

fn data_file(fields: &Fields<'_>, axes: &Axes) -> Result<DataFile, MediaError> {
    let Some(value) = fields.get("data file").or_else(|| fields.get("datafile")) else {
        return Ok(DataFile::Local);
    };
    let words: Vec<&str> = value.split_whitespace().collect();
    let wrong = |problem: &str| fields.wrong("data file", value, problem);
    let reads = axes.frame_count / axes.interleaved;
    let several = |names: Vec<String>, dimensions: Option<&&str>| {
        // So many axes are in a file, the colour's among them; one less than there are unless told otherwise.
        let said = dimensions.and_then(|text| text.parse::<usize>().ok());
        let frames = axes.frames_in(said.unwrap_or(axes.sizes.len().saturating_sub(1)));
        let needed = reads.div_ceil(frames);
        if (names.len() as u64) < needed {
            return Err(wrong(&format!("names {} files, and the sizes need {needed}", names.len())));
        }
        Ok(DataFile::Each { names: names.into_iter().take(needed as usize).collect(), frames })
    };
    match words.as_slice() {
        ["LIST", rest @ ..] => several(fields.listed.clone(), rest.first()),
        [pattern, _, _, _, rest @ ..] if pattern.contains('%') => {
            let names = numbered(&words[..4], reads)
                .ok_or_else(|| wrong("is not a name with one number in it (%d, %03d), then the first number, the last, and the step"))?;
            several(names, rest.first())
        }
        [] => Err(MediaError::header(fields.path, "data file", "is empty: name the file with the pixels")),
        _ => Ok(DataFile::Beside(value.to_owned())),
    }
}

/// The times of frames: 3D Slicer's index values of the list's axis, where they are numbers.
fn times(fields: &Fields<'_>, axes: &Axes) -> Result<BTreeMap<u64, FrameFields>, MediaError> {
    let Some(list) = axes.list else { return Ok(BTreeMap::new()) };
    let Some(values) = fields.get(&format!("axis {list} index values")) else { return Ok(BTreeMap::new()) };
    if fields.get(&format!("axis {list} index type")).is_some_and(|kind| kind != "numeric") {
        return Ok(BTreeMap::new());
    }
    let scale = match fields.get(&format!("axis {list} index unit")).or(axes.unit.as_deref()) {
        Some("ms") => 1e-3,
        _ => 1.0,
    };
    let entries = axes.frame_count / axes.slices_per_entry;
    let of_entry = |(entry, text): (u64, &str)| {
        let timestamp_s =
            text.parse::<f64>().ok().filter(|value| value.is_finite()).map(|value| value * scale);
        (entry, FrameFields { timestamp_s, ..FrameFields::default() })
    };
    Ok((0..entries).zip(values.split_whitespace()).map(of_entry).collect())
}

#[cfg(test)]
mod tests;
