//! `HungarianMatcher` against PyTorch and SciPy, and in the corners.
#![allow(clippy::unwrap_used)]

mod support;

use proptest::prelude::*;
use support::{cases, count, pairs, uniform};
use ultramotion_tracking::assignment::{
    BatchItem, ClassCost, CostWeights, HungarianMatcher, HungarianMatcherBuilder,
};
use ultramotion_types::MatcherMode;

struct Inputs {
    logits: Vec<f32>,
    boxes: Vec<f32>,
    labels: Vec<i32>,
    target_boxes: Vec<f32>,
}

impl Inputs {
    /// The tensors of `reference.py`.
    fn new(seed: u64, queries: usize, classes: usize, targets: usize) -> Self {
        let values = uniform(seed, queries * (classes + 4) + targets * 5);
        let (logits, rest) = values.split_at(queries * classes);
        let (boxes, rest) = rest.split_at(queries * 4);
        let (labels, target_boxes) = rest.split_at(targets);
        let corner = |v: &[f32]| v.iter().map(|x| x * 0.5 + 0.1).collect();
        Self {
            logits: logits.iter().map(|x| (x - 0.5) * 8.0).collect(),
            boxes: corner(boxes),
            labels: labels.iter().map(|x| (x * classes as f32) as i32).collect(),
            target_boxes: corner(target_boxes),
        }
    }

    fn item(&self) -> BatchItem<'_> {
        BatchItem {
            logits: &self.logits,
            boxes_cxcywh: &self.boxes,
            target_labels: &self.labels,
            target_boxes_cxcywh: &self.target_boxes,
        }
    }
}

fn assign(builder: HungarianMatcherBuilder, item: BatchItem<'_>) -> Vec<(usize, usize)> {
    builder.build().unwrap().assign(&[item]).unwrap().remove(0)
}

#[test]
fn costs_and_pairs_are_those_of_pytorch_and_scipy() {
    for case in cases("matchers") {
        let [queries, classes, targets] = ["queries", "classes", "targets"].map(|name| count(&case, name));
        let inputs = Inputs::new(case["seed"].as_u64().unwrap(), queries, classes, targets);
        let focal = case["focal"].as_bool().unwrap();
        let class_cost = if focal { ClassCost::FOCAL } else { ClassCost::Softmax };
        let builder = HungarianMatcher::builder().class_cost(class_cost);
        let cost = builder.build().unwrap().cost_matrix(&inputs.item()).unwrap();
        assert_eq!(cost.len(), queries * targets);
        for (c, expected) in cost.iter().zip(case["cost"].as_array().unwrap()) {
            assert!((f64::from(*c) - expected.as_f64().unwrap()).abs() < 5e-6, "{c} {expected}");
        }
        let (found, expected) = (assign(builder.return_topk(3), inputs.item()), pairs(&case, "top_3"));
        let a_round = queries.min(targets);
        assert_eq!(found.len(), 3 * a_round);
        // While there are fresh queries the rounds have one answer; later all pairs cost the same.
        let comparable = if queries >= 3 * targets { 3 } else { 1 } * a_round;
        assert_eq!(found[..comparable], expected[..comparable], "{}", case["seed"]);
        assert_eq!(found[..a_round], assign(builder, inputs.item()));
    }
}

#[test]
fn a_batch_has_a_number_of_targets_for_each_image() {
    let inputs = [
        Inputs::new(1, 10, 3, 4),
        Inputs::new(2, 10, 3, 0),
        Inputs::new(3, 10, 3, 12),
        Inputs::new(4, 0, 3, 2),
    ];
    let items = inputs.each_ref().map(Inputs::item);
    for mode in ["exact", "greedy", "host"] {
        let matcher = HungarianMatcher::builder().mode(mode.parse().unwrap()).build().unwrap();
        let found = matcher.assign(&items).unwrap();
        assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [4, 0, 10, 0]);
        for (item, pairs) in items.iter().zip(&found) {
            assert_eq!(&matcher.assign(&[*item]).unwrap()[0], pairs);
        }
    }
    assert!(HungarianMatcher::builder().build().unwrap().assign(&[]).unwrap().is_empty());
}

#[test]
fn greedy_never_beats_exact_and_host_is_exact() {
    for seed in 0..20 {
        let inputs = Inputs::new(seed, 12, 3, 8);
        let builder = HungarianMatcher::builder();
        let cost = builder.build().unwrap().cost_matrix(&inputs.item()).unwrap();
        let total = |mode| {
            assign(builder.mode(mode), inputs.item()).iter().map(|&(q, t)| cost[q * 8 + t]).sum::<f32>()
        };
        assert!(total(MatcherMode::Exact) <= total(MatcherMode::Greedy) + 1e-5);
        assert_eq!(
            assign(builder.mode(MatcherMode::Exact), inputs.item()),
            assign(builder.mode(MatcherMode::Host), inputs.item())
        );
    }
}

