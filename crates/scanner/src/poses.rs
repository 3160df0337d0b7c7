//! Where image and probe are: the source's poses, stand-ins for those that it lacks, and the way from one coordinate
//! system to another.
//!
//! A transform's name is `FromToTo` in PLUS's manner: `ProbeToTracker` takes probe coordinates to the tracker's. The
//! stand-ins, each only where the source has no transform from the system in question:
//! - `ImageToProbe`: the probe's face lies along the middle of the image's top edge, x along the rows, y in depth, at
//!   the source's pixel spacing (1 mm where it gives none). For the phantom this is exact.
//! - `ProbeToTracker`: a sweep of 20 mm to and fro across the image plane in 8 s, tilting by 5 degrees in 6.5 s, half a
//!   metre in front of the tracker.
//! - `ReferenceToTracker`: a marker on the table that does not move; not where poses are relative to it already.

use std::f64::consts::TAU;

use ultramotion_types::pose::{IDENTITY, inverse, product};
use ultramotion_types::{Frame, Matrix, NamedTransform};

/// The frame's transforms and the stand-ins for those that it lacks; replaces what is in `poses`.
pub(crate) fn collect(frame: &Frame, time_s: f64, poses: &mut Vec<NamedTransform>) {
    poses.clear();
    poses.extend(frame.transforms.iter().cloned());
    let mut stand_in = |system: &str, name: &str, matrix: Matrix| {
        if !poses.iter().any(|pose| ends(&pose.name).is_some_and(|(from, _)| from == system)) {
            poses.push(NamedTransform { name: name.into(), matrix, valid: true });
        }
    };
    stand_in("Image", "ImageToProbe", probe_from_image(frame));
    stand_in("Probe", "ProbeToTracker", sweep(time_s));
    if !frame.transforms.iter().any(|pose| ends(&pose.name).is_some_and(|(_, to)| to == "Reference")) {
        stand_in("Reference", "ReferenceToTracker", REFERENCE);
    }
}

const REFERENCE: Matrix =
    [[1.0, 0.0, 0.0, -120.0], [0.0, 1.0, 0.0, 80.0], [0.0, 0.0, 1.0, -550.0], [0.0, 0.0, 0.0, 1.0]];

/// Index (0, 0) is the middle of the first pixel.
fn probe_from_image(frame: &Frame) -> Matrix {
    let [x, y] = frame.spacing_mm.unwrap_or([1.0; 2]);
    let left = -x * (frame.width as f64 - 1.0) / 2.0;
    [[x, 0.0, 0.0, left], [0.0, y, 0.0, y / 2.0], [0.0, 0.0, x, 0.0], [0.0, 0.0, 0.0, 1.0]]
}

fn sweep(time_s: f64) -> Matrix {
    let (sin, cos) = (5f64.to_radians() * (TAU * time_s / 6.5).sin()).sin_cos();
    let across_mm = 20.0 * (TAU * time_s / 8.0).sin();
    [[1.0, 0.0, 0.0, 0.0], [0.0, cos, -sin, 0.0], [0.0, sin, cos, across_mm - 500.0], [0.0, 0.0, 0.0, 1.0]]
}

/// The two coordinate systems in a transform's name.
pub(crate) fn ends(name: &str) -> Option<(&str, &str)> {
    name.match_indices("To")
        .map(|(at, _)| (&name[..at], &name[at + 2..]))
        .find(|(from, to)| !from.is_empty() && to.starts_with(|c: char| c.is_ascii_uppercase()))
}

