//! Attention over keys, inside windows, and over sampled points.

use bytemuck::{Pod, Zeroable};
use half::f16;

use super::gemm::{self, EpilogueArguments, Form, Product};
use super::modules::{ATTENTION, ATTENTION_F16, DEFORMABLE};
use super::networks::values;
use super::rows::{in_units, norm};
use super::{Context, Lowered};
use crate::compile::Storage;
use crate::error::CudaError;
use crate::graph::{Epilogue, Graph, Node, Op, Tensor};
use crate::launch::Launch;
use crate::launch::abi::{Operand, Rows, element};
use crate::tensor::DType;

/// The params of `attention.cu` and `attention_f16.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct AttentionParams {
    q: Operand,
    k: Operand,
    v: Operand,
    out: Operand,
    bias: Operand,
    batches: Rows,
    partial: u64,
    heads: u32,
    queries: u32,
    keys: u32,
    shared_q: u32,
    shared_k: u32,
    scale: f32,
    width: u32,
    windows: Windows,
    bias_rows: u32,
    parts: u32,
    part_keys: u32,
}

/// Maps cut into windows, whose pixels are the tokens.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable)]
pub(super) struct Windows {
    /// Side of a window in pixels; 0 where tokens are not pixels of windows.
    pub side: u32,
    pub height: u32,
    pub width: u32,
    /// Windows in a row.
    pub across: u32,
    /// Windows in a map.
    pub per_image: u32,
    /// Row that holds query, key and value of pixels outside the map.
    pub outside_row: u32,
}

/// One attention. `q`, `k`, `v` and `out` hold all heads side by side.
pub(super) struct Attention {
    pub q: Operand,
    pub k: Operand,
    pub v: Operand,
    pub out: Operand,
    /// Argument of the node that is a bias of `[heads * queries, keys]`, if one is.
    pub bias: Option<usize>,
    /// Batches, of which a count may say that fewer are valid.
    pub batches: Rows,
    pub heads: u32,
    pub queries: u32,
    pub keys: u32,
    pub shared_q: bool,
    pub shared_k: bool,
    pub scale: f32,
    pub windows: Windows,
}

/// Most elements of a head.
const MAX_DIMS: u32 = 128;
/// Most on tensor cores.
const MAX_F16_DIMS: u32 = 64;
/// Blocks that keep a large GPU busy: with fewer, the keys of a query are shared out.
const BUSY_BLOCKS: u32 = 264;

/// How attention on tensor cores is shared out among blocks.
#[derive(Clone, Copy)]
struct Shares {
    /// Elements of a head, as its kernel has them.
    dims: u32,
    /// The warps of a block have the same queries and share its keys.
    split: bool,
    /// Blocks that share the keys of a query, and how many each has.
    parts: u32,
    part_keys: u32,
}

impl Shares {
    /// `widest`: elements of a head. With few queries, first warps, then blocks have parts of the keys.
    fn new(widest: u32, [batches, heads, queries, keys]: [u32; 4]) -> Shares {
        let dims = [16, 32].into_iter().find(|&d| widest <= d).unwrap_or(MAX_F16_DIMS);
        let blocks = |queries_of_block: u32| queries.div_ceil(queries_of_block) * heads * batches;
        let split = queries <= SPLIT_QUERIES || (blocks(F16_TILE) < BUSY_BLOCKS && keys >= F16_TILE);
        if !split {
            return Shares { dims, split, parts: 1, part_keys: keys };
        }
        let tile = Shares::split_tile(dims);
        let wanted = BUSY_BLOCKS / blocks(SPLIT_QUERIES).max(1);
        let part_keys = keys.div_ceil(wanted.clamp(1, keys.div_ceil(tile).max(1))).next_multiple_of(tile);
        Shares { dims, split, parts: keys.div_ceil(part_keys).max(1), part_keys }
    }
    /// Keys that a block has in shared memory at once.
    fn split_tile(dims: u32) -> u32 {
        4096 / dims
    }
    /// Elements of f32 that the parts of `rows` of `heads` take, of `dv` elements each.
    fn partial(self, rows: u32, heads: u32, dv: u32) -> usize {
        if self.parts == 1 { 0 } else { (self.parts * rows * heads * (dv + 2)) as usize }
    }
    fn kernel(self) -> &'static str {
        match (self.dims, self.split) {
            (16, false) => "attention_f16_16",
            (16, true) => "attention_f16_16_split",
            (32, false) => "attention_f16_32",
            (32, true) => "attention_f16_32_split",
            (_, false) => "attention_f16_64",
            (_, true) => "attention_f16_64_split",
        }
    }
    fn queries_of_block(self) -> u32 {
        if self.split { SPLIT_QUERIES } else { F16_TILE }
    }
    /// Shared memory: queries, and two tiles of keys and values, in rows that are 8 elements longer than a head.
    fn shared_bytes(self) -> u32 {
        let tile = if self.split { Shares::split_tile(self.dims) } else { F16_TILE };
        2 * (self.queries_of_block() + 4 * tile) * (self.dims + 8)
    }
}

