//! SAM's mask decoder (Kirillov et al. 2023, "Mask decoder"): a two-way transformer between prompt tokens and the image,
//! upscaling, and a hypernetwork that turns each mask token into a 1x1 filter.
//!
//! What does not depend on the prompt is computed once for all objects: without a mask prompt the image side of the
//! first layer is one tensor of batch 1, shared by the attention of every object. Positional encodings are constants,
//! so `W (x + pe) + b` is computed as `W x + (W pe + b)` with the second part known at build time, and the projections
//! that read the same image tokens are one wide layer.

use ultramotion_engine::graph::{Graph, GraphError, Tensor, UnaryOp};
use ultramotion_engine::tensor::HostTensor;

use super::config::{EMBED_DIM, MobileSamConfig};
use super::layers::{layer_norm, linear, perceptron};
use super::prompt_encoder::EncodedPrompts;
use crate::parameters::Parameters;
use crate::segmenter::{DecodedMasks, MaskOutput};

const HEADS: usize = 8;
/// Channels inside the attention between tokens and image.
const CROSS_DIM: usize = EMBED_DIM / 2;
const MLP_DIM: usize = 2048;
const LAYERS: usize = 2;
const MASK_TOKENS: usize = 4;

/// First of the mask tokens that belong to an output.
fn first_token(output: MaskOutput) -> usize {
    match output {
        MaskOutput::One => 0,
        MaskOutput::Three => 1,
    }
}

/// Image embedding `[1, E, E, 256]` and prompts → masks.
pub fn build_decoder(
    g: &mut Graph,
    embedding: Tensor,
    prompts: &EncodedPrompts,
    p: &mut Parameters<'_>,
    config: &MobileSamConfig,
    output: MaskOutput,
) -> Result<DecodedMasks, GraphError> {
    g.scoped("mask_decoder", |g| {
        p.scoped("mask_decoder", |p| {
            let pixels = config.embedding_size() * config.embedding_size();
            let objects = g.shape(prompts.sparse)[0];
            let iou_token = p.values("iou_token.weight", &[1, EMBED_DIM]);
            let mask_tokens = p.values("mask_tokens.weight", &[MASK_TOKENS, EMBED_DIM]);
            let own = [iou_token, mask_tokens].concat().repeat(objects);
            let own = g.constant(HostTensor::f32([objects, 1 + MASK_TOKENS, EMBED_DIM], own));
            let own = match g.ty(prompts.sparse).rows {
                Some(rows) => g.limit_rows(own, rows.count)?,
                None => own,
            };
            let tokens = g.concat(&[own, prompts.sparse], 1)?;
            let image = g.reshape(embedding, [1, pixels, EMBED_DIM])?;
            let image = g.add(prompts.dense, image)?;
            let (tokens, image) = g.scoped("transformer", |g| {
                p.scoped("transformer", |p| two_way_transformer(g, p, tokens, image, prompts.dense_positions))
            })?;
            heads(g, p, tokens, image, config, output)
        })
    })
}

fn two_way_transformer(
    g: &mut Graph,
    p: &mut Parameters<'_>,
    tokens: Tensor,
    image: Tensor,
    positions: Tensor,
) -> Result<(Tensor, Tensor), GraphError> {
    let token_positions = tokens;
    let (mut queries, mut keys) = (tokens, image);
    for layer in 0..LAYERS {
        (queries, keys) = g.scoped(format!("layers.{layer}"), |g| {
            p.scoped(format!("layers.{layer}"), |p| {
                two_way_layer(g, p, queries, keys, token_positions, positions, layer == 0)
            })
        })?;
    }
    let q_input = g.add(queries, token_positions)?;
    let attended = p.scoped("final_attn_token_to_image", |p| {
        let image_side = ImageProjections::read(p, &[("", "k_proj", true), ("", "v_proj", false)]);
        let [k, v] = image_side.apply(g, keys, positions)?[..] else { unreachable!("two projections") };
        let q = linear(g, p, "q_proj", q_input, CROSS_DIM)?;
        let y = g.attention([q, k, v], None, HEADS, head_scale(CROSS_DIM))?;
        linear(g, p, "out_proj", y, EMBED_DIM)
    })?;
    let queries = g.add(attended, queries)?;
    let queries = layer_norm(g, p, "norm_final_attn", queries, 1e-5)?;
    Ok((queries, keys))
}

