//! The solvers against brute force, SciPy, and their own certificate.
#![allow(clippy::unwrap_used)]

mod support;

use proptest::prelude::*;
use support::{cases, count, pairs, uniform};
use ultramotion_tracking::assignment::exact::{self, Duals};
use ultramotion_tracking::assignment::{CostMatrix, Scratch, Solution, Solver, UNMATCHED, Workspace};

const NO_PRICE: f64 = f64::INFINITY;

struct Solved {
    solution: Solution,
    col_of_row: Vec<i32>,
    row_duals: Vec<f64>,
    col_duals: Vec<f64>,
}

fn solve(cost: &[f32], rows: usize, cols: usize, price: f64) -> Solved {
    let mut workspace = Workspace::new(rows, cols);
    let (mut col_of_row, mut row_duals, mut col_duals) =
        (vec![77; rows], vec![f64::NAN; rows], vec![f64::NAN; cols]);
    let solution = exact::solve(
        CostMatrix::new(cost, rows, cols).unwrap(),
        price,
        &mut workspace.scratch(),
        &mut col_of_row,
        Some(Duals { rows: &mut row_duals, cols: &mut col_duals }),
    )
    .unwrap();
    Solved { solution, col_of_row, row_duals, col_duals }
}

/// Checks that the pairs are a matching of allowed pairs, and returns what they cost.
fn check_matching(cost: &[f32], cols: usize, col_of_row: &[i32], solution: &Solution) -> f64 {
    let (mut used, mut matched, mut total) = (vec![false; cols], 0, 0.0);
    for (i, &j) in col_of_row.iter().enumerate() {
        if j != UNMATCHED {
            let c = cost[i * cols + j as usize];
            assert!(c.is_finite(), "forbidden pair ({i}, {j}) of cost {c} was made");
            assert!(f64::from(c) < solution.unmatched_cost, "({i}, {j}) costs more than to leave it");
            assert!(!std::mem::replace(&mut used[j as usize], true), "column {j} twice");
            matched += 1;
            total += f64::from(c);
        }
    }
    assert_eq!(matched, solution.matched);
    assert!((total - solution.cost).abs() <= 1e-12 * total.abs().max(1.0));
    total
}

/// Proves the solution optimal from its dual variables, without solving anything.
fn check_certificate(cost: &[f32], rows: usize, cols: usize, s: &Solved) {
    let total = check_matching(cost, cols, &s.col_of_row, &s.solution);
    let price = s.solution.unmatched_cost;
    let largest = cost.iter().filter(|c| c.is_finite()).fold(price.abs(), |m, c| m.max(f64::from(c.abs())));
    let tolerance = 1e-12 * largest * (rows.min(cols) + 1) as f64;
    for i in 0..rows {
        for j in 0..cols {
            let c = cost[i * cols + j];
            let c = if c.is_finite() { f64::from(c).min(price) } else { price };
            let slack = c - s.row_duals[i] - s.col_duals[j];
            assert!(slack >= -tolerance, "pair ({i}, {j}): {slack}");
            if s.col_of_row[i] == j as i32 {
                assert!(slack <= tolerance, "made pair ({i}, {j}): {slack}");
            }
        }
    }
    let (shorter, longer) = (rows.min(cols), if rows <= cols { &s.col_duals } else { &s.row_duals });
    assert!(longer.iter().all(|&v| v <= tolerance), "{longer:?}");
    if rows != cols && s.solution.matched == shorter {
        for (k, v) in longer.iter().enumerate() {
            let used = if rows <= cols { s.col_of_row.contains(&(k as i32)) } else { s.col_of_row[k] >= 0 };
            assert!(used || *v == 0.0, "{k} is left over at price {v}");
        }
    }
    let dual: f64 = s.row_duals.iter().chain(&s.col_duals).sum();
    let primal = total + (shorter - s.solution.matched) as f64 * price;
    assert!((dual - primal).abs() <= tolerance * (rows + cols + 1) as f64, "{dual} {primal}");
}

/// The best (pairs, cost) over all matchings: with a price, least cost plus price for each of the shorter side left
/// over; without, most pairs first.
fn brute_force(cost: &[f32], rows: usize, cols: usize, price: f64) -> (usize, f64) {
    fn go(
        cost: &[f32],
        cols: usize,
        i: usize,
        used: u32,
        visit: &mut dyn FnMut(usize, f64),
        n: usize,
        sum: f64,
    ) {
        if i * cols >= cost.len() {
            return visit(n, sum);
        }
        go(cost, cols, i + 1, used, visit, n, sum);
        for j in 0..cols {
            let c = cost[i * cols + j];
            if used & 1 << j == 0 && c.is_finite() {
                go(cost, cols, i + 1, used | 1 << j, visit, n + 1, sum + f64::from(c));
            }
        }
    }
    let shorter = rows.min(cols);
    let mut best = (0, f64::INFINITY, f64::INFINITY);
    let mut visit = |n: usize, sum: f64| {
        let key = if price < NO_PRICE { sum + (shorter - n) as f64 * price } else { -1e9 * n as f64 + sum };
        if key < best.2 {
            best = (n, sum, key);
        }
    };
    if cols == 0 {
        return (0, 0.0);
    }
    go(cost, cols, 0, 0, &mut visit, 0, 0.0);
    (best.0, best.1)
}

