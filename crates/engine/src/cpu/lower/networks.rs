//! Convolutions, linear layers, products, pooling.

use std::ops::Range;
use std::sync::Arc;

use super::{Context, Lowered};
use crate::cpu::kernels::{
    self, Act, ConvShape, Map, PackedConv, PackedConvTranspose, PackedDepthwise, PackedLinear, View, ViewMut,
};
use crate::cpu::memory::Operand;
use crate::error::OutOfMemory;
use crate::graph::{Epilogue, Op, UnaryOp};

/// The function that a rewrite fused into a layer or a norm.
pub(super) fn act(op: Option<UnaryOp>) -> Act {
    match op {
        None => Act::None,
        Some(UnaryOp::Relu) => Act::Relu,
        Some(UnaryOp::Silu) => Act::Silu,
        Some(UnaryOp::Gelu) => Act::Gelu,
        Some(UnaryOp::Sigmoid) => Act::Sigmoid,
        Some(UnaryOp::Tanh) => Act::Tanh,
        Some(UnaryOp::Clamp(low, high)) => Act::Clamp { low, high },
        Some(
            other @ (UnaryOp::Exp
            | UnaryOp::Log
            | UnaryOp::Sqrt
            | UnaryOp::Sin
            | UnaryOp::Cos
            | UnaryOp::Abs
            | UnaryOp::Affine(..)),
        ) => unreachable!("{other:?} is not an activation that rewrites fuse"),
    }
}

pub(super) fn epilogue(context: &Context<'_>, epilogue: &Epilogue, bias: bool) -> kernels::Epilogue {
    let bias = bias.then(|| values(context, 2).to_vec());
    kernels::Epilogue {
        bias,
        act1: act(epilogue.activation),
        scale_shift: epilogue.affine,
        act2: act(epilogue.activation_after_residual),
    }
}

pub(super) fn values<'s>(context: &'s Context<'_>, argument: usize) -> &'s [f32] {
    context.constant(argument).and_then(|c| c.as_f32()).expect("weights are float constants")
}

/// Runs `body` for all rows at once, or, when the residual covers only one entry of the leading dimension, for as many
/// rows at a time.
fn each_residual(
    residual: Option<&Operand>,
    call: &super::Call<'_>,
    mut out: ViewMut<'_>,
    body: impl Fn(Range<usize>, Option<View<'_>>, ViewMut<'_>),
) {
    let rows = out.rows();
    let at_once = residual.map_or(rows, |r| r.valid_rows(call.entries)).min(rows).max(1);
    let residual = residual.filter(|_| rows > 0).map(|r| r.leading(at_once));
    for start in (0..rows).step_by(at_once) {
        body(start..start + at_once, residual, out.reborrow().row_range(start, at_once));
    }
}

/// Packed weights of a convolution.
enum Filters {
    Dense(Arc<PackedConv>),
    Depthwise(Arc<PackedDepthwise>),
}

