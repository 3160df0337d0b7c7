//! `assign`: who belongs to whom, from a cost matrix on the device.

use super::cuda::{ASSIGN, EXACT_BYTES_PER_COLUMN, SHARED_BYTES, threads_for};
use super::{clamp_count, describe, f32s, holds, scratch_buffers, scratch_of, tensor};
use crate::assignment::exact::{self, Duals};
use crate::assignment::{CostMatrix, Scratch, ScratchSizes, Solver, UNMATCHED, Workspace};
use bytemuck::{Pod, Zeroable};
use std::sync::Arc;
use ultramotion_engine::graph::{CpuCall, CudaCall, CustomOp, Graph, GraphError, Tensor, TensorType};
use ultramotion_engine::launch::{Launch, Operand};
use ultramotion_engine::reference::Values;
use ultramotion_engine::tensor::DType;

/// The op. Inputs: costs `[N, M]` f32, number of valid rows and of valid columns, each `[1]` i32. Outputs: see
/// [`AssignTensors`].
#[derive(Clone, Copy, Debug)]
pub struct Assign {
    /// Exact or greedy.
    pub solver: Solver,
    /// Price of leaving a row or column unmatched: see [`crate::assignment`]. Infinite for as many pairs as possible.
    pub unmatched_cost: f64,
}

/// Results of [`assign()`].
#[derive(Clone, Copy, Debug)]
pub struct AssignTensors {
    /// `[N]` i32: each row's column, −1 for none.
    pub col_of_row: Tensor,
    /// `[M]` i32: each column's row, −1 for none.
    pub row_of_col: Tensor,
    /// `[N]` f32: dual variables ([`Duals`]), rounded from f64; 0 beyond the row count, and for the greedy solver.
    pub row_duals: Tensor,
    /// `[M]` f32: the same for the columns.
    pub col_duals: Tensor,
    /// `[1]` i32: number of pairs.
    pub matched: Tensor,
}

/// Adds an assignment to a graph. `cost` is `[N, M]`, of which the first `row_count` rows and `col_count` columns
/// (`[1]` i32 each) are valid.
pub fn assign(
    graph: &mut Graph,
    op: Assign,
    cost: Tensor,
    row_count: Tensor,
    col_count: Tensor,
) -> Result<AssignTensors, GraphError> {
    let out = graph.custom(Arc::new(op), &[cost, row_count, col_count])?;
    Ok(AssignTensors {
        col_of_row: out[0],
        row_of_col: out[1],
        row_duals: out[2],
        col_duals: out[3],
        matched: out[4],
    })
}

/// Where the results go.
struct Results<'a> {
    col_of_row: &'a mut [i32],
    row_of_col: &'a mut [i32],
    row_duals: &'a mut [f32],
    col_duals: &'a mut [f32],
    matched: &'a mut [i32],
}

impl Assign {
    fn sizes(inputs: &[TensorType]) -> ScratchSizes {
        let [rows, cols] = [inputs[0].shape[0], inputs[0].shape[1]];
        let mut sizes = Scratch::sizes(rows, cols);
        sizes.f64s += rows + cols; // the dual variables before they are rounded
        sizes
    }

    fn solve(&self, cost: &[f32], counts: [i32; 2], scratch: Scratch<'_>, to: Results<'_>) {
        let (most_rows, most_cols) = (to.col_of_row.len(), to.row_of_col.len());
        let rows = clamp_count(counts[0], most_rows);
        let cols = clamp_count(counts[1], most_cols);
        let (row_duals, rest) = scratch.f64s.split_at_mut(most_rows);
        let (col_duals, f64s) = rest.split_at_mut(most_cols);
        row_duals.fill(0.0);
        col_duals.fill(0.0);
        to.row_of_col.fill(UNMATCHED);
        let scratch = &mut Scratch { f32s: scratch.f32s, f64s, i32s: scratch.i32s };
        let solution = CostMatrix::with_stride(cost, rows, cols, most_cols)
            .and_then(|cost| match self.solver {
                Solver::Exact => exact::solve(
                    cost,
                    self.unmatched_cost,
                    scratch,
                    to.col_of_row,
                    Some(Duals { rows: row_duals, cols: col_duals }),
                ),
                Solver::Greedy => Solver::Greedy.solve(cost, self.unmatched_cost, scratch, to.col_of_row),
            })
            .expect("the buffers have the declared sizes, and the counts are within them");
        for (row, &col) in to.col_of_row[..rows].iter().enumerate() {
            if col != UNMATCHED {
                to.row_of_col[col as usize] = row as i32;
            }
        }
        for (to, from) in to.row_duals.iter_mut().zip(row_duals) {
            *to = *from as f32;
        }
        for (to, from) in to.col_duals.iter_mut().zip(col_duals) {
            *to = *from as f32;
        }
        to.matched[0] = solution.matched as i32;
    }
}

/// The params of `assign.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct AssignParams {
    cost: Operand,
    row_count: u64,
    col_count: u64,
    col_of_row: u64,
    row_of_col: u64,
    row_duals: u64,
    col_duals: u64,
    matched: u64,
    costs: u64,
    room: u64,
    unmatched_cost: f64,
    greedy: u32,
    reserved: u32,
}

