//! What samples become, of each kind and coding.

use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};
use proptest::prelude::*;
use ultramotion_media::source::{DicomFiles, DicomOptions};
use ultramotion_types::PixelFormat;

use crate::make::{Made, jpeg, run_lengths};
use crate::{frames_of, pixels_of};

#[test]
fn grey_is_kept_and_turned() {
    let pixels = [0, 1, 100, 200, 254, 255];
    let (format, kept) = pixels_of(&Made::new(3, 2, "MONOCHROME2").bytes(&pixels));
    assert_eq!((format, kept), (PixelFormat::Grey8, pixels.to_vec()));
    let (_, turned) = pixels_of(&Made::new(3, 2, "MONOCHROME1").bytes(&pixels));
    assert_eq!(turned, [255, 254, 155, 55, 1, 0]);
}

#[test]
fn colours_are_the_same_pixel_by_pixel_and_plane_by_plane() {
    let rgb = [10, 20, 30, 40, 50, 60];
    let interleaved = Made::new(2, 1, "RGB").word(tags::PLANAR_CONFIGURATION, 0).bytes(&rgb);
    let planes = Made::new(2, 1, "RGB").word(tags::PLANAR_CONFIGURATION, 1).bytes(&[10, 40, 20, 50, 30, 60]);
    assert_eq!(pixels_of(&interleaved), (PixelFormat::Rgb8, rgb.to_vec()));
    assert_eq!(pixels_of(&planes), (PixelFormat::Rgb8, rgb.to_vec()));
}

#[test]
fn luminance_and_differences_become_colours() {
    // Red, blue and grey by the matrix of PS3.3 section C.7.6.3.1.2.
    let ybr = [76, 85, 255, 29, 255, 107];
    let (_, full) = pixels_of(&Made::new(2, 1, "YBR_FULL").bytes(&ybr));
    assert!(full.iter().zip([255, 0, 0, 0, 0, 255]).all(|(a, b)| a.abs_diff(b) <= 1), "{full:?}");
    let (_, grey) = pixels_of(&Made::new(2, 1, "YBR_FULL_422").bytes(&[10, 200, 128, 128]));
    assert_eq!(grey, [10, 10, 10, 200, 200, 200]);
    // Two pixels cannot share a colour of three.
    let made = Made::new(3, 1, "YBR_FULL_422").bytes(&[10, 200, 128, 128, 9, 128]);
    let folder = tempfile::TempDir::new().unwrap();
    made.write(&folder.path().join("odd.dcm"));
    let odd =
        DicomFiles::open(&folder.path().join("odd.dcm"), &DicomOptions::default()).unwrap_err().to_string();
    assert!(odd.contains("its width or depth does not allow"), "{odd}");
    let (_, planes) = pixels_of(&Made::new(2, 1, "YBR_FULL_422").fragments(
        uids::RLE_LOSSLESS,
        vec![],
        vec![run_lengths(&[vec![10, 200], vec![128, 128], vec![128, 128]])],
    ));
    assert_eq!(planes, [10, 10, 10, 200, 200, 200]);
    let (_, shared) = pixels_of(&Made::new(2, 1, "YBR_FULL_422").bytes(&[76, 76, 85, 255]));
    assert!(shared.iter().zip([255, 0, 0, 255, 0, 0]).all(|(a, b)| a.abs_diff(b) <= 1), "{shared:?}");
}