/// Costs that meet each other: coarse values tie often, and some pairs are forbidden.
fn costs(n: usize) -> impl Strategy<Value = Vec<f32>> {
    let one = prop_oneof![
        4 => (-20i8..20).prop_map(|c| f32::from(c) / 4.0),
        3 => -5f32..5.0,
        1 => prop_oneof![Just(f32::INFINITY), Just(f32::NAN), Just(f32::NEG_INFINITY)],
    ];
    prop::collection::vec(one, n)
}

fn problem(max_rows: usize, max_cols: usize) -> impl Strategy<Value = (usize, usize, Vec<f32>)> {
    (0..=max_rows, 0..=max_cols).prop_flat_map(|(rows, cols)| (Just(rows), Just(cols), costs(rows * cols)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn exact_is_as_good_as_brute_force((rows, cols, cost) in problem(5, 5)) {
        let s = solve(&cost, rows, cols, NO_PRICE);
        check_certificate(&cost, rows, cols, &s);
        let (pairs, total) = brute_force(&cost, rows, cols, NO_PRICE);
        prop_assert_eq!(s.solution.matched, pairs);
        prop_assert!((s.solution.cost - total).abs() < 1e-9, "{} {}", s.solution.cost, total);
    }

    #[test]
    fn exact_with_a_price_is_as_good_as_brute_force((rows, cols, cost) in problem(5, 5), price in -6f64..6.0) {
        let s = solve(&cost, rows, cols, price);
        check_certificate(&cost, rows, cols, &s);
        let (pairs, total) = brute_force(&cost, rows, cols, price);
        let left = |n: usize| (rows.min(cols) - n) as f64 * price;
        prop_assert!((s.solution.cost + left(s.solution.matched) - total - left(pairs)).abs() < 1e-9);
    }

    #[test]
    fn greedy_makes_the_cheapest_pair_first((rows, cols, cost) in problem(7, 7), price in prop_oneof![Just(NO_PRICE), -6f64..6.0]) {
        let mut col_of_row = vec![0; rows];
        let matrix = CostMatrix::new(&cost, rows, cols).unwrap();
        let s = Solver::Greedy.solve(matrix, price, &mut Workspace::new(0, 0).scratch(), &mut col_of_row).unwrap();
        check_matching(&cost, cols, &col_of_row, &s);
        for (i, &own) in col_of_row.iter().enumerate() {
            for j in 0..cols {
                // For every pair, one of the two has something at least as good.
                let c = cost[i * cols + j];
                if c.is_finite() && f64::from(c) < price {
                    let row_is_content = own != UNMATCHED && cost[i * cols + own as usize] <= c;
                    let holder = col_of_row.iter().position(|&col| col == j as i32);
                    let col_is_content = holder.is_some_and(|holder| cost[holder * cols + j] <= c);
                    prop_assert!(row_is_content || col_is_content, "({i}, {j})");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn exact_is_as_good_as_brute_force_up_to_seven((rows, cols) in (6usize..=7, 5usize..=7), seed in any::<u64>()) {
        let mut cost = uniform(seed, rows * cols);
        for (k, c) in cost.iter_mut().enumerate() {
            *c = if (seed >> (k % 64)) & 3 == 3 { f32::INFINITY } else { (*c * 16.0).floor() };
        }
        let s = solve(&cost, rows, cols, NO_PRICE);
        check_certificate(&cost, rows, cols, &s);
        prop_assert_eq!((s.solution.matched, s.solution.cost), brute_force(&cost, rows, cols, NO_PRICE));
    }

    #[test]
    fn large_problems_carry_their_proof((rows, cols, cost) in problem(300, 100), price in prop_oneof![Just(NO_PRICE), 0f64..3.0]) {
        check_certificate(&cost, rows, cols, &solve(&cost, rows, cols, price));
        // The same from the other side.
        let turned: Vec<f32> = (0..rows * cols).map(|k| cost[k % rows * cols + k / rows]).collect();
        let (a, b) = (solve(&cost, rows, cols, price), solve(&turned, cols, rows, price));
        check_certificate(&turned, cols, rows, &b);
        prop_assert!((a.solution.cost - b.solution.cost).abs() < 1e-6 || price < NO_PRICE);
    }

    #[test]
    fn any_bits_are_survived((rows, cols) in (0usize..20, 0usize..20), bits in prop::collection::vec(any::<u32>(), 400), price in any::<f64>()) {
        let cost: Vec<f32> = bits[..rows * cols].iter().map(|&b| f32::from_bits(b)).collect();
        let s = solve(&cost, rows, cols, price);
        check_certificate(&cost, rows, cols, &s);
    }
}

#[test]
fn optimum_is_scipys() {
    for case in cases("assignments") {
        let (rows, cols) = (count(&case, "rows"), count(&case, "cols"));
        let mut cost = uniform(case["seed"].as_u64().unwrap(), rows * cols);
        if let Some(levels) = case["levels"].as_f64() {
            cost.iter_mut().for_each(|c| *c = (*c * levels as f32).floor() - 3.0);
        }
        let s = solve(&cost, rows, cols, NO_PRICE);
        check_certificate(&cost, rows, cols, &s);
        assert!((s.solution.cost - case["total_cost"].as_f64().unwrap()).abs() < 1e-9, "{case}");
        if case["levels"].is_null() {
            let found: Vec<_> =
                (0..rows).filter(|&i| s.col_of_row[i] >= 0).map(|i| (i, s.col_of_row[i] as usize)).collect();
            assert_eq!(found, pairs(&case, "pairs"));
        }
    }
}

#[test]
fn degenerate_matrices() {
    for (rows, cols) in [(0, 0), (0, 4), (4, 0), (1, 1), (4, 4), (3, 9), (9, 3)] {
        let full = |c: f32| solve(&vec![c; rows * cols], rows, cols, NO_PRICE);
        for forbidden in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let s = full(forbidden);
            assert_eq!((s.solution.matched, s.solution.cost), (0, 0.0));
            assert!(s.col_of_row.iter().all(|&j| j == UNMATCHED));
            check_certificate(&vec![forbidden; rows * cols], rows, cols, &s);
        }
        for equal in [0.0, -0.0, 1.0, -7.5, f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1e-45] {
            let s = full(equal);
            assert_eq!(s.solution.matched, rows.min(cols), "{equal} in {rows}x{cols}");
            check_certificate(&vec![equal; rows * cols], rows, cols, &s);
        }
    }
}

#[test]
fn more_pairs_come_before_cheaper_ones() {
    // Row 1 can only have column 0, which row 0 would like best.
    let cost = [0.0, 1e6, f32::INFINITY, 5.0, f32::INFINITY, f32::INFINITY];
    assert_eq!(solve(&cost, 2, 3, NO_PRICE).col_of_row, [1, 0]);
    // With a price, a good pair is not broken up for two poor ones.
    assert_eq!(solve(&cost, 2, 3, 10.0).col_of_row, [0, UNMATCHED]);
    assert_eq!(solve(&[0.5, 4.0, 4.0, 9.0], 2, 2, 5.0).col_of_row, [0, UNMATCHED]);
    assert_eq!(solve(&[0.5, 2.0, 2.0, 9.0], 2, 2, 5.0).col_of_row, [1, 0]);
}

#[test]
fn a_corner_of_a_larger_buffer() {
    let buffer = [3.0, 1.0, 9.9, 2.0, 5.0, 9.9, -9.9, -9.9, -9.9];
    let matrix = CostMatrix::with_stride(&buffer, 2, 2, 3).unwrap();
    let mut col_of_row = [5; 3];
    let s =
        Solver::Exact.solve(matrix, NO_PRICE, &mut Workspace::new(2, 2).scratch(), &mut col_of_row).unwrap();
    assert_eq!((col_of_row, s.cost), ([1, 0, UNMATCHED], 3.0));
}

#[test]
fn greedy_pays_for_its_haste() {
    let matrix = CostMatrix::new(&[0.0, 1.0, 1.0, 1000.0], 2, 2).unwrap();
    let mut scratch = Workspace::new(2, 2);
    let mut col_of_row = [0; 2];
    assert_eq!(
        Solver::Greedy.solve(matrix, NO_PRICE, &mut scratch.scratch(), &mut col_of_row).unwrap().cost,
        1000.0
    );
    assert_eq!(
        Solver::Exact.solve(matrix, NO_PRICE, &mut scratch.scratch(), &mut col_of_row).unwrap().cost,
        2.0
    );
}

#[test]
fn short_buffers_are_named() {
    let error = CostMatrix::new(&[0.0; 5], 2, 3).unwrap_err().to_string();
    assert_eq!(error, "`cost` has 5 values where 6 are needed; pass a buffer of that size");
    let cost = [0.0; 6];
    let matrix = CostMatrix::new(&cost, 2, 3).unwrap();
    let small = |sizes: [usize; 3], rows: usize| {
        let (mut f32s, mut f64s, mut i32s) = (vec![0.0; sizes[0]], vec![0.0; sizes[1]], vec![0; sizes[2]]);
        let mut scratch = Scratch { f32s: &mut f32s, f64s: &mut f64s, i32s: &mut i32s };
        exact::solve(matrix, NO_PRICE, &mut scratch, &mut vec![0; rows], None)
    };
    let sizes = Scratch::sizes(2, 3);
    assert!(small([sizes.f32s, sizes.f64s, sizes.i32s], 2).is_ok());
    assert!(small([sizes.f32s - 1, sizes.f64s, sizes.i32s], 2).is_err());
    assert!(small([sizes.f32s, sizes.f64s - 1, sizes.i32s], 2).is_err());
    assert!(small([sizes.f32s, sizes.f64s, sizes.i32s - 1], 2).is_err());
    assert!(small([sizes.f32s, sizes.f64s, sizes.i32s], 1).is_err());
    assert!(CostMatrix::with_stride(&cost, 2, 3, 2).is_err());
}
