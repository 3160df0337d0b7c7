//! The reference interpreter: every op as naive loops in float64. Slow, simple, and the judge of all other backends.
//!
//! In: a graph and its inputs. Out: its outputs as [`Values`].
//!
//! ```
//! use ultramotion_engine::graph::{Graph, UnaryOp};
//! use ultramotion_engine::reference::{Interpreter, Values};
//! use ultramotion_engine::tensor::DType;
//!
//! let mut g = Graph::new("example");
//! let x = g.input("x", DType::F32, [3])?;
//! let y = g.unary(UnaryOp::Relu, x)?;
//! g.output("y", y)?;
//! let outputs = Interpreter::new(&g).run(&[Values::f64([3], vec![-1.0, 0.0, 2.0])]);
//! assert_eq!(outputs[0].as_f64(), [0.0, 0.0, 2.0]);
//! # Ok::<(), ultramotion_engine::graph::GraphError>(())
//! ```

mod arrange;
mod attention;
mod image;
mod networks;

pub use crate::values::Values;
pub use image::triangle_filter;

use crate::graph::{BinaryOp, Epilogue, Graph, Node, Op, ReduceOp, Tensor, UnaryOp};

/// Runs a graph, keeping its states from run to run.
#[derive(Debug)]
pub struct Interpreter<'g> {
    graph: &'g Graph,
    states: Vec<Values>,
}

impl<'g> Interpreter<'g> {
    /// States take their initial values.
    pub fn new(graph: &'g Graph) -> Self {
        Interpreter { graph, states: graph.states().iter().map(|s| Values::from(&s.initial)).collect() }
    }

    /// Current values of the states, in the graph's order.
    pub fn states(&self) -> &[Values] {
        &self.states
    }

    pub(crate) fn states_mut(&mut self) -> &mut [Values] {
        &mut self.states
    }

    /// Inputs in the graph's order → outputs in the graph's order.
    ///
    /// # Panics
    /// If the inputs are not those of the graph: this is a tool for tests.
    pub fn run(&mut self, inputs: &[Values]) -> Vec<Values> {
        let graph = self.graph;
        assert_eq!(inputs.len(), graph.inputs().len(), "number of inputs of '{}'", graph.name());
        let mut values: Vec<Option<Values>> = vec![None; graph.types.len()];
        for (port, value) in graph.inputs().iter().zip(inputs) {
            assert_eq!(*graph.shape(port.tensor), value.shape, "shape of the input '{}'", port.name);
            values[port.tensor.0 as usize] = Some(value.clone());
        }
        for (state, value) in graph.states().iter().zip(&self.states) {
            values[state.current.0 as usize] = Some(value.clone());
        }
        let mut uses = vec![0usize; graph.types.len()];
        let kept =
            graph.outputs().iter().map(|p| p.tensor).chain(graph.states().iter().filter_map(|s| s.next));
        for t in graph.nodes().iter().flat_map(|n| n.inputs.iter().copied()).chain(kept) {
            uses[t.0 as usize] += 1;
        }
        for node in graph.nodes() {
            let results = {
                let arguments: Vec<&Values> = node.inputs.iter().map(|&t| known(&values, t)).collect();
                evaluate(graph, node, &arguments)
            };
            for (&t, value) in node.outputs.iter().zip(results) {
                values[t.0 as usize] = Some(value);
            }
            for &t in &node.inputs {
                uses[t.0 as usize] -= 1;
                if uses[t.0 as usize] == 0 {
                    values[t.0 as usize] = None;
                }
            }
        }
        let outputs = graph.outputs().iter().map(|p| known(&values, p.tensor).clone()).collect();
        for (state, value) in graph.states().iter().zip(&mut self.states) {
            if let Some(next) = state.next {
                *value = known(&values, next).clone();
            }
        }
        outputs
    }
}

fn known(values: &[Option<Values>], tensor: Tensor) -> &Values {
    values[tensor.0 as usize].as_ref().expect("nodes stand in execution order")
}

