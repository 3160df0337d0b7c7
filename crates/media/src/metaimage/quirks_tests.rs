//! What other programs take is taken the same way.

use std::path::PathBuf;

use tempfile::TempDir;
use ultramotion_types::{Frame, PixelFormat};

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Files(TempDir::new().unwrap())
    }

    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// The frames of a header with pixels behind it, all of which must be readable.
    fn frames(&self, header: &str, pixels: &[u8]) -> Vec<Frame> {
        let path = self.put("a.mha", [header.as_bytes(), pixels].concat());
        crate::source::frames(Box::new(super::open(&path).unwrap())).map(Result::unwrap).collect()
    }
}

fn pixels(frames: &[Frame]) -> Vec<&[u8]> {
    frames.iter().map(|frame| &frame.pixels[..]).collect()
}

const TWO: &str = "NDims = 3\nDimSize = 2 1 2\nElementType = MET_UCHAR\n";

#[test]
fn a_last_line_without_an_end() {
    let files = Files::new();
    files.put("x.raw", [1, 2, 3, 4]);
    let frames = files.frames(&format!("{TWO}ElementDataFile = x.raw"), &[]);
    assert_eq!(pixels(&frames), [[1, 2], [3, 4]]);
}

#[test]
fn a_file_a_slice() {
    let files = Files::new();
    for (name, bytes) in [("s0.raw", [1, 2]), ("s1.raw", [3, 4]), ("s002.raw", [5, 6]), ("s004.raw", [7, 8])]
    {
        files.put(name, bytes);
    }
    for (line, expected) in [
        ("LIST\ns1.raw\ns0.raw\n", [[3, 4], [1, 2]]),
        ("LIST 2D\ns0.raw\ns1.raw\n", [[1, 2], [3, 4]]),
        ("s%d.raw 0 1 1\n", [[1, 2], [3, 4]]),
        ("s%03d.raw 2 4 2\n", [[5, 6], [7, 8]]),
    ] {
        let frames = files.frames(&format!("{TWO}ElementDataFile = {line}"), &[]);
        assert_eq!(pixels(&frames), expected, "{line}");
    }
    // Two slices a file, of three dimensions each.
    files.put("v0.raw", [1, 2, 3, 4]);
    files.put("v1.raw", [5, 6, 7, 8]);
    let volumes = "NDims = 4\nDimSize = 2 1 2 2\nElementType = MET_UCHAR\nElementDataFile = v%d.raw 0 1 1\n";
    assert_eq!(pixels(&files.frames(volumes, &[])), [[1, 2], [3, 4], [5, 6], [7, 8]]);
    // A slice that is missing takes none of the others along.
    std::fs::remove_file(files.0.path().join("s0.raw")).unwrap();
    files.put("s0.raw", [9]);
    let path = files
        .put("b.mhd", format!("{TWO}ElementDataFile = LIST\ns1.raw\ns0.raw\n").replace("2 1 2", "2 1 2"));
    let read: Vec<_> = crate::source::frames(Box::new(super::open(&path).unwrap())).collect();
    assert!(read[0].is_ok() && read[1].is_err(), "{read:?}");
    let path = files.put(
        "c.mhd",
        "NDims = 3\nDimSize = 2 1 3\nElementType = MET_UCHAR\nElementDataFile = LIST\ns1.raw\ns0.raw\ns002.raw\n",
    );
    let read: Vec<_> = crate::source::frames(Box::new(super::open(&path).unwrap())).collect();
    assert!(read[0].is_ok() && read[1].is_err() && read[2].is_ok(), "{read:?}");
}

#[test]
fn two_and_four_channels_lose_their_transparency() {
    let files = Files::new();
    let header = |channels: u8| {
        format!(
            "NDims = 2\nDimSize = 2 1\nElementNumberOfChannels = {channels}\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
        )
    };
    let four = files.frames(&header(4), &[1, 2, 3, 255, 4, 5, 6, 255]);
    assert_eq!((four[0].pixel_format, &four[0].pixels[..]), (PixelFormat::Rgb8, &[1, 2, 3, 4, 5, 6][..]));
    let two = files.frames(&header(2), &[7, 255, 8, 255]);
    assert_eq!((two[0].pixel_format, &two[0].pixels[..]), (PixelFormat::Grey8, &[7, 8][..]));
}

