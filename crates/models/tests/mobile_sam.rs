//! MobileSAM beside PyTorch at other sizes and weights, its prompts by the row count, and the predictor on top.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use safetensors::SafeTensors;
use ultramotion_engine::graph::Graph;
use ultramotion_engine::tensor::{DType, HostTensor};
use ultramotion_engine::testing::device_for_tests;
use ultramotion_engine::{CompileOptions, Device, Precision, Program};
use ultramotion_models::checkpoint::{Checkpoint, CheckpointError, Weights, filled};
use ultramotion_models::mobile_sam::{self, MobileSamConfig};
use ultramotion_models::parameters::{ParameterSpec, Parameters};
use ultramotion_models::parity::{self, ParityOptions};
use ultramotion_models::segmenter::{
    MaskOutput, ObjectPrompt, PointKind, PredictOptions, PredictorOptions, Prompts, SamPredictor,
    SegmenterNetwork,
};
use ultramotion_models::zoo::{Origin, Segmenter, ZooError};

fn fixture(side: usize) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/mobile_sam/mobile_sam_{side}.safetensors"))
}

/// What the network reads.
fn specs() -> Vec<ParameterSpec> {
    let config = MobileSamConfig::new(64).expect("is valid");
    let mut parameters = Parameters::describe();
    let mut g = Graph::new("describe");
    let image = g.input("image", DType::F32, [1, 64, 64, 3]).expect("is new");
    let embedding = mobile_sam::build_encoder(&mut g, image, &mut parameters, &config).expect("fits");
    let prompts = Prompts::boxes(g.input("boxes", DType::F32, [1, 4]).expect("is new"));
    let prompts = mobile_sam::encode_prompts(&mut g, &prompts, &mut parameters, &config).expect("fits");
    mobile_sam::build_decoder(&mut g, embedding, &prompts, &mut parameters, &config, MaskOutput::One)
        .expect("fits");
    parameters.specs().to_vec()
}

fn weights(salt: &str) -> Weights {
    let keys: Vec<_> = specs().into_iter().map(|s| (s.name, s.shape)).collect();
    filled(&keys, salt, 1.0, |_| None).expect("is small")
}

fn near(got: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let norm = |v: &mut dyn Iterator<Item = f32>| v.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    norm(&mut got.iter().zip(expected).map(|(a, b)| a - b)) / norm(&mut expected.iter().copied()).max(1e-30)
}

/// `make_fixtures.py` wrote the files from the PyTorch network in float64.
#[test]
fn it_equals_pytorch_with_padded_and_with_whole_windows() {
    for side in [128, 448] {
        let report = parity::check(&fixture(side), &Device::cpu(2), &ParityOptions::default());
        let report = report.unwrap_or_else(|e| panic!("{e}"));
        assert!(report.pass, "{report}");
        assert!(report.checks.iter().all(|c| c.relative_error < 1e-5), "{report}");
    }
}

#[test]
fn the_definition_equals_pytorch_too() {
    let report = parity::check(&fixture(128), &Device::reference(), &ParityOptions::default());
    let report = report.unwrap_or_else(|e| panic!("{e}"));
    assert!(report.checks.iter().all(|c| c.relative_error < 1e-6), "{report}");
}

#[test]
fn its_parameters_are_those_of_the_official_checkpoint() {
    let shared = std::env::var_os("ULTRAMOTION_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let Ok(file) = std::fs::read(shared.join("reference/mobile_sam.keys.json")) else {
        #[allow(clippy::print_stdout, reason = "a test that is skipped says so")]
        {
            println!("skipped: no shared fixtures at {} (set ULTRAMOTION_SHARED)", shared.display());
        }
        return;
    };
    let mut official: BTreeMap<String, Vec<usize>> = serde_json::from_slice(&file).expect("is JSON");
    official.retain(|name, _| !MobileSamConfig::default().unused_parameter(name));
    let own: BTreeMap<String, Vec<usize>> = specs().into_iter().map(|s| (s.name, s.shape)).collect();
    assert_eq!(own, official);
}

