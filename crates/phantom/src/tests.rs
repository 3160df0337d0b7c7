//! The physics and the promises of the phantom, measured on rendered frames.

use proptest::prelude::*;

use crate::anatomy::{Anatomy, Bone, Imaging, Layer, Outline, Vessel};
use crate::random::{Rng, SmoothLine};
use crate::{Class, Phantom, PhantomConfig, PhantomError, PhantomFrame};

const DYNAMIC_RANGE_DB: f64 = 60.0;

/// Even tissue at -30 dB under a scanner that adds nothing of its own.
fn even_tissue() -> Anatomy {
    let mut anatomy = Anatomy::draw(1, [40.0, 40.0]);
    let still = SmoothLine::new(&mut Rng::new(0, 0), 0.0, 1.0, 2.0);
    anatomy.layers =
        vec![Layer { bottom_mm: 200.0, relief_mm: still, echo_db: -30.0, streak_db: 0.0, lump_db: 0.0 }];
    anatomy.strokes.clear();
    anatomy.vessels.clear();
    anatomy.nerves.clear();
    anatomy.bellies.clear();
    anatomy.bone = None;
    anatomy.imaging = Imaging {
        dynamic_range_db: DYNAMIC_RANGE_DB as f32,
        gain_db: 0.0,
        grey_gamma: 1.0,
        looks: 1,
        axial_sigma_mm: 0.1,
        lateral_sigma_mm: 0.15,
        focus_mm: 20.0,
        depth_of_field_mm: 20.0,
        residual_loss_db_per_mm: 0.0,
        tgc_knee_mm: 0.0,
        noise_floor_db: -120.0,
        near_field_db: -60.0,
        edge_loss_db: [0.0; 2],
        edge_reach: [0.1; 2],
    };
    anatomy
}

fn scene(anatomy: &Anatomy, seed: u64) -> Phantom {
    let config = PhantomConfig { seed, ..Default::default() };
    Phantom::of_anatomy(config, anatomy, 40.0 / 512.0)
}

fn envelope(grey: u8) -> f64 {
    10f64.powf((f64::from(grey) / 255.0 - 1.0) * DYNAMIC_RANGE_DB / 20.0)
}

/// Mean power in decibels over a rectangle of millimetres.
fn power_db(frame: &PhantomFrame, x_mm: [f64; 2], y_mm: [f64; 2]) -> f64 {
    let px = |mm: f64| (mm / frame.spacing_mm).round().clamp(0.0, 512.0) as usize;
    let (mut sum, mut count) = (0.0, 0);
    for y in px(y_mm[0])..px(y_mm[1]) {
        for x in px(x_mm[0])..px(x_mm[1]) {
            sum += envelope(frame.pixels[y * frame.width + x]).powi(2);
            count += 1;
        }
    }
    assert!(count > 100, "the rectangle is too small to measure");
    10.0 * (sum / f64::from(count)).log10()
}

fn ratio_of_mean_to_deviation(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
    mean / variance.sqrt()
}

#[test]
fn speckle_of_even_tissue_is_rayleigh() {
    for seed in [3, 4] {
        let phantom = scene(&even_tissue(), seed);
        let baked: Vec<f64> = phantom.envelope.iter().map(|&e| f64::from(e)).collect();
        let ratio = ratio_of_mean_to_deviation(&baked);
        assert!((ratio - 1.91).abs() < 0.05, "seed {seed}: {ratio} in the world");

        let frame = phantom.frame(11);
        let seen: Vec<f64> = frame.pixels[100 * 512..].iter().map(|&g| envelope(g)).collect();
        // Sampling between grid points smooths a little.
        let ratio = ratio_of_mean_to_deviation(&seen);
        assert!((ratio - 1.91).abs() < 0.1, "seed {seed}: {ratio} in the frame");

        let mean_power = baked.iter().map(|e| e * e).sum::<f64>() / baked.len() as f64;
        for quantile in [0.1, 0.3, 0.5, 0.7, 0.9, 0.99] {
            let threshold = (-mean_power * (1.0f64 - quantile).ln()).sqrt();
            let below = baked.iter().filter(|&&e| e < threshold).count() as f64 / baked.len() as f64;
            assert!(
                (below - quantile).abs() < 0.02,
                "seed {seed}: {below} of pixels below quantile {quantile}"
            );
        }
    }
}