pub(super) fn conv2d(context: &Context<'_>) -> Result<Lowered, OutOfMemory> {
    let Op::Conv2d { stride, padding, groups, bias, epilogue: fused } = context.node.op.clone() else {
        unreachable!("dispatched on the op")
    };
    let own = epilogue(context, &fused, bias);
    let weight_shape = context.constant(1).expect("weights are constants").shape().clone();
    let (c_out, c_group, kh, kw) = (weight_shape[0], weight_shape[1], weight_shape[2], weight_shape[3]);
    let shape = ConvShape {
        kernel: [kh, kw],
        stride,
        pad: [padding.top, padding.left, padding.bottom, padding.right],
    };
    let packed = if c_group == 1 && groups == c_out {
        Filters::Depthwise(depthwise_packed(context, c_out, shape, own)?)
    } else {
        let c_in = c_group * groups;
        let weights = values(context, 1);
        let sizes = [&[c_out, c_in, groups][..], &sizes_of(shape)].concat();
        let pack = |own| PackedConv::new(context.level, weights, c_out, c_in, groups, shape, own);
        Filters::Dense(context.packing.shared(weights, &sizes, own, PackedConv::bytes, pack)?)
    };
    let (h, w) = (context.input_shape(0)[1], context.input_shape(0)[2]);
    let (out_h, out_w) = (context.output_shape()[1], context.output_shape()[2]);
    let (x, mut out) = (context.input(0), context.output());
    let residual = fused.residual.then(|| context.input(2 + usize::from(bias)));
    let flops = 2 * (out.rows * c_out * c_group * kh * kw) as u64;
    let name = format!("{}_{kh}x{kw}{fused}", context.node.op.name());
    let kernel = Box::new(move |call: &super::Call<'_>| {
        let (x, out) = (x.view(call.entries), out.view_mut(call.entries));
        each_residual(residual.as_ref(), call, out, |rows, residual, out| {
            let first = rows.start / (out_h * out_w);
            let images = rows.len() / (out_h * out_w);
            let x = x.row_range(first * h * w, images * h * w);
            let map = Map::new(images, h, w);
            match &packed {
                Filters::Dense(packed) => kernels::conv2d(call.pool, x, map, packed, residual, out),
                Filters::Depthwise(packed) => kernels::depthwise(call.pool, x, map, packed, residual, out),
            }
        });
    });
    Ok(Lowered { kernel, name, flops })
}

fn sizes_of(ConvShape { kernel, stride, pad }: ConvShape) -> [usize; 8] {
    let ([kh, kw], [down, across], [top, left, bottom, right]) = (kernel, stride, pad);
    [kh, kw, down, across, top, left, bottom, right]
}

/// Filters of a depthwise convolution.
pub(super) fn depthwise_packed(
    context: &Context<'_>,
    channels: usize,
    shape: ConvShape,
    own: kernels::Epilogue,
) -> Result<Arc<PackedDepthwise>, OutOfMemory> {
    let weights = values(context, 1);
    let sizes = [&[channels][..], &sizes_of(shape)].concat();
    let pack = |own| PackedDepthwise::new(context.level, weights, channels, shape, own);
    context.packing.shared(weights, &sizes, own, PackedDepthwise::bytes, pack)
}

/// The argument with weights `[N, K]`.
pub(super) fn linear_packed(
    context: &Context<'_>,
    argument: usize,
    n: usize,
    k: usize,
    own: kernels::Epilogue,
) -> Result<Arc<PackedLinear>, OutOfMemory> {
    let weights = values(context, argument);
    let pack = |own| PackedLinear::new(context.level, weights, n, k, own);
    context.packing.shared(weights, &[n, k], own, PackedLinear::bytes, pack)
}

/// Weights `[N, K]` of a linear layer, or `[N, K, 1, 1]` of a 1x1 convolution, with bias and epilogue.
pub(super) fn pack_linear(context: &Context<'_>) -> Result<Arc<PackedLinear>, OutOfMemory> {
    let (Op::Linear { bias, epilogue: fused } | Op::Conv2d { bias, epilogue: fused, .. }) = &context.node.op
    else {
        unreachable!("only layers with weights are packed")
    };
    let weight_shape = context.input_shape(1);
    let (n, k) = (weight_shape[0], weight_shape[1]);
    linear_packed(context, 1, n, k, epilogue(context, fused, *bias))
}

pub(super) fn linear(context: &Context<'_>) -> Result<Lowered, OutOfMemory> {
    let Op::Linear { bias, epilogue: fused } = context.node.op.clone() else {
        unreachable!("dispatched on the op")
    };
    let packed = pack_linear(context)?;
    let (n, k) = (packed.n(), packed.k());
    let (x, mut out) = (context.input(0), context.output());
    let residual = fused.residual.then(|| context.input(2 + usize::from(bias)));
    let flops = 2 * (out.rows * n * k) as u64;
    let name = format!("linear{fused}");
    let kernel = Box::new(move |call: &super::Call<'_>| {
        let (x, out) = (x.view(call.entries), out.view_mut(call.entries));
        each_residual(residual.as_ref(), call, out, |rows, residual, out| {
            kernels::linear(call.pool, x.row_range(rows.start, rows.len()), &packed, residual, out);
        });
    });
    Ok(Lowered { kernel, name, flops })
}

