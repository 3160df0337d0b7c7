//! What somebody points at, on the host: who is in which slot, and what is asked of the next frame.

use std::sync::Arc;

use ultramotion_tracking::follow::{Command, Point, SLOT_LEN, TOKENS, status};
use ultramotion_types::prompt::{MAX_PROMPT_POINTS, PROMPT_LABEL};
use ultramotion_types::{Prompt, PromptCommand, PromptError, PromptPoint};

use crate::run::Run;

/// The slots of a pipeline.
#[derive(Debug)]
pub(crate) struct Prompting {
    slots: Vec<Slot>,
    /// Of the last frame: what is pointed at is checked by it at once.
    frame_wh: Option<[usize; 2]>,
    /// `[P, 12]`, for the next frame.
    commands: Vec<f32>,
    /// The detector's classes, and behind them the names of what was pointed at.
    labels: Arc<[String]>,
    classes: usize,
}

#[derive(Debug, Default)]
struct Slot {
    /// 0 for none.
    id: i32,
    class: usize,
    asked: Asked,
}

/// What is asked of a slot in the next frame.
#[derive(Debug, Default)]
enum Asked {
    #[default]
    Nothing,
    Follow(Prompt),
    Adjust(PromptPoint),
    LetGo,
}

impl Prompting {
    /// With room for so many objects, beside a detector's classes.
    pub(crate) fn new(room: usize, labels: &[String]) -> Self {
        Prompting {
            slots: (0..room).map(|_| Slot::default()).collect(),
            frame_wh: None,
            commands: vec![0.0; room * SLOT_LEN],
            labels: labels.into(),
            classes: labels.len(),
        }
    }

    /// Names of all classes, the detector's first.
    pub(crate) fn labels(&self) -> &Arc<[String]> {
        &self.labels
    }

    /// Takes a command for the next frame.
    pub(crate) fn take(&mut self, command: &PromptCommand, run: &Run) -> Result<(), PromptError> {
        if self.slots.is_empty() {
            return Err(PromptError::Off);
        }
        match command {
            PromptCommand::Follow(prompt) => {
                // Before the first frame nobody knows its size: it is checked when it comes.
                let [width, height] = self.frame_wh.unwrap_or([usize::MAX; 2]);
                prompt.check(width, height)?;
                let class = self.class_of(prompt.label.as_deref().unwrap_or(PROMPT_LABEL));
                let most = self.slots.len();
                let slot = self.slots.iter_mut().find(|slot| slot.id == 0).ok_or(PromptError::Full(most))?;
                *slot = Slot { id: run.next_prompt_id(), class, asked: Asked::Follow(prompt.clone()) };
            }
            PromptCommand::Refine { track_id, point } => {
                if let Some([width, height]) = self.frame_wh {
                    point.check(width, height)?;
                }
                let slot = self.slots.iter_mut().find(|slot| slot.id == *track_id && *track_id != 0);
                let slot = slot.ok_or(PromptError::Unknown(*track_id))?;
                match &mut slot.asked {
                    Asked::Follow(prompt) if prompt.points.len() < MAX_PROMPT_POINTS => {
                        prompt.points.push(*point)
                    }
                    Asked::Follow(prompt) => return Err(PromptError::Points(prompt.points.len() + 1)),
                    asked => *asked = Asked::Adjust(*point),
                }
            }
            PromptCommand::LetGo { track_id, label } => {
                let labels = &self.labels;
                let is_meant = |slot: &&mut Slot| {
                    slot.id != 0
                        && track_id.is_none_or(|id| slot.id == id)
                        && label.as_ref().is_none_or(|label| labels[slot.class] == *label)
                };
                let mut meant = self.slots.iter_mut().filter(is_meant).peekable();
                if let (Some(id), None) = (track_id, meant.peek()) {
                    return Err(PromptError::Unknown(*id));
                }
                meant.for_each(|slot| *slot = Slot { asked: Asked::LetGo, ..Slot::default() });
            }
        }
        Ok(())
    }

