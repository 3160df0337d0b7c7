//! Poses by name and time, and the pose that goes with a frame.
//!
//! Trackers and scanners send separately; what belongs together has timestamps that agree. At a frame's time the pose
//! is: the one with exactly that timestamp; else interpolated between the two around it, if both are within the
//! tolerance; else the nearest within the tolerance; else none. Positions are interpolated linearly, rotations by
//! spherical linear interpolation of unit quaternions (Shoemake, SIGGRAPH 1985); a matrix that is more than a rotation
//! and a shift, such as a calibration with a scale, is not interpolated but taken from the nearer neighbour.
//!
//! A frame without a timestamp takes the newest pose that has none either.
//!
//! A pose is valid if nothing says that its tool was lost ([`validity`]), and if it is not the identity in a message that
//! says nothing at all. Names that the sender cut to 20 bytes are completed where a message has the whole name, and else
//! found by their beginning.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use ultramotion_igtlink::{Content, Message, Orientation, QTransform, Timestamp, Transform};
use ultramotion_types::Matrix;
use ultramotion_types::pose::{IDENTITY, product};

use crate::receive::validity::{self, CUT_NAME_BYTES};

/// Poses of a name that are kept: some seconds of a fast tracker.
const KEPT_POSES: usize = 256;
/// Names that are kept. More are somebody's mistake, and must not take memory: the one that was not heard of for longest
/// goes.
const KEPT_NAMES: usize = 64;

/// A pose at a frame's time.
#[derive(Debug, Clone, PartialEq)]
pub struct MatchedPose {
    /// Its whole name as far as it is known, such as `ProbeToTracker`.
    pub name: Arc<str>,
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

/// The last poses of a name.
#[derive(Debug)]
struct Ring {
    name: Arc<str>,
    poses: VecDeque<StampedPose>,
    /// Number of the entry that was the last.
    entry: u64,
    /// The configuration names it: it stays.
    stays: bool,
}

/// The last poses of every name.
#[derive(Debug)]
pub struct PoseBook {
    rings: Vec<Ring>,
    fixed: BTreeMap<String, Matrix>,
    /// Names that stay.
    kept: Vec<String>,
    tolerance_s: f64,
    identity_is_valid: bool,
    entries: u64,
    evicted: u64,
    doubted: Option<Arc<str>>,
}

/// Why a chain of transforms has no product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainGap {
    /// No pose of this name, or several that the name may mean, came yet.
    Unknown(String),
    /// There is none at the frame's time.
    NotNow(String),
    /// Its tool was not seen.
    NotSeen(String),
}

impl fmt::Display for ChainGap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChainGap::Unknown(name) => write!(f, "no transform '{name}' came"),
            ChainGap::NotNow(name) => write!(f, "there is no '{name}' at the frame's time"),
            ChainGap::NotSeen(name) => write!(f, "the tool of '{name}' was not seen"),
        }
    }
}

impl PoseBook {
    /// A book with transforms that never change, by rows.
    pub fn new(tolerance_ms: f64, fixed: &BTreeMap<String, [f64; 16]>) -> Self {
        let rows = |m: &[f64; 16]| [0, 4, 8, 12].map(|row| [m[row], m[row + 1], m[row + 2], m[row + 3]]);
        PoseBook {
            rings: Vec::new(),
            fixed: fixed.iter().map(|(name, matrix)| (name.clone(), rows(matrix))).collect(),
            tolerance_s: tolerance_ms / 1e3,
            kept: Vec::new(),
            identity_is_valid: false,
            entries: 0,
            evicted: 0,
            doubted: None,
        }
    }

    /// The same book, in which the identity is a pose like any other.
    pub fn believing_identity(self, identity_is_valid: bool) -> Self {
        PoseBook { identity_is_valid, ..self }
    }

    /// The same book, from which these names never go, nor what they were cut to.
    pub fn keeping(self, kept: Vec<String>) -> Self {
        PoseBook { kept, ..self }
    }

