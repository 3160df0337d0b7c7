//! Following what somebody pointed at: no detector finds it, so its own outline says where to look next.
//!
//! An object has a slot. It is outlined from the points or the box that were given; from then on the box of its own outline, or
//! rather of the largest part of it, filtered and predicted as the tracker's are ([`filter`](crate::track::filter)), is the next
//! frame's prompt. A frame begins
//! with [`begin`], which turns the slots and what was asked of them into prompts, and ends with [`finish`], which takes the
//! outlines in. An outline counts as seen when the segmenter believes in it, it shows ([`quality`](crate::quality)), and it is neither
//! most of the frame nor many times larger or smaller than the last one; what is not seen for `forget_s`, or is not seen in its first frame, is let go.

use ultramotion_types::settings::Range;

use crate::quality::SCORES;
use crate::track::TrackerConfig;
use crate::track::filter::{correct, gains, predict};

ultramotion_types::settings! {
    /// Following what was pointed at
    #[derive(Copy)]
    pub struct FollowConfig in "prompts" {
        /// Least estimate of an outline's IoU with the truth, the segmenter's own, with which it counts as seen.
        pub least_iou: f32 = 0.3, in Range::SHARE;
        /// Least [quality](crate::quality) of an outline, the weighted mean, with which it counts as seen.
        pub least_quality: f32 = 0.15, in Range::SHARE;
        /// Largest share of the frame that an outline may have: beyond it, it has run out into everything.
        pub most_of_frame: f32 = 0.5, in Range::SHARE;
        /// How many times larger or smaller than the last one an outline may be.
        pub most_growth: f32 = 3.0, in Range::within(1.0, 1000.0);
        /// How long an object that is not seen is looked for at the place where it would be.
        pub forget_s: f32 = 1.0, in Range::NOT_NEGATIVE;
    }
}

/// Values of a slot, and of a command for one: a row of the tensors.
pub const SLOT_LEN: usize = 12;
/// Prompt tokens of an object: two points, or two corners.
pub const TOKENS: usize = 2;

/// What a token means, as the segmenter's prompts have it.
pub mod token {
    /// No point; its place does not matter.
    pub const PADDING: i32 = 0;
    /// A point beside the object.
    pub const NEGATIVE: i32 = 1;
    /// A point in it.
    pub const POSITIVE: i32 = 2;
    /// Left top of its box.
    pub const TOP_LEFT: i32 = 3;
    /// Right bottom of its box.
    pub const BOTTOM_RIGHT: i32 = 4;
}

/// What became of a row of prompts.
pub mod status {
    /// There is none.
    pub const NONE: i32 = 0;
    /// It was seen.
    pub const SEEN: i32 = 1;
    /// It was not, and is looked for.
    pub const UNSEEN: i32 = 2;
    /// It was not, and is let go.
    pub const GONE: i32 = 3;
}

/// Smallest side of a box, as a share of the frame's.
const MIN_SIDE: f32 = 2e-3;

/// A point with what it means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Fractions of the frame.
    pub at: [f32; 2],
    /// In the object, or beside it.
    pub positive: bool,
}

/// What is asked of a slot in a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Command {
    /// Nothing: follow what is there.
    #[default]
    None,
    /// Follow something new, whatever was there.
    Follow {
        /// Around it, fractions of the frame.
        box_cxcywh: Option<[f32; 4]>,
        /// In it and beside it.
        points: [Option<Point>; TOKENS],
    },
    /// What is followed has this point in it, or does not.
    Adjust(Point),
    /// Follow it no more.
    LetGo,
}

const FOLLOW: f32 = 1.0;
const ADJUST: f32 = 2.0;
const LET_GO: f32 = 3.0;

