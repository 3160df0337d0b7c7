//! Tracks over time: identities, confirmation, gaps, the scene, and hostile input.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use ultramotion_tracking::assignment::{Solver, Workspace};
use ultramotion_tracking::track::{
    self, Detections, TrackOutput, TrackTable, Tracker, TrackerConfig, scratch_sizes, update,
};
use ultramotion_types::Visibility;

const DT: f32 = 1.0 / 30.0;
const K: usize = 6;
const CAPACITY: usize = 10;

/// A detection: box, score, class.
type Seen = ([f32; 4], f32, i32);

#[derive(Clone, Debug, PartialEq)]
struct Frame {
    ids: Vec<i32>,
    confirmed: Vec<i32>,
    visibility: Vec<i32>,
    slots: Vec<i32>,
    scene: Visibility,
}

fn tracker(config: TrackerConfig) -> Tracker {
    Tracker::new(config, K, CAPACITY).unwrap()
}

fn feed(tracker: &mut Tracker, seen: &[Seen], dt_s: f32) -> Frame {
    let boxes: Vec<f32> = seen.iter().flat_map(|s| s.0).collect();
    let scores: Vec<f32> = seen.iter().map(|s| s.1).collect();
    let classes: Vec<i32> = seen.iter().map(|s| s.2).collect();
    let detections =
        Detections { boxes_cxcywh: &boxes, scores: &scores, classes: &classes, count: seen.len() };
    let f = tracker.update(&detections, dt_s).unwrap();
    Frame {
        ids: f.track_ids.to_vec(),
        confirmed: f.confirmed.to_vec(),
        visibility: f.visibility.to_vec(),
        slots: f.slots.to_vec(),
        scene: f.scene,
    }
}

fn at(cx: f32, cy: f32, class: i32) -> Seen {
    ([cx, cy, 0.1, 0.12], 0.8, class)
}

/// Detector noise with a standard deviation of 0.01, the same in every run.
fn jitter(frame: usize, axis: usize) -> f32 {
    let mut z = (frame * 4 + axis + 1) as u32;
    z = (z ^ z >> 16).wrapping_mul(0x7feb_352d);
    z = (z ^ z >> 15).wrapping_mul(0x846c_a68b);
    ((z ^ z >> 16) as f32 / u32::MAX as f32 - 0.5) * 0.0346
}

#[test]
fn a_drifting_pulsating_structure_keeps_its_id() {
    for rate in [10.0, 30.0, 60.0] {
        for solver in [Solver::Exact, Solver::Greedy] {
            let mut t = tracker(TrackerConfig { solver, ..Default::default() });
            for frame in 0..(10.0 * rate) as usize {
                let time = frame as f32 / rate;
                let x = 0.2 + 0.05 * time + jitter(frame, 0);
                let size = 0.1 * (1.0 + 0.1 * (std::f32::consts::TAU * time).sin());
                let seen =
                    ([x, 0.5 + jitter(frame, 1), size + jitter(frame, 2), size + jitter(frame, 3)], 0.7, 1);
                assert_eq!(feed(&mut t, &[seen], 1.0 / rate).ids, [1], "{rate} Hz, frame {frame}");
            }
            assert_eq!(t.tracks().len(), 1);
        }
    }
}

#[test]
fn a_track_is_confirmed_by_three_of_five() {
    let mut t = tracker(TrackerConfig::default());
    let mut confirmed = |seen: bool| {
        let there = [at(0.5, 0.5, 0)];
        feed(&mut t, if seen { &there } else { &[] }, DT).confirmed.first().copied()
    };
    assert_eq!(confirmed(true), Some(0));
    assert_eq!(confirmed(false), None);
    assert_eq!(confirmed(true), Some(0));
    assert_eq!(confirmed(false), None);
    assert_eq!(confirmed(true), Some(1));
    // Once confirmed, always confirmed.
    (0..8).for_each(|_| assert_eq!(confirmed(false), None));
    assert_eq!(confirmed(true), Some(1));
}

