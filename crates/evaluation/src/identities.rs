//! Identities over a sequence: does each structure keep its track?
//!
//! CLEAR MOT (K. Bernardin and R. Stiefelhagen, EURASIP J. Image and Video Processing, 2008): in every frame a
//! structure keeps the track that it had last while their boxes overlap by [`MIN_IOU`]; the others are assigned at the
//! largest total overlap. A structure that gets another track than the one it had last is an *identity switch*.
//! MOTA = 1 − (missed + false + switches) / objects, MOTP here is the mean IoU of the pairs. *Coverage* is the share of
//! a structure's frames in which some track has it, *longest share* that in which its most frequent track has it
//! (B. Wu and R. Nevatia, CVPR 2006, call 80 % mostly tracked).

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use ultramotion_tracking::assignment::{CostMatrix, Solver, UNMATCHED, Workspace};

use super::outlines::overlap;
use super::truth::TrueObject;
use ultramotion_types::MaskView;
use ultramotion_types::boxes::{BoxXyxy, iou};

/// Overlap of boxes from which on a track has a structure.
pub(crate) const MIN_IOU: f64 = 0.5;
/// Share of its frames from which on a structure counts as mostly tracked.
const MOSTLY: f64 = 0.8;

/// A box with who it is: a structure's number or a track's id.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Identified {
    pub id: u64,
    /// Only boxes of one class belong together.
    pub class: usize,
    pub box_xyxy: BoxXyxy,
}

/// Figures of one or more sequences.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct TrackingFigures {
    pub frames: usize,
    /// True boxes, over all frames.
    pub objects: usize,
    /// Structures: true identities.
    pub structures: usize,
    /// Identities that the tracker gave.
    pub tracks: usize,
    pub identity_switches: usize,
    pub missed: usize,
    pub false_boxes: usize,
    /// At most 1; below 0 when there are more errors than objects. Nothing without objects.
    pub mota: Option<f64>,
    /// Mean IoU of structures and their tracks.
    pub motp_iou: Option<f64>,
    /// Mean over the structures.
    pub coverage: Option<f64>,
    /// Mean over the structures.
    pub longest_share: Option<f64>,
    /// Structures covered in 80 % of their frames or more.
    pub mostly_tracked: usize,
}

/// What is known of a structure.
#[derive(Debug, Clone, Default)]
struct Life {
    frames: usize,
    last_track: Option<u64>,
    frames_of_track: BTreeMap<u64, usize>,
}

/// Adds up frames in their order.
#[derive(Debug, Clone, Default)]
pub(crate) struct IdentityTally {
    figures: TrackingFigures,
    iou_sum: f64,
    pairs: usize,
    lives: BTreeMap<u64, Life>,
    tracks: BTreeSet<u64>,
    /// Structures of sequences that have ended.
    past: Vec<Life>,
}

impl IdentityTally {
    /// The next frame is of another sequence: nobody is who they were.
    pub(crate) fn end_sequence(&mut self) {
        self.past.extend(std::mem::take(&mut self.lives).into_values());
        self.figures.tracks += std::mem::take(&mut self.tracks).len();
    }

    /// Adds a frame.
    pub(crate) fn add(&mut self, truth: &[Identified], found: &[Identified]) {
        let mut track_of: Vec<Option<usize>> = vec![None; truth.len()];
        let mut taken = vec![false; found.len()];
        let iou = |t: &Identified, f: &Identified| {
            if t.class == f.class { iou(&t.box_xyxy, &f.box_xyxy) } else { 0.0 }
        };
        for (index, structure) in truth.iter().enumerate() {
            let last = self.lives.get(&structure.id).and_then(|life| life.last_track);
            let same = |(f, other): &(usize, &Identified)| {
                Some(other.id) == last && !taken[*f] && iou(structure, other) >= MIN_IOU
            };
            let kept = found.iter().enumerate().find(same).map(|(f, _)| f);
            if let Some(f) = kept {
                (track_of[index], taken[f]) = (Some(f), true);
            }
        }
        let rows: Vec<usize> = (0..truth.len()).filter(|&i| track_of[i].is_none()).collect();
        let cols: Vec<usize> = (0..found.len()).filter(|&i| !taken[i]).collect();
        let pairs = assign(rows.len(), cols.len(), |r, c| {
            let iou = iou(&truth[rows[r]], &found[cols[c]]);
            (iou >= MIN_IOU).then_some(iou)
        });
        for (row, col) in pairs {
            track_of[rows[row]] = Some(cols[col]);
        }

        self.figures.frames += 1;
        self.figures.objects += truth.len();
        self.tracks.extend(found.iter().map(|f| f.id));
        let matched = track_of.iter().flatten().count();
        self.figures.missed += truth.len() - matched;
        self.figures.false_boxes += found.len() - matched;
        for (structure, track) in truth.iter().zip(track_of) {
            let life = self.lives.entry(structure.id).or_default();
            life.frames += 1;
            let Some(track) = track.map(|f| &found[f]) else { continue };
            self.iou_sum += iou(structure, track);
            self.pairs += 1;
            if life.last_track.is_some_and(|last| last != track.id) {
                self.figures.identity_switches += 1;
            }
            life.last_track = Some(track.id);
            *life.frames_of_track.entry(track.id).or_default() += 1;
        }
    }