/// Most tokens of a window on tensor cores: a block keeps a list of their rows.
const MAX_F16_WINDOW: u32 = 1024;
/// Queries and keys that a block on tensor cores looks at together, and queries where its warps share the keys.
const F16_TILE: u32 = 64;
const SPLIT_QUERIES: u32 = 16;

/// A constant bias of `[heads * queries, keys]` as `attention_f16.cu` wants it, and the rows of a head.
fn packed_bias(
    context: &Context<'_>,
    bias: &[f32],
    [heads, queries, keys]: [u32; 3],
) -> Result<(Operand, u32), CudaError> {
    let [rows, cols] = [queries, keys].map(|n| n.next_multiple_of(F16_TILE));
    let mut packed = vec![f16::ZERO; (heads * rows * cols) as usize];
    for (row, packed) in packed.chunks_exact_mut(cols as usize).enumerate() {
        let (head, query) = (row as u32 / rows, row as u32 % rows);
        let (used, past) = packed.split_at_mut(keys as usize);
        past.fill(f16::MIN);
        if query < queries {
            let from = &bias[((head * queries + query) * keys) as usize..][..keys as usize];
            let log2 = |v: f32| f16::from_f32(v * std::f32::consts::LOG2_E);
            used.iter_mut().zip(from).for_each(|(to, &v)| *to = log2(v));
        }
    }
    let data = context.keep(bytemuck::cast_slice(&packed))?;
    Ok((Operand { data, rows: heads * rows, cols, pitch: cols, element: element::F16 }, rows))
}

impl Attention {
    /// The launches. `partial` has what [`scratch`] asked for; without it keys are not shared out among blocks.
    pub(super) fn launches(
        self,
        context: &Context<'_>,
        partial: Option<&Operand>,
    ) -> Result<Vec<Launch>, CudaError> {
        let Attention { q, k, v, out, bias, batches, heads, queries, keys, .. } = self;
        let (d, dv) = (q.cols / heads, v.cols / heads);
        let widest = d.max(dv);
        if widest > MAX_DIMS {
            return Err(CudaError::NoCudaForm {
                op: format!("attention with heads of more than {MAX_DIMS}"),
            });
        }
        let all = [q, k, v, out];
        let constant_bias = bias.and_then(|argument| context.constant(argument)?.as_f32());
        let tensor_cores = all.iter().all(|o| o.element == element::F16)
            && widest <= MAX_F16_DIMS
            && (bias.is_none() || constant_bias.is_some())
            && (self.windows.side == 0 || keys <= MAX_F16_WINDOW);
        let (bias, bias_rows) = match (bias, constant_bias) {
            (Some(_), Some(values)) if tensor_cores => packed_bias(context, values, [heads, queries, keys])?,
            (Some(argument), _) => (context.input(argument)?, queries),
            (None, _) => (Operand::NONE, 0),
        };
        let in_eights = |o: &Operand| o.data.is_multiple_of(16) && (o.pitch.is_multiple_of(8) || o.rows <= 1);
        let aligned = d.is_multiple_of(8) && dv.is_multiple_of(8) && all.iter().all(in_eights);
        let mut shares = Shares::new(widest, [batches.bound, heads, queries, keys]);
        if partial.is_none_or(|p| (p.cols as usize) < shares.partial(out.rows, heads, dv)) {
            (shares.parts, shares.part_keys) = (1, keys);
        }
        let params = AttentionParams {
            q,
            k,
            v,
            out,
            bias,
            batches,
            partial: partial.map_or(0, |p| p.data),
            heads,
            queries,
            keys,
            shared_q: self.shared_q.into(),
            shared_k: self.shared_k.into(),
            scale: self.scale,
            width: if aligned { 8 } else { 1 },
            windows: self.windows,
            bias_rows,
            parts: shares.parts,
            part_keys: shares.part_keys,
        };
        let grid = |queries_of_block: u32| [queries.div_ceil(queries_of_block), heads, batches.bound];
        if tensor_cores {
            let [across, heads, batches] = grid(shares.queries_of_block());
            // Rows of a window's tokens, after all else.
            let window_rows = if self.windows.side == 0 { 0 } else { 4 * keys };
            let mut launches = vec![
                Launch::new(&ATTENTION_F16, shares.kernel(), &params)
                    .grid([across * shares.parts, heads, batches])
                    .block([128, 1, 1])
                    .shared(shares.shared_bytes() + window_rows),
            ];
            if shares.parts > 1 {
                let threads = out.rows * out.cols;
                launches.push(
                    Launch::new(&ATTENTION_F16, "attention_f16_join", &params)
                        .grid([threads.div_ceil(256), 1, 1])
                        .block([256, 1, 1]),
                );
            }
            return Ok(launches);
        }
        let kernel = match widest.div_ceil(32) {
            0 | 1 => "attention_32",
            2 => "attention_64",
            3 => "attention_96",
            _ => "attention_128",
        };
        Ok(vec![Launch::new(&ATTENTION, kernel, &params).grid(grid(16)).block([128, 1, 1])])
    }
}