#[test]
fn a_flash_is_not_confirmed_and_soon_forgotten() {
    let mut t = tracker(TrackerConfig::default());
    feed(&mut t, &[at(0.5, 0.5, 0)], DT);
    feed(&mut t, &[], DT);
    feed(&mut t, &[], DT);
    assert_eq!(t.tracks().len(), 1);
    feed(&mut t, &[], DT); // the window of five can no longer hold three
    assert_eq!(t.tracks().len(), 0);
    assert_eq!(feed(&mut t, &[at(0.5, 0.5, 0)], DT).ids, [2]);
}

#[test]
fn identity_survives_a_gap_until_it_is_forgotten() {
    for missed in [1usize, 5, 29, 60, 88, 92, 120] {
        let mut t = tracker(TrackerConfig::default());
        (0..10).for_each(|frame| {
            feed(&mut t, &[at(0.5 + jitter(frame, 0), 0.5, 0)], DT);
        });
        (0..missed).for_each(|_| {
            feed(&mut t, &[], DT);
        });
        let back = feed(&mut t, &[at(0.53, 0.5, 0)], DT);
        let remembered = (missed + 1) as f32 * DT <= TrackerConfig::default().forget_s;
        assert_eq!(back.ids, [if remembered { 1 } else { 2 }], "{missed} frames missed");
        assert_eq!(back.confirmed, [i32::from(remembered)]);
    }
}

#[test]
fn a_moving_structure_is_found_again_where_it_was_going() {
    // Speed 0.3 /s for a second, hidden for 0.3 s meanwhile 0.09 are covered: nearly a box width.
    let mut t = tracker(TrackerConfig::default());
    let x = |frame: usize| 0.2 + 0.3 * frame as f32 * DT;
    (0..30).for_each(|f| assert_eq!(feed(&mut t, &[at(x(f), 0.5, 0)], DT).ids, [1]));
    (30..39).for_each(|_| {
        feed(&mut t, &[], DT);
    });
    let predicted = t.tracks()[0].box_cxcywh[0];
    assert!((predicted - x(38)).abs() < 0.04 && predicted > x(29) + 0.04, "{predicted} {}", x(38));
    assert_eq!(feed(&mut t, &[at(x(39), 0.5, 0)], DT).ids, [1]);
}

#[test]
fn crossing_structures_keep_their_identity() {
    // Of different classes at any speed, of the same class by their motion. Order of detections swaps every frame.
    for (classes, speed) in [([0, 1], 0.2f32), ([0, 1], 0.6), ([0, 0], 0.6)] {
        let mut t = tracker(TrackerConfig::default());
        let frames = (0.8 / speed / DT) as usize;
        for frame in 0..frames {
            let way = speed * frame as f32 * DT;
            let offset = if classes[0] == classes[1] { 0.02 } else { 0.0 };
            let (a, b) = (at(0.1 + way, 0.5 - offset, classes[0]), at(0.9 - way, 0.5 + offset, classes[1]));
            if frame % 2 == 0 {
                assert_eq!(feed(&mut t, &[a, b], DT).ids, [1, 2], "{classes:?} {speed} {frame}");
            } else {
                assert_eq!(feed(&mut t, &[b, a], DT).ids, [2, 1], "{classes:?} {speed} {frame}");
            }
        }
    }
}

#[test]
fn a_detection_of_another_class_or_far_away_is_another_structure() {
    let mut t = tracker(TrackerConfig::default());
    (0..5).for_each(|_| {
        feed(&mut t, &[at(0.5, 0.5, 0)], DT);
    });
    assert_eq!(feed(&mut t, &[at(0.5, 0.5, 1)], DT).ids, [2]);
    assert_eq!(feed(&mut t, &[at(0.7, 0.5, 0)], DT).ids, [3]);
    assert_eq!(feed(&mut t, &[at(0.5, 0.5, 0)], DT).ids, [1]);
}

