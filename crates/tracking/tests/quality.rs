//! How well objects show, where it is known how well they do: shapes by hand, and sweeps of the phantom that lose their gain, their
//! focus and their light. `cargo test --release -p ultramotion-tracking --test quality -- --nocapture` prints the sweeps.
#![allow(clippy::unwrap_used)]

use ultramotion_phantom::{Phantom, PhantomConfig, PhantomFrame};
use ultramotion_tracking::quality::{
    Image, Judged, MEMORY_LEN, Mask, Motion, QualityConfig, SCORES, judge, weight_maps,
};

/// A mask in bits, with its box.
fn packed(inside: &[bool], width: usize) -> (Vec<u8>, [i32; 4]) {
    let row_bytes = width.div_ceil(8);
    let mut bits = vec![0; inside.len() / width * row_bytes];
    let mut around = [i32::MAX, i32::MAX, 0, 0];
    for at in (0..inside.len()).filter(|&at| inside[at]) {
        let (x, y) = (at % width, at / width);
        bits[y * row_bytes + x / 8] |= 1 << (x % 8);
        let (x, y) = (x as i32, y as i32);
        around = [around[0].min(x), around[1].min(y), around[2].max(x + 1), around[3].max(y + 1)];
    }
    (bits, around)
}

/// A track, frame by frame.
struct Track {
    memory: Box<[i32; MEMORY_LEN]>,
    side: usize,
}

impl Track {
    fn new(side: usize) -> Self {
        Track { memory: Box::new([0; MEMORY_LEN]), side }
    }

    fn see(&mut self, pixels: &[u8], inside: &[bool], motion: &Motion) -> Judged {
        let (bits, box_xyxy) = packed(inside, self.side);
        let image = Image { pixels, width: self.side, height: pixels.len() / self.side, channels: 1 };
        let mask = Mask { bits: &bits, box_xyxy };
        judge(&QualityConfig::default(), &image, &mask, motion, 1, &mut self.memory)
    }
}

const SIDE: usize = 200;

fn disc(cx: f32, cy: f32, radius: f32) -> Vec<bool> {
    let away = |at: usize| ((at % SIDE) as f32 - cx).hypot((at / SIDE) as f32 - cy);
    (0..SIDE * SIDE).map(|at| away(at) < radius).collect()
}

fn painted(inside: &[bool], [within, around]: [u8; 2]) -> Vec<u8> {
    inside.iter().map(|&inside| if inside { within } else { around }).collect()
}

fn close(a: f32, b: f32) -> bool {
    (a - b).abs() < 0.025
}

#[test]
fn a_disc_has_the_scores_of_its_definition() {
    let inside = disc(100.0, 100.0, 40.0);
    let mut track = Track::new(SIDE);
    let first = track.see(&painted(&inside, [60, 160]), &inside, &Motion::NONE).scores;
    // A step of 100, whatever way it goes; no noise but what there always is. Cells at the edge are a little of both.
    let ratio = 100.0 / 1152_f32.sqrt();
    let expected = [100.0 / 124.0, ratio / (ratio + 1.0), 1.0, 1.0, 1.0];
    assert!(first.iter().zip(expected).all(|(&a, b)| close(a, b)), "{first:?}");
    assert!(
        close(first[SCORES - 1], (first[0] + first[1] + first[2]) / 3.0),
        "nothing to compare with: {first:?}"
    );
    let bright = track.see(&painted(&inside, [160, 60]), &inside, &Motion::NONE).scores;
    assert!(close(bright[0], first[0]) && close(bright[3], 1.0), "{bright:?}");
    assert!(bright[4] < 0.02, "it looks like its own negative: {bright:?}");
    let flat = track.see(&painted(&inside, [90, 90]), &inside, &Motion::NONE).scores;
    assert_eq!(flat[..3], [0.0; 3]);
    let half: Vec<u8> = painted(&inside, [60, 160])
        .iter()
        .enumerate()
        .map(|(at, &v)| if at % SIDE < 100 { v } else { 60 })
        .collect();
    let half = Track::new(SIDE).see(&half, &inside, &Motion::NONE).scores;
    assert!((half[2] - 0.5).abs() < 0.05, "half of its outline has an edge: {half:?}");
    let nothing = track.see(&painted(&inside, [60, 160]), &vec![false; SIDE * SIDE], &Motion::NONE);
    assert_eq!(nothing, Judged::default());
}