#[test]
fn input_sizes_are_checked() {
    for side in [0, 32, 100, 1000, 4096] {
        let error = MobileSamConfig::new(side).expect_err("cannot be").to_string();
        assert!(error.contains(&format!("from 64 to 2048 pixels, not {side}")), "{error}");
    }
    let config = MobileSamConfig::default();
    assert_eq!(config.resized_hw(616, 820), [769, 1024]);
    assert_eq!(config.resized_hw(1, 100_000), [1, 1024]);
    assert_eq!(config.resized_hw(300, 200), [1024, 683]);
}

/// Runs a decoder for `prompts` objects with a box, two points and a mask each, or some of these.
#[derive(Debug, Clone, Copy)]
struct Form {
    boxes: bool,
    points: bool,
    mask: bool,
    output: MaskOutput,
}

const SIDE: usize = 64;
const LOW: usize = 16;

fn decode(
    device: &Device,
    form: Form,
    bound: usize,
    count: Option<i32>,
    values: &[f32],
    weights: &Weights,
) -> Vec<HostTensor> {
    let config = MobileSamConfig::new(SIDE).expect("is valid");
    let mut g = Graph::new("decode");
    let mut inputs = Vec::new();
    // Each kind of value comes from its own part of `values`, object by object.
    let (embedding_values, values) = values.split_at(16 * 256);
    let embedding = g.input("embedding", DType::F32, [1, 4, 4, 256]).expect("is new");
    inputs.push(HostTensor::f32([1, 4, 4, 256], embedding_values.to_vec()));
    let count = count.map(|count| {
        inputs.push(HostTensor::i32([1], vec![count]));
        g.input("count", DType::I32, [1]).expect("is new")
    });
    let mut input = |g: &mut Graph, name: &str, value: HostTensor| {
        let tensor = g.input(name, value.dtype(), value.shape().clone()).expect("is new");
        inputs.push(value);
        count.map_or(tensor, |count| g.limit_rows(tensor, count).expect("fits"))
    };
    let each = |first: usize, n: usize, scale: f32| -> Vec<f32> {
        (0..bound * n).map(|i| values[first + i / n * 300 + i % n] * scale).collect()
    };
    let mut prompts = Prompts::default();
    if form.boxes {
        let boxes = HostTensor::f32([bound, 4], each(0, 4, 30.0));
        prompts.boxes_xyxy = Some(input(&mut g, "boxes", boxes));
    }
    if form.points {
        let points = HostTensor::f32([bound, 2, 2], each(4, 4, 30.0));
        let points = input(&mut g, "points", points);
        let kinds: Vec<i32> = (0..bound * 2).map(|i| [2, 1, 2, 0, 1, 1][i % 6]).collect();
        prompts.points = Some((points, input(&mut g, "kinds", HostTensor::i32([bound, 2], kinds))));
    }
    if form.mask {
        let mask = HostTensor::f32([bound, LOW, LOW, 1], each(8, LOW * LOW, 3.0));
        prompts.mask = Some(input(&mut g, "mask", mask));
    }
    let mut parameters = Parameters::new(weights);
    let prompts = mobile_sam::encode_prompts(&mut g, &prompts, &mut parameters, &config).expect("fits");
    let masks = mobile_sam::build_decoder(&mut g, embedding, &prompts, &mut parameters, &config, form.output)
        .expect("fits");
    g.output("masks", masks.low_res_masks).expect("is new");
    g.output("iou", masks.iou).expect("is new");
    let mut program = Program::compile(g, device, &CompileOptions::default()).expect("compiles");
    program.run(&inputs.iter().collect::<Vec<_>>()).expect("runs")
}

