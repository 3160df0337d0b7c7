//! How large a pixel is: one size for all images, or a table by image.

use std::collections::BTreeMap;
use std::path::Path;

use ultramotion_media::source::is_image_name;

use crate::error::EvaluationError;
use crate::pairs::Pairs;

/// Width and height of a pixel in millimetres, where known.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Spacing {
    /// Nothing is known.
    #[default]
    Unknown,
    /// The same for every image.
    Same([f64; 2]),
    /// By image name, without its ending.
    ByName(BTreeMap<String, [f64; 2]>),
}

impl Spacing {
    /// From `--spacing-mm`: `0.1`, `0.1,0.12` (width, height), or a CSV file whose lines are `name,0.1` or
    /// `name,0.1,0.12`, the name with or without its ending. Semicolons do for commas, as spreadsheets of some languages write them,
    /// and a byte-order mark is passed over.
    pub fn parse(text: &str) -> Result<Self, EvaluationError> {
        let wrong = |reason| Err(EvaluationError::Spacing(reason));
        if let Some(size) = millimetres(text) {
            return Ok(Spacing::Same(size));
        }
        let path = Path::new(text);
        if !path.is_file() {
            return wrong(format!(
                "--spacing-mm '{text}' is neither a pixel size in mm, such as 0.1 or 0.1,0.12, nor a file with lines \
                 such as name,0.1"
            ));
        }
        let Ok(table) = std::fs::read_to_string(path) else { return wrong(format!("cannot read {text}")) };
        let mut by_name = BTreeMap::new();
        let table = table.trim_start_matches('\u{feff}').replace(';', ",");
        for (index, line) in table.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let (name, size) = line.split_once(',').unwrap_or((line, ""));
            match millimetres(size) {
                Some(size) => drop(by_name.insert(without_ending(name.trim()).to_owned(), size)),
                // Column names.
                None if index == 0 && !size.contains(|c: char| c.is_ascii_digit()) => {}
                None => {
                    return wrong(format!(
                        "{text}, line {}: '{line}' is not name,mm or name,mm,mm with sizes above 0",
                        index + 1
                    ));
                }
            }
        }
        Ok(Spacing::ByName(by_name))
    }

    /// An error where a line of the table is about no image: a name that is written wrongly would give millimetres of nothing.
    pub fn check(&self, pairs: &Pairs) -> Result<(), EvaluationError> {
        let Spacing::ByName(sizes) = self else { return Ok(()) };
        match sizes.keys().find(|name| !pairs.has_image(name)) {
            Some(name) => Err(EvaluationError::Spacing(format!(
                "--spacing-mm has a line about '{name}', and there is no image of that name"
            ))),
            None => Ok(()),
        }
    }

    /// Of an image.
    pub(crate) fn of(&self, name: &str) -> Option<[f64; 2]> {
        match self {
            Spacing::Unknown => None,
            Spacing::Same(size) => Some(*size),
            Spacing::ByName(sizes) => sizes.get(name).copied(),
        }
    }
}

/// A name without the ending of an image's file.
fn without_ending(name: &str) -> &str {
    name.rsplit_once('.').filter(|_| is_image_name(Path::new(name))).map_or(name, |(stem, _)| stem)
}

fn millimetres(text: &str) -> Option<[f64; 2]> {
    let one = |text: &str| text.trim().parse::<f64>().ok().filter(|v| v.is_finite() && *v > 0.0);
    match text.split_once(',') {
        Some((width, height)) => Some([one(width)?, one(height)?]),
        None => one(text).map(|side| [side; 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_tables() {
        assert_eq!(Spacing::parse("0.1").unwrap().of("x"), Some([0.1; 2]));
        assert_eq!(Spacing::parse("0.1, 0.2").unwrap().of("x"), Some([0.1, 0.2]));
        assert_eq!(Spacing::default().of("x"), None);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spacing.csv");
        let parse = |table: &str| {
            std::fs::write(&path, table).unwrap();
            Spacing::parse(path.to_str().unwrap())
        };
        let table = parse("image,width mm,height mm\n0012,0.1\n\n0013,0.1,0.3\n").unwrap();
        assert_eq!(["0012", "0013", "0014"].map(|n| table.of(n)), [Some([0.1; 2]), Some([0.1, 0.3]), None]);
        let table = parse("\u{feff}0012.png;0.1\n0013.tif;0.1;0.3\n").unwrap();
        assert_eq!(["0012", "0013"].map(|n| table.of(n)), [Some([0.1; 2]), Some([0.1, 0.3])]);
        for wrong in ["0012,0.1\n0013,x\n", "0012,-1\n", "0012,0\n0013,1", "a,1\nb\n"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "-0.1", "nan", "0.1,", "nowhere.csv"] {
            assert!(Spacing::parse(wrong).is_err(), "{wrong}");
        }
    }
}
