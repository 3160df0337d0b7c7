//! One connection: reading, writing, and counting.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::content::{Content, Status};
use crate::error::EncodeError;
use crate::header::{DeviceName, HeaderVersion};
use crate::message::Message;
use crate::net::budget::Budget;
use crate::net::mailbox::{Mailbox, Pushed, RecvError};
use crate::stream::{DecoderConfig, RawMessage, RejectCounts, RejectReason, StreamDecoder, StreamError};
use crate::timestamp::Timestamp;

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disconnect {
    /// The peer closed it, between messages.
    PeerClosed,
    /// The peer closed it inside a message.
    MidMessage,
    /// No whole message came for the idle time-out.
    Idle,
    /// The peer took nothing for the stall time-out.
    Stalled,
    /// A header was bad, and the stream's position is lost.
    BadHeader(StreamError),
    /// The operating system says so.
    Io(io::ErrorKind),
    /// It was asked for.
    Shutdown,
    /// It made room for another, since it had sent no whole message.
    Displaced,
}

impl fmt::Display for Disconnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PeerClosed => f.write_str("the peer closed the connection"),
            Self::MidMessage => f.write_str("the peer closed the connection inside a message"),
            Self::Idle => f.write_str("the peer sent no whole message for too long"),
            Self::Stalled => f.write_str("the peer took nothing for too long"),
            Self::BadHeader(error) => write!(f, "the peer sent a bad header: {error}"),
            Self::Io(kind) => write!(f, "{kind}"),
            Self::Shutdown => f.write_str("the connection was shut down"),
            Self::Displaced => f.write_str("it had sent no whole message and made room for another"),
        }
    }
}

/// Traffic so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TrafficCounts {
    /// Messages received with the right checksum.
    pub messages_in: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Messages that had to go before they were taken.
    pub dropped_in: u64,
    /// Messages put into the queue of a peer.
    pub queued_out: u64,
    /// Messages handed to the operating system whole; keep-alives are not counted.
    pub messages_out: u64,
    /// Bytes handed to the operating system, keep-alives included.
    pub bytes_out: u64,
    /// Messages that had to go, or whose connection ended, before they were sent. Once all
    /// queues are empty, `queued_out` is `messages_out` plus this.
    pub dropped_out: u64,
    /// What was rejected and why.
    pub rejects: RejectCounts,
}

/// [`TrafficCounts`] that several threads add to.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    messages_in: AtomicU64,
    bytes_in: AtomicU64,
    dropped_in: AtomicU64,
    queued_out: AtomicU64,
    messages_out: AtomicU64,
    bytes_out: AtomicU64,
    dropped_out: AtomicU64,
    rejects: Mutex<RejectCounts>,
}

impl Traffic {
    pub(crate) fn drop_in(&self, messages: usize) {
        count(&self.dropped_in, messages);
    }

    pub(crate) fn reject(&self, reason: RejectReason) {
        self.rejects.lock().unwrap_or_else(PoisonError::into_inner).record(reason);
    }

    pub(crate) fn counts(&self) -> TrafficCounts {
        TrafficCounts {
            messages_in: self.messages_in.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            dropped_in: self.dropped_in.load(Relaxed),
            queued_out: self.queued_out.load(Relaxed),
            messages_out: self.messages_out.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            dropped_out: self.dropped_out.load(Relaxed),
            rejects: *self.rejects.lock().unwrap_or_else(PoisonError::into_inner),
        }
    }
}

/// Adds to a number that is only ever read as a number: no order with other memory is needed.
fn count(counter: &AtomicU64, more: usize) {
    counter.fetch_add(more as u64, Relaxed);
}

/// An encoded message, shared by all peers that it goes to.
pub(crate) type Outgoing = Arc<Vec<u8>>;

/// Messages that wait for one peer.
#[derive(Debug)]
pub(crate) struct SendQueue {
    mailbox: Mailbox<Outgoing>,
    /// What is sent when nothing has waited for a while.
    keep_alive: Arc<KeepAlive>,
    pub(crate) sent: AtomicU64,
    pub(crate) dropped: AtomicU64,
}

