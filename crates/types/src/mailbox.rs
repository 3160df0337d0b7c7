//! A mailbox between a live source and the pipeline: the newest frames win, the producer never waits.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A bounded queue that drops its oldest item when it is full.
///
/// ```
/// use ultramotion_types::Mailbox;
///
/// let mailbox = Mailbox::new(2);
/// for frame in 0..5 {
///     mailbox.put(frame);
/// }
/// mailbox.close();
/// assert_eq!((mailbox.take(), mailbox.take(), mailbox.take()), (Some(3), Some(4), None));
/// assert_eq!(mailbox.dropped(), 3);
/// ```
#[derive(Debug)]
pub struct Mailbox<T> {
    inner: Mutex<Inner<T>>,
    arrived: Condvar,
    depth: usize,
}

#[derive(Debug)]
struct Inner<T> {
    items: VecDeque<T>,
    dropped: u64,
    closed: bool,
}

impl<T> Mailbox<T> {
    /// A mailbox with room for `depth` items, at least one.
    pub fn new(depth: usize) -> Self {
        let depth = depth.max(1);
        Mailbox {
            inner: Mutex::new(Inner { items: VecDeque::with_capacity(depth), dropped: 0, closed: false }),
            arrived: Condvar::new(),
            depth,
        }
    }

    /// Leaves an item, and gives back the one that it pushed out, whose memory can serve the next. After
    /// [`Mailbox::close`] it gives back the item itself.
    pub fn put(&self, item: T) -> Option<T> {
        let mut inner = self.lock();
        if inner.closed {
            return Some(item);
        }
        let pushed_out = if inner.items.len() == self.depth {
            inner.dropped += 1;
            inner.items.pop_front()
        } else {
            None
        };
        inner.items.push_back(item);
        drop(inner);
        self.arrived.notify_one();
        pushed_out
    }

    /// Waits for an item; `None` once the mailbox is closed and empty.
    pub fn take(&self) -> Option<T> {
        let mut inner = self.lock();
        loop {
            if let Some(item) = inner.items.pop_front() {
                return Some(item);
            }
            if inner.closed {
                return None;
            }
            inner = self.arrived.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until [`Mailbox::take`] would not, for `time` at most. Returns whether it would not.
    pub fn ready_within(&self, time: Duration) -> bool {
        let waits = |inner: &mut Inner<T>| inner.items.is_empty() && !inner.closed;
        let waited = self.arrived.wait_timeout_while(self.lock(), time, waits);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// No more items will come.
    pub fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
    }

    /// Whether [`Mailbox::close`] was called: what is put from then on is not taken.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Items that were pushed out.
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        // A queue is whole whatever its other user died of.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_taken_or_counted_as_dropped() {
        let mailbox = Mailbox::new(3);
        let taken = std::thread::scope(|scope| {
            let taker = scope.spawn(|| std::iter::from_fn(|| mailbox.take()).collect::<Vec<u32>>());
            for i in 0..10_000 {
                mailbox.put(i);
            }
            mailbox.close();
            taker.join().expect("the taker does not panic")
        });
        assert_eq!(taken.len() as u64 + mailbox.dropped(), 10_000);
        assert!(taken.windows(2).all(|w| w[0] < w[1]), "in order");
        assert_eq!(taken.last(), Some(&9_999), "the newest always arrives");
        assert!(mailbox.is_closed());
        assert_eq!(mailbox.put(1), Some(1), "a closed mailbox takes nothing");
        assert!(mailbox.ready_within(Duration::ZERO), "its end is there to be taken");
    }

    #[test]
    fn an_empty_mailbox_is_not_ready() {
        let mailbox = Mailbox::new(1);
        assert!(!mailbox.ready_within(Duration::from_millis(1)));
        mailbox.put(());
        assert!(mailbox.ready_within(Duration::ZERO));
    }
}
