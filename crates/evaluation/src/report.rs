//! What an evaluation found: one JSON object, or a table for people.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::identities::TrackingFigures;
use super::tally::Figures;

/// Everything that is reported: serialised it is one JSON object, displayed a table.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub(crate) images: String,
    pub(crate) masks: String,
    /// Frames that were evaluated.
    pub(crate) frames: usize,
    pub(crate) images_without_mask: usize,
    /// `held_out of FILE`.
    pub(crate) part: Option<String>,
    /// Values of the masks, as `--classes` takes them.
    pub(crate) mask_classes: String,
    /// One object a class and frame, rather than one a connected component.
    pub(crate) one_per_class: bool,
    pub(crate) detector: String,
    pub(crate) segmenter: String,
    pub(crate) device: &'static str,
    pub(crate) threads: usize,
    pub(crate) precision: &'static str,
    pub(crate) score_threshold: f32,
    pub(crate) max_objects: usize,
    pub(crate) max_overlap_iou: f32,
    pub(crate) by_class: BTreeMap<String, Figures>,
    pub(crate) overall: Figures,
    /// With `--sequence`.
    pub(crate) sequence: Option<SequenceReport>,
    /// Worst first.
    pub(crate) by_frame: Vec<FrameFigures>,
}

/// Identities over all clips, and by clip.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct SequenceReport {
    pub frames_per_second: f64,
    pub all: TrackingFigures,
    pub by_clip: BTreeMap<String, TrackingFigures>,
}

/// One frame at the run's threshold.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct FrameFigures {
    pub name: String,
    pub objects: usize,
    pub missed: usize,
    /// Detections without an object.
    pub wrong: usize,
    /// Sum of the Dice of what was found, over objects and wrong detections: 1 is a perfect frame, 0 one where nothing
    /// is right.
    pub quality: f64,
}

impl FrameFigures {
    pub(crate) fn new(name: &str, dice: &[f64], objects: usize, detections: usize) -> Self {
        let (missed, wrong) = (objects - dice.len(), detections - dice.len());
        let all = objects + wrong;
        let quality = if all == 0 { 1.0 } else { dice.iter().fold(0.0, |sum, dice| sum + dice) / all as f64 };
        FrameFigures { name: name.to_owned(), objects, missed, wrong, quality }
    }
}

/// A cell of the table: digits after the point, if it is no count.
#[derive(Debug, Clone, Copy)]
enum Cell {
    Count(usize),
    Share(Option<f64>),
    Length(Option<f64>),
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Cell::Count(count) => count.to_string(),
            Cell::Share(Some(share)) => format!("{share:.3}"),
            Cell::Length(Some(length)) => format!("{length:.2}"),
            Cell::Share(None) | Cell::Length(None) => "-".to_owned(),
        };
        f.pad(&text)
    }
}

