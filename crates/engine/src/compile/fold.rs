//! Rewrites that compute at build time what does not depend on the frame.

use super::rewrite::{Links, constant, constant_node, rebuild, replace};
use crate::graph::{BinaryOp, Graph, Op, Padding};
use crate::reference::{Values, evaluate};
use crate::tensor::HostTensor;

/// Batch norm after a convolution becomes part of its weights; any other becomes a product and a sum.
pub(super) fn fold_batch_norms(graph: &mut Graph) {
    let links = Links::of(graph);
    let mut constants = Vec::new();
    let mut dead = vec![false; graph.nodes.len()];
    for index in 0..graph.nodes.len() {
        let node = graph.nodes[index].clone();
        let Op::BatchNorm { epsilon } = node.op else { continue };
        let parameters: Option<Vec<&[f32]>> = node.inputs[1..]
            .iter()
            .map(|&t| constant(graph, &links, t).and_then(HostTensor::as_f32))
            .collect();
        let Some([weight, bias, mean, variance]) = parameters.as_deref() else { continue };
        let scale: Vec<f64> = (weight.iter().zip(*variance))
            .map(|(&w, &v)| f64::from(w) / (f64::from(v) + f64::from(epsilon)).sqrt())
            .collect();
        let shift: Vec<f64> = (bias.iter().zip(*mean).zip(&scale))
            .map(|((&b, &m), s)| f64::from(b) - f64::from(m) * s)
            .collect();

        let conv_index = links.producer(node.inputs[0]).filter(|&i| {
            let conv = &graph.nodes[i];
            matches!(&conv.op, Op::Conv2d { epilogue, .. } if epilogue.is_identity())
                && links.uses(node.inputs[0]) == 1
                && conv.inputs[1..].iter().all(|&t| constant(graph, &links, t).is_some())
        });
        if let Some(conv_index) = conv_index {
            let conv = graph.nodes[conv_index].clone();
            let values =
                |t| constant(graph, &links, t).and_then(HostTensor::as_f32).expect("checked above").to_vec();
            let taps = values(conv.inputs[1]);
            let per_output = taps.len() / scale.len();
            let old_bias = conv.inputs.get(2).map_or_else(|| vec![0.0; scale.len()], |&t| values(t));
            let new_taps: Vec<f32> = taps
                .iter()
                .enumerate()
                .map(|(i, &w)| (f64::from(w) * scale[i / per_output]) as f32)
                .collect();
            let new_bias: Vec<f32> = (old_bias.iter().zip(&scale).zip(&shift))
                .map(|((&b, s), t)| (f64::from(b) * s + t) as f32)
                .collect();
            let shape = graph.shape(conv.inputs[1]).clone();
            let weight_node = constant_node(graph, &conv, HostTensor::f32(shape, new_taps));
            let bias_node = constant_node(graph, &conv, HostTensor::f32([new_bias.len()], new_bias));
            let folded = &mut graph.nodes[conv_index];
            folded.inputs = vec![conv.inputs[0], weight_node.outputs[0], bias_node.outputs[0]];
            if let Op::Conv2d { bias, .. } = &mut folded.op {
                *bias = true;
            }
            constants.extend([weight_node, bias_node]);
            dead[index] = true;
            replace(graph, node.outputs[0], conv.outputs[0]);
        } else {
            let to_f32 = |v: &[f64]| v.iter().map(|&x| x as f32).collect::<Vec<_>>();
            let scale_node = constant_node(graph, &node, HostTensor::f32([scale.len()], to_f32(&scale)));
            let shift_node = constant_node(graph, &node, HostTensor::f32([shift.len()], to_f32(&shift)));
            let scaled = graph.tensor(graph.ty(node.outputs[0]).clone());
            // The product goes in at the batch norm's place, the sum right behind it (see the insertion below).
            graph.nodes[index].op = Op::Binary(BinaryOp::Mul);
            graph.nodes[index].inputs = vec![node.inputs[0], scale_node.outputs[0]];
            graph.nodes[index].outputs = vec![scaled];
            let mut sum = node.clone();
            sum.op = Op::Binary(BinaryOp::Add);
            sum.inputs = vec![scaled, shift_node.outputs[0]];
            constants.extend([scale_node, shift_node]);
            graph.nodes.insert(index + 1, sum);
            rebuild(graph, constants, &{
                let mut padded = dead;
                padded.insert(index + 1, false);
                padded
            });
            return fold_batch_norms(graph);
        }
    }
    rebuild(graph, constants, &dead);
}

