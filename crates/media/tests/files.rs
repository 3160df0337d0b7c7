//! Sources from real and from broken files.

// Helpers of tests fail by panicking, and say why they skip.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::{Path, PathBuf};

use image::{DynamicImage, ExtendedColorType};
use tempfile::TempDir;
use ultramotion_media::MediaError;
use ultramotion_media::source::{frames, open};
use ultramotion_types::{Frame, PixelFormat};

/// The shared data, when this machine has it.
fn shared(relative: &str) -> Option<PathBuf> {
    let root = std::env::var_os("ULTRAMOTION_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let path = root.join(relative);
    if !path.exists() {
        println!("skipped: {} is not here", path.display());
        return None;
    }
    Some(path)
}

fn read_all(path: &Path) -> Result<Vec<Result<Frame, MediaError>>, MediaError> {
    Ok(frames(open(path)?).collect())
}

fn grey_png(path: &Path, width: u32, height: u32) {
    let pixels: Vec<u8> = (0..width * height).map(|i| (i % 251) as u8).collect();
    image::save_buffer(path, &pixels, width, height, ExtendedColorType::L8).unwrap();
}

#[test]
fn recordings_of_plus_are_read_with_times_and_poses() {
    let Some(folder) = shared("data/plus") else { return };
    for (name, count, first_s, last_s) in [
        ("BoneUltrasound_L14", 21, 232.542071, 234.261100),
        ("fCal_Test_Calibration_3NWires", 188, 425.398686, 440.246214),
    ] {
        let frames = read_all(&folder.join(format!("{name}.igs.mha"))).unwrap();
        let frames: Vec<Frame> = frames.into_iter().map(Result::unwrap).collect();
        assert_eq!(frames.len(), count);
        assert!(frames.iter().all(|f| (f.width, f.height, f.pixel_format) == (820, 616, PixelFormat::Grey8)));
        assert_eq!((frames[0].timestamp_s, frames[count - 1].timestamp_s), (first_s, last_s));
        assert!(frames.windows(2).all(|pair| pair[0].timestamp_s < pair[1].timestamp_s));
        assert!(frames.windows(2).any(|pair| pair[0].pixels != pair[1].pixels));
        for frame in &frames {
            let mean = frame.pixels.iter().map(|&p| f64::from(p)).sum::<f64>() / frame.pixels.len() as f64;
            assert!((0.1..150.0).contains(&mean), "frame {}: mean {mean}", frame.frame_id);
            let names: Vec<&str> = frame.transforms.iter().map(|t| t.name.as_str()).collect();
            assert_eq!(names, ["ProbeToTracker", "ReferenceToTracker", "StylusToTracker"]);
            assert!(frame.transforms.iter().all(|t| t.valid && t.matrix[3] == [0.0, 0.0, 0.0, 1.0]));
        }
    }
}

#[test]
fn a_folder_of_scans_is_read_in_order() {
    let Some(folder) = shared("data/usgra/images") else { return };
    let mut source = open(&folder).unwrap();
    assert_eq!(source.frame_count_hint(), Some(204));
    let mut frame = Frame::default();
    let mut names = Vec::new();
    while let Some(read) = source.read_into(&mut frame) {
        read.unwrap();
        assert_eq!(frame.frame_id as usize, names.len());
        assert_eq!(frame.pixels.len(), frame.width * frame.height * frame.pixel_format.channels());
        names.push(frame.source.clone());
    }
    assert_eq!(names.len(), 204);
    assert!(names.is_sorted());
}

#[test]
fn one_bad_image_does_not_end_a_folder() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    grey_png(&path("frame10.png"), 20, 10);
    grey_png(&path("frame2.PNG"), 30, 12);
    std::fs::write(path("frame3.png"), b"this is no image").unwrap();
    std::fs::write(path("frame4.png"), b"").unwrap();
    std::fs::write(path("notes.txt"), b"not for reading").unwrap();
    std::fs::write(path(".hidden.png"), b"not for reading").unwrap();
    std::fs::create_dir(path("folder.png")).unwrap();
    let read = read_all(folder.path()).unwrap();
    let shown: Vec<String> = read
        .iter()
        .map(|frame| match frame {
            Ok(frame) => format!("{} {}x{}", frame.frame_id, frame.width, frame.height),
            Err(problem) => problem.to_string().replace(&*folder.path().to_string_lossy(), ""),
        })
        .collect();
    assert_eq!(
        shown,
        [
            "0 30x12",
            "/frame3.png, frame 1: the content is none of PNG, JPEG, BMP, TIFF, WebP and GIF",
            "/frame4.png, frame 2: the file is empty",
            "3 20x10",
        ]
    );
}

