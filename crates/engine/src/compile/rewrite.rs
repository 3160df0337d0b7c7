//! What every rewrite needs: who uses a tensor, who produces it, putting one tensor in another's place.

use crate::graph::{Graph, Node, Op, Tensor};
use crate::tensor::HostTensor;

/// Uses and producers of the tensors of a graph, as they were when this was made.
pub(crate) struct Links {
    uses: Vec<usize>,
    producer: Vec<Option<usize>>,
}

impl Links {
    pub(crate) fn of(graph: &Graph) -> Self {
        let mut links = Links { uses: vec![0; graph.types.len()], producer: vec![None; graph.types.len()] };
        for (index, node) in graph.nodes.iter().enumerate() {
            for t in &node.inputs {
                links.uses[t.0 as usize] += 1;
            }
            for t in &node.outputs {
                links.producer[t.0 as usize] = Some(index);
            }
        }
        let kept = graph.outputs.iter().map(|p| p.tensor).chain(graph.states.iter().filter_map(|s| s.next));
        let counts = graph.types.iter().filter_map(|ty| ty.rows.map(|r| r.count));
        for t in kept.chain(counts) {
            links.uses[t.0 as usize] += 1;
        }
        links
    }

    /// Number of places that read the tensor, outputs, next states and row counts included.
    pub(crate) fn uses(&self, tensor: Tensor) -> usize {
        self.uses[tensor.0 as usize]
    }

    /// The tensor is gone: nothing produces or reads it any more.
    pub(super) fn forget(&mut self, tensor: Tensor) {
        self.uses[tensor.0 as usize] = 0;
        self.producer[tensor.0 as usize] = None;
    }

    /// Another node writes the tensor now.
    pub(super) fn set_producer(&mut self, tensor: Tensor, node: usize) {
        self.producer[tensor.0 as usize] = Some(node);
    }

    /// Index of the node that writes the tensor.
    pub(crate) fn producer(&self, tensor: Tensor) -> Option<usize> {
        self.producer[tensor.0 as usize]
    }
}

/// Makes every reader of `old` read `new`.
pub(super) fn replace(graph: &mut Graph, old: Tensor, new: Tensor) {
    let swap = |t: &mut Tensor| {
        if *t == old {
            *t = new;
        }
    };
    graph.nodes.iter_mut().flat_map(|n| &mut n.inputs).for_each(swap);
    graph.outputs.iter_mut().map(|p| &mut p.tensor).for_each(swap);
    graph.states.iter_mut().filter_map(|s| s.next.as_mut()).for_each(swap);
    graph.types.iter_mut().filter_map(|ty| ty.rows.as_mut()).map(|r| &mut r.count).for_each(swap);
}

/// The constant that a tensor is, if it is one.
pub(crate) fn constant<'g>(graph: &'g Graph, links: &Links, tensor: Tensor) -> Option<&'g HostTensor> {
    match &graph.nodes[links.producer(tensor)?].op {
        Op::Constant(value) => Some(value),
        _ => None,
    }
}

/// A constant node for insertion before the nodes that read it.
pub(super) fn constant_node(graph: &mut Graph, like: &Node, value: HostTensor) -> Node {
    let ty = crate::graph::TensorType { dtype: value.dtype(), shape: value.shape().clone(), rows: None };
    let tensor = graph.tensor(ty);
    Node {
        scope: like.scope.clone(),
        stage: like.stage,
        op: Op::Constant(value),
        inputs: Vec::new(),
        outputs: vec![tensor],
    }
}

/// Puts constants at the front, where everything can read them, and drops the nodes marked dead.
pub(super) fn rebuild(graph: &mut Graph, constants: Vec<Node>, dead: &[bool]) {
    let old = std::mem::take(&mut graph.nodes);
    graph.nodes = constants;
    graph.nodes.extend(old.into_iter().enumerate().filter(|(i, _)| !dead[*i]).map(|(_, node)| node));
}
