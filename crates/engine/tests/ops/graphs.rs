//! Whole graphs: what only shows when ops share buffers.

use ultramotion_engine::graph::{Padding, Tensor, UnaryOp};
use ultramotion_engine::tensor::HostTensor;

use crate::judge::{Case, Random};

/// A chain on counted rows. The tail beyond the count is not compared: the sum over valid rows is, by gathering only
/// those that the count covers.
pub fn row_counted_chain(r: &mut Random) -> Case {
    let mut c = Case::new();
    let (bound, tokens, width) = (r.size(1, 6), r.size(1, 5), 8 * r.size(1, 4));
    let count = r.size(0, bound);
    let x = c.input(r.values([bound, tokens, width]));
    let counter = c.input(HostTensor::i32([1], vec![count as i32]));
    let keys_shape = [1, r.size(1, 30), width];
    let keys = c.input(r.values(keys_shape));
    let x = c.graph.limit_rows(x, counter).expect("rows");
    let flat = c.graph.reshape(x, [bound * tokens, width]).expect("same elements");
    let weight = c.graph.constant(r.values([width, width]));
    let bias = c.graph.constant(r.values([width]));
    let y = c.graph.linear(flat, weight, Some(bias)).expect("fits");
    let y = c.graph.unary(UnaryOp::Gelu, y).expect("same shape");
    let y = c.graph.add(y, flat).expect("same shape");
    let gamma = c.graph.constant(r.values([width]));
    let y = c.graph.layer_norm(y, gamma, bias, 1e-5).expect("fits");
    let y = c.graph.reshape(y, [bound, tokens, width]).expect("same elements");
    let y = c.graph.attention([y, keys, keys], None, 2, 0.3).expect("fits");
    let y = c.graph.softmax(y).expect("floats");
    // Valid rows only: rows past the count are gathered from row 0 of the unlimited table when there are none.
    let valid: Vec<i32> = (0..bound as i32).map(|i| if (i as usize) < count { i } else { 0 }).collect();
    if count > 0 {
        let indices = c.input(HostTensor::i32([bound], valid));
        let y = c.graph.gather(y, indices).expect("a table");
        c.output(y);
    } else {
        c.output(counter);
    }
    c.tolerance = 1e-5;
    c
}

/// A 3x3 and a 1x1 convolution with batch norms, summed and activated.
pub fn reparameterised_pair(r: &mut Random) -> Case {
    let mut c = Case::new();
    let (c_in, c_out, stride) = (r.size(1, 20), r.size(1, 40), r.size(1, 2));
    let shape = [1, r.size(3, 12), r.size(3, 12), c_in];
    let x = c.input(r.values(shape));
    let mut branches = [3, 1].map(|kernel| {
        let weight = c.graph.constant(r.values([c_out, c_in, kernel, kernel]));
        let y = c.graph.conv2d(x, weight, None, stride, Padding::same(kernel / 2), 1).expect("fits");
        let variance: Vec<f32> = (0..c_out).map(|_| 1.0 + 0.5 * r.real()).collect();
        let parameters =
            [r.values([c_out]), r.values([c_out]), r.values([c_out]), HostTensor::f32([c_out], variance)]
                .map(|p| c.graph.constant(p));
        c.graph.batch_norm(y, parameters, 1e-5).expect("fits")
    });
    if r.flag() {
        branches.reverse();
    }
    let y = c.graph.add(branches[0], branches[1]).expect("same shape");
    let y = c.graph.unary(UnaryOp::Silu, y).expect("same shape");
    c.output(y);
    c.tolerance = 1e-5;
    c
}

/// Linear layers in a row, which may run as one step, with and without a sum before them, a residual, a norm.
pub fn perceptron(r: &mut Random) -> Case {
    let mut c = Case::new();
    let rows = if r.flag() { r.size(1, 60) } else { r.size(100, 300) };
    let (width, middle, layers) = (r.size(1, 40), r.size(1, 150), r.size(1, 4));
    let counted = r.flag().then(|| r.size(0, rows));
    let mut x = c.input(r.values([rows, width]));
    if let Some(count) = counted {
        let counter = c.input(HostTensor::i32([1], vec![count as i32]));
        x = c.graph.limit_rows(x, counter).expect("rows");
    }
    let mut y = x;
    if r.flag() {
        let added = c.input(r.values([rows, width]));
        y = c.graph.add(y, added).expect("same shape");
    }
    for layer in 1..=layers {
        let inputs = c.graph.shape(y).cols();
        let outputs = if layer == layers { width } else { middle + layer };
        let weight = c.graph.constant(r.values([outputs, inputs]));
        let bias = r.flag().then(|| c.graph.constant(r.values([outputs])));
        y = c.graph.linear(y, weight, bias).expect("fits");
        if layer < layers {
            let act = r.pick(&[UnaryOp::Relu, UnaryOp::Gelu, UnaryOp::Sigmoid, UnaryOp::Clamp(-0.5, 0.5)]);
            y = c.graph.unary(act, y).expect("same shape");
        }
    }
    if r.flag() {
        let residual = if r.flag() { x } else { c.input(r.values([rows, width])) };
        y = c.graph.add(y, residual).expect("same shape");
    }
    if r.flag() {
        let [gamma, beta] = [r.values([width]), r.values([width])].map(|p| c.graph.constant(p));
        y = c.graph.layer_norm(y, gamma, beta, 0.1).expect("fits");
    }
    match counted {
        // Rows past the count are not defined: only valid ones are gathered.
        Some(0) => c.output(x),
        Some(count) => {
            let valid: Vec<i32> = (0..rows).map(|row| (row % count) as i32).collect();
            let indices = c.input(HostTensor::i32([rows], valid));
            let y = c.graph.gather(y, indices).expect("a table");
            c.output(y);
        }
        None => c.output(y),
    }
    c.tolerance = 5e-6;
    c
}

