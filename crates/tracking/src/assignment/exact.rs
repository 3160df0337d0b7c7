//! The optimal assignment by shortest augmenting paths.
//!
//! The algorithm is that of R. Jonker and A. Volgenant, "A shortest augmenting path algorithm for dense and sparse
//! linear assignment problems", Computing 38 (1987), without its column reduction, for rectangular problems as in
//! D. F. Crouse, "On implementing 2D rectangular assignment algorithms", IEEE Trans. Aerospace and Electronic
//! Systems 52 (2016), section II. The shorter side has the rows here, whatever the caller's matrix.
//!
//! 1. *Augmenting row reduction*: a row without a column takes its cheapest one and lowers that column's price `v`
//!    by as much as it could pay more than its second choice; a row that is displaced goes next.
//! 2. *Augmentation*: each row still without a column starts a Dijkstra search over reduced costs
//!    `c[i][j] - u[i] - v[j] ≥ 0` to the nearest free column, flips the path, and adjusts the prices.
//!
//! Prices only fall, and only of columns that are taken, so free columns keep `v = 0`: with that, `u` and `v` are an
//! optimal solution of the dual problem also when there are more columns than rows.
//!
//! Costs are f32, all sums f64. Ties go to a free column, then to the lowest index, so results do not depend on the
//! machine or on how a parallel translation orders its work. Time O(s² l), s the shorter side, l the longer.

use super::{CostMatrix, Scratch, ScratchSizes, Solution, UNMATCHED};
use crate::error::{TrackingError, check_len};

/// Where [`solve`] puts the dual variables.
///
/// They satisfy, with `c'[i][j]` the cost of a pair but at most [`Solution::unmatched_cost`] (and that for a
/// forbidden pair), up to rounding in f64:
/// - feasibility: `rows[i] + cols[j] ≤ c'[i][j]` for all pairs, and the longer side's variables are at most 0;
/// - complementary slackness: equality for the pairs that were made and, if nothing of the shorter side is left over,
///   0 for what is left over of the longer one;
/// - strong duality: their sum is [`Solution::cost`] plus `unmatched_cost` times what the shorter side has left over.
///
/// Any assignment that has such variables is optimal: they are a proof that can be checked without solving.
#[derive(Debug)]
pub struct Duals<'a> {
    /// `[rows]`, in units of cost.
    pub rows: &'a mut [f64],
    /// `[cols]`, in units of cost.
    pub cols: &'a mut [f64],
}

/// Working memory for `rows` by `cols`.
pub fn scratch_sizes(rows: usize, cols: usize) -> ScratchSizes {
    // The sides of a smaller problem inside may change roles, so both may be the longer one.
    let longer = rows.max(cols);
    ScratchSizes { f32s: rows.saturating_mul(cols), f64s: 4 * longer, i32s: 5 * longer }
}

/// Solves optimally. `col_of_row[..rows]` receives each row's column or [`UNMATCHED`]; `duals`, if given, the dual
/// variables. For `unmatched_cost` and forbidden pairs see [`super`]. A NaN price counts as infinite.
pub fn solve(
    cost: CostMatrix<'_>,
    unmatched_cost: f64,
    scratch: &mut Scratch<'_>,
    col_of_row: &mut [i32],
    duals: Option<Duals<'_>>,
) -> Result<Solution, TrackingError> {
    let (rows, cols) = (cost.rows(), cost.cols());
    check_len("col_of_row", rows, col_of_row.len())?;
    let sizes = scratch_sizes(rows, cols);
    check_len("scratch.f32s", sizes.f32s, scratch.f32s.len())?;
    check_len("scratch.f64s", sizes.f64s, scratch.f64s.len())?;
    check_len("scratch.i32s", sizes.i32s, scratch.i32s.len())?;
    if let Some(duals) = &duals {
        check_len("duals.rows", rows, duals.rows.len())?;
        check_len("duals.cols", cols, duals.cols.len())?;
    }

    let turned = rows > cols;
    let (short, long) = if turned { (cols, rows) } else { (rows, cols) };
    let costs = &mut scratch.f32s[..rows * cols];
    let range = if turned { copy_turned(cost, costs) } else { copy(cost, costs) };
    let limit = range.unmatched_cost(unmatched_cost, short);

    let mut search = Search::new(costs, short, long, limit, scratch.f64s, scratch.i32s);
    search.reduce_rows();
    search.augment_rows();

    let mut solution = Solution { matched: 0, cost: 0.0, unmatched_cost: limit };
    col_of_row.fill(UNMATCHED);
    for (i, &j) in search.col_of_row.iter().enumerate() {
        let c = f64::from(search.costs[i * long + j as usize]);
        if c < limit {
            solution.matched += 1;
            solution.cost += c;
            if turned {
                col_of_row[j as usize] = i as i32;
            } else {
                col_of_row[i] = j;
            }
        }
    }
    if let Some(duals) = duals {
        let (of_short, of_long) = if turned { (duals.cols, duals.rows) } else { (duals.rows, duals.cols) };
        for (i, &j) in search.col_of_row.iter().enumerate() {
            of_short[i] = search.row_price(i, j as usize);
        }
        of_long[..long].copy_from_slice(search.v);
    }
    Ok(solution)
}

