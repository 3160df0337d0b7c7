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
    /// It waits.
    Stored,
    /// It waits, and this one had to go for it.
    Evicted(T),
    /// The queue is closed.
    Refused(T),
}

#[derive(Debug)]
pub(crate) struct Mailbox<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    capacity: usize,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    closed: bool,
}

impl<T> Mailbox<T> {
    /// A queue for `capacity` items, at least one.
    pub(crate) fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        let items = VecDeque::with_capacity(capacity);
        Self { state: Mutex::new(State { items, closed: false }), changed: Condvar::new(), capacity }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an item at the end. If there is no room, the oldest item that may go goes, or the
    /// oldest of all if none may.
    pub(crate) fn push(&self, item: T, may_go: impl Fn(&T) -> bool) -> Pushed<T> {
        let mut state = self.lock();
        if state.closed {
            return Pushed::Refused(item);
        }
        let evicted = if state.items.len() >= self.capacity {
            let index = state.items.iter().position(may_go).unwrap_or(0);
            state.items.remove(index)
        } else {
            None
        };
        state.items.push_back(item);
        drop(state);
        self.changed.notify_one();
        evicted.map_or(Pushed::Stored, Pushed::Evicted)
    }

    /// The oldest item, waiting for one at most so long, or for ever.
    pub(crate) fn pop(&self, timeout: Option<Duration>) -> Result<T, RecvError> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut state = self.lock();
        loop {
            if let Some(item) = state.items.pop_front() {
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

    pub(crate) fn len(&self) -> usize {
        self.lock().items.len()
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
        drop(state);
        self.changed.notify_all();
        left.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Option<Duration> = Some(Duration::ZERO);

    #[test]
    fn the_oldest_goes_first() {
        let queue = Mailbox::new(2);
        assert_eq!(queue.push(1, |_| true), Pushed::Stored);
        assert_eq!(queue.push(2, |_| true), Pushed::Stored);
        assert_eq!(queue.push(3, |_| true), Pushed::Evicted(1));
        assert_eq!(queue.push(4, |&n| n % 2 == 1), Pushed::Evicted(3));
        assert_eq!(queue.push(5, |_| false), Pushed::Evicted(2));
        assert_eq!(
            (queue.pop(SOON), queue.pop(SOON), queue.pop(SOON)),
            (Ok(4), Ok(5), Err(RecvError::Timeout))
        );
    }

    #[test]
    fn a_closed_queue_gives_out_what_it_has() {
        let queue = Mailbox::new(2);
        queue.push(1, |_| true);
        queue.close();
        assert_eq!(queue.push(2, |_| true), Pushed::Refused(2));
        assert_eq!((queue.pop(None), queue.pop(None)), (Ok(1), Err(RecvError::Closed)));
    }

    #[test]
    fn discarding_counts() {
        let queue = Mailbox::new(3);
        queue.push(1, |_| true);
        queue.push(2, |_| true);
        assert_eq!((queue.discard(), queue.pop(None)), (2, Err(RecvError::Closed)));
    }
}
