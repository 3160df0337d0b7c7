//! One case for each op.

use std::sync::Arc;

use ultramotion_engine::graph::{
    BinaryOp, CpuCall, CudaCall, CustomOp, ImageTransform, Padding, ReduceOp, Tensor, TensorType, UnaryOp,
    WindowAttentionParameters,
};
use ultramotion_engine::launch::{Launch, Module, Operand};
use ultramotion_engine::reference::Values;
use ultramotion_engine::tensor::{DType, HostTensor, Shape};

use crate::judge::{Case, Random};

fn padding(r: &mut Random) -> Padding {
    Padding { top: r.size(0, 2), left: r.size(0, 2), bottom: r.size(0, 2), right: r.size(0, 2) }
}

/// What layers apply to their sums.
fn activations() -> [UnaryOp; 6] {
    use UnaryOp::{Clamp, Gelu, Relu, Sigmoid, Silu, Tanh};
    [Relu, Silu, Gelu, Sigmoid, Tanh, Clamp(-0.5, 0.25)]
}

/// Adds some of what rewrites fuse: activation, affine, residual, activation.
fn decorate(c: &mut Case, r: &mut Random, x: Tensor) -> Tensor {
    let g = &mut c.graph;
    let mut y = x;
    if r.flag() {
        let act = r.pick(&activations());
        y = g.unary(act, y).expect("same shape");
    }
    if r.flag() {
        y = g.affine(y, r.real(), r.real()).expect("same shape");
    }
    if r.flag() {
        let mut shape = c.graph.shape(y).dims().to_vec();
        if r.size(0, 3) == 0 {
            shape[0] = 1;
        }
        let residual = c.input(r.values(shape));
        y = if r.flag() { c.graph.add(y, residual) } else { c.graph.add(residual, y) }.expect("same shape");
        if r.flag() {
            let act = r.pick(&activations());
            y = c.graph.unary(act, y).expect("same shape");
        }
    }
    y
}

fn conv(r: &mut Random, groups: usize, per_group: [usize; 2], kernel: usize, stride: usize) -> Case {
    let mut c = Case::new();
    let (c_in, c_out) = (groups * per_group[0], groups * per_group[1]);
    let pad = padding(r);
    let (h, w) = (r.size(kernel, 17), r.size(kernel, 23));
    let n = r.size(1, 2);
    let x = c.input(r.values([n, h, w, c_in]));
    let weight = c.graph.constant(r.values([c_out, per_group[0], kernel, kernel]));
    let bias = r.flag().then(|| c.graph.constant(r.values([c_out])));
    let y = c.graph.conv2d(x, weight, bias, stride, pad, groups).expect("fits");
    let y = decorate(&mut c, r, y);
    c.output(y);
    // Siblings of the same input, so that they are merged.
    for _ in 0..if groups == 1 { r.pick(&[0, 0, 2, 3]) } else { 0 } {
        let c_out = r.size(1, 20);
        let weight = c.graph.constant(r.values([c_out, c_in, kernel, kernel]));
        let bias = c.graph.constant(r.values([c_out]));
        let y = c.graph.conv2d(x, weight, Some(bias), stride, pad, 1).expect("fits");
        let y = c.graph.unary(UnaryOp::Silu, y).expect("same shape");
        c.output(y);
    }
    c
}

pub fn conv2d(r: &mut Random) -> Case {
    let channels = [r.size(1, 40), r.size(1, 70)];
    let (kernel, stride) = (r.pick(&[1, 2, 3, 3, 5]), r.size(1, 2));
    conv(r, 1, channels, kernel, stride)
}

pub fn conv2d_depthwise(r: &mut Random) -> Case {
    // Half of the time as many channels as kernels load at once.
    let groups = if r.flag() { 8 * r.size(1, 9) } else { r.size(1, 70) };
    let (kernel, stride) = (r.pick(&[3, 5, 7]), r.size(1, 2));
    conv(r, groups, [1, 1], kernel, stride)
}

