//! The stage that has frames computed.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use ultramotion_pipeline::PipelineError;
use ultramotion_types::pose::product;
use ultramotion_types::{FrameError, Matrix, ResultPacket};

use super::{BuildPipeline, Shared, Timings};
use crate::books::DropReason;
use crate::receive::LiveFrame;
use crate::receive::placement::Placed;
use crate::receive::poses::ChainGap;
use crate::recycle::{Recycled, Recycler};
use crate::send::{Answer, Epoch};
use crate::supervise::BoxError;

/// So many frames in a row without the poses for the tracker's frame are worth a word: the first ones may come early.
const UNPLACED_WORTH_A_WORD: u64 = 10;

impl Shared {
    /// Mailbox through the pipeline.
    pub(super) fn compute(&self, build: &mut BuildPipeline, pipelines_before: u64) -> Result<(), BoxError> {
        let mut pipeline = build()?;
        self.max_prompts.store(pipeline.max_prompts(), Relaxed);
        let packets = Recycler::default();
        let max_lag = Duration::from_millis(self.config.stream.max_lag_ms);
        while let Some(mut frame) = self.waiting.take() {
            self.queue.fetch_sub(1, Relaxed);
            if self.stop.is_set() {
                frame.ticket.dropped(DropReason::Shutdown);
                continue;
            }
            self.clocks_agree.store(frame.late_by.is_some(), Relaxed);
            if frame.age() > max_lag {
                frame.ticket.dropped(DropReason::Stale);
                if frame.late_by.is_some_and(|late_by| late_by > max_lag) {
                    self.source.complaints.say(
                        "late",
                        format_args!(
                            "frames are older than stream.max_lag_ms when they come: they are left out"
                        ),
                    );
                }
                continue;
            }
            self.prompts.obey(|command| pipeline.prompt(command));
            let start = Instant::now();
            let mut packet = packets.take();
            frame.tracker_from_pixels = self.tracker_from_pixels(&frame);
            match pipeline.process_into(&frame.view(), &mut packet) {
                Ok(()) => {
                    Timings::note(&mut self.timings().pipeline_ms, start.elapsed());
                    let epoch = Epoch { pipelines_before, of_pipeline: pipeline.epoch() };
                    self.hand_on(frame, packet, epoch);
                }
                Err(PipelineError::Frame(FrameError::Compiling { .. })) => {
                    frame.ticket.dropped(DropReason::Compiling);
                }
                Err(error) => {
                    frame.ticket.dropped(DropReason::Pipeline);
                    let number = frame.ticket.frame_id();
                    if !matches!(error, PipelineError::Frame(_)) {
                        return Err(format!("frame {number}: {error}").into());
                    }
                    self.source.complaints.say("frame", format_args!("frame {number}: {error}"));
                }
            }
        }
        Ok(())
    }

    /// Where a frame lies by the poses that are there before it is computed: its own may come after it, so this is for what may be
    /// a frame behind.
    fn tracker_from_pixels(&self, frame: &LiveFrame) -> Option<Matrix> {
        let image_to_tracker = &self.config.source.image_to_tracker;
        let (placed, _) = self.source.with_poses(|book| Placed::of(frame, book, image_to_tracker));
        let tracker_from_image = placed.tracker_from_image.filter(|_| !placed.is_astray())?;
        Some(product(&tracker_from_image, &frame.placement.world_from_ijk(frame.size)))
    }

    /// A result to those who send and record it.
    fn hand_on(&self, frame: LiveFrame, packet: Recycled<ResultPacket>, epoch: Epoch) {
        // Only now: poses come after the image that they belong to, most of the time.
        let image_to_tracker = &self.config.source.image_to_tracker;
        let (placed, way) = self.source.with_poses(|book| Placed::of(&frame, book, image_to_tracker));
        self.note_placement(&frame, &placed, way);
        let answer = Arc::new(Answer { frame, packet, placed, epoch });
        self.tap.offer(&answer);
        let recording = self.recording().clone();
        if let Some(recording) = recording {
            // Fails when the recording has ended, of which that stage has spoken.
            let _ = recording.send(Arc::clone(&answer));
        }
        if let Some(pushed_out) = self.answers.put(answer) {
            let closed = self.answers.is_closed();
            let reason = if closed { DropReason::Shutdown } else { DropReason::SendQueue };
            pushed_out.frame.ticket.dropped(reason);
        }
    }

    /// Says what is missing for results in the tracker's frame.
    fn note_placement(&self, frame: &LiveFrame, placed: &Placed, way: Result<(), Option<ChainGap>>) {
        let complaints = &self.source.complaints;
        if let Some(status) = placed.status.as_deref().filter(|_| placed.is_astray()) {
            let device = frame.device;
            complaints.say(
                "placement",
                format_args!(
                    "a tool that places the images of '{device}' was not seen ({status}): they lie elsewhere than they \
                     say, and nothing is sent in the tracker's frame"
                ),
            );
        }
        if !self.config.output.tracker_contours {
            return;
        }
        let missing = match way {
            Err(Some(gap @ ChainGap::Unknown(_))) => gap.to_string(),
            Err(None) => format!("the name of '{}' does not say what its images are placed in", frame.device),
            Ok(()) | Err(Some(_)) => return self.unplaced.store(0, Relaxed),
        };
        if self.unplaced.fetch_add(1, Relaxed) + 1 == UNPLACED_WORTH_A_WORD {
            let names = self.source.with_poses(|book| {
                book.names().map(|name| name.escape_debug().to_string()).collect::<Vec<_>>().join(", ")
            });
            let names = if names.is_empty() { "no transform at all".to_owned() } else { names };
            complaints.say(
                "transform_missing",
                format_args!(
                    "no outlines in the tracker's frame: {missing}; the scanner sent {names}, see source.image_to_tracker"
                ),
            );
        }
    }
}
