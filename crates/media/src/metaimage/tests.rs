//! What is written is read again; what is broken is refused with a sentence.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tempfile::TempDir;

use super::{ElementType, Layout, SequenceWriter};
use crate::error::MediaError;
use crate::source::FrameSource;
use ultramotion_types::{Frame, ImageStatus, NamedTransform, PixelFormat};

fn read_all(path: &Path) -> Result<Vec<Result<Frame, MediaError>>, MediaError> {
    Ok(crate::source::frames(Box::new(super::open(path)?)).collect())
}

fn file_with(folder: &TempDir, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// One value of a type, in its byte order.
fn encode(value: f64, element: ElementType, big_endian: bool) -> Vec<u8> {
    let mut bytes = match element {
        ElementType::U8 => (value as u8).to_le_bytes().to_vec(),
        ElementType::I8 => (value as i8).to_le_bytes().to_vec(),
        ElementType::U16 => (value as u16).to_le_bytes().to_vec(),
        ElementType::I16 => (value as i16).to_le_bytes().to_vec(),
        ElementType::U32 => (value as u32).to_le_bytes().to_vec(),
        ElementType::I32 => (value as i32).to_le_bytes().to_vec(),
        ElementType::U64 => (value as u64).to_le_bytes().to_vec(),
        ElementType::I64 => (value as i64).to_le_bytes().to_vec(),
        ElementType::F32 => (value as f32).to_le_bytes().to_vec(),
        ElementType::F64 => value.to_le_bytes().to_vec(),
    };
    if big_endian {
        bytes.reverse();
    }
    bytes
}

#[test]
fn every_type_order_and_compression_comes_back() {
    let folder = TempDir::new().unwrap();
    for element in ElementType::ALL {
        for (big_endian, compressed, channels, ending) in [
            (false, false, 1, "mha"),
            (true, false, 3, "mha"),
            (false, true, 3, "mhd"),
            (true, true, 1, "mha"),
            (true, false, 1, "mhd"),
        ] {
            let layout = Layout { channels, element, big_endian, compressed, ..Layout::grey8(5, 4) };
            let path = folder.path().join(format!("file.{ending}"));
            let mut writer = SequenceWriter::create(&path, layout).unwrap();
            let signed = matches!(
                element,
                ElementType::I8
                    | ElementType::I16
                    | ElementType::I32
                    | ElementType::I64
                    | ElementType::F32
                    | ElementType::F64
            );
            let low = if signed { -100.0 } else { 0.0 };
            let count = 5 * 4 * channels;
            // The first frame spans low to low + 200; the second goes beyond and must be clamped by the same window.
            for (step, first) in [(200.0 / (count - 1) as f64, low), (0.0, 120.0)] {
                let values: Vec<u8> = (0..count)
                    .flat_map(|i| encode((first + step * i as f64).round(), element, big_endian))
                    .collect();
                writer.write_raw(&values, step, &[]).unwrap();
            }
            writer.finish().unwrap();
            let what =
                format!("{element:?} big {big_endian} compressed {compressed} channels {channels} {ending}");
            let frames: Vec<Frame> =
                read_all(&path).unwrap().into_iter().map(|frame| frame.expect(&what)).collect();
            assert_eq!(frames.len(), 2, "{what}");
            assert_eq!((frames[0].width, frames[0].height), (5, 4));
            assert_eq!(frames[0].pixel_format.channels(), channels);
            for (i, &pixel) in frames[0].pixels.iter().enumerate() {
                let value = (low + 200.0 / (count - 1) as f64 * i as f64).round();
                let expected =
                    if element == ElementType::U8 { value } else { (255.0 * (value - low) / 200.0).round() };
                assert!(
                    (f64::from(pixel) - expected).abs() <= 1.0,
                    "{what}: pixel {i} is {pixel}, not {expected}"
                );
            }
            let second = if element == ElementType::U8 {
                120
            } else if signed {
                255
            } else {
                153
            };
            assert_eq!(frames[1].pixels, vec![second; count], "{what}");
        }
    }
}

#[test]
fn the_window_comes_from_the_header_when_it_says_so() {
    let folder = TempDir::new().unwrap();
    let mut bytes = b"NDims = 2\nDimSize = 3 1\nElementType = MET_USHORT\nElementMin = 0\nElementMax = 4095\nElementDataFile = LOCAL\n".to_vec();
    bytes.extend([0u16, 2048, 60000].iter().flat_map(|value| value.to_le_bytes()));
    let frames = read_all(&file_with(&folder, "a.mha", &bytes)).unwrap();
    assert_eq!(frames[0].as_ref().unwrap().pixels, [0, 128, 255]);
}

#[test]
fn special_numbers_become_black_or_white() {
    let folder = TempDir::new().unwrap();
    let mut bytes = b"NDims = 2\nDimSize = 3 2\nElementType = MET_DOUBLE\nElementDataFile = LOCAL\n".to_vec();
    let values = [f64::NAN, f64::NEG_INFINITY, f64::INFINITY, f64::MIN, 0.0, f64::MAX];
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    let frames = read_all(&file_with(&folder, "a.mha", &bytes)).unwrap();
    assert_eq!(frames[0].as_ref().unwrap().pixels, [0, 0, 255, 0, 128, 255]);
}

#[test]
fn what_plus_writes_is_kept_and_invalid_frames_are_skipped() {
    let folder = TempDir::new().unwrap();
    let text = "ObjectType = Image\nNDims = 3\nDimSize = 2 1 4           \nElementType = MET_UCHAR\n\
        ElementSpacing = 0.2 0.1 1\nUltrasoundImageOrientation = MFA\n\
        Seq_Frame0000_ProbeToTrackerTransform = 1 0 0 5 0 1 0 6 0 0 1 7 0 0 0 1\n\
        Seq_Frame0000_ProbeToTrackerTransformStatus = OK\n\
        Seq_Frame0000_StylusToTrackerTransformStatus = INVALID\n\
        Seq_Frame0000_StylusToTrackerTransform = 1 0 0 0 0 1 0 0 0 0 1 0 0 0 0 1\n\
        Seq_Frame0000_Timestamp = 232.5\nSeq_Frame0000_ImageStatus = OK\n\
        Seq_Frame0001_Timestamp = 233.5\nSeq_Frame0001_ImageStatus = INVALID\n\
        Seq_Frame0002_Timestamp = soon\n\
        Seq_Frame0003_BrokenTransform = 1 2 3\nSeq_Frame0003_Custom = 12\n\
        ElementDataFile = LOCAL\n";
    let path = file_with(&folder, "a.igs.mha", [text.as_bytes(), &[1, 2, 3, 4, 5, 6, 7, 8]].concat());
    let frames = read_all(&path).unwrap();
    assert_eq!(frames.len(), 4);
    let first = frames[0].as_ref().unwrap();
    assert_eq!((first.timestamp_s, first.image_status, first.frame_id), (232.5, ImageStatus::Ok, 0));
    assert_eq!(first.spacing_mm, Some([0.2, 0.1]));
    assert_eq!(first.orientation.as_deref(), Some("MF"));
    let names: Vec<_> = first.transforms.iter().map(|t| (t.name.as_str(), t.valid, t.matrix[1][3])).collect();
    assert_eq!(names, [("ProbeToTracker", true, 6.0), ("StylusToTracker", false, 0.0)]);
    let shown = |index: usize| {
        frames[index].as_ref().unwrap_err().to_string().replace(&*folder.path().to_string_lossy(), "")
    };
    assert_eq!(shown(1), "/a.igs.mha, frame 1: the recording marks this image as INVALID");
    let third = frames[2].as_ref().unwrap();
    assert_eq!((third.pixels.as_slice(), third.timestamp_s), ([5, 6].as_slice(), 233.5 + 1.0 / 25.0));
    let last = frames[3].as_ref().unwrap();
    assert_eq!((last.pixels.as_slice(), last.timestamp_s), ([7, 8].as_slice(), 233.5 + 2.0 / 25.0));
    assert_eq!(last.image_status, ImageStatus::Unknown);
    assert!(!last.transforms[0].valid);
}

#[test]
fn volumes_in_time_are_slices_that_share_their_fields() {
    let folder = TempDir::new().unwrap();
    let text = "NDims = 4\nDimSize = 1 1 2 2\nElementType = MET_UCHAR\nSeq_Frame0000_Timestamp = 5\n\
        Seq_Frame0001_Timestamp = 6\nElementDataFile = LOCAL\n";
    let path = file_with(&folder, "a.mha", [text.as_bytes(), &[1, 2, 3, 4]].concat());
    let frames: Vec<_> = read_all(&path).unwrap().into_iter().map(Result::unwrap).collect();
    assert_eq!(frames.iter().map(|f| f.timestamp_s).collect::<Vec<_>>(), [5.0, 5.0, 6.0, 6.0]);
}

/// Looking through all of them for each would take minutes.
#[test]
fn a_hundred_thousand_transforms_of_a_frame_are_read() {
    const COUNT: usize = 100_000;
    let mut header = "ObjectType = Image\nNDims = 2\nDimSize = 2 1\nElementType = MET_UCHAR\n".to_owned();
    for pass in ["Transform = 1 0 0 3 0 1 0 0 0 0 1 0 0 0 0 1", "TransformStatus = INVALID"] {
        (0..COUNT).for_each(|i| header += &format!("Seq_Frame0000_Tool{i}{pass}\n"));
    }
    let folder = TempDir::new().unwrap();
    let path = file_with(&folder, "many.mha", header + "ElementDataFile = LOCAL\nab");
    let frame = read_all(&path).unwrap().remove(0).unwrap();
    assert_eq!(frame.transforms.len(), COUNT);
    for (i, transform) in frame.transforms.iter().enumerate() {
        assert_eq!((transform.name.as_str(), transform.valid), (format!("Tool{i}").as_str(), false));
        assert_eq!(transform.matrix[0][3], 3.0);
    }
}

/// Deflate makes a thousand bytes of one: half a gigabyte of these.
#[test]
fn a_small_file_does_not_unpack_to_any_size() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str, bytes: usize| {
        let header = "NDims = 2\nDimSize = 8192 8192\nElementType = MET_DOUBLE\nCompressedData = True\n";
        let header = format!("{header}ElementDataFile = LOCAL\n").into_bytes();
        file_with(&folder, name, [header, vec![0; bytes]].concat())
    };
    let error = super::open(&file("bomb.mha", 600_000)).unwrap_err().to_string();
    assert!(error.contains("more than a file of its size may unpack to"), "{error}");
    super::open(&file("large.mha", 20 << 20)).unwrap();
}

