//! The closed list of operations. An op enters when a model here needs it.

use std::fmt;
use std::sync::Arc;

use super::Tensor;
use super::custom::CustomOp;
use crate::tensor::HostTensor;

/// Elementwise function of one argument.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum UnaryOp {
    /// `max(x, 0)`
    Relu,
    /// `x * sigmoid(x)`
    Silu,
    /// `x * Φ(x)`, with the exact normal distribution function (not the tanh approximation)
    Gelu,
    /// `1 / (1 + exp(-x))`
    Sigmoid,
    /// hyperbolic tangent
    Tanh,
    /// natural exponential
    Exp,
    /// natural logarithm
    Log,
    /// square root
    Sqrt,
    /// sine of radians
    Sin,
    /// cosine of radians
    Cos,
    /// absolute value
    Abs,
    /// `min(max(x, low), high)`
    Clamp(f32, f32),
    /// `scale * x + shift`
    Affine(f32, f32),
}

impl UnaryOp {
    /// Short name.
    pub fn name(self) -> &'static str {
        match self {
            UnaryOp::Relu => "relu",
            UnaryOp::Silu => "silu",
            UnaryOp::Gelu => "gelu",
            UnaryOp::Sigmoid => "sigmoid",
            UnaryOp::Tanh => "tanh",
            UnaryOp::Exp => "exp",
            UnaryOp::Log => "log",
            UnaryOp::Sqrt => "sqrt",
            UnaryOp::Sin => "sin",
            UnaryOp::Cos => "cos",
            UnaryOp::Abs => "abs",
            UnaryOp::Clamp(..) => "clamp",
            UnaryOp::Affine(..) => "affine",
        }
    }
}

/// Elementwise function of two arguments, with NumPy broadcasting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BinaryOp {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a * b`
    Mul,
    /// `a / b`
    Div,
    /// larger of the two
    Max,
    /// smaller of the two
    Min,
}

/// Reduction over the last dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReduceOp {
    /// largest value
    Max,
    /// sum
    Sum,
    /// arithmetic mean
    Mean,
}

/// Zero padding or window placement on the four sides of a feature map, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Padding {
    /// rows above
    pub top: usize,
    /// columns to the left
    pub left: usize,
    /// rows below
    pub bottom: usize,
    /// columns to the right
    pub right: usize,
}

impl Padding {
    /// The same on every side.
    pub const fn same(p: usize) -> Self {
        Padding { top: p, left: p, bottom: p, right: p }
    }
}

/// What a convolution or linear layer does to its sums before storing them, in this order:
/// bias, `activation`, `affine`, residual, `activation_after_residual`. At most one of the activations is a clamp.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Epilogue {
    /// Applied to `sum + bias`.
    pub activation: Option<UnaryOp>,
    /// `(scale, shift)` of the learnable affine block, applied after the activation.
    pub affine: Option<(f32, f32)>,
    /// Whether the last input is added after the affine step: a tensor of the output's shape, or of one entry of its
    /// leading dimension, which every entry then gets.
    pub residual: bool,
    /// Applied last.
    pub activation_after_residual: Option<UnaryOp>,
}

impl Epilogue {
    /// Bounds of the clamp that one of the activations is, if one is.
    pub fn clamp(&self) -> Option<(f32, f32)> {
        [self.activation, self.activation_after_residual].into_iter().flatten().find_map(|op| match op {
            UnaryOp::Clamp(low, high) => Some((low, high)),
            _ => None,
        })
    }

    /// True when sums are stored as they are (bias aside).
    pub fn is_identity(&self) -> bool {
        *self == Epilogue::default()
    }
}

/// What it does, as it stands in names of steps: `+relu+residual`.
impl fmt::Display for Epilogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.activation.map(UnaryOp::name);
        let last = self.activation_after_residual.map(UnaryOp::name);
        let parts = [first, self.affine.map(|_| "affine"), self.residual.then_some("residual"), last];
        parts.into_iter().flatten().try_for_each(|part| write!(f, "+{part}"))
    }
}

/// Parameters of [`Graph::window_attention`](super::Graph::window_attention) over C channels.
#[derive(Debug, Clone, Copy)]
pub struct WindowAttentionParameters {
    /// Weight and bias of the layer norm, `[C]` each.
    pub norm: [Tensor; 2],
    /// Weight `[3·C, C]` and bias `[3·C]`: the queries of all heads, then the keys, then the values.
    pub qkv: [Tensor; 2],
    /// `[heads, window², window²]`, added to the scores.
    pub score_bias: Tensor,
    /// Weight `[C, C]` and bias `[C]` of the projection.
    pub project: [Tensor; 2],
}