/// A k×k and a 1×1 convolution of the same input that are summed (RepVGG; Ding et al. 2021, section 3.3) become one.
pub(super) fn reparameterise(graph: &mut Graph) {
    let links = Links::of(graph);
    let mut constants = Vec::new();
    let mut dead = vec![false; graph.nodes.len()];
    for index in 0..graph.nodes.len() {
        let node = graph.nodes[index].clone();
        if !matches!(node.op, Op::Binary(BinaryOp::Add)) || node.inputs[0] == node.inputs[1] {
            continue;
        }
        let producers =
            [0, 1].map(|i| links.producer(node.inputs[i]).filter(|_| links.uses(node.inputs[i]) == 1));
        let [Some(a), Some(b)] = producers else { continue };
        let Some((large, small)) = mergeable(graph, &links, a, b).or_else(|| mergeable(graph, &links, b, a))
        else {
            continue;
        };
        let (large_node, small_node) = (graph.nodes[large].clone(), graph.nodes[small].clone());
        let values =
            |t| constant(graph, &links, t).and_then(HostTensor::as_f32).expect("mergeable() checked it");
        let shape = graph.shape(large_node.inputs[1]).clone();
        let area = shape[2] * shape[3];
        let mut taps = values(large_node.inputs[1]).to_vec();
        for (i, &w) in values(small_node.inputs[1]).iter().enumerate() {
            taps[i * area + area / 2] += w;
        }
        let mut bias = vec![0.0f32; shape[0]];
        for conv in [&large_node, &small_node] {
            if let Some(&t) = conv.inputs.get(2) {
                bias.iter_mut().zip(values(t)).for_each(|(sum, b)| *sum += b);
            }
        }
        let weight_node = constant_node(graph, &node, HostTensor::f32(shape, taps));
        let bias_node = constant_node(graph, &node, HostTensor::f32([bias.len()], bias));
        let merged = &mut graph.nodes[large];
        merged.inputs = vec![large_node.inputs[0], weight_node.outputs[0], bias_node.outputs[0]];
        if let Op::Conv2d { bias, .. } = &mut merged.op {
            *bias = true;
        }
        constants.extend([weight_node, bias_node]);
        dead[small] = true;
        dead[index] = true;
        replace(graph, node.outputs[0], large_node.outputs[0]);
    }
    rebuild(graph, constants, &dead);
}

/// `(large, small)` when they are a k×k and a 1×1 convolution of one input that can be added up tap by tap.
fn mergeable(graph: &Graph, links: &Links, large: usize, small: usize) -> Option<(usize, usize)> {
    let (a, b) = (&graph.nodes[large], &graph.nodes[small]);
    let Op::Conv2d { stride, padding, groups: 1, epilogue, .. } = &a.op else { return None };
    let Op::Conv2d { stride: stride_b, padding: padding_b, groups: 1, epilogue: epilogue_b, .. } = &b.op
    else {
        return None;
    };
    let (shape_a, shape_b) = (graph.shape(a.inputs[1]), graph.shape(b.inputs[1]));
    let constants = a.inputs[1..].iter().chain(&b.inputs[1..]).all(|&t| constant(graph, links, t).is_some());
    let fits = a.inputs[0] == b.inputs[0]
        && stride == stride_b
        && shape_b[2] * shape_b[3] == 1
        && *padding_b == Padding::default()
        && shape_a[2] == shape_a[3]
        && shape_a[2] % 2 == 1
        && *padding == Padding::same(shape_a[2] / 2)
        && epilogue.is_identity()
        && epilogue_b.is_identity()
        && constants;
    fits.then_some((large, small))
}

/// Every node whose arguments are all constants becomes a constant, computed in float64.
pub(super) fn fold_constants(graph: &mut Graph) {
    let mut known: Vec<Option<Values>> = vec![None; graph.types.len()];
    for index in 0..graph.nodes.len() {
        let node = graph.nodes[index].clone();
        if let Op::Constant(value) = &node.op {
            known[node.outputs[0].0 as usize] = Some(Values::from(value));
            continue;
        }
        let arguments: Option<Vec<&Values>> =
            node.inputs.iter().map(|t| known[t.0 as usize].as_ref()).collect();
        let foldable = node.outputs.len() == 1 && !node.inputs.is_empty();
        let Some(arguments) = arguments.filter(|_| foldable) else { continue };
        let value = evaluate(graph, &node, &arguments).remove(0);
        graph.nodes[index].op = Op::Constant(value.to_host());
        graph.nodes[index].inputs.clear();
        known[node.outputs[0].0 as usize] = Some(value);
    }
}

/// Drops nodes whose results nobody reads.
pub(super) fn remove_dead(graph: &mut Graph) {
    let mut live = vec![false; graph.types.len()];
    let kept = graph.outputs.iter().map(|p| p.tensor).chain(graph.states.iter().filter_map(|s| s.next));
    for t in kept.collect::<Vec<_>>() {
        live[t.0 as usize] = true;
    }
    let mut dead = vec![true; graph.nodes.len()];
    for (index, node) in graph.nodes.iter().enumerate().rev() {
        if node.outputs.iter().any(|t| live[t.0 as usize]) {
            dead[index] = false;
            let counts = node.outputs.iter().filter_map(|&t| graph.ty(t).rows.map(|r| r.count));
            for t in node.inputs.iter().copied().chain(counts) {
                live[t.0 as usize] = true;
            }
        }
    }
    rebuild(graph, Vec::new(), &dead);
}
