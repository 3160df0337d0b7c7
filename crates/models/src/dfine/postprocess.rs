//! From every query's logits and box to the few detections worth handing on, on the device.
//!
//! D-FINE needs no non-maximum suppression: the best scores over all queries and classes are the detections. What is
//! added here is for a stream: one label per structure, no box beyond the image, none without an extent, and, where
//! wanted, no two on the same place.

use std::cmp::Ordering;
use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use ultramotion_engine::graph::{CpuCall, CudaCall, CustomOp, Graph, GraphError, Tensor, TensorType};
use ultramotion_engine::launch::{Launch, Module, Operand};
use ultramotion_engine::reference::Values;
use ultramotion_engine::tensor::{DType, Shape};

/// Boxes whose part inside the image is narrower or lower than this share of it are dropped.
const MIN_SIDE: f32 = 1e-4;
/// Label of the rows that hold no detection.
const NO_LABEL: i32 = -1;

/// Which detections to keep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SelectionOptions {
    /// Bound K on their number.
    pub max_detections: usize,
    /// Least score, 0 to 1.
    pub score_threshold: f32,
    /// A query gives at most one detection, that of its best class. The official code hands on every class of a
    /// query.
    pub one_label_per_query: bool,
    /// A box that overlaps a better one of any class by more than this intersection over union is dropped; 1 keeps
    /// all.
    pub max_overlap_iou: f32,
}

impl Default for SelectionOptions {
    /// At most 32 detections of score 0.4 or more, one a query, overlapping as they like.
    fn default() -> Self {
        SelectionOptions {
            max_detections: 32,
            score_threshold: 0.4,
            one_label_per_query: true,
            max_overlap_iou: 1.0,
        }
    }
}

/// Detections, best first. Rows from `count` on hold zeros and the label −1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DetectionTensors {
    /// (cx, cy, w, h) of the part inside the image, as shares of the image, `[K, 4]` f32.
    pub boxes_cxcywh: Tensor,
    /// Sigmoid of the logit, `[K]` f32.
    pub scores: Tensor,
    /// Class, `[K]` i32.
    pub labels: Tensor,
    /// Number of detections, `[1]` i32.
    pub count: Tensor,
}

/// Adds the selection to a graph: logits `[Q, classes]` and boxes (cx, cy, w, h) `[Q, 4]`. Scores that are NaN and
/// boxes with a coordinate that is not finite are never selected; among equal scores the lower query, then the lower
/// class comes first.
pub fn select_detections(
    g: &mut Graph,
    pred_logits: Tensor,
    pred_boxes: Tensor,
    options: SelectionOptions,
) -> Result<DetectionTensors, GraphError> {
    let out = g.custom(Arc::new(SelectDetections(options)), &[pred_logits, pred_boxes])?;
    Ok(DetectionTensors { boxes_cxcywh: out[0], scores: out[1], labels: out[2], count: out[3] })
}

#[derive(Debug)]
struct SelectDetections(SelectionOptions);

static MODULE: Module = Module {
    name: "select_detections",
    ptx: ultramotion_engine::ptx!("../kernels/ptx/select_detections.ptx"),
};
/// Keys of candidates that the kernel sorts in shared memory; more are sorted in scratch.
const MAX_IN_SHARED: usize = 4096;

/// The params of `select_detections.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct CudaParams {
    logits: Operand,
    boxes: u64,
    outputs: [u64; 4],
    candidates: u64,
    most: u32,
    threshold: f32,
    one_label_per_query: u32,
    max_overlap_iou: f32,
}

impl CustomOp for SelectDetections {
    fn name(&self) -> &str {
        "select_detections"
    }

