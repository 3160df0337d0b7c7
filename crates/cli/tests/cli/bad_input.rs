//! Bad input: one clear sentence, the right exit code, no panic.

use std::path::Path;

use crate::program::{HEIGHT, WIDTH, error_of, pixels, results, run, shelf};

/// Exit code and error of a run in a folder of its own that `prepare` fills.
fn failure(source: &str, more: &[&str], prepare: impl FnOnce(&Path)) -> String {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    let finished = run(folder.path(), source, more);
    assert_ne!(finished.code, 0, "{}", finished.stdout);
    let error = error_of(&finished, folder.path());
    assert!(error.starts_with("error: ") || error.starts_with("skipped: "), "{error}");
    format!("exit {}\n{error}", finished.code)
}

/// As [`failure`], with a file for a source.
fn file_failure(name: &str, content: &[u8]) -> String {
    failure(name, &[], |folder| std::fs::write(folder.join(name), content).unwrap())
}

/// As [`failure`], with a configuration.
fn config_failure(text: &str) -> String {
    failure("phantom", &["--config", "settings.toml"], |folder| {
        std::fs::write(folder.join("settings.toml"), text).unwrap();
    })
}

/// As [`failure`], with a checkpoint made from one of the shelf's.
fn checkpoint_failure(option: &str, of: &Path, change: impl FnOnce(&mut Vec<u8>)) -> String {
    failure("phantom", &[option, "broken.safetensors"], |folder| {
        let mut bytes = std::fs::read(of).unwrap();
        change(&mut bytes);
        std::fs::write(folder.join("broken.safetensors"), bytes).unwrap();
    })
}

fn nothing(_: &Path) {}

#[test]
fn sources() {
    insta::assert_snapshot!("missing_source", failure("nowhere.mha", &[], nothing));
    insta::assert_snapshot!("missing_folder", failure("nowhere", &[], nothing));
    insta::assert_snapshot!("not_a_seed", failure("phantom:x", &[], nothing));
    insta::assert_snapshot!("no_such_kind", file_failure("notes.txt", b"hello"));
    insta::assert_snapshot!(
        "empty_folder",
        failure("empty", &[], |folder| {
            std::fs::create_dir(folder.join("empty")).unwrap();
        })
    );
    insta::assert_snapshot!("network_stream", failure("igtl://127.0.0.1:1", &[], nothing));
    insta::assert_snapshot!("network_stream_without_host", failure("igtl:///Image_Probe", &[], nothing));
    let long_device = "igtl://localhost/a_device_with_a_long_name";
    insta::assert_snapshot!("network_stream_of_no_device", failure(long_device, &[], nothing));
}

#[test]
fn recordings() {
    let whole = std::fs::read(shelf().sequence()).unwrap();
    insta::assert_snapshot!("mha_cut_in_the_header", file_failure("cut.mha", &whole[..200]));
    insta::assert_snapshot!("mha_of_noise", file_failure("noise.mha", &pixels(1, 300, 20)));
    insta::assert_snapshot!("mha_empty", file_failure("empty.mha", b""));
    let with_size = |size: &str| {
        format!("ObjectType = Image\nNDims = 3\nDimSize = {size}\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n")
            .into_bytes()
    };
    insta::assert_snapshot!("mha_of_no_size", file_failure("zero.mha", &with_size("0 0 1")));
    insta::assert_snapshot!(
        "mha_enormous",
        file_failure("enormous.mha", &with_size("4000000000 4000000000 9"))
    );
    insta::assert_snapshot!("mha_negative", file_failure("negative.mha", &with_size("-5 4 1")));
    insta::assert_snapshot!("mha_without_frames", file_failure("none.mha", &with_size("4 4 0")));
    insta::assert_snapshot!("mha_without_pixels", file_failure("no_pixels.mha", &with_size("64 64 1")));
}

#[test]
fn a_recording_that_ends_early_gives_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read(shelf().sequence()).unwrap();
    // Two frames and a half are missing.
    std::fs::write(folder.path().join("cut.mha"), &whole[..whole.len() - WIDTH * HEIGHT * 5 / 2]).unwrap();
    let finished = run(folder.path(), "cut.mha", &[]);
    assert_eq!(finished.code, 0);
    insta::assert_snapshot!(error_of(&finished, folder.path()));
    assert_eq!(results(&folder.path().join("out")).len(), 9);
    assert!(finished.stdout.contains("frames       9, 1 bad ones skipped"), "{}", finished.stdout);
}

#[test]
fn pictures() {
    insta::assert_snapshot!("png_of_noise", file_failure("noise.png", &pixels(1, 300, 20)));
    insta::assert_snapshot!("png_empty", file_failure("empty.png", b""));
    // A PNG whose header asks for 60000 x 60000 pixels.
    let mut header = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\xea\x60\0\0\xea\x60\x08\0\0\0\0".to_vec();
    header.extend(0xa5b9_2a9e_u32.to_be_bytes()); // of the chunk, as it must be
    insta::assert_snapshot!("png_enormous", file_failure("enormous.png", &header));
}

