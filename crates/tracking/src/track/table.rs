//! Where tracks are kept: a fixed number of slots, one array per property, in two flat buffers.
//!
//! Two buffers because a device has typed tensors: one of f32, one of i32. All zeros is the empty table, so a state
//! tensor needs no other initial value.

use ultramotion_types::Visibility;

use crate::error::{TrackingError, check_len};

/// One track, read out of a table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Track {
    /// Identity, 1 or more.
    pub id: i32,
    /// Class.
    pub label: i32,
    /// Smoothed score.
    pub score: f32,
    /// Filtered, or predicted while not seen; fractions of the image.
    pub box_cxcywh: [f32; 4],
    /// Change of the box per second.
    pub velocity_cxcywh_per_s: [f32; 4],
    /// Whether it was seen often enough to be believed.
    pub confirmed: bool,
    /// Whether it was seen now, lately, or neither.
    pub visibility: Visibility,
    /// Time since it was last seen.
    pub unseen_s: f32,
    /// Frames since it was last seen.
    pub misses: i32,
}

/// Length of the f32 buffer of a table with `capacity` slots.
pub const fn f32_len(capacity: usize) -> usize {
    11 * capacity + 1
}

/// Length of the i32 buffer of a table with `capacity` slots.
pub const fn i32_len(capacity: usize) -> usize {
    7 * capacity + 2
}

/// A table in borrowed buffers, taken apart into its arrays. A slot whose id is 0 is empty.
#[derive(Debug)]
pub struct TrackTableMut<'a> {
    /// `[T, 4]`.
    pub(super) boxes_cxcywh: &'a mut [f32],
    /// `[T, 4]`.
    pub(super) velocities_per_s: &'a mut [f32],
    pub(super) scores: &'a mut [f32],
    /// How far the label is ahead of others, in summed scores (majority vote after R. S. Boyer and J S. Moore,
    /// "MJRTY: A Fast Majority Vote Algorithm", 1991).
    pub(super) label_votes: &'a mut [f32],
    pub(super) unseen_s: &'a mut [f32],
    /// `[1]`: time since a confirmed track was in view.
    pub(super) scene_unseen_s: &'a mut f32,
    pub(super) ids: &'a mut [i32],
    pub(super) labels: &'a mut [i32],
    /// Bit k: seen k frames ago.
    pub(super) seen_bits: &'a mut [i32],
    pub(super) hits: &'a mut [i32],
    pub(super) misses: &'a mut [i32],
    pub(super) confirmed: &'a mut [i32],
    pub(super) visibility: &'a mut [i32],
    /// `[1]`: the id given last.
    pub(super) last_id: &'a mut i32,
    /// `[1]`: whether a confirmed track was ever in view.
    pub(super) scene_was_visible: &'a mut i32,
}

impl<'a> TrackTableMut<'a> {
    /// Takes [`f32_len`] and [`i32_len`] values as a table of `capacity` slots.
    pub fn from_slices(
        capacity: usize,
        f32s: &'a mut [f32],
        i32s: &'a mut [i32],
    ) -> Result<Self, TrackingError> {
        check_len("track_f32s", f32_len(capacity), f32s.len())?;
        check_len("track_i32s", i32_len(capacity), i32s.len())?;
        let (scene_f32, f32s) = f32s.split_at_mut(1);
        let (boxes_cxcywh, f32s) = f32s.split_at_mut(4 * capacity);
        let (velocities_per_s, f32s) = f32s.split_at_mut(4 * capacity);
        let (scores, f32s) = f32s.split_at_mut(capacity);
        let (label_votes, f32s) = f32s.split_at_mut(capacity);
        let (scene_i32, i32s) = i32s.split_at_mut(2);
        let (last_id, scene_was_visible) = scene_i32.split_at_mut(1);
        let (ids, i32s) = i32s.split_at_mut(capacity);
        let (labels, i32s) = i32s.split_at_mut(capacity);
        let (seen_bits, i32s) = i32s.split_at_mut(capacity);
        let (hits, i32s) = i32s.split_at_mut(capacity);
        let (misses, i32s) = i32s.split_at_mut(capacity);
        let (confirmed, i32s) = i32s.split_at_mut(capacity);
        Ok(Self {
            boxes_cxcywh,
            velocities_per_s,
            scores,
            label_votes,
            unseen_s: &mut f32s[..capacity],
            scene_unseen_s: &mut scene_f32[0],
            ids,
            labels,
            seen_bits,
            hits,
            misses,
            confirmed,
            visibility: &mut i32s[..capacity],
            last_id: &mut last_id[0],
            scene_was_visible: &mut scene_was_visible[0],
        })
    }

    /// Number of slots.
    pub fn capacity(&self) -> usize {
        self.ids.len()
    }

    /// The next identity: counts up from the last. After 2³¹ − 1 (41 days of ten births a frame at 60 frames a second) it
    /// starts again at 1, leaving out the ids that are in the table.
    pub(super) fn issue_id(&mut self) -> i32 {
        loop {
            *self.last_id = if (0..i32::MAX).contains(&*self.last_id) { *self.last_id + 1 } else { 1 };
            if !self.ids.contains(self.last_id) {
                return *self.last_id;
            }
        }
    }

    /// The track in a slot, if there is one.
    pub fn track(&self, slot: usize) -> Option<Track> {
        let id = *self.ids.get(slot)?;
        let four = |v: &[f32]| crate::assignment::cost::box_at(v, slot);
        (id != 0).then(|| Track {
            id,
            label: self.labels[slot],
            score: self.scores[slot],
            box_cxcywh: four(self.boxes_cxcywh),
            velocity_cxcywh_per_s: four(self.velocities_per_s),
            confirmed: self.confirmed[slot] != 0,
            visibility: Visibility::from_i32(self.visibility[slot]),
            unseen_s: self.unseen_s[slot],
            misses: self.misses[slot],
        })
    }
}

/// A table that owns its buffers.
#[derive(Clone, Debug)]
pub struct TrackTable {
    capacity: usize,
    f32s: Vec<f32>,
    i32s: Vec<i32>,
}

impl TrackTable {
    /// An empty table.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, f32s: vec![0.0; f32_len(capacity)], i32s: vec![0; i32_len(capacity)] }
    }

    /// An empty table whose first identity is the one after `last_id`: identities are never given twice, also where
    /// tracks begin anew. What is below 0 counts as 0.
    pub fn after(capacity: usize, last_id: i32) -> Self {
        let mut table = Self::new(capacity);
        *table.view().last_id = last_id.max(0);
        table
    }

    /// A table from the values of a device's state tensors.
    pub fn from_values(capacity: usize, f32s: Vec<f32>, i32s: Vec<i32>) -> Result<Self, TrackingError> {
        check_len("track_f32s", f32_len(capacity), f32s.len())?;
        check_len("track_i32s", i32_len(capacity), i32s.len())?;
        Ok(Self { capacity, f32s, i32s })
    }

    /// Number of slots.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The two buffers, f32 and i32.
    pub fn values(&self) -> (&[f32], &[i32]) {
        (&self.f32s, &self.i32s)
    }

    /// The table for [`update`](super::update()).
    pub fn view(&mut self) -> TrackTableMut<'_> {
        TrackTableMut::from_slices(self.capacity, &mut self.f32s, &mut self.i32s)
            .expect("the buffers were made for this capacity")
    }

    /// The tracks there are, by slot.
    pub fn tracks(&self) -> Vec<Track> {
        let mut copy = self.clone();
        let view = copy.view();
        (0..view.capacity()).filter_map(|slot| view.track(slot)).collect()
    }
}