    /// Enters the poses of a message. False if it has none.
    pub fn read(&mut self, message: &Message<'_>) -> bool {
        let time = message.timestamp;
        let mut one = |matrix| {
            let device = message.device_name.to_string_lossy();
            let name = message.metadata.get("IGTL_DEVICE_NAME").unwrap_or(device);
            self.enter(&name, time, matrix, validity::status_of_pose(&message.metadata).as_deref());
        };
        match &message.content {
            Content::TrackingData(tools) => {
                let poses =
                    tools.iter().map(|tool| (tool.name.to_string_lossy(), from_transform(&tool.pose)));
                self.enter_tools(message, poses);
            }
            Content::QTrackingData(tools) => {
                let poses =
                    tools.iter().map(|tool| (tool.name.to_string_lossy(), from_quaternion(&tool.pose)));
                self.enter_tools(message, poses);
            }
            content => match matrix_of(content) {
                Some(matrix) => one(matrix),
                None => return false,
            },
        }
        true
    }

    fn enter_tools<'t>(
        &mut self,
        message: &Message<'_>,
        tools: impl Iterator<Item = (std::borrow::Cow<'t, str>, Matrix)>,
    ) {
        for (index, (name, matrix)) in tools.enumerate() {
            let (name, status) = validity::tool_of_tdata(&name, index, &message.metadata);
            self.enter(&name, message.timestamp, matrix, status.as_deref());
        }
    }

    /// Enters a pose; `status` is what is said of its tool.
    pub fn enter(&mut self, name: &str, time: Timestamp, matrix: Matrix, status: Option<&str>) {
        let Some(index) = self.ring_of(name) else { return };
        self.entries += 1;
        self.rings[index].entry = self.entries;
        let doubted = status.is_none() && matrix == IDENTITY && !self.identity_is_valid;
        if doubted {
            self.doubted = Some(Arc::clone(&self.rings[index].name));
        }
        let finite = matrix.iter().flatten().all(|v| v.is_finite());
        let valid = finite && !doubted && status.is_none_or(validity::is_ok);
        let ring = &mut self.rings[index].poses;
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

    /// The place for a name's poses, that of another if there are too many; `None` if all of them stay.
    fn ring_of(&mut self, name: &str) -> Option<usize> {
        if let Some(known) = self.rings.iter().position(|ring| *ring.name == *name) {
            return Some(known);
        }
        let stays = self.kept.iter().any(|kept| *kept == *name || was_cut(kept, name) || was_cut(name, kept));
        if self.rings.len() < KEPT_NAMES {
            let poses = VecDeque::with_capacity(KEPT_POSES);
            self.rings.push(Ring { name: name.into(), poses, entry: 0, stays });
            return Some(self.rings.len() - 1);
        }
        self.evicted += 1;
        let oldest = self.rings.iter_mut().enumerate().filter(|(_, ring)| !ring.stays);
        let (index, ring) = oldest.min_by_key(|(_, ring)| ring.entry)?;
        ring.poses.clear();
        (ring.name, ring.stays) = (name.into(), stays);
        Some(index)
    }

    /// Names that went, or were not taken, because there were too many.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// A name whose pose was the identity without a word about its tool, since the last call.
    pub fn take_doubted(&mut self) -> Option<Arc<str>> {
        self.doubted.take()
    }

    /// All names that came.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.rings.iter().map(|ring| &ring.name)
    }

    /// Names of the transforms that never change.
    pub fn fixed_names(&self) -> impl Iterator<Item = &str> {
        self.fixed.keys().map(String::as_str)
    }

    /// The name under which a transform came: the same, or else the only one that is its beginning, or that it is the
    /// beginning of, where the shorter was cut.
    pub fn known_as(&self, name: &str) -> Option<&Arc<str>> {
        if let Some(same) = self.names().find(|known| ***known == *name) {
            return Some(same);
        }
        let mut alike = self.names().filter(|known| was_cut(known, name) || was_cut(name, known));
        alike.next().filter(|_| alike.next().is_none())
    }