impl Command {
    /// As a row of the tensor: what is asked, box, whether there is one, and two points with their kinds.
    pub fn values(&self) -> [f32; SLOT_LEN] {
        let mut row = [0.0; SLOT_LEN];
        let put = |row: &mut [f32; SLOT_LEN], at: usize, point: Option<Point>| {
            if let Some(Point { at: [x, y], positive }) = point {
                row[at..at + 3].copy_from_slice(&[x, y, if positive { 2.0 } else { 1.0 }]);
            }
        };
        match *self {
            Command::None => {}
            Command::Follow { box_cxcywh, points } => {
                row[0] = FOLLOW;
                if let Some(values) = box_cxcywh {
                    row[1..5].copy_from_slice(&values);
                    row[5] = 1.0;
                }
                put(&mut row, 6, points[0]);
                put(&mut row, 9, points[1]);
            }
            Command::Adjust(point) => {
                row[0] = ADJUST;
                put(&mut row, 6, Some(point));
            }
            Command::LetGo => row[0] = LET_GO,
        }
        row
    }
}

/// A slot: whether it is in use, box (fractions of the frame), its change a second, time since it was seen, frames in which it
/// was, share of the frame that it had.
struct Slot<'s>(&'s mut [f32; SLOT_LEN]);

impl Slot<'_> {
    fn is_used(&self) -> bool {
        self.0[0] > 0.0
    }
    fn box_and_velocity(&mut self) -> (&mut [f32], &mut [f32]) {
        self.0[1..9].split_at_mut(4)
    }
    fn box_cxcywh(&self) -> [f32; 4] {
        [self.0[1], self.0[2], self.0[3], self.0[4]]
    }
    fn set_box(&mut self, box_cxcywh: [f32; 4]) {
        self.0[1..5].copy_from_slice(&box_cxcywh);
    }
}

/// Tokens of a frame: as many rows as objects are looked for, the others are zero.
#[derive(Debug)]
pub struct Tokens<'t> {
    /// `[P, 2, 2]`, pixels of the segmenter's input.
    pub positions: &'t mut [f32],
    /// `[P, 2]`: see [`token`].
    pub kinds: &'t mut [i32],
    /// `[P]`: slot of each row, −1 for none.
    pub slots: &'t mut [i32],
    /// `[P]`: whose what is remembered of each row is: slot + 1, negative while it was never seen; 0 for none.
    pub keys: &'t mut [i32],
}

/// Begins a frame: `slots` and `commands` are `[P, 12]`; `input_wh` is the frame's size in the segmenter's input, pixels. Gives
/// the number of rows.
pub fn begin(
    config: &TrackerConfig,
    slots: &mut [f32],
    commands: &[f32],
    dt_s: f32,
    input_wh: [f32; 2],
    tokens: &mut Tokens<'_>,
) -> usize {
    tokens.positions.fill(0.0);
    tokens.kinds.fill(token::PADDING);
    tokens.slots.fill(-1);
    tokens.keys.fill(0);
    let (slots, _) = slots.as_chunks_mut::<SLOT_LEN>();
    let (commands, _) = commands.as_chunks::<SLOT_LEN>();
    let (positions, _) = tokens.positions.as_chunks_mut::<{ 2 * TOKENS }>();
    let (kinds, _) = tokens.kinds.as_chunks_mut::<TOKENS>();
    let mut rows = 0;
    for (number, (slot, command)) in slots.iter_mut().zip(commands).enumerate() {
        let Some((at, of)) = look_for(config, Slot(slot), command, dt_s) else { continue };
        let [width, height] = input_wh;
        positions[rows] = [at[0] * width, at[1] * height, at[2] * width, at[3] * height];
        kinds[rows] = of;
        tokens.slots[rows] = number as i32;
        tokens.keys[rows] = if slot[10] > 0.0 { number as i32 + 1 } else { -(number as i32 + 1) };
        rows += 1;
    }
    rows
}

