//! `eval`: its JSON against what `run` finds, its table, its pictures, and what it refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use image::ColorType;
use serde_json::Value;

use crate::program::{Finished, HEIGHT, WIDTH, error_of, pixels, results_of, shelf, start};

/// A frame's mask: values by pixel.
type MaskOf = fn(usize, usize, usize) -> u8;

/// Two squares of value 1, and from frame 1 on one of value 2.
fn two_classes(frame: usize, x: usize, y: usize) -> u8 {
    let inside = |x0: usize, y0: usize| (x0..x0 + 12).contains(&x) && (y0..y0 + 12).contains(&y);
    let one = inside(2 + frame, 4) || inside(40, 28);
    if inside(40, 4) && frame > 0 { 2 } else { u8::from(one) }
}

/// Images `a_0.png` … in `images/`, with masks of the same names in `masks/`.
fn write(folder: &Path, frames: usize, mask: MaskOf) {
    for sub in ["images", "masks"] {
        std::fs::create_dir_all(folder.join(sub)).unwrap();
    }
    for frame in 0..frames {
        let values: Vec<u8> = (0..WIDTH * HEIGHT).map(|i| mask(frame, i % WIDTH, i / WIDTH)).collect();
        for (sub, bytes) in [("images", &pixels(frame, WIDTH, HEIGHT)), ("masks", &values)] {
            let path = folder.join(sub).join(format!("a_{frame}.png"));
            image::save_buffer(path, bytes, WIDTH as u32, HEIGHT as u32, ColorType::L8).unwrap();
        }
    }
}

/// `ultramotion eval` of `images/` and `masks/` with the small networks.
fn eval(folder: &Path, more: &[&str]) -> Finished {
    let (detector, segmenter) =
        (shelf().detector().display().to_string(), shelf().segmenter().display().to_string());
    let mut arguments = vec!["eval", "--device", "cpu", "--threads", "1"];
    arguments.extend(["--detector", &detector, "--segmenter", &segmenter]);
    arguments.extend(["--score-threshold", "0.05", "--max-objects", "4"]);
    for (option, value) in [("--images", "images"), ("--masks", "masks")] {
        if !more.contains(&option) {
            arguments.extend([option, value]);
        }
    }
    start(folder, &[&arguments, more].concat())
}

fn json(finished: &Finished) -> Value {
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    serde_json::from_str(&finished.stdout).unwrap()
}

/// Detections by label, of the lines of a run.
fn counts(lines: &[Value]) -> BTreeMap<String, u64> {
    let mut by_label = BTreeMap::new();
    for object in lines.iter().flat_map(|line| line["objects"].as_array().unwrap()) {
        *by_label.entry(object["label"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    by_label
}

/// Names for the values 1 and 2: a class that a run of these images finds, and another.
fn classes(by_label: &BTreeMap<String, u64>) -> String {
    let found = by_label.keys().next().expect("the small network answers");
    let other = if found == "structure-0" { "structure-1" } else { "structure-0" };
    format!("{found}=1,{other}=2")
}

#[test]
fn the_figures_are_of_what_the_run_finds() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 3, two_classes);
    let by_label = counts(&results_of(folder.path(), "images", &["--independent"]));
    let classes = classes(&by_label);
    let more = ["--classes", &classes, "--spacing-mm", "0.5", "--overlays", "worst", "--json"];
    let report = json(&eval(folder.path(), &more));
    assert_eq!((&report["frames"], &report["mask_classes"]), (&3.into(), &classes.as_str().into()));
    assert_eq!((&report["device"], &report["sequence"]), (&"cpu".into(), &Value::Null));
    let (mut objects, mut detections) = (0, 0);
    for (name, figures) in report["by_class"].as_object().unwrap() {
        let detection = &figures["detection"];
        let found = by_label.get(name).copied().unwrap_or(0);
        assert_eq!(detection["detections"].as_u64().unwrap(), found, "{name}");
        assert_eq!(detection["precision_at_recall"].as_array().unwrap().len(), 101);
        let ap50 = detection["ap50"].as_f64().unwrap();
        assert!(ap50 >= detection["ap50_95"].as_f64().unwrap() && (0.0..=1.0).contains(&ap50));
        let outlines = &figures["true_boxes"];
        assert_eq!(outlines["outlined"], figures["objects"], "every object is a prompt");
        let [px, mm] =
            ["mean_distance_px", "mean_distance_mm"].map(|key| outlines[key].as_f64().unwrap_or(0.0));
        assert!((px * 0.5 - mm).abs() < 1e-9);
        objects += figures["objects"].as_u64().unwrap();
        detections += found;
    }
    assert_eq!(objects, 3 * 2 + 2);
    assert_eq!(report["overall"]["objects"], objects);
    assert_eq!(report["overall"]["detection"]["detections"], detections);
    let qualities: Vec<f64> =
        report["by_frame"].as_array().unwrap().iter().map(|f| f["quality"].as_f64().unwrap()).collect();
    assert!(qualities.len() == 3 && qualities.is_sorted());
    assert_eq!(std::fs::read_dir(folder.path().join("worst")).unwrap().count(), 3);

    let table = eval(folder.path(), &["--classes", &classes]);
    for line in ["AP50", "recall", "Hausdorff distance 95 %, px", "worst frames", "Research software"] {
        assert!(table.stdout.contains(line), "{line}: {}", table.stdout);
    }
    assert!(!table.stdout.contains(", mm"), "no pixel size is known");
}

#[test]
fn a_sequence_is_tracked_clip_by_clip() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 5, |_, x, y| u8::from((10..40).contains(&x) && (10..30).contains(&y)));
    let lines = results_of(folder.path(), "images", &[]);
    let by_label = counts(&lines);
    let label = by_label.keys().next().unwrap();
    let classes = format!("{label}=1");
    let options = ["--classes", &classes, "--one-per-class", "--sequence", "--json"];
    let report = json(&eval(folder.path(), &options));
    let all = &report["sequence"]["all"];
    assert_eq!((&all["frames"], &all["objects"], &all["structures"]), (&5.into(), &5.into(), &1.into()));
    let of_label = |object: &&Value| object["label"] == label.as_str();
    let ids: BTreeSet<i64> = lines
        .iter()
        .flat_map(|line| line["objects"].as_array().unwrap().iter().filter(of_label))
        .map(|object| object["track_id"].as_i64().unwrap())
        .collect();
    assert_eq!(all["tracks"].as_u64().unwrap(), ids.len() as u64, "as many identities as the run gives");

    // Another clip starts anew: the same frames again give twice the tracks.
    for sub in ["images", "masks"] {
        for frame in 0..5 {
            let path = |clip: &str| folder.path().join(sub).join(format!("{clip}_{frame}.png"));
            std::fs::copy(path("a"), path("b")).unwrap();
        }
    }
    let twice = json(&eval(folder.path(), &options));
    let clips = twice["sequence"]["by_clip"].as_object().unwrap();
    assert_eq!((clips.len(), &clips["a"]), (2, &clips["b"]));
    assert_eq!(twice["sequence"]["all"]["tracks"].as_u64().unwrap(), 2 * ids.len() as u64);
}

