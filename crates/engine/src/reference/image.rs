//! A raw frame to a network's input.

use super::Values;
use crate::graph::ImageTransform;
use crate::tensor::Shape;

/// First source sample and the weights (sum 1) for every output sample of an antialiased triangle filter: the filter
/// is as wide as two output samples when it shrinks, two input samples when it enlarges (Pillow's `BILINEAR`).
pub fn triangle_filter(input: usize, output: usize) -> Vec<(usize, Vec<f64>)> {
    let ratio = input as f64 / output as f64;
    let support = ratio.max(1.0);
    (0..output)
        .map(|i| {
            let centre = (i as f64 + 0.5) * ratio;
            let first = ((centre - support + 0.5).max(0.0)) as usize;
            let end = ((centre + support + 0.5) as usize).min(input);
            let weights: Vec<f64> =
                (first..end).map(|j| (1.0 - ((j as f64 - centre + 0.5) / support).abs()).max(0.0)).collect();
            let sum: f64 = weights.iter().sum();
            (first, weights.iter().map(|w| w / sum).collect())
        })
        .collect()
}

pub(super) fn image_to_tensor(frame: &Values, transform: &ImageTransform, out: Shape) -> Values {
    let (w, channels) = (frame.shape[1], frame.shape[2]);
    let [resized_h, resized_w] = transform.resized_hw;
    let (rows, columns) = (triangle_filter(frame.shape[0], resized_h), triangle_filter(w, resized_w));
    let pixels = frame.as_u8();
    let mut result = vec![0.0; out.numel()];
    for (y, (first_row, row_weights)) in rows.iter().enumerate() {
        for (x, (first_column, column_weights)) in columns.iter().enumerate() {
            for c in 0..3 {
                let mut sample = 0.0;
                for (i, wy) in row_weights.iter().enumerate() {
                    for (j, wx) in column_weights.iter().enumerate() {
                        let at = ((first_row + i) * w + first_column + j) * channels + c.min(channels - 1);
                        sample += wy * wx * f64::from(pixels[at]);
                    }
                }
                result[(y * out[2] + x) * 3 + c] =
                    sample * f64::from(transform.scale[c]) + f64::from(transform.shift[c]);
            }
        }
    }
    Values::f64(out, result)
}
