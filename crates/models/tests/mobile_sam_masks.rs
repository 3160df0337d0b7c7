//! Masks at the frame's size: every form against the definition, and the definition against cases done by hand.

use std::path::Path;
use std::sync::OnceLock;

use proptest::prelude::*;
use ultramotion_engine::graph::Graph;
use ultramotion_engine::tensor::{DType, HostTensor};
use ultramotion_engine::testing::device_for_tests;
use ultramotion_engine::{CompileOptions, Device, Precision, Program};
use ultramotion_models::mobile_sam::{
    BoxRestriction, MaskGeometry, MobileSamConfig, logits_to_source, masks_to_source,
};

/// What a form gives for the same logits.
struct Masks {
    bits: Vec<u8>,
    area_px: Vec<i32>,
    box_xyxy: Vec<i32>,
    logits: Vec<f32>,
}

fn to_source(
    device: &Device,
    logits: &HostTensor,
    geometry: MaskGeometry,
    count: Option<i32>,
    restriction: Option<(&HostTensor, f32)>,
) -> Masks {
    let mut g = Graph::new("masks");
    let input = g.input("logits", DType::F32, logits.shape().clone()).expect("is new");
    let mut values = vec![logits.clone()];
    let low_res = match count {
        None => input,
        Some(count) => {
            values.push(HostTensor::i32([1], vec![count]));
            let count = g.input("count", DType::I32, [1]).expect("is new");
            g.limit_rows(input, count).expect("fits")
        }
    };
    let restriction = restriction.map(|(boxes, margin)| {
        values.push(boxes.clone());
        let boxes_xyxy = g.input("boxes", DType::F32, boxes.shape().clone()).expect("is new");
        BoxRestriction { boxes_xyxy, margin }
    });
    let masks = masks_to_source(&mut g, low_res, geometry, restriction).expect("fits");
    let large = logits_to_source(&mut g, low_res, geometry).expect("fits");
    for (name, tensor) in
        [("bits", masks.bits), ("area", masks.area_px), ("box", masks.box_xyxy), ("large", large)]
    {
        g.output(name, tensor).expect("is new");
    }
    let mut program = Program::compile(g, device, &CompileOptions::default()).expect("compiles");
    let out = program.run(&values.iter().collect::<Vec<_>>()).expect("runs");
    Masks {
        bits: out[0].bytes().to_vec(),
        area_px: out[1].as_i32().expect("i32").to_vec(),
        box_xyxy: out[2].as_i32().expect("i32").to_vec(),
        logits: out[3].as_f32().expect("f32").to_vec(),
    }
}

fn is_set(bits: &[u8], [h, w]: [usize; 2], mask: usize, x: usize, y: usize) -> bool {
    bits[(mask * h + y) * w.div_ceil(8) + x / 8] >> (x % 8) & 1 == 1
}

/// The processor, and the CUDA backend where it can be tested.
fn devices() -> impl Iterator<Item = Device> {
    static CUDA: OnceLock<Option<Device>> = OnceLock::new();
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/kernels");
    let cuda = CUDA.get_or_init(|| device_for_tests(&[kernels], Precision::F16));
    [Some(Device::cpu(2)), cuda.clone()].into_iter().flatten()
}

#[derive(Debug, Clone)]
struct Case {
    input_size: usize,
    source_hw: [usize; 2],
    items: usize,
    per_item: usize,
    count: Option<i32>,
    margin: Option<f32>,
    boxes: Vec<f32>,
    logits: Vec<f32>,
}

