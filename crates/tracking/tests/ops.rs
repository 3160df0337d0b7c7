//! The device ops: on the CPU and as CUDA kernels against the reference, and against the library's own functions.
#![allow(clippy::unwrap_used)]

mod support;

use proptest::prelude::*;
use support::{cases, count, pairs, uniform};
use ultramotion_engine::graph::Graph;
use ultramotion_engine::reference::{Interpreter, Values};
use ultramotion_engine::tensor::{DType, HostTensor};
use ultramotion_engine::{CompileOptions, Device, Program};
use ultramotion_tracking::assignment::{
    BatchItem, ClassCost, CostMatrix, HungarianMatcher, Solver, UNMATCHED, Workspace,
};
use ultramotion_tracking::follow::{self, Command, FollowConfig, Point, SLOT_LEN};
use ultramotion_tracking::ops::{
    self, Assign, FollowOutlines, MatchCost, QualityInputs, TargetTensors, TrackInputs,
};
use ultramotion_tracking::quality::{MEMORY_LEN, QualityConfig, SCORES};
use ultramotion_tracking::track::{Detections, TrackTable, Tracker, TrackerConfig};
use ultramotion_types::Visibility;

/// A graph on the devices and in the interpreter, fed the same frames.
struct All<'g> {
    programs: Vec<Program>,
    reference: Interpreter<'g>,
}

impl<'g> All<'g> {
    fn new(graph: &'g Graph) -> Self {
        let programs = [Some(Device::cpu(2)), support::cuda()]
            .into_iter()
            .flatten()
            .map(|device| Program::compile(graph.clone(), &device, &CompileOptions::default()).unwrap());
        Self { programs: programs.collect(), reference: Interpreter::new(graph) }
    }

    /// The CPU's outputs, once all agree with the reference's: integers exactly, floats within `tolerance`, or on a GPU,
    /// whose exponential is not the host's, a little more.
    fn run(&mut self, inputs: &[HostTensor], tolerance: f64) -> Vec<HostTensor> {
        let on_gpu = std::env::var_os("ULTRAMOTION_GPU").is_some();
        let tolerance = if on_gpu { tolerance.max(1e-5) } else { tolerance };
        let expected = self.reference.run(&inputs.iter().map(Values::from).collect::<Vec<_>>());
        let inputs: Vec<&HostTensor> = inputs.iter().collect();
        let mut results: Vec<Vec<HostTensor>> =
            self.programs.iter_mut().map(|program| program.run(&inputs).unwrap()).collect();
        for (device, actual) in results.iter().enumerate() {
            for (output, (expected, actual)) in expected.iter().zip(actual).enumerate() {
                match actual.as_f32() {
                    Some(v) => {
                        for (&a, &b) in v.iter().zip(expected.as_f64()) {
                            let (a, b) = (f64::from(a), b);
                            let same = a == b || (a.is_nan() && b.is_nan());
                            let close = same || (a - b).abs() <= tolerance * b.abs().max(1.0);
                            assert!(close, "{a} instead of {b}, output {output}, device {device}");
                        }
                    }
                    None => assert_eq!(
                        actual.as_i32().unwrap(),
                        expected.as_i32(),
                        "output {output}, device {device}"
                    ),
                }
            }
        }
        results.swap_remove(0)
    }
}

fn ints(tensor: &HostTensor) -> &[i32] {
    tensor.as_i32().unwrap()
}

fn floats(tensor: &HostTensor) -> &[f32] {
    tensor.as_f32().unwrap()
}

