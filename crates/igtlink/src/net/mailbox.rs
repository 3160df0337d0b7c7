//! A bounded queue between threads that lets its oldest item go when it is full.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Why there is nothing to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecvError {
    /// Nothing came in the given time.
    #[error("nothing came in the given time")]
    Timeout,
    /// Nothing is left, and nothing will come any more.
    #[error("the connection was shut down")]
    Closed,
}

/// What became of an item that was put in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pushed<T> {
    /// It waits, and so many that may go had to go for it.
    Stored {
        /// How many.
        evicted: usize,
    },
    /// The queue is closed.
    Refused(T),
}

#[derive(Debug)]
pub(crate) struct Mailbox<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    capacity: usize,
    max_bytes: usize,
}

#[derive(Debug)]
struct State<T> {
    /// Items and their bytes.
    items: VecDeque<(T, usize)>,
    bytes: usize,
    closed: bool,
}

impl<T> State<T> {
    fn remove(&mut self, index: usize) -> Option<T> {
        let (item, bytes) = self.items.remove(index)?;
        self.bytes -= bytes;
        Some(item)
    }
}

impl<T> Mailbox<T> {
    /// A queue for `capacity` items, at least one, that together have at most `max_bytes`; a single
    /// item may have more.
    pub(crate) fn new(capacity: usize, max_bytes: usize) -> Self {
        let capacity = capacity.max(1);
        let items = VecDeque::with_capacity(capacity);
        let state = Mutex::new(State { items, bytes: 0, closed: false });
        Self { state, changed: Condvar::new(), capacity, max_bytes }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an item of so many bytes at the end. As long as there is no room, the oldest item that
    /// may go goes, or the oldest of all if none may.
    pub(crate) fn push(&self, item: T, bytes: usize, may_go: impl Fn(&T) -> bool) -> Pushed<T> {
        let mut state = self.lock();
        if state.closed {
            return Pushed::Refused(item);
        }
        let mut evicted = 0;
        loop {
            let many = state.items.len() >= self.capacity;
            let large = !state.items.is_empty() && state.bytes.saturating_add(bytes) > self.max_bytes;
            let candidate = state.items.iter().position(|(item, _)| may_go(item));
            match candidate {
                Some(index) if many || large => {
                    drop(state.remove(index));
                    evicted += 1;
                }
                None if many => drop(state.remove(0)),
                _ => break,
            }
        }
        state.items.push_back((item, bytes));
        state.bytes += bytes;
        drop(state);
        self.changed.notify_one();
        Pushed::Stored { evicted }
    }

    /// The oldest item, waiting for one at most so long, or for ever.
    pub(crate) fn pop(&self, timeout: Option<Duration>) -> Result<T, RecvError> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut state = self.lock();
        loop {
            if let Some(item) = state.remove(0) {
                return Ok(item);
            }
            if state.closed {
                return Err(RecvError::Closed);
            }
            state = match deadline {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(RecvError::Timeout);
                    }
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Takes what waits behind it, if that has no more bytes than this.
    pub(crate) fn pop_small(&self, max_bytes: usize) -> Option<T> {
        let mut state = self.lock();
        match state.items.front() {
            Some((_, bytes)) if *bytes <= max_bytes => state.remove(0),
            _ => None,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().items.len()
    }

    /// Whether it is less than half full.
    pub(crate) fn is_roomy(&self) -> bool {
        2 * self.len() < self.capacity
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Takes nothing more in; what is there can still be taken out.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Closes, throws away what is there, and says how much that was.
    pub(crate) fn discard(&self) -> usize {
        let mut state = self.lock();
        state.closed = true;
        let left = std::mem::take(&mut state.items);
        state.bytes = 0;
        drop(state);
        self.changed.notify_all();
        left.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Option<Duration> = Some(Duration::ZERO);

    const STORED: Pushed<i32> = Pushed::Stored { evicted: 0 };

    #[test]
    fn the_oldest_goes_first() {
        let queue = Mailbox::new(2, 99);
        assert_eq!(queue.push(1, 1, |_| true), STORED);
        assert_eq!(queue.push(2, 1, |_| true), STORED);
        assert_eq!(queue.push(3, 1, |_| true), Pushed::Stored { evicted: 1 });
        assert_eq!(queue.push(4, 1, |&n| n % 2 == 1), Pushed::Stored { evicted: 1 });
        // None of 2 and 4 may go: the oldest goes, and is not counted.
        assert_eq!(queue.push(5, 1, |_| false), STORED);
        assert_eq!(
            (queue.pop(SOON), queue.pop(SOON), queue.pop(SOON)),
            (Ok(4), Ok(5), Err(RecvError::Timeout))
        );
    }

    #[test]
    fn bytes_are_bounded_too() {
        let queue = Mailbox::new(9, 10);
        assert_eq!(queue.push(1, 4, |_| true), STORED);
        assert_eq!(queue.push(2, 0, |_| false), STORED);
        assert_eq!(queue.push(3, 4, |&n| n != 2), STORED);
        assert_eq!(queue.push(4, 8, |&n| n != 2), Pushed::Stored { evicted: 2 });
        assert_eq!(queue.push(5, 11, |&n| n != 2), Pushed::Stored { evicted: 1 });
        assert_eq!(
            (queue.pop(SOON), queue.pop(SOON), queue.pop(SOON)),
            (Ok(2), Ok(5), Err(RecvError::Timeout))
        );
        assert_eq!(queue.push(6, 10, |_| true), STORED);
    }

    #[test]
    fn what_is_small_goes_along() {
        let queue = Mailbox::new(9, 99);
        assert_eq!(queue.pop_small(9), None);
        for (item, bytes) in [(1, 3), (2, 5), (3, 2)] {
            queue.push(item, bytes, |_| true);
        }
        assert_eq!((queue.pop_small(4), queue.pop_small(4), queue.pop_small(5)), (Some(1), None, Some(2)));
    }

    #[test]
    fn a_closed_queue_gives_out_what_it_has() {
        let queue = Mailbox::new(2, 99);
        queue.push(1, 1, |_| true);
        queue.close();
        assert_eq!(queue.push(2, 1, |_| true), Pushed::Refused(2));
        assert_eq!((queue.pop(None), queue.pop(None)), (Ok(1), Err(RecvError::Closed)));
    }

    #[test]
    fn discarding_counts() {
        let queue = Mailbox::new(3, 99);
        queue.push(1, 1, |_| true);
        queue.push(2, 1, |_| true);
        assert_eq!((queue.discard(), queue.pop(None)), (2, Err(RecvError::Closed)));
    }
}
