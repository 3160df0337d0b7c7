//! All that the program says: answers on standard output by [`say!`], words for people on standard error by [`note!`].
//!
//! Words that cannot be written never stop the work. Standard error, and the log with it, has a thread of its own: what
//! cannot be written, or not in time, is lost and counted. Answers are checked: a reader that has seen enough ends a command
//! quietly, anything else is an error. The lines of a service go the way of the log, since nobody may read them: [`Lines`].

use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

/// A line of standard output, as `println!` makes it; an error where it cannot be written.
macro_rules! say {
    ($($words:tt)*) => { $crate::output::answer(format_args!("{}\n", format_args!($($words)*))) };
}
/// A line of standard error, as `eprintln!` makes it.
macro_rules! note {
    ($($words:tt)*) => { $crate::output::tell(format!($($words)*)) };
}
pub(crate) use {note, say};

/// Lines that may wait for a stream; those that come while all are waiting are lost.
const WAITING: usize = 1024;
/// How long the end of the program waits for lines to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);

static STDERR: OnceLock<Lines> = OnceLock::new();
static LOST: LazyLock<Arc<AtomicU64>> = LazyLock::new(Arc::default);

/// Standard output takes no more.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output: {}; what goes to files is written", reason(.0))]
pub(crate) struct OutputError(io::Error);

impl OutputError {
    /// Whether its reader has seen enough, as in `ultramotion models list | head -1`.
    pub(crate) fn is_seen_enough(&self) -> bool {
        self.0.kind() == io::ErrorKind::BrokenPipe
    }
}

/// In plain words, without the system's number.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull => "the disk is full".to_owned(),
        _ => error.to_string(),
    }
}

/// Text on standard output that ends in a line's end.
pub(crate) fn answer(text: fmt::Arguments<'_>) -> Result<(), OutputError> {
    io::stdout().lock().write_fmt(text).map_err(OutputError)
}

/// A line of standard error.
pub(crate) fn tell(line: String) {
    stderr().say(line);
}

/// A line of standard error above a progress bar.
pub(crate) fn tell_above(bar: &ProgressBar, line: String) {
    if bar.is_hidden() { tell(line) } else { bar.println(line) }
}

/// What the log is written to.
pub(crate) fn log() -> impl Write {
    LogLine
}

/// How many lines could not be written, of all streams but checked answers.
pub(crate) fn lost() -> Arc<AtomicU64> {
    Arc::clone(&LOST)
}

/// Waits a moment for what standard error has not taken yet.
pub(crate) fn end() {
    if let Some(stderr) = STDERR.get() {
        stderr.wait(LAST_WORDS);
    }
}

fn stderr() -> &'static Lines {
    STDERR.get_or_init(|| Lines::to(io::stderr()))
}

struct LogLine;

impl Write for LogLine {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        stderr().offer(line.to_vec());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lines for a stream that may take none: whoever has something to say never waits.
pub(crate) struct Lines {
    queue: SyncSender<Item>,
    problem: Arc<Mutex<Option<io::Error>>>,
}

enum Item {
    Line(Vec<u8>),
    /// Answered when all before it is written.
    Mark(SyncSender<()>),
}

impl Lines {
    /// Starts the thread that writes. Without it all lines are lost, and counted.
    pub(crate) fn to(mut stream: impl Write + Send + 'static) -> Self {
        let (queue, items) = sync_channel(WAITING);
        let problem = Arc::new(Mutex::new(None));
        let first_problem = Arc::clone(&problem);
        let write = move || {
            for item in items {
                match item {
                    Item::Line(line) => {
                        if let Err(error) = stream.write_all(&line).and_then(|()| stream.flush()) {
                            LOST.fetch_add(1, Relaxed);
                            first_problem.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                        }
                    }
                    // Nobody waits any more where it fails.
                    Item::Mark(written) => drop(written.send(())),
                }
            }
        };
        // Where it cannot be started, `items` is gone, and every line is one that nobody takes.
        let _ = thread::Builder::new().name("output".into()).spawn(write);
        Lines { queue, problem }
    }

    /// A line without its end.
    pub(crate) fn say(&self, mut line: String) {
        line.push('\n');
        self.offer(line.into_bytes());
    }

    fn offer(&self, line: Vec<u8>) {
        if self.queue.try_send(Item::Line(line)).is_err() {
            LOST.fetch_add(1, Relaxed);
        }
    }

    /// The end: waits a moment for the last lines, and tells what was wrong first, but for a reader that has seen enough.
    pub(crate) fn finish(self) -> Result<(), OutputError> {
        self.wait(LAST_WORDS);
        let problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner).take();
        match problem.map(OutputError) {
            Some(error) if !error.is_seen_enough() => Err(error),
            _ => Ok(()),
        }
    }

    /// Waits until all lines so far are written, or so long.
    fn wait(&self, limit: Duration) {
        const NAP: Duration = Duration::from_millis(5);
        let until = Instant::now() + limit;
        let (written, is_written) = sync_channel(1);
        let mut mark = Item::Mark(written);
        while let Err(TrySendError::Full(back)) = self.queue.try_send(mark) {
            if Instant::now() >= until {
                return;
            }
            mark = back;
            thread::sleep(NAP);
        }
        let _ = is_written.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream whose every line fails but the first.
    struct Full(bool);

    impl Write for Full {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            if std::mem::replace(&mut self.0, true) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A stream that takes nothing, and does not say so.
    struct Deaf;

    impl Write for Deaf {
        fn write(&mut self, _line: &[u8]) -> io::Result<usize> {
            loop {
                thread::park();
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_nobody_waits_for_them() {
        let before = LOST.load(Relaxed);
        let lines = Lines::to(Full(false));
        (0..4).for_each(|_| lines.offer(b"words\n".to_vec()));
        let error = lines.finish().unwrap_err().to_string();
        assert_eq!(error, "cannot write to standard output: the disk is full; what goes to files is written");
        assert_eq!(LOST.load(Relaxed) - before, 3);
        let lines = Lines::to(Deaf);
        (0..WAITING + 3).for_each(|_| lines.offer(b"words\n".to_vec()));
        // One is being written, or not taken yet.
        assert!((2..=3).contains(&(LOST.load(Relaxed) - before - 3)));
        lines.finish().unwrap();
    }
}
