//! Convolutions, linear layers, products.

use bytemuck::{Pod, Zeroable};

use super::gemm::{self, EpilogueArguments, Form, Norm, Product, Window};
use super::modules::DEPTHWISE;
use super::rows::in_units;
use super::{Context, Lowered};
use crate::compile::Storage;
use crate::error::CudaError;
use crate::graph::{Epilogue, Graph, Node, Op, Padding};
use crate::launch::Launch;
use crate::launch::abi::{Operand, Rows};
use crate::tensor::DType;

/// Threads of a block of the kernels that walk over maps.
pub(super) const MAP_THREADS: u32 = 128;

pub(super) fn values<'s>(context: &'s Context<'_>, argument: usize) -> &'s [f32] {
    context.constant(argument).and_then(|c| c.as_f32()).expect("weights are float constants")
}

/// What a layer with weights does to its sums. The arguments are input, weight, bias if any, residual if any.
pub(super) fn epilogue_arguments(
    context: &Context<'_>,
    epilogue: &Epilogue,
    bias: bool,
) -> Result<EpilogueArguments, CudaError> {
    let residual = if epilogue.residual { Some(context.input(2 + usize::from(bias))?) } else { None };
    EpilogueArguments::new(context, epilogue, bias.then(|| values(context, 2)), residual)
}

fn window(x: &[usize], out: &[usize], kernel: [usize; 2], stride: [usize; 2], padding: Padding) -> Window {
    let small = |n: usize| n as u32;
    Window {
        in_h: small(x[1]),
        in_w: small(x[2]),
        out_h: small(out[1]),
        out_w: small(out[2]),
        kernel_h: small(kernel[0]),
        kernel_w: small(kernel[1]),
        stride_h: small(stride[0]),
        stride_w: small(stride[1]),
        pad_top: small(padding.top),
        pad_left: small(padding.left),
        channels: small(x[3]),
        channels_padded: small(x[3]),
    }
}

/// The window of a kernel over the first argument's map.
pub(super) fn window_of(
    context: &Context<'_>,
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: Padding,
) -> Window {
    window(context.input_shape(0).dims(), context.output_shape().dims(), kernel, stride, padding)
}

/// Whether a convolution is a linear layer of its pixels.
fn is_pointwise(kernel: [usize; 2], stride: [usize; 2], padding: Padding) -> bool {
    kernel == [1, 1] && stride == [1, 1] && padding == Padding::default()
}

/// Columns of one tap of a transposed convolution among the weights: none of the eight that a thread has is of another.
fn tap_cols(c_out: usize) -> usize {
    c_out.next_multiple_of(8)
}

/// Scratch for partial sums, where the product of a node has them.
pub(super) fn scratch(graph: &Graph, storage: &[Storage], node: &Node) -> Vec<(DType, usize)> {
    let half = |argument: usize| storage[node.inputs[argument].0 as usize] == Storage::F16;
    let shape = |argument: usize| graph.shape(node.inputs[argument]);
    let out = graph.shape(node.outputs[0]);
    let needed = match &node.op {
        Op::Conv2d { groups: 1, stride, padding, .. } => {
            let kernel = [shape(1)[2], shape(1)[3]];
            let form = if is_pointwise(kernel, *stride, *padding) { Form::Rows } else { Form::Windows };
            let k = shape(1)[1] * kernel[0] * kernel[1];
            gemm::partial_sums(half(0), form, [out.rows(), out.cols(), k])
        }
        Op::Linear { .. } => {
            gemm::partial_sums(half(0), Form::Rows, [out.rows(), out.cols(), shape(0).cols()])
        }
        Op::ConvTranspose2d { .. } => {
            let sizes = [shape(0).rows(), 4 * tap_cols(out.cols()), shape(0).cols()];
            gemm::partial_sums(half(0), Form::Rows, sizes)
        }
        Op::MatMul { transpose_b } if out.rows() == out.dims()[out.rank() - 2] => {
            let form = if *transpose_b { Form::Rows } else { Form::Columns };
            gemm::partial_sums(half(0) && half(1), form, [out.rows(), out.cols(), shape(0).cols()])
        }
        _ => 0,
    };
    if needed == 0 { Vec::new() } else { vec![(DType::F32, needed)] }
}

/// The launches of a node's product, and the tile that was chosen.
fn bind(context: &Context<'_>, product: Product) -> Result<(Vec<Launch>, String), CudaError> {
    let tile = product.tile();
    Ok((product.launch(context, context.scratch()?.first())?.into_iter().collect(), tile))
}

