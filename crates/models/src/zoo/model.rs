//! Networks with their weights, and the parts of a graph that they make.

use std::sync::Arc;

use ultramotion_engine::graph::{Graph, GraphError, Tensor};

use super::{Architecture, Found, Kind, Network, Origin, Sizes, ZooError, find};
use crate::checkpoint::{self, Checkpoint, CheckpointError, Weights};
use crate::detector::{self, DetectorNetwork, DetectorTensors};
use crate::parameters::Parameters;
use crate::registry::families;
use crate::segmenter::{self, DecodedMasks, MaskOutput, Prompts, SegmenterNetwork};

/// Salt of the weights of untrained models.
const SALT: &str = "untrained";

/// Finds structures: a network with its weights and class names.
#[derive(Debug, Clone)]
pub struct Detector {
    architecture: Architecture,
    network: Arc<dyn DetectorNetwork>,
    labels: Vec<String>,
    weights: Weights,
    origin: Origin,
}

/// Outlines structures: a network with its weights.
#[derive(Debug, Clone)]
pub struct Segmenter {
    architecture: Architecture,
    network: Arc<dyn SegmenterNetwork>,
    weights: Weights,
    origin: Origin,
}

impl Detector {
    /// By name or path; see the [module](super).
    pub fn open(name: &str) -> Result<Self, ZooError> {
        match find(name, Kind::Detector)? {
            Found::Architecture(architecture) => {
                let Network::Detector(network) = architecture.network(Sizes::default())? else {
                    return Err(other_kind(architecture, Kind::Detector));
                };
                let weights = filled(&detector::described(&*network)?)?;
                Ok(Self::new(architecture, network, None, weights, Origin::Filled(architecture)))
            }
            Found::Checkpoint(checkpoint, origin) => Self::from_checkpoint(*checkpoint, origin),
        }
    }

    /// Of a checkpoint that was read: the network that its tensors tell, with an input as it says.
    pub fn from_checkpoint(checkpoint: Checkpoint, origin: Origin) -> Result<Self, ZooError> {
        let not_detector = |found: &str| ZooError::NotDetector {
            origin: checkpoint.weights.origin().to_owned(),
            found: found.to_owned(),
            families: families(Kind::Detector),
        };
        let architecture =
            checkpoint.architecture.ok_or_else(|| not_detector(&unknown(&checkpoint.weights)))?;
        if architecture.kind() == Kind::Detector && checkpoint.num_classes().is_none() {
            return Err(not_detector("without a score head"));
        }
        let Network::Detector(network) = architecture.network(checkpoint.sizes())? else {
            return Err(not_detector(architecture.name()));
        };
        let Checkpoint { weights, classes, .. } = checkpoint;
        verify(&weights, &detector::described(&*network)?, |name| network.unused_parameter(name))?;
        Ok(Self::new(architecture, network, classes, weights, origin))
    }

    fn new(
        architecture: Architecture,
        network: Arc<dyn DetectorNetwork>,
        labels: Option<Vec<String>>,
        weights: Weights,
        origin: Origin,
    ) -> Self {
        let numbered = || (0..network.num_classes()).map(|class| format!("class {class}")).collect();
        Detector { architecture, labels: labels.unwrap_or_else(numbered), network, weights, origin }
    }

    /// The same network for another input size, in pixels.
    pub fn with_input_hw(self, input_hw: [usize; 2]) -> Result<Self, ZooError> {
        Ok(Detector { network: self.network.with_input_hw(input_hw)?, ..self })
    }

    /// Adds the detector to a graph: raw frame `[H, W, C]` u8 → what it computes of the frame resized to its input.
    pub fn detect(&self, g: &mut Graph, frame: Tensor) -> Result<DetectorTensors, GraphError> {
        let source_hw = [g.shape(frame)[0], g.shape(frame)[1]];
        let image = g.image_to_tensor(frame, self.network.image_transform(source_hw))?;
        g.scoped("detector", |g| self.build(g, image))
    }

    /// Adds the network alone to a graph: see [`DetectorNetwork::build`].
    pub fn build(&self, g: &mut Graph, image: Tensor) -> Result<DetectorTensors, GraphError> {
        self.network.build(g, image, &mut Parameters::new(&self.weights))
    }

