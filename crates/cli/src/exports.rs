//! What is made from results for other tools, as options: `run` makes it as it goes, `export` later.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use indicatif::ProgressBar;
use ultramotion_media::MediaError;
use ultramotion_media::results::parse_line;
use ultramotion_media::sink::export::{
    CocoFile, Exporter, LabelImages, MotFile, ObjectTable, SegmentationFile, VideoFile,
};
use ultramotion_types::{Frame, RecordedLine};

use crate::output::{self, OutputError, say};
use crate::usage::usage;

/// Which files, and where.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(
    next_help_heading = "Files for other tools, made from results.jsonl; one that is there is replaced"
)]
pub(crate) struct ExportArgs {
    /// COCO instances with run-length masks, and track_id and score of each: CVAT, Label Studio, FiftyOne
    #[arg(long, value_name = "FILE.json")]
    coco: Option<PathBuf>,
    /// MOTChallenge tracks, frames from 1; FILE.labels.txt beside it names the classes
    #[arg(long, value_name = "FILE.txt")]
    mot: Option<PathBuf>,
    /// A row an object: time, label, identity, score, box, area and diameters in px and mm, depth
    #[arg(long, value_name = "FILE.csv")]
    csv: Option<PathBuf>,
    /// A PNG a frame whose values are its objects, 1 and up; labels.csv says which
    #[arg(long, value_name = "DIR")]
    masks: Option<PathBuf>,
    /// A 3D Slicer segmentation: a segment a track, a slice a frame
    #[arg(long, value_name = "FILE.seg.nrrd")]
    seg: Option<PathBuf>,
    /// The frames with their results drawn in, as H.264 at the rate of the first timestamps; needs ffmpeg
    #[arg(long, value_name = "FILE.mp4")]
    video: Option<PathBuf>,
}

/// Makes what an option names at a path.
type Create = fn(&Path) -> Result<Box<dyn Exporter>, MediaError>;

impl ExportArgs {
    /// What was asked for: the option's name, the path, and how it is made.
    fn wanted(&self) -> Vec<(&'static str, &Path, Create)> {
        let all: [(_, _, Create); 6] = [
            ("coco", &self.coco, |path| Ok(Box::new(CocoFile::create(path)?))),
            ("mot", &self.mot, |path| Ok(Box::new(MotFile::create(path)?))),
            ("csv", &self.csv, |path| Ok(Box::new(ObjectTable::create(path)?))),
            ("masks", &self.masks, |path| Ok(Box::new(LabelImages::create(path)?))),
            ("seg", &self.seg, |path| Ok(Box::new(SegmentationFile::create(path)?))),
            ("video", &self.video, |path| Ok(Box::new(VideoFile::create(path)?))),
        ];
        all.into_iter().filter_map(|(name, path, create)| Some((name, path.as_deref()?, create))).collect()
    }

    /// Whether nothing was asked for.
    pub(crate) fn is_empty(&self) -> bool {
        self.wanted().is_empty()
    }

    /// Whether a table is made, which has millimetres where frames have.
    pub(crate) fn has_table(&self) -> bool {
        self.csv.is_some()
    }

    /// Whether a segmentation is made, whose voxels are as large as pixels.
    pub(crate) fn has_segmentation(&self) -> bool {
        self.seg.is_some()
    }

    /// Whether a video is made, which shows the frames.
    pub(crate) fn has_video(&self) -> bool {
        self.video.is_some()
    }

    /// Begins all of them. None may be what something else is, or what is read: `taken` are names and paths of that.
    pub(crate) fn create(&self, taken: &[(&str, &Path)]) -> Result<Exports> {
        let mut places: Vec<(String, PathBuf)> =
            taken.iter().map(|(name, path)| ((*name).to_owned(), place(path))).collect();
        let mut open = Vec::new();
        for (name, path, create) in self.wanted() {
            let names = (name == "mot").then(|| MotFile::labels_path(path));
            for path in [path].into_iter().chain(names.as_deref()) {
                let here = place(path);
                if let Some((other, _)) = places.iter().find(|(_, place)| *place == here) {
                    return Err(usage(format!(
                        "--{name}: '{}' is what {other} names, and would be lost; choose another",
                        path.display()
                    )));
                }
                places.push((format!("--{name}"), here));
            }
            open.push(Open { name, path: path.to_owned(), exporter: create(path)? });
        }
        Ok(Exports { open, written: Vec::new(), failed: Vec::new() })
    }
}

/// Where a path leads, whether or not something is there.
fn place(path: &Path) -> PathBuf {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let by_parent = || Some(std::fs::canonicalize(parent).ok()?.join(path.file_name()?));
    std::fs::canonicalize(path).ok().or_else(by_parent).unwrap_or_else(|| path.to_owned())
}

/// Files in the making.
pub(crate) struct Exports {
    open: Vec<Open>,
    written: Vec<(&'static str, PathBuf)>,
    failed: Vec<String>,
}

struct Open {
    name: &'static str,
    path: PathBuf,
    exporter: Box<dyn Exporter>,
}

impl Exports {
    /// Takes a frame's results. What cannot take them is given up, and said: everything else goes on.
    pub(crate) fn take(&mut self, line: &RecordedLine, frame: Option<&Frame>, bar: &ProgressBar) {
        let failed = &mut self.failed;
        self.open.retain_mut(|Open { exporter, .. }| match exporter.take(line, frame) {
            Ok(()) => true,
            Err(problem) => {
                output::tell_above(bar, format!("{problem}; everything else goes on"));
                failed.push(problem.to_string());
                false
            }
        });
    }

    /// The same from the text of a line, so that what is made now and what is made later are made of the same.
    pub(crate) fn take_text(&mut self, text: &[u8], frame: &Frame, bar: &ProgressBar) {
        if self.open.is_empty() {
            return;
        }
        match parse_line(text) {
            Ok(line) => self.take(&line, Some(frame), bar),
            Err(problem) => {
                self.open.clear();
                self.failed.push(format!("frame {} cannot be exported: {problem}", frame.frame_id));
            }
        }
    }

    /// Puts all files in their places.
    pub(crate) fn finish(&mut self) {
        for Open { name, path, exporter } in self.open.drain(..) {
            match exporter.finish() {
                Ok(()) => self.written.push((name, path)),
                Err(problem) => self.failed.push(problem.to_string()),
            }
        }
    }

    /// Lists what was written.
    pub(crate) fn list(&self) -> Result<(), OutputError> {
        self.written.iter().try_for_each(|(name, path)| say!("{name:<12} {}", path.display()))
    }

    /// An error where something could not be written.
    pub(crate) fn check(&self) -> Result<()> {
        if !self.failed.is_empty() {
            bail!("{}", self.failed.join("; "));
        }
        Ok(())
    }
}
