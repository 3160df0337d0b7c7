//! Poses by name and time, and the pose that goes with a frame.
//!
//! Trackers and scanners send separately; what belongs together has timestamps that agree. At a frame's time the pose
//! is: the one with exactly that timestamp; else interpolated between the two around it, if both are within the
//! tolerance; else the nearest within the tolerance; else none. Positions are interpolated linearly, rotations by
//! spherical linear interpolation of unit quaternions (Shoemake, SIGGRAPH 1985); a matrix that is more than a rotation
//! and a shift, such as a calibration with a scale, is not interpolated but taken from the nearer neighbour.
//!
//! A frame without a timestamp takes the newest pose that has none either.

use std::collections::{BTreeMap, VecDeque};

use ultramotion_igtlink::{Content, DeviceName, Message, Orientation, QTransform, Timestamp, Transform};
use ultramotion_types::Matrix;
use ultramotion_types::pose::{IDENTITY, product};

/// Poses of a name that are kept: some seconds of a fast tracker.
const KEPT_POSES: usize = 256;
/// Names that are kept. More are somebody's mistake, and must not take memory.
const KEPT_NAMES: usize = 64;

/// A pose at a frame's time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MatchedPose {
    /// Its name, such as `ProbeToTracker`.
    pub name: DeviceName,
    /// `tracker_from_probe` in that case.
    pub matrix: Matrix,
    /// False if the sender said that the tool was not seen; the matrix then means nothing.
    pub valid: bool,
}

#[derive(Debug, Clone, Copy)]
struct StampedPose {
    time: Timestamp,
    matrix: Matrix,
    valid: bool,
}

/// The last poses of every name.
#[derive(Debug)]
pub struct PoseBook {
    rings: Vec<(DeviceName, VecDeque<StampedPose>)>,
    fixed: BTreeMap<String, Matrix>,
    tolerance_s: f64,
    ignored: u64,
}

impl PoseBook {
    /// A book with transforms that never change, by rows.
    pub fn new(tolerance_ms: f64, fixed: &BTreeMap<String, [f64; 16]>) -> Self {
        let rows = |m: &[f64; 16]| [0, 4, 8, 12].map(|row| [m[row], m[row + 1], m[row + 2], m[row + 3]]);
        PoseBook {
            rings: Vec::new(),
            fixed: fixed.iter().map(|(name, matrix)| (name.clone(), rows(matrix))).collect(),
            tolerance_s: tolerance_ms / 1e3,
            ignored: 0,
        }
    }

    /// Enters the poses of a message. False if it has none.
    pub fn read(&mut self, message: &Message<'_>) -> bool {
        let (name, time) = (message.device_name, message.timestamp);
        // 3D Slicer and PLUS say by metadata that a tool is out of sight.
        let said_invalid = |key| message.metadata.get(key).is_some_and(|status| status != "OK");
        let valid = !said_invalid("Status") && !said_invalid("TransformStatus");
        match &message.content {
            Content::Transform(pose) => self.enter(name, time, from_transform(pose), valid),
            Content::QTransform(pose) => self.enter(name, time, from_quaternion(pose), valid),
            Content::Position(pose) => {
                let quaternion = match pose.orientation {
                    Orientation::None => [0.0, 0.0, 0.0, 1.0],
                    // The protocol leaves the fourth element out where it follows from the others.
                    Orientation::Compressed([x, y, z]) => {
                        [x, y, z, (1.0 - x * x - y * y - z * z).max(0.0).sqrt()]
                    }
                    Orientation::Quaternion(quaternion) => quaternion,
                };
                let pose = QTransform { position: pose.position, quaternion };
                self.enter(name, time, from_quaternion(&pose), valid);
            }
            Content::TrackingData(tools) => {
                tools.iter().for_each(|t| self.enter(t.name, time, from_transform(&t.pose), true));
            }
            Content::QTrackingData(tools) => {
                tools.iter().for_each(|t| self.enter(t.name, time, from_quaternion(&t.pose), true));
            }
            _ => return false,
        }
        true
    }

