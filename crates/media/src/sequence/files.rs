//! Where the pixels are: behind the header, in a file beside it, or in several.

use std::path::{Path, PathBuf};

/// Where the pixels are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum DataFile {
    /// Behind the header.
    Local,
    /// In a file beside it.
    Beside(String),
    /// In files beside it, each with so many frames.
    Each {
        /// In the order of their frames.
        names: Vec<String>,
        /// Frames of a file.
        frames: u64,
    },
}

impl DataFile {
    /// The files with the pixels, where the header is in `path`.
    pub(crate) fn paths(&self, path: &Path) -> Vec<PathBuf> {
        match self {
            DataFile::Local => vec![path.to_owned()],
            DataFile::Beside(name) => vec![beside(path, name)],
            DataFile::Each { names, .. } => names.iter().map(|name| beside(path, name)).collect(),
        }
    }
}

/// A file beside the header. One that was named on Windows has other separators.
fn beside(path: &Path, name: &str) -> PathBuf {
    let folder = path.parent().unwrap_or(Path::new(""));
    let as_it_stands = folder.join(name);
    if name.contains('\\') && !as_it_stands.exists() {
        return folder.join(name.replace('\\', "/"));
    }
    as_it_stands
}

/// Names with a number in them, from `NAME FIRST LAST STEP`; `most` of them. MetaIO counts from 1 to `most` unless told otherwise.
pub(crate) fn numbered(words: &[&str], most: u64) -> Option<Vec<String>> {
    let number = |at: usize| words.get(at).map(|word| word.parse::<i64>().ok());
    let pattern = words.first()?;
    let first = number(1).unwrap_or(Some(1))?;
    let last = number(2).unwrap_or(i64::try_from(most).ok())?;
    let default_step = (last.checked_sub(first)? / i64::try_from(most.max(1)).ok()?).max(1);
    let step = number(3).unwrap_or(Some(default_step))?;
    let (before, rest) = pattern.split_once('%')?;
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (width, rest) = rest.split_at(digits);
    let after = rest.strip_prefix(['d', 'i', 'u'])?;
    let (zeros, width) = (width.starts_with('0'), width.trim_start_matches('0'));
    let width: usize = if width.is_empty() { 0 } else { width.parse().ok().filter(|&width| width < 64)? };
    if after.contains('%') || step <= 0 {
        return None;
    }
    let names = (0..most).map_while(|i| {
        let number =
            first.checked_add(i64::try_from(i).ok()?.checked_mul(step)?).filter(|&number| number <= last)?;
        let number = if zeros { format!("{number:0width$}") } else { format!("{number:width$}") };
        Some(format!("{before}{number}{after}"))
    });
    Some(names.take(1 << 20).collect())
}

#[cfg(test)]
mod tests {
    use super::numbered;

    #[test]
    fn names_are_counted_as_metaio_counts_them() {
        let names = |line: &str, most| numbered(&line.split_whitespace().collect::<Vec<_>>(), most);
        let all = |list: &[&str]| Some(list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(names("s%d.raw 0 2 1", 3), all(&["s0.raw", "s1.raw", "s2.raw"]));
        assert_eq!(names("s%03d.raw 8 12 2", 3), all(&["s008.raw", "s010.raw", "s012.raw"]));
        assert_eq!(names("s%d.raw", 2), all(&["s1.raw", "s2.raw"]));
        assert_eq!(names("s%d.raw 5 9", 2), all(&["s5.raw", "s7.raw"]));
        assert_eq!(names("s%d.raw 0 99 1", 2), all(&["s0.raw", "s1.raw"]), "no more than there are slices");
        for wrong in ["s%s.raw 0 1 1", "s%d.raw 0 1 0", "s%d%d.raw 0 1 1", "s%d.raw a b", "s%99d.raw"] {
            assert_eq!(names(wrong, 2), None, "{wrong}");
        }
    }
}
