//! Hybrid encoder (Zhao et al. 2024, arXiv:2304.08069): attention within the coarsest map, then fusion of the levels
//! top down and bottom up, with D-FINE's GELAN blocks (Wang et al. 2024, arXiv:2402.13616).

use ultramotion_engine::graph::{GraphError, Tensor, UnaryOp};

use super::config::{EncoderConfig, HEADS};
use super::layers::{Builder, Conv, Position};

/// Base of the position embedding's wavelengths.
const TEMPERATURE: f64 = 10_000.0;

/// Backbone maps, finest first → as many maps `[1, h, w, dim]` of the same sizes.
pub(super) fn encoder(
    b: &mut Builder<'_, '_>,
    features: &[Tensor],
    config: &EncoderConfig,
) -> Result<Vec<Tensor>, GraphError> {
    let dim = config.dim;
    let mut maps = Vec::new();
    for (i, &x) in features.iter().enumerate() {
        let c_in = b.g.shape(x).cols();
        maps.push(b.scoped(format!("input_proj.{i}"), |b| b.conv_norm(x, Conv::new(c_in, dim, 1), "norm"))?);
    }
    let coarsest = maps.len() - 1;
    maps[coarsest] = b.scoped("encoder.0.layers.0", |b| attend_within(b, maps[coarsest], config))?;

    // Top down: each coarser map joins the next finer one.
    let mut high = maps[coarsest];
    let mut laterals = Vec::new();
    for (i, &low) in maps[..coarsest].iter().rev().enumerate() {
        let conv = Conv::new(dim, dim, 1);
        high = b.scoped(format!("lateral_convs.{i}"), |b| b.conv_norm(high, conv, "norm"))?;
        laterals.push(high);
        high = b.scoped(format!("fpn_blocks.{i}"), |b| {
            let enlarged = b.g.upsample_nearest_2x(high)?;
            fuse(b, [enlarged, low], config)
        })?;
    }
    // Bottom up.
    let mut outputs = vec![high];
    for (i, &lateral) in laterals.iter().rev().enumerate() {
        let finer = outputs[i];
        let reduced = b.scoped(format!("downsample_convs.{i}.0"), |b| {
            let x = b.scoped("cv1", |b| b.conv_norm(finer, Conv::new(dim, dim, 1), "norm"))?;
            let conv = Conv::new(dim, dim, 3).stride(2).depthwise();
            b.scoped("cv2", |b| b.conv_norm(x, conv, "norm"))
        })?;
        outputs.push(b.scoped(format!("pan_blocks.{i}"), |b| fuse(b, [reduced, lateral], config))?);
    }
    Ok(outputs)
}

/// One post-norm transformer layer over the pixels of a map.
fn attend_within(b: &mut Builder<'_, '_>, map: Tensor, config: &EncoderConfig) -> Result<Tensor, GraphError> {
    let shape = b.g.shape(map).clone();
    let (h, w, dim) = (shape[1], shape[2], config.dim);
    let x = b.g.reshape(map, [h * w, dim])?;
    let position = Position::Known(sincos_position(h, w, dim));
    let x = b.scoped("self_attn", |b| b.self_attention(x, position, dim, HEADS))?;
    let x = b.scoped("norm1", |b| b.layer_norm(x, dim))?;
    let y = b.scoped("linear1", |b| b.linear(x, dim, config.feed_forward))?;
    let y = b.g.unary(UnaryOp::Gelu, y)?;
    let y = b.scoped("linear2", |b| b.linear(y, config.feed_forward, dim))?;
    let x = b.g.add(x, y)?;
    let x = b.scoped("norm2", |b| b.layer_norm(x, dim))?;
    b.g.reshape(x, shape)
}

/// Position embedding `[h · w, dim]`: sine and cosine of the first coordinate, then of the second.
///
/// Checkpoints are trained with a grid that runs column by column while the tokens run row by row; on a square map
/// this only swaps x and y, on others it is what the weights expect.
fn sincos_position(h: usize, w: usize, dim: usize) -> Vec<f32> {
    let quarter = dim / 4;
    let omega: Vec<f64> = (0..quarter).map(|i| TEMPERATURE.powf(-(i as f64) / quarter as f64)).collect();
    let mut values = Vec::with_capacity(h * w * dim);
    for token in 0..h * w {
        for coordinate in [token / h, token % h] {
            values.extend(omega.iter().map(|o| (coordinate as f64 * o).sin() as f32));
            values.extend(omega.iter().map(|o| (coordinate as f64 * o).cos() as f32));
        }
    }
    values
}

/// GELAN fusion of two maps of `dim` channels into one.
fn fuse(b: &mut Builder<'_, '_>, maps: [Tensor; 2], config: &EncoderConfig) -> Result<Tensor, GraphError> {
    let (dim, csp_dim) = (config.dim, config.csp_dim);
    let joined = b.g.concat(&maps, 3)?;
    let first = b.scoped("cv1", |b| b.conv_norm_silu(joined, Conv::new(2 * dim, 2 * dim, 1)))?;
    let half = b.g.slice(first, 3, dim, dim)?;
    let second = b.scoped("cv2", |b| csp_and_conv(b, half, dim, config))?;
    let third = b.scoped("cv3", |b| csp_and_conv(b, second, csp_dim, config))?;
    let joined = b.g.concat(&[first, second, third], 3)?;
    b.scoped("cv4", |b| b.conv_norm_silu(joined, Conv::new(2 * dim + 2 * csp_dim, dim, 1)))
}

/// A cross-stage-partial block of RepVGG blocks and a 3 x 3 convolution.
fn csp_and_conv(
    b: &mut Builder<'_, '_>,
    x: Tensor,
    c_in: usize,
    config: &EncoderConfig,
) -> Result<Tensor, GraphError> {
    let dim = config.csp_dim;
    let y = b.scoped("0", |b| {
        let mut deep = b.scoped("conv1", |b| b.conv_norm_silu(x, Conv::new(c_in, dim, 1)))?;
        for i in 0..config.csp_blocks {
            deep = b.scoped(format!("bottlenecks.{i}"), |b| repvgg(b, deep, dim))?;
        }
        let short = b.scoped("conv2", |b| b.conv_norm_silu(x, Conv::new(c_in, dim, 1)))?;
        b.g.add(deep, short)
    })?;
    b.scoped("1", |b| b.conv_norm_silu(y, Conv::new(dim, dim, 3)))
}

/// A 3 x 3 and a 1 x 1 convolution side by side (Ding et al. 2021, arXiv:2101.03697): one convolution once compiled.
fn repvgg(b: &mut Builder<'_, '_>, x: Tensor, dim: usize) -> Result<Tensor, GraphError> {
    let wide = b.scoped("conv1", |b| b.conv_norm(x, Conv::new(dim, dim, 3), "norm"))?;
    let point = b.scoped("conv2", |b| b.conv_norm(x, Conv::new(dim, dim, 1), "norm"))?;
    let sum = b.g.add(wide, point)?;
    b.g.unary(UnaryOp::Silu, sum)
}