pub fn conv2d_grouped(r: &mut Random) -> Case {
    let (groups, per_group) = (r.size(2, 4), [r.size(1, 5), r.size(1, 5)]);
    conv(r, groups, per_group, 3, 1)
}

pub fn conv_transpose2d(r: &mut Random) -> Case {
    let mut c = Case::new();
    let (n, h, w, c_in, c_out) = (r.size(1, 3), r.size(1, 9), r.size(1, 9), r.size(1, 40), r.size(1, 40));
    let x = c.input(r.values([n, h, w, c_in]));
    let weight = c.graph.constant(r.values([c_in, c_out, 2, 2]));
    let bias = r.flag().then(|| c.graph.constant(r.values([c_out])));
    let y = c.graph.conv_transpose2d(x, weight, bias).expect("fits");
    let y = decorate(&mut c, r, y);
    c.output(y);
    c
}

pub fn batch_norm(r: &mut Random) -> Case {
    let mut c = Case::new();
    let channels = r.size(1, 33);
    let (h, w) = (r.size(3, 9), r.size(3, 9));
    let mut x = c.input(r.values([1, h, w, channels]));
    if r.flag() {
        let weight = c.graph.constant(r.values([channels, channels, 3, 3]));
        x = c.graph.conv2d(x, weight, None, 1, Padding::same(1), 1).expect("fits");
    }
    let variance: Vec<f32> = (0..channels).map(|_| 1.0 + 0.5 * r.real()).collect();
    let parameters = [
        c.graph.constant(r.values([channels])),
        c.graph.constant(r.values([channels])),
        c.graph.constant(r.values([channels])),
        c.graph.constant(HostTensor::f32([channels], variance)),
    ];
    let y = c.graph.batch_norm(x, parameters, 1e-5).expect("fits");
    c.output(y);
    c
}

pub fn linear(r: &mut Random) -> Case {
    let mut c = Case::new();
    let (k, n) = (r.size(1, 150), r.size(1, 130));
    let (a, b) = (r.size(1, 3), r.size(1, 60));
    let x = c.input(r.values([a, b, k]));
    let weight = c.graph.constant(r.values([n, k]));
    let bias = r.flag().then(|| c.graph.constant(r.values([n])));
    let y = c.graph.linear(x, weight, bias).expect("fits");
    let y = decorate(&mut c, r, y);
    c.output(y);
    if r.flag() {
        // A sibling of the same input, so that the two are merged.
        let weight = c.graph.constant(r.values([5, k]));
        let bias = c.graph.constant(r.values([5]));
        let z = c.graph.linear(x, weight, Some(bias)).expect("fits");
        let z = c.graph.unary(UnaryOp::Relu, z).expect("same shape");
        c.output(z);
    }
    c
}

pub fn matmul(r: &mut Random) -> Case {
    let mut c = Case::new();
    let (batch, m, n, k) = (r.size(1, 4), r.size(1, 40), r.size(1, 40), r.size(1, 50));
    let transpose_b = r.flag();
    let a = c.input(r.values([batch, m, k]));
    let b = c.input(r.values(if transpose_b { [batch, n, k] } else { [batch, k, n] }));
    let y = c.graph.matmul(a, b, transpose_b).expect("fits");
    c.output(y);
    c
}

