//! D-FINE's parameters against the official checkpoints' names and shapes, and a real checkpoint through the builder.
#![allow(clippy::print_stdout)] // a test that is skipped says so

use std::collections::BTreeMap;
use std::path::PathBuf;

use ultramotion_engine::graph::Graph;
use ultramotion_engine::tensor::DType;
use ultramotion_models::checkpoint::{self, Checkpoint, Weights};
use ultramotion_models::detector::DetectorNetwork;
use ultramotion_models::dfine::{self, DfineConfig};
use ultramotion_models::parameters::Parameters;
use ultramotion_models::zoo::{Detector, Origin, ZooError};

/// A file of the folder of fixtures, or `None`, said so, where there is none.
fn fixture(name: &str) -> Option<PathBuf> {
    let shared = std::env::var_os("ULTRAMOTION_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let path = shared.join("reference").join(name);
    if !path.exists() {
        println!(
            "skipped: {} is not here; set ULTRAMOTION_SHARED to the folder with fixtures",
            path.display()
        );
        return None;
    }
    Some(path)
}

fn build(config: &DfineConfig, parameters: &mut Parameters<'_>) -> Graph {
    let mut g = Graph::new(config.name());
    let [h, w] = config.input_hw;
    let image = g.input("image", DType::F32, [1, h, w, 3]).expect("a new name");
    dfine::build(&mut g, image, parameters, config).expect("a sound graph");
    g
}

#[test]
fn every_size_asks_for_the_official_names_and_shapes() {
    for (name, num_classes) in [("n", 2), ("s", 80), ("m", 2), ("l", 2), ("x", 2)] {
        let name = format!("dfine_{name}");
        let Some(path) = fixture(&format!("{name}.keys.json")) else { return };
        let text = std::fs::read_to_string(path).expect("readable");
        let official: BTreeMap<String, Vec<usize>> = serde_json::from_str(&text).expect("names and shapes");
        let named = DfineConfig::named(&name).expect("a known name");
        let num_classes = official.get("decoder.enc_score_head.bias").map_or(num_classes, |s| s[0]);
        let config = DfineConfig { num_classes, input_hw: [64, 64], ..named };
        let mut parameters = Parameters::describe();
        build(&config, &mut parameters);
        let mut asked = BTreeMap::new();
        for spec in parameters.specs() {
            assert_eq!(official.get(&spec.name), Some(&spec.shape), "{} of {name}", spec.name);
            assert!(asked.insert(&spec.name, ()).is_none(), "{} is asked for twice", spec.name);
            assert!(!config.unused_parameter(&spec.name), "{} is used", spec.name);
        }
        let unread = official.keys().filter(|k| !asked.contains_key(k) && !config.unused_parameter(k));
        assert_eq!(unread.collect::<Vec<_>>(), Vec::<&String>::new(), "{name}");
    }
}

#[test]
fn a_checkpoint_tells_its_network() {
    let Some(path) = fixture("trained/dfine_n_320.pth") else { return };
    let checkpoint = checkpoint::load(&path).expect("a checkpoint");
    let config = DfineConfig { num_classes: 2, input_hw: [320, 320], ..DfineConfig::n() };
    let detector = Detector::from_checkpoint(checkpoint.clone(), Origin::File(path)).expect("a D-FINE");
    assert_eq!(format!("{:?}", detector.network()), format!("{config:?}"));

    let mut parameters = Parameters::new(&checkpoint.weights);
    build(&config, &mut parameters);
    parameters.finish(|name| config.unused_parameter(name)).expect("everything fits");

    // Another number of classes and another size are told from it by one sentence.
    let other = DfineConfig { num_classes: 3, ..config.clone() };
    let mut parameters = Parameters::new(&checkpoint.weights);
    build(&other, &mut parameters);
    let mismatch = parameters.finish(|name| other.unused_parameter(name)).expect_err("three classes");
    assert_eq!(mismatch.misshaped.len(), 4);
    assert!(mismatch.missing.is_empty() && mismatch.unexpected.is_empty());
    let other = DfineConfig { num_classes: 2, input_hw: [320, 320], ..DfineConfig::s() };
    let mut parameters = Parameters::new(&checkpoint.weights);
    build(&other, &mut parameters);
    assert!(parameters.finish(|name| other.unused_parameter(name)).is_err());
}

#[test]
fn other_weights_are_no_detector() {
    let empty = Checkpoint::new(Weights::new("`weights.bin`"));
    let error = Detector::from_checkpoint(empty, Origin::File("weights.bin".into()));
    assert!(matches!(&error, Err(ZooError::NotDetector { .. })), "{error:?}");
    let sentence = "`weights.bin` is of a network not known here, not a D-FINE; give a D-FINE checkpoint as the detector";
    assert_eq!(error.expect_err("no tensors").to_string(), sentence);
}
