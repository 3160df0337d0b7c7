//! PyTorch's own files (`.pth`, `.pt`, the zip form since PyTorch 1.6): which tensors are the model's, and where in
//! the file their bytes are.
//!
//! Contiguous tensors, which is all of them in practice, stay slices of the file; others are gathered by stride.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::archive::{Archive, ArchiveError};
use super::error::{CheckpointError, quoted};
use super::names;
use super::pickle::{Pickle, PickleError, Storage, TensorRef, Value};
use super::weights::{WeightTensor, Weights, checked_numel};

/// What a PyTorch file holds.
pub(super) struct TorchFile {
    pub(super) weights: Weights,
    pub(super) classes: Option<Vec<String>>,
    /// Plain values found at the top of the file, and under `weights` which dictionary the weights are from.
    pub(super) metadata: BTreeMap<String, String>,
}

/// Where a state_dict may be, best first: averaged (EMA) weights are those that official evaluations use.
const STATE_DICTS: [&[&str]; 8] = [
    &["ema", "module"],
    &["ema"],
    &["ema_state_dict"],
    &["model"],
    &["state_dict"],
    &["model_state_dict"],
    &["module"],
    &[],
];

/// Reads a zip file written by `torch.save`.
pub(super) fn read(path: &Path, file: Arc<Vec<u8>>) -> Result<TorchFile, CheckpointError> {
    let archive_error = |e| archive_error(path, e);
    let archive = Archive::open(&file).map_err(archive_error)?;
    let unsupported =
        |what: &str, advice| CheckpointError::Unsupported { path: path.into(), what: what.into(), advice };
    let mut roots = archive
        .names()
        .filter_map(|n| n.strip_suffix("data.pkl").filter(|r| r.is_empty() || r.ends_with('/')));
    let Some(root) = roots.next() else {
        return Err(unsupported("a zip file without a PyTorch `data.pkl`", "give the .pth file itself"));
    };
    if roots.next().is_some() {
        let what = "a zip file with several `data.pkl`, of which none is said to be the model's";
        return Err(unsupported(
            what,
            "unpack it and give the .pth file in it, or save the model's state_dict again",
        ));
    }
    if archive.names().any(|n| n.strip_prefix(root) == Some("constants.pkl")) {
        return Err(unsupported("a TorchScript program", "in PyTorch, save the model's state_dict instead"));
    }
    let entry = |name: &str| archive.range(&format!("{root}{name}")).map_err(archive_error);
    if let Some(order) = entry("byteorder")?
        && file[order.clone()] != *b"little"
    {
        return Err(unsupported("in big-endian byte order", "save it again on a little-endian machine"));
    }
    let pickled = entry("data.pkl")?.unwrap_or_default();
    let pickle = Pickle::read(&file[pickled], file.len()).map_err(|e| pickle_error(path, e))?;

    let mut storages =
        Storages { path, archive: &archive, root, file: &file, ranges: HashMap::new(), read: 0, gathered: 0 };
    let mut first = None;
    let mut fitting = None;
    for place in STATE_DICTS {
        let dict = place.iter().try_fold(pickle.root(), |dict, key| pickle.entry(dict, key));
        let Some(dict) = dict.filter(|dict| tensors(&pickle, dict).next().is_some()) else { continue };
        let mut weights = Weights::new(format!("`{}`", path.display()));
        for (name, tensor) in tensors(&pickle, dict) {
            weights.insert(name, storages.tensor(name, tensor)?);
        }
        let weights = names::unwrapped(weights);
        // Averages of another network, or of half of one, are left for the weights themselves.
        if names::are_known(&weights) {
            fitting = Some((place.join("."), weights));
            break;
        }
        first.get_or_insert((place.join("."), weights));
    }
    if let (Some((passed_over, _)), Some((taken, _))) = (&first, &fitting) {
        let taken = if taken.is_empty() { "the whole file" } else { taken };
        tracing::warn!(
            "{}: its `{passed_over}` is no network known here, so `{taken}` is taken",
            path.display()
        );
    }
    let (place, weights) = fitting
        .or(first)
        .ok_or_else(|| CheckpointError::NoWeights { path: path.into(), found: described(&pickle) })?;
    let mut metadata = plain_values(&pickle);
    metadata.insert("weights".into(), if place.is_empty() { "the whole file".into() } else { place });
    let classes = classes(&pickle);
    // A list can name one long text again and again.
    if classes.iter().flatten().map(|name| name.len()).sum::<usize>() > file.len() {
        return Err(storages.damaged("its class names are longer than the file".into()));
    }
    let classes = classes.map(|names| names.into_iter().map(str::to_owned).collect());
    Ok(TorchFile { weights, classes, metadata })
}