pub(super) fn conv2d(context: &Context<'_>) -> Result<Lowered, CudaError> {
    let Op::Conv2d { stride, padding, groups, bias, epilogue } = context.node.op.clone() else {
        unreachable!("dispatched on the op")
    };
    let weight_shape = context.input_shape(1).dims();
    let &[c_out, c_group, kh, kw] = weight_shape else { unreachable!("checked by the builder") };
    let (kernel, taps) = ([kh, kw], kh * kw);
    let (x, out, rows) = (context.input(0)?, context.output()?, context.rows()?);
    let finish = epilogue_arguments(context, &epilogue, bias)?;
    let weight = values(context, 1);
    let window = window_of(context, kernel, stride, padding);
    let (launches, tile) = if groups == 1 && is_pointwise(kernel, stride, padding) {
        bind(context, Product::linear(x, weights_by_rows(context, &x)?, out, finish, rows))?
    } else if groups == 1 {
        let channels = gemm::padded_channels(&x);
        let each = channels as usize;
        let weights = gemm::keep_weights(context, gemm::is_half(&x), [c_out, taps * each], |o, col| {
            let (tap, c) = (col / each, col % each);
            if c < c_group { weight[(o * c_group + c) * taps + tap] } else { 0.0 }
        })?;
        let window = Window { channels_padded: channels, ..window };
        let product = Product::linear(x, weights, out, finish, rows);
        bind(context, Product { form: Form::Windows, window, ..product })?
    } else {
        (vec![grouped(context, x, out, finish, rows, window, groups)?], String::new())
    };
    let flops = 2 * (context.output_shape().numel() * c_group * taps) as u64;
    let name = format!("{}_{kh}x{kw}{epilogue}", context.node.op.name());
    Ok(Lowered { launches, name, flops, tile })
}

/// The params of `depthwise.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct DepthwiseParams {
    x: Operand,
    out: Operand,
    finish: EpilogueArguments,
    weights: u64,
    rows: Rows,
    window: Window,
    width: u32,
    groups: u32,
}

/// Output pixels of a line that a thread computes, and where windows overlap most.
const DEPTHWISE_PIXELS: u32 = 2;
const DENSE_PIXELS: u32 = 4;

fn grouped(
    context: &Context<'_>,
    x: Operand,
    out: Operand,
    finish: EpilogueArguments,
    rows: Rows,
    window: Window,
    groups: usize,
) -> Result<Launch, CudaError> {
    let weight = values(context, 1);
    let depthwise = x.cols == out.cols && groups == out.cols as usize;
    let taps = (window.kernel_h * window.kernel_w) as usize;
    let weights = if depthwise {
        let by_tap: Vec<f32> =
            (0..taps).flat_map(|tap| (0..groups).map(move |c| weight[c * taps + tap])).collect();
        context.keep(bytemuck::cast_slice(&by_tap))?
    } else {
        context.keep(bytemuck::cast_slice(weight))?
    };
    let width = finish.width(&out).min(EpilogueArguments::NONE.width(&x));
    let params = DepthwiseParams { x, out, finish, weights, rows, window, width, groups: groups as u32 };
    let half = gemm::is_half(&x) && width == 8;
    let (kernel, threads) = if depthwise {
        let threads = |pixels_each: u32| {
            out.rows / window.out_w * window.out_w.div_ceil(pixels_each) * out.cols.div_ceil(8)
        };
        match window.kernel_w {
            3 if half && window.stride_w == 1 => ("depthwise_f16_3_dense", threads(DENSE_PIXELS)),
            3 if half => ("depthwise_f16_3", threads(DEPTHWISE_PIXELS)),
            5 if half => ("depthwise_f16_5", threads(DEPTHWISE_PIXELS)),
            _ => ("depthwise", threads(DEPTHWISE_PIXELS)),
        }
    } else {
        ("conv_grouped", out.rows * out.cols)
    };
    Ok(Launch::new(&DEPTHWISE, kernel, &params).grid([threads.div_ceil(MAP_THREADS), 1, 1]).block([
        MAP_THREADS,
        1,
        1,
    ]))
}

/// Weights `[n, k]`, or those of a pointwise convolution, for products with `x`.
fn weights_by_rows(context: &Context<'_>, x: &Operand) -> Result<Operand, CudaError> {
    let (n, k) = (context.input_shape(1)[0], context.input_shape(1)[1]);
    let weight = values(context, 1);
    gemm::keep_weights(context, gemm::is_half(x), [n, k], |row, col| weight[row * k + col])
}

