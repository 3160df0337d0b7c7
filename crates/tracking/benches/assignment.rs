//! Median time of one assignment, for random costs in [0, 1): one JSON object a size.
//!
//! `benches/scipy_assignment.py` runs this and SciPy's `linear_sum_assignment` on the same matrices in one go, and
//! prints both.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::time::Instant;
use ultramotion_tracking::assignment::{CostMatrix, Solver, Workspace};

/// Value `i` of the matrix, by SplitMix64.
fn cost(i: usize) -> f32 {
    let mut z = (i as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ z >> 31) >> 40) as f32 / (1 << 24) as f32
}

fn main() {
    for (rows, cols) in [(30, 10), (300, 10), (300, 32), (300, 100), (300, 300)] {
        let costs: Vec<f32> = (0..rows * cols).map(cost).collect();
        let mut workspace = Workspace::new(rows, cols);
        let mut col_of_row = vec![0; rows];
        for (name, solver) in [("exact", Solver::Exact), ("greedy", Solver::Greedy)] {
            let mut solve = || {
                let matrix = CostMatrix::new(&costs, rows, cols).unwrap();
                let mut scratch = workspace.scratch();
                solver.solve(matrix, f64::INFINITY, &mut scratch, &mut col_of_row).unwrap()
            };
            let total_cost = solve().cost;
            // Each sample repeats the call until it is long enough for the clock.
            let start = Instant::now();
            solve();
            let repeats = (20_000 / start.elapsed().as_nanos().max(1)).clamp(1, 1000) as u32;
            let mut samples_us: Vec<f64> = (0..501)
                .map(|_| {
                    let start = Instant::now();
                    for _ in 0..repeats {
                        std::hint::black_box(solve());
                    }
                    start.elapsed().as_secs_f64() * 1e6 / f64::from(repeats)
                })
                .collect();
            samples_us.sort_by(f64::total_cmp);
            let p50_us = samples_us[samples_us.len() / 2];
            println!(
                r#"{{"solver":"{name}","rows":{rows},"cols":{cols},"p50_us":{p50_us:.3},"total_cost":{total_cost}}}"#
            );
        }
    }
}