#[test]
fn stability_is_the_overlap_with_the_frame_before_moved_as_the_plane_has() {
    let (before, after) = (disc(100.0, 100.0, 40.0), disc(110.0, 100.0, 40.0));
    let pixels = painted(&before, [60, 160]);
    let (common, both) = before.iter().zip(&after).fold((0.0, 0.0), |(common, both), (&a, &b)| {
        (common + f32::from(u8::from(a && b)), both + f32::from(u8::from(a || b)))
    });
    let mut track = Track::new(SIDE);
    track.see(&pixels, &before, &Motion::NONE);
    let moved = track.see(&pixels, &after, &Motion::NONE).scores[3];
    assert!(close(moved, common / both), "{moved} instead of {}", common / both);
    let mut track = Track::new(SIDE);
    track.see(&pixels, &before, &Motion::NONE);
    let slid = Motion { previous_from_current: [1.0, 0.0, -10.0, 0.0, 1.0, 0.0] };
    assert!(track.see(&pixels, &after, &slid).scores[3] > 0.97);
    // A mask twice as wide: a quarter of it was there before.
    let grown = track.see(&pixels, &disc(110.0, 100.0, 80.0), &Motion::NONE).scores[3];
    assert!(close(grown, 0.25), "{grown}");
}

#[test]
fn an_island_does_not_move_the_core() {
    let mut inside = disc(100.0, 100.0, 40.0);
    let pixels = painted(&inside, [60, 160]);
    let alone = Track::new(SIDE).see(&pixels, &inside, &Motion::NONE).core_xyxy;
    assert_eq!(alone, packed(&inside, SIDE).1);
    for at in [5 * SIDE + 5, 5 * SIDE + 6, 6 * SIDE + 5, 6 * SIDE + 6, 7 * SIDE + 6, 7 * SIDE + 5] {
        inside[at] = true;
    }
    let with_island = Track::new(SIDE).see(&pixels, &inside, &Motion::NONE).core_xyxy;
    assert!(
        alone.iter().zip(with_island).all(|(a, b)| (a - b).abs() <= 4),
        "{with_island:?} beside {alone:?}"
    );
}

#[test]
fn weight_maps_cover_what_the_scores_look_at() {
    let inside = disc(100.0, 100.0, 40.0);
    let (bits, box_xyxy) = packed(&inside, SIDE);
    let pixels = painted(&inside, [60, 160]);
    let image = Image { pixels: &pixels, width: SIDE, height: SIDE, channels: 1 };
    let maps = weight_maps(&image, &Mask { bits: &bits, box_xyxy });
    for (name, map) in [("edge", &maps.edge), ("inside", &maps.inside), ("outside", &maps.outside)] {
        assert!((map.iter().sum::<f32>() - 1.0).abs() < 1e-3, "{name}");
    }
    let away = |at: usize| ((at % SIDE) as f32 - 100.0).hypot((at / SIDE) as f32 - 100.0);
    for at in 0..SIDE * SIDE {
        assert!(maps.inside[at] == 0.0 || away(at) < 43.0);
        assert!(maps.edge[at] == 0.0 || (away(at) - 39.0).abs() < 5.0, "{}", away(at));
        assert!(maps.outside[at] == 0.0 || (40.0..60.0).contains(&away(at)), "{}", away(at));
    }
    let nothing = weight_maps(&image, &Mask { bits: &bits, box_xyxy: [0; 4] });
    assert!(nothing.edge.iter().chain(&nothing.inside).chain(&nothing.outside).all(|&weight| weight == 0.0));
}

/// Grey values of a decibel in an image of 60 dB.
const GREY_PER_DB: f32 = 255.0 / 60.0;

fn darker(pixels: &[u8], db: f32) -> Vec<u8> {
    pixels.iter().map(|&v| (f32::from(v) - db * GREY_PER_DB).round() as u8).collect()
}

