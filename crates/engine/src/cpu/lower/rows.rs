//! Ops on rows: norms, softmax, reductions, elementwise functions with broadcasting.

use super::networks::act;
use super::{Context, Lowered};
use crate::cpu::kernels::{self, Act, Binary, LayerNorm, Reduce, Unary};
use crate::cpu::memory::{Operand, Output};
use crate::graph::{BinaryOp, Epilogue, Op, ReduceOp, UnaryOp};
use crate::tensor::Shape;

pub(super) fn unary(context: &Context<'_>, op: UnaryOp) -> Lowered {
    let f = match op {
        UnaryOp::Relu => Unary::Act(Act::Relu),
        UnaryOp::Silu => Unary::Act(Act::Silu),
        UnaryOp::Gelu => Unary::Act(Act::Gelu),
        UnaryOp::Sigmoid => Unary::Act(Act::Sigmoid),
        UnaryOp::Tanh => Unary::Act(Act::Tanh),
        UnaryOp::Exp => Unary::Exp,
        UnaryOp::Log => Unary::Log,
        UnaryOp::Sqrt => Unary::Sqrt,
        UnaryOp::Sin => Unary::Sin,
        UnaryOp::Cos => Unary::Cos,
        UnaryOp::Abs => Unary::Abs,
        UnaryOp::Clamp(low, high) => Unary::Act(Act::Clamp { low, high }),
        UnaryOp::Affine(scale, shift) => Unary::Affine { scale, shift },
    };
    let (x, mut out, level) = (context.input(0), context.output(), context.level);
    Lowered::new(context.node.op.name().to_owned(), move |call| {
        kernels::unary(level, call.pool, f, x.view(call.entries), out.view_mut(call.entries));
    })
}

pub(super) fn softmax(context: &Context<'_>) -> Lowered {
    let (x, mut out, level) = (context.input(0), context.output(), context.level);
    Lowered::new("softmax", move |call| {
        kernels::softmax(level, call.pool, x.view(call.entries), out.view_mut(call.entries));
    })
}

pub(super) fn reduce(context: &Context<'_>, op: ReduceOp) -> Lowered {
    let f = match op {
        ReduceOp::Max => Reduce::Max,
        ReduceOp::Sum => Reduce::Sum,
        ReduceOp::Mean => Reduce::Mean,
    };
    let (x, mut out, level) = (context.input(0), context.output(), context.level);
    Lowered::new(context.node.op.name().to_owned(), move |call| {
        kernels::reduce(level, call.pool, f, x.view(call.entries), out.view_mut(call.entries));
    })
}

pub(super) fn layer_norm(context: &Context<'_>) -> Lowered {
    let Op::LayerNorm { epsilon: eps, activation } = context.node.op else {
        unreachable!("dispatched on the op")
    };
    let (x, gamma, beta, mut out) = (context.input(0), context.input(1), context.input(2), context.output());
    let (level, act) = (context.level, act(activation));
    Lowered::new(format!("layer_norm{}", Epilogue { activation, ..Epilogue::default() }), move |call| {
        let norm = LayerNorm { gamma: gamma.slice().f32(), beta: beta.slice().f32(), eps, act };
        let (x, out) = (x.view(call.entries), out.view_mut(call.entries));
        kernels::layer_norm(level, call.pool, x, None, norm, None, out);
    })
}

/// How one argument of a binary op meets a block of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Full,
    Row,
    Column,
    Scalar,
}

/// How an argument's dimensions (padded with ones to the result's rank) broadcast to the result's.
fn form(argument: &[usize], output: &[usize]) -> Option<Form> {
    let (cols, leading) = argument.split_last()?;
    let (out_cols, out_leading) = output.split_last()?;
    let single_row = leading.iter().all(|&d| d == 1);
    match () {
        () if argument == output => Some(Form::Full),
        () if argument.iter().all(|&d| d == 1) => Some(Form::Scalar),
        () if single_row && cols == out_cols => Some(Form::Row),
        () if *cols == 1 && leading == out_leading => Some(Form::Column),
        () => None,
    }
}

/// One argument over the blocks of a broadcast: its form inside a block, and its first row in each.
struct Argument {
    operand: Operand,
    form: Form,
    rows: usize,
    first_rows: Vec<usize>,
}

