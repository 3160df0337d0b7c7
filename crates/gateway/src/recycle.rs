//! Memory that goes round: what a stage has done with comes back to the one that fills it.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

/// Values between uses. Cloning shares them.
#[derive(Debug, Default)]
pub struct Recycler<T>(Arc<Mutex<Vec<T>>>);

impl<T> Clone for Recycler<T> {
    fn clone(&self) -> Self {
        Recycler(Arc::clone(&self.0))
    }
}

/// A value that goes back when it is dropped.
#[derive(Debug)]
pub struct Recycled<T: Default> {
    value: T,
    home: Recycler<T>,
}

impl<T: Default> Recycler<T> {
    /// As many as are under way at most in an undisturbed stream.
    const MAX_KEPT: usize = 8;

    /// A value that was used before, as it was left, or a new one.
    pub fn take(&self) -> Recycled<T> {
        let value = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Recycled { value: value.unwrap_or_default(), home: self.clone() }
    }
}

impl<T: Default> Deref for Recycled<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Default> DerefMut for Recycled<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: Default> Drop for Recycled<T> {
    fn drop(&mut self) {
        let mut kept = self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < Recycler::<T>::MAX_KEPT {
            kept.push(std::mem::take(&mut self.value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_and_is_bounded() {
        let home = Recycler::<Vec<u8>>::default();
        let mut first = home.take();
        first.extend([1, 2, 3]);
        let address = first.as_ptr();
        drop(first);
        assert_eq!(home.take().as_ptr(), address);
        let many: Vec<_> = (0..20).map(|_| home.take()).collect();
        drop(many);
        assert_eq!(home.0.lock().unwrap().len(), Recycler::<Vec<u8>>::MAX_KEPT);
    }
}
