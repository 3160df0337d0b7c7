//! Camera and scanner frames to network input: 8-bit pixels, resized, normalised, padded.
use super::view::{Map, ViewMut};
use crate::cpu::pool::{Pool, SCRATCH_LEN};
use crate::cpu::simd::{Kernel, Level, Simd};

/// A resize of one axis: for each output position the first input position and the weights from there.
#[derive(Clone, Debug)]
struct Axis {
    from: usize,
    /// Weights of an output position.
    taps: usize,
    start: Vec<usize>,
    /// `[outputs, taps]`
    weights: Vec<f32>,
}

impl Axis {
    /// The triangle filter, widened by the scale where it shrinks, as Pillow and torchvision
    /// (`antialias=True`) do.
    fn new(from: usize, to: usize) -> Axis {
        let scale = from as f64 / to as f64;
        let support = scale.max(1.0);
        let spans: Vec<(usize, Vec<f64>)> = (0..to)
            .map(|i| {
                let center = (i as f64 + 0.5) * scale;
                let first = (center - support + 0.5).max(0.0) as usize;
                let end = ((center + support + 0.5) as usize).min(from);
                let weights: Vec<f64> = (first..end)
                    .map(|j| (1.0 - ((j as f64 - center + 0.5) / support).abs()).max(0.0))
                    .collect();
                let sum: f64 = weights.iter().sum();
                (first, weights.iter().map(|w| w / sum).collect())
            })
            .collect();
        let taps = spans.iter().map(|s| s.1.len()).max().unwrap_or(1).min(from);
        let mut axis = Axis { from, taps, start: Vec::with_capacity(to), weights: vec![0.0; to * taps] };
        for (i, (first, weights)) in spans.iter().enumerate() {
            // All spans get the same length, inside the input.
            let start = (*first).min(from - taps);
            axis.start.push(start);
            for (j, w) in weights.iter().enumerate() {
                axis.weights[i * taps + first - start + j] = *w as f32;
            }
        }
        axis
    }

    fn len(&self) -> usize {
        self.start.len()
    }
}

/// Where a frame goes in the network's input and how its values change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ImagePlacement {
    /// The frame's size after the resize: height, width.
    pub size: [usize; 2],
    /// Its corner in the input: top, left.
    pub corner: [usize; 2],
    /// Height and width of the network's input.
    pub input: [usize; 2],
    /// Red, green and blue become `scale · value + shift`, of a value in 0 to 255.
    pub scale: [f32; 3],
    /// See `scale`.
    pub shift: [f32; 3],
}

/// Tables for frames of one size.
#[derive(Clone, Debug)]
pub struct ImagePlan {
    channels: usize,
    placement: ImagePlacement,
    rows: Axis,
    cols: Axis,
}

/// What is wrong with a frame's or a placement's sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// A side is zero, or the channels are neither 1 nor 3.
    #[error(
        "a frame of {width}x{height} pixels with {channels} channels: sides must be positive and channels 1 or 3"
    )]
    Frame {
        /// Height in pixels
        height: usize,
        /// Width in pixels
        width: usize,
        /// Bytes of a pixel
        channels: usize,
    },
    /// A line is longer than the scratch memory of a thread.
    #[error("a frame {width} pixels wide is too wide: at most {most}")]
    TooWide {
        /// Width in pixels
        width: usize,
        /// The widest
        most: usize,
    },
    /// The resized frame does not lie inside the network's input.
    #[error("the resized frame does not lie inside the network's input")]
    Placement,
}

impl ImagePlan {
    /// For frames of `height` by `width` pixels of `channels` bytes (1: grey, 3: RGB).
    pub fn new(
        height: usize,
        width: usize,
        channels: usize,
        placement: ImagePlacement,
    ) -> Result<ImagePlan, ImageError> {
        if height == 0 || width == 0 || !matches!(channels, 1 | 3) {
            return Err(ImageError::Frame { height, width, channels });
        }
        if width > SCRATCH_LEN / 3 {
            return Err(ImageError::TooWide { width, most: SCRATCH_LEN / 3 });
        }
        let p = &placement;
        let fits = |i: usize| {
            p.size[i] > 0 && p.corner[i].checked_add(p.size[i]).is_some_and(|end| end <= p.input[i])
        };
        if !fits(0) || !fits(1) {
            return Err(ImageError::Placement);
        }
        let (rows, cols) = (Axis::new(height, p.size[0]), Axis::new(width, p.size[1]));
        Ok(ImagePlan { channels, placement, rows, cols })
    }

