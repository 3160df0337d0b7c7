//! One place that every transfer, allocation and host synchronisation passes. It counts them with their bytes and
//! their caller, and a [`Budget`] turns the counts into a guarantee.

use std::ops::{AddAssign, Sub};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Bytes go from the host to the device.
    HostToDevice,
    /// Bytes go from the device to the host.
    DeviceToHost,
    /// Bytes go from one place of the device to another; the host has no part in it.
    DeviceToDevice,
    /// The host waits for the device.
    HostSync,
    /// Device memory is allocated.
    Allocation,
}

/// Totals since the ledger was opened, or between two moments by subtraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Copies from the host to the device.
    pub h2d: u64,
    /// Bytes of those.
    pub h2d_bytes: u64,
    /// Copies from the device to the host.
    pub d2h: u64,
    /// Bytes of those.
    pub d2h_bytes: u64,
    /// Copies from the device to the device: inputs that are there already.
    pub d2d: u64,
    /// Bytes of those.
    pub d2d_bytes: u64,
    /// Times the host waited for the device.
    pub host_syncs: u64,
    /// Allocations of device memory.
    pub allocations: u64,
    /// Bytes of those.
    pub allocated_bytes: u64,
}

impl Sub for Counts {
    type Output = Counts;
    fn sub(self, earlier: Counts) -> Counts {
        Counts {
            h2d: self.h2d - earlier.h2d,
            h2d_bytes: self.h2d_bytes - earlier.h2d_bytes,
            d2h: self.d2h - earlier.d2h,
            d2h_bytes: self.d2h_bytes - earlier.d2h_bytes,
            d2d: self.d2d - earlier.d2d,
            d2d_bytes: self.d2d_bytes - earlier.d2d_bytes,
            host_syncs: self.host_syncs - earlier.host_syncs,
            allocations: self.allocations - earlier.allocations,
            allocated_bytes: self.allocated_bytes - earlier.allocated_bytes,
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Counts) {
        self.h2d += more.h2d;
        self.h2d_bytes += more.h2d_bytes;
        self.d2h += more.d2h;
        self.d2h_bytes += more.d2h_bytes;
        self.d2d += more.d2d;
        self.d2d_bytes += more.d2d_bytes;
        self.host_syncs += more.host_syncs;
        self.allocations += more.allocations;
        self.allocated_bytes += more.allocated_bytes;
    }
}

/// What one caller did in total.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Who, e.g. `"frame"`.
    pub caller: &'static str,
    /// What.
    pub event: Event,
    /// How often.
    pub count: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// The counter of one device. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Ledger(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    counts: Counts,
    entries: Vec<Entry>,
}

impl Ledger {
    /// Counts one event. Allocates only the first time a caller does a thing.
    pub fn record(&self, event: Event, bytes: usize, caller: &'static str) {
        let bytes = bytes as u64;
        let mut book = self.book();
        let counts = &mut book.counts;
        match event {
            Event::HostToDevice => {
                counts.h2d += 1;
                counts.h2d_bytes += bytes;
            }
            Event::DeviceToHost => {
                counts.d2h += 1;
                counts.d2h_bytes += bytes;
            }
            Event::DeviceToDevice => {
                counts.d2d += 1;
                counts.d2d_bytes += bytes;
            }
            Event::HostSync => counts.host_syncs += 1,
            Event::Allocation => {
                counts.allocations += 1;
                counts.allocated_bytes += bytes;
            }
        }
        book.enter(Entry { caller, event, count: 1, bytes });
    }

    /// Counts what another ledger has counted so far: of work that was done aside, and is now this device's.
    pub fn take_in(&self, other: &Ledger) {
        let Book { counts, entries } = std::mem::take(&mut *other.book());
        let mut book = self.book();
        book.counts += counts;
        entries.into_iter().for_each(|entry| book.enter(entry));
    }