#[test]
fn a_count_of_objects_gives_what_a_graph_of_that_size_gives() {
    let weights = weights("counted");
    let mut seed = 7_u64;
    let values: Vec<f32> = (0..16 * 256 + 5 * 300)
        .map(|_| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect();
    let forms = [
        Form { boxes: true, points: false, mask: false, output: MaskOutput::One },
        Form { boxes: false, points: true, mask: false, output: MaskOutput::Three },
        Form { boxes: true, points: true, mask: true, output: MaskOutput::Three },
    ];
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/kernels");
    let cuda = device_for_tests(&[kernels], Precision::F32);
    for (device, form) in
        [Some(Device::cpu(2)), cuda].iter().flatten().flat_map(|device| forms.map(|form| (device, form)))
    {
        let all = decode(device, form, 5, None, &values, &weights);
        for count in [0, 1, 3, 5, 9] {
            let counted = decode(device, form, 5, Some(count), &values, &weights);
            let valid = (count as usize).min(5);
            for (of_all, counted) in all.iter().zip(&counted) {
                let row = of_all.shape().numel() / 5;
                let (of_all, counted) = (of_all.as_f32().expect("f32"), counted.as_f32().expect("f32"));
                let error = near(&counted[..valid * row], &of_all[..valid * row]);
                assert!(error < 1e-5, "{device:?}, {form:?} with {count} objects is off by {error}");
            }
            if valid > 0 {
                let exact = decode(device, form, valid, None, &values, &weights);
                for (of_all, exact) in all.iter().zip(&exact) {
                    let exact = exact.as_f32().expect("f32");
                    let error = near(&of_all.as_f32().expect("f32")[..exact.len()], exact);
                    assert!(error < 1e-5, "{device:?}, {form:?} for {valid} objects is off by {error}");
                }
            }
        }
    }
}

/// MobileSAM with these weights, for an input of this side.
fn segmenter(weights: Weights, side: usize) -> Result<Segmenter, ZooError> {
    let architecture = Some("mobile_sam".parse().expect("is known"));
    let checkpoint = Checkpoint { architecture, input_size: Some([side; 2]), ..Checkpoint::new(weights) };
    Segmenter::from_checkpoint(checkpoint, Origin::File("a test".into()))
}

fn predictor_on(device: &Device, salt: &str, side: usize, options: PredictorOptions) -> SamPredictor {
    let segmenter = segmenter(weights(salt), side).expect("is whole");
    SamPredictor::new(device, segmenter, options).expect("fits")
}

fn predictor(salt: &str, options: PredictorOptions) -> SamPredictor {
    predictor_on(&Device::cpu(2), salt, SIDE, options)
}

/// A grey image with something in it.
fn image(width: usize, height: usize) -> Vec<u8> {
    (0..width * height).map(|i| ((i % width * 5) ^ (i / width * 3)) as u8).collect()
}

const EVERYTHING: PredictOptions = PredictOptions { multimask: true, return_logits: true, low_res: true };

#[test]
fn the_predictor_gives_the_official_masks() {
    let bytes = std::fs::read(fixture(128)).expect("is in the repository");
    let file = SafeTensors::deserialize(&bytes).expect("is whole");
    let expected = |name: &str| -> Vec<f32> {
        let data = file.tensor(name).expect("is there").data();
        data.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
    };
    let mut predictor = predictor_on(&Device::cpu(2), "a salt", 128, PredictorOptions::default());
    predictor.set_image(file.tensor("image").expect("is there").data(), 128, 128, 1).expect("is an image");
    let boxes = [[100.0, 150.0, 400.0, 500.0], [600.0, 300.0, 900.0, 620.0], [20.0, 20.0, 1000.0, 1000.0]]
        .map(|corners: [f32; 4]| ObjectPrompt::from_box(corners.map(|v| v / 8.0)));
    let options = PredictOptions { return_logits: true, low_res: true, ..PredictOptions::default() };
    let masks = predictor.predict(&boxes, options).expect("are prompts");
    let low_res = masks.get(1, 0).low_res.expect("was asked for");
    assert!(near(low_res, &expected("box.low_res_mask_1")) < 1e-5);
    let iou: Vec<f32> = (0..3).map(|i| masks.get(i, 0).iou).collect();
    assert!(near(&iou, &expected("box.iou")) < 1e-5);

    let mask = masks.get(0, 0).low_res.expect("was asked for").to_vec();
    let points = ObjectPrompt::from_point(64.0, 37.5).without(25.0, 100.0).with_mask(&mask);
    let masks = predictor.predict(&[points], EVERYTHING).expect("is a prompt");
    let iou: Vec<f32> = (0..3).map(|i| masks.get(0, i).iou).collect();
    assert!(near(&iou, &expected("points_mask.iou")) < 1e-5);

    // The bits are where the logits are positive, and so is all that is said of them.
    for i in 0..3 {
        let mask = masks.get(0, i);
        let logits = mask.logits.expect("was asked for");
        let inside: Vec<usize> = (0..128 * 128).filter(|&at| logits[at] > 0.0).collect();
        assert!(inside.iter().all(|at| mask.mask.contains(at % 128, at / 128)));
        assert_eq!(mask.area_px as usize, inside.len());
        let bound = |side: fn(usize) -> usize| (inside.iter().map(|&at| side(at)).max()).map_or(0, |m| m + 1);
        assert_eq!(mask.box_xyxy[2..], [bound(|at| at % 128) as u32, bound(|at| at / 128) as u32]);
        assert!(
            !mask.mask.contains(128, 0)
                && !mask.mask.contains(0, 128)
                && !mask.mask.contains(usize::MAX, usize::MAX)
        );
    }
    assert_eq!(masks.best(0).iou, iou.iter().copied().fold(f32::MIN, f32::max));
}

/// Prompts in an image of 90 x 50 pixels.
fn prompt() -> impl Strategy<Value = ObjectPrompt<'static>> {
    let corners = (0.0..60.0_f32, 0.0..30.0_f32, 1.0..30.0_f32, 1.0..20.0_f32);
    let boxes = prop::option::of(corners.prop_map(|(x, y, w, h)| [x, y, x + w, y + h]));
    let points = prop::collection::vec((0.0..90.0_f32, 0.0..50.0_f32, any::<bool>()), 0..3);
    let mask: &'static [f32] = Box::leak((0..LOW * LOW).map(|i| (i % 7) as f32 - 3.0).collect());
    (boxes, points, any::<bool>()).prop_map(move |(box_xyxy, points, with_mask)| {
        let mut prompt = ObjectPrompt { box_xyxy, ..ObjectPrompt::default() };
        for (x, y, positive) in points {
            prompt = if positive { prompt.with(x, y) } else { prompt.without(x, y) };
        }
        if prompt.box_xyxy.is_none() && prompt.points.is_empty() {
            prompt = prompt.with(45.0, 25.0);
        }
        if with_mask { prompt.with_mask(mask) } else { prompt }
    })
}

