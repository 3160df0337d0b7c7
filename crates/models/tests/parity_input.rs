//! Fixtures that cannot be used: one sentence each, never a panic.

use std::path::Path;

use ultramotion_engine::Device;
use ultramotion_models::parity::{self, ParityOptions};

fn error(path: &Path) -> String {
    parity::check(path, &Device::cpu(1), &ParityOptions::default()).expect_err("not a fixture").to_string()
}

/// A fixture with an image of 32 x 32 and this metadata.
fn written(folder: &Path, metadata: &[(&str, &str)]) -> std::path::PathBuf {
    let path = folder.join("fixture.safetensors");
    let pixels = vec![0u8; 32 * 32];
    let image = safetensors::tensor::TensorView::new(safetensors::Dtype::U8, vec![32, 32], &pixels);
    let metadata = metadata.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let tensors = [("image", image.expect("fills its shape"))];
    safetensors::serialize_to_file(tensors, Some(metadata), &path).expect("written");
    path
}

#[test]
fn unusable_fixtures_are_named_with_the_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = error(&folder.path().join("none.safetensors"));
    assert!(missing.contains("none.safetensors") && missing.contains("check the path"), "{missing}");

    let text = folder.path().join("text.safetensors");
    std::fs::write(&text, "not tensors at all").expect("written");
    assert!(error(&text).contains("not a whole .safetensors file"), "{}", error(&text));

    let cases: [(&[(&str, &str)], &str); 7] = [
        (&[], "no 'model'"),
        (&[("model", "yolo")], "'yolo' is not one that is compared here"),
        (&[("model", "dfine_z"), ("num_classes", "2")], "'dfine_z' is not one that is compared here"),
        (&[("model", "dfine_n"), ("num_classes", "many")], "'num_classes' = 'many', not a number"),
        (&[("model", "dfine_n"), ("num_classes", "4000000000")], "1 to 10000 classes"),
        (&[("model", "dfine_n"), ("num_classes", "2")], "no 'checkpoint'"),
        (
            &[("model", "dfine_n"), ("num_classes", "2"), ("checkpoint", "../../secret.pth")],
            "'../../secret.pth' is not a file beside it",
        ),
    ];
    for (metadata, reason) in cases {
        let sentence = error(&written(folder.path(), metadata));
        assert!(sentence.contains(reason), "{sentence}");
    }
    // Weights are there, reference outputs are not.
    let path = written(folder.path(), &[("model", "dfine_n"), ("num_classes", "2"), ("salt", "x")]);
    assert!(error(&path).contains("no F32 tensor 'backbone.0.sample'"), "{}", error(&path));
}