fn assign_graph(n: usize, m: usize, op: Assign) -> Graph {
    let mut g = Graph::new("assign");
    let cost = g.input("cost", DType::F32, [n, m]).unwrap();
    let rows = g.input("rows", DType::I32, [1]).unwrap();
    let cols = g.input("cols", DType::I32, [1]).unwrap();
    let out = ops::assign(&mut g, op, cost, rows, cols).unwrap();
    g.output("col_of_row", out.col_of_row).unwrap();
    g.output("row_of_col", out.row_of_col).unwrap();
    g.output("row_duals", out.row_duals).unwrap();
    g.output("col_duals", out.col_duals).unwrap();
    g.output("matched", out.matched).unwrap();
    g
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn assign_solves_the_valid_corner(
        (n, m) in (1usize..20, 1usize..20), seed: u64, counts in prop::collection::vec((-2i32..25, -2i32..25), 3),
        greedy: bool, price in prop_oneof![Just(f64::INFINITY), 0f64..1.0],
    ) {
        let op = Assign { solver: if greedy { Solver::Greedy } else { Solver::Exact }, unmatched_cost: price };
        let graph = assign_graph(n, m, op);
        let mut all = All::new(&graph);
        for (run, (rows, cols)) in counts.into_iter().enumerate() {
            let mut cost = uniform(seed.wrapping_add(run as u64), n * m);
            for (k, c) in cost.iter_mut().enumerate() {
                *c = if (seed >> (k % 60)) & 7 == 7 { f32::NAN } else { *c };
            }
            let inputs = [HostTensor::f32([n, m], cost.clone()), HostTensor::i32([1], vec![rows]), HostTensor::i32([1], vec![cols])];
            let out = all.run(&inputs, 0.0);

            let (rows, cols) = ((rows.max(0) as usize).min(n), (cols.max(0) as usize).min(m));
            let mut expected = vec![0; n];
            let matrix = CostMatrix::with_stride(&cost, rows, cols, m).unwrap();
            let solution = op.solver.solve(matrix, price, &mut Workspace::new(n, m).scratch(), &mut expected).unwrap();
            prop_assert_eq!(ints(&out[0]), &expected[..]);
            prop_assert_eq!(ints(&out[4]), &[solution.matched as i32][..]);
            for (j, &i) in ints(&out[1]).iter().enumerate() {
                prop_assert!(i == UNMATCHED || expected[i as usize] == j as i32);
            }
            prop_assert_eq!(ints(&out[1]).iter().filter(|&&i| i != UNMATCHED).count(), solution.matched);
            let (u, v) = (floats(&out[2]), floats(&out[3]));
            prop_assert!(u[rows..].iter().chain(&v[cols..]).all(|&d| d == 0.0));
            if !greedy {
                for (i, u) in u[..rows].iter().enumerate() {
                    for (j, v) in v[..cols].iter().enumerate() {
                        let c = f64::from(matrix.at(i, j));
                        let c = if c.is_finite() { c.min(solution.unmatched_cost) } else { solution.unmatched_cost };
                        prop_assert!(f64::from(u + v) <= c + 1e-4);
                    }
                }
            }
        }
    }
}

struct MatcherInputs {
    shapes: [usize; 3],
    tensors: [HostTensor; 5],
}

/// The tensors of `reference.py`, with room for two targets more than there are.
fn matcher_inputs(seed: u64, [queries, classes, targets]: [usize; 3]) -> MatcherInputs {
    let values = uniform(seed, queries * (classes + 4) + targets * 5);
    let (logits, rest) = values.split_at(queries * classes);
    let (boxes, rest) = rest.split_at(queries * 4);
    let (labels, target_boxes) = rest.split_at(targets);
    let room = targets + 2;
    let corner = |v: &[f32]| v.iter().map(|x| x * 0.5 + 0.1).collect::<Vec<f32>>();
    let mut labels: Vec<i32> = labels.iter().map(|x| (x * classes as f32) as i32).collect();
    let mut target_boxes = corner(target_boxes);
    labels.resize(room, 99);
    target_boxes.resize(4 * room, f32::NAN);
    MatcherInputs {
        shapes: [queries, classes, room],
        tensors: [
            HostTensor::f32([queries, classes], logits.iter().map(|x| (x - 0.5) * 8.0).collect::<Vec<_>>()),
            HostTensor::f32([queries, 4], corner(boxes)),
            HostTensor::i32([room], labels),
            HostTensor::f32([room, 4], target_boxes),
            HostTensor::i32([1], vec![targets as i32]),
        ],
    }
}

