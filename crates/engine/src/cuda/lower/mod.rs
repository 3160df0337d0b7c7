//! From a plan's steps to kernels bound to addresses: weights are packed and sent to the device here, once.

mod arrange;
mod attention;
mod custom;
mod expression;
mod gemm;
mod image;
mod maps;
mod modules;
mod networks;
mod perceptron;
mod rows;
mod tiles;
mod walk;

pub(crate) use tiles::with_candidate;

use super::memory::Memory;
use super::plan::{Chain, Plan, Step};
use crate::compile::{Home, Site, Storage};
use crate::error::CudaError;
use crate::graph::{Graph, Node, Op, Tensor};
use crate::launch::Launch;
use crate::launch::abi::{Operand, Rows};
use crate::tensor::{DType, HostTensor, Shape};

/// A step, lowered.
pub(super) struct Lowered {
    pub launches: Vec<Launch>,
    /// Name for profiles.
    pub name: String,
    /// Multiply-adds count two; elementwise work is not counted.
    pub flops: u64,
    /// Tile of a product, as a line of `measured_tiles.txt`.
    pub tile: String,
}

impl Lowered {
    fn new(name: impl Into<String>, launches: Vec<Launch>) -> Self {
        Lowered { launches, name: name.into(), flops: 0, tile: String::new() }
    }
}

/// What lowering a node looks at.
struct Context<'p> {
    plan: &'p Plan,
    memory: &'p Memory,
    /// Position of the node in its graph.
    index: usize,
    node: &'p Node,
}

impl Context<'_> {
    fn operand(&self, tensor: Tensor) -> Result<Operand, CudaError> {
        self.memory.operand(self.plan, tensor)
    }
    fn input(&self, argument: usize) -> Result<Operand, CudaError> {
        self.operand(self.node.inputs[argument])
    }
    fn output(&self) -> Result<Operand, CudaError> {
        self.operand(self.node.outputs[0])
    }
    /// Rows of the first result that are to be computed.
    fn rows(&self) -> Result<Rows, CudaError> {
        self.memory.rows(self.plan, self.node.outputs[0])
    }
    fn input_shape(&self, argument: usize) -> &Shape {
        self.plan.graph.shape(self.node.inputs[argument])
    }
    fn output_shape(&self) -> &Shape {
        self.plan.graph.shape(self.node.outputs[0])
    }
    /// The value of a constant argument: weights to pack.
    fn constant(&self, argument: usize) -> Option<&HostTensor> {
        self.plan.constant(self.node.inputs[argument])
    }
    /// Puts packed weights on the device.
    fn keep(&self, bytes: &[u8]) -> Result<u64, CudaError> {
        self.memory.keep(bytes)
    }
    /// As many counters, which are 0 and which kernels leave so.
    fn counters(&self, count: usize) -> Result<u64, CudaError> {
        self.memory.counters(count)
    }
    /// Scratch buffers that [`scratch`] asked for, each as one row.
    fn scratch(&self) -> Result<Vec<Operand>, CudaError> {
        self.plan.scratch[self.index]
            .iter()
            .map(|&(dtype, n, offset)| {
                let site = Site { home: Home::Arena(offset), offset: 0, pitch: n };
                self.memory.operand_at(self.plan, site, Storage::of(dtype), 1, n)
            })
            .collect()
    }
}

/// Scratch buffers that the CUDA form of a node needs.
pub(super) fn scratch(graph: &Graph, storage: &[Storage], node: &Node) -> Vec<(DType, usize)> {
    match &node.op {
        Op::Conv2d { .. } | Op::ConvTranspose2d { .. } | Op::Linear { .. } | Op::MatMul { .. } => {
            networks::scratch(graph, storage, node)
        }
        Op::Attention { heads, .. } => attention::scratch(graph, storage, node, *heads),
        Op::WindowAttention { .. } => attention::window_scratch(graph, storage, node),
        Op::Custom(op) => op.cuda_scratch(&graph.types_of(&node.inputs)),
        Op::Constant(_)
        | Op::BatchNorm { .. }
        | Op::Unary(_)
        | Op::Binary(_)
        | Op::Reduce(_)
        | Op::Reshape
        | Op::Slice { .. }
        | Op::Concat { .. }
        | Op::Pad { .. }
        | Op::MaxPool2d { .. }
        | Op::UpsampleNearest2x
        | Op::Softmax
        | Op::LayerNorm { .. }
        | Op::TopK { .. }
        | Op::Gather
        | Op::DeformableAttention { .. }
        | Op::ImageToTensor(_)
        | Op::LimitRows => Vec::new(),
    }
}

/// Binds a step.
pub(super) fn lower(plan: &Plan, memory: &Memory, step: &Step) -> Result<Lowered, CudaError> {
    match step {
        Step::Copy { from, to } => arrange::deliver(plan, memory, *from, *to),
        Step::Chain { chain, nodes } => {
            let index = *nodes.last().expect("a chain has nodes");
            let context = Context { plan, memory, index, node: &plan.graph.nodes()[index] };
            match chain {
                Chain::Elementwise => expression::expression(&context, nodes),
                Chain::Perceptron => perceptron::perceptron(&context, nodes),
                Chain::Normed => networks::normed(&context, nodes[0]),
            }
        }
        Step::Node { index, copy_parts } => {
            let node = &plan.graph.nodes()[*index];
            lower_node(&Context { plan, memory, index: *index, node }, copy_parts)
        }
    }
}

fn lower_node(context: &Context<'_>, copy_parts: &[usize]) -> Result<Lowered, CudaError> {
    match &context.node.op {
        Op::Conv2d { .. } => networks::conv2d(context),
        Op::Linear { .. } => networks::linear(context),
        Op::ConvTranspose2d { .. } => networks::conv_transpose2d(context),
        Op::MatMul { transpose_b } => networks::matmul(context, *transpose_b),
        Op::MaxPool2d { kernel, stride, padding } => maps::max_pool2d(context, *kernel, *stride, *padding),
        Op::UpsampleNearest2x => maps::upsample_nearest_2x(context),
        Op::Pad { padding } => maps::pad(context, *padding),
        Op::Unary(op) => rows::unary(context, *op),
        Op::Binary(op) => rows::binary(context, *op),
        Op::Reduce(op) => rows::reduce(context, *op),
        Op::Softmax => rows::softmax(context),
        Op::LayerNorm { .. } => rows::layer_norm(context),
        Op::TopK { k } => rows::top_k(context, *k),
        Op::Reshape => arrange::reshape(context),
        Op::Slice { axis, start, .. } => arrange::slice(context, *axis, *start),
        Op::Concat { axis } => arrange::concat(context, *axis, copy_parts),
        Op::Gather => arrange::gather(context),
        Op::Attention { .. } => attention::attention(context),
        Op::WindowAttention { .. } => attention::window_attention(context),
        Op::DeformableAttention { .. } => attention::deformable(context),
        Op::ImageToTensor(transform) => image::image_to_tensor(context, transform),
        Op::Custom(op) => custom::custom(context, op.as_ref()),
        Op::Constant(_) | Op::BatchNorm { .. } | Op::LimitRows => {
            unreachable!("{} takes no step: rewrites and placement see to it", context.node.op.name())
        }
    }
}
