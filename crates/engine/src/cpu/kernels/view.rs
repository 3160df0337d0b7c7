//! Pitched views: bounds are checked once, when a view is made.
use std::marker::PhantomData;

/// An element of views, aligned arrays and packed weights: plain memory, of which all zero bits are a zero.
pub trait Element: bytemuck::Pod + Send + Sync {}
impl<T: bytemuck::Pod + Send + Sync> Element for T {}

/// Elements of type `T` that a view of these sizes reaches over.
pub(in crate::cpu) fn reach<T>(rows: usize, cols: usize, pitch: usize) -> usize {
    if rows == 0 || cols == 0 {
        return 0;
    }
    assert!(pitch >= cols, "a view of {cols} columns needs a pitch of at least that, not {pitch}");
    (rows - 1)
        .checked_mul(pitch)
        .and_then(|n| n.checked_add(cols))
        .filter(|&n| n <= isize::MAX as usize / size_of::<T>())
        .expect("a view's size must fit in memory")
}

/// A pitched matrix: `rows` rows of `cols` contiguous elements, `pitch` elements apart. `B` is the borrow of the elements that
/// it stands for: [`View`] reads, [`ViewMut`] writes.
#[derive(Clone, Copy, Debug)]
pub struct Pitched<T, B> {
    ptr: *mut T,
    rows: usize,
    cols: usize,
    pitch: usize,
    borrow: PhantomData<B>,
}

/// A read-only pitched matrix.
pub type View<'a, T = f32> = Pitched<T, &'a [T]>;
/// A writable pitched matrix.
pub type ViewMut<'a, T = f32> = Pitched<T, &'a mut [T]>;

// SAFETY: a view goes where the borrow that it stands for may go.
unsafe impl<T, B: Send> Send for Pitched<T, B> {}
// SAFETY: as above; writing from several threads is the kernels' own unsafe business.
unsafe impl<T, B: Sync> Sync for Pitched<T, B> {}

impl<T: Element, B> Pitched<T, B> {
    fn over(ptr: *mut T, len: usize, rows: usize, cols: usize, pitch: usize) -> Self {
        let need = reach::<T>(rows, cols, pitch);
        assert!(len >= need, "a view over {need} elements of a slice of {len}");
        Pitched { ptr, rows, cols, pitch, borrow: PhantomData }
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

    /// The columns `start..start + cols` of every row.
    pub fn columns(self, start: usize, cols: usize) -> Self {
        assert!(start <= self.cols && cols <= self.cols - start, "columns {start}+{cols} of {}", self.cols);
        Pitched { ptr: self.ptr.wrapping_add(start), cols, ..self }
    }

    /// The rows `start..start + rows`.
    pub fn row_range(self, start: usize, rows: usize) -> Self {
        assert!(start <= self.rows && rows <= self.rows - start, "rows {start}+{rows} of {}", self.rows);
        Pitched { ptr: self.ptr.wrapping_add(start * self.pitch), rows, ..self }
    }

    fn row_ptr(&self, row: usize) -> *mut T {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        self.ptr.wrapping_add(row * self.pitch)
    }
}

impl<'a, T: Element> View<'a, T> {
    /// A view over a slice, from its first element.
    pub fn new(data: &'a [T], rows: usize, cols: usize, pitch: usize) -> Self {
        Self::over(data.as_ptr().cast_mut(), data.len(), rows, cols, pitch)
    }

    /// A view over memory that other views may interleave with.
    ///
    /// # Safety
    /// For `'a`, every element of every row is readable, and none is written except by the kernel that
    /// this view is an operand of.
    pub unsafe fn from_raw(ptr: *const T, rows: usize, cols: usize, pitch: usize) -> Self {
        Self::over(ptr.cast_mut(), usize::MAX, rows, cols, pitch)
    }

    pub(crate) fn ptr(&self) -> *const T {
        self.ptr
    }

    /// One row.
    pub fn row(&self, row: usize) -> &'a [T] {
        // SAFETY: checked when the view was made.
        unsafe { std::slice::from_raw_parts(self.row_ptr(row), self.cols) }
    }
}

