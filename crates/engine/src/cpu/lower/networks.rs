//! Convolutions and linear layers.

use super::{Lowered, Site};
use crate::cpu::kernels::{self, Act, ConvShape, Map, PackedConv, PackedLinear};
use crate::graph::{Epilogue, Op, UnaryOp};

fn act(op: Option<UnaryOp>) -> Act {
    match op {
        None => Act::None,
        Some(UnaryOp::Relu) => Act::Relu,
        Some(UnaryOp::Silu) => Act::Silu,
        Some(UnaryOp::Gelu) => Act::Gelu,
        Some(UnaryOp::Sigmoid) => Act::Sigmoid,
        Some(UnaryOp::Tanh) => Act::Tanh,
        Some(other) => unreachable!("{other:?} is not an activation that rewrites fuse"),
    }
}

fn epilogue(site: &Site<'_>, epilogue: &Epilogue, bias: bool) -> kernels::Epilogue {
    let bias = bias.then(|| values(site, 2).to_vec());
    kernels::Epilogue {
        bias,
        act1: act(epilogue.activation),
        scale_shift: epilogue.affine,
        act2: act(epilogue.activation_after_residual),
    }
}

fn values<'s>(site: &'s Site<'_>, argument: usize) -> &'s [f32] {
    site.constant(argument).and_then(|c| c.as_f32()).expect("weights are float constants")
}

fn suffix(epilogue: &Epilogue) -> String {
    let mut name = String::new();
    if let Some(op) = epilogue.activation {
        name += &format!("+{}", Op::Unary(op).name());
    }
    if epilogue.affine.is_some() {
        name += "+affine";
    }
    if epilogue.residual {
        name += "+residual";
    }
    if let Some(op) = epilogue.activation_after_residual {
        name += &format!("+{}", Op::Unary(op).name());
    }
    name
}

pub(super) fn conv2d(site: &mut Site<'_>) -> Lowered {
    let Op::Conv2d { stride, padding, groups, bias, epilogue: fused } = site.node.op.clone() else {
        unreachable!("dispatched on the op")
    };
    let own = epilogue(site, &fused, bias);
    let weight_shape = site.constant(1).expect("weights are constants").shape().clone();
    let (c_out, c_group, kh, kw) = (weight_shape[0], weight_shape[1], weight_shape[2], weight_shape[3]);
    let shape = ConvShape {
        kernel: [kh, kw],
        stride,
        pad: [padding.top, padding.left, padding.bottom, padding.right],
    };
    let packed = PackedConv::new(site.level, values(site, 1), c_out, c_group * groups, groups, shape, own);
    let (h, w) = (site.input_shape(0)[1], site.input_shape(0)[2]);
    let (x, out) = (site.input(0), site.output());
    let residual = fused.residual.then(|| site.input(2 + usize::from(bias)));
    let flops = 2 * (out.rows * c_out * c_group * kh * kw) as u64;
    let packed_bytes = packed.bytes();
    let name = format!("{}_{kh}x{kw}{}", site.node.op.name(), suffix(&fused));
    let kernel = Box::new(move |call: &super::Call<'_>| {
        let x = x.view(call.entries);
        let input = Map::new(x.rows() / (h * w), h, w);
        let residual = residual.as_ref().map(|r| r.view(call.entries));
        kernels::conv2d(call.pool, x, input, &packed, residual, out.view_mut(call.entries));
    });
    Lowered { kernel, name, flops, packed_bytes }
}

pub(super) fn linear(site: &mut Site<'_>) -> Lowered {
    let Op::Linear { bias, epilogue: fused } = site.node.op.clone() else {
        unreachable!("dispatched on the op")
    };
    let own = epilogue(site, &fused, bias);
    let weight_shape = site.constant(1).expect("weights are constants").shape().clone();
    let (n, k) = (weight_shape[0], weight_shape[1]);
    let packed = PackedLinear::new(site.level, values(site, 1), n, k, own);
    let (x, out) = (site.input(0), site.output());
    let residual = fused.residual.then(|| site.input(2 + usize::from(bias)));
    let flops = 2 * (out.rows * n * k) as u64;
    let packed_bytes = packed.bytes();
    let name = format!("linear{}", suffix(&fused));
    let kernel = Box::new(move |call: &super::Call<'_>| {
        let residual = residual.as_ref().map(|r| r.view(call.entries));
        kernels::linear(call.pool, x.view(call.entries), &packed, residual, out.view_mut(call.entries));
    });
    Lowered { kernel, name, flops, packed_bytes }
}
