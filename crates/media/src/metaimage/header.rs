//! What a header says, checked.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::Path;

use super::data_file;
use super::frame_fields::parse_spacing;
use super::lines::{DataFileLine, Lines};
use super::values::Values;
use crate::error::MediaError;
use crate::sequence::{DataFile, ElementType, Encoding, FrameFields, Header, Orientation, Window};
use ultramotion_types::MAX_SIDE_PX;

/// Reads up to and including the line `ElementDataFile`, and the names of files that follow it.
pub(crate) fn read(reader: &mut impl BufRead, path: &Path) -> Result<Header, MediaError> {
    let lines = Lines::read(reader, path)?;
    let values = Values { path, values: lines.values };
    check(&values, lines.fields, lines.data_file, lines.header_bytes, lines.last_line_bytes)
}

fn check(
    values: &Values<'_>,
    fields: BTreeMap<u64, FrameFields>,
    data_file: DataFileLine,
    header_bytes: u64,
    last_line_bytes: u64,
) -> Result<Header, MediaError> {
    let path = values.path;
    if let Some(kind) = values.get(&["ObjectType"]).filter(|&kind| kind != "Image") {
        return Err(values.wrong("ObjectType", kind, "is not Image: only images can be read"));
    }
    let as_text = values.flag(&["BinaryData"])? == Some(false);
    if let Some(kind) = values.get(&["UltrasoundImageType"]).filter(|kind| kind.starts_with("RF")) {
        let problem = "is not a picture yet: reconstruct a B-mode image of it first";
        return Err(values.wrong("UltrasoundImageType", kind, problem));
    }
    let dimensions = values.required("NDims")?;
    let dimensions: usize = match dimensions.parse() {
        Ok(n @ 2..=4) => n,
        _ => {
            return Err(values.wrong(
                "NDims",
                dimensions,
                "is not 2, 3 or 4: only images and sequences can be read",
            ));
        }
    };
    let sizes = values.required("DimSize")?;
    let size: Vec<u64> =
        sizes.split_whitespace().map(whole_number).collect::<Option<_>>().ok_or_else(|| {
            values.wrong("DimSize", sizes, "is not a list of whole numbers: correct the header")
        })?;
    if size.len() != dimensions {
        let problem =
            format!("does not have the {dimensions} numbers that NDims announces: correct the header");
        return Err(values.wrong("DimSize", sizes, &problem));
    }
    let (width, height) = (size[0], size[1]);
    let limit = 1..=MAX_SIDE_PX as u64;
    if !limit.contains(&width) || !limit.contains(&height) {
        return Err(MediaError::Size { path: path.to_owned(), width, height });
    }
    let slices_per_entry = if dimensions == 4 { size[2] } else { 1 };
    let frame_count = size[2..]
        .iter()
        .try_fold(1u64, |product, &n| product.checked_mul(n))
        .filter(|&count| count > 0 && count < u64::MAX >> 32)
        .ok_or_else(|| values.wrong("DimSize", sizes, "gives no frames or too many: correct the header"))?;
    let channels = match values.get(&["ElementNumberOfChannels"]).unwrap_or("1") {
        "1" => 1,
        "2" => 2,
        "3" => 3,
        "4" => 4,
        other => {
            let problem = "is not 1 to 4: only grey and red-green-blue pixels can be read, with or without transparency";
            return Err(values.wrong("ElementNumberOfChannels", other, problem));
        }
    };
    let type_name = values.required("ElementType")?;
    let element = ElementType::from_name(type_name)
        .ok_or_else(|| values.wrong("ElementType", type_name, "is not a numeric type such as MET_UCHAR"))?;
    let compressed_size = match values.get(&["CompressedDataSize"]) {
        None => None,
        // MetaIO writes 0 where it did not know.
        Some(text) => match text.parse::<u64>() {
            Ok(size) => Some(size).filter(|&size| size > 0),
            Err(_) => return Err(values.wrong("CompressedDataSize", text, "is not a number of bytes")),
        },
    };
    let skip_bytes = match values.get(&["HeaderSize"]) {
        None => 0,
        Some(text) => match text.parse::<i64>() {
            Ok(bytes) if bytes >= -1 => bytes,
            _ => {
                return Err(values.wrong(
                    "HeaderSize",
                    text,
                    "is not -1 or a number of bytes: correct the header",
                ));
            }
        },
    };
    let spacing_mm = values.get(&["ElementSpacing", "ElementSize"]).and_then(parse_spacing);
    let bound =
        |key| values.get(&[key]).and_then(|text| text.parse::<f64>().ok()).filter(|value| value.is_finite());
    let window = match (bound("ElementMin"), bound("ElementMax")) {
        (Some(low), Some(high)) if low < high => Some(Window { low, high }),
        _ => None,
    };
    let encoding = match (as_text, values.flag(&["CompressedData"])?.unwrap_or(false)) {
        (false, false) => Encoding::Plain,
        (false, true) => Encoding::Deflated,
        (true, false) => Encoding::Text,
        (true, true) => {
            let problem = "= True goes with binary data, and BinaryData is False: correct the header";
            return Err(MediaError::header(path, "CompressedData", problem));
        }
    };
    let data_file = data_file::data_file(values, data_file, &size)?;
    if matches!(data_file, DataFile::Each { .. }) && encoding != Encoding::Plain {
        let problem =
            "names several files, which can be read as plain binary data alone: save the image in one file";
        return Err(MediaError::header(path, "ElementDataFile", problem));
    }
    Ok(Header {
        width: width as usize,
        height: height as usize,
        frame_count,
        slices_per_entry,
        channels,
        element,
        big_endian: values.flag(&["BinaryDataByteOrderMSB", "ElementByteOrderMSB"])?.unwrap_or(false),
        encoding,
        interleaved: 1,
        compressed_size,
        spacing_mm,
        window,
        orientation: values.get(&["UltrasoundImageOrientation"]).map(Orientation::from_code),
        data_file,
        skip_bytes,
        skip_lines: 0,
        skips_unpacked: false,
        header_bytes,
        last_line_bytes,
        fields,
    })
}

/// A whole number, also one that is written with a fraction of 0.
fn whole_number(text: &str) -> Option<u64> {
    text.parse().ok().or_else(|| {
        let number = text.parse::<f64>().ok()?;
        (number.fract() == 0.0 && (0.0..1e15).contains(&number)).then_some(number as u64)
    })
}