    /// The figures of all frames so far.
    pub(crate) fn figures(&self) -> TrackingFigures {
        let lives: Vec<&Life> = self.past.iter().chain(self.lives.values()).collect();
        let figures = self.figures;
        let mean = |value: &dyn Fn(&Life) -> usize| {
            let sum: f64 = lives.iter().map(|life| value(life) as f64 / life.frames as f64).sum();
            (!lives.is_empty()).then(|| sum / lives.len() as f64)
        };
        let covered = |life: &Life| life.frames_of_track.values().sum::<usize>();
        let longest = |life: &Life| life.frames_of_track.values().copied().max().unwrap_or(0);
        let errors = (figures.missed + figures.false_boxes + figures.identity_switches) as f64;
        TrackingFigures {
            structures: lives.len(),
            tracks: figures.tracks + self.tracks.len(),
            mota: (figures.objects > 0).then(|| 1.0 - errors / figures.objects as f64),
            motp_iou: (self.pairs > 0).then(|| self.iou_sum / self.pairs as f64),
            coverage: mean(&covered),
            longest_share: mean(&longest),
            mostly_tracked: lives.iter().filter(|l| covered(l) as f64 >= MOSTLY * l.frames as f64).count(),
            ..figures
        }
    }
}

/// Gives the objects of a sequence's masks lasting identities: an object is the one of its class in the frame before
/// whose mask it overlaps (at the largest total IoU, one to one), else a new one. Masks do not say who is who; this holds
/// where structures move by less than their size from frame to frame.
#[derive(Debug, Clone, Default)]
pub(crate) struct TrueIdentities {
    before: Vec<(u64, TrueObject)>,
    next: u64,
}

impl TrueIdentities {
    /// The next frame is of another sequence.
    pub(crate) fn end_sequence(&mut self) {
        self.before.clear();
    }

    /// Identities of a frame's objects. With one object a class, its class is who it is, also after a pause.
    pub(crate) fn identify(&mut self, objects: &[TrueObject], one_per_class: bool) -> Vec<u64> {
        if one_per_class {
            return objects.iter().map(|object| object.class as u64).collect();
        }
        let pairs = assign(objects.len(), self.before.len(), |row, col| {
            let (now, (_, before)) = (&objects[row], &self.before[col]);
            let (now_mask, before_mask) = (now.mask.view(), before.mask.view());
            let size = |mask: MaskView<'_>| [mask.width(), mask.height()];
            let same_size = size(now_mask) == size(before_mask);
            let iou = if same_size { overlap(now_mask, before_mask).iou } else { 0.0 };
            (now.class == before.class && iou > 0.0).then_some(iou)
        });
        let mut ids = vec![None; objects.len()];
        for (row, col) in pairs {
            ids[row] = Some(self.before[col].0);
        }
        let ids: Vec<u64> = ids
            .into_iter()
            .map(|id| {
                id.unwrap_or_else(|| {
                    self.next += 1;
                    self.next - 1
                })
            })
            .collect();
        self.before = ids.iter().copied().zip(objects.iter().cloned()).collect();
        ids
    }
}

