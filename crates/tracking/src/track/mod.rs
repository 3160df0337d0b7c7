//! Tracks: which detection of this frame is the structure that was seen before, and what is in view at all.
//!
//! | file | room for |
//! |---|---|
//! | [`config`] | every threshold, with its default and the reason for it |
//! | [`filter`] | where a box will be, and how far to believe a detection |
//! | [`table`] | the tracks: fixed slots in two flat buffers that can live on a device |
//! | [`update`](mod@update) | one frame: predict, pair, correct, age, give birth |
//! | [`clock`] | seconds between frames from the source's timestamps |
//!
//! In: a frame's detections (boxes as fractions of the image, scores, classes) and the time since the last ones.
//! Out: for each detection an identity and whether to believe it, and VISIBLE, RELOCALIZING or LOST for the scene.
//!
//! ```
//! use ultramotion_tracking::track::{Detections, Tracker, TrackerConfig};
//! use ultramotion_types::Visibility;
//!
//! let mut tracker = Tracker::new(TrackerConfig::default(), 8, 16)?;
//! for frame in 0..5 {
//!     let x = 0.40 + 0.002 * frame as f32;
//!     let frame = tracker.update(
//!         &Detections { boxes_cxcywh: &[x, 0.5, 0.1, 0.1], scores: &[0.9], classes: &[1], count: 1 },
//!         1.0 / 30.0,
//!     )?;
//!     assert_eq!(frame.track_ids, [1]);
//! }
//! assert_eq!(tracker.scene(), Visibility::Visible);
//! # Ok::<(), ultramotion_tracking::TrackingError>(())
//! ```

pub mod clock;
pub mod config;
pub mod filter;
pub mod table;
pub mod update;

pub use clock::FrameClock;
pub use config::TrackerConfig;
pub use table::{Track, TrackTable, TrackTableMut};
pub use update::{Detections, TrackOutput, scratch_sizes, update};

use crate::assignment::Workspace;
use crate::error::TrackingError;
use ultramotion_types::Visibility;

/// A table with its settings and working memory: allocates when it is made, and never after.
#[derive(Clone, Debug)]
pub struct Tracker {
    config: TrackerConfig,
    table: TrackTable,
    workspace: Workspace,
    rows: [Vec<i32>; 4],
    scene: Visibility,
}

/// What the detections of one frame became; every slice has a row for each detection passed in. See [`TrackOutput`].
#[derive(Clone, Copy, Debug)]
pub struct TrackedFrame<'a> {
    /// Identities; 0 where a row is no detection.
    pub track_ids: &'a [i32],
    /// 1 where the track is confirmed.
    pub confirmed: &'a [i32],
    /// [`Visibility`] of each track.
    pub visibility: &'a [i32],
    /// Slot of each track in the table, −1 for none.
    pub slots: &'a [i32],
    /// State of the scene.
    pub scene: Visibility,
}

impl Tracker {
    /// A tracker for up to `max_detections` in a frame that remembers up to `capacity` tracks, at least as many.
    pub fn new(config: TrackerConfig, max_detections: usize, capacity: usize) -> Result<Self, TrackingError> {
        config.validate()?;
        if capacity < max_detections {
            let rule = "a table must have a slot for each detection of a frame (max_detections)";
            return Err(TrackingError::Config { field: "capacity", value: capacity as f64, rule });
        }
        Ok(Self {
            config,
            table: TrackTable::new(capacity),
            workspace: Workspace::with_sizes(scratch_sizes(max_detections, capacity)),
            rows: std::array::from_fn(|_| vec![0; max_detections]),
            scene: Visibility::Lost,
        })
    }

    /// Takes a frame in, `dt_s` seconds after the last one: see [`update()`]. An error if there are more rows than
    /// `max_detections`.
    pub fn update(
        &mut self,
        detections: &Detections<'_>,
        dt_s: f32,
    ) -> Result<TrackedFrame<'_>, TrackingError> {
        let rows = detections.scores.len();
        let [track_ids, confirmed, visibility, slots] = &mut self.rows;
        let mut output = TrackOutput { track_ids, confirmed, visibility, slots };
        self.scene = update(
            &self.config,
            &mut self.table.view(),
            detections,
            dt_s,
            &mut self.workspace.scratch(),
            &mut output,
        )?;
        Ok(TrackedFrame {
            track_ids: &self.rows[0][..rows],
            confirmed: &self.rows[1][..rows],
            visibility: &self.rows[2][..rows],
            slots: &self.rows[3][..rows],
            scene: self.scene,
        })
    }

    /// Forgets all tracks; the next identity is the one after `last_id` ([`TrackTable::after`]).
    pub fn begin_anew(&mut self, last_id: i32) {
        self.table = TrackTable::after(self.table.capacity(), last_id);
        self.scene = Visibility::Lost;
    }

    /// The scene after the last frame; LOST before the first.
    pub fn scene(&self) -> Visibility {
        self.scene
    }

    /// The tracks there are.
    pub fn tracks(&self) -> Vec<Track> {
        self.table.tracks()
    }

    /// The settings.
    pub fn config(&self) -> &TrackerConfig {
        &self.config
    }
}
