//! Series, times, regions and identities.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

use dicom_core::VR;
use dicom_core::{DataElement, PrimitiveValue};
use dicom_dictionary_std::tags;
use dicom_object::InMemDicomObject;
use tempfile::TempDir;
use ultramotion_media::metaimage::{Layout, SequenceWriter};
use ultramotion_media::source::{DicomFiles, DicomOptions, FrameSource, Region, frames, open};
use ultramotion_types::Frame;

use crate::make::{LITTLE, Made, SECRETS, region};
use crate::{frames_of, open_made, options};

fn times(made: &Made) -> Vec<f64> {
    frames_of(made).into_iter().map(|frame| frame.unwrap().timestamp_s).collect()
}

#[test]
fn times_are_the_files_own() {
    let made = || Made::new(2, 1, "MONOCHROME2").frames(3).bytes(&[0; 6]);
    assert_eq!(times(&made()), [0.0, 0.04, 0.08]);
    let by_time = made().text(tags::FRAME_TIME, VR::DS, "33.5 ").text(tags::CINE_RATE, VR::IS, "7");
    assert_eq!(times(&by_time), [0.0, 0.0335, 0.067]);
    assert_eq!(times(&made().text(tags::CINE_RATE, VR::IS, "10")), [0.0, 0.1, 0.2]);
    assert_eq!(times(&made().text(tags::RECOMMENDED_DISPLAY_FRAME_RATE, VR::IS, "50")), [0.0, 0.02, 0.04]);
    let by_vector =
        made().text(tags::FRAME_TIME_VECTOR, VR::DS, "0\\40\\21.5").text(tags::FRAME_TIME, VR::DS, "1");
    assert_eq!(times(&by_vector), [0.0, 0.04, 0.0615]);
    // What is no time is none.
    assert_eq!(times(&made().text(tags::FRAME_TIME, VR::DS, "1e300")), [0.0, 0.04, 0.08]);
    assert_eq!(times(&made().text(tags::FRAME_TIME, VR::DS, "0")), [0.0, 0.04, 0.08]);
    assert_eq!(times(&made().text(tags::FRAME_TIME_VECTOR, VR::DS, "0\\40")), [0.0, 0.04, 0.08]);
}

#[test]
fn a_film_is_the_same_as_in_metaimage() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("film.mha");
    let pixels: Vec<u8> = (0..100 * 48u32).map(|i| (i * 7 % 251) as u8).collect();
    let mut writer = SequenceWriter::create(&path, Layout::grey8(8, 6)).unwrap();
    for (index, pixels) in pixels.chunks(48).enumerate() {
        let frame = Frame { timestamp_s: index as f64 * 0.035, ..Frame::grey8(8, 6, pixels.to_vec()) };
        writer.write(&frame).unwrap();
    }
    writer.finish().unwrap();
    let made = Made::new(8, 6, "MONOCHROME2").frames(100).text(tags::FRAME_TIME, VR::DS, "35").bytes(&pixels);
    let ours = frames_of(&made);
    assert_eq!(ours.len(), 100);
    for (ours, theirs) in ours.into_iter().zip(frames(open(&path).unwrap())) {
        let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
        assert_eq!(
            (ours.frame_id, ours.width, ours.height, ours.pixels),
            (theirs.frame_id, theirs.width, theirs.height, theirs.pixels)
        );
        assert!((ours.timestamp_s - theirs.timestamp_s).abs() < 1e-6);
    }
}

#[test]
fn a_rewound_source_gives_the_same_and_keeps_a_given_rate() {
    let (_folder, mut source) =
        open_made(&Made::new(2, 1, "MONOCHROME2").frames(2).bytes(&[1, 2, 3, 4]), &options(None));
    source.set_nominal_frames_per_second(10.0);
    assert_eq!(source.frame_count_hint(), Some(2));
    for _ in 0..2 {
        let mut frame = Frame::default();
        for (id, pixels) in [(0, [1, 2]), (1, [3, 4])] {
            source.read_into(&mut frame).unwrap().unwrap();
            assert_eq!(
                (frame.frame_id, frame.timestamp_s, frame.pixels.as_slice()),
                (id, id as f64 / 10.0, &pixels[..])
            );
        }
        assert!(source.read_into(&mut frame).is_none());
        source.rewind().unwrap();
    }
}

