//! Matrix products: what the kernels of `gemm.cuh` are told.
//!
//! In: operands and a layer's epilogue. Out: one launch. A layer whose input is
//! stored in f16 has its weights packed in f16 and runs on tensor cores; one that reads f32 is all f32.

use bytemuck::{Pod, Zeroable};
use half::f16;

use super::Context;
use super::modules::{CONV_F16, CONV_F32, GEMM_F16, GEMM_F32};
pub(super) use super::tiles::Form;
use super::tiles::{Choice, NORMED_TILES, Pipeline, Sizes};
use crate::error::CudaError;
use crate::graph::{Epilogue, UnaryOp};
use crate::launch::abi::{Operand, Rows, element};
use crate::launch::{Launch, Module};

/// The twin of `Epilogue` in `epilogue.cuh`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct EpilogueArguments {
    residual: Operand,
    bias: u64,
    activation: u32,
    activation_after_residual: u32,
    scale: f32,
    shift: f32,
    /// Bounds of a clamp, which at most one of the activations is.
    low: f32,
    high: f32,
}

/// Code of an activation in `epilogue.cuh`.
pub(super) fn activation(op: Option<UnaryOp>) -> u32 {
    match op {
        None => 0,
        Some(UnaryOp::Relu) => 1,
        Some(UnaryOp::Silu) => 2,
        Some(UnaryOp::Gelu) => 3,
        Some(UnaryOp::Sigmoid) => 4,
        Some(UnaryOp::Tanh) => 5,
        Some(UnaryOp::Clamp(..)) => 6,
        Some(
            other @ (UnaryOp::Exp
            | UnaryOp::Log
            | UnaryOp::Sqrt
            | UnaryOp::Sin
            | UnaryOp::Cos
            | UnaryOp::Abs
            | UnaryOp::Affine(..)),
        ) => unreachable!("{other:?} is not an activation that rewrites fuse"),
    }
}

impl EpilogueArguments {
    /// Sums are stored as they are.
    pub(super) const NONE: EpilogueArguments = EpilogueArguments {
        residual: Operand::NONE,
        bias: 0,
        activation: 0,
        activation_after_residual: 0,
        scale: 1.0,
        shift: 0.0,
        low: 0.0,
        high: 0.0,
    };

    /// The epilogue of a layer. `bias` and the residual are given where the layer has them.
    pub(super) fn new(
        context: &Context<'_>,
        epilogue: &Epilogue,
        bias: Option<&[f32]>,
        residual: Option<Operand>,
    ) -> Result<EpilogueArguments, CudaError> {
        let (scale, shift) = epilogue.affine.unwrap_or((1.0, 0.0));
        let (low, high) = epilogue.clamp().unwrap_or((0.0, 0.0));
        Ok(EpilogueArguments {
            residual: residual.unwrap_or(Operand::NONE),
            bias: bias.map_or(Ok(0), |bias| context.keep(bytemuck::cast_slice(bias)))?,
            activation: activation(epilogue.activation),
            activation_after_residual: activation(epilogue.activation_after_residual),
            scale,
            shift,
            low,
            high,
        })
    }

    /// 8 where kernels may read and write eight neighbours at once, else 1.
    pub(super) fn width(&self, out: &Operand) -> u32 {
        let fits = |o: &Operand| {
            o.data.is_multiple_of(16)
                && o.cols.is_multiple_of(8)
                && (o.pitch.is_multiple_of(8) || o.rows <= 1)
        };
        if fits(out) && (self.residual.data == 0 || fits(&self.residual)) { 8 } else { 1 }
    }
}

