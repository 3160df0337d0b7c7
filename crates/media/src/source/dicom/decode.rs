//! Coded pixels to samples, one frame at a time, each held against what the file says of its frames first.

use jpeg_decoder::{ColorTransform, Decoder, PixelFormat};

use super::pixels::{Colour, Decoded, Layout};
use super::transfer::Coding;

/// Frames of more bytes than this are not decoded from so few bytes that no picture comes out of them.
const FREE_BYTES: usize = 64 << 20;
const MAX_EXPANSION: usize = 256;

/// Decodes the bytes of one frame into samples, 16-bit ones with the low byte first; an error says what is wrong with it.
pub(super) fn decode(
    coding: Coding,
    layout: &Layout,
    big_endian: bool,
    encoded: &mut Vec<u8>,
    samples: &mut Vec<u8>,
) -> Result<Decoded, String> {
    if coding != Coding::Native
        && layout.frame_bytes() > FREE_BYTES.max(encoded.len().saturating_mul(MAX_EXPANSION))
    {
        return Err(format!("{} coded bytes are too few for a frame of its size", encoded.len()));
    }
    match coding {
        Coding::Native => {
            // A fragment may be padded to an even length.
            if encoded.len() < layout.native_bytes() {
                return Err("its pixels are fewer than its size asks for".to_owned());
            }
            std::mem::swap(samples, encoded);
            samples.truncate(layout.native_bytes());
            if big_endian && layout.sample_bytes() == 2 {
                samples.as_chunks_mut::<2>().0.iter_mut().for_each(|word| word.reverse());
            }
            Ok(Decoded { colour: layout.colour, planar: layout.planar })
        }
        Coding::Rle => {
            run_lengths(encoded, layout, samples)?;
            Ok(Decoded { colour: layout.coded_colour(), planar: true })
        }
        Coding::Jpeg => jpeg(encoded, layout, samples),
        Coding::Jpeg2000 => jpeg_2000(encoded, layout, samples),
    }
}

/// PS3.5 annex G: a table of segments, each a plane of bytes, the high byte of a sample first.
fn run_lengths(encoded: &[u8], layout: &Layout, samples: &mut Vec<u8>) -> Result<(), String> {
    let damaged = || "its run-length coded pixels are damaged or cut short".to_owned();
    let (pixels, sample_bytes) = (layout.width * layout.height, layout.sample_bytes());
    let table: Vec<usize> = encoded
        .get(..64)
        .ok_or_else(damaged)?
        .as_chunks()
        .0
        .iter()
        .map(|word| u32::from_le_bytes(*word) as usize)
        .collect();
    let segments = layout.channels * sample_bytes;
    if table[0] != segments {
        return Err(format!("it has {} planes of run lengths where its pixels need {segments}", table[0]));
    }
    zeros(samples, layout.frame_bytes())?;
    for segment in 0..segments {
        let end = if segment + 1 < segments { table[segment + 2] } else { encoded.len() };
        let mut coded = encoded.get(table[segment + 1]..end).ok_or_else(damaged)?;
        let (plane, byte) = (segment / sample_bytes, sample_bytes - 1 - segment % sample_bytes);
        let plane = &mut samples[plane * pixels * sample_bytes..][..pixels * sample_bytes];
        let mut to = plane.iter_mut().skip(byte).step_by(sample_bytes);
        let mut left = pixels;
        while left > 0 {
            let (&code, rest) = coded.split_first().ok_or_else(damaged)?;
            let code = code as i8;
            let count = code.unsigned_abs() as usize + 1;
            match code {
                // No operation.
                i8::MIN => coded = rest,
                0.. => {
                    let (literal, rest) = rest.split_at_checked(count).ok_or_else(damaged)?;
                    to.by_ref().zip(literal).for_each(|(to, &value)| *to = value);
                    (coded, left) = (rest, left.saturating_sub(count));
                }
                _ => {
                    let (&value, rest) = rest.split_first().ok_or_else(damaged)?;
                    to.by_ref().take(count).for_each(|to| *to = value);
                    (coded, left) = (rest, left.saturating_sub(count));
                }
            }
        }
    }
    Ok(())
}

