//! What Hugging Face keeps beside its weights: `config.json`, `preprocessor_config.json`, and the index of weights in several files.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Names that weights have in a folder, best first: whole, then in several files.
const WEIGHTS: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];
const MAX_CONFIG_BYTES: u64 = 4 << 20;
/// Files that weights may be spread over.
const MAX_SHARDS: usize = 64;

/// The weights in a folder.
pub(super) fn weights_in(folder: &Path) -> Option<PathBuf> {
    WEIGHTS.iter().map(|name| folder.join(name)).find(|path| path.is_file())
}

/// The files that an index names, in the folder that it is in.
pub(super) fn shards(index: &Path) -> Option<Vec<PathBuf>> {
    let index_value = json(index)?;
    let names: BTreeSet<&str> = index_value
        .get("weight_map")?
        .as_object()?
        .values()
        .map(|name| name.as_str())
        .collect::<Option<_>>()?;
    // Names of files beside it, and no way out of its folder.
    let plain = |name: &&str| !name.contains(['/', '\\']) && !name.starts_with('.');
    (names.len() <= MAX_SHARDS && names.iter().all(plain))
        .then(|| names.iter().map(|name| index.with_file_name(name)).collect())
}

/// A JSON file, if it is there and is one. Editors on Windows put a mark before it.
fn json(file: &Path) -> Option<serde_json::Value> {
    std::fs::metadata(file).ok().filter(|about| about.is_file())?;
    let mut text = Vec::new();
    File::open(file).ok()?.take(MAX_CONFIG_BYTES).read_to_end(&mut text).ok()?;
    serde_json::from_slice(text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&text)).ok()
}

/// Class names from `id2label` in `config.json`, of which a network has so many. Numbers go up from 0, or from 1.
pub(super) fn classes(path: &Path, count: Option<usize>) -> Option<Vec<String>> {
    let file = path.with_file_name("config.json");
    if !file.is_file() {
        return None;
    }
    let unused = |why: &str| {
        tracing::warn!("{}: {why}: classes are called by their numbers", file.display());
        None
    };
    let Some(config) = json(&file) else { return unused("it is not JSON") };
    let Some(labels) = config.get("id2label").and_then(|labels| labels.as_object()) else {
        return unused("it has no id2label");
    };
    let first = usize::from(!labels.contains_key("0"));
    let named = |id: usize| Some(labels.get(&id.to_string())?.as_str()?.to_owned());
    let Some(names) = (first..first + labels.len()).map(named).collect::<Option<Vec<_>>>() else {
        return unused("the numbers of id2label do not go up one by one from 0 or 1");
    };
    // The neighbour of a file that was moved may describe another model.
    if count.is_some_and(|count| count != names.len()) {
        return unused("id2label has another number of classes than the network");
    }
    Some(names)
}

/// What `preprocessor_config.json` says that we cannot do, or nothing.
pub(super) fn preprocessing_beyond_ours(path: &Path) -> Option<String> {
    let config = json(&path.with_file_name("preprocessor_config.json"))?;
    let is_on = |key: &str| config.get(key).and_then(|value| value.as_bool()) == Some(true);
    // D-FINE's own preprocessing stretches the image to the input, and scales it to 0 to 1.
    if is_on("do_normalize") {
        return Some("normalises by mean and deviation (do_normalize), which D-FINE does not".into());
    }
    if is_on("do_pad") {
        return Some("pads images (do_pad) instead of stretching them".into());
    }
    None
}

/// Height and width of the input from `size` in `preprocessor_config.json`: two sides, a number, or a shortest edge.
pub(super) fn input_size(path: &Path) -> Option<[usize; 2]> {
    let config = json(&path.with_file_name("preprocessor_config.json"))?;
    let size = config.get("size")?;
    let side = |value: &serde_json::Value| {
        usize::try_from(value.as_u64()?).ok().filter(|n| (1..=1 << 16).contains(n))
    };
    let sides = [size.get("height").and_then(side), size.get("width").and_then(side)];
    match sides {
        [Some(height), Some(width)] => Some([height, width]),
        _ => side(size).or_else(|| size.get("shortest_edge").and_then(side)).map(|edge| [edge; 2]),
    }
}