#[test]
fn gates_keep_strangers_apart() {
    // A large box that jumps overlaps its old place well, so its cost is low: the distance gate decides.
    let large = |cx| ([cx, 0.5, 0.5, 0.5], 0.9, 0);
    let mut t = tracker(TrackerConfig::default());
    (0..3).for_each(|_| {
        feed(&mut t, &[large(0.4)], DT);
    });
    assert_eq!(feed(&mut t, &[large(0.6)], DT).ids, [2]);
    // After most of a second the gate is wider.
    let mut t = tracker(TrackerConfig::default());
    (0..3).for_each(|_| {
        feed(&mut t, &[large(0.4)], DT);
    });
    (0..24).for_each(|_| {
        feed(&mut t, &[], DT);
    });
    assert_eq!(feed(&mut t, &[large(0.6)], DT).ids, [1]);
    // Small boxes beside each other: the GIoU gate, where a high price would allow the pair.
    for (gate_giou, id) in [(-1.0, 1), (0.0, 2)] {
        let mut t = tracker(TrackerConfig { gate_giou, max_cost: 100.0, ..Default::default() });
        feed(&mut t, &[at(0.4, 0.5, 0)], DT);
        assert_eq!(feed(&mut t, &[at(0.52, 0.5, 0)], DT).ids, [id]);
    }
    // Without a price worth paying, the nearest pair is not made either.
    let mut t = tracker(TrackerConfig { max_cost: 0.5, ..Default::default() });
    feed(&mut t, &[at(0.4, 0.5, 0)], DT);
    assert_eq!(feed(&mut t, &[at(0.45, 0.5, 0)], DT).ids, [2]);
}

#[test]
fn a_track_in_view_is_preferred_to_a_remembered_one() {
    for (age_cost_per_s, id) in [(0.5, 1), (0.0, 2)] {
        let mut t = tracker(TrackerConfig { age_cost_per_s, ..Default::default() });
        (0..4).for_each(|_| {
            feed(&mut t, &[at(0.50, 0.5, 0), at(0.56, 0.5, 0)], DT);
        });
        (0..30).for_each(|_| {
            feed(&mut t, &[at(0.50, 0.5, 0)], DT);
        });
        assert_eq!(feed(&mut t, &[at(0.534, 0.5, 0)], DT).ids, [id]);
    }
}

/// Two vessels side by side (one class) and a nerve; the probe sways, the vessels pulsate, the detector jitters,
/// misses 15 % and invents something now and then.
#[test]
fn a_swaying_scene_is_told_apart() {
    for (rate, solver) in
        [10.0, 30.0, 60.0].into_iter().flat_map(|r| [(r, Solver::Exact), (r, Solver::Greedy)])
    {
        let mut t = tracker(TrackerConfig { solver, ..Default::default() });
        let mut owner = BTreeMap::new(); // id → structure
        let (mut random, mut confirmed, mut changes) = (12345u32, 0, 0);
        let mut last: [Option<i32>; 3] = [None; 3];
        let mut uniform = || {
            random = random.wrapping_mul(1664525).wrapping_add(1013904223);
            (random >> 8) as f32 / (1 << 24) as f32
        };
        let frames = (60.0 * rate) as usize;
        for frame in 0..frames {
            let time = frame as f32 / rate;
            let sway = 0.12 * (std::f32::consts::TAU * 0.25 * time).sin();
            let pulse = 1.0 + 0.08 * (std::f32::consts::TAU * 1.2 * time).sin();
            let (mut seen, mut truth) = (Vec::new(), Vec::new());
            for (which, (cx, size, class)) in
                [(0.40, 0.14, 1), (0.56, 0.12, 1), (0.70, 0.06, 0)].into_iter().enumerate()
            {
                let mut noise = || (uniform() + uniform() + uniform() - 1.5) * 0.02; // standard deviation 0.01
                let b = [cx + sway + noise(), 0.5 + noise(), size * pulse + noise(), size * pulse + noise()];
                if uniform() > 0.15 {
                    seen.push((b, 0.5 + 0.4 * uniform(), class));
                    truth.push(Some(which));
                }
            }
            if uniform() < 0.05 {
                seen.push(([uniform(), uniform(), 0.1, 0.1], 0.5, (uniform() * 2.0) as i32));
                truth.push(None);
            }
            let f = feed(&mut t, &seen, 1.0 / rate);
            for (k, which) in truth.iter().enumerate() {
                let Some(which) = *which else { continue };
                let id = f.ids[k];
                assert_eq!(*owner.entry(id).or_insert(which), which, "id {id} moved to another structure");
                confirmed += f.confirmed[k];
                changes += i32::from(last[which].is_some_and(|last| last != id));
                last[which] = Some(id);
            }
        }
        // Nearly every detection of the 2.55 a frame belongs to a confirmed track, and tracks last.
        assert!(confirmed as usize > frames * 5 / 2, "{rate} Hz: {confirmed} confirmed in {frames} frames");
        assert!(changes <= 2, "{rate} Hz: {changes} changes of identity in a minute");
    }
}

