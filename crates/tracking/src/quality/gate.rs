//! Whether objects show well enough to be in view.

use ultramotion_types::Visibility;

use super::QualityConfig;

/// The gate of a stream: remembers which objects showed badly, and since when nothing is in view.
#[derive(Clone, Debug, Default)]
pub struct QualityGate {
    /// Identities that showed badly when they were last seen.
    bad: Vec<i32>,
    seen: Vec<i32>,
    /// Time since something was in view.
    unseen_s: f32,
}

impl QualityGate {
    /// A gate with room for so many objects in a frame.
    pub fn new(objects: usize) -> Self {
        QualityGate { bad: Vec::with_capacity(objects), seen: Vec::with_capacity(objects), ..Self::default() }
    }

    /// Begins a frame.
    pub fn begin(&mut self) {
        self.seen.clear();
    }

    /// Whether an object of the frame is in view. One that showed badly must reach `again`, another one `least`.
    pub fn passes(&mut self, config: &QualityConfig, track_id: i32, mean: f32) -> bool {
        let was_bad = self.bad.iter().position(|&id| id == track_id);
        let needed = if was_bad.is_some() { config.again.max(config.least) } else { config.least };
        let passes = mean >= needed;
        match (passes, was_bad) {
            (true, Some(at)) => {
                self.bad.swap_remove(at);
            }
            (false, None) => {
                // Those that are not in the frame make room: what comes back late is judged as if it were new.
                if self.bad.len() == self.bad.capacity() {
                    let seen = &self.seen;
                    self.bad.retain(|id| seen.contains(id));
                }
                if self.bad.len() < self.bad.capacity() {
                    self.bad.push(track_id);
                }
            }
            _ => {}
        }
        self.seen.push(track_id);
        passes
    }

    /// Ends a frame: the scene, where the tracker has found it to be `scene`, and a confirmed object is `in_view` or none.
    pub fn scene(&mut self, scene: Visibility, in_view: bool, dt_s: f32, relocalize_s: f32) -> Visibility {
        if in_view {
            self.unseen_s = 0.0;
            return Visibility::Visible;
        }
        self.unseen_s += dt_s.max(0.0);
        match scene {
            Visibility::Visible if self.unseen_s > relocalize_s => Visibility::Lost,
            Visibility::Visible => Visibility::Relocalizing,
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shows_badly_must_become_better_than_it_had_to_stay() {
        let config = QualityConfig { gate: true, least: 0.3, again: 0.5, ..QualityConfig::default() };
        let mut gate = QualityGate::new(2);
        let frame = |gate: &mut QualityGate, mean: f32| {
            gate.begin();
            let passes = gate.passes(&config, 7, mean);
            gate.scene(Visibility::Visible, passes, 0.1, 0.25)
        };
        use Visibility::{Lost, Relocalizing, Visible};
        let means = [0.4, 0.29, 0.4, 0.49, 0.4, 0.5, 0.4, 0.31, 0.0];
        let states = means.map(|mean| frame(&mut gate, mean));
        let expected =
            [Visible, Relocalizing, Relocalizing, Lost, Lost, Visible, Visible, Visible, Relocalizing];
        assert_eq!(states, expected);
        assert_eq!(
            gate.scene(Lost, false, 0.1, 0.25),
            Lost,
            "the gate finds nothing that the tracker has not"
        );
    }

    #[test]
    fn more_bad_objects_than_there_is_room_for_push_out_those_that_are_gone() {
        let config = QualityConfig::default();
        let mut gate = QualityGate::new(2);
        for first in (1..100).step_by(2) {
            gate.begin();
            assert!(!gate.passes(&config, first, 0.1) && !gate.passes(&config, first + 1, 0.1));
            assert_eq!(gate.bad, [first, first + 1]);
        }
        gate.begin();
        assert!(!gate.passes(&config, 100, f32::NAN), "what is no number passes nothing");
    }
}
