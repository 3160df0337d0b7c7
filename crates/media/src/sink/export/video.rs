//! Overlay pictures as a video, by the `ffmpeg` that is installed.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use tempfile::TempPath;
use ultramotion_types::{BitMask, Frame, RecordedLine};

use super::draft::Target;
use super::{Exporter, mask_of};
use crate::error::MediaError;
use crate::ffmpeg::{self, Encoder};
use crate::sink::{Overlay, OverlayObject};
use crate::source::NOMINAL_FRAMES_PER_SECOND;

/// Pictures that wait until the rate is known: it is that of their median interval.
const HELD: usize = 9;
/// Pictures that wait have no more bytes together.
const MAX_HELD_BYTES: usize = 256 << 20;
/// Rates outside are those of clocks that are wrong.
const RATES: std::ops::RangeInclusive<f64> = 1.0..=240.0;
/// How long ffmpeg may take to start, for a picture, or for its end.
const PATIENCE: Duration = Duration::from_secs(120);

/// An MP4 of the frames with their results drawn in: H.264 in 4:2:0, which everything plays, so that odd sides get a black row or
/// column more. Pictures follow each other at one rate, that of the first frames' timestamps.
#[derive(Debug)]
pub struct VideoFile {
    target: Target,
    draft: TempPath,
    program: OsString,
    patience: Duration,
    overlay: Overlay,
    /// Times in seconds, and pictures.
    held: Vec<(f64, Vec<u8>)>,
    size_px: Option<[usize; 2]>,
    encoder: Option<Encoder>,
}

impl VideoFile {
    /// Begins a video.
    ///
    /// # Errors
    /// [`MediaError::NoFfmpeg`] without `ffmpeg`; others where the file cannot be written.
    pub fn create(path: &Path) -> Result<Self, MediaError> {
        Self::create_by(ffmpeg::PROGRAM.into(), path, PATIENCE)
    }

    fn create_by(program: OsString, path: &Path, patience: Duration) -> Result<Self, MediaError> {
        ffmpeg::check(&program, PATIENCE)?;
        let target = Target::new(path)?;
        let draft = target.neighbour(".mp4")?.into_temp_path();
        Ok(Self {
            target,
            draft,
            program,
            patience,
            overlay: Overlay::new(),
            held: Vec::new(),
            size_px: None,
            encoder: None,
        })
    }

    fn draw(&mut self, line: &RecordedLine, frame: &Frame) -> Result<(), MediaError> {
        let masks: Result<Vec<BitMask>, MediaError> =
            line.objects.iter().map(|object| mask_of(object, self.target.name())).collect();
        let masks = masks?;
        let objects: Vec<OverlayObject<'_>> = line
            .objects
            .iter()
            .zip(&masks)
            .map(|(object, mask)| OverlayObject {
                track_id: u64::try_from(object.track_id).ok(),
                confirmed: object.confirmed,
                label: &object.label,
                score: object.score,
                box_xyxy: object.box_xyxy,
                mask: Some(mask.view()),
            })
            .collect();
        self.overlay.draw(frame, &objects);
        Ok(())
    }

