//! SAM's two bilinear steps from low-resolution logits to the frame, as one separable filter.

use std::ops::Range;

use super::geometry::MaskGeometry;

/// Low-resolution samples that a pixel of the frame depends on, along one axis. Two neighbours of the input's grid lie
/// a quarter of a low-resolution sample apart and so depend on three samples at most.
const TAPS: usize = 3;
/// Rows of low-resolution logits kept enlarged along x: a power of two that holds the taps.
const RING: usize = 4;

/// Filters for both axes.
#[derive(Debug)]
pub(super) struct MaskFilter {
    rows: Axis,
    /// Padded to whole bytes of pixels, with weights 0.
    columns: Axis,
    low: usize,
    width: usize,
}

/// For every pixel along an axis, its first sample and the weights of that one and the next.
#[derive(Debug)]
struct Axis {
    first: Vec<u32>,
    weights: Vec<[f32; TAPS]>,
}

impl Axis {
    fn new(input: usize, resized: usize, source: usize, padded: usize) -> Self {
        let low = input / 4;
        let (mut first, mut weights) = (Vec::with_capacity(padded), Vec::with_capacity(padded));
        for i in 0..padded {
            let (at, share) = bilinear(i.min(source - 1), resized, source);
            let mut taps = [0.0; TAPS];
            let start = bilinear(at, low, input).0.min(low - TAPS);
            for (at, share) in [(at, 1.0 - share), ((at + 1).min(resized - 1), share)] {
                let (low_at, low_share) = bilinear(at, low, input);
                taps[low_at - start] += share * (1.0 - low_share);
                taps[(low_at + 1).min(low - 1) - start] += share * low_share;
            }
            first.push(start as u32);
            weights.push(if i < source { taps.map(|w| w as f32) } else { [0.0; TAPS] });
        }
        Axis { first, weights }
    }
}

/// Where output sample `i` of `output` lies among `input` samples: the one before it and the share of the next. Half-pixel
/// centres, positions before the first sample are on it (PyTorch's `interpolate`, `align_corners=False`).
fn bilinear(i: usize, input: usize, output: usize) -> (usize, f64) {
    let position = ((i as f64 + 0.5) * input as f64 / output as f64 - 0.5).max(0.0);
    let before = (position as usize).min(input - 1);
    (before, position - before as f64)
}

/// The definition of one step: the part `part_hw` at the top left of a map with rows of `pitch`, resized.
pub(super) fn resize_bilinear(
    map: &[f64],
    pitch: usize,
    part_hw: [usize; 2],
    output_hw: [usize; 2],
) -> Vec<f64> {
    let [h, w] = output_hw;
    let mut result = Vec::with_capacity(h * w);
    for y in 0..h {
        let (top, down) = bilinear(y, part_hw[0], h);
        let bottom = (top + 1).min(part_hw[0] - 1);
        for x in 0..w {
            let (left, across) = bilinear(x, part_hw[1], w);
            let right = (left + 1).min(part_hw[1] - 1);
            let along =
                |row: usize| map[row * pitch + left] * (1.0 - across) + map[row * pitch + right] * across;
            result.push(along(top) * (1.0 - down) + along(bottom) * down);
        }
    }
    result
}

impl MaskFilter {
    /// A frame without pixels gets the filter of one pixel, for an op that then refuses the frame.
    pub(super) fn new(geometry: &MaskGeometry) -> Self {
        let [h, w] = geometry.source_hw.map(|side| side.max(1));
        let [resized_h, resized_w] = geometry.resized_hw;
        MaskFilter {
            rows: Axis::new(geometry.input_size, resized_h, h, h),
            columns: Axis::new(geometry.input_size, resized_w, w, w.next_multiple_of(8)),
            low: geometry.input_size / 4,
            width: w,
        }
    }

    /// Floats that a call needs for itself.
    pub(super) fn scratch_len(&self) -> usize {
        RING * self.columns.first.len()
    }

    /// Some rows of the enlarged logits of one mask.
    pub(super) fn enlarge(&self, logits: &[f32], rows: Range<usize>, room: &mut [f32], out: &mut [f32]) {
        let mut lines = out.chunks_exact_mut(self.width);
        self.for_rows(logits, rows, 0..self.width, room, |_, taps, [a, b, c]| {
            let Some(line) = lines.next() else { return };
            for (((pixel, x), y), z) in line.iter_mut().zip(taps[0]).zip(taps[1]).zip(taps[2]) {
                *pixel = a * x + b * y + c * z;
            }
        });
    }