    fn enter(&mut self, name: DeviceName, time: Timestamp, matrix: Matrix, valid: bool) {
        let valid = valid && matrix.iter().flatten().all(|v| v.is_finite());
        let known = self.rings.iter().position(|(n, _)| *n == name);
        let index = match known {
            Some(index) => index,
            None if self.rings.len() < KEPT_NAMES => {
                self.rings.push((name, VecDeque::with_capacity(KEPT_POSES)));
                self.rings.len() - 1
            }
            None => {
                self.ignored += 1;
                return;
            }
        };
        let ring = &mut self.rings[index].1;
        match ring.back() {
            // The sender's clock was set back: what was before is of another time.
            Some(last) if time < last.time => ring.clear(),
            Some(last) if time == last.time => drop(ring.pop_back()),
            _ => {}
        }
        if ring.len() == KEPT_POSES {
            ring.pop_front();
        }
        ring.push_back(StampedPose { time, matrix, valid });
    }

    /// Poses that were not kept because there are too many names.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// Every name's pose at this time, where it has one.
    pub fn at(&self, time: Timestamp) -> Vec<MatchedPose> {
        let pose = |(name, ring): &(DeviceName, VecDeque<StampedPose>)| {
            let (matrix, valid) = self.in_ring(ring, time)?;
            Some(MatchedPose { name: *name, matrix, valid })
        };
        self.rings.iter().filter_map(pose).collect()
    }

    fn in_ring(&self, ring: &VecDeque<StampedPose>, time: Timestamp) -> Option<(Matrix, bool)> {
        let after = ring.partition_point(|pose| pose.time < time);
        let later = ring.get(after);
        let earlier = after.checked_sub(1).and_then(|before| ring.get(before));
        if let Some(exact) = later.filter(|pose| pose.time == time) {
            return Some((exact.matrix, exact.valid));
        }
        if time == Timestamp::NONE {
            return None;
        }
        let distance_s = |pose: &StampedPose| seconds_between(pose.time, time).abs();
        let near = |pose: &&StampedPose| pose.time != Timestamp::NONE && distance_s(pose) <= self.tolerance_s;
        match (earlier.filter(near), later.filter(near)) {
            (Some(a), Some(b)) => {
                let (to_a, to_b) = (distance_s(a), distance_s(b));
                let nearer = if to_a <= to_b { a } else { b };
                let between = (a.valid && b.valid)
                    .then(|| interpolated(&a.matrix, &b.matrix, to_a / (to_a + to_b)))
                    .flatten();
                Some((between.unwrap_or(nearer.matrix), nearer.valid))
            }
            (Some(pose), None) | (None, Some(pose)) => Some((pose.matrix, pose.valid)),
            (None, None) => None,
        }
    }

    /// The product of a chain of transforms, the first name applied first: of poses that were matched to a frame, and
    /// of those that never change. None if one is missing or invalid.
    pub fn chain(&self, names: &[String], poses: &[MatchedPose]) -> Option<Matrix> {
        names.iter().try_fold(IDENTITY, |so_far, name| {
            let tracked = poses.iter().find(|pose| pose.name == name.as_str());
            let link = match tracked {
                Some(pose) => pose.valid.then_some(&pose.matrix),
                None => self.fixed.get(name),
            };
            Some(product(link?, &so_far))
        })
    }
}

/// The transforms from the frame that a device's images are placed in to the tracker's. PlusServer calls a device
/// after both, `Image_Reference`; a name that says nothing is taken for an image in its own frame.
///
/// ```
/// use ultramotion_gateway::receive::poses::chain_of_device;
///
/// assert_eq!(chain_of_device("Image_Reference"), ["ReferenceToTracker"]);
/// assert_eq!(chain_of_device("Image"), ["ImageToProbe", "ProbeToTracker"]);
/// assert!(chain_of_device("Image_Tracker").is_empty());
/// ```
pub fn chain_of_device(device: &str) -> Vec<String> {
    match device.rsplit_once('_').map_or("Image", |(_, frame)| frame) {
        "" | "Image" => vec!["ImageToProbe".into(), "ProbeToTracker".into()],
        "Tracker" => Vec::new(),
        frame => vec![format!("{frame}ToTracker")],
    }
}