impl<'a, T: Element> ViewMut<'a, T> {
    /// A view over a slice, from its first element.
    pub fn new(data: &'a mut [T], rows: usize, cols: usize, pitch: usize) -> Self {
        Self::over(data.as_mut_ptr(), data.len(), rows, cols, pitch)
    }

    /// A view over memory that other views may interleave with. An input of an element-by-element operation
    /// (or a residual) may be the same memory with the same pitch.
    ///
    /// # Safety
    /// For `'a`, every element of every row is writable, and no one else reads or writes it, except
    /// operands of the same kernel where its documentation allows that.
    pub unsafe fn from_raw(ptr: *mut T, rows: usize, cols: usize, pitch: usize) -> Self {
        Self::over(ptr, usize::MAX, rows, cols, pitch)
    }

    pub(crate) fn ptr(&self) -> *mut T {
        self.ptr
    }

    /// The same view, borrowed for less long.
    pub fn reborrow(&mut self) -> ViewMut<'_, T> {
        Pitched { borrow: PhantomData, ..*self }
    }

    /// The same memory, for reading.
    pub fn as_view(&self) -> View<'_, T> {
        Pitched { ptr: self.ptr, rows: self.rows, cols: self.cols, pitch: self.pitch, borrow: PhantomData }
    }

    /// One row.
    pub fn row_mut(&mut self, row: usize) -> &mut [T] {
        // SAFETY: `self` is borrowed mutably.
        unsafe { self.shared_row(row) }
    }

    /// One row, of a view that chunks of a parallel loop share.
    ///
    /// # Safety
    /// No one else reads or writes the row while this reference lives.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn shared_row(&self, row: usize) -> &mut [T] {
        // SAFETY: checked when the view was made; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.row_ptr(row), self.cols) }
    }

    /// Copies a view of the same size.
    pub fn copy_from(&mut self, from: View<T>) {
        assert_eq!((self.rows, self.cols), (from.rows, from.cols), "copies are of equal sizes");
        (0..self.rows).for_each(|row| self.row_mut(row).copy_from_slice(from.row(row)));
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

    fn columns_and_rows_address_the_right_elements_of<T: Element + PartialEq + std::fmt::Debug>(
        number: impl Fn(u8) -> T,
    ) {
        let mut data: Vec<T> = (0..30).map(&number).collect();
        let v = View::new(&data, 4, 5, 8);
        assert_eq!(v.row(3), [24, 25, 26, 27, 28].map(&number));
        assert_eq!(v.columns(2, 2).row_range(1, 2).row(1), [18, 19].map(&number));
        let other = [number(50), number(51)];
        let mut v = ViewMut::new(&mut data, 4, 5, 8);
        v.reborrow().columns(3, 1).row_range(1, 2).copy_from(View::new(&other, 2, 1, 1));
        assert_eq!(v.as_view().row(1), [8, 9, 10, 50, 12].map(&number));
        v.row_mut(2)[0] = number(60);
        let changed = (0..30).filter(|&i| data[i as usize] != number(i)).collect::<Vec<u8>>();
        assert_eq!(changed, [11, 16, 19]);
    }

    #[test]
    fn columns_and_rows_address_the_right_elements() {
        columns_and_rows_address_the_right_elements_of(f32::from);
        columns_and_rows_address_the_right_elements_of(i32::from);
        columns_and_rows_address_the_right_elements_of(u16::from);
        columns_and_rows_address_the_right_elements_of(|i| i as i8);
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

    #[test]
    #[should_panic(expected = "must fit in memory")]
    fn a_size_past_any_memory_is_refused() {
        View::<u16>::new(&[], isize::MAX as usize / 2, 2, 2);
    }

    #[test]
    #[should_panic(expected = "equal sizes")]
    fn a_copy_of_another_size_is_refused() {
        ViewMut::new(&mut [0u8; 6], 2, 3, 3).copy_from(View::new(&[0u8; 6], 3, 2, 2));
    }
}
