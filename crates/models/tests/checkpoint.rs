//! Checkpoints that are as they should be: what is read equals what PyTorch reads, what is written reads back.

#[path = "checkpoint/torch_writer.rs"]
mod torch_writer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use ultramotion_models::checkpoint::{
    self, Checkpoint, CheckpointError, Dtype, Format, StoredPrecision, WeightTensor, Weights, filled,
};

/// The folder of shared fixtures, or `None` with a message.
#[allow(clippy::print_stdout, reason = "a test that is skipped says so")]
fn shared() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let folder = std::env::var_os("ULTRAMOTION_SHARED").map_or(beside, PathBuf::from);
    if folder.join("reference").is_dir() {
        return Some(folder);
    }
    println!("skipped: no shared fixtures at {} (set ULTRAMOTION_SHARED)", folder.display());
    None
}

fn small_pth() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checkpoint/small.pth")
}

/// `small.pth` was written by PyTorch 2.15 (`tests/checkpoint/make_fixtures.py pth`); the values are those it reads.
#[test]
fn a_pytorch_file_reads_as_pytorch_reads_it() {
    let checkpoint = checkpoint::load(small_pth()).expect("is sound");
    assert_eq!(checkpoint.format, Format::Torch);
    assert_eq!(checkpoint.architecture, None);
    let metadata = [("date", "2026-01-01"), ("last_epoch", "3"), ("weights", "ema.module")];
    assert_eq!(checkpoint.metadata, metadata.map(|(k, v)| (k.to_owned(), v.to_owned())).into());

    let weights = &checkpoint.weights;
    let eighths = |from: f32, count: u8| (0..count).map(|i| from + f32::from(i) / 8.0).collect::<Vec<_>>();
    let expected: [(&str, Dtype, &[usize], Vec<f32>); 18] = [
        ("conv.weight", Dtype::F32, &[3, 2, 3, 3], eighths(0.0, 54)),
        ("bn.weight", Dtype::F32, &[3], eighths(1.0, 3)),
        ("bn.bias", Dtype::F32, &[3], eighths(2.0, 3)),
        ("bn.running_mean", Dtype::F32, &[3], eighths(3.0, 3)),
        ("bn.running_var", Dtype::F32, &[3], eighths(4.0, 3)),
        ("bn.num_batches_tracked", Dtype::I64, &[], vec![0.0]),
        ("fc.weight", Dtype::F32, &[2, 4], eighths(6.0, 8)),
        ("fc.bias", Dtype::F32, &[2], eighths(7.0, 2)),
        ("transposed", Dtype::F32, &[4, 3], vec![0., 4., 8., 1., 5., 9., 2., 6., 10., 3., 7., 11.]),
        ("slice", Dtype::F32, &[2, 2], vec![5.0, 6.0, 9.0, 10.0]),
        ("half", Dtype::F16, &[2], vec![1.5, -2.0]),
        ("bf16", Dtype::BF16, &[2], vec![1.5, -2.0]),
        ("double", Dtype::F64, &[1], vec![0.1]),
        ("int32", Dtype::I32, &[1], vec![-7.0]),
        ("mask", Dtype::Bool, &[2], vec![1.0, 0.0]),
        ("byte", Dtype::U8, &[1], vec![200.0]),
        ("empty", Dtype::F32, &[0, 3], vec![]),
        ("parameter", Dtype::F32, &[1], vec![3.0]),
    ];
    let names: Vec<&str> = weights.iter().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        expected.each_ref().map(|(name, ..)| *name),
        "names without `module.`, in the file's order"
    );
    for (name, dtype, shape, values) in expected {
        let tensor = weights.get(name).expect("is listed");
        assert_eq!((tensor.dtype(), tensor.shape(), tensor.to_f32()), (dtype, shape, values), "{name}");
    }
}