/// Rows of A that are windows of a feature map; the twin of `Window` in `window.cuh`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Pod, Zeroable)]
pub(super) struct Window {
    pub in_h: u32,
    pub in_w: u32,
    pub out_h: u32,
    pub out_w: u32,
    pub kernel_h: u32,
    pub kernel_w: u32,
    pub stride_h: u32,
    pub stride_w: u32,
    pub pad_top: u32,
    pub pad_left: u32,
    pub channels: u32,
    pub channels_padded: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct GemmParams {
    a: Operand,
    b: Operand,
    out: Operand,
    finish: EpilogueArguments,
    partial: u64,
    arrivals: u64,
    rows: Rows,
    gamma: u64,
    beta: u64,
    m: u32,
    n: u32,
    k: u32,
    entries: u32,
    splits: u32,
    slices_per_split: u32,
    a_width: u32,
    b_width: u32,
    out_width: u32,
    tap_cols: u32,
    b_constant: u32,
    window: Window,
    norm_epsilon: f32,
    norm_activation: u32,
    unused: u32,
}

/// Elements of f32 scratch that a product needs for partial sums; 0 where K is not split. `half`: A is stored in f16.
/// K counts no padding.
pub(super) fn partial_sums(half: bool, form: Form, [m, n, k]: [usize; 3]) -> usize {
    let [m, n, k] = [m, n, k].map(|v| v as u32);
    Sizes { pipeline: Pipeline { half }, form, entries: 1, m, n, k }.partial_sums()
}

/// Weights `[n, k]` on the device, as rows whose length is a whole number of chunks, in the type of what they multiply.
pub(super) fn keep_weights(
    context: &Context<'_>,
    half: bool,
    [n, k]: [usize; 2],
    at: impl Fn(usize, usize) -> f32,
) -> Result<Operand, CudaError> {
    let pitch = k.next_multiple_of(Pipeline { half }.chunk() as usize);
    let fill = |row: usize, col: usize| if col < k { at(row, col) } else { 0.0 };
    let places = (0..n).flat_map(|row| (0..pitch).map(move |col| (row, col)));
    let data = if half {
        let packed: Vec<f16> = places.map(|(row, col)| f16::from_f32(fill(row, col))).collect();
        context.keep(bytemuck::cast_slice(&packed))?
    } else {
        let packed: Vec<f32> = places.map(|(row, col)| fill(row, col)).collect();
        context.keep(bytemuck::cast_slice(&packed))?
    };
    let kind = if half { element::F16 } else { element::F32 };
    Ok(Operand { data, rows: n as u32, cols: k as u32, pitch: pitch as u32, element: kind })
}

/// How many elements of a map a copy may take at once; with 0 its channels are not padded.
pub(super) fn map_width(map: &Operand) -> u32 {
    Pipeline { half: is_half(map) }.width(map)
}

/// Channels of a map as its windows count them.
pub(super) fn padded_channels(map: &Operand) -> u32 {
    let chunk = Pipeline { half: is_half(map) }.chunk();
    if map_width(map) == 0 { map.cols } else { map.cols.next_multiple_of(chunk) }
}

/// Whether a layer that reads this operand computes with f16 products.
pub(super) fn is_half(a: &Operand) -> bool {
    a.element == element::F16
}

/// The layer norm of the rows of a product that is finished.
#[derive(Clone, Copy)]
pub(super) struct Norm {
    /// f32, one for each column of the result.
    pub gamma: Operand,
    pub beta: Operand,
    pub epsilon: f32,
    /// Of the norm; no clamp.
    pub activation: Option<UnaryOp>,
}

/// One product: `out = epilogue_arguments(a · b)`.
pub(super) struct Product {
    pub form: Form,
    pub a: Operand,
    /// `[n, k]`, or `[k, n]` for [`Form::Columns`]; as many of them as there are entries.
    pub b: Operand,
    pub out: Operand,
    pub finish: EpilogueArguments,
    /// Rows of all entries to compute.
    pub rows: Rows,
    /// Matrices of a batch.
    pub entries: u32,
    /// Sizes of one of them.
    pub m: u32,
    pub n: u32,
    pub k: u32,
    /// For a transposed convolution, columns of a tap in `b`, else 0.
    pub tap_cols: u32,
    /// Whether no kernel writes `b`.
    pub b_constant: bool,
    pub window: Window,
    /// For weights, and results of as many columns as one of [`NORMED_TILES`] has.
    pub norm: Option<Norm>,
}

impl Product {
    /// A linear layer: rows of `a` with weights from [`keep_weights`].
    pub(super) fn linear(
        a: Operand,
        weights: Operand,
        out: Operand,
        finish: EpilogueArguments,
        rows: Rows,
    ) -> Self {
        let (m, n, k) = (rows.bound, weights.rows, weights.cols);
        let (form, window) = (Form::Rows, Window::default());
        Product {
            form,
            a,
            b: weights,
            out,
            finish,
            rows,
            entries: 1,
            m,
            n,
            k,
            tap_cols: 0,
            b_constant: true,
            window,
            norm: None,
        }
    }