#[test]
fn an_object_gets_among_others_what_it_gets_alone() {
    let options = PredictorOptions { objects_per_run: 2, ..PredictorOptions::default() };
    let mut together = predictor("alone", options);
    let mut alone = predictor("alone", PredictorOptions { objects_per_run: 1, ..options });
    let grey = image(90, 50);
    let colour: Vec<u8> = grey.iter().flat_map(|&v| [v; 3]).collect();
    together.set_image(&grey, 90, 50, 1).expect("is an image");
    alone.set_image(&image(50, 90), 50, 90, 1).expect("is an image");
    alone.set_image(&colour, 90, 50, 3).expect("the same in colour");

    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(12));
    let cells = std::cell::RefCell::new((together, alone));
    let result = runner.run(&prop::collection::vec(prompt(), 1..6), |prompts| {
        let (together, alone) = &mut *cells.borrow_mut();
        let all = together.predict(&prompts, EVERYTHING).expect("are prompts");
        for (i, prompt) in prompts.iter().enumerate() {
            let one = alone.predict(std::slice::from_ref(prompt), EVERYTHING).expect("is a prompt");
            for mask in 0..3 {
                let (a, b) = (all.get(i, mask), one.get(0, mask));
                prop_assert!((a.iou - b.iou).abs() < 1e-4);
                prop_assert!(near(a.low_res.expect("asked"), b.low_res.expect("asked")) < 1e-4);
                prop_assert!(near(a.logits.expect("asked"), b.logits.expect("asked")) < 1e-4);
                prop_assert!(a.area_px.abs_diff(b.area_px) <= 4);
            }
        }
        Ok(())
    });
    result.unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn the_image_is_sent_once() {
    let device = Device::cpu(2);
    let mut predictor = predictor_on(&device, "ledger", SIDE, PredictorOptions::default());
    predictor.set_image(&image(90, 50), 90, 50, 1).expect("is an image");
    let prompts = [ObjectPrompt::from_box([10.0, 10.0, 40.0, 40.0])];
    predictor.predict(&prompts, PredictOptions::default()).expect("is a prompt");
    let before = device.ledger().counts();
    predictor.predict(&prompts, PredictOptions::default()).expect("is a prompt");
    let spent = device.ledger().counts() - before;
    assert!(spent.h2d_bytes < 1000, "{spent:?}: only the prompt goes to the device");
    assert_eq!(spent.allocations, 0, "the programs are there already");
    let before = device.ledger().counts();
    predictor.set_image(&image(90, 50), 90, 50, 1).expect("is an image");
    assert_eq!((device.ledger().counts() - before).allocations, 0, "of the same size");
    assert!(predictor.predict(&[], PredictOptions::default()).expect("asks for nothing").objects() == 0);
}