fn matcher_graph(matcher: &HungarianMatcher, [queries, classes, room]: [usize; 3]) -> Graph {
    let mut g = Graph::new("matcher");
    let logits = g.input("logits", DType::F32, [queries, classes]).unwrap();
    let boxes = g.input("boxes", DType::F32, [queries, 4]).unwrap();
    let targets = TargetTensors {
        labels: g.input("labels", DType::I32, [room]).unwrap(),
        boxes_cxcywh: g.input("target_boxes", DType::F32, [room, 4]).unwrap(),
        count: g.input("count", DType::I32, [1]).unwrap(),
    };
    let op = MatchCost { class_cost: matcher.class_cost(), weights: matcher.weights() };
    let inputs = [logits, boxes, targets.labels, targets.boxes_cxcywh];
    let cost = g.custom(std::sync::Arc::new(op), &inputs).unwrap()[0];
    let out = ops::match_targets(&mut g, matcher, logits, boxes, targets).unwrap();
    g.output("col_of_row", out.col_of_row).unwrap();
    g.output("cost", cost).unwrap();
    g
}

#[test]
fn the_matcher_on_the_device_is_the_librarys() {
    for case in cases("matchers") {
        let shapes = ["queries", "classes", "targets"].map(|name| count(&case, name));
        let [queries, _, targets] = shapes;
        let focal = case["focal"].as_bool().unwrap();
        let class_cost = if focal { ClassCost::FOCAL } else { ClassCost::Softmax };
        let matcher = HungarianMatcher::builder().class_cost(class_cost).build().unwrap();
        let inputs = matcher_inputs(case["seed"].as_u64().unwrap(), shapes);
        let graph = matcher_graph(&matcher, inputs.shapes);
        let out = All::new(&graph).run(&inputs.tensors, 4e-6);
        let found: Vec<_> =
            (0..queries).map(|q| (q, ints(&out[0])[q])).filter(|p| p.1 != UNMATCHED).collect();
        let found: Vec<_> = found.into_iter().map(|(q, t)| (q, t as usize)).collect();
        assert_eq!(found, pairs(&case, "top_3")[..queries.min(targets)]);
        let [logits, boxes, labels, target_boxes, _] = &inputs.tensors;
        let item = BatchItem {
            logits: floats(logits),
            boxes_cxcywh: floats(boxes),
            target_labels: &ints(labels)[..targets],
            target_boxes_cxcywh: &floats(target_boxes)[..4 * targets],
        };
        assert_eq!(matcher.assign(&[item]).unwrap()[0], found);
    }
}

#[test]
fn labels_that_are_no_class_stay_unmatched_on_the_device() {
    let matcher = HungarianMatcher::builder().build().unwrap();
    let mut inputs = matcher_inputs(7, [9, 3, 4]);
    inputs.tensors[2] = HostTensor::i32([6], vec![0, -1, 3, 2, 1, 1]);
    let graph = matcher_graph(&matcher, inputs.shapes);
    let out = All::new(&graph).run(&inputs.tensors, 4e-6);
    let mut matched: Vec<_> = ints(&out[0]).iter().copied().filter(|&t| t != UNMATCHED).collect();
    matched.sort_unstable();
    assert_eq!(matched, [0, 3]);
    assert!((0..9).all(|q| floats(&out[1])[6 * q + 1] == f32::INFINITY));
    assert!((0..9).all(|q| floats(&out[1])[6 * q + 4] == 1.0)); // a NaN box
}

