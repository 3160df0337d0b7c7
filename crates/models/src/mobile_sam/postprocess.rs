//! From low-resolution logits to masks of the source frame, on the device.
//!
//! SAM enlarges the logits to the network's input, cuts off what was padding, resizes the rest to the frame and asks
//! where it is positive (official `postprocess_masks`), all bilinear with half-pixel centres. Both steps are linear
//! and separable, so here they are one filter along each axis with at most three taps: nothing of the input's size is
//! ever stored.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytemuck::{Pod, Zeroable};
use ultramotion_engine::graph::{
    CpuCall, CudaCall, CustomOp, Graph, GraphError, ParallelFor, Tensor, TensorType,
};
use ultramotion_engine::launch::{Launch, Module};
use ultramotion_engine::reference::Values;
use ultramotion_engine::tensor::{DType, Shape};

use super::geometry::MaskGeometry;
use super::mask_filter::{MaskFilter, resize_bilinear};

/// Pieces of work at most; each has its own scratch.
const CHUNKS: usize = 64;
/// Rows of the frame in a piece at least: neighbours compute the rows between them twice.
const MIN_CHUNK_ROWS: usize = 32;
/// Longest side of a frame in pixels.
pub(super) const MAX_SOURCE_SIDE: usize = 16384;

/// Keeps each mask within its box.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BoxRestriction {
    /// `[K, 4]`: x1, y1, x2, y2 in pixels of the network's input, as for the prompt.
    pub boxes_xyxy: Tensor,
    /// Added on each side, as a share of the box's width and height.
    pub margin: f32,
}

/// Masks of the source frame. All leading dimensions are those of the logits, with their row count; of the rows that
/// are not valid, areas and boxes are 0 and bits undefined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceMasks {
    /// `[…, H, ceil(W / 8)]` u8: bit 0 is the leftmost of 8 pixels, bits beyond the width are 0.
    pub bits: Tensor,
    /// `[…]` i32: pixels inside.
    pub area_px: Tensor,
    /// `[…, 4]` i32: x1, y1, x2, y2 of the smallest box around the mask, x2 and y2 exclusive; zeros for none.
    pub box_xyxy: Tensor,
}

/// Adds the enlargement of logits `[K, …, 4E, 4E]` and the threshold at 0.
pub fn masks_to_source(
    g: &mut Graph,
    low_res_masks: Tensor,
    geometry: MaskGeometry,
    restriction: Option<BoxRestriction>,
) -> Result<SourceMasks, GraphError> {
    let margin = restriction.map(|r| r.margin);
    let out = add(g, low_res_masks, geometry, Output::Bits { margin }, restriction.map(|r| r.boxes_xyxy))?;
    Ok(SourceMasks { bits: out[0], area_px: out[1], box_xyxy: out[2] })
}

/// Adds the enlargement of logits `[K, …, 4E, 4E]` alone: `[K, …, H, W]` f32.
pub fn logits_to_source(
    g: &mut Graph,
    low_res_masks: Tensor,
    geometry: MaskGeometry,
) -> Result<Tensor, GraphError> {
    Ok(add(g, low_res_masks, geometry, Output::Logits, None)?[0])
}