    /// Starts `ffmpeg` and hands over what was held.
    fn start(&mut self) -> Result<Encoder, MediaError> {
        let times_s: Vec<f64> = self.held.iter().map(|(time_s, _)| *time_s).collect();
        let [width, height] = self.overlay.size_px();
        let mut arguments: Vec<OsString> = ["-hide_banner", "-loglevel", "error", "-nostdin", "-y"]
            .into_iter()
            .chain(["-f", "rawvideo", "-pixel_format", "rgb24", "-video_size"])
            .map(OsString::from)
            .collect();
        let rate = format!("{:.3}", frames_per_second(&times_s));
        arguments.extend([format!("{width}x{height}"), "-framerate".into(), rate].map(OsString::from));
        let coding = ["-i", "pipe:0", "-an", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-vf"];
        arguments.extend(coding.map(OsString::from));
        arguments.push("pad=ceil(iw/2)*2:ceil(ih/2)*2".into());
        arguments.extend(["-movflags", "+faststart", "-f", "mp4"].map(OsString::from));
        // Not a name that could be an option, or a protocol.
        let mut output = OsString::from("file:");
        output.push(&self.draft);
        arguments.push(output);
        let mut encoder = Encoder::start(&self.program, &arguments, self.patience)?;
        for (_, picture) in self.held.drain(..) {
            encoder =
                encoder.write(&picture).map_err(|problem| MediaError::export(self.target.name(), problem))?;
        }
        Ok(encoder)
    }
}

impl Exporter for VideoFile {
    fn take(&mut self, line: &RecordedLine, frame: Option<&Frame>) -> Result<(), MediaError> {
        let Some(frame) = frame else {
            return Err(MediaError::export(
                self.target.name(),
                "a video shows the frames, and they are not at hand",
            ));
        };
        let size = [frame.width, frame.height];
        if *self.size_px.get_or_insert(size) != size {
            let problem = format!(
                "frames have another size from frame {} on, but a video has one: export each part by itself",
                line.frame_id
            );
            return Err(MediaError::export(self.target.name(), problem));
        }
        self.draw(line, frame)?;
        if let Some(encoder) = self.encoder.take() {
            let written = encoder.write(self.overlay.rgb());
            self.encoder = Some(written.map_err(|problem| MediaError::export(self.target.name(), problem))?);
            return Ok(());
        }
        self.held.push((line.timestamp_s, self.overlay.rgb().to_vec()));
        if self.held.len() == HELD || self.held.len() * self.overlay.rgb().len() >= MAX_HELD_BYTES {
            self.encoder = Some(self.start()?);
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), MediaError> {
        let encoder = match self.encoder.take() {
            Some(encoder) => encoder,
            None if !self.held.is_empty() => self.start()?,
            None => return Err(MediaError::export(self.target.name(), "there are no frames to show")),
        };
        encoder.finish().map_err(|problem| MediaError::export(self.target.name(), problem))?;
        self.target.put(self.draft)
    }
}

/// The rate of frames with such times.
fn frames_per_second(times_s: &[f64]) -> f64 {
    let mut intervals: Vec<f64> = times_s.windows(2).map(|pair| pair[1] - pair[0]).collect();
    intervals.retain(|interval| interval.is_finite() && *interval > 0.0);
    intervals.sort_by(f64::total_cmp);
    let median = intervals.get(intervals.len() / 2);
    let rate = median.map_or(NOMINAL_FRAMES_PER_SECOND, |interval| 1.0 / interval);
    rate.clamp(*RATES.start(), *RATES.end())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{line, object};
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_median_interval() {
        assert_eq!(frames_per_second(&[]), 25.0);
        assert_eq!(frames_per_second(&[7.0]), 25.0);
        assert_eq!(frames_per_second(&[7.0, 7.0625, 7.125, 9.0]), 16.0);
        assert_eq!(frames_per_second(&[7.0, 6.0, 6.0]), 25.0, "time that does not go on is none");
        assert_eq!(frames_per_second(&[0.0, 40.0, 80.0]), 1.0);
        assert_eq!(frames_per_second(&[0.0, 1e-9]), 240.0);
    }

    /// A program in the place of ffmpeg.
    #[cfg(unix)]
    fn script(folder: &Path, does: &str) -> OsString {
        let path = folder.join("ffmpeg");
        // By another process: a file that is open for writing, in a fork of another test too, cannot be started.
        let write = "printf '#!/bin/sh\\n%s\\n' \"$2\" > \"$1\" && chmod +x \"$1\"";
        let mut shell = std::process::Command::new("sh");
        assert!(shell.args(["-c", write, "sh"]).arg(&path).arg(does).status().unwrap().success());
        path.into()
    }

    /// One that runs, and what it does with its input.
    #[cfg(unix)]
    fn pretended(folder: &Path, does: &str) -> OsString {
        script(folder, &format!("if [ \"$1\" = -version ]; then exit 0; fi\n{does}"))
    }

    /// Fifteen frames of 400 x 300 pixels, more than a pipe takes; the error, or what is in the file.
    #[cfg(unix)]
    fn made(does: &str, patience: Duration) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        let program = pretended(folder.path(), does);
        let path = folder.path().join("a.mp4");
        let mut video = Box::new(VideoFile::create_by(program, &path, patience).map_err(|e| e.to_string())?);
        let frame = Frame::grey8(400, 300, vec![9; 400 * 300]);
        let taken = (0..15)
            .try_for_each(|i| video.take(&line(i, vec![object(1, "vessel", [1, 2, 5, 8])]), Some(&frame)));
        let made = taken.and_then(|()| video.finish());
        let left = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 1 + usize::from(made.is_ok()), "a video, or nothing");
        made.map_err(|error| error.to_string().replace(&path.display().to_string(), "FILE"))?;
        Ok(std::fs::read_to_string(path).unwrap())
    }

