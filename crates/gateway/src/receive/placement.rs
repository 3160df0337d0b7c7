//! Whether an image lies where its matrix says.
//!
//! PlusServer places an IMAGE named `Image_Reference` by the transforms between the two, such as `ImageToProbe`,
//! `ProbeToTracker` and `ReferenceToTracker`, and goes on sending it when a tool among them is lost. What it knows of
//! their tools stands in the IMAGE's metadata; without it the poses that came say the same a little later.

use std::collections::VecDeque;

use ultramotion_igtlink::DeviceName;
use ultramotion_types::Matrix;

use crate::receive::LiveFrame;
use crate::receive::poses::{ChainGap, MatchedPose, PoseBook, chain_of_device};
use crate::receive::validity::{OK, is_ok};

/// The status of a tool whose poses have ended.
const MISSING: &str = "MISSING";
/// The status of a tool whose pose came as invalid.
const INVALID: &str = "INVALID";

/// Where a frame lies.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Placed {
    /// Poses at its time.
    pub poses: Vec<MatchedPose>,
    /// From the frame that it is placed in to the tracker's; `None` if a transform on the way, or one that places the
    /// image itself, is not there.
    pub tracker_from_image: Option<Matrix>,
    /// [`placement_status`].
    pub status: Option<String>,
}

impl Placed {
    /// Whether a tool that places the image was not seen: it lies somewhere else than its matrix says.
    pub fn is_astray(&self) -> bool {
        self.status.as_deref().is_some_and(|status| !is_ok(status))
    }

    /// Of a frame, as far as the book knows by now; with what is missing on the way to the tracker's frame.
    /// `image_to_tracker` is the configured way; if empty, the device's name says it.
    pub fn of(
        frame: &LiveFrame,
        book: &PoseBook,
        image_to_tracker: &[String],
    ) -> (Self, Result<(), Option<ChainGap>>) {
        let mut poses = book.at(frame.pose_time());
        for pose in &mut poses {
            // What the image says is of its very moment, while the pose may be of another.
            let said = frame.statuses.iter().find(|(name, _)| **name == *pose.name);
            pose.valid &= said.is_none_or(|(_, status)| is_ok(status));
        }
        let status = placement_status(frame.device, &frame.statuses, book, &poses);
        let by_name = || chain_of_device(&frame.device.to_string_lossy()).filter(|_| !frame.is_renamed);
        let names = if image_to_tracker.is_empty() { by_name() } else { Some(image_to_tracker.to_vec()) };
        let chain = names.ok_or(None).and_then(|names| book.chain(&names, &poses).map_err(Some));
        let mut placed = Placed { poses, tracker_from_image: chain.as_ref().ok().copied(), status };
        if placed.is_astray() {
            placed.tracker_from_image = None;
        }
        (placed, chain.map(drop))
    }
}

/// A transform `FromToTo` and the status of its tool.
#[derive(Debug, Clone, Copy)]
struct Edge<'n> {
    from: &'n str,
    to: &'n str,
    status: &'n str,
}

/// A transform's name between two frames, at every `To` that it may be split at.
fn edges<'n>(name: &'n str, status: &'n str) -> impl Iterator<Item = Edge<'n>> {
    let splits =
        name.match_indices("To").map(move |(at, _)| Edge { from: &name[..at], to: &name[at + 2..], status });
    splits.filter(|edge| !edge.from.is_empty() && !edge.to.is_empty())
}

/// The status of the tools that place the images of a device: `OK`, or that of the first that is not. `None` if nothing
/// is known of them, or if none is needed.
///
/// `statuses` are those in the image's metadata, `poses` those of the frame's time.
pub fn placement_status(
    device: DeviceName,
    statuses: &[(String, String)],
    book: &PoseBook,
    poses: &[MatchedPose],
) -> Option<String> {
    let device = device.to_string_lossy();
    // A name that says nothing: PlusServer may have put another one in its place.
    let (from, to) =
        device.split_once('_').unwrap_or(("Image", if device == "Image" { "Image" } else { "" }));
    if [from, "Image", "Probe"].contains(&to) {
        return None;
    }
    let fixed = || book.fixed_names().flat_map(|name| edges(name, OK));
    let came = book.names().flat_map(|name| {
        let pose = poses.iter().find(|pose| pose.name == *name);
        edges(name, pose.map_or(MISSING, |pose| if pose.valid { OK } else { INVALID }))
    });
    let said: Vec<Edge<'_>> = statuses.iter().flat_map(|(name, status)| edges(name, status)).collect();
    let all: Vec<Edge<'_>> = said.iter().copied().chain(came).chain(fixed()).collect();
    let said: Vec<Edge<'_>> = said.into_iter().chain(fixed()).collect();
    // What the image itself says is of its very moment. How it lies on its probe never changes, and is seldom sent.
    let found = [&said, &all].into_iter().find_map(|edges| {
        [from, "Probe"].into_iter().find_map(|from| worst_between(from, to, edges)).map(str::to_owned)
    });
    // Where the way is not known, a lost probe is on it.
    let of_probe = |edge: &&Edge<'_>| edge.from == "Probe" || edge.to == "Probe";
    let lost = || all.iter().filter(of_probe).find(|edge| !is_ok(edge.status));
    found.or_else(|| lost().map(|edge| edge.status.to_owned()))
}