pub(super) fn conv_transpose2d(context: &Context<'_>) -> Result<Lowered, OutOfMemory> {
    let Op::ConvTranspose2d { bias, epilogue: fused } = context.node.op.clone() else {
        unreachable!("dispatched on the op")
    };
    let own = epilogue(context, &fused, bias);
    let weight_shape = context.constant(1).expect("weights are constants").shape().clone();
    let (c_in, c_out) = (weight_shape[0], weight_shape[1]);
    let weights = values(context, 1);
    let pack = |own| PackedConvTranspose::new(context.level, weights, c_in, c_out, own);
    let packed = context.packing.shared(weights, &[c_in, c_out], own, PackedConvTranspose::bytes, pack)?;
    let (h, w) = (context.input_shape(0)[1], context.input_shape(0)[2]);
    let (x, mut out) = (context.input(0), context.output());
    let residual = fused.residual.then(|| context.input(2 + usize::from(bias)));
    let flops = 2 * (out.rows * c_out * c_in) as u64;
    let kernel = Box::new(move |call: &super::Call<'_>| {
        let (x, out) = (x.view(call.entries), out.view_mut(call.entries));
        each_residual(residual.as_ref(), call, out, |rows, residual, out| {
            let (first, images) = (rows.start / (4 * h * w), rows.len() / (4 * h * w));
            let x = x.row_range(first * h * w, images * h * w);
            kernels::conv_transpose2x2(call.pool, x, Map::new(images, h, w), &packed, residual, out);
        });
    });
    Ok(Lowered { kernel, name: format!("conv_transpose2d{fused}"), flops })
}

pub(super) fn matmul(context: &Context<'_>, transpose_b: bool) -> Lowered {
    let (a_dims, b_dims) = (context.input_shape(0).dims().to_vec(), context.input_shape(1).dims().to_vec());
    let rank = a_dims.len();
    let (m, k) = (a_dims[rank - 2], a_dims[rank - 1]);
    let b_rows = b_dims[rank - 2];
    let (a, b, mut out, level) = (context.input(0), context.input(1), context.output(), context.level);
    // A row-counted matrix is one product with fewer rows; counted batches are fewer products.
    let one = rank == 2;
    let kernel = Box::new(move |call: &super::Call<'_>| {
        let (a, out) = (a.view(call.entries), out.view_mut(call.entries));
        let batch = if one { 1 } else { a.rows() / m };
        let b = b.view(None).row_range(0, batch * b_rows);
        kernels::matmul(level, call.pool, batch, a, b, transpose_b, out);
    });
    let flops = 2 * (context.output_shape().numel() * k) as u64;
    Lowered { kernel, name: "matmul".into(), flops }
}

pub(super) fn max_pool2d(context: &Context<'_>) -> Lowered {
    let Op::MaxPool2d { kernel, stride, padding } = context.node.op.clone() else {
        unreachable!("dispatched on the op")
    };
    let shape = ConvShape {
        kernel: [kernel; 2],
        stride: [stride; 2],
        pad: [padding.top, padding.left, padding.bottom, padding.right],
    };
    let (h, w) = (context.input_shape(0)[1], context.input_shape(0)[2]);
    let (x, mut out, level) = (context.input(0), context.output(), context.level);
    Lowered::new("max_pool2d", move |call| {
        let x = x.view(call.entries);
        let map = Map::new(x.rows() / (h * w), h, w);
        kernels::max_pool(level, call.pool, x, map, shape, f32::NEG_INFINITY, out.view_mut(call.entries));
    })
}

pub(super) fn upsample_nearest_2x(context: &Context<'_>) -> Lowered {
    let (h, w) = (context.input_shape(0)[1], context.input_shape(0)[2]);
    let (x, mut out, level) = (context.input(0), context.output(), context.level);
    Lowered::new("upsample_nearest_2x", move |call| {
        let x = x.view(call.entries);
        let map = Map::new(x.rows() / (h * w), h, w);
        kernels::upsample_nearest2(level, call.pool, x, map, out.view_mut(call.entries));
    })
}