#[test]
fn palettes_of_8_and_16_bits_give_colours() {
    // Four colours, the first of number 10.
    let of = |bits: u16, tables: [&[u16]; 3]| {
        let mut made = Made::new(5, 1, "PALETTE COLOR");
        for (descriptor, data, table) in [
            (
                tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
                tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DATA,
                tables[0],
            ),
            (
                tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
                tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA,
                tables[1],
            ),
            (
                tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR,
                tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA,
                tables[2],
            ),
        ] {
            let words = |values: &[u16]| dicom_core::PrimitiveValue::U16(values.into());
            made = made.with(descriptor, VR::US, words(&[4, 10, bits])).with(data, VR::OW, words(table));
        }
        pixels_of(&made.bytes(&[9, 10, 11, 13, 14])).1
    };
    let expected = [[1, 5, 9], [1, 5, 9], [2, 6, 10], [4, 8, 12], [4, 8, 12]].concat();
    assert_eq!(of(8, [&[0x0201, 0x0403], &[0x0605, 0x0807], &[0x0A09, 0x0C0B]]), expected);
    assert_eq!(
        of(
            16,
            [&[0x0100, 0x0200, 0x0300, 0x04FF], &[0x500, 0x600, 0x700, 0x800], &[0x900, 0xA00, 0xB00, 0xC00]]
        ),
        expected
    );
    // Says 16 and writes 8.
    assert_eq!(of(16, [&[1, 2, 3, 4], &[5, 6, 7, 8], &[9, 10, 11, 12]]), expected);
}

#[test]
fn sixteen_bits_go_through_one_window_for_all_frames() {
    let words = [0, 1000, 4000, 2000, 1000, 5000];
    let (_, own_range) =
        pixels_of(&Made::new(3, 1, "MONOCHROME2").sixteen_bits(16).frames(2).words(&words[..3]));
    assert_eq!(own_range, [0, 64, 255]);
    let both = frames_of(&Made::new(3, 1, "MONOCHROME2").sixteen_bits(16).frames(2).words(&words));
    let both: Vec<Vec<u8>> = both.into_iter().map(|frame| frame.unwrap().pixels).collect();
    assert_eq!(both, [vec![0, 64, 255], vec![128, 64, 255]]);
}

#[test]
fn the_window_of_the_file_counts_behind_its_scale() {
    let made = Made::new(4, 1, "MONOCHROME2").sixteen_bits(12).word(tags::PIXEL_REPRESENTATION, 1);
    // Stored -1000, 0, 50, 100 in 12 bits; twice that and 100 more is -1900, 100, 200, 300.
    let made = made
        .words(&[0x0C18, 0, 50, 100])
        .text(tags::RESCALE_SLOPE, VR::DS, "2")
        .text(tags::RESCALE_INTERCEPT, VR::DS, "100")
        .text(tags::WINDOW_CENTER, VR::DS, "200.5\\1")
        .text(tags::WINDOW_WIDTH, VR::DS, "201\\2");
    assert_eq!(pixels_of(&made).1, [0, 0, 128, 255]);
    let exact = made.clone().text(tags::VOILUT_FUNCTION, VR::CS, "LINEAR_EXACT").text(
        tags::WINDOW_CENTER,
        VR::DS,
        "200",
    );
    assert_eq!(pixels_of(&exact.text(tags::WINDOW_WIDTH, VR::DS, "200")).1, [0, 0, 128, 255]);
    let sigmoid =
        made.text(tags::VOILUT_FUNCTION, VR::CS, "SIGMOID").text(tags::WINDOW_CENTER, VR::DS, "200");
    assert_eq!(pixels_of(&sigmoid).1, [0, 31, 128, 224]);
}

#[test]
fn words_of_big_endian_files_are_put_in_order() {
    let mut made = Made::new(3, 1, "MONOCHROME2").sixteen_bits(16).words(&[0, 1000, 4000]);
    made.syntax = "1.2.840.10008.1.2.2";
    assert_eq!(pixels_of(&made).1, [0, 64, 255]);
    // Three frames of three bytes as words: bytes change places across frames.
    let mut bytes = Made::new(3, 1, "MONOCHROME2").frames(3).words(&[0x0201, 0x0403, 0x0605, 0x0807, 0x0009]);
    bytes.syntax = "1.2.840.10008.1.2.2";
    let frames: Vec<Vec<u8>> = frames_of(&bytes).into_iter().map(|frame| frame.unwrap().pixels).collect();
    assert_eq!(frames, [[1, 2, 3], [4, 5, 6], [7, 8, 9]]);
    let mut implicit = Made::new(3, 1, "MONOCHROME2").bytes(&[1, 2, 3, 0]);
    implicit.syntax = uids::IMPLICIT_VR_LITTLE_ENDIAN;
    assert_eq!(pixels_of(&implicit).1, [1, 2, 3]);
}

