//! Files that are cut short, lie or are damaged.

use std::sync::LazyLock;

use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};
use proptest::prelude::*;
use tempfile::TempDir;
use ultramotion_media::source::{DicomFiles, frames};

use crate::make::{LITTLE, Made, jpeg, region, run_lengths};
use crate::options;

/// Everything that is said about a file of these bytes, and the number of good frames.
fn outcome(bytes: &[u8]) -> (usize, Vec<String>) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("x.dcm");
    std::fs::write(&path, bytes).unwrap();
    match DicomFiles::open(&path, &options(None)) {
        Err(error) => (0, vec![error.to_string()]),
        Ok(source) => {
            let mut errors = Vec::new();
            let good = frames(Box::new(source))
                .take(100)
                .filter_map(|frame| frame.map_err(|error| errors.push(error.to_string())).ok());
            (good.count(), errors)
        }
    }
}

fn bytes_of(made: &Made) -> Vec<u8> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("x.dcm");
    made.write(&path);
    std::fs::read(path).unwrap()
}

/// One film of ten frames in each coding.
fn films() -> Vec<Vec<u8>> {
    let grey = |frame: usize| -> Vec<u8> { (0..48 * 40).map(|i| ((i * (frame + 3)) % 251) as u8).collect() };
    let made = || {
        Made::new(48, 40, "MONOCHROME2")
            .frames(10)
            .items(tags::SEQUENCE_OF_ULTRASOUND_REGIONS, vec![region([0, 0, 9, 9], 1, 1, [0.1, 0.1])])
            .text(tags::FRAME_TIME, VR::DS, "40")
    };
    let native = made().bytes(&(0..10).flat_map(grey).collect::<Vec<u8>>());
    let runs =
        made().fragments(uids::RLE_LOSSLESS, vec![], (0..10).map(|i| run_lengths(&[grey(i)])).collect());
    let jpegs = (0..10).map(|i| jpeg(48, 40, &grey(i))).collect();
    let jpegs = made().fragments(uids::JPEG_BASELINE8_BIT, vec![], jpegs);
    [native, runs, jpegs].iter().map(bytes_of).collect()
}

fn is_one_sentence(error: &str) -> bool {
    !error.contains('\n') && error.len() < 600
}

#[test]
fn a_film_cut_at_every_kilobyte_gives_what_is_there_and_one_sentence() {
    for film in films() {
        assert_eq!(outcome(&film), (10, vec![]));
        let mut before = 0;
        for length in (0..film.len() - 8).step_by(1024) {
            let (good, errors) = outcome(&film[..length]);
            assert_eq!(errors.len(), 1, "{length}: {errors:?}");
            assert!(is_one_sentence(&errors[0]), "{errors:?}");
            assert!((before..=10).contains(&good));
            // All that are there: the header takes a frame's place at most, and one is cut.
            assert!(good + 2 >= 10 * length / film.len(), "{good} of {length} bytes");
            before = good;
        }
        assert!(before >= 8, "{before}");
    }
}