/// The finite costs seen while copying.
struct Range {
    lowest: f32,
    highest: f32,
}

impl Range {
    fn new() -> Self {
        Self { lowest: f32::INFINITY, highest: f32::NEG_INFINITY }
    }

    /// Takes note of a cost; forbidden ones become +∞.
    #[inline(always)]
    fn admit(&mut self, c: f32) -> f32 {
        if c.is_finite() {
            self.lowest = if c < self.lowest { c } else { self.lowest };
            self.highest = if c > self.highest { c } else { self.highest };
            c
        } else {
            f32::INFINITY
        }
    }

    /// The caller's price, but no more than makes one pair more worth any detour: that is above
    /// `short * (highest - lowest) + highest`, the most that two assignments of a different number of pairs differ by.
    fn unmatched_cost(&self, given: f64, short: usize) -> f64 {
        let given = given.max(f64::from(f32::MIN) * 2.0); // NaN, too, leaves the other side of `max` or `min`
        if self.lowest > self.highest {
            return given.min(1.0); // no finite cost at all: any price leaves everything unmatched
        }
        let (lowest, highest) = (f64::from(self.lowest), f64::from(self.highest));
        let magnitude = lowest.abs().max(highest.abs());
        let margin = if magnitude > 0.0 { magnitude } else { 1.0 };
        given.min(short as f64 * (highest - lowest) + highest + margin)
    }
}

fn copy(cost: CostMatrix<'_>, to: &mut [f32]) -> Range {
    let mut range = Range::new();
    if cost.cols() > 0 {
        for (i, to) in to.chunks_exact_mut(cost.cols()).enumerate() {
            for (to, &c) in to.iter_mut().zip(cost.row(i)) {
                *to = range.admit(c);
            }
        }
    }
    range
}

/// Copies the transpose, block by block so that both sides stay in the nearest cache.
fn copy_turned(cost: CostMatrix<'_>, to: &mut [f32]) -> Range {
    const BLOCK: usize = 16;
    let (rows, cols) = (cost.rows(), cost.cols());
    let mut range = Range::new();
    for first in (0..rows).step_by(BLOCK) {
        let last = rows.min(first + BLOCK);
        for j in 0..cols {
            for (i, to) in (first..last).zip(&mut to[j * rows + first..j * rows + last]) {
                *to = range.admit(cost.at(i, j));
            }
        }
    }
    range
}

/// One problem with `short` rows and `long` columns, `short <= long`.
struct Search<'a> {
    /// `[short, long]`, forbidden pairs +∞.
    costs: &'a [f32],
    /// Every cost counts at most this much, so that there is always a complete assignment.
    limit: f64,
    short: usize,
    long: usize,
    /// Column prices (dual variables), at most 0.
    v: &'a mut [f64],
    /// Column prices during one search; −∞ once the column is in the tree, so that it is never reached again.
    open_v: &'a mut [f64],
    /// Distance to each column outside the tree; +∞ inside.
    shortest: &'a mut [f64],
    /// Distance at which a column came into the tree.
    reached: &'a mut [f64],
    /// The row before each column on the shortest path.
    path: &'a mut [i32],
    /// Columns in the tree, in order.
    tree: &'a mut [i32],
    row_of_col: &'a mut [i32],
    col_of_row: &'a mut [i32],
    /// Rows still without a column.
    waiting: &'a mut [i32],
    waiting_len: usize,
}

/// A row's two cheapest columns.
struct TwoCheapest {
    first: f64,
    second: f64,
    first_col: usize,
    second_col: usize,
}

impl<'a> Search<'a> {
    fn new(
        costs: &'a [f32],
        short: usize,
        long: usize,
        limit: f64,
        f64s: &'a mut [f64],
        i32s: &'a mut [i32],
    ) -> Self {
        let (v, f64s) = f64s.split_at_mut(long);
        let (open_v, f64s) = f64s.split_at_mut(long);
        let (shortest, f64s) = f64s.split_at_mut(long);
        let (path, i32s) = i32s.split_at_mut(long);
        let (tree, i32s) = i32s.split_at_mut(long);
        let (row_of_col, i32s) = i32s.split_at_mut(long);
        let (col_of_row, i32s) = i32s.split_at_mut(short);
        v.fill(0.0);
        row_of_col.fill(UNMATCHED);
        col_of_row.fill(UNMATCHED);
        Self {
            costs,
            limit,
            short,
            long,
            v,
            open_v,
            shortest,
            reached: &mut f64s[..long],
            path,
            tree,
            row_of_col,
            col_of_row,
            waiting: &mut i32s[..short],
            waiting_len: 0,
        }
    }