proptest! {
    #[test]
    fn run_lengths_give_back_what_was_coded(
        width in 1usize..40, height in 1usize..20, colour: bool, pool in prop::collection::vec(0u8..4, 40 * 20 * 3)
    ) {
        let count = width * height;
        let planes: Vec<Vec<u8>> = pool.chunks(count).take(if colour { 3 } else { 1 }).map(<[u8]>::to_vec).collect();
        let expected: Vec<u8> = (0..count).flat_map(|i| planes.iter().map(move |plane| plane[i])).collect();
        let made = Made::new(width as u16, height as u16, if colour { "RGB" } else { "MONOCHROME2" });
        let (_, pixels) = pixels_of(&made.fragments(uids::RLE_LOSSLESS, vec![], vec![run_lengths(&planes)]));
        prop_assert_eq!(pixels, expected);
    }
}

/// Four grey frames of 16x8 pixels, each of one brightness, as JPEG.
fn jpegs() -> Vec<Vec<u8>> {
    [40, 80, 120, 160].map(|grey| jpeg(16, 8, &[grey; 128])).into()
}

fn greys(made: &Made) -> Vec<Option<u8>> {
    frames_of(made).into_iter().map(|frame| frame.ok().map(|frame| frame.pixels[0])).collect()
}

fn is_near(greys: &[Option<u8>], expected: [Option<u8>; 4]) -> bool {
    greys.len() == 4
        && greys.iter().zip(expected).all(|pair| match pair {
            (Some(a), Some(b)) => a.abs_diff(b) <= 1,
            (a, b) => *a == b,
        })
}

#[test]
fn frames_in_several_fragments_are_put_together() {
    let made = || Made::new(16, 8, "MONOCHROME2").frames(4);
    let all = [40, 80, 120, 160].map(Some);
    let one_each = made().fragments(uids::JPEG_BASELINE8_BIT, vec![], jpegs());
    assert!(is_near(&greys(&one_each), all));
    let halves: Vec<Vec<u8>> = jpegs()
        .iter()
        .flat_map(|coded| {
            let middle = coded.len() / 4 * 2;
            [coded[..middle].to_vec(), coded[middle..].to_vec()]
        })
        .collect();
    // Without a table, by the first bytes of a JPEG stream.
    assert!(is_near(&greys(&made().fragments(uids::JPEG_BASELINE8_BIT, vec![], halves.clone())), all));
    let mut offsets = Vec::new();
    let mut at = 0;
    for pair in halves.chunks(2) {
        offsets.push(at);
        at += pair.iter().map(|half| 8 + half.len().next_multiple_of(2) as u32).sum::<u32>();
    }
    assert!(is_near(&greys(&made().fragments(uids::JPEG_BASELINE8_BIT, offsets, halves)), all));
}

#[test]
fn a_corrupt_frame_among_good_ones_is_one_error() {
    let mut coded = jpegs();
    coded[1].truncate(100);
    coded[2] = jpeg(8, 8, &[120; 64]);
    let made = Made::new(16, 8, "MONOCHROME2").frames(4).fragments(uids::JPEG_BASELINE8_BIT, vec![], coded);
    assert!(is_near(&greys(&made), [Some(40), None, None, Some(160)]));
    let errors: Vec<String> =
        frames_of(&made).into_iter().filter_map(|frame| Some(frame.err()?.to_string())).collect();
    assert!(errors[0].contains("frame 1: its JPEG data is damaged or ends early"), "{errors:?}");
    assert!(
        errors[1].contains("frame 2: its JPEG data is 8x8 with 1 samples a pixel, the file says 16x8"),
        "{errors:?}"
    );
    let runs = [
        run_lengths(&[vec![9; 128]]),
        vec![0; 10],
        run_lengths(&[vec![9; 100]]),
        run_lengths(&[vec![7; 128]]),
    ];
    let made = Made::new(16, 8, "MONOCHROME2").frames(4).fragments(uids::RLE_LOSSLESS, vec![], runs.into());
    assert_eq!(greys(&made), [Some(9), None, None, Some(7)]);
}
