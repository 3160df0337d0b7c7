//! Layers with their parameters.

use ultramotion_engine::graph::{Graph, GraphError, Tensor, UnaryOp};

use crate::parameters::Parameters;

/// Layer norm over channels: `name.weight`, `name.bias`.
pub(super) fn layer_norm(
    g: &mut Graph,
    p: &mut Parameters<'_>,
    name: &str,
    x: Tensor,
    epsilon: f32,
) -> Result<Tensor, GraphError> {
    let channels = g.shape(x).cols();
    p.scoped(name, |p| {
        let (weight, bias) = (p.constant(g, "weight", &[channels]), p.constant(g, "bias", &[channels]));
        g.layer_norm(x, weight, bias, epsilon)
    })
}

/// Linear layer with bias: `name.weight`, `name.bias`.
pub(super) fn linear(
    g: &mut Graph,
    p: &mut Parameters<'_>,
    name: &str,
    x: Tensor,
    outputs: usize,
) -> Result<Tensor, GraphError> {
    let inputs = g.shape(x).cols();
    p.scoped(name, |p| {
        let (weight, bias) = (p.constant(g, "weight", &[outputs, inputs]), p.constant(g, "bias", &[outputs]));
        g.linear(x, weight, Some(bias))
    })
}

/// Linear layers with ReLU between them: `layers.0`, `layers.1`, …
pub(super) fn perceptron(
    g: &mut Graph,
    p: &mut Parameters<'_>,
    x: Tensor,
    widths: &[usize],
) -> Result<Tensor, GraphError> {
    let mut x = x;
    for (i, &width) in widths.iter().enumerate() {
        x = linear(g, p, &format!("layers.{i}"), x, width)?;
        if i + 1 < widths.len() {
            x = g.unary(UnaryOp::Relu, x)?;
        }
    }
    Ok(x)
}