#[test]
fn only_a_part_is_evaluated() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 3, two_classes);
    std::fs::write(folder.path().join("split.json"), r#"{"x":{"held_out":["a_1"]}}"#).unwrap();
    let classes = "structure-0=1,structure-1=2";
    let frames = |part: &str| {
        let more = ["--classes", classes, "--split", "split.json", "--part", part, "--json"];
        json(&eval(folder.path(), &more))["frames"].as_u64().unwrap()
    };
    assert_eq!((frames("held_out"), frames("train")), (1, 2));
}

/// Exit code and error of an evaluation.
fn failure(prepare: impl FnOnce(&Path), more: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 2, two_classes);
    prepare(folder.path());
    let finished = eval(folder.path(), more);
    format!("exit {}\n{}", finished.code, error_of(&finished, folder.path()))
}

#[test]
fn what_is_wrong_is_said_in_a_sentence() {
    const KNOWN: [&str; 2] = ["--classes", "structure-0=1,structure-1=2"];
    let nothing = |_: &Path| {};
    let with = |more: &[&'static str]| [&KNOWN[..], more].concat();
    insta::assert_snapshot!("no_such_masks", failure(nothing, &["--masks", "nowhere"]));
    insta::assert_snapshot!("no_such_images", failure(nothing, &["--images", "nowhere"]));
    insta::assert_snapshot!(
        "no_mask_fits",
        failure(
            |folder| {
                std::fs::create_dir(folder.join("others")).unwrap();
                std::fs::write(folder.join("others/b.png"), b"").unwrap();
            },
            &["--masks", "others"],
        )
    );
    insta::assert_snapshot!(
        "classes_that_the_detector_does_not_know",
        failure(nothing, &["--classes", "bone=1"])
    );
    insta::assert_snapshot!("classes_unreadable", failure(nothing, &["--classes", "bone"]));
    insta::assert_snapshot!("value_without_a_class", failure(nothing, &["--classes", "structure-0=1"]));
    insta::assert_snapshot!(
        "mask_of_another_size",
        failure(
            |folder| {
                image::save_buffer(folder.join("masks/a_1.png"), &[0; 6], 3, 2, ColorType::L8).unwrap();
            },
            &KNOWN,
        )
    );
    insta::assert_snapshot!(
        "mask_damaged",
        failure(|folder| std::fs::write(folder.join("masks/a_1.png"), b"no picture").unwrap(), &KNOWN,)
    );
    insta::assert_snapshot!(
        "image_damaged",
        failure(|folder| std::fs::write(folder.join("images/a_1.png"), b"no picture").unwrap(), &KNOWN,)
    );
    insta::assert_snapshot!(
        "no_known_convention",
        failure(
            |folder| {
                let values: Vec<u8> = (0..WIDTH * HEIGHT).map(|i| (i % 7) as u8).collect();
                let path = folder.join("masks/a_1.png");
                image::save_buffer(path, &values, WIDTH as u32, HEIGHT as u32, ColorType::L8).unwrap();
            },
            &[],
        )
    );
    insta::assert_snapshot!("spacing_unreadable", failure(nothing, &with(&["--spacing-mm", "wide"])));
    insta::assert_snapshot!("split_missing", failure(nothing, &with(&["--split", "split.json"])));
    insta::assert_snapshot!(
        "part_is_empty",
        failure(
            |folder| std::fs::write(folder.join("split.json"), r#"{"x":{"held_out":["z"]}}"#).unwrap(),
            &with(&["--split", "split.json"]),
        )
    );
    insta::assert_snapshot!("overlays_in_a_full_folder", failure(nothing, &with(&["--overlays", "images"])));
    insta::assert_snapshot!(
        "frame_rate_of_nothing",
        failure(nothing, &with(&["--sequence", "--frame-rate", "0"]),)
    );
    let contradiction = failure(nothing, &with(&["--sequence", "--independent"]));
    assert!(contradiction.starts_with("exit 2\n"), "{contradiction}");
}
