//! An `ffmpeg` that decodes into a pipe.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::showinfo::{Announced, parse};
use crate::error::{MediaError, printable};
use crate::ffmpeg::{PROGRAM, keep_from_signals};

/// Nothing from ffmpeg for so long, and it is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Lines of its log that are kept for an error.
const LAST_WORDS: usize = 3;
/// Characters of them.
const MAX_WORDS: usize = 300;

/// Which frames are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// Every one: ffmpeg waits until they are read.
    All,
    /// The newest one, for what does not wait.
    Newest,
}

/// A decoded frame.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) number: u64,
    pub(super) time_s: f64,
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) channels: usize,
    pub(super) pixels: Vec<u8>,
}

/// What is between the thread that reads the pipe and who wants frames.
#[derive(Debug, Default)]
struct Ready {
    state: Mutex<ReadyState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct ReadyState {
    picture: Option<Picture>,
    /// Memory of frames that are done with.
    spare: Vec<u8>,
    is_over: bool,
    /// Whether nobody wants more.
    is_left: bool,
}

impl Ready {
    fn lock(&self) -> std::sync::MutexGuard<'_, ReadyState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running ffmpeg. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Decoder {
    child: Child,
    ready: Arc<Ready>,
    threads: Vec<JoinHandle<()>>,
    last_words: Receiver<VecDeque<String>>,
    said: Option<VecDeque<String>>,
}

impl Decoder {
    pub(super) fn start(name: &str, input: &[OsString], delivery: Delivery) -> Result<Self, MediaError> {
        let mut command = Command::new(PROGRAM);
        keep_from_signals(&mut command);
        command
            .args(["-nostdin", "-hide_banner", "-nostats", "-loglevel", "level+info"])
            .args(input)
            .args(["-map", "0:v:0", "-an", "-sn", "-dn"])
            // Grey stays grey; what else there is becomes red, green, blue.
            .args(["-vf", "format=pix_fmts=gray|rgb24,showinfo=checksum=0", "-fps_mode", "passthrough"])
            .args(["-f", "rawvideo", "pipe:1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| match error.kind() {
            ErrorKind::NotFound => MediaError::NoFfmpeg,
            _ => failed(name, &error.to_string()),
        })?;
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(failed(name, "its output cannot be read"));
        };
        let (announce, announced) = channel();
        // One message: the log's last lines, when it has ended.
        let (say, last_words) = sync_channel(1);
        let ready = Arc::new(Ready::default());
        let for_reader = Arc::clone(&ready);
        let threads = vec![
            std::thread::spawn(move || listen(stderr, &announce, &say)),
            std::thread::spawn(move || read_pipe(stdout, &announced, &for_reader, delivery)),
        ];
        Ok(Decoder { child, ready, threads, last_words, said: None })
    }

    /// Waits until there is a frame; it is still to be read then.
    pub(super) fn wait_for_first(&mut self, name: &str) -> Result<(), MediaError> {
        self.wait(name)?;
        if self.ready.lock().picture.is_none() {
            let words = self.last_words();
            return Err(failed(name, if words.is_empty() { "there is no picture in it" } else { &words }));
        }
        Ok(())
    }

    /// The next frame, with `spare` given back for its like; `None` at the end.
    pub(super) fn next(&mut self, name: &str, spare: Vec<u8>) -> Result<Option<Picture>, MediaError> {
        self.wait(name)?;
        let mut state = self.ready.lock();
        let picture = state.picture.take();
        if state.spare.capacity() < spare.capacity() {
            state.spare = spare;
        }
        drop(state);
        self.ready.changed.notify_all();
        if picture.is_none() {
            let ended = self.child.wait().map_err(|error| failed(name, &error.to_string()))?;
            if !ended.success() {
                return Err(failed(name, &self.last_words()));
            }
        }
        Ok(picture)
    }

    /// Waits for a frame, or for the end.
    fn wait(&mut self, name: &str) -> Result<(), MediaError> {
        let until = Instant::now() + PATIENCE;
        let mut state = self.ready.lock();
        while state.picture.is_none() && !state.is_over {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(failed(name, "nothing came from it for 30 seconds"));
            }
            let waited = self.ready.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// What ffmpeg said last, in one line.
    fn last_words(&mut self) -> String {
        if self.said.is_none() {
            self.said = self.last_words.recv_timeout(Duration::from_secs(5)).ok();
        }
        let lines = self.said.iter().flatten().map(String::as_str).collect::<Vec<_>>().join("; ");
        printable(&lines, MAX_WORDS)
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Decoder {
    /// Ends it, and waits until it has.
    pub(super) fn stop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        self.ready.lock().is_left = true;
        self.ready.changed.notify_all();
        let _ = self.child.wait();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Reads the log: frames that are announced, and what else is said.
fn listen(stderr: ChildStderr, announce: &Sender<Announced>, say: &SyncSender<VecDeque<String>>) {
    let mut words = VecDeque::new();
    let mut log = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        // A line without an end takes no more memory than a long one.
        match (&mut log).take(1 << 16).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        if let Some(announced) = parse(&text) {
            // Nobody listens any more when the pipe has ended.
            let _ = announce.send(announced);
        } else if text.contains("[error]") || text.contains("[fatal]") {
            if words.len() == LAST_WORDS {
                words.pop_front();
            }
            words.push_back(without_tags(&text));
        }
    }
    let _ = say.try_send(words);
}

/// A line of the log without the brackets it begins with.
fn without_tags(line: &str) -> String {
    let mut rest = line.trim();
    while let Some((_, after)) = rest.strip_prefix('[').and_then(|tagged| tagged.split_once(']')) {
        rest = after.trim_start();
    }
    rest.to_owned()
}

/// Reads frame after frame from the pipe, as they are announced.
fn read_pipe(mut stdout: ChildStdout, announced: &Receiver<Announced>, ready: &Ready, delivery: Delivery) {
    let mut time_s = 0.0;
    while let Ok(frame) = announced.recv() {
        let Announced { number, width, height, channels, .. } = frame;
        if frame.time_s.is_finite() {
            time_s = frame.time_s;
        }
        let mut pixels = std::mem::take(&mut ready.lock().spare);
        let bytes = width * height * channels;
        pixels.clear();
        if pixels.try_reserve_exact(bytes).is_err() {
            break;
        }
        match (&mut stdout).take(bytes as u64).read_to_end(&mut pixels) {
            Ok(read) if read == bytes => {}
            _ => break,
        }
        let mut state = ready.lock();
        while delivery == Delivery::All && state.picture.is_some() && !state.is_left {
            state = ready.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.is_left {
            break;
        }
        if let Some(old) = state.picture.replace(Picture { number, time_s, width, height, channels, pixels })
        {
            state.spare = old.pixels;
        }
        drop(state);
        ready.changed.notify_all();
    }
    ready.lock().is_over = true;
    ready.changed.notify_all();
}

/// How many frames a file says it has, without decoding it; `None` if it does not, or nobody can ask.
pub(super) fn frame_count(url: &OsStr) -> Option<u64> {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-protocol_whitelist", "file", "-select_streams", "v:0"])
        .args(["-show_entries", "stream=nb_frames", "-of", "csv=p=0", "-i"])
        .arg(url)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    String::from_utf8_lossy(&output.stdout).trim().trim_end_matches(',').parse().ok()
}

fn failed(name: &str, reason: &str) -> MediaError {
    let reason = if reason.is_empty() { "it gave no reason" } else { reason };
    MediaError::Ffmpeg { source_name: name.to_owned(), reason: reason.to_owned() }
}