impl SendQueue {
    pub(crate) fn new(capacity: usize, keep_alive: Arc<KeepAlive>) -> Self {
        Self {
            mailbox: Mailbox::new(capacity, usize::MAX),
            keep_alive,
            sent: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.mailbox.len()
    }

    /// Whether the message waits now; the oldest may have gone for it.
    pub(crate) fn push(&self, message: Outgoing, traffic: &Traffic) -> bool {
        let bytes = message.len();
        let Pushed::Stored { evicted } = self.mailbox.push(message, bytes, |_| true) else { return false };
        count(&traffic.queued_out, 1);
        self.drop_counted(evicted, traffic);
        true
    }

    /// Whether it was closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.mailbox.is_closed()
    }

    /// Takes nothing more; what waits is still sent.
    pub(crate) fn close(&self) {
        self.mailbox.close();
    }

    /// Takes nothing more, and throws away what waits.
    pub(crate) fn discard(&self, traffic: &Traffic) {
        self.drop_counted(self.mailbox.discard(), traffic);
    }

    fn drop_counted(&self, messages: usize, traffic: &Traffic) {
        count(&self.dropped, messages);
        count(&traffic.dropped_out, messages);
    }
}

/// Encodes messages into buffers that are used again once all peers have taken them.
#[derive(Debug, Default)]
pub(crate) struct EncodeBuffers {
    buffers: Mutex<Vec<Outgoing>>,
}

impl EncodeBuffers {
    /// More than these are let go.
    const MAX_BUFFERS: usize = 8;

    pub(crate) fn message(&self, message: &Message<'_>) -> Result<Outgoing, EncodeError> {
        self.fill(message.encoded_len()?, |buffer| message.encode_into(buffer))
    }

    pub(crate) fn raw(&self, raw: &RawMessage) -> Outgoing {
        let Ok(bytes) = self.fill(raw.wire_len(), |buffer| {
            raw.write_to(buffer);
            Ok::<_, std::convert::Infallible>(())
        });
        bytes
    }

