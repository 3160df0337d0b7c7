//! The line `ElementDataFile`.

use super::lines::{DataFileLine, is_local};
use super::values::Values;
use crate::error::MediaError;
use crate::sequence::{DataFile, numbered};

/// Of the line `ElementDataFile`, for an image of these sizes.
pub(super) fn data_file(
    values: &Values<'_>,
    line: DataFileLine,
    size: &[u64],
) -> Result<DataFile, MediaError> {
    let DataFileLine { value, listed } = line;
    if is_local(&value) {
        return Ok(DataFile::Local);
    }
    if value.is_empty() {
        let problem = "is empty: name the file with the pixels";
        return Err(MediaError::header(values.path, "ElementDataFile", problem));
    }
    let words: Vec<&str> = value.split_whitespace().collect();
    if words.first() == Some(&"LIST") {
        return each(values, &value, listed, words.get(1), size);
    }
    if value.contains('%') {
        let names = numbered(&words, size[size.len() - 1]).ok_or_else(|| {
            let problem = "is not a name with one number in it (%d, %03d), then the first number, the last, and the step";
            values.wrong("ElementDataFile", &value, problem)
        })?;
        return each(values, &value, names, words.get(4), size);
    }
    Ok(DataFile::Beside(value))
}

/// Files with so many dimensions each (`2`, `2D`), one less than the image unless said otherwise.
fn each(
    values: &Values<'_>,
    value: &str,
    names: Vec<String>,
    dimensions: Option<&&str>,
    size: &[u64],
) -> Result<DataFile, MediaError> {
    let said = dimensions.and_then(|text| text.trim_end_matches(['D', 'd']).parse::<usize>().ok());
    let dimensions = said.filter(|n| (2..=size.len()).contains(n)).unwrap_or((size.len() - 1).max(2));
    let files: u64 = size[dimensions..].iter().product();
    if (names.len() as u64) < files {
        let problem = format!("names {} files, and DimSize needs {files}: correct the header", names.len());
        return Err(values.wrong("ElementDataFile", value, &problem));
    }
    let names = names.into_iter().take(files as usize).collect();
    Ok(DataFile::Each { names, frames: size[2..dimensions].iter().product() })
}
