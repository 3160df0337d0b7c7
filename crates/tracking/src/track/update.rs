//! One frame: predict, pair, correct, age, give birth, and say what is in view.

use super::TrackerConfig;
use super::filter;
use super::table::TrackTableMut;
use crate::assignment::cost::{box_at, l1_cxcywh, overlap_cxcywh};
use crate::assignment::{CostMatrix, Scratch, ScratchSizes, UNMATCHED};
use crate::error::{TrackingError, check_len};
use ultramotion_types::Visibility;

/// The detections of one frame: the first `count` rows are valid.
#[derive(Clone, Copy, Debug)]
pub struct Detections<'a> {
    /// `[K, 4]`, fractions of the image.
    pub boxes_cxcywh: &'a [f32],
    /// `[K]`, 0 to 1.
    pub scores: &'a [f32],
    /// `[K]`.
    pub classes: &'a [i32],
    /// Valid rows; what exceeds K counts as K.
    pub count: usize,
}

/// What each detection became; rows that are no detection hold id 0. All `[K]`.
#[derive(Debug)]
pub struct TrackOutput<'a> {
    /// Identity, 1 or more, never given twice in a run. 0: beyond `count`, or not a box with a score (NaN, no area).
    pub track_ids: &'a mut [i32],
    /// 1 if the track was seen often enough to be believed, else 0.
    pub confirmed: &'a mut [i32],
    /// The track's [`Visibility`]: VISIBLE, as it was just seen. 0 where the id is 0.
    pub visibility: &'a mut [i32],
    /// The track's slot in the table, −1 if it has none.
    pub slots: &'a mut [i32],
}

/// Working memory of [`update`] for up to `max_detections` and a table of `capacity` slots.
pub fn scratch_sizes(max_detections: usize, capacity: usize) -> ScratchSizes {
    let solver = Scratch::sizes(max_detections, capacity);
    ScratchSizes {
        f32s: solver.f32s + max_detections * capacity,
        f64s: solver.f64s,
        i32s: solver.i32s + 2 * max_detections + capacity,
    }
}

/// Takes one frame's detections into the table, `dt_s` seconds after the last ones, and returns the scene's state.
///
/// 1. Every track moves on by its velocity ([`filter`]), and is forgotten if it was not seen for `forget_s`.
/// 2. Detections and tracks are paired at the least total cost, within the gates ([`TrackerConfig`]).
/// 3. Paired tracks are corrected, others age: a track that is not yet confirmed dies once it cannot become so
///    within its window, a confirmed one is RELOCALIZING, then LOST, then forgotten. It keeps its id if it is found
///    again before that.
/// 4. A detection left over starts a track, if its score reaches `birth_score` and it is no duplicate, in an empty
///    slot or else in that of the track that was not seen for longest. Otherwise it gets an id of its own for this
///    frame only. So every detection has an id, and no id stands twice in a frame.
/// 5. The scene is VISIBLE if a confirmed track was seen, RELOCALIZING if one was within `relocalize_s`, or if there
///    are tracks that might become one, and LOST otherwise.
///
/// `dt_s` of 0, below 0 or NaN (timestamps that stand still or run backwards) moves and ages nothing by time, while
/// misses still count in frames. A gap longer than `forget_s` empties the table.
///
/// With `independent`, frames are unrelated images (a folder of stills): the table is emptied, every detection gets a
/// new id, and is confirmed if its score reaches `birth_score`, as there is no other frame to confirm it. The scene
/// is VISIBLE or LOST.
///
/// Nothing is allocated; errors are slices that are too short.
pub fn update(
    config: &TrackerConfig,
    table: &mut TrackTableMut<'_>,
    detections: &Detections<'_>,
    dt_s: f32,
    scratch: &mut Scratch<'_>,
    output: &mut TrackOutput<'_>,
) -> Result<Visibility, TrackingError> {
    let rows = detections.scores.len();
    check_len("boxes_cxcywh", 4 * rows, detections.boxes_cxcywh.len())?;
    check_len("classes", rows, detections.classes.len())?;
    check_len("track_ids", rows, output.track_ids.len())?;
    check_len("confirmed", rows, output.confirmed.len())?;
    check_len("visibility", rows, output.visibility.len())?;
    check_len("slots", rows, output.slots.len())?;
    let sizes = scratch_sizes(rows, table.capacity());
    check_len("scratch.f32s", sizes.f32s, scratch.f32s.len())?;
    check_len("scratch.f64s", sizes.f64s, scratch.f64s.len())?;
    check_len("scratch.i32s", sizes.i32s, scratch.i32s.len())?;

    output.track_ids.fill(0);
    output.confirmed.fill(0);
    output.visibility.fill(Visibility::Lost as i32);
    output.slots.fill(UNMATCHED);
    let dt_s = if dt_s > 0.0 { dt_s.min(LONGEST_STEP_S) } else { 0.0 };

    let mut frame = Frame { config, table, detections, output };
    if config.independent {
        return Ok(frame.unrelated(dt_s));
    }
    frame.predict(dt_s);
    frame.pair(scratch)?;
    frame.age();
    frame.give_birth();
    Ok(frame.scene(dt_s))
}

