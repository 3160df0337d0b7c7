//! DICOM as a source of frames.

// Helpers of tests fail by panicking, and say why they skip.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod damage;
mod make;
mod oracle;
mod pixels;
mod study;

use tempfile::TempDir;
use ultramotion_media::MediaError;
use ultramotion_media::source::{DicomFiles, DicomOptions, frames};
use ultramotion_types::{Frame, PixelFormat};

use crate::make::Made;

fn options(series: Option<&str>) -> DicomOptions {
    DicomOptions { series: series.map(str::to_owned), ..DicomOptions::default() }
}

/// The file, in a folder that lives as long as it is read.
fn open_made(made: &Made, options: &DicomOptions) -> (TempDir, DicomFiles) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("made.dcm");
    made.write(&path);
    let source = DicomFiles::open(&path, options).unwrap();
    (folder, source)
}

fn frames_of(made: &Made) -> Vec<Result<Frame, MediaError>> {
    let (_folder, source) = open_made(made, &DicomOptions::default());
    frames(Box::new(source)).collect()
}

/// Format and pixels of the first frame.
fn pixels_of(made: &Made) -> (PixelFormat, Vec<u8>) {
    let frame = frames_of(made).swap_remove(0).unwrap();
    (frame.pixel_format, frame.pixels)
}
