//! Assignment: which of N things (queries, detections) belongs to which of M others (targets, tracks).
//!
//! | file | room for |
//! |---|---|
//! | [`cost`] | what a pair costs: class, L1 and GIoU terms |
//! | [`exact`] | the optimal assignment, with dual variables that prove it |
//! | [`greedy`] | the approximate one: column-wise minimum, conflicts go to the next best |
//! | [`matcher`] | [`HungarianMatcher`]: batches of logits and boxes in, pairs out |
//!
//! In: a [`CostMatrix`] (f32, row-major). Out: for every row its column or [`UNMATCHED`]. The solvers work on plain
//! slices, allocate nothing, and give the same answer for the same input on every machine.
//!
//! **Forbidden pairs.** A pair whose cost is not finite (NaN, +∞, −∞) is forbidden: it is never returned. What
//! follows for the rest is decided by the price of staying unmatched, `unmatched_cost`:
//! - `f64::INFINITY`: as many pairs as possible, and among those the cheapest set;
//! - a finite price P: the sum of the pairs' costs plus P for every row (or column, if there are fewer columns) left
//!   over is minimal. So a pair that costs P or more is never made, and two poor pairs do not break up a good one.
//!
//! ```
//! use ultramotion_tracking::assignment::{CostMatrix, Solver, Workspace, UNMATCHED};
//!
//! let cost = [4.0, 1.0, 3.0, 2.0, 0.0, 5.0];
//! let mut workspace = Workspace::new(2, 3);
//! let mut col_of_row = [UNMATCHED; 2];
//! let solution = Solver::Exact.solve(
//!     CostMatrix::new(&cost, 2, 3)?, f64::INFINITY, &mut workspace.scratch(), &mut col_of_row)?;
//! assert_eq!(col_of_row, [1, 0]);
//! assert_eq!(solution.cost, 3.0);
//! # Ok::<(), ultramotion_tracking::TrackingError>(())
//! ```

pub mod cost;
pub mod exact;
pub mod greedy;
pub mod matcher;

pub use cost::{ClassCost, CostWeights};
pub use matcher::{BatchItem, HungarianMatcher, HungarianMatcherBuilder};

use crate::error::{TrackingError, check_len};
use serde::{Deserialize, Serialize};
use ultramotion_types::MatcherMode;
use ultramotion_types::settings::{Kind, SettingValue};

/// The column of a row that has none, and the row of a column that has none.
pub const UNMATCHED: i32 = -1;

/// A view of a row-major cost matrix `[rows, cols]`, whose rows may lie `row_stride` values apart (the valid corner
/// of a larger buffer).
#[derive(Clone, Copy, Debug)]
pub struct CostMatrix<'a> {
    values: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
}

impl<'a> CostMatrix<'a> {
    /// `values` is `[rows, cols]` without gaps.
    pub fn new(values: &'a [f32], rows: usize, cols: usize) -> Result<Self, TrackingError> {
        Self::with_stride(values, rows, cols, cols)
    }

    /// Row `i` starts at `values[i * row_stride]`; `row_stride` is at least `cols`.
    pub fn with_stride(
        values: &'a [f32],
        rows: usize,
        cols: usize,
        row_stride: usize,
    ) -> Result<Self, TrackingError> {
        check_len("row_stride", cols, row_stride)?;
        if rows > 0 && cols > 0 {
            let needed = (rows - 1).saturating_mul(row_stride).saturating_add(cols);
            check_len("cost", needed, values.len())?;
        }
        Ok(Self { values, rows, cols, row_stride })
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Row `i`, `[cols]`.
    pub fn row(&self, i: usize) -> &'a [f32] {
        if self.cols == 0 { &[] } else { &self.values[i * self.row_stride..][..self.cols] }
    }

    /// The cost of a pair.
    pub fn at(&self, row: usize, col: usize) -> f32 {
        self.row(row)[col]
    }
}

/// What a solver found, beside the matches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Solution {
    /// Number of pairs.
    pub matched: usize,
    /// Sum of the pairs' costs.
    pub cost: f64,
    /// The price of leaving a row (or a column, if there are fewer) unmatched that the solver worked with: the one
    /// it was given, or if that was infinite, one that outweighs every difference between two assignments.
    pub unmatched_cost: f64,
}

/// Borrowed working memory of the solvers, at least [`Scratch::sizes`] of the problem; its content does not matter.
#[derive(Debug)]
pub struct Scratch<'a> {
    /// The costs, turned so that the shorter side has the rows.
    pub f32s: &'a mut [f32],
    /// Prices and distances.
    pub f64s: &'a mut [f64],
    /// Matches and lists.
    pub i32s: &'a mut [i32],
}

/// How many values of each kind a [`Scratch`] needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScratchSizes {
    /// Length of [`Scratch::f32s`].
    pub f32s: usize,
    /// Length of [`Scratch::f64s`].
    pub f64s: usize,
    /// Length of [`Scratch::i32s`].
    pub i32s: usize,
}

impl Scratch<'_> {
    /// What a problem of `rows` by `cols`, or any smaller one, needs.
    pub fn sizes(rows: usize, cols: usize) -> ScratchSizes {
        exact::scratch_sizes(rows, cols)
    }
}

/// Owned working memory for problems up to a given size: allocate once, then solve as often as you like.
#[derive(Clone, Debug)]
pub struct Workspace {
    f32s: Vec<f32>,
    f64s: Vec<f64>,
    i32s: Vec<i32>,
}

impl Workspace {
    /// Memory for problems up to `rows` by `cols`.
    pub fn new(rows: usize, cols: usize) -> Self {
        Self::with_sizes(Scratch::sizes(rows, cols))
    }

    /// Memory of the given sizes.
    pub fn with_sizes(sizes: ScratchSizes) -> Self {
        Self { f32s: vec![0.0; sizes.f32s], f64s: vec![0.0; sizes.f64s], i32s: vec![0; sizes.i32s] }
    }

    /// Lends the memory to a solver.
    pub fn scratch(&mut self) -> Scratch<'_> {
        Scratch { f32s: &mut self.f32s, f64s: &mut self.f64s, i32s: &mut self.i32s }
    }
}

/// How an assignment is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Solver {
    /// The optimal assignment ([`exact`]).
    #[default]
    Exact,
    /// Column-wise minimum, conflicts go to the next best ([`greedy`]).
    Greedy,
}

impl SettingValue for Solver {
    const KIND: Kind = Kind::Words(&[("exact", "Optimal"), ("greedy", "Column-wise minimum")]);
}

impl Solver {
    /// Solves, and writes to `col_of_row[i]` the column of row `i` or [`UNMATCHED`].
    pub fn solve(
        self,
        cost: CostMatrix<'_>,
        unmatched_cost: f64,
        scratch: &mut Scratch<'_>,
        col_of_row: &mut [i32],
    ) -> Result<Solution, TrackingError> {
        match self {
            Self::Exact => exact::solve(cost, unmatched_cost, scratch, col_of_row, None),
            Self::Greedy => greedy::solve(cost, unmatched_cost, col_of_row),
        }
    }
}

impl From<MatcherMode> for Solver {
    fn from(mode: MatcherMode) -> Self {
        match mode {
            MatcherMode::Exact | MatcherMode::Host => Self::Exact,
            MatcherMode::Greedy => Self::Greedy,
        }
    }
}
