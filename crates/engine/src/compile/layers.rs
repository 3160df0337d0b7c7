//! Layers that may stand in a chain: what the backends' finders of chains have in common.

use super::rewrite::{Links, constant};
use crate::graph::{Graph, Node, Op, Padding};

/// Constant weights, and no residual: a layer inside a chain.
pub(crate) fn plain(graph: &Graph, links: &Links, node: &Node) -> bool {
    let no_residual = match &node.op {
        Op::Linear { epilogue, .. } | Op::Conv2d { epilogue, .. } => !epilogue.residual,
        _ => false,
    };
    no_residual && node.inputs[1..].iter().all(|&t| constant(graph, links, t).is_some())
}

/// Constant weights, and if there is a residual it covers the whole result: the last layer of a chain.
pub(crate) fn ends_well(graph: &Graph, links: &Links, node: &Node) -> bool {
    let (Op::Linear { bias, epilogue } | Op::Conv2d { bias, epilogue, .. }) = &node.op else { return false };
    let weights = 2 + usize::from(*bias);
    let residual = node.inputs.get(weights).map(|&t| graph.shape(t));
    epilogue.residual == residual.is_some()
        && residual.is_none_or(|shape| shape == graph.shape(node.outputs[0]))
        && node.inputs[1..weights].iter().all(|&t| constant(graph, links, t).is_some())
}

/// A convolution that is a linear layer of its pixels.
pub(crate) fn is_pointwise(graph: &Graph, node: &Node) -> bool {
    matches!(node.op, Op::Conv2d { stride: [1, 1], padding, groups: 1, .. } if padding == Padding::default())
        && graph.shape(node.inputs[1]).dims()[2..] == [1, 1]
}
