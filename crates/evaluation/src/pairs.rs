//! Which images are evaluated, and which mask belongs to each: the PNG of the same name up to the ending.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;
use ultramotion_media::MediaError;
use ultramotion_media::source::ImageFiles;

/// Longer files are no split.
const MAX_SPLIT_BYTES: u64 = 16 << 20;

/// An image and its mask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    /// File name of the image without its ending.
    pub name: String,
    pub image: PathBuf,
    pub mask: PathBuf,
}

impl Pair {
    /// The recording that an image belongs to: images named `<clip>_<number>` belong to `<clip>`, others all to one.
    pub(crate) fn clip(&self) -> &str {
        clip_of(&self.name).unwrap_or_default()
    }
}

fn clip_of(name: &str) -> Option<&str> {
    let (clip, number) = name.rsplit_once('_')?;
    (!number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())).then_some(clip)
}

/// What there is to evaluate.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pairs {
    /// In the order of the images' names.
    pub(crate) pairs: Vec<Pair>,
    /// Images without a mask.
    pub(crate) without_mask: usize,
    /// Names of all images, with a mask or without.
    names: BTreeSet<String>,
    pub(crate) images: PathBuf,
    pub(crate) masks: PathBuf,
    /// Which part of which split, if not all.
    pub(crate) part: Option<String>,
}

/// Why there is nothing to evaluate.
#[derive(Debug, Error)]
pub enum PairsError {
    /// A folder or file that cannot be read.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// No image has a mask.
    #[error(
        "none of the {images} images in {} has a mask in {}: a mask is a .png of the same name, such as {example}.png",
        images_folder.display(), masks_folder.display()
    )]
    NoMasks {
        /// Images in the folder.
        images: usize,
        /// Where they are.
        images_folder: PathBuf,
        /// Where masks were looked for.
        masks_folder: PathBuf,
        /// Name that a mask would have.
        example: String,
    },
    /// Images and masks are the same files.
    #[error("images and masks are the same folder, {}, and none of its images has a mask beside it", .0.display())]
    SameFolder(PathBuf),
    /// A mask would belong to two images.
    #[error("{folder} has two images called {name}, and one mask for both: keep one of them", folder = folder.display())]
    TwoImages {
        /// Their name, without its ending.
        name: String,
        /// Where they are.
        folder: PathBuf,
    },
    /// The split cannot be understood.
    #[error("cannot read the split {path}: {reason}", path = path.display())]
    Split {
        /// The split.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// No image is in the part.
    #[error("no image in {folder} belongs to the part '{part}' of {split}", folder = folder.display(), split = split.display())]
    EmptyPart {
        /// Of the images.
        folder: PathBuf,
        /// The part.
        part: Part,
        /// The split.
        split: PathBuf,
    },
}

impl Pairs {
    /// Images that have a mask: the PNG of the same name in another folder.
    pub fn find(images: &Path, masks: &Path) -> Result<Self, PairsError> {
        let folder_error =
            |source| MediaError::Io { action: "open the masks", path: masks.to_owned(), source };
        let mut mask_files = BTreeMap::new();
        for entry in fs::read_dir(masks).map_err(folder_error)? {
            let path = entry.map_err(folder_error)?.path();
            if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("png")) {
                mask_files.insert(stem(&path), path);
            }
        }
        let image_files = ImageFiles::open_folder(images)?;
        let mut found = Pairs { images: images.to_owned(), masks: masks.to_owned(), ..Pairs::default() };
        let mut paired = BTreeSet::new();
        for image in image_files.paths() {
            let name = stem(image);
            found.names.insert(name.clone());
            match mask_files.get(&name) {
                // With images and masks in one folder, a mask is no image.
                Some(mask) if mask != image => {
                    if !paired.insert(name.clone()) {
                        return Err(PairsError::TwoImages { name, folder: images.to_owned() });
                    }
                    found.pairs.push(Pair { name, image: image.clone(), mask: mask.clone() });
                }
                Some(_) => {}
                None => found.without_mask += 1,
            }
        }
        if found.pairs.is_empty() && fs::canonicalize(images).ok() == fs::canonicalize(masks).ok() {
            return Err(PairsError::SameFolder(images.to_owned()));
        }
        if found.pairs.is_empty() {
            return Err(PairsError::NoMasks {
                images: image_files.paths().len(),
                images_folder: images.to_owned(),
                masks_folder: masks.to_owned(),
                example: image_files.paths().first().map(|path| stem(path)).unwrap_or_default(),
            });
        }
        Ok(found)
    }

    /// The pairs of a part. The file is an object of sets, each with a list `held_out` of image names or clips, as
    /// `training/splits.json` is; a name in any set's list is held out.
    pub fn choose(self, split: &Path, part: Part) -> Result<Self, PairsError> {
        let error = |reason: String| PairsError::Split { path: split.to_owned(), reason };
        let read_error = |source| MediaError::Io { action: "read the split", path: split.to_owned(), source };
        let mut text = String::new();
        fs::File::open(split)
            .and_then(|file| file.take(MAX_SPLIT_BYTES + 1).read_to_string(&mut text))
            .map_err(read_error)?;
        if text.len() as u64 > MAX_SPLIT_BYTES {
            return Err(error("it is longer than 16 MiB, which no list of names is".into()));
        }
        let sets: BTreeMap<String, SetSplit> = serde_json::from_str(&text)
            .map_err(|e| error(format!("{e}; it has an object of sets, each with a list \"held_out\"")))?;
        let lists: Vec<&str> =
            sets.values().flat_map(|set| set.held_out.iter().map(String::as_str)).collect();
        let is_held_out =
            |pair: &Pair| lists.iter().any(|&name| name == pair.name || Some(name) == clip_of(&pair.name));
        let wanted = |pair: &Pair| is_held_out(pair) == (part == Part::HeldOut);
        let pairs: Vec<Pair> = self.pairs.iter().filter(|pair| wanted(pair)).cloned().collect();
        if pairs.is_empty() {
            return Err(PairsError::EmptyPart { folder: self.images, part, split: split.to_owned() });
        }
        let part = Some(format!("{part} of {}", split.display()));
        Ok(Pairs { pairs, part, ..self })
    }

    /// Whether there is an image of this name, with a mask or without.
    pub(crate) fn has_image(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// Number of pairs.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// A side of a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Names that the file lists.
    HeldOut,
    /// All others.
    Train,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Part::HeldOut => "held_out",
            Part::Train => "train",
        })
    }
}