#[test]
fn a_name_in_latin_1_does_not_matter() {
    let folder = TempDir::new().unwrap();
    let head = b"Operator = Ren\xE9\r\nNDims = 2\r\nDimSize = 2 1\r\nElementType = MET_UCHAR\r\nElementDataFile = LOCAL\r\n";
    let path = file_with(&folder, "a.mha", [head.as_slice(), &[5, 6]].concat());
    assert_eq!(read_all(&path).unwrap()[0].as_ref().unwrap().pixels, [5, 6]);
}

#[test]
fn gzip_and_skipped_bytes_are_understood() {
    let folder = TempDir::new().unwrap();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, &[9, 8, 7, 6]).unwrap();
    file_with(&folder, "a.zraw", encoder.finish().unwrap());
    let head = "NDims = 3\nDimSize = 2 1 2\nElementType = MET_UCHAR\n";
    let zipped =
        file_with(&folder, "a.mhd", format!("{head}CompressedData = True\nElementDataFile = a.zraw\n"));
    let pixels =
        |path: &Path| read_all(path).unwrap().into_iter().flat_map(|f| f.unwrap().pixels).collect::<Vec<_>>();
    assert_eq!(pixels(&zipped), [9, 8, 7, 6]);
    file_with(&folder, "b.raw", [0, 0, 0, 1, 2, 3, 4]);
    let skip = file_with(&folder, "b.mhd", format!("{head}HeaderSize = 3\nElementDataFile = b.raw\n"));
    assert_eq!(pixels(&skip), [1, 2, 3, 4]);
    let from_end = file_with(&folder, "c.mhd", format!("{head}HeaderSize = -1\nElementDataFile = b.raw\n"));
    assert_eq!(pixels(&from_end), [1, 2, 3, 4]);
}

