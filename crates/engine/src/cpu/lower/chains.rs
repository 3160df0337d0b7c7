//! Layers that run as one step: what lies between them stays in the cache.

use super::networks::{depthwise_packed, epilogue, pack_linear};
use super::{Context, Lowered};
use crate::cpu::kernels::{self, ConvShape, Map, PackedLinear};
use crate::error::OutOfMemory;
use crate::graph::{Epilogue, Node, Op};

/// Bias flag and epilogue of a linear layer or convolution.
fn layer(node: &Node) -> (bool, Epilogue) {
    match &node.op {
        Op::Linear { bias, epilogue } | Op::Conv2d { bias, epilogue, .. } => (*bias, *epilogue),
        other => unreachable!("{} is in no chain", other.name()),
    }
}

fn flops(rows: usize, weight: &PackedLinear) -> u64 {
    2 * (rows * weight.n() * weight.k()) as u64
}

/// `context` is the second layer.
pub(super) fn perceptron(context: &Context<'_>, first: &Node) -> Result<Lowered, OutOfMemory> {
    let (_, first_epilogue) = layer(first);
    let (bias, own) = layer(context.node);
    let (x, first) = {
        let context = context.at(first);
        (context.input(0), pack_linear(&context)?)
    };
    let second = pack_linear(context)?;
    let mut out = context.output();
    let residual = own.residual.then(|| context.input(2 + usize::from(bias)));
    let name = format!("linear{first_epilogue}, linear{own}");
    Ok(Lowered {
        name,
        flops: flops(out.rows, &first) + flops(out.rows, &second),
        kernel: Box::new(move |call| {
            let (x, out) = (x.view(call.entries), out.view_mut(call.entries));
            let residual = residual.as_ref().map(|r| r.leading(out.rows()));
            kernels::mlp(call.pool, x, &first, &second, residual, out);
        }),
    })
}

/// `context` is the projection.
pub(super) fn bottleneck(
    context: &Context<'_>,
    expand: &Node,
    middle: &Node,
) -> Result<Lowered, OutOfMemory> {
    let (bias, own) = layer(context.node);
    let (x, input_shape, expand) = {
        let context = context.at(expand);
        (context.input(0), context.input_shape(0).clone(), pack_linear(&context)?)
    };
    let (middle, middle_rows, taps) = {
        let context = context.at(middle);
        let Op::Conv2d { stride, padding, bias, epilogue: fused, .. } = &context.node.op else {
            unreachable!("the middle of a bottleneck is a convolution")
        };
        let weight = context.input_shape(1);
        let (channels, kernel) = (weight[0], [weight[2], weight[3]]);
        let pad = [padding.top, padding.left, padding.bottom, padding.right];
        let shape = ConvShape { kernel, stride: *stride, pad };
        let own = epilogue(&context, fused, *bias);
        let packed = depthwise_packed(&context, channels, shape, own)?;
        (packed, context.output_shape().rows(), channels * kernel[0] * kernel[1])
    };
    let project = pack_linear(context)?;
    let mut out = context.output();
    let residual = own.residual.then(|| context.input(2 + usize::from(bias)));
    let (h, w) = (input_shape[1], input_shape[2]);
    Ok(Lowered {
        name: format!("bottleneck{own}"),
        flops: flops(x.rows, &expand) + 2 * (middle_rows * taps) as u64 + flops(out.rows, &project),
        kernel: Box::new(move |call| {
            let x = x.view(call.entries);
            let map = Map::new(x.rows() / (h * w), h, w);
            let out = out.view_mut(call.entries);
            let residual = residual.as_ref().map(|r| r.leading(out.rows()));
            kernels::inverted_bottleneck(call.pool, x, map, &expand, &middle, &project, residual, out);
        }),
    })
}
