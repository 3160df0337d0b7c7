//! D-FINE's decoder: the best tokens of the encoder become queries, and each layer refines their boxes.

use ultramotion_engine::graph::{GraphError, ReduceOp, Tensor, UnaryOp};

use super::anchors::Anchors;
use super::config::{DecoderConfig, DfineConfig, HEADS};
use super::distribution::{EdgeScale, quality};
use super::integral::box_integral;
use super::layers::{Builder, Conv, Position};

/// `inverse_sigmoid` of the official code keeps its argument from 0 and 1 by this much.
const INVERSE_SIGMOID_EPSILON: f32 = 1e-5;
/// Bound of a query's position embedding.
const POSITION_BOUND: f32 = 10.0;
/// Bound of a layer's result before its last norm: the largest number of half precision.
const HALF_MAX: f32 = 65504.0;
/// Offsets of sampling points are in halves of the query's box.
const OFFSET_SCALE: f32 = 0.5;

/// Encoder maps, finest first → logits `[Q, classes]` and boxes (cx, cy, w, h) `[Q, 4]` as shares of the image.
pub(super) fn decoder(
    b: &mut Builder<'_, '_>,
    maps: &[Tensor],
    config: &DfineConfig,
) -> Result<[Tensor; 2], GraphError> {
    let memory = tokens(b, maps, &config.decoder)?;
    let queries = select(b, memory, config)?;
    refine(b, memory, queries, config)
}

/// The maps' pixels one after another, at the decoder's width: `[L, dim]`.
fn tokens(b: &mut Builder<'_, '_>, maps: &[Tensor], config: &DecoderConfig) -> Result<Tensor, GraphError> {
    let mut parts = Vec::new();
    for (i, &map) in maps.iter().enumerate() {
        let shape = b.g.shape(map).clone();
        let map = if shape[3] == config.dim {
            map
        } else {
            let conv = Conv::new(shape[3], config.dim, 1);
            b.scoped(format!("input_proj.{i}"), |b| b.conv_norm(map, conv, "norm"))?
        };
        parts.push(b.g.reshape(map, [shape[1] * shape[2], config.dim])?);
    }
    b.g.concat(&parts, 0)
}

/// Queries before the first layer.
#[derive(Clone, Copy)]
struct Queries {
    /// `[Q, dim]`
    content: Tensor,
    /// Logits of (cx, cy, w, h), `[Q, 4]`.
    box_logits: Tensor,
}

/// Query selection: the tokens with the best class score, whichever the class.
fn select(b: &mut Builder<'_, '_>, memory: Tensor, config: &DfineConfig) -> Result<Queries, GraphError> {
    let dim = config.decoder.dim;
    let anchors = Anchors::new(&config.levels_hw());
    let mut memory = memory;
    if !anchors.all_used() {
        let used = b.constant(&[anchors.len(), 1], anchors.used.clone());
        memory = b.g.mul(memory, used)?;
    }
    let content = b.scoped("enc_output", |b| {
        let x = b.scoped("proj", |b| b.linear(memory, dim, dim))?;
        b.scoped("norm", |b| b.layer_norm(x, dim))
    })?;
    let chosen = b.scoped("enc_score_head", |b| {
        let logits = b.linear(content, dim, config.num_classes)?;
        let best = if config.num_classes == 1 { logits } else { b.g.reduce(ReduceOp::Max, logits)? };
        let best = b.g.reshape(best, [anchors.len()])?;
        Ok(b.g.top_k(best, config.queries())?.1)
    })?;
    // Boxes are only needed for the chosen tokens.
    b.scoped("enc_bbox_head", |b| {
        let content = b.g.gather(content, chosen)?;
        let change = b.mlp(&[dim, dim, dim, 4]).apply(b.g, content)?;
        let anchors = b.constant(&[anchors.len(), 4], anchors.logits_cxcywh);
        let anchors = b.g.gather(anchors, chosen)?;
        Ok(Queries { content, box_logits: b.g.add(change, anchors)? })
    })
}

