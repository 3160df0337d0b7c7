//! MobileSAM (Zhang et al. 2023): SAM's promptable segmenter (Kirillov et al. 2023) with a TinyViT image encoder.
//!
//! In: a normalised image and prompts. Out: mask logits and their estimated IoU. The image is encoded once
//! ([`build_encoder`]); any number of prompts is decoded against it ([`encode_prompts`], [`build_decoder`]), and the
//! masks are brought to the frame's size ([`masks_to_source`]).
//!
//! ```
//! use ultramotion_engine::graph::Graph;
//! use ultramotion_engine::tensor::DType;
//! use ultramotion_models::mobile_sam::{self, MobileSamConfig};
//! use ultramotion_models::parameters::Parameters;
//! use ultramotion_models::segmenter::{MaskOutput, Prompts};
//!
//! let config = MobileSamConfig::new(64)?;
//! let mut parameters = Parameters::describe();
//! let mut g = Graph::new("segment");
//! let image = g.input("image", DType::F32, [1, 64, 64, 3])?;
//! let embedding = mobile_sam::build_encoder(&mut g, image, &mut parameters, &config)?;
//! let prompts = Prompts::boxes(g.input("boxes", DType::F32, [2, 4])?);
//! let prompts = mobile_sam::encode_prompts(&mut g, &prompts, &mut parameters, &config)?;
//! let masks =
//!     mobile_sam::build_decoder(&mut g, embedding, &prompts, &mut parameters, &config, MaskOutput::One)?;
//! assert_eq!(g.shape(masks.low_res_masks).dims(), [2, 1, 16, 16]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod config;
mod geometry;
mod image_encoder;
mod layers;
mod mask_decoder;
mod mask_filter;
mod network;
mod postprocess;
mod prompt_encoder;

pub use config::{BadInputSize, EMBED_DIM, EMBEDDING_STRIDE, MobileSamConfig, PIXEL_MEAN, PIXEL_STD};
pub use geometry::MaskGeometry;
pub use image_encoder::build_encoder;
pub use mask_decoder::build_decoder;
pub(crate) use network::MobileSam;
pub use postprocess::{BoxRestriction, logits_to_source, masks_to_source};
pub use prompt_encoder::{EncodedPrompts, encode_prompts};
