//! States that several programs share: one program leaves an image embedding on the device, another reads it.

use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::DeviceError;
use crate::graph::State;
use crate::ledger::{Event, Ledger};
use crate::tensor::{DType, HostTensor, Shape};

/// Where a backend keeps a state between runs.
pub(crate) trait StateMemory: Any + Send {
    /// Replaces the value. The bytes are those of a host tensor of the state's type.
    fn write(&mut self, bytes: &[u8]) -> Result<(), DeviceError>;
}

/// What gives states their memory: a backend.
pub(crate) trait StateAllocator {
    /// Memory for a state, which holds its first value.
    fn state(&self, initial: &HostTensor) -> Result<Box<dyn StateMemory>, DeviceError>;
    /// Whether programs of this backend can use a state's memory.
    fn owns(&self, memory: &dyn StateMemory) -> bool;
}

/// Device-resident states by name. Cloning shares them; programs that share them take turns.
#[derive(Clone, Default)]
pub struct StateStore(Arc<Mutex<States>>);

#[derive(Default)]
pub(crate) struct States(Vec<Cell>);

struct Cell {
    name: String,
    initial: HostTensor,
    memory: Box<dyn StateMemory>,
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
        allocator: &dyn StateAllocator,
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
                    if !allocator.owns(store.0[position].memory.as_ref()) {
                        return Err(DeviceError::StatesElsewhere { program: program.into() });
                    }
                    return Ok(position);
                }
                let memory = allocator.state(&state.initial)?;
                ledger.record(Event::Allocation, state.initial.bytes().len(), "states");
                store.0.push(Cell { name: state.name.clone(), initial: state.initial.clone(), memory });
                Ok(store.0.len() - 1)
            })
            .collect()
    }

    /// Puts every state back to its initial value.
    pub fn reset(&self) -> Result<(), DeviceError> {
        self.lock().0.iter_mut().try_for_each(|cell| cell.memory.write(cell.initial.bytes()))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, States> {
        // A program that panicked half-way leaves stale values, not broken ones.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl States {
    /// The memory of a state, of the type that its backend gave it.
    pub(crate) fn memory<M: StateMemory>(&mut self, position: usize) -> &mut M {
        let memory: &mut dyn Any = self.0[position].memory.as_mut();
        memory.downcast_mut().expect("attach lets no program near another backend's states")
    }
}

fn describe(dtype: DType, shape: &Shape) -> String {
    format!("{dtype} {shape}")
}