#[test]
fn what_cannot_be_is_refused_in_one_sentence() {
    let options = PredictorOptions { max_objects: 2, max_points: 2, ..PredictorOptions::default() };
    let mut predictor = predictor("refused", options);
    let point = ObjectPrompt::from_point(1.0, 1.0);
    let mut says =
        |image: Option<(usize, usize, usize, usize)>, prompts: &[ObjectPrompt<'_>], expected: &str| {
            let result = match image {
                Some((bytes, w, h, c)) => predictor.set_image(&vec![0; bytes], w, h, c),
                None => predictor.predict(prompts, PredictOptions::default()).map(|_| ()),
            };
            let error = result.map_or_else(|e| e.to_string(), |()| "nothing".to_owned());
            assert!(error.contains(expected), "{error:?} should contain {expected:?}");
        };
    says(None, std::slice::from_ref(&point), "there is no image to predict on; set one first");
    says(Some((1200, 40, 30, 1)), &[], "nothing");
    says(None, std::slice::from_ref(&point), "nothing");
    for (image, expected) in [
        (
            (100, 0, 100, 1),
            "0 x 100 pixels with 1 channels in 100 bytes: each side must have 1 to 16384 pixels",
        ),
        ((100, usize::MAX, 2, 1), "each side must have 1 to 16384 pixels"),
        ((1200, 40, 30, 2), "a pixel has 1 channel (grey) or 3"),
        ((1200, 40, 30, 3), "it should be 3600 bytes"),
    ] {
        says(Some(image), &[], expected);
        says(None, std::slice::from_ref(&point), "there is no image");
    }
    says(Some((1200, 40, 30, 1)), &[], "nothing");
    says(None, &vec![point.clone(); 3], "3 objects in one call are more than 2");
    says(
        None,
        &[point.clone(), ObjectPrompt::default()],
        "object 1: its prompt has neither a box nor a point",
    );
    says(
        None,
        &[point.clone().with(1.0, 2.0).with(3.0, 4.0)],
        "object 0: its prompt has 3 points, more than 2",
    );
    says(None, &[point.clone().with(f32::NAN, 2.0)], "its point (NaN, 2) is not at a finite place");
    says(None, &[ObjectPrompt::from_box([0.0, 0.0, f32::INFINITY, 1.0])], "is not a finite number");
    says(None, &[ObjectPrompt::from_box([9.0, 0.0, 3.0, 1.0])], "is not x1, y1, x2, y2");
    says(None, &[point.clone().with_mask(&[0.0; 10])], "its mask has 10 logits, not 16 x 16");
    says(None, &[point.clone().with_mask(&[f32::NAN; 256])], "a logit that is not a finite number");

    let small = PredictorOptions { max_result_bytes: 100, ..options };
    let mut tight = predictor_on(&Device::cpu(1), "x", SIDE, small);
    tight.set_image(&image(90, 50), 90, 50, 1).expect("is an image");
    let error = tight.predict(&[point], PredictOptions::default()).expect_err("is too much").to_string();
    assert!(error.starts_with("the masks of 1 objects would take 624 bytes, more than 100"), "{error}");

    let none = PredictorOptions { objects_per_run: 0, ..options };
    let whole = segmenter(weights("x"), SIDE).expect("is whole");
    let error = SamPredictor::new(&Device::cpu(1), whole, none).err().map(|e| e.to_string());
    assert_eq!(error.as_deref(), Some("the option objects_per_run = 0 is not between 1 and 64"));

    let mut broken = weights("x");
    broken.remove("mask_decoder.iou_token.weight");
    assert!(matches!(segmenter(broken, SIDE), Err(ZooError::Checkpoint(CheckpointError::Mismatch(mismatch)))
        if mismatch.missing == ["mask_decoder.iou_token.weight"]));
    assert_eq!(PointKind::Padding as i32, 0, "rows of zeros are padding");
}
