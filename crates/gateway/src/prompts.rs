//! What somebody points at, on its way to the pipeline: a short queue that never holds anybody up.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

use thiserror::Error;
use ultramotion_types::{PromptCommand, PromptError};

/// Commands that may wait: more than anybody points at between two frames.
const MAX_WAITING: usize = 32;

/// Why a command will not be obeyed.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum Refused {
    /// By whoever follows.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// Nothing takes commands.
    #[error("{MAX_WAITING} prompts wait already, and no frame comes to take them")]
    Waiting,
    /// It says where something is in the tracker's or the patient's frame, and the image's place there does not allow it.
    #[error("{0}")]
    Place(String),
}

/// Told what became of a command. It may be called from any thread and must not wait.
pub type Reply = Box<dyn FnOnce(Result<(), Refused>) + Send>;

/// Commands that wait for the next frame.
#[derive(Default)]
pub struct PromptQueue {
    waiting: Mutex<VecDeque<(PromptCommand, Reply)>>,
    /// So that a frame without any takes no lock.
    count: AtomicUsize,
}

impl PromptQueue {
    /// Puts a command in; one too many is refused at once.
    pub fn put(&self, command: PromptCommand, reply: Reply) {
        let mut waiting = self.lock();
        if waiting.len() >= MAX_WAITING {
            drop(waiting);
            return reply(Err(Refused::Waiting));
        }
        waiting.push_back((command, reply));
        self.count.store(waiting.len(), SeqCst);
    }

    /// Has all that wait obeyed, in order.
    pub fn obey(&self, mut obey: impl FnMut(&PromptCommand) -> Result<(), PromptError>) {
        if self.count.load(SeqCst) == 0 {
            return;
        }
        let commands = {
            let mut waiting = self.lock();
            self.count.store(0, SeqCst);
            std::mem::take(&mut *waiting)
        };
        for (command, reply) in commands {
            reply(obey(&command).map_err(Refused::from));
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(PromptCommand, Reply)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for PromptQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PromptQueue({})", self.count.load(SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use ultramotion_types::Prompt;

    use super::*;

    #[test]
    fn commands_are_obeyed_in_order_and_one_too_many_is_refused() {
        let queue = PromptQueue::default();
        let (told, replies) = mpsc::channel();
        for number in 0..=MAX_WAITING {
            let told = told.clone();
            let command = PromptCommand::Follow(Prompt::at(number as f32, 0.0));
            queue.put(command, Box::new(move |reply| told.send((number, reply)).unwrap()));
        }
        assert_eq!(replies.try_iter().collect::<Vec<_>>(), [(MAX_WAITING, Err(Refused::Waiting))]);
        let mut obeyed = Vec::new();
        queue.obey(|command| {
            obeyed.push(command.clone());
            if obeyed.len() == 2 { Err(PromptError::Off) } else { Ok(()) }
        });
        assert_eq!(obeyed[3], PromptCommand::Follow(Prompt::at(3.0, 0.0)));
        let replies: Vec<_> = replies.try_iter().collect();
        assert_eq!(replies[..3], [(0, Ok(())), (1, Err(PromptError::Off.into())), (2, Ok(()))]);
        assert_eq!((replies.len(), obeyed.len()), (MAX_WAITING, MAX_WAITING));
        queue.obey(|_| panic!("there is none"));
    }
}