    #[cfg(unix)]
    #[test]
    fn ffmpeg_gets_every_picture_and_the_rate() {
        // The last argument is the file.
        let counts = "for last; do :; done; bytes=$(wc -c); echo \"$* $bytes\" > \"${last#file:}\"";
        let text = made(counts, PATIENCE).unwrap();
        assert!(text.contains("-video_size 400x300 -framerate 25.000 -i pipe:0"), "{text}");
        assert!(text.trim().ends_with(&(15 * 400 * 300 * 3).to_string()), "{text}");
    }

    #[cfg(unix)]
    #[test]
    fn an_ffmpeg_that_dies_has_the_last_word() {
        let dies = "head -c 500000 > /dev/null; echo 'first' >&2; echo 'Unknown encoder' >&2; exit 3";
        assert_eq!(
            made(dies, PATIENCE).unwrap_err(),
            "cannot write FILE: ffmpeg ended with exit status: 3: first; Unknown encoder"
        );
        let at_the_end = "cat > /dev/null; echo 'No space left' >&2; exit 1";
        assert_eq!(
            made(at_the_end, PATIENCE).unwrap_err(),
            "cannot write FILE: ffmpeg ended with exit status: 1: No space left"
        );
    }

    #[cfg(unix)]
    #[test]
    fn an_ffmpeg_that_hangs_is_ended() {
        let hangs = "echo 'thinking' >&2; exec sleep 1000";
        let problem = made(hangs, Duration::from_secs(2)).unwrap_err();
        assert_eq!(problem, "cannot write FILE: ffmpeg was not done after 2 s, and was ended: thinking");
        let at_the_end = "cat > /dev/null; exec sleep 1000";
        let problem = made(at_the_end, Duration::from_millis(200)).unwrap_err();
        assert_eq!(problem, "cannot write FILE: ffmpeg was not done after 0.2 s, and was ended");
    }

    #[cfg(unix)]
    #[test]
    fn an_ffmpeg_that_does_not_run_is_said_before_there_is_a_frame() {
        let problem = |does: &str, patience: Duration| {
            let folder = tempfile::tempdir().unwrap();
            let problem = ffmpeg::check(&script(folder.path(), does), patience).unwrap_err().to_string();
            problem.replace(&folder.path().display().to_string(), "FOLDER")
        };
        let broken = problem("exit 127", PATIENCE);
        assert_eq!(broken, "cannot start FOLDER/ffmpeg: ffmpeg ended with exit status: 127");
        let hangs = problem("exec sleep 1000", Duration::from_millis(200));
        assert_eq!(hangs, "cannot start FOLDER/ffmpeg: ffmpeg was not done after 0.2 s, and was ended");
    }

    #[test]
    fn without_ffmpeg_the_way_to_it_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = folder.path().join("ffmpeg").into();
        let problem =
            VideoFile::create_by(nowhere, &folder.path().join("a.mp4"), PATIENCE).unwrap_err().to_string();
        assert!(problem.contains("apt-get install ffmpeg") && problem.contains("winget"), "{problem}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[cfg(unix)]
    #[test]
    fn frames_of_two_sizes_are_no_video() {
        let folder = tempfile::tempdir().unwrap();
        let program = pretended(folder.path(), "exit 1");
        let mut video = VideoFile::create_by(program, &folder.path().join("a.mp4"), PATIENCE).unwrap();
        let frame = |width: usize| Frame::grey8(width, 4, vec![0; width * 4]);
        video.take(&line(0, vec![]), Some(&frame(6))).unwrap();
        let problem = video.take(&line(1, vec![]), Some(&frame(8))).unwrap_err().to_string();
        assert!(problem.ends_with("a video has one: export each part by itself"), "{problem}");
        assert!(video.take(&line(2, vec![]), None).is_err());
    }
}
