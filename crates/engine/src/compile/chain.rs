//! Layers whose results only the next layer reads run as one step: the wide tensor between them never leaves the
//! cache.

use super::precision::Storage;
use super::rewrite::{Links, constant};
use crate::graph::{BinaryOp, Graph, Node, Op, Padding, Tensor, UnaryOp};

/// What a chain computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chain {
    /// Linear layers: on the CPU two, as in a transformer; on a GPU a few small ones.
    Perceptron,
    /// 1x1, depthwise, 1x1 convolution: the inverted bottleneck of Sandler et al. 2018.
    Bottleneck,
    /// A layer with many rows and the layer norm of its result, for a GPU.
    Normed,
    /// Elementwise functions with slices and reshapes: an [`Expression`](super::Expression).
    Elementwise,
}

/// Rows below which two layers in turn, each spread over all threads by columns, are faster.
const MIN_ROWS: usize = 128;

/// Channels above which a strip of a bottleneck's middle no longer fits in the cache.
const MAX_CHANNELS: usize = 1024;

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
                if plain(graph, &links, previous) && graph.shape(node.outputs[0]).rows() >= MIN_ROWS =>
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

/// Most linear layers of a chain for a GPU, their most rows, channels, and weights in all: beyond, a launch for each costs less
/// than that every block reads all weights.
pub(crate) const MAX_LAYERS: usize = 3;
const MAX_ROWS: usize = 1024;
const MAX_WIDTH: usize = 512;
const MAX_WEIGHTS: usize = 180_000;

/// Adds small linear layers in turn that read f16, for a GPU, with a sum before the first and a layer norm after the last, to what
/// [`find`] gives. Nodes that are `taken` are left alone, and those of new chains are taken.
pub(crate) fn add_small_perceptrons(
    graph: &Graph,
    storage: &[Storage],
    taken: &mut [bool],
    chains: &mut [Option<(Chain, Vec<usize>)>],
) {
    let links = Links::of(graph);
    let nodes = graph.nodes();
    for last in (0..nodes.len()).rev().filter(|&n| !nodes[n].outputs.is_empty()) {
        let found = small_perceptron(graph, &links, storage, taken, last);
        if found.len() > 1 {
            found.iter().for_each(|&n| taken[n] = true);
            chains[last] = Some((Chain::Perceptron, found));
        }
    }
}

/// The chain that ends with the node `last`, in order.
fn small_perceptron(
    graph: &Graph,
    links: &Links,
    storage: &[Storage],
    taken: &[bool],
    last: usize,
) -> Vec<usize> {
    let nodes = graph.nodes();
    let is_f16 = |tensor: Tensor| storage[tensor.0 as usize] == Storage::F16;
    // The node before, if nobody else reads its result.
    let before = |node: usize| {
        let input = *nodes[node].inputs.first()?;
        links.producer(input).filter(|&n| links.uses(input) == 1 && !taken[n])
    };
    // Sizes of a layer's weights.
    let size = |node: usize| match nodes[node].op {
        Op::Linear { .. } => {
            let weights = graph.shape(nodes[node].inputs[1]);
            weights.dims().iter().all(|&n| n <= MAX_WIDTH).then(|| weights.numel())
        }
        _ => None,
    };
    let mut found = Vec::new();
    let mut layer = last;
    if matches!(nodes[last].op, Op::LayerNorm { activation: None, .. }) {
        found.push(last);
        let Some(linear) = before(last) else { return Vec::new() };
        layer = linear;
    }
    let few = graph.shape(nodes[last].outputs[0]).rows() <= MAX_ROWS;
    let fits = few && !taken[last] && ends_well(graph, links, &nodes[layer]);
    let Some(mut weights) = size(layer).filter(|&n| fits && n <= MAX_WEIGHTS) else { return Vec::new() };
    found.push(layer);
    let mut layers = 1;
    while let Some((next, more)) = before(layer).and_then(|n| Some((n, size(n)?))) {
        if layers == MAX_LAYERS || weights + more > MAX_WEIGHTS || !plain(graph, links, &nodes[next]) {
            break;
        }
        // What the first layer reads decides on the type that all compute in.
        if !is_f16(nodes[next].inputs[0]) {
            break;
        }
        found.push(next);
        (layer, layers, weights) = (next, layers + 1, weights + more);
    }
    if !is_f16(nodes[layer].inputs[0]) {
        return Vec::new();
    }
    found.extend(before(layer).filter(|&sum| {
        let node = &nodes[sum];
        matches!(node.op, Op::Binary(BinaryOp::Add))
            && node.inputs.iter().all(|&t| is_f16(t) && graph.shape(t) == graph.shape(node.outputs[0]))
    }));
    found.reverse();
    found
}

/// Columns of a result whose layer norm the kernel of the layer before can compute: of a linear layer, and of a transposed
/// convolution.
const NORMED_LINEAR: usize = 256;
const NORMED_TRANSPOSED: usize = 64;
/// Least rows of that layer's input: with fewer, tiles as wide as the result are too few to keep a GPU busy.
const MIN_NORMED_ROWS: usize = 8192;

/// Adds layers that read f16 with the layer norms of their results, for a GPU: as [`add_small_perceptrons`].
pub(crate) fn add_normed(
    graph: &Graph,
    storage: &[Storage],
    taken: &mut [bool],
    chains: &mut [Option<(Chain, Vec<usize>)>],
) {
    let links = Links::of(graph);
    for (index, norm) in graph.nodes().iter().enumerate() {
        let Op::LayerNorm { activation, .. } = norm.op else { continue };
        let x = norm.inputs[0];
        let Some(before) = links.producer(x).filter(|_| links.uses(x) == 1) else { continue };
        let layer = &graph.nodes()[before];
        let columns = match &layer.op {
            Op::Linear { .. } => NORMED_LINEAR,
            Op::Conv2d { .. } if is_pointwise(graph, layer) => NORMED_LINEAR,
            Op::ConvTranspose2d { .. } => NORMED_TRANSPOSED,
            _ => continue,
        };
        let input = layer.inputs[0];
        let fits = !taken[before]
            && !taken[index]
            && graph.shape(x).cols() == columns
            && graph.shape(input).rows() >= MIN_NORMED_ROWS
            && storage[input.0 as usize] == Storage::F16
            && !matches!(activation, Some(UnaryOp::Clamp(..)))
            && constant(graph, &links, layer.inputs[1]).is_some();
        if fits {
            (taken[before], taken[index]) = (true, true);
            chains[index] = Some((Chain::Normed, vec![before, index]));
        }
    }
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
        && weight[0] <= MAX_CHANNELS
        && weight[2].max(weight[3]) <= 7
}