pub fn unary(r: &mut Random) -> Case {
    let mut c = Case::new();
    let op = r.pick(&[
        UnaryOp::Relu,
        UnaryOp::Silu,
        UnaryOp::Gelu,
        UnaryOp::Sigmoid,
        UnaryOp::Tanh,
        UnaryOp::Exp,
        UnaryOp::Log,
        UnaryOp::Sqrt,
        UnaryOp::Sin,
        UnaryOp::Cos,
        UnaryOp::Abs,
        UnaryOp::Clamp(-0.5, 0.25),
        UnaryOp::Affine(1.5, -0.25),
    ]);
    let (rows, cols) = (r.size(1, 30), r.size(1, 70));
    let spread = if matches!(op, UnaryOp::Sin | UnaryOp::Cos | UnaryOp::Exp) { 6.5 } else { 20.0 };
    let mut values: Vec<f32> = (0..rows * cols).map(|_| spread * r.real()).collect();
    if matches!(op, UnaryOp::Log | UnaryOp::Sqrt) {
        values.iter_mut().for_each(|v| *v = v.abs() + 1e-3);
    }
    let x = c.input(HostTensor::f32([rows, cols], values));
    let y = c.graph.unary(op, x).expect("same shape");
    c.output(y);
    c
}

pub fn binary(r: &mut Random) -> Case {
    let mut c = Case::new();
    let op =
        r.pick(&[BinaryOp::Add, BinaryOp::Sub, BinaryOp::Mul, BinaryOp::Div, BinaryOp::Max, BinaryOp::Min]);
    let full = [r.size(1, 3), r.size(1, 20), r.size(1, 40)];
    let mut small: Vec<usize> = full.iter().map(|&d| if r.flag() { d } else { 1 }).collect();
    small.drain(..r.size(0, 2));
    let (mut a, mut b) = (Shape::from(full), Shape::from(small));
    if r.flag() {
        std::mem::swap(&mut a, &mut b);
    }
    let x = c.input(r.values(a));
    let away_from_zero: Vec<f32> =
        (0..b.numel()).map(|_| r.real() + if r.flag() { 1.5 } else { -1.5 }).collect();
    let y = c.input(HostTensor::f32(b, away_from_zero));
    let z = c.graph.binary(op, x, y).expect("broadcasts");
    c.output(z);
    c
}

pub fn reduce(r: &mut Random) -> Case {
    let mut c = Case::new();
    let (rows, cols) = (r.size(1, 30), r.size(1, 70));
    let x = c.input(r.values([rows, cols]));
    for op in [ReduceOp::Max, ReduceOp::Sum, ReduceOp::Mean] {
        let y = c.graph.reduce(op, x).expect("has columns");
        c.output(y);
    }
    c
}

pub fn slice_and_concat(r: &mut Random) -> Case {
    let mut c = Case::new();
    let dims = [r.size(1, 3), r.size(2, 6), r.size(2, 9)];
    let axis = r.size(0, 2);
    let x = c.input(r.values(dims));
    let (start, len) = {
        let start = r.size(0, dims[axis] - 1);
        (start, r.size(1, dims[axis] - start))
    };
    let part = c.graph.slice(x, axis, start, len).expect("inside");
    let doubled = c.graph.affine(part, 2.0, 0.5).expect("same shape");
    let whole = c.graph.concat(&[x, doubled, part, doubled], axis).expect("joins");
    c.output(whole);
    c.output(part);
    c.output(doubled);
    c
}

pub fn pad(r: &mut Random) -> Case {
    let mut c = Case::new();
    let x_shape = [r.size(1, 2), r.size(1, 9), r.size(1, 9), r.size(1, 20)];
    let x = c.input(r.values(x_shape));
    let sides = padding(r);
    let y = c.graph.pad(x, sides).expect("a map");
    c.output(y);
    c
}

pub fn max_pool2d(r: &mut Random) -> Case {
    let mut c = Case::new();
    let (kernel, stride) = (r.size(2, 3), r.size(1, 2));
    let shape = [r.size(1, 2), r.size(3, 11), r.size(3, 11), r.size(1, 40)];
    let x = c.input(r.values(shape));
    let sides = Padding { top: r.size(0, 1), left: r.size(0, 1), bottom: r.size(0, 1), right: r.size(0, 1) };
    let y = c.graph.max_pool2d(x, kernel, stride, sides).expect("fits");
    c.output(y);
    c
}

