//! Attention over keys, and deformable attention over sampled points.

use super::Values;
use super::networks::softmax_row;
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

pub(super) fn deformable(
    arguments: &[&Values],
    heads: usize,
    levels_hw: &[[usize; 2]],
    points_per_level: &[usize],
    out: Shape,
) -> Values {
    let (value, locations, weights) = (arguments[0].as_f64(), arguments[1].as_f64(), arguments[2].as_f64());
    let channels = out[1];
    let d = channels / heads;
    let points: usize = points_per_level.iter().sum();
    let mut result = vec![0.0; out.numel()];
    for query in 0..out[0] {
        for head in 0..heads {
            let row = &mut result[query * channels + head * d..][..d];
            let (mut point, mut level_start) = (0, 0);
            for (&[h, w], &count) in levels_hw.iter().zip(points_per_level) {
                for _ in 0..count {
                    let at = (query * heads + head) * points + point;
                    let x = locations[at * 2] * w as f64 - 0.5;
                    let y = locations[at * 2 + 1] * h as f64 - 0.5;
                    let (x0, y0) = (x.floor(), y.floor());
                    for (yy, wy) in [(y0, 1.0 - (y - y0)), (y0 + 1.0, y - y0)] {
                        for (xx, wx) in [(x0, 1.0 - (x - x0)), (x0 + 1.0, x - x0)] {
                            if yy >= 0.0 && xx >= 0.0 && yy < h as f64 && xx < w as f64 {
                                let pixel = level_start + yy as usize * w + xx as usize;
                                let source = &value[pixel * channels + head * d..][..d];
                                let factor = wx * wy * weights[at];
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
