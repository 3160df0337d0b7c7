//! Elementwise functions that only feed each other, with the slices and reshapes between them, as one expression: every
//! argument is read where it is, and nothing in between is written.

use std::collections::BTreeSet;

use super::Chain;
use crate::compile::Chains;
use crate::compile::facts::{Facts, Function, View, facts};
use crate::compile::rewrite::Links;
use crate::graph::{Graph, Tensor};
use crate::tensor::DType;

/// Most arguments and functions of one expression.
pub(crate) const MAX_LEAVES: usize = 8;
pub(crate) const MAX_STEPS: usize = 12;

/// A result as a function of arguments, element by element.
#[derive(Debug, Clone)]
pub(crate) struct Expression {
    /// Extents of the result.
    pub dims: Vec<usize>,
    pub leaves: Vec<Leaf>,
    /// In order; the last gives the result.
    pub steps: Vec<Step>,
}

/// An argument and how its elements are met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub tensor: Tensor,
    /// Elements before the first that is read.
    pub offset: usize,
    /// Elements from one entry to the next along each dimension of the result; 0 where it broadcasts.
    pub strides: Vec<usize>,
}

/// One function of values so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub function: Function,
    /// The second is the first where the function has one argument.
    pub arguments: [Value; 2],
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Value {
    Leaf(usize),
    Step(usize),
}

impl Expression {
    /// The expression that `nodes` compute, the last of them its result; `pitch` gives the elements from one row of a tensor
    /// to the next. `None` if it is too long, or if a reshape joins what does not lie side by side.
    pub(crate) fn of(graph: &Graph, nodes: &[usize], pitch: &dyn Fn(Tensor) -> usize) -> Option<Expression> {
        let result = graph.nodes()[*nodes.last()?].outputs[0];
        Self::part(graph, nodes, pitch, result)
    }

    fn part(
        graph: &Graph,
        nodes: &[usize],
        pitch: &dyn Fn(Tensor) -> usize,
        tensor: Tensor,
    ) -> Option<Expression> {
        let dims = graph.shape(tensor).dims().to_vec();
        let Some(&node) = nodes.iter().find(|&&n| graph.nodes()[n].outputs[0] == tensor) else {
            let mut strides = vec![0; dims.len()];
            let mut step = 1;
            for axis in (0..dims.len()).rev() {
                if dims[axis] != 1 {
                    strides[axis] = step;
                }
                step = if axis + 1 == dims.len() { pitch(tensor) } else { step * dims[axis] };
            }
            let leaf = Leaf { tensor, offset: 0, strides };
            return Some(Expression { dims, leaves: vec![leaf], steps: Vec::new() });
        };
        let node = &graph.nodes()[node];
        let argument = |i: usize| Self::part(graph, nodes, pitch, node.inputs[i]);
        let mut whole = argument(0)?;
        let Facts { view, function, .. } = facts(&node.op);
        match (function, view) {
            (Some(Function::Unary(_)), _) => {
                let value = whole.result();
                whole.steps.push(Step { function: function?, arguments: [value, value] });
            }
            (Some(Function::Binary(_)), _) => {
                whole.broadcast(&dims);
                let mut other = argument(1)?;
                other.broadcast(&dims);
                let first = whole.result();
                let second = whole.append(other);
                whole.steps.push(Step { function: function?, arguments: [first, second] });
            }
            (None, Some(View::Slice { axis, start })) => {
                whole.leaves.iter_mut().for_each(|leaf| leaf.offset += start * leaf.strides[axis]);
                whole.dims = dims;
            }
            (None, Some(View::Reshaped)) => {
                for leaf in &mut whole.leaves {
                    leaf.strides = reshaped(&whole.dims, &leaf.strides, &dims)?;
                }
                whole.dims = dims;
            }
            (None, Some(View::Whole) | None) => return None,
        }
        (whole.leaves.len() <= MAX_LEAVES && whole.steps.len() <= MAX_STEPS).then_some(whole)
    }

    fn result(&self) -> Value {
        self.steps.len().checked_sub(1).map_or(Value::Leaf(0), Value::Step)
    }

    /// Arguments repeat along dimensions that the result has and they have not.
    fn broadcast(&mut self, dims: &[usize]) {
        let missing = dims.len() - self.dims.len();
        for leaf in &mut self.leaves {
            for (stride, _) in leaf.strides.iter_mut().zip(&self.dims).filter(|(_, extent)| **extent == 1) {
                *stride = 0;
            }
            leaf.strides.splice(0..0, std::iter::repeat_n(0, missing));
        }
        self.dims = dims.to_vec();
    }

    /// Takes over another expression's leaves and steps; returns its result's place among ours.
    fn append(&mut self, other: Expression) -> Value {
        let places: Vec<usize> = (other.leaves.iter())
            .map(|leaf| {
                self.leaves.iter().position(|l| l == leaf).unwrap_or_else(|| {
                    self.leaves.push(leaf.clone());
                    self.leaves.len() - 1
                })
            })
            .collect();
        let before = self.steps.len();
        let moved = |value: Value| match value {
            Value::Leaf(i) => Value::Leaf(places[i]),
            Value::Step(i) => Value::Step(before + i),
        };
        self.steps.extend(other.steps.iter().map(|s| Step { arguments: s.arguments.map(moved), ..*s }));
        moved(other.result())
    }
}

