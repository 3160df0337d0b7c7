//! How a graph is computed: named rewrites, then a plan of where everything lives.
//!
//! In: a [`Graph`] as the model wrote it. Out: a plan with fused ops in execution order, a placement for every
//! tensor, one arena and the two blocks that cross the border. Backends turn plans into kernels.
//!
//! ```
//! use ultramotion_engine::compile::optimise;
//! use ultramotion_engine::graph::{Graph, Op, Padding, UnaryOp};
//! use ultramotion_engine::tensor::{DType, HostTensor};
//!
//! let mut g = Graph::new("example");
//! let x = g.input("x", DType::F32, [1, 4, 4, 8])?;
//! let w = g.constant(HostTensor::zeros(DType::F32, [8, 8, 3, 3]));
//! let y = g.conv2d(x, w, None, 1, Padding::same(1), 1)?;
//! let y = g.unary(UnaryOp::Relu, y)?;
//! g.output("y", y)?;
//! let fused = optimise(g);
//! assert!(fused.nodes().iter().all(|n| !matches!(n.op, Op::Unary(_))), "the activation is in the epilogue");
//! # Ok::<(), ultramotion_engine::graph::GraphError>(())
//! ```

mod arena;
mod branches;
pub(crate) mod facts;
mod fold;
mod fuse;
pub(crate) mod layers;
mod place;
mod precision;
pub(crate) mod rewrite;

pub(crate) use arena::ALIGNMENT;
pub(crate) use place::{Placement, Places};
pub(crate) use precision::Storage;

use arena::{Lifetime, Order};

use crate::graph::{Graph, Node, Op, Tensor};
use crate::tensor::{DType, HostTensor};

/// A rewrite with its name.
type Rewrite = (&'static str, fn(&mut Graph));

/// The rewrites, in the order in which they run.
const REWRITES: &[Rewrite] = &[
    ("fold batch norms", fold::fold_batch_norms),
    ("re-parameterise", fold::reparameterise),
    ("fold constants", fold::fold_constants),
    ("remove dead nodes", fold::remove_dead),
    ("fuse epilogues", fuse::fuse_epilogues),
    ("merge sibling layers", fuse::merge_siblings),
    ("remove dead nodes", fold::remove_dead),
];

/// Runs every rewrite. The result computes the same outputs from the same inputs.
pub fn optimise(mut graph: Graph) -> Graph {
    for (name, rewrite) in REWRITES {
        let before = graph.nodes().len();
        rewrite(&mut graph);
        tracing::debug!(graph = graph.name(), rewrite = name, before, after = graph.nodes().len());
    }
    graph
}

/// For each node that ends a chain of nodes that run as one step: what it is, and its nodes in order. No node is in two.
pub(crate) type Chains<C> = Vec<Option<(C, Vec<usize>)>>;

/// What a plan asks of the backend that it is for.
pub(crate) trait Target {
    /// What chains there are.
    type Chain: Copy;
    /// Whether features are stored in f16.
    fn f16(&self) -> bool {
        false
    }
    /// Whether steps of different branches run at once: their buffers stay apart then.
    fn concurrent(&self) -> bool {
        false
    }
    /// The chains of a graph. `free` marks nodes that take no work because their results are views.
    fn chains(&self, graph: &Graph, storage: &[Storage], free: &[bool]) -> Chains<Self::Chain>;
    /// Element types and lengths of the scratch buffers that the backend's form of a node needs.
    fn scratch(&self, graph: &Graph, storage: &[Storage], node: &Node) -> Vec<(DType, usize)>;
}

/// Which memory a buffer is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Home {
    /// Scratch of one run, at this byte offset.
    Arena(usize),
    /// The block uploaded before each run, at this byte offset.
    Input(usize),
    /// The block downloaded after each run, at this byte offset.
    Output(usize),
    /// The state with this index.
    State(usize),
    /// The constant written by this node.
    Constant(usize),
}

/// A tensor's place in device memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Site {
    /// Memory.
    pub home: Home,
    /// Elements from the start of the home to the first element.
    pub offset: usize,
    /// Elements from one row to the next.
    pub pitch: usize,
}