    /// Every name's pose at this time, where it has one.
    pub fn at(&self, time: Timestamp) -> Vec<MatchedPose> {
        let pose = |ring: &Ring| {
            let (matrix, valid) = self.in_ring(&ring.poses, time)?;
            Some(MatchedPose { name: Arc::clone(&ring.name), matrix, valid })
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
    /// of those that never change. If one is missing or invalid, the first that is.
    pub fn chain(&self, names: &[String], poses: &[MatchedPose]) -> Result<Matrix, ChainGap> {
        names.iter().try_fold(IDENTITY, |so_far, name| {
            let link = match (self.known_as(name), self.fixed.get(name)) {
                (Some(known), _) => match poses.iter().find(|pose| pose.name == *known) {
                    Some(pose) if pose.valid => &pose.matrix,
                    Some(_) => return Err(ChainGap::NotSeen(name.clone())),
                    None => return Err(ChainGap::NotNow(name.clone())),
                },
                (None, Some(fixed)) => fixed,
                (None, None) => return Err(ChainGap::Unknown(name.clone())),
            };
            Ok(product(link, &so_far))
        })
    }
}

/// The transforms from the frame that a device's images are placed in to the tracker's. PlusServer calls a device
/// after both, `Image_Reference`, and an image in its own frame `Image`; `None` for a name that says nothing.
///
/// ```
/// use ultramotion_gateway::receive::poses::chain_of_device;
///
/// assert_eq!(chain_of_device("Image_Reference").unwrap(), ["ReferenceToTracker"]);
/// assert_eq!(chain_of_device("Image").unwrap(), ["ImageToProbe", "ProbeToTracker"]);
/// assert!(chain_of_device("Image_Tracker").unwrap().is_empty());
/// assert_eq!(chain_of_device("Ultrasound"), None);
/// ```
pub fn chain_of_device(device: &str) -> Option<Vec<String>> {
    let frame = match device.rsplit_once('_') {
        Some((_, frame)) => frame,
        None => Some("Image").filter(|image| device == *image)?,
    };
    Some(match frame {
        "" | "Image" => vec!["ImageToProbe".into(), "ProbeToTracker".into()],
        "Tracker" => Vec::new(),
        frame => vec![format!("{frame}ToTracker")],
    })
}

/// Whether a name may be the beginning of another that a sender had no room for.
fn was_cut(short: &str, long: &str) -> bool {
    short.len() == CUT_NAME_BYTES && long.starts_with(short)
}

fn seconds_between(from: Timestamp, to: Timestamp) -> f64 {
    // In units of 2^-32 s, whose difference a float holds better than it holds seconds since 1970.
    (to.to_bits() as i128 - from.to_bits() as i128) as f64 / (1u64 << 32) as f64
}

/// The pose of a message with a single one.
pub(crate) fn matrix_of(content: &Content<'_>) -> Option<Matrix> {
    match content {
        Content::Transform(pose) => Some(from_transform(pose)),
        Content::QTransform(pose) => Some(from_quaternion(pose)),
        Content::Position(pose) => {
            let quaternion = match pose.orientation {
                Orientation::None => [0.0, 0.0, 0.0, 1.0],
                // The protocol leaves the fourth element out where it follows from the others.
                Orientation::Compressed([x, y, z]) => {
                    [x, y, z, (1.0 - x * x - y * y - z * z).max(0.0).sqrt()]
                }
                Orientation::Quaternion(quaternion) => quaternion,
            };
            Some(from_quaternion(&QTransform { position: pose.position, quaternion }))
        }
        _ => None,
    }
}

/// A pose as TRANSFORM and TDATA have it.
pub(crate) fn narrowed(matrix: &Matrix) -> Transform {
    Transform::from_matrix(matrix.map(|row| row.map(|value| value as f32)))
}

fn from_transform(pose: &Transform) -> Matrix {
    pose.to_matrix().map(|row| row.map(f64::from))
}

pub(crate) fn from_quaternion(pose: &QTransform) -> Matrix {
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
        let mut book = book().believing_identity(true);
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
            assert_eq!(book.chain(&["A".into()], &poses), Err(ChainGap::NotSeen("A".into())));
        }
    }

    #[test]
    fn the_identity_is_no_pose_unless_something_says_so() {
        let identity =
            Message::new("A".parse().unwrap(), Content::Transform(Transform::IDENTITY)).at(at_ms(0));
        let mut said_ok = identity.clone();
        said_ok.metadata.push("TransformStatus", "OK");
        for (message, believing, valid) in
            [(&identity, false, false), (&identity, true, true), (&said_ok, false, true)]
        {
            let mut book = book().believing_identity(believing);
            book.read(message);
            assert_eq!(book.at(at_ms(0))[0].valid, valid);
            assert_eq!(book.take_doubted().is_some(), !valid);
            assert_eq!(book.take_doubted(), None, "told once");
        }
        let tools = vec![TrackedTool::new("A".parse().unwrap(), Transform::IDENTITY)];
        let mut tracking =
            Message::new("TDATA_1Elem".parse().unwrap(), Content::TrackingData(tools)).at(at_ms(0));
        for (status, valid) in [(None, false), (Some("OK"), true), (Some("MISSING"), false)] {
            tracking.metadata = ultramotion_igtlink::Metadata::default();
            status.into_iter().for_each(|status| tracking.metadata.push("AStatus", status));
            let mut book = book();
            book.read(&tracking);
            assert_eq!(book.at(at_ms(0))[0].valid, valid, "{status:?}");
        }
    }