/// The worst status along the shortest way between two frames; `None` if there is no way.
fn worst_between<'n>(from: &'n str, to: &str, edges: &[Edge<'n>]) -> Option<&'n str> {
    let mut reached = vec![(from, OK)];
    let mut next = VecDeque::from([(from, OK)]);
    while let Some((here, so_far)) = next.pop_front() {
        for edge in edges {
            let there = match (edge.from == here, edge.to == here) {
                (true, _) => edge.to,
                (_, true) => edge.from,
                _ => continue,
            };
            if reached.iter().any(|(frame, _)| *frame == there) {
                continue;
            }
            let status = if is_ok(so_far) { edge.status } else { so_far };
            if there == to {
                return Some(status);
            }
            reached.push((there, status));
            next.push_back((there, status));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ultramotion_igtlink::Timestamp;

    use super::*;

    const AT: Timestamp = Timestamp::from_nanos(7, 0);

    fn status(device: &str, said: &[(&str, &str)], came: &[(&str, &str)]) -> Option<String> {
        let said: Vec<(String, String)> = said.iter().map(|(n, s)| (n.to_string(), s.to_string())).collect();
        let mut book = PoseBook::new(100.0, &BTreeMap::new());
        let matrix = [[1.0, 0.0, 0.0, 5.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]];
        for (name, status) in came {
            let at = if *status == "LATE" { Timestamp::from_nanos(1, 0) } else { AT };
            book.enter(name, at, matrix, Some(status));
        }
        let poses = book.at(AT);
        placement_status(DeviceName::truncated(device), &said, &book, &poses)
    }

    #[test]
    fn an_image_is_placed_by_the_tools_on_its_way() {
        let (ok, lost) = (Some("OK".to_owned()), Some("MISSING".to_owned()));
        for (probe, reference, stylus, expected) in
            [("OK", "OK", "MISSING", &ok), ("MISSING", "OK", "OK", &lost), ("OK", "MISSING", "OK", &lost)]
        {
            let tools =
                [("ProbeToTracker", probe), ("ReferenceToTracker", reference), ("StylusToTracker", stylus)];
            assert_eq!(status("Image_Reference", &tools, &[]), *expected, "{tools:?}");
            let by_poses = status("Image_Reference", &[], &tools);
            assert_eq!(
                by_poses.is_some_and(|status| is_ok(&status)),
                *expected == ok,
                "without metadata: {tools:?}"
            );
        }
        let probe = [("ProbeToTracker", "MISSING")];
        assert_eq!(status("Image_Tracker", &probe, &[]), lost);
        assert_eq!(status("Image_Image", &probe, &[]), None);
        assert_eq!(status("Image_Probe", &probe, &[]), None, "where the probe is does not matter");
        assert_eq!(status("Image", &probe, &[]), None);
        assert_eq!(status("Ultrasound", &probe, &[]), lost, "a friendly name hides the frame");
        assert_eq!(status("Image_Patient", &probe, &[]), lost, "the rest of the way is not known");
        assert_eq!(status("Image_Patient", &[("StylusToTracker", "MISSING")], &[]), None);
        assert_eq!(status("Image_Reference", &[], &[]), None, "nothing is known");
    }

    #[test]
    fn what_the_image_says_comes_before_what_came() {
        let came = [("ProbeToReference", "OK")];
        assert_eq!(status("Image_Reference", &[], &came).as_deref(), Some("OK"));
        let said = [("ProbeToTracker", "OUT_OF_VIEW"), ("ReferenceToTracker", "OK")];
        assert_eq!(status("Image_Reference", &said, &came).as_deref(), Some("OUT_OF_VIEW"));
        assert_eq!(status("Image_Tracker", &[], &[("ProbeToTracker", "LATE")]).as_deref(), Some("MISSING"));
    }
}
