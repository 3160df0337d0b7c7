//! Models by name or by file: what `--detector` and `--segmenter` take.
//!
//! In: the name of a built-in model, the name of an architecture (untrained, for benchmarks), or the path of a
//! checkpoint. Out: a [`Detector`] or [`Segmenter`], checked: every tensor is there, has its shape and is finite.
//!
//! ```
//! use ultramotion_models::zoo::Detector;
//!
//! let detector = Detector::open("dfine_n")?;
//! assert_eq!(detector.config().input_hw, [640, 640]);
//! assert!(!detector.origin().is_trained());
//! assert!(Detector::open("no-such-model").unwrap_err().to_string().contains("dfine_n"));
//! # Ok::<(), ultramotion_models::zoo::ZooError>(())
//! ```

mod builtin;

use std::path::{Path, PathBuf};

use thiserror::Error;
use ultramotion_engine::graph::{Graph, GraphError};
use ultramotion_engine::tensor::DType;

use crate::checkpoint::{self, Architecture, Checkpoint, CheckpointError, WeightTensor, Weights};
use crate::dfine::{self, DfineConfig};
use crate::mobile_sam::{self, BadInputSize, MaskOutput, MobileSamConfig};
use crate::parameters::Parameters;

pub use builtin::{BUILTIN, Builtin};

