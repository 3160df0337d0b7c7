//! From a plan's steps to kernels bound to memory: weights are packed here, once.
#![allow(unsafe_code)]

mod arrange;
mod attention;
mod chains;
mod custom;
mod image;
mod networks;
mod rows;

use super::memory::{Memory, Operand, Output};
use super::packing::Packing;
use super::plan::{Chain, Plan, Step};
use super::{Level, Pool};
use crate::error::OutOfMemory;
use crate::graph::{Node, Op};
use crate::tensor::{HostTensor, Shape};

/// What a kernel gets when it runs.
pub(in crate::cpu) struct Call<'a> {
    /// Threads.
    pub pool: &'a Pool,
    /// Valid entries of the leading dimension, for a row-counted result.
    pub entries: Option<usize>,
}

/// A kernel with everything but the call's own facts bound.
pub(super) type Kernel = Box<dyn FnMut(&Call<'_>) + Send>;

/// A step, lowered.
pub(super) struct Lowered {
    pub kernel: Kernel,
    /// Name for profiles.
    pub name: String,
    /// Multiply-adds count two; elementwise work is not counted.
    pub flops: u64,
}

impl Lowered {
    fn new(name: impl Into<String>, kernel: impl FnMut(&Call<'_>) + Send + 'static) -> Self {
        Lowered { kernel: Box::new(kernel), name: name.into(), flops: 0 }
    }
}

/// What lowering a node looks at.
struct Context<'p> {
    plan: &'p Plan,
    memory: &'p Memory,
    level: Level,
    packing: &'p Packing<'p>,
    node: &'p Node,
}

impl<'p> Context<'p> {
    /// The same view of another node.
    fn at(&self, node: &'p Node) -> Context<'p> {
        Context { node, ..*self }
    }
    fn input(&self, argument: usize) -> Operand {
        // SAFETY: the promise of `lower`.
        unsafe { self.memory.operand(self.plan, self.node.inputs[argument]) }
    }
    fn output(&self) -> Output {
        self.outputs().swap_remove(0)
    }
    /// All outputs. Each node is lowered once, and asks for them once.
    fn outputs(&self) -> Vec<Output> {
        // SAFETY: the promise of `lower`; a tensor is the output of one node.
        self.node.outputs.iter().map(|&t| unsafe { self.memory.output(self.plan, t) }).collect()
    }
    /// The part of the output that `like` fits, from this row and column on. Parts are apart.
    fn output_part(&self, from: [usize; 2], like: Operand) -> Output {
        // SAFETY: as for `outputs`.
        unsafe { self.memory.output_part(self.plan, self.node.outputs[0], from, [like.rows, like.cols]) }
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

/// Binds a step.
///
/// # Safety
/// Each step of the plan is bound once. Its kernel runs while the memory lives, in the plan's order, and while no
/// other step of a program with the same states runs.
///
/// # Errors
/// [`OutOfMemory`] where there is no memory for packed weights.
pub(super) unsafe fn lower(
    plan: &Plan,
    memory: &Memory,
    level: Level,
    packing: &Packing<'_>,
    step: &Step,
) -> Result<Lowered, OutOfMemory> {
    match step {
        Step::Copy { from, to } => {
            let ty = plan.graph.ty(*from);
            // SAFETY: the caller's promise; the plan places no two tensors that are alive over one another.
            let (source, mut target) = unsafe {
                let source = memory.operand(plan, *from);
                (source, memory.output_at(plan, *to, ty.dtype, ty.shape.rows(), ty.shape.cols()))
            };
            Ok(Lowered::new("copy", move |_| target.bytes_mut().copy_from(source.bytes())))
        }
        Step::Chain { chain, nodes } => {
            let mut sites: Vec<&Node> = nodes.iter().map(|&n| &plan.graph.nodes()[n]).collect();
            let last = sites.pop().expect("a chain has nodes");
            let context = Context { plan, memory, level, packing, node: last };
            match chain {
                Chain::Perceptron => chains::perceptron(&context, sites[0]),
                Chain::Bottleneck => chains::bottleneck(&context, sites[0], sites[1]),
            }
        }
        Step::Node { index, copy_parts } => {
            let node = &plan.graph.nodes()[*index];
            lower_node(&Context { plan, memory, level, packing, node }, copy_parts)
        }
    }
}

fn lower_node(context: &Context<'_>, copy_parts: &[usize]) -> Result<Lowered, OutOfMemory> {
    Ok(match &context.node.op {
        Op::Conv2d { .. } => networks::conv2d(context)?,
        Op::Linear { .. } => networks::linear(context)?,
        Op::ConvTranspose2d { .. } => networks::conv_transpose2d(context)?,
        Op::MatMul { transpose_b } => networks::matmul(context, *transpose_b),
        Op::MaxPool2d { .. } => networks::max_pool2d(context),
        Op::UpsampleNearest2x => networks::upsample_nearest_2x(context),
        Op::Attention { .. } => attention::attention(context),
        Op::Unary(op) => rows::unary(context, *op),
        Op::Binary(op) => rows::binary(context, *op),
        Op::Reduce(op) => rows::reduce(context, *op),
        Op::Softmax => rows::softmax(context),
        Op::LayerNorm { .. } => rows::layer_norm(context),
        Op::Pad { padding } => arrange::pad(context, *padding),
        Op::Custom(op) => custom::custom(context, op.clone()),
        Op::Concat { axis } => arrange::concat(context, *axis, copy_parts),
        Op::Slice { axis, start, .. } => arrange::slice(context, *axis, *start),
        Op::Reshape => arrange::reshape(context),
        Op::Gather => arrange::gather(context),
        Op::TopK { k } => rows::top_k(context, *k),
        Op::WindowAttention { .. } => attention::window_attention(context)?,
        Op::DeformableAttention { .. } => attention::deformable(context),
        Op::ImageToTensor(transform) => image::image_to_tensor(context, transform),
        Op::Constant(_) | Op::BatchNorm { .. } | Op::LimitRows => {
            unreachable!("{} takes no step: rewrites and placement see to it", context.node.op.name())
        }
    })
}
