//! What the parts of D-FINE share: a builder that keeps the graph's scope and the parameters' prefix in step, and the
//! layers that all parts use.

use ultramotion_engine::graph::{Graph, GraphError, Padding, Tensor, UnaryOp};
use ultramotion_engine::tensor::HostTensor;

use crate::parameters::Parameters;

/// PyTorch's default epsilon of batch and layer norms.
const EPSILON: f32 = 1e-5;

/// A graph under construction and where its parameters come from. Scopes are the official module names.
pub(super) struct Builder<'a, 's> {
    pub g: &'a mut Graph,
    pub p: &'a mut Parameters<'s>,
}

/// Geometry of a convolution.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conv {
    pub c_in: usize,
    pub c_out: usize,
    pub kernel: usize,
    pub stride: usize,
    pub depthwise: bool,
    pub padding: Padding,
}

impl Conv {
    /// A full convolution of stride 1 that keeps the size (odd kernels).
    pub fn new(c_in: usize, c_out: usize, kernel: usize) -> Self {
        Conv { c_in, c_out, kernel, stride: 1, depthwise: false, padding: Padding::same((kernel - 1) / 2) }
    }
    pub fn stride(self, stride: usize) -> Self {
        Conv { stride, ..self }
    }
    /// One filter per channel.
    pub fn depthwise(self) -> Self {
        Conv { depthwise: true, ..self }
    }
    pub fn padding(self, padding: Padding) -> Self {
        Conv { padding, ..self }
    }
}

/// A perceptron with ReLU between its layers. Applied as often as needed, its parameters exist once.
#[derive(Debug, Clone)]
pub(super) struct Mlp {
    layers: Vec<(Tensor, Tensor)>,
}

impl Mlp {
    pub fn apply(&self, g: &mut Graph, x: Tensor) -> Result<Tensor, GraphError> {
        let mut x = x;
        for (i, &(weight, bias)) in self.layers.iter().enumerate() {
            if i > 0 {
                x = g.unary(UnaryOp::Relu, x)?;
            }
            x = g.linear(x, weight, Some(bias))?;
        }
        Ok(x)
    }
}

