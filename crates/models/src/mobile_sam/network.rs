//! MobileSAM as a line of the [registry](crate::zoo::ARCHITECTURES), and as a segmenter.

use std::sync::Arc;

use ultramotion_engine::graph::{Graph, GraphError, ImageTransform, Tensor};
use ultramotion_engine::tensor::Shape;

use super::config::{EMBED_DIM, MobileSamConfig, PIXEL_MEAN, PIXEL_STD};
use super::geometry::MaskGeometry;
use super::{build_decoder, build_encoder, encode_prompts, logits_to_source, masks_to_source};
use crate::checkpoint::weights::Weights;
use crate::parameters::Parameters;
use crate::registry::{ConfigError, Entry, Kind, Network, Sizes};
use crate::segmenter::{DecodedMasks, MaskOutput, Prompts, SegmenterNetwork, SourceMasks};

/// MobileSAM in the registry.
#[derive(Debug)]
pub(crate) struct MobileSam;

impl Entry for MobileSam {
    fn name(&self) -> &'static str {
        "mobile_sam"
    }

    fn family(&self) -> &'static str {
        "MobileSAM"
    }

    fn kind(&self) -> Kind {
        Kind::Segmenter
    }

    fn recognises(&self, weights: &Weights) -> bool {
        weights.contains("image_encoder.patch_embed.seq.0.c.weight")
            && weights.contains("mask_decoder.iou_token.weight")
    }

    fn network(&self, sizes: Sizes) -> Result<Network, ConfigError> {
        let config = match sizes.input_hw {
            Some([side, _]) => MobileSamConfig::new(side)?,
            None => MobileSamConfig::default(),
        };
        Ok(Network::Segmenter(Arc::new(config)))
    }
}

impl SegmenterNetwork for MobileSamConfig {
    fn input_hw(&self) -> [usize; 2] {
        [self.input_size(); 2]
    }

    /// A square whose side is a multiple of 64.
    fn with_input_hw(&self, [height, width]: [usize; 2]) -> Result<Arc<dyn SegmenterNetwork>, ConfigError> {
        let config = MobileSamConfig::new(height)?;
        if height != width {
            return Err(Box::new(super::BadInputSize(width)));
        }
        Ok(Arc::new(config))
    }

    /// The aspect is kept: the longest side fills the input.
    fn image_transform(&self, source_hw: [usize; 2]) -> ImageTransform {
        ImageTransform {
            output_hw: [self.input_size(); 2],
            resized_hw: self.resized_hw(source_hw[0], source_hw[1]),
            scale: PIXEL_STD.map(|std| 1.0 / std),
            shift: std::array::from_fn(|c| -PIXEL_MEAN[c] / PIXEL_STD[c]),
        }
    }

    fn embedding_shape(&self) -> Shape {
        let cells = self.embedding_size();
        Shape::from([1, cells, cells, EMBED_DIM])
    }

    fn low_res_hw(&self) -> [usize; 2] {
        [self.low_res_size(); 2]
    }

    fn encode(
        &self,
        g: &mut Graph,
        image: Tensor,
        parameters: &mut Parameters<'_>,
    ) -> Result<Tensor, GraphError> {
        build_encoder(g, image, parameters, self)
    }

    fn decode(
        &self,
        g: &mut Graph,
        embedding: Tensor,
        prompts: &Prompts,
        output: MaskOutput,
        parameters: &mut Parameters<'_>,
    ) -> Result<DecodedMasks, GraphError> {
        let prompts = encode_prompts(g, prompts, parameters, self)?;
        let features = vec![("sparse_embedding".to_owned(), prompts.sparse)];
        Ok(DecodedMasks { features, ..build_decoder(g, embedding, &prompts, parameters, self, output)? })
    }

    fn masks_to_source(
        &self,
        g: &mut Graph,
        low_res_masks: Tensor,
        source_hw: [usize; 2],
    ) -> Result<SourceMasks, GraphError> {
        masks_to_source(g, low_res_masks, MaskGeometry::new(self, source_hw), None)
    }

    fn logits_to_source(
        &self,
        g: &mut Graph,
        low_res_masks: Tensor,
        source_hw: [usize; 2],
    ) -> Result<Tensor, GraphError> {
        logits_to_source(g, low_res_masks, MaskGeometry::new(self, source_hw))
    }

    /// Counters, the classifier that TinyViT was pre-trained with, and what the official code computes from other values.
    fn unused_parameter(&self, name: &str) -> bool {
        name.ends_with(".num_batches_tracked")
            || ["image_encoder.head.", "image_encoder.norm_head."]
                .iter()
                .any(|prefix| name.starts_with(prefix))
            || name.ends_with("attention_bias_idxs")
            || ["pixel_mean", "pixel_std"].contains(&name)
    }
}
