//! Samples of a file to the 8-bit pixels of a frame (PS3.3 sections C.7.6.3 and C.11).

use dicom_dictionary_std::tags;

use super::elements::DataSet;
use super::palette::Palette;
use crate::error::printable;
use ultramotion_types::{Frame, MAX_SIDE_PX, PixelFormat};

/// What samples mean: "Photometric Interpretation".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    /// The more, the darker.
    Monochrome1,
    /// The more, the brighter.
    Monochrome2,
    /// Indices into a table of colours.
    Palette,
    /// Also what JPEG 2000 calls its component transformations (`YBR_ICT`, `YBR_RCT`), for its decoder undoes them.
    Rgb,
    /// Luminance and two colour differences for each pixel.
    YbrFull,
    /// The differences once for two pixels of a row; native frames only have them so.
    YbrFull422,
}

/// What the samples of a decoded frame mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decoded {
    pub(super) colour: Colour,
    /// Plane after plane, instead of pixel after pixel.
    pub(super) planar: bool,
}

/// Size and form of the samples of a file's frames.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Layout {
    pub(super) width: usize,
    pub(super) height: usize,
    /// 1 or 3.
    pub(super) channels: usize,
    pub(super) colour: Colour,
    pub(super) planar: bool,
    /// 8 or 16.
    bits_allocated: u32,
    bits_stored: u32,
    high_bit: u32,
    signed: bool,
}

impl Layout {
    /// From a header; an error says what of it cannot be read.
    pub(super) fn of(data_set: &DataSet) -> Result<Self, String> {
        let word = |tag, name: &str| data_set.word(tag).ok_or_else(|| format!("it does not say its {name}"));
        let (height, width) = (word(tags::ROWS, "rows")?, word(tags::COLUMNS, "columns")?);
        let channels = usize::from(data_set.word(tags::SAMPLES_PER_PIXEL).unwrap_or(1));
        let colour = match data_set.text(tags::PHOTOMETRIC_INTERPRETATION).as_deref() {
            Some("MONOCHROME1") => Colour::Monochrome1,
            Some("MONOCHROME2") => Colour::Monochrome2,
            Some("PALETTE COLOR") => Colour::Palette,
            Some("RGB" | "YBR_ICT" | "YBR_RCT") => Colour::Rgb,
            Some("YBR_FULL") => Colour::YbrFull,
            Some("YBR_FULL_422") => Colour::YbrFull422,
            Some(other) => {
                let other = printable(other, 20);
                return Err(format!(
                    "its photometric interpretation {other} is not read: MONOCHROME1, MONOCHROME2, PALETTE COLOR, RGB and YBR_FULL are"
                ));
            }
            None => return Err("it does not say its photometric interpretation".to_owned()),
        };
        let is_grey = matches!(colour, Colour::Monochrome1 | Colour::Monochrome2 | Colour::Palette);
        if channels != if is_grey { 1 } else { 3 } {
            return Err(format!(
                "it has {channels} samples a pixel, which its photometric interpretation does not fit"
            ));
        }
        let bits_allocated = u32::from(word(tags::BITS_ALLOCATED, "bits allocated")?);
        if bits_allocated != 8 && bits_allocated != 16 {
            return Err(format!("its samples have {bits_allocated} bits: 8 and 16 are read"));
        }
        let bits_stored =
            data_set.word(tags::BITS_STORED).map_or(bits_allocated, u32::from).clamp(1, bits_allocated);
        let high_bit = data_set.word(tags::HIGH_BIT).map_or(bits_stored - 1, u32::from);
        Ok(Self {
            width: width.into(),
            height: height.into(),
            channels,
            colour,
            planar: channels == 3 && data_set.word(tags::PLANAR_CONFIGURATION) == Some(1),
            bits_allocated,
            bits_stored,
            high_bit: high_bit.clamp(bits_stored - 1, bits_allocated - 1),
            signed: data_set.word(tags::PIXEL_REPRESENTATION) == Some(1),
        })
    }

    /// Whether both sides are of a size that is read.
    pub(super) fn has_good_sides(&self) -> bool {
        (1..=MAX_SIDE_PX).contains(&self.width) && (1..=MAX_SIDE_PX).contains(&self.height)
    }

    pub(super) fn sample_bytes(&self) -> usize {
        self.bits_allocated as usize / 8
    }

    /// What samples mean in a coding that has three for each pixel.
    pub(super) fn coded_colour(&self) -> Colour {
        if self.colour == Colour::YbrFull422 { Colour::YbrFull } else { self.colour }
    }

    /// Bytes of a decoded frame.
    pub(super) fn frame_bytes(&self) -> usize {
        self.width * self.height * self.channels * self.sample_bytes()
    }

    /// Whether frames of this form can lie in a file without coding.
    pub(super) fn check_native(&self) -> Result<(), String> {
        if self.colour == Colour::YbrFull422 && (self.bits_allocated != 8 || !self.width.is_multiple_of(2)) {
            return Err("two pixels share a colour, which its width or depth does not allow".to_owned());
        }
        Ok(())
    }

