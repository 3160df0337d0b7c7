//! What the compiler asks of every op, in one table: a new op does not compile before it has its row.

use crate::graph::{BinaryOp, Op, UnaryOp};

/// Answers of one op.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    /// Its result may be its first argument, read where it is: nothing is computed then.
    pub view: Option<View>,
    /// It computes each element of its result of one element of each argument. Only CUDA joins such ops.
    #[cfg_attr(not(feature = "cuda"), allow(dead_code))]
    pub function: Option<Function>,
    /// What may be rows with gaps between them. Where the result is a view, its readers decide.
    pub pitch: Ends,
    /// What needs all of an f32 and must not be stored in f16.
    pub f32: Ends,
}

/// A function of elements.
#[cfg_attr(not(feature = "cuda"), allow(dead_code))]
#[derive(Debug, Clone, Copy)]
pub(crate) enum Function {
    Unary(UnaryOp),
    Binary(BinaryOp),
}

/// How a result lies in what it is a view of.
#[derive(Debug, Clone, Copy)]
pub(crate) enum View {
    Whole,
    Reshaped,
    Slice { axis: usize, start: usize },
}

/// Arguments, and the results or not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    pub arguments: Arguments,
    pub results: bool,
}

/// Some of an op's arguments.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Arguments {
    Nothing,
    All,
    /// As many leading ones.
    First(usize),
    AllBut(usize),
    /// Those of the result's shape.
    LikeResult,
}

impl Arguments {
    /// `like_result`: whether it has the result's shape.
    pub(crate) fn include(self, argument: usize, like_result: bool) -> bool {
        match self {
            Arguments::Nothing => false,
            Arguments::All => true,
            Arguments::First(n) => argument < n,
            Arguments::AllBut(other) => argument != other,
            Arguments::LikeResult => like_result,
        }
    }
}

/// Place of the weights of a layer among its arguments.
const WEIGHTS: usize = 1;

const NEITHER: Ends = Ends { arguments: Arguments::Nothing, results: false };
const BOTH: Ends = Ends { arguments: Arguments::All, results: true };

/// The table. Its columns: what may be rows with gaps, what needs all of an f32.
pub(crate) fn facts(op: &Op) -> Facts {
    use Arguments::{All, AllBut, First, LikeResult};
    let computed = |pitch, f32| Facts { view: None, function: None, pitch, f32 };
    let gaps = |arguments| Ends { arguments, results: true };
    let reads = |arguments| Ends { arguments, results: false };
    let view = |view| Facts { view: Some(view), ..computed(NEITHER, NEITHER) };
    let function = |function, pitch, f32| Facts { function: Some(function), ..computed(pitch, f32) };
    match op {
        Op::Constant(_) => computed(NEITHER, NEITHER),
        Op::Conv2d { .. } => computed(gaps(AllBut(WEIGHTS)), NEITHER),
        Op::ConvTranspose2d { .. } => computed(gaps(AllBut(WEIGHTS)), NEITHER),
        Op::BatchNorm { .. } => computed(NEITHER, NEITHER),
        Op::Linear { .. } => computed(gaps(AllBut(WEIGHTS)), NEITHER),
        Op::MatMul { .. } => computed(NEITHER, NEITHER),
        Op::Unary(op) => function(Function::Unary(*op), BOTH, if is_wide(*op) { BOTH } else { NEITHER }),
        Op::Binary(op) => {
            let f32 = match op {
                BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul => NEITHER,
                BinaryOp::Div | BinaryOp::Max | BinaryOp::Min => BOTH,
            };
            function(Function::Binary(*op), gaps(LikeResult), f32)
        }
        Op::Reduce(_) => computed(reads(All), BOTH),
        Op::Reshape => view(View::Reshaped),
        Op::Slice { axis, start, .. } => view(View::Slice { axis: *axis, start: *start }),
        Op::Concat { .. } => computed(BOTH, NEITHER),
        Op::Pad { .. } => computed(NEITHER, NEITHER),
        Op::MaxPool2d { .. } => computed(BOTH, NEITHER),
        Op::UpsampleNearest2x => computed(BOTH, NEITHER),
        Op::Softmax => computed(BOTH, BOTH),
        Op::LayerNorm { .. } => computed(gaps(First(1)), NEITHER),
        Op::TopK { .. } => computed(NEITHER, BOTH),
        Op::Gather => computed(NEITHER, NEITHER),
        Op::Attention { .. } => computed(gaps(First(3)), NEITHER),
        Op::WindowAttention { .. } => computed(gaps(First(1)), NEITHER),
        // Where to sample, and weights.
        Op::DeformableAttention { .. } => computed(BOTH, reads(AllBut(0))),
        Op::ImageToTensor(_) => computed(NEITHER, NEITHER),
        Op::LimitRows => view(View::Whole),
        Op::Custom(_) => computed(NEITHER, BOTH),
    }
}

/// Whether a function needs all of an f32.
fn is_wide(op: UnaryOp) -> bool {
    match op {
        UnaryOp::Relu | UnaryOp::Silu | UnaryOp::Gelu => false,
        UnaryOp::Sigmoid
        | UnaryOp::Tanh
        | UnaryOp::Exp
        | UnaryOp::Log
        | UnaryOp::Sqrt
        | UnaryOp::Sin
        | UnaryOp::Cos
        | UnaryOp::Abs
        | UnaryOp::Clamp(..)
        | UnaryOp::Affine(..) => true,
    }
}

/// Whether layers and layer norms can apply a function to their sums.
pub(crate) fn is_activation(op: UnaryOp) -> bool {
    match op {
        UnaryOp::Relu
        | UnaryOp::Silu
        | UnaryOp::Gelu
        | UnaryOp::Sigmoid
        | UnaryOp::Tanh
        | UnaryOp::Clamp(..) => true,
        UnaryOp::Exp
        | UnaryOp::Log
        | UnaryOp::Sqrt
        | UnaryOp::Sin
        | UnaryOp::Cos
        | UnaryOp::Abs
        | UnaryOp::Affine(..) => false,
    }
}
