//! Prompts to tokens (Kirillov et al. 2023, "Prompt encoder"): points and box corners by random Fourier features
//! (Tancik et al. 2020) plus a learned embedding of their kind, masks by convolutions.

use std::f64::consts::TAU;

use ultramotion_engine::graph::{Graph, GraphError, Padding, Tensor, UnaryOp};
use ultramotion_engine::tensor::HostTensor;

use super::config::{EMBED_DIM, MobileSamConfig};
use crate::parameters::Parameters;
use crate::segmenter::Prompts;

/// What the decoder needs of the prompts.
#[derive(Debug, Clone, Copy)]
pub struct EncodedPrompts {
    /// `[K, T, 256]`.
    pub sparse: Tensor,
    /// `[K, E·E, 256]` with a mask prompt, `[1, 1, 256]` without.
    pub dense: Tensor,
    /// `[E·E, 256]`: positional encoding of the embedding's pixels, a constant.
    pub dense_positions: Tensor,
}

/// Adds the prompt encoder. At least one of boxes, points and tokens is given.
pub fn encode_prompts(
    g: &mut Graph,
    prompts: &Prompts,
    p: &mut Parameters<'_>,
    config: &MobileSamConfig,
) -> Result<EncodedPrompts, GraphError> {
    g.scoped("prompt_encoder", |g| p.scoped("prompt_encoder", |p| encode(g, prompts, p, config)))
}

fn encode(
    g: &mut Graph,
    prompts: &Prompts,
    p: &mut Parameters<'_>,
    config: &MobileSamConfig,
) -> Result<EncodedPrompts, GraphError> {
    let gaussian = p.values("pe_layer.positional_encoding_gaussian_matrix", &[2, EMBED_DIM / 2]);
    let kinds: Vec<Vec<f32>> =
        (0..4).map(|i| p.values(&format!("point_embeddings.{i}.weight"), &[1, EMBED_DIM])).collect();
    let not_a_point = p.values("not_a_point_embed.weight", &[1, EMBED_DIM]);

    let mut tokens = Vec::new();
    // A token is a place with a kind, but for padding, which is nowhere.
    let by_kind = |g: &mut Graph, positions: Tensor, of: Tensor| {
        let table = [&not_a_point[..], &kinds[0], &kinds[1], &kinds[2], &kinds[3]].concat();
        let table = g.constant(HostTensor::f32([5, EMBED_DIM], table));
        let kind = g.gather(table, of)?;
        let is_place = g.constant(HostTensor::f32([5, 1], vec![0.0, 1.0, 1.0, 1.0, 1.0]));
        let is_place = g.gather(is_place, of)?;
        let features = fourier_features(g, positions, &gaussian, config)?;
        let features = g.mul(features, is_place)?;
        g.add(features, kind)
    };
    if let Some((positions, of)) = prompts.tokens {
        tokens.push(by_kind(g, positions, of)?);
    }
    if let Some((positions, of)) = prompts.points {
        tokens.push(by_kind(g, positions, of)?);
        if prompts.boxes_xyxy.is_none() {
            // The official code ends a list of points with a padding point when there is no box.
            let bound = g.shape(positions)[0];
            let padding = g.constant(HostTensor::f32([bound, 1, EMBED_DIM], not_a_point.repeat(bound)));
            tokens.push(match g.ty(positions).rows {
                Some(rows) => g.limit_rows(padding, rows.count)?,
                None => padding,
            });
        }
    }
    if let Some(boxes) = prompts.boxes_xyxy {
        let bound = g.shape(boxes)[0];
        let corners = g.reshape(boxes, [bound, 2, 2])?;
        let features = fourier_features(g, corners, &gaussian, config)?;
        let kind = g.constant(HostTensor::f32([1, 2, EMBED_DIM], [&kinds[2][..], &kinds[3]].concat()));
        tokens.push(g.add(features, kind)?);
    }
    let sparse = if tokens.len() == 1 { tokens[0] } else { g.concat(&tokens, 1)? };

    let no_mask = p.constant(g, "no_mask_embed.weight", &[1, EMBED_DIM]);
    let downscaling = MaskDownscaling::read(g, p);
    let dense = match prompts.mask {
        None => g.reshape(no_mask, [1, 1, EMBED_DIM])?,
        Some(mask) => downscaling.apply(g, mask)?,
    };
    let side = config.embedding_size();
    let dense_positions =
        g.constant(HostTensor::f32([side * side, EMBED_DIM], grid_positions(&gaussian, side)));
    Ok(EncodedPrompts { sparse, dense, dense_positions })
}

