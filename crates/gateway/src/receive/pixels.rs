//! An IMAGE's pixels as the pipeline takes them.
//!
//! | IMAGE | becomes |
//! |---|---|
//! | 1 component, uint8 | grey, as it is |
//! | 3 components, uint8 | red, green, blue, as it is |
//! | 1 component, uint16 or int16, with a window | grey: the window's ends become black and white |
//! | anything else | nothing: named and counted |

use thiserror::Error;
use ultramotion_igtlink::{Endian, Image, ScalarType};
use ultramotion_types::{MAX_SIDE_PX, PixelFormat};

use crate::books::DropReason;

/// Why an IMAGE is no frame.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
pub enum PixelError {
    /// No pixels, or more than a frame may have.
    #[error("an image of {width}x{height} pixels; 1x1 to {MAX_SIDE_PX}x{MAX_SIDE_PX} are taken")]
    Size {
        /// Pixels in a row.
        width: u16,
        /// Rows.
        height: u16,
    },
    /// More than one slice.
    #[error("a volume of {slices} slices; only single frames are taken")]
    Volume {
        /// Slices.
        slices: u16,
    },
    /// A part of an image.
    #[error("a message with only a part of its image ({part:?} of {whole:?} pixels); whole frames are taken")]
    Part {
        /// What it carries.
        part: [u16; 3],
        /// The image.
        whole: [u16; 3],
    },
    /// Pixels of a type that is not taken.
    #[error(
        "pixels of {components} components of type {scalar:?}; 8-bit grey and RGB are taken, and 16-bit grey with source.window"
    )]
    Type {
        /// Numbers of a pixel.
        components: u8,
        /// Type of each.
        scalar: ScalarType,
    },
    /// There is no memory for the frame.
    #[error("there is no memory for an image of {width}x{height} pixels; send smaller ones")]
    Memory {
        /// Pixels in a row.
        width: u16,
        /// Rows.
        height: u16,
    },
}

impl PixelError {
    /// As it stands in the books.
    pub fn reason(&self) -> DropReason {
        match self {
            PixelError::Size { .. } | PixelError::Memory { .. } => DropReason::Size,
            PixelError::Volume { .. } | PixelError::Part { .. } => DropReason::Volume,
            PixelError::Type { .. } => DropReason::PixelType,
        }
    }
}

/// Writes an image's pixels to `pixels` as 8 bits a sample, rows from the top, reusing its memory.
pub fn write_pixels(
    image: &Image<'_>,
    window: Option<[f64; 2]>,
    pixels: &mut Vec<u8>,
) -> Result<PixelFormat, PixelError> {
    let [width, height, slices] = image.size;
    if slices > 1 {
        return Err(PixelError::Volume { slices });
    }
    let fits = |side: u16| (1..=MAX_SIDE_PX).contains(&usize::from(side));
    if !fits(width) || !fits(height) || slices == 0 {
        return Err(PixelError::Size { width, height });
    }
    if !image.is_whole() {
        return Err(PixelError::Part { part: image.subvolume_size, whole: image.size });
    }
    pixels.clear();
    pixels.try_reserve(image.pixels.len()).map_err(|_| PixelError::Memory { width, height })?;
    let (components, scalar) = (image.components, image.scalar);
    match (components, scalar, window) {
        (1, ScalarType::Uint8, _) => pixels.extend_from_slice(&image.pixels),
        (3, ScalarType::Uint8, _) => {
            pixels.extend_from_slice(&image.pixels);
            return Ok(PixelFormat::Rgb8);
        }
        (1, ScalarType::Uint16 | ScalarType::Int16, Some(window)) => {
            let bytes = |b: [u8; 2]| match image.endian {
                Endian::Big => u16::from_be_bytes(b),
                Endian::Little => u16::from_le_bytes(b),
            };
            let signed = scalar == ScalarType::Int16;
            pixels.extend(image.pixels.as_chunks::<2>().0.iter().map(|&pair| {
                let bits = bytes(pair);
                windowed(if signed { f64::from(bits.cast_signed()) } else { f64::from(bits) }, window)
            }));
        }
        _ => return Err(PixelError::Type { components, scalar }),
    }
    Ok(PixelFormat::Grey8)
}

/// 0 at the window's lower end and below, 255 at its upper end and above, linear between.
fn windowed(value: f64, [black, white]: [f64; 2]) -> u8 {
    // A float-to-integer cast saturates.
    (255.0 * (value - black) / (white - black)).round() as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_bits_are_taken_as_they_are() {
        let mut pixels = vec![9; 100];
        let image = Image::grey8(3, 2, vec![1, 2, 3, 4, 5, 6]);
        assert_eq!(write_pixels(&image, None, &mut pixels), Ok(PixelFormat::Grey8));
        assert_eq!(pixels, [1, 2, 3, 4, 5, 6]);
        let image = Image::new(ScalarType::Uint8, 3, [1, 2, 1], vec![1, 2, 3, 4, 5, 6]);
        assert_eq!(write_pixels(&image, None, &mut pixels), Ok(PixelFormat::Rgb8));
        assert_eq!(pixels, [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn sixteen_bits_go_through_the_window_in_either_byte_order() {
        let values = [-5i16, 0, 50, 100, 3000];
        for endian in [Endian::Big, Endian::Little] {
            let bytes = |v: i16| if endian == Endian::Big { v.to_be_bytes() } else { v.to_le_bytes() };
            let mut image =
                Image::new(ScalarType::Int16, 1, [5, 1, 1], values.map(bytes).as_flattened().to_vec());
            image.endian = endian;
            let mut pixels = Vec::new();
            write_pixels(&image, Some([0.0, 100.0]), &mut pixels).unwrap();
            assert_eq!(pixels, [0, 0, 128, 255, 255]);
            image.scalar = ScalarType::Uint16;
            write_pixels(&image, Some([0.0, 100.0]), &mut pixels).unwrap();
            assert_eq!(pixels, [255, 0, 128, 255, 255]);
            let refused = write_pixels(&image, None, &mut pixels).unwrap_err();
            assert_eq!(refused.reason(), DropReason::PixelType);
        }
    }

    #[test]
    fn what_is_no_frame_is_named() {
        let mut pixels = Vec::new();
        let refused = |image: &Image<'_>, pixels: &mut Vec<u8>| {
            write_pixels(image, Some([0.0, 1.0]), pixels).unwrap_err().reason()
        };
        for size in [[0, 4, 1], [4, 0, 1], [4, 4, 0], [65535, 1, 1]] {
            let bytes = size.iter().map(|&n| usize::from(n)).product();
            let image = Image::new(ScalarType::Uint8, 1, size, vec![0; bytes]);
            assert_eq!(refused(&image, &mut pixels), DropReason::Size, "{size:?}");
        }
        let volume = Image::new(ScalarType::Uint8, 1, [2, 2, 3], vec![0; 12]);
        assert_eq!(refused(&volume, &mut pixels), DropReason::Volume);
        let mut part = Image::grey8(4, 4, vec![0; 4]);
        part.subvolume_size = [2, 2, 1];
        assert_eq!(refused(&part, &mut pixels), DropReason::Volume);
        for (scalar, components) in
            [(ScalarType::Float32, 1), (ScalarType::Uint8, 2), (ScalarType::Uint8, 4), (ScalarType::Int8, 1)]
        {
            let bytes = usize::from(components) * scalar.size_bytes();
            let image = Image::new(scalar, components, [1, 1, 1], vec![0; bytes]);
            assert_eq!(refused(&image, &mut pixels), DropReason::PixelType, "{scalar:?} {components}");
        }
    }
}