/// Strides of the same elements under other extents, if there are any.
fn reshaped(dims: &[usize], strides: &[usize], to: &[usize]) -> Option<Vec<usize>> {
    // Runs of neighbouring dimensions that are walked with one step, innermost first.
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (&extent, &stride) in dims.iter().zip(strides).rev().filter(|(extent, _)| **extent != 1) {
        match runs.last_mut() {
            Some((whole, step)) if *step * *whole == stride => *whole *= extent,
            _ => runs.push((extent, stride)),
        }
    }
    let mut runs = runs.into_iter();
    let (mut rest, mut step) = (1, 0);
    let mut result = vec![0; to.len()];
    for (&extent, stride) in to.iter().zip(&mut result).rev().filter(|(extent, _)| **extent != 1) {
        if rest == 1 {
            (rest, step) = runs.next()?;
        }
        if extent == 0 || rest % extent != 0 {
            return None;
        }
        *stride = step;
        step *= extent;
        rest /= extent;
    }
    Some(result)
}

/// Adds expressions to `chains`. `free` marks nodes that take no work anyway; those of expressions are taken.
pub(super) fn add_expressions(graph: &Graph, free: &[bool], taken: &mut [bool], chains: &mut Chains<Chain>) {
    let links = Links::of(graph);
    for index in (0..graph.nodes().len()).rev() {
        if taken[index] || facts(&graph.nodes()[index].op).function.is_none() {
            continue;
        }
        let found = [true, false].into_iter().find_map(|with_reshapes| {
            let nodes = grow(graph, &links, index, with_reshapes);
            // Any pitch will do if one does that leaves a gap after each row.
            let expression = Expression::of(graph, &nodes, &|t| graph.shape(t).cols() + 1);
            let saves = nodes.iter().any(|&n| n != index && !free[n]);
            (saves && expression.is_some()).then_some(nodes)
        });
        if let Some(nodes) = found {
            nodes.iter().for_each(|&n| taken[n] = true);
            chains[index] = Some((Chain::Elementwise, nodes));
        }
    }
}

/// The nodes behind `last` that only feed it, and itself, in order.
fn grow(graph: &Graph, links: &Links, last: usize, with_reshapes: bool) -> Vec<usize> {
    let mut nodes = BTreeSet::from([last]);
    let mut open: BTreeSet<usize> = BTreeSet::new();
    let inputs = |node: usize| graph.nodes()[node].inputs.iter().filter_map(|&t| links.producer(t));
    open.extend(inputs(last));
    // The latest first: all that could read it have been decided on.
    while let Some(node) = open.pop_last() {
        let Facts { view, function, .. } = facts(&graph.nodes()[node].op);
        let joins = match view {
            None => function.is_some(),
            Some(View::Slice { .. }) => true,
            Some(View::Reshaped) => with_reshapes,
            Some(View::Whole) => false,
        };
        let result = graph.nodes()[node].outputs[0];
        let readers: usize =
            nodes.iter().map(|&n| graph.nodes()[n].inputs.iter().filter(|&&t| t == result).count()).sum();
        if joins && readers == links.uses(result) && graph.ty(result).dtype == DType::F32 {
            nodes.insert(node);
            open.extend(inputs(node));
        }
    }
    nodes.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::optimise;
    use crate::cuda::backend::CudaTarget;
    use crate::cuda::plan::{Plan, Step as PlanStep};

    #[test]
    fn a_reshape_keeps_strides_where_it_can() {
        assert_eq!(reshaped(&[300, 192], &[288, 1], &[300, 96, 2]), Some(vec![288, 2, 1]));
        assert_eq!(reshaped(&[4, 6], &[6, 1], &[8, 3]), Some(vec![3, 1]));
        assert_eq!(reshaped(&[4, 6], &[7, 1], &[3, 8]), None, "rows with gaps do not join");
        assert_eq!(reshaped(&[4, 1, 6], &[0, 0, 1], &[2, 2, 6]), Some(vec![0, 0, 1]));
    }

    #[test]
    fn sampling_locations_are_one_step() {
        let mut g = Graph::new("locations");
        let both = g.input("offsets_and_weights", DType::F32, [300, 288]).expect("an input");
        let boxes = g.input("boxes", DType::F32, [300, 4]).expect("an input");
        let offsets = g.slice(both, 1, 0, 192).expect("inside");
        let offsets = g.reshape(offsets, [300, 96, 2]).expect("same elements");
        let boxes = g.reshape(boxes, [300, 1, 4]).expect("same elements");
        let centre = g.slice(boxes, 2, 0, 2).expect("inside");
        let size = g.slice(boxes, 2, 2, 2).expect("inside");
        let scaled = g.mul(offsets, size).expect("broadcasts");
        let at = g.add(scaled, centre).expect("broadcasts");
        g.output("at", at).expect("named once");
        let plan = Plan::new(optimise(g), &CudaTarget { f16: false });
        let [PlanStep::Chain { chain: Chain::Elementwise, nodes }] = &plan.steps[..] else {
            panic!("{:?}", plan.steps)
        };
        let expression =
            Expression::of(&plan.graph, nodes, &|t| plan.graph.shape(t).cols()).expect("as planned");
        assert_eq!(expression.dims, [300, 96, 2]);
        let leaves: Vec<(usize, &[usize])> =
            expression.leaves.iter().map(|l| (l.offset, &l.strides[..])).collect();
        assert_eq!(leaves, [(0, &[288, 2, 1][..]), (2, &[4, 0, 1][..]), (0, &[4, 0, 1][..])]);
        assert_eq!(expression.steps.len(), 2);
    }
}