/// More columns than a warp has lanes, ties everywhere, and costs with and without room in a GPU's shared memory.
#[test]
fn large_problems_are_solved_alike() {
    for (n, m, seed) in [(40, 300, 1), (300, 33, 2), (170, 180, 3), (1, 70, 4)] {
        for (solver, unmatched_cost) in
            [(Solver::Exact, f64::INFINITY), (Solver::Exact, 0.3), (Solver::Greedy, 0.9)]
        {
            let graph = assign_graph(n, m, Assign { solver, unmatched_cost });
            let costs: Vec<f32> =
                uniform(seed, n * m).iter().map(|c| (c * 50.0).round() / 50.0 - 0.2).collect();
            let count = |all: usize| HostTensor::i32([1], vec![all as i32]);
            let out = All::new(&graph).run(&[HostTensor::f32([n, m], costs), count(n), count(m)], 0.0);
            assert!(ints(&out[4])[0] > 0);
        }
    }
}

const K: usize = 5;
const CAPACITY: usize = 7;

fn track_graph(config: TrackerConfig) -> Graph {
    let mut g = Graph::new("tracks");
    let inputs = TrackInputs {
        boxes_cxcywh: g.input("boxes", DType::F32, [K, 4]).unwrap(),
        scores: g.input("scores", DType::F32, [K]).unwrap(),
        classes: g.input("classes", DType::I32, [K]).unwrap(),
        count: g.input("count", DType::I32, [1]).unwrap(),
        dt_s: g.input("dt_s", DType::F32, [1]).unwrap(),
    };
    let out = ops::track(&mut g, config, &TrackTable::new(CAPACITY), inputs).unwrap();
    for (name, tensor) in [
        ("track_ids", out.track_ids),
        ("confirmed", out.confirmed),
        ("visibility", out.visibility),
        ("slots", out.slots),
        ("scene", out.scene),
    ] {
        g.output(name, tensor).unwrap();
    }
    for next in g.states().iter().map(|s| s.next.unwrap()).collect::<Vec<_>>() {
        let name = format!("table {}", g.outputs().len());
        g.output(name, next).unwrap();
    }
    g
}

/// A frame's inputs: clusters of a few structures, now and then nonsense.
fn frame(seed: u64) -> [HostTensor; 5] {
    let r = uniform(seed, 6 * K + 3);
    let mut boxes = Vec::new();
    for k in 0..K {
        let centre = [0.2, 0.5, 0.8][(r[6 * k] * 3.0) as usize];
        boxes.extend([
            centre + 0.04 * r[6 * k + 1],
            0.5 + 0.04 * r[6 * k + 2],
            0.1 + 0.02 * r[6 * k + 3],
            0.1,
        ]);
    }
    if r[6 * K] < 0.1 {
        boxes[5] = f32::NAN;
    }
    let dt_s = [0.0, 0.02, 0.1, 0.03, 1.4, -3.0][(r[6 * K + 1] * 6.0) as usize];
    [
        HostTensor::f32([K, 4], boxes),
        HostTensor::f32([K], (0..K).map(|k| r[6 * k + 4]).collect::<Vec<_>>()),
        HostTensor::i32([K], (0..K).map(|k| (r[6 * k + 5] * 2.0) as i32).collect::<Vec<_>>()),
        HostTensor::i32([1], vec![(r[6 * K + 2] * 9.0) as i32 - 2]),
        HostTensor::f32([1], vec![dt_s]),
    ]
}

#[test]
fn tracking_on_the_device_is_the_librarys() {
    for (solver, independent) in [(Solver::Exact, false), (Solver::Greedy, false), (Solver::Exact, true)] {
        let config = TrackerConfig { solver, independent, ..Default::default() };
        let graph = track_graph(config);
        let mut all = All::new(&graph);
        let mut library = Tracker::new(config, K, CAPACITY).unwrap();
        let mut scenes = [0; 3];
        for seed in 0..300 {
            let inputs = frame(seed);
            let out = all.run(&inputs, 0.0);
            let [boxes, scores, classes, count, dt_s] = &inputs;
            let tracked = library
                .update(
                    &Detections {
                        boxes_cxcywh: floats(boxes),
                        scores: floats(scores),
                        classes: ints(classes),
                        count: ints(count)[0].max(0) as usize,
                    },
                    floats(dt_s)[0],
                )
                .unwrap();
            assert_eq!(ints(&out[0]), tracked.track_ids);
            assert_eq!(ints(&out[1]), tracked.confirmed);
            assert_eq!(ints(&out[2]), tracked.visibility);
            assert_eq!(ints(&out[3]), tracked.slots);
            assert_eq!(Visibility::from_i32(ints(&out[4])[0]), tracked.scene);
            let table =
                TrackTable::from_values(CAPACITY, floats(&out[5]).to_vec(), ints(&out[6]).to_vec()).unwrap();
            assert_eq!(table.tracks(), library.tracks());
            scenes[library.scene() as usize] += 1;
        }
        assert!(scenes[2] > 20, "{scenes:?}");
    }
}

