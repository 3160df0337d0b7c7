//! The `ffmpeg` that is installed, as a process that takes pictures.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::error::MediaError;

/// The name by which it is found.
pub(crate) const PROGRAM: &str = "ffmpeg";

/// How often it is looked whether it still lives.
const TICK: Duration = Duration::from_millis(20);
/// What is kept of its words, the last ones.
const LAST_WORDS_BYTES: usize = 2000;
/// Lines of them that are shown.
const LAST_WORDS_LINES: usize = 3;

/// Whether it is there and runs.
///
/// # Errors
/// [`MediaError::NoFfmpeg`] where it is not there; [`MediaError::Io`] where it cannot be started, or does not end well.
pub(crate) fn check(program: &OsStr, patience: Duration) -> Result<(), MediaError> {
    let cannot_start = || MediaError::io("start", program.as_ref());
    let mut command = Command::new(program);
    command.arg("-version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => MediaError::NoFfmpeg,
        _ => cannot_start()(error),
    })?;
    let (_, nothing_to_come) = channel();
    match watch(child, &nothing_to_come, patience).map_err(cannot_start())? {
        End::ByItself(status) if status.success() => Ok(()),
        end => Err(cannot_start()(io::Error::other(end.sentence(patience)))),
    }
}

/// An `ffmpeg` at work. One that lets its user wait for longer than he is patient is ended.
#[derive(Debug)]
pub(crate) struct Encoder {
    input: ChildStdin,
    /// Whether it is being waited for. Closed: there is no more to come.
    busy: Sender<bool>,
    end: JoinHandle<io::Result<End>>,
    last_words: Receiver<String>,
    patience: Duration,
}

/// How it ended.
#[derive(Debug)]
enum End {
    ByItself(ExitStatus),
    Ended,
}

impl End {
    fn sentence(&self, patience: Duration) -> String {
        match self {
            End::ByItself(status) => format!("ffmpeg ended with {status}"),
            End::Ended => format!("ffmpeg was not done after {} s, and was ended", patience.as_secs_f64()),
        }
    }
}

impl Encoder {
    /// Starts it; it reads what is written to it.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub(crate) fn start(
        program: &OsStr,
        arguments: &[OsString],
        patience: Duration,
    ) -> Result<Self, MediaError> {
        let cannot_start = || MediaError::io("start", program.as_ref());
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        keep_from_signals(&mut command);
        let mut child = command.spawn().map_err(cannot_start())?;
        let (input, errors) = child.stdin.take().zip(child.stderr.take()).expect("both are pipes");
        let (say, last_words) = channel();
        thread::spawn(move || say.send(read_last_words(errors)));
        let (busy, watched) = channel();
        let end = thread::spawn(move || watch(child, &watched, patience));
        Ok(Self { input, busy, end, last_words, patience })
    }

    /// Hands over bytes of pictures, waits until they are taken, and gives itself back.
    ///
    /// # Errors
    /// Why it is no more, with its last words.
    pub(crate) fn write(mut self, bytes: &[u8]) -> Result<Self, String> {
        // A watch that has ended has nothing to watch.
        let _ = self.busy.send(true);
        let written = self.input.write_all(bytes);
        let _ = self.busy.send(false);
        match written {
            Ok(()) => Ok(self),
            Err(error) => {
                self.finish()?;
                Err(format!("ffmpeg takes no more pictures: {error}"))
            }
        }
    }

    /// Says that all is written, and waits for its end.
    ///
    /// # Errors
    /// Where it did not end well.
    pub(crate) fn finish(self) -> Result<(), String> {
        let Self { input, busy, end, last_words, patience } = self;
        drop((input, busy));
        match end.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
            Ok(End::ByItself(status)) if status.success() => Ok(()),
            Ok(end) => {
                let end = end.sentence(patience);
                // What it started may hold its output open.
                let words = last_words.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
                Err(if words.is_empty() { end } else { format!("{end}: {words}") })
            }
            Err(error) => Err(format!("ffmpeg cannot be watched: {error}")),
        }
    }
}

/// A process group of its own: Ctrl-C is for the program that uses it, which then ends it in order.
#[cfg(unix)]
pub(crate) fn keep_from_signals(command: &mut Command) {
    use std::os::unix::process::CommandExt;

    command.process_group(0);
}

#[cfg(windows)]
pub(crate) fn keep_from_signals(command: &mut Command) {
    use std::os::windows::process::CommandExt;

    const CREATE_NEW_PROCESS_GROUP: u32 = 0x200;
    command.creation_flags(CREATE_NEW_PROCESS_GROUP);
}

/// Waits for the end of a process, and brings it about where it lets others wait for too long.
fn watch(mut child: Child, busy: &Receiver<bool>, patience: Duration) -> io::Result<End> {
    let mut since: Option<Instant> = None;
    let mut is_closed = false;
    loop {
        if !is_closed {
            match busy.recv_timeout(TICK) {
                Ok(is_busy) => since = is_busy.then(Instant::now),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => (is_closed, since) = (true, Some(Instant::now())),
            }
        } else {
            if let Some(status) = child.try_wait()? {
                return Ok(End::ByItself(status));
            }
            thread::sleep(TICK);
        }
        if since.is_some_and(|since| since.elapsed() > patience) {
            child.kill()?;
            child.wait()?;
            return Ok(End::Ended);
        }
    }
}

/// The last lines of what is said, in one.
fn read_last_words(mut from: impl Read) -> String {
    let (mut kept, mut chunk) = (Vec::new(), [0; 512]);
    while let Ok(count) = from.read(&mut chunk) {
        if count == 0 {
            break;
        }
        kept.extend_from_slice(&chunk[..count]);
        kept.drain(..kept.len().saturating_sub(LAST_WORDS_BYTES));
    }
    let text = String::from_utf8_lossy(&kept);
    let lines: Vec<String> = text
        .lines()
        .map(|line| line.replace(char::is_control, " ").trim().to_owned())
        .filter(|line| !line.is_empty())
        .collect();
    lines[lines.len().saturating_sub(LAST_WORDS_LINES)..].join("; ")
}
