//! MOTChallenge's text form of tracks: a line an object, `frame,id,left,top,width,height,score,class,visibility`
//! (Milan et al., "MOT16: a benchmark for multi-object tracking", 2016, table 2).

use std::io::Write;
use std::path::{Path, PathBuf};

use ultramotion_types::{Frame, RecordedLine};

use super::Exporter;
use super::draft::Draft;
use super::labels::Labels;
use crate::error::MediaError;

/// Tracks in MOTChallenge's form, and the names of their classes, a line each, in a file beside it: `tracks.labels.txt` for
/// `tracks.txt`.
///
/// Frames and classes are counted from 1, pixels from 0 as in the results; how much of an object is visible is not known,
/// and said to be all of it.
#[derive(Debug)]
pub struct MotFile {
    tracks: Draft,
    names: Draft,
    labels: Labels,
}

impl MotFile {
    /// Begins both files.
    ///
    /// # Errors
    /// Where they cannot be written.
    pub fn create(path: &Path) -> Result<Self, MediaError> {
        let names = Draft::create(&Self::labels_path(path))?;
        Ok(Self { tracks: Draft::create(path)?, names, labels: Labels::default() })
    }

    /// Where the names of the classes of a file are.
    pub fn labels_path(path: &Path) -> PathBuf {
        path.with_extension("labels.txt")
    }
}

impl Exporter for MotFile {
    fn take(&mut self, line: &RecordedLine, _frame: Option<&Frame>) -> Result<(), MediaError> {
        let frame = line.frame_id.saturating_add(1);
        for object in &line.objects {
            let class = self.labels.number(&object.label);
            let [x1, y1, x2, y2] = object.box_xyxy;
            let (id, score, width, height) = (object.track_id, object.score, x2 - x1, y2 - y1);
            writeln!(self.tracks, "{frame},{id},{x1:.3},{y1:.3},{width:.3},{height:.3},{score:.4},{class},1")
                .map_err(self.tracks.cannot_write())?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), MediaError> {
        for label in self.labels.in_order() {
            // A line is a name.
            let label = label.replace(char::is_control, " ");
            writeln!(self.names, "{label}").map_err(self.names.cannot_write())?;
        }
        self.names.finish()?;
        self.tracks.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{line, object};
    use super::*;

    #[test]
    fn frames_and_classes_are_counted_from_1() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tracks.txt");
        let mut file = Box::new(MotFile::create(&path).unwrap());
        file.take(&line(0, vec![object(7, "vessel", [1, 2, 5, 8]), object(9, "a\nb", [0, 0, 2, 2])]), None)
            .unwrap();
        file.take(&line(4, vec![object(9, "vessel", [0, 0, 2, 2])]), None).unwrap();
        file.finish().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let expected = "1,7,1.000,2.000,4.000,6.000,0.7500,1,1\n1,9,0.000,0.000,2.000,2.000,0.7500,2,1\n\
                        5,9,0.000,0.000,2.000,2.000,0.7500,1,1\n";
        assert_eq!(text, expected);
        let names = std::fs::read_to_string(folder.path().join("tracks.labels.txt")).unwrap();
        assert_eq!(names, "vessel\na b\n");
    }
}
