//! The networks on the CUDA backend, emulated or on the GPU that `ULTRAMOTION_GPU` names: the CPU's features and masks, in
//! f32 and, less exactly, in f16.

#![allow(clippy::unwrap_used, unsafe_code)]

use std::path::Path;

use ultramotion_engine::graph::Graph;
use ultramotion_engine::tensor::{DType, HostTensor};
use ultramotion_engine::testing::{device_for_tests, emulated_for_tests};
use ultramotion_engine::{CompileOptions, Device, DeviceSlice, Precision, Program};
use ultramotion_models::detector::DetectorPredictor;
use ultramotion_models::segmenter::{
    MaskOutput, ObjectPrompt, PredictOptions, PredictorError, PredictorOptions, Prompts, SamPredictor,
};
use ultramotion_models::zoo::{Detector, Segmenter};
use ultramotion_types::Frame;

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
    let found = detector.build(&mut g, image).unwrap();
    for (name, map) in found.features.into_iter().filter(|(name, _)| name.starts_with("encoder")) {
        g.output(name, map).unwrap();
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
    let mut g = Graph::new("mobile_sam");
    let frame_input = g.input("frame", DType::U8, [SIDE, SIDE, 1]).unwrap();
    let embedding = segmenter.encode(&mut g, frame_input).unwrap();
    let boxes = g.input("boxes", DType::F32, [BOXES, 4]).unwrap();
    let count = g.input("count", DType::I32, [1]).unwrap();
    let prompts = Prompts::boxes(g.limit_rows(boxes, count).unwrap());
    let masks = segmenter.decode(&mut g, embedding, &prompts, MaskOutput::One).unwrap();
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

#[test]
fn an_image_that_is_on_the_gpu_is_taken_from_there() {
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/kernels");
    let Some(device) = emulated_for_tests(std::slice::from_ref(&kernels), Precision::F32, 1) else { return };
    let image = Frame::grey8(SIDE, SIDE, frame().bytes().to_vec());
    let on_gpu = |gpu, bytes: usize| {
        // SAFETY: pixels of an image that lives as long, which an emulated GPU has as its own.
        unsafe { DeviceSlice::from_raw_parts(gpu, image.pixels.as_ptr() as u64, bytes) }
    };
    let from_gpu = image.view().with_pixels(on_gpu(0, image.pixels.len()));
    let bytes = image.pixels.len() as u64;

    let detector = Detector::open("dfine_n").unwrap().with_input_hw([SIDE, SIDE]).unwrap();
    let mut detector = DetectorPredictor::new(&device, detector);
    let expected = detector.predict(&image.view(), 0.0).unwrap();
    let before = device.ledger().counts();
    assert_eq!(detector.predict(&from_gpu, 0.0).unwrap(), expected);
    let spent = device.ledger().counts() - before;
    assert_eq!((spent.d2d, spent.d2d_bytes, spent.h2d), (1, bytes, 0));
    assert!(!expected.is_empty());

    let segmenter = Segmenter::open("mobile_sam").unwrap().with_input_size(SIDE).unwrap();
    let mut sam = SamPredictor::new(&device, segmenter, PredictorOptions::default()).unwrap();
    let prompt = [ObjectPrompt::from_box([4.0, 4.0, 40.0, 50.0])];
    sam.set_image(&image.pixels, SIDE, SIDE, 1).unwrap();
    let expected = sam.predict(&prompt, PredictOptions::default()).unwrap();
    sam.set_image(&vec![0; SIDE * SIDE], SIDE, SIDE, 1).unwrap();
    let before = device.ledger().counts();
    sam.set_image_from(from_gpu.pixels.into(), SIDE, SIDE, 1).unwrap();
    let spent = device.ledger().counts() - before;
    assert_eq!((spent.d2d, spent.d2d_bytes, spent.h2d), (1, bytes, 0));
    assert_eq!(sam.predict(&prompt, PredictOptions::default()).unwrap(), expected);
    for wrong in [on_gpu(0, 7), on_gpu(1, SIDE * SIDE)] {
        assert!(sam.set_image_from(wrong.into(), SIDE, SIDE, 1).is_err());
        let error = sam.predict(&prompt, PredictOptions::default());
        assert!(matches!(error, Err(PredictorError::NoImage)), "no image is set after an error");
    }
}
