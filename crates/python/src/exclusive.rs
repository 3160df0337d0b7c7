//! Objects that compute: one call at a time, without the interpreter's lock, until they are closed.

use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

/// A value that calls from several threads use in turn.
pub(crate) struct Exclusive<T> {
    /// What it is, with its article, for people.
    what: &'static str,
    /// The process that its threads are of: a fork takes memory along, and leaves threads and locks behind.
    process: u32,
    value: ManuallyDrop<Mutex<Option<T>>>,
}

impl<T: Send> Exclusive<T> {
    pub(crate) fn new(what: &'static str, value: T) -> Self {
        let value = ManuallyDrop::new(Mutex::new(Some(value)));
        Exclusive { what, process: std::process::id(), value }
    }

    /// Computes with the value. Other Python threads run meanwhile; those that want the value wait.
    ///
    /// # Errors
    /// `RuntimeError` after [`Exclusive::close`], in another process than the value's, and for a panic.
    pub(crate) fn with<R: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut T) -> PyResult<R> + Send,
    ) -> PyResult<R> {
        self.check_process()?;
        py.detach(|| {
            let mut value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(value) = value.as_mut() else {
                return Err(PyRuntimeError::new_err(format!("{} is closed; make a new one", self.what)));
            };
            unpanicked(|| work(value))
        })
    }

    /// Gives its memory and threads back. Closing twice is no error.
    pub(crate) fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.check_process()?;
        py.detach(|| {
            unpanicked(|| {
                self.value.lock().unwrap_or_else(PoisonError::into_inner).take();
                Ok(())
            })
        })
    }

    fn check_process(&self) -> PyResult<()> {
        if self.process == std::process::id() {
            return Ok(());
        }
        Err(PyRuntimeError::new_err(format!(
            "{} is of another process; after a fork make a new one, or start processes by 'spawn'",
            self.what
        )))
    }
}

impl<T> Drop for Exclusive<T> {
    fn drop(&mut self) {
        // In a fork its threads are not there, and waiting for them would take for ever.
        if self.process == std::process::id() {
            // SAFETY: dropped here and nowhere else.
            #[allow(unsafe_code)]
            unsafe {
                ManuallyDrop::drop(&mut self.value);
            }
        }
    }
}

/// Work whose panic becomes an exception: a defect of this program must not take the caller's with it.
pub(crate) fn unpanicked<R>(work: impl FnOnce() -> PyResult<R>) -> PyResult<R> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("for a reason that it does not give");
        Err(PyRuntimeError::new_err(format!("a defect of ultramotion, please report it: {text}")))
    })
}
