//! Boxes against boxes: which found box belongs to which true one.

use ultramotion_types::boxes::{BoxXyxy, iou};

/// COCO's matching (`evaluateImg` of `cocoeval.py`): in the order given, best score first, each found box takes the true
/// box that it overlaps most, of those that are still free and overlap by `least_iou` or more. The true box of each
/// found one.
pub(crate) fn greedy_match(truth: &[BoxXyxy], found: &[BoxXyxy], least_iou: f64) -> Vec<Option<usize>> {
    let mut free = vec![true; truth.len()];
    found
        .iter()
        .map(|candidate| {
            let mut best = None;
            let mut best_iou = least_iou.min(1.0 - 1e-10);
            for (index, b) in truth.iter().enumerate().filter(|(index, _)| free[*index]) {
                let overlap = iou(candidate, b);
                // Of equal overlaps the last, as the original does.
                if overlap >= best_iou {
                    (best, best_iou) = (Some(index), overlap);
                }
            }
            if let Some(index) = best {
                free[index] = false;
            }
            best
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_better_answer_takes_the_object_and_a_second_one_is_left_over() {
        let truth = [[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0]];
        let found =
            [[0.0, 0.0, 10.0, 9.0], [0.0, 0.0, 10.0, 10.0], [21.0, 0.0, 31.0, 10.0], [90.0, 0.0, 99.0, 9.0]];
        assert_eq!(greedy_match(&truth, &found, 0.5), [Some(0), None, Some(1), None]);
        assert_eq!(greedy_match(&truth, &found, 0.95), [None, Some(0), None, None]);
        assert_eq!(greedy_match(&[], &found, 0.5), [None; 4]);
    }
}