    /// Which network it is.
    pub fn architecture(&self) -> Architecture {
        self.architecture
    }
    /// The network.
    pub fn network(&self) -> &dyn DetectorNetwork {
        &*self.network
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
    /// By name or path; see the [module](super).
    pub fn open(name: &str) -> Result<Self, ZooError> {
        match find(name, Kind::Segmenter)? {
            Found::Architecture(architecture) => {
                let Network::Segmenter(network) = architecture.network(Sizes::default())? else {
                    return Err(other_kind(architecture, Kind::Segmenter));
                };
                let weights = filled(&segmenter::described(&*network)?)?;
                Ok(Segmenter { architecture, network, weights, origin: Origin::Filled(architecture) })
            }
            Found::Checkpoint(checkpoint, origin) => Self::from_checkpoint(*checkpoint, origin),
        }
    }

    /// Of a checkpoint that was read: the network that its tensors tell, with an input as it says.
    pub fn from_checkpoint(checkpoint: Checkpoint, origin: Origin) -> Result<Self, ZooError> {
        let segmenter = checkpoint.architecture.filter(|a| a.kind() == Kind::Segmenter);
        let network =
            segmenter.map(|a| Ok::<_, ZooError>((a, a.network(checkpoint.sizes())?))).transpose()?;
        let Some((architecture, Network::Segmenter(network))) = network else {
            return Err(ZooError::WrongKind {
                origin: checkpoint.weights.origin().to_owned(),
                found: checkpoint.architecture.map_or("an unknown network".into(), |a| a.to_string()),
                wanted: Kind::Segmenter,
            });
        };
        let weights = checkpoint.weights;
        verify(&weights, &segmenter::described(&*network)?, |name| network.unused_parameter(name))?;
        Ok(Segmenter { architecture, network, weights, origin })
    }

    /// The same network for another input side, in pixels.
    pub fn with_input_size(self, input_size: usize) -> Result<Self, ZooError> {
        Ok(Segmenter { network: self.network.with_input_hw([input_size; 2])?, ..self })
    }

    /// Adds the image encoder to a graph: raw frame `[H, W, C]` u8 → embedding of the frame resized to its input.
    pub fn encode(&self, g: &mut Graph, frame: Tensor) -> Result<Tensor, GraphError> {
        let source_hw = [g.shape(frame)[0], g.shape(frame)[1]];
        let image = g.image_to_tensor(frame, self.network.image_transform(source_hw))?;
        g.scoped("segmenter", |g| self.encode_image(g, image))
    }

    /// Adds the image encoder alone to a graph: see [`SegmenterNetwork::encode`].
    pub fn encode_image(&self, g: &mut Graph, image: Tensor) -> Result<Tensor, GraphError> {
        self.network.encode(g, image, &mut Parameters::new(&self.weights))
    }

    /// Adds the mask decoder to a graph: see [`SegmenterNetwork::decode`].
    pub fn decode(
        &self,
        g: &mut Graph,
        embedding: Tensor,
        prompts: &Prompts,
        output: MaskOutput,
    ) -> Result<DecodedMasks, GraphError> {
        self.network.decode(g, embedding, prompts, output, &mut Parameters::new(&self.weights))
    }

    /// Which network it is.
    pub fn architecture(&self) -> Architecture {
        self.architecture
    }
    /// The network.
    pub fn network(&self) -> &dyn SegmenterNetwork {
        &*self.network
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

/// A name of a network of the other kind.
fn other_kind(architecture: Architecture, wanted: Kind) -> ZooError {
    let found = format!("a {}", architecture.kind());
    ZooError::WrongKind { origin: architecture.name().to_owned(), found, wanted }
}

fn filled(specs: &Parameters<'_>) -> Result<Weights, CheckpointError> {
    checkpoint::filled(&names_and_shapes(specs), SALT, 1.0, |_| None)
}

fn verify(
    weights: &Weights,
    specs: &Parameters<'_>,
    unused: impl Fn(&str) -> bool,
) -> Result<(), CheckpointError> {
    weights.verify(&names_and_shapes(specs), &unused)?;
    weights.check_finite(&unused)
}

fn names_and_shapes(specs: &Parameters<'_>) -> Vec<(String, Vec<usize>)> {
    specs.specs().iter().map(|s| (s.name.clone(), s.shape.clone())).collect()
}

/// Words about weights that no network of the table has.
fn unknown(weights: &Weights) -> String {
    let names = checkpoint::names::described(weights).map(|names| format!(" ({names})"));
    format!("of a network not known here{}", names.unwrap_or_default())
}
