//! Builder methods of neural networks: convolutions, linear layers, norms, attention, image input.

use super::{
    Epilogue, Graph, GraphError, ImageTransform, MAX_SAMPLING_POINTS, Op, Padding, Tensor, TensorType,
    WindowAttentionParameters,
};
use crate::tensor::{DType, Shape};

impl Graph {
    /// Convolution of `[N, H, W, Cin]` with weight `[Cout, Cin / groups, kh, kw]` and bias `[Cout]`
    /// → `[N, H', W', Cout]`, zero padded.
    pub fn conv2d(
        &mut self,
        x: Tensor,
        weight: Tensor,
        bias: Option<Tensor>,
        stride: usize,
        padding: Padding,
        groups: usize,
    ) -> Result<Tensor, GraphError> {
        let [n, h, w, c] = self.feature_map("conv2d", x)?;
        let weight_shape = self.shape(weight).clone();
        let reason = |what: &str| format!("{what}: input {}, weight {weight_shape}", self.shape(x));
        let &[c_out, c_in_group, kh, kw] = weight_shape.dims() else {
            return Err(self.error("conv2d", reason("the weight is not [Cout, Cin/groups, kh, kw]")));
        };
        let (full_h, full_w) = (h + padding.top + padding.bottom, w + padding.left + padding.right);
        if groups == 0 || c != c_in_group * groups || !c_out.is_multiple_of(groups) {
            return Err(self.error("conv2d", reason("channels do not fit")));
        }
        if stride == 0 || kh == 0 || kw == 0 || full_h < kh || full_w < kw {
            return Err(self.error("conv2d", reason("the kernel does not fit in the padded input")));
        }
        let shape = [n, (full_h - kh) / stride + 1, (full_w - kw) / stride + 1, c_out].into();
        let ty = TensorType { dtype: DType::F32, shape, rows: self.ty(x).rows };
        let inputs = self.with_bias("conv2d", x, weight, bias, c_out)?;
        let op = Op::Conv2d {
            stride: [stride; 2],
            padding,
            groups,
            bias: bias.is_some(),
            epilogue: Epilogue::default(),
        };
        Ok(self.push(op, &inputs, ty))
    }

    /// Transposed convolution with a 2x2 kernel and stride 2: `[N, H, W, Cin]`, weight `[Cin, Cout, 2, 2]`, bias
    /// `[Cout]` → `[N, 2H, 2W, Cout]`.
    pub fn conv_transpose2d(
        &mut self,
        x: Tensor,
        weight: Tensor,
        bias: Option<Tensor>,
    ) -> Result<Tensor, GraphError> {
        let [n, h, w, c] = self.feature_map("conv_transpose2d", x)?;
        let weight_shape = self.shape(weight).clone();
        let c_out = match *weight_shape.dims() {
            [c_in, c_out, 2, 2] if c_in == c => c_out,
            _ => {
                let reason = format!("input {} and weight {weight_shape} do not fit", self.shape(x));
                return Err(self.error("conv_transpose2d", reason));
            }
        };
        let shape = [n, 2 * h, 2 * w, c_out].into();
        let ty = TensorType { dtype: DType::F32, shape, rows: self.ty(x).rows };
        let inputs = self.with_bias("conv_transpose2d", x, weight, bias, c_out)?;
        let op = Op::ConvTranspose2d { bias: bias.is_some(), epilogue: Epilogue::default() };
        Ok(self.push(op, &inputs, ty))
    }

    /// Batch norm with running statistics over the last dimension; the four parameters are `[C]`.
    pub fn batch_norm(
        &mut self,
        x: Tensor,
        [weight, bias, mean, variance]: [Tensor; 4],
        epsilon: f32,
    ) -> Result<Tensor, GraphError> {
        self.expect_f32("batch_norm", &[x])?;
        let ty = self.ty(x).clone();
        for parameter in [weight, bias, mean, variance] {
            if self.shape(parameter).dims() != [ty.shape.cols()] {
                let reason = format!("input {}, parameter {}", ty.shape, self.shape(parameter));
                return Err(self.error("batch_norm", reason));
            }
        }
        Ok(self.push(Op::BatchNorm { epsilon }, &[x, weight, bias, mean, variance], ty))
    }

