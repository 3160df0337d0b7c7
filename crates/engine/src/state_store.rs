//! States that several programs share: one program leaves an image embedding on the device, another reads it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::cpu::kernels::AlignedVec;
use crate::device::DeviceError;
use crate::graph::State;
use crate::ledger::{Event, Ledger};
use crate::tensor::{DType, HostTensor, Shape};

/// Device-resident states by name. Cloning shares them; programs that share them take turns.
#[derive(Clone, Default)]
pub struct StateStore(Arc<Mutex<States>>);

#[derive(Default)]
pub(crate) struct States(Vec<Cell>);

struct Cell {
    name: String,
    initial: HostTensor,
    memory: AlignedVec,
}

impl StateStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Finds or creates the states of a program; returns their positions.
    pub(crate) fn attach(
        &self,
        program: &str,
        states: &[State],
        ledger: &Ledger,
    ) -> Result<Vec<usize>, DeviceError> {
        let mut store = self.lock();
        states
            .iter()
            .map(|state| {
                if let Some(position) = store.0.iter().position(|cell| cell.name == state.name) {
                    let stored = &store.0[position].initial;
                    if stored.dtype() != state.initial.dtype() || stored.shape() != state.initial.shape() {
                        return Err(DeviceError::StateMismatch {
                            program: program.into(),
                            name: state.name.clone(),
                            stored: describe(stored.dtype(), stored.shape()),
                            wanted: describe(state.initial.dtype(), state.initial.shape()),
                        });
                    }
                    return Ok(position);
                }
                let bytes = state.initial.bytes().len();
                let mut memory = AlignedVec::zeros(bytes.div_ceil(4));
                ledger.record(Event::Allocation, bytes, "states");
                bytemuck::cast_slice_mut(&mut memory)[..bytes].copy_from_slice(state.initial.bytes());
                store.0.push(Cell { name: state.name.clone(), initial: state.initial.clone(), memory });
                Ok(store.0.len() - 1)
            })
            .collect()
    }

    /// Puts every state back to its initial value.
    pub fn reset(&self) {
        for cell in &mut self.lock().0 {
            let bytes = cell.initial.bytes();
            bytemuck::cast_slice_mut(&mut cell.memory)[..bytes.len()].copy_from_slice(bytes);
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, States> {
        // A program that panicked half-way leaves stale values, not broken ones.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl States {
    pub(crate) fn memory(&mut self, position: usize) -> &mut AlignedVec {
        &mut self.0[position].memory
    }
}

fn describe(dtype: DType, shape: &Shape) -> String {
    format!("{dtype} {shape}")
}
