//! A PNG mask as the numbers that its maker wrote: palette indices and grey values as they are, colours as colours.
//! (Readers for pictures replace a palette's index by its colour, and stretch 1-bit values to 255.)

use std::fmt;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use png::{BitDepth, ColorType};
use thiserror::Error;
use ultramotion_media::MediaError;

/// A pixel of a mask: a grey value or palette index, or a colour that is not grey.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum MaskValue {
    /// Palette index, or grey value of up to 16 bits.
    Number(u16),
    /// Red, green, blue.
    Colour([u8; 3]),
}

impl MaskValue {
    /// No object.
    pub(crate) const BACKGROUND: MaskValue = MaskValue::Number(0);

    /// A colour; one whose parts are equal is a grey value.
    pub(crate) fn colour(rgb: [u8; 3]) -> Self {
        let [r, g, b] = rgb;
        if r == g && g == b { MaskValue::Number(r.into()) } else { MaskValue::Colour(rgb) }
    }
}

impl fmt::Display for MaskValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MaskValue::Number(value) => write!(f, "{value}"),
            MaskValue::Colour([r, g, b]) => write!(f, "#{r:02x}{g:02x}{b:02x}"),
        }
    }
}

/// The values of a mask, `[height, width]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MaskImage {
    pub width: usize,
    pub height: usize,
    pub values: Vec<MaskValue>,
}

/// Why a mask cannot be read.
#[derive(Debug, Error)]
pub enum MaskFileError {
    /// It cannot be opened.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// It is no PNG, or a broken one.
    #[error("the mask {path} is no PNG that can be read ({reason}): save masks as PNG, one value a class", path = path.display())]
    Damaged {
        /// The mask.
        path: PathBuf,
        /// What the decoder says.
        reason: String,
    },
    /// It has not the size of its image.
    #[error(
        "the mask {path} is {width}x{height} pixels, but its image is {image_width}x{image_height}: masks have the size of \
         their images", path = path.display()
    )]
    Size {
        /// The mask.
        path: PathBuf,
        /// Its width.
        width: u32,
        /// Its height.
        height: u32,
        /// The image's width.
        image_width: usize,
        /// The image's height.
        image_height: usize,
    },
}

