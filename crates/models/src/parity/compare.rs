//! Distances between what was computed and what was expected.

use ultramotion_engine::tensor::HostTensor;

/// `‖a − b‖ / ‖b‖`; infinite if the lengths differ.
pub(super) fn relative_l2(got: &[f32], expected: &[f32]) -> f64 {
    if got.len() != expected.len() {
        return f64::INFINITY;
    }
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = squares(&mut got.iter().zip(expected).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    difference / squares(&mut expected.iter().map(|b| f64::from(*b)))
}

/// 1 − IoU of the sets where two maps of logits are positive; infinite if the lengths differ or a value is not a number.
pub(super) fn overlap_error(got: &[f32], expected: &[f32]) -> f64 {
    if got.len() != expected.len() || got.iter().any(|v| v.is_nan()) {
        return f64::INFINITY;
    }
    let pairs = || got.iter().zip(expected).map(|(a, b)| (*a > 0.0, *b > 0.0));
    let both = pairs().filter(|&(a, b)| a && b).count();
    let either = pairs().filter(|&(a, b)| a || b).count();
    if either == 0 { 0.0 } else { 1.0 - both as f64 / either as f64 }
}

/// Largest difference between the sorted sigmoids of two sets of logits; infinite if the lengths differ.
pub(super) fn sorted_scores(got_logits: &[f32], expected_logits: &[f32]) -> f64 {
    let sorted = |logits: &[f32]| {
        let mut scores: Vec<f64> = logits.iter().map(|&l| 1.0 / (1.0 + f64::from(-l).exp())).collect();
        scores.sort_by(f64::total_cmp);
        scores
    };
    if got_logits.len() != expected_logits.len() {
        return f64::INFINITY;
    }
    let (got, expected) = (sorted(got_logits), sorted(expected_logits));
    largest(got.iter().zip(&expected).map(|(a, b)| (a - b).abs()))
}

/// Largest L1 distance from a box of either set to the nearest of the other: both `[N, 4]`.
pub(super) fn nearest_boxes(got: &[f32], expected: &[f32]) -> f64 {
    let distance = |a: &[f32], b: &[f32]| {
        a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs()).sum::<f64>()
    };
    let one_way = |from: &[f32], to: &[f32]| {
        let nearest = |a: &[f32]| {
            // A distance that is not a number is no distance.
            let known = to.chunks_exact(4).map(|b| distance(a, b)).filter(|d| !d.is_nan());
            known.fold(f64::INFINITY, f64::min)
        };
        largest(from.chunks_exact(4).map(nearest))
    };
    one_way(got, expected).max(one_way(expected, got))
}

/// The largest, or infinity where one is not a number.
fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, |most, v| if v.is_nan() { f64::INFINITY } else { most.max(v) })
}

/// Every (numel / count)-th element of a map `[1, H, W, C]` in the order of `[1, C, H, W]`.
pub(super) fn sampled_nchw(map: &HostTensor, count: usize) -> Vec<f32> {
    let (values, shape) = (map.as_f32().unwrap_or_default(), map.shape());
    let (h, w, c) = (shape[1], shape[2], shape[3]);
    let at = |nchw: usize| values[nchw % (h * w) * c + nchw / (h * w)];
    sampled_indices(values.len(), count).map(at).collect()
}

/// Every (numel / count)-th value.
pub(super) fn sampled(values: &[f32], count: usize) -> Vec<f32> {
    sampled_indices(values.len(), count).map(|i| values[i]).collect()
}

fn sampled_indices(len: usize, count: usize) -> impl Iterator<Item = usize> {
    (0..len).step_by((len / count.max(1)).max(1)).take(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_taken_in_channels_first_order() {
        // Values are their own NCHW index: 2 channels of 2 x 3 pixels, stored channels last.
        let map = HostTensor::f32([1, 2, 3, 2], vec![0., 6., 1., 7., 2., 8., 3., 9., 4., 10., 5., 11.]);
        assert_eq!(sampled_nchw(&map, 12), (0..12).map(|i| i as f32).collect::<Vec<_>>());
        assert_eq!(sampled_nchw(&map, 5), [0.0, 2.0, 4.0, 6.0, 8.0]);
    }

    #[test]
    fn nothing_that_is_not_a_number_passes() {
        let nan = f32::NAN;
        assert!(relative_l2(&[nan, 1.0], &[1.0, 1.0]).is_nan());
        assert_eq!(sorted_scores(&[nan], &[0.0]), f64::INFINITY);
        assert_eq!(nearest_boxes(&[nan, 0.0, 0.0, 0.0], &[0.0; 4]), f64::INFINITY);
        assert_eq!(relative_l2(&[1.0], &[1.0, 2.0]), f64::INFINITY);
    }

    #[test]
    fn a_missing_box_is_noticed() {
        let two = [0.1, 0.1, 0.2, 0.2, 0.8, 0.8, 0.2, 0.2];
        assert!((nearest_boxes(&[two[..4].to_vec(), two[..4].to_vec()].concat(), &two) - 1.4).abs() < 1e-6);
        assert_eq!(nearest_boxes(&two, &[&two[4..], &two[..4]].concat()), 0.0);
    }
}