fn add(
    g: &mut Graph,
    low_res_masks: Tensor,
    geometry: MaskGeometry,
    output: Output,
    boxes: Option<Tensor>,
) -> Result<Vec<Tensor>, GraphError> {
    let ty = g.ty(low_res_masks);
    let inputs = [Some(low_res_masks), ty.rows.map(|rows| rows.count), boxes];
    let inputs: Vec<Tensor> = inputs.into_iter().flatten().collect();
    let op = MasksToSource {
        geometry,
        output,
        entries: ty.shape.dims().first().copied().unwrap_or(1),
        rows_per_item: ty.rows.map(|rows| rows.rows_per_item),
        filter: MaskFilter::new(&geometry),
    };
    g.custom(Arc::new(op), &inputs)
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Output {
    /// With a margin, the last input holds boxes.
    Bits {
        margin: Option<f32>,
    },
    Logits,
}

#[derive(Debug)]
struct MasksToSource {
    geometry: MaskGeometry,
    output: Output,
    /// Leading dimension of the logits.
    entries: usize,
    /// Set when the second input is a count.
    rows_per_item: Option<usize>,
    filter: MaskFilter,
}

impl MasksToSource {
    /// Blocks of the kernel down and across a frame.
    fn tiles(&self) -> [usize; 2] {
        [0, 1].map(|axis| self.geometry.source_hw[axis].div_ceil(TILE_HW[axis]))
    }

    /// Entries of the leading dimension that belong to one box.
    fn entries_per_item(&self) -> usize {
        self.rows_per_item.unwrap_or(1).max(1)
    }

    /// Masks to compute, of `masks`.
    fn valid(&self, masks: usize, count: impl FnOnce() -> i32) -> usize {
        let Some(rows_per_item) = self.rows_per_item else { return masks };
        let counted = usize::try_from(count()).unwrap_or(0).saturating_mul(rows_per_item);
        counted.min(self.entries) * (masks / self.entries.max(1))
    }

    /// Pixels (x, then y) that a mask, of `masks`, may cover; `corner` reads the boxes.
    fn allowed(&self, mask: usize, masks: usize, corner: impl Fn(usize) -> f64) -> [Range<usize>; 2] {
        let [h, w] = self.geometry.source_hw;
        let Output::Bits { margin: Some(margin) } = self.output else { return [0..w, 0..h] };
        let item = mask / (masks / self.entries * self.entries_per_item());
        self.geometry.allowed(std::array::from_fn(|i| corner(item * 4 + i)), f64::from(margin))
    }
}

static MODULE: Module =
    Module { name: "masks_to_source", ptx: ultramotion_engine::ptx!("../kernels/ptx/masks_to_source.ptx") };
/// Height and width of what a block of the kernel makes.
const TILE_HW: [usize; 2] = [8, 256];
const THREADS: u32 = 256;

/// The params of `masks_to_source.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct CudaParams {
    logits: u64,
    count: u64,
    boxes: u64,
    bits: u64,
    partials: u64,
    area: u64,
    around: u64,
    enlarged: u64,
    masks: u32,
    masks_per_count: u32,
    masks_per_box: u32,
    low: u32,
    input: u32,
    resized_hw: [u32; 2],
    source_hw: [u32; 2],
    margin: f32,
}

impl CustomOp for MasksToSource {
    fn name(&self) -> &str {
        match self.output {
            Output::Bits { .. } => "masks_to_source",
            Output::Logits => "logits_to_source",
        }
    }

