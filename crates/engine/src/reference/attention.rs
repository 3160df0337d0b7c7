//! Attention over keys, inside windows, and over sampled points.

use super::Values;
use super::networks::{layer_norm, linear, softmax_row};
use crate::tensor::Shape;

pub(super) fn attention(arguments: &[&Values], heads: usize, scale: f64, out: Shape) -> Values {
    let (q, k, v) = (arguments[0], arguments[1], arguments[2]);
    let bias = arguments.get(3).map(|b| b.as_f64());
    let (queries, keys) = (q.shape[1], k.shape[1]);
    let (d, d_v) = (q.shape[2] / heads, v.shape[2] / heads);
    let mut result = vec![0.0; out.numel()];
    for batch in 0..out[0] {
        let q_batch = if q.shape[0] == 1 { 0 } else { batch };
        let k_batch = if k.shape[0] == 1 { 0 } else { batch };
        for head in 0..heads {
            for i in 0..queries {
                let q_row = &q.as_f64()[((q_batch * queries + i) * heads + head) * d..][..d];
                let scores: Vec<f64> = (0..keys)
                    .map(|j| {
                        let k_row = &k.as_f64()[((k_batch * keys + j) * heads + head) * d..][..d];
                        let dot: f64 = q_row.iter().zip(k_row).map(|(a, b)| a * b).sum();
                        scale * dot + bias.map_or(0.0, |b| b[(head * queries + i) * keys + j])
                    })
                    .collect();
                let row = &mut result[((batch * queries + i) * heads + head) * d_v..][..d_v];
                for (j, p) in softmax_row(&scores).into_iter().enumerate() {
                    let v_row = &v.as_f64()[((k_batch * keys + j) * heads + head) * d_v..][..d_v];
                    row.iter_mut().zip(v_row).for_each(|(y, v)| *y += p * v);
                }
            }
        }
    }
    Values::f64(out, result)
}

pub(super) fn window_attention(arguments: &[&Values], window: usize, heads: usize, epsilon: f64) -> Values {
    let [x, gamma, beta, qkv_weight, qkv_bias, score_bias, project_weight, project_bias] = arguments else {
        panic!("window_attention has eight inputs")
    };
    let (n, h, w, c) = (x.shape[0], x.shape[1], x.shape[2], x.shape[3]);
    let (down, across, area) = (h.div_ceil(window), w.div_ceil(window), window * window);
    // Row of the map, if any, of every pixel of every window.
    let rows: Vec<Option<usize>> = (0..n * down * across * area)
        .map(|i| {
            let (pixel, index) = (i % area, i / area);
            let (at, image) = (index % (down * across), index / (down * across));
            let (y, x) = (at / across * window + pixel / window, at % across * window + pixel % window);
            (y < h && x < w).then_some((image * h + y) * w + x)
        })
        .collect();
    let windows = n * down * across;
    let indices = rows.iter().flat_map(|row| (0..c).map(move |j| row.map(|r| r * c + j)));
    let inside = x.rearranged(Shape::from([windows, area, c]), indices);
    let with_bias = |mut values: Values, bias: &Values| {
        let cols = values.shape.cols();
        values.f64_mut().iter_mut().enumerate().for_each(|(i, v)| *v += bias.as_f64()[i % cols]);
        values
    };
    let normed = layer_norm(&inside, gamma, beta, epsilon);
    let qkv = with_bias(linear(&normed, qkv_weight, [windows, area, 3 * c].into()), qkv_bias);
    let part = |which: usize| {
        let of = (0..windows * area).flat_map(|row| (0..c).map(move |j| Some((row * 3 + which) * c + j)));
        qkv.rearranged([windows, area, c].into(), of)
    };
    let (q, k, v) = (part(0), part(1), part(2));
    let scale = 1.0 / ((c / heads) as f64).sqrt();
    let attended = attention(&[&q, &k, &v, score_bias], heads, scale, [windows, area, c].into());
    let projected = with_bias(linear(&attended, project_weight, [windows, area, c].into()), project_bias);
    let mut result = (*x).clone();
    for (from, to) in rows.iter().enumerate().filter_map(|(from, to)| to.map(|to| (from, to))) {
        for j in 0..c {
            result.f64_mut()[to * c + j] += projected.as_f64()[from * c + j];
        }
    }
    result
}

pub(super) fn deformable(
    arguments: &[&Values],
    heads: usize,
    levels_hw: &[[usize; 2]],
    points_per_level: &[usize],
    out: Shape,
) -> Values {
    let [value, offsets, logits, boxes] = [0, 1, 2, 3].map(|i| arguments[i].as_f64());
    let channels = out[1];
    let d = channels / heads;
    let points: usize = points_per_level.iter().sum();
    let mut result = vec![0.0; out.numel()];
    for query in 0..out[0] {
        let (centre, extent) = boxes[query * 4..][..4].split_at(2);
        for head in 0..heads {
            let weights = softmax_row(&logits[(query * heads + head) * points..][..points]);
            let row = &mut result[query * channels + head * d..][..d];
            let (mut point, mut level_start) = (0, 0);
            for (&[h, w], &count) in levels_hw.iter().zip(points_per_level) {
                for _ in 0..count {
                    let at = (query * heads + head) * points + point;
                    let location = |axis: usize| centre[axis] + offsets[at * 2 + axis] * extent[axis];
                    let x = location(0) * w as f64 - 0.5;
                    let y = location(1) * h as f64 - 0.5;
                    let (x0, y0) = (x.floor(), y.floor());
                    for (yy, wy) in [(y0, 1.0 - (y - y0)), (y0 + 1.0, y - y0)] {
                        for (xx, wx) in [(x0, 1.0 - (x - x0)), (x0 + 1.0, x - x0)] {
                            if yy >= 0.0 && xx >= 0.0 && yy < h as f64 && xx < w as f64 {
                                let pixel = level_start + yy as usize * w + xx as usize;
                                let source = &value[pixel * channels + head * d..][..d];
                                let factor = wx * wy * weights[point];
                                row.iter_mut().zip(source).for_each(|(y, v)| *y += factor * v);
                            }
                        }
                    }
                    point += 1;
                }
                level_start += h * w;
            }
        }
    }
    Values::f64(out, result)
}