/// Bytes of a named value in the input or output block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockEntry {
    /// Name of the port.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Extents.
    pub shape: crate::tensor::Shape,
    /// First byte in the block.
    pub offset: usize,
}

impl BlockEntry {
    /// Bytes of the value.
    pub fn bytes(&self) -> usize {
        self.shape.numel() * self.dtype.size()
    }
    /// The value in a downloaded block.
    pub fn read(&self, block: &[u8]) -> HostTensor {
        HostTensor::from_bytes(self.dtype, self.shape.clone(), &block[self.offset..][..self.bytes()])
    }
}

/// One thing to do, in order.
#[derive(Debug, Clone)]
pub(crate) enum Step<C> {
    /// Compute the node with this index. `copy_parts` are the arguments of a concat that are not in place already.
    Node { index: usize, copy_parts: Vec<usize> },
    /// Compute these nodes in order; only the last one's result is kept.
    Chain { chain: C, nodes: Vec<usize> },
    /// Copy a tensor to where an output or a state wants it.
    Copy { from: Tensor, to: Site },
}

/// Everything a backend needs to make kernels.
#[derive(Debug)]
pub(crate) struct Plan<C> {
    pub graph: Graph,
    pub steps: Vec<Step<C>>,
    /// For each step: its branch, and what it waits for in others. A device that runs everything in order needs neither.
    pub branches: Vec<branches::Place>,
    sites: Vec<Option<Site>>,
    storage: Vec<Storage>,
    /// For each node: scratch buffers, as byte offsets into the arena.
    pub scratch: Vec<Vec<(DType, usize, usize)>>,
    pub arena_bytes: usize,
    pub input_bytes: usize,
    pub output_bytes: usize,
}

impl<C: Copy> Plan<C> {
    /// Bytes that a step reads and writes at least: arguments and results, once each.
    pub(crate) fn traffic_bytes(&self, step: &Step<C>) -> u64 {
        let bytes = |t: &Tensor| self.graph.shape(*t).numel() as u64 * self.storage(*t).size() as u64;
        let copied = match step {
            Step::Copy { from, .. } => self.graph.shape(*from).numel() * self.graph.ty(*from).dtype.size(),
            _ => 0,
        };
        let read: u64 = read_by(&self.graph, step).iter().map(bytes).sum();
        let written: u64 = written_by(&self.graph, step).iter().map(bytes).sum();
        read + written + copied as u64
    }

    /// Where a tensor is. Panics for a tensor that nothing computes: the rewrites leave none.
    pub(crate) fn site(&self, tensor: Tensor) -> Site {
        self.sites[tensor.0 as usize].expect("every tensor that is read has a place")
    }

    /// The constant that a tensor is, or is a view of.
    pub(crate) fn constant(&self, tensor: Tensor) -> Option<&HostTensor> {
        match self.site(tensor).home {
            Home::Constant(node) => match &self.graph.nodes[node].op {
                Op::Constant(value) => Some(value),
                _ => None,
            },
            _ => None,
        }
    }

    /// Element type of a tensor in device memory.
    pub(crate) fn storage(&self, tensor: Tensor) -> Storage {
        self.storage[tensor.0 as usize]
    }