    fn output_types(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, String> {
        let low = self.geometry.input_size / 4;
        let [h, w] = self.geometry.source_hw;
        if !(1..=MAX_SOURCE_SIDE).contains(&h) || !(1..=MAX_SOURCE_SIDE).contains(&w) {
            return Err(format!("takes frames of 1 to {MAX_SOURCE_SIDE} pixels a side, not {w} x {h}"));
        }
        let logits = &inputs[0];
        let leading = match logits.shape.dims() {
            [leading @ .., lh, lw] if !leading.is_empty() && [*lh, *lw] == [low, low] => leading,
            _ => return Err(format!("needs logits [K, …, {low}, {low}], got {}", logits.shape)),
        };
        if logits.dtype != DType::F32 || logits.shape.numel() == 0 {
            return Err(format!("needs f32 logits, got {} {}", logits.dtype, logits.shape));
        }
        if let Output::Bits { margin: Some(_) } = self.output {
            let items = self.entries / self.entries_per_item();
            let boxes = &inputs[inputs.len() - 1];
            if boxes.dtype != DType::F32 || *boxes.shape.dims() != [items, 4] {
                return Err(format!("needs f32 boxes [{items}, 4], got {} {}", boxes.dtype, boxes.shape));
            }
        }
        let of = |dtype, last: &[usize]| {
            let shape = Shape::from([leading, last].concat());
            TensorType { dtype, shape, rows: logits.rows }
        };
        Ok(match self.output {
            Output::Bits { .. } => vec![
                of(DType::U8, &[h, self.geometry.row_bytes()]),
                of(DType::I32, &[]),
                of(DType::I32, &[4]),
            ],
            Output::Logits => vec![of(DType::F32, &[h, w])],
        })
    }

    fn scratch(&self, _inputs: &[TensorType]) -> Vec<(DType, usize)> {
        vec![(DType::F32, CHUNKS * self.filter.scratch_len())]
    }

    fn reference(&self, inputs: &[Values], outputs: &mut [Values]) {
        let MaskGeometry { input_size, resized_hw, source_hw: [h, w] } = self.geometry;
        let low = input_size / 4;
        let logits = inputs[0].as_f64();
        let masks = logits.len() / (low * low);
        let valid = self.valid(masks, || inputs[1].as_i32()[0]);
        for (mask, logits) in logits.chunks_exact(low * low).take(valid).enumerate() {
            let input = resize_bilinear(logits, low, [low, low], [input_size, input_size]);
            let frame = resize_bilinear(&input, input_size, resized_hw, [h, w]);
            if self.output == Output::Logits {
                outputs[0].f64_mut()[mask * h * w..][..h * w].copy_from_slice(&frame);
                continue;
            }
            let [columns, rows] = self.allowed(mask, masks, |i| inputs[inputs.len() - 1].as_f64()[i]);
            let (mut area, mut around) = (0, [w, h, 0, 0]);
            for (at, _) in frame.iter().enumerate().filter(|(_, v)| **v > 0.0) {
                let (x, y) = (at % w, at / w);
                if columns.contains(&x) && rows.contains(&y) {
                    let byte = (mask * h + y) * self.geometry.row_bytes() + x / 8;
                    outputs[0].u8_mut()[byte] |= 1 << (x % 8);
                    area += 1;
                    around = [around[0].min(x), around[1].min(y), around[2].max(x + 1), around[3].max(y + 1)];
                }
            }
            if area > 0 {
                outputs[1].i32_mut()[mask] = area;
                outputs[2].i32_mut()[mask * 4..][..4].copy_from_slice(&around.map(|v| v as i32));
            }
        }
    }

    fn cpu(&self, call: &mut CpuCall<'_>) {
        let [h, w] = self.geometry.source_hw;
        let low = self.geometry.input_size / 4;
        let logits = call.inputs[0].f32();
        let masks = logits.len() / (low * low);
        let valid = self.valid(masks, || call.inputs[1].i32()[0]);
        let logits_of = |mask: usize| &logits[mask * low * low..][..low * low];
        let [scratch] = call.scratch else { panic!("{} has one scratch buffer", self.name()) };
        let chunk_rows = (valid * h).div_ceil(CHUNKS).max(MIN_CHUNK_ROWS);
        let rooms = (scratch.f32(), self.filter.scratch_len());
        match &mut *call.outputs {
            [out] => {
                let rows = &mut out.f32()[..valid * h * w];
                in_chunks(call.parallel, (rows, chunk_rows * w), rooms, |chunk, rows, room| {
                    for_strips(chunk * chunk_rows, rows, w, h, |mask, range, out| {
                        self.filter.enlarge(logits_of(mask), range, room, out);
                    });
                });
            }
            [bits, area, around] => {
                let (area, around) = (area.i32(), around.i32());
                area.fill(0);
                around.fill(0);
                let row_bytes = self.geometry.row_bytes();
                let boxes = &call.inputs[call.inputs.len() - 1];
                let bits = &mut bits.u8()[..valid * h * row_bytes];
                in_chunks(call.parallel, (bits, chunk_rows * row_bytes), rooms, |chunk, rows, room| {
                    for_strips(chunk * chunk_rows, rows, row_bytes, h, |mask, range, out| {
                        let allowed = self.allowed(mask, masks, |i| f64::from(boxes.f32()[i]));
                        self.filter.threshold(logits_of(mask), range, allowed, room, out);
                    });
                });
                let bits = &*bits;
                let each = valid.div_ceil(CHUNKS).max(1);
                let results = ((&mut area[..valid], each), (&mut around[..valid * 4], each * 4));
                in_chunks(call.parallel, results.0, results.1, |chunk, areas, around| {
                    let around = around.as_chunks_mut::<4>().0;
                    for (i, (area, around)) in areas.iter_mut().zip(around).enumerate() {
                        let rows = &bits[(chunk * each + i) * h * row_bytes..][..h * row_bytes];
                        (*area, *around) = measure(rows, row_bytes);
                    }
                });
            }
            _ => panic!("{} has one or three results", self.name()),
        }
    }
    fn cuda_scratch(&self, inputs: &[TensorType]) -> Vec<(DType, usize)> {
        let low = self.geometry.input_size / 4;
        let masks = inputs[0].shape.numel() / (low * low);
        let [down, across] = self.tiles();
        match self.output {
            Output::Bits { .. } => vec![(DType::I32, masks * down * across * 5)],
            Output::Logits => Vec::new(),
        }
    }

    fn cuda(&self, call: &CudaCall<'_>) -> Option<Vec<Launch>> {
        let low = self.geometry.input_size / 4;
        let masks = call.input_types[0].shape.numel() / (low * low);
        let each = masks / self.entries.max(1);
        let counted = self.rows_per_item.is_some();
        let margin = match self.output {
            Output::Bits { margin } => margin,
            Output::Logits => None,
        };
        let pair = |sides: [usize; 2]| sides.map(|side| side as u32);
        let mut params = CudaParams {
            logits: call.inputs[0].data,
            count: if counted { call.inputs[1].data } else { 0 },
            boxes: margin.map_or(0, |_| call.inputs[call.inputs.len() - 1].data),
            masks: masks as u32,
            masks_per_count: (each * self.entries_per_item()) as u32,
            masks_per_box: (each * self.entries_per_item()) as u32,
            low: low as u32,
            input: self.geometry.input_size as u32,
            resized_hw: pair(self.geometry.resized_hw),
            source_hw: pair(self.geometry.source_hw),
            margin: margin.unwrap_or(0.0),
            ..CudaParams::zeroed()
        };
        let [down, across] = pair(self.tiles());
        let tiled = |kernel, params: &CudaParams| {
            Launch::new(&MODULE, kernel, params).grid([across, down, masks as u32]).block([THREADS, 1, 1])
        };
        match (call.outputs, call.scratch) {
            ([enlarged], []) => {
                params.enlarged = enlarged.data;
                Some(vec![tiled("logits_to_source", &params)])
            }
            ([bits, area, around], [partials]) => {
                params.bits = bits.data;
                params.area = area.data;
                params.around = around.data;
                params.partials = partials.data;
                let measure = Launch::new(&MODULE, "measure_masks", &params).grid([masks as u32, 1, 1]);
                Some(vec![tiled("masks_to_source", &params), measure])
            }
            _ => panic!("{} has one or three results", self.name()),
        }
    }
}

/// Calls `body(chunk, part of a, part of b)` for the parts of two buffers, cut every so many elements, on several
/// threads. At most [`CHUNKS`] parts of `a`; as many of `b`.
fn in_chunks<A: Send, B: Send>(
    parallel: &ParallelFor<'_>,
    a: (&mut [A], usize),
    b: (&mut [B], usize),
    body: impl Fn(usize, &mut [A], &mut [B]) + Sync,
) {
    let chunks = a.0.len().div_ceil(a.1);
    let mut parts = a.0.chunks_mut(a.1).zip(b.0.chunks_mut(b.1));
    // Each part is locked once: the lock only shows the compiler that no two threads share one.
    let parts: [_; CHUNKS] = std::array::from_fn(|_| Mutex::new(parts.next()));
    parallel(chunks, &|chunk| {
        let mut part = parts[chunk].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((a, b)) = &mut *part {
            body(chunk, a, b);
        }
    });
}

/// Calls `body(mask, rows of the frame, their part of the buffer)` for rows that may belong to several masks of
/// `height` rows each, starting at row `first` of all.
fn for_strips<T>(
    first: usize,
    rows: &mut [T],
    row_len: usize,
    height: usize,
    mut body: impl FnMut(usize, Range<usize>, &mut [T]),
) {
    let (mut row, mut left) = (first, rows);
    while !left.is_empty() {
        let (mask, start) = (row / height, row % height);
        let end = height.min(start + left.len() / row_len);
        let (part, rest) = left.split_at_mut((end - start) * row_len);
        body(mask, start..end, part);
        (row, left) = (row + end - start, rest);
    }
}

/// Pixels that are set in packed rows, and the smallest box around them.
fn measure(rows: &[u8], row_bytes: usize) -> (i32, [i32; 4]) {
    let (mut area, mut around) = (0, [u32::MAX, u32::MAX, 0, 0]);
    for (y, row) in (0..).zip(rows.chunks_exact(row_bytes)) {
        let (words, rest) = row.as_chunks::<8>();
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        let words = words.iter().chain([&last]).map(|&bytes| u64::from_le_bytes(bytes));
        for (x, word) in (0..).step_by(64).zip(words).filter(|(_, word)| *word != 0) {
            area += word.count_ones();
            let (low, high) = (x + word.trailing_zeros(), x + 64 - word.leading_zeros());
            around = [around[0].min(low), around[1].min(y), around[2].max(high), y + 1];
        }
    }
    if area == 0 { (0, [0; 4]) } else { (area as i32, around.map(|v| v as i32)) }
}
