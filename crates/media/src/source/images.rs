//! PNG, JPEG, BMP, TIFF, WebP and GIF files, one or a folder of them. Of a file in a folder the first picture counts.
//!
//! Grey stays grey, colour stays colour; transparency is dropped. 16-bit samples are scaled from their full range
//! (65535 becomes 255), which is what the PNG standard says a sample means and does not depend on content. A picture that says by
//! EXIF that it is to be turned is turned.

use std::cmp::Ordering;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use super::FrameSource;
use crate::error::MediaError;
use ultramotion_types::{Frame, MAX_SIDE_PX, PixelFormat};

/// Endings of files that hold one image each, in lower case.
pub(crate) const SINGLE_ENDINGS: [&str; 5] = ["png", "jpg", "jpeg", "bmp", "webp"];
/// Endings of those that may hold several.
const PAGED_ENDINGS: [&str; 3] = ["tif", "tiff", "gif"];

/// Whether a name has an image's ending, in any case of letters.
pub fn is_image_name(name: &Path) -> bool {
    let ending = name.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
    ending.is_some_and(|ending| SINGLE_ENDINGS.iter().chain(&PAGED_ENDINGS).any(|known| *known == ending))
}

/// A larger file holds no image of a size that is read.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// The most that a picture may take while it is decoded.
const MAX_DECODED_BYTES: u64 = (MAX_SIDE_PX * MAX_SIDE_PX * 8) as u64;

/// Deflate cannot make more of a byte than this.
const MAX_INFLATION: u64 = 1032;

/// Images as a source, in the order of their names.
#[derive(Debug)]
pub struct ImageFiles {
    name: String,
    is_folder: bool,
    paths: Vec<PathBuf>,
    next: usize,
    nominal_frames_per_second: f64,
}

impl ImageFiles {
    /// One image. It is read when its frame is.
    pub fn open_file(path: &Path) -> Result<Self, MediaError> {
        std::fs::metadata(path).map_err(MediaError::io("open", path))?;
        Ok(Self::new(path, false, vec![path.to_owned()]))
    }

    /// The images of a folder; without any it is an error.
    pub fn open_folder(path: &Path) -> Result<Self, MediaError> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(path).map_err(MediaError::io("open", path))? {
            let entry = entry.map_err(MediaError::io("read", path))?;
            let name = entry.file_name();
            let is_image = is_image_name(Path::new(&name));
            let is_hidden = name.to_string_lossy().starts_with('.');
            if is_image && !is_hidden && !entry.path().is_dir() {
                paths.push(entry.path());
            }
        }
        if paths.is_empty() {
            return Err(MediaError::EmptyFolder { path: path.to_owned() });
        }
        paths.sort_by(|a, b| compare_names(&a.to_string_lossy(), &b.to_string_lossy()));
        Ok(Self::new(path, true, paths))
    }

    fn new(path: &Path, is_folder: bool, paths: Vec<PathBuf>) -> Self {
        Self {
            name: path.display().to_string(),
            is_folder,
            paths,
            next: 0,
            nominal_frames_per_second: super::NOMINAL_FRAMES_PER_SECOND,
        }
    }

    /// The files, in the order in which they are read.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }
}

impl FrameSource for ImageFiles {
    fn name(&self) -> &str {
        &self.name
    }

    fn description(&self) -> String {
        if self.is_folder { "folder of images".into() } else { "image".into() }
    }

    fn frame_count_hint(&self) -> Option<u64> {
        Some(self.paths.len() as u64)
    }

    fn read_into(&mut self, frame: &mut Frame) -> Option<Result<(), MediaError>> {
        let path = self.paths.get(self.next)?;
        let frame_id = self.next as u64;
        self.next += 1;
        Some(decode(path, frame_id).map(|(width, height, pixel_format, pixels)| {
            *frame = Frame {
                frame_id,
                timestamp_s: frame_id as f64 / self.nominal_frames_per_second,
                source: path.display().to_string(),
                width,
                height,
                pixel_format,
                pixels,
                ..Frame::default()
            };
        }))
    }

    fn rewind(&mut self) -> Result<(), MediaError> {
        self.next = 0;
        Ok(())
    }

    fn set_nominal_frames_per_second(&mut self, frames_per_second: f64) {
        self.nominal_frames_per_second = frames_per_second;
    }
}