    /// Bytes of a frame as it lies in a file without coding.
    pub(super) fn native_bytes(&self) -> usize {
        if self.colour == Colour::YbrFull422 { 2 * self.width * self.height } else { self.frame_bytes() }
    }

    /// Whether a coded picture is what the header says.
    pub(super) fn check(&self, kind: &str, width: u32, height: u32, channels: usize) -> Result<(), String> {
        if (width as usize, height as usize, channels) == (self.width, self.height, self.channels) {
            return Ok(());
        }
        Err(format!(
            "its {kind} data is {width}x{height} with {channels} samples a pixel, the file says {}x{} with {}",
            self.width, self.height, self.channels
        ))
    }

    /// The number in a stored sample.
    fn value(&self, stored: u16) -> i32 {
        let bits =
            (u32::from(stored) >> (self.high_bit + 1 - self.bits_stored)) & ((1 << self.bits_stored) - 1);
        let shift = 32 - self.bits_stored;
        if self.signed { ((bits << shift) as i32) >> shift } else { bits as i32 }
    }

    /// Calls `each` with every sample as it is stored.
    fn for_stored(&self, samples: &[u8], mut each: impl FnMut(u16)) {
        match self.bits_allocated {
            8 => samples.iter().for_each(|&byte| each(byte.into())),
            _ => samples.as_chunks().0.iter().for_each(|word| each(u16::from_le_bytes(*word))),
        }
    }

    /// Every number that can be stored.
    fn all_stored(&self) -> std::ops::RangeInclusive<u16> {
        0..=u16::MAX >> (16 - self.bits_allocated)
    }

    /// Makes colour samples bytes, from 0 to 255.
    fn narrow(&self, samples: &mut Vec<u8>) {
        if self.bits_stored == 8 && self.bits_allocated == 8 {
            return;
        }
        let most = (1u32 << self.bits_stored) - 1;
        let narrow = |stored: u16| ((self.value(stored).max(0) as u32 * 255 + most / 2) / most) as u8;
        let step = self.sample_bytes();
        for index in 0..samples.len() / step {
            let high = if step == 2 { samples[2 * index + 1] } else { 0 };
            samples[index] = narrow(u16::from_le_bytes([samples[step * index], high]));
        }
        samples.truncate(samples.len() / step);
    }
}

/// How the numbers of grey samples become 0 to 255.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Window {
    /// "VOI LUT Function" LINEAR: centre and width.
    Linear(f64, f64),
    /// LINEAR_EXACT.
    Exact(f64, f64),
    /// SIGMOID.
    Sigmoid(f64, f64),
    /// From the least to the largest number.
    Range(f64, f64),
}

impl Window {
    /// The first window of a header.
    pub(super) fn of(data_set: &DataSet) -> Option<Self> {
        let (centre, width) = (data_set.decimal(tags::WINDOW_CENTER)?, data_set.decimal(tags::WINDOW_WIDTH)?);
        match data_set.text(tags::VOILUT_FUNCTION).as_deref() {
            Some("SIGMOID") if width > 0.0 => Some(Self::Sigmoid(centre, width)),
            Some("LINEAR_EXACT") if width > 0.0 => Some(Self::Exact(centre, width)),
            None | Some("LINEAR") if width >= 1.0 => Some(Self::Linear(centre, width)),
            _ => None,
        }
    }

    fn apply(self, x: f64) -> f64 {
        let share = match self {
            Self::Linear(c, w) if x <= c - 0.5 - (w - 1.0) / 2.0 => 0.0,
            Self::Linear(c, w) if x > c - 0.5 + (w - 1.0) / 2.0 => 1.0,
            Self::Linear(c, w) => (x - (c - 0.5)) / (w - 1.0) + 0.5,
            Self::Exact(c, w) => (x - c) / w + 0.5,
            Self::Sigmoid(c, w) => 1.0 / (1.0 + (-4.0 * (x - c) / w).exp()),
            Self::Range(low, high) => (x - low) / (high - low),
        };
        255.0 * share.clamp(0.0, 1.0)
    }
}

/// Turns samples of one file into pixels.
#[derive(Debug)]
pub(super) struct Converter {
    layout: Layout,
    slope: f64,
    intercept: f64,
    /// For palettes: the colour of each stored number.
    colours: Vec<[u8; 3]>,
    /// For grey samples: what each stored number becomes. Empty where they stay what they are, or until there is a window.
    greys: Vec<u8>,
    is_plain: bool,
}