pub(super) fn attention(context: &Context<'_>) -> Result<Lowered, CudaError> {
    let Op::Attention { heads, scale, bias } = context.node.op else { unreachable!("dispatched on the op") };
    let [q_shape, k_shape, v_shape] = [0, 1, 2].map(|i| context.input_shape(i));
    let batch = context.output_shape()[0];
    let launches = Attention {
        q: context.input(0)?,
        k: context.input(1)?,
        v: context.input(2)?,
        out: context.output()?,
        bias: bias.then_some(3),
        batches: in_units(context.rows()?, batch),
        heads: heads as u32,
        queries: q_shape[1] as u32,
        keys: k_shape[1] as u32,
        shared_q: q_shape[0] == 1,
        shared_k: k_shape[0] == 1,
        scale,
        windows: Windows::default(),
    }
    .launches(context, context.scratch()?.first())?;
    let flops = 2 * (batch * q_shape[1] * k_shape[1] * (q_shape[2] + v_shape[2])) as u64;
    Ok(Lowered { flops, ..Lowered::new("attention", launches) })
}

/// Scratch of a window attention: normalised pixels; queries, keys and values; what the heads give; partial sums of the two
/// layers, where they have them. Pixels outside the map are one row more.
pub(super) fn window_scratch(graph: &Graph, storage: &[Storage], node: &Node) -> Vec<(DType, usize)> {
    let x = node.inputs[0];
    let (half, pixels, c) =
        (storage[x.0 as usize] == Storage::F16, graph.shape(x).rows(), graph.shape(x).cols());
    let size = if half { 2 } else { 4 };
    let elements = [(pixels + 1) * c, (pixels + 1) * 3 * c, pixels * c];
    let layers = [[pixels + 1, 3 * c, c], [pixels, c, c]];
    let partial = layers.map(|sizes| gemm::partial_sums(half, Form::Rows, sizes));
    let partial = partial.into_iter().max().filter(|&n| n > 0).map(|n| (DType::F32, n));
    elements.into_iter().map(|n| (DType::U8, size * n)).chain(partial).collect()
}

/// Scratch for partial sums of an attention whose keys are shared among blocks.
pub(super) fn scratch(graph: &Graph, storage: &[Storage], node: &Node, heads: usize) -> Vec<(DType, usize)> {
    let half = |tensor: &Tensor| storage[tensor.0 as usize] == Storage::F16;
    let [q, k, v, out] =
        [node.inputs[0], node.inputs[1], node.inputs[2], node.outputs[0]].map(|t| graph.shape(t));
    let widest = q.cols().max(v.cols()) / heads;
    if !node.inputs[..3].iter().chain(&node.outputs).all(half) || widest > MAX_F16_DIMS as usize {
        return Vec::new();
    }
    let sizes = [out[0], heads, q[1], k[1]].map(|n| n as u32);
    let shares = Shares::new(widest as u32, sizes);
    let partial = shares.partial(out.rows() as u32, heads as u32, (v.cols() / heads) as u32);
    if partial == 0 { Vec::new() } else { vec![(DType::F32, partial)] }
}