    /// Some rows of one mask, a bit a pixel, within the columns and rows that are allowed.
    pub(super) fn threshold(
        &self,
        logits: &[f32],
        rows: Range<usize>,
        [columns, allowed_rows]: [Range<usize>; 2],
        room: &mut [f32],
        bits: &mut [u8],
    ) {
        bits.fill(0);
        let row_bytes = self.columns.first.len() / 8;
        let inside = self.columns_of_positives(logits, &rows);
        let columns = columns.start.max(inside.start)..columns.end.min(inside.end);
        let visited = rows.start.max(allowed_rows.start)..rows.end.min(allowed_rows.end);
        if columns.is_empty() || visited.is_empty() {
            return;
        }
        let bytes = columns.start / 8..columns.end.div_ceil(8);
        let (left, right) = (0xff_u8 << (columns.start % 8), 0xff_u8 >> (bytes.end * 8 - columns.end));
        let first = rows.start;
        self.for_rows(logits, visited, bytes.start * 8..bytes.end * 8, room, |y, taps, weights| {
            let line = &mut bits[(y - first) * row_bytes..][bytes.clone()];
            pack_positive(line, taps, weights);
            line[0] &= left;
            line[bytes.len() - 1] &= right;
        });
    }

    /// Columns of the frame that can be positive in these rows: a weighted mean of what is not positive is not
    /// positive.
    fn columns_of_positives(&self, logits: &[f32], rows: &Range<usize>) -> Range<usize> {
        let low_rows = self.rows.first[rows.start] as usize..self.rows.first[rows.end - 1] as usize + TAPS;
        let (mut from, mut to) = (self.low, 0);
        for line in logits[low_rows.start * self.low..low_rows.end * self.low].chunks_exact(self.low) {
            if let Some(first) = line.iter().position(|&v| v > 0.0) {
                let last = line.iter().rposition(|&v| v > 0.0).unwrap_or(first);
                (from, to) = (from.min(first), to.max(last));
            }
        }
        if from == self.low {
            return 0..0;
        }
        let first = &self.columns.first[..self.width];
        first.partition_point(|&f| (f as usize + TAPS) <= from)..first.partition_point(|&f| f as usize <= to)
    }

    /// Calls `body(row, three lines, their weights)` for each of some rows, with the lines enlarged along x in the
    /// range of columns.
    fn for_rows(
        &self,
        logits: &[f32],
        rows: Range<usize>,
        columns: Range<usize>,
        room: &mut [f32],
        mut body: impl FnMut(usize, [&[f32]; TAPS], [f32; TAPS]),
    ) {
        let padded = self.columns.first.len();
        let mut enlarged = 0;
        for y in rows {
            let first = self.rows.first[y] as usize;
            for row in enlarged.max(first)..first + TAPS {
                let line = &mut room[row % RING * padded..][columns.clone()];
                self.enlarge_line(&logits[row * self.low..][..self.low], columns.start, line);
            }
            enlarged = first + TAPS;
            let line = |tap: usize| &room[(first + tap) % RING * padded..][columns.clone()];
            body(y, [line(0), line(1), line(2)], self.rows.weights[y]);
        }
    }

    fn enlarge_line(&self, samples: &[f32], start: usize, line: &mut [f32]) {
        let taps = self.columns.first[start..].iter().zip(&self.columns.weights[start..]);
        for (pixel, (&first, [a, b, c])) in line.iter_mut().zip(taps) {
            if let [x, y, z] = samples[first as usize..][..TAPS] {
                *pixel = a * x + b * y + c * z;
            }
        }
    }
}

/// Sets the bits of the pixels whose weighted sum of three lines is positive.
fn pack_positive(bits: &mut [u8], taps: [&[f32]; TAPS], [a, b, c]: [f32; TAPS]) {
    let [x, y, z] = taps.map(|line| line.as_chunks::<8>().0);
    for (((byte, x), y), z) in bits.iter_mut().zip(x).zip(y).zip(z) {
        let positive: [u8; 8] = std::array::from_fn(|i| u8::from(a * x[i] + b * y[i] + c * z[i] > 0.0) << i);
        *byte = positive.iter().fold(0, |all, bit| all | bit);
    }
}