/// A screen of 6x4 pixels, each with its number: a spectral region, then two of tissue.
fn screen() -> Made {
    let pixels: Vec<u8> = (0..24).collect();
    Made::new(6, 4, "MONOCHROME2").bytes(&pixels).items(
        tags::SEQUENCE_OF_ULTRASOUND_REGIONS,
        vec![
            region([0, 0, 5, 0], 3, 3, [0.001, 0.002]),
            region([1, 1, 3, 2], 1, 1, [0.02, -0.03]),
            // One beyond the last column.
            region([4, 1, 6, 3], 1, 1, [0.02, 0.03]),
        ],
    )
}

fn first(made: &Made, region: Region) -> Result<Frame, String> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("screen.dcm");
    made.write(&path);
    let options = DicomOptions { region, ..DicomOptions::default() };
    let source = DicomFiles::open(&path, &options).map_err(|error| error.to_string())?;
    frames(Box::new(source)).next().unwrap().map_err(|error| error.to_string())
}

#[test]
fn a_region_becomes_the_frame_with_its_pixel_size() {
    let whole = first(&screen(), Region::Whole).unwrap();
    assert_eq!((whole.width, whole.height, whole.spacing_mm), (6, 4, Some([0.2, 0.3])));
    let auto = first(&screen(), Region::Auto).unwrap();
    assert_eq!((auto.width, auto.height, auto.spacing_mm), (3, 2, Some([0.2, 0.3])));
    assert_eq!(auto.pixels, [7, 8, 9, 13, 14, 15]);
    let third = first(&screen(), Region::Number(3)).unwrap();
    assert_eq!((third.width, third.height, third.pixels.as_slice()), (2, 3, &[10, 11, 16, 17, 22, 23][..]));
    let none = first(&screen(), Region::Number(4)).unwrap_err();
    assert!(none.contains("region 4 cannot be taken: choose one of 1: spectral Doppler, 6x1 pixels at 0,0; 2: 2D tissue, 3x2"), "{none}");
    let colour = Made::new(2, 2, "RGB").bytes(&(0..12).collect::<Vec<u8>>());
    let colour =
        colour.items(tags::SEQUENCE_OF_ULTRASOUND_REGIONS, vec![region([1, 0, 1, 1], 1, 1, [0.1, 0.1])]);
    assert_eq!(first(&colour, Region::Auto).unwrap().pixels, [3, 4, 5, 9, 10, 11]);
}

#[test]
fn pixel_sizes_that_differ_or_are_no_lengths_are_not_believed() {
    let sizes = |parts| {
        let made =
            Made::new(6, 4, "MONOCHROME2").bytes(&[0; 24]).text(tags::PIXEL_SPACING, VR::DS, "0.5\\0.25");
        first(&made.items(tags::SEQUENCE_OF_ULTRASOUND_REGIONS, parts), Region::Whole).unwrap().spacing_mm
    };
    let plane = |delta| region([0, 0, 5, 3], 1, 1, delta);
    assert_eq!(sizes(vec![plane([0.02, 0.02]), plane([0.04, 0.04])]), None);
    assert_eq!(sizes(vec![region([0, 0, 5, 3], 2, 1, [0.02, 0.02])]), None);
    let without =
        Made::new(6, 4, "MONOCHROME2").bytes(&[0; 24]).text(tags::PIXEL_SPACING, VR::DS, "0.5\\0.25");
    assert_eq!(first(&without, Region::Auto).unwrap().spacing_mm, Some([0.25, 0.5]));
    let asked = first(&without, Region::Number(1)).unwrap_err();
    assert!(asked.contains("the file names no regions"), "{asked}");
}

/// A study: a series of three single pictures, out of order; a film; a series of another modality; a report.
fn study(folder: &Path) {
    let of = |number: &str, modality: &str| {
        Made::new(2, 1, "MONOCHROME2")
            .text(tags::SERIES_NUMBER, VR::IS, number)
            .text(tags::SERIES_INSTANCE_UID, VR::UI, &format!("1.2.826.0.1.99.2.{number}"))
            .text(tags::MODALITY, VR::CS, modality)
            .text(tags::SERIES_DESCRIPTION, VR::LO, &format!("part {number}"))
    };
    std::fs::create_dir_all(folder.join("a/b")).unwrap();
    for (name, instance, grey) in [("IM1", "3", 30), ("IM2", "1", 10), ("IM10", "2", 20)] {
        of("1", "US")
            .text(tags::INSTANCE_NUMBER, VR::IS, instance)
            .bytes(&[grey; 2])
            .write(&folder.join("a/b").join(name));
    }
    of("2", "US")
        .frames(2)
        .text(tags::FRAME_TIME, VR::DS, "20")
        .bytes(&[1, 1, 2, 2])
        .write(&folder.join("a/film.dcm"));
    of("3", "CT").bytes(&[9; 2]).write(&folder.join("ct.dcm"));
    of("4", "SR").write(&folder.join("report.dcm"));
    std::fs::write(folder.join("notes.txt"), "no picture").unwrap();
    std::fs::write(folder.join("broken.dcm"), b"not DICOM, for all its name").unwrap();
}