/// The named tensors of a dictionary.
fn tensors<'p, 'a>(
    pickle: &'p Pickle<'a>,
    dict: &'p Value<'a>,
) -> impl Iterator<Item = (&'a str, &'p TensorRef<'a>)> {
    let pairs: &[_] = if let Value::Dict(pairs) = dict { pairs } else { &[] };
    pairs.iter().filter_map(|&(key, value)| match (pickle.get(key), pickle.get(value)) {
        (&Value::Text(name), Value::Tensor(tensor)) => Some((name, tensor)),
        _ => None,
    })
}

/// What stands at the top of a pickle that holds no weights.
fn described(pickle: &Pickle<'_>) -> String {
    let keys: Vec<String> = match pickle.root() {
        Value::Dict(pairs) => pairs
            .iter()
            .filter_map(|&(key, _)| match pickle.get(key) {
                Value::Text(text) => Some(format!("`{}`", quoted(text.as_bytes()))),
                _ => None,
            })
            .take(8)
            .collect(),
        Value::Tensor(_) => return "a single tensor".into(),
        _ => return "no dictionary".into(),
    };
    if keys.is_empty() { "a dictionary without names".into() } else { keys.join(", ") }
}

/// Short numbers and texts at the top of the file (epoch, date), for people to read.
fn plain_values(pickle: &Pickle<'_>) -> BTreeMap<String, String> {
    let Value::Dict(pairs) = pickle.root() else { return BTreeMap::new() };
    let values = pairs.iter().filter_map(|&(key, value)| {
        let &Value::Text(key) = pickle.get(key) else { return None };
        let value = match pickle.get(value) {
            Value::Text(text) => quoted(text.as_bytes()),
            Value::Int(n) => n.to_string(),
            Value::Float(x) => x.to_string(),
            Value::Bool(b) => b.to_string(),
            _ => return None,
        };
        Some((quoted(key.as_bytes()), value))
    });
    values.take(64).collect()
}

/// A list of class names under `classes`, as our own training writes it.
fn classes<'a>(pickle: &Pickle<'a>) -> Option<Vec<&'a str>> {
    let (Value::List(ids) | Value::Tuple(ids)) = pickle.entry(pickle.root(), "classes")? else { return None };
    ids.iter()
        .map(|&id| match *pickle.get(id) {
            Value::Text(name) => Some(name),
            _ => None,
        })
        .collect()
}

/// The storages of a file, each located and checked once.
struct Storages<'a> {
    path: &'a Path,
    archive: &'a Archive<'a>,
    root: &'a str,
    file: &'a Arc<Vec<u8>>,
    ranges: HashMap<String, Range<usize>>,
    /// Bytes of storages located so far: entries that overlap would add up to more than the file.
    read: usize,
    /// Bytes copied for tensors that are not contiguous.
    gathered: usize,
}

