//! Models by name or by file: what `--detector` and `--segmenter` take.
//!
//! In: the name of a built-in model, the name of an architecture (untrained, for benchmarks), or the path of a
//! checkpoint. Out: a [`Detector`] or [`Segmenter`], checked: every tensor is there, has its shape and is finite. Which
//! networks there are is told by one table, [`ARCHITECTURES`].
//!
//! ```
//! use ultramotion_models::zoo::Detector;
//!
//! let detector = Detector::open("dfine_n")?;
//! assert_eq!(detector.network().input_hw(), [640, 640]);
//! assert!(!detector.origin().is_trained());
//! assert!(Detector::open("no-such-model").unwrap_err().to_string().contains("dfine_n"));
//! # Ok::<(), ultramotion_models::zoo::ZooError>(())
//! ```

mod builtin;
mod model;

use std::path::{Path, PathBuf};

use thiserror::Error;
use ultramotion_engine::graph::GraphError;

use crate::checkpoint::{self, Checkpoint, CheckpointError};

pub use crate::registry::{
    ARCHITECTURES, Architecture, ConfigError, Entry, Kind, Network, Sizes, UnknownArchitecture,
};
pub use builtin::{BUILTIN, Builtin};
pub use model::{Detector, Segmenter};

/// Why a model cannot be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ZooError {
    /// Neither a name that is known nor a file.
    #[error("there is no model or file '{name}'; the {kind}s known by name are {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What was wanted.
        kind: Kind,
        /// Names.
        known: String,
    },
    /// A checkpoint of the other kind, or of a network that is not known.
    #[error("{origin} holds {found}, not a {wanted}")]
    WrongKind {
        /// File or name.
        origin: String,
        /// What it holds.
        found: String,
        /// What was wanted.
        wanted: Kind,
    },
    /// A checkpoint of something else than a detector.
    #[error("{origin} is {found}, not a {families}; give a {families} checkpoint as the detector")]
    NotDetector {
        /// The checkpoint.
        origin: String,
        /// What it is.
        found: String,
        /// What detectors are called.
        families: String,
    },
    /// A checkpoint that cannot be read or does not fit.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A network that cannot be built.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A graph that cannot be built.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

/// Where a model's weights come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Built into the program.
    Builtin(&'static str),
    /// A file.
    File(PathBuf),
    /// Filled by rule: right for timing, wrong for images.
    Filled(Architecture),
}

impl Origin {
    /// Whether the weights were learned.
    pub fn is_trained(&self) -> bool {
        !matches!(self, Origin::Filled(_))
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Builtin(name) => f.write_str(name),
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Filled(architecture) => write!(f, "{architecture} (untrained)"),
        }
    }
}

enum Found {
    Checkpoint(Box<Checkpoint>, Origin),
    Architecture(Architecture),
}

fn find(name: &str, kind: Kind) -> Result<Found, ZooError> {
    if let Some(builtin) = BUILTIN.iter().find(|b| b.name == name) {
        let checkpoint = checkpoint::load_bytes(builtin.name, builtin.bytes.to_vec())?;
        return Ok(Found::Checkpoint(Box::new(checkpoint), Origin::Builtin(builtin.name)));
    }
    if let Ok(architecture) = name.parse::<Architecture>() {
        return Ok(Found::Architecture(architecture));
    }
    let path = Path::new(name);
    if path.exists() {
        return Ok(Found::Checkpoint(Box::new(checkpoint::load(path)?), Origin::File(path.to_owned())));
    }
    let builtin = BUILTIN.iter().filter(|b| b.kind == kind).map(|b| b.name);
    let untrained = ARCHITECTURES.iter().filter(|a| a.kind() == kind).map(|a| a.name());
    let known = builtin.chain(untrained).collect::<Vec<_>>().join(", ");
    Err(ZooError::Unknown { name: name.to_owned(), kind, known })
}
