//! The approximate assignment: columns are served in order, each takes the cheapest row that no earlier column has.
//!
//! That is the column-wise minimum with conflicts resolved to the next best. It needs no working memory and one pass
//! over the matrix, but its result depends on the order of the columns, and its cost can exceed the optimum by any
//! factor: `[[0, 1], [1, 1000]]` gives 1000 where 2 is possible. It is here because systems that match on a GPU
//! without an exact solver behave like this, and to be compared with.

use super::{CostMatrix, Solution, UNMATCHED};
use crate::error::{TrackingError, check_len};

/// Solves greedily. `col_of_row[..rows]` receives each row's column or [`UNMATCHED`].
///
/// Pairs that are not finite, or that cost `unmatched_cost` or more, are not made. Among equal costs the first row
/// wins.
pub fn solve(
    cost: CostMatrix<'_>,
    unmatched_cost: f64,
    col_of_row: &mut [i32],
) -> Result<Solution, TrackingError> {
    check_len("col_of_row", cost.rows(), col_of_row.len())?;
    col_of_row.fill(UNMATCHED);
    let mut solution = Solution { matched: 0, cost: 0.0, unmatched_cost };
    for j in 0..cost.cols() {
        let mut best = (f64::INFINITY, None);
        for (i, &taken) in col_of_row[..cost.rows()].iter().enumerate() {
            let c = f64::from(cost.at(i, j));
            if taken == UNMATCHED && c.is_finite() && c < unmatched_cost && c < best.0 {
                best = (c, Some(i));
            }
        }
        if let (c, Some(i)) = best {
            col_of_row[i] = j as i32;
            solution.matched += 1;
            solution.cost += c;
        }
    }
    Ok(solution)
}