#[test]
fn claims_are_held_against_the_file() {
    let small = || Made::new(4, 4, "MONOCHROME2").bytes(&[0; 16]);
    let says = |made: &Made, good: usize, word: &str| {
        let (count, errors) = outcome(&bytes_of(made));
        assert_eq!((count, errors.len()), (good, 1), "{errors:?}");
        assert!(is_one_sentence(&errors[0]) && errors[0].contains(word), "{errors:?}");
    };
    says(&small().frames(2_000_000_000), 1, "ends at frame 1 of 2000000000: 16 bytes are missing");
    says(&small().word(tags::ROWS, 8000).word(tags::COLUMNS, 8000), 0, "bytes are missing");
    says(&small().word(tags::ROWS, 0), 0, "sides from 1 to 8192");
    says(&small().word(tags::ROWS, 65535), 0, "sides from 1 to 8192");
    says(&small().word(tags::BITS_ALLOCATED, 32), 0, "32 bits: 8 and 16 are read");
    says(&small().word(tags::SAMPLES_PER_PIXEL, 3), 0, "does not fit");
    says(&small().text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "CMYK"), 0, "CMYK is not read");
    says(&small().text(tags::NUMBER_OF_FRAMES, VR::IS, "1A"), 0, "is not a number");
    says(&Made::new(4, 4, "MONOCHROME2"), 0, "no pixels");
    says(&Made::new(4, 4, "PALETTE COLOR").bytes(&[0; 16]), 0, "palette is missing");
    let bomb = Made::new(8000, 8000, "RGB").sixteen_bits(16);
    says(
        &bomb.fragments(uids::RLE_LOSSLESS, vec![], vec![run_lengths(&[vec![0; 64]])]),
        0,
        "too few for a frame of its size",
    );
    let runs = |count| {
        Made::new(4, 4, "MONOCHROME2").frames(3).fragments(
            uids::RLE_LOSSLESS,
            vec![],
            vec![run_lengths(&[vec![1; 16]]); count],
        )
    };
    says(&runs(2), 2, "frame 2: of the 3 frames that the file announces, it ends at this");
    says(&runs(4), 0, "its 4 pieces of coded pixels cannot be told apart");
    // A value that claims 4 GB, in a file that has 100 bytes more.
    let mut liar = bytes_of(&small());
    let at = liar.windows(4).position(|bytes| bytes == [0x28, 0, 0x10, 0]).unwrap();
    liar.truncate(at);
    liar.extend([0x28, 0, 0x01, 0x12, b'O', b'W', 0, 0, 0xFE, 0xFF, 0xFF, 0xFF]);
    liar.extend([0; 100]);
    let (_, errors) = outcome(&liar);
    assert!(errors[0].ends_with("it ends before its pixels: copy the file again"), "{errors:?}");
    // Sequences in sequences.
    liar.truncate(at);
    for _ in 0..100_000 {
        liar.extend([
            0x40, 0, 0x75, 0x02, b'S', b'Q', 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFE, 0xFF, 0, 0xE0, 0xFF, 0xFF,
            0xFF, 0xFF,
        ]);
    }
    let (_, errors) = outcome(&liar);
    assert!(errors[0].contains("nested more than 16 deep"), "{errors:?}");
}

#[test]
fn what_is_not_decoded_is_named_with_the_way_out() {
    let film = |syntax| Made::new(4, 4, "MONOCHROME2").fragments(syntax, vec![], vec![vec![0; 64]]);
    for (syntax, words) in [
        (uids::JPEGLS_LOSSLESS, ["JPEG-LS Lossless", "dcmdjpls"]),
        (uids::MPEG4HP41, ["MPEG-4", "gdcmraw"]),
        (uids::HTJ2K, ["High-Throughput JPEG 2000", "gdcmconv --raw"]),
    ] {
        let (good, errors) = outcome(&bytes_of(&film(syntax)));
        assert_eq!(good, 0);
        assert!(
            words.iter().all(|word| errors[0].contains(word)) && is_one_sentence(&errors[0]),
            "{errors:?}"
        );
    }
    let unknown = Made::new(4, 4, "MONOCHROME2").bytes(&[0; 16]);
    let mut bytes = bytes_of(&unknown);
    let at = bytes.windows(LITTLE.len()).position(|window| window == LITTLE.as_bytes()).unwrap();
    bytes[at..at + LITTLE.len()].copy_from_slice(b"1.2.840.10008.9.9.9");
    let (_, errors) = outcome(&bytes);
    assert!(errors[0].contains("1.2.840.10008.9.9.9 (unknown) is not decoded"), "{errors:?}");
}

static FILMS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(films);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn damage_anywhere_is_no_panic(film in 0usize..3, damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)) {
        let mut bytes = FILMS[film].clone();
        for (index, value) in damage {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        let (good, errors) = outcome(&bytes);
        prop_assert!(good <= 100 && errors.iter().all(|error| is_one_sentence(error)));
    }
}
