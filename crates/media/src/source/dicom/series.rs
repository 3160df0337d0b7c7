//! Which files a path stands for: one file, those that a DICOMDIR lists, or those of a folder; of one series.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use dicom_dictionary_std::tags;

use super::elements::Header;
use crate::error::{MediaError, printable};
use crate::source::images::compare_names;

/// Deepest folder of a study that is looked into.
const MAX_DEPTH: usize = 8;
/// Most files that are looked at to learn whether a folder is a study.
const MAX_LOOKED_AT: usize = 4000;
/// Most series that an error lists.
const MAX_LISTED: usize = 20;

/// A file of a series.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) path: PathBuf,
    /// Frames it says it has, and no more than it has bytes.
    pub(super) frame_count: u64,
    instance: Option<i64>,
}

/// Files that belong together.
#[derive(Debug, Default)]
struct Series {
    number: Option<i64>,
    modality: String,
    description: String,
    files: Vec<Entry>,
}

/// Whether a file has DICOM's mark, or an ending that says that it is DICOM.
pub(crate) fn is_dicom_file(path: &Path) -> bool {
    // Opening a pipe would block.
    if !path.is_file() {
        return false;
    }
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
    if matches!(ending.as_deref(), Some("dcm" | "dicom")) {
        return true;
    }
    let mut head = [0; 132];
    File::open(path).and_then(|mut file| file.read_exact(&mut head)).is_ok() && head.ends_with(b"DICM")
}

/// Whether a folder, or one in it, has a DICOM file among its first thousands.
pub(crate) fn is_dicom_folder(path: &Path) -> bool {
    Files::of(path).take(MAX_LOOKED_AT).any(|file| is_dicom_file(&file))
}

/// The files of a folder and of those in it, in the order of their names.
struct Files {
    /// What is still to come, the next at the end, with its depth.
    waiting: Vec<(PathBuf, usize)>,
}

impl Files {
    fn of(folder: &Path) -> Self {
        let mut files = Self { waiting: Vec::new() };
        files.enter(folder, 0);
        files
    }

    fn enter(&mut self, folder: &Path, depth: usize) {
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        let is_shown =
            |path: &PathBuf| path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.'));
        let mut paths: Vec<PathBuf> =
            entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_shown).collect();
        paths.sort_by(|a, b| compare_names(&b.to_string_lossy(), &a.to_string_lossy()));
        self.waiting.extend(paths.into_iter().map(|path| (path, depth)));
    }
}

impl Iterator for Files {
    type Item = PathBuf;

    fn next(&mut self) -> Option<PathBuf> {
        loop {
            let (path, depth) = self.waiting.pop()?;
            // A link to a folder may lead back.
            if !std::fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
                return Some(path);
            }
            if depth < MAX_DEPTH {
                self.enter(&path, depth + 1);
            }
        }
    }
}

/// The files of the series that is asked for by number or identity, or of the only one that it can be.
pub(super) fn choose(path: &Path, wanted: Option<&str>) -> Result<Vec<Entry>, MediaError> {
    let problem = |problem: String| MediaError::Dicom { path: path.to_owned(), problem };
    let metadata = std::fs::metadata(path).map_err(MediaError::io("open", path))?;
    let mut all: BTreeMap<String, Series> = BTreeMap::new();
    let mut passed_over = 0;
    if metadata.is_dir() {
        std::fs::read_dir(path).map_err(MediaError::io("open", path))?;
        for file in Files::of(path).filter(|file| is_dicom_file(file)) {
            match Header::read(&file, path) {
                Ok(header) => add(&mut all, file, &header),
                Err(_) => passed_over += 1,
            }
        }
    } else {
        let header = Header::read(path, path)?;
        let records = header.data_set.items(tags::DIRECTORY_RECORD_SEQUENCE);
        let is_directory = path.file_name().is_some_and(|name| name.eq_ignore_ascii_case("DICOMDIR"));
        if header.pixels.is_some() {
            add(&mut all, path.to_owned(), &header);
        } else if records.is_empty() && !is_directory {
            return Err(problem("it has no pixels: give a file with pictures".to_owned()));
        }
        for record in records {
            let Some(file) = record.text(tags::REFERENCED_FILE_ID).and_then(|id| listed(path, &id)) else {
                continue;
            };
            match Header::read(&file, path) {
                Ok(header) => add(&mut all, file, &header),
                Err(_) => passed_over += 1,
            }
        }
    }
    if passed_over > 0 {
        tracing::warn!(
            "{}: {passed_over} files that cannot be read as DICOM are passed over",
            path.display()
        );
    }
    let uid = pick(&all, wanted).map_err(problem)?;
    let mut files = all.remove(&uid).unwrap_or_default().files;
    files.sort_by(|a, b| {
        let by_name = || compare_names(&a.path.to_string_lossy(), &b.path.to_string_lossy());
        a.instance.cmp(&b.instance).then_with(by_name)
    });
    Ok(files)
}

