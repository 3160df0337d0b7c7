//! Average precision of boxes by COCO's rules, number for number what `pycocotools` gives for `iouType = "bbox"`,
//! area range "all" and at most 100 detections a frame and class (T.-Y. Lin et al., "Microsoft COCO", ECCV 2014, and
//! `cocoeval.py`).

use ultramotion_types::boxes::BoxXyxy;

use super::boxes::greedy_match;

/// IoU from which on a detection counts, for AP50; the first of [`iou_thresholds`].
pub(crate) const IOU_50: f64 = 0.5;
/// Detections of a class that count in a frame, the best ones.
pub(crate) const MAX_DETECTIONS: usize = 100;
/// Recalls at which the precision is read: 0, 0.01, …, 1.
pub(crate) const RECALL_POINTS: usize = 101;

/// True and found boxes of one class in one frame.
#[derive(Debug, Clone, Default)]
pub(crate) struct FrameBoxes {
    /// What is there.
    pub truth: Vec<BoxXyxy>,
    /// What was found, with scores, in any order.
    pub found: Vec<(f64, BoxXyxy)>,
}

/// A class's figures over all frames.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AveragePrecision {
    /// Mean over the IoU thresholds 0.50, 0.55, …, 0.95.
    pub ap50_95: f64,
    /// At IoU 0.50.
    pub ap50: f64,
    /// Precision at IoU 0.50 and recall 0, 0.01, …, 1; 0 at recalls that are not reached.
    pub precision_at_recall: Vec<f64>,
}

/// 0.50, 0.55, …, 0.95, as NumPy's `linspace` computes them.
pub(crate) fn iou_thresholds() -> [f64; 10] {
    let step = (0.95 - 0.5) / 9.0;
    std::array::from_fn(|i| if i == 9 { 0.95 } else { 0.5 + i as f64 * step })
}

/// AP of one class; `None` where the frames hold no object of it.
pub(crate) fn average_precision(frames: &[FrameBoxes]) -> Option<AveragePrecision> {
    let objects: usize = frames.iter().map(|frame| frame.truth.len()).sum();
    if objects == 0 {
        return None;
    }
    // Of each frame the best detections, best first; equal scores keep their order.
    let mut ranked = frames.to_vec();
    for frame in &mut ranked {
        frame.found.sort_by(|a, b| b.0.total_cmp(&a.0));
        frame.found.truncate(MAX_DETECTIONS);
    }
    let curves = iou_thresholds().map(|iou| {
        let mut hits: Vec<(f64, bool)> = Vec::new();
        for FrameBoxes { truth, found } in &ranked {
            let boxes: Vec<BoxXyxy> = found.iter().map(|(_, b)| *b).collect();
            let matched = greedy_match(truth, &boxes, iou);
            hits.extend(found.iter().zip(matched).map(|((score, _), truth)| (*score, truth.is_some())));
        }
        hits.sort_by(|a, b| b.0.total_cmp(&a.0));
        interpolated_precision(&hits, objects)
    });
    let mean = |curve: &[f64]| curve.iter().sum::<f64>() / curve.len() as f64;
    Some(AveragePrecision {
        ap50_95: curves.iter().map(|curve| mean(curve)).sum::<f64>() / curves.len() as f64,
        ap50: mean(&curves[0]),
        precision_at_recall: curves[0].clone(),
    })
}

