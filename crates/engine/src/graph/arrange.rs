//! Builder methods that compute elementwise or move data: arithmetic, reshape, slice, concat, gather, top-k.

use super::{BinaryOp, Graph, GraphError, Op, Padding, ReduceOp, RowCount, Tensor, TensorType, UnaryOp};
use crate::tensor::{DType, Shape};

impl Graph {
    /// Elementwise function; same shape.
    pub fn unary(&mut self, op: UnaryOp, x: Tensor) -> Result<Tensor, GraphError> {
        let ty = self.ty(x).clone();
        self.expect_f32(Op::Unary(op).name(), &[x])?;
        Ok(self.push(Op::Unary(op), &[x], ty))
    }

    /// Elementwise function of two tensors with NumPy broadcasting.
    pub fn binary(&mut self, op: BinaryOp, a: Tensor, b: Tensor) -> Result<Tensor, GraphError> {
        let name = Op::Binary(op).name().to_owned();
        self.expect_f32(&name, &[a, b])?;
        let (ta, tb) = (self.ty(a).clone(), self.ty(b).clone());
        let shape = broadcast(&ta.shape, &tb.shape).ok_or_else(|| {
            self.error(&name, format!("shapes {} and {} do not broadcast", ta.shape, tb.shape))
        })?;
        let rows = self.merged_rows(&name, &[a, b])?;
        if rows.is_some() && self.row_source_rank(&[a, b]) != shape.rank() {
            return Err(self.error(&name, "a row-counted operand must have the rank of the result".into()));
        }
        Ok(self.push(Op::Binary(op), &[a, b], TensorType { dtype: DType::F32, shape, rows }))
    }

    /// `a + b`, broadcasting.
    pub fn add(&mut self, a: Tensor, b: Tensor) -> Result<Tensor, GraphError> {
        self.binary(BinaryOp::Add, a, b)
    }
    /// `a - b`, broadcasting.
    pub fn sub(&mut self, a: Tensor, b: Tensor) -> Result<Tensor, GraphError> {
        self.binary(BinaryOp::Sub, a, b)
    }
    /// `a * b`, broadcasting.
    pub fn mul(&mut self, a: Tensor, b: Tensor) -> Result<Tensor, GraphError> {
        self.binary(BinaryOp::Mul, a, b)
    }
    /// `a / b`, broadcasting.
    pub fn div(&mut self, a: Tensor, b: Tensor) -> Result<Tensor, GraphError> {
        self.binary(BinaryOp::Div, a, b)
    }
    /// `scale * x + shift`.
    pub fn affine(&mut self, x: Tensor, scale: f32, shift: f32) -> Result<Tensor, GraphError> {
        self.unary(UnaryOp::Affine(scale, shift), x)
    }

    /// Reduces the last dimension: `[..., C]` → `[..., 1]`.
    pub fn reduce(&mut self, op: ReduceOp, x: Tensor) -> Result<Tensor, GraphError> {
        self.expect_f32(Op::Reduce(op).name(), &[x])?;
        let mut ty = self.ty(x).clone();
        let mut dims = ty.shape.dims().to_vec();
        match dims.last_mut() {
            Some(last) if *last > 0 => *last = 1,
            _ => return Err(self.error(Op::Reduce(op).name(), format!("cannot reduce {}", ty.shape))),
        }
        ty.shape = dims.into();
        Ok(self.push(Op::Reduce(op), &[x], ty))
    }

    /// The same elements under another shape.
    pub fn reshape(&mut self, x: Tensor, shape: impl Into<Shape>) -> Result<Tensor, GraphError> {
        let (ty, shape) = (self.ty(x).clone(), shape.into());
        if ty.shape.numel() != shape.numel() {
            let reason =
                format!("{} has {} elements, {shape} has {}", ty.shape, ty.shape.numel(), shape.numel());
            return Err(self.error("reshape", reason));
        }
        let rows = match ty.rows {
            None => None,
            Some(row_count) => Some(self.reshaped_rows(&ty.shape, &shape, row_count)?),
        };
        Ok(self.push(Op::Reshape, &[x], TensorType { dtype: ty.dtype, shape, rows }))
    }

    /// `len` entries of dimension `axis` from `start` on.
    pub fn slice(&mut self, x: Tensor, axis: usize, start: usize, len: usize) -> Result<Tensor, GraphError> {
        let ty = self.ty(x).clone();
        if axis >= ty.shape.rank()
            || len == 0
            || start.checked_add(len).is_none_or(|end| end > ty.shape[axis])
        {
            let reason = format!("no entries {start}..{start}+{len} of dimension {axis} in {}", ty.shape);
            return Err(self.error("slice", reason));
        }
        if ty.rows.is_some() && axis == 0 {
            return Err(self.error("slice", "would cut the counted dimension of a row-counted tensor".into()));
        }
        let mut dims = ty.shape.dims().to_vec();
        dims[axis] = len;
        Ok(self.push(Op::Slice { axis, start, len }, &[x], TensorType { shape: dims.into(), ..ty }))
    }