#[test]
fn the_scene_is_visible_then_relocalizing_then_lost() {
    let mut t = tracker(TrackerConfig::default());
    assert_eq!(t.scene(), Visibility::Lost);
    assert_eq!(feed(&mut t, &[], DT).scene, Visibility::Lost);
    let scenes: Vec<_> = (0..4).map(|_| feed(&mut t, &[at(0.5, 0.5, 0)], DT).scene).collect();
    use Visibility::{Lost, Relocalizing, Visible};
    assert_eq!(scenes, [Relocalizing, Relocalizing, Visible, Visible]);
    for frame in 1..=120 {
        let scene = feed(&mut t, &[], DT).scene;
        let unseen_s = frame as f32 * DT;
        if (unseen_s - 1.0).abs() > 0.01 {
            assert_eq!(scene, if unseen_s < 1.0 { Relocalizing } else { Lost }, "after {unseen_s} s");
        }
        if unseen_s < 2.9 {
            assert_eq!(t.tracks()[0].visibility, scene);
        }
    }
    assert!(t.tracks().is_empty());
    assert_eq!(feed(&mut t, &[at(0.5, 0.5, 0)], DT).scene, Relocalizing);
    assert_eq!([Lost, Relocalizing, Visible].map(Visibility::as_str), ["LOST", "RELOCALIZING", "VISIBLE"]);
    assert_eq!([0, 1, 2, 9].map(Visibility::from_i32), [Lost, Relocalizing, Visible, Lost]);
}

#[test]
fn one_visible_structure_is_enough_for_a_visible_scene() {
    let mut t = tracker(TrackerConfig::default());
    (0..5).for_each(|_| {
        feed(&mut t, &[at(0.2, 0.5, 0), at(0.8, 0.5, 0)], DT);
    });
    assert_eq!(feed(&mut t, &[at(0.2, 0.5, 0)], DT).scene, Visibility::Visible);
    let states: Vec<_> = t.tracks().iter().map(|t| (t.id, t.visibility)).collect();
    assert_eq!(states, [(1, Visibility::Visible), (2, Visibility::Relocalizing)]);
}

#[test]
fn timestamps_may_stand_still_jump_or_run_backwards() {
    for dt in [0.0, -0.0, -1.0, f32::NEG_INFINITY, f32::NAN, f32::MIN_POSITIVE, 1e-30] {
        let mut t = tracker(TrackerConfig::default());
        for frame in 0..20 {
            let f = feed(&mut t, &[at(0.5 + jitter(frame, 0), 0.5, 0)], dt);
            assert_eq!((f.ids, f.confirmed), (vec![1], vec![i32::from(frame >= 2)]), "dt {dt}");
        }
        // Without time, tracks are forgotten by frames.
        (0..180).for_each(|_| {
            feed(&mut t, &[], dt);
        });
        assert_eq!(t.tracks().len(), 1);
        feed(&mut t, &[], dt);
        assert_eq!(t.tracks().len(), 0);
    }
    for dt in [3.5, 1e10, f32::INFINITY] {
        let mut t = tracker(TrackerConfig::default());
        (0..5).for_each(|_| {
            feed(&mut t, &[at(0.5, 0.5, 0)], DT);
        });
        let f = feed(&mut t, &[at(0.5, 0.5, 0)], dt);
        assert_eq!((f.ids, f.scene), (vec![2], Visibility::Relocalizing), "dt {dt}");
    }
    // Two frames a second is slow, but fine.
    let mut t = tracker(TrackerConfig::default());
    (0..20).for_each(|f| {
        assert_eq!(feed(&mut t, &[at(0.5 + jitter(f, 0), 0.5 + jitter(f, 1), 0)], 0.5).ids, [1])
    });
}