fn greys(path: &Path, series: Option<&str>) -> Result<Vec<u8>, String> {
    let source = DicomFiles::open(path, &options(series)).map_err(|error| error.to_string())?;
    frames(Box::new(source))
        .map(|frame| frame.map(|frame| frame.pixels[0]).map_err(|error| error.to_string()))
        .collect()
}

#[test]
fn a_series_is_chosen_by_number_or_identity() {
    let folder = TempDir::new().unwrap();
    study(folder.path());
    let several = greys(folder.path(), None).unwrap_err();
    assert!(
        several.contains("several series: choose one by its number or its SeriesInstanceUID, of 1 (US, 'part 1', 3 frames), \
                          2 (US, 'part 2', 2 frames), 3 (CT, 'part 3', 1 frame)"),
        "{several}"
    );
    assert_eq!(greys(folder.path(), Some("1")), Ok(vec![10, 20, 30]));
    assert_eq!(greys(folder.path(), Some("2")), Ok(vec![1, 2]));
    assert_eq!(greys(folder.path(), Some("1.2.826.0.1.99.2.3")), Ok(vec![9]));
    let missing = greys(folder.path(), Some("7")).unwrap_err();
    assert!(missing.contains("does not hold the series that is asked for: choose one"), "{missing}");
    std::fs::remove_file(folder.path().join("a/film.dcm")).unwrap();
    assert_eq!(greys(folder.path(), None), Ok(vec![10, 20, 30]), "the only one of ultrasound");
    let opened = open(folder.path()).unwrap();
    assert_eq!(opened.frame_count_hint(), Some(3));
    // One file is a series too.
    assert!(
        greys(&folder.path().join("ct.dcm"), Some("4")).unwrap_err().contains("does not hold the series")
    );
}

#[test]
fn times_go_on_from_file_to_file() {
    let folder = TempDir::new().unwrap();
    for (instance, frame_time) in [("1", Some("20")), ("2", None), ("3", Some("10")), ("4", None)] {
        let made = Made::new(2, 1, "MONOCHROME2").frames(2).bytes(&[0; 4]).text(
            tags::INSTANCE_NUMBER,
            VR::IS,
            instance,
        );
        let made = frame_time.map_or(made.clone(), |ms| made.text(tags::FRAME_TIME, VR::DS, ms));
        made.write(&folder.path().join(instance));
    }
    let source = DicomFiles::open(folder.path(), &options(None)).unwrap();
    let times: Vec<f64> =
        frames(Box::new(source)).map(|frame| (frame.unwrap().timestamp_s * 1e3).round()).collect();
    assert_eq!(times, [0.0, 20.0, 40.0, 80.0, 120.0, 130.0, 140.0, 180.0]);
}

#[test]
fn a_dicomdir_names_its_files() {
    let folder = TempDir::new().unwrap();
    study(folder.path());
    let record = |file: &str| {
        InMemDicomObject::from_element_iter([
            DataElement::new(tags::DIRECTORY_RECORD_TYPE, VR::CS, PrimitiveValue::from("IMAGE")),
            DataElement::new(tags::REFERENCED_FILE_ID, VR::CS, PrimitiveValue::from(file)),
        ])
    };
    let directory = |files: &[&str]| {
        let mut made = Made::new(2, 1, "MONOCHROME2");
        made.object = InMemDicomObject::from_element_iter([
            DataElement::new(tags::SOP_CLASS_UID, VR::UI, PrimitiveValue::from("1.2.840.10008.1.3.10")),
            DataElement::new(tags::SOP_INSTANCE_UID, VR::UI, PrimitiveValue::from("1.2.826.0.1.99.9")),
        ]);
        let made =
            made.items(tags::DIRECTORY_RECORD_SEQUENCE, files.iter().map(|file| record(file)).collect());
        made.write(&folder.path().join("DICOMDIR"));
        folder.path().join("DICOMDIR")
    };
    let path = directory(&["a\\b\\IM1", "a\\b\\IM10", "a\\b\\GONE"]);
    assert_eq!(greys(&path, None), Ok(vec![20, 30]));
    assert!(open(&path).is_ok());
    // Nothing outside of its folder.
    std::fs::create_dir(folder.path().join("disk")).unwrap();
    std::fs::copy(directory(&["..\\a\\b\\IM1"]), folder.path().join("disk/DICOMDIR")).unwrap();
    let outside = greys(&folder.path().join("disk/DICOMDIR"), None).unwrap_err();
    assert!(outside.contains("holds no DICOM file with pictures"), "{outside}");
}