impl Converter {
    /// `window` is that of the series, once it is known.
    pub(super) fn new(data_set: &DataSet, layout: Layout, window: Option<Window>) -> Result<Self, String> {
        let colours = if layout.colour == Colour::Palette {
            let palette = Palette::of(data_set)?;
            layout.all_stored().map(|stored| palette.colour(layout.value(stored))).collect()
        } else {
            Vec::new()
        };
        let is_grey = matches!(layout.colour, Colour::Monochrome1 | Colour::Monochrome2);
        let is_plain = is_grey && window.is_none() && layout.bits_allocated == 8 && !layout.signed;
        let mut converter = Self {
            slope: data_set.decimal(tags::RESCALE_SLOPE).filter(|&slope| slope != 0.0).unwrap_or(1.0),
            intercept: data_set.decimal(tags::RESCALE_INTERCEPT).unwrap_or(0.0),
            colours,
            greys: Vec::new(),
            is_plain,
            layout,
        };
        if let (true, Some(window)) = (is_grey, window) {
            converter.set_window(window);
        }
        Ok(converter)
    }

    /// Whether it needs the range of the series, which nobody has said yet.
    pub(super) fn needs_window(&self) -> bool {
        let is_grey = matches!(self.layout.colour, Colour::Monochrome1 | Colour::Monochrome2);
        is_grey && !self.is_plain && self.greys.is_empty()
    }

    /// The range of the numbers in a frame; `None` where they are all the same.
    pub(super) fn range(&self, samples: &[u8]) -> Option<Window> {
        let (mut low, mut high) = (i32::MAX, i32::MIN);
        self.layout.for_stored(samples, |stored| {
            let number = self.layout.value(stored);
            (low, high) = (low.min(number), high.max(number));
        });
        let ends = [low, high].map(|value| self.slope * f64::from(value) + self.intercept);
        (low < high).then(|| Window::Range(ends[0].min(ends[1]), ends[0].max(ends[1])))
    }

    pub(super) fn set_window(&mut self, window: Window) {
        let inverted = self.layout.colour == Colour::Monochrome1;
        let grey = |stored: u16| {
            let number = self.slope * f64::from(self.layout.value(stored)) + self.intercept;
            let grey = window.apply(number).round() as u8;
            if inverted { 255 - grey } else { grey }
        };
        self.greys = self.layout.all_stored().map(grey).collect();
    }

    /// Fills width, height and pixels of `frame`. May take the memory of `samples`.
    pub(super) fn convert(
        &self,
        decoded: Decoded,
        samples: &mut Vec<u8>,
        frame: &mut Frame,
    ) -> Result<(), String> {
        let layout = &self.layout;
        (frame.width, frame.height) = (layout.width, layout.height);
        let pixels = &mut frame.pixels;
        let count = layout.width * layout.height;
        frame.pixel_format = if matches!(decoded.colour, Colour::Monochrome1 | Colour::Monochrome2) {
            PixelFormat::Grey8
        } else {
            PixelFormat::Rgb8
        };
        if self.is_plain {
            std::mem::swap(pixels, samples);
            if decoded.colour == Colour::Monochrome1 {
                pixels.iter_mut().for_each(|pixel| *pixel = 255 - *pixel);
            }
            return Ok(());
        }
        pixels.clear();
        let bytes = count * frame.pixel_format.channels();
        pixels.try_reserve(bytes).map_err(|_| format!("there is no memory for {bytes} bytes"))?;
        match decoded.colour {
            // Without two different numbers there is nothing to see.
            Colour::Monochrome1 | Colour::Monochrome2 if self.greys.is_empty() => pixels.resize(bytes, 0),
            Colour::Monochrome1 | Colour::Monochrome2 => {
                layout.for_stored(samples, |stored| pixels.push(self.greys[usize::from(stored)]));
            }
            Colour::Palette => {
                layout.for_stored(samples, |stored| pixels.extend(self.colours[usize::from(stored)]));
            }
            Colour::YbrFull422 => {
                for &[y0, y1, cb, cr] in samples.as_chunks().0 {
                    pixels.extend(rgb_of([y0, cb, cr]));
                    pixels.extend(rgb_of([y1, cb, cr]));
                }
            }
            Colour::Rgb | Colour::YbrFull => {
                layout.narrow(samples);
                if decoded.planar {
                    let (first, rest) = samples.split_at(count);
                    let (second, third) = rest.split_at(count);
                    pixels.extend(first.iter().zip(second).zip(third).flat_map(|((a, b), c)| [*a, *b, *c]));
                } else {
                    std::mem::swap(pixels, samples);
                }
                if decoded.colour != Colour::Rgb {
                    pixels.as_chunks_mut::<3>().0.iter_mut().for_each(|pixel| *pixel = rgb_of(*pixel));
                }
            }
        }
        Ok(())
    }
}

/// PS3.3 section C.7.6.3.1.2, from YBR_FULL: the inverse of its matrix.
fn rgb_of([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    let (y, cb, cr) = (f64::from(y), f64::from(cb) - 128.0, f64::from(cr) - 128.0);
    let green = y - (0.114 * 1.772 / 0.587) * cb - (0.299 * 1.402 / 0.587) * cr;
    // A cast saturates, so it rounds down what is less than zero too.
    [y + 1.402 * cr, green, y + 1.772 * cb].map(|value| (value + 0.5) as u8)
}
