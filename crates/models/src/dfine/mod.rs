//! D-FINE (Peng et al. 2024, arXiv:2410.13842), sizes N to X, as a graph: an image in, 300 scored boxes out.
//!
//! In: an image tensor `[1, H, W, 3]` in 0..1 and the parameters of an official checkpoint. Out: class logits and
//! boxes of every query ([`build`]). Only what inference needs is built; batch norms and RepVGG pairs stand as in the
//! paper and are folded by the compiler.
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
mod network;

pub use config::{
    BackboneConfig, ConfigError, DecoderConfig, DfineConfig, EncoderConfig, HEADS, StageConfig, Variant,
};

use ultramotion_engine::graph::{Graph, GraphError, Tensor};

use crate::detector::DetectorTensors;
use crate::parameters::Parameters;
use layers::Builder;

/// Adds a D-FINE to a graph: image `[1, H, W, 3]` f32 in 0..1 (a grey image three times), H and W as in `config`.
///
/// Its features are the backbone's maps `[1, H/s, W/s, C]`, `backbone.0` the finest, then the encoder's
/// `[1, H/s, W/s, dim]`, `encoder.0` the finest.
pub fn build(
    g: &mut Graph,
    image: Tensor,
    parameters: &mut Parameters<'_>,
    config: &DfineConfig,
) -> Result<DetectorTensors, GraphError> {
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
    let named = |part: &str, maps: Vec<Tensor>| {
        maps.into_iter().enumerate().map(|(i, map)| (format!("{part}.{i}"), map)).collect::<Vec<_>>()
    };
    let features = [named("backbone", backbone), named("encoder", encoder)].concat();
    Ok(DetectorTensors { pred_logits, pred_boxes, features })
}
