//! Checkpoints as people have them: names behind prefixes, in several files, beside configurations of several hands.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use ultramotion_models::checkpoint::{self, CheckpointError, Format};
use ultramotion_models::zoo::{Detector, Segmenter};

/// Classes of the listed networks.
const CLASSES: usize = 2;

type Names = Vec<(String, Vec<usize>)>;

fn listed(file: &str) -> Names {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checkpoint").join(file);
    let line = |line: &str| {
        let (name, dimensions) = line.split_once(' ').unwrap();
        let shape = if dimensions == "-" {
            Vec::new()
        } else {
            dimensions.split('x').map(|n| n.parse().unwrap()).collect()
        };
        (name.to_owned(), shape)
    };
    std::fs::read_to_string(path).unwrap().lines().map(line).collect()
}

/// A safetensors file with each tensor filled with its own index.
fn file(names: &[(String, Vec<usize>)]) -> Vec<u8> {
    let tensors: Vec<(&str, &[usize], Vec<u8>)> = names
        .iter()
        .enumerate()
        .map(|(i, (name, shape))| {
            (&**name, &**shape, (i as f32).to_le_bytes().repeat(shape.iter().product()))
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        (*name, safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.to_vec(), bytes).unwrap())
    });
    safetensors::serialize(views, None::<HashMap<String, String>>).unwrap()
}

fn prefixed(names: &Names, prefix: &str) -> Names {
    names.iter().map(|(name, shape)| (format!("{prefix}{name}"), shape.clone())).collect()
}

#[test]
fn prefixes_are_taken_off_when_what_is_left_fits() {
    let names = listed("dfine_n.official.txt");
    let plain = checkpoint::load_bytes("plain.safetensors", file(&names)).unwrap();
    assert_eq!(plain.architecture.map(|a| a.name()), Some("dfine_n"));
    for prefix in [
        "module.",
        "_orig_mod.",
        "model.",
        "ema_model.",
        "sam.",
        "net.",
        "module._orig_mod.",
        "ema_model.module.",
    ] {
        let mut wrapped = prefixed(&names, prefix);
        wrapped.push(("n_averaged".into(), vec![]));
        let found = checkpoint::load_bytes("wrapped.safetensors", file(&wrapped)).unwrap();
        assert_eq!(found.architecture, plain.architecture, "{prefix}");
        let same = |(name, tensor): (&str, &checkpoint::WeightTensor)| {
            found.weights.get(name).is_some_and(|other| other.bytes() == tensor.bytes())
        };
        assert!(plain.weights.iter().all(same) && found.weights.len() == plain.weights.len(), "{prefix}");
    }
    let foreign = prefixed(&names, "theirs.");
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("foreign.safetensors");
    std::fs::write(&path, file(&foreign)).unwrap();
    let refused = Detector::open(&path.to_string_lossy()).unwrap_err().to_string();
    assert!(refused.contains("all beginning with `theirs.`"), "{refused}");
    let refused = Segmenter::open(&path.to_string_lossy()).unwrap_err().to_string();
    assert!(!refused.is_empty());
}

/// A folder as Hugging Face has it: weights in some files, a configuration, a preprocessor's.
fn folder(shards: usize, config: &[u8], preprocessor: &str) -> (TempDir, PathBuf) {
    let names = listed("dfine_n.huggingface.txt");
    let folder = TempDir::new().unwrap();
    let path = folder.path().to_owned();
    if shards == 1 {
        std::fs::write(path.join("model.safetensors"), file(&names)).unwrap();
    } else {
        let mut map = serde_json::Map::new();
        for (number, part) in names.chunks(names.len().div_ceil(shards)).enumerate() {
            let shard = format!("model-0000{number}.safetensors");
            std::fs::write(path.join(&shard), file(part)).unwrap();
            map.extend(part.iter().map(|(name, _)| (name.clone(), shard.clone().into())));
        }
        let index = serde_json::json!({"metadata": {}, "weight_map": map}).to_string();
        std::fs::write(path.join("model.safetensors.index.json"), index).unwrap();
    }
    std::fs::write(path.join("config.json"), config).unwrap();
    std::fs::write(path.join("preprocessor_config.json"), preprocessor).unwrap();
    (folder, path)
}

