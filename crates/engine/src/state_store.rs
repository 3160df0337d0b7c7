//! States that several programs share: one program leaves an image embedding on the device, another reads it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::cpu::kernels::AlignedVec;
use crate::cuda::{Allocation, CudaError};
use crate::device::{Backend, Device, DeviceError};
use crate::graph::State;
use crate::ledger::Event;
use crate::tensor::{DType, HostTensor, Shape};

/// Device-resident states by name. Cloning shares them; programs that share them take turns.
#[derive(Clone, Default)]
pub struct StateStore(Arc<Mutex<States>>);

#[derive(Default)]
pub(crate) struct States(Vec<Cell>);

struct Cell {
    name: String,
    initial: HostTensor,
    memory: StateMemory,
}

enum StateMemory {
    Host(AlignedVec),
    Cuda(Allocation),
}

impl Cell {
    fn reset(&mut self) -> Result<(), CudaError> {
        let bytes = self.initial.bytes();
        match &mut self.memory {
            StateMemory::Host(memory) => {
                bytemuck::cast_slice_mut(memory)[..bytes.len()].copy_from_slice(bytes);
                Ok(())
            }
            StateMemory::Cuda(memory) => memory.write(bytes),
        }
    }
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
        device: &Device,
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
                    let on_gpu = matches!(device.backend, Backend::Cuda { .. });
                    if on_gpu != matches!(store.0[position].memory, StateMemory::Cuda(_)) {
                        return Err(DeviceError::StatesElsewhere { program: program.into() });
                    }
                    return Ok(position);
                }
                let bytes = state.initial.bytes().len();
                let memory = match &device.backend {
                    Backend::Cuda { driver, .. } => StateMemory::Cuda(Allocation::new(driver, bytes)?),
                    _ => StateMemory::Host(AlignedVec::zeros(bytes.div_ceil(4))),
                };
                device.ledger().record(Event::Allocation, bytes, "states");
                let mut cell = Cell { name: state.name.clone(), initial: state.initial.clone(), memory };
                cell.reset()?;
                store.0.push(cell);
                Ok(store.0.len() - 1)
            })
            .collect()
    }

    /// Puts every state back to its initial value.
    pub fn reset(&self) -> Result<(), DeviceError> {
        Ok(self.lock().0.iter_mut().try_for_each(Cell::reset)?)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, States> {
        // A program that panicked half-way leaves stale values, not broken ones.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl States {
    /// The memory of a state on the host. Panics for another device's: `attach` lets no program near those.
    pub(crate) fn memory(&mut self, position: usize) -> &mut AlignedVec {
        match &mut self.0[position].memory {
            StateMemory::Host(memory) => memory,
            StateMemory::Cuda(_) => panic!("a state on a GPU is not the host's to read"),
        }
    }

    /// The address of a state on a GPU. Panics as [`States::memory`].
    pub(crate) fn address(&self, position: usize) -> u64 {
        match &self.0[position].memory {
            StateMemory::Cuda(memory) => memory.address,
            StateMemory::Host(_) => panic!("a state on the host is not a GPU's to read"),
        }
    }
}

fn describe(dtype: DType, shape: &Shape) -> String {
    format!("{dtype} {shape}")
}
