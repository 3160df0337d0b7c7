//! Layers with what stands before and after them as one step: a launch costs more than a small layer's arithmetic.

use super::Chain;
use crate::compile::layers::{ends_well, is_pointwise, plain};
use crate::compile::rewrite::{Links, constant};
use crate::compile::{Chains, Storage};
use crate::graph::{BinaryOp, Graph, Op, Tensor, UnaryOp};

/// Most linear layers of a chain for a GPU, their most rows, channels, and weights in all: beyond, a launch for each costs less
/// than that every block reads all weights.
pub(crate) const MAX_LAYERS: usize = 3;
const MAX_ROWS: usize = 1024;
const MAX_WIDTH: usize = 512;
const MAX_WEIGHTS: usize = 180_000;

/// Adds small linear layers in turn that read f16, for a GPU, with a sum before the first and a layer norm after the last, to
/// `chains`. Nodes that are `taken` are left alone, and those of new chains are taken.
pub(crate) fn add_small_perceptrons(
    graph: &Graph,
    storage: &[Storage],
    taken: &mut [bool],
    chains: &mut Chains<Chain>,
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
pub(crate) fn add_normed(graph: &Graph, storage: &[Storage], taken: &mut [bool], chains: &mut Chains<Chain>) {
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
