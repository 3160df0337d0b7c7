//! TinyViT-5M (Wu et al. 2022) as MobileSAM's image encoder (Zhang et al. 2023): a convolutional stem and stage, three
//! stages of window attention with local convolutions, and SAM's neck.

use ultramotion_engine::graph::{Graph, GraphError, Padding, Tensor, UnaryOp, WindowAttentionParameters};
use ultramotion_engine::tensor::HostTensor;

use super::config::{EMBED_DIM, MobileSamConfig};
use super::layers::{layer_norm, linear};
use crate::parameters::Parameters;

const DIMS: [usize; 4] = [64, 128, 160, 320];
const DEPTHS: [usize; 4] = [2, 2, 6, 2];
const HEADS: [usize; 4] = [2, 4, 5, 10];
const WINDOWS: [usize; 4] = [7, 7, 14, 7];
const EXPANSION: usize = 4;

/// Image `[1, S, S, 3]`, normalised, → image embedding `[1, S/16, S/16, 256]`.
pub fn build_encoder(
    g: &mut Graph,
    image: Tensor,
    p: &mut Parameters<'_>,
    config: &MobileSamConfig,
) -> Result<Tensor, GraphError> {
    g.scoped("image_encoder", |g| {
        p.scoped("image_encoder", |p| {
            let mut x = p.scoped("patch_embed.seq", |p| {
                let x = conv_bn(g, p, "0", image, [3, DIMS[0] / 2], 3, 2, 1)?;
                let x = g.unary(UnaryOp::Gelu, x)?;
                conv_bn(g, p, "2", x, [DIMS[0] / 2, DIMS[0]], 3, 2, 1)
            })?;
            for stage in 0..4 {
                x = g.scoped(format!("layers.{stage}"), |g| {
                    p.scoped(format!("layers.{stage}"), |p| build_stage(g, p, x, stage))
                })?;
            }
            debug_assert_eq!(g.shape(x)[1], config.embedding_size());
            g.scoped("neck", |g| p.scoped("neck", |p| neck(g, p, x)))
        })
    })
}

fn build_stage(g: &mut Graph, p: &mut Parameters<'_>, x: Tensor, stage: usize) -> Result<Tensor, GraphError> {
    let mut x = x;
    for block in 0..DEPTHS[stage] {
        x = p.scoped(format!("blocks.{block}"), |p| match stage {
            0 => mb_conv(g, p, x, DIMS[0]),
            _ => window_block(g, p, x, DIMS[stage], HEADS[stage], WINDOWS[stage]),
        })?;
    }
    match stage {
        3 => Ok(x),
        _ => p.scoped("downsample", |p| merge_patches(g, p, x, DIMS[stage], DIMS[stage + 1])),
    }
}

/// Convolution without bias, then batch norm: `name.c`, `name.bn`.
#[allow(clippy::too_many_arguments)] // the parameters of a convolution
fn conv_bn(
    g: &mut Graph,
    p: &mut Parameters<'_>,
    name: &str,
    x: Tensor,
    [c_in, c_out]: [usize; 2],
    kernel: usize,
    stride: usize,
    groups: usize,
) -> Result<Tensor, GraphError> {
    p.scoped(name, |p| {
        let weight = p.constant(g, "c.weight", &[c_out, c_in / groups, kernel, kernel]);
        let x = g.conv2d(x, weight, None, stride, Padding::same(kernel / 2), groups)?;
        let norm =
            ["bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"].map(|n| p.constant(g, n, &[c_out]));
        g.batch_norm(x, norm, 1e-5)
    })
}

/// Inverted bottleneck with a residual: expand, depthwise 3x3, project.
fn mb_conv(g: &mut Graph, p: &mut Parameters<'_>, x: Tensor, dim: usize) -> Result<Tensor, GraphError> {
    let hidden = dim * EXPANSION;
    let y = conv_bn(g, p, "conv1", x, [dim, hidden], 1, 1, 1)?;
    let y = g.unary(UnaryOp::Gelu, y)?;
    let y = conv_bn(g, p, "conv2", y, [hidden, hidden], 3, 1, hidden)?;
    let y = g.unary(UnaryOp::Gelu, y)?;
    let y = conv_bn(g, p, "conv3", y, [hidden, dim], 1, 1, 1)?;
    let y = g.add(y, x)?;
    g.unary(UnaryOp::Gelu, y)
}