#[test]
fn wrong_headers_are_refused_in_one_sentence() {
    let folder = TempDir::new().unwrap();
    let good =
        "ObjectType = Image\nNDims = 3\nDimSize = 4 3 2\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n";
    let refusal = |text: String| {
        let path = file_with(&folder, "a.mha", [text.as_bytes(), &[0; 24]].concat());
        let problem = read_all(&path).map(|frames| frames.len()).unwrap_err().to_string();
        problem.replace(&*folder.path().to_string_lossy(), "")
    };
    assert_eq!(
        read_all(&file_with(&folder, "a.mha", [good.as_bytes(), &[0; 24]].concat())).unwrap().len(),
        2
    );
    let cases = [
        (
            "DimSize = 4 3 2",
            "DimSize = 0 3 2",
            "/a.mha has frames of 0x3 pixels: sides from 1 to 8192 can be read",
        ),
        (
            "DimSize = 4 3 2",
            "DimSize = 4 9000 2",
            "/a.mha has frames of 4x9000 pixels: sides from 1 to 8192 can be read",
        ),
        (
            "DimSize = 4 3 2",
            "DimSize = 4 3 0",
            "/a.mha: DimSize = 4 3 0 gives no frames or too many: correct the header",
        ),
        (
            "DimSize = 4 3 2",
            "DimSize = 4 3",
            "/a.mha: DimSize = 4 3 does not have the 3 numbers that NDims announces: correct the header",
        ),
        (
            "DimSize = 4 3 2",
            "DimSize = 4 x 2",
            "/a.mha: DimSize = 4 x 2 is not a list of whole numbers: correct the header",
        ),
        ("DimSize = 4 3 2\n", "", "/a.mha: DimSize is missing: the file is not a MetaImage or is damaged"),
        (
            "NDims = 3",
            "NDims = 7",
            "/a.mha: NDims = 7 is not 2, 3 or 4: only images and sequences can be read",
        ),
        (
            "MET_UCHAR",
            "MET_STRING",
            "/a.mha: ElementType = MET_STRING is not a numeric type such as MET_UCHAR",
        ),
        (
            "ObjectType = Image",
            "ObjectType = Mesh",
            "/a.mha: ObjectType = Mesh is not Image: only images can be read",
        ),
        (
            "NDims",
            "BinaryData = False\nCompressedData = True\nNDims",
            "/a.mha: CompressedData = True goes with binary data, and BinaryData is False: correct the header",
        ),
        (
            "NDims",
            "UltrasoundImageType = RF_REAL\nNDims",
            "/a.mha: UltrasoundImageType = RF_REAL is not a picture yet: reconstruct a B-mode image of it first",
        ),
        (
            "NDims",
            "CompressedData = maybe\nNDims",
            "/a.mha: CompressedData = maybe is not True or False: correct the header",
        ),
        (
            "NDims",
            "ElementNumberOfChannels = 5\nNDims",
            "/a.mha: ElementNumberOfChannels = 5 is not 1 to 4: only grey and red-green-blue pixels can be read, with or without transparency",
        ),
        (
            "LOCAL",
            "LIST",
            "/a.mha: ElementDataFile = LIST names 1 files, and DimSize needs 2: correct the header",
        ),
        ("LOCAL", "missing.raw", "cannot open /missing.raw: there is no such file or folder"),
        ("LOCAL", ".", "cannot open /.: it is not a file"),
        (
            "NDims",
            "Seq_Frame00x0_Timestamp = 1\nNDims",
            "/a.mha: Seq_Frame00x0_Timestamp has no frame number: correct the header",
        ),
        (
            "ObjectType = Image",
            "what is \u{1} this",
            "/a.mha: ElementDataFile is missing before a line that is not 'Key = Value': the file is not a MetaImage or is damaged",
        ),
        (
            "DimSize = 4 3 2",
            "DimSize = 8192 8192 2",
            "/a.mha ends at frame 0 of 2: 67108840 bytes are missing, record or copy the file again",
        ),
        (
            "DimSize = 4 3 2",
            "CompressedData = True\nDimSize = 8192 8192 4000000",
            "/a.mha ends at frame 0 of 4000000: 65004 bytes are missing, record or copy the file again",
        ),
    ];
    for (from, to, expected) in cases {
        assert!(good.contains(from));
        assert_eq!(refusal(good.replacen(from, to, 1)), expected);
    }
    assert_eq!(
        read_all(&file_with(&folder, "e.mha", ""))
            .unwrap_err()
            .to_string()
            .replace(&*folder.path().to_string_lossy(), ""),
        "/e.mha: ElementDataFile is missing: the file is not a MetaImage"
    );
}

