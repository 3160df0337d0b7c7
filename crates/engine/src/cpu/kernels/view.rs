//! Pitched views: bounds are checked once, when a view is made.
use std::marker::PhantomData;

/// Elements that a view of these sizes reaches over.
fn reach(rows: usize, cols: usize, pitch: usize) -> usize {
    if rows == 0 || cols == 0 {
        return 0;
    }
    assert!(pitch >= cols, "a view of {cols} columns needs a pitch of at least that, not {pitch}");
    (rows - 1)
        .checked_mul(pitch)
        .and_then(|n| n.checked_add(cols))
        .filter(|&n| n <= isize::MAX as usize / 4)
        .expect("a view's size must fit in memory")
}

/// A read-only pitched matrix: `rows` rows of `cols` contiguous f32, `pitch` elements apart.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    ptr: *const f32,
    rows: usize,
    cols: usize,
    pitch: usize,
    life: PhantomData<&'a [f32]>,
}

// SAFETY: a view stands for a shared borrow of f32.
unsafe impl Send for View<'_> {}
// SAFETY: as above.
unsafe impl Sync for View<'_> {}

impl<'a> View<'a> {
    /// A view over a slice, from its first element.
    pub fn new(data: &'a [f32], rows: usize, cols: usize, pitch: usize) -> Self {
        let need = reach(rows, cols, pitch);
        assert!(data.len() >= need, "a view over {need} elements of a slice of {}", data.len());
        View { ptr: data.as_ptr(), rows, cols, pitch, life: PhantomData }
    }

    /// A view over memory that other views may interleave with.
    ///
    /// # Safety
    /// For `'a`, every element of every row is readable, and none is written except by the kernel that
    /// this view is an operand of.
    pub unsafe fn from_raw(ptr: *const f32, rows: usize, cols: usize, pitch: usize) -> Self {
        reach(rows, cols, pitch);
        View { ptr, rows, cols, pitch, life: PhantomData }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// Elements of a row.
    pub fn cols(&self) -> usize {
        self.cols
    }
    /// Elements from a row's start to the next one's.
    pub fn pitch(&self) -> usize {
        self.pitch
    }
    pub(crate) fn ptr(&self) -> *const f32 {
        self.ptr
    }

    /// The columns `start..start + cols` of every row.
    pub fn columns(self, start: usize, cols: usize) -> Self {
        assert!(start <= self.cols && cols <= self.cols - start, "columns {start}+{cols} of {}", self.cols);
        View { ptr: self.ptr.wrapping_add(start), cols, ..self }
    }

    /// The rows `start..start + rows`.
    pub fn row_range(self, start: usize, rows: usize) -> Self {
        assert!(start <= self.rows && rows <= self.rows - start, "rows {start}+{rows} of {}", self.rows);
        View { ptr: self.ptr.wrapping_add(start * self.pitch), rows, ..self }
    }

    /// One row.
    pub fn row(&self, row: usize) -> &'a [f32] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        // SAFETY: checked when the view was made.
        unsafe { std::slice::from_raw_parts(self.ptr.add(row * self.pitch), self.cols) }
    }
}

/// A writable pitched matrix: `rows` rows of `cols` contiguous f32, `pitch` elements apart.
#[derive(Debug)]
pub struct ViewMut<'a> {
    ptr: *mut f32,
    rows: usize,
    cols: usize,
    pitch: usize,
    life: PhantomData<&'a mut [f32]>,
}

// SAFETY: a view stands for an exclusive borrow of f32.
unsafe impl Send for ViewMut<'_> {}
// SAFETY: as above; writing from several threads is the kernels' own unsafe business.
unsafe impl Sync for ViewMut<'_> {}