/// A line of the table: its name, and how a column's figure is found.
type Row = (&'static str, fn(&Figures) -> Cell);

const ROWS: [(&str, &[Row]); 4] = [
    (
        "detection",
        &[
            ("true objects", |f| Cell::Count(f.objects)),
            ("AP50", |f| Cell::Share(f.detection.ap50)),
            ("AP50:95", |f| Cell::Share(f.detection.ap50_95)),
            ("AP50, overlapping ones dropped", |f| Cell::Share(f.detection.ap50_by_pipeline_rules)),
            ("AP50:95, overlapping ones dropped", |f| Cell::Share(f.detection.ap50_95_by_pipeline_rules)),
        ],
    ),
    (
        "the run, at its threshold",
        &[
            ("detections", |f| Cell::Count(f.detection.detections)),
            ("  right, box IoU 0.5 or more", |f| Cell::Count(f.detection.right)),
            ("precision", |f| Cell::Share(f.detection.precision)),
            ("recall", |f| Cell::Share(f.detection.recall)),
            ("frames with objects", |f| Cell::Count(f.frames)),
            ("  of them without an answer", |f| Cell::Count(f.detection.frames_without_answer)),
        ],
    ),
    (
        "outlines end to end, of what was found",
        &[
            ("Dice", |f| Cell::Share(f.end_to_end.outlines.dice)),
            ("  a tenth is below", |f| Cell::Share(f.end_to_end.outlines.dice_p10)),
            ("  with missed objects as 0", |f| Cell::Share(f.end_to_end.dice_of_all)),
            ("IoU", |f| Cell::Share(f.end_to_end.outlines.iou)),
            ("Hausdorff distance 95 %, px", |f| Cell::Length(f.end_to_end.outlines.hausdorff95_px)),
            ("mean surface distance, px", |f| Cell::Length(f.end_to_end.outlines.mean_distance_px)),
            ("Hausdorff distance 95 %, mm", |f| Cell::Length(f.end_to_end.outlines.hausdorff95_mm)),
            ("mean surface distance, mm", |f| Cell::Length(f.end_to_end.outlines.mean_distance_mm)),
            ("empty outlines", |f| Cell::Count(f.end_to_end.outlines.empty)),
        ],
    ),
    (
        "outlines in true boxes",
        &[
            ("Dice", |f| Cell::Share(f.true_boxes.dice)),
            ("  a tenth is below", |f| Cell::Share(f.true_boxes.dice_p10)),
            ("IoU", |f| Cell::Share(f.true_boxes.iou)),
            ("Hausdorff distance 95 %, px", |f| Cell::Length(f.true_boxes.hausdorff95_px)),
            ("mean surface distance, px", |f| Cell::Length(f.true_boxes.mean_distance_px)),
            ("Hausdorff distance 95 %, mm", |f| Cell::Length(f.true_boxes.hausdorff95_mm)),
            ("mean surface distance, mm", |f| Cell::Length(f.true_boxes.mean_distance_mm)),
            ("empty outlines", |f| Cell::Count(f.true_boxes.empty)),
        ],
    ),
];

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = self.part.as_ref().map(|part| format!(" ({part})")).unwrap_or_default();
        writeln!(f, "images       {}, {} evaluated{part}", self.images, self.frames)?;
        if self.images_without_mask > 0 {
            writeln!(f, "             {} have no mask and are left out", self.images_without_mask)?;
        }
        let rule = if self.one_per_class {
            "one object a class and frame"
        } else {
            "an object a connected component"
        };
        writeln!(f, "masks        {}: {}, {rule}", self.masks, self.mask_classes)?;
        writeln!(f, "models       {}, {}", self.detector, self.segmenter)?;
        writeln!(f, "device       {}, {} threads, {}", self.device, self.threads, self.precision)?;
        let frames = if self.sequence.is_some() { "tracked" } else { "independent" };
        writeln!(
            f,
            "run          score threshold {}, at most {} objects, overlaps above IoU {} dropped, frames {frames}",
            self.score_threshold, self.max_objects, self.max_overlap_iou
        )?;
        self.table(f)?;
        if let Some(sequence) = &self.sequence {
            write!(f, "{sequence}")?;
        }
        let worst: Vec<String> = self
            .by_frame
            .iter()
            .take(3)
            .map(|frame| {
                format!(
                    "{} ({} missed, {} wrong, {:.2})",
                    frame.name, frame.missed, frame.wrong, frame.quality
                )
            })
            .collect();
        writeln!(f, "worst frames {}", worst.join(", "))
    }
}

impl Report {
    fn table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One class alone is the same as all of them.
        let mut columns: Vec<(&str, &Figures)> =
            self.by_class.iter().map(|(name, figures)| (name.as_str(), figures)).collect();
        if columns.len() != 1 {
            columns.push(("overall", &self.overall));
        }
        let width = columns.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).max(9) + 1;
        write!(f, "\n{:<36}", "")?;
        for (name, _) in &columns {
            write!(f, "{name:>width$}")?;
        }
        writeln!(f)?;
        for (title, rows) in ROWS {
            writeln!(f, "{title}")?;
            for (name, cell) in rows {
                let cells: Vec<Cell> = columns.iter().map(|(_, figures)| cell(figures)).collect();
                // Millimetres that nobody knows are not worth a line.
                if name.ends_with("mm") && cells.iter().all(|cell| matches!(cell, Cell::Length(None))) {
                    continue;
                }
                write!(f, "  {name:<34}")?;
                for cell in cells {
                    write!(f, "{cell:>width$}")?;
                }
                writeln!(f)?;
            }
        }
        writeln!(f)
    }
}

impl fmt::Display for SequenceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "identities, at {} frames a second", self.frames_per_second)?;
        writeln!(
            f,
            "  {:<28} {:>7} {:>10} {:>7} {:>9} {:>7} {:>7} {:>7} {:>9} {:>9}",
            "clip",
            "frames",
            "structures",
            "tracks",
            "switches",
            "missed",
            "false",
            "MOTA",
            "coverage",
            "longest"
        )?;
        let clips = self
            .by_clip
            .iter()
            .map(|(clip, figures)| (if clip.is_empty() { "the folder" } else { clip.as_str() }, figures));
        let all = (self.by_clip.len() != 1).then_some(("all", &self.all));
        for (clip, t) in clips.chain(all) {
            writeln!(
                f,
                "  {clip:<28} {:>7} {:>10} {:>7} {:>9} {:>7} {:>7} {:>7} {:>9} {:>9}",
                t.frames,
                t.structures,
                t.tracks,
                t.identity_switches,
                t.missed,
                t.false_boxes,
                Cell::Share(t.mota),
                Cell::Share(t.coverage),
                Cell::Share(t.longest_share),
            )?;
        }
        writeln!(f)
    }
}
