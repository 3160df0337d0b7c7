//! What can go wrong with a checkpoint, in one sentence each: which file, what is wrong, what to do.

use std::fmt;
use std::path::PathBuf;

/// Why a checkpoint could not be read, written or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file could not be opened or read.
    #[error("cannot read the checkpoint `{path}`: {source}; check the path and its permissions")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file could not be written.
    #[error(
        "cannot write the checkpoint `{path}`: {source}; check the folder, its permissions and free space"
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The content is that of something else.
    #[error(
        "`{path}` is {found}, not a checkpoint; expected an official .pth/.pt, a Hugging Face D-FINE .safetensors \
         or an ultramotion .safetensors{advice}"
    )]
    NotACheckpoint {
        /// The file.
        path: PathBuf,
        /// What it looks like, with its article: "an empty file", "a web page".
        found: &'static str,
        /// What to do, with its own punctuation, or nothing.
        advice: &'static str,
    },
    /// The file ends too early.
    #[error("the checkpoint `{path}` is truncated: {detail}; copy or download it again")]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Where it ends, and what was expected there.
        detail: String,
    },
    /// The file contradicts itself.
    #[error("the checkpoint `{path}` is damaged: {detail}; copy or download it again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit, and where.
        detail: String,
    },
    /// A sound file in a form that is not read here.
    #[error("the checkpoint `{path}` is {what}, which is not read here; {advice}")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The form, with its article.
        what: String,
        /// How to get a form that is read.
        advice: &'static str,
    },
    /// A pickle asks for a Python object that weights do not need. Nothing was executed.
    #[error(
        "the checkpoint `{path}` asks Python to load `{global}`, which weights do not need and which could run \
         code: refused, nothing was executed; if you trust its source, load it in PyTorch and save its state_dict alone"
    )]
    Refused {
        /// The file.
        path: PathBuf,
        /// `module.name` of the object it asked for.
        global: String,
    },
    /// A pickle that holds no state_dict where one is looked for.
    #[error(
        "the checkpoint `{path}` holds no weights: looked for a state_dict under `ema.module`, `ema`, `model`, \
         `state_dict`, `module` and at the top, found {found}; save the model's state_dict"
    )]
    NoWeights {
        /// The file.
        path: PathBuf,
        /// What is there instead.
        found: String,
    },
    /// The metadata of an ultramotion file cannot be understood.
    #[error(
        "the checkpoint `{path}` has `{key}` = `{value}` in its metadata, expected {expected}; write it again with \
         `ultramotion models convert`"
    )]
    Metadata {
        /// The file.
        path: PathBuf,
        /// The metadata field.
        key: &'static str,
        /// Its value, shortened.
        value: String,
        /// What would be right.
        expected: String,
    },
    /// The tensors are not those of the model.
    #[error(transparent)]
    Mismatch(Box<Mismatch>),
    /// A tensor that was asked for is not there.
    #[error("{origin} has no tensor `{name}`; is it a checkpoint of this model?")]
    MissingTensor {
        /// The file, or what else the weights came from.
        origin: String,
        /// The name asked for.
        name: String,
    },
    /// A weight is not a number, or infinite.
    #[error(
        "{origin} has {count} NaN or infinite value(s) in `{tensor}`, the first at element {first}; the training run \
         that made it diverged or the file is damaged: use another checkpoint"
    )]
    NotFinite {
        /// The file, or what else the weights came from.
        origin: String,
        /// The first such tensor.
        tensor: String,
        /// How many such values it has.
        count: usize,
        /// Row-major index of the first.
        first: usize,
    },
    /// A tensor's bytes do not fill its shape.
    #[error(
        "`{tensor}` of shape {shape:?} needs {expected} bytes of {dtype}, got {found}; give data that fills the shape"
    )]
    WrongLength {
        /// The tensor.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Its element type.
        dtype: super::Dtype,
        /// Bytes that the shape needs.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
}

/// A tensor whose shape is not the model's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misshaped {
    /// Its name.
    pub name: String,
    /// The model's shape.
    pub expected: Vec<usize>,
    /// The checkpoint's shape.
    pub found: Vec<usize>,
}

/// Everything in which a checkpoint differs from a model's list of tensors.
///
/// `Display` names the first few of each kind and counts the rest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mismatch {
    /// The file, or what else the weights came from.
    pub origin: String,
    /// In the model, not in the checkpoint; in the model's order.
    pub missing: Vec<String>,
    /// In the checkpoint, not in the model; in the checkpoint's order.
    pub unexpected: Vec<String>,
    /// In both, with different shapes; in the model's order.
    pub misshaped: Vec<Misshaped>,
    /// How many tensors the model has.
    pub expected_count: usize,
}

impl Mismatch {
    /// Whether the model's list is met.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.misshaped.is_empty()
    }
}

impl std::error::Error for Mismatch {}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} does not fit the model's {} tensors: ", self.origin, self.expected_count)?;
        let misshaped =
            self.misshaped.iter().map(|m| format!("`{}` {:?} instead of {:?}", m.name, m.found, m.expected));
        let parts = [
            ("missing", listed(self.missing.iter().map(|n| format!("`{n}`")))),
            ("unexpected", listed(self.unexpected.iter().map(|n| format!("`{n}`")))),
            ("mis-shaped", listed(misshaped)),
        ];
        let mut separator = "";
        for (kind, (count, names)) in parts {
            if count > 0 {
                write!(f, "{separator}{count} {kind} ({names})")?;
                separator = ", ";
            }
        }
        f.write_str("; is it a checkpoint of this model, size and number of classes?")
    }
}

/// How many items there are, and the first few in words.
fn listed(items: impl ExactSizeIterator<Item = String>) -> (usize, String) {
    const SHOWN: usize = 5;
    let count = items.len();
    let mut text = items.take(SHOWN).collect::<Vec<_>>().join(", ");
    if count > SHOWN {
        text.push_str(&format!(" and {} more", count - SHOWN));
    }
    (count, text)
}

/// Text from a file, fit to stand in an error message: one line, printable, not long.
pub(super) fn quoted(text: &[u8]) -> String {
    const SHOWN: usize = 80;
    let mut shown: String = String::from_utf8_lossy(&text[..text.len().min(4 * SHOWN)])
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .take(SHOWN)
        .collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}
