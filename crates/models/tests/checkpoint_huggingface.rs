//! Hugging Face's D-FINE: every name and shape it saves is one of the official checkpoint's, and the other way round.
//!
//! `tests/checkpoint/dfine_{n,s}.huggingface.txt` list what `DFineForObjectDetection.save_pretrained` of transformers
//! 5.23 writes for the configurations of `ustc-community/dfine-nano-coco` and `-small-coco` (the names of version 4,
//! which the published files have); `*.official.txt` list the official `state_dict`. Made by
//! `tests/checkpoint/make_fixtures.py huggingface`.

use std::path::Path;

use ultramotion_models::checkpoint::{self, Checkpoint, CheckpointError, Format, WeightTensor, Weights};

type Names = Vec<(String, Vec<usize>)>;

fn listed(file: &str) -> Names {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checkpoint").join(file);
    let text = std::fs::read_to_string(path).expect("is committed");
    let shape = |s: &str| match s {
        "-" => vec![],
        s => s.split('x').map(|n| n.parse().expect("is a number")).collect(),
    };
    let line = |l: &str| {
        let (name, dimensions) = l.split_once(' ').expect("has two fields");
        (name.to_owned(), shape(dimensions))
    };
    text.lines().map(line).collect()
}

/// A Hugging Face file in memory, each tensor filled with its own index.
fn file(names: &Names) -> Vec<u8> {
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = names
        .iter()
        .enumerate()
        .map(|(i, (name, shape))| {
            let bytes = (i as f32).to_le_bytes().repeat(shape.iter().product());
            (name.clone(), shape.clone(), bytes)
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes);
        (name.as_str(), view.expect("fills its shape"))
    });
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    safetensors::serialize(views, Some(metadata)).expect("is valid")
}

fn loaded(names: &Names) -> Checkpoint {
    let checkpoint = checkpoint::load_bytes("hf.safetensors", file(names)).expect("is sound");
    assert_eq!(checkpoint.format, Format::HuggingFace);
    checkpoint
}

/// What Hugging Face does not store: anchors follow from the input size, and its backbone counts no batches.
fn not_stored(name: &str) -> bool {
    name == "decoder.anchors" || name == "decoder.valid_mask" || name.ends_with("num_batches_tracked")
}

/// The names that version 5 of transformers has in memory.
fn version_5(names: &Names) -> Names {
    let rename = |name: &String| {
        name.replace("encoder.encoder.", "encoder.aifi.")
            .replace("out_proj", "o_proj")
            .replace(".fc1.", ".mlp.layers.0.")
            .replace(".fc2.", ".mlp.layers.1.")
    };
    names.iter().map(|(name, shape)| (rename(name), shape.clone())).collect()
}

/// The names of a file that kept the heads at the top instead of inside the decoder.
fn heads_at_the_top(names: &Names) -> Names {
    let rename = |name: &String| {
        name.replace("model.decoder.class_embed", "class_embed")
            .replace("model.decoder.bbox_embed", "bbox_embed")
    };
    names.iter().map(|(name, shape)| (rename(name), shape.clone())).collect()
}

#[test]
fn every_name_maps_to_one_official_name() {
    for (size, architecture, classes) in [("n", "dfine_n", 2), ("s", "dfine_s", 80)] {
        let official = listed(&format!("dfine_{size}.official.txt"));
        let saved = listed(&format!("dfine_{size}.huggingface.txt"));
        let variants = [saved.clone(), version_5(&saved), heads_at_the_top(&saved)];
        assert!(variants[1] != saved && variants[2] != saved);
        for names in variants {
            let checkpoint = loaded(&names);
            checkpoint.weights.verify(&official, not_stored).expect("all names and shapes are official");
            assert_eq!(checkpoint.architecture.map(|a| a.name()), Some(architecture));
            assert_eq!(checkpoint.num_classes(), Some(classes));

            // One to one: three thirds make one projection, two constants stand twice, nothing else is merged.
            let third = |name: &str| name.contains("q_proj") || name.contains("k_proj");
            let thirds = names.iter().filter(|(name, _)| third(name)).count();
            assert_eq!(checkpoint.weights.len(), names.len() - thirds + 2);
            let mut seen: Vec<u32> = Vec::new();
            for (name, tensor) in checkpoint.weights.iter() {
                let mut values: Vec<u32> = tensor.to_f32().iter().map(|v| *v as u32).collect();
                values.dedup();
                assert_eq!(values.len(), if name.contains("in_proj") { 3 } else { 1 }, "{name}");
                seen.extend(values);
            }
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), names.len(), "every tensor of the file is used");
        }
    }
}