/// Where to look for what is in a slot: two places in fractions of the frame, and what they mean.
fn look_for(
    config: &TrackerConfig,
    mut slot: Slot<'_>,
    command: &[f32; SLOT_LEN],
    dt_s: f32,
) -> Option<([f32; 4], [i32; TOKENS])> {
    let kind = |value: f32| if value == 2.0 { token::POSITIVE } else { token::NEGATIVE };
    if command[0] == LET_GO {
        slot.0.fill(0.0);
    } else if command[0] == FOLLOW {
        slot.0.fill(0.0);
        slot.0[0] = 1.0;
        if command[5] == 0.0 {
            let second = if command[11] == 0.0 { token::PADDING } else { kind(command[11]) };
            slot.set_box([command[6], command[7], MIN_SIDE, MIN_SIDE]);
            return Some(([command[6], command[7], command[9], command[10]], [kind(command[8]), second]));
        }
        slot.set_box([command[1], command[2], command[3], command[4]]);
    } else if slot.is_used() {
        let coasting = slot.0[9] > 0.0;
        let (box_cxcywh, velocity) = slot.box_and_velocity();
        predict(box_cxcywh, velocity, dt_s.max(0.0), coasting, config);
    }
    if !slot.is_used() {
        return None;
    }
    for point in [6, 9] {
        if command[point + 2] != 0.0 {
            let adjusted =
                adjusted(slot.box_cxcywh(), [command[point], command[point + 1]], kind(command[point + 2]));
            slot.set_box(adjusted);
        }
    }
    let [cx, cy, w, h] = slot.box_cxcywh();
    let corners = [cx - 0.5 * w, cy - 0.5 * h, cx + 0.5 * w, cy + 0.5 * h];
    Some((corners, [token::TOP_LEFT, token::BOTTOM_RIGHT]))
}

/// A box that has a point in it, or, cut off at the nearest side, not.
fn adjusted([cx, cy, w, h]: [f32; 4], [x, y]: [f32; 2], kind: i32) -> [f32; 4] {
    let (mut left, mut top, mut right, mut bottom) = (cx - 0.5 * w, cy - 0.5 * h, cx + 0.5 * w, cy + 0.5 * h);
    if kind == token::POSITIVE {
        left = left.min(x);
        top = top.min(y);
        right = right.max(x);
        bottom = bottom.max(y);
    } else if left < x && x < right && top < y && y < bottom {
        let nearest = (x - left).min(right - x).min(y - top).min(bottom - y);
        if nearest == x - left {
            left = x;
        } else if nearest == right - x {
            right = x;
        } else if nearest == y - top {
            top = y;
        } else {
            bottom = y;
        }
    }
    [0.5 * (left + right), 0.5 * (top + bottom), (right - left).max(MIN_SIDE), (bottom - top).max(MIN_SIDE)]
}

/// Outlines of the rows that [`begin`] has made.
#[derive(Clone, Copy, Debug)]
pub struct Outlines<'o> {
    /// `[P]`: slot of each row.
    pub slots: &'o [i32],
    /// How many rows there are.
    pub count: usize,
    /// `[P]`: the segmenter's own estimate of the IoU with the truth.
    pub iou: &'o [f32],
    /// `[P]`.
    pub area_px: &'o [i32],
    /// `[P, 4]`: the box around the largest part of each, its ends exclusive, pixels of the frame.
    pub box_xyxy: &'o [i32],
    /// `[P, 6]`: how well each shows, see [`SCORES`].
    pub quality: &'o [f32],
    /// Width and height of the frame.
    pub frame_wh: [f32; 2],
}