/// What the exact solver's block works in.
struct CudaRoom {
    /// Bytes of dynamic shared memory.
    shared: usize,
    /// Costs for which there is no room in it.
    costs: Option<usize>,
    /// Bytes of the rest, when there is none for that either.
    rest: Option<usize>,
}

impl CudaRoom {
    fn new(solver: Solver, rows: usize, cols: usize) -> Self {
        let (costs, rest) = (rows * cols, rows.max(cols) * EXACT_BYTES_PER_COLUMN);
        match solver {
            Solver::Greedy => CudaRoom { shared: 0, costs: None, rest: None },
            Solver::Exact if rest + 4 * costs <= SHARED_BYTES => {
                CudaRoom { shared: rest + 4 * costs, costs: None, rest: None }
            }
            Solver::Exact if rest <= SHARED_BYTES => {
                CudaRoom { shared: rest, costs: Some(costs), rest: None }
            }
            Solver::Exact => CudaRoom { shared: 0, costs: Some(costs), rest: Some(rest) },
        }
    }

    fn scratch(&self) -> Vec<(DType, usize)> {
        let costs = self.costs.map(|n| (DType::F32, n));
        costs.into_iter().chain(self.rest.map(|n| (DType::U8, n))).collect()
    }
}

impl CustomOp for Assign {
    fn name(&self) -> &str {
        "assign"
    }

    fn output_types(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, String> {
        match inputs {
            [cost, rows, cols]
                if cost.dtype == DType::F32
                    && cost.shape.rank() == 2
                    && holds(rows, DType::I32, 1)
                    && holds(cols, DType::I32, 1) =>
            {
                let (n, m) = (cost.shape[0], cost.shape[1]);
                Ok(vec![
                    tensor(DType::I32, [n]),
                    tensor(DType::I32, [m]),
                    tensor(DType::F32, [n]),
                    tensor(DType::F32, [m]),
                    tensor(DType::I32, [1]),
                ])
            }
            _ => Err(format!(
                "needs costs f32 [N, M], a row count and a column count i32 [1], got {}",
                describe(inputs)
            )),
        }
    }

    fn scratch(&self, inputs: &[TensorType]) -> Vec<(DType, usize)> {
        scratch_buffers(Self::sizes(inputs))
    }

    fn reference(&self, inputs: &[Values], outputs: &mut [Values]) {
        let ty = tensor(DType::F32, inputs[0].shape.clone());
        let mut workspace = Workspace::with_sizes(Self::sizes(&[ty]));
        let (rows, cols) = (inputs[0].shape[0], inputs[0].shape[1]);
        let (mut row_duals, mut col_duals) = (vec![0.0; rows], vec![0.0; cols]);
        let [col_of_row, row_of_col, to_row_duals, to_col_duals, matched] = outputs else {
            panic!("assign has five results")
        };
        self.solve(
            &f32s(inputs[0].as_f64()),
            [inputs[1].as_i32()[0], inputs[2].as_i32()[0]],
            workspace.scratch(),
            Results {
                col_of_row: col_of_row.i32_mut(),
                row_of_col: row_of_col.i32_mut(),
                row_duals: &mut row_duals,
                col_duals: &mut col_duals,
                matched: matched.i32_mut(),
            },
        );
        for (to, from) in [(to_row_duals, row_duals), (to_col_duals, col_duals)] {
            to.f64_mut().iter_mut().zip(from).for_each(|(to, from)| *to = f64::from(from));
        }
    }

    fn cpu(&self, call: &mut CpuCall<'_>) {
        let [col_of_row, row_of_col, row_duals, col_duals, matched] = &mut *call.outputs else {
            panic!("assign has five results")
        };
        self.solve(
            call.inputs[0].f32(),
            [call.inputs[1].i32()[0], call.inputs[2].i32()[0]],
            scratch_of(call.scratch),
            Results {
                col_of_row: col_of_row.i32(),
                row_of_col: row_of_col.i32(),
                row_duals: row_duals.f32(),
                col_duals: col_duals.f32(),
                matched: matched.i32(),
            },
        );
    }
    fn cuda_scratch(&self, inputs: &[TensorType]) -> Vec<(DType, usize)> {
        CudaRoom::new(self.solver, inputs[0].shape[0], inputs[0].shape[1]).scratch()
    }

    fn cuda(&self, call: &CudaCall<'_>) -> Option<Vec<Launch>> {
        let &[cost, row_count, col_count] = call.inputs else { panic!("assign has three arguments") };
        let &[col_of_row, row_of_col, row_duals, col_duals, matched] = call.outputs else {
            panic!("assign has five results")
        };
        let (rows, cols) = (cost.rows as usize, cost.cols as usize);
        let room = CudaRoom::new(self.solver, rows, cols);
        let address = |index: usize| call.scratch.get(index).map_or(0, |buffer| buffer.data);
        let params = AssignParams {
            cost,
            row_count: row_count.data,
            col_count: col_count.data,
            col_of_row: col_of_row.data,
            row_of_col: row_of_col.data,
            row_duals: row_duals.data,
            col_duals: col_duals.data,
            matched: matched.data,
            costs: address(0),
            room: address(1),
            unmatched_cost: self.unmatched_cost,
            greedy: (self.solver == Solver::Greedy).into(),
            reserved: 0,
        };
        let threads = threads_for(rows.max(cols));
        Some(vec![Launch::new(&ASSIGN, "assign", &params).block([threads, 1, 1]).shared(room.shared as u32)])
    }
}
