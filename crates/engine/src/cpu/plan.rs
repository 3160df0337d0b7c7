//! What a plan for the CPU is: layers whose results only the next layer reads run as one step, so that the wide tensor
//! between them never leaves the cache.

use crate::compile::layers::{ends_well, is_pointwise, plain};
use crate::compile::rewrite::Links;
use crate::compile::{self, Chains, Storage, Target};
use crate::graph::{Graph, Node, Op, Tensor};
use crate::tensor::DType;

pub(super) type Plan = compile::Plan<Chain>;
pub(super) type Step = compile::Step<Chain>;

/// Layers that run as one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chain {
    /// Two linear layers, as in a transformer.
    Perceptron,
    /// 1x1, depthwise, 1x1 convolution: the inverted bottleneck of Sandler et al. 2018.
    Bottleneck,
}

/// Steps in order, features in f32.
pub(super) struct CpuTarget;

impl Target for CpuTarget {
    type Chain = Chain;
    fn chains(&self, graph: &Graph, _: &[Storage], _: &[bool]) -> Chains<Chain> {
        find(graph)
    }
    fn scratch(&self, graph: &Graph, _: &[Storage], node: &Node) -> Vec<(DType, usize)> {
        // The engine's own ops need none here.
        let Op::Custom(op) = &node.op else { return Vec::new() };
        op.scratch(&graph.types_of(&node.inputs))
    }
}

/// Rows below which two layers in turn, each spread over all threads by columns, are faster.
const MIN_ROWS: usize = 128;

/// Channels above which a strip of a bottleneck's middle no longer fits in the cache.
const MAX_CHANNELS: usize = 1024;

/// For each node that ends a chain: what it is, and its nodes in order. No node is in two chains.
fn find(graph: &Graph) -> Chains<Chain> {
    let links = Links::of(graph);
    let mut chains: Chains<Chain> = vec![None; graph.nodes().len()];
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

fn is_depthwise(graph: &Graph, node: &Node) -> bool {
    let weight = graph.shape(node.inputs[1]);
    matches!(node.op, Op::Conv2d { groups, .. } if groups == weight[0] && weight[1] == 1)
        && weight[0] <= MAX_CHANNELS
        && weight[2].max(weight[3]) <= 7
}