fn jpeg(encoded: &[u8], layout: &Layout, samples: &mut Vec<u8>) -> Result<Decoded, String> {
    let explain = |error: jpeg_decoder::Error| match error {
        jpeg_decoder::Error::Unsupported(_) => {
            "it is of a kind of JPEG that is not decoded: write it anew by `dcmdjpeg IN OUT` of DCMTK"
                .to_owned()
        }
        _ => "its JPEG data is damaged".to_owned(),
    };
    // A decoder fills what is missing with grey.
    if !crate::source::images::jpeg_ends(encoded) {
        return Err("its JPEG data is damaged or ends early: copy the file again".to_owned());
    }
    let mut decoder = Decoder::new(encoded);
    decoder.read_info().map_err(explain)?;
    let info = decoder.info().ok_or("its JPEG data has no header")?;
    let channels = match info.pixel_format {
        PixelFormat::L8 | PixelFormat::L16 => 1,
        PixelFormat::RGB24 => 3,
        PixelFormat::CMYK32 => 4,
    };
    layout.check("JPEG", info.width.into(), info.height.into(), channels)?;
    if (info.pixel_format == PixelFormat::L16) != (layout.sample_bytes() == 2) {
        return Err("its JPEG data has samples of another size than the file says".to_owned());
    }
    // As stored: the decoder's own guess at their meaning does not know the file.
    if channels == 3 {
        decoder.set_color_transform(ColorTransform::RGB);
    }
    decoder.set_max_decoding_buffer_size(layout.frame_bytes());
    *samples = decoder.decode().map_err(explain)?;
    if samples.len() != layout.frame_bytes() {
        return Err("its JPEG data is damaged".to_owned());
    }
    if cfg!(target_endian = "big") && layout.sample_bytes() == 2 {
        samples.as_chunks_mut::<2>().0.iter_mut().for_each(|word| word.reverse());
    }
    let colour = match (channels, says_luminance(encoded)) {
        (3, Some(true)) => Colour::YbrFull,
        (3, Some(false)) => Colour::Rgb,
        (3, None) if layout.colour != Colour::Rgb => Colour::YbrFull,
        _ => layout.colour,
    };
    Ok(Decoded { colour, planar: false })
}

/// Whether the components of a JPEG stream are luminance and colour differences, where it says so itself: by a JFIF segment, or by
/// the transform in an Adobe one.
fn says_luminance(encoded: &[u8]) -> Option<bool> {
    let mut at = 2;
    while let Some(&[0xFF, marker, high, low]) = encoded.get(at..at + 4) {
        let body = encoded.get(at + 4..).unwrap_or_default();
        match marker {
            0xE0 if body.starts_with(b"JFIF") => return Some(true),
            0xEE if body.starts_with(b"Adobe") => return body.get(11).map(|&transform| transform != 0),
            0xDA => return None,
            _ => at += 2 + usize::from(u16::from_be_bytes([high, low])),
        }
    }
    None
}

/// ISO/IEC 15444-1. Of a JP2 file only the codestream counts: what it means, the DICOM header says.
fn jpeg_2000(encoded: &[u8], layout: &Layout, samples: &mut Vec<u8>) -> Result<Decoded, String> {
    let damaged = |_| {
        "its JPEG 2000 data is damaged or of a kind that is not decoded: write it anew by `gdcmconv --raw IN OUT`".to_owned()
    };
    let start = encoded
        .windows(4)
        .position(|bytes| bytes == [0xFF, 0x4F, 0xFF, 0x51])
        .ok_or("its JPEG 2000 data has no beginning")?;
    let stream = &encoded[start..];
    let settings = hayro_jpeg2000::DecodeSettings { strict: true, ..Default::default() };
    // The number of components is asked for before the decoder makes room for them.
    let channels =
        stream.get(40..42).map_or(0, |count| usize::from(u16::from_be_bytes([count[0], count[1]])));
    let image = hayro_jpeg2000::Image::new(stream, &settings).map_err(damaged)?;
    layout.check("JPEG 2000", image.width(), image.height(), channels)?;
    let mut context = hayro_jpeg2000::DecoderContext::default();
    let decoded = image.decode(&mut context).map_err(damaged)?;
    let pixels = layout.width * layout.height;
    zeros(samples, layout.frame_bytes())?;
    let sample_bytes = layout.sample_bytes();
    let step = layout.channels * sample_bytes;
    for (channel, component) in decoded.components().iter().take(layout.channels).enumerate() {
        if component.samples().len() != pixels || usize::from(component.bit_depth()) > 8 * sample_bytes {
            return Err("its JPEG 2000 data has components of another size than the file says".to_owned());
        }
        // The decoder shifts all components as if they had no sign; what was lost in coding may carry values over their range.
        let is_signed = stream.get(42 + 3 * channel).is_some_and(|depth| depth & 0x80 != 0);
        let levels = 2f32.powi(component.bit_depth().into());
        let shift = if is_signed { levels / 2.0 } else { 0.0 };
        for (pixel, &value) in samples.chunks_exact_mut(step).zip(component.samples()) {
            let value = ((value.round().clamp(0.0, levels - 1.0) - shift) as i32).to_le_bytes();
            pixel[channel * sample_bytes..][..sample_bytes].copy_from_slice(&value[..sample_bytes]);
        }
    }
    Ok(Decoded { colour: layout.coded_colour(), planar: false })
}

/// As many zeros as a frame has bytes.
fn zeros(samples: &mut Vec<u8>, bytes: usize) -> Result<(), String> {
    samples.clear();
    samples.try_reserve_exact(bytes).map_err(|_| format!("there is no memory for {bytes} bytes"))?;
    samples.resize(bytes, 0);
    Ok(())
}