pub fn upsample_nearest_2x(r: &mut Random) -> Case {
    let mut c = Case::new();
    let shape = [r.size(1, 2), r.size(1, 7), r.size(1, 7), r.size(1, 40)];
    let x = c.input(r.values(shape));
    let y = c.graph.upsample_nearest_2x(x).expect("a map");
    c.output(y);
    c
}

pub fn softmax(r: &mut Random) -> Case {
    let mut c = Case::new();
    let (rows, cols) = (r.size(1, 40), r.size(1, 130));
    let values: Vec<f32> = (0..rows * cols).map(|_| 30.0 * r.real()).collect();
    let x = c.input(HostTensor::f32([rows, cols], values));
    let y = c.graph.softmax(x).expect("floats");
    c.output(y);
    c
}

pub fn layer_norm(r: &mut Random) -> Case {
    let mut c = Case::new();
    let (rows, cols) = (r.size(1, 40), r.size(2, 330));
    let x = c.input(r.values([rows, cols]));
    let weight = c.graph.constant(r.values([cols]));
    let bias = c.graph.constant(r.values([cols]));
    let mut y = c.graph.layer_norm(x, weight, bias, 1e-6).expect("fits");
    if r.flag() {
        y = c.graph.unary(r.pick(&activations()), y).expect("same shape");
    }
    c.output(y);
    c.tolerance = 1e-5;
    c
}

pub fn top_k(r: &mut Random) -> Case {
    let mut c = Case::new();
    let (rows, cols) = if r.flag() { (1, r.size(400, 3000)) } else { (r.size(1, 50), r.size(4, 40)) };
    let k = r.size(1, cols.min(300));
    // Coarse values, so that there are ties.
    let values: Vec<f32> = (0..rows * cols).map(|_| (r.real() * 50.0).round()).collect();
    let x = c.input(HostTensor::f32([rows, cols], values));
    let (values, indices) = c.graph.top_k(x, k).expect("enough columns");
    c.output(values);
    c.output(indices);
    c
}

pub fn gather(r: &mut Random) -> Case {
    let mut c = Case::new();
    let (rows, cols, n) = (r.size(1, 50), r.size(1, 40), r.size(1, 60));
    let table = c.input(r.values([rows, cols]));
    let indices = c.input(r.indices([n], -2, rows as i32 + 2));
    let y = c.graph.gather(table, indices).expect("a table");
    c.output(y);
    c
}

pub fn attention(r: &mut Random) -> Case {
    let mut c = Case::new();
    let (heads, d, d_v) = (r.size(1, 4), r.pick(&[4, 8, 16, 32, 5]), r.pick(&[4, 16, 32, 7]));
    let (queries, keys) = (r.size(1, 60), r.size(1, 200));
    let (q_batch, k_batch) = r.pick(&[(1, 1), (3, 3), (3, 1), (1, 3)]);
    let scale = 1.0 / (d as f32).sqrt();
    let inputs = if r.flag() && q_batch == k_batch && queries == keys {
        // q, k and v as slices of one buffer.
        let whole = c.input(r.values([q_batch, queries, heads * (2 * d + d_v)]));
        [(0, heads * d), (heads * d, heads * d), (2 * heads * d, heads * d_v)]
            .map(|(start, len)| c.graph.slice(whole, 2, start, len).expect("inside"))
    } else {
        [
            c.input(r.values([q_batch, queries, heads * d])),
            c.input(r.values([k_batch, keys, heads * d])),
            c.input(r.values([k_batch, keys, heads * d_v])),
        ]
    };
    let keys = c.graph.shape(inputs[1])[1];
    let bias = r.flag().then(|| {
        let bias = r.values([heads, queries, keys]);
        if r.flag() { c.graph.constant(bias) } else { c.input(bias) }
    });
    let y = c.graph.attention(inputs, bias, heads, scale).expect("fits");
    c.output(y);
    c.tolerance = 5e-6;
    c
}

