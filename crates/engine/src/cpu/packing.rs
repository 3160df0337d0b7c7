//! Packed weights, which all programs of a device share.
//!
//! Programs of one model for frames of several sizes have the same weights. Rewrites make them anew for each, so they are
//! known again by their content.

use std::any::{Any, TypeId};
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use twox_hash::XxHash3_128;

use super::kernels::Epilogue;
use crate::error::OutOfMemory;

/// The packed weights of a device's programs, for as long as one of these is there.
#[derive(Default)]
pub(super) struct Shelf {
    packed: Mutex<HashMap<(TypeId, u128), Packed>>,
}

struct Packed {
    weights: Weak<dyn Any + Send + Sync>,
    bytes: usize,
}

impl Shelf {
    /// Memory of what is on it.
    pub(super) fn bytes(&self) -> usize {
        let packed = self.packed();
        packed.values().filter(|p| p.weights.strong_count() > 0).map(|p| p.bytes).sum()
    }

    fn packed(&self) -> MutexGuard<'_, HashMap<(TypeId, u128), Packed>> {
        self.packed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The packing of one program's weights.
pub(super) struct Packing<'s> {
    shelf: &'s Shelf,
    new_bytes: Cell<usize>,
}

impl<'s> Packing<'s> {
    pub(super) fn new(shelf: &'s Shelf) -> Self {
        // What has ended since the last time.
        shelf.packed().retain(|_, packed| packed.weights.strong_count() > 0);
        Packing { shelf, new_bytes: Cell::new(0) }
    }

    /// Memory of what was not on the shelf.
    pub(super) fn new_bytes(&self) -> usize {
        self.new_bytes.get()
    }

    /// These weights, with what is done after them, as they were packed for another program, or else by `pack`.
    /// `sizes` is everything else that the packing depends on.
    pub(super) fn shared<T: Any + Send + Sync>(
        &self,
        weights: &[f32],
        sizes: &[usize],
        epilogue: Epilogue,
        bytes: impl FnOnce(&T) -> usize,
        pack: impl FnOnce(Epilogue) -> Result<T, OutOfMemory>,
    ) -> Result<Arc<T>, OutOfMemory> {
        let key = (TypeId::of::<T>(), key_of(weights, sizes, &epilogue));
        let there = self.shelf.packed().get(&key).and_then(|p| p.weights.upgrade()?.downcast::<T>().ok());
        if let Some(there) = there {
            return Ok(there);
        }
        let new = Arc::new(pack(epilogue)?);
        let bytes = bytes(&new);
        self.new_bytes.set(self.new_bytes.get() + bytes);
        let kept: Arc<dyn Any + Send + Sync> = new.clone();
        self.shelf.packed().insert(key, Packed { weights: Arc::downgrade(&kept), bytes });
        Ok(new)
    }
}

fn key_of(weights: &[f32], sizes: &[usize], epilogue: &Epilogue) -> u128 {
    let mut hash = XxHash3_128::new();
    let mut part = |bytes: &[u8]| {
        hash.write(&bytes.len().to_le_bytes());
        hash.write(bytes);
    };
    part(bytemuck::cast_slice(weights));
    part(bytemuck::cast_slice(sizes));
    part(bytemuck::cast_slice(epilogue.bias.as_deref().unwrap_or_default()));
    // Numbers are written such that no two are alike.
    let Epilogue { bias, act1, scale_shift, act2 } = epilogue;
    part(format!("{} {act1:?} {scale_shift:?} {act2:?}", bias.is_some()).as_bytes());
    hash.finish_128()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::kernels::Act;

    #[test]
    fn the_same_weights_are_packed_once_and_others_for_themselves() {
        let shelf = Shelf::default();
        let packing = Packing::new(&shelf);
        let pack = |weights: &[f32], sizes: &[usize], epilogue: Epilogue| {
            packing.shared(weights, sizes, epilogue, Vec::len, |_| Ok(weights.to_vec())).unwrap()
        };
        let plain = Epilogue::default;
        let first = pack(&[1.0, 2.0], &[1, 2], plain());
        assert!(Arc::ptr_eq(&first, &pack(&[1.0, 2.0], &[1, 2], plain())));
        assert_eq!(packing.new_bytes(), 2);
        for other in [
            pack(&[1.0, 2.5], &[1, 2], plain()),
            pack(&[1.0, 2.0], &[2, 1], plain()),
            pack(&[1.0, 2.0], &[1, 2], Epilogue { act1: Act::Relu, ..plain() }),
            pack(&[1.0, 2.0], &[1, 2], Epilogue { act2: Act::Relu, ..plain() }),
            pack(&[1.0, 2.0], &[1, 2], Epilogue { scale_shift: Some((1.0, 0.0)), ..plain() }),
            pack(&[1.0, 2.0], &[1, 2], Epilogue { bias: Some(vec![]), ..plain() }),
            pack(&[1.0, 2.0], &[1, 2], Epilogue { bias: Some(vec![0.0]), ..plain() }),
        ] {
            assert!(!Arc::ptr_eq(&first, &other));
        }
        assert_eq!(shelf.bytes(), 2, "of the others nobody has any more");
        drop(first);
        pack(&[1.0, 2.0], &[1, 2], plain());
        assert_eq!(packing.new_bytes(), 18, "what nobody uses is not kept");
        assert_eq!(shelf.bytes(), 0);
    }
}