    fn output_types(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, String> {
        let [logits, boxes] = inputs else {
            return Err(format!("takes logits and boxes, got {} tensors", inputs.len()));
        };
        let fits = [logits, boxes].iter().all(|t| t.dtype == DType::F32 && t.shape.rank() == 2)
            && boxes.shape.cols() == 4
            && boxes.shape.rows() == logits.shape.rows()
            && logits.shape.numel() > 0
            // Candidates are numbered in i32.
            && i32::try_from(logits.shape.numel()).is_ok();
        if !fits {
            return Err(format!(
                "needs f32 logits [Q, classes] and boxes [Q, 4], got {} {} and {} {}",
                logits.dtype, logits.shape, boxes.dtype, boxes.shape
            ));
        }
        if self.0.max_detections == 0 {
            return Err("must be allowed at least one detection".into());
        }
        let k = self.0.max_detections;
        let of = |dtype, shape: Shape| TensorType { dtype, shape, rows: None };
        Ok(vec![
            of(DType::F32, [k, 4].into()),
            of(DType::F32, [k].into()),
            of(DType::I32, [k].into()),
            of(DType::I32, [1].into()),
        ])
    }

    fn scratch(&self, inputs: &[TensorType]) -> Vec<(DType, usize)> {
        vec![(DType::I32, inputs[0].shape.numel())]
    }

    fn reference(&self, inputs: &[Values], outputs: &mut [Values]) {
        let (logits, boxes) = (inputs[0].as_f64(), inputs[1].as_f64());
        let classes = inputs[0].shape.cols();
        let mut order: Vec<usize> = (0..logits.len()).filter(|&i| !logits[i].is_nan()).collect();
        order.sort_by(|&i, &j| {
            let better = logits[j].partial_cmp(&logits[i]).unwrap_or(Ordering::Equal);
            better.then(i.cmp(&j))
        });
        let mut taken = vec![false; inputs[0].shape.rows()];
        let mut kept: Vec<[f64; 4]> = Vec::new();
        outputs[2].i32_mut().fill(NO_LABEL);
        for candidate in order {
            let query = candidate / classes;
            let score = 1.0 / (1.0 + (-logits[candidate]).exp());
            if kept.len() == self.0.max_detections || score < f64::from(self.0.score_threshold) {
                break;
            }
            if self.0.one_label_per_query && std::mem::replace(&mut taken[query], true) {
                continue;
            }
            let b = &boxes[query * 4..][..4];
            let xyxy = [b[0] - b[2] / 2.0, b[1] - b[3] / 2.0, b[0] + b[2] / 2.0, b[1] + b[3] / 2.0];
            if b.iter().any(|v| !v.is_finite()) {
                continue;
            }
            let [x1, y1, x2, y2] = xyxy.map(|v| v.clamp(0.0, 1.0));
            let (w, h) = (x2 - x1, y2 - y1);
            if w < f64::from(MIN_SIDE) || h < f64::from(MIN_SIDE) {
                continue;
            }
            let overlaps = |other: &[f64; 4]| {
                let width = x2.min(other[2]) - x1.max(other[0]);
                let height = y2.min(other[3]) - y1.max(other[1]);
                let intersection = width.max(0.0) * height.max(0.0);
                let union = w * h + (other[2] - other[0]) * (other[3] - other[1]) - intersection;
                intersection > f64::from(self.0.max_overlap_iou) * union
            };
            if self.0.max_overlap_iou < 1.0 && kept.iter().any(overlaps) {
                continue;
            }
            let row = kept.len();
            outputs[0].f64_mut()[row * 4..][..4].copy_from_slice(&[(x1 + x2) / 2.0, (y1 + y2) / 2.0, w, h]);
            outputs[1].f64_mut()[row] = score;
            outputs[2].i32_mut()[row] = (candidate % classes) as i32;
            kept.push([x1, y1, x2, y2]);
        }
        outputs[3].i32_mut()[0] = kept.len() as i32;
    }

    fn cpu(&self, call: &mut CpuCall<'_>) {
        let (logits, boxes) = (call.inputs[0].f32(), call.inputs[1].f32());
        let classes = logits.len() / (boxes.len() / 4);
        let [out_boxes, scores, labels, count] = call.outputs else {
            panic!("select_detections has four results");
        };
        let [scratch] = call.scratch else { panic!("select_detections has one scratch buffer") };
        let (out_boxes, scores) = (out_boxes.f32(), scores.f32());
        let labels = labels.i32();
        out_boxes.fill(0.0);
        scores.fill(0.0);
        labels.fill(NO_LABEL);

        let candidates = self.candidates(logits, classes, scratch.i32());
        let mut kept = 0;
        for &candidate in candidates.iter() {
            if kept == self.0.max_detections {
                break;
            }
            let query = candidate as usize / classes;
            let Some(cxcywh) = inside_image(&boxes[query * 4..][..4]) else { continue };
            let better = out_boxes[..kept * 4].as_chunks::<4>().0;
            let limit = self.0.max_overlap_iou;
            if limit < 1.0 && better.iter().any(|b| iou_exceeds(&cxcywh, b, limit)) {
                continue;
            }
            out_boxes[kept * 4..][..4].copy_from_slice(&cxcywh);
            scores[kept] = sigmoid(logits[candidate as usize]);
            labels[kept] = (candidate as usize % classes) as i32;
            kept += 1;
        }
        count.i32()[0] = kept as i32;
    }
    fn cuda_scratch(&self, inputs: &[TensorType]) -> Vec<(DType, usize)> {
        let keys = self.sorted_keys(&inputs[0]);
        if keys > MAX_IN_SHARED { vec![(DType::U8, keys * size_of::<u64>())] } else { Vec::new() }
    }

    fn cuda(&self, call: &CudaCall<'_>) -> Option<Vec<Launch>> {
        let keys = self.sorted_keys(&call.input_types[0]);
        let scratch = call.scratch.first();
        let params = CudaParams {
            logits: call.inputs[0],
            boxes: call.inputs[1].data,
            outputs: std::array::from_fn(|i| call.outputs[i].data),
            candidates: scratch.map_or(0, |keys| keys.data),
            most: self.0.max_detections as u32,
            threshold: self.0.score_threshold,
            one_label_per_query: self.0.one_label_per_query.into(),
            max_overlap_iou: self.0.max_overlap_iou,
        };
        let shared = if scratch.is_some() { 0 } else { keys * size_of::<u64>() };
        let launch = Launch::new(&MODULE, "select_detections", &params);
        Some(vec![launch.block([512, 1, 1]).shared(shared as u32)])
    }
}

impl SelectDetections {
    /// Keys that the CUDA form has room for: a power of two, not below the most candidates there can be.
    fn sorted_keys(&self, logits: &TensorType) -> usize {
        let most = if self.0.one_label_per_query { logits.shape.rows() } else { logits.shape.numel() };
        most.next_power_of_two()
    }

