//! `ultramotion models`.

use std::path::Path;

use crate::program::{Finished, error_of, shelf, start};

fn models(folder: &Path, arguments: &[&str]) -> Finished {
    start(folder, &[&["models"], arguments].concat())
}

#[test]
fn list_names_every_network() {
    let folder = tempfile::tempdir().unwrap();
    let listed = models(folder.path(), &["list"]);
    assert_eq!((listed.code, listed.stderr.as_str()), (0, ""));
    for name in ["dfine_n", "dfine_s", "dfine_m", "dfine_l", "dfine_x", "mobile_sam"] {
        assert!(listed.stdout.lines().any(|l| l.starts_with(name)), "{}", listed.stdout);
    }
}

#[test]
fn inspect_says_what_is_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let segmenter = shelf().segmenter().display().to_string();
    let inspected = models(folder.path(), &["inspect", &segmenter]);
    assert_eq!((inspected.code, inspected.stderr.as_str()), (0, ""));
    insta::assert_snapshot!(inspected.stdout.replace(&segmenter, "SEGMENTER"));
    let tensors = models(folder.path(), &["inspect", &segmenter, "--tensors"]);
    assert!(tensors.stdout.contains("  image_encoder.patch_embed.seq.0.c.weight f16 [32, 3, 3, 3]"));
}

#[test]
fn convert_keeps_the_model_and_takes_new_facts() {
    let folder = tempfile::tempdir().unwrap();
    let detector = shelf().detector().display().to_string();
    let names: Vec<String> = (0..80).map(|i| format!("thing{i}")).collect();
    let arguments = [
        "convert",
        &detector,
        "new.safetensors",
        "--classes",
        &names.join(","),
        "--input",
        "96",
        "--license",
        "MIT",
    ];
    let converted = models(folder.path(), &arguments);
    assert_eq!(converted.code, 0, "{}", converted.stderr);
    let inspected = models(folder.path(), &["inspect", "new.safetensors"]).stdout;
    for part in ["dfine_n", "thing0, thing1", "96x96", "MIT"] {
        assert!(inspected.contains(part), "{part}: {inspected}");
    }
    let size = |path: &Path| std::fs::metadata(path).unwrap().len();
    let (f16, f32) = (size(&folder.path().join("new.safetensors")), size(&shelf().detector()));
    assert!(f16 * 10 < f32 * 6, "f16 is about half: {f16} of {f32}");
    let verified = models(folder.path(), &["verify", "new.safetensors"]);
    assert_eq!(verified.code, 0, "{}", verified.stderr);
    assert!(verified.stdout.starts_with("new.safetensors: dfine_n for 96x96, classes thing0"));
}

#[test]
fn convert_writes_nothing_that_could_not_be_opened() {
    let folder = tempfile::tempdir().unwrap();
    let (detector, segmenter) =
        (shelf().detector().display().to_string(), shelf().segmenter().display().to_string());
    for (from, more, code) in [
        (&detector, &["--input", "100"][..], 2),
        (&segmenter, &["--input", "100"], 2),
        (&detector, &["--classes", "one,two"], 1),
        (&detector, &["--classes", ""], 1),
    ] {
        let refused = models(folder.path(), &[&["convert", from, "new.safetensors"], more].concat());
        assert_eq!(refused.code, code, "{more:?}: {}", refused.stderr);
        assert_eq!(refused.stderr.lines().count(), 1, "{}", refused.stderr);
        assert!(!folder.path().join("new.safetensors").exists());
    }
    let refused = models(folder.path(), &["convert", &detector, "no/such/folder.safetensors"]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.starts_with("error: cannot write the checkpoint `no/such/folder.safetensors`"));
}

#[test]
fn verify_gives_each_model_its_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let shelf = shelf();
    let files =
        [shelf.detector(), shelf.detector_with_nan(), shelf.segmenter()].map(|p| p.display().to_string());
    let arguments = ["verify", &files[0], &files[1], &files[2]];
    let verified = models(folder.path(), &arguments);
    assert_eq!(verified.code, 1);
    let verdicts: Vec<&str> = verified.stdout.lines().collect();
    assert_eq!(verdicts.len(), 2, "{verdicts:?}");
    assert!(
        verdicts[0].contains("dfine_n for 64x64") && verdicts[1].ends_with("MobileSAM for 64x64, complete")
    );
    insta::assert_snapshot!(error_of(&verified, folder.path()));
    assert_eq!(models(folder.path(), &["verify", "no-such-model"]).code, 2);
}

#[test]
fn inspect_of_what_is_no_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("page.pth"), "<!DOCTYPE html><html>404</html>").unwrap();
    for name in ["page.pth", "nowhere.pth", "."] {
        let refused = models(folder.path(), &["inspect", name]);
        assert_eq!(refused.code, 1);
        insta::assert_snapshot!(
            format!("inspect_{}", name.replace('.', "_")),
            error_of(&refused, folder.path())
        );
    }
}
