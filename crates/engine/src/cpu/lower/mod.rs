//! From a plan's steps to kernels bound to memory: weights are packed here, once.

mod arrange;
mod attention;
mod chains;
mod custom;
mod image;
mod networks;
mod rows;

use super::memory::{Memory, Operand};
use super::plan::{Chain, Plan, Step};
use super::{Level, Pool};
use crate::compile::Home;
use crate::graph::{Node, Op, Tensor};
use crate::tensor::{HostTensor, Shape};

/// What a kernel gets when it runs.
pub(in crate::cpu) struct Call<'a> {
    /// Threads.
    pub pool: &'a Pool,
    /// Valid entries of the leading dimension, for a row-counted result.
    pub entries: Option<usize>,
}

/// A kernel with everything but the call's own facts bound.
pub(super) type Kernel = Box<dyn Fn(&Call<'_>) + Send>;

/// A step, lowered.
pub(super) struct Lowered {
    pub kernel: Kernel,
    /// Name for profiles.
    pub name: String,
    /// Multiply-adds count two; elementwise work is not counted.
    pub flops: u64,
    /// Memory that packed weights take.
    pub packed_bytes: usize,
}

impl Lowered {
    fn new(name: impl Into<String>, kernel: impl Fn(&Call<'_>) + Send + 'static) -> Self {
        Lowered { kernel: Box::new(kernel), name: name.into(), flops: 0, packed_bytes: 0 }
    }
}

/// What lowering a node looks at.
struct Site<'p> {
    plan: &'p Plan,
    memory: &'p Memory,
    level: Level,
    node: &'p Node,
    used: &'p mut [bool],
}

impl Site<'_> {
    /// The same view of another node.
    fn at<'s>(&'s mut self, node: &'s Node) -> Site<'s> {
        Site { plan: self.plan, memory: self.memory, level: self.level, node, used: self.used }
    }
    fn operand(&mut self, tensor: Tensor) -> Operand {
        if let Home::Constant(node) = self.plan.site(tensor).home {
            self.used[node] = true;
        }
        self.memory.operand(self.plan, tensor)
    }
    fn input(&mut self, argument: usize) -> Operand {
        self.operand(self.node.inputs[argument])
    }
    fn output(&mut self) -> Operand {
        self.operand(self.node.outputs[0])
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
}

/// Binds a step. `used` marks the constants that its kernel reads as they are.
pub(super) fn lower(plan: &Plan, memory: &Memory, level: Level, step: &Step, used: &mut [bool]) -> Lowered {
    match step {
        Step::Copy { from, to } => {
            let ty = plan.graph.ty(*from);
            let mark = plan.site(*from).home;
            if let Home::Constant(node) = mark {
                used[node] = true;
            }
            let source = memory.operand(plan, *from);
            let target = memory.operand_at(*to, ty.dtype, ty.shape.rows(), ty.shape.cols());
            Lowered::new("copy", move |_| target.copy_rows_from(&source))
        }
        Step::Chain { chain, nodes } => {
            let mut sites: Vec<&Node> = nodes.iter().map(|&n| &plan.graph.nodes()[n]).collect();
            let last = sites.pop().expect("a chain has nodes");
            let mut site = Site { plan, memory, level, node: last, used };
            match chain {
                Chain::Perceptron => chains::perceptron(&mut site, sites[0]),
                Chain::Bottleneck => chains::bottleneck(&mut site, sites[0], sites[1]),
            }
        }
        Step::Node { index, copy_parts } => {
            let node = &plan.graph.nodes()[*index];
            lower_node(&mut Site { plan, memory, level, node, used }, copy_parts)
        }
    }
}

fn lower_node(site: &mut Site<'_>, copy_parts: &[usize]) -> Lowered {
    match &site.node.op {
        Op::Conv2d { .. } => networks::conv2d(site),
        Op::Linear { .. } => networks::linear(site),
        Op::ConvTranspose2d { .. } => networks::conv_transpose2d(site),
        Op::MatMul { transpose_b } => networks::matmul(site, *transpose_b),
        Op::MaxPool2d { .. } => networks::max_pool2d(site),
        Op::UpsampleNearest2x => networks::upsample_nearest_2x(site),
        Op::Attention { .. } => attention::attention(site),
        Op::Unary(op) => rows::unary(site, *op),
        Op::Binary(op) => rows::binary(site, *op),
        Op::Reduce(op) => rows::reduce(site, *op),
        Op::Softmax => rows::softmax(site),
        Op::LayerNorm { .. } => rows::layer_norm(site),
        Op::Pad { padding } => arrange::pad(site, *padding),
        Op::Custom(op) => custom::custom(site, op.clone()),
        Op::Concat { axis } => arrange::concat(site, *axis, copy_parts),
        Op::Slice { axis, start, .. } => arrange::slice(site, *axis, *start),
        Op::Reshape => arrange::reshape(site),
        Op::Gather => arrange::gather(site),
        Op::TopK { k } => rows::top_k(site, *k),
        Op::WindowAttention { .. } => attention::window_attention(site),
        Op::DeformableAttention { .. } => attention::deformable(site),
        Op::ImageToTensor(transform) => image::image_to_tensor(site, transform),
        Op::Constant(_) | Op::BatchNorm { .. } | Op::LimitRows => {
            unreachable!("{} takes no step: rewrites and placement see to it", site.node.op.name())
        }
    }
}
