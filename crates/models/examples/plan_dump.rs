#![allow(clippy::unwrap_used, clippy::print_stdout)]
use std::collections::BTreeMap;
use ultramotion_engine::graph::Graph;
use ultramotion_engine::tensor::DType;
use ultramotion_engine::{CompileOptions, Precision, Program, cuda::device_for_tests};
use ultramotion_models::{checkpoint, dfine::{self, DfineConfig}, parameters::Parameters};
use ultramotion_models::mobile_sam::{self, MobileSamConfig, MaskOutput};
fn sam() {
    let config = MobileSamConfig::new(256).unwrap();
    let build = |parameters: &mut Parameters<'_>| { let mut g = Graph::new("sam");
    let image = g.input("image", DType::F32, [1, 256, 256, 3]).unwrap();
    let embedding = mobile_sam::build_encoder(&mut g, image, parameters, &config).unwrap();
    let prompts = mobile_sam::box_input(&mut g, "boxes", 8).unwrap();
    let prompts = mobile_sam::encode_prompts(&mut g, &prompts, parameters, &config).unwrap();
    let m = mobile_sam::build_decoder(&mut g, embedding, &prompts, parameters, &config, MaskOutput::One).unwrap();
    g.output("m", m.low_res_masks).unwrap(); g.output("i", m.iou).unwrap(); g };
    let mut description = Parameters::describe(); build(&mut description);
    let keys: Vec<_> = description.specs().iter().map(|s| (s.name.clone(), s.shape.clone())).collect();
    let weights = checkpoint::filled(&keys, "small", 1.0, |_| None).unwrap();
    let graph = build(&mut Parameters::new(&weights));
    let device = device_for_tests(&[std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/kernels")], Precision::F16).unwrap();
    let program = Program::compile(graph, &device, &CompileOptions::default()).unwrap();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for k in program.kernel_times() { println!("{:2} {:<28} {:<22} {}", k.branch, k.op, k.shape, k.scope); *counts.entry(k.op.split('+').next().unwrap().to_owned()).or_default() += 1; }
    println!("{counts:?} total {}", program.kernel_times().len());
}
fn main() {
    sam();
    let config = DfineConfig { input_hw: [320, 320], ..DfineConfig::n() };
    let [h, w] = config.input_hw;
    let build = |parameters: &mut Parameters<'_>| {
        let mut g = Graph::new(config.name());
        let image = g.input("image", DType::F32, [1, h, w, 3]).unwrap();
        let out = dfine::build(&mut g, image, parameters, &config).unwrap();
        g.output("pred_logits", out.pred_logits).unwrap();
        g.output("pred_boxes", out.pred_boxes).unwrap();
        g
    };
    let mut description = Parameters::describe();
    build(&mut description);
    let constructed = ["decoder.up", "decoder.reg_scale"];
    let keys: Vec<_> = description.specs().iter().filter(|s| !constructed.contains(&s.name.as_str())).map(|s| (s.name.clone(), s.shape.clone())).collect();
    let weights = checkpoint::filled(&keys, "small", 1.0, |_| None).unwrap();
    let mut parameters = Parameters::new(&weights);
    let graph = build(&mut parameters);
    let device = device_for_tests(&[std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/kernels")], Precision::F16).unwrap();
    let program = Program::compile(graph, &device, &CompileOptions::default()).unwrap();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for k in program.kernel_times() { println!("{:2} {:<28} {:<22} {}", k.branch, k.op, k.shape, k.scope); *counts.entry(k.op.split('+').next().unwrap().to_owned()).or_default() += 1; }
    println!("{counts:?} total {}", program.kernel_times().len());
}