#[test]
fn a_query_that_is_nan_costs_one() {
    let mut inputs = Inputs::new(5, 4, 2, 4);
    inputs.boxes[2] = f32::NAN;
    inputs.logits[2] = f32::INFINITY; // of query 1; ∞ − ∞ in the softmax
    let matcher = HungarianMatcher::builder().build().unwrap();
    let cost = matcher.cost_matrix(&inputs.item()).unwrap();
    assert_eq!(cost[..8], [1.0; 8]);
    assert!(cost[8..].iter().all(|c| c.is_finite() && *c != 1.0));
    assert_eq!(matcher.assign(&[inputs.item()]).unwrap()[0].len(), 4);
}

#[test]
fn weights_choose_what_counts() {
    // Query 0 has the right class, query 1 the right box.
    let item = BatchItem {
        logits: &[5.0, -5.0, -5.0, 5.0],
        boxes_cxcywh: &[0.2, 0.2, 0.1, 0.1, 0.7, 0.7, 0.2, 0.2],
        target_labels: &[0],
        target_boxes_cxcywh: &[0.7, 0.7, 0.2, 0.2],
    };
    let weights = |class, bbox, giou| HungarianMatcher::builder().weights(CostWeights { class, bbox, giou });
    assert_eq!(assign(weights(1.0, 0.0, 0.0), item), [(0, 0)]);
    assert_eq!(assign(weights(0.0, 1.0, 0.0), item), [(1, 0)]);
    assert_eq!(assign(weights(0.0, 0.0, 1.0), item), [(1, 0)]);
    assert_eq!(assign(HungarianMatcher::builder(), item), [(1, 0)]);
    assert_eq!(assign(HungarianMatcher::builder().return_topk(2), item), [(1, 0), (0, 0)]);
}

#[test]
fn mistakes_are_named() {
    let matcher = HungarianMatcher::builder().build().unwrap();
    let good = Inputs::new(1, 4, 2, 2);
    let says = |item: BatchItem<'_>| matcher.assign(&[good.item(), item]).unwrap_err().to_string();
    assert_eq!(
        says(BatchItem { target_labels: &[0, 2], ..good.item() }),
        "batch item 1: target 1 has label 2, but the logits have 2 classes; labels start at 0"
    );
    assert!(says(BatchItem { target_labels: &[-1, 0], ..good.item() }).contains("label -1"));
    assert_eq!(
        says(BatchItem { target_boxes_cxcywh: &good.target_boxes[..4], ..good.item() }),
        "batch item 1: `target_boxes_cxcywh` has 4 values, which does not fit [T, 4] with T = 2 target labels"
    );
    assert!(
        says(BatchItem { boxes_cxcywh: &good.boxes[..5], ..good.item() }).contains("`boxes_cxcywh` has 5")
    );
    assert!(says(BatchItem { logits: &good.logits[..7], ..good.item() }).contains("`logits` has 7"));
    assert!(says(BatchItem { logits: &[], ..good.item() }).contains("`logits` has 0"));

    let wrong = |builder: HungarianMatcherBuilder| builder.build().unwrap_err().to_string();
    let builder = HungarianMatcher::builder();
    assert_eq!(wrong(builder.return_topk(0)), "`return_topk` is 0, but at least one round is needed");
    let zero = CostWeights { class: 0.0, bbox: 0.0, giou: 0.0 };
    assert!(wrong(builder.weights(zero)).contains("must not all be 0"));
    assert!(wrong(builder.weights(CostWeights { giou: f32::NAN, ..zero })).contains("`weights.giou` is NaN"));
    assert!(wrong(builder.class_cost(ClassCost::Focal { alpha: 2.0, gamma: 2.0 })).contains("`alpha` is 2"));
    assert!(
        wrong(builder.class_cost(ClassCost::Focal { alpha: 0.5, gamma: -1.0 })).contains("`gamma` is -1")
    );
}

proptest! {
    #[test]
    fn any_bits_are_survived(bits in prop::collection::vec(any::<u32>(), 8 * 6 + 5 * 4), k in 1usize..4, focal: bool, greedy: bool) {
        let values: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
        let (logits, rest) = values.split_at(8 * 2);
        let (boxes, target_boxes) = rest.split_at(8 * 4);
        let item = BatchItem {
            logits, boxes_cxcywh: boxes, target_labels: &[0, 1, 1, 0, 1], target_boxes_cxcywh: target_boxes,
        };
        let builder = HungarianMatcher::builder()
            .class_cost(if focal { ClassCost::FOCAL } else { ClassCost::Softmax })
            .mode(if greedy { MatcherMode::Greedy } else { MatcherMode::Exact })
            .return_topk(k);
        let found = assign(builder, item);
        prop_assert_eq!(found.len(), 5 * k);
        for round in found.chunks(5) {
            prop_assert!(round.windows(2).all(|pair| pair[0].0 < pair[1].0));
        }
    }
}