fn head_scale(dim: usize) -> f32 {
    1.0 / ((dim / HEADS) as f32).sqrt()
}

/// One layer: tokens attend to each other, then to the image; a perceptron; then the image attends to the tokens.
fn two_way_layer(
    g: &mut Graph,
    p: &mut Parameters<'_>,
    queries: Tensor,
    keys: Tensor,
    token_positions: Tensor,
    positions: Tensor,
    first: bool,
) -> Result<(Tensor, Tensor), GraphError> {
    // The first layer attends without positions and, as in the official code, without a residual.
    let q_input = if first { queries } else { g.add(queries, token_positions)? };
    let attended = p.scoped("self_attn", |p| {
        let q = linear(g, p, "q_proj", q_input, EMBED_DIM)?;
        let k = linear(g, p, "k_proj", q_input, EMBED_DIM)?;
        let v = linear(g, p, "v_proj", queries, EMBED_DIM)?;
        let y = g.attention([q, k, v], None, HEADS, head_scale(EMBED_DIM))?;
        linear(g, p, "out_proj", y, EMBED_DIM)
    })?;
    let queries = if first { attended } else { g.add(attended, queries)? };
    let queries = layer_norm(g, p, "norm1", queries, 1e-5)?;

    const TOKEN_TO_IMAGE: &str = "cross_attn_token_to_image.";
    const IMAGE_TO_TOKEN: &str = "cross_attn_image_to_token.";
    let image_side = ImageProjections::read(
        p,
        &[
            (TOKEN_TO_IMAGE, "k_proj", true),
            (TOKEN_TO_IMAGE, "v_proj", false),
            (IMAGE_TO_TOKEN, "q_proj", true),
        ],
    );
    let [k, v, image_q] = image_side.apply(g, keys, positions)?[..] else {
        unreachable!("three projections")
    };

    let q_input = g.add(queries, token_positions)?;
    let attended = p.scoped("cross_attn_token_to_image", |p| {
        let q = linear(g, p, "q_proj", q_input, CROSS_DIM)?;
        let y = g.attention([q, k, v], None, HEADS, head_scale(CROSS_DIM))?;
        linear(g, p, "out_proj", y, EMBED_DIM)
    })?;
    let queries = g.add(attended, queries)?;
    let queries = layer_norm(g, p, "norm2", queries, 1e-5)?;

    let hidden = p.scoped("mlp", |p| {
        let y = linear(g, p, "lin1", queries, MLP_DIM)?;
        let y = g.unary(UnaryOp::Relu, y)?;
        linear(g, p, "lin2", y, EMBED_DIM)
    })?;
    let queries = g.add(hidden, queries)?;
    let queries = layer_norm(g, p, "norm3", queries, 1e-5)?;

    let k_input = g.add(queries, token_positions)?;
    let attended = p.scoped("cross_attn_image_to_token", |p| {
        let k = linear(g, p, "k_proj", k_input, CROSS_DIM)?;
        let v = linear(g, p, "v_proj", queries, CROSS_DIM)?;
        let y = g.attention([image_q, k, v], None, HEADS, head_scale(CROSS_DIM))?;
        linear(g, p, "out_proj", y, EMBED_DIM)
    })?;
    let keys = g.add(attended, keys)?;
    let keys = layer_norm(g, p, "norm4", keys, 1e-5)?;
    Ok((queries, keys))
}

/// Projections that read the image tokens, some of them with positions added, as one layer.
struct ImageProjections {
    weight: Vec<f32>,
    bias: Vec<f32>,
    /// Whether each projection sees positions.
    positioned: Vec<bool>,
}

impl ImageProjections {
    /// Reads `prefix + name + ".weight"` and `".bias"` of each projection; the flag says whether it sees positions.
    fn read(p: &mut Parameters<'_>, names: &[(&str, &str, bool)]) -> Self {
        let (mut weight, mut bias) = (Vec::new(), Vec::new());
        for (prefix, name, _) in names {
            weight.extend(p.values(&format!("{prefix}{name}.weight"), &[CROSS_DIM, EMBED_DIM]));
            bias.extend(p.values(&format!("{prefix}{name}.bias"), &[CROSS_DIM]));
        }
        ImageProjections { weight, bias, positioned: names.iter().map(|n| n.2).collect() }
    }

