//! The networks on the CUDA backend, emulated or on the GPU that `ULTRAMOTION_GPU` names: the CPU's features and masks, in
//! f32 and, less exactly, in f16.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use ultramotion_engine::graph::Graph;
use ultramotion_engine::tensor::{DType, HostTensor};
use ultramotion_engine::testing::device_for_tests;
use ultramotion_engine::{CompileOptions, Device, Precision, Program};
use ultramotion_models::dfine;
use ultramotion_models::mobile_sam::{self, MaskOutput, Prompts};
use ultramotion_models::parameters::Parameters;
use ultramotion_models::zoo::{Detector, Segmenter};

const SIDE: usize = 64;
/// `‖a − b‖ / ‖b‖` in each precision.
const TOLERANCES: [(Precision, f64); 2] = [(Precision::F32, 1e-4), (Precision::F16, 1e-2)];

fn devices() -> impl Iterator<Item = (Device, f64)> {
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/kernels");
    TOLERANCES.into_iter().filter_map(move |(precision, tolerance)| {
        Some((device_for_tests(std::slice::from_ref(&kernels), precision)?, tolerance))
    })
}

fn run(graph: Graph, device: &Device, inputs: &[&HostTensor]) -> Vec<HostTensor> {
    Program::compile(graph, device, &CompileOptions::default()).unwrap().run(inputs).unwrap()
}

fn relative_error(got: &[f32], expected: &[f32]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = norm(&mut got.iter().zip(expected).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    difference / norm(&mut expected.iter().map(|b| f64::from(*b)))
}

fn frame() -> HostTensor {
    let pixel = |i: usize| ((i % SIDE) * 5 + (i / SIDE) * 9 + i * i / 700) as u8;
    HostTensor::u8([SIDE, SIDE, 1], (0..SIDE * SIDE).map(pixel).collect::<Vec<u8>>())
}

#[test]
fn dfine_on_a_gpu_has_the_cpus_features_and_scores() {
    let detector = Detector::open("dfine_n").unwrap().with_input_hw([SIDE, SIDE]).unwrap();
    let mut g = Graph::new("dfine");
    let image = g.input("image", DType::F32, [1, SIDE, SIDE, 3]).unwrap();
    let mut parameters = Parameters::new(detector.weights());
    let found = dfine::build(&mut g, image, &mut parameters, detector.config()).unwrap();
    for (i, &map) in found.encoder.iter().enumerate() {
        g.output(format!("encoder.{i}"), map).unwrap();
    }
    g.output("logits", found.pred_logits).unwrap();
    let grey = frame();
    let image: Vec<f32> = grey.bytes().iter().flat_map(|&p| [f32::from(p) / 255.0; 3]).collect();
    let image = HostTensor::f32([1, SIDE, SIDE, 3], image);
    let mut expected = run(g.clone(), &Device::cpu(0), &[&image]);
    let sorted = |logits: HostTensor| {
        let mut scores: Vec<f32> =
            logits.as_f32().unwrap().iter().map(|l| 1.0 / (1.0 + (-l).exp())).collect();
        scores.sort_by(f32::total_cmp);
        scores
    };
    let expected_scores = sorted(expected.pop().unwrap());
    for (device, tolerance) in devices() {
        let mut got = run(g.clone(), &device, &[&image]);
        let scores = sorted(got.pop().unwrap());
        for (map, expected) in got.iter().zip(&expected) {
            let error = relative_error(map.as_f32().unwrap(), expected.as_f32().unwrap());
            assert!(error <= tolerance, "{device:?}: features are off by {error:.1e}");
        }
        let worst =
            scores.iter().zip(&expected_scores).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
        assert!(worst <= tolerance, "{device:?}: scores are off by {worst:.1e}");
    }
}

#[test]
fn mobile_sam_on_a_gpu_has_the_cpus_masks_for_as_many_boxes_as_are_counted() {
    const BOXES: usize = 4;
    const COUNTED: usize = 3;
    let segmenter = Segmenter::open("mobile_sam").unwrap().with_input_size(SIDE).unwrap();
    let config = segmenter.config();
    let mut parameters = Parameters::new(segmenter.weights());
    let mut g = Graph::new("mobile_sam");
    let frame_input = g.input("frame", DType::U8, [SIDE, SIDE, 1]).unwrap();
    let image = g.image_to_tensor(frame_input, config.image_transform([SIDE, SIDE])).unwrap();
    let embedding = mobile_sam::build_encoder(&mut g, image, &mut parameters, config).unwrap();
    let boxes = g.input("boxes", DType::F32, [BOXES, 4]).unwrap();
    let count = g.input("count", DType::I32, [1]).unwrap();
    let prompts = Prompts { boxes_xyxy: Some(g.limit_rows(boxes, count).unwrap()), ..Prompts::default() };
    let prompts = mobile_sam::encode_prompts(&mut g, &prompts, &mut parameters, config).unwrap();
    let masks =
        mobile_sam::build_decoder(&mut g, embedding, &prompts, &mut parameters, config, MaskOutput::One)
            .unwrap();
    g.output("masks", masks.low_res_masks).unwrap();
    g.output("iou", masks.iou).unwrap();

    let boxes: [f32; 4 * BOXES] = [5., 5., 40., 40., 10., 20., 50., 60., 1., 2., 30., 40., 7., 8., 60., 61.];
    let inputs = [frame(), HostTensor::f32([BOXES, 4], boxes), HostTensor::i32([1], [COUNTED as i32])];
    let inputs: Vec<&HostTensor> = inputs.iter().collect();
    let counted = |tensor: &HostTensor| {
        let values = tensor.as_f32().unwrap();
        values[..values.len() / BOXES * COUNTED].to_vec()
    };
    let expected = run(g.clone(), &Device::cpu(0), &inputs);
    for (device, tolerance) in devices() {
        for (got, expected) in run(g.clone(), &device, &inputs).iter().zip(&expected) {
            let error = relative_error(&counted(got), &counted(expected));
            assert!(error <= tolerance, "{device:?}: {} is off by {error:.1e}", got.shape());
        }
    }
}