/// Why a model cannot be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ZooError {
    /// Neither a name that is known nor a file.
    #[error("there is no model or file '{name}'; the {kind}s known by name are {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// `detector` or `segmenter`.
        kind: &'static str,
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
        /// `detector` or `segmenter`.
        wanted: &'static str,
    },
    /// A checkpoint that cannot be read or does not fit.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A detector that cannot be built.
    #[error(transparent)]
    Detector(#[from] dfine::ConfigError),
    /// A segmenter that cannot be built.
    #[error(transparent)]
    Segmenter(#[from] BadInputSize),
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

/// Finds structures: a D-FINE with its weights and class names.
#[derive(Debug, Clone)]
pub struct Detector {
    config: DfineConfig,
    labels: Vec<String>,
    weights: Weights,
    origin: Origin,
}

/// Outlines structures: a MobileSAM with its weights.
#[derive(Debug, Clone)]
pub struct Segmenter {
    config: MobileSamConfig,
    weights: Weights,
    origin: Origin,
}

enum Found {
    Checkpoint(Box<Checkpoint>, Origin),
    Architecture(Architecture),
}

fn find(name: &str, kind: &'static str) -> Result<Found, ZooError> {
    if let Some(builtin) = BUILTIN.iter().find(|b| b.name == name) {
        let checkpoint = checkpoint::load_bytes(builtin.name, builtin.bytes.to_vec())?;
        return Ok(Found::Checkpoint(Box::new(checkpoint), Origin::Builtin(builtin.name)));
    }
    if let Ok(architecture) = name.parse::<Architecture>() {
        return Ok(Found::Architecture(architecture));
    }
    let path = Path::new(name);
    if path.is_file() {
        return Ok(Found::Checkpoint(Box::new(checkpoint::load(path)?), Origin::File(path.to_owned())));
    }
    let builtin = BUILTIN.iter().filter(|b| b.kind == kind).map(|b| b.name);
    let untrained =
        Architecture::ALL.iter().filter(|a| a.is_detector() == (kind == DETECTOR)).map(|a| a.name());
    let known = builtin.chain(untrained).collect::<Vec<_>>().join(", ");
    Err(ZooError::Unknown { name: name.to_owned(), kind, known })
}

const DETECTOR: &str = "detector";
const SEGMENTER: &str = "segmenter";
/// Salt of the weights of untrained models.
const SALT: &str = "untrained";

fn filled(
    specs: &Parameters<'_>,
    keep: impl Fn(&str) -> Option<WeightTensor>,
) -> Result<Weights, CheckpointError> {
    let keys: Vec<(String, Vec<usize>)> =
        specs.specs().iter().map(|s| (s.name.clone(), s.shape.clone())).collect();
    checkpoint::filled(&keys, SALT, 1.0, keep)
}

fn verify(
    weights: &Weights,
    specs: &Parameters<'_>,
    unused: impl Fn(&str) -> bool,
) -> Result<(), CheckpointError> {
    let keys: Vec<(String, Vec<usize>)> =
        specs.specs().iter().map(|s| (s.name.clone(), s.shape.clone())).collect();
    weights.verify(&keys, &unused)?;
    weights.check_finite(&unused)
}

impl Detector {
    /// By name or path; see the [module](self).
    pub fn open(name: &str) -> Result<Self, ZooError> {
        match find(name, DETECTOR)? {
            Found::Architecture(architecture) => Self::untrained(architecture),
            Found::Checkpoint(checkpoint, origin) => Self::from_checkpoint(*checkpoint, origin),
        }
    }

    fn from_checkpoint(checkpoint: Checkpoint, origin: Origin) -> Result<Self, ZooError> {
        let config = DfineConfig::from_checkpoint(&checkpoint)?;
        let specs = describe_detector(&config)?;
        verify(&checkpoint.weights, &specs, |name| config.unused_parameter(name))?;
        let labels = checkpoint
            .classes
            .unwrap_or_else(|| (0..config.num_classes).map(|class| format!("class {class}")).collect());
        Ok(Detector { config, labels, weights: checkpoint.weights, origin })
    }

    fn untrained(architecture: Architecture) -> Result<Self, ZooError> {
        if !architecture.is_detector() {
            let origin = architecture.name().to_owned();
            return Err(ZooError::WrongKind { origin, found: "a segmenter".into(), wanted: DETECTOR });
        }
        let config = DfineConfig::named(architecture.name())?;
        let labels = (0..config.num_classes).map(|class| format!("class {class}")).collect();
        let mut detector =
            Detector { config, labels, weights: Weights::new(""), origin: Origin::Filled(architecture) };
        detector.weights = filled(&describe_detector(&detector.config)?, |_| None)?;
        Ok(detector)
    }

    /// The same network for another input size, in pixels; multiples of 32.
    pub fn with_input_hw(mut self, input_hw: [usize; 2]) -> Result<Self, ZooError> {
        self.config = DfineConfig { input_hw, ..self.config };
        self.config.validate()?;
        Ok(self)
    }

    /// Sizes of the network.
    pub fn config(&self) -> &DfineConfig {
        &self.config
    }
    /// Name of each class.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }
    /// Parameters.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }
    /// Where the weights come from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }
}

impl Segmenter {
    /// By name or path; see the [module](self).
    pub fn open(name: &str) -> Result<Self, ZooError> {
        match find(name, SEGMENTER)? {
            Found::Architecture(Architecture::MobileSam) => {
                let config = MobileSamConfig::default();
                let weights = filled(&describe_segmenter(&config)?, |_| None)?;
                Ok(Segmenter { config, weights, origin: Origin::Filled(Architecture::MobileSam) })
            }
            Found::Architecture(other) => Err(ZooError::WrongKind {
                origin: other.name().into(),
                found: "a detector".into(),
                wanted: SEGMENTER,
            }),
            Found::Checkpoint(checkpoint, origin) => Self::from_checkpoint(*checkpoint, origin),
        }
    }

    fn from_checkpoint(checkpoint: Checkpoint, origin: Origin) -> Result<Self, ZooError> {
        if checkpoint.architecture != Some(Architecture::MobileSam) {
            let found = checkpoint.architecture.map_or("an unknown network".into(), |a| a.to_string());
            let origin = checkpoint.weights.origin().to_owned();
            return Err(ZooError::WrongKind { origin, found, wanted: SEGMENTER });
        }
        let config = match checkpoint.input_size {
            Some([side, _]) => MobileSamConfig::new(side)?,
            None => MobileSamConfig::default(),
        };
        verify(&checkpoint.weights, &describe_segmenter(&config)?, mobile_sam::unused_parameter)?;
        Ok(Segmenter { config, weights: checkpoint.weights, origin })
    }

    /// The same network for another input side, in pixels; a multiple of 64.
    pub fn with_input_size(mut self, input_size: usize) -> Result<Self, ZooError> {
        self.config = MobileSamConfig::new(input_size)?;
        Ok(self)
    }

    /// Sizes of the network.
    pub fn config(&self) -> &MobileSamConfig {
        &self.config
    }
    /// Parameters.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }
    /// Where the weights come from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }
}

/// The parameters that a detector reads.
fn describe_detector(config: &DfineConfig) -> Result<Parameters<'static>, GraphError> {
    let (mut g, mut parameters) = (Graph::new("describe"), Parameters::describe());
    // Parameters do not depend on the input size: the smallest input makes the smallest graph.
    let config = DfineConfig { input_hw: [64, 64], ..config.clone() };
    let image = g.input("image", DType::F32, [1, 64, 64, 3])?;
    dfine::build(&mut g, image, &mut parameters, &config)?;
    Ok(parameters)
}

/// The parameters that a segmenter reads.
fn describe_segmenter(config: &MobileSamConfig) -> Result<Parameters<'static>, GraphError> {
    let (mut g, mut parameters) = (Graph::new("describe"), Parameters::describe());
    let side = config.input_size();
    let image = g.input("image", DType::F32, [1, side, side, 3])?;
    let embedding = mobile_sam::build_encoder(&mut g, image, &mut parameters, config)?;
    let prompts = mobile_sam::box_input(&mut g, "boxes", 1)?;
    let prompts = mobile_sam::encode_prompts(&mut g, &prompts, &mut parameters, config)?;
    mobile_sam::build_decoder(&mut g, embedding, &prompts, &mut parameters, config, MaskOutput::One)?;
    Ok(parameters)
}
