//! Activations, learnable affine blocks and residual sums become the epilogue of the layer before them.

use super::facts::is_activation;
use super::rewrite::{Links, constant, constant_node, rebuild, replace};
use crate::graph::{BinaryOp, Epilogue, Graph, Node, Op, Tensor, UnaryOp};
use crate::tensor::{HostTensor, Shape};

fn epilogue_mut(op: &mut Op) -> Option<&mut Epilogue> {
    match op {
        Op::Conv2d { epilogue, .. } | Op::ConvTranspose2d { epilogue, .. } | Op::Linear { epilogue, .. } => {
            Some(epilogue)
        }
        _ => None,
    }
}

/// Whether a tensor can be added by a layer's epilogue: it has the result's shape, or is one entry of it that every
/// entry of the leading dimension gets.
fn is_residual(shape: &Shape, output: &Shape) -> bool {
    shape == output
        || (shape.rank() == output.rank() && shape[0] == 1 && shape.dims()[1..] == output.dims()[1..])
}

/// Lets a layer apply `op` to its result, if it can; `other` is the second operand of a sum.
fn absorb(layer: &mut Node, op: &Op, other: Option<Tensor>) -> bool {
    if let (Op::Unary(act), Op::LayerNorm { activation: own @ None, .. }) = (op, &mut layer.op) {
        *own = is_activation(*act).then_some(*act);
        return own.is_some();
    }
    let Some(epilogue) = epilogue_mut(&mut layer.op) else { return false };
    match (op, other) {
        (Op::Unary(UnaryOp::Affine(scale, shift)), None)
            if !epilogue.residual && epilogue.affine.is_none() =>
        {
            epilogue.affine = Some((*scale, *shift));
        }
        (Op::Unary(act), None) if is_activation(*act) && epilogue.is_identity() => {
            epilogue.activation = Some(*act);
        }
        (Op::Unary(act), None)
            if is_activation(*act)
                && (epilogue.residual || epilogue.affine.is_some())
                && epilogue.activation_after_residual.is_none()
                && !(matches!(act, UnaryOp::Clamp(..)) && epilogue.clamp().is_some()) =>
        {
            epilogue.activation_after_residual = Some(*act);
        }
        (Op::Binary(_), Some(other))
            if !epilogue.residual && epilogue.activation_after_residual.is_none() =>
        {
            epilogue.residual = true;
            layer.inputs.push(other);
        }
        _ => return false,
    }
    true
}

/// Fuses until nothing changes, in one walk: each fused node takes the place of what it swallowed, so the next
/// elementwise node sees it as its producer.
pub(super) fn fuse_epilogues(graph: &mut Graph) {
    let mut links = Links::of(graph);
    let mut dead = vec![false; graph.nodes.len()];
    for index in 0..graph.nodes.len() {
        let node = &graph.nodes[index];
        let output = node.outputs[0];
        // Candidates: (layer's output, other operand of a sum).
        let candidates: Vec<(Tensor, Option<Tensor>)> = match node.op {
            Op::Unary(_) => vec![(node.inputs[0], None)],
            Op::Binary(BinaryOp::Add) => {
                let pairs = [(node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])];
                let fits = |other: &Tensor| is_residual(graph.shape(*other), graph.shape(output));
                pairs
                    .into_iter()
                    .filter(|(_, other)| fits(other))
                    .map(|(sums, other)| (sums, Some(other)))
                    .collect()
            }
            _ => continue,
        };
        let op = node.op.clone();
        for (sums, other) in candidates {
            let Some(layer) = links.producer(sums).filter(|&l| links.uses(sums) == 1 && !dead[l]) else {
                continue;
            };
            if graph.shape(sums) != graph.shape(output) || graph.ty(sums).rows != graph.ty(output).rows {
                continue;
            }
            let mut fused = graph.nodes[layer].clone();
            let done = absorb(&mut fused, &op, other.filter(|&other| other != sums));
            if done {
                // The fused layer stands where the swallowed node stood: everything it reads has been computed there.
                fused.outputs = vec![output];
                graph.nodes[index] = fused;
                dead[layer] = true;
                links.forget(sums);
                links.set_producer(output, index);
                break;
            }
        }
    }
    rebuild(graph, Vec::new(), &dead);
}