/// A sequence of three frames, as bytes.
fn sequence(folder: &TempDir, compressed: bool) -> (Vec<u8>, Vec<Frame>) {
    let path = folder.path().join("whole.mha");
    let mut writer = SequenceWriter::create(&path, Layout { compressed, ..Layout::grey8(6, 5) }).unwrap();
    let frames: Vec<Frame> = (0..3u8)
        .map(|index| Frame {
            timestamp_s: f64::from(index),
            ..Frame::grey8(6, 5, (0..30u8).map(|i| i.wrapping_mul(37 + index)).collect())
        })
        .collect();
    frames.iter().for_each(|frame| writer.write(frame).unwrap());
    writer.finish().unwrap();
    (std::fs::read(&path).unwrap(), frames)
}

#[test]
fn a_file_cut_anywhere_gives_its_whole_frames_and_one_sentence() {
    let folder = TempDir::new().unwrap();
    for compressed in [false, true] {
        let (bytes, frames) = sequence(&folder, compressed);
        for length in 0..bytes.len() {
            let path = file_with(&folder, "cut.mha", &bytes[..length]);
            let Ok(read) = read_all(&path) else { continue };
            let (good, bad): (Vec<_>, Vec<_>) = read.into_iter().partition(Result::is_ok);
            for (frame, whole) in good.iter().flatten().zip(&frames) {
                assert_eq!(frame.pixels, whole.pixels, "cut at {length}");
            }
            assert_eq!(bad.len(), 1, "cut at {length}: the loss must be said once");
            if !compressed {
                let data_bytes = 90 - (bytes.len() - length);
                assert_eq!(good.len(), data_bytes / 30);
                assert!(matches!(bad[0], Err(MediaError::Truncated { .. })));
            }
        }
    }
}

