//! D-FINE (Peng et al. 2024, arXiv:2410.13842), sizes N to X, as a graph: an image in, 300 scored boxes out.
//!
//! In: an image tensor `[1, H, W, 3]` in 0..1 and the parameters of an official checkpoint. Out: class logits and
//! boxes of every query ([`build`]), and from them the few detections worth handing on ([`select_detections`]). Only
//! what inference needs is built; batch norms and RepVGG pairs stand as in the paper and are folded by the compiler.
//!
//! ```
//! use ultramotion_engine::graph::Graph;
//! use ultramotion_engine::tensor::DType;
//! use ultramotion_models::dfine::{self, DfineConfig};
//! use ultramotion_models::parameters::Parameters;
//!
//! let config = DfineConfig { num_classes: 2, input_hw: [64, 96], ..DfineConfig::n() };
//! let mut g = Graph::new("detector");
//! let image = g.input("image", DType::F32, [1, 64, 96, 3])?;
//! let mut parameters = Parameters::describe();
//! let outputs = dfine::build(&mut g, image, &mut parameters, &config)?;
//! assert_eq!(g.shape(outputs.pred_boxes).dims(), [config.queries(), 4]);
//! assert_eq!(parameters.specs()[0].name, "backbone.stem.stem1.conv.weight");
//! # Ok::<(), ultramotion_engine::graph::GraphError>(())
//! ```

mod anchors;
mod backbone;
mod config;
mod decoder;
mod distribution;
mod encoder;
mod integral;
mod layers;
mod postprocess;

pub use config::{
    BackboneConfig, ConfigError, DecoderConfig, DfineConfig, EncoderConfig, HEADS, StageConfig, Variant,
};
pub use postprocess::{DetectionTensors, SelectionOptions, select_detections};

use ultramotion_engine::graph::{Graph, GraphError, Tensor};

use crate::parameters::Parameters;
use layers::Builder;

/// What a D-FINE computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DfineTensors {
    /// Backbone maps `[1, H/s, W/s, C]`, finest first.
    pub backbone: Vec<Tensor>,
    /// Encoder maps `[1, H/s, W/s, dim]`, finest first.
    pub encoder: Vec<Tensor>,
    /// Class logits of every query, `[Q, classes]`; the score is their sigmoid.
    pub pred_logits: Tensor,
    /// Boxes (cx, cy, w, h) of every query as shares of the image, `[Q, 4]`; may reach beyond it.
    pub pred_boxes: Tensor,
}

/// Adds a D-FINE to a graph: image `[1, H, W, 3]` f32 in 0..1 (a grey image three times), H and W as in `config`.
///
/// Parameters that are missing or mis-shaped are collected in `parameters`: call its `finish` with
/// [`DfineConfig::unused_parameter`] afterwards.
pub fn build(
    g: &mut Graph,
    image: Tensor,
    parameters: &mut Parameters<'_>,
    config: &DfineConfig,
) -> Result<DfineTensors, GraphError> {
    let error = |reason| GraphError::Op { op: "dfine".into(), at: config.name().into(), reason };
    config.validate().map_err(|e| error(e.to_string()))?;
    let [h, w] = config.input_hw;
    if g.shape(image).dims() != [1, h, w, 3] {
        return Err(error(format!("the image is {}, not [1, {h}, {w}, 3]", g.shape(image))));
    }
    let b = &mut Builder { g, p: parameters };
    let backbone = b.scoped("backbone", |b| backbone::backbone(b, image, &config.backbone))?;
    let encoder = b.scoped("encoder", |b| encoder::encoder(b, &backbone, &config.encoder))?;
    let [pred_logits, pred_boxes] = b.scoped("decoder", |b| decoder::decoder(b, &encoder, config))?;
    Ok(DfineTensors { backbone, encoder, pred_logits, pred_boxes })
}