/// Longer gaps count as this.
const LONGEST_STEP_S: f32 = 1e6;

const VISIBLE: i32 = Visibility::Visible as i32;
const RELOCALIZING: i32 = Visibility::Relocalizing as i32;
const LOST: i32 = Visibility::Lost as i32;

struct Frame<'a, 'b, 'c> {
    config: &'a TrackerConfig,
    table: &'a mut TrackTableMut<'b>,
    detections: &'a Detections<'a>,
    output: &'a mut TrackOutput<'c>,
}

impl Frame<'_, '_, '_> {
    /// The rows that hold a detection.
    fn valid(&self) -> impl Iterator<Item = usize> + use<> {
        0..self.detections.count.min(self.detections.scores.len())
    }

    fn is_box(&self, k: usize) -> bool {
        let b = box_at(self.detections.boxes_cxcywh, k);
        b.iter().all(|x| x.is_finite()) && b[2] > 0.0 && b[3] > 0.0 && self.detections.scores[k].is_finite()
    }

    fn unrelated(&mut self, dt_s: f32) -> Visibility {
        self.table.ids.fill(0);
        for k in self.valid() {
            if self.is_box(k) {
                self.name_for_one_frame(k);
                self.output.confirmed[k] = i32::from(self.detections.scores[k] >= self.config.birth_score);
            }
        }
        *self.table.scene_unseen_s = self.config.relocalize_s + dt_s + 1.0;
        *self.table.scene_was_visible = 0;
        if self.output.confirmed.contains(&1) { Visibility::Visible } else { Visibility::Lost }
    }

    fn name_for_one_frame(&mut self, k: usize) {
        self.output.track_ids[k] = self.table.issue_id();
        self.output.visibility[k] = VISIBLE;
    }

    fn predict(&mut self, dt_s: f32) {
        let t = &mut *self.table;
        for slot in 0..t.ids.len() {
            if t.ids[slot] == 0 {
                continue;
            }
            t.unseen_s[slot] += dt_s;
            if t.unseen_s[slot] > self.config.forget_s {
                t.ids[slot] = 0;
                continue;
            }
            let corners = 4 * slot..4 * slot + 4;
            filter::predict(
                &mut t.boxes_cxcywh[corners.clone()],
                &mut t.velocities_per_s[corners],
                dt_s,
                t.misses[slot] > 0,
                self.config,
            );
            t.visibility[slot] = RELOCALIZING;
        }
    }

    fn pair(&mut self, scratch: &mut Scratch<'_>) -> Result<(), TrackingError> {
        let rows = self.detections.scores.len();
        let (found, i32s) = scratch.i32s.split_at_mut(rows);
        let (track_of, i32s) = i32s.split_at_mut(rows);
        let (live, i32s) = i32s.split_at_mut(self.table.capacity());
        let (costs, f32s) = scratch.f32s.split_at_mut(rows * live.len());
        let num_found = list(found, self.valid().filter(|&k| self.is_box(k)));
        let num_live = list(live, (0..self.table.capacity()).filter(|&slot| self.table.ids[slot] != 0));

        let (found, live) = (&found[..num_found], &live[..num_live]);
        for (r, &k) in found.iter().enumerate() {
            for (c, &slot) in live.iter().enumerate() {
                costs[r * num_live + c] = self.pair_cost(k as usize, slot as usize);
            }
        }
        self.config.solver.solve(
            CostMatrix::new(costs, num_found, num_live)?,
            f64::from(self.config.max_cost),
            &mut Scratch { f32s, f64s: scratch.f64s, i32s },
            track_of,
        )?;
        for (&k, &c) in found.iter().zip(track_of.iter()) {
            if c != UNMATCHED {
                self.correct(k as usize, live[c as usize] as usize);
            }
        }
        Ok(())
    }

    /// Cost of a detection for a track, infinite outside the gates.
    fn pair_cost(&self, k: usize, slot: usize) -> f32 {
        let (config, t) = (self.config, &*self.table);
        let same_class = self.detections.classes[k] == t.labels[slot];
        if config.class_must_agree && !same_class {
            return f32::INFINITY;
        }
        let detected = box_at(self.detections.boxes_cxcywh, k);
        let predicted = box_at(t.boxes_cxcywh, slot);
        let overlap = overlap_cxcywh(detected, predicted);
        let distance = (detected[0] - predicted[0]).hypot(detected[1] - predicted[1]);
        let unseen_s = t.unseen_s[slot].min(config.relocalize_s);
        let gate = config.gate_distance + config.gate_growth_per_s * unseen_s;
        let inside = distance <= gate && overlap.giou >= config.gate_giou; // false for NaN
        if !inside {
            return f32::INFINITY;
        }
        let probability = if same_class { self.detections.scores[k].clamp(0.0, 1.0) } else { 0.0 };
        config.weights.class * (1.0 - probability)
            + config.weights.bbox * l1_cxcywh(detected, predicted)
            + config.weights.giou * (1.0 - overlap.giou)
            + config.age_cost_per_s * unseen_s
            + if t.confirmed[slot] != 0 { 0.0 } else { config.unconfirmed_cost }
    }

    fn correct(&mut self, k: usize, slot: usize) {
        let (config, t) = (self.config, &mut *self.table);
        let (score, class) = (self.detections.scores[k], self.detections.classes[k]);
        let corners = 4 * slot..4 * slot + 4;
        filter::correct(
            &mut t.boxes_cxcywh[corners.clone()],
            &mut t.velocities_per_s[corners],
            box_at(self.detections.boxes_cxcywh, k),
            filter::gains(config, t.unseen_s[slot], t.hits[slot]),
        );
        t.scores[slot] += config.score_gain * (score - t.scores[slot]);
        if class == t.labels[slot] {
            // A long reign must not make the label unassailable: a second at 30 frames a second is enough.
            t.label_votes[slot] = (t.label_votes[slot] + score).min(30.0);
        } else {
            t.label_votes[slot] -= score;
            if t.label_votes[slot] < 0.0 {
                t.labels[slot] = class;
                t.label_votes[slot] = score;
            }
        }
        t.hits[slot] = t.hits[slot].saturating_add(1);
        t.seen_bits[slot] = t.seen_bits[slot] << 1 | 1;
        t.misses[slot] = 0;
        t.unseen_s[slot] = 0.0;
        self.show(k, slot);
    }

    /// Decides whether the track is confirmed, and tells the detection.
    fn show(&mut self, k: usize, slot: usize) {
        let (config, t) = (self.config, &mut *self.table);
        let window = u32::MAX >> (32 - config.confirm_window.clamp(1, 32));
        if (t.seen_bits[slot] as u32 & window).count_ones() >= config.confirm_hits {
            t.confirmed[slot] = 1;
        }
        t.visibility[slot] = VISIBLE;
        self.output.track_ids[k] = t.ids[slot];
        self.output.confirmed[k] = i32::from(t.confirmed[slot] != 0);
        self.output.visibility[k] = VISIBLE;
        self.output.slots[k] = slot as i32;
    }

    fn age(&mut self) {
        let (config, t) = (self.config, &mut *self.table);
        for slot in 0..t.ids.len() {
            if t.ids[slot] == 0 || t.visibility[slot] == VISIBLE {
                continue;
            }
            t.misses[slot] = t.misses[slot].saturating_add(1);
            t.seen_bits[slot] <<= 1;
            let patience = if t.confirmed[slot] != 0 {
                config.forget_frames
            } else {
                config.confirm_window.saturating_sub(config.confirm_hits)
            };
            if t.misses[slot] as u32 > patience {
                t.ids[slot] = 0;
            } else if t.unseen_s[slot] > config.relocalize_s {
                t.visibility[slot] = LOST;
            }
        }
    }

    fn give_birth(&mut self) {
        for k in self.valid() {
            if !self.is_box(k) || self.output.slots[k] != UNMATCHED {
                continue;
            }
            let worthy = self.detections.scores[k] >= self.config.birth_score && !self.is_duplicate(k);
            match self.slot_to_take().filter(|_| worthy) {
                Some(slot) => self.start_track(k, slot),
                None => self.name_for_one_frame(k),
            }
        }
    }

    /// Whether a detection that has a track answers for the same structure.
    fn is_duplicate(&self, k: usize) -> bool {
        let d = self.detections;
        self.valid().any(|other| {
            self.output.slots[other] != UNMATCHED
                && d.classes[other] == d.classes[k]
                && overlap_cxcywh(box_at(d.boxes_cxcywh, other), box_at(d.boxes_cxcywh, k)).iou
                    >= self.config.duplicate_iou
        })
    }

    /// An empty slot, or else that of a track not in view: the one not seen for longest, unconfirmed ones first.
    fn slot_to_take(&self) -> Option<usize> {
        let t = &*self.table;
        let mut best: Option<usize> = None;
        for slot in 0..t.ids.len() {
            if t.ids[slot] == 0 {
                return Some(slot);
            }
            let key = |s: usize| (t.confirmed[s] == 0, t.unseen_s[s], t.misses[s]);
            if t.visibility[slot] != VISIBLE && best.is_none_or(|b| key(slot) > key(b)) {
                best = Some(slot);
            }
        }
        best
    }

    fn start_track(&mut self, k: usize, slot: usize) {
        let id = self.table.issue_id();
        let t = &mut *self.table;
        let corners = 4 * slot..4 * slot + 4;
        t.boxes_cxcywh[corners.clone()].copy_from_slice(&box_at(self.detections.boxes_cxcywh, k));
        t.velocities_per_s[corners].fill(0.0);
        t.ids[slot] = id;
        t.labels[slot] = self.detections.classes[k];
        t.scores[slot] = self.detections.scores[k];
        t.label_votes[slot] = self.detections.scores[k];
        t.unseen_s[slot] = 0.0;
        t.seen_bits[slot] = 1;
        t.hits[slot] = 1;
        t.misses[slot] = 0;
        t.confirmed[slot] = 0;
        self.show(k, slot);
    }

    fn scene(&mut self, dt_s: f32) -> Visibility {
        let t = &mut *self.table;
        let (mut best, mut in_view) = (LOST, false);
        for slot in 0..t.ids.len() {
            if t.ids[slot] != 0 {
                best = best.max(t.visibility[slot]);
                in_view |= t.visibility[slot] == VISIBLE && t.confirmed[slot] != 0;
            }
        }
        if in_view {
            *t.scene_unseen_s = 0.0;
            *t.scene_was_visible = 1;
            return Visibility::Visible;
        }
        *t.scene_unseen_s = (*t.scene_unseen_s + dt_s).min(LONGEST_STEP_S);
        let lately = *t.scene_was_visible != 0 && *t.scene_unseen_s <= self.config.relocalize_s;
        if best != LOST || lately { Visibility::Relocalizing } else { Visibility::Lost }
    }
}

/// Writes the items to the front of `to` and returns how many there were.
fn list(to: &mut [i32], items: impl Iterator<Item = usize>) -> usize {
    let mut len = 0;
    for (to, item) in to.iter_mut().zip(items) {
        *to = item as i32;
        len += 1;
    }
    len
}