/// Halves the resolution and widens the channels; into the last stage the resolution stays (SAM wants stride 16).
fn merge_patches(
    g: &mut Graph,
    p: &mut Parameters<'_>,
    x: Tensor,
    dim: usize,
    out: usize,
) -> Result<Tensor, GraphError> {
    let stride = if out == DIMS[3] { 1 } else { 2 };
    let y = conv_bn(g, p, "conv1", x, [dim, out], 1, 1, 1)?;
    let y = g.unary(UnaryOp::Gelu, y)?;
    let y = conv_bn(g, p, "conv2", y, [out, out], 3, stride, out)?;
    let y = g.unary(UnaryOp::Gelu, y)?;
    conv_bn(g, p, "conv3", y, [out, out], 1, 1, 1)
}

/// Window attention, a local depthwise convolution, and a two-layer perceptron, the first and last with residuals.
fn window_block(
    g: &mut Graph,
    p: &mut Parameters<'_>,
    x: Tensor,
    dim: usize,
    heads: usize,
    window: usize,
) -> Result<Tensor, GraphError> {
    let x = p.scoped("attn", |p| window_attention(g, p, x, dim, heads, window))?;
    let x = conv_bn(g, p, "local_conv", x, [dim, dim], 3, 1, dim)?;
    p.scoped("mlp", |p| {
        let y = layer_norm(g, p, "norm", x, 1e-5)?;
        let y = linear(g, p, "fc1", y, dim * EXPANSION)?;
        let y = g.unary(UnaryOp::Gelu, y)?;
        let y = linear(g, p, "fc2", y, dim)?;
        g.add(y, x)
    })
}

/// Self-attention inside windows of `window` x `window` pixels with learned relative biases, plus its input.
fn window_attention(
    g: &mut Graph,
    p: &mut Parameters<'_>,
    x: Tensor,
    dim: usize,
    heads: usize,
    window: usize,
) -> Result<Tensor, GraphError> {
    let area = window * window;
    let biases = relative_biases(&p.values("attention_biases", &[heads, area]), heads, window);
    let norm = [p.constant(g, "norm.weight", &[dim]), p.constant(g, "norm.bias", &[dim])];
    let weight = grouped_qkv(&p.values("qkv.weight", &[3 * dim, dim]), heads, dim);
    let bias = grouped_qkv(&p.values("qkv.bias", &[3 * dim]), heads, 1);
    let parameters = WindowAttentionParameters {
        norm,
        qkv: [
            g.constant(HostTensor::f32([3 * dim, dim], weight)),
            g.constant(HostTensor::f32([3 * dim], bias)),
        ],
        score_bias: g.constant(HostTensor::f32([heads, area, area], biases)),
        project: [p.constant(g, "proj.weight", &[dim, dim]), p.constant(g, "proj.bias", &[dim])],
    };
    g.window_attention(x, parameters, heads, window, 1e-5)
}

/// TinyViT stores q, k and v head by head (q₀ k₀ v₀ q₁ …); reordered to all q, all k, all v, so that each is a slice.
fn grouped_qkv(values: &[f32], heads: usize, row: usize) -> Vec<f32> {
    let head_rows = values.len() / row / heads / 3;
    let part = |which: usize, head: usize| &values[(head * 3 + which) * head_rows * row..][..head_rows * row];
    (0..3).flat_map(|which| (0..heads).flat_map(move |head| part(which, head))).copied().collect()
}

/// `[heads, window²]` biases by absolute offset (|Δy|, |Δx|) → `[heads, window², window²]` for every pair of pixels.
fn relative_biases(table: &[f32], heads: usize, window: usize) -> Vec<f32> {
    let area = window * window;
    let mut biases = Vec::with_capacity(heads * area * area);
    for head in 0..heads {
        for a in 0..area {
            for b in 0..area {
                let dy = (a / window).abs_diff(b / window);
                let dx = (a % window).abs_diff(b % window);
                biases.push(table[head * area + dy * window + dx]);
            }
        }
    }
    biases
}

/// 1x1 and 3x3 convolutions without bias, each with a layer norm over channels.
fn neck(g: &mut Graph, p: &mut Parameters<'_>, x: Tensor) -> Result<Tensor, GraphError> {
    let weight = p.constant(g, "0.weight", &[EMBED_DIM, DIMS[3], 1, 1]);
    let x = g.conv2d(x, weight, None, 1, Padding::default(), 1)?;
    let x = layer_norm(g, p, "1", x, 1e-6)?;
    let weight = p.constant(g, "2.weight", &[EMBED_DIM, EMBED_DIM, 3, 3]);
    let x = g.conv2d(x, weight, None, 1, Padding::same(1), 1)?;
    layer_norm(g, p, "3", x, 1e-6)
}