    pub(crate) fn new(mut graph: Graph, target: &impl Target<Chain = C>) -> Plan<C> {
        let casts = if target.f16() { precision::cast_ports(&mut graph) } else { Vec::new() };
        let places = Places::of(&graph, &casts);
        let storage = if target.f16() {
            precision::choose(&graph, &places)
        } else {
            graph.types.iter().map(|ty| Storage::of(ty.dtype)).collect()
        };
        let placements: Vec<Placement> =
            (0..graph.types.len()).map(|t| places.placement(&graph, Tensor(t as u32))).collect();
        let (inputs, input_bytes) = block(&graph, graph.inputs());
        let (outputs, output_bytes) = block(&graph, graph.outputs());

        let mut homes: Vec<Option<Home>> = vec![None; graph.types.len()];
        for (port, entry) in graph.inputs().iter().zip(&inputs) {
            homes[port.tensor.0 as usize] = Some(Home::Input(entry.offset));
        }
        for (index, state) in graph.states().iter().enumerate() {
            homes[state.current.0 as usize] = Some(Home::State(index));
        }
        for (index, node) in graph.nodes.iter().enumerate() {
            if matches!(node.op, Op::Constant(_)) {
                homes[node.outputs[0].0 as usize] = Some(Home::Constant(index));
            }
        }

        let mut copies = Vec::new();
        let uses = rewrite::Links::of(&graph);
        let mut settle = |tensor: Tensor, home: Home, may_move: bool, homes: &mut Vec<Option<Home>>| {
            let place = placements[tensor.0 as usize];
            let root = place.root.0 as usize;
            let fills_root = place.offset == 0
                && place.pitch == graph.shape(tensor).cols()
                && graph.shape(place.root).numel() == graph.shape(tensor).numel()
                && storage[root].size() == graph.ty(tensor).dtype.size();
            if may_move && fills_root && homes[root].is_none() {
                homes[root] = Some(home);
            } else {
                let pitch = graph.shape(tensor).cols();
                copies.push(Step::Copy { from: tensor, to: Site { home, offset: 0, pitch } });
            }
        };
        for (port, entry) in graph.outputs().iter().zip(&outputs) {
            settle(port.tensor, Home::Output(entry.offset), true, &mut homes);
        }
        for (index, state) in graph.states().iter().enumerate() {
            if let Some(next) = state.next {
                // The old value may still be read after the new one is computed; an unread one may be overwritten.
                settle(next, Home::State(index), uses.uses(state.current) == 0, &mut homes);
            }
        }

        let mut steps = Vec::new();
        let chains = target.chains(&graph, &storage, &places.free);
        let inside: std::collections::HashSet<usize> =
            chains.iter().flatten().flat_map(|(_, nodes)| nodes[..nodes.len() - 1].iter().copied()).collect();
        for (index, node) in graph.nodes.iter().enumerate() {
            if inside.contains(&index) {
                continue;
            }
            if let Some((chain, nodes)) = &chains[index] {
                steps.push(Step::Chain { chain: *chain, nodes: nodes.clone() });
                continue;
            }
            let copy_parts: Vec<usize> = places.in_place[index]
                .iter()
                .enumerate()
                .filter(|(_, in_place)| !**in_place)
                .map(|(i, _)| i)
                .collect();
            let nothing_to_do = matches!(node.op, Op::Constant(_))
                || places.free[index]
                || (matches!(node.op, Op::Concat { .. }) && copy_parts.is_empty());
            if !nothing_to_do {
                steps.push(Step::Node { index, copy_parts });
            }
        }
        steps.extend(copies);

        let root = |t: &Tensor| placements[t.0 as usize].root;
        let accesses: Vec<branches::Access> = steps
            .iter()
            .map(|step| {
                let mut writes: Vec<Tensor> = written_by(&graph, step).iter().map(root).collect();
                if let Step::Copy { to: Site { home: Home::State(index), .. }, .. } = step {
                    writes.push(graph.states()[*index].current);
                }
                branches::Access { reads: read_by(&graph, step).iter().map(root).collect(), writes }
            })
            .collect();
        let branches = branches::mark(&accesses, graph.types.len());

        let scratch_needs: Vec<Vec<(DType, usize)>> =
            graph.nodes.iter().map(|node| target.scratch(&graph, &storage, node)).collect();
        let lifetimes = lifetimes(&graph, &steps, &placements, &homes, &storage);
        let mut buffers: Vec<Lifetime> = lifetimes.iter().map(|(_, lifetime)| lifetime.clone()).collect();
        for (at, step) in steps.iter().enumerate() {
            if let Step::Node { index, .. } = step {
                let needs = scratch_needs[*index].iter();
                buffers.extend(needs.map(|(d, n)| Lifetime { bytes: d.size() * n, steps: vec![at] }));
            }
        }
        let order = if target.concurrent() { Order::concurrent(&branches) } else { Order::Sequential };
        let (offsets, arena_bytes) = arena::plan(&buffers, &order);
        for ((root, _), &offset) in lifetimes.iter().zip(&offsets) {
            homes[root.0 as usize] = Some(Home::Arena(offset));
        }
        let mut scratch = vec![Vec::new(); graph.nodes.len()];
        let mut rest = offsets[lifetimes.len()..].iter();
        for step in &steps {
            if let Step::Node { index, .. } = step {
                scratch[*index] = (scratch_needs[*index].iter().zip(rest.by_ref()))
                    .map(|(&(dtype, n), &offset)| (dtype, n, offset))
                    .collect();
            }
        }

        let sites = placements
            .iter()
            .map(|p| homes[p.root.0 as usize].map(|home| Site { home, offset: p.offset, pitch: p.pitch }))
            .collect();
        Plan { graph, steps, branches, sites, storage, scratch, arena_bytes, input_bytes, output_bytes }
    }
}