#[test]
fn configurations() {
    insta::assert_snapshot!("config_missing", failure("phantom", &["--config", "nowhere.toml"], nothing));
    insta::assert_snapshot!("config_syntax", config_failure("matcher = \"exact\"\nmax_objects = [\n"));
    insta::assert_snapshot!("config_unknown_key", config_failure("detektor = \"dfine_n\"\n"));
    insta::assert_snapshot!("config_wrong_type", config_failure("\nmax_objects = \"many\"\n"));
    insta::assert_snapshot!("config_out_of_range", config_failure("max_objects = 900\n"));
    insta::assert_snapshot!("config_wrong_word", config_failure("matcher = \"best\"\n"));
    insta::assert_snapshot!("config_tracker", config_failure("[tracker]\nbirth_score = 2.0\n"));
    insta::assert_snapshot!("config_negative", config_failure("[tracker]\nconfirm_hits = -3\n"));
    let not_text = failure("phantom", &["--config", "settings.toml"], |folder| {
        std::fs::write(folder.join("settings.toml"), b"\xff\xfe\0").unwrap();
    });
    insta::assert_snapshot!("config_not_text", not_text);
    insta::assert_snapshot!("config_too_long", config_failure(&"#".repeat((1 << 20) + 1)));
}

#[test]
fn options() {
    insta::assert_snapshot!(
        "no_objects",
        failure("phantom", &["--score-threshold", "0.5", "--max-objects", "0"], nothing)
    );
    insta::assert_snapshot!("threshold_7", failure("phantom", &["--score-threshold", "7"], nothing));
    insta::assert_snapshot!("threshold_nan", failure("phantom", &["--score-threshold", "nan"], nothing));
    insta::assert_snapshot!("no_frames", failure("phantom", &["--frames", "0"], nothing));
    insta::assert_snapshot!("unknown_matcher", failure("phantom", &["--matcher", "best"], nothing));
    insta::assert_snapshot!("unknown_residency", failure("phantom", &["--residency", "moon"], nothing));
    insta::assert_snapshot!("unknown_option", failure("phantom", &["--overlays"], nothing));
}

#[test]
fn unwritable_out() {
    let occupied = |folder: &Path| std::fs::write(folder.join("taken"), "").unwrap();
    insta::assert_snapshot!("out_is_a_file", failure("phantom", &["--out", "taken"], occupied));
    insta::assert_snapshot!("out_below_a_file", failure("phantom", &["--out", "taken/deep"], occupied));
    insta::assert_snapshot!(
        "results_is_a_folder",
        failure("phantom", &[], |folder| {
            std::fs::create_dir_all(folder.join("out/results.jsonl")).unwrap();
        })
    );
    insta::assert_snapshot!(
        "overlays_is_a_file",
        failure("phantom", &["--overlay"], |folder| {
            std::fs::create_dir(folder.join("out")).unwrap();
            std::fs::write(folder.join("out/overlays"), "").unwrap();
        })
    );
}

#[test]
fn models() {
    let shelf = shelf();
    let (detector, segmenter) =
        (shelf.detector().display().to_string(), shelf.segmenter().display().to_string());
    insta::assert_snapshot!(
        "segmenter_as_detector",
        failure("phantom", &["--detector", &segmenter], nothing)
    );
    insta::assert_snapshot!(
        "detector_as_segmenter",
        failure("phantom", &["--segmenter", &detector], nothing)
    );
    insta::assert_snapshot!(
        "segmenter_name_as_detector",
        failure("phantom", &["--detector", "mobile_sam"], nothing)
    );
    let nan = shelf.detector_with_nan().display().to_string();
    insta::assert_snapshot!("nan_in_weights", failure("phantom", &["--detector", &nan], nothing));
    let folder = failure("phantom", &["--detector", "."], nothing);
    assert!(folder.starts_with("exit 1\nerror: `.` is a folder without weights"), "{folder}");

    let unknown = failure("phantom", &["--detector", "yolo"], nothing);
    for part in ["exit 2\n", "'yolo'", "dfine_n", "dfine_x"] {
        assert!(unknown.contains(part), "{unknown}");
    }
    let unknown = failure("phantom", &["--segmenter", "sam3"], nothing);
    assert!(unknown.starts_with("exit 2\n") && unknown.contains("mobile_sam"), "{unknown}");
}

#[test]
fn broken_checkpoints() {
    let (detector, segmenter) = (shelf().detector(), shelf().segmenter());
    let broken = |option, of: &Path, change: fn(&mut Vec<u8>)| checkpoint_failure(option, of, change);
    insta::assert_snapshot!("detector_cut", broken("--detector", &detector, |b| b.truncate(100_000)));
    insta::assert_snapshot!("segmenter_cut", broken("--segmenter", &segmenter, |b| b.truncate(1_000_000)));
    insta::assert_snapshot!("checkpoint_empty", broken("--detector", &detector, Vec::clear));
    insta::assert_snapshot!(
        "checkpoint_of_text",
        broken("--detector", &detector, |b| *b = b"hello there".to_vec())
    );
    insta::assert_snapshot!("header_enormous", broken("--detector", &detector, |b| b[..8].fill(0xff)));
    // Bits of the header turn over: whatever it says then is an error, never a panic.
    let whole = std::fs::read(&detector).unwrap();
    let header = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for at in (8..header).step_by(header / 6) {
        let text = checkpoint_failure("--detector", &detector, |b| b[at] ^= 0x15);
        assert!(text.starts_with("exit 1\nerror: ") || text.starts_with("exit 2\nerror: "), "{text}");
        assert_eq!(text.lines().count(), 2, "one sentence: {text}");
    }
}
