//! What kernels and host agree on: the twins of `kernels/abi.cuh`.

use bytemuck::{Pod, Zeroable};

/// Element type of an [`Operand`].
pub mod element {
    /// 32-bit floats.
    pub const F32: u32 = 0;
    /// 16-bit floats.
    pub const F16: u32 = 1;
    /// Signed 32-bit integers.
    pub const I32: u32 = 2;
    /// Bytes.
    pub const U8: u32 = 3;
}

/// A matrix in device memory: rows of `cols` elements, `pitch` elements apart.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub struct Operand {
    /// Address of the first element; 0 where an argument is absent.
    pub data: u64,
    /// Rows.
    pub rows: u32,
    /// Elements of a row.
    pub cols: u32,
    /// Elements from one row to the next.
    pub pitch: u32,
    /// One of [`element`].
    pub element: u32,
}

impl Operand {
    /// No operand: an absent bias or residual.
    pub const NONE: Operand = Operand { data: 0, rows: 0, cols: 0, pitch: 0, element: element::F32 };

    /// Bytes of one element.
    pub fn element_bytes(&self) -> u32 {
        match self.element {
            element::F16 => 2,
            element::U8 => 1,
            _ => 4,
        }
    }

    /// Whether rows follow one another without gaps.
    pub fn is_contiguous(&self) -> bool {
        self.pitch == self.cols || self.rows <= 1
    }

    /// The rows `start..start + rows`.
    pub fn row_range(&self, start: u32, rows: u32) -> Operand {
        assert!(start + rows <= self.rows, "rows {start}+{rows} of {}", self.rows);
        let skipped = u64::from(start) * u64::from(self.pitch) * u64::from(self.element_bytes());
        Operand { data: self.data + skipped, rows, ..*self }
    }

    /// The columns `start..start + cols` of every row.
    pub fn columns(&self, start: u32, cols: u32) -> Operand {
        assert!(start + cols <= self.cols, "columns {start}+{cols} of {}", self.cols);
        Operand { data: self.data + u64::from(start) * u64::from(self.element_bytes()), cols, ..*self }
    }

    /// The same elements as rows of another length. Only for contiguous operands.
    pub fn with_cols(&self, cols: u32) -> Operand {
        assert!(self.is_contiguous(), "only contiguous operands change their row length");
        let numel = u64::from(self.rows) * u64::from(self.cols);
        let rows = numel.checked_div(u64::from(cols)).unwrap_or(0);
        assert_eq!(rows * u64::from(cols), numel, "whole rows");
        Operand { rows: rows as u32, cols, pitch: cols, ..*self }
    }
}

/// How many rows of a result are to be computed: all, or as many as a count on the device says.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
pub struct Rows {
    /// Address of an i32 with the number of valid entries; 0 when all rows are valid.
    pub entries: u64,
    /// Rows of one entry.
    pub rows_per_entry: u32,
    /// Rows at most.
    pub bound: u32,
}