#[test]
fn pixels_beyond_the_announced_frames_are_mentioned() {
    let folder = TempDir::new().unwrap();
    let (bytes, _) = sequence(&folder, true);
    let text = String::from_utf8_lossy(&bytes);
    let at = text.find("DimSize = 6 5 3").unwrap() + "DimSize = 6 5 ".len();
    let mut fewer = bytes.clone();
    fewer[at] = b'2';
    let read = read_all(&file_with(&folder, "a.mha", fewer)).unwrap();
    assert_eq!(read.len(), 3);
    assert!(
        read[2].as_ref().unwrap_err().to_string().ends_with("more pixels follow than the header announces")
    );
}

#[test]
fn a_source_can_start_again() {
    let folder = TempDir::new().unwrap();
    for compressed in [false, true] {
        let (bytes, frames) = sequence(&folder, compressed);
        let mut source = super::open(&file_with(&folder, "a.mha", bytes)).unwrap();
        let mut frame = Frame::default();
        source.read_into(&mut frame).unwrap().unwrap();
        source.read_into(&mut frame).unwrap().unwrap();
        source.rewind().unwrap();
        for whole in &frames {
            source.read_into(&mut frame).unwrap().unwrap();
            assert_eq!(frame.pixels, whole.pixels);
        }
        assert!(source.read_into(&mut frame).is_none());
        assert!(source.read_into(&mut frame).is_none());
    }
}

