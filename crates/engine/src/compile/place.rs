//! Where every tensor lives: its own buffer, or a view of another's. Concatenated parts are written where the whole
//! will be, slices and reshapes are read where they are.

use super::facts::{self, facts};
use super::rewrite::Links;
use crate::graph::{Graph, Node, Op, Tensor};

/// A tensor as rows of its last dimension inside the buffer of `root`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Placement {
    /// Tensor that owns the buffer.
    pub root: Tensor,
    /// Elements before the first.
    pub offset: usize,
    /// Elements from one row to the next.
    pub pitch: usize,
}

#[derive(Debug, Clone, Copy)]
struct View {
    of: Tensor,
    first_row: usize,
    first_column: usize,
}

/// Placements of all tensors, and which nodes need no work because of them.
pub(crate) struct Places {
    views: Vec<Option<View>>,
    /// For each node: its result is a view, nothing is computed.
    pub free: Vec<bool>,
    /// For each concat node, for each part: it is already in place.
    pub in_place: Vec<Vec<bool>>,
}

impl Places {
    /// `computed` are nodes that are never views, because what they write is stored otherwise than what they read.
    pub(crate) fn of(graph: &Graph, computed: &[usize]) -> Self {
        let links = Links::of(graph);
        let consumers = consumers(graph);
        let mut places = Places {
            views: vec![None; graph.types.len()],
            free: vec![false; graph.nodes.len()],
            in_place: vec![Vec::new(); graph.nodes.len()],
        };
        let reader = Readers { graph, consumers: &consumers };
        // The outermost of nested concatenations first, so that the inner ones find their whole placed.
        for index in (0..graph.nodes.len()).rev() {
            if let Op::Concat { axis } = graph.nodes[index].op {
                places.place_parts(&reader, &links, index, axis);
            }
        }
        for (index, node) in graph.nodes.iter().enumerate() {
            if let Some(view) = places.forward_view(&reader, node).filter(|_| !computed.contains(&index)) {
                places.views[node.outputs[0].0 as usize] = Some(view);
                places.free[index] = true;
            }
        }
        places
    }

    /// Where a tensor is.
    pub(crate) fn placement(&self, graph: &Graph, tensor: Tensor) -> Placement {
        let cols = graph.shape(tensor).cols();
        match self.views[tensor.0 as usize] {
            None => Placement { root: tensor, offset: 0, pitch: cols },
            Some(view) => {
                let whole = self.placement(graph, view.of);
                let whole_cols = graph.shape(view.of).cols();
                let is_slice = graph.shape(tensor).numel() != graph.shape(view.of).numel();
                // A reshape that changes the columns is only a view of something contiguous.
                let reshaped = !is_slice && cols != whole_cols;
                Placement {
                    root: whole.root,
                    offset: whole.offset + view.first_row * whole.pitch + view.first_column,
                    pitch: if reshaped { cols } else { whole.pitch },
                }
            }
        }
    }

    fn place_parts(&mut self, reader: &Readers<'_>, links: &Links, index: usize, axis: usize) {
        let graph = reader.graph;
        let node = &graph.nodes[index];
        let whole = node.outputs[0];
        let last = axis + 1 == graph.shape(whole).rank();
        let leading: usize = graph.shape(whole).dims()[..axis].iter().product();
        let (mut first_row, mut first_column) = (0, 0);
        for &part in &node.inputs {
            let owner = owner(graph, links, part);
            let placeable = (last || leading == 1)
                && owner.is_some_and(|owner| {
                    self.views[owner.0 as usize].is_none() && reader.accept_pitch(owner) && owner != whole
                });
            self.in_place[index].push(placeable);
            if let Some(owner) = owner.filter(|_| placeable) {
                self.views[owner.0 as usize] = Some(View { of: whole, first_row, first_column });
            }
            if last {
                first_column += graph.shape(part).cols();
            } else {
                first_row += graph.shape(part).rows();
            }
        }
    }

    fn forward_view(&self, reader: &Readers<'_>, node: &Node) -> Option<View> {
        let graph = reader.graph;
        let of = *node.inputs.first()?;
        let (from, to) = (graph.shape(of), graph.shape(node.outputs[0]));
        let placement = self.placement(graph, of);
        let contiguous = placement.pitch == from.cols() || from.rows() == 1;
        let whole = View { of, first_row: 0, first_column: 0 };
        match facts(&node.op).view? {
            facts::View::Whole => Some(whole),
            facts::View::Reshaped => (from.cols() == to.cols() || contiguous).then_some(whole),
            facts::View::Slice { axis, start } if axis + 1 == from.rank() => {
                let fits = to.rows() == 1 || reader.accept_pitch(node.outputs[0]);
                fits.then_some(View { first_column: start, ..whole })
            }
            facts::View::Slice { axis, start } => {
                let leading: usize = from.dims()[..axis].iter().product();
                let rows_per_entry: usize = from.dims()[axis + 1..from.rank() - 1].iter().product();
                let fits = leading == 1 && (contiguous || reader.accept_pitch(node.outputs[0]));
                fits.then_some(View { first_row: start * rows_per_entry, ..whole })
            }
        }
    }
}

/// The computed tensor behind row-preserving reshapes, if its op can write rows with a pitch.
fn owner(graph: &Graph, links: &Links, part: Tensor) -> Option<Tensor> {
    let node = &graph.nodes[links.producer(part)?];
    match node.op {
        Op::Reshape if graph.shape(node.inputs[0]).cols() == graph.shape(part).cols() => {
            owner(graph, links, node.inputs[0])
        }
        _ => facts(&node.op).pitch.results.then_some(part),
    }
}

struct Readers<'g> {
    graph: &'g Graph,
    consumers: &'g [Vec<(usize, usize)>],
}

impl Readers<'_> {
    /// Whether everything that reads the tensor can read rows with a pitch.
    fn accept_pitch(&self, tensor: Tensor) -> bool {
        self.consumers[tensor.0 as usize].iter().all(|&(index, argument)| {
            let node = &self.graph.nodes[index];
            let output = node.outputs[0];
            let (shape, result) = (self.graph.shape(tensor), self.graph.shape(output));
            let facts = facts(&node.op);
            match facts.view {
                Some(facts::View::Reshaped) => shape.cols() == result.cols() && self.accept_pitch(output),
                Some(facts::View::Whole | facts::View::Slice { .. }) => {
                    argument == 0 && self.accept_pitch(output)
                }
                None => facts.pitch.arguments.include(argument, shape == result),
            }
        })
    }
}

fn consumers(graph: &Graph) -> Vec<Vec<(usize, usize)>> {
    let mut consumers = vec![Vec::new(); graph.types.len()];
    for (index, node) in graph.nodes.iter().enumerate() {
        for (argument, t) in node.inputs.iter().enumerate() {
            consumers[t.0 as usize].push((index, argument));
        }
    }
    consumers
}