/// Reads the mask of an image of the given width and height. With `by_colour` a palette's indices are replaced by their
/// colours.
pub(crate) fn read(path: &Path, image_wh: [usize; 2], by_colour: bool) -> Result<MaskImage, MaskFileError> {
    let damaged = |error: png::DecodingError| {
        let reason: String =
            error.to_string().trim_end_matches('.').chars().filter(|c| !c.is_control()).take(120).collect();
        MaskFileError::Damaged { path: path.to_owned(), reason }
    };
    let file = File::open(path).map_err(|source| {
        let path = path.to_owned();
        MediaError::Io { action: "open the mask", path, source }
    })?;
    let mut decoder = png::Decoder::new(BufReader::new(file));
    decoder.set_transformations(png::Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(damaged)?;
    let info = reader.info();
    let [width, height] = image_wh;
    // Before anything is allocated: the image's size is known to be real.
    if (info.width as usize, info.height as usize) != (width, height) {
        return Err(MaskFileError::Size {
            path: path.to_owned(),
            width: info.width,
            height: info.height,
            image_width: width,
            image_height: height,
        });
    }
    let palette: Vec<[u8; 3]> =
        info.palette.iter().flat_map(|palette| palette.as_chunks::<3>().0).copied().collect();
    let (colour_type, depth) = (info.color_type, info.bit_depth);
    let too_large = || MaskFileError::Damaged { path: path.to_owned(), reason: "it is too large".into() };
    let mut bytes = vec![0; reader.output_buffer_size().ok_or_else(too_large)?];
    let frame = reader.next_frame(&mut bytes).map_err(damaged)?;

    let samples = colour_type.samples();
    let mut values = Vec::with_capacity(width * height);
    for row in bytes.chunks_exact(frame.line_size.max(1)).take(height) {
        let sample = |at: usize| sample(row, at, depth);
        for x in 0..width {
            let first = x * samples;
            values.push(match colour_type {
                ColorType::Grayscale | ColorType::GrayscaleAlpha => MaskValue::Number(sample(first)),
                ColorType::Indexed if by_colour => {
                    let rgb = palette.get(usize::from(sample(first))).copied();
                    MaskValue::colour(rgb.unwrap_or_default())
                }
                ColorType::Indexed => MaskValue::Number(sample(first)),
                ColorType::Rgb | ColorType::Rgba => {
                    let wide = depth == BitDepth::Sixteen;
                    let part = |i: usize| if wide { sample(first + i) / 257 } else { sample(first + i) };
                    MaskValue::colour([0, 1, 2].map(|i| part(i) as u8))
                }
            });
        }
    }
    Ok(MaskImage { width, height, values })
}

/// A sample of a row, as PNG packs it: the leftmost in the highest bits (PNG specification, section 7.2).
fn sample(row: &[u8], at: usize, depth: BitDepth) -> u16 {
    let packed = |bits: usize| {
        let at_bit = at * bits;
        let byte = row[at_bit / 8];
        u16::from(byte >> (8 - bits - at_bit % 8)) & ((1 << bits) - 1)
    };
    match depth {
        BitDepth::One => packed(1),
        BitDepth::Two => packed(2),
        BitDepth::Four => packed(4),
        BitDepth::Eight => u16::from(row[at]),
        BitDepth::Sixteen => u16::from_be_bytes([row[2 * at], row[2 * at + 1]]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, colour: ColorType, depth: BitDepth, palette: Option<Vec<u8>>, bytes: &[u8]) {
        let mut encoder = png::Encoder::new(File::create(path).unwrap(), 3, 2);
        encoder.set_color(colour);
        encoder.set_depth(depth);
        if let Some(palette) = palette {
            encoder.set_palette(palette);
        }
        encoder.write_header().unwrap().write_image_data(bytes).unwrap();
    }

    #[test]
    fn every_kind_of_png_gives_the_numbers_that_were_written() {
        use MaskValue::Number;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mask.png");
        let numbers = [0, 1, 2, 1, 0, 1].map(Number);
        let palette = || Some(vec![0, 0, 0, 200, 10, 10, 9, 9, 9]);
        let cases = [
            (ColorType::Grayscale, BitDepth::Eight, None, vec![0, 1, 2, 1, 0, 1]),
            (ColorType::Grayscale, BitDepth::Two, None, vec![0b0001_1000, 0b0100_0100]),
            (ColorType::Grayscale, BitDepth::Sixteen, None, vec![0, 0, 0, 1, 0, 2, 0, 1, 0, 0, 0, 1]),
            (ColorType::Indexed, BitDepth::Eight, palette(), vec![0, 1, 2, 1, 0, 1]),
            (ColorType::Indexed, BitDepth::Four, palette(), vec![0x01, 0x20, 0x10, 0x10]),
            (ColorType::GrayscaleAlpha, BitDepth::Eight, None, vec![0, 9, 1, 9, 2, 9, 1, 9, 0, 9, 1, 9]),
        ];
        for (colour, depth, palette, bytes) in cases {
            write(&path, colour, depth, palette, &bytes);
            assert_eq!(read(&path, [3, 2], false).unwrap().values, numbers, "{colour:?} {depth:?}");
        }
        write(&path, ColorType::Grayscale, BitDepth::One, None, &[0b0100_0000, 0b1010_0000]);
        assert_eq!(read(&path, [3, 2], false).unwrap().values, [0, 1, 0, 1, 0, 1].map(Number));

        let red = MaskValue::Colour([200, 10, 10]);
        write(&path, ColorType::Indexed, BitDepth::Eight, palette(), &[0, 1, 2, 1, 0, 1]);
        let by_colour = read(&path, [3, 2], true).unwrap().values;
        assert_eq!(by_colour, [Number(0), red, Number(9), red, Number(0), red]);
        let rgb = [[0, 0, 0], [200, 10, 10], [9, 9, 9]];
        let bytes: Vec<u8> = [0, 1, 2, 1, 0, 1].iter().flat_map(|&i| rgb[i]).collect();
        write(&path, ColorType::Rgb, BitDepth::Eight, None, &bytes);
        assert_eq!(read(&path, [3, 2], false).unwrap().values, by_colour);
    }

    #[test]
    fn what_is_wrong_is_said_before_memory_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mask.png");
        assert!(matches!(read(&path, [3, 2], false), Err(MaskFileError::Media(_))));
        write(&path, ColorType::Grayscale, BitDepth::Eight, None, &[0; 6]);
        let error = read(&path, [2, 3], false).unwrap_err().to_string();
        assert!(error.contains("is 3x2 pixels, but its image is 2x3"), "{error}");
        let whole = std::fs::read(&path).unwrap();
        for cut in [0, 7, 30, whole.len() / 2 + 4] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert!(matches!(read(&path, [3, 2], false), Err(MaskFileError::Damaged { .. })), "{cut}");
        }
        // A header that claims more than there can be.
        let mut enormous = whole;
        enormous[16..24].copy_from_slice(&[0x7F, 0xFF, 0xFF, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF]);
        std::fs::write(&path, &enormous).unwrap();
        assert!(read(&path, [3, 2], false).is_err());
    }
}
