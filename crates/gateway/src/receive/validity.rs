//! Whether a tool was seen, as far as a message says.
//!
//! PlusServer puts a status beside every transform, but only into header version 2: into the metadata of a TRANSFORM or
//! POSITION (`TransformStatus`), of a TDATA for each tool (`ProbeToTrackerStatus`), and of an IMAGE for each transform of
//! its frame (`ProbeToTrackerTransformStatus`). Anything but `OK` means that the matrix says nothing. Without metadata a tool
//! that was lost comes as the identity.

use std::borrow::Cow;

use ultramotion_igtlink::Metadata;

/// Bytes of a name in a header or of a tool in TDATA; PlusServer cuts longer ones.
pub const CUT_NAME_BYTES: usize = 20;
/// The word for a transform that is there.
pub const OK: &str = "OK";

/// The status in the metadata of a message with one pose; `None` if it says nothing.
///
/// ```
/// use ultramotion_gateway::receive::validity::status_of_pose;
/// use ultramotion_igtlink::Metadata;
///
/// let mut metadata = Metadata::default();
/// assert_eq!(status_of_pose(&metadata), None);
/// metadata.push("TransformStatus", "MISSING");
/// assert_eq!(status_of_pose(&metadata).as_deref(), Some("MISSING"));
/// ```
pub fn status_of_pose<'m>(metadata: &'m Metadata<'_>) -> Option<Cow<'m, str>> {
    let said = ["Status", "TransformStatus"].into_iter().filter_map(|key| metadata.get(key));
    let by_word = said.reduce(|first, second| if is_ok(&first) { second } else { first });
    let by_flag = || {
        let valid = metadata.get("TransformValid")?;
        let valid = valid == "1" || valid.eq_ignore_ascii_case("true");
        Some(Cow::Borrowed(if valid { OK } else { "INVALID" }))
    };
    by_word.or_else(by_flag)
}

/// Whether a status says that the transform is there.
pub fn is_ok(status: &str) -> bool {
    status == OK
}

/// The whole name of a tool of TDATA, and its status if the metadata has one. A name that was cut is completed by the
/// keys that begin with it: by `…Index` where several do. If it stays open which key is meant, each of them counts.
pub fn tool_of_tdata<'m>(
    name: &'m str,
    index: usize,
    metadata: &'m Metadata<'_>,
) -> (Cow<'m, str>, Option<Cow<'m, str>>) {
    let status_of = |name: &str| metadata.get(&format!("{name}Status"));
    if name.len() < CUT_NAME_BYTES {
        return (Cow::Borrowed(name), status_of(name));
    }
    let names = |suffix: &'static str| {
        metadata.iter().filter_map(move |(key, value)| {
            let whole = key.strip_suffix(suffix)?;
            whole.starts_with(name).then(|| (whole.to_owned(), value))
        })
    };
    if let Some((whole, _)) = names("Index").find(|(_, at)| at.parse() == Ok(index)) {
        let status = status_of(&whole);
        return (Cow::Owned(whole), status);
    }
    let mut found = names("Status");
    let Some((whole, status)) = found.next() else { return (Cow::Borrowed(name), None) };
    let mut worst = status;
    let mut others = 0;
    for (_, status) in found {
        others += 1;
        if is_ok(&worst) {
            worst = status;
        }
    }
    let whole = if others == 0 { Cow::Owned(whole) } else { Cow::Borrowed(name) };
    (whole, Some(Cow::Owned(worst.into_owned())))
}

/// The transforms of a frame and their statuses, of an IMAGE's metadata.
pub fn statuses_of_image(metadata: &Metadata<'_>) -> Vec<(String, String)> {
    let status = |(key, value): (Cow<'_, str>, Cow<'_, str>)| {
        let name = key.strip_suffix("TransformStatus")?;
        (!name.is_empty()).then(|| (name.to_owned(), value.into_owned()))
    };
    metadata.iter().filter_map(status).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(entries: &[(&'static str, &'static str)]) -> Metadata<'static> {
        let mut metadata = Metadata::default();
        entries.iter().for_each(|&(key, value)| metadata.push(key, value));
        metadata
    }

    #[test]
    fn a_pose_is_there_if_all_that_is_said_says_so() {
        for (entries, expected) in [
            (&[][..], None),
            (&[("Status", "OK")], Some("OK")),
            (&[("Status", "OK"), ("TransformStatus", "INVALID")], Some("INVALID")),
            (&[("Status", "MISSING"), ("TransformStatus", "OK")], Some("MISSING")),
            (&[("TransformValid", "1")], Some("OK")),
            (&[("TransformValid", "true")], Some("OK")),
            (&[("TransformValid", "0")], Some("INVALID")),
        ] {
            assert_eq!(status_of_pose(&metadata(entries)).as_deref(), expected, "{entries:?}");
        }
    }

    #[test]
    fn cut_names_of_tools_are_completed() {
        let cut = "VeryLongNameOfAProbe";
        assert_eq!(cut.len(), CUT_NAME_BYTES);
        let ask = |entries: &[(&'static str, &'static str)], index| {
            let metadata = metadata(entries);
            let (name, status) = tool_of_tdata(cut, index, &metadata);
            (name.into_owned(), status.map(Cow::into_owned))
        };
        let (a, b) = ("VeryLongNameOfAProbeTipToTracker", "VeryLongNameOfAProbeToTracker");
        let said = |name: &str, status: &str| (name.to_owned(), Some(status.to_owned()));
        assert_eq!(ask(&[], 0), (cut.to_owned(), None));
        let one = [("VeryLongNameOfAProbeToTrackerStatus", "MISSING")];
        assert_eq!(ask(&one, 0), said(b, "MISSING"));
        let two = [
            ("VeryLongNameOfAProbeTipToTrackerStatus", "OK"),
            ("VeryLongNameOfAProbeToTrackerStatus", "MISSING"),
        ];
        assert_eq!(ask(&two, 0), said(cut, "MISSING"), "either may be meant");
        let numbered = [
            two[0],
            two[1],
            ("VeryLongNameOfAProbeTipToTrackerIndex", "1"),
            ("VeryLongNameOfAProbeToTrackerIndex", "0"),
        ];
        assert_eq!(ask(&numbered, 0), said(b, "MISSING"));
        assert_eq!(ask(&numbered, 1), said(a, "OK"));
        let short = metadata(&[("AToBStatus", "OK")]);
        assert_eq!(tool_of_tdata("AToB", 5, &short), ("AToB".into(), Some("OK".into())));
        assert_eq!(tool_of_tdata("AToC", 5, &short), ("AToC".into(), None));
    }
}
