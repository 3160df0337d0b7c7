//! Memory of packets: used again once nobody holds them.

use std::sync::Arc;

use crate::packet::Shot;

/// Packets that are kept for the next frames at most: a loop holds one while the next is computed.
const KEPT: usize = 4;

/// The packets given out last.
#[derive(Default)]
pub(crate) struct Shots(Vec<Arc<Shot>>);

impl Shots {
    /// Fills a packet that nobody holds, or a new one, and gives it out.
    pub(crate) fn fill<R, E>(
        &mut self,
        fill: impl FnOnce(&mut Shot) -> Result<R, E>,
    ) -> Result<(Arc<Shot>, R), E> {
        let free = self.0.iter_mut().position(|shot| Arc::get_mut(shot).is_some());
        let mut shot = free.map(|index| self.0.swap_remove(index)).unwrap_or_default();
        let filled = fill(Arc::get_mut(&mut shot).expect("nobody else holds it"));
        if self.0.len() < KEPT {
            self.0.push(shot.clone());
        }
        Ok((shot, filled?))
    }
}