fn seconds_between(from: Timestamp, to: Timestamp) -> f64 {
    // In units of 2^-32 s, whose difference a float holds better than it holds seconds since 1970.
    (to.to_bits() as i128 - from.to_bits() as i128) as f64 / (1u64 << 32) as f64
}

fn from_transform(pose: &Transform) -> Matrix {
    pose.to_matrix().map(|row| row.map(f64::from))
}

fn from_quaternion(pose: &QTransform) -> Matrix {
    let q = pose.quaternion.map(f64::from);
    let norm = q.iter().map(|v| v * v).sum::<f64>().sqrt();
    // A quaternion of nothing becomes a matrix of NaN, which is no valid pose.
    with_rotation(q.map(|v| v / norm), pose.position.map(f64::from))
}

/// The matrix of a unit quaternion (x, y, z, w) and a shift.
fn with_rotation([x, y, z, w]: [f64; 4], [tx, ty, tz]: [f64; 3]) -> Matrix {
    [
        [1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - z * w), 2.0 * (x * z + y * w), tx],
        [2.0 * (x * y + z * w), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - x * w), ty],
        [2.0 * (x * z - y * w), 2.0 * (y * z + x * w), 1.0 - 2.0 * (x * x + y * y), tz],
        [0.0, 0.0, 0.0, 1.0],
    ]
}

/// The unit quaternion (x, y, z, w) of a matrix's rotation, if that is all its upper left part is. By the largest of
/// the four elements (Shepperd, 1978), so that nothing is divided by a small number.
fn rotation_of(m: &Matrix) -> Option<[f64; 4]> {
    for row in 0..3 {
        for other in row..3 {
            let dot: f64 = (0..3).map(|k| m[row][k] * m[other][k]).sum();
            let expected = if row == other { 1.0 } else { 0.0 };
            // NaN is in no range, and so no rotation.
            if !(-1e-3..=1e-3).contains(&(dot - expected)) {
                return None;
            }
        }
    }
    let minor = |a: usize, b: usize| m[1][a] * m[2][b] - m[1][b] * m[2][a];
    // A mirror is orthogonal too.
    if m[0][0] * minor(1, 2) - m[0][1] * minor(0, 2) + m[0][2] * minor(0, 1) < 0.0 {
        return None;
    }
    let trace = m[0][0] + m[1][1] + m[2][2];
    let squares = [m[0][0], m[1][1], m[2][2], trace].map(|v| 2.0 * v - trace + 1.0);
    let squares = [squares[0], squares[1], squares[2], trace + 1.0];
    let largest = (0..4).max_by(|&a, &b| squares[a].total_cmp(&squares[b]))?;
    let twice = squares[largest].max(0.0).sqrt();
    let sum = |a: usize, b: usize| (m[a][b] + m[b][a]) / (2.0 * twice);
    let difference = |a: usize, b: usize| (m[a][b] - m[b][a]) / (2.0 * twice);
    let half = twice / 2.0;
    let quaternion = match largest {
        0 => [half, sum(0, 1), sum(0, 2), difference(2, 1)],
        1 => [sum(0, 1), half, sum(1, 2), difference(0, 2)],
        2 => [sum(0, 2), sum(1, 2), half, difference(1, 0)],
        _ => [difference(2, 1), difference(0, 2), difference(1, 0), half],
    };
    let norm = quaternion.iter().map(|v| v * v).sum::<f64>().sqrt();
    Some(quaternion.map(|v| v / norm))
}