pub(super) fn linear(context: &Context<'_>) -> Result<Lowered, CudaError> {
    let Op::Linear { bias, epilogue } = context.node.op.clone() else { unreachable!("dispatched on the op") };
    let (x, out, rows) = (context.input(0)?, context.output()?, context.rows()?);
    let finish = epilogue_arguments(context, &epilogue, bias)?;
    let (launches, tile) =
        bind(context, Product::linear(x, weights_by_rows(context, &x)?, out, finish, rows))?;
    let flops = 2 * (context.output_shape().numel() * x.cols as usize) as u64;
    Ok(Lowered { launches, name: format!("linear{epilogue}"), flops, tile })
}

/// The product of a transposed convolution, with `finish`, whose results go to `out`: rows of the product are pixels of the input.
fn transposed(
    context: &Context<'_>,
    out: Operand,
    finish: EpilogueArguments,
    rows: Rows,
) -> Result<Product, CudaError> {
    let x = context.input(0)?;
    let (c_in, c_out) = (x.cols as usize, out.cols as usize);
    let each = tap_cols(c_out);
    let weight = values(context, 1);
    let weights = gemm::keep_weights(context, gemm::is_half(&x), [4 * each, c_in], |row, col| {
        let (tap, o) = (row / each, row % each);
        if o < c_out { weight[(col * c_out + o) * 4 + tap] } else { 0.0 }
    })?;
    let window = window_of(context, [2, 2], [2, 2], Padding::default());
    let product = Product::linear(x, weights, out, finish, in_units(rows, x.rows as usize));
    Ok(Product { window, tap_cols: each as u32, ..product })
}

pub(super) fn conv_transpose2d(context: &Context<'_>) -> Result<Lowered, CudaError> {
    let Op::ConvTranspose2d { bias, epilogue } = context.node.op.clone() else {
        unreachable!("dispatched on the op")
    };
    let finish = epilogue_arguments(context, &epilogue, bias)?;
    let (launches, tile) = bind(context, transposed(context, context.output()?, finish, context.rows()?)?)?;
    let flops = 2 * (context.output_shape().numel() * context.input_shape(0).cols()) as u64;
    Ok(Lowered { launches, name: format!("conv_transpose2d{epilogue}"), flops, tile })
}

/// The layer norm at `context` with the layer before it, as one kernel.
pub(super) fn normed(context: &Context<'_>, layer: usize) -> Result<Lowered, CudaError> {
    let Op::LayerNorm { epsilon, activation } = context.node.op else {
        unreachable!("chains of norms end with one")
    };
    let layer = Context { index: layer, node: &context.plan.graph.nodes()[layer], ..*context };
    let (x, out, rows) = (layer.input(0)?, context.output()?, context.rows()?);
    let (product, epilogue) = match &layer.node.op {
        Op::Linear { bias, epilogue } | Op::Conv2d { bias, epilogue, .. } => {
            let finish = epilogue_arguments(&layer, epilogue, *bias)?;
            (Product::linear(x, weights_by_rows(&layer, &x)?, out, finish, rows), epilogue)
        }
        Op::ConvTranspose2d { bias, epilogue } => {
            (transposed(&layer, out, epilogue_arguments(&layer, epilogue, *bias)?, rows)?, epilogue)
        }
        other => unreachable!("{} has no norm in its kernel", other.name()),
    };
    let norm = Norm { gamma: context.input(1)?, beta: context.input(2)?, epsilon, activation };
    let launches = Product { norm: Some(norm), ..product }.launch(context, None)?.into_iter().collect();
    let flops = 2 * (context.output_shape().numel() * x.cols as usize) as u64;
    let after = Epilogue { activation, ..Epilogue::default() };
    let name = format!("{}{epilogue}, layer_norm{after}", layer.node.op.name());
    Ok(Lowered { flops, ..Lowered::new(name, launches) })
}

pub(super) fn matmul(context: &Context<'_>, transpose_b: bool) -> Result<Lowered, CudaError> {
    let (a, b, out) = (context.input(0)?, context.input(1)?, context.output()?);
    let a_dims = context.input_shape(0).dims();
    let (m, n, k) = (a_dims[a_dims.len() - 2] as u32, out.cols, a.cols);
    let product = Product {
        form: if transpose_b { Form::Rows } else { Form::Columns },
        a,
        b,
        out,
        finish: EpilogueArguments::NONE,
        rows: context.rows()?,
        entries: out.rows.checked_div(m).unwrap_or(0).max(1),
        m,
        n,
        k,
        tap_cols: 0,
        b_constant: false,
        window: Window::default(),
        norm: None,
    };
    let (launches, tile) = bind(context, product)?;
    let flops = 2 * (context.output_shape().numel() as u64) * u64::from(k);
    Ok(Lowered { launches, name: "matmul".into(), flops, tile })
}