    /// `x · weightᵀ + bias`: `[..., K]`, weight `[N, K]`, bias `[N]` → `[..., N]`.
    pub fn linear(&mut self, x: Tensor, weight: Tensor, bias: Option<Tensor>) -> Result<Tensor, GraphError> {
        self.expect_f32("linear", &[x, weight])?;
        let (ty, weight_shape) = (self.ty(x).clone(), self.shape(weight).clone());
        let n = match *weight_shape.dims() {
            [n, k] if ty.shape.rank() > 0 && ty.shape.cols() == k => n,
            _ => {
                return Err(
                    self.error("linear", format!("input {} and weight {weight_shape} do not fit", ty.shape))
                );
            }
        };
        let mut dims = ty.shape.dims().to_vec();
        *dims.last_mut().expect("rank was checked above") = n;
        let inputs = self.with_bias("linear", x, weight, bias, n)?;
        let op = Op::Linear { bias: bias.is_some(), epilogue: Epilogue::default() };
        Ok(self.push(op, &inputs, TensorType { shape: dims.into(), ..ty }))
    }

    /// Batched product of two computed tensors: `[..., M, K] · [..., K, N]` (or `[..., N, K]` with `transpose_b`)
    /// → `[..., M, N]`. Leading dimensions are equal.
    pub fn matmul(&mut self, a: Tensor, b: Tensor, transpose_b: bool) -> Result<Tensor, GraphError> {
        self.expect_f32("matmul", &[a, b])?;
        let (sa, sb) = (self.shape(a).clone(), self.shape(b).clone());
        let rank = sa.rank();
        let fits = rank >= 2 && sb.rank() == rank && sa.dims()[..rank - 2] == sb.dims()[..rank - 2];
        let (k_b, n) = match (fits, transpose_b) {
            (false, _) => (0, 0),
            (true, false) => (sb[rank - 2], sb[rank - 1]),
            (true, true) => (sb[rank - 1], sb[rank - 2]),
        };
        if !fits || sa[rank - 1] != k_b {
            let t = if transpose_b { " transposed" } else { "" };
            return Err(self.error("matmul", format!("{sa} and {sb}{t} do not fit")));
        }
        let rows = self.merged_rows("matmul", &[a, b])?;
        if rows.is_some() && rank == 2 && self.ty(b).rows.is_some() {
            return Err(self.error("matmul", "would mix the rows of a row-counted tensor".into()));
        }
        let mut dims = sa.dims().to_vec();
        dims[rank - 1] = n;
        Ok(self.push(
            Op::MatMul { transpose_b },
            &[a, b],
            TensorType { dtype: DType::F32, shape: dims.into(), rows },
        ))
    }

    /// Largest value in each window of `[N, H, W, C]`; the padding never wins.
    pub fn max_pool2d(
        &mut self,
        x: Tensor,
        kernel: usize,
        stride: usize,
        padding: Padding,
    ) -> Result<Tensor, GraphError> {
        let [n, h, w, c] = self.feature_map("max_pool2d", x)?;
        let (full_h, full_w) = (h + padding.top + padding.bottom, w + padding.left + padding.right);
        if kernel == 0 || stride == 0 || full_h < kernel || full_w < kernel {
            return Err(
                self.error("max_pool2d", format!("kernel {kernel}, stride {stride} on {}", self.shape(x)))
            );
        }
        let shape = [n, (full_h - kernel) / stride + 1, (full_w - kernel) / stride + 1, c].into();
        let ty = TensorType { dtype: DType::F32, shape, rows: self.ty(x).rows };
        Ok(self.push(Op::MaxPool2d { kernel, stride, padding }, &[x], ty))
    }

    /// Repeats each pixel twice in both directions: `[N, H, W, C]` → `[N, 2H, 2W, C]`.
    pub fn upsample_nearest_2x(&mut self, x: Tensor) -> Result<Tensor, GraphError> {
        let [n, h, w, c] = self.feature_map("upsample_nearest_2x", x)?;
        let ty = TensorType { shape: [n, 2 * h, 2 * w, c].into(), ..self.ty(x).clone() };
        Ok(self.push(Op::UpsampleNearest2x, &[x], ty))
    }

    /// Softmax over the last dimension.
    pub fn softmax(&mut self, x: Tensor) -> Result<Tensor, GraphError> {
        self.expect_f32("softmax", &[x])?;
        let ty = self.ty(x).clone();
        Ok(self.push(Op::Softmax, &[x], ty))
    }

