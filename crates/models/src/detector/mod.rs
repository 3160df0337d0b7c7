//! What a detector is to those who use one: an image in, scored boxes out, whichever network computes them.
//!
//! In: an image as [`DetectorNetwork::image_transform`] makes it of a raw frame. Out: [`DetectorTensors`], the logits and
//! the box of every query, and of these the few detections worth handing on
//! ([`select_detections`]); [`DetectorPredictor`] does all of it for single images. A network with its
//! weights and class names is a [`Detector`](crate::zoo::Detector).

mod predictor;
mod selection;

use std::fmt::Debug;
use std::sync::Arc;

pub use predictor::{DetectError, Detection, DetectorPredictor, Selected};
pub use selection::{DetectionTensors, SelectionOptions, select_detections};
use ultramotion_engine::graph::{Graph, GraphError, ImageTransform, Tensor};
use ultramotion_engine::tensor::DType;

use crate::parameters::{ConfigError, Parameters};

/// A network that finds structures.
pub trait DetectorNetwork: Debug + Send + Sync {
    /// Height and width of its input in pixels.
    fn input_hw(&self) -> [usize; 2];

    /// The same network, with the same parameters, for another input size in pixels.
    fn with_input_hw(&self, input_hw: [usize; 2]) -> Result<Arc<dyn DetectorNetwork>, ConfigError>;

    /// Classes that it tells apart.
    fn num_classes(&self) -> usize;

    /// How a raw frame of this height and width becomes its input.
    fn image_transform(&self, source_hw: [usize; 2]) -> ImageTransform;

    /// Adds the network to a graph: image `[1, H, W, 3]` f32, H and W as [`DetectorNetwork::input_hw`] says.
    ///
    /// Parameters that are missing or mis-shaped are collected in `parameters`: call its `finish` with
    /// [`DetectorNetwork::unused_parameter`] afterwards.
    fn build(
        &self,
        g: &mut Graph,
        image: Tensor,
        parameters: &mut Parameters<'_>,
    ) -> Result<DetectorTensors, GraphError>;

    /// Whether inference leaves this name of an official checkpoint unread.
    fn unused_parameter(&self, name: &str) -> bool;

    /// Whether a parameter has a meaning that filling by rule would take away: it keeps the value that the network's
    /// constructor gives it when a [fixture](crate::parity) has no checkpoint.
    fn constructed_parameter(&self, name: &str) -> bool;
}

/// What a detector computes of Q queries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetectorTensors {
    /// Class logits of every query, `[Q, classes]`; the score is their sigmoid.
    pub pred_logits: Tensor,
    /// Boxes (cx, cy, w, h) of every query as shares of the image, `[Q, 4]`; may reach beyond it.
    pub pred_boxes: Tensor,
    /// Feature maps `[1, h, w, C]` by name, in the order of computation, for comparison with the official code.
    pub features: Vec<(String, Tensor)>,
}

/// The parameters that a detector reads.
pub(crate) fn described(network: &dyn DetectorNetwork) -> Result<Parameters<'static>, GraphError> {
    let (mut g, mut parameters) = (Graph::new("describe"), Parameters::describe());
    let [h, w] = network.input_hw();
    let image = g.input("image", DType::F32, [1, h, w, 3])?;
    network.build(&mut g, image, &mut parameters)?;
    Ok(parameters)
}