    fn row(&self, i: usize) -> &'a [f32] {
        &self.costs[i * self.long..][..self.long]
    }

    /// The dual variable of row `i`, which has column `j`.
    fn row_price(&self, i: usize, j: usize) -> f64 {
        f64::from(self.row(i)[j]).min(self.limit) - self.v[j]
    }

    fn two_cheapest(&self, i: usize) -> TwoCheapest {
        let mut t = TwoCheapest { first: f64::INFINITY, second: f64::INFINITY, first_col: 0, second_col: 0 };
        for (j, (&c, &v)) in self.row(i).iter().zip(self.v.iter()).enumerate() {
            let reduced = f64::from(c).min(self.limit) - v;
            if reduced < t.second {
                if reduced < t.first {
                    (t.second, t.second_col) = (t.first, t.first_col);
                    (t.first, t.first_col) = (reduced, j);
                } else {
                    (t.second, t.second_col) = (reduced, j);
                }
            }
        }
        t
    }

    /// Augmenting row reduction. Rows that would displace each other without end at rounding level, or more often
    /// than pays, are left to the augmentation.
    fn reduce_rows(&mut self) {
        for first in 0..self.short {
            let mut row = first;
            let mut displacements = 0;
            loop {
                let t = self.two_cheapest(row);
                let mut col = t.first_col;
                // With one column only, `second` is infinite: nothing to be outbid by, the price stays.
                let lowered = self.v[col] - (t.second - t.first);
                let outbids = lowered < self.v[col] && lowered.is_finite();
                if self.row_of_col[col] != UNMATCHED && !outbids {
                    col = t.second_col; // as cheap as the first, and perhaps free
                }
                let displaced = self.row_of_col[col];
                if displaced != UNMATCHED && (!outbids || displacements == Self::MAX_DISPLACEMENTS) {
                    self.waiting[self.waiting_len] = row as i32;
                    self.waiting_len += 1;
                    break;
                }
                if outbids {
                    self.v[col] = lowered;
                }
                self.row_of_col[col] = row as i32;
                self.col_of_row[row] = col as i32;
                if displaced == UNMATCHED {
                    break;
                }
                self.col_of_row[displaced as usize] = UNMATCHED;
                row = displaced as usize;
                displacements += 1;
            }
        }
    }

    const MAX_DISPLACEMENTS: usize = 64;

    fn augment_rows(&mut self) {
        for k in 0..self.waiting_len {
            let start = self.waiting[k] as usize;
            let sink = self.search_from(start);
            // Flip the path: each row on it moves to the column it reached.
            let mut col = sink;
            loop {
                let row = self.path[col] as usize;
                self.row_of_col[col] = row as i32;
                let previous = std::mem::replace(&mut self.col_of_row[row], col as i32);
                if row == start {
                    break;
                }
                col = previous as usize;
            }
        }
    }

    /// Dijkstra from a row without a column to the nearest free column; adjusts the prices of the tree.
    fn search_from(&mut self, start: usize) -> usize {
        self.open_v.copy_from_slice(self.v);
        self.shortest.fill(f64::INFINITY);
        let mut tree_len = 0;
        let mut row = start;
        let mut base = 0.0; // distance of the row, minus its price
        loop {
            let lowest = self.relax(row, base);
            let col = self.nearest(lowest);
            let next = self.row_of_col[col];
            if next == UNMATCHED {
                for &j in &self.tree[..tree_len] {
                    self.v[j as usize] += self.reached[j as usize] - lowest;
                }
                return col;
            }
            self.reached[col] = lowest;
            self.shortest[col] = f64::INFINITY;
            self.open_v[col] = f64::NEG_INFINITY;
            self.tree[tree_len] = col as i32;
            tree_len += 1;
            row = next as usize;
            base = lowest - self.row_price(row, col);
        }
    }

    /// Shortens the ways to all columns outside the tree by way of `row`; returns the shortest distance there is.
    fn relax(&mut self, row: usize, base: f64) -> f64 {
        let mut lowest = f64::INFINITY;
        let costs = self.row(row);
        for (((&c, &v), shortest), path) in
            costs.iter().zip(self.open_v.iter()).zip(self.shortest.iter_mut()).zip(self.path.iter_mut())
        {
            let distance = base + (f64::from(c).min(self.limit) - v);
            if distance < *shortest {
                *shortest = distance;
                *path = row as i32;
            }
            lowest = if *shortest < lowest { *shortest } else { lowest };
        }
        lowest
    }

    /// The column at distance `lowest`: a free one if there is, else the first.
    fn nearest(&self, lowest: f64) -> usize {
        let mut first = None;
        for (j, &distance) in self.shortest.iter().enumerate() {
            if distance == lowest {
                if self.row_of_col[j] == UNMATCHED {
                    return j;
                }
                first = first.or(Some(j));
            }
        }
        // `lowest` is one of the distances, so there is a first; a free column exists because short <= long.
        first.unwrap_or(0)
    }
}