    /// Layer norm over the last dimension; weight and bias are `[C]`.
    pub fn layer_norm(
        &mut self,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        epsilon: f32,
    ) -> Result<Tensor, GraphError> {
        self.expect_f32("layer_norm", &[x, weight, bias])?;
        let ty = self.ty(x).clone();
        if [weight, bias].iter().any(|&p| self.shape(p).dims() != [ty.shape.cols()]) {
            let reason =
                format!("input {}, weight {}, bias {}", ty.shape, self.shape(weight), self.shape(bias));
            return Err(self.error("layer_norm", reason));
        }
        Ok(self.push(Op::LayerNorm { epsilon, activation: None }, &[x, weight, bias], ty))
    }

    /// `softmax(scale · q kᵀ + bias) v` for each of `heads` heads: q `[B, Lq, heads·D]`, k `[B or 1, Lk, heads·D]`,
    /// v `[B or 1, Lk, heads·Dv]`, bias `[heads, Lq, Lk]` → `[B, Lq, heads·Dv]`. Keys and values of batch 1 serve
    /// every query batch, and queries of batch 1 every key batch.
    pub fn attention(
        &mut self,
        [q, k, v]: [Tensor; 3],
        bias: Option<Tensor>,
        heads: usize,
        scale: f32,
    ) -> Result<Tensor, GraphError> {
        self.expect_f32("attention", &[q, k, v])?;
        let (sq, sk, sv) = (self.shape(q).clone(), self.shape(k).clone(), self.shape(v).clone());
        let rank3 = sq.rank() == 3 && sk.rank() == 3 && sv.rank() == 3;
        let fits = rank3
            && heads > 0
            && sq[2] == sk[2]
            && sq[2].is_multiple_of(heads)
            && sv[2].is_multiple_of(heads)
            && sk[1] == sv[1]
            && sk[0] == sv[0]
            && (sk[0] == sq[0] || sk[0] == 1 || sq[0] == 1);
        if !fits {
            return Err(
                self.error("attention", format!("q {sq}, k {sk}, v {sv} with {heads} heads do not fit"))
            );
        }
        let mut inputs = vec![q, k, v];
        if let Some(bias) = bias {
            if self.shape(bias).dims() != [heads, sq[1], sk[1]] {
                let reason = format!("bias {} is not [{heads}, {}, {}]", self.shape(bias), sq[1], sk[1]);
                return Err(self.error("attention", reason));
            }
            inputs.push(bias);
        }
        let rows = self.merged_rows("attention", &[q, k, v])?;
        let shape = [sq[0].max(sk[0]), sq[1], sv[2]].into();
        let op = Op::Attention { heads, scale, bias: bias.is_some() };
        Ok(self.push(op, &inputs, TensorType { dtype: DType::F32, shape, rows }))
    }

    /// Self-attention inside windows of `window` x `window` pixels, with its input added: for `[N, H, W, C]`, in each
    /// window `x + project(softmax(q kᵀ / √(C / heads) + score_bias) v)` of the normalised pixels (Liu et al. 2021,
    /// without the shift). Windows past the right and bottom edges are filled with zero pixels, which are normalised and
    /// attended to like others.
    pub fn window_attention(
        &mut self,
        x: Tensor,
        parameters: WindowAttentionParameters,
        heads: usize,
        window: usize,
        epsilon: f32,
    ) -> Result<Tensor, GraphError> {
        let [_, _, _, c] = self.feature_map("window_attention", x)?;
        let WindowAttentionParameters { norm, qkv, score_bias, project } = parameters;
        let area = window * window;
        let expected: [(Tensor, Vec<usize>); 7] = [
            (norm[0], vec![c]),
            (norm[1], vec![c]),
            (qkv[0], vec![3 * c, c]),
            (qkv[1], vec![3 * c]),
            (score_bias, vec![heads, area, area]),
            (project[0], vec![c, c]),
            (project[1], vec![c]),
        ];
        let fits = heads > 0
            && window > 0
            && c.is_multiple_of(heads)
            && expected.iter().all(|(t, dims)| self.shape(*t).dims() == dims);
        if !fits {
            let shapes: Vec<String> = expected.iter().map(|(t, _)| self.shape(*t).to_string()).collect();
            let reason = format!(
                "input {}, {heads} heads, window {window}, parameters {}",
                self.shape(x),
                shapes.join(", ")
            );
            return Err(self.error("window_attention", reason));
        }
        let ty = self.ty(x).clone();
        let inputs: Vec<Tensor> = std::iter::once(x).chain(expected.iter().map(|(t, _)| *t)).collect();
        Ok(self.push(Op::WindowAttention { window, heads, epsilon }, &inputs, ty))
    }