impl<'s> Builder<'_, 's> {
    /// Runs `body` inside a module.
    pub fn scoped<R>(&mut self, name: impl Into<String>, body: impl FnOnce(&mut Builder<'_, 's>) -> R) -> R {
        let name = name.into();
        let Builder { g, p } = self;
        g.scoped(name.clone(), |g| p.scoped(name, |p| body(&mut Builder { g, p })))
    }

    /// A constant that is not a parameter.
    pub fn constant(&mut self, shape: &[usize], values: Vec<f32>) -> Tensor {
        self.g.constant(HostTensor::f32(shape, values))
    }

    /// Convolution without bias and batch norm; `norm` is the norm's name (`bn` in the backbone, `norm` elsewhere).
    pub fn conv_norm(&mut self, x: Tensor, conv: Conv, norm: &str) -> Result<Tensor, GraphError> {
        let groups = if conv.depthwise { conv.c_in } else { 1 };
        let shape = [conv.c_out, conv.c_in / groups, conv.kernel, conv.kernel];
        let weight = self.p.constant(self.g, "conv.weight", &shape);
        let x = self.g.conv2d(x, weight, None, conv.stride, conv.padding, groups)?;
        self.scoped(norm, |b| {
            let parameters = ["weight", "bias", "running_mean", "running_var"]
                .map(|name| b.p.constant(b.g, name, &[conv.c_out]));
            b.g.batch_norm(x, parameters, EPSILON)
        })
    }

    /// [`Builder::conv_norm`] and SiLU.
    pub fn conv_norm_silu(&mut self, x: Tensor, conv: Conv) -> Result<Tensor, GraphError> {
        let x = self.conv_norm(x, conv, "norm")?;
        self.g.unary(UnaryOp::Silu, x)
    }

    /// Linear layer of the current module: `[..., c_in]` → `[..., c_out]`.
    pub fn linear(&mut self, x: Tensor, c_in: usize, c_out: usize) -> Result<Tensor, GraphError> {
        let weight = self.p.constant(self.g, "weight", &[c_out, c_in]);
        let bias = self.p.constant(self.g, "bias", &[c_out]);
        self.g.linear(x, weight, Some(bias))
    }

    /// Layer norm of the current module.
    pub fn layer_norm(&mut self, x: Tensor, dim: usize) -> Result<Tensor, GraphError> {
        let weight = self.p.constant(self.g, "weight", &[dim]);
        let bias = self.p.constant(self.g, "bias", &[dim]);
        self.g.layer_norm(x, weight, bias, EPSILON)
    }

    /// Parameters of a perceptron in the current module, whose layers have these widths.
    pub fn mlp(&mut self, widths: &[usize]) -> Mlp {
        let layers = widths.windows(2).enumerate().map(|(i, pair)| {
            self.scoped(format!("layers.{i}"), |b| {
                let weight = b.p.constant(b.g, "weight", &[pair[1], pair[0]]);
                (weight, b.p.constant(b.g, "bias", &[pair[1]]))
            })
        });
        Mlp { layers: layers.collect() }
    }

    /// `x` plus multi-head self-attention whose queries and keys, but not values, see a position: `[L, dim]`.
    pub fn self_attention(
        &mut self,
        x: Tensor,
        position: Position,
        dim: usize,
        heads: usize,
    ) -> Result<Tensor, GraphError> {
        let rows = self.g.shape(x)[0];
        // One matrix for queries, keys and values, one after another.
        let weight = self.p.values("in_proj_weight", &[3 * dim, dim]);
        let bias = self.p.values("in_proj_bias", &[3 * dim]);
        let [q, k, v] = match position {
            Position::Known(position) => {
                // W (x + p) + b = W x + (W p + b), and the second part is known.
                let known = projected_positions(&position, &weight, &bias, rows, dim);
                let known = self.constant(&[rows, 3 * dim], known);
                let weight = self.constant(&[3 * dim, dim], weight);
                let projected = self.g.linear(x, weight, None)?;
                let projected = self.g.add(projected, known)?;
                self.split(projected, dim)?
            }
            Position::Computed(position) => {
                let (of_query_key, of_value) = weight.split_at(2 * dim * dim);
                let query_key = self.g.add(x, position)?;
                let weight = self.constant(&[2 * dim, dim], of_query_key.to_vec());
                let known = self.constant(&[2 * dim], bias[..2 * dim].to_vec());
                let query_key = self.g.linear(query_key, weight, Some(known))?;
                let [q, k] = self.split(query_key, dim)?;
                let weight = self.constant(&[dim, dim], of_value.to_vec());
                let known = self.constant(&[dim], bias[2 * dim..].to_vec());
                [q, k, self.g.linear(x, weight, Some(known))?]
            }
        };
        let mut batched = [q, k, v];
        for part in &mut batched {
            *part = self.g.reshape(*part, [1, rows, dim])?;
        }
        let scale = 1.0 / ((dim / heads) as f32).sqrt();
        let attended = self.g.attention(batched, None, heads, scale)?;
        let attended = self.g.reshape(attended, [rows, dim])?;
        let attended = self.scoped("out_proj", |b| b.linear(attended, dim, dim))?;
        self.g.add(x, attended)
    }

    /// Parts of `dim` columns each.
    fn split<const N: usize>(&mut self, x: Tensor, dim: usize) -> Result<[Tensor; N], GraphError> {
        let mut parts = [x; N];
        for (i, part) in parts.iter_mut().enumerate() {
            *part = self.g.slice(x, 1, i * dim, dim)?;
        }
        Ok(parts)
    }
}

/// Position embedding that self-attention adds to queries and keys.
pub(super) enum Position {
    /// `[L, dim]`, the same for every image.
    Known(Vec<f32>),
    /// `[L, dim]`
    Computed(Tensor),
}

/// What a position adds to queries and keys, and the biases of all three: `[L, 3 · dim]`.
fn projected_positions(position: &[f32], weight: &[f32], bias: &[f32], rows: usize, dim: usize) -> Vec<f32> {
    let mut known = Vec::with_capacity(rows * 3 * dim);
    for token in position.chunks_exact(dim) {
        for (column, &b) in bias.iter().enumerate() {
            let row = &weight[column * dim..][..dim];
            let dot = || row.iter().zip(token).map(|(w, p)| f64::from(*w) * f64::from(*p)).sum::<f64>();
            let of_position = if column < 2 * dim { dot() } else { 0.0 };
            known.push((f64::from(b) + of_position) as f32);
        }
    }
    known
}
