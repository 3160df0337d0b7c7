//! What other programs write is read; what is broken is refused with a sentence.

use std::io::Write;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use ultramotion_types::{Frame, PixelFormat};

use crate::error::MediaError;

fn file_with(folder: &TempDir, name: &str, header: &str, data: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(data);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn frames(path: &Path) -> Result<Vec<Frame>, MediaError> {
    crate::source::frames(Box::new(super::open(path)?)).collect()
}

const GREY: &str = "NRRD0004\n# a comment\ntype: uint8\ndimension: 3\nsizes: 2 3 2\nencoding: raw\n";

#[test]
fn every_encoding_gives_the_same_frames() {
    let folder = TempDir::new().unwrap();
    let values: Vec<u8> = (1..=12).collect();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&values).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::default());
    bzip2.write_all(&values).unwrap();
    let text = values.iter().map(u8::to_string).collect::<Vec<_>>().join(" ");
    for (encoding, data) in [
        ("raw", values.clone()),
        ("gzip", gzip.finish().unwrap()),
        ("bzip2", bzip2.finish().unwrap()),
        ("ascii", text.into_bytes()),
    ] {
        let header = format!("{}\n", GREY.replace("raw", encoding));
        let read = frames(&file_with(&folder, "a.nrrd", &header, &data)).unwrap();
        assert_eq!((read.len(), read[0].width, read[0].height), (2, 2, 3), "{encoding}");
        assert_eq!(read[0].pixels, values[..6], "{encoding}");
        assert_eq!(read[1].pixels, values[6..], "{encoding}");
        assert_eq!(read[1].timestamp_s, 0.04);
        // The same, detached, behind two lines and a few bytes.
        std::fs::write(folder.path().join("pixels"), [&b"one\ntwo\n"[..], &data].concat()).unwrap();
        let skip = if encoding == "raw" { "line skip: 1\nbyte skip: 4\n" } else { "line skip: 2\n" };
        let header = format!("{}data file: pixels\n{skip}", GREY.replace("raw", encoding));
        let read = frames(&file_with(&folder, "a.nhdr", &header, b"")).unwrap();
        assert_eq!(read[1].pixels, values[6..], "{encoding}, detached");
    }
}

#[test]
fn wide_values_have_an_order_and_a_window() {
    let folder = TempDir::new().unwrap();
    let header = "NRRD0001\ntype: unsigned short\ndimension: 2\nsizes: 3 1\nencoding: raw\nendian: big\nmin: 0\nmax: 1000\n\n";
    let read = frames(&file_with(&folder, "a.nrrd", header, &[0, 0, 1, 0xF4, 3, 0xE8])).unwrap();
    assert_eq!(read[0].pixels, [0, 128, 255]);
    let without = header.replace("endian: big\n", "");
    let refused = frames(&file_with(&folder, "a.nrrd", &without, &[0; 6])).unwrap_err().to_string();
    assert!(refused.ends_with("endian is missing, and values have several bytes"), "{refused}");
}

#[test]
fn colours_come_first_with_or_without_a_word() {
    let folder = TempDir::new().unwrap();
    for (kinds, channels) in [
        ("kinds: RGB-color domain domain\n", 3_usize),
        ("kinds: RGBA-color domain domain\n", 4),
        ("kinds: vector domain domain\n", 3),
        ("", 3),
        ("kinds: vector domain domain\n", 2),
    ] {
        let header =
            format!("NRRD0004\ntype: uchar\ndimension: 3\nsizes: {channels} 2 1\nencoding: raw\n{kinds}\n");
        let data: Vec<u8> = (0..2 * channels as u8).collect();
        let read = frames(&file_with(&folder, "a.nrrd", &header, &data)).unwrap();
        let (format, pixels) = match channels {
            2 => (PixelFormat::Grey8, vec![0, 2]),
            3 => (PixelFormat::Rgb8, vec![0, 1, 2, 3, 4, 5]),
            _ => (PixelFormat::Rgb8, vec![0, 1, 2, 4, 5, 6]),
        };
        assert_eq!((read.len(), read[0].pixel_format, &read[0].pixels), (1, format, &pixels), "{kinds}");
    }
}

