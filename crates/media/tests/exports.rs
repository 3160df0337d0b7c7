//! Lines that no run wrote: each is refused, or exported as whatever it says.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use ultramotion_media::results::parse_line;
use ultramotion_media::sink::export::{
    CocoFile, Exporter, LabelImages, MotFile, ObjectTable, SegmentationFile,
};
use ultramotion_types::{BitMask, CocoRle};

/// A line as a run writes it, of three objects that overlap.
fn line() -> String {
    let object = |track_id: usize| {
        let mask = BitMask::from_fn(12, 9, |x, y| x >= track_id && x < 4 + track_id && y > 2);
        serde_json::json!({
            "track_id": track_id, "confirmed": true, "label": "vessel", "score": 0.5, "box_xyxy": [track_id, 3, 4, 9],
            "mask": CocoRle::encode(mask.view()), "mask_score": 0.25,
        })
    };
    let objects: Vec<_> = (1..4).map(object).collect();
    let line = serde_json::json!({
        "frame_id": 3, "timestamp": 0.12, "source": "a.mha", "width": 12, "height": 9, "state": "LOST", "objects": objects,
    });
    line.to_string()
}

/// Exports a line in every form, twice of the same frame, as `run` and `export` would.
fn export(text: &[u8]) -> Result<(), String> {
    let line = parse_line(text)?;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let exporters: [Box<dyn Exporter>; 5] = [
        Box::new(CocoFile::create(&path("a.json")).unwrap()),
        Box::new(MotFile::create(&path("a.txt")).unwrap()),
        Box::new(ObjectTable::create(&path("a.csv")).unwrap()),
        Box::new(LabelImages::create(&path("masks")).unwrap()),
        Box::new(SegmentationFile::create(&path("a.seg.nrrd")).unwrap()),
    ];
    for mut exporter in exporters {
        exporter.take(&line, None).and_then(|()| exporter.finish()).map_err(|error| error.to_string())?;
    }
    let coco: serde_json::Value = serde_json::from_slice(&std::fs::read(path("a.json")).unwrap()).unwrap();
    assert_eq!(coco["annotations"].as_array().unwrap().len(), line.objects.len());
    Ok(())
}

#[test]
fn the_line_itself_is_exported() {
    export(line().as_bytes()).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn damage_is_refused_or_exported(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), "[ -~]"), 1..4),
    ) {
        let mut text = line().into_bytes();
        for (at, byte) in changes {
            let at = at.index(text.len());
            text[at] = byte.as_bytes()[0];
        }
        // Either way it comes back; frames as large as a line may claim are not worth the time here.
        if parse_line(&text).is_ok_and(|line| line.width * line.height < 1 << 20) {
            let _ = export(&text);
        }
    }
}