#[test]
fn rows_that_are_no_detection_get_no_id() {
    let mut t = tracker(TrackerConfig::default());
    let broken = [
        ([f32::NAN, 0.5, 0.1, 0.1], 0.9, 0),
        ([0.5, f32::INFINITY, 0.1, 0.1], 0.9, 0),
        ([0.5, 0.5, 0.0, 0.1], 0.9, 0),
        ([0.5, 0.5, 0.1, -0.1], 0.9, 0),
        ([0.5, 0.5, 0.1, 0.1], f32::NAN, 0),
        at(0.3, 0.3, 0),
    ];
    for _ in 0..4 {
        let f = feed(&mut t, &broken, DT);
        assert_eq!(f.ids, [0, 0, 0, 0, 0, 1]);
        assert_eq!(f.visibility, [0, 0, 0, 0, 0, 2]);
        assert_eq!(f.slots, [-1, -1, -1, -1, -1, 0]);
    }
    // Rows beyond the count are not looked at.
    let detections = Detections { boxes_cxcywh: &[0.3; 8], scores: &[0.9; 2], classes: &[0; 2], count: 1 };
    assert_eq!(tracker(TrackerConfig::default()).update(&detections, DT).unwrap().track_ids, [1, 0]);
    let detections = Detections { count: usize::MAX, ..detections };
    assert_eq!(tracker(TrackerConfig::default()).update(&detections, DT).unwrap().track_ids, [1, 2]);
}

#[test]
fn weak_and_duplicate_detections_start_no_track_but_have_an_id() {
    let mut t = tracker(TrackerConfig::default());
    let weak = ([0.2, 0.2, 0.1, 0.1], 0.3, 0);
    let duplicate = ([0.505, 0.5, 0.1, 0.12], 0.6, 0);
    let other_class = ([0.505, 0.5, 0.1, 0.12], 0.6, 1);
    for frame in 0..4 {
        let f = feed(&mut t, &[at(0.5, 0.5, 0), weak, duplicate, other_class], DT);
        assert_eq!(f.slots, [0, -1, -1, 1]);
        assert_eq!(f.confirmed, [i32::from(frame >= 2), 0, 0, i32::from(frame >= 2)]);
        assert_eq!(f.ids.iter().collect::<BTreeSet<_>>().len(), 4);
        assert_eq!(f.visibility, [2; 4]);
    }
    assert_eq!(t.tracks().len(), 2);
    // A weak detection continues a track.
    assert_eq!(feed(&mut t, &[([0.5, 0.5, 0.1, 0.12], 0.2, 0)], DT).ids, [1]);
    let score = t.tracks()[0].score;
    assert!(score < 0.8 && score > 0.2, "{score}");
}

#[test]
fn the_label_follows_the_majority_where_classes_may_change() {
    let mut t = tracker(TrackerConfig { class_must_agree: false, ..Default::default() });
    let label = |t: &Tracker| t.tracks()[0].label;
    for class in [3, 3, 7, 3, 3] {
        assert_eq!(feed(&mut t, &[at(0.5, 0.5, class)], DT).ids, [1]);
        assert_eq!(label(&t), 3);
    }
    for frame in 0..6 {
        assert_eq!(feed(&mut t, &[at(0.5, 0.5, 7)], DT).ids, [1]);
        assert_eq!(label(&t), if frame < 3 { 3 } else { 7 }, "{frame}");
    }
}