#[test]
fn every_kind_of_png_becomes_eight_bits() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.png");
    let grey16 = image::ImageBuffer::<image::Luma<u16>, _>::from_raw(2, 1, vec![0x8000u16, 0xFFFF]).unwrap();
    let rgb16 =
        image::ImageBuffer::<image::Rgb<u16>, _>::from_raw(1, 1, vec![0u16, 257 * 7, 0xFFFF]).unwrap();
    let grey_alpha = image::ImageBuffer::<image::LumaA<u8>, _>::from_raw(1, 2, vec![9u8, 0, 8, 255]).unwrap();
    let rgba = image::ImageBuffer::<image::Rgba<u8>, _>::from_raw(1, 1, vec![1u8, 2, 3, 4]).unwrap();
    let cases: [(DynamicImage, PixelFormat, &[u8]); 4] = [
        (grey16.into(), PixelFormat::Grey8, &[128, 255]),
        (rgb16.into(), PixelFormat::Rgb8, &[0, 7, 255]),
        (grey_alpha.into(), PixelFormat::Grey8, &[9, 8]),
        (rgba.into(), PixelFormat::Rgb8, &[1, 2, 3]),
    ];
    for (image, format, pixels) in cases {
        image.save(&path).unwrap();
        let frame = read_all(&path).unwrap().remove(0).unwrap();
        assert_eq!((frame.pixel_format, frame.pixels.as_slice()), (format, pixels));
    }
}

#[test]
fn images_cut_anywhere_are_refused() {
    let folder = TempDir::new().unwrap();
    for ending in ["png", "jpg"] {
        let path = folder.path().join(format!("whole.{ending}"));
        grey_png_or_jpeg(&path);
        let bytes = std::fs::read(&path).unwrap();
        assert!(read_all(&path).unwrap()[0].is_ok());
        let cut = folder.path().join(format!("cut.{ending}"));
        // The last bytes of a PNG are an end mark after the picture, and may be missing.
        let needed = if ending == "png" { bytes.len() - 12 } else { bytes.len() };
        for length in 0..needed {
            std::fs::write(&cut, &bytes[..length]).unwrap();
            let read = read_all(&cut).unwrap();
            assert_eq!(read.len(), 1);
            let problem = read[0].as_ref().unwrap_err().to_string();
            assert!(!problem.contains('\n') && problem.contains("cut."), "{problem}");
        }
    }
}

fn grey_png_or_jpeg(path: &Path) {
    let pixels: Vec<u8> = (0..24 * 20u32).map(|i| (i * 7 % 251) as u8).collect();
    image::save_buffer(path, &pixels, 24, 20, ExtendedColorType::L8).unwrap();
}

#[test]
fn enormous_and_impossible_images_are_refused_before_they_are_allocated() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.png");
    grey_png(&path, 20, 10);
    let whole = std::fs::read(&path).unwrap();
    let with_size = |width: u32, height: u32| {
        let mut bytes = whole.clone();
        bytes[16..20].copy_from_slice(&width.to_be_bytes());
        bytes[20..24].copy_from_slice(&height.to_be_bytes());
        let checksum = crc32(&bytes[12..29]);
        bytes[29..33].copy_from_slice(&checksum.to_be_bytes());
        std::fs::write(&path, bytes).unwrap();
        let problem = read_all(&path).unwrap().remove(0).unwrap_err().to_string();
        problem.replace(&*folder.path().to_string_lossy(), "")
    };
    assert_eq!(
        with_size(20000, 10),
        "/a.png has frames of 20000x10 pixels: sides from 1 to 8192 can be read"
    );
    let problem = with_size(8192, 8192);
    assert!(problem.starts_with("/a.png, frame 0: a PNG file of "), "{problem}");
    assert!(problem.ends_with(" bytes cannot hold 8192x8192 pixels"), "{problem}");
    let problem = with_size(0, 10);
    assert!(problem.starts_with("/a.png"), "{problem}");
}

/// The checksum of PNG chunks.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & 0u32.wrapping_sub(crc & 1)))
    })
}

#[test]
fn what_cannot_be_opened_is_named() {
    let folder = TempDir::new().unwrap();
    let problem =
        |path: &Path| open(path).unwrap_err().to_string().replace(&*folder.path().to_string_lossy(), "");
    assert_eq!(
        problem(&folder.path().join("no.mha")),
        "cannot open /no.mha: there is no such file or folder"
    );
    assert_eq!(
        problem(folder.path()),
        " holds no image (.png, .jpg, .bmp, .tif, .webp, .gif) and no DICOM file: give a folder with such"
    );
    let other = folder.path().join("notes.txt");
    std::fs::write(&other, b"RIFF").unwrap();
    let said = problem(&other);
    assert!(said.starts_with("/notes.txt is not a kind of file that can be read: "), "{said}");
    assert!(said.ends_with(".dcm .dicom") && said.contains(" .mha .mhd .nrrd "), "{said}");
}
