//! What ffmpeg's filter `showinfo` says of a frame.

use ultramotion_types::MAX_SIDE_PX;

/// A frame that follows in the pipe.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Announced {
    /// Counts from 0.
    pub(super) number: u64,
    pub(super) time_s: f64,
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) channels: usize,
}

/// Of a line of the log; `None` if it is about something else, or about a frame of a size that is not taken.
pub(super) fn parse(line: &str) -> Option<Announced> {
    let (_, text) = line.split_once("showinfo")?;
    let field = |name: &str| {
        // A name follows a space, so that `n:` is not the end of another.
        let (_, rest) = text.split_once(&format!(" {name}:"))?;
        rest.split_whitespace().next()
    };
    let number = field("n")?.parse().ok()?;
    let (width, height) = field("s")?.split_once('x')?;
    let side = |text: &str| text.parse::<usize>().ok().filter(|side| (1..=MAX_SIDE_PX).contains(side));
    let channels = match field("fmt")? {
        "gray" => 1,
        "rgb24" => 3,
        _ => return None,
    };
    // A frame may be without a time; it then follows its predecessor.
    let time_s = field("pts_time").and_then(|text| text.parse().ok()).unwrap_or(f64::NAN);
    Some(Announced { number, time_s, width: side(width)?, height: side(height)?, channels })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_announces_a_frame() {
        let line = "[Parsed_showinfo_1 @ 0x55d] n:   3 pts:   1536 pts_time:0.12    duration:    512 duration_time:0.04 \
                    fmt:rgb24 cl:left sar:1/1 s:64x48 i:P iskey:0 type:P checksum:54D2";
        let announced = Announced { number: 3, time_s: 0.12, width: 64, height: 48, channels: 3 };
        assert_eq!(parse(line), Some(announced));
        let grey = line.replace("rgb24", "gray").replace("pts_time:0.12", "pts_time:NOPTS");
        let grey = parse(&grey).unwrap();
        assert!(grey.channels == 1 && grey.time_s.is_nan());
        for other in ["[Parsed_showinfo_1 @ 0x55d] config in time_base: 1/12800", "frame= 3", ""] {
            assert_eq!(parse(other), None);
        }
        assert_eq!(parse(&line.replace("64x48", "64000x48")), None);
    }
}
