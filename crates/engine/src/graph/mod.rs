//! What to compute: a graph of tensor operations with static shapes.
//!
//! In: shapes and constants, through builder methods that read like the paper. Out: a [`Graph`] for
//! [`compile`](crate::compile). Feature maps are channels last (`[N, H, W, C]`), matrices `[..., rows, cols]`;
//! convolution and linear weights keep PyTorch's layout and are packed when compiled.
//!
//! Two things make a whole frame one program. *States* live on the device from one run to the next. *Row counts*
//! give a tensor with room for K rows a device-resident number of valid ones, so that a variable number of objects
//! needs no decision by the host.
//!
//! ```
//! use ultramotion_engine::graph::{Graph, UnaryOp};
//! use ultramotion_engine::tensor::{DType, HostTensor};
//!
//! let mut g = Graph::new("example");
//! let x = g.input("x", DType::F32, [2, 3])?;
//! let w = g.constant(HostTensor::f32([4, 3], vec![0.5; 12]));
//! let y = g.linear(x, w, None)?;
//! let y = g.unary(UnaryOp::Relu, y)?;
//! g.output("y", y)?;
//! assert_eq!(g.shape(y).dims(), [2, 4]);
//! # Ok::<(), ultramotion_engine::graph::GraphError>(())
//! ```

mod arrange;
mod custom;
mod error;
mod networks;
mod op;
mod port;

pub use custom::{CpuCall, CudaCall, CustomOp, ParallelFor, Slice, SliceMut};
pub use error::GraphError;
pub use op::{
    BinaryOp, Epilogue, ImageTransform, MAX_SAMPLING_POINTS, Op, Padding, ReduceOp, UnaryOp,
    WindowAttentionParameters,
};
pub use port::{Input, InputPort, NamedTensor, Output, OutputPort, Port};

use crate::tensor::{DType, HostTensor, Shape};

/// Handle of a tensor in one graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tensor(pub(crate) u32);

/// Device-resident number of valid leading rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RowCount {
    /// `[1]` i32 tensor with the count.
    pub count: Tensor,
    /// Rows of the leading dimension that one counted item occupies.
    pub rows_per_item: usize,
}

/// Element type, shape and row count of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorType {
    /// Element type.
    pub dtype: DType,
    /// Extents.
    pub shape: Shape,
    /// Set when only the leading rows are valid; the bound is `shape[0]`.
    pub rows: Option<RowCount>,
}

/// One operation with what it reads and writes.
#[derive(Debug, Clone)]
pub struct Node {
    /// Where it was added: the scopes, joined by dots.
    pub scope: String,
    /// Part of the frame it belongs to (`"detect"`, `"segment"`…), for timing.
    pub stage: &'static str,
    /// Operation.
    pub op: Op,
    /// Arguments.
    pub inputs: Vec<Tensor>,
    /// Results.
    pub outputs: Vec<Tensor>,
}

/// A tensor that lives on the device from one run to the next.
#[derive(Debug, Clone)]
pub struct State {
    /// Name, unique in its graph; programs compiled with the same state store share states by name.
    pub name: String,
    /// Value before the first run.
    pub initial: HostTensor,
    /// Value at the start of a run.
    pub current: Tensor,
    /// Value that the run leaves behind, when it changes it.
    pub next: Option<Tensor>,
}