    /// Multi-scale deformable attention (Zhu et al. 2021, eq. 3, with sampling points relative to boxes as in its
    /// appendix A.4) with the sampling of PyTorch's `grid_sample(bilinear, zeros, align_corners=False)`: a point lies at
    /// the centre of its query's box plus an offset in shares of that box, and counts by the softmax of its head's logits.
    ///
    /// value `[L, heads·D]` with the levels' pixels one after another; offsets `[Q, heads·P·2]` (x, y), P = sum of
    /// `points_per_level`, level by level; logits `[Q, heads·P]`; boxes (cx, cy, w, h) `[Q, 4]` in 0..1 of the whole
    /// map → `[Q, heads·D]`.
    pub fn deformable_attention(
        &mut self,
        [value, offsets, logits, boxes]: [Tensor; 4],
        heads: usize,
        levels_hw: &[[usize; 2]],
        points_per_level: &[usize],
    ) -> Result<Tensor, GraphError> {
        let op = "deformable_attention";
        let inputs = [value, offsets, logits, boxes];
        self.expect_f32(op, &inputs)?;
        let shapes = inputs.map(|t| self.shape(t).clone());
        let [v, o, l, b] = &shapes;
        let points: usize = points_per_level.iter().sum();
        let pixels: usize = levels_hw.iter().map(|[h, w]| h * w).sum();
        let fits = heads > 0
            && (1..=MAX_SAMPLING_POINTS).contains(&points)
            && levels_hw.len() == points_per_level.len()
            && v.rank() == 2
            && v[0] == pixels
            && v[1].is_multiple_of(heads)
            && o.rank() == 2
            && o[1] == heads * points * 2
            && l.dims() == [o[0], heads * points]
            && b.dims() == [o[0], 4];
        if !fits {
            let reason = format!(
                "value {v}, offsets {o}, logits {l}, boxes {b} with {heads} heads, levels {levels_hw:?}, points {points_per_level:?} do not fit"
            );
            return Err(self.error(op, reason));
        }
        let rows = self.merged_rows(op, &[offsets, logits, boxes])?;
        let ty = TensorType { dtype: DType::F32, shape: [o[0], v[1]].into(), rows };
        let op = Op::DeformableAttention {
            heads,
            levels_hw: levels_hw.to_vec(),
            points_per_level: points_per_level.to_vec(),
        };
        Ok(self.push(op, &inputs, ty))
    }

    /// A raw frame `[H, W, 1 or 3]` u8 to a network's input `[1, H', W', 3]` f32: resized with an antialiased
    /// triangle filter (PIL's and torchvision's bilinear), scaled and shifted per channel, zero outside the resized
    /// part. Grey is repeated in the three channels.
    pub fn image_to_tensor(
        &mut self,
        frame: Tensor,
        transform: ImageTransform,
    ) -> Result<Tensor, GraphError> {
        let ty = self.ty(frame);
        let fits = ty.dtype == DType::U8
            && matches!(*ty.shape.dims(), [h, w, 1 | 3] if h > 0 && w > 0)
            && (0..2)
                .all(|i| transform.resized_hw[i] > 0 && transform.resized_hw[i] <= transform.output_hw[i]);
        if !fits {
            let reason = format!(
                "a frame {} {} resized to {:?} in {:?}",
                ty.dtype, ty.shape, transform.resized_hw, transform.output_hw
            );
            return Err(self.error("image_to_tensor", reason));
        }
        let [h, w] = transform.output_hw;
        let ty = TensorType { dtype: DType::F32, shape: [1, h, w, 3].into(), rows: None };
        Ok(self.push(Op::ImageToTensor(transform), &[frame], ty))
    }

    fn with_bias(
        &self,
        op: &str,
        x: Tensor,
        weight: Tensor,
        bias: Option<Tensor>,
        c_out: usize,
    ) -> Result<Vec<Tensor>, GraphError> {
        let mut inputs = vec![x, weight];
        if let Some(bias) = bias {
            if *self.shape(bias) != Shape::from([c_out]) {
                return Err(self.error(op, format!("bias {} for {c_out} outputs", self.shape(bias))));
            }
            inputs.push(bias);
        }
        Ok(inputs)
    }
}