#[test]
fn a_full_table_gives_up_what_was_not_seen_for_longest() {
    let mut t = Tracker::new(TrackerConfig::default(), 2, 2).unwrap();
    (0..3).for_each(|_| {
        feed(&mut t, &[at(0.1, 0.1, 0), at(0.9, 0.1, 0)], DT);
    });
    feed(&mut t, &[at(0.1, 0.1, 0)], DT);
    let f = feed(&mut t, &[at(0.1, 0.1, 0), at(0.5, 0.9, 0)], DT);
    assert_eq!(f.ids, [1, 3]);
    assert_eq!(t.tracks().iter().map(|t| t.id).collect::<BTreeSet<_>>(), BTreeSet::from([1, 3]));
    let at_once = TrackerConfig { confirm_hits: 1, confirm_window: 1, ..Default::default() };
    let mut older = Tracker::new(at_once, 2, 3).unwrap();
    for seen in
        [&[at(0.1, 0.1, 0), at(0.9, 0.1, 0)][..], &[at(0.9, 0.1, 0)], &[at(0.1, 0.9, 0)], &[at(0.9, 0.9, 0)]]
    {
        feed(&mut older, seen, DT);
    }
    assert_eq!(
        older.tracks().iter().map(|t| t.id).collect::<Vec<_>>(),
        [4, 2, 3],
        "slot of the oldest is taken"
    );
    // All in view elsewhere: nothing of the old table is left, and nothing is without an id.
    assert_eq!(feed(&mut t, &[at(0.1, 0.9, 1), at(0.9, 0.9, 1)], DT).ids, [4, 5]);
    assert!(Tracker::new(TrackerConfig::default(), 3, 2).is_err());
    assert!(Tracker::new(TrackerConfig { max_cost: -1.0, ..Default::default() }, 2, 2).is_err());
    let three = Detections { boxes_cxcywh: &[0.5; 12], scores: &[0.5; 3], classes: &[0; 3], count: 3 };
    assert!(t.update(&three, DT).is_err());
}

#[test]
fn independent_frames_share_nothing() {
    let mut t = tracker(TrackerConfig { independent: true, ..Default::default() });
    let weak = ([0.2, 0.2, 0.1, 0.1], 0.3, 0);
    let f = feed(&mut t, &[at(0.5, 0.5, 0), weak], 0.0);
    assert_eq!((f.ids, f.confirmed, f.scene), (vec![1, 2], vec![1, 0], Visibility::Visible));
    let f = feed(&mut t, &[at(0.5, 0.5, 0)], 0.0);
    assert_eq!((f.ids, f.confirmed, f.slots), (vec![3], vec![1], vec![-1]));
    assert_eq!(feed(&mut t, &[], 0.0).scene, Visibility::Lost);
    assert_eq!(feed(&mut t, &[weak], 0.0).scene, Visibility::Lost);
    assert!(t.tracks().is_empty());
}

#[test]
fn ids_start_again_after_the_last_without_those_in_use() {
    let (mut f32s, mut i32s) = {
        let mut t = TrackTable::new(CAPACITY);
        run_raw(&mut t, &[at(0.5, 0.5, 0)]);
        let (f32s, i32s) = t.values();
        (f32s.to_vec(), i32s.to_vec())
    };
    i32s[0] = i32::MAX - 1;
    let mut t = TrackTable::from_values(CAPACITY, std::mem::take(&mut f32s), i32s).unwrap();
    let crowd = [at(0.5, 0.5, 0), at(0.1, 0.1, 0), at(0.9, 0.1, 0), at(0.1, 0.9, 0)];
    assert_eq!(run_raw(&mut t, &crowd), [1, i32::MAX, 2, 3]);
    assert!(TrackTable::from_values(CAPACITY, vec![], vec![]).is_err());
}

/// One frame through the plain function.
fn run_raw(table: &mut TrackTable, seen: &[Seen]) -> Vec<i32> {
    let mut workspace = Workspace::with_sizes(scratch_sizes(seen.len(), table.capacity()));
    let mut rows = [vec![0; seen.len()], vec![0; seen.len()], vec![0; seen.len()], vec![0; seen.len()]];
    let [track_ids, confirmed, visibility, slots] = &mut rows;
    update(
        &TrackerConfig::default(),
        &mut table.view(),
        &Detections {
            boxes_cxcywh: seen.iter().flat_map(|s| s.0).collect::<Vec<_>>().as_slice(),
            scores: seen.iter().map(|s| s.1).collect::<Vec<_>>().as_slice(),
            classes: seen.iter().map(|s| s.2).collect::<Vec<_>>().as_slice(),
            count: seen.len(),
        },
        DT,
        &mut workspace.scratch(),
        &mut TrackOutput { track_ids, confirmed, visibility, slots },
    )
    .unwrap();
    std::mem::take(&mut rows[0])
}

fn any_seen() -> impl Strategy<Value = Seen> {
    let value = prop_oneof![8 => 0f32..1.0, 1 => any::<f32>()];
    let class = prop_oneof![6 => 0i32..3, 1 => any::<i32>()];
    (prop::array::uniform4(value.clone()), value, class)
}

