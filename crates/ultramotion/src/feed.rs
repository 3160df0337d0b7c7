//! A source's frames one by one: as fast as they are taken, at the source's own pace, or as a scanner sends them.
//!
//! In the latter two a thread reads ahead into a mailbox in which the newest frame wins, as a live source would.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use thiserror::Error;
use ultramotion_gateway::receive::{Received, Receiver};
use ultramotion_igtlink::{ConnectError, Disconnect, RecvError};
use ultramotion_media::MediaError;
use ultramotion_media::source::{FrameSource, wait_until};
use ultramotion_types::{Frame, Mailbox};

use crate::source::Source;

/// Frames that wait for the pipeline where it cannot hold up their source.
const MAILBOX_DEPTH: usize = 2;
/// How long a scanner's thread waits for a message before it looks whether to stop.
const TICK: Duration = Duration::from_millis(50);

/// Asks everybody who has a clone of it to end.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// From here on [`Stop::is_set`]. Returns whether it was set already.
    pub fn set(&self) -> bool {
        self.0.swap(true, Ordering::SeqCst)
    }

    /// Whether to end.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// How fast frames of a recording come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pace {
    /// Each when it is asked for; none is dropped.
    #[default]
    AsAsked,
    /// As far apart as their timestamps; frames that come while nobody asks are dropped, oldest first.
    RealTime,
}

/// Why a feed ended, or could not begin.
#[derive(Debug, Error)]
pub enum FeedError {
    /// There is no thread for it.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// The scanner's server does not answer.
    #[error("cannot connect to {address}: {kind}; is the scanner's server running there?")]
    Connect {
        /// The server.
        address: SocketAddr,
        /// The kind alone: the system's own words differ from one to the next.
        kind: io::ErrorKind,
    },
    /// The scanner's server cannot be reached for another reason.
    #[error(transparent)]
    Link(#[from] ConnectError),
    /// The scanner went before it sent a frame.
    #[error("{url} sent no frame: {reason}")]
    NoFrame {
        /// The scanner.
        url: String,
        /// Why it went.
        reason: Disconnect,
    },
}

/// Frames of a source, up to a number of them.
#[derive(Debug)]
pub struct Feed {
    kind: Kind,
    left: u64,
    stop: Stop,
}

#[derive(Debug)]
enum Kind {
    Direct(Box<dyn FrameSource>),
    Mailbox {
        mailbox: Arc<Mailbox<Result<Frame, MediaError>>>,
        thread: Option<JoinHandle<Result<(), FeedError>>>,
    },
}

impl Feed {
    /// Up to `limit` frames, bad ones included. A scanner's frames come at its pace whatever `pace` says.
    pub fn new(source: Source, pace: Pace, limit: u64, stop: Stop) -> Result<Self, FeedError> {
        let kind = match source {
            Source::Recorded(source) if pace == Pace::AsAsked => Kind::Direct(source),
            Source::Recorded(source) => Kind::in_mailbox("playback", stop.clone(), move |mailbox, stop| {
                play(source, limit, mailbox, stop);
                Ok(())
            })?,
            Source::Live(receiver) => Kind::in_mailbox("scanner", stop.clone(), move |mailbox, stop| {
                listen(*receiver, mailbox, stop)
            })?,
        };
        Ok(Feed { kind, left: limit, stop })
    }

    /// Waits for a frame, or the end, for `time` at most. Returns whether one is there, so that
    /// [`Feed::next_frame_into`] does not wait.
    pub fn ready_within(&self, time: Duration) -> bool {
        match &self.kind {
            Kind::Direct(_) => true,
            Kind::Mailbox { mailbox, .. } => mailbox.ready_within(time),
        }
    }

    /// The next frame into `frame`, whose memory is used again, or why it cannot be read: report that and go on. `None`
    /// at the end, or after a stop.
    pub fn next_frame_into(&mut self, frame: &mut Frame) -> Option<Result<(), MediaError>> {
        if self.stop.is_set() {
            return None;
        }
        self.left = self.left.checked_sub(1)?;
        match &mut self.kind {
            Kind::Direct(source) => source.read_into(frame),
            Kind::Mailbox { mailbox, .. } => Some(mailbox.take()?.map(|taken| *frame = taken)),
        }
    }