/// Four steps, none of which writes padding down: the layer norm of the map's pixels, and of one that is zero for all that
/// are outside; a linear layer to queries, keys and values; attention, whose tokens are the windows' pixels; a linear layer
/// with the input added.
pub(super) fn window_attention(context: &Context<'_>) -> Result<Lowered, CudaError> {
    let Op::WindowAttention { window, heads, epsilon } = context.node.op else {
        unreachable!("dispatched on the op")
    };
    let shape = context.input_shape(0);
    let (h, w, c) = (shape[1], shape[2], shape[3]);
    let (x, out, rows) = (context.input(0)?, context.output()?, context.rows()?);
    let half = gemm::is_half(&x);
    let pixels = x.rows;
    let buffers = context.scratch()?;
    let dense = |index: usize, rows: u32, cols: usize| {
        let cols = cols as u32;
        Operand { data: buffers[index].data, rows, cols, pitch: cols, element: x.element }
    };
    let (normed, qkv) = (dense(0, pixels + 1, c), dense(1, pixels + 1, 3 * c));
    let (attended, partial) = (dense(2, pixels, c), buffers.get(3));
    let layer = |argument: usize, outputs: usize, residual: Option<Operand>| {
        let weight = values(context, argument);
        let packed = gemm::keep_weights(context, half, [outputs, c], |row, col| weight[row * c + col])?;
        let bias = values(context, argument + 1);
        Ok::<_, CudaError>((
            packed,
            EpilogueArguments::new(context, &Epilogue::default(), Some(bias), residual)?,
        ))
    };

    let mut launches = vec![norm(
        x,
        [context.input(1)?, context.input(2)?],
        normed,
        rows,
        epsilon,
        &Epilogue::default(),
        true,
    )];
    let (weights, finish) = layer(3, 3 * c, None)?;
    let with_outside = Rows { entries: 0, rows_per_entry: 1, bound: pixels + 1 };
    launches.extend(Product::linear(normed, weights, qkv, finish, with_outside).launch(context, partial)?);
    let (down, across) = (h.div_ceil(window), w.div_ceil(window));
    let (area, windows, width) = (window * window, shape[0] * down * across, c as u32);
    let attention = Attention {
        q: qkv.columns(0, width),
        k: qkv.columns(width, width),
        v: qkv.columns(2 * width, width),
        out: attended,
        bias: Some(5),
        batches: in_units(rows, windows),
        heads: heads as u32,
        queries: area as u32,
        keys: area as u32,
        shared_q: false,
        shared_k: false,
        scale: 1.0 / ((c / heads) as f32).sqrt(),
        windows: Windows {
            side: window as u32,
            height: h as u32,
            width: w as u32,
            across: across as u32,
            per_image: (down * across) as u32,
            outside_row: pixels,
        },
    };
    launches.extend(attention.launches(context, None)?);
    let (weights, finish) = layer(6, c, Some(x))?;
    launches.extend(Product::linear(attended, weights, out, finish, rows).launch(context, partial)?);
    let flops = 2 * (shape.rows() * 4 * c * c + windows * area * area * 2 * c) as u64;
    Ok(Lowered { flops, ..Lowered::new("window_attention", launches) })
}

/// Feature maps that one deformable attention can sample.
const MAX_LEVELS: usize = 8;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct DeformableParams {
    value: Operand,
    offsets: Operand,
    logits: Operand,
    boxes: Operand,
    out: Operand,
    rows: Rows,
    heads: u32,
    points: u32,
    levels: u32,
    width: u32,
    heights: [u32; MAX_LEVELS],
    widths: [u32; MAX_LEVELS],
    level_points: [u32; MAX_LEVELS],
}

pub(super) fn deformable(context: &Context<'_>) -> Result<Lowered, CudaError> {
    let Op::DeformableAttention { heads, levels_hw, points_per_level } = &context.node.op else {
        unreachable!("dispatched on the op")
    };
    if levels_hw.len() > MAX_LEVELS {
        return Err(CudaError::NoCudaForm {
            op: format!("deformable attention of more than {MAX_LEVELS} levels"),
        });
    }
    let (value, out, rows) = (context.input(0)?, context.output()?, context.rows()?);
    let d = out.cols / *heads as u32;
    let fits = |width: u32| {
        let aligned = |o: &Operand| {
            o.data.is_multiple_of(u64::from((width * o.element_bytes()).min(16)))
                && (o.pitch.is_multiple_of(width) || o.rows <= 1)
        };
        d.is_multiple_of(width) && aligned(&value) && aligned(&out)
    };
    // 16 bytes of a map at once.
    let widest = if value.element == element::F16 { 8 } else { 4 };
    let width = [widest, 4].into_iter().find(|&w| fits(w)).unwrap_or(1);
    let mut fixed = [[0; MAX_LEVELS]; 3];
    for (i, (hw, &points)) in levels_hw.iter().zip(points_per_level).enumerate() {
        [hw[0], hw[1], points].iter().zip(&mut fixed).for_each(|(&from, to)| to[i] = from as u32);
    }
    let params = DeformableParams {
        value,
        offsets: context.input(1)?,
        logits: context.input(2)?,
        boxes: context.input(3)?,
        out,
        rows,
        heads: *heads as u32,
        points: points_per_level.iter().sum::<usize>() as u32,
        levels: levels_hw.len() as u32,
        width,
        heights: fixed[0],
        widths: fixed[1],
        level_points: fixed[2],
    };
    // A warp for each head of each query.
    let threads = rows.bound * *heads as u32 * 32;
    let launch = Launch::new(&DEFORMABLE, "deformable_attention", &params)
        .grid([threads.div_ceil(128), 1, 1])
        .block([128, 1, 1]);
    Ok(Lowered::new("deformable_attention", vec![launch]))
}
