//! The approximate assignment: each column takes its cheapest row; where two want the same, the cheaper pair stays
//! and the other column goes on to its next best.
//!
//! The result is that of making the cheapest pair of all, then the cheapest of what is left, and so on (deferred
//! acceptance: D. Gale and L. S. Shapley, "College Admissions and the Stability of Marriage", 1962; both sides rank
//! by cost). No two could both do better with each other, but the sum can exceed the optimum by any factor:
//! `[[0, 1], [1, 1000]]` gives 1000 where 2 is possible. It needs no working memory. It is here because systems that
//! match on a GPU without an exact solver behave like this, and to be compared with.

use super::{CostMatrix, Solution, UNMATCHED};
use crate::error::{TrackingError, check_len};

/// Solves greedily. `col_of_row[..rows]` receives each row's column or [`UNMATCHED`].
///
/// Pairs that are not finite, or that cost `unmatched_cost` or more, are not made. Among equal costs the first row,
/// then the first column wins. Time O(rows · cols) without conflicts, O(rows · cols²) at worst.
pub fn solve(
    cost: CostMatrix<'_>,
    unmatched_cost: f64,
    col_of_row: &mut [i32],
) -> Result<Solution, TrackingError> {
    check_len("col_of_row", cost.rows(), col_of_row.len())?;
    col_of_row.fill(UNMATCHED);
    let col_of_row = &mut col_of_row[..cost.rows()];
    for first in 0..cost.cols() {
        let mut col = first;
        while let Some(row) = best_row(cost, unmatched_cost, col_of_row, col) {
            let displaced = std::mem::replace(&mut col_of_row[row], col as i32);
            if displaced == UNMATCHED {
                break;
            }
            col = displaced as usize;
        }
    }
    let mut solution = Solution { matched: 0, cost: 0.0, unmatched_cost };
    for (row, &col) in col_of_row.iter().enumerate() {
        if col != UNMATCHED {
            solution.matched += 1;
            solution.cost += f64::from(cost.at(row, col as usize));
        }
    }
    Ok(solution)
}

/// The cheapest row that would have this column: one that is free, or whose pair is dearer.
fn best_row(cost: CostMatrix<'_>, unmatched_cost: f64, col_of_row: &[i32], col: usize) -> Option<usize> {
    let mut best = (f32::INFINITY, None);
    for (row, &holder) in col_of_row.iter().enumerate() {
        let c = cost.at(row, col);
        if c < best.0 && c > f32::NEG_INFINITY && f64::from(c) < unmatched_cost {
            let would = holder == UNMATCHED || {
                let held = cost.at(row, holder as usize);
                c < held || (c == held && (col as i32) < holder)
            };
            if would {
                best = (c, Some(row));
            }
        }
    }
    best.1
}