fn decode(path: &Path, frame_id: u64) -> Result<(usize, usize, PixelFormat, Vec<u8>), MediaError> {
    let corrupt = |problem: &str| MediaError::corrupt(path, frame_id, problem);
    let metadata = std::fs::metadata(path).map_err(MediaError::io("open", path))?;
    if !metadata.is_file() {
        return Err(corrupt("it is not a file"));
    }
    if metadata.len() == 0 {
        return Err(corrupt("the file is empty"));
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(corrupt("the file is larger than 1 GiB, which no image of a readable size is"));
    }
    let bytes = std::fs::read(path).map_err(MediaError::io("read", path))?;
    let reader =
        ImageReader::new(Cursor::new(&bytes)).with_guessed_format().map_err(MediaError::io("read", path))?;
    let kind = match reader.format() {
        Some(ImageFormat::Png) => "PNG",
        Some(ImageFormat::Jpeg) if jpeg_ends(&bytes) => "JPEG",
        Some(ImageFormat::Jpeg) => return Err(corrupt("the JPEG data ends early, copy the file again")),
        Some(ImageFormat::Bmp) => "BMP",
        Some(ImageFormat::Tiff) => "TIFF",
        Some(ImageFormat::WebP) => "WebP",
        Some(ImageFormat::Gif) => "GIF",
        _ => return Err(corrupt("the content is none of PNG, JPEG, BMP, TIFF, WebP and GIF")),
    };
    let explain = |error: image::ImageError| {
        let reason = error.to_string();
        // One line, and no more than a reader wants to read.
        let reason: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).take(120).collect();
        MediaError::corrupt(path, frame_id, format!("the {kind} data is damaged or cut short ({reason})"))
    };
    let mut decoder = reader.into_decoder().map_err(explain)?;
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    decoder.set_limits(limits).map_err(explain)?;
    let (width, height) = decoder.dimensions();
    let limit = 1..=MAX_SIDE_PX as u32;
    if !limit.contains(&width) || !limit.contains(&height) {
        return Err(MediaError::Size { path: path.to_owned(), width: width.into(), height: height.into() });
    }
    // One bit is the least a pixel takes in a PNG.
    let least_raw_bytes = u64::from(width).div_ceil(8) * u64::from(height);
    if kind == "PNG" && least_raw_bytes > (bytes.len() as u64).saturating_mul(MAX_INFLATION) {
        let problem = format!("a PNG file of {} bytes cannot hold {width}x{height} pixels", bytes.len());
        return Err(corrupt(&problem));
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(explain)?;
    image.apply_orientation(orientation);
    let (width, height) = (image.width(), image.height());
    let (format, pixels) = match image {
        DynamicImage::ImageLuma8(grey) => (PixelFormat::Grey8, grey.into_raw()),
        DynamicImage::ImageLumaA8(grey) => (PixelFormat::Grey8, grey.pixels().map(|p| p.0[0]).collect()),
        DynamicImage::ImageLuma16(grey) => {
            (PixelFormat::Grey8, grey.pixels().map(|p| narrow(p.0[0])).collect())
        }
        DynamicImage::ImageLumaA16(grey) => {
            (PixelFormat::Grey8, grey.pixels().map(|p| narrow(p.0[0])).collect())
        }
        DynamicImage::ImageRgb16(colour) => {
            (PixelFormat::Rgb8, colour.into_raw().into_iter().map(narrow).collect())
        }
        DynamicImage::ImageRgba16(colour) => {
            (PixelFormat::Rgb8, colour.pixels().flat_map(|p| [p.0[0], p.0[1], p.0[2]].map(narrow)).collect())
        }
        other => (PixelFormat::Rgb8, other.into_rgb8().into_raw()),
    };
    Ok((width as usize, height as usize, format, pixels))
}

/// A 16-bit sample in 8 bits.
pub(super) fn narrow(value: u16) -> u8 {
    ((u32::from(value) + 128) / 257) as u8
}

/// Whether the picture's data is closed by an end marker. (Decoders fill what is missing with grey.)
///
/// Walks the segments (ITU-T T.81, B.1.1) to the first scan; an end marker before it would be a thumbnail's.
pub(super) fn jpeg_ends(bytes: &[u8]) -> bool {
    let mut at = 2;
    loop {
        let Some(&[0xFF, marker]) = bytes.get(at..at + 2) else { return false };
        if marker == 0xFF {
            at += 1;
            continue;
        }
        let Some(&[high, low]) = bytes.get(at + 2..at + 4) else { return false };
        at += 2 + usize::from(u16::from_be_bytes([high, low]));
        if marker == 0xDA {
            // In a scan 0xFF is followed by 0, so this pair is the marker.
            return bytes.get(at..).is_some_and(|scan| scan.windows(2).any(|pair| pair == [0xFF, 0xD9]));
        }
    }
}

/// By characters, but runs of digits by their value.
pub(super) fn compare_names(a: &str, b: &str) -> Ordering {
    let (mut rest_a, mut rest_b) = (a, b);
    loop {
        let (Some(first_a), Some(first_b)) = (rest_a.chars().next(), rest_b.chars().next()) else {
            // The shorter first; names equal but for leading zeros keep a fixed order.
            return rest_a.len().cmp(&rest_b.len()).then_with(|| a.cmp(b));
        };
        if first_a.is_ascii_digit() && first_b.is_ascii_digit() {
            let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
            let ((number_a, tail_a), (number_b, tail_b)) =
                (rest_a.split_at(digits(rest_a)), rest_b.split_at(digits(rest_b)));
            let (value_a, value_b) = (number_a.trim_start_matches('0'), number_b.trim_start_matches('0'));
            match value_a.len().cmp(&value_b.len()).then_with(|| value_a.cmp(value_b)) {
                Ordering::Equal => (rest_a, rest_b) = (tail_a, tail_b),
                unequal => return unequal,
            }
        } else if first_a != first_b {
            return first_a.cmp(&first_b);
        } else {
            (rest_a, rest_b) = (&rest_a[first_a.len_utf8()..], &rest_b[first_b.len_utf8()..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::compare_names;

    #[test]
    fn names_sort_as_people_expect() {
        let mut names = ["b1.png", "a10.png", "a9.png", "a09.png", "a.png", "a9b.png", "A1.png", "é2", "é10"];
        names.sort_by(|a, b| compare_names(a, b));
        assert_eq!(
            names,
            ["A1.png", "a.png", "a09.png", "a9.png", "a9b.png", "a10.png", "b1.png", "é2", "é10"]
        );
    }
}
