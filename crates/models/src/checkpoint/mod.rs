//! Checkpoints: trained weights in, whatever file they come in; our own file out.
//!
//! In: a path. Out: a [`Checkpoint`], whose [`Weights`] carry the names of the official checkpoints whichever format
//! they came in, so that a model is built from one list of names. The format is told by content, not by extension:
//!
//! | format | written by |
//! |---|---|
//! | [`Format::Torch`] | the official D-FINE and MobileSAM (`torch.save`: zip and pickle; EMA weights are preferred) |
//! | [`Format::HuggingFace`] | Hugging Face's D-FINE; classes and input size from `config.json` beside it |
//! | [`Format::Ultramotion`] | [`save`] and the training scripts |
//! | [`Format::Safetensors`] | anyone else, with official names |
//!
//! Reading executes nothing, and allocates nothing that the file's real size does not cover. Every error is one
//! sentence with the file, the reason and what to do.
//!
//! ```
//! use ultramotion_models::checkpoint::{self, Checkpoint, Format, StoredPrecision, WeightTensor, Weights};
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("model.safetensors");
//! let mut weights = Weights::new("an example");
//! weights.insert("scale", WeightTensor::from_f32("scale", &[2], &[1.0, 2.0])?);
//! let mut checkpoint = Checkpoint::new(weights);
//! checkpoint.classes = Some(vec!["nerve".into(), "vessel".into()]);
//! checkpoint.input_size = Some([320, 320]);
//! checkpoint::save(&path, &checkpoint, StoredPrecision::F16)?;
//!
//! let loaded = checkpoint::load(&path)?;
//! assert_eq!(loaded.format, Format::Ultramotion);
//! assert_eq!(loaded.classes, checkpoint.classes);
//! assert_eq!(loaded.weights.f32("scale")?, (vec![1.0, 2.0], vec![2]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The ultramotion file
//! A `.safetensors` file with official tensor names and this metadata: `format` = `ultramotion`; `architecture` =
//! the name of one of the [networks](crate::zoo::ARCHITECTURES); `classes` = names in order, separated by commas; `input` = `HEIGHTxWIDTH`, or one
//! number for a square; `license` = an SPDX expression or a sentence. All but `format` may be absent; other fields
//! are kept.

mod archive;
pub(crate) mod error;
mod fill;
mod huggingface;
pub mod names;
mod neighbours;
mod pickle;
mod safetensors_file;
mod torch;
pub(crate) mod weights;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::registry::{ARCHITECTURES, Architecture, Sizes, names};

pub use error::{CheckpointError, Mismatch, Misshaped};
pub use fill::filled;
pub use safetensors_file::{StoredPrecision, Written};
pub use weights::{Dtype, WeightTensor, Weights};

/// Larger files are refused: the largest model with its optimiser's state takes a quarter of this.
const MAX_FILE_BYTES: u64 = 4 << 30;

/// The kind of file that weights came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// A zip file written by `torch.save`.
    Torch,
    /// Hugging Face's `DFineForObjectDetection` in a `.safetensors` file.
    HuggingFace,
    /// Our own `.safetensors` file.
    Ultramotion,
    /// Another `.safetensors` file; its names are taken to be official.
    Safetensors,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Torch => "PyTorch",
            Format::HuggingFace => "Hugging Face safetensors",
            Format::Ultramotion => "ultramotion safetensors",
            Format::Safetensors => "safetensors",
        })
    }
}

/// Weights, and what is known about them.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// The tensors, under official names.
    pub weights: Weights,
    /// The kind of file.
    pub format: Format,
    /// The network, as the file says or its shapes tell.
    pub architecture: Option<Architecture>,
    /// Class names in order, where the file or its neighbours give them.
    pub classes: Option<Vec<String>>,
    /// Input height and width in pixels, where the file gives them or D-FINE's anchors tell.
    pub input_size: Option<[usize; 2]>,
    /// Licence of the weights.
    pub license: Option<String>,
    /// Everything else the file says about itself.
    pub metadata: BTreeMap<String, String>,
}

