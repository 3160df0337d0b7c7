//! What a plan for CUDA has that others have not: its chains.
//!
//! - `chains`: small linear layers in turn, and layers with the norm of their result.
//! - `expression`: elementwise functions that only feed each other.

mod chains;
mod expression;

pub(super) use chains::MAX_LAYERS;
pub(super) use expression::{Expression, MAX_LEAVES, MAX_STEPS, Value};

use crate::compile::{self, Chains, Storage};
use crate::graph::Graph;

pub(super) type Plan = compile::Plan<Chain>;
pub(super) type Step = compile::Step<Chain>;

/// Nodes that run as one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chain {
    /// A few small linear layers, perhaps with a sum before them and a layer norm after.
    Perceptron,
    /// A layer with many rows and the layer norm of its result.
    Normed,
    /// Elementwise functions with slices and reshapes: an [`Expression`].
    Elementwise,
}

/// All chains of a graph. `free` marks nodes that take no work anyway.
pub(super) fn chains(graph: &Graph, storage: &[Storage], free: &[bool]) -> Chains<Chain> {
    let mut taken = vec![false; graph.nodes().len()];
    let mut chains = vec![None; graph.nodes().len()];
    expression::add_expressions(graph, free, &mut taken, &mut chains);
    chains::add_small_perceptrons(graph, storage, &mut taken, &mut chains);
    chains::add_normed(graph, storage, &mut taken, &mut chains);
    chains
}