/// A layer with so many rows that a GPU computes the norm of its result with it: linear, with a residual that may repeat and a
/// count of rows, or a transposed convolution with a function of the norm.
pub fn normed_rows(r: &mut Random) -> Case {
    let mut c = Case::new();
    let inputs = r.pick(&[8, 13, 40]);
    let norm = |c: &mut Case, r: &mut Random, y, width: usize| {
        let [gamma, beta] = [r.values([width]), r.values([width])].map(|p| c.graph.constant(p));
        c.graph.layer_norm(y, gamma, beta, 0.1).expect("fits")
    };
    let y = if r.flag() {
        let (batch, rows) = (4, r.size(2050, 2080));
        let mut x = c.input(r.values([batch, rows, inputs]));
        let count = r.flag().then(|| r.size(0, batch));
        if let Some(count) = count {
            let counter = c.input(HostTensor::i32([1], vec![count as i32]));
            x = c.graph.limit_rows(x, counter).expect("entries");
        }
        let [weight, bias] = [r.values([256, inputs]), r.values([256])].map(|p| c.graph.constant(p));
        let mut y = c.graph.linear(x, weight, Some(bias)).expect("fits");
        if r.flag() {
            let shape = [r.pick(&[1, batch]), rows, 256];
            let residual = c.input(r.values(shape));
            y = c.graph.add(y, residual).expect("repeats");
        }
        let y = norm(&mut c, r, y, 256);
        let y = c.graph.reshape(y, [batch * rows, 256]).expect("as many");
        // Rows past the count are not defined: some of the others are shown.
        match count.unwrap_or(batch) * rows {
            0 => x,
            valid => {
                let shown: Vec<i32> = (0..300).map(|i| (i * 7919 % valid) as i32).collect();
                let indices = c.input(HostTensor::i32([300], shown));
                c.graph.gather(y, indices).expect("a table")
            }
        }
    } else {
        let (h, w) = (r.size(90, 95), r.size(92, 95));
        let x = c.input(r.values([1, h, w, inputs]));
        let weight = c.graph.constant(r.values([inputs, 64, 2, 2]));
        let bias = r.flag().then(|| c.graph.constant(r.values([64])));
        let y = c.graph.conv_transpose2d(x, weight, bias).expect("fits");
        let y = norm(&mut c, r, y, 64);
        c.graph.unary(r.pick(&[UnaryOp::Gelu, UnaryOp::Relu, UnaryOp::Tanh]), y).expect("same shape")
    };
    c.output(y);
    c.tolerance = 5e-6;
    c
}

/// 1x1, depthwise, 1x1 convolution with activations, residual where the shape allows it.
pub fn inverted_bottleneck(r: &mut Random) -> Case {
    let mut c = Case::new();
    let (width, hidden, stride, kernel) = (r.size(1, 30), r.size(2, 90), r.size(1, 2), r.pick(&[3, 5]));
    let shape = [1, r.size(5, 30), r.size(5, 40), width];
    let x = c.input(r.values(shape));
    let expand = c.graph.constant(r.values([hidden, width, 1, 1]));
    let y = c.graph.conv2d(x, expand, None, 1, Padding::default(), 1).expect("fits");
    let y = c.graph.unary(UnaryOp::Gelu, y).expect("same shape");
    let middle = c.graph.constant(r.values([hidden, 1, kernel, kernel]));
    let bias = c.graph.constant(r.values([hidden]));
    let y = c.graph.conv2d(y, middle, Some(bias), stride, Padding::same(kernel / 2), hidden).expect("fits");
    let y = c.graph.unary(UnaryOp::Gelu, y).expect("same shape");
    let project = c.graph.constant(r.values([width, hidden, 1, 1]));
    let y = c.graph.conv2d(y, project, None, 1, Padding::default(), 1).expect("fits");
    let y = if stride == 1 && r.flag() { c.graph.add(y, x).expect("same shape") } else { y };
    c.output(y);
    c.tolerance = 5e-6;
    c
}

