//! Pooling, enlarging and padding of feature maps.

use bytemuck::{Pod, Zeroable};

use super::gemm::{EpilogueArguments, Window};
use super::modules::MAPS;
use super::networks::{MAP_THREADS, window_of};
use super::{Context, Lowered};
use crate::error::CudaError;
use crate::graph::Padding;
use crate::launch::Launch;
use crate::launch::abi::{Operand, Rows};

/// The params of `maps.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct MapParams {
    x: Operand,
    out: Operand,
    rows: Rows,
    window: Window,
    width: u32,
    reserved: u32,
}

fn launch(context: &Context<'_>, kernel: &'static str, window: Window) -> Result<Lowered, CudaError> {
    let (x, out, rows) = (context.input(0)?, context.output()?, context.rows()?);
    let width = EpilogueArguments::NONE.width(&x).min(EpilogueArguments::NONE.width(&out));
    let params = MapParams { x, out, rows, window, width, reserved: 0 };
    let threads = out.rows * out.cols.div_ceil(8);
    let launch = Launch::new(&MAPS, kernel, &params).grid([threads.div_ceil(MAP_THREADS), 1, 1]).block([
        MAP_THREADS,
        1,
        1,
    ]);
    Ok(Lowered::new(context.node.op.name(), vec![launch]))
}

pub(super) fn max_pool2d(
    context: &Context<'_>,
    kernel: usize,
    stride: usize,
    padding: Padding,
) -> Result<Lowered, CudaError> {
    launch(context, "max_pool", window_of(context, [kernel; 2], [stride; 2], padding))
}

pub(super) fn upsample_nearest_2x(context: &Context<'_>) -> Result<Lowered, CudaError> {
    launch(context, "upsample_nearest_2x", window_of(context, [1; 2], [1; 2], Padding::default()))
}

pub(super) fn pad(context: &Context<'_>, padding: Padding) -> Result<Lowered, CudaError> {
    launch(context, "pad", window_of(context, [1; 2], [1; 2], padding))
}