    /// Bytes of a frame whose lines lie densely.
    pub fn frame_len(&self) -> usize {
        self.rows.from * self.cols.from * self.channels
    }
}

/// `out[H, W, 3]` = the resized and normalised frame, and zeros around it. `frame` is `[height, width,
/// channels]`, grey in all three. Bilinear with antialiasing, in f32 throughout.
pub fn image(level: Level, pool: &Pool, plan: &ImagePlan, frame: &[u8], out: ViewMut) {
    assert_eq!(frame.len(), plan.frame_len(), "bytes of a frame for {:?}", plan.placement);
    let [h, w] = plan.placement.input;
    Map::new(1, h, w).check(out.rows(), "the network's input");
    assert_eq!(out.cols(), 3, "channels of the network's input");
    let chunks = if pool.threads() == 1 { 1 } else { (pool.threads() * 6).min(h) };
    pool.parallel_for_scratch(chunks, |i, scratch| {
        let kernel = ImageLines {
            plan,
            frame,
            out: out.ptr(),
            pitch: out.pitch(),
            lines: i * h / chunks..(i + 1) * h / chunks,
            line: &mut scratch[..plan.cols.from * plan.channels],
        };
        // SAFETY: sizes are checked above; chunks write disjoint lines.
        unsafe { level.dispatch(kernel) };
    });
}

struct ImageLines<'a> {
    plan: &'a ImagePlan,
    frame: &'a [u8],
    out: *mut f32,
    pitch: usize,
    lines: std::ops::Range<usize>,
    /// An input line after the vertical part.
    line: &'a mut [f32],
}

