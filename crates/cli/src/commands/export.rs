//! `ultramotion export`: files for other tools, from the results of a run that is over.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};
use ultramotion::source::open_recorded;
use ultramotion_media::results::RecordedLines;
use ultramotion_media::source::FrameSource;
use ultramotion_types::{Frame, RecordedLine};

use super::run::progress_bar;
use crate::exports::{ExportArgs, Exports};
use crate::interrupt;
use crate::output::{OutputError, note, say};
use crate::usage::{source_error, usage};

/// Make files for other tools from results: COCO, tracks, a table, masks, a segmentation, a video
///
/// Each is byte for byte what `run` writes with the same option. All that was found is in RESULTS.jsonl; how large a pixel is
/// and what the frames show is not, so --video, and --csv and --seg for their millimetres, read it from --source.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  ultramotion export out/results.jsonl --coco coco.json --mot tracks.txt
  ultramotion export out/results.jsonl --source recording.igs.mha --csv objects.csv --video found.mp4
  ultramotion export out/results.jsonl --source phantom:7 --seg found.seg.nrrd
  ultramotion export session/results.jsonl --source session --masks masks   a recording of `serve`")]
pub(crate) struct Args {
    /// The results.jsonl of `run`, or of a recording of `serve`
    #[arg(value_name = "RESULTS.jsonl")]
    results: PathBuf,
    /// What the results are of, as `run` was given it
    #[arg(long, value_name = "SOURCE")]
    source: Option<String>,
    #[command(flatten)]
    exports: ExportArgs,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let Args { results, source, exports } = &args;
    if exports.is_empty() {
        return Err(usage("say what to make: --coco, --mot, --csv, --masks, --seg or --video, and where"));
    }
    let mut lines = RecordedLines::open(results)?;
    let mut frames = match source {
        Some(name) => Some(Frames::open(name)?),
        None => {
            if exports.has_video() {
                return Err(usage(
                    "--video shows the frames: give them with --source, as `run` was given them",
                ));
            }
            if exports.has_table() {
                note!("without --source the size of a pixel is not known: --csv has no millimetres");
            }
            if exports.has_segmentation() {
                note!("without --source the size of a pixel is not known: --seg takes it for 1 mm");
            }
            None
        }
    };
    let mut taken = vec![("RESULTS.jsonl", results.as_path())];
    taken.extend(source.as_deref().map(|name| ("--source", Path::new(name))));
    let mut exports = exports.create(&taken)?;
    let stop = interrupt::listen();
    let bar = progress_bar(None);
    let (mut count, mut objects) = (0u64, 0);
    while let Some(line) = lines.next().filter(|_| !stop.is_set()) {
        let line = line?;
        let frame = frames.as_mut().map(|frames| frames.of(&line)).transpose()?;
        exports.take(&line, frame, &bar);
        (count, objects) = (count + 1, objects + line.objects.len());
        bar.inc(1);
    }
    bar.finish_and_clear();
    if lines.is_cut_short() {
        note!("the last line of {} is half a one, and was passed over", results.display());
    }
    if count == 0 && !stop.is_set() {
        bail!("{} has no line of results", results.display());
    }
    exports.finish();
    let said = summarise(results, count, objects, &exports, stop.is_set());
    // Before a reader of the summary who has seen enough: that is no failure, this is one.
    exports.check()?;
    said?;
    Ok(ExitCode::SUCCESS)
}

fn summarise(
    results: &Path,
    frames: u64,
    objects: usize,
    exports: &Exports,
    interrupted: bool,
) -> Result<(), OutputError> {
    if interrupted {
        say!("stopped by a signal; everything up to here is written")?;
    }
    say!("results      {}: {frames} frames, {objects} objects", results.display())?;
    exports.list()?;
    say!("Research software, not a medical device.")
}

/// The frames that results are of, in their order.
struct Frames {
    name: String,
    source: Box<dyn FrameSource>,
    frame: Frame,
    /// Whether `frame` is one.
    is_read: bool,
}

impl Frames {
    fn open(name: &str) -> Result<Self> {
        if name.contains("://") {
            let problem =
                format!("--source '{name}': what was live cannot be read again; give a recording of it");
            return Err(usage(problem));
        }
        let source = open_recorded(name).map_err(source_error)?;
        Ok(Self { name: name.to_owned(), source, frame: Frame::default(), is_read: false })
    }

    /// The frame of a line. Others before it are passed over, as a run does that drops or skips them.
    fn of(&mut self, line: &RecordedLine) -> Result<&Frame> {
        while !self.is_read || self.frame.frame_id < line.frame_id {
            match self.source.read_into(&mut self.frame) {
                Some(read) => self.is_read = read.is_ok(),
                None => bail!("{} ends before frame {}: {ASK}", self.name, line.frame_id),
            }
        }
        let Frame { frame_id, width, height, .. } = self.frame;
        if frame_id != line.frame_id {
            bail!("{} has no frame {} that can be read: {ASK}", self.name, line.frame_id);
        }
        if [width, height] != [line.width, line.height] {
            let found = format!("{}x{}", line.width, line.height);
            bail!(
                "frame {frame_id} of {} is {width}x{height} pixels, but {found} in the results: {ASK}",
                self.name
            );
        }
        Ok(&self.frame)
    }
}

const ASK: &str = "is it what the results are of?";