/// Precision at each of the recall points: the best precision at this or any higher recall (interpolation of Pascal
/// VOC, at 101 points as COCO does). `ranked` has score and whether it is right, best score first.
fn interpolated_precision(ranked: &[(f64, bool)], objects: usize) -> Vec<f64> {
    let (mut right, mut wrong) = (0.0, 0.0);
    let (mut recalls, mut precisions) = (Vec::new(), Vec::new());
    for (_, is_right) in ranked {
        if *is_right {
            right += 1.0;
        } else {
            wrong += 1.0;
        }
        recalls.push(right / objects as f64);
        precisions.push(right / (right + wrong + f64::EPSILON));
    }
    for i in (1..precisions.len()).rev() {
        precisions[i - 1] = f64::max(precisions[i - 1], precisions[i]);
    }
    (0..RECALL_POINTS)
        .map(|point| {
            // 0.01 as NumPy's linspace multiplies it up.
            let recall = point as f64 * 0.01;
            let first = recalls.partition_point(|&reached| reached < recall);
            precisions.get(first).copied().unwrap_or(0.0)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    /// A linear congruential generator (Knuth, MMIX), so that Python could draw the same.
    struct Draws(u64);

    impl Draws {
        fn next(&mut self) -> f64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 11) as f64 / (1u64 << 53) as f64
        }
        fn below(&mut self, n: usize) -> usize {
            (self.next() * n as f64) as usize
        }
    }

    /// Frames with objects, answers near them, answers elsewhere, second answers, equal scores; one frame with more
    /// answers than count.
    fn random_frames(seed: u64) -> Vec<FrameBoxes> {
        let mut draws = Draws(seed);
        (0..12)
            .map(|index| {
                let mut frame = FrameBoxes::default();
                for _ in 0..draws.below(5) {
                    let (x, y) = (draws.next() * 300.0, draws.next() * 300.0);
                    let (w, h) = (10.0 + draws.next() * 80.0, 10.0 + draws.next() * 80.0);
                    frame.truth.push([x, y, x + w, y + h]);
                    for _ in 0..draws.below(4) {
                        let off = |draws: &mut Draws, side: f64| side * 0.3 * (draws.next() - 0.5);
                        let b = [
                            x + off(&mut draws, w),
                            y + off(&mut draws, h),
                            x + w + off(&mut draws, w),
                            y + h + off(&mut draws, h),
                        ];
                        frame.found.push(((draws.next() * 20.0).round() / 20.0, b));
                    }
                }
                let strays = if index == 7 { 130 } else { draws.below(4) };
                for _ in 0..strays {
                    let (x, y) = (draws.next() * 300.0, draws.next() * 300.0);
                    frame.found.push((draws.next() * 0.8, [x, y, x + 40.0, y + 30.0]));
                }
                frame
            })
            .collect()
    }

    /// AP50:95 and AP50 by pycocotools 2.0.11 of `random_frames(1..=4)`.
    const FROZEN: [[f64; 2]; 4] = [
        [0.1787509502238715, 0.3568355115394303],
        [0.23526565305953753, 0.4965139942416989],
        [0.24761659760190272, 0.4709004327709907],
        [0.20951348947279722, 0.4369438637616789],
    ];

    #[test]
    fn frozen_figures_of_pycocotools() {
        for (seed, expected) in (1..).zip(FROZEN) {
            let got = average_precision(&random_frames(seed)).unwrap();
            for (got, expected) in [got.ap50_95, got.ap50].into_iter().zip(expected) {
                assert!((got - expected).abs() < 1e-9, "seed {seed}: {got} is not {expected}");
            }
        }
    }

    #[test]
    fn pycocotools_gives_the_same() {
        let python = std::env::var("ULTRAMOTION_PYTHON").unwrap_or_else(|_| "python3".into());
        let probe = Command::new(&python).args(["-c", "import pycocotools"]).stderr(Stdio::null()).status();
        if !probe.is_ok_and(|status| status.success()) {
            println!("skipped: '{python}' has no pycocotools; name one that has with ULTRAMOTION_PYTHON");
            return;
        }
        let sets: Vec<Vec<FrameBoxes>> = (1..=24).map(random_frames).collect();
        let input = serde_json::json!(
            sets.iter()
                .map(|frames| frames
                    .iter()
                    .map(|f| serde_json::json!({"truth": f.truth, "found": f.found}))
                    .collect())
                .collect::<Vec<Vec<_>>>()
        );
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/coco_average_precision.py");
        let mut process = Command::new(&python)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python starts, as it did before");
        process.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
        let output = process.wait_with_output().unwrap();
        assert!(output.status.success());
        let expected: Vec<(f64, f64, Vec<f64>)> = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(expected.len(), sets.len());
        for (index, (frames, (ap50_95, ap50, curve))) in sets.iter().zip(expected).enumerate() {
            let got = average_precision(frames).unwrap();
            let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
            assert!(
                close(got.ap50_95, ap50_95) && close(got.ap50, ap50),
                "seed {}: {} and {} are not {ap50_95} and {ap50}",
                index + 1,
                got.ap50_95,
                got.ap50
            );
            assert!(
                got.precision_at_recall.iter().zip(&curve).all(|(a, b)| close(*a, *b)),
                "seed {}",
                index + 1
            );
            assert_eq!(curve.len(), RECALL_POINTS);
        }
    }

    #[test]
    fn edges() {
        let b = [10.0, 10.0, 30.0, 40.0];
        assert_eq!(average_precision(&[]), None);
        assert_eq!(average_precision(&[FrameBoxes { truth: vec![], found: vec![(0.9, b)] }]), None);
        let nothing_found = average_precision(&[FrameBoxes { truth: vec![b], found: vec![] }]).unwrap();
        assert_eq!((nothing_found.ap50_95, nothing_found.ap50), (0.0, 0.0));
        let all = average_precision(&[FrameBoxes { truth: vec![b], found: vec![(0.1, b)] }]).unwrap();
        assert!((all.ap50_95 - 1.0).abs() < 1e-12);
        // A better wrong answer in a frame without objects halves the precision everywhere.
        let stray = FrameBoxes { truth: vec![], found: vec![(0.9, b)] };
        let half = average_precision(&[stray, FrameBoxes { truth: vec![b], found: vec![(0.1, b)] }]).unwrap();
        assert!((half.ap50 - 0.5).abs() < 1e-12);
    }
}