impl Storages<'_> {
    fn damaged(&self, detail: String) -> CheckpointError {
        CheckpointError::Damaged { path: self.path.into(), detail }
    }

    /// Where the bytes of a storage are.
    fn range(&mut self, storage: &Storage<'_>) -> Result<Range<usize>, CheckpointError> {
        if let Some(range) = self.ranges.get(storage.key) {
            return Ok(range.clone());
        }
        let entry = format!("{}data/{}", self.root, storage.key);
        let missing = || self.damaged(format!("its storage `{}` is missing", quoted(storage.key.as_bytes())));
        let range =
            self.archive.range(&entry).map_err(|e| archive_error(self.path, e))?.ok_or_else(missing)?;
        self.read = self.read.saturating_add(range.len());
        if self.read > self.file.len() {
            return Err(self.damaged("its storages overlap".into()));
        }
        self.ranges.insert(storage.key.to_owned(), range.clone());
        Ok(range)
    }

    fn tensor(&mut self, name: &str, tensor: &TensorRef<'_>) -> Result<WeightTensor, CheckpointError> {
        let storage = tensor.storage;
        let range = self.range(&storage)?;
        let held = range.len() / storage.dtype.size();
        let beyond = || {
            let name = quoted(name.as_bytes());
            format!("tensor `{name}` {:?} reaches beyond its storage of {held} elements", tensor.shape)
        };
        let span = span(tensor).filter(|end| *end <= held.min(storage.numel));
        let (Some(_), Some(numel)) = (span, checked_numel(&tensor.shape)) else {
            return Err(self.damaged(beyond()));
        };
        let element = storage.dtype.size();
        let built = if is_contiguous(tensor) {
            let start = range.start + tensor.offset.min(held) * element;
            WeightTensor::from_shared(
                storage.dtype,
                &tensor.shape,
                self.file.clone(),
                start..start + numel * element,
            )
        } else {
            // Strides of 0 could make any amount of data out of one element; honest files stay within their size.
            self.gathered = numel.saturating_mul(element).saturating_add(self.gathered);
            if self.gathered > self.file.len() {
                return Err(self.damaged(beyond()));
            }
            let bytes = gathered(tensor, &self.file[range], numel);
            let all = 0..bytes.len();
            WeightTensor::from_shared(storage.dtype, &tensor.shape, Arc::new(bytes), all)
        };
        built.ok_or_else(|| self.damaged(beyond()))
    }
}

/// One past the last element that a tensor touches in its storage, or `None` where that overflows.
fn span(tensor: &TensorRef<'_>) -> Option<usize> {
    if tensor.shape.contains(&0) {
        return Some(0);
    }
    let steps = tensor.shape.iter().zip(&tensor.strides);
    let last = steps
        .map(|(&n, &s)| (n - 1).checked_mul(s))
        .try_fold(tensor.offset, |at, step| at.checked_add(step?))?;
    last.checked_add(1)
}

/// Whether the elements lie in row-major order without gaps. Strides of dimensions of one element do not matter.
fn is_contiguous(tensor: &TensorRef<'_>) -> bool {
    let mut expected = 1usize;
    tensor.shape.iter().zip(&tensor.strides).rev().all(|(&n, &stride)| {
        let fits = n == 1 || stride == expected;
        expected = expected.saturating_mul(n);
        fits
    }) || tensor.shape.contains(&0)
}

/// The elements of a strided tensor in row-major order. Its span has been checked.
fn gathered(tensor: &TensorRef<'_>, storage: &[u8], numel: usize) -> Vec<u8> {
    let element = tensor.storage.dtype.size();
    let mut bytes = Vec::with_capacity(numel * element);
    let mut index = vec![0usize; tensor.shape.len()];
    let mut at = tensor.offset;
    for _ in 0..numel {
        bytes.extend_from_slice(&storage[at * element..(at + 1) * element]);
        for d in (0..index.len()).rev() {
            // Wrapping, because the stride of a dimension of one element may be any number.
            index[d] += 1;
            at = at.wrapping_add(tensor.strides[d]);
            if index[d] < tensor.shape[d] {
                break;
            }
            at = at.wrapping_sub(tensor.strides[d].wrapping_mul(tensor.shape[d]));
            index[d] = 0;
        }
    }
    bytes
}

fn archive_error(path: &Path, error: ArchiveError) -> CheckpointError {
    let path = path.into();
    match error {
        ArchiveError::Truncated(detail) => CheckpointError::Truncated { path, detail },
        ArchiveError::Damaged(detail) => CheckpointError::Damaged { path, detail },
        ArchiveError::Compressed(entry) => CheckpointError::Unsupported {
            path,
            what: format!("a compressed or encrypted zip (entry `{entry}`)"),
            advice: "load and save it again with torch.save, which does not compress",
        },
    }
}

fn pickle_error(path: &Path, error: PickleError) -> CheckpointError {
    let path = path.into();
    match error {
        PickleError::Truncated => {
            CheckpointError::Truncated { path, detail: "its `data.pkl` ends too early".into() }
        }
        PickleError::Damaged { at, what } => {
            CheckpointError::Damaged { path, detail: format!("its `data.pkl` has {what} before byte {at}") }
        }
        PickleError::Unsupported(what) => CheckpointError::Unsupported {
            path,
            what,
            advice: "save the model's state_dict alone, in one of the usual number formats",
        },
        PickleError::Refused(global) => CheckpointError::Refused { path, global },
    }
}