/// The transform from one system to another along the valid poses, some of them backwards, if they connect the two.
pub(crate) fn between(poses: &[NamedTransform], from: &str, to: &str) -> Option<Matrix> {
    let mut known: Vec<(&str, Matrix)> = vec![(from, IDENTITY)];
    let mut next = 0;
    while let Some(&(system, so_far)) = known.get(next) {
        if system == to {
            return Some(so_far);
        }
        for pose in poses.iter().filter(|pose| pose.valid) {
            let Some((start, end)) = ends(&pose.name) else { continue };
            let step = if start == system {
                Some((end, pose.matrix))
            } else if end == system {
                inverse(&pose.matrix).map(|matrix| (start, matrix))
            } else {
                None
            };
            if let Some((there, matrix)) =
                step.filter(|(there, _)| !known.iter().any(|(name, _)| name == there))
            {
                known.push((there, product(&matrix, &so_far)));
            }
        }
        next += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pose(name: &str, matrix: Matrix) -> NamedTransform {
        NamedTransform { name: name.into(), matrix, valid: true }
    }

    fn assert_close(a: &Matrix, b: &Matrix, within: f64) {
        for (x, y) in a.iter().flatten().zip(b.iter().flatten()) {
            assert!((x - y).abs() <= within, "{a:?} {b:?}");
        }
    }

    #[test]
    fn names_have_two_ends() {
        assert_eq!(ends("ProbeToTracker"), Some(("Probe", "Tracker")));
        assert_eq!(ends("StylusTipToStylus"), Some(("StylusTip", "Stylus")));
        assert_eq!(ends("TotalToTop"), Some(("Total", "Top")));
        for odd in ["", "Probe", "ToTracker", "ProbeTo", "Probetracker"] {
            assert_eq!(ends(odd), None, "{odd}");
        }
    }

    proptest! {
        #[test]
        fn there_and_back_is_nowhere(v in proptest::array::uniform12(-10.0f64..10.0)) {
            let m = [[v[0], v[1], v[2], v[3]], [v[4], v[5], v[6], v[7]], [v[8], v[9], v[10], v[11]], [0., 0., 0., 1.]];
            let determinant = m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1])
                - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0])
                + m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0]);
            prop_assume!(determinant.abs() > 1.0);
            let back = inverse(&m).expect("not flat");
            assert_close(&product(&m, &back), &IDENTITY, 1e-6);
        }
    }

    #[test]
    fn systems_are_connected_both_ways() {
        let shift = |x: f64, y: f64| [[1., 0., 0., x], [0., 1., 0., y], [0., 0., 1., 0.], [0., 0., 0., 1.]];
        let mut poses = vec![
            pose("ReferenceToTracker", shift(100.0, 0.0)),
            pose("ProbeToTracker", shift(7.0, 1.0)),
            pose(
                "ImageToProbe",
                [[0.5, 0., 0., 0.], [0., 0.25, 0., 2.0], [0., 0., 1., 0.], [0., 0., 0., 1.]],
            ),
        ];
        let found = between(&poses, "Image", "Reference").expect("connected");
        let expected = [[0.5, 0., 0., -93.], [0., 0.25, 0., 3.], [0., 0., 1., 0.], [0., 0., 0., 1.]];
        assert_close(&found, &expected, 1e-12);
        assert_eq!(between(&poses, "Image", "Stylus"), None);
        poses[1].valid = false;
        assert_eq!(between(&poses, "Image", "Reference"), None, "a lost probe connects nothing");
        assert!(between(&poses, "Image", "Probe").is_some());
    }

    #[test]
    fn stand_ins_are_for_what_is_missing() {
        let frame = Frame { spacing_mm: Some([0.1, 0.2]), ..Frame::grey8(5, 3, vec![0; 15]) };
        let mut poses = Vec::new();
        collect(&frame, 2.0, &mut poses);
        let names: Vec<&str> = poses.iter().map(|pose| &*pose.name).collect();
        assert_eq!(names, ["ImageToProbe", "ProbeToTracker", "ReferenceToTracker"]);
        assert_eq!(poses[0].matrix[0], [0.1, 0.0, 0.0, -0.2]);
        assert_eq!(poses[0].matrix[1], [0.0, 0.2, 0.0, 0.1]);
        assert!((poses[1].matrix[2][3] + 480.0).abs() < 1e-9, "at the end of the sweep");

        let tracked = Frame { transforms: vec![pose("ProbeToReference", IDENTITY)], ..frame };
        collect(&tracked, 2.0, &mut poses);
        let names: Vec<&str> = poses.iter().map(|pose| &*pose.name).collect();
        assert_eq!(names, ["ProbeToReference", "ImageToProbe"]);
    }
}