impl Checkpoint {
    /// A checkpoint of weights in official names, with what their shapes tell; to be completed and [saved](save).
    pub fn new(weights: Weights) -> Self {
        let architecture = Architecture::detect(&weights);
        Self {
            input_size: architecture.and_then(|a| a.input_hw(&weights)),
            architecture,
            weights,
            format: Format::Ultramotion,
            classes: None,
            license: None,
            metadata: BTreeMap::new(),
        }
    }

    /// Number of classes of a detector, from its score head; `None` for other networks.
    pub fn num_classes(&self) -> Option<usize> {
        ARCHITECTURES.iter().find_map(|a| a.num_classes(&self.weights))
    }

    /// What it says about its network's sizes.
    pub fn sizes(&self) -> Sizes {
        Sizes { num_classes: self.num_classes(), input_hw: self.input_size }
    }
}

/// Reads a checkpoint of any known format.
///
/// The tensors are not compared with a model here ([`Weights::verify`]), nor checked for NaN
/// ([`Weights::check_finite`]).
///
/// # Errors
/// [`CheckpointError`]: the file cannot be read, is something else, ends early, contradicts itself, holds no weights,
/// or asks for code to be run.
pub fn load(path: impl AsRef<Path>) -> Result<Checkpoint, CheckpointError> {
    let path = path.as_ref();
    let found = path.is_dir().then(|| neighbours::weights_in(path)).flatten();
    let path = found.as_deref().unwrap_or(path);
    let is_index = path.to_string_lossy().ends_with(".index.json");
    let mut checkpoint = match is_index.then(|| neighbours::shards(path)).flatten() {
        Some(shards) => of_shards(path, &shards)?,
        None => load_bytes(path, content(path)?)?,
    };
    if checkpoint.format == Format::HuggingFace {
        if let Some(what) = neighbours::preprocessing_beyond_ours(path) {
            return Err(CheckpointError::Unsupported {
                path: path.with_file_name("preprocessor_config.json"),
                what: format!("one that {what}"),
                advice: "correct it if the model was not trained so, or train the model without it",
            });
        }
        checkpoint.classes = neighbours::classes(path, checkpoint.num_classes());
        if checkpoint.input_size.is_none() {
            checkpoint.input_size = neighbours::input_size(path);
            if checkpoint.input_size.is_none() {
                tracing::warn!(
                    "{}: nothing says for which input size it was trained: it gets the usual one",
                    path.display()
                );
            }
        }
    }
    Ok(checkpoint)
}

/// Weights that are spread over several files.
fn of_shards(index: &Path, shards: &[PathBuf]) -> Result<Checkpoint, CheckpointError> {
    let mut weights = Weights::new(format!("`{}`", index.display()));
    for shard in shards {
        let (part, _) = contents(shard, Arc::new(content(shard)?))?;
        for (name, tensor) in part.iter() {
            weights.insert(name, tensor.clone());
        }
    }
    Ok(named(weights, Format::Safetensors))
}

/// Tensors as they stand in a file, and what else it says.
fn contents(name: &Path, file: Arc<Vec<u8>>) -> Result<(Weights, BTreeMap<String, String>), CheckpointError> {
    Ok(match sniffed(name, &file)? {
        Container::Zip => {
            let torch::TorchFile { weights, metadata, .. } = torch::read(name, file)?;
            (weights, metadata)
        }
        Container::Safetensors => safetensors_file::read(name, file)?,
    })
}

/// A checkpoint of tensors under whatever names, which are made official.
fn named(weights: Weights, format: Format) -> Checkpoint {
    let weights = names::unwrapped(weights);
    if huggingface::is_huggingface(weights.iter().map(|(name, _)| name)) {
        let official = huggingface::to_official(&weights);
        return Checkpoint { format: Format::HuggingFace, ..Checkpoint::new(official) };
    }
    Checkpoint { format, ..Checkpoint::new(weights) }
}