/// Whether two layers with biases are one wider layer if they read the same tensor.
fn are_siblings(graph: &Graph, a: &Node, b: &Node) -> bool {
    let alike = match (&a.op, &b.op) {
        (Op::Linear { bias: true, epilogue: x }, Op::Linear { bias: true, epilogue: y }) => {
            x == y && !x.residual
        }
        (
            Op::Conv2d { stride: s, padding: p, groups: 1, bias: true, epilogue: x },
            Op::Conv2d { stride: t, padding: q, groups: 1, bias: true, epilogue: y },
        ) => x == y && !x.residual && s == t && p == q,
        _ => false,
    };
    alike
        && a.inputs[0] == b.inputs[0]
        && graph.shape(a.inputs[1]).dims()[1..] == graph.shape(b.inputs[1]).dims()[1..]
}

/// Merges layers that read the same tensor and do the same to their sums into one wider layer whose result is sliced: one pass
/// over the input instead of several (q, k and v; offsets and weights; the two ways into a cross-stage-partial block).
pub(super) fn merge_siblings(graph: &mut Graph) {
    let links = Links::of(graph);
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (index, node) in graph.nodes.iter().enumerate().filter(|(_, n)| are_siblings(graph, n, n)) {
        if !node.inputs[1..].iter().all(|&t| constant(graph, &links, t).is_some()) {
            continue;
        }
        match groups.iter_mut().find(|members| are_siblings(graph, &graph.nodes[members[0]], node)) {
            Some(members) => members.push(index),
            None => groups.push(vec![index]),
        }
    }
    let mut constants = Vec::new();
    let mut inserted: Vec<(usize, Vec<Node>)> = Vec::new();
    let mut dead = vec![false; graph.nodes.len()];
    for members in groups.into_iter().filter(|members| members.len() > 1) {
        let (mut taps, mut bias, mut widths) = (Vec::new(), Vec::new(), Vec::new());
        for &m in &members {
            let node = &graph.nodes[m];
            let values = |t| constant(graph, &links, t).and_then(HostTensor::as_f32).expect("checked above");
            taps.extend_from_slice(values(node.inputs[1]));
            bias.extend_from_slice(values(node.inputs[2]));
            widths.push(graph.shape(node.outputs[0]).cols());
        }
        let first = graph.nodes[members[0]].clone();
        let n = bias.len();
        let mut weight_dims = graph.shape(first.inputs[1]).dims().to_vec();
        weight_dims[0] = n;
        let weight_node = constant_node(graph, &first, HostTensor::f32(weight_dims, taps));
        let bias_node = constant_node(graph, &first, HostTensor::f32([n], bias));
        let mut ty = graph.ty(first.outputs[0]).clone();
        let mut dims = ty.shape.dims().to_vec();
        let axis = dims.len() - 1;
        dims[axis] = n;
        ty.shape = dims.into();
        let wide = graph.tensor(ty);
        let mut new_nodes = vec![Node {
            inputs: vec![first.inputs[0], weight_node.outputs[0], bias_node.outputs[0]],
            outputs: vec![wide],
            ..first.clone()
        }];
        let mut start = 0;
        for (&m, &len) in members.iter().zip(&widths) {
            let old = graph.nodes[m].outputs[0];
            let part = graph.tensor(graph.ty(old).clone());
            new_nodes.push(Node {
                op: Op::Slice { axis, start, len },
                inputs: vec![wide],
                outputs: vec![part],
                ..first.clone()
            });
            replace(graph, old, part);
            start += len;
            dead[m] = true;
        }
        constants.extend([weight_node, bias_node]);
        inserted.push((members[0], new_nodes));
    }
    let old = std::mem::take(&mut graph.nodes);
    graph.nodes = constants;
    for (index, node) in old.into_iter().enumerate() {
        if let Some(position) = inserted.iter().position(|(at, _)| *at == index) {
            graph.nodes.append(&mut inserted[position].1);
        }
        if !dead[index] {
            graph.nodes.push(node);
        }
    }
}