#[test]
fn numbers_as_text() {
    let files = Files::new();
    let header = format!("BinaryData = False\nElementByteOrderMSB = True\n{TWO}ElementDataFile = LOCAL\n");
    assert_eq!(pixels(&files.frames(&header, b"1 2\n300\t-4 ")), [[1, 2], [255, 0]]);
    let wide = header.replace("MET_UCHAR", "MET_SHORT");
    assert_eq!(pixels(&files.frames(&wide, b"-100 100 0 100")), [[0, 255], [128, 255]]);
    let path = files.put("b.mha", format!("{header}1 2 three 4"));
    let read: Vec<_> = crate::source::frames(Box::new(super::open(&path).unwrap())).collect();
    let problem = read[1].as_ref().unwrap_err().to_string();
    assert!(read[0].is_ok() && problem.ends_with("frame 1: 'three' is not a number"), "{problem}");
}

#[test]
fn a_path_from_windows() {
    let files = Files::new();
    std::fs::create_dir(files.0.path().join("data")).unwrap();
    files.put("data/x.raw", [1, 2, 3, 4]);
    let frames = files.frames(&format!("{TWO}ElementDataFile = data\\x.raw\n"), &[]);
    assert_eq!(pixels(&frames), [[1, 2], [3, 4]]);
}

#[test]
fn a_header_as_itk_reads_it() {
    let files = Files::new();
    let header = "# written by hand\nObjectType : Image\nNDims = 3\njust words\nDimSize = 2.0 1.0 2\n\n\
        ElementType = MET_UCHAR\nElementSpacing = -0.2 0.1 1\nSeq_Frame0001_ElementSpacing = 0.4 0.3 1\nElementDataFile = LOCAL\n";
    let frames = files.frames(header, &[1, 2, 3, 4]);
    assert_eq!(pixels(&frames), [[1, 2], [3, 4]]);
    assert_eq!([frames[0].spacing_mm, frames[1].spacing_mm], [Some([0.2, 0.1]), Some([0.4, 0.3])]);
}

#[test]
fn a_frame_without_a_time_among_others_that_have_one() {
    let files = Files::new();
    let header = "NDims = 3\nDimSize = 1 1 4\nElementType = MET_UCHAR\nSeq_Frame0000_Timestamp = 100\n\
        Seq_Frame0002_Timestamp = nan\nSeq_Frame0003_Timestamp = 101.5\nElementDataFile = LOCAL\n";
    let times: Vec<f64> = files.frames(header, &[1, 2, 3, 4]).iter().map(|frame| frame.timestamp_s).collect();
    assert_eq!(times, [100.0, 100.5, 101.0, 101.5]);
}

#[test]
fn the_same_scene_in_each_orientation() {
    let files = Files::new();
    for (code, size, stored) in [
        ("MFA", "3 2", [1, 2, 3, 4, 5, 6]),
        ("UF", "3 2", [3, 2, 1, 6, 5, 4]),
        ("MN", "3 2", [4, 5, 6, 1, 2, 3]),
        ("UND", "3 2", [6, 5, 4, 3, 2, 1]),
        ("FM", "2 3", [1, 4, 2, 5, 3, 6]),
    ] {
        let header = format!(
            "NDims = 2\nDimSize = {size}\nElementType = MET_UCHAR\nUltrasoundImageOrientation = {code}\n\
             UltrasoundImageType = BRIGHTNESS\nElementSpacing = {}\nElementDataFile = LOCAL\n",
            if size == "3 2" { "0.2 0.1" } else { "0.1 0.2" }
        );
        let frame = files.frames(&header, &stored).remove(0);
        assert_eq!((frame.width, frame.height, &frame.pixels[..]), (3, 2, &[1, 2, 3, 4, 5, 6][..]), "{code}");
        assert_eq!(
            (frame.spacing_mm, frame.orientation.as_deref()),
            (Some([0.2, 0.1]), Some("MF")),
            "{code}"
        );
    }
}
