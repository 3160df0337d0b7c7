//! Images and folders of images.

use std::path::Path;

use image::ColorType;

use crate::program::{HEIGHT, WIDTH, pixels, results, results_of, run};

fn png(path: &Path, width: usize, height: usize, color: ColorType) {
    let grey = pixels(0, width, height);
    let bytes = match color {
        ColorType::Rgb8 => grey.iter().flat_map(|&p| [p, p / 2, 255 - p]).collect(),
        _ => grey,
    };
    image::save_buffer(path, &bytes, width as u32, height as u32, color).unwrap();
}

#[test]
fn a_folder_of_mixed_sizes_and_colours() {
    let folder = tempfile::tempdir().unwrap();
    let stills = folder.path().join("stills");
    std::fs::create_dir(&stills).unwrap();
    let kinds = [
        ("1.png", 60, 44, ColorType::L8),
        ("2.png", 80, 33, ColorType::L8),
        ("10.png", 60, 44, ColorType::Rgb8),
        ("3.jpg", 31, 77, ColorType::Rgb8),
        ("11.png", 1, 1, ColorType::L8),
        ("4.png", 60, 44, ColorType::L8),
    ];
    for (name, width, height, color) in kinds {
        png(&stills.join(name), width, height, color);
    }
    let lines = results_of(folder.path(), "stills", &["--overlay"]);
    let sizes: Vec<_> =
        lines.iter().map(|l| (l["width"].as_u64().unwrap(), l["height"].as_u64().unwrap())).collect();
    assert_eq!(
        sizes,
        [(60, 44), (80, 33), (31, 77), (60, 44), (60, 44), (1, 1)],
        "in the order of their numbers"
    );
    for line in &lines {
        for object in line["objects"].as_array().unwrap() {
            assert_eq!(object["mask"]["size"], serde_json::json!([line["height"], line["width"]]));
        }
    }
    assert_eq!(std::fs::read_dir(folder.path().join("out/overlays")).unwrap().count(), 6);
}

#[test]
fn a_bad_image_among_good_ones_is_reported_counted_and_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let stills = folder.path().join("stills");
    std::fs::create_dir(&stills).unwrap();
    for name in ["a.png", "b.png", "d.png", "f.png"] {
        png(&stills.join(name), WIDTH, HEIGHT, ColorType::L8);
    }
    let whole = std::fs::read(stills.join("a.png")).unwrap();
    std::fs::write(stills.join("b.png"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(stills.join("c.jpg"), b"no picture at all").unwrap();
    std::fs::write(stills.join("e.png"), b"").unwrap();
    let finished = run(folder.path(), "stills", &[]);
    assert_eq!(finished.code, 0, "{}", finished.stderr);
    let skipped: Vec<&str> = finished.stderr.lines().collect();
    assert_eq!(skipped.len(), 3, "{skipped:?}");
    for (line, name) in skipped.iter().zip(["b.png", "c.jpg", "e.png"]) {
        assert!(line.starts_with("skipped: ") && line.contains(name), "{line}");
    }
    assert!(finished.stdout.contains("frames       3, 3 bad ones skipped"), "{}", finished.stdout);
    let ids: Vec<u64> =
        results(&folder.path().join("out")).iter().map(|l| l["frame_id"].as_u64().unwrap()).collect();
    assert_eq!(ids, [0, 3, 5], "skipped frames keep their numbers");
}

#[test]
fn a_single_image() {
    let folder = tempfile::tempdir().unwrap();
    png(&folder.path().join("one.png"), 50, 40, ColorType::L8);
    let lines = results_of(folder.path(), "one.png", &[]);
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["source"], "one.png");
}