    /// The class with this name among those of what was pointed at, which is added if it is not there.
    fn class_of(&mut self, label: &str) -> usize {
        let known = self.labels[self.classes..].iter().position(|known| known == label);
        known.map_or_else(
            || {
                // Names that nobody has any more make room.
                let used = |class: usize| self.slots.iter().any(|slot| slot.id != 0 && slot.class == class);
                let free = (self.classes..self.labels.len()).find(|&class| !used(class));
                let mut labels = self.labels.to_vec();
                let class = free.unwrap_or(labels.len());
                labels.resize(labels.len().max(class + 1), String::new());
                label.clone_into(&mut labels[class]);
                self.labels = labels.into();
                class
            },
            |position| self.classes + position,
        )
    }

    /// What is asked of the slots in this frame: `[P, 12]`.
    pub(crate) fn commands(&self) -> &[f32] {
        &self.commands
    }

    /// Makes the commands for a frame of this size. A prompt that does not lie in it is let go, and said so.
    pub(crate) fn ask(&mut self, width: usize, height: usize) {
        self.frame_wh = Some([width, height]);
        let share = |point: PromptPoint| Point {
            at: [point.x / width as f32, point.y / height as f32],
            positive: point.positive,
        };
        let (rows, _) = self.commands.as_chunks_mut::<SLOT_LEN>();
        for (slot, row) in self.slots.iter_mut().zip(rows) {
            let command = match std::mem::take(&mut slot.asked) {
                Asked::Nothing => Command::None,
                Asked::LetGo => Command::LetGo,
                Asked::Adjust(point) => Command::Adjust(share(point)),
                Asked::Follow(prompt) => match prompt.check(width, height) {
                    Ok(()) => {
                        let points = prompt.points.iter().map(|&point| share(point));
                        let mut two = [None; TOKENS];
                        two.iter_mut().zip(points).for_each(|(to, from)| *to = Some(from));
                        // A point beside the object says nothing without one in it: that one comes first.
                        two.sort_by_key(|point| point.is_none_or(|point| !point.positive));
                        let box_cxcywh = prompt.box_xyxy.map(|[left, top, right, bottom]| {
                            let (w, h) = (width as f32, height as f32);
                            [
                                (left + right) / (2.0 * w),
                                (top + bottom) / (2.0 * h),
                                (right - left) / w,
                                (bottom - top) / h,
                            ]
                        });
                        Command::Follow { box_cxcywh, points: two }
                    }
                    Err(error) => {
                        tracing::warn!("not followed: {error}");
                        *slot = Slot::default();
                        Command::LetGo
                    }
                },
            };
            *row = command.values();
        }
    }

    /// Identity and class of a slot.
    pub(crate) fn of(&self, slot: usize) -> Option<(i32, usize)> {
        self.slots.get(slot).filter(|slot| slot.id != 0).map(|slot| (slot.id, slot.class))
    }

    /// Takes in what became of the rows of a frame.
    pub(crate) fn took(&mut self, slots: &[i32], statuses: &[i32]) {
        for (&slot, &status) in slots.iter().zip(statuses) {
            let slot = usize::try_from(slot).ok().and_then(|slot| self.slots.get_mut(slot));
            if let Some(slot) = slot.filter(|_| status == status::GONE) {
                if slot.id != 0 {
                    tracing::info!(
                        track_id = slot.id,
                        label = self.labels[slot.class],
                        "not seen, and let go"
                    );
                }
                *slot = Slot::default();
            }
        }
    }

    /// Nothing is followed any more: what was is not on the device.
    pub(crate) fn end(&mut self) {
        let followed = self.slots.iter().filter(|slot| slot.id != 0).count();
        if followed > 0 {
            tracing::warn!(followed, "what was pointed at is let go: tracks begin anew");
        }
        self.slots.iter_mut().for_each(|slot| *slot = Slot::default());
        self.commands.fill(0.0);
    }
}
