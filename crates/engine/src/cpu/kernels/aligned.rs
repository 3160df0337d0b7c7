//! Aligned memory: to cache lines, because a vector load that straddles two costs two; and where it is
//! large, to large pages, because a map read in columns of a few pixels otherwise waits for the page tables.
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Size and alignment of a large page.
const LARGE: usize = 2 << 20;

/// A zeroed array of f32, 64-byte aligned; from 2 MiB on aligned to large pages, which Linux is asked for.
pub struct AlignedVec {
    ptr: NonNull<f32>,
    len: usize,
}

// SAFETY: owns its elements, as a Vec does.
unsafe impl Send for AlignedVec {}
// SAFETY: as above.
unsafe impl Sync for AlignedVec {}

impl AlignedVec {
    fn layout(len: usize) -> Layout {
        let bytes = len.checked_mul(4).expect("an array's size must fit in memory").max(64);
        let align = if bytes >= LARGE { LARGE } else { 64 };
        Layout::from_size_align(bytes, align).expect("an array's size must fit in memory")
    }

    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        let layout = Self::layout(len);
        // SAFETY: the layout's size is not zero.
        let Some(ptr) = NonNull::new(unsafe { alloc(layout) }) else { handle_alloc_error(layout) };
        #[cfg(target_os = "linux")]
        if layout.align() == LARGE {
            // SAFETY: whole large pages of the allocation; the advice does not change what memory holds.
            // Refused, nothing is lost but speed.
            unsafe { libc::madvise(ptr.as_ptr().cast(), layout.size() / LARGE * LARGE, libc::MADV_HUGEPAGE) };
        }
        // SAFETY: the allocation has this size. All zero bits are 0.0.
        unsafe { ptr.as_ptr().write_bytes(0, layout.size()) };
        AlignedVec { ptr: ptr.cast(), len }
    }
}

impl Drop for AlignedVec {
    fn drop(&mut self) {
        // SAFETY: allocated with the same layout.
        unsafe { dealloc(self.ptr.as_ptr().cast(), Self::layout(self.len)) };
    }
}

impl Clone for AlignedVec {
    fn clone(&self) -> Self {
        let mut copy = Self::zeros(self.len);
        copy.copy_from_slice(self);
        copy
    }
}

impl Deref for AlignedVec {
    type Target = [f32];
    #[inline]
    fn deref(&self) -> &[f32] {
        // SAFETY: `len` initialised elements.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedVec {
    #[inline]
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: `len` initialised elements, borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_zeroed_and_aligned() {
        for len in [0, 1, 17, LARGE / 4 - 1, LARGE / 4, LARGE] {
            let mut v = AlignedVec::zeros(len);
            assert_eq!(v.len(), len);
            assert!(v.iter().all(|&x| x == 0.0));
            assert_eq!(v.as_ptr() as usize % if len * 4 >= LARGE { LARGE } else { 64 }, 0);
            v.fill(2.0);
            let copy = v.clone();
            assert_eq!(&copy[..], &v[..]);
        }
    }
}