    fn sizes(&self) -> Sizes {
        let Product { form, entries, m, n, k, window, .. } = *self;
        // Products of two types convert the narrow one.
        let pipeline = Pipeline { half: is_half(&self.a) && is_half(&self.b) };
        let taps = window.kernel_h * window.kernel_w;
        let k = if form == Form::Windows { taps * window.channels } else { k };
        Sizes { pipeline, form, entries, m, n, k }
    }

    /// What is chosen for it, as a line of the file of measured choices.
    pub(super) fn tile(&self) -> String {
        self.sizes().line(self.sizes().choose())
    }

    /// The launch, if there is anything to compute. `scratch` has what [`partial_sums`] asked for; without it K is not split.
    pub(super) fn launch(
        self,
        context: &Context<'_>,
        scratch: Option<&Operand>,
    ) -> Result<Option<Launch>, CudaError> {
        if self.m == 0 || self.n == 0 {
            return Ok(None);
        }
        if self.norm.is_some() {
            let tile = NORMED_TILES.iter().find(|tile| tile.cols == self.out.cols);
            let tile = tile.expect("chains with norms are of results as wide as a tile");
            return Ok(Some(self.bind(Choice { tile, splits: 1 }, 0, 0)));
        }
        let choice = self.sizes().choose();
        let room = scratch.map_or(1, |s| s.cols / (self.m * self.n.next_multiple_of(8)));
        let splits = choice.splits.min(room).max(1);
        let arrivals =
            if splits > 1 { context.counters(choice.tile.blocks(self.m, self.n) as usize)? } else { 0 };
        Ok(Some(self.bind(Choice { splits, ..choice }, scratch.map_or(0, |s| s.data), arrivals)))
    }

    /// The launch for a choice, of which K may get fewer parts. Partial sums go to `partial`; `arrivals` has a zero for each tile.
    fn bind(self, Choice { tile, splits }: Choice, partial: u64, arrivals: u64) -> Launch {
        let pipeline = self.sizes().pipeline;
        let Product { form, a, b, out, finish, rows, entries, m, n, k, tap_cols, b_constant, window, norm } =
            self;
        let slices = k.div_ceil(pipeline.slice()).max(1);
        let slices_per_split = slices.div_ceil(splits);
        let splits = slices.div_ceil(slices_per_split);
        let a_width = if form == Form::Windows && map_width(&a) == 0 { 0 } else { pipeline.width(&a) };
        let (gamma, beta) = norm.map_or((0, 0), |norm| (norm.gamma.data, norm.beta.data));
        let params = GemmParams {
            a,
            b,
            out,
            finish,
            partial,
            arrivals,
            rows,
            gamma,
            beta,
            m,
            n,
            k,
            entries,
            splits,
            slices_per_split,
            a_width,
            b_width: pipeline.width(&b),
            out_width: finish.width(&out),
            tap_cols,
            b_constant: (b_constant && pipeline.width(&b) == pipeline.chunk()).into(),
            window,
            norm_epsilon: norm.map_or(0.0, |norm| norm.epsilon),
            norm_activation: activation(norm.and_then(|norm| norm.activation)),
            unused: 0,
        };
        let module: &'static Module = match (form, pipeline.half) {
            (Form::Windows, true) => &CONV_F16,
            (Form::Windows, false) => &CONV_F32,
            (_, true) => &GEMM_F16,
            (_, false) => &GEMM_F32,
        };
        let kernel = tile.kernel(form).expect("choices are of tiles that have one");
        Launch::new(module, kernel, &params)
            .grid([m.div_ceil(tile.rows), n.div_ceil(tile.cols), entries.max(splits)])
            .block([tile.threads, 1, 1])
            .shared(pipeline.shared_bytes(tile, form))
    }
}

#[cfg(test)]
#[path = "gemm_tests.rs"]
mod tests;