fn blurred(pixels: &[u8], side: usize, sigma_px: f32) -> Vec<u8> {
    if sigma_px == 0.0 {
        return pixels.to_vec();
    }
    let reach = (3.0 * sigma_px).ceil() as i64;
    let weights: Vec<f32> = (-reach..=reach).map(|d| (-0.5 * (d as f32 / sigma_px).powi(2)).exp()).collect();
    let total: f32 = weights.iter().sum();
    let along = |from: &[f32], step: usize| -> Vec<f32> {
        (0..from.len())
            .map(|at| {
                let place = (at / step % side) as i64;
                let value = |d: i64| {
                    let moved = (place + d).clamp(0, side as i64 - 1) - place;
                    from[(at as i64 + moved * step as i64) as usize]
                };
                (-reach..=reach).zip(&weights).map(|(d, weight)| weight * value(d)).sum::<f32>() / total
            })
            .collect()
    };
    let floats: Vec<f32> = pixels.iter().map(|&v| v.into()).collect();
    along(&along(&floats, 1), side).iter().map(|v| v.round() as u8).collect()
}

/// A shadow over the right half of an object, from the skin down.
fn shadowed(pixels: &[u8], side: usize, [left, _, right, _]: [i32; 4], db: f32) -> Vec<u8> {
    let columns = ((left + right) / 2) as usize..(right + (right - left) / 4) as usize;
    let dark = darker(pixels, db);
    (0..pixels.len()).map(|at| if columns.contains(&(at % side)) { dark[at] } else { pixels[at] }).collect()
}

const NAMES: [&str; SCORES] = ["edge", "contrast", "continuity", "stability", "likeness", "mean"];

/// Mean scores over the objects of some scenes, each seen well, and then as `spoil` makes it, in the frame after.
fn swept(scenes: &[[PhantomFrame; 2]], spoil: impl Fn(&[u8], [i32; 4]) -> Vec<u8>) -> [f32; SCORES] {
    let (mut sums, mut objects) = ([0.0; SCORES], 0.0);
    for [first, second] in scenes {
        for object in &first.objects {
            let inside =
                |frame: &PhantomFrame| frame.instances.iter().map(|&id| id == object.id).collect::<Vec<_>>();
            let [before, after] = [inside(first), inside(second)];
            let mut track = Track::new(first.width);
            track.see(&first.pixels, &before, &Motion::NONE);
            let box_xyxy = packed(&after, second.width).1;
            let judged = track.see(&spoil(&second.pixels, box_xyxy), &after, &Motion::NONE);
            sums.iter_mut().zip(judged.scores).for_each(|(sum, score)| *sum += score);
            objects += 1.0;
        }
    }
    sums.map(|sum| sum / objects)
}

#[test]
fn scores_fall_with_gain_focus_and_light() {
    let scenes: Vec<[PhantomFrame; 2]> = (0..6)
        .map(|seed| {
            let phantom = Phantom::new(PhantomConfig { seed, ..PhantomConfig::default() }).unwrap();
            [phantom.frame(0), phantom.frame(1)]
        })
        .collect();
    let side = scenes[0][0].width;
    let darker_by = |db: f32| swept(&scenes, |pixels, _| darker(pixels, db));
    let blurred_by = |sigma: f32| swept(&scenes, |pixels, _| blurred(pixels, side, sigma));
    let shadowed_by = |db: f32| swept(&scenes, |pixels, box_xyxy| shadowed(pixels, side, box_xyxy, db));
    let (decibels, pixels) = ([0.0, 6.0, 12.0, 24.0, 36.0], [0.0, 1.0, 2.0, 4.0, 8.0]);
    for (name, steps, rows) in [
        ("gain lower by, dB", decibels, decibels.map(darker_by)),
        ("blur, sigma px", pixels, pixels.map(blurred_by)),
        ("shadow over half, dB", decibels, decibels.map(shadowed_by)),
    ] {
        println!("| {name} | {} |\n|---|---|---|---|---|---|---|", NAMES.join(" | "));
        for (step, row) in steps.iter().zip(rows) {
            println!("| {step} | {} |", row.map(|score| format!("{score:.3}")).join(" | "));
        }
        for pair in rows.windows(2) {
            for score in 0..SCORES {
                // A blur finer than the speckle smooths what is inside before it lowers the step.
                let slack = if NAMES[score] == "contrast" { 1e-2 } else { 1e-3 };
                assert!(pair[1][score] <= pair[0][score] + slack, "{}: {} of {rows:?}", name, NAMES[score]);
            }
        }
        assert!(rows[4][5] < rows[0][5] - 0.1, "{name}: {rows:?}");
    }
}