#[test]
fn an_icon_and_sequences_of_all_forms_are_passed_over() {
    let icon = Made::new(1, 1, "MONOCHROME2").fragments(LITTLE, vec![], vec![vec![1, 2], vec![3, 4]]).object;
    let private = Made::new(9, 9, "RGB").object;
    let made = screen()
        .items(tags::ICON_IMAGE_SEQUENCE, vec![icon])
        .items(tags::REFERENCED_SERIES_SEQUENCE, vec![private]);
    let frame = first(&made, Region::Auto).unwrap();
    assert_eq!((frame.pixels, frame.spacing_mm), (vec![7, 8, 9, 13, 14, 15], Some([0.2, 0.3])));
}

#[test]
fn content_decides_and_images_go_first() {
    let folder = TempDir::new().unwrap();
    let made = Made::new(2, 1, "MONOCHROME2").bytes(&[5, 6]);
    made.write(&folder.path().join("IM000001"));
    assert_eq!(frames(open(&folder.path().join("IM000001")).unwrap()).count(), 1);
    assert_eq!(frames(open(folder.path()).unwrap()).next().unwrap().unwrap().pixels, [5, 6]);
    image::save_buffer(folder.path().join("one.png"), &[1, 2], 2, 1, image::ExtendedColorType::L8).unwrap();
    assert_eq!(frames(open(folder.path()).unwrap()).next().unwrap().unwrap().pixels, [1, 2]);
}

/// Collects what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn logged(act: impl FnOnce()) -> String {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, act);
    let bytes = log.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn text_that_is_burned_in_and_the_region_are_said_once() {
    let made = screen().text(tags::BURNED_IN_ANNOTATION, VR::CS, "YES").frames(1);
    let log = logged(|| {
        let options = DicomOptions { region: Region::Auto, ..DicomOptions::default() };
        let (_folder, mut source) = open_made(&made, &options);
        source.rewind().unwrap();
        assert_eq!(frames(Box::new(source)).count(), 1);
    });
    assert_eq!(log.matches("burned in").count(), 1, "{log}");
    assert_eq!(
        log.matches("the region of 3x2 pixels at 1,1 of the screen; its pixels are 0.2000 x 0.3000 mm")
            .count(),
        1,
        "{log}"
    );
}

#[test]
fn nobody_learns_who_the_patient_is() {
    let folder = TempDir::new().unwrap();
    study(folder.path());
    let path = folder.path().join("a/film.dcm");
    let bytes = std::fs::read(&path).unwrap();
    let secrets: Vec<&str> = SECRETS.to_vec();
    assert!(
        secrets.iter().all(|secret| bytes.windows(secret.len()).any(|window| window == secret.as_bytes()))
    );
    let named = folder.path().join("a/Doe^Jane.dcm");
    std::fs::copy(&path, &named).unwrap();
    let said = Mutex::new(String::new());
    let hear = |opened: Result<DicomFiles, ultramotion_media::MediaError>| {
        let mut said = said.lock().unwrap();
        match opened {
            Err(error) => *said += &format!("{error} {error:?}\n"),
            Ok(mut source) => {
                let mut frame = Frame::default();
                *said += &format!("{} {source:?}\n", source.name());
                while let Some(read) = source.read_into(&mut frame) {
                    match read {
                        Ok(()) => *said += &format!("{frame:?}\n"),
                        Err(error) => *said += &format!("{error} {error:?}\n"),
                    }
                }
            }
        }
    };
    let log = logged(|| {
        for series in [None, Some("1"), Some("2"), Some("9")] {
            hear(DicomFiles::open(folder.path(), &options(series)));
        }
        // Cut anywhere: no error repeats what it stumbled over.
        let cut = folder.path().join("cut.dcm");
        for length in (0..bytes.len()).step_by(7) {
            std::fs::write(&cut, &bytes[..length]).unwrap();
            hear(DicomFiles::open(&cut, &options(None)));
        }
    });
    let said = said.into_inner().unwrap() + &log;
    assert!(said.contains("part 1") && said.lines().count() > 50);
    for secret in secrets {
        assert!(!said.contains(secret), "{secret} in {said}");
    }
}