/// Few queries of many keys, which a GPU's blocks share, for as many batches as a count on the device says.
pub fn attention_of_many_keys(r: &mut Random) -> Case {
    let mut c = Case::new();
    let (batch, heads, d, d_v) = (r.size(1, 3), r.size(1, 3), r.pick(&[5, 16, 32, 64]), r.pick(&[8, 16, 31]));
    let (queries, keys) = (r.size(1, 40), r.size(300, 1100));
    let mut q = c.input(r.values([batch, queries, heads * d]));
    let k = c.input(r.values([1, keys, heads * d]));
    let v = c.input(r.values([1, keys, heads * d_v]));
    let count = r.size(1, batch);
    let counter = c.input(HostTensor::i32([1], vec![count as i32]));
    q = c.graph.limit_rows(q, counter).expect("entries");
    let y = c.graph.attention([q, k, v], None, heads, 1.0 / (d as f32).sqrt()).expect("fits");
    // Entries past the count are not defined.
    let y = c.graph.reshape(y, [batch * queries, heads * d_v]).expect("as many");
    let valid =
        c.input(HostTensor::i32([count * queries], (0..(count * queries) as i32).collect::<Vec<i32>>()));
    let y = c.graph.gather(y, valid).expect("a table");
    c.output(y);
    c.tolerance = 5e-6;
    c
}

/// As many heads and batches as keep a GPU busy, and keys beyond one tile: its backend then shares the work out otherwise.
pub fn attention_of_many_batches(r: &mut Random) -> Case {
    let mut c = Case::new();
    let (batch, heads, d) = (r.size(34, 36), 8, r.pick(&[8, 5]));
    let (queries, keys) = (r.size(17, 30), r.size(129, 140));
    let q = c.input(r.values([batch, queries, heads * d]));
    let k = c.input(r.values([1, keys, heads * d]));
    let v = c.input(r.values([1, keys, heads * d]));
    let y = c.graph.attention([q, k, v], None, heads, 0.4).expect("fits");
    c.output(y);
    c.tolerance = 5e-6;
    c
}

pub fn window_attention(r: &mut Random) -> Case {
    let mut c = Case::new();
    let (heads, window) = (r.size(1, 3), r.size(2, 7));
    let width = heads * r.pick(&[4, 8, 5]);
    let area = window * window;
    let shape = [r.size(1, 2), r.size(1, 17), r.size(1, 17), width];
    let x = c.input(r.values(shape));
    let mut constant = |shape: &[usize]| c.graph.constant(r.values(shape));
    let parameters = WindowAttentionParameters {
        norm: [constant(&[width]), constant(&[width])],
        qkv: [constant(&[3 * width, width]), constant(&[3 * width])],
        score_bias: constant(&[heads, area, area]),
        project: [constant(&[width, width]), constant(&[width])],
    };
    let y = c.graph.window_attention(x, parameters, heads, window, 1e-5).expect("fits");
    c.output(y);
    c.tolerance = 1e-5;
    c
}

pub fn deformable_attention(r: &mut Random) -> Case {
    let mut c = Case::new();
    let (heads, d, queries) = (r.size(1, 4), r.pick(&[4, 16, 32, 5]), r.size(1, 40));
    let levels: Vec<[usize; 2]> = (0..r.size(1, 3)).map(|_| [r.size(1, 9), r.size(1, 9)]).collect();
    let points: Vec<usize> = levels.iter().map(|_| r.size(1, 4)).collect();
    let pixels: usize = levels.iter().map(|[h, w]| h * w).sum();
    let total: usize = points.iter().sum();
    let value = c.input(r.values([pixels, heads * d]));
    let offsets = c.input(r.values([queries, heads * total * 2]));
    let logits = c.input(r.values([queries, heads * total]));
    // Most points inside.
    let boxes: Vec<f32> = (0..queries * 4).map(|_| 0.5 + 0.4 * r.real()).collect();
    let boxes = c.input(HostTensor::f32([queries, 4], boxes));
    let inputs = [value, offsets, logits, boxes];
    let y = c.graph.deformable_attention(inputs, heads, &levels, &points).expect("fits");
    c.output(y);
    // A sample position is a float32 product; close to a pixel's border its rounding shows.
    c.tolerance = 1e-5;
    c
}