#[test]
fn speckle_widens_away_from_the_focus() {
    let mut anatomy = even_tissue();
    anatomy.imaging.focus_mm = 8.0;
    anatomy.imaging.depth_of_field_mm = 8.0;
    let frame = scene(&anatomy, 5).frame(0);
    // Correlation of horizontal neighbours three pixels apart.
    let correlation = |rows: std::ops::Range<usize>| {
        let row = |y: usize| frame.pixels[y * 512..(y + 1) * 512].iter().map(|&g| envelope(g));
        let all: Vec<f64> = rows.clone().flat_map(row).collect();
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        let (mut product, mut square) = (0.0, 0.0);
        for y in rows {
            let values: Vec<f64> = row(y).map(|e| e - mean).collect();
            product += values.iter().zip(&values[3..]).map(|(a, b)| a * b).sum::<f64>();
            square += values.iter().map(|a| a * a).sum::<f64>();
        }
        product / square
    };
    let (near, far) = (correlation(80..130), correlation(440..500));
    assert!(far > near + 0.2, "near {near}, far {far}");
}

#[test]
fn behind_a_vessel_it_is_brighter_and_inside_darker() {
    let mut anatomy = even_tissue();
    let outline = Outline::new(&mut Rng::new(9, 9), [20.0, 14.0], 4.0, 4.0, 0.0);
    anatomy.vessels.push(Vessel {
        outline,
        wall_mm: 0.2,
        wall_echo_db: -20.0,
        lumen_echo_db: -55.0,
        clutter_db: 0.0,
        enhancement_db_per_mm: 1.5,
        edge_shadow_db: 0.0,
        edge_softness_mm: 0.06,
        pulse: 0.05,
        compressibility: 0.0,
    });
    let frame = still_frame(&anatomy, 6);
    let (left, right) = (20.0, 20.0);
    let behind = power_db(&frame, [left - 1.5, right + 1.5], [20.0, 24.0]);
    let inside = power_db(&frame, [left - 1.5, right + 1.5], [12.5, 15.5]);
    let beside = power_db(&frame, [2.0, 10.0], [20.0, 24.0]);
    assert!(behind > beside + 3.0, "behind {behind} dB, beside {beside} dB");
    assert!(inside < beside - 15.0, "inside {inside} dB, beside {beside} dB");
    assert_eq!(frame.objects.len(), 1);
    assert_eq!(frame.objects[0].class, Class::Vessel);
}

#[test]
fn bone_is_bright_and_shades_what_is_behind_it() {
    let mut anatomy = even_tissue();
    let still = SmoothLine::new(&mut Rng::new(0, 0), 0.0, 1.0, 2.0);
    anatomy.bone = Some(Bone {
        center_x_mm: 20.0,
        half_width_mm: 9.0,
        depth_mm: 15.0,
        tilt: 0.0,
        bow_per_mm: 0.0,
        relief_mm: still,
        echo_db: -5.0,
        shadow_db: 35.0,
        reverberation_mm: 2.0,
    });
    let frame = still_frame(&anatomy, 7);
    let beside = power_db(&frame, [1.0, 7.0], [22.0, 35.0]);
    let shadow = power_db(&frame, [15.0, 25.0], [22.0, 35.0]);
    let surface = power_db(&frame, [15.0, 25.0], [14.8, 15.2]);
    assert!(shadow < beside - 15.0, "shadow {shadow} dB, beside {beside} dB");
    assert!(surface > beside + 8.0, "surface {surface} dB, beside {beside} dB");

    // A vessel in the shadow is no truth: nobody could see it.
    let outline = Outline::new(&mut Rng::new(9, 9), [20.0, 25.0], 3.0, 3.0, 0.0);
    anatomy.vessels.push(Vessel {
        outline,
        wall_mm: 0.2,
        wall_echo_db: -20.0,
        lumen_echo_db: -55.0,
        clutter_db: 0.0,
        enhancement_db_per_mm: 1.0,
        edge_shadow_db: 0.0,
        edge_softness_mm: 0.06,
        pulse: 0.0,
        compressibility: 0.0,
    });
    let frame = still_frame(&anatomy, 7);
    let classes: Vec<Class> = frame.objects.iter().map(|o| o.class).collect();
    assert_eq!(classes, [Class::Bone]);
    assert!(frame.instances.iter().all(|&id| id == 0 || id == 2));
}

/// Renders a scene with the probe at rest, so that world and view agree.
fn still_frame(anatomy: &Anatomy, seed: u64) -> PhantomFrame {
    let mut phantom = scene(anatomy, seed);
    phantom.motion.hold_still();
    phantom.frame(0)
}

#[test]
fn the_heart_beats_and_the_probe_moves() {
    let (mut areas_change, mut boxes_move) = (0, 0);
    for seed in 0..4 {
        let phantom =
            Phantom::new(PhantomConfig { seed, width: 256, height: 256, ..Default::default() }).unwrap();
        let frames: Vec<PhantomFrame> = (0..25).map(|i| phantom.frame(i)).collect();
        let first = &frames[0];
        for other in &frames[1..] {
            for (a, b) in first.objects.iter().zip(&other.objects).filter(|(a, b)| a.id == b.id) {
                areas_change += usize::from(a.area_px != b.area_px);
                boxes_move += usize::from(a.box_xyxy != b.box_xyxy);
            }
            assert_ne!(first.tracker_from_probe, other.tracker_from_probe);
        }
    }
    assert!(areas_change > 20 && boxes_move > 20, "{areas_change} areas changed, {boxes_move} boxes moved");
}