#[test]
fn a_bare_state_dict_is_read_and_strides_are_followed() {
    let read = |offset, shape: &[i64], strides: &[i64]| {
        let bytes = torch_writer::one_tensor(offset, shape, strides);
        let checkpoint = checkpoint::load_bytes("bare.pt", bytes).expect("is sound");
        assert_eq!(checkpoint.metadata["weights"], "the whole file");
        checkpoint.weights.f32("w").expect("is there").0
    };
    assert_eq!(read(0, &[2, 2], &[2, 1]), [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(read(0, &[2, 2], &[1, 2]), [1.0, 3.0, 2.0, 4.0]);
    assert_eq!(read(1, &[3], &[1]), [2.0, 3.0, 4.0]);
    assert_eq!(read(1, &[2], &[2]), [2.0, 4.0]);
    assert_eq!(read(3, &[2], &[0]), [4.0, 4.0]);
    // The stride of a dimension of one element means nothing.
    assert_eq!(read(0, &[1, 4], &[i64::MAX, 1]), [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(read(0, &[2, 1, 2], &[1, i64::MAX, 2]), [1.0, 3.0, 2.0, 4.0]);
    assert_eq!(read(2, &[], &[]), [3.0]);
}

#[test]
fn mobile_sam_is_recognised() {
    let mut pickle = torch_writer::Pickle::new().op(b"}(");
    for name in ["image_encoder.patch_embed.seq.0.c.weight", "mask_decoder.iou_token.weight"] {
        pickle = pickle.text(name).tensor(("0", 1), 0, &[1], &[1]);
    }
    let file = torch_writer::archive(&[("data.pkl", &pickle.op(b"u").stop()), ("data/0", &[0; 4])]);
    let checkpoint = checkpoint::load_bytes("mobile_sam.pt", file).expect("is sound");
    assert_eq!(checkpoint.architecture.map(|a| a.name()), Some("mobile_sam"));
    assert_eq!(checkpoint.num_classes(), None);
}

/// Checksums computed by PyTorch 2.15 with `torch.load(…, weights_only=True)["ema"]["module"]`.
#[test]
fn a_trained_checkpoint_reads_as_pytorch_reads_it() {
    let Some(shared) = shared() else { return };
    let checkpoint = checkpoint::load(shared.join("reference/trained/dfine_n_320.pth")).expect("is sound");
    assert_eq!(checkpoint.architecture.map(|a| a.name()), Some("dfine_n"));
    assert_eq!(checkpoint.input_size, Some([320, 320]));
    assert_eq!(checkpoint.num_classes(), Some(2));
    checkpoint.weights.check_finite(|_| false).expect("it was trained to good ends");

    let some = [
        ("backbone.stem.stem1.conv.weight", 0xbd18_12b8),
        ("backbone.stages.2.blocks.0.layers.0.conv2.bn.running_var", 0xc1fa_17d7),
        ("encoder.encoder.0.layers.0.self_attn.in_proj_weight", 0xc348_13bc),
        ("decoder.decoder.layers.1.cross_attn.sampling_offsets.bias", 0xaf17_29eb),
        ("decoder.reg_scale", 0xe168_d193),
        ("decoder.valid_mask", 0xb9d6_d0f2),
        ("decoder.dec_bbox_head.2.layers.2.weight", 0x9646_fa13),
    ];
    for (name, crc32) in some {
        let tensor = checkpoint.weights.get(name).expect("is a name of the official checkpoint");
        assert_eq!(crc32fast::hash(tensor.bytes()), crc32, "{name}");
    }
    // And all of them in one: names, types, shapes and bytes, in order.
    let mut all = crc32fast::Hasher::new();
    for (name, tensor) in checkpoint.weights.iter() {
        all.update(format!("{name} {} {:?}\n", tensor.dtype(), tensor.shape()).as_bytes());
        all.update(tensor.bytes());
    }
    assert_eq!((checkpoint.weights.len(), all.finalize()), (674, 0x417f_3ad6));

    let keys = std::fs::read(shared.join("reference/dfine_n.keys.json")).expect("is beside it");
    let keys: BTreeMap<String, Vec<usize>> = serde_json::from_slice(&keys).expect("is JSON");
    let keys: Vec<_> = keys.into_iter().collect();
    // The reference list is for 640 x 640: the anchors differ, and only they.
    let is_anchor = |name: &str| name == "decoder.anchors" || name == "decoder.valid_mask";
    checkpoint.weights.verify(&keys, is_anchor).expect("it is an official D-FINE-N");
    let error = checkpoint.weights.verify(&keys, |_| false).expect_err("its input is smaller").to_string();
    assert!(
        error.contains("2 mis-shaped (`decoder.anchors` [1, 500, 4] instead of [1, 2000, 4], "),
        "{error}"
    );

    // Through our own file, f32 is exact and f16 is close in every tensor.
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    for (precision, tolerance) in [(StoredPrecision::F32, 0.0), (StoredPrecision::F16, 1e-3)] {
        let path = folder.path().join("ours.safetensors");
        let written = checkpoint::save(&path, &checkpoint, precision).expect("there is space");
        assert_eq!(written.bytes, std::fs::metadata(&path).expect("was written").len());
        let ours = checkpoint::load(&path).expect("was written well");
        assert_eq!((ours.architecture, ours.input_size), (checkpoint.architecture, checkpoint.input_size));
        ours.weights.verify(&keys, is_anchor).expect("nothing was lost");
        for (name, tensor) in checkpoint.weights.iter() {
            let (exact, stored) = (tensor.to_f32(), ours.weights.f32(name).expect("was written").0);
            let norm = |v: &mut dyn Iterator<Item = f32>| v.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            let lost = norm(&mut exact.iter().zip(&stored).map(|(a, b)| a - b));
            assert!(lost <= tolerance * norm(&mut exact.iter().copied()), "{name} lost {lost}");
        }
    }
}

#[test]
fn what_does_not_fit_is_listed_whole_and_said_short() {
    let keys = |n: usize| (0..n).map(|i| (format!("layer.{i}.weight"), vec![i + 1])).collect::<Vec<_>>();
    let mut weights = filled(&keys(20), "a", 1.0, |_| None).expect("is small");
    weights.verify(&keys(20), |_| false).expect("is the same list");
    for i in 0..8 {
        weights.remove(&format!("layer.{i}.weight"));
    }
    weights.insert("extra", WeightTensor::from_f32("extra", &[], &[1.0]).expect("fits"));
    weights.insert("layer.9.weight", WeightTensor::from_f32("w", &[5, 2], &[1.0; 10]).expect("fits"));
    let Err(CheckpointError::Mismatch(mismatch)) = weights.verify(&keys(20), |name| name == "layer.0.weight")
    else {
        panic!("they differ");
    };
    assert_eq!(mismatch.missing, (1..8).map(|i| format!("layer.{i}.weight")).collect::<Vec<_>>());
    assert_eq!(mismatch.unexpected, ["extra"]);
    assert_eq!(
        (mismatch.misshaped[0].found.as_slice(), mismatch.misshaped[0].expected.as_slice()),
        ([5, 2].as_slice(), [10].as_slice())
    );
    assert_eq!(
        mismatch.to_string(),
        "the set of weights filled with salt `a` does not fit the model's 20 tensors: 7 missing (`layer.1.weight`, \
         `layer.2.weight`, `layer.3.weight`, `layer.4.weight`, `layer.5.weight` and 2 more), 1 unexpected (`extra`), \
         1 mis-shaped (`layer.9.weight` [5, 2] instead of [10]); is it a checkpoint of this model, size and number of \
         classes?"
    );
    weights.verify(&keys(20), |_| true).expect("everything is ignored");
}

#[test]
fn a_weight_that_is_no_number_is_named() {
    let half = |v: f32| half::f16::from_f32(v).to_le_bytes();
    let bytes = [half(1.0), half(f32::INFINITY), half(f32::NAN)].concat();
    let cases = [
        (WeightTensor::from_f32("w", &[3], &[1.0, f32::NAN, 2.0]), 1, 1),
        (WeightTensor::from_f32("w", &[2], &[f32::NEG_INFINITY, f32::NAN]), 2, 0),
        (WeightTensor::from_bytes("w", Dtype::F16, &[3], bytes), 2, 1),
        (WeightTensor::from_bytes("w", Dtype::F64, &[1], 1e300f64.to_le_bytes().to_vec()), 1, 0),
    ];
    for (tensor, bad, at) in cases {
        let mut weights = Weights::new("`x.pth`");
        weights.insert("fine", WeightTensor::from_f32("fine", &[1], &[0.0]).expect("fits"));
        weights.insert("w", tensor.expect("fits"));
        let error = weights.check_finite(|_| false).expect_err("one is not finite");
        assert_eq!(
            error.to_string(),
            format!(
                "`x.pth` has {bad} NaN or infinite value(s) in `w`, the first at element {at}; the training run that \
                 made it diverged or the file is damaged: use another checkpoint"
            )
        );
        weights.check_finite(|name| name == "w").expect("it was to be ignored");
    }
}

#[test]
fn f16_is_used_only_where_it_loses_little() {
    let mut weights = Weights::new("a test");
    let put = |weights: &mut Weights, name: &str, shape: &[usize], values: &[f32]| {
        weights.insert(name, WeightTensor::from_f32(name, shape, values).expect("fits"));
    };
    put(&mut weights, "usual", &[2, 2], &[0.1, -0.2, 0.3, 1.0]);
    put(&mut weights, "too large", &[2], &[1.0, 1e6]);
    put(&mut weights, "small beside large", &[2], &[1e-7, 1.0]);
    put(&mut weights, "small in a row", &[1, 2], &[1e-7, 1.0]);
    put(&mut weights, "small row", &[2, 1], &[1e-7, 1.0]);
    put(&mut weights, "zero", &[2], &[0.0, 0.0]);
    let count =
        WeightTensor::from_bytes("count", Dtype::I64, &[], 70_000i64.to_le_bytes().to_vec()).expect("fits");
    weights.insert("count", count);

    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let path = folder.path().join("ours.safetensors");
    let checkpoint = Checkpoint::new(weights);
    let written = checkpoint::save(&path, &checkpoint, StoredPrecision::F16).expect("there is space");
    assert_eq!(written.kept_f32, ["too large", "small beside large", "small row"]);
    let read = checkpoint::load(&path).expect("was written well");
    let dtype = |name| read.weights.get(name).map(WeightTensor::dtype);
    assert_eq!(dtype("usual"), Some(Dtype::F16));
    assert_eq!(dtype("too large"), Some(Dtype::F32));
    assert_eq!(dtype("zero"), Some(Dtype::F16));
    assert_eq!(read.weights.f32("count").expect("is there").0, [70_000.0]);

    let again = folder.path().join("again.safetensors");
    checkpoint::save(&again, &checkpoint, StoredPrecision::F16).expect("there is space");
    let bytes = |path: &Path| std::fs::read(path).expect("was written");
    assert_eq!(bytes(&path), bytes(&again), "the same checkpoint gives the same bytes");
}

#[test]
fn metadata_that_makes_no_sense_is_refused() {
    let mut weights = Weights::new("a test");
    weights.insert("w", WeightTensor::from_f32("w", &[1], &[1.0]).expect("fits"));
    let mut checkpoint = Checkpoint::new(weights);
    let folder = tempfile::tempdir().expect("there is a temporary folder");
    let path = folder.path().join("ours.safetensors");

    checkpoint.classes = Some(vec!["nerve, left".into()]);
    let error =
        checkpoint::save(&path, &checkpoint, StoredPrecision::F32).expect_err("has a comma").to_string();
    assert!(
        error.contains("has `classes` = `nerve, left` in its metadata, expected class names without"),
        "{error}"
    );
    assert!(!path.exists());
    checkpoint.classes = None;

    for (key, value, expected) in [
        ("input", "0x320", "HEIGHTxWIDTH in pixels"),
        ("input", "large", "HEIGHTxWIDTH in pixels"),
        ("architecture", "dfine_xl", "one of dfine_n, dfine_s"),
    ] {
        let mut file = Vec::new();
        let header = serde_json::json!({"__metadata__": {"format": "ultramotion", key: value}}).to_string();
        file.extend((header.len() as u64).to_le_bytes());
        file.extend(header.as_bytes());
        let error = checkpoint::load_bytes("m.safetensors", file).expect_err("makes no sense").to_string();
        assert!(
            error.contains(&format!("`{key}` = `{value}` in its metadata, expected {expected}")),
            "{error}"
        );
    }

    let nowhere = folder.path().join("no such folder/m.safetensors");
    let error =
        checkpoint::save(&nowhere, &checkpoint, StoredPrecision::F32).expect_err("there is no folder");
    assert!(error.to_string().starts_with("cannot write the checkpoint"), "{error}");
}

fn tensor() -> impl Strategy<Value = WeightTensor> {
    let kind =
        prop::sample::select(vec![Dtype::F32, Dtype::F16, Dtype::BF16, Dtype::F64, Dtype::I64, Dtype::Bool]);
    (prop::collection::vec(0usize..4, 0..4), kind, any::<u64>()).prop_map(|(shape, dtype, seed)| {
        let len = shape.iter().product::<usize>() * dtype.size();
        let mut state = seed | 1;
        let bytes = (0..len)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect();
        WeightTensor::from_bytes("t", dtype, &shape, bytes).expect("fills its shape")
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn our_file_reads_back_as_it_was_written(
        tensors in prop::collection::btree_map("[a-z.\\\\\"é]{1,12}", tensor(), 0..6),
        classes in prop::option::of(prop::collection::vec("[a-z]([a-z ]{0,5}[a-z])?", 1..4)),
        input_size in prop::option::of(prop::array::uniform2(1usize..2000)),
        license in prop::option::of(".{0,20}"),
        extra in ".{0,20}",
    ) {
        let mut weights = Weights::new("a test");
        for (name, tensor) in &tensors {
            weights.insert(name.clone(), tensor.clone());
        }
        let mut checkpoint = Checkpoint::new(weights);
        checkpoint.classes = classes;
        checkpoint.input_size = input_size;
        checkpoint.license = license;
        checkpoint.metadata.insert("extra".into(), extra);
        let folder = tempfile::tempdir().expect("there is a temporary folder");
        let path = folder.path().join("ours.safetensors");
        checkpoint::save(&path, &checkpoint, StoredPrecision::F32).expect("there is space");

        let read = checkpoint::load(&path).expect("was written well");
        prop_assert_eq!(read.format, Format::Ultramotion);
        prop_assert_eq!(&read.classes, &checkpoint.classes);
        prop_assert_eq!(read.input_size, checkpoint.input_size);
        prop_assert_eq!(&read.license, &checkpoint.license);
        prop_assert_eq!(&read.metadata, &checkpoint.metadata);
        prop_assert_eq!(read.weights.len(), tensors.len());
        for (name, tensor) in &tensors {
            let found = read.weights.get(name).expect("was written");
            prop_assert_eq!(found.shape(), tensor.shape());
            let bits = |t: &WeightTensor| t.to_f32().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(found), bits(tensor));
        }
        // And it is what the reference implementation of the format reads.
        let bytes = std::fs::read(&path).expect("was written");
        prop_assert_eq!(safetensors::SafeTensors::deserialize(&bytes).expect("is valid").len(), tensors.len());
    }
}