#[test]
fn sequences_of_3d_slicer_have_times_new_and_old() {
    let folder = TempDir::new().unwrap();
    let common =
        "NRRD0005\ntype: unsigned char\ndimension: 4\nspace: left-posterior-superior\nencoding: raw\n";
    let new = format!(
        "{common}sizes: 3 2 1 2\nspace directions: (0.1,0,0) (0,0.2,0) (0,0,1) none\nkinds: domain domain domain list\n\
         labels: \"\" \"\" \"\" \"time\"\naxis 3 index type:=numeric\naxis 3 index values:=7.5 7.54\n\n"
    );
    let old = format!(
        "{common}sizes: 2 3 2 1\nspace directions: none (0.1,0,0) (0,0.2,0) (0,0,1)\nkinds: list domain domain domain\n\
         axis 0 index type:=numeric\naxis 0 index values:=7.5 7.54\n\n"
    );
    let one_by_one: Vec<u8> = (1..=12).collect();
    let together: Vec<u8> = (1..=6).flat_map(|v| [v, v + 6]).collect();
    for (header, data) in [(new, one_by_one), (old, together)] {
        let read = frames(&file_with(&folder, "a.seq.nrrd", &header, &data)).unwrap();
        assert_eq!(read.iter().map(|frame| frame.timestamp_s).collect::<Vec<_>>(), [7.5, 7.54], "{header}");
        assert_eq!(read[0].pixels, [1, 2, 3, 4, 5, 6]);
        assert_eq!(read[1].pixels, [7, 8, 9, 10, 11, 12]);
        assert_eq!(read[0].spacing_mm, Some([0.1, 0.2]));
    }
}

#[test]
fn frames_in_files_of_their_own() {
    let folder = TempDir::new().unwrap();
    for (name, first) in [("s1.raw", 1_u8), ("s3.raw", 7)] {
        std::fs::write(folder.path().join(name), (first..first + 6).collect::<Vec<_>>()).unwrap();
    }
    for data_file in ["s%d.raw 1 3 2", "LIST\ns1.raw\ns3.raw"] {
        let header = format!("{GREY}data file: {data_file}\n");
        let read = frames(&file_with(&folder, "a.nhdr", &header, b"")).unwrap();
        assert_eq!(read[1].pixels, [7, 8, 9, 10, 11, 12], "{data_file}");
    }
    let missing = format!("{GREY}data file: LIST\ns1.raw\n");
    let refused = frames(&file_with(&folder, "a.nhdr", &missing, b"")).unwrap_err().to_string();
    assert!(refused.contains("names 1 files, and the sizes need 2"), "{refused}");
}

#[test]
fn what_is_broken_is_refused_with_a_sentence() {
    let folder = TempDir::new().unwrap();
    let whole = format!("{GREY}\n");
    for (wrong, said) in [
        (whole.replace("NRRD0004", "NRRD"), "is not what the file begins with"),
        (whole.replace("uint8", "block"), "type block is not a type of numbers"),
        (whole.replace("2 3 2", "2 3"), "is not as many whole numbers"),
        (whole.replace("2 3 2", "2 0 2"), "is not as many whole numbers"),
        (whole.replace("2 3 2", "2 90000 2"), "has frames of 2x90000 pixels"),
        (whole.replace("2 3 2", "2 3 18446744073709551615"), "gives too many frames"),
        (whole.replace("raw", "hex"), "is not raw, gzip, bzip2 or text"),
        (whole.replace("dimension: 3", "dimension: 1"), "is not 2 to 5"),
        (whole.replace("type: uint8\n", ""), "type is missing"),
        (whole.replace("type: uint8", "nonsense"), "is followed by 'nonsense'"),
        (GREY.to_owned(), "the header ends early"),
        (format!("{whole}12345"), "bytes are missing"),
        (whole.replace("raw", "gzip"), "bytes are missing"),
        (format!("{GREY}data file: none.raw\n"), "no such file"),
    ] {
        let refused = frames(&file_with(&folder, "a.nrrd", &wrong, b"")).unwrap_err().to_string();
        assert!(refused.contains(said), "{wrong:?}: {refused}");
    }
    // A claim does not decide over memory.
    let bomb = GREY.replace("2 3 2", "8000 8000 9").replace("raw", "bzip2");
    let refused =
        frames(&file_with(&folder, "a.nrrd", &format!("{bomb}\n"), b"BZh91AY&SY")).unwrap_err().to_string();
    assert!(refused.contains("a.nrrd"), "{refused}");
}