const P: usize = 4;

fn follow_graph() -> Graph {
    let mut g = Graph::new("follow");
    let commands = g.input("commands", DType::F32, [P, SLOT_LEN]).unwrap();
    let dt_s = g.input("dt_s", DType::F32, [1]).unwrap();
    let config = TrackerConfig::default();
    let prompts = ops::follow_begin(&mut g, config, commands, dt_s, [320.0, 240.0]).unwrap();
    let outlines = FollowOutlines {
        iou: g.input("iou", DType::F32, [P, 1]).unwrap(),
        area_px: g.input("area_px", DType::I32, [P, 1]).unwrap(),
        box_xyxy: g.input("box_xyxy", DType::I32, [P, 4]).unwrap(),
        quality: g.input("quality", DType::F32, [P, SCORES]).unwrap(),
    };
    let follow = FollowConfig::default();
    let statuses =
        ops::follow_finish(&mut g, config, follow, &prompts, outlines, dt_s, [100.0, 80.0]).unwrap();
    for (name, tensor) in [
        ("positions", prompts.positions),
        ("kinds", prompts.kinds),
        ("slots", prompts.slots),
        ("count", prompts.count),
        ("statuses", statuses),
        ("keys", prompts.keys),
        ("state", g.states()[0].next.unwrap()),
    ] {
        g.output(name, tensor).unwrap();
    }
    g
}

/// A frame's commands and outlines: now and then nonsense, and outlines that jump.
fn pointing(seed: u64) -> [HostTensor; 6] {
    let r = uniform(seed, P * 14 + 1);
    let quality: Vec<f32> = uniform(!seed, P * SCORES).iter().map(|v| 0.1 + v).collect();
    let mut commands = Vec::new();
    let (mut iou, mut area_px, mut box_xyxy) = (Vec::new(), Vec::new(), Vec::new());
    for k in 0..P {
        let r = &r[14 * k..14 * (k + 1)];
        let point = |i: usize| Point { at: [r[i], r[i + 1]], positive: r[i + 2] < 0.7 };
        let command = match (r[0] * 12.0) as u32 {
            0 => {
                Command::Follow { box_cxcywh: None, points: [Some(point(1)), (r[4] < 0.5).then(|| point(5))] }
            }
            1 => {
                let box_cxcywh = Some([r[1], r[2], 0.3 * r[3], 0.3 * r[4]]);
                Command::Follow { box_cxcywh, points: [(r[8] < 0.5).then(|| point(5)), None] }
            }
            2 => Command::Adjust(point(1)),
            3 => Command::LetGo,
            _ => Command::None,
        };
        let mut values = command.values();
        if r[9] < 0.01 {
            values[1] = f32::NAN;
        }
        commands.extend(values);
        iou.push(if r[10] < 0.03 { f32::NAN } else { 0.2 + r[10] });
        let (left, top) = (20 + (r[11] * 8.0) as i32, 30 + (r[12] * 8.0) as i32);
        let side = if r[13] < 0.1 { 60 } else { 9 + (r[13] * 5.0) as i32 };
        area_px.push(side * side * 3 / 4);
        box_xyxy.extend([left, top, left + side, top + side]);
    }
    let dt_s = [0.0, 0.02, 0.04, 0.1, 0.6, -3.0][(r[14 * P] * 6.0) as usize];
    [
        HostTensor::f32([P, SLOT_LEN], commands),
        HostTensor::f32([1], vec![dt_s]),
        HostTensor::f32([P, 1], iou),
        HostTensor::i32([P, 1], area_px),
        HostTensor::i32([P, 4], box_xyxy),
        HostTensor::f32([P, SCORES], quality),
    ]
}

