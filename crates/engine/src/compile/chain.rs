//! Layers whose results only the next layer reads run as one step: the wide tensor between them never leaves the
//! cache.

use super::rewrite::{Links, constant};
use crate::graph::{Graph, Node, Op, Padding, Tensor};

/// What a chain computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chain {
    /// Linear, linear: the perceptron of a transformer.
    Perceptron,
    /// 1x1, depthwise, 1x1 convolution: the inverted bottleneck of Sandler et al. 2018.
    Bottleneck,
    /// Elementwise functions with slices and reshapes: an [`Expression`](super::Expression).
    Elementwise,
}

/// Rows below which two layers in turn, each spread over all threads by columns, are faster.
const LEAST_ROWS: usize = 128;

/// Channels above which a strip of a bottleneck's middle no longer fits in the cache.
const MOST_CHANNELS: usize = 1024;

/// For each node that ends a chain: what it is, and its nodes in order. No node is in two chains.
pub(crate) fn find(graph: &Graph) -> Vec<Option<(Chain, Vec<usize>)>> {
    let links = Links::of(graph);
    let mut chains: Vec<Option<(Chain, Vec<usize>)>> = vec![None; graph.nodes().len()];
    for (index, node) in graph.nodes().iter().enumerate() {
        let only_reader = |tensor: Tensor| links.producer(tensor).filter(|_| links.uses(tensor) == 1);
        let Some(before) = node.inputs.first().and_then(|&t| only_reader(t)) else { continue };
        if chains[before].is_some() || !ends_well(graph, &links, node) {
            continue;
        }
        let previous = &graph.nodes()[before];
        chains[index] = match (&previous.op, &node.op) {
            (Op::Linear { .. }, Op::Linear { .. })
                if plain(graph, &links, previous) && graph.shape(node.outputs[0]).rows() >= LEAST_ROWS =>
            {
                Some((Chain::Perceptron, vec![before, index]))
            }
            (Op::Conv2d { groups, .. }, Op::Conv2d { .. })
                if *groups > 1
                    && is_depthwise(graph, previous)
                    && plain(graph, &links, previous)
                    && is_pointwise(graph, node) =>
            {
                only_reader(previous.inputs[0])
                    .filter(|&first| {
                        let expand = &graph.nodes()[first];
                        is_pointwise(graph, expand) && plain(graph, &links, expand) && chains[first].is_none()
                    })
                    .map(|first| (Chain::Bottleneck, vec![first, before, index]))
            }
            _ => None,
        };
    }
    chains
}

/// Constant weights, and no residual: a layer inside a chain.
fn plain(graph: &Graph, links: &Links, node: &Node) -> bool {
    let no_residual = match &node.op {
        Op::Linear { epilogue, .. } | Op::Conv2d { epilogue, .. } => !epilogue.residual,
        _ => false,
    };
    no_residual && node.inputs[1..].iter().all(|&t| constant(graph, links, t).is_some())
}

/// Constant weights, and if there is a residual it covers the whole result: the last layer of a chain.
fn ends_well(graph: &Graph, links: &Links, node: &Node) -> bool {
    let (Op::Linear { bias, epilogue } | Op::Conv2d { bias, epilogue, .. }) = &node.op else { return false };
    let weights = 2 + usize::from(*bias);
    let residual = node.inputs.get(weights).map(|&t| graph.shape(t));
    epilogue.residual == residual.is_some()
        && residual.is_none_or(|shape| shape == graph.shape(node.outputs[0]))
        && node.inputs[1..weights].iter().all(|&t| constant(graph, links, t).is_some())
}

fn is_pointwise(graph: &Graph, node: &Node) -> bool {
    matches!(node.op, Op::Conv2d { stride: [1, 1], padding, groups: 1, .. } if padding == Padding::default())
        && graph.shape(node.inputs[1]).dims()[2..] == [1, 1]
}

fn is_depthwise(graph: &Graph, node: &Node) -> bool {
    let weight = graph.shape(node.inputs[1]);
    matches!(node.op, Op::Conv2d { groups, .. } if groups == weight[0] && weight[1] == 1)
        && weight[0] <= MOST_CHANNELS
        && weight[2].max(weight[3]) <= 7
}
