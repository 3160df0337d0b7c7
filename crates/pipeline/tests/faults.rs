//! A network that answers with something that is no number is named, and nothing is drawn from it.

#![allow(clippy::unwrap_used)]

mod small;

use small::{grey, options, picture};
use ultramotion_engine::Device;
use ultramotion_models::checkpoint::{self, Checkpoint, StoredPrecision, WeightTensor, Weights};
use ultramotion_models::zoo::{Detector, Segmenter};
use ultramotion_pipeline::{Orchestrator, PipelineOptions};
use ultramotion_types::{Fault, Residency};

/// A checkpoint whose tensor of this name is so large that sums over it are infinite.
fn overflowing(weights: &Weights, tensor: &str, folder: &std::path::Path) -> String {
    let (values, shape) = weights.f32(tensor).unwrap();
    let mut weights = weights.clone();
    let large: Vec<f32> = values.iter().map(|v| if *v < 0.0 { -3e38 } else { 3e38 }).collect();
    weights.insert(tensor, WeightTensor::from_f32(tensor, &shape, &large).unwrap());
    let path = folder.join(format!("{tensor}.safetensors"));
    checkpoint::save(&path, &Checkpoint::new(weights), StoredPrecision::F32).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_network_that_overflows_is_named_and_draws_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let detector = || Detector::open("dfine_n").unwrap().with_input_hw([64, 64]).unwrap();
    let segmenter = || Segmenter::open("mobile_sam").unwrap().with_input_size(64).unwrap();
    let bad_detector = overflowing(detector().weights(), "decoder.dec_score_head.2.weight", folder.path());
    let iou_head = "mask_decoder.iou_prediction_head.layers.0.weight";
    let bad_segmenter = overflowing(segmenter().weights(), iou_head, folder.path());
    let bad_detector = || Detector::open(&bad_detector).unwrap().with_input_hw([64, 64]).unwrap();
    let bad_segmenter = || Segmenter::open(&bad_segmenter).unwrap().with_input_size(64).unwrap();
    for residency in [Residency::Device, Residency::Host] {
        for (detector, segmenter, fault) in [
            (bad_detector(), segmenter(), Some(Fault::Detector)),
            (detector(), bad_segmenter(), Some(Fault::Segmenter)),
            (detector(), segmenter(), None),
        ] {
            let options = PipelineOptions { residency, ..options() };
            let mut pipeline = Orchestrator::new(Device::cpu(1), detector, segmenter, options).unwrap();
            let packet = pipeline.process(&grey(0, &picture(0))).unwrap();
            assert_eq!((packet.fault, packet.objects.is_empty()), (fault, fault.is_some()), "{residency}");
        }
    }
}
