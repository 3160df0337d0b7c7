//! Animated GIF: frames that are drawn one over the other.

use std::io::Read;

use gif::{ColorOutput, DecodeOptions, Decoder, DecodingError, DisposalMethod, MemoryLimit};
use ultramotion_types::{Frame, MAX_SIDE_PX};

/// How long a frame is shown that says nothing, as browsers have it.
const DEFAULT_DELAY_S: f64 = 0.1;

/// An animation being played.
pub(super) struct Animation<R: Read> {
    decoder: Decoder<R>,
    width: usize,
    /// `[height, width, 3]`: what is on the screen.
    canvas: Vec<u8>,
    /// What comes back when the last frame is taken away.
    below: Option<Vec<u8>>,
    /// Where the last frame is cleared: left, top, width, height.
    to_clear: Option<[usize; 4]>,
    time_s: f64,
}

impl<R: Read> Animation<R> {
    pub(super) fn new(reader: R) -> Result<Self, DecodingError> {
        let mut options = DecodeOptions::new();
        options.set_color_output(ColorOutput::RGBA);
        let most = (MAX_SIDE_PX * MAX_SIDE_PX * 4) as u64;
        options.set_memory_limit(MemoryLimit::Bytes(most.try_into().expect("it is not 0")));
        let decoder = options.read_info(reader)?;
        let width = decoder.width().into();
        Ok(Animation { decoder, width, canvas: Vec::new(), below: None, to_clear: None, time_s: 0.0 })
    }

    pub(super) fn size_px(&self) -> [u32; 2] {
        [self.decoder.width().into(), self.decoder.height().into()]
    }

    /// The next frame as it is on the screen, with its time; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, DecodingError> {
        let (width, height) = (self.width, usize::from(self.decoder.height()));
        let Some(part) = self.decoder.read_next_frame()? else { return Ok(None) };
        self.canvas.resize(width * height * 3, 0);
        if let Some(below) = self.below.take() {
            self.canvas = below;
        }
        if let Some([left, top, w, h]) = self.to_clear.take() {
            for y in top..(top + h).min(height) {
                self.canvas[3 * (y * width + left.min(width))..3 * (y * width + (left + w).min(width))]
                    .fill(0);
            }
        }
        let [left, top, w, h] = [part.left, part.top, part.width, part.height].map(usize::from);
        match part.dispose {
            DisposalMethod::Previous => self.below = Some(self.canvas.clone()),
            DisposalMethod::Background => self.to_clear = Some([left, top, w, h]),
            DisposalMethod::Any | DisposalMethod::Keep => {}
        }
        for (y, row) in part.buffer.chunks_exact(4 * w.max(1)).enumerate().take(height.saturating_sub(top)) {
            for (x, pixel) in row.chunks_exact(4).enumerate().take(width.saturating_sub(left)) {
                if pixel[3] > 0 {
                    let at = 3 * ((top + y) * width + left + x);
                    self.canvas[at..at + 3].copy_from_slice(&pixel[..3]);
                }
            }
        }
        let timestamp_s = self.time_s;
        self.time_s += if part.delay > 0 { f64::from(part.delay) / 100.0 } else { DEFAULT_DELAY_S };
        Ok(Some(Frame { timestamp_s, ..Frame::rgb8(width, height, self.canvas.clone()) }))
    }
}