proptest! {
    #[test]
    fn ids_are_unique_and_never_come_back(
        frames in prop::collection::vec(
            (prop::collection::vec(any_seen(), 0..=K), prop_oneof![6 => 0f32..0.2, 1 => 0f32..5.0, 1 => any::<f32>()]),
            1..60,
        ),
        greedy: bool, independent: bool, class_must_agree: bool,
    ) {
        let solver = if greedy { Solver::Greedy } else { Solver::Exact };
        let mut t = tracker(TrackerConfig { solver, independent, class_must_agree, ..Default::default() });
        let mut twin = t.clone();
        let mut newest = 0;
        let mut alive: BTreeMap<i32, i32> = BTreeMap::new(); // id → label
        for (seen, dt) in frames {
            let f = feed(&mut t, &seen, dt);
            prop_assert_eq!(&f, &feed(&mut twin, &seen, dt));
            let mut here = BTreeSet::new();
            for (k, s) in seen.iter().enumerate() {
                let is_box = s.0.iter().all(|x| x.is_finite()) && s.0[2] > 0.0 && s.0[3] > 0.0 && s.1.is_finite();
                prop_assert_eq!(f.ids[k] != 0, is_box);
                prop_assert_eq!(f.visibility[k], if is_box { 2 } else { 0 });
                if !is_box {
                    prop_assert_eq!((f.confirmed[k], f.slots[k]), (0, -1));
                    continue;
                }
                prop_assert!(here.insert(f.ids[k]), "{} twice in a frame", f.ids[k]);
                match alive.get(&f.ids[k]) {
                    Some(&label) => prop_assert!(!class_must_agree || label == s.2),
                    None => prop_assert!(f.ids[k] > newest, "{} came back", f.ids[k]),
                }
            }
            newest = newest.max(here.last().copied().unwrap_or(0));
            let tracks = t.tracks();
            prop_assert!(tracks.iter().all(|t| t.box_cxcywh.iter().chain(&t.velocity_cxcywh_per_s).all(|x| x.is_finite())));
            let seen_confirmed = tracks.iter().any(|t| t.confirmed && t.visibility == Visibility::Visible);
            if !independent {
                prop_assert_eq!(f.scene == Visibility::Visible, seen_confirmed);
                for (k, &slot) in f.slots.iter().enumerate() {
                    prop_assert!(slot == -1 || tracks.iter().any(|t| t.id == f.ids[k]));
                }
            }
            alive = tracks.iter().map(|t| (t.id, t.label)).collect();
            prop_assert_eq!(alive.len(), tracks.len());
            prop_assert!(tracks.iter().all(|t| t.id <= newest));
        }
    }

    #[test]
    fn one_structure_keeps_its_id_through_short_gaps(
        gaps in prop::collection::vec(1usize..30, 1..6), rate in 10f32..60.0, class in 0i32..5,
    ) {
        let mut t = tracker(TrackerConfig::default());
        let mut frame = 0;
        for gap in gaps {
            for _ in 0..8 {
                let seen = at(0.5 + jitter(frame, 0), 0.5 + jitter(frame, 1), class);
                prop_assert_eq!(feed(&mut t, &[seen], 1.0 / rate).ids, [1]);
                frame += 1;
            }
            let gap = gap.min((2.5 * rate) as usize);
            for _ in 0..gap {
                prop_assert_eq!(feed(&mut t, &[], 1.0 / rate).ids, Vec::<i32>::new());
            }
        }
    }

    #[test]
    fn any_bits_in_a_table_are_survived(
        f32_bits in prop::collection::vec(any::<u32>(), track::table::f32_len(CAPACITY)),
        i32s in prop::collection::vec(any::<i32>(), track::table::i32_len(CAPACITY)),
        seen in prop::collection::vec(any_seen(), 0..=K),
    ) {
        let f32s = f32_bits.into_iter().map(f32::from_bits).collect();
        let mut table = TrackTable::from_values(CAPACITY, f32s, i32s).unwrap();
        for _ in 0..3 {
            prop_assert_eq!(run_raw(&mut table, &seen).len(), seen.len());
        }
    }
}