    /// Image tokens `[K or 1, L, 256]` → one `[K or 1, L, 128]` for each projection.
    fn apply(&self, g: &mut Graph, keys: Tensor, positions: Tensor) -> Result<Vec<Tensor>, GraphError> {
        let count = self.positioned.len();
        let pixels = g.shape(keys)[1];
        let weight = g.constant(HostTensor::f32([count * CROSS_DIM, EMBED_DIM], self.weight.clone()));
        let mut of_positions = self.weight.clone();
        for (block, _) in self.positioned.iter().enumerate().filter(|(_, positioned)| !**positioned) {
            of_positions[block * CROSS_DIM * EMBED_DIM..][..CROSS_DIM * EMBED_DIM].fill(0.0);
        }
        let of_positions = g.constant(HostTensor::f32([count * CROSS_DIM, EMBED_DIM], of_positions));
        let bias = g.constant(HostTensor::f32([count * CROSS_DIM], self.bias.clone()));
        let offset = g.linear(positions, of_positions, Some(bias))?;
        let offset = g.reshape(offset, [1, pixels, count * CROSS_DIM])?;
        let projected = g.linear(keys, weight, None)?;
        let projected = g.add(projected, offset)?;
        (0..count).map(|i| g.slice(projected, 2, i * CROSS_DIM, CROSS_DIM)).collect()
    }
}

/// Tokens and image tokens → masks and their scores. Only the mask tokens that are asked for are decoded.
fn heads(
    g: &mut Graph,
    p: &mut Parameters<'_>,
    tokens: Tensor,
    image: Tensor,
    config: &MobileSamConfig,
    output: MaskOutput,
) -> Result<DecodedMasks, GraphError> {
    let (objects, side) = (g.shape(tokens)[0], config.embedding_size());
    let (masks, first) = (output.count(), first_token(output));
    let upscaled = g.scoped("output_upscaling", |g| {
        p.scoped("output_upscaling", |p| {
            let x = g.reshape(image, [objects, side, side, EMBED_DIM])?;
            let (weight, bias) =
                (p.constant(g, "0.weight", &[EMBED_DIM, 64, 2, 2]), p.constant(g, "0.bias", &[64]));
            let x = g.conv_transpose2d(x, weight, Some(bias))?;
            let x = layer_norm(g, p, "1", x, 1e-6)?;
            let x = g.unary(UnaryOp::Gelu, x)?;
            let (weight, bias) = (p.constant(g, "3.weight", &[64, 32, 2, 2]), p.constant(g, "3.bias", &[32]));
            let x = g.conv_transpose2d(x, weight, Some(bias))?;
            g.unary(UnaryOp::Gelu, x)
        })
    })?;
    let low_res = config.low_res_size();
    let upscaled = g.reshape(upscaled, [objects, low_res * low_res, 32])?;

    let mut filters = Vec::new();
    for token in 0..MASK_TOKENS {
        // Parameters of unused tokens are read all the same: a checkpoint without them is not MobileSAM's.
        let filter = p.scoped(format!("output_hypernetworks_mlps.{token}"), |p| {
            let x = g.slice(tokens, 1, 1 + token, 1)?;
            let x = g.reshape(x, [objects, EMBED_DIM])?;
            perceptron(g, p, x, &[EMBED_DIM, EMBED_DIM, 32])
        })?;
        if (first..first + masks).contains(&token) {
            filters.push(g.reshape(filter, [objects, 1, 32])?);
        }
    }
    let filters = if masks == 1 { filters[0] } else { g.concat(&filters, 1)? };
    let low_res_masks = g.matmul(filters, upscaled, true)?;
    let low_res_masks = g.reshape(low_res_masks, [objects, masks, low_res, low_res])?;

    let iou = p.scoped("iou_prediction_head", |p| {
        let x = g.slice(tokens, 1, 0, 1)?;
        let x = g.reshape(x, [objects, EMBED_DIM])?;
        perceptron(g, p, x, &[EMBED_DIM, EMBED_DIM, MASK_TOKENS])
    })?;
    let iou = g.slice(iou, 1, first, masks)?;
    Ok(DecodedMasks { low_res_masks, iou, features: Vec::new() })
}