#[test]
fn a_writer_refuses_what_does_not_fit() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.mha");
    assert!(SequenceWriter::create(&folder.path().join("a.mp4"), Layout::grey8(2, 2)).is_err());
    assert!(SequenceWriter::create(&path, Layout::grey8(0, 2)).is_err());
    let mut writer = SequenceWriter::create(&path, Layout::grey8(2, 2)).unwrap();
    let problem = writer.write(&Frame::rgb8(2, 2, vec![0; 12])).unwrap_err().to_string();
    assert!(problem.ends_with("it is 2x2 Rgb8, the file holds 2x2 Grey8 of type MET_UCHAR"), "{problem}");
    let transform = NamedTransform { name: "A = B\n".to_owned(), matrix: [[0.0; 4]; 4], valid: true };
    assert!(writer.write_raw(&[0; 4], 0.0, &[transform]).is_err());
    assert!(writer.finish().unwrap_err().to_string().ends_with("the sequence has no frames"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);

    let mut dropped = SequenceWriter::create(&path, Layout::grey8(2, 2)).unwrap();
    dropped.write(&Frame::grey8(2, 2, vec![1, 2, 3, 4])).unwrap();
    drop(dropped);
    assert_eq!(read_all(&path).unwrap().len(), 1);
}

fn any_frame(width: usize, height: usize, colour: bool) -> impl Strategy<Value = Frame> {
    let channels = if colour { 3 } else { 1 };
    let transform = ("[A-Z][a-z]{0,6}To[A-Z][a-z]{0,6}", prop::array::uniform16(-1e3..1e3f64), any::<bool>());
    (
        prop::collection::vec(any::<u8>(), width * height * channels),
        -1e6..1e6f64,
        prop::collection::btree_map(transform.0, (transform.1, transform.2), 0..3),
    )
        .prop_map(move |(pixels, timestamp_s, transforms)| Frame {
            width,
            height,
            pixel_format: if colour { PixelFormat::Rgb8 } else { PixelFormat::Grey8 },
            pixels,
            timestamp_s,
            transforms: transforms
                .into_iter()
                .map(|(name, (numbers, valid))| {
                    let matrix = std::array::from_fn(|i| std::array::from_fn(|j| numbers[4 * i + j]));
                    NamedTransform { name, matrix, valid }
                })
                .collect(),
            image_status: ImageStatus::Ok,
            spacing_mm: Some([0.125, 0.25]),
            orientation: Some("MF".to_owned()),
            ..Frame::default()
        })
}

fn any_sequence() -> impl Strategy<Value = Vec<Frame>> {
    (1usize..9, 1usize..9, any::<bool>()).prop_flat_map(|(width, height, colour)| {
        prop::collection::vec(any_frame(width, height, colour), 1..4)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn sequences_survive(frames in any_sequence(), compressed in any::<bool>(), separate in any::<bool>()) {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join(if separate { "a.mhd" } else { "a.igs.mha" });
        let layout = Layout { compressed, ..Layout::of(&frames[0]) };
        let mut writer = SequenceWriter::create(&path, layout).unwrap();
        frames.iter().for_each(|frame| writer.write(frame).unwrap());
        writer.finish().unwrap();
        let read: Vec<Frame> = read_all(&path).unwrap().into_iter().map(Result::unwrap).collect();
        let expected: Vec<Frame> = frames
            .into_iter()
            .enumerate()
            .map(|(index, frame)| Frame { frame_id: index as u64, source: path.display().to_string(), ..frame })
            .collect();
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn damage_is_survived(at in any::<prop::sample::Index>(), to in any::<u8>(), compressed in any::<bool>()) {
        let folder = TempDir::new().unwrap();
        let (mut bytes, _) = sequence(&folder, compressed);
        let at = at.index(bytes.len());
        bytes[at] = to;
        if let Ok(frames) = read_all(&file_with(&folder, "a.mha", &bytes)) {
            // A damaged number of frames must not be believed.
            prop_assert!(frames.len() <= 5 * 6 * 3 + 1, "{} frames", frames.len());
        }
    }
}