/// A fixed computation: nodes in an order that can be executed.
#[derive(Debug, Clone)]
pub struct Graph {
    pub(crate) name: String,
    pub(crate) nodes: Vec<Node>,
    pub(crate) types: Vec<TensorType>,
    pub(crate) inputs: Vec<NamedTensor>,
    pub(crate) outputs: Vec<NamedTensor>,
    pub(crate) states: Vec<State>,
    scope: Vec<String>,
    stage: &'static str,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: impl Into<String>) -> Self {
        Graph {
            name: name.into(),
            nodes: Vec::new(),
            types: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            states: Vec::new(),
            scope: Vec::new(),
            stage: "",
        }
    }

    /// Name given at creation.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Nodes in execution order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }
    /// Values that come from the host, in the order of the input block.
    pub fn inputs(&self) -> &[NamedTensor] {
        &self.inputs
    }
    /// Values that go to the host, in the order of the output block.
    pub fn outputs(&self) -> &[NamedTensor] {
        &self.outputs
    }
    /// Values that stay on the device.
    pub fn states(&self) -> &[State] {
        &self.states
    }
    /// Type of a tensor.
    pub fn ty(&self, tensor: Tensor) -> &TensorType {
        &self.types[tensor.0 as usize]
    }
    /// Types of tensors.
    pub(crate) fn types_of(&self, tensors: &[Tensor]) -> Vec<TensorType> {
        tensors.iter().map(|&t| self.ty(t).clone()).collect()
    }
    /// Shape of a tensor.
    pub fn shape(&self, tensor: Tensor) -> &Shape {
        &self.ty(tensor).shape
    }

    /// Runs `body` with `name` appended to the scope that errors and plans show.
    pub fn scoped<R>(&mut self, name: impl Into<String>, body: impl FnOnce(&mut Self) -> R) -> R {
        self.scope.push(name.into());
        let result = body(self);
        self.scope.pop();
        result
    }

    /// Nodes added from here on belong to this part of the frame.
    pub fn set_stage(&mut self, stage: &'static str) {
        self.stage = stage;
    }

    /// A value that lives on the device across runs, starting as `initial`.
    pub fn state(&mut self, name: impl Into<String>, initial: HostTensor) -> Result<Tensor, GraphError> {
        let name = self.unused_name(name.into())?;
        let ty = TensorType { dtype: initial.dtype(), shape: initial.shape().clone(), rows: None };
        let current = self.tensor(ty);
        self.states.push(State { name, initial, current, next: None });
        Ok(current)
    }

    /// What `state` (as returned by [`Graph::state`]) will be at the start of the next run.
    pub fn set_state(&mut self, state: Tensor, next: Tensor) -> Result<(), GraphError> {
        let (a, b) = (self.ty(state), self.ty(next));
        if a.dtype != b.dtype || a.shape != b.shape {
            let reason =
                format!("the state is {} {}, its next value {} {}", a.dtype, a.shape, b.dtype, b.shape);
            return Err(self.error("set_state", reason));
        }
        if self.states.iter().any(|s| s.current == next && next != state) {
            let reason =
                "the next value is another state as it stands; compute something from it first".into();
            return Err(self.error("set_state", reason));
        }
        let Some(position) = self.states.iter().position(|s| s.current == state) else {
            return Err(self.error("set_state", "the first argument is not a state of this graph".into()));
        };
        self.states[position].next = Some(next);
        Ok(())
    }

    /// A value known now.
    pub fn constant(&mut self, value: HostTensor) -> Tensor {
        let ty = TensorType { dtype: value.dtype(), shape: value.shape().clone(), rows: None };
        self.push(Op::Constant(value), &[], ty)
    }

    /// Adds an op of another crate.
    pub fn custom(
        &mut self,
        op: std::sync::Arc<dyn CustomOp>,
        inputs: &[Tensor],
    ) -> Result<Vec<Tensor>, GraphError> {
        let outputs =
            op.output_types(&self.types_of(inputs)).map_err(|reason| self.error(op.name(), reason))?;
        Ok(self.push_many(Op::Custom(op), inputs, outputs))
    }

    /// Declares that only the first `count` rows of `x` are valid: ops on the result do no more work than that.
    /// `count` is `[1]` i32 on the device; values beyond `x`'s leading dimension mean all of it.
    pub fn limit_rows(&mut self, x: Tensor, count: Tensor) -> Result<Tensor, GraphError> {
        let (tx, tc) = (self.ty(x).clone(), self.ty(count));
        if tc.dtype != DType::I32 || tc.shape.numel() != 1 || tx.shape.rank() == 0 {
            let reason =
                format!("needs rows and a [1] i32 count, got {} and {} {}", tx.shape, tc.dtype, tc.shape);
            return Err(self.error("limit_rows", reason));
        }
        let rows = Some(RowCount { count, rows_per_item: 1 });
        Ok(self.push(Op::LimitRows, &[x, count], TensorType { rows, ..tx }))
    }

    fn unused_name(&self, name: String) -> Result<String, GraphError> {
        let ports = self.inputs.iter().chain(&self.outputs).map(|p| &p.name);
        if ports.chain(self.states.iter().map(|s| &s.name)).any(|taken| *taken == name) {
            return Err(GraphError::DuplicateName(name));
        }
        Ok(name)
    }

    fn error(&self, op: &str, reason: String) -> GraphError {
        GraphError::Op { op: op.into(), at: self.scope.join("."), reason }
    }

    pub(crate) fn tensor(&mut self, ty: TensorType) -> Tensor {
        self.types.push(ty);
        Tensor(self.types.len() as u32 - 1)
    }

    fn push(&mut self, op: Op, inputs: &[Tensor], ty: TensorType) -> Tensor {
        self.push_many(op, inputs, vec![ty])[0]
    }

    fn push_many(&mut self, op: Op, inputs: &[Tensor], types: Vec<TensorType>) -> Vec<Tensor> {
        let outputs: Vec<Tensor> = types.into_iter().map(|ty| self.tensor(ty)).collect();
        self.nodes.push(Node {
            scope: self.scope.join("."),
            stage: self.stage,
            op,
            inputs: inputs.to_vec(),
            outputs: outputs.clone(),
        });
        outputs
    }
}