    /// Ends it. How many frames were dropped because newer ones came, where they can be; an error where a scanner is
    /// at fault.
    pub fn finish(mut self) -> Result<Option<u64>, FeedError> {
        match &mut self.kind {
            Kind::Direct(_) => Ok(None),
            Kind::Mailbox { mailbox, thread } => {
                mailbox.close();
                let ended = thread.take().map_or(Ok(Ok(())), JoinHandle::join);
                ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
                Ok(Some(mailbox.dropped()))
            }
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        if let Kind::Mailbox { mailbox, thread } = &mut self.kind {
            // A thread that finds its mailbox closed ends; whatever it says is of no use any more.
            mailbox.close();
            thread.take().map(JoinHandle::join);
        }
    }
}

impl Kind {
    fn in_mailbox(
        name: &str,
        stop: Stop,
        fill: impl FnOnce(&Mailbox<Result<Frame, MediaError>>, &Stop) -> Result<(), FeedError> + Send + 'static,
    ) -> Result<Self, FeedError> {
        let mailbox = Arc::new(Mailbox::new(MAILBOX_DEPTH));
        let filled = Arc::clone(&mailbox);
        let body = move || {
            let ended = fill(&filled, &stop);
            filled.close();
            ended
        };
        let thread = thread::Builder::new().name(name.into()).spawn(body).map_err(FeedError::Thread)?;
        Ok(Kind::Mailbox { mailbox, thread: Some(thread) })
    }
}

/// A recording at its own pace, from its first frame on.
fn play(
    mut source: Box<dyn FrameSource>,
    limit: u64,
    mailbox: &Mailbox<Result<Frame, MediaError>>,
    stop: &Stop,
) {
    // Closed: nobody takes what is put.
    let stopped = || stop.is_set() || mailbox.is_closed();
    let mut spare = Frame::default();
    let mut clock: Option<(Instant, f64)> = None;
    for _ in 0..limit {
        let Some(read) = source.read_into(&mut spare).filter(|_| !stopped()) else { break };
        let item = read.map(|()| {
            let (start, first_s) = *clock.get_or_insert((Instant::now(), spare.timestamp_s));
            let due = Duration::try_from_secs_f64(spare.timestamp_s - first_s).unwrap_or_default();
            wait_until(start + due, &stopped);
            std::mem::take(&mut spare)
        });
        if let Some(Ok(pushed_out)) = mailbox.put(item) {
            spare = pushed_out;
        }
    }
}

/// A scanner's frames, until it is gone or nobody takes them.
fn listen(
    mut receiver: Receiver,
    mailbox: &Mailbox<Result<Frame, MediaError>>,
    stop: &Stop,
) -> Result<(), FeedError> {
    let mut frames = 0u64;
    while !stop.is_set() && !mailbox.is_closed() {
        match receiver.next(TICK) {
            Ok(Received::Frame(mut frame)) => {
                frames += 1;
                let poses = receiver.state().with_poses(|book| book.at(frame.pose_time()));
                mailbox.put(Ok(frame.take_frame(&poses)));
                frame.ticket.answered();
            }
            Ok(Received::ConnectFailed(ConnectError::Connect { address, source })) => {
                return Err(FeedError::Connect { address, kind: source.kind() });
            }
            Ok(Received::ConnectFailed(error)) => return Err(error.into()),
            Ok(Received::Disconnected { reason, .. }) if frames == 0 => {
                return Err(FeedError::NoFrame { url: receiver.state().link.url(), reason });
            }
            Ok(Received::Disconnected { reason, .. }) => {
                if !matches!(reason, Disconnect::PeerClosed | Disconnect::Shutdown) {
                    tracing::warn!("the scanner's stream ended: {reason}");
                }
                return Ok(());
            }
            Ok(_) | Err(RecvError::Timeout) => {}
            Err(RecvError::Closed) => return Ok(()),
        }
    }
    Ok(())
}
