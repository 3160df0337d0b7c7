//! Raw frames to network inputs.

use bytemuck::{Pod, Zeroable};

use super::modules::IMAGE;
use super::{Context, Lowered};
use crate::error::CudaError;
use crate::graph::ImageTransform;
use crate::launch::Launch;
use crate::launch::abi::Operand;
use crate::reference::triangle_filter;

/// A resize along one axis, its tables on the device.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Axis {
    starts: u64,
    weights: u64,
    taps: u32,
    resized: u32,
}

impl Axis {
    fn new(context: &Context<'_>, from: usize, to: usize) -> Result<Axis, CudaError> {
        let spans = triangle_filter(from, to);
        let taps = spans.iter().map(|(_, weights)| weights.len()).max().unwrap_or(1).min(from);
        let mut starts: Vec<u32> = Vec::with_capacity(to);
        let mut padded = vec![0f32; to * taps];
        for ((first, weights), padded) in spans.iter().zip(padded.chunks_exact_mut(taps)) {
            // All spans get the same length, inside the frame.
            let start = (*first).min(from - taps);
            starts.push(start as u32);
            padded[first - start..].iter_mut().zip(weights).for_each(|(to, &w)| *to = w as f32);
        }
        Ok(Axis {
            starts: context.keep(bytemuck::cast_slice(&starts))?,
            weights: context.keep(bytemuck::cast_slice(&padded))?,
            taps: taps as u32,
            resized: to as u32,
        })
    }
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ImageParams {
    frame: Operand,
    out: Operand,
    rows: Axis,
    cols: Axis,
    channels: u32,
    out_height: u32,
    out_width: u32,
    scale: [f32; 3],
    shift: [f32; 3],
    reserved: u32,
}

/// Pixels of the result that a block makes.
const TILE_HW: [u32; 2] = [8, 32];

pub(super) fn image_to_tensor(
    context: &Context<'_>,
    transform: &ImageTransform,
) -> Result<Lowered, CudaError> {
    let shape = context.input_shape(0);
    let (height, width, channels) = (shape[0], shape[1], shape[2]);
    let [out_height, out_width] = transform.output_hw.map(|side| side as u32);
    let params = ImageParams {
        frame: context.input(0)?.with_cols((width * channels) as u32),
        out: context.output()?,
        rows: Axis::new(context, height, transform.resized_hw[0])?,
        cols: Axis::new(context, width, transform.resized_hw[1])?,
        channels: channels as u32,
        out_height,
        out_width,
        scale: transform.scale,
        shift: transform.shift,
        reserved: 0,
    };
    let launch = Launch::new(&IMAGE, "image_to_tensor", &params)
        .grid([out_width.div_ceil(TILE_HW[1]), out_height.div_ceil(TILE_HW[0]), 1])
        .block([TILE_HW[0] * TILE_HW[1], 1, 1]);
    Ok(Lowered::new("image_to_tensor", vec![launch]))
}
