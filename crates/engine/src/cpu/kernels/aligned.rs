//! Aligned memory: to cache lines, because a vector load that straddles two costs two; and where it is
//! large, to large pages, because a map read in columns of a few pixels otherwise waits for the page tables.
use super::view::Element;
use crate::error::OutOfMemory;
use std::alloc::{Layout, alloc, dealloc};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Size and alignment of a large page.
const LARGE: usize = 2 << 20;

/// A zeroed array, 64-byte aligned; from 2 MiB on aligned to large pages, which Linux is asked for.
pub struct AlignedVec<T: Element = f32> {
    ptr: NonNull<T>,
    len: usize,
}

// SAFETY: owns its elements, as a Vec does.
unsafe impl<T: Element> Send for AlignedVec<T> {}
// SAFETY: as above.
unsafe impl<T: Element> Sync for AlignedVec<T> {}

impl<T: Element> AlignedVec<T> {
    /// `None` for sizes that no memory has.
    fn layout(len: usize) -> Option<Layout> {
        let bytes = len.checked_mul(size_of::<T>())?.max(64);
        let align = if bytes >= LARGE { LARGE } else { 64 };
        Layout::from_size_align(bytes, align).ok()
    }

    /// `len` zeros, of a length that neither a frame nor a model decides. Panics where there is no memory for them.
    pub fn zeros(len: usize) -> Self {
        Self::try_zeros(len).unwrap_or_else(|error| panic!("{error}"))
    }

    /// `len` zeros.
    ///
    /// # Errors
    /// [`OutOfMemory`] where there is no memory for them.
    pub fn try_zeros(len: usize) -> Result<Self, OutOfMemory> {
        const { assert!(align_of::<T>() <= 64) };
        let error = || OutOfMemory { bytes: len.saturating_mul(size_of::<T>()) };
        let layout = Self::layout(len).ok_or_else(error)?;
        // SAFETY: the layout's size is not zero.
        let ptr = NonNull::new(unsafe { alloc(layout) }).ok_or_else(error)?;
        #[cfg(all(target_os = "linux", not(miri)))]
        if layout.align() == LARGE {
            // SAFETY: whole large pages of the allocation; the advice does not change what memory holds.
            // Refused, nothing is lost but speed.
            unsafe { libc::madvise(ptr.as_ptr().cast(), layout.size() / LARGE * LARGE, libc::MADV_HUGEPAGE) };
        }
        // SAFETY: the allocation has this size. All zero bits are an element.
        unsafe { ptr.as_ptr().write_bytes(0, layout.size()) };
        Ok(AlignedVec { ptr: ptr.cast(), len })
    }

    /// The first element's address, without a reference to the elements: pointers made of it stay good whatever else is
    /// made of it.
    pub(crate) fn base(&self) -> *mut T {
        self.ptr.as_ptr()
    }

    /// Memory that the elements take.
    pub(crate) fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }
}

impl<T: Element> Drop for AlignedVec<T> {
    fn drop(&mut self) {
        let layout = Self::layout(self.len).expect("memory of this length was had");
        // SAFETY: allocated with the same layout.
        unsafe { dealloc(self.ptr.as_ptr().cast(), layout) };
    }
}

impl<T: Element> Clone for AlignedVec<T> {
    fn clone(&self) -> Self {
        let mut copy = Self::zeros(self.len);
        copy.copy_from_slice(self);
        copy
    }
}

impl<T: Element> Deref for AlignedVec<T> {
    type Target = [T];
    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: `len` initialised elements.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl<T: Element> DerefMut for AlignedVec<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: `len` initialised elements, borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrays_are_zeroed_and_aligned_for<T: Element + PartialEq + std::fmt::Debug>(two: T) {
        let large = LARGE / size_of::<T>();
        for len in [0, 1, 17, large - 1, large, 4 * large] {
            let mut v = AlignedVec::<T>::zeros(len);
            assert_eq!((v.len(), v.bytes()), (len, len * size_of::<T>()));
            assert!(v.iter().all(|&x| x == T::zeroed()));
            assert_eq!(v.as_ptr() as usize % if len >= large { LARGE } else { 64 }, 0);
            v.fill(two);
            let copy = v.clone();
            assert!(copy[..] == v[..]);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri ends where an allocator would give nothing")]
    fn lengths_that_no_memory_has_are_an_error() {
        for len in [1 << 55, usize::MAX / 4, usize::MAX] {
            let error = AlignedVec::<f32>::try_zeros(len).err();
            assert_eq!(error, Some(OutOfMemory { bytes: len.saturating_mul(4) }));
        }
    }

    #[test]
    fn arrays_are_zeroed_and_aligned() {
        arrays_are_zeroed_and_aligned_for(2f32);
        arrays_are_zeroed_and_aligned_for(2i8);
        arrays_are_zeroed_and_aligned_for(2u16);
    }
}