    fn fill<E>(&self, len: usize, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<Outgoing, E> {
        let mut bytes = self.take_free(len);
        // Nobody else has it: it was free, or is new.
        if let Some(buffer) = Arc::get_mut(&mut bytes) {
            write(buffer)?;
        }
        let mut buffers = self.lock();
        if buffers.len() < Self::MAX_BUFFERS {
            buffers.push(Arc::clone(&bytes));
        }
        Ok(bytes)
    }

    /// A buffer that nobody reads any more and that fits without wasting much, or a new one.
    fn take_free(&self, len: usize) -> Outgoing {
        let mut buffers = self.lock();
        let fits = |capacity: usize| (len..=len.saturating_mul(4).saturating_add(4096)).contains(&capacity);
        let mut free = None;
        for (index, buffer) in buffers.iter_mut().enumerate() {
            let Some(capacity) = Arc::get_mut(buffer).map(|buffer| buffer.capacity()) else { continue };
            if fits(capacity) {
                return buffers.swap_remove(index);
            }
            free = Some(index);
        }
        // An unfitting one makes room, or a change of sizes would leave nothing but such.
        if let Some(index) = free.filter(|_| buffers.len() == Self::MAX_BUFFERS) {
            buffers.swap_remove(index);
        }
        Outgoing::default()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Outgoing>> {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a connection needs to know of its configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LinkConfig {
    pub(crate) decoder: DecoderConfig,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) stall_timeout: Option<Duration>,
    pub(crate) keep_alive: Option<Duration>,
    /// Messages that are read in a second.
    pub(crate) max_messages_per_s: Option<u32>,
}

/// A time-out of zero means none to us, and is an error to the operating system.
fn nonzero(timeout: Option<Duration>) -> Option<Duration> {
    timeout.filter(|timeout| !timeout.is_zero())
}

/// Prepares a fresh connection: no delay, time-outs, and probes that find a dead peer.
pub(crate) fn prepare(stream: &TcpStream, config: LinkConfig) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(nonzero(config.idle_timeout))?;
    stream.set_write_timeout(nonzero(config.stall_timeout))?;
    let probes =
        socket2::TcpKeepalive::new().with_time(Duration::from_secs(10)).with_interval(Duration::from_secs(5));
    socket2::SockRef::from(stream).set_tcp_keepalive(&probes)
}

/// Reads and writes until the connection ends, and says why it did. `closed` runs once nothing more is read.
pub(crate) fn run(
    stream: &TcpStream,
    queue: &SendQueue,
    config: LinkConfig,
    traffic: &Traffic,
    writer_name: String,
    take: impl FnMut(Result<RawMessage, StreamError>),
    closed: impl FnOnce(),
) -> Disconnect {
    let (read, written) = thread::scope(|scope| {
        let writer = thread::Builder::new().name(writer_name);
        let writer = match writer.spawn_scoped(scope, || write_queued(stream, queue, config, traffic)) {
            Ok(writer) => writer,
            Err(error) => return (Disconnect::Io(error.kind()), None),
        };
        let read = read_messages(stream, queue, config, traffic, take);
        closed();
        // The writer may be in the middle of a message to a peer that takes nothing.
        let _ = stream.shutdown(Shutdown::Both);
        queue.discard(traffic);
        (read, writer.join().unwrap_or(None))
    });
    // When one half fails it closes the connection, which the other takes for a failure of its own;
    // only a stalled peer is seen by the writing half alone.
    if written == Some(Disconnect::Stalled) { Disconnect::Stalled } else { read }
}

/// Bytes per read; larger bodies are read straight into their buffer.
const READ_BYTES: usize = 64 << 10;
/// Bytes per read where messages wait for their turn: few of them wait here, the rest at the peer's end.
const BUDGETED_READ_BYTES: usize = 4 << 10;

/// Reads messages until the connection ends, or `queue` is closed while a message waits for its turn, and says why.
fn read_messages(
    mut stream: &TcpStream,
    queue: &SendQueue,
    config: LinkConfig,
    traffic: &Traffic,
    mut take: impl FnMut(Result<RawMessage, StreamError>),
) -> Disconnect {
    let mut decoder = StreamDecoder::new(config.decoder);
    let mut budget = config.max_messages_per_s.map(Budget::per_second);
    let mut buffer = vec![0; if budget.is_some() { BUDGETED_READ_BYTES } else { READ_BYTES }];
    let mut patience = Patience::new(nonzero(config.idle_timeout));
    let ended = loop {
        if !patience.wait_for(stream) {
            break Disconnect::Idle;
        }
        let room = decoder.body_room(READ_BYTES);
        let direct = !room.is_empty();
        let len = match stream.read(if direct { room } else { &mut buffer }) {
            Ok(0) => {
                break if decoder.pending_bytes() > 0 {
                    Disconnect::MidMessage
                } else {
                    Disconnect::PeerClosed
                };
            }
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if is_timeout(&error) => break Disconnect::Idle,
            Err(error) => break Disconnect::Io(error.kind()),
        };
        count(&traffic.bytes_in, len);
        let mut rest = if direct {
            decoder.advance(len);
            &[][..]
        } else {
            &buffer[..len]
        };
        while let Some(result) = decoder.feed(&mut rest) {
            match &result {
                Ok(_) => {
                    patience.renew();
                    count(&traffic.messages_in, 1);
                }
                Err(error) => error.reason().into_iter().for_each(|reason| traffic.reject(reason)),
            }
            let wait = budget.as_mut().map_or(Duration::ZERO, |budget| budget.take(Instant::now()));
            if !wait.is_zero() {
                thread::sleep(wait);
                if queue.is_closed() {
                    return Disconnect::Shutdown;
                }
                patience.renew();
            }
            let lost = result.as_ref().err().copied().filter(|_| decoder.is_closed());
            take(result);
            if let Some(error) = lost {
                return Disconnect::BadHeader(error);
            }
        }
    };
    if decoder.end() {
        traffic.reject(RejectReason::Truncated);
    }
    ended
}

/// How long a peer is still waited for that sends no whole message.
struct Patience {
    timeout: Option<Duration>,
    since: Instant,
    /// What the socket has.
    set: Option<Duration>,
}

impl Patience {
    fn new(timeout: Option<Duration>) -> Self {
        Self { timeout, since: Instant::now(), set: timeout }
    }

    /// A whole message came.
    fn renew(&mut self) {
        self.since = Instant::now();
    }

    /// Lets the next read wait for what is left, and says whether something is.
    fn wait_for(&mut self, stream: &TcpStream) -> bool {
        let Some(timeout) = self.timeout else { return true };
        let waited = self.since.elapsed();
        // To the sixteenth: a busy connection does not ask the operating system each time.
        let left = if waited < timeout / 16 { timeout } else { timeout.saturating_sub(waited) };
        if !left.is_zero() && self.set != Some(left) {
            // Where it fails the connection is gone, which the read says.
            let _ = stream.set_read_timeout(Some(left));
            self.set = Some(left);
        }
        !left.is_zero()
    }
}

/// Messages that go out in one call, and bytes of those behind the first: what is in work cannot make room for what is newer.
const MAX_BATCH: usize = 16;
const MAX_BATCH_BYTES: usize = 1 << 16;

/// Sends what waits until the queue is closed and empty, or the connection ends. Then everything
/// that still waits is thrown away, and the connection is closed in both directions, which ends
/// [`read_messages`] as well.
fn write_queued(
    stream: &TcpStream,
    queue: &SendQueue,
    config: LinkConfig,
    traffic: &Traffic,
) -> Option<Disconnect> {
    let mut batch = Vec::with_capacity(MAX_BATCH);
    let ended = loop {
        batch.clear();
        let counts = match queue.mailbox.pop(nonzero(config.keep_alive)) {
            Ok(message) => {
                batch.push(message);
                true
            }
            Err(RecvError::Timeout) => {
                batch.push(queue.keep_alive.message());
                false
            }
            Err(RecvError::Closed) => break None,
        };
        let mut room = if counts { MAX_BATCH_BYTES } else { 0 };
        while batch.len() < MAX_BATCH
            && let Some(message) = queue.mailbox.pop_small(room)
        {
            room -= message.len();
            batch.push(message);
        }
        let (whole, result) = write_whole(stream, &batch);
        for message in &batch[..whole] {
            count(&traffic.bytes_out, message.len());
        }
        if counts {
            count(&queue.sent, whole);
            count(&traffic.messages_out, whole);
            queue.drop_counted(batch.len() - whole, traffic);
        }
        if let Err(reason) = result {
            break Some(reason);
        }
    };
    queue.discard(traffic);
    // A connection that has ended already cannot be closed: nothing to do then.
    let _ = stream.shutdown(Shutdown::Both);
    ended
}

/// Writes messages one after the other, with as few calls as it takes. Gives how many went out whole.
fn write_whole(mut stream: &TcpStream, messages: &[Outgoing]) -> (usize, Result<(), Disconnect>) {
    let (mut whole, mut written) = (0, 0);
    loop {
        while let Some(message) = messages.get(whole).filter(|message| written >= message.len()) {
            written -= message.len();
            whole += 1;
        }
        if whole == messages.len() {
            return (whole, Ok(()));
        }
        let mut parts = [IoSlice::new(&[]); MAX_BATCH];
        let mut count = 0;
        for (part, message) in parts.iter_mut().zip(&messages[whole..]) {
            *part = IoSlice::new(if count == 0 { &message[written..] } else { message });
            count += 1;
        }
        match stream.write_vectored(&parts[..count]) {
            Ok(0) => return (whole, Err(Disconnect::PeerClosed)),
            Ok(bytes) => written += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if is_timeout(&error) => return (whole, Err(Disconnect::Stalled)),
            Err(error) => return (whole, Err(Disconnect::Io(error.kind()))),
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    // Which of the two it is depends on the operating system.
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// What a peer is sent that was sent nothing else for a while.
#[derive(Debug, Default)]
pub(crate) struct KeepAlive(Mutex<Option<Outgoing>>);

impl KeepAlive {
    /// Takes this message from now on.
    pub(crate) fn set(&self, message: &Message<'_>) -> Result<(), EncodeError> {
        let bytes = Arc::new(message.to_bytes()?);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes);
        Ok(())
    }

    fn message(&self) -> Outgoing {
        let set = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        set.unwrap_or_else(|| {
            // In header version 1, which every peer understands; PlusServer sends the same.
            let message = Message {
                version: HeaderVersion::V1,
                ..Message::new(DeviceName::EMPTY, Content::Status(Status::OK)).at(Timestamp::now())
            };
            Arc::new(message.to_bytes().unwrap_or_default())
        })
    }
}
