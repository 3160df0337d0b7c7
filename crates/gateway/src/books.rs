//! Double entry for frames: each one that was received is answered, dropped for a reason, or on its way.
//!
//! A frame carries a [`Ticket`] from the moment it is received. Whoever ends its way settles the ticket; a ticket that
//! is thrown away unsettled, because a stage died with the frame in its hands, counts as lost. So the sums agree
//! whatever happens:
//!
//! ```
//! use std::sync::Arc;
//! use ultramotion_gateway::books::{Books, DropReason};
//!
//! let books = Arc::new(Books::default());
//! let (first, second, third) = (books.receive(), books.receive(), books.receive());
//! first.answered();
//! second.dropped(DropReason::Superseded);
//! drop(third);
//! let account = books.account();
//! assert_eq!((account.received, account.answered, account.dropped(), account.in_flight), (3, 1, 2, 0));
//! assert_eq!(account.dropped_for(DropReason::Lost), 1);
//! assert!(account.balances());
//! ```

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Why a received frame was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum DropReason {
    /// The IMAGE contradicts the format or itself.
    Malformed,
    /// It has no pixels, or more than a frame may have.
    Size,
    /// Its pixels are of a type that is not taken.
    PixelType,
    /// It is a volume, or a part of an image.
    Volume,
    /// A newer frame came while it waited for the pipeline.
    Superseded,
    /// It waited for too long.
    Stale,
    /// The first of its size, or soon after: what computes it is still being compiled.
    Compiling,
    /// The pipeline failed on it.
    Pipeline,
    /// A newer result came while it waited to be sent.
    SendQueue,
    /// Its result cannot be written as messages.
    Encode,
    /// A stage died with it.
    Lost,
    /// The service was stopped.
    Shutdown,
}

impl DropReason {
    /// All reasons, in the order of [`Account`].
    pub const ALL: [DropReason; 12] = [
        DropReason::Malformed,
        DropReason::Size,
        DropReason::PixelType,
        DropReason::Volume,
        DropReason::Superseded,
        DropReason::Stale,
        DropReason::Compiling,
        DropReason::Pipeline,
        DropReason::SendQueue,
        DropReason::Encode,
        DropReason::Lost,
        DropReason::Shutdown,
    ];

    /// A short name for reports.
    pub const fn name(self) -> &'static str {
        match self {
            DropReason::Malformed => "malformed",
            DropReason::Size => "size",
            DropReason::PixelType => "pixel_type",
            DropReason::Volume => "volume",
            DropReason::Superseded => "superseded",
            DropReason::Stale => "stale",
            DropReason::Compiling => "compiling",
            DropReason::Pipeline => "pipeline",
            DropReason::SendQueue => "send_queue",
            DropReason::Encode => "encode",
            DropReason::Lost => "lost",
            DropReason::Shutdown => "shutdown",
        }
    }
}

/// What became of the frames so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Account {
    /// Frames that came whole.
    pub received: u64,
    /// Frames whose result was handed to the server's queues, however many clients there were.
    pub answered: u64,
    /// Frames that are waiting or in work.
    pub in_flight: u64,
    dropped: [u64; DropReason::ALL.len()],
}

impl Account {
    /// Frames dropped for all reasons.
    pub fn dropped(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// Frames dropped for this reason.
    pub fn dropped_for(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    /// Reasons and counts.
    pub fn dropped_by_reason(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.into_iter().map(|reason| (reason, self.dropped_for(reason)))
    }

    /// Whether every frame is accounted for.
    pub fn balances(&self) -> bool {
        self.received == self.answered + self.dropped() + self.in_flight
    }
}

/// The account, written to by all stages.
#[derive(Debug, Default)]
pub struct Books {
    account: Mutex<Account>,
    frame_ids: AtomicU64,
}

impl Books {
    /// Enters a frame.
    pub fn receive(self: &Arc<Self>) -> Ticket {
        let mut account = self.lock();
        account.received += 1;
        account.in_flight += 1;
        drop(account);
        Ticket {
            frame_id: self.frame_ids.fetch_add(1, SeqCst),
            arrived: Instant::now(),
            settled: AtomicBool::new(false),
            books: Arc::clone(self),
        }
    }

    /// The account as it stands.
    pub fn account(&self) -> Account {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Account> {
        // Sums of whole steps: a thread that died elsewhere left them right.
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A frame's entry in the books.
#[derive(Debug)]
pub struct Ticket {
    frame_id: u64,
    arrived: Instant,
    settled: AtomicBool,
    books: Arc<Books>,
}

impl Ticket {
    /// Number of the frame among all received ones, from 0.
    pub fn frame_id(&self) -> u64 {
        self.frame_id
    }

    /// When it was received.
    pub fn arrived(&self) -> Instant {
        self.arrived
    }

    /// Its result was handed to the server.
    pub fn answered(&self) {
        self.settle(|account| account.answered += 1);
    }

    /// It will have no result.
    pub fn dropped(&self, reason: DropReason) {
        self.settle(|account| account.dropped[reason as usize] += 1);
    }

    /// The first settlement counts, others are nothing.
    fn settle(&self, enter: impl FnOnce(&mut Account)) {
        if !self.settled.swap(true, SeqCst) {
            let mut account = self.books.lock();
            account.in_flight -= 1;
            enter(&mut account);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.dropped(DropReason::Lost);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is done to tickets, and in whatever order, the books balance and each ticket counts once.
        #[test]
        fn the_books_balance(fates in proptest::collection::vec(0usize..15, 0..60), kept in 0usize..60) {
            let books = Arc::new(Books::default());
            let mut tickets: Vec<Ticket> = fates.iter().map(|_| books.receive()).collect();
            let mut expected = [0u64; DropReason::ALL.len()];
            let mut answered = 0;
            for (i, &fate) in fates.iter().enumerate().skip(kept) {
                match (fate, DropReason::ALL.get(fate)) {
                    (_, Some(&reason)) => {
                        tickets[i].dropped(reason);
                        // The first settlement counts.
                        tickets[i].answered();
                        expected[fate] += 1;
                    }
                    (12, _) => {
                        tickets[i].answered();
                        tickets[i].dropped(DropReason::Encode);
                        answered += 1;
                    }
                    _ => expected[DropReason::Lost as usize] += 1,
                }
            }
            tickets.truncate(kept);
            let account = books.account();
            prop_assert!(account.balances());
            prop_assert_eq!(account.received, fates.len() as u64);
            prop_assert_eq!(account.in_flight, tickets.len() as u64);
            prop_assert_eq!(account.answered, answered);
            for (reason, count) in account.dropped_by_reason() {
                prop_assert_eq!(count, expected[reason as usize], "{}", reason.name());
            }
        }
    }

    #[test]
    fn frames_are_numbered_as_they_come() {
        let books = Arc::new(Books::default());
        let ids: Vec<u64> = (0..4).map(|_| books.receive().frame_id()).collect();
        assert_eq!(ids, [0, 1, 2, 3]);
        assert!(DropReason::ALL.iter().enumerate().all(|(i, &reason)| reason as usize == i));
    }
}