/// Ends a frame: takes the outlines into the slots, and tells what became of each row ([`status`]).
pub fn finish(
    config: &TrackerConfig,
    follow: &FollowConfig,
    slots: &mut [f32],
    outlines: &Outlines<'_>,
    dt_s: f32,
    statuses: &mut [i32],
) {
    statuses.fill(status::NONE);
    let (slots, _) = slots.as_chunks_mut::<SLOT_LEN>();
    let (boxes, _) = outlines.box_xyxy.as_chunks::<4>();
    let [width, height] = outlines.frame_wh;
    let dt_s = dt_s.max(0.0);
    for row in 0..outlines.count.min(statuses.len()) {
        let number = usize::try_from(outlines.slots[row]).ok();
        let Some(slot) = number.and_then(|number| slots.get_mut(number)) else { continue };
        let mut slot = Slot(slot);
        let share = outlines.area_px[row] as f32 / (width * height);
        let before = slot.0[11];
        let is_like_before =
            before <= 0.0 || (share <= before * follow.most_growth && share * follow.most_growth >= before);
        let is_seen = outlines.iou[row] >= follow.least_iou
            && outlines.quality[row * SCORES + SCORES - 1] >= follow.least_quality
            && share > 0.0
            && share <= follow.most_of_frame
            && is_like_before;
        statuses[row] = if is_seen {
            let [left, top, right, bottom] = boxes[row].map(|side| side as f32);
            let seen = [
                0.5 * (left + right) / width,
                0.5 * (top + bottom) / height,
                (right - left) / width,
                (bottom - top) / height,
            ];
            let hits = slot.0[10];
            if hits > 0.0 {
                let gains = gains(config, slot.0[9] + dt_s, hits as i32);
                let (box_cxcywh, velocity) = slot.box_and_velocity();
                correct(box_cxcywh, velocity, seen, gains);
            } else {
                // What was given is no position of the outline.
                slot.set_box(seen);
            }
            (slot.0[9], slot.0[10], slot.0[11]) = (0.0, (hits + 1.0).min(1e6), share);
            status::SEEN
        } else {
            slot.0[9] += dt_s;
            if slot.0[10] > 0.0 && slot.0[9] <= follow.forget_s {
                status::UNSEEN
            } else {
                slot.0.fill(0.0);
                status::GONE
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: usize = 3;

    struct Bench {
        slots: [f32; P * SLOT_LEN],
        positions: [f32; P * 2 * TOKENS],
        kinds: [i32; P * TOKENS],
        rows: [i32; P],
        keys: [i32; P],
        quality: f32,
    }

    impl Bench {
        fn new() -> Self {
            Bench {
                slots: [0.0; P * SLOT_LEN],
                positions: [0.0; P * 4],
                kinds: [0; P * 2],
                rows: [0; P],
                keys: [0; P],
                quality: 0.5,
            }
        }

        fn begin(&mut self, commands: [Command; P]) -> usize {
            let commands: Vec<f32> = commands.iter().flat_map(Command::values).collect();
            let mut tokens = Tokens {
                positions: &mut self.positions,
                kinds: &mut self.kinds,
                slots: &mut self.rows,
                keys: &mut self.keys,
            };
            begin(&TrackerConfig::default(), &mut self.slots, &commands, 0.04, [100.0, 200.0], &mut tokens)
        }

        fn finish(&mut self, seen: &[(f32, [i32; 4])]) -> [i32; P] {
            let mut statuses = [9; P];
            let mut iou = [0.0; P];
            let (mut area_px, mut box_xyxy) = ([0; P], [0; P * 4]);
            for (row, &(estimate, corners)) in seen.iter().enumerate() {
                iou[row] = estimate;
                area_px[row] = (corners[2] - corners[0]) * (corners[3] - corners[1]);
                box_xyxy[4 * row..4 * row + 4].copy_from_slice(&corners);
            }
            let outlines = Outlines {
                slots: &self.rows,
                count: seen.len(),
                iou: &iou,
                area_px: &area_px,
                box_xyxy: &box_xyxy,
                quality: &[self.quality; P * SCORES],
                frame_wh: [50.0, 50.0],
            };
            let follow = FollowConfig::default();
            finish(&TrackerConfig::default(), &follow, &mut self.slots, &outlines, 0.04, &mut statuses);
            statuses
        }
    }

    fn at(x: f32, y: f32) -> Command {
        let point = Point { at: [x, y], positive: true };
        Command::Follow { box_cxcywh: None, points: [Some(point), None] }
    }

    #[test]
    fn a_point_becomes_a_box_that_follows_its_outline() {
        let mut bench = Bench::new();
        assert_eq!(bench.begin([Command::None, at(0.25, 0.5), Command::None]), 1);
        assert_eq!((bench.rows, bench.positions[..4].to_vec()), ([1, -1, -1], vec![25.0, 100.0, 0.0, 0.0]));
        assert_eq!(bench.kinds[..2], [token::POSITIVE, token::PADDING]);
        assert_eq!(bench.finish(&[(0.8, [10, 20, 20, 30])]), [status::SEEN, 0, 0]);
        assert_eq!(bench.begin([Command::None; P]), 1);
        assert_eq!(bench.kinds[..2], [token::TOP_LEFT, token::BOTTOM_RIGHT]);
        let expected = [20.0, 80.0, 40.0, 120.0];
        assert!(
            bench.positions.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4),
            "{:?}",
            bench.positions
        );
        assert_eq!(bench.keys, [2, 0, 0]);
        assert_eq!(bench.finish(&[(0.8, [11, 20, 21, 30])]), [status::SEEN, 0, 0]);
        bench.begin([Command::None; P]);
        assert!(bench.positions[0] > 20.0, "it moves with its outline");
        assert_eq!(bench.begin([Command::None, Command::LetGo, Command::None]), 0);
    }

    #[test]
    fn what_is_not_seen_is_looked_for_for_a_while() {
        let mut bench = Bench::new();
        bench.begin([at(0.5, 0.5), Command::None, Command::None]);
        assert_eq!(bench.finish(&[(0.1, [10, 20, 20, 30])])[0], status::GONE, "nothing is there");
        assert_eq!(bench.begin([Command::None; P]), 0);
        bench.begin([at(0.5, 0.5), Command::None, Command::None]);
        assert_eq!(bench.finish(&[(0.8, [10, 20, 20, 30])])[0], status::SEEN);
        for doubtful in [
            (0.1, [10, 20, 20, 30]),
            (f32::NAN, [10, 20, 20, 30]),
            (0.9, [0, 0, 0, 0]),
            (0.9, [0, 0, 50, 40]),
            (0.9, [10, 20, 13, 23]),
        ] {
            bench.begin([Command::None; P]);
            assert_eq!(bench.finish(&[doubtful])[0], status::UNSEEN, "{doubtful:?}");
        }
        bench.begin([Command::None; P]);
        assert_eq!(bench.finish(&[(0.8, [10, 20, 20, 30])])[0], status::SEEN, "found again");
        bench.quality = 0.1;
        bench.begin([Command::None; P]);
        assert_eq!(bench.finish(&[(0.8, [10, 20, 20, 30])])[0], status::UNSEEN, "it hardly shows");
        bench.quality = 0.5;
        bench.begin([Command::None; P]);
        assert_eq!(bench.finish(&[(0.8, [10, 20, 20, 30])])[0], status::SEEN);
        let frames = (0..100).take_while(|_| {
            bench.begin([Command::None; P]);
            bench.finish(&[(0.0, [0; 4])])[0] == status::UNSEEN
        });
        assert!((24..=25).contains(&frames.count()), "a second at 25 frames a second");
        assert_eq!(bench.begin([Command::None; P]), 0);
    }

    #[test]
    fn points_move_the_sides_of_a_box() {
        let close = |a: [f32; 4], b: [f32; 4]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
        let square = [0.5, 0.5, 0.2, 0.2];
        assert!(close(adjusted(square, [0.7, 0.5], token::POSITIVE), [0.55, 0.5, 0.3, 0.2]));
        assert!(close(adjusted(square, [0.58, 0.5], token::NEGATIVE), [0.49, 0.5, 0.18, 0.2]));
        assert!(close(adjusted(square, [0.5, 0.42], token::NEGATIVE), [0.5, 0.51, 0.2, 0.18]));
        assert!(close(adjusted(square, [0.9, 0.9], token::NEGATIVE), square), "it is outside anyway");
    }

    #[test]
    fn several_objects_are_rows_without_gaps() {
        let mut bench = Bench::new();
        let boxed = Command::Follow { box_cxcywh: Some([0.5, 0.5, 0.2, 0.2]), points: [None; 2] };
        assert_eq!(bench.begin([at(0.1, 0.1), Command::None, boxed]), 2);
        assert_eq!((bench.rows, bench.keys), ([0, 2, -1], [-1, -3, 0]));
        assert_eq!(bench.kinds, [2, 0, 3, 4, 0, 0]);
        let rows = [(0.9, [1, 1, 9, 9]), (0.9, [20, 20, 30, 30])];
        assert_eq!(bench.finish(&rows), [status::SEEN, status::SEEN, status::NONE]);
    }
}