/// A pose on the way from `a` (at 0) to `b` (at 1); None if one of them is not rigid.
fn interpolated(a: &Matrix, b: &Matrix, at: f64) -> Option<Matrix> {
    let (from, mut to) = (rotation_of(a)?, rotation_of(b)?);
    let mut cosine: f64 = from.iter().zip(to).map(|(x, y)| x * y).sum();
    if cosine < 0.0 {
        // The shorter way round.
        to = to.map(|v| -v);
        cosine = -cosine;
    }
    let angle = cosine.min(1.0).acos();
    let weights = if angle < 1e-6 {
        [1.0 - at, at]
    } else {
        [((1.0 - at) * angle).sin() / angle.sin(), (at * angle).sin() / angle.sin()]
    };
    let mixed: [f64; 4] = std::array::from_fn(|i| weights[0] * from[i] + weights[1] * to[i]);
    let norm = mixed.iter().map(|v| v * v).sum::<f64>().sqrt();
    let shift = std::array::from_fn(|row| (1.0 - at) * a[row][3] + at * b[row][3]);
    Some(with_rotation(mixed.map(|v| v / norm), shift))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ultramotion_igtlink::TrackedTool;

    use super::*;

    fn at_ms(ms: u32) -> Timestamp {
        Timestamp::from_nanos(1_700_000_000 + ms / 1000, ms % 1000 * 1_000_000)
    }

    fn shift(x: f32) -> Transform {
        Transform { translation: [x, 0.0, 0.0], ..Transform::IDENTITY }
    }

    fn message(name: &str, ms: u32, x: f32) -> Message<'static> {
        Message::new(name.parse().unwrap(), Content::Transform(shift(x))).at(at_ms(ms))
    }

    fn book() -> PoseBook {
        PoseBook::new(100.0, &BTreeMap::new())
    }

    #[test]
    fn the_pose_of_a_frame_is_exact_between_or_near() {
        let mut book = book();
        for (ms, x) in [(0, 0.0), (40, 4.0), (1000, 100.0)] {
            assert!(book.read(&message("ProbeToTracker", ms, x)));
        }
        let x_at = |ms: u32| book.at(at_ms(ms)).first().map(|pose| pose.matrix[0][3]);
        assert_eq!(x_at(40), Some(4.0));
        assert!((x_at(10).unwrap() - 1.0).abs() < 1e-6);
        assert_eq!(x_at(120), Some(4.0), "the one near enough");
        assert_eq!(x_at(990), Some(100.0));
        assert_eq!(x_at(500), None);
        assert_eq!(x_at(1101), None);
        assert!(book.at(Timestamp::NONE).is_empty(), "no time agrees with none");
    }

    #[test]
    fn all_kinds_of_pose_messages_are_read() {
        let quaternion = QTransform { position: [7.0, 0.0, 0.0], quaternion: [0.0, 0.0, 1.0, 1.0] };
        let name = |text: &str| text.parse().unwrap();
        let contents = [
            Content::Transform(shift(7.0)),
            Content::QTransform(quaternion),
            Content::Position(ultramotion_igtlink::Position {
                position: [7.0, 0.0, 0.0],
                orientation: Orientation::Compressed([0.0, 0.0, 0.6]),
            }),
            Content::TrackingData(vec![TrackedTool::new(name("A"), shift(7.0))]),
            Content::QTrackingData(vec![TrackedTool::new(name("A"), quaternion)]),
        ];
        for content in contents {
            let mut book = book();
            let kind = content.type_name();
            assert!(book.read(&Message::new(name("A"), content).at(at_ms(5))), "{kind}");
            let poses = book.at(at_ms(5));
            assert_eq!((poses.len(), poses[0].matrix[0][3], poses[0].valid), (1, 7.0, true), "{kind}");
            assert!(rotation_of(&poses[0].matrix).is_some(), "{kind}");
        }
        assert!(!book().read(&Message::new(name("A"), Content::string("7"))));
    }

    #[test]
    fn tools_out_of_sight_and_poses_of_nothing_are_invalid() {
        let mut unseen = message("A", 0, 1.0);
        unseen.metadata.push("Status", "MISSING");
        let of_nothing = QTransform { position: [0.0; 3], quaternion: [0.0; 4] };
        let of_nothing = Message::new("A".parse().unwrap(), Content::QTransform(of_nothing)).at(at_ms(0));
        for bad in [unseen, of_nothing, message("A", 0, f32::NAN)] {
            let mut book = book();
            book.read(&bad);
            let poses = book.at(at_ms(0));
            assert!(!poses[0].valid);
            assert_eq!(book.chain(&["A".into()], &poses), None);
        }
    }

    #[test]
    fn memory_is_bounded_and_clocks_may_be_set_back() {
        let mut book = book();
        for name in 0..KEPT_NAMES + 5 {
            book.read(&message(&format!("T{name}"), 0, 0.0));
        }
        assert_eq!((book.at(at_ms(0)).len(), book.ignored()), (KEPT_NAMES, 5));
        for ms in 0..1000 {
            book.read(&message("T0", ms, ms as f32));
        }
        assert_eq!(book.rings[0].1.len(), KEPT_POSES);
        book.read(&message("T0", 3, 33.0));
        assert_eq!(book.rings[0].1.len(), 1, "poses of before belong to another clock");
        book.read(&message("T0", 3, 34.0));
        assert_eq!(book.at(at_ms(3))[0].matrix[0][3], 34.0, "the last word of a moment counts");
    }

    #[test]
    fn a_chain_applies_its_first_name_first() {
        let scale = [2.0, 0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 1.0];
        let fixed = BTreeMap::from([("ImageToProbe".to_owned(), scale)]);
        let mut book = PoseBook::new(100.0, &fixed);
        book.read(&message("ProbeToTracker", 0, 10.0));
        let names = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
        let poses = book.at(at_ms(0));
        let tracker_from_image = book.chain(&names(&["ImageToProbe", "ProbeToTracker"]), &poses).unwrap();
        assert_eq!(ultramotion_types::pose::moved(&tracker_from_image, [1.0, 2.0, 3.0]), [12.0, 4.0, 6.0]);
        assert_eq!(book.chain(&names(&["ImageToProbe", "NeedleToTracker"]), &poses), None);
        assert_eq!(book.chain(&[], &poses), Some(IDENTITY));
    }

    /// A unit quaternion, and a place.
    fn pose() -> impl Strategy<Value = Matrix> {
        (prop::array::uniform4(-1.0..1.0f64), prop::array::uniform3(-100.0..100.0f64))
            .prop_filter("a direction", |(q, _)| q.iter().map(|v| v * v).sum::<f64>() > 0.01)
            .prop_map(|(q, shift)| {
                let norm = q.iter().map(|v| v * v).sum::<f64>().sqrt();
                with_rotation(q.map(|v| v / norm), shift)
            })
    }

    fn distance(a: &Matrix, b: &Matrix) -> f64 {
        a.iter().flatten().zip(b.iter().flatten()).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max)
    }

    proptest! {
        #[test]
        fn rotations_survive_as_quaternions(matrix in pose()) {
            let quaternion = rotation_of(&matrix).expect("a rotation");
            let back = with_rotation(quaternion, [matrix[0][3], matrix[1][3], matrix[2][3]]);
            prop_assert!(distance(&matrix, &back) < 1e-9, "{:?} {:?}", matrix, back);
        }

        /// Ends at the ends, rigid on the way, and the same seen from either end.
        #[test]
        fn interpolation_is_rigid_and_symmetric(a in pose(), b in pose(), at in 0.0..1.0f64) {
            let between = |a, b, at| interpolated(a, b, at).expect("rigid poses");
            prop_assert!(distance(&between(&a, &b, 0.0), &a) < 1e-7);
            prop_assert!(distance(&between(&a, &b, 1.0), &b) < 1e-7);
            let middle = between(&a, &b, at);
            prop_assert!(rotation_of(&middle).is_some());
            // Half a turn apart there are two ways round, equally short.
            let half_turn = rotation_of(&a).zip(rotation_of(&b)).is_some_and(|(p, q)| {
                p.iter().zip(q).map(|(x, y)| x * y).sum::<f64>().abs() < 1e-3
            });
            prop_assert!(half_turn || distance(&middle, &between(&b, &a, 1.0 - at)) < 1e-6);
        }

        #[test]
        fn scales_and_mirrors_are_no_rotations(matrix in pose(), scale in 1.1..3.0f64) {
            let scaled: Matrix = std::array::from_fn(|r| std::array::from_fn(|c| {
                if r < 3 && c < 3 { matrix[r][c] * scale } else { matrix[r][c] }
            }));
            prop_assert_eq!(rotation_of(&scaled), None);
            let mirrored = [matrix[0].map(|v| -v), matrix[1], matrix[2], matrix[3]];
            prop_assert_eq!(rotation_of(&mirrored), None);
        }
    }
}