/// Elementwise functions in a row, with slices and reshapes between them and some results that others read too: a backend may
/// make one step of those that are read once.
pub fn elementwise_expression(r: &mut Random) -> Case {
    let mut c = Case::new();
    let (rows, groups, each) = (r.size(1, 30), r.size(1, 5), r.size(1, 6));
    let bound = c.input(HostTensor::i32([1], vec![rows as i32]));
    let whole = c.input(r.values([rows, 2 * groups * each + 3]));
    let whole = if r.flag() { c.graph.limit_rows(whole, bound).expect("rows") } else { whole };
    let part = c.graph.slice(whole, 1, r.size(0, 3), groups * each).expect("inside");
    let mut values = vec![c.graph.reshape(part, [rows, groups, each]).expect("same elements")];
    let tail = c.graph.slice(whole, 1, groups * each, groups * each).expect("inside");
    values.push(c.graph.reshape(tail, [rows, groups, each]).expect("same elements"));
    let row = c.input(r.values([each]));
    let column = c.input(r.values([groups, 1]));
    for _ in 0..r.size(2, 14) {
        let x = values[r.size(0, values.len() - 1)];
        let y = match r.size(0, 5) {
            0 => c.graph.unary(r.pick(&[UnaryOp::Sigmoid, UnaryOp::Tanh, UnaryOp::Clamp(-0.5, 0.5)]), x),
            1 => c.graph.add(x, row),
            2 => c.graph.mul(x, column),
            3 => {
                let flat = c.graph.reshape(x, [rows, groups * each]).expect("same elements");
                let flat = c.graph.affine(flat, 0.5, 0.25).expect("same shape");
                c.graph.reshape(flat, [rows, groups, each])
            }
            4 => {
                let last = c.graph.slice(x, 2, each - 1, 1).expect("inside");
                c.graph.sub(x, last)
            }
            _ => {
                let other = values[r.size(0, values.len() - 1)];
                c.graph.add(x, other)
            }
        };
        values.push(y.expect("fits"));
    }
    let last = values[values.len() - 1];
    c.output(last);
    if r.flag() {
        let another = values[r.size(0, values.len() - 1)];
        c.output(another);
    }
    c.tolerance = 5e-6;
    c
}

/// A random network over feature maps of one size: convolutions, sums, concatenations in all nestings, slices,
/// reshapes and norms, several outputs. Buffers are shared, viewed and reused in every way the planner knows.
pub fn random_network(r: &mut Random) -> Case {
    let mut c = Case::new();
    let (h, w) = (r.size(2, 7), r.size(2, 7));
    let channels = r.size(1, 12);
    let mut maps = vec![c.input(r.values([1, h, w, channels]))];
    for _ in 0..r.size(6, 24) {
        let x = maps[r.size(0, maps.len() - 1)];
        let channels = c.graph.shape(x).cols();
        let y: Tensor = match r.size(0, 8) {
            0 | 1 => {
                let (c_out, kernel) = (r.size(1, 20), r.pick(&[1, 3]));
                let scale = 1.0 / (channels * kernel * kernel) as f32;
                let weights: Vec<f32> =
                    (0..c_out * channels * kernel * kernel).map(|_| scale.sqrt() * r.real()).collect();
                let weight = c.graph.constant(HostTensor::f32([c_out, channels, kernel, kernel], weights));
                let bias = c.graph.constant(r.values([c_out]));
                let padding = Padding::same(kernel / 2);
                c.graph.conv2d(x, weight, Some(bias), 1, padding, 1).expect("fits")
            }
            2 | 3 => {
                let parts: Vec<Tensor> = (0..r.size(2, 4)).map(|_| maps[r.size(0, maps.len() - 1)]).collect();
                c.graph.concat(&parts, 3).expect("joins")
            }
            4 => {
                let start = r.size(0, channels - 1);
                c.graph.slice(x, 3, start, r.size(1, channels - start)).expect("inside")
            }
            5 => {
                let same: Vec<Tensor> =
                    maps.iter().copied().filter(|&m| c.graph.shape(m).cols() == channels).collect();
                c.graph.add(x, same[r.size(0, same.len() - 1)]).expect("same shape")
            }
            6 => {
                let op = r.pick(&[UnaryOp::Relu, UnaryOp::Silu, UnaryOp::Tanh, UnaryOp::Affine(0.5, 0.1)]);
                c.graph.unary(op, x).expect("same shape")
            }
            7 => {
                // Levels one after another, as D-FINE's memory is.
                let flat = c.graph.reshape(x, [1, h * w, channels]).expect("same elements");
                let again = c.graph.concat(&[flat, flat], 1).expect("joins");
                let part = c.graph.slice(again, 1, r.size(0, h * w), h * w).expect("inside");
                c.graph.reshape(part, [1, h, w, channels]).expect("same elements")
            }
            _ => {
                let weight = c.graph.constant(r.values([channels]));
                let bias = c.graph.constant(r.values([channels]));
                c.graph.layer_norm(x, weight, bias, 1e-2).expect("fits")
            }
        };
        // Wide maps stay out, so that nested concatenations do not grow without bound.
        if c.graph.shape(y).cols() <= 64 {
            maps.push(y);
        }
    }
    for _ in 0..r.size(1, 3) {
        let y = maps[r.size(0, maps.len() - 1)];
        c.output(y);
    }
    let last = maps[maps.len() - 1];
    c.output(last);
    c.tolerance = 2e-5;
    c
}