/// A set of a split file; sets that are split by rule have no list.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SetSplit {
    held_out: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            fs::write(folder.path().join(name), b"").unwrap();
        }
        folder
    }

    fn names(pairs: &Pairs) -> Vec<&str> {
        pairs.pairs.iter().map(|pair| pair.name.as_str()).collect()
    }

    #[test]
    fn what_belongs_to_nothing_or_to_two_is_said() {
        let (images, masks) = (folder(&["a.jpg", "a.png", "b.jpg"]), folder(&["a.png"]));
        let refused = Pairs::find(images.path(), masks.path()).unwrap_err().to_string();
        assert!(refused.contains("has two images called a, and one mask for both"), "{refused}");
        let refused = Pairs::find(masks.path(), masks.path()).unwrap_err().to_string();
        assert!(refused.starts_with("images and masks are the same folder"), "{refused}");
        let found = Pairs::find(folder(&["a.jpg", "b.jpg"]).path(), masks.path()).unwrap();
        let sizes = |name: &str| crate::Spacing::ByName([(name.to_owned(), [0.1; 2])].into());
        assert!(sizes("a").check(&found).is_ok() && sizes("b").check(&found).is_ok());
        assert!(sizes("c").check(&found).unwrap_err().to_string().contains("about 'c'"));
    }

    #[test]
    fn masks_are_found_by_name() {
        let images = folder(&["a.jpg", "b10.png", "b9.png", "c.jpeg", "notes.txt"]);
        let masks = folder(&["a.png", "b10.PNG", "b9.png", "d.png", "c.jpg"]);
        let found = Pairs::find(images.path(), masks.path()).unwrap();
        assert_eq!(names(&found), ["a", "b9", "b10"]);
        assert_eq!((found.without_mask, found.pairs[2].mask.ends_with("b10.PNG")), (1, true));
        let together = folder(&["a.jpg", "a.png", "b.jpg"]);
        let found = Pairs::find(together.path(), together.path()).unwrap();
        assert_eq!((names(&found), found.without_mask), (vec!["a"], 1));
    }

    #[test]
    fn nothing_to_evaluate_is_an_error() {
        let (images, empty) = (folder(&["a.jpg"]), folder(&[]));
        let error = Pairs::find(images.path(), empty.path()).unwrap_err().to_string();
        assert!(error.contains("none of the 1 images") && error.ends_with("such as a.png"), "{error}");
        assert!(Pairs::find(empty.path(), images.path()).is_err());
        assert!(Pairs::find(images.path(), &images.path().join("nowhere")).is_err());
    }

    #[test]
    fn parts_go_by_name_or_by_clip() {
        let images = folder(&["0012.jpg", "0013.jpg", "x_001.jpg", "x_002.jpg", "y_001.jpg"]);
        let masks = folder(&["0012.png", "0013.png", "x_001.png", "x_002.png", "y_001.png"]);
        let split = images.path().join("split.json");
        fs::write(
            &split,
            r#"{"usgra":{"by":"group","held_out":["0012"]},"clips":{"held_out":["x"]},"p":{"every":10}}"#,
        )
        .unwrap();
        let of = |part| {
            let found = Pairs::find(images.path(), masks.path()).unwrap();
            names(&found.choose(&split, part).unwrap()).join(" ")
        };
        assert_eq!(
            (of(Part::HeldOut).as_str(), of(Part::Train).as_str()),
            ("0012 x_001 x_002", "0013 y_001")
        );
        fs::write(&split, r#"{"usgra":{"held_out":[]}}"#).unwrap();
        let found = Pairs::find(images.path(), masks.path()).unwrap();
        assert!(matches!(found.choose(&split, Part::HeldOut), Err(PairsError::EmptyPart { .. })));
        fs::write(&split, "[1]").unwrap();
        let found = Pairs::find(images.path(), masks.path()).unwrap();
        assert!(found.choose(&split, Part::Train).is_err());
        fs::write(
            &split,
            r#"{"usgra":{"held_out":["0012"]}}"#.to_owned() + &" ".repeat(MAX_SPLIT_BYTES as usize),
        )
        .unwrap();
        let found = Pairs::find(images.path(), masks.path()).unwrap();
        assert!(found.choose(&split, Part::Train).unwrap_err().to_string().contains("longer than 16 MiB"));
    }

    #[test]
    fn clips() {
        let pair = |name: &str| Pair { name: name.into(), image: PathBuf::new(), mask: PathBuf::new() };
        assert_eq!(pair("202201121748100022VAS_01069").clip(), "202201121748100022VAS");
        for name in ["0012", "a_b", "a_", "_"] {
            assert_eq!(pair(name).clip(), "", "{name}");
        }
    }
}