/// Results of one node for given arguments.
pub(crate) fn evaluate(graph: &Graph, node: &Node, arguments: &[&Values]) -> Vec<Values> {
    let x = || arguments[0];
    let out_shape = graph.shape(node.outputs[0]).clone();
    let one = match &node.op {
        Op::Constant(value) => Values::from(value),
        Op::Conv2d { stride, padding, groups, bias, epilogue } => {
            let sums = networks::conv2d(x(), arguments[1], *stride, *padding, *groups, out_shape);
            finish(sums, &arguments[2..], *bias, epilogue)
        }
        Op::ConvTranspose2d { bias, epilogue } => {
            let sums = networks::conv_transpose2d(x(), arguments[1], out_shape);
            finish(sums, &arguments[2..], *bias, epilogue)
        }
        Op::Linear { bias, epilogue } => {
            let sums = networks::linear(x(), arguments[1], out_shape);
            finish(sums, &arguments[2..], *bias, epilogue)
        }
        Op::BatchNorm { epsilon } => networks::batch_norm(arguments, f64::from(*epsilon)),
        Op::MatMul { transpose_b } => networks::matmul(x(), arguments[1], *transpose_b, out_shape),
        Op::Unary(op) => map(x(), |v| unary(*op, v)),
        Op::Binary(op) => arrange::binary(x(), arguments[1], out_shape, |a, b| binary(*op, a, b)),
        Op::Reduce(op) => arrange::reduce(x(), out_shape, |row| reduce(*op, row)),
        Op::Reshape => Values { shape: out_shape, data: x().data.clone() },
        Op::LimitRows => x().clone(),
        Op::Slice { axis, start, .. } => arrange::slice(x(), *axis, *start, out_shape),
        Op::Concat { axis } => arrange::concat(arguments, *axis, out_shape),
        Op::Pad { padding } => arrange::pad(x(), *padding, out_shape),
        Op::Gather => arrange::gather(x(), arguments[1], out_shape),
        Op::TopK { k } => return arrange::top_k(x(), *k, out_shape),
        Op::MaxPool2d { kernel, stride, padding } => {
            networks::max_pool2d(x(), *kernel, *stride, *padding, out_shape)
        }
        Op::UpsampleNearest2x => networks::upsample_nearest_2x(x(), out_shape),
        Op::Softmax => networks::softmax(x()),
        Op::LayerNorm { epsilon, activation } => {
            let normed = networks::layer_norm(x(), arguments[1], arguments[2], f64::from(*epsilon));
            let values = normed.as_f64().iter().map(|&v| activation.map_or(v, |op| unary(op, v)));
            Values::f64(normed.shape.clone(), values.collect())
        }
        Op::Attention { heads, scale, .. } => {
            attention::attention(arguments, *heads, f64::from(*scale), out_shape)
        }
        Op::WindowAttention { window, heads, epsilon } => {
            attention::window_attention(arguments, *window, *heads, f64::from(*epsilon))
        }
        Op::DeformableAttention { heads, levels_hw, points_per_level } => {
            attention::deformable(arguments, *heads, levels_hw, points_per_level, out_shape)
        }
        Op::ImageToTensor(transform) => image::image_to_tensor(x(), transform, out_shape),
        Op::Custom(op) => {
            let owned: Vec<Values> = arguments.iter().map(|&v| v.clone()).collect();
            let mut results: Vec<Values> = node
                .outputs
                .iter()
                .map(|&t| Values::zeros(graph.ty(t).dtype, graph.shape(t).clone()))
                .collect();
            op.reference(&owned, &mut results);
            return results;
        }
    };
    vec![one]
}

fn map(x: &Values, f: impl Fn(f64) -> f64) -> Values {
    Values::f64(x.shape.clone(), x.as_f64().iter().map(|&v| f(v)).collect())
}

/// Bias and epilogue of a convolution or linear layer; `extra` holds the bias and the residual where there are any.
fn finish(mut sums: Values, extra: &[&Values], bias: bool, epilogue: &Epilogue) -> Values {
    let cols = sums.shape.cols();
    let bias_values = bias.then(|| extra[0].as_f64());
    let residual = epilogue.residual.then(|| extra[usize::from(bias)].as_f64());
    for (i, v) in sums.f64_mut().iter_mut().enumerate() {
        let mut y = *v + bias_values.map_or(0.0, |b| b[i % cols]);
        if let Some(op) = epilogue.activation {
            y = unary(op, y);
        }
        if let Some((scale, shift)) = epilogue.affine {
            y = f64::from(scale) * y + f64::from(shift);
        }
        if let Some(residual) = residual {
            y += residual[i % residual.len()];
        }
        *v = epilogue.activation_after_residual.map_or(y, |op| unary(op, y));
    }
    sums
}

fn unary(op: UnaryOp, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match op {
        UnaryOp::Relu => x.max(0.0),
        UnaryOp::Silu => x * sigmoid(x),
        UnaryOp::Gelu => 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        UnaryOp::Sigmoid => sigmoid(x),
        UnaryOp::Tanh => x.tanh(),
        UnaryOp::Exp => x.exp(),
        UnaryOp::Log => x.ln(),
        UnaryOp::Sqrt => x.sqrt(),
        UnaryOp::Sin => x.sin(),
        UnaryOp::Cos => x.cos(),
        UnaryOp::Abs => x.abs(),
        UnaryOp::Clamp(low, high) => x.max(f64::from(low)).min(f64::from(high)),
        UnaryOp::Affine(scale, shift) => f64::from(scale) * x + f64::from(shift),
    }
}

fn binary(op: BinaryOp, a: f64, b: f64) -> f64 {
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Max => a.max(b),
        BinaryOp::Min => a.min(b),
    }
}

fn reduce(op: ReduceOp, row: &[f64]) -> f64 {
    match op {
        ReduceOp::Max => row.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        ReduceOp::Sum => row.iter().sum(),
        ReduceOp::Mean => row.iter().sum::<f64>() / row.len() as f64,
    }
}
