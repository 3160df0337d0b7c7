//! Rows of a table by their numbers.
use super::elementwise::by_rows;
use super::view::{Element, View, ViewMut};
use crate::cpu::pool::Pool;

/// Bytes below which a chunk is not worth a dispatch of its own.
const MIN_BYTES: usize = 1 << 16;

/// Row `i` of `out` becomes row `indices[i]` of `table`, the nearest that there is.
pub fn gather<T: Element>(pool: &Pool, table: View<T>, indices: &[i32], out: ViewMut<T>) {
    assert_eq!((indices.len(), table.cols()), (out.rows(), out.cols()), "one output row for each index");
    assert!(table.rows() > 0 || indices.is_empty(), "a table of no rows");
    by_rows(pool, out.rows(), out.cols() * size_of::<T>(), MIN_BYTES, |rows| {
        for row in rows {
            let from = usize::try_from(indices[row]).unwrap_or(0).min(table.rows() - 1);
            // SAFETY: row `row` is inside the view, and rows are written by one chunk each.
            let to = unsafe { out.shared_row(row) };
            to.copy_from_slice(table.row(from));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_gathered_and_indices_outside_take_the_nearest() {
        let table: Vec<i16> = (0..40).collect();
        let indices: Vec<i32> = (0..5000).map(|i| i % 23 - 9).collect();
        for threads in [1, 3] {
            let mut out = vec![-1; indices.len() * 10];
            let to = ViewMut::new(&mut out, indices.len(), 8, 10);
            gather(&Pool::new(threads), View::new(&table, 4, 8, 10), &indices, to);
            for (row, &index) in out.chunks(10).zip(&indices) {
                let from = index.clamp(0, 3) as usize * 10;
                assert_eq!(row[..8], table[from..from + 8]);
                assert_eq!(row[8..], [-1, -1]);
            }
        }
    }
}