/// Pixel positions `[K, P, 2]` → `[K, P, 256]`: sines and cosines of random projections of the pixel's centre.
fn fourier_features(
    g: &mut Graph,
    positions: Tensor,
    gaussian: &[f32],
    config: &MobileSamConfig,
) -> Result<Tensor, GraphError> {
    let half = EMBED_DIM / 2;
    let size = config.input_size() as f32;
    let unit = g.affine(positions, 2.0 / size, 1.0 / size - 1.0)?;
    let weight: Vec<f32> =
        (0..half * 2).map(|i| (TAU * f64::from(gaussian[i % 2 * half + i / 2])) as f32).collect();
    let weight = g.constant(HostTensor::f32([half, 2], weight));
    let angles = g.linear(unit, weight, None)?;
    let (sines, cosines) = (g.unary(UnaryOp::Sin, angles)?, g.unary(UnaryOp::Cos, angles)?);
    let axis = g.shape(angles).rank() - 1;
    g.concat(&[sines, cosines], axis)
}

/// The same features for the centres of a grid of `side` × `side` pixels, row by row.
fn grid_positions(gaussian: &[f32], side: usize) -> Vec<f32> {
    let half = EMBED_DIM / 2;
    let mut values = Vec::with_capacity(side * side * EMBED_DIM);
    for pixel in 0..side * side {
        let unit = |i: usize| 2.0 * (i as f64 + 0.5) / side as f64 - 1.0;
        let (x, y) = (unit(pixel % side), unit(pixel / side));
        let angle = |j: usize| TAU * (x * f64::from(gaussian[j]) + y * f64::from(gaussian[half + j]));
        values.extend((0..half).map(|j| angle(j).sin() as f32));
        values.extend((0..half).map(|j| angle(j).cos() as f32));
    }
    values
}

/// The convolutions that bring a mask prompt to the embedding's size.
struct MaskDownscaling {
    convolutions: [(Tensor, Tensor); 3],
    norms: [(Tensor, Tensor); 2],
}

impl MaskDownscaling {
    fn read(g: &mut Graph, p: &mut Parameters<'_>) -> Self {
        p.scoped("mask_downscaling", |p| {
            let mut pair = |name: &str, shape: &[usize]| {
                let weight = p.constant(g, &format!("{name}.weight"), shape);
                (weight, p.constant(g, &format!("{name}.bias"), &shape[..1]))
            };
            let convolutions =
                [pair("0", &[4, 1, 2, 2]), pair("3", &[16, 4, 2, 2]), pair("6", &[EMBED_DIM, 16, 1, 1])];
            MaskDownscaling { convolutions, norms: [pair("1", &[4]), pair("4", &[16])] }
        })
    }

    /// `[K, 4E, 4E, 1]` → `[K, E·E, 256]`.
    fn apply(&self, g: &mut Graph, mask: Tensor) -> Result<Tensor, GraphError> {
        let mut x = mask;
        for ((weight, bias), norm) in self.convolutions.iter().zip(self.norms.iter().map(Some).chain([None]))
        {
            let stride = if norm.is_some() { 2 } else { 1 };
            x = g.conv2d(x, *weight, Some(*bias), stride, Padding::default(), 1)?;
            if let Some((gamma, beta)) = norm {
                x = g.layer_norm(x, *gamma, *beta, 1e-6)?;
                x = g.unary(UnaryOp::Gelu, x)?;
            }
        }
        let (k, h, w) = (g.shape(x)[0], g.shape(x)[1], g.shape(x)[2]);
        g.reshape(x, [k, h * w, EMBED_DIM])
    }
}