/// The decoder's layers and heads.
fn refine(
    b: &mut Builder<'_, '_>,
    memory: Tensor,
    queries: Queries,
    config: &DfineConfig,
) -> Result<[Tensor; 2], GraphError> {
    let DecoderConfig { dim, layers, reg_max, .. } = config.decoder;
    let bins = reg_max + 1;
    let scale = EdgeScale::read(b, &config.decoder);
    let offsets = b.constant(&[bins], scale.offsets(reg_max));
    let position_head = b.scoped("query_pos_head", |b| b.mlp(&[4, 2 * dim, dim]));

    let mut x = queries.content;
    let mut boxes = b.g.unary(UnaryOp::Sigmoid, queries.box_logits)?;
    let mut initial = None;
    let mut previous: Option<Refined> = None;
    for i in 0..layers {
        let position = b.g.scoped(format!("query_pos_head.{i}"), |g| {
            let position = position_head.apply(g, boxes)?;
            g.unary(UnaryOp::Clamp(-POSITION_BOUND, POSITION_BOUND), position)
        })?;
        let before = x;
        x =
            b.scoped(format!("decoder.layers.{i}"), |b| layer(b, [before, position, boxes, memory], config))?;
        let initial = match initial {
            Some(initial) => initial,
            None => {
                *initial.insert(b.scoped("pre_bbox_head", |b| initial_boxes(b, x, queries.box_logits, dim))?)
            }
        };
        let refined = b.scoped(format!("dec_bbox_head.{i}"), |b| {
            let input = previous.map_or(Ok(x), |p| b.g.add(x, p.content))?;
            let mut edge_logits = b.mlp(&[dim, dim, dim, 4 * bins]).apply(b.g, input)?;
            if let Some(previous) = previous {
                edge_logits = b.g.add(edge_logits, previous.edge_logits)?;
            }
            let boxes = box_integral(b.g, edge_logits, initial, offsets)?;
            Ok(Refined { content: x, edge_logits, boxes })
        })?;
        boxes = refined.boxes;
        previous = Some(refined);
    }
    let last = previous.ok_or_else(|| GraphError::Op {
        op: "dfine".into(),
        at: "decoder".into(),
        reason: "a decoder needs at least one layer".into(),
    })?;
    let logits =
        b.scoped(format!("dec_score_head.{}", layers - 1), |b| b.linear(x, dim, config.num_classes))?;
    let logits = b.scoped(format!("decoder.lqe_layers.{}", layers - 1), |b| {
        let quality = quality(b, last.edge_logits)?;
        b.g.add(logits, quality)
    })?;
    Ok([logits, last.boxes])
}

/// What one layer leaves for the next.
#[derive(Clone, Copy)]
struct Refined {
    /// `[Q, dim]`
    content: Tensor,
    /// `[Q, 4 · (reg_max + 1)]`, accumulated over the layers.
    edge_logits: Tensor,
    /// `[Q, 4]`
    boxes: Tensor,
}

/// Boxes (cx, cy, w, h) `[Q, 4]` after the first layer, which distributions refer to: `sigmoid(head(x) + inverse_sigmoid(reference))`. As the reference is the sigmoid of
/// known logits, its inverse is these logits within the bounds that epsilon sets.
fn initial_boxes(
    b: &mut Builder<'_, '_>,
    x: Tensor,
    box_logits: Tensor,
    dim: usize,
) -> Result<Tensor, GraphError> {
    let change = b.mlp(&[dim, dim, dim, 4]).apply(b.g, x)?;
    let bound = -INVERSE_SIGMOID_EPSILON.ln();
    let reference = b.g.unary(UnaryOp::Clamp(-bound, bound), box_logits)?;
    let logits = b.g.add(change, reference)?;
    b.g.unary(UnaryOp::Sigmoid, logits)
}