    /// Flat indices of the logits that may be selected, best first, in the front of `room`.
    fn candidates<'r>(&self, logits: &[f32], classes: usize, room: &'r mut [i32]) -> &'r [i32] {
        let mut len = 0;
        let passes = |logit: f32| sigmoid(logit) >= self.0.score_threshold;
        for (query, row) in logits.chunks_exact(classes).enumerate() {
            let first = query * classes;
            if self.0.one_label_per_query {
                let known = row.iter().enumerate().filter(|(_, l)| !l.is_nan());
                let best = known.reduce(|best, next| if next.1 > best.1 { next } else { best });
                if let Some((class, _)) = best.filter(|(_, l)| passes(**l)) {
                    room[len] = (first + class) as i32;
                    len += 1;
                }
            } else {
                for (class, _) in row.iter().enumerate().filter(|(_, l)| passes(**l)) {
                    room[len] = (first + class) as i32;
                    len += 1;
                }
            }
        }
        let found = &mut room[..len];
        let logit = |i: i32| logits[i as usize];
        found.sort_unstable_by(|&i, &j| {
            logit(j).partial_cmp(&logit(i)).unwrap_or(Ordering::Equal).then(i.cmp(&j))
        });
        found
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// The part of a box inside the unit square, or `None` if there is nothing of it or it is not finite.
fn inside_image(cxcywh: &[f32]) -> Option<[f32; 4]> {
    let [cx, cy, w, h] = *cxcywh else { return None };
    if !cxcywh.iter().all(|v| v.is_finite()) {
        return None;
    }
    let [x1, y1, x2, y2] =
        [cx - w / 2.0, cy - h / 2.0, cx + w / 2.0, cy + h / 2.0].map(|v| v.clamp(0.0, 1.0));
    let (w, h) = (x2 - x1, y2 - y1);
    (w >= MIN_SIDE && h >= MIN_SIDE).then_some([(x1 + x2) / 2.0, (y1 + y2) / 2.0, w, h])
}

/// Whether two boxes overlap by more than an intersection over union.
fn iou_exceeds(a: &[f32; 4], b: &[f32; 4], limit: f32) -> bool {
    let along = |axis: usize| {
        let (low, high) = (
            (a[axis] - a[axis + 2] / 2.0).max(b[axis] - b[axis + 2] / 2.0),
            (a[axis] + a[axis + 2] / 2.0).min(b[axis] + b[axis + 2] / 2.0),
        );
        (high - low).max(0.0)
    };
    let intersection = along(0) * along(1);
    intersection > limit * (a[2] * a[3] + b[2] * b[3] - intersection)
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use proptest::prelude::*;
    use ultramotion_engine::tensor::HostTensor;
    use ultramotion_engine::testing::device_for_tests;
    use ultramotion_engine::{CompileOptions, Device, Precision, Program};

    use super::*;

    /// Every device there is, the reference first.
    fn devices() -> impl Iterator<Item = Device> {
        static CUDA: OnceLock<Option<Device>> = OnceLock::new();
        let kernels = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/kernels");
        let cuda = CUDA.get_or_init(|| device_for_tests(&[kernels], Precision::F16));
        [Some(Device::reference()), Some(Device::cpu(1)), cuda.clone()].into_iter().flatten()
    }

    struct Selected {
        boxes: Vec<[f32; 4]>,
        scores: Vec<f32>,
        labels: Vec<i32>,
        count: usize,
    }

    fn select(
        device: &Device,
        classes: usize,
        logits: &[f32],
        boxes: &[[f32; 4]],
        options: SelectionOptions,
    ) -> Selected {
        let queries = boxes.len();
        let mut g = Graph::new("select");
        let l = g.input("logits", DType::F32, [queries, classes]).expect("a new name");
        let b = g.input("boxes", DType::F32, [queries, 4]).expect("a new name");
        let d = select_detections(&mut g, l, b, options).expect("shapes fit");
        for (name, t) in [("b", d.boxes_cxcywh), ("s", d.scores), ("l", d.labels), ("c", d.count)] {
            g.output(name, t).expect("a new name");
        }
        let mut program = Program::compile(g, device, &CompileOptions::default()).expect("compiles");
        let inputs = [
            HostTensor::f32([queries, classes], logits),
            HostTensor::f32([queries, 4], boxes.as_flattened()),
        ];
        let out = program.run(&[&inputs[0], &inputs[1]]).expect("runs");
        Selected {
            boxes: out[0].as_f32().expect("floats").as_chunks::<4>().0.to_vec(),
            scores: out[1].as_f32().expect("floats").to_vec(),
            labels: out[2].as_i32().expect("integers").to_vec(),
            count: out[3].as_i32().expect("integers")[0] as usize,
        }
    }

    const ALL: SelectionOptions = SelectionOptions {
        max_detections: 4,
        score_threshold: 0.5,
        one_label_per_query: false,
        max_overlap_iou: 1.0,
    };
    const A: [f32; 4] = [0.25, 0.25, 0.25, 0.25];
    const B: [f32; 4] = [0.75, 0.75, 0.25, 0.25];

    #[test]
    fn the_best_scores_over_queries_and_classes_come_first() {
        let logits = [1.0, 3.0, 2.0, -1.0, f32::NAN, f32::NAN];
        for device in devices() {
            let all = select(&device, 2, &logits, &[A, B, A], ALL);
            assert_eq!((all.count, &all.labels[..]), (3, &[1, 0, 0, NO_LABEL][..]), "{device:?}");
            assert_eq!((all.boxes[1], all.boxes[3]), (B, [0.0; 4]));
            assert!((all.scores[0] - 0.952_574).abs() < 1e-6 && all.scores[3] == 0.0);
            let one = SelectionOptions { one_label_per_query: true, ..ALL };
            let one = select(&device, 2, &logits, &[A, B, A], one);
            assert_eq!((one.count, &one.labels[..2]), (2, &[1, 0][..]), "{device:?}");
            let few = SelectionOptions { max_detections: 1, ..ALL };
            assert_eq!(select(&device, 2, &logits, &[A, B, A], few).count, 1);
        }
    }

    #[test]
    fn boxes_end_at_the_image_and_what_is_outside_is_dropped() {
        let boxes = [
            [0.0, 0.5, 0.5, 0.5],
            [1.5, 0.5, 0.5, 0.5],
            [0.5, 0.5, -0.1, 0.1],
            [f32::NAN, 0.5, 0.1, 0.1],
            [0.5, 0.5, f32::INFINITY, 0.1],
        ];
        for device in devices() {
            let out = select(&device, 1, &[1.0; 5], &boxes, ALL);
            assert_eq!((out.count, out.boxes[0]), (1, [0.125, 0.5, 0.25, 0.5]), "{device:?}");
        }
    }

    #[test]
    fn overlapping_boxes_give_way_to_better_ones() {
        let moved = [0.25, 0.28125, 0.25, 0.25];
        let options = SelectionOptions { max_overlap_iou: 0.75, ..ALL };
        for device in devices() {
            let out = select(&device, 1, &[1.0, 3.0, 2.0], &[A, moved, B], options);
            assert_eq!((out.count, &out.boxes[..2]), (2, &[moved, B][..]), "{device:?}");
        }
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let mut g = Graph::new("select");
        let logits = g.input("logits", DType::F32, [5, 2]).expect("a new name");
        let boxes = g.input("boxes", DType::F32, [6, 4]).expect("a new name");
        assert!(select_detections(&mut g, logits, boxes, ALL).is_err());
        let none = SelectionOptions { max_detections: 0, ..ALL };
        assert!(select_detections(&mut g, logits, logits, none).is_err());
    }

    #[test]
    fn thousands_of_candidates_are_sorted() {
        // Scores with many ties, in the scratch memory of a GPU.
        let (queries, classes) = (700, 9);
        let logits: Vec<f32> = (0..queries * classes).map(|i| ((i * 7919) % 101) as f32 / 50.0).collect();
        let options = SelectionOptions { max_detections: 100, max_overlap_iou: 0.9, ..ALL };
        let boxes: Vec<[f32; 4]> = (0..queries).map(|q| [0.5, 0.1 + 0.001 * q as f32, 0.3, 0.1]).collect();
        let expected = select(&Device::reference(), classes, &logits, &boxes, options);
        for device in devices().skip(1) {
            let got = select(&device, classes, &logits, &boxes, options);
            assert_eq!((got.count, &got.labels), (expected.count, &expected.labels), "{device:?}");
        }
    }

    proptest! {
        #[test]
        fn every_device_selects_what_the_reference_selects(
            classes in 1usize..4,
            // Coarse values, so that equal scores and equal boxes come up.
            seeds in prop::collection::vec((prop::array::uniform3(-8i8..9), prop::array::uniform4(-4i8..9)), 1..30),
            threshold in 0.01f32..0.9,
            one_label_per_query: bool,
            max_overlap_iou in prop_oneof![Just(1.0f32), 0.11f32..0.9],
            max_detections in 1usize..12,
        ) {
            let logit = |v: i8| if v == -8 { f32::NAN } else { f32::from(v) / 2.0 };
            let logits: Vec<f32> =
                seeds.iter().flat_map(|(l, _)| l[..classes].iter().map(|&v| logit(v))).collect();
            let boxes: Vec<[f32; 4]> = seeds.iter().map(|(_, b)| b.map(|v| f32::from(v) / 8.0)).collect();
            let options =
                SelectionOptions { max_detections, score_threshold: threshold, one_label_per_query, max_overlap_iou };
            let expected = select(&Device::reference(), classes, &logits, &boxes, options);
            for device in devices().skip(1) {
                let got = select(&device, classes, &logits, &boxes, options);
                prop_assert_eq!(got.count, expected.count);
                prop_assert_eq!(&got.labels, &expected.labels);
                prop_assert_eq!(&got.boxes, &expected.boxes);
                let close = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-6;
                prop_assert!(got.scores.iter().zip(&expected.scores).all(close));
                prop_assert!(got.scores.windows(2).all(|s| s[0] >= s[1]));
            }
        }
    }
}
