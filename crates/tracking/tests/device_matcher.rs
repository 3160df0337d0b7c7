//! `DeviceMatcher`: the same pairs as the matcher on the host, whatever comes after what.
#![allow(clippy::unwrap_used)]

mod support;

use proptest::prelude::*;
use support::uniform;
use ultramotion_engine::Device;
use ultramotion_tracking::assignment::{BatchItem, ClassCost, HungarianMatcher};
use ultramotion_tracking::ops::DeviceMatcher;
use ultramotion_types::MatcherMode;

/// An image's tensors: queries, classes and targets.
struct Image([usize; 3], Vec<f32>, Vec<i32>);

impl Image {
    fn new(seed: u64, shape: [usize; 3]) -> Self {
        let [queries, classes, targets] = shape;
        let mut values = uniform(seed, queries * (classes + 4) + targets * 4);
        if seed.is_multiple_of(3) {
            values[0] = f32::NAN;
        }
        let labels = uniform(seed ^ 1, targets).iter().map(|x| (x * classes as f32) as i32).collect();
        Image(shape, values, labels)
    }

    fn item(&self) -> BatchItem<'_> {
        let [queries, classes, _] = self.0;
        let (logits, boxes) = self.1.split_at(queries * classes);
        let (boxes_cxcywh, target_boxes_cxcywh) = boxes.split_at(4 * queries);
        BatchItem { logits, boxes_cxcywh, target_labels: &self.2, target_boxes_cxcywh }
    }
}

#[test]
fn batches_of_any_shape_in_any_order() {
    // The last image's number of targets decides about the room; the second batch finds the first one's program, and
    // what the first one left there; the fourth has two sizes in one batch, the fifth more images than a program.
    let batches: [Vec<[usize; 3]>; 6] = [
        vec![[10, 3, 4], [10, 3, 0], [10, 3, 7]],
        vec![[10, 3, 0], [10, 3, 5], [10, 3, 1]],
        vec![[10, 3, 0], [10, 3, 0]],
        vec![[6, 2, 9], [6, 2, 1], [8, 2, 3], [0, 2, 3]],
        vec![[3, 1, 2]; 70],
        vec![],
    ];
    for device in [Some(Device::cpu(2)), support::cuda()].into_iter().flatten() {
        let mut on_device = DeviceMatcher::new(device);
        for mode in [MatcherMode::Exact, MatcherMode::Greedy] {
            for (rounds, class_cost) in [(1, ClassCost::Softmax), (4, ClassCost::FOCAL)] {
                let matcher =
                    HungarianMatcher::builder().mode(mode).class_cost(class_cost).return_topk(rounds);
                let matcher = matcher.build().unwrap();
                for (index, shapes) in batches.iter().enumerate() {
                    let images =
                        shapes.iter().zip(100 * index as u64..).map(|(&shape, seed)| Image::new(seed, shape));
                    let images: Vec<Image> = images.collect();
                    let batch: Vec<BatchItem<'_>> = images.iter().map(Image::item).collect();
                    let (found, expected) =
                        (on_device.assign(&matcher, &batch).unwrap(), matcher.assign(&batch).unwrap());
                    assert_eq!(found, expected, "{mode:?} batch {index} on {}", on_device.device().name());
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn pairs_are_those_of_the_host(
        shapes in prop::collection::vec(0usize..12, 0..5), (queries, classes) in (1usize..20, 1usize..5),
        seed: u64, greedy: bool, rounds in 1usize..4,
    ) {
        let mode = if greedy { MatcherMode::Greedy } else { MatcherMode::Exact };
        let matcher = HungarianMatcher::builder().mode(mode).return_topk(rounds).build().unwrap();
        let images = shapes.iter().zip(seed % 1000..).map(|(&targets, seed)| Image::new(seed, [queries, classes, targets]));
        let images: Vec<Image> = images.collect();
        let batch: Vec<BatchItem<'_>> = images.iter().map(Image::item).collect();
        let mut on_device = DeviceMatcher::new(Device::cpu(1));
        for _ in 0..2 {
            prop_assert_eq!(on_device.assign(&matcher, &batch).unwrap(), matcher.assign(&batch).unwrap());
        }
    }
}

#[test]
fn what_does_not_fit_is_an_error_and_the_next_batch_is_matched() {
    let image = Image::new(1, [4, 2, 3]);
    let matcher = HungarianMatcher::builder().build().unwrap();
    let mut on_device = DeviceMatcher::new(Device::cpu(1));
    let wrong = BatchItem { target_labels: &[0, 2, 0], ..image.item() };
    let error = on_device.assign(&matcher, &[image.item(), wrong]).unwrap_err().to_string();
    assert_eq!(error, matcher.assign(&[image.item(), wrong]).unwrap_err().to_string());
    assert_eq!(
        on_device.assign(&matcher, &[image.item()]).unwrap(),
        matcher.assign(&[image.item()]).unwrap()
    );
}