/// One decoder layer: self-attention, deformable attention into the memory through a gate, feed-forward.
fn layer(
    b: &mut Builder<'_, '_>,
    [x, position, boxes, memory]: [Tensor; 4],
    config: &DfineConfig,
) -> Result<Tensor, GraphError> {
    let DecoderConfig { dim, feed_forward, .. } = config.decoder;
    let x = b.scoped("self_attn", |b| b.self_attention(x, Position::Computed(position), dim, HEADS))?;
    let x = b.scoped("norm1", |b| b.layer_norm(x, dim))?;
    let sampled = b.scoped("cross_attn", |b| {
        let query = b.g.add(x, position)?;
        deformable_attention(b, query, boxes, memory, config)
    })?;
    let x = b.scoped("gateway", |b| gateway(b, x, sampled, dim))?;
    let y = b.scoped("linear1", |b| b.linear(x, dim, feed_forward))?;
    let y = b.g.unary(UnaryOp::Relu, y)?;
    let y = b.scoped("linear2", |b| b.linear(y, feed_forward, dim))?;
    let x = b.g.add(x, y)?;
    let x = b.g.unary(UnaryOp::Clamp(-HALF_MAX, HALF_MAX), x)?;
    b.scoped("norm3", |b| b.layer_norm(x, dim))
}

/// Deformable attention without projections of values and result (D-FINE, section 4.3): a level's values are its
/// tokens, so they are shared by all layers.
fn deformable_attention(
    b: &mut Builder<'_, '_>,
    query: Tensor,
    boxes: Tensor,
    memory: Tensor,
    config: &DfineConfig,
) -> Result<Tensor, GraphError> {
    let DecoderConfig { dim, points: points_per_level, .. } = config.decoder;
    let points: usize = points_per_level.iter().sum();
    let total = HEADS * points;

    // Each point's share of the box is a constant factor: it goes into the layer that predicts offsets.
    let published = || points_per_level.iter().flat_map(|&n| vec![1.0 / n as f32; n]).collect();
    let share: Vec<f32> = b.p.optional("num_points_scale", &[points]).unwrap_or_else(published);
    let factor = |row: usize| share[row / 2 % points] * OFFSET_SCALE;
    let offsets = b.scoped("sampling_offsets", |b| {
        let mut weight = b.p.values("weight", &[2 * total, dim]);
        weight.iter_mut().enumerate().for_each(|(i, w)| *w *= factor(i / dim));
        let mut bias = b.p.values("bias", &[2 * total]);
        bias.iter_mut().enumerate().for_each(|(i, v)| *v *= factor(i));
        let (weight, bias) = (b.constant(&[2 * total, dim], weight), b.constant(&[2 * total], bias));
        b.g.linear(query, weight, Some(bias))
    })?;
    let logits = b.scoped("attention_weights", |b| b.linear(query, dim, total))?;
    let inputs = [memory, offsets, logits, boxes];
    b.g.deformable_attention(inputs, HEADS, &config.levels_hw(), points_per_level)
}

/// Target gating layer (D-FINE, section 4.3): how much to keep of a query, and how much of what it sampled.
fn gateway(b: &mut Builder<'_, '_>, kept: Tensor, sampled: Tensor, dim: usize) -> Result<Tensor, GraphError> {
    let joined = b.g.concat(&[kept, sampled], 1)?;
    let gates = b.scoped("gate", |b| b.linear(joined, 2 * dim, 2 * dim))?;
    let gates = b.g.unary(UnaryOp::Sigmoid, gates)?;
    // Both gates act at once on the joined halves, which are then added.
    let gated = b.g.mul(gates, joined)?;
    let (first, second) = (b.g.slice(gated, 1, 0, dim)?, b.g.slice(gated, 1, dim, dim)?);
    let x = b.g.add(first, second)?;
    b.scoped("norm", |b| b.layer_norm(x, dim))
}
