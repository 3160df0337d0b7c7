//! What a frame's computation gives, as plain arrays, before it becomes a packet.

use ultramotion_tracking::quality::SCORES;
use ultramotion_types::{Fault, FrameError, FrameFormat, Quality};

use crate::options::PipelineOptions;

/// Results with room for K objects, the first `count` of them valid.
#[derive(Debug, Clone, Default)]
pub(crate) struct Outcome {
    /// `[K, 4]`, fractions of the frame.
    pub boxes_cxcywh: Vec<f32>,
    pub scores: Vec<f32>,
    pub classes: Vec<i32>,
    pub count: i32,
    /// 0 unless an answer of the detector is not a finite number.
    pub detector_check: f32,
    pub mask_scores: Vec<f32>,
    pub mask_areas_px: Vec<i32>,
    /// `[K, height, ceil(width / 8)]`.
    pub mask_bits: Vec<u8>,
    pub track_ids: Vec<i32>,
    pub confirmed: Vec<i32>,
    /// Where each is in the device's table of tracks.
    pub slots: Vec<i32>,
    /// `[K, 6]`, empty where it is not computed.
    pub quality: Vec<f32>,
    /// The scene's visibility.
    pub scene: i32,
    pub followed: Followed,
}

/// Results of what was pointed at, with room for P objects, the first `count` of them looked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Followed {
    /// Slot of each row.
    pub slots: Vec<i32>,
    pub count: i32,
    /// What became of each row.
    pub statuses: Vec<i32>,
    pub mask_scores: Vec<f32>,
    pub mask_areas_px: Vec<i32>,
    /// `[P, 4]`, pixels of the frame, ends exclusive.
    pub boxes_xyxy: Vec<i32>,
    /// `[P, height, ceil(width / 8)]`.
    pub mask_bits: Vec<u8>,
    /// `[P, 6]`.
    pub quality: Vec<f32>,
}

impl Followed {
    fn fit(&mut self, room: usize, format: FrameFormat) -> Result<(), FrameError> {
        for integers in [&mut self.slots, &mut self.statuses, &mut self.mask_areas_px] {
            integers.resize(room, 0);
        }
        self.boxes_xyxy.resize(4 * room, 0);
        self.mask_scores.resize(room, 0.0);
        self.quality.resize(SCORES * room, 0.0);
        fit_bits(&mut self.mask_bits, room, format)
    }

    /// Rows that were looked for.
    pub(crate) fn len(&self) -> usize {
        usize::try_from(self.count).unwrap_or(0).min(self.slots.len())
    }
}

/// The scores of row `i`, where there are any.
pub(crate) fn quality_of(scores: &[f32], i: usize) -> Option<Quality> {
    let (rows, _) = scores.as_chunks::<SCORES>();
    let &[edge, contrast, continuity, stability, likeness, mean] = rows.get(i)?;
    Some(Quality { edge, contrast, continuity, stability, likeness, mean })
}

/// Makes room for the masks of so many objects.
fn fit_bits(mask_bits: &mut Vec<u8>, objects: usize, format: FrameFormat) -> Result<(), FrameError> {
    let needed = objects * format.mask_bytes();
    let bytes = needed.saturating_sub(mask_bits.len());
    let FrameFormat { width, height, .. } = format;
    mask_bits.try_reserve_exact(bytes).map_err(|_| FrameError::Memory { width, height, bytes })?;
    mask_bits.resize(needed, 0);
    Ok(())
}

impl Outcome {
    /// Makes room for frames of a format; allocates only when the format changes.
    pub(crate) fn fit(&mut self, options: &PipelineOptions, format: FrameFormat) -> Result<(), FrameError> {
        let k = options.max_objects;
        self.boxes_cxcywh.resize(4 * k, 0.0);
        for floats in [&mut self.scores, &mut self.mask_scores] {
            floats.resize(k, 0.0);
        }
        for integers in [
            &mut self.classes,
            &mut self.mask_areas_px,
            &mut self.track_ids,
            &mut self.confirmed,
            &mut self.slots,
        ] {
            integers.resize(k, 0);
        }
        // What tracks looked like is remembered by their slots, which only the device's matcher gives.
        self.quality.resize(if options.matcher.on_host() { 0 } else { SCORES * k }, 0.0);
        fit_bits(&mut self.mask_bits, k, format)?;
        self.followed.fit(options.max_prompts, format)
    }

    /// The part whose answers are not finite numbers, if one is.
    pub(crate) fn fault(&self) -> Option<Fault> {
        if !self.detector_check.is_finite() {
            Some(Fault::Detector)
        } else if self.mask_scores[..self.len()].iter().any(|score| !score.is_finite()) {
            Some(Fault::Segmenter)
        } else {
            None
        }
    }

    /// Valid objects.
    pub(crate) fn len(&self) -> usize {
        usize::try_from(self.count).unwrap_or(0).min(self.scores.len())
    }
}