fn case() -> impl Strategy<Value = Case> {
    let sizes = (prop::sample::select(vec![64_usize, 128]), [1..150_usize, 1..150_usize], 1..4_usize);
    let choices = (
        prop::sample::select(vec![1_usize, 3]),
        prop::option::of(-1..6_i32),
        prop::option::of(-0.3..0.5_f32),
        -1.0..1.0_f32,
    );
    (sizes, choices).prop_flat_map(|((input_size, source_hw, items), (per_item, count, margin, shift))| {
        let low = input_size / 4;
        let logits = prop::collection::vec((shift - 1.0)..(shift + 1.0), items * per_item * low * low);
        let boxes = prop::collection::vec(-10.0..input_size as f32 + 10.0, items * 4);
        (logits, boxes).prop_map(move |(logits, boxes)| Case {
            input_size,
            source_hw,
            items,
            per_item,
            count,
            margin,
            boxes,
            logits,
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_form_equals_the_definition(case in case()) {
        let config = MobileSamConfig::new(case.input_size).expect("is valid");
        let geometry = MaskGeometry::new(&config, case.source_hw);
        let low = config.low_res_size();
        let logits = HostTensor::f32([case.items, case.per_item, low, low], case.logits.clone());
        let boxes = HostTensor::f32([case.items, 4], case.boxes.clone());
        let run = |device: &Device| {
            to_source(device, &logits, geometry, case.count, case.margin.map(|m| (&boxes, m)))
        };
        let expected = run(&Device::reference());
        for device in devices() {
            let got = run(&device);

            let [h, w] = case.source_hw;
            let items = case.count.map_or(case.items, |c| (c.max(0) as usize).min(case.items));
            let valid = items * case.per_item;
            for mask in 0..valid {
                let (mut area, mut around) = (0, [i32::MAX, i32::MAX, 0, 0]);
                for (y, x) in (0..h).flat_map(|y| (0..w).map(move |x| (y, x))) {
                    let logit = expected.logits[(mask * h + y) * w + x];
                    let error = (logit - got.logits[(mask * h + y) * w + x]).abs();
                    prop_assert!(error < 1e-5, "logit of mask {mask} at {x}, {y} is off by {error}");
                    let set = is_set(&got.bits, case.source_hw, mask, x, y);
                    if logit.abs() > 1e-5 {
                        let definition = is_set(&expected.bits, case.source_hw, mask, x, y);
                        prop_assert_eq!(set, definition, "mask {} at {}, {}", mask, x, y);
                    }
                    if set {
                        let (x, y) = (x as i32, y as i32);
                        area += 1;
                        around = [around[0].min(x), around[1].min(y), around[2].max(x + 1), around[3].max(y + 1)];
                    }
                }
                let around = if area == 0 { [0; 4] } else { around };
                prop_assert_eq!(got.area_px[mask], area);
                prop_assert_eq!(&got.box_xyxy[mask * 4..][..4], &around[..]);
                let row = w.div_ceil(8);
                let padding = got.bits[mask * h * row..][..h * row].chunks(row).map(|r| r[row - 1] as usize >> ((w - 1) % 8 + 1));
                prop_assert_eq!(padding.sum::<usize>(), 0, "bits beyond the width are 0");
            }
            prop_assert!(got.area_px[valid..].iter().chain(&got.box_xyxy[valid * 4..]).all(|&v| v == 0));
        }
    }
}

#[test]
fn half_an_image_is_half_a_mask() {
    // A frame of 100 x 50 fills the upper half of the input; the logits are positive in the left half of it, with the
    // zero crossing in the middle, and in all of the padding.
    let config = MobileSamConfig::new(64).expect("is valid");
    let geometry = MaskGeometry::new(&config, [50, 100]);
    assert_eq!(geometry.resized_hw, [32, 64]);
    let values: Vec<f32> = (0..256).map(|i| if i / 16 >= 8 || i % 16 < 8 { 1.0 } else { -1.0 }).collect();
    let logits = HostTensor::f32([1, 16, 16], values);
    for device in devices().chain([Device::reference()]) {
        let masks = to_source(&device, &logits, geometry, None, None);
        assert_eq!(masks.bits.len(), 50 * 13);
        let set = |x, y| is_set(&masks.bits, [50, 100], 0, x, y);
        assert!((0..40).all(|y| (0..50).all(|x| set(x, y)) && (50..100).all(|x| !set(x, y))));
        // The last row lies 3/8 of the way to a row of the padding, which is all positive: there the crossing is where
        // the upper row is at -0.6, 1.9 pixels further right.
        assert_eq!(masks.box_xyxy, [0, 0, 52, 50]);

        let boxes = HostTensor::f32([1, 4], vec![16.0, 8.0, 32.0, 16.0]);
        let masks = to_source(&device, &logits, geometry, None, Some((&boxes, 0.0)));
        assert_eq!(masks.box_xyxy, [25, 12, 50, 25], "pixels whose centre is in x 25 to 50, y 12.5 to 25");
        assert_eq!(masks.area_px, [25 * 13]);
        let masks = to_source(&device, &logits, geometry, None, Some((&boxes, 0.25)));
        assert_eq!(masks.box_xyxy[..2], [19, 9]);
    }
}

#[test]
fn logits_that_are_no_numbers_are_outside() {
    let geometry = MaskGeometry::new(&MobileSamConfig::new(64).expect("is valid"), [64, 64]);
    let mut values = vec![f32::NAN; 256];
    values[0] = f32::INFINITY;
    let logits = HostTensor::f32([1, 16, 16], values);
    let boxes = HostTensor::f32([1, 4], vec![f32::NAN, -1e30, f32::INFINITY, 1e30]);
    for device in devices() {
        let masks = to_source(&device, &logits, geometry, None, Some((&boxes, 0.1)));
        assert!(masks.area_px[0] <= 4, "{device:?}");
    }
}

#[test]
fn a_frame_that_cannot_be_is_refused() {
    let config = MobileSamConfig::new(64).expect("is valid");
    for (source_hw, shape, expected) in [
        ([0, 10], vec![1, 16, 16], "takes frames of 1 to 16384 pixels a side, not 10 x 0"),
        ([1, 20_000], vec![1, 16, 16], "takes frames of 1 to 16384 pixels a side, not 20000 x 1"),
        ([10, 10], vec![1, 16, 8], "needs logits [K, …, 16, 16], got [1, 16, 8]"),
        ([10, 10], vec![16, 16], "needs logits [K, …, 16, 16], got [16, 16]"),
    ] {
        let mut g = Graph::new("masks");
        let logits = g.input("logits", DType::F32, shape).expect("is new");
        let error = masks_to_source(&mut g, logits, MaskGeometry::new(&config, source_hw), None)
            .expect_err("cannot be")
            .to_string();
        assert!(error.contains(expected), "{error}");
    }
}
