//! A table with a row an object, as CSV (RFC 4180).

use std::path::Path;

use serde::Serialize;
use ultramotion_types::{Frame, RecordedLine, RecordedObject};

use super::Exporter;
use super::draft::Draft;
use crate::error::MediaError;

/// A row an object: where and when it is, how large, how deep. Its first row names the columns.
///
/// Diameters are Feret's, of the mask along the edges of its pixels; `depth_mm` is that of the middle of its pixels below the
/// image's top edge. What is in millimetres is empty where the size of a pixel is not known, and what is measured where a mask
/// is empty.
#[derive(Debug)]
pub struct ObjectTable {
    rows: csv::Writer<Draft>,
}

/// The columns, in their order.
#[derive(Default, Serialize)]
struct Row<'a> {
    frame: u64,
    time_s: f64,
    label: &'a str,
    track_id: i32,
    confirmed: bool,
    score: f32,
    left: f32,
    top: f32,
    right: f32,
    bottom: f32,
    area_px: usize,
    area_mm2: Option<f64>,
    largest_diameter_px: Option<f64>,
    smallest_diameter_px: Option<f64>,
    largest_diameter_mm: Option<f64>,
    smallest_diameter_mm: Option<f64>,
    depth_mm: Option<f64>,
    quality_mean: Option<f32>,
}

const COLUMNS: [&str; 18] = [
    "frame",
    "time_s",
    "label",
    "track_id",
    "confirmed",
    "score",
    "left",
    "top",
    "right",
    "bottom",
    "area_px",
    "area_mm2",
    "largest_diameter_px",
    "smallest_diameter_px",
    "largest_diameter_mm",
    "smallest_diameter_mm",
    "depth_mm",
    "quality_mean",
];

impl ObjectTable {
    /// Begins a table.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn create(path: &Path) -> Result<Self, MediaError> {
        let file = Draft::create(path)?;
        let cannot_write = file.cannot_write();
        // By hand: a table without rows has columns too.
        let mut rows = csv::WriterBuilder::new().has_headers(false).from_writer(file);
        rows.write_record(COLUMNS).map_err(|error| cannot_write(error.into()))?;
        Ok(Self { rows })
    }
}

impl Exporter for ObjectTable {
    fn take(&mut self, line: &RecordedLine, frame: Option<&Frame>) -> Result<(), MediaError> {
        let spacing_mm = frame.and_then(Frame::known_spacing_mm);
        for object in &line.objects {
            let row = row(line, object, spacing_mm).map_err(|problem| self.rows.get_ref().export(problem))?;
            self.rows.serialize(row).map_err(|error| self.rows.get_ref().cannot_write()(error.into()))?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), MediaError> {
        let cannot_write = self.rows.get_ref().cannot_write();
        let file = self.rows.into_inner().map_err(|error| cannot_write(error.into_error()))?;
        file.finish()
    }
}

fn row<'a>(
    line: &RecordedLine,
    object: &'a RecordedObject,
    spacing_mm: Option<[f64; 2]>,
) -> Result<Row<'a>, String> {
    let mask = object.mask().map_err(|error| error.to_string())?;
    let mask = mask.view();
    let [left, top, right, bottom] = object.box_xyxy;
    let in_px = mask.feret_diameters([1.0; 2]);
    let in_mm = spacing_mm.and_then(|spacing| mask.feret_diameters(spacing));
    let depth_mm = spacing_mm.zip(mask.centroid_px()).map(|([_, height], [_, y])| (y + 0.5) * height);
    Ok(Row {
        frame: line.frame_id,
        time_s: line.timestamp_s,
        label: &object.label,
        track_id: object.track_id,
        confirmed: object.confirmed,
        score: object.score,
        left,
        top,
        right,
        bottom,
        area_px: mask.area_px(),
        area_mm2: rounded(spacing_mm.map(|[width, height]| mask.area_px() as f64 * width * height)),
        largest_diameter_px: rounded(in_px.map(|diameters| diameters.largest)),
        smallest_diameter_px: rounded(in_px.map(|diameters| diameters.smallest)),
        largest_diameter_mm: rounded(in_mm.map(|diameters| diameters.largest)),
        smallest_diameter_mm: rounded(in_mm.map(|diameters| diameters.smallest)),
        depth_mm: rounded(depth_mm),
        quality_mean: object.quality.map(|quality| quality.mean),
    })
}

/// Four decimals: no pixel of a scanner is so small.
fn rounded(value: Option<f64>) -> Option<f64> {
    value.map(|value| (value * 1e4).round() / 1e4)
}

#[cfg(test)]
mod tests {
    use ultramotion_types::{CocoRle, Quality};

    use super::super::testing::{line, object};
    use super::*;

    fn written(lines: &[RecordedLine], frame: Option<&Frame>) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("objects.csv");
        let mut table = Box::new(ObjectTable::create(&path).unwrap());
        lines.iter().for_each(|line| table.take(line, frame).unwrap());
        table.finish().unwrap();
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_row_has_what_its_columns_say() {
        let mut rich = object(7, "vessel, \"left\"", [1, 2, 13, 7]);
        rich.quality = Some(Quality { mean: 0.5, ..Quality::default() });
        let mut empty = object(8, "bone", [0, 0, 0, 0]);
        empty.mask = CocoRle { size: [12, 16], counts: "P6".into() };
        let lines = [line(3, vec![rich, empty])];
        let frame = Frame { spacing_mm: Some([0.25, 2.0]), ..Frame::default() };
        let text = written(&lines, Some(&frame));
        let expected = "frame,time_s,label,track_id,confirmed,score,left,top,right,bottom,area_px,area_mm2,largest_diameter_px,\
                        smallest_diameter_px,largest_diameter_mm,smallest_diameter_mm,depth_mm,quality_mean\n\
                        3,0.12,\"vessel, \"\"left\"\"\",7,true,0.75,1.0,2.0,13.0,7.0,60,30.0,13.0,5.0,10.4403,3.0,9.0,0.5\n\
                        3,0.12,bone,8,true,0.75,0.0,0.0,0.0,0.0,0,0.0,,,,,,\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn without_the_size_of_a_pixel_there_are_no_millimetres() {
        let lines = [line(0, vec![object(7, "vessel", [1, 2, 13, 7])])];
        let unknown = Frame { spacing_mm: Some([1.0; 2]), ..Frame::default() };
        for frame in [None, Some(&unknown), Some(&Frame::default())] {
            let text = written(&lines, frame);
            let row = "0,0.0,vessel,7,true,0.75,1.0,2.0,13.0,7.0,60,,13.0,5.0,,,,";
            assert_eq!(text.lines().nth(1), Some(row));
        }
        assert_eq!(written(&[], None).lines().count(), 1);
    }
}