impl<'a> ViewMut<'a> {
    /// A view over a slice, from its first element.
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize, pitch: usize) -> Self {
        let need = reach(rows, cols, pitch);
        assert!(data.len() >= need, "a view over {need} elements of a slice of {}", data.len());
        ViewMut { ptr: data.as_mut_ptr(), rows, cols, pitch, life: PhantomData }
    }

    /// A view over memory that other views may interleave with. An input of an element-by-element operation
    /// (or a residual) may be the same memory with the same pitch.
    ///
    /// # Safety
    /// For `'a`, every element of every row is writable, and no one else reads or writes it, except
    /// operands of the same kernel where its documentation allows that.
    pub unsafe fn from_raw(ptr: *mut f32, rows: usize, cols: usize, pitch: usize) -> Self {
        reach(rows, cols, pitch);
        ViewMut { ptr, rows, cols, pitch, life: PhantomData }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// Elements of a row.
    pub fn cols(&self) -> usize {
        self.cols
    }
    /// Elements from a row's start to the next one's.
    pub fn pitch(&self) -> usize {
        self.pitch
    }
    pub(crate) fn ptr(&self) -> *mut f32 {
        self.ptr
    }

    /// The same view, borrowed for less long.
    pub fn reborrow(&mut self) -> ViewMut<'_> {
        ViewMut { life: PhantomData, ..*self }
    }

    /// The same memory, for reading.
    pub fn as_view(&self) -> View<'_> {
        View { ptr: self.ptr, rows: self.rows, cols: self.cols, pitch: self.pitch, life: PhantomData }
    }

    /// The columns `start..start + cols` of every row.
    pub fn columns(self, start: usize, cols: usize) -> Self {
        assert!(start <= self.cols && cols <= self.cols - start, "columns {start}+{cols} of {}", self.cols);
        ViewMut { ptr: self.ptr.wrapping_add(start), cols, ..self }
    }

    /// The rows `start..start + rows`.
    pub fn row_range(self, start: usize, rows: usize) -> Self {
        assert!(start <= self.rows && rows <= self.rows - start, "rows {start}+{rows} of {}", self.rows);
        ViewMut { ptr: self.ptr.wrapping_add(start * self.pitch), rows, ..self }
    }

    /// One row.
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        // SAFETY: checked when the view was made, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.add(row * self.pitch), self.cols) }
    }
}

/// How the rows of a view form feature maps: row `(n * h + y) * w + x` is the pixel `(x, y)` of image `n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Map {
    /// Images.
    pub n: usize,
    /// Height in pixels.
    pub h: usize,
    /// Width in pixels.
    pub w: usize,
}

impl Map {
    /// `n` images of `h` by `w` pixels.
    pub fn new(n: usize, h: usize, w: usize) -> Self {
        Map { n, h, w }
    }
    /// Pixels in all.
    pub fn pixels(&self) -> usize {
        self.n * self.h * self.w
    }
    #[track_caller]
    pub(crate) fn check(&self, rows: usize, what: &str) {
        assert_eq!(rows, self.pixels(), "{what} has {rows} rows, but {self:?} has {} pixels", self.pixels());
    }
}

/// A raw pointer that chunks of a parallel loop share, each writing its own part.
#[derive(Clone, Copy)]
pub(crate) struct Out(pub *mut f32);
// SAFETY: chunks write disjoint parts: the promise of each kernel that uses it.
unsafe impl Send for Out {}
// SAFETY: as above.
unsafe impl Sync for Out {}
impl Out {
    /// The pointer. A method, so that closures capture the wrapper and not its field.
    #[inline(always)]
    pub fn get(self) -> *mut f32 {
        self.0
    }
}

/// Kernel size, stride and zero padding of a convolution or pooling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Kernel height and width.
    pub kernel: [usize; 2],
    /// Stride down and across.
    pub stride: [usize; 2],
    /// Zero padding: top, left, bottom, right.
    pub pad: [usize; 4],
}

impl ConvShape {
    /// A square kernel with the same padding on all sides.
    pub fn square(kernel: usize, stride: usize, pad: usize) -> Self {
        ConvShape { kernel: [kernel; 2], stride: [stride; 2], pad: [pad; 4] }
    }

    /// The output's size for an input's. Panics if the kernel does not fit.
    pub fn output(&self, input: Map) -> Map {
        let side = |size: usize, pad: usize, kernel: usize, stride: usize| {
            assert!(kernel > 0 && stride > 0 && size + pad >= kernel, "{self:?} does not fit {input:?}");
            (size + pad - kernel) / stride + 1
        };
        let [top, left, bottom, right] = self.pad;
        Map {
            n: input.n,
            h: side(input.h, top + bottom, self.kernel[0], self.stride[0]),
            w: side(input.w, left + right, self.kernel[1], self.stride[1]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_and_rows_address_the_right_elements() {
        let data: Vec<f32> = (0..30).map(|i| i as f32).collect();
        let v = View::new(&data, 4, 5, 8);
        assert_eq!(v.row(3), [24., 25., 26., 27., 28.]);
        assert_eq!(v.columns(2, 2).row_range(1, 2).row(1), [18., 19.]);
    }

    #[test]
    #[should_panic(expected = "of a slice of 10")]
    fn a_view_past_the_end_is_refused() {
        View::new(&[0.0; 10], 2, 6, 6);
    }

    #[test]
    #[should_panic(expected = "pitch")]
    fn a_pitch_below_the_columns_is_refused() {
        View::new(&[0.0; 10], 2, 4, 3);
    }
}