    #[test]
    fn names_that_were_cut_are_found() {
        let whole = "StylusTipToReferenceFrame";
        let cut = &whole[..CUT_NAME_BYTES];
        let chain = |names: &[&str], wanted: &str| {
            let mut book = book();
            names.iter().for_each(|name| book.enter(name, at_ms(0), from_transform(&shift(1.0)), None));
            book.chain(&[wanted.to_owned()], &book.at(at_ms(0))).map(|matrix| matrix[0][3])
        };
        let mut told = message(cut, 0, 7.0);
        told.metadata.push("IGTL_DEVICE_NAME", whole);
        let mut book = book();
        book.read(&told);
        assert_eq!(*book.at(at_ms(0))[0].name, *whole);
        for known in [whole, cut] {
            assert_eq!((chain(&[known], whole), chain(&[known], cut)), (Ok(1.0), Ok(1.0)), "{known}");
        }
        let other = "StylusTipToReferenceMarker";
        assert_eq!(chain(&[whole, other], cut), Err(ChainGap::Unknown(cut.into())), "either may be meant");
        assert_eq!(
            chain(&["StylusTip"], "StylusTipToReference"),
            Err(ChainGap::Unknown("StylusTipToReference".into()))
        );
    }

    #[test]
    fn memory_is_bounded_and_clocks_may_be_set_back() {
        let mut book = book();
        for name in 0..KEPT_NAMES + 5 {
            book.read(&message(&format!("T{name}"), 0, 0.0));
        }
        assert_eq!((book.at(at_ms(0)).len(), book.evicted()), (KEPT_NAMES, 5));
        for ms in 0..1000 {
            book.read(&message("T0", ms, ms as f32));
        }
        let kept = |book: &PoseBook| book.rings.iter().find(|ring| *ring.name == *"T0").unwrap().poses.len();
        assert_eq!(kept(&book), KEPT_POSES);
        book.read(&message("T0", 3, 33.0));
        assert_eq!(kept(&book), 1, "poses of before belong to another clock");
        book.read(&message("T0", 3, 34.0));
        assert_eq!(
            book.chain(&["T0".into()], &book.at(at_ms(3))).map(|matrix| matrix[0][3]),
            Ok(34.0),
            "the last word of a moment counts"
        );
    }

    #[test]
    fn many_names_push_out_what_nobody_sends_and_nothing_that_is_needed() {
        let whole = "StylusTipToReferenceFrame";
        let mut book = book().keeping(vec![whole.into()]);
        book.read(&message(&whole[..CUT_NAME_BYTES], 0, 1.0));
        book.read(&message("Forgotten", 0, 2.0));
        for name in 0..3 * KEPT_NAMES {
            book.read(&message(&format!("T{name}"), 0, 0.0));
            book.read(&message("ProbeToTracker", 0, 3.0));
        }
        let names: Vec<&str> = book.names().map(|name| &**name).collect();
        assert!(names.contains(&&whole[..CUT_NAME_BYTES]) && names.contains(&"ProbeToTracker"), "{names:?}");
        assert!(!names.contains(&"Forgotten") && names.contains(&"T191"), "{names:?}");
        assert_eq!((names.len(), book.evicted()), (KEPT_NAMES, 3 + 2 * KEPT_NAMES as u64));
        assert!(book.chain(&[whole.into()], &book.at(at_ms(0))).is_ok());
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
        let gap = book.chain(&names(&["ImageToProbe", "NeedleToTracker"]), &poses).unwrap_err();
        assert_eq!(gap, ChainGap::Unknown("NeedleToTracker".into()));
        assert_eq!(book.chain(&[], &poses), Ok(IDENTITY));
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