#[test]
fn what_was_pointed_at_is_followed_alike_on_all_devices() {
    let graph = follow_graph();
    let mut all = All::new(&graph);
    let mut counts = [0; 4];
    for seed in 0..400 {
        let out = all.run(&pointing(seed), 0.0);
        let rows = ints(&out[3])[0] as usize;
        assert!(ints(&out[2])[rows..].iter().all(|&slot| slot == -1));
        for (row, &status) in ints(&out[4]).iter().enumerate() {
            assert_eq!(status == follow::status::NONE, row >= rows);
            counts[status as usize] += 1;
        }
    }
    assert!(counts.iter().all(|&count| count > 20), "{counts:?}");
}

const W: usize = 90;
const H: usize = 70;

fn quality_graph(channels: usize) -> Graph {
    let mut g = Graph::new("quality");
    let inputs = QualityInputs {
        frame: g.input("frame", DType::U8, [H, W, channels]).unwrap(),
        mask_bits: g.input("mask_bits", DType::U8, [P, H, W.div_ceil(8)]).unwrap(),
        box_xyxy: g.input("box_xyxy", DType::I32, [P, 4]).unwrap(),
        count: g.input("count", DType::I32, [1]).unwrap(),
        slots: g.input("slots", DType::I32, [P]).unwrap(),
        keys: g.input("keys", DType::I32, [P]).unwrap(),
        motion: g.input("motion", DType::F32, [6]).unwrap(),
    };
    let judged = ops::quality(&mut g, QualityConfig::default(), "memory", P + 2, inputs).unwrap();
    g.output("scores", judged.scores).unwrap();
    g.output("core_xyxy", judged.core_xyxy).unwrap();
    g.output("next", g.states()[0].next.unwrap()).unwrap();
    g
}

/// A frame with ellipses that drift, with islands beside them, and now and then nonsense.
fn looks(seed: u64, channels: usize) -> Vec<HostTensor> {
    let r = uniform(seed, P * 8 + 12);
    let row_bytes = W.div_ceil(8);
    let mut pixels: Vec<u8> =
        uniform(!seed, H * W * channels).iter().map(|v| (v * 90.0) as u8 + 90).collect();
    let mut bits = vec![0; P * H * row_bytes];
    let (mut boxes, mut slots, mut keys) = (Vec::new(), Vec::new(), Vec::new());
    for k in 0..P {
        let own = &r[8 * k..8 * (k + 1)];
        let (cx, cy) = (16.0 + 18.0 * k as f32 + 4.0 * own[0], 30.0 + 8.0 * own[1]);
        let (rx, ry) = (2.0 + 12.0 * own[2] * (1 + k) as f32, 2.0 + 12.0 * own[3]);
        let mut around = [W as i32, H as i32, 0, 0];
        for y in 0..H {
            for x in 0..W {
                let (dx, dy) = ((x as f32 - cx) / rx, (y as f32 - cy) / ry);
                let is_island = own[4] < 0.3 && x < 3 && (5..8).contains(&y);
                if dx * dx + dy * dy < 1.0 || is_island {
                    bits[(k * H + y) * row_bytes + x / 8] |= 1 << (x % 8);
                    let (px, py) = (x as i32, y as i32);
                    around =
                        [around[0].min(px), around[1].min(py), around[2].max(px + 1), around[3].max(py + 1)];
                    pixels[(y * W + x) * channels..][..channels].iter_mut().for_each(|v| *v /= 3);
                }
            }
        }
        boxes.extend(match (own[5] * 20.0) as u32 {
            0 => [0; 4],
            1 => [-5, i32::MIN, i32::MAX, 7],
            2 => [40, 40, 60, 60],
            _ => around,
        });
        slots.push(if own[6] < 0.1 { -1 } else { ((k as f32 + 2.0 * own[6]) as i32).min(P as i32 + 1) });
        keys.push([k as i32 + 1, k as i32 + 1, k as i32 + 1, -7, 99][(own[7] * 5.0) as usize]);
    }
    let tail = &r[8 * P..];
    let mut motion: Vec<f32> =
        [1.0, 0.0, 0.0, 0.0, 1.0, 0.0].iter().zip(tail).map(|(m, v)| m + 0.1 * v).collect();
    if tail[6] < 0.05 {
        motion[2] = f32::NAN;
    }
    vec![
        HostTensor::u8([H, W, channels], pixels),
        HostTensor::u8([P, H, row_bytes], bits),
        HostTensor::i32([P, 4], boxes),
        HostTensor::i32([1], vec![(tail[7] * 8.0) as i32 - 1]),
        HostTensor::i32([P], slots),
        HostTensor::i32([P], keys),
        HostTensor::f32([6], motion),
    ]
}