impl Argument {
    fn new(operand: Operand, shape: &Shape, output: &Shape, split: usize, form: Form) -> Self {
        let padded = padded(shape, output.rank());
        let rows: usize = padded[split..output.rank() - 1].iter().product();
        let blocks: usize = output.dims()[..split].iter().product();
        let first_rows = (0..blocks)
            .map(|block| {
                // The block's position along the leading dimensions, folded onto the argument's own.
                let (mut rest, mut index, mut stride) = (block, 0, 1);
                for axis in (0..split).rev() {
                    let at = rest % output[axis];
                    rest /= output[axis];
                    index += if padded[axis] == 1 { 0 } else { at * stride };
                    stride *= padded[axis];
                }
                index * rows
            })
            .collect();
        Argument { operand, form, rows, first_rows }
    }

    /// The argument in block `block`, of which `rows` rows are computed.
    fn in_block(&self, block: usize, rows: usize) -> kernels::Broadcast<'_> {
        let view = self.operand.view(None).row_range(self.first_rows[block], self.rows.min(rows));
        match self.form {
            Form::Full => kernels::Broadcast::Full(view),
            Form::Column => kernels::Broadcast::Column(view),
            Form::Row => kernels::Broadcast::Row(view.row(0)),
            Form::Scalar => kernels::Broadcast::Scalar(view.row(0)[0]),
        }
    }
}

fn padded(shape: &Shape, rank: usize) -> Vec<usize> {
    std::iter::repeat_n(1, rank - shape.rank()).chain(shape.dims().iter().copied()).collect()
}

pub(super) fn binary(context: &Context<'_>, op: BinaryOp) -> Lowered {
    let f = match op {
        BinaryOp::Add => Binary::Add,
        BinaryOp::Sub => Binary::Sub,
        BinaryOp::Mul => Binary::Mul,
        BinaryOp::Div => Binary::Div,
        BinaryOp::Max => Binary::Max,
        BinaryOp::Min => Binary::Min,
    };
    let (a, b, mut out, level) = (context.input(0), context.input(1), context.output(), context.level);
    let name = context.node.op.name().to_owned();
    let output = context.output_shape().clone();
    let shapes = [context.input_shape(0).clone(), context.input_shape(1).clone()];
    if shapes.iter().all(|s| *s == output) {
        return Lowered::new(name, move |call| {
            let out = out.view_mut(call.entries);
            let [a, b] = [&a, &b].map(|o| kernels::Broadcast::Full(o.leading(out.rows())));
            kernels::binary(level, call.pool, f, a, b, Act::None, out);
        });
    }
    // As few blocks as possible such that both arguments meet each of them in a simple form.
    let rank = output.rank();
    let split = (0..rank)
        .find(|&s| shapes.iter().all(|x| form(&padded(x, rank)[s..], &output.dims()[s..]).is_some()))
        .expect("one row against one row is always simple");
    let rows_per_block: usize = output.dims()[split..rank - 1].iter().product();
    let blocks_per_entry: usize = output.dims()[..split].iter().skip(1).product();
    let [a, b] = [(a, &shapes[0]), (b, &shapes[1])].map(|(operand, shape)| {
        let form = form(&padded(shape, rank)[split..], &output.dims()[split..]).expect("as above");
        Argument::new(operand, shape, &output, split, form)
    });
    Lowered::new(name, move |call| {
        let (blocks, rows) = match call.entries {
            Some(entries) if split > 0 => {
                ((entries * blocks_per_entry).min(a.first_rows.len()), rows_per_block)
            }
            _ => (a.first_rows.len(), if split == 0 { out.valid_rows(call.entries) } else { rows_per_block }),
        };
        for block in 0..blocks {
            let (a, b) = (a.in_block(block, rows), b.in_block(block, rows));
            let out = out.view_mut(None).row_range(block * rows_per_block, rows);
            kernels::binary(level, call.pool, f, a, b, Act::None, out);
        }
    })
}

pub(super) fn top_k(context: &Context<'_>, k: usize) -> Lowered {
    let x = context.input(0);
    let [mut values, mut indices] = <[Output; 2]>::try_from(context.outputs()).expect("values and indices");
    Lowered::new("top_k", move |call| {
        let (x, values) = (x.view(call.entries), values.view_mut(call.entries));
        let rows = x.rows();
        let mut indices = indices.slice_mut();
        // An index below the number of columns is the same bits with and without a sign.
        let indices: &mut [u32] = bytemuck::cast_slice_mut(&mut indices.i32()[..rows * k]);
        kernels::top_k(call.pool, x, k, values, indices);
    })
}
