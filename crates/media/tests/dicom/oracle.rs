//! pydicom as the judge, where Python has it.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use ultramotion_media::source::{DicomFiles, DicomOptions, FrameSource, frames};
use ultramotion_types::Frame;

/// Files that we refuse with a word, and what the word is about.
const REFUSED: &[(&str, &str)] = &[
    ("JPEGLSNearLossless_08.dcm", "JPEG-LS"),
    ("JPEGLSNearLossless_16.dcm", "JPEG-LS"),
    ("JPGExtended.dcm", "a kind of JPEG"),
    ("MR_small_jpeg_ls_lossless.dcm", "JPEG-LS"),
    ("SC_rgb_jls_lossy_line.dcm", "JPEG-LS"),
    ("SC_rgb_jls_lossy_sample.dcm", "JPEG-LS"),
    ("SC_rgb_rle_32bit.dcm", "32 bits"),
    ("SC_rgb_rle_32bit_2frame.dcm", "32 bits"),
    ("liver_1frame.dcm", "1 bits"),
    ("liver_expb_1frame.dcm", "1 bits"),
    ("rtdose.dcm", "32 bits"),
    ("rtdose_1frame.dcm", "32 bits"),
    ("rtdose_expb.dcm", "32 bits"),
    ("rtdose_expb_1frame.dcm", "32 bits"),
    ("rtdose_rle.dcm", "32 bits"),
    ("rtdose_rle_1frame.dcm", "32 bits"),
];

/// Python with pydicom and NumPy; `ULTRAMOTION_PYTHON` names another than `python3`.
fn python() -> Option<PathBuf> {
    let python =
        std::env::var_os("ULTRAMOTION_PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let has_it = Command::new(&python).args(["-I", "-c", "import numpy, pydicom.pixels"]).output();
    if has_it.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    println!("skipped: {} has no pydicom and NumPy", python.display());
    None
}

#[test]
fn frames_are_those_of_pydicom() {
    let Some(python) = python() else { return };
    let folder = TempDir::new().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dicom/pydicom_frames.py");
    let output = Command::new(python).arg("-I").arg(script).arg(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (mut compared, mut wrong) = (0, Vec::new());
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [number, frames, height, width, channels, tolerance, path] = fields[..] else { panic!("{line}") };
        let shape: [usize; 4] = [frames, height, width, channels].map(|n| n.parse().unwrap());
        let expected = std::fs::read(folder.path().join(format!("{number}.raw"))).unwrap();
        let path = Path::new(path);
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let differs = match compare(path, shape, &expected) {
            Ok(counts) => {
                let most = counts.iter().rposition(|&count| count > 0).unwrap();
                println!("{name}: {shape:?}, differs by {most} at most, of {tolerance}");
                let tolerance: usize = tolerance.parse().unwrap();
                // Two decoders may round a colour difference, which counts 1.8 times, and its luminance to different sides.
                let beyond: usize = counts[tolerance + 1..].iter().sum();
                let is_jpeg_colour = tolerance == 2 && channels == "3";
                let few = if is_jpeg_colour && most <= tolerance + 1 { expected.len() / 10_000 } else { 0 };
                beyond > few
            }
            Err(problem) => {
                println!("{name}: {problem}");
                !REFUSED.iter().any(|(file, word)| *file == name && problem.contains(word))
            }
        };
        compared += 1;
        if differs {
            wrong.push(name);
        }
    }
    assert!(compared > 30, "{compared} files");
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Damage to real files, most of them of codings that the tests cannot write: no panic, and one sentence for each frame.
#[test]
fn damage_to_real_files_is_no_panic() {
    let Some(python) = python() else { return };
    let where_from =
        "import pydicom, pathlib; print(pathlib.Path(pydicom.__file__).parent / 'data' / 'test_files')";
    let output = Command::new(python).args(["-I", "-c", where_from]).output().unwrap();
    let folder = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
    let copy = TempDir::new().unwrap();
    let path = copy.path().join("x.dcm");
    let mut seed = 1u64;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    for entry in std::fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_none_or(|ending| ending != "dcm") || file.metadata().unwrap().len() > 200_000 {
            continue;
        }
        let whole = std::fs::read(&file).unwrap();
        for round in 0..24 {
            let mut bytes = whole.clone();
            if round % 3 == 0 {
                bytes.truncate(random(whole.len()));
            } else {
                // Half of it where the pixels begin, which is where decoders learn sizes.
                let start = whole.windows(4).rposition(|bytes| bytes == [0xE0, 0x7F, 0x10, 0]).unwrap_or(0);
                for _ in 0..1 << (2 * (round % 3)) {
                    let near = (start + random(200)).min(whole.len() - 1);
                    let at = if random(2) == 0 { near } else { random(whole.len()) };
                    bytes[at] = random(256) as u8;
                }
            }
            std::fs::write(&path, &bytes).unwrap();
            let Ok(source) = DicomFiles::open(&path, &DicomOptions::default()) else { continue };
            for error in frames(Box::new(source)).take(4).filter_map(Result::err) {
                assert!(!error.to_string().contains('\n'), "{file:?}: {error}");
            }
        }
    }
}

/// How many values of our frames differ from the expected ones by so many grey levels.
fn compare(path: &Path, shape: [usize; 4], expected: &[u8]) -> Result<[usize; 256], String> {
    let mut source = DicomFiles::open(path, &DicomOptions::default()).map_err(|error| error.to_string())?;
    let [count, height, width, channels] = shape;
    let mut frame = Frame::default();
    let mut counts = [0; 256];
    for (index, expected) in expected.chunks_exact(height * width * channels).enumerate() {
        let read = source.read_into(&mut frame).ok_or(format!("{index} frames of {count}"))?;
        read.map_err(|error| error.to_string())?;
        assert_eq!(
            (frame.height, frame.width, frame.pixel_format.channels()),
            (height, width, channels),
            "{path:?}"
        );
        for (ours, theirs) in frame.pixels.iter().zip(expected) {
            counts[usize::from(ours.abs_diff(*theirs))] += 1;
        }
    }
    assert!(source.read_into(&mut frame).is_none());
    Ok(counts)
}