impl Kernel for ImageLines<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let ImageLines { plan, frame, out, pitch, lines, line } = self;
        let p = &plan.placement;
        for y in lines {
            let to = out.wrapping_add(y * p.input[1] * pitch);
            let inside = y >= p.corner[0] && y < p.corner[0] + p.size[0];
            let (left, right) = if inside { (p.corner[1], p.corner[1] + p.size[1]) } else { (0, 0) };
            for x in (0..left).chain(right..p.input[1]) {
                // SAFETY: pixel (x, y) is inside the network's input, and lines are written by one chunk.
                unsafe { to.add(x * pitch).cast::<[f32; 3]>().write_unaligned([0.0; 3]) };
            }
            if !inside {
                continue;
            }
            // Down: a weighted sum of whole lines, which the compiler vectorises.
            let row = y - p.corner[0];
            let taps = &plan.rows.weights[row * plan.rows.taps..][..plan.rows.taps];
            for (t, &weight) in taps.iter().enumerate() {
                let source = &frame[(plan.rows.start[row] + t) * line.len()..][..line.len()];
                if t == 0 {
                    for (l, &s) in line.iter_mut().zip(source) {
                        *l = weight * s as f32;
                    }
                } else if weight != 0.0 {
                    for (l, &s) in line.iter_mut().zip(source) {
                        *l += weight * s as f32;
                    }
                }
            }
            // Across.
            let n = plan.cols.taps;
            for x in 0..plan.cols.len() {
                let (start, weights) = (plan.cols.start[x], &plan.cols.weights[x * n..][..n]);
                let rgb = if plan.channels == 1 {
                    let v: f32 = weights.iter().zip(&line[start..][..n]).map(|(w, l)| w * l).sum();
                    [v; 3]
                } else {
                    let mut rgb = [0f32; 3];
                    for (w, pixel) in weights.iter().zip(line[3 * start..][..3 * n].as_chunks::<3>().0) {
                        for c in 0..3 {
                            rgb[c] += w * pixel[c];
                        }
                    }
                    rgb
                };
                let value = std::array::from_fn(|c| p.scale[c] * rgb[c] + p.shift[c]);
                // SAFETY: as above.
                unsafe { to.add((left + x) * pitch).cast::<[f32; 3]>().write_unaligned(value) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::kernels::testing::{Rng, everywhere};

    /// The filter written out for one output position, in f64.
    fn weights64(from: usize, to: usize, i: usize) -> Vec<(usize, f64)> {
        let scale = from as f64 / to as f64;
        let support = scale.max(1.0);
        let center = (i as f64 + 0.5) * scale;
        let all: Vec<(usize, f64)> = (0..from)
            .map(|j| (j, (1.0 - ((j as f64 + 0.5 - center) / support).abs()).max(0.0)))
            .filter(|w| w.1 > 0.0)
            .collect();
        let sum: f64 = all.iter().map(|w| w.1).sum();
        all.into_iter().map(|(j, w)| (j, w / sum)).collect()
    }

    #[test]
    fn image_agrees_with_naive_loops() {
        let mut rng = Rng::seeded();
        everywhere(|level, pool| {
            for _ in 0..30 {
                let (h, w, channels) = (rng.size(1, 60), rng.size(1, 60), rng.of(&[1, 3]));
                let size = [rng.size(1, 50), rng.size(1, 50)];
                let corner = [rng.size(0, 5), rng.size(0, 5)];
                let input = [size[0] + corner[0] + rng.size(0, 5), size[1] + corner[1] + rng.size(0, 5)];
                let scale = [rng.f32(), rng.f32(), rng.f32()].map(|x| x / 255.0);
                let shift = [rng.f32(), rng.f32(), rng.f32()];
                let placement = ImagePlacement { size, corner, input, scale, shift };
                let plan = ImagePlan::new(h, w, channels, placement).unwrap();
                let frame: Vec<u8> = (0..plan.frame_len()).map(|_| rng.next() as u8).collect();
                let before = rng.matrix(input[0] * input[1], 3);
                let mut out = before.clone();
                image(level, pool, &plan, &frame, out.view_mut());
                out.check(&before, 1e-5, &format!("{level:?} {h}x{w}x{channels} {placement:?}"), |row, c| {
                    let (y, x) = (row / input[1], row % input[1]);
                    let (Some(y), Some(x)) = (y.checked_sub(corner[0]), x.checked_sub(corner[1])) else {
                        return 0.0;
                    };
                    if y >= size[0] || x >= size[1] {
                        return 0.0;
                    }
                    let mut v = 0.0;
                    for &(iy, wy) in &weights64(h, size[0], y) {
                        for &(ix, wx) in &weights64(w, size[1], x) {
                            let channel = if channels == 1 { 0 } else { c };
                            v += wy * wx * frame[(iy * w + ix) * channels + channel] as f64;
                        }
                    }
                    v * scale[c] as f64 + shift[c] as f64
                });
            }
        });
    }

    #[test]
    fn impossible_sizes_are_errors() {
        let ok =
            ImagePlacement { size: [4, 4], corner: [0, 0], input: [4, 4], scale: [1.0; 3], shift: [0.0; 3] };
        assert!(ImagePlan::new(8, 8, 1, ok).is_ok());
        assert!(matches!(ImagePlan::new(0, 8, 1, ok), Err(ImageError::Frame { .. })));
        assert!(matches!(ImagePlan::new(8, 8, 2, ok), Err(ImageError::Frame { .. })));
        assert!(matches!(ImagePlan::new(8, 1 << 30, 1, ok), Err(ImageError::TooWide { .. })));
        let out = ImagePlacement { corner: [1, 0], ..ok };
        assert_eq!(ImagePlan::new(8, 8, 1, out).unwrap_err(), ImageError::Placement);
        let none = ImagePlacement { size: [0, 4], ..ok };
        assert_eq!(ImagePlan::new(8, 8, 1, none).unwrap_err(), ImageError::Placement);
    }
}