fn labels(first: usize) -> Vec<u8> {
    let labels: serde_json::Map<_, _> =
        (0..CLASSES).map(|id| ((first + id).to_string(), format!("thing {id}").into())).collect();
    serde_json::json!({"id2label": labels}).to_string().into_bytes()
}

#[test]
fn a_folder_of_hugging_face_opens_whole_or_in_several_files() {
    let size = r#"{"size": {"height": 640, "width": 640}, "do_normalize": false, "do_pad": false}"#;
    let (_keep, whole) = folder(1, &labels(0), size);
    let expected = checkpoint::load(&whole).unwrap();
    assert_eq!((expected.format, expected.input_size), (Format::HuggingFace, Some([640, 640])));
    let names: Vec<String> = (0..CLASSES).map(|id| format!("thing {id}")).collect();
    assert_eq!(expected.classes.as_ref(), Some(&names));
    // Numbers from 1, behind a mark of Windows, in three files.
    let marked = [b"\xEF\xBB\xBF".to_vec(), labels(1)].concat();
    let (_keep, sharded) = folder(3, &marked, r#"{"size": 640}"#);
    let found = checkpoint::load(&sharded).unwrap();
    assert_eq!((found.classes, found.input_size), (Some(names), Some([640, 640])));
    assert!(expected.weights.iter().all(|(name, _)| found.weights.contains(name)));
    assert_eq!(found.weights.len(), expected.weights.len());
    assert!(checkpoint::load(sharded.join("model.safetensors.index.json")).is_ok());
    // A shard that is not there, and a name that leads out of the folder.
    std::fs::remove_file(sharded.join("model-00001.safetensors")).unwrap();
    assert!(checkpoint::load(&sharded).unwrap_err().to_string().contains("model-00001.safetensors"));
    std::fs::write(sharded.join("model.safetensors.index.json"), r#"{"weight_map": {"a": "../secret"}}"#)
        .unwrap();
    assert!(matches!(checkpoint::load(&sharded), Err(CheckpointError::NotACheckpoint { .. })));
}

#[test]
fn what_the_configuration_says_is_obeyed_or_refused() {
    let (_keep, edge) = folder(1, b"{}", r#"{"size": {"shortest_edge": 512}}"#);
    let found = checkpoint::load(&edge).unwrap();
    assert_eq!((found.classes, found.input_size), (None, Some([512, 512])));
    for (what, said) in [("do_normalize", "normalises"), ("do_pad", "pads images")] {
        let (_keep, path) = folder(1, &labels(0), &format!("{{\"size\": 640, \"{what}\": true}}"));
        let refused = checkpoint::load(&path).unwrap_err().to_string();
        assert!(refused.contains(said) && refused.contains("preprocessor_config.json"), "{refused}");
    }
}

#[test]
fn files_of_other_programs_are_called_by_their_names() {
    for (name, bytes, what) in [
        ("a.onnx", &b"\x08\x08\x12\x07pytorch"[..], "ONNX"),
        ("renamed.pth", b"\x08\x07\x12\x07pytorch", "ONNX"),
        ("a.h5", b"\x89HDF\r\n\x1a\n", "HDF5"),
        ("a.tflite", b"\x1c\0\0\0TFL3", "TensorFlow Lite"),
        ("a.engine", b"ftrt\0\0\0\0", "TensorRT"),
        ("a.xml", b"<?xml version=\"1.0\"?>\n<net name=\"main_graph\" version=\"11\">", "OpenVINO"),
    ] {
        let refused = checkpoint::load_bytes(name, bytes.to_vec()).unwrap_err().to_string();
        assert!(refused.contains(what) && refused.contains("it was exported from"), "{refused}");
    }
}