/// The file that a record of a DICOMDIR names, which lies beside or below it (PS3.10 section 8.2).
fn listed(directory: &Path, id: &str) -> Option<PathBuf> {
    let mut path = directory.parent()?.to_owned();
    for part in id.split('\\') {
        let part = part.trim();
        if part.is_empty() || part.contains(['/', ':']) || part == ".." {
            return None;
        }
        path.push(part);
    }
    Some(path)
}

fn add(all: &mut BTreeMap<String, Series>, path: PathBuf, header: &Header) {
    // Reports, states of presentation and the directory itself have no pictures.
    if header.pixels.is_none() {
        return;
    }
    let data_set = &header.data_set;
    let shown = |tag| printable(&data_set.text(tag).unwrap_or_default(), 40);
    let whole = |tag| data_set.text(tag).and_then(|text| text.parse::<i64>().ok());
    let claimed = whole(tags::NUMBER_OF_FRAMES).unwrap_or(1).max(1) as u64;
    let series =
        all.entry(data_set.text(tags::SERIES_INSTANCE_UID).unwrap_or_default()).or_insert_with(|| Series {
            number: whole(tags::SERIES_NUMBER),
            modality: shown(tags::MODALITY),
            description: shown(tags::SERIES_DESCRIPTION),
            files: Vec::new(),
        });
    let frame_count = claimed.min(header.file_bytes);
    series.files.push(Entry { path, frame_count, instance: whole(tags::INSTANCE_NUMBER) });
}

fn pick(all: &BTreeMap<String, Series>, wanted: Option<&str>) -> Result<String, String> {
    if all.is_empty() {
        return Err("it holds no DICOM file with pictures".to_owned());
    }
    let is_wanted = |uid: &str, series: &Series| match wanted {
        Some(wanted) => {
            uid == wanted || wanted.parse().is_ok_and(|number: i64| series.number == Some(number))
        }
        None => true,
    };
    let candidates: Vec<(&String, &Series)> =
        all.iter().filter(|(uid, series)| is_wanted(uid, series)).collect();
    let ultrasound =
        || candidates.iter().filter(|(_, series)| matches!(series.modality.as_str(), "US" | "IVUS"));
    match candidates.as_slice() {
        [(uid, _)] => return Ok((*uid).clone()),
        [_, ..] if wanted.is_none() && ultrasound().count() == 1 => {
            return Ok(ultrasound().map(|(uid, _)| (*uid).clone()).collect());
        }
        _ => {}
    }
    let mut series: Vec<&Series> = all.values().collect();
    series.sort_by_key(|series| series.number);
    let lines = series.iter().take(MAX_LISTED).map(|series| {
        let number = series.number.map_or_else(|| "without a number".to_owned(), |number| number.to_string());
        let frames: u64 = series.files.iter().map(|file| file.frame_count).sum();
        let modality = if series.modality.is_empty() { "no modality" } else { &series.modality };
        let unit = if frames == 1 { "frame" } else { "frames" };
        format!("{number} ({modality}, '{}', {frames} {unit})", series.description)
    });
    let list = lines.collect::<Vec<_>>().join(", ");
    let more = match series.len().saturating_sub(MAX_LISTED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let why = match (wanted, candidates.len()) {
        (None, _) => "it holds several series".to_owned(),
        (Some(_), 0) => "it does not hold the series that is asked for".to_owned(),
        (Some(_), _) => "it holds several series of that number".to_owned(),
    };
    Err(format!("{why}: choose one by its number or its SeriesInstanceUID, of {list}{more}"))
}
