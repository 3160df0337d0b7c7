//! Boxes against boxes: overlap, and which found box belongs to which true one.

/// Left, top, right, bottom in pixels of the frame, right and bottom exclusive.
pub(crate) type BoxXyxy = [f64; 4];

/// Intersection over union; 0 where the union is nothing.
pub(crate) fn box_iou(a: &BoxXyxy, b: &BoxXyxy) -> f64 {
    let width = a[2].min(b[2]) - a[0].max(b[0]);
    let height = a[3].min(b[3]) - a[1].max(b[1]);
    if width <= 0.0 || height <= 0.0 {
        return 0.0;
    }
    let area = |b: &BoxXyxy| (b[2] - b[0]) * (b[3] - b[1]);
    let shared = width * height;
    shared / (area(a) + area(b) - shared)
}

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
                let iou = box_iou(candidate, b);
                // Of equal overlaps the last, as the original does.
                if iou >= best_iou {
                    (best, best_iou) = (Some(index), iou);
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
    fn overlap_of_known_boxes() {
        let a = [0.0, 0.0, 10.0, 10.0];
        assert_eq!(box_iou(&a, &a), 1.0);
        assert_eq!(box_iou(&a, &[5.0, 0.0, 15.0, 10.0]), 50.0 / 150.0);
        assert_eq!(box_iou(&a, &[10.0, 0.0, 20.0, 10.0]), 0.0);
        assert_eq!(box_iou(&[1.0; 4], &[1.0; 4]), 0.0);
    }

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