    /// Joins tensors along `axis`.
    pub fn concat(&mut self, parts: &[Tensor], axis: usize) -> Result<Tensor, GraphError> {
        let Some(&first) = parts.first() else {
            return Err(self.error("concat", "nothing to join".into()));
        };
        let first_type = self.ty(first).clone();
        let mut dims = first_type.shape.dims().to_vec();
        if axis >= dims.len() {
            return Err(self.error("concat", format!("no dimension {axis} in {}", first_type.shape)));
        }
        for &part in &parts[1..] {
            let ty = self.ty(part);
            let fits = ty.dtype == first_type.dtype
                && ty.shape.rank() == dims.len()
                && (0..dims.len()).all(|i| i == axis || ty.shape[i] == dims[i]);
            if !fits {
                let reason =
                    format!("{} does not join {} along dimension {axis}", ty.shape, first_type.shape);
                return Err(self.error("concat", reason));
            }
            dims[axis] += ty.shape[axis];
        }
        let rows = self.merged_rows("concat", parts)?;
        if rows.is_some() && (axis == 0 || parts.iter().any(|&p| self.ty(p).rows.is_none())) {
            return Err(self.error("concat", "would mix the rows of a row-counted tensor".into()));
        }
        let ty = TensorType { dtype: first_type.dtype, shape: dims.into(), rows };
        Ok(self.push(Op::Concat { axis }, parts, ty))
    }

    /// Zero padding of `[N, H, W, C]`.
    pub fn pad(&mut self, x: Tensor, padding: Padding) -> Result<Tensor, GraphError> {
        let [n, h, w, c] = self.feature_map("pad", x)?;
        let mut ty = self.ty(x).clone();
        ty.shape = [n, h + padding.top + padding.bottom, w + padding.left + padding.right, c].into();
        Ok(self.push(Op::Pad { padding }, &[x], ty))
    }

    /// The `k` largest entries of the last dimension, best first, the lower index first among equals; NaN counts as
    /// largest (as in PyTorch). `[..., L]` → values `[..., k]` f32 and indices `[..., k]` i32.
    pub fn top_k(&mut self, x: Tensor, k: usize) -> Result<(Tensor, Tensor), GraphError> {
        self.expect_f32("top_k", &[x])?;
        let ty = self.ty(x).clone();
        let mut dims = ty.shape.dims().to_vec();
        match dims.last_mut() {
            Some(last) if k > 0 && *last >= k => *last = k,
            _ => {
                return Err(
                    self.error("top_k", format!("cannot take {k} of the last dimension of {}", ty.shape))
                );
            }
        }
        let shape = Shape::from(dims);
        let types = [DType::F32, DType::I32]
            .map(|dtype| TensorType { dtype, shape: shape.clone(), rows: ty.rows })
            .to_vec();
        let out = self.push_many(Op::TopK { k }, &[x], types);
        Ok((out[0], out[1]))
    }

    /// Rows by index: table `[R, ...]`, indices `[...I]` i32 → `[...I, ...]`. Indices are clamped to the table.
    pub fn gather(&mut self, table: Tensor, indices: Tensor) -> Result<Tensor, GraphError> {
        let (table_type, index_type) = (self.ty(table).clone(), self.ty(indices).clone());
        if index_type.dtype != DType::I32 || table_type.shape.rank() == 0 || table_type.shape[0] == 0 {
            let reason =
                format!("cannot index {} by {} {}", table_type.shape, index_type.dtype, index_type.shape);
            return Err(self.error("gather", reason));
        }
        let mut dims = index_type.shape.dims().to_vec();
        dims.extend_from_slice(&table_type.shape.dims()[1..]);
        let ty = TensorType { dtype: table_type.dtype, shape: dims.into(), rows: index_type.rows };
        Ok(self.push(Op::Gather, &[table, indices], ty))
    }

    pub(super) fn expect_f32(&self, op: &str, tensors: &[Tensor]) -> Result<(), GraphError> {
        match tensors.iter().find(|&&t| self.ty(t).dtype != DType::F32) {
            None => Ok(()),
            Some(&t) => Err(self.error(op, format!("needs f32, got {} {}", self.ty(t).dtype, self.shape(t)))),
        }
    }

    pub(super) fn feature_map(&self, op: &str, x: Tensor) -> Result<[usize; 4], GraphError> {
        self.expect_f32(op, &[x])?;
        <[usize; 4]>::try_from(self.shape(x).dims())
            .map_err(|_| self.error(op, format!("needs a feature map [N, H, W, C], got {}", self.shape(x))))
    }

    /// The one row count among the tensors, if any.
    pub(super) fn merged_rows(&self, op: &str, tensors: &[Tensor]) -> Result<Option<RowCount>, GraphError> {
        let mut found = None;
        for rows in tensors.iter().filter_map(|&t| self.ty(t).rows) {
            if found.is_some_and(|f| f != rows) {
                return Err(self.error(op, "its arguments have different row counts".into()));
            }
            found = Some(rows);
        }
        Ok(found)
    }

    fn row_source_rank(&self, tensors: &[Tensor]) -> usize {
        tensors
            .iter()
            .filter(|&&t| self.ty(t).rows.is_some())
            .map(|&t| self.shape(t).rank())
            .max()
            .unwrap_or(0)
    }

    fn reshaped_rows(&self, from: &Shape, to: &Shape, rows: RowCount) -> Result<RowCount, GraphError> {
        let (old, new) = (from[0], to.dims().first().copied().unwrap_or(0));
        let per_item = rows.rows_per_item * new;
        if new == 0 || old == 0 || !per_item.is_multiple_of(old) {
            return Err(self.error("reshape", format!("{from} to {to} would split a counted row")));
        }
        Ok(RowCount { rows_per_item: per_item / old, ..rows })
    }
}

/// NumPy's broadcast of two shapes.
pub(crate) fn broadcast(a: &Shape, b: &Shape) -> Option<Shape> {
    let rank = a.rank().max(b.rank());
    let dim = |s: &Shape, i: usize| if i + s.rank() >= rank { s[i + s.rank() - rank] } else { 1 };
    let dims = (0..rank).map(|i| match (dim(a, i), dim(b, i)) {
        (x, y) if x == y => Some(x),
        (1, y) => Some(y),
        (x, 1) => Some(x),
        _ => None,
    });
    dims.collect::<Option<Vec<usize>>>().map(Shape::from)
}
