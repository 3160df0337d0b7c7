//! Small D-FINE networks on every device against numbers from an independent implementation (PyTorch, float64, itself
//! compared with the official code), so that a checkout without the fixtures also knows that its network is right.

use std::path::Path;

use ultramotion_engine::graph::Graph;
use ultramotion_engine::tensor::{DType, HostTensor};
use ultramotion_engine::testing::device_for_tests;
use ultramotion_engine::{CompileOptions, Device, Precision, Program};
use ultramotion_models::checkpoint;
use ultramotion_models::dfine::{self, DfineConfig};
use ultramotion_models::parameters::Parameters;

struct Expected {
    /// Of the descending scores: the first three, the middle one, the last.
    scores: [f32; 5],
    /// Over all queries.
    mean_box: [f32; 4],
}

fn compare(config: &DfineConfig, devices: &[Device], expected: &Expected) {
    let [h, w] = config.input_hw;
    let build = |parameters: &mut Parameters<'_>| {
        let mut g = Graph::new(config.name());
        let image = g.input("image", DType::F32, [1, h, w, 3]).expect("a new name");
        let out = dfine::build(&mut g, image, parameters, config).expect("a sound graph");
        g.output("pred_logits", out.pred_logits).expect("a new name");
        g.output("pred_boxes", out.pred_boxes).expect("a new name");
        g
    };
    let mut description = Parameters::describe();
    build(&mut description);
    let constructed = ["decoder.up", "decoder.reg_scale"];
    let specs = description.specs().iter().filter(|s| !constructed.contains(&s.name.as_str()));
    let keys: Vec<_> = specs.map(|s| (s.name.clone(), s.shape.clone())).collect();
    let weights = checkpoint::filled(&keys, "small", 1.0, |_| None).expect("shapes that can be filled");

    let pixel = |i: usize| ((i % w) * (i / w) % 251) as f32 / 255.0;
    let image = HostTensor::f32([1, h, w, 3], (0..h * w * 3).map(|i| pixel(i / 3)).collect::<Vec<_>>());
    for device in devices {
        let mut parameters = Parameters::new(&weights);
        let graph = build(&mut parameters);
        parameters.finish(|_| false).expect("everything fits");
        let mut program = Program::compile(graph, device, &CompileOptions::default()).expect("compiles");
        let out = program.run(&[&image]).expect("runs");
        let logits = out[0].as_f32().expect("floats").iter();
        let mut scores: Vec<f32> = logits.map(|l| 1.0 / (1.0 + (-l).exp())).collect();
        scores.sort_by(|a, b| b.total_cmp(a));
        let got = [0, 1, 2, scores.len() / 2, scores.len() - 1].map(|i| scores[i]);
        let boxes = out[1].as_f32().expect("floats").as_chunks::<4>().0;
        let mean = [0, 1, 2, 3].map(|i| boxes.iter().map(|b| b[i]).sum::<f32>() / boxes.len() as f32);
        let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(close(&got, &expected.scores), "{device:?}: scores {got:?}, not {:?}", expected.scores);
        assert!(close(&mean, &expected.mean_box), "{device:?}: boxes {mean:?}, not {:?}", expected.mean_box);
    }
}

/// The reference, the processor, and the CUDA backend where it can be tested.
fn devices() -> Vec<Device> {
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/kernels");
    let cuda = device_for_tests(&[kernels], Precision::F32);
    [Device::reference(), Device::cpu(1), Device::cpu(2)].into_iter().chain(cuda).collect()
}

#[test]
fn nano_with_fewer_anchors_than_queries() {
    let config = DfineConfig { num_classes: 3, input_hw: [64, 96], ..DfineConfig::n() };
    let expected = Expected {
        scores: [0.973_545, 0.970_986, 0.966_488, 0.864_862, 0.085_24],
        mean_box: [0.662_623, 0.499_343, 0.119_055, 0.032_011],
    };
    compare(&config, &devices(), &expected);
}

#[test]
fn small_with_anchors_left_out() {
    // 52 columns on the finest level: those at the border are too near to it to be used.
    let config = DfineConfig { num_classes: 1, input_hw: [64, 416], ..DfineConfig::s() };
    let expected = Expected {
        scores: [0.978_53, 0.978_53, 0.978_53, 0.900_078, 0.819_845],
        mean_box: [0.472_831, 0.542_822, 0.212_231, 0.225_249],
    };
    compare(&config, &devices(), &expected);
}