/// Reads a checkpoint from memory, such as one built into the program; `name` stands for the path in errors.
///
/// # Errors
/// As [`load`].
pub fn load_bytes(name: impl AsRef<Path>, bytes: Vec<u8>) -> Result<Checkpoint, CheckpointError> {
    let (name, file) = (name.as_ref(), Arc::new(bytes));
    match sniffed(name, &file)? {
        Container::Zip => {
            let torch::TorchFile { weights, classes, metadata } = torch::read(name, file)?;
            let checkpoint = Checkpoint { classes, metadata, ..named(weights, Format::Torch) };
            check_class_count(name, &checkpoint)?;
            Ok(checkpoint)
        }
        Container::Safetensors => {
            let (weights, metadata) = safetensors_file::read(name, file)?;
            if metadata.get("format").is_some_and(|f| f == "ultramotion") {
                ultramotion(name, weights, metadata)
            } else {
                Ok(Checkpoint { metadata, ..named(weights, Format::Safetensors) })
            }
        }
    }
}

/// Writes a checkpoint as an ultramotion `.safetensors` file, whole or not at all; the same checkpoint gives the same
/// bytes.
///
/// [`StoredPrecision::F16`] halves the size. A tensor stays f32 if rounding would lose more than 1e-3, relative, of
/// any element (vectors) or of any row's L2 norm (matrices and filters): f16 overflows at 65504 and loses digits
/// below 6e-5.
///
/// # Errors
/// [`CheckpointError::Write`] if the file cannot be written, [`CheckpointError::Metadata`] if a class name has a comma
/// in it, is empty, or there are more or fewer names than the network has classes.
pub fn save(
    path: impl AsRef<Path>,
    checkpoint: &Checkpoint,
    precision: StoredPrecision,
) -> Result<Written, CheckpointError> {
    let path = path.as_ref();
    let mut metadata = checkpoint.metadata.clone();
    let mut put = |key: &str, value: Option<String>| match value {
        Some(value) => metadata.insert(key.to_owned(), value),
        None => metadata.remove(key),
    };
    put("format", Some("ultramotion".into()));
    put("architecture", checkpoint.architecture.map(|a| a.name().to_owned()));
    put("input", checkpoint.input_size.map(|[height, width]| format!("{height}x{width}")));
    put("license", checkpoint.license.clone());
    if let Some(classes) = &checkpoint.classes {
        let bad = |class: &String| class.trim().is_empty() || class.contains(',') || class.trim() != class;
        if let Some(class) = classes.iter().find(|class| bad(class)) {
            return Err(metadata_error(
                path,
                "classes",
                class,
                "class names without commas and outer spaces",
            ));
        }
        check_class_count(path, checkpoint)?;
    }
    put("classes", checkpoint.classes.as_ref().map(|c| c.join(",")));
    safetensors_file::write(path, &checkpoint.weights, &metadata, precision)
}

/// The bytes of a regular file of bearable size.
fn content(path: &Path) -> Result<Vec<u8>, CheckpointError> {
    let read_error = |source| CheckpointError::Read { path: path.into(), source };
    let other = |found, advice| CheckpointError::NotACheckpoint { path: path.into(), found, advice };
    // Asked before opening: opening a pipe would wait for its other end.
    let about = std::fs::metadata(path).map_err(read_error)?;
    if about.is_dir() {
        return Err(other("a folder without weights of Hugging Face", "; give the file in it"));
    }
    if !about.is_file() {
        return Err(other("not a regular file", ""));
    }
    if about.len() > MAX_FILE_BYTES {
        return Err(other("a file of more than 4 GiB", "; save the model's state_dict alone"));
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut bytes))
        .map_err(read_error)?;
    Ok(bytes)
}

/// What to do with a file in which a model was exported.
const FROM_PYTORCH: &str = "; give the PyTorch or safetensors checkpoint that it was exported from";

enum Container {
    Zip,
    Safetensors,
}