/// Where the values of ports lie in their block, and how long it is.
pub(crate) fn block(graph: &Graph, ports: &[crate::graph::NamedTensor]) -> (Vec<BlockEntry>, usize) {
    let mut end = 0usize;
    let entries = ports
        .iter()
        .map(|port| {
            let ty = graph.ty(port.tensor);
            let entry = BlockEntry {
                name: port.name.clone(),
                dtype: ty.dtype,
                shape: ty.shape.clone(),
                offset: end.next_multiple_of(ALIGNMENT),
            };
            end = entry.offset + entry.bytes();
            entry
        })
        .collect();
    (entries, end.next_multiple_of(ALIGNMENT))
}

/// What a step reads: arguments and row counts.
fn read_by<C>(graph: &Graph, step: &Step<C>) -> Vec<Tensor> {
    match step {
        Step::Node { index, .. } => {
            let node = &graph.nodes[*index];
            let counts = node.outputs.iter().filter_map(|&t| graph.ty(t).rows.map(|r| r.count));
            node.inputs.iter().copied().chain(counts).collect()
        }
        Step::Chain { nodes, .. } => {
            let inner: Vec<Tensor> =
                nodes.iter().flat_map(|&n| graph.nodes[n].outputs.iter().copied()).collect();
            let counts = inner.iter().filter_map(|&t| graph.ty(t).rows.map(|r| r.count));
            let inputs = nodes.iter().flat_map(|&n| graph.nodes[n].inputs.iter().copied());
            inputs.filter(|t| !inner.contains(t)).chain(counts).collect()
        }
        Step::Copy { from, .. } => vec![*from],
    }
}

/// What a step leaves in memory.
fn written_by<'g, C>(graph: &'g Graph, step: &Step<C>) -> &'g [Tensor] {
    match step {
        Step::Node { index, .. } => &graph.nodes[*index].outputs,
        Step::Chain { nodes, .. } => nodes.last().map_or(&[], |&last| &graph.nodes[last].outputs),
        Step::Copy { .. } => &[],
    }
}

/// Roots without a home of their own, with the steps that touch them.
fn lifetimes<C>(
    graph: &Graph,
    steps: &[Step<C>],
    placements: &[Placement],
    homes: &[Option<Home>],
    storage: &[Storage],
) -> Vec<(Tensor, Lifetime)> {
    let mut touches: Vec<Vec<usize>> = vec![Vec::new(); graph.types.len()];
    for (at, step) in steps.iter().enumerate() {
        for t in read_by(graph, step).iter().chain(written_by(graph, step)) {
            let touched = &mut touches[placements[t.0 as usize].root.0 as usize];
            if touched.last() != Some(&at) {
                touched.push(at);
            }
        }
    }
    touches
        .into_iter()
        .enumerate()
        .filter(|(root, steps)| homes[*root].is_none() && !steps.is_empty())
        .map(|(root, steps)| {
            let bytes = graph.types[root].shape.numel() * storage[root].size();
            (Tensor(root as u32), Lifetime { bytes, steps })
        })
        .collect()
}
