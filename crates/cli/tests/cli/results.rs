//! `results.jsonl`, field by field.

use serde_json::{Map, Value};
use ultramotion_media::metaimage::{Layout, SequenceWriter};
use ultramotion_types::CocoRle;

use crate::program::{HEIGHT, WIDTH, pixels, results_of, run, shelf, time_s};

fn object<'a>(value: &'a Value, keys: &[&str]) -> &'a Map<String, Value> {
    let map = value.as_object().unwrap();
    let mut expected = keys.to_vec();
    expected.sort_unstable();
    let mut got: Vec<&str> = map.keys().map(String::as_str).collect();
    got.sort_unstable();
    assert_eq!(got, expected);
    map
}

#[test]
fn every_field_is_there_and_means_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let source = shelf().sequence().display().to_string();
    let lines = results_of(folder.path(), &source, &[]);
    assert_eq!(lines.len(), 12);
    let mut objects_seen = 0;
    for (i, line) in lines.iter().enumerate() {
        let line = object(
            line,
            &[
                "frame_id",
                "timestamp",
                "source",
                "width",
                "height",
                "state",
                "objects",
                "latency_ms",
                "transfers",
                "device",
                "modes",
            ],
        );
        assert_eq!(line["frame_id"], i);
        assert_eq!(line["timestamp"].as_f64(), Some(time_s(i)), "the source's own time");
        assert_eq!(line["source"], source);
        assert_eq!((&line["width"], &line["height"]), (&WIDTH.into(), &HEIGHT.into()));
        assert!(["VISIBLE", "RELOCALIZING", "LOST"].contains(&line["state"].as_str().unwrap()));
        assert_eq!(line["device"], "cpu");
        let modes = object(&line["modes"], &["residency", "matcher", "precision"]);
        assert_eq!((&modes["residency"], &modes["matcher"]), (&"device".into(), &"exact".into()));
        assert_eq!(modes["precision"], "f32");

        let latency =
            object(&line["latency_ms"], &["total", "upload", "detect", "match", "segment", "download"]);
        let ms = |key: &str| latency[key].as_f64().unwrap();
        let parts = ["upload", "detect", "match", "segment", "download"].map(ms);
        assert!(parts.iter().all(|&p| p >= 0.0));
        assert!(parts.iter().sum::<f64>() <= ms("total"), "{latency:?}");

        let transfers = object(
            &line["transfers"],
            &["h2d", "h2d_bytes", "d2h", "d2h_bytes", "host_syncs", "allocations"],
        );
        let counts = ["h2d", "d2h", "host_syncs", "allocations"].map(|k| transfers[k].as_u64().unwrap());
        assert_eq!(counts, [1, 1, 1, 0], "frame {i}");
        assert!(transfers["h2d_bytes"].as_u64().unwrap() >= (WIDTH * HEIGHT) as u64);
        assert!(transfers["d2h_bytes"].as_u64().unwrap() >= (HEIGHT * WIDTH.div_ceil(8)) as u64);

        let objects = line["objects"].as_array().unwrap();
        assert!(objects.len() <= 4, "--max-objects 4");
        objects_seen += objects.len();
        let mut last_score = 1.0;
        let mut ids = Vec::new();
        for entry in objects {
            let entry = object(
                entry,
                &["track_id", "confirmed", "label", "score", "box_xyxy", "mask", "mask_score", "quality"],
            );
            ids.push(entry["track_id"].as_i64().unwrap());
            assert!(entry["confirmed"].is_boolean());
            assert!(entry["label"].as_str().unwrap().starts_with("structure-"));
            let score = entry["score"].as_f64().unwrap();
            assert!((0.05..=last_score).contains(&score), "best first: {score} after {last_score}");
            last_score = score;
            let corners: Vec<f64> =
                entry["box_xyxy"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
            let [x1, y1, x2, y2] = corners[..] else { panic!("four corners: {corners:?}") };
            assert!(x1 <= x2 && y1 <= y2);
            assert!(entry["mask_score"].is_number());
            let scores = ["edge", "contrast", "continuity", "stability", "likeness", "mean"];
            let quality = object(&entry["quality"], &scores);
            assert!(scores.iter().all(|score| (0.0..=1.0).contains(&quality[*score].as_f64().unwrap())));
            let mask = object(&entry["mask"], &["size", "counts"]);
            assert_eq!(mask["size"], serde_json::json!([HEIGHT, WIDTH]));
            let rle: CocoRle = serde_json::from_value(entry["mask"].clone()).unwrap();
            let mask = rle.decode().unwrap();
            assert_eq!((mask.view().width(), mask.view().height()), (WIDTH, HEIGHT));
        }
        assert!(ids.iter().all(|&id| id > 0));
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), objects.len(), "one identity for one object");
    }
    assert!(objects_seen > 0);
}

#[test]
fn two_runs_give_the_same() {
    let strip = |mut line: Value| {
        line.as_object_mut().unwrap().remove("latency_ms").unwrap();
        line
    };
    let source = shelf().sequence().display().to_string();
    let runs = [["--threads", "1"], ["--threads", "1"], ["--threads", "2"]].map(|threads| {
        let folder = tempfile::tempdir().unwrap();
        results_of(folder.path(), &source, &threads).into_iter().map(strip).collect::<Vec<_>>()
    });
    assert_eq!(runs[0], runs[1]);
    assert_eq!(runs[0], runs[2], "the number of threads changes nothing");
}

#[test]
fn the_phantom_starts_with_its_seed() {
    let folder = tempfile::tempdir().unwrap();
    let one = results_of(folder.path(), "phantom:7", &["--frames", "2", "--overlay"]);
    assert_eq!(one.len(), 2);
    assert_eq!(one[0]["source"], "phantom:7");
    for frame in ["000000.png", "000001.png"] {
        let picture = image::open(folder.path().join("out/overlays").join(frame)).unwrap();
        assert_eq!(picture.width() as u64, one[0]["width"].as_u64().unwrap());
    }
}

#[test]
fn timestamps_in_milliseconds_are_said_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ms.mha");
    let layout = Layout { compressed: false, ..Layout::grey8(WIDTH, HEIGHT) };
    let mut writer = SequenceWriter::create(&path, layout).unwrap();
    for i in 0..24 {
        writer.write_raw(&pixels(i, WIDTH, HEIGHT), 1000.0 + 40.0 * i as f64, &[]).unwrap();
    }
    writer.finish().unwrap();
    let words = |more: &[&str]| {
        let finished = run(folder.path(), "ms.mha", more);
        assert_eq!(finished.code, 0, "{}", finished.stderr);
        finished.stderr.lines().filter(|line| line.contains("they are likely milliseconds")).count()
    };
    assert_eq!((words(&[]), words(&["--independent"])), (1, 0));
}
