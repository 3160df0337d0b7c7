//! How wide each tensor is stored: f16 where a network's features are, f32 where D-FINE and MobileSAM are known to break
//! in f16 (the distribution integral, box decoding, sampling coordinates, softmax and its statistics, costs).

use super::facts::facts;
use super::place::Places;
use crate::graph::{Graph, Node, Op, Tensor};
use crate::tensor::DType;

/// Element type in device memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Storage {
    F32,
    F16,
    I32,
    U8,
}

impl Storage {
    /// What the host has: no narrowing.
    pub(crate) fn of(dtype: DType) -> Storage {
        match dtype {
            DType::F32 => Storage::F32,
            DType::I32 => Storage::I32,
            DType::U8 => Storage::U8,
        }
    }
    /// Bytes of one element.
    pub(crate) fn size(self) -> usize {
        match self {
            Storage::F32 | Storage::I32 => 4,
            Storage::F16 => 2,
            Storage::U8 => 1,
        }
    }
}

/// Gives layers that read an f32 input or state a copy of it that may be narrow. Returns the nodes that copy, which have
/// to be computed although they look like views.
pub(super) fn cast_ports(graph: &mut Graph) -> Vec<usize> {
    let ports = graph.inputs.iter().map(|p| p.tensor).chain(graph.states.iter().map(|s| s.current));
    let ports: Vec<Tensor> = ports.filter(|&t| graph.ty(t).dtype == DType::F32).collect();
    let mut casts = Vec::new();
    for port in ports {
        let takes_copy =
            |node: &Node, argument: usize| node.inputs[argument] == port && !reads_f32(&node.op, argument);
        let first = graph.nodes.iter().find(|n| (0..n.inputs.len()).any(|a| takes_copy(n, a)));
        let Some((scope, stage)) = first.map(|n| (n.scope.clone(), n.stage)) else { continue };
        let copy = graph.tensor(graph.ty(port).clone());
        for node in &mut graph.nodes {
            for argument in 0..node.inputs.len() {
                if takes_copy(node, argument) {
                    node.inputs[argument] = copy;
                }
            }
        }
        casts.push(Node { scope, stage, op: Op::Reshape, inputs: vec![port], outputs: vec![copy] });
    }
    let count = casts.len();
    graph.nodes.splice(0..0, casts);
    (0..count).collect()
}

/// Storage of every tensor. Tensors that share a buffer share its width.
pub(super) fn choose(graph: &Graph, places: &Places) -> Vec<Storage> {
    let root = |t: Tensor| places.placement(graph, t).root.0 as usize;
    // Inputs, states and constants come as they are, and so does every view of them.
    let mut wide = vec![true; graph.types.len()];
    for node in graph.nodes.iter().filter(|n| !matches!(n.op, Op::Constant(_))) {
        for &t in node.outputs.iter().filter(|t| root(**t) == t.0 as usize) {
            wide[t.0 as usize] = false;
        }
    }
    for node in &graph.nodes {
        for (argument, &t) in node.inputs.iter().enumerate() {
            wide[root(t)] |= reads_f32(&node.op, argument);
        }
        for &t in &node.outputs {
            wide[root(t)] |= facts(&node.op).f32.results;
        }
    }
    (0..graph.types.len())
        .map(|t| match Storage::of(graph.types[t].dtype) {
            Storage::F32 if !wide[root(Tensor(t as u32))] => Storage::F16,
            other => other,
        })
        .collect()
}

fn reads_f32(op: &Op, argument: usize) -> bool {
    facts(op).f32.arguments.include(argument, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::{Chains, Plan, Step, Target, optimise};
    use crate::graph::Padding;
    use crate::tensor::HostTensor;

    struct Narrow;

    impl Target for Narrow {
        type Chain = ();
        fn f16(&self) -> bool {
            true
        }
        fn chains(&self, graph: &Graph, _: &[Storage], _: &[bool]) -> Chains<()> {
            vec![None; graph.nodes().len()]
        }
        fn scratch(&self, _: &Graph, _: &[Storage], _: &Node) -> Vec<(DType, usize)> {
            Vec::new()
        }
    }

    #[test]
    fn features_are_narrow_and_distributions_wide() {
        let mut g = Graph::new("precision");
        let x = g.input("x", DType::F32, [1, 4, 4, 8]).expect("an input");
        let w = g.constant(HostTensor::zeros(DType::F32, [8, 8, 3, 3]));
        let features = g.conv2d(x, w, None, 1, Padding::same(1), 1).expect("fits");
        let logits = g.conv2d(features, w, None, 1, Padding::same(1), 1).expect("fits");
        let probabilities = g.softmax(logits).expect("fits");
        let constant = g.constant(HostTensor::zeros(DType::F32, [4, 8]));
        let part = g.slice(constant, 0, 0, 2).expect("fits");
        let rows = g.reshape(x, [16, 8]).expect("fits");
        let rows = g.slice(rows, 0, 0, 2).expect("fits");
        let sum = g.add(rows, part).expect("fits");
        g.output("features", features).expect("named once");
        g.output("sum", sum).expect("named once");
        g.output("probabilities", probabilities).expect("named once");
        let plan = Plan::new(optimise(g), &Narrow);
        let storage = |t: Tensor| plan.storage(t);
        assert_eq!(storage(x), Storage::F32, "as the host wrote it");
        assert_eq!(storage(features), Storage::F16);
        assert_eq!((storage(logits), storage(probabilities)), (Storage::F32, Storage::F32));
        assert_eq!(
            (storage(part), storage(sum)),
            (Storage::F32, Storage::F16),
            "part of what the host wrote"
        );
        let copies = plan.steps.iter().filter(|s| matches!(s, Step::Copy { .. })).count();
        assert_eq!(copies, 2, "narrow features are widened on their way out");
    }
}