#[test]
fn structures_leave_and_enter_the_view() {
    let (mut entered, mut left) = (0, 0);
    for seed in 0..6 {
        let config = PhantomConfig { seed, width: 128, height: 128, frames_per_second: 2.0, depth_mm: None };
        let phantom = Phantom::new(config).unwrap();
        let mut before = phantom.frame(0).objects.iter().map(|o| o.id).collect::<Vec<_>>();
        for index in 1..120 {
            let now: Vec<u8> = phantom.frame(index).objects.iter().map(|o| o.id).collect();
            entered += now.iter().filter(|id| !before.contains(id)).count();
            left += before.iter().filter(|id| !now.contains(id)).count();
            before = now;
        }
    }
    assert!(entered >= 5 && left >= 5, "{entered} entered, {left} left in six minutes");
}

#[test]
fn tracker_from_probe_is_rigid() {
    let phantom = Phantom::new(PhantomConfig { width: 64, height: 64, ..Default::default() }).unwrap();
    let m = phantom.frame(77).tracker_from_probe;
    for i in 0..3 {
        for j in 0..3 {
            let dot: f64 = (0..3).map(|k| m[k][i] * m[k][j]).sum();
            assert!((dot - f64::from(u8::from(i == j))).abs() < 1e-6);
        }
    }
    assert_eq!(m[3], [0.0, 0.0, 0.0, 1.0]);
}

#[test]
fn impossible_configurations_are_refused() {
    let ok = PhantomConfig { width: 64, height: 64, ..Default::default() };
    let refuse = |config: PhantomConfig| Phantom::new(config).unwrap_err();
    assert!(matches!(refuse(PhantomConfig { width: 0, ..ok.clone() }), PhantomError::Size { .. }));
    assert!(matches!(refuse(PhantomConfig { height: 1 << 40, ..ok.clone() }), PhantomError::Size { .. }));
    assert!(matches!(
        refuse(PhantomConfig { frames_per_second: f64::NAN, ..ok.clone() }),
        PhantomError::Rate(_)
    ));
    assert!(matches!(
        refuse(PhantomConfig { depth_mm: Some(f64::NAN), ..ok.clone() }),
        PhantomError::Depth(_)
    ));
    assert_eq!(
        refuse(PhantomConfig { width: 10, ..ok }).to_string(),
        "a phantom frame of 10x64 pixels is not possible: give sides from 64 to 2048"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn truth_is_tight_and_frames_are_reproducible(
        seed in any::<u64>(),
        index in 0u64..1_000_000,
        width in 64usize..200,
        height in 64usize..200,
    ) {
        let config = PhantomConfig { seed, width, height, ..Default::default() };
        let phantom = Phantom::new(config.clone()).unwrap();
        let frame = phantom.frame(index);
        // Another instance, after another frame, into a used buffer of another size.
        let mut again = Phantom::new(PhantomConfig { width: 70, height: 90, ..config.clone() }).unwrap().frame(3);
        Phantom::new(config).unwrap().render_into(index, &mut again);
        prop_assert_eq!(&frame.pixels, &again.pixels);
        prop_assert_eq!(&frame.instances, &again.instances);
        prop_assert_eq!(&frame.objects, &again.objects);
        prop_assert_eq!(frame.timestamp_s, index as f64 / 25.0);

        for object in &frame.objects {
            prop_assert_eq!(phantom.classes()[object.id as usize - 1], object.class);
            let mask = frame.mask(object.id);
            let inside = |x: usize, y: usize| mask[y * width + x] != 0;
            let columns: Vec<usize> = (0..width).filter(|&x| (0..height).any(|y| inside(x, y))).collect();
            let rows: Vec<usize> = (0..height).filter(|&y| (0..width).any(|x| inside(x, y))).collect();
            let tight =
                [columns[0], rows[0], columns[columns.len() - 1] + 1, rows[rows.len() - 1] + 1].map(|e| e as f32);
            prop_assert_eq!(object.box_xyxy, tight);
            prop_assert_eq!(object.area_px as usize, mask.iter().filter(|&&m| m != 0).count());
        }
        let ids: Vec<u8> = frame.objects.iter().map(|o| o.id).collect();
        prop_assert!(frame.instances.iter().all(|id| *id == 0 || ids.contains(id)));
    }
}