/// Most points that a head of [`Graph::deformable_attention`](super::Graph::deformable_attention) samples.
pub const MAX_SAMPLING_POINTS: usize = 64;

/// How a raw frame becomes a network's input; see [`Graph::image_to_tensor`](super::Graph::image_to_tensor).
#[derive(Debug, Clone, PartialEq)]
pub struct ImageTransform {
    /// Height and width of the result.
    pub output_hw: [usize; 2],
    /// Height and width that the frame is resized to, placed at the top left; the rest is 0.
    pub resized_hw: [usize; 2],
    /// Multiplies each sample (0 to 255), per output channel.
    pub scale: [f32; 3],
    /// Added after the multiplication, per output channel.
    pub shift: [f32; 3],
}

/// One operation. Shapes are documented on the builder methods of [`Graph`](super::Graph).
#[derive(Debug, Clone)]
#[allow(missing_docs)] // each field is documented by the builder method of the same name
pub enum Op {
    Constant(HostTensor),
    Conv2d { stride: [usize; 2], padding: Padding, groups: usize, bias: bool, epilogue: Epilogue },
    ConvTranspose2d { bias: bool, epilogue: Epilogue },
    BatchNorm { epsilon: f32 },
    Linear { bias: bool, epilogue: Epilogue },
    MatMul { transpose_b: bool },
    Unary(UnaryOp),
    Binary(BinaryOp),
    Reduce(ReduceOp),
    Reshape,
    Slice { axis: usize, start: usize, len: usize },
    Concat { axis: usize },
    Pad { padding: Padding },
    MaxPool2d { kernel: usize, stride: usize, padding: Padding },
    UpsampleNearest2x,
    Softmax,
    LayerNorm { epsilon: f32, activation: Option<UnaryOp> },
    TopK { k: usize },
    Gather,
    Attention { heads: usize, scale: f32, bias: bool },
    WindowAttention { window: usize, heads: usize, epsilon: f32 },
    DeformableAttention { heads: usize, levels_hw: Vec<[usize; 2]>, points_per_level: Vec<usize> },
    ImageToTensor(ImageTransform),
    LimitRows,
    Custom(Arc<dyn CustomOp>),
}

impl Op {
    /// Short name, as it stands in errors, plans and profiles.
    pub fn name(&self) -> &str {
        match self {
            Op::Constant(_) => "constant",
            Op::Conv2d { groups: 1, .. } => "conv2d",
            Op::Conv2d { .. } => "conv2d_grouped",
            Op::ConvTranspose2d { .. } => "conv_transpose2d",
            Op::BatchNorm { .. } => "batch_norm",
            Op::Linear { .. } => "linear",
            Op::MatMul { .. } => "matmul",
            Op::Unary(op) => op.name(),
            Op::Binary(op) => match op {
                BinaryOp::Add => "add",
                BinaryOp::Sub => "sub",
                BinaryOp::Mul => "mul",
                BinaryOp::Div => "div",
                BinaryOp::Max => "max",
                BinaryOp::Min => "min",
            },
            Op::Reduce(op) => match op {
                ReduceOp::Max => "reduce_max",
                ReduceOp::Sum => "reduce_sum",
                ReduceOp::Mean => "reduce_mean",
            },
            Op::Reshape => "reshape",
            Op::Slice { .. } => "slice",
            Op::Concat { .. } => "concat",
            Op::Pad { .. } => "pad",
            Op::MaxPool2d { .. } => "max_pool2d",
            Op::UpsampleNearest2x => "upsample_nearest_2x",
            Op::Softmax => "softmax",
            Op::LayerNorm { .. } => "layer_norm",
            Op::TopK { .. } => "top_k",
            Op::Gather => "gather",
            Op::Attention { .. } => "attention",
            Op::WindowAttention { .. } => "window_attention",
            Op::DeformableAttention { .. } => "deformable_attention",
            Op::ImageToTensor(_) => "image_to_tensor",
            Op::LimitRows => "limit_rows",
            Op::Custom(op) => op.name(),
        }
    }
}