/// Pairs of rows and columns: as many as allowed, and of those the ones with the largest total. `gain` is 0 to 1, or
/// `None` for a pair that must not be.
fn assign(rows: usize, cols: usize, gain: impl Fn(usize, usize) -> Option<f64>) -> Vec<(usize, usize)> {
    let costs: Vec<f32> = (0..rows * cols)
        .map(|i| gain(i / cols, i % cols).map_or(f32::INFINITY, |gain| 1.0 - gain as f32))
        .collect();
    let mut col_of_row = vec![UNMATCHED; rows];
    let mut workspace = Workspace::new(rows, cols);
    let solved = CostMatrix::new(&costs, rows, cols).and_then(|matrix| {
        Solver::Exact.solve(matrix, f64::INFINITY, &mut workspace.scratch(), &mut col_of_row)
    });
    solved.expect("all lengths follow from rows and cols");
    col_of_row.iter().enumerate().filter_map(|(row, &col)| Some((row, usize::try_from(col).ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use ultramotion_types::BitMask;

    use super::*;

    fn at(id: u64, x: f64) -> Identified {
        Identified { id, class: 0, box_xyxy: [x, 0.0, x + 10.0, 10.0] }
    }

    #[test]
    fn a_perfect_tracker() {
        let mut tally = IdentityTally::default();
        for frame in 0..4 {
            let x = f64::from(frame);
            tally.add(&[at(0, x), at(1, x + 50.0)], &[at(7, x + 50.0), at(3, x)]);
        }
        let figures = tally.figures();
        assert_eq!((figures.identity_switches, figures.missed, figures.false_boxes), (0, 0, 0));
        assert_eq!((figures.structures, figures.tracks, figures.mostly_tracked), (2, 2, 2));
        for share in [figures.mota, figures.motp_iou, figures.coverage, figures.longest_share] {
            assert_eq!(share, Some(1.0));
        }
    }

    #[test]
    fn switches_gaps_and_strays_are_counted() {
        let mut tally = IdentityTally::default();
        tally.add(&[at(0, 0.0)], &[at(1, 0.0)]);
        tally.add(&[at(0, 0.0)], &[]); // missed
        tally.add(&[at(0, 0.0)], &[at(1, 0.0)]); // the same again: no switch
        tally.add(&[at(0, 0.0)], &[at(2, 0.0), at(1, 40.0)]); // a switch, and the old track is elsewhere
        // The track that it has now stays, though another fits better.
        tally.add(&[at(0, 0.0)], &[at(9, 0.0), at(2, 2.0)]);
        let figures = tally.figures();
        assert_eq!((figures.identity_switches, figures.missed, figures.false_boxes), (1, 1, 2));
        assert_eq!((figures.tracks, figures.structures, figures.mostly_tracked), (3, 1, 1));
        assert_eq!((figures.coverage, figures.longest_share), (Some(0.8), Some(0.4)));
        assert!((figures.mota.unwrap() - (1.0 - 4.0 / 5.0)).abs() < 1e-12);
    }

    #[test]
    fn two_that_swap_are_two_switches_and_classes_do_not_mix() {
        let mut tally = IdentityTally::default();
        tally.add(&[at(0, 0.0), at(1, 50.0)], &[at(10, 0.0), at(11, 50.0)]);
        tally.add(&[at(0, 0.0), at(1, 50.0)], &[at(11, 0.0), at(10, 50.0)]);
        assert_eq!(tally.figures().identity_switches, 2);
        tally.add(&[at(0, 0.0)], &[Identified { class: 1, ..at(10, 0.0) }]);
        assert_eq!((tally.figures().missed, tally.figures().false_boxes), (1, 1));
    }

    #[test]
    fn sequences_stand_alone() {
        let mut tally = IdentityTally::default();
        tally.add(&[at(0, 0.0)], &[at(1, 0.0)]);
        tally.end_sequence();
        tally.add(&[at(0, 0.0)], &[at(5, 0.0)]);
        tally.end_sequence();
        let figures = tally.figures();
        assert_eq!((figures.identity_switches, figures.structures, figures.tracks), (0, 2, 2));
        assert_eq!(IdentityTally::default().figures(), TrackingFigures::default());
    }

    #[test]
    fn masks_are_followed_by_their_overlap() {
        let object = |class: usize, x0: usize| {
            let mask = BitMask::from_fn(60, 10, |x, _| (x0..x0 + 10).contains(&x));
            TrueObject { class, box_xyxy: [x0 as f64, 0.0, x0 as f64 + 10.0, 10.0], mask }
        };
        let mut identities = TrueIdentities::default();
        assert_eq!(identities.identify(&[object(0, 0), object(0, 20), object(1, 40)], false), [0, 1, 2]);
        // Both move right; the first now overlaps neither's old place but its own.
        assert_eq!(identities.identify(&[object(0, 24), object(0, 4), object(1, 24)], false), [1, 0, 3]);
        identities.end_sequence();
        assert_eq!(identities.identify(&[object(0, 24)], false), [4]);
        assert_eq!(identities.identify(&[object(1, 24)], true), [1]);
    }
}