pub fn image_to_tensor(r: &mut Random) -> Case {
    let mut c = Case::new();
    let shape = [r.size(1, 60), r.size(1, 60), r.pick(&[1, 3])];
    let frame = c.input(r.bytes(shape));
    let resized_hw = [r.size(1, 40), r.size(1, 40)];
    let transform = ImageTransform {
        output_hw: [resized_hw[0] + r.size(0, 9), resized_hw[1] + r.size(0, 9)],
        resized_hw,
        scale: [1.0 / 255.0, 0.02, 0.017],
        shift: [0.0, -2.1, -1.8],
    };
    let y = c.graph.image_to_tensor(frame, transform).expect("a frame");
    c.output(y);
    c.tolerance = 1e-5;
    c
}

/// Adds its input to a running sum and counts its runs.
#[derive(Debug)]
struct Accumulate;

impl CustomOp for Accumulate {
    fn name(&self) -> &str {
        "accumulate"
    }
    fn output_types(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, String> {
        match inputs {
            [x, sum, runs] if x.shape == sum.shape => Ok(vec![sum.clone(), runs.clone()]),
            _ => Err("needs x, sum and runs".into()),
        }
    }
    fn scratch(&self, inputs: &[TensorType]) -> Vec<(DType, usize)> {
        vec![(DType::F32, inputs[0].shape.numel()), (DType::I32, 3)]
    }
    fn reference(&self, inputs: &[Values], outputs: &mut [Values]) {
        for (i, sum) in outputs[0].f64_mut().iter_mut().enumerate() {
            *sum = inputs[0].as_f64()[i] + inputs[1].as_f64()[i];
        }
        outputs[1].i32_mut()[0] = inputs[2].as_i32()[0] + 1;
    }
    fn cpu(&self, call: &mut CpuCall<'_>) {
        let (x, sum) = (call.inputs[0].f32(), call.inputs[1].f32());
        let scratch = call.scratch[0].f32();
        scratch.copy_from_slice(x);
        for ((out, x), sum) in call.outputs[0].f32().iter_mut().zip(scratch).zip(sum) {
            *out = *x + sum;
        }
        call.outputs[1].i32()[0] = call.inputs[2].i32()[0] + 1;
    }
    fn cuda(&self, call: &CudaCall<'_>) -> Option<Vec<Launch>> {
        static MODULE: Module =
            Module { name: "accumulate", ptx: include_str!("kernels/ptx/accumulate.ptx") };
        let params: [Operand; 6] = [
            call.inputs[0],
            call.inputs[1],
            call.inputs[2],
            call.outputs[0],
            call.outputs[1],
            call.scratch[0],
        ];
        Some(vec![Launch::new(&MODULE, "accumulate", &params)])
    }
}

pub fn custom_op_with_state(r: &mut Random) -> Case {
    let mut c = Case::new();
    let n = r.size(1, 40);
    let x = c.input(r.values([n]));
    let sum = c.graph.state("sum", r.values([n])).expect("unique");
    let runs = c.graph.state("runs", HostTensor::i32([1], vec![5])).expect("unique");
    let shifted = c.graph.affine(x, 1.0, 0.25).expect("same shape");
    let next = c.graph.custom(Arc::new(Accumulate), &[shifted, sum, runs]).expect("fits");
    c.graph.set_state(sum, next[0]).expect("same type");
    c.graph.set_state(runs, next[1]).expect("same type");
    c.output(next[0]);
    c.output(next[1]);
    c.output(sum);
    c.runs = 4;
    c
}
