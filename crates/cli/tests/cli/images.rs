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

#[test]
fn a_part_is_looked_at_and_placed_in_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let part = pixels(0, WIDTH, HEIGHT);
    let (left, top, width, height) = (21, 16, WIDTH + 40, HEIGHT + 24);
    let mut screen = vec![0; width * height];
    for (y, row) in part.chunks(WIDTH).enumerate() {
        screen[(top + y) * width + left..][..WIDTH].copy_from_slice(row);
    }
    let save = |name: &str, pixels: &[u8], width: usize, height: usize| {
        image::save_buffer(folder.path().join(name), pixels, width as u32, height as u32, ColorType::L8)
            .unwrap();
    };
    save("part.png", &part, WIDTH, HEIGHT);
    save("screen.png", &screen, width, height);
    let expected = results_of(folder.path(), "part.png", &[]).remove(0);
    let crop = format!("{left},{top},{WIDTH},{HEIGHT}");
    let found = results_of(folder.path(), "screen.png", &["--crop", &crop]).remove(0);
    assert_eq!((&found["width"], &found["height"]), (&width.into(), &height.into()));
    let objects = |line: &serde_json::Value| line["objects"].as_array().unwrap().clone();
    let (expected, found) = (objects(&expected), objects(&found));
    assert!(!expected.is_empty() && expected.len() == found.len());
    for (small, large) in expected.iter().zip(&found) {
        assert_eq!((&small["score"], &small["quality"]), (&large["score"], &large["quality"]));
        let shift = [left, top, left, top];
        for (i, by) in shift.iter().enumerate() {
            let moved = large["box_xyxy"][i].as_f64().unwrap() - small["box_xyxy"][i].as_f64().unwrap();
            assert!((moved - *by as f64).abs() < 1e-3, "{moved} instead of {by}");
        }
        assert_eq!(large["mask"]["size"], serde_json::json!([height, width]));
    }
    let outside = run(folder.path(), "screen.png", &["--crop", "90,0,60,44"]);
    assert_eq!(outside.code, 1);
    assert!(outside.stderr.contains("and not all of the part 90,0,60,44"), "{}", outside.stderr);
}