#[test]
fn how_well_objects_show_is_the_same_on_all_devices() {
    for channels in [1, 3] {
        let graph = quality_graph(channels);
        let mut all = All::new(&graph);
        let mut known = 0;
        for seed in 0..120 {
            let out = all.run(&looks(seed, channels), 0.0);
            let (scores, memory) = (floats(&out[0]), ints(&out[2]));
            assert!(scores.iter().all(|score| (0.0..=1.0).contains(score)), "{scores:?}");
            known += memory.chunks(MEMORY_LEN).filter(|row| row[1] > 1).count();
        }
        assert!(known > 100, "{known}");
    }
}

#[test]
fn tracks_stay_on_the_device() {
    let graph = track_graph(TrackerConfig::default());
    let device = Device::cpu(1);
    let mut program = Program::compile(graph, &device, &CompileOptions::default()).unwrap();
    let mut input = vec![0u8; program.input_bytes()];
    for (entry, value) in program.inputs().iter().zip(frame(3)) {
        input[entry.offset..][..entry.bytes()].copy_from_slice(value.bytes());
    }
    let before = device.ledger().counts();
    program.upload(&input).unwrap();
    for _ in 0..3 {
        let event = program.launch().unwrap();
        program.wait(event).unwrap();
    }
    let done = device.ledger().counts() - before;
    assert_eq!([done.h2d, done.d2h, done.host_syncs, done.allocations], [1, 0, 3, 0]);
}

#[test]
fn misfits_are_one_sentence() {
    let mut g = Graph::new("wrong");
    let cost = g.input("cost", DType::F32, [3, 4]).unwrap();
    let rows = g.input("rows", DType::I32, [1]).unwrap();
    let op = Assign { solver: Solver::Exact, unmatched_cost: f64::INFINITY };
    let error = ops::assign(&mut g, op, cost, rows, cost).unwrap_err().to_string();
    assert!(
        error.contains("needs costs f32 [N, M]") && error.contains("f32 [3, 4], i32 [1], f32 [3, 4]"),
        "{error}"
    );

    let boxes_cxcywh = g.input("boxes", DType::F32, [9, 4]).unwrap();
    let scores = g.input("scores", DType::F32, [9]).unwrap();
    let classes = g.input("classes", DType::I32, [9]).unwrap();
    let dt_s = g.input("dt", DType::F32, [1]).unwrap();
    let inputs = TrackInputs { boxes_cxcywh, scores, classes, count: rows, dt_s };
    let table = TrackTable::new(8);
    let error = ops::track(&mut g, TrackerConfig::default(), &table, inputs).unwrap_err().to_string();
    assert!(error.contains("a table of 8 tracks is too small for 9 detections"), "{error}");
    let config = TrackerConfig { birth_score: 2.0, ..Default::default() };
    assert!(ops::TrackUpdate::new(config, 9).unwrap_err().to_string().contains("tracker.birth_score is 2"));
}