/// What kind of container the bytes are; an error that names what else they look like.
fn sniffed(path: &Path, file: &[u8]) -> Result<Container, CheckpointError> {
    let other = |found, advice| Err(CheckpointError::NotACheckpoint { path: path.into(), found, advice });
    let text = file.trim_ascii_start();
    let starts_with = |tag: &[u8]| text.get(..tag.len()).is_some_and(|head| head.eq_ignore_ascii_case(tag));
    match file {
        [] => other("an empty file", ""),
        [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Ok(Container::Zip),
        [_, _, _, _, _, _, 0, 0, b'{', ..] => Ok(Container::Safetensors),
        [0x80, 2..=5, ..] => Err(CheckpointError::Unsupported {
            path: path.into(),
            what: "in PyTorch's old format from before version 1.6, or a bare pickle".into(),
            advice: "convert it in Python with `torch.save(torch.load(\"old.pth\", weights_only=True), \"new.pth\")`",
        }),
        [0x1F, 0x8B, ..] => other("a gzip archive", "; unpack it first"),
        [0x89, b'H', b'D', b'F', ..] => other("an HDF5 file, as Keras writes them", FROM_PYTORCH),
        [_, _, _, _, b'T', b'F', b'L', b'3', ..] => other("a TensorFlow Lite model", FROM_PYTORCH),
        [b'f', b't', b'r', b't', ..] | [b'p', b't', b'r', b't', ..] => {
            other("a TensorRT engine", FROM_PYTORCH)
        }
        // A protobuf begins with the field `ir_version`, then the producer's name.
        [8, 1..=20, 0x12, ..] => other("an ONNX model", FROM_PYTORCH),
        _ if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("onnx")) => {
            other("an ONNX model", FROM_PYTORCH)
        }
        _ if starts_with(b"<?xml") && text.windows(5).take(4096).any(|tag| tag == b"<net ") => {
            other("an OpenVINO model", FROM_PYTORCH)
        }
        _ if file.get(257..262) == Some(b"ustar") => other("a tar archive", "; unpack it first"),
        _ if starts_with(b"<!doctype") || starts_with(b"<html") || starts_with(b"<?xml") => {
            other("a web page", "; download the file itself, not the page about it")
        }
        _ if starts_with(b"version https://git-lfs") => {
            other("a Git LFS pointer", "; fetch the file that it stands for with `git lfs pull`")
        }
        _ => other("an unknown kind of file", ""),
    }
}

/// Our own file: metadata that is there must be right.
fn ultramotion(
    path: &Path,
    weights: Weights,
    mut metadata: BTreeMap<String, String>,
) -> Result<Checkpoint, CheckpointError> {
    metadata.remove("format");
    let mut checkpoint = Checkpoint::new(weights);
    if let Some(name) = metadata.remove("architecture") {
        let expected = || format!("one of {}", names().join(", "));
        let named = name.parse().map_err(|_| metadata_error(path, "architecture", &name, expected()))?;
        checkpoint.architecture = Some(named);
    }
    if let Some(input) = metadata.remove("input") {
        let size = parsed_size(&input).ok_or_else(|| {
            metadata_error(path, "input", &input, "HEIGHTxWIDTH in pixels, such as 320x320")
        })?;
        checkpoint.input_size = Some(size);
    }
    if let Some(classes) = metadata.remove("classes") {
        checkpoint.classes = Some(classes.split(',').map(|c| c.trim().to_owned()).collect());
        check_class_count(path, &checkpoint)?;
    }
    checkpoint.license = metadata.remove("license");
    Ok(Checkpoint { metadata, ..checkpoint })
}

/// `HEIGHTxWIDTH`, or one number for a square; neither zero, nor beyond what any image has.
fn parsed_size(text: &str) -> Option<[usize; 2]> {
    let (height, width) = text.split_once('x').unwrap_or((text, text));
    let size = [height.trim().parse().ok()?, width.trim().parse().ok()?];
    size.iter().all(|n| (1..=1 << 16).contains(n)).then_some(size)
}

fn check_class_count(path: &Path, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
    match (&checkpoint.classes, checkpoint.num_classes()) {
        (Some(classes), Some(count)) if classes.len() != count => {
            let expected = "as many class names as the network has classes";
            Err(metadata_error(path, "classes", &classes.join(","), expected))
        }
        _ => Ok(()),
    }
}

fn metadata_error(
    path: &Path,
    key: &'static str,
    value: &str,
    expected: impl Into<String>,
) -> CheckpointError {
    let (value, expected) = (error::quoted(value.as_bytes()), expected.into());
    CheckpointError::Metadata { path: path.into(), key, value, expected }
}
