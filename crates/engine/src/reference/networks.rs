//! Convolutions, linear layers, pooling, resizing, norms.

use super::Values;
use crate::graph::Padding;
use crate::tensor::Shape;

pub(super) fn conv2d(
    x: &Values,
    weight: &Values,
    stride: [usize; 2],
    padding: Padding,
    groups: usize,
    out: Shape,
) -> Values {
    let (h, w, c) = (x.shape[1], x.shape[2], x.shape[3]);
    let (c_out, c_group, kh, kw) = (weight.shape[0], weight.shape[1], weight.shape[2], weight.shape[3]);
    let (xv, wv) = (x.as_f64(), weight.as_f64());
    let per_group = c_out / groups;
    // Taps as [kh, kw, c_group] per output channel, so that the innermost loop runs over neighbours in both operands.
    let mut taps = vec![0.0; wv.len()];
    for (i, &v) in wv.iter().enumerate() {
        let (o, rest) = (i / (c_group * kh * kw), i % (c_group * kh * kw));
        let (ci, tap) = (rest / (kh * kw), rest % (kh * kw));
        taps[(o * kh * kw + tap) * c_group + ci] = v;
    }
    let mut result = vec![0.0; out.numel()];
    for (flat, y) in result.iter_mut().enumerate() {
        let (o, pixel) = (flat % c_out, flat / c_out);
        let (ox, oy, n) = (pixel % out[2], pixel / out[2] % out[1], pixel / out[2] / out[1]);
        let first = o / per_group * c_group;
        for ky in 0..kh {
            let Some(iy) = (oy * stride[0] + ky).checked_sub(padding.top).filter(|&v| v < h) else {
                continue;
            };
            for kx in 0..kw {
                let Some(ix) = (ox * stride[1] + kx).checked_sub(padding.left).filter(|&v| v < w) else {
                    continue;
                };
                let a = &xv[((n * h + iy) * w + ix) * c + first..][..c_group];
                let b = &taps[((o * kh + ky) * kw + kx) * c_group..][..c_group];
                *y += a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            }
        }
    }
    Values::f64(out, result)
}

pub(super) fn conv_transpose2d(x: &Values, weight: &Values, out: Shape) -> Values {
    let (c_in, c_out) = (weight.shape[0], weight.shape[1]);
    let (xv, wv) = (x.as_f64(), weight.as_f64());
    let mut result = vec![0.0; out.numel()];
    for (flat, y) in result.iter_mut().enumerate() {
        let (o, pixel) = (flat % c_out, flat / c_out);
        let (ox, oy, n) = (pixel % out[2], pixel / out[2] % out[1], pixel / out[2] / out[1]);
        let source = ((n * x.shape[1] + oy / 2) * x.shape[2] + ox / 2) * c_in;
        let tap = oy % 2 * 2 + ox % 2;
        *y = (0..c_in).map(|i| xv[source + i] * wv[(i * c_out + o) * 4 + tap]).sum();
    }
    Values::f64(out, result)
}

pub(super) fn linear(x: &Values, weight: &Values, out: Shape) -> Values {
    let (n, k) = (weight.shape[0], weight.shape[1]);
    let rows = x.as_f64().chunks_exact(k);
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    Values::f64(out, rows.flat_map(|a| (0..n).map(move |j| dot(a, &weight.as_f64()[j * k..][..k]))).collect())
}

pub(super) fn matmul(a: &Values, b: &Values, transpose_b: bool, out: Shape) -> Values {
    let rank = out.rank();
    let (m, n, k) = (out[rank - 2], out[rank - 1], a.shape[rank - 1]);
    let mut result = vec![0.0; out.numel()];
    for (flat, y) in result.iter_mut().enumerate() {
        let (j, i, batch) = (flat % n, flat / n % m, flat / n / m);
        let b_at = |t: usize| batch * n * k + if transpose_b { j * k + t } else { t * n + j };
        *y = (0..k).map(|t| a.as_f64()[(batch * m + i) * k + t] * b.as_f64()[b_at(t)]).sum();
    }
    Values::f64(out, result)
}

pub(super) fn batch_norm(arguments: &[&Values], epsilon: f64) -> Values {
    let [x, weight, bias, mean, variance] = arguments else { panic!("batch_norm has five inputs") };
    let c = x.shape.cols();
    let normalised = x.as_f64().iter().enumerate().map(|(i, &v)| {
        let j = i % c;
        (v - mean.as_f64()[j]) / (variance.as_f64()[j] + epsilon).sqrt() * weight.as_f64()[j]
            + bias.as_f64()[j]
    });
    Values::f64(x.shape.clone(), normalised.collect())
}

pub(super) fn layer_norm(x: &Values, weight: &Values, bias: &Values, epsilon: f64) -> Values {
    let c = x.shape.cols();
    let rows = x.as_f64().chunks_exact(c).flat_map(|row| {
        let mean = row.iter().sum::<f64>() / c as f64;
        let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / c as f64;
        let scale = 1.0 / (variance + epsilon).sqrt();
        row.iter().enumerate().map(move |(j, v)| (v - mean) * scale * weight.as_f64()[j] + bias.as_f64()[j])
    });
    Values::f64(x.shape.clone(), rows.collect())
}

pub(super) fn softmax_row(row: &[f64]) -> Vec<f64> {
    let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exponentials: Vec<f64> = row.iter().map(|v| (v - largest).exp()).collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.iter().map(|e| e / sum).collect()
}

pub(super) fn softmax(x: &Values) -> Values {
    Values::f64(x.shape.clone(), x.as_f64().chunks_exact(x.shape.cols()).flat_map(softmax_row).collect())
}

pub(super) fn max_pool2d(x: &Values, kernel: usize, stride: usize, padding: Padding, out: Shape) -> Values {
    let (h, w, c) = (x.shape[1], x.shape[2], x.shape[3]);
    let mut result = vec![f64::NEG_INFINITY; out.numel()];
    for (flat, y) in result.iter_mut().enumerate() {
        let (ch, pixel) = (flat % c, flat / c);
        let (ox, oy, n) = (pixel % out[2], pixel / out[2] % out[1], pixel / out[2] / out[1]);
        for tap in 0..kernel * kernel {
            let iy = (oy * stride + tap / kernel).checked_sub(padding.top).filter(|&v| v < h);
            let ix = (ox * stride + tap % kernel).checked_sub(padding.left).filter(|&v| v < w);
            if let (Some(iy), Some(ix)) = (iy, ix) {
                *y = y.max(x.as_f64()[((n * h + iy) * w + ix) * c + ch]);
            }
        }
    }
    Values::f64(out, result)
}

pub(super) fn upsample_nearest_2x(x: &Values, out: Shape) -> Values {
    let (h, w, c) = (x.shape[1], x.shape[2], x.shape[3]);
    let shape = out.clone();
    let indices = (0..shape.numel()).map(|flat| {
        let (ch, pixel) = (flat % c, flat / c);
        let (ox, oy, n) = (pixel % shape[2], pixel / shape[2] % shape[1], pixel / shape[2] / shape[1]);
        Some(((n * h + oy / 2) * w + ox / 2) * c + ch)
    });
    x.rearranged(out, indices)
}