    /// Totals so far.
    pub fn counts(&self) -> Counts {
        self.book().counts
    }

    /// Totals by caller, in the order in which they first appeared.
    pub fn entries(&self) -> Vec<Entry> {
        self.book().entries.clone()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Counters stay meaningful even if a thread died while it held them.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn enter(&mut self, new: Entry) {
        match self.entries.iter_mut().find(|e| e.caller == new.caller && e.event == new.event) {
            Some(entry) => {
                entry.count += new.count;
                entry.bytes += new.bytes;
            }
            None => self.entries.push(new),
        }
    }
}

/// The most that one run may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Copies from the host to the device.
    pub h2d: u64,
    /// Copies from the device to the host.
    pub d2h: u64,
    /// Waits.
    pub host_syncs: u64,
    /// Allocations.
    pub allocations: u64,
}

impl Budget {
    /// A frame that stays on the device: one copy in, one copy out, one wait, no allocation. Copies within the device are
    /// free: the host has no part in them.
    pub const RESIDENT_FRAME: Budget = Budget { h2d: 1, d2h: 1, host_syncs: 1, allocations: 0 };

    /// What so many runs may do together.
    pub const fn times(self, runs: u64) -> Budget {
        Budget {
            h2d: self.h2d * runs,
            d2h: self.d2h * runs,
            host_syncs: self.host_syncs * runs,
            allocations: self.allocations * runs,
        }
    }

    /// An error when `spent` exceeds this budget.
    pub fn check(&self, spent: Counts) -> Result<(), OverBudget> {
        let over = spent.h2d > self.h2d
            || spent.d2h > self.d2h
            || spent.host_syncs > self.host_syncs
            || spent.allocations > self.allocations;
        if over { Err(OverBudget { budget: *self, spent }) } else { Ok(()) }
    }
}

/// A run did more than its budget allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "the run made {} copies in, {} out, {} waits and {} allocations; its budget is {}, {}, {} and {}",
    spent.h2d, spent.d2h, spent.host_syncs, spent.allocations,
    budget.h2d, budget.d2h, budget.host_syncs, budget.allocations
)]
pub struct OverBudget {
    /// What was allowed.
    pub budget: Budget,
    /// What was done.
    pub spent: Counts,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_event_and_by_caller() {
        let ledger = Ledger::default();
        ledger.record(Event::HostToDevice, 100, "frame");
        let before = ledger.counts();
        ledger.record(Event::HostToDevice, 50, "frame");
        ledger.record(Event::DeviceToHost, 8, "packet");
        ledger.record(Event::DeviceToDevice, 30, "frame");
        let spent = ledger.counts() - before;
        assert_eq!((spent.d2d, spent.d2d_bytes), (1, 30));
        assert_eq!((spent.h2d, spent.h2d_bytes, spent.d2h, spent.d2h_bytes), (1, 50, 1, 8));
        let frame = ledger.entries()[0];
        assert_eq!((frame.caller, frame.count, frame.bytes), ("frame", 2, 150));
    }

    #[test]
    fn a_run_over_budget_is_an_error_that_says_what_was_spent() {
        let budget = Budget::RESIDENT_FRAME;
        let within = Counts { h2d: 1, d2h: 1, host_syncs: 1, ..Counts::default() };
        assert!(budget.check(within).is_ok());
        assert!(budget.check(Counts { d2d: 1, d2d_bytes: 9, ..within }).is_ok(), "not the host's");
        for over in [
            Counts { h2d: 2, ..within },
            Counts { d2h: 2, ..within },
            Counts { host_syncs: 2, ..within },
            Counts { allocations: 1, ..within },
        ] {
            let error = budget.check(over).unwrap_err();
            assert_eq!(error.spent, over);
            assert!(error.to_string().contains("its budget is 1, 1, 1 and 0"));
            assert!(budget.times(2).check(over).is_ok() == (over.allocations == 0));
        }
    }
}