/// Query, key and value rows, in this order (as `torch.nn.MultiheadAttention` packs them).
#[test]
fn projections_are_packed_in_order() {
    let saved = listed("dfine_n.huggingface.txt");
    let index = |part: &str, leaf: &str| {
        let name = format!("model.decoder.layers.1.self_attn.{part}_proj.{leaf}");
        saved.iter().position(|(n, _)| *n == name).expect("is listed") as f32
    };
    let checkpoint = loaded(&saved);
    for (leaf, row) in [("weight", 128), ("bias", 1)] {
        let name = format!("decoder.decoder.layers.1.self_attn.in_proj_{leaf}");
        let (values, shape) = checkpoint.weights.f32(&name).expect("was packed");
        assert_eq!(shape[0], 384);
        for (third, part) in ["q", "k", "v"].into_iter().enumerate() {
            let rows = &values[third * 128 * row..][..128 * row];
            assert!(rows.iter().all(|&v| v == index(part, leaf)), "{part} {leaf}");
        }
    }
}

#[test]
fn what_is_missing_or_unknown_is_reported() {
    let mut names = listed("dfine_n.huggingface.txt");
    names.retain(|(name, _)| name != "model.decoder.layers.0.self_attn.k_proj.weight");
    names.push(("model.decoder.new_head.weight".to_owned(), vec![1]));
    let official = listed("dfine_n.official.txt");
    let Err(CheckpointError::Mismatch(mismatch)) = loaded(&names).weights.verify(&official, not_stored)
    else {
        panic!("a third is missing and a name is unknown");
    };
    assert_eq!(mismatch.missing, ["decoder.decoder.layers.0.self_attn.in_proj_weight"]);
    let mut unexpected = mismatch.unexpected.clone();
    unexpected.sort();
    assert_eq!(
        unexpected,
        [
            "model.decoder.layers.0.self_attn.q_proj.weight",
            "model.decoder.layers.0.self_attn.v_proj.weight",
            "model.decoder.new_head.weight",
        ]
    );
}

#[test]
fn classes_and_input_size_come_from_the_neighbours() {
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let put =
        |name: &str, content: &[u8]| std::fs::write(folder.path().join(name), content).expect("is written");
    let path = folder.path().join("model.safetensors");
    put("model.safetensors", &file(&listed("dfine_n.huggingface.txt")));
    let read = || {
        let checkpoint = checkpoint::load(&path).expect("is sound");
        (checkpoint.classes, checkpoint.input_size)
    };
    assert_eq!(read(), (None, None));
    put("config.json", br#"{"id2label": {"1": "vessel", "0": "nerve"}}"#);
    put("preprocessor_config.json", br#"{"size": {"height": 480, "width": 640}}"#);
    assert_eq!(read(), (Some(vec!["nerve".into(), "vessel".into()]), Some([480, 640])));
    // Of another model, or not JSON: as if they were not there.
    put("config.json", br#"{"id2label": {"0": "person", "1": "car", "2": "dog"}}"#);
    put("preprocessor_config.json", b"{");
    assert_eq!(read(), (None, None));
}

#[test]
fn an_official_list_in_safetensors_is_taken_as_it_is() {
    let checkpoint =
        checkpoint::load_bytes("o.safetensors", file(&listed("dfine_s.official.txt"))).expect("is sound");
    assert_eq!(checkpoint.format, Format::Safetensors);
    assert_eq!(checkpoint.architecture.map(|a| a.name()), Some("dfine_s"));
    let mut weights = Weights::new("x");
    weights.insert("w", WeightTensor::from_f32("w", &[1], &[1.0]).expect("fits"));
    assert_eq!(ultramotion_models::zoo::Architecture::detect(&weights), None);
}
