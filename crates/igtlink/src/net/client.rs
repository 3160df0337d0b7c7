//! A client that keeps itself connected.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::error::{DecodeError, EncodeError};
use crate::message::Message;
use crate::net::link::{
    self, Disconnect, EncodeBuffers, KeepAlive, LinkConfig, Outgoing, SendQueue, Traffic, TrafficCounts,
    prepare,
};
use crate::net::mailbox::{Mailbox, Pushed, RecvError};
use crate::stream::{DecoderConfig, RawMessage, StreamError};

/// How a [`Client`] works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientConfig {
    /// Host name or address, and port: `localhost:18944`, `192.168.1.7:18944`, `[::1]:18944`.
    pub address: String,
    /// How long one address of the host may take to answer. 3 s by default.
    pub connect_timeout: Duration,
    /// Wait before the second attempt to connect; doubles with each attempt that fails. 50 ms.
    pub first_retry: Duration,
    /// Longest wait between attempts. 0.5 s.
    pub longest_retry: Duration,
    /// Disconnect, and connect again, if no whole message comes for so long. Off: not every server sends
    /// keep-alives.
    pub idle_timeout: Option<Duration>,
    /// Disconnect if the peer takes nothing for so long. 10 s.
    pub stall_timeout: Option<Duration>,
    /// Send a STATUS message if nothing else was sent for so long. Off.
    pub keep_alive: Option<Duration>,
    /// Messages that may wait to be sent. 16.
    pub send_queue: usize,
    /// Events that may wait to be taken. 64.
    pub receive_queue: usize,
    /// Bytes that the messages among them may have together. 256 MiB.
    pub receive_queue_bytes: usize,
    /// How the stream is cut.
    pub decoder: DecoderConfig,
}

impl ClientConfig {
    /// The defaults for this address.
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            connect_timeout: Duration::from_secs(3),
            first_retry: Duration::from_millis(50),
            longest_retry: Duration::from_millis(500),
            idle_timeout: None,
            stall_timeout: Some(Duration::from_secs(10)),
            keep_alive: None,
            send_queue: 16,
            receive_queue: 64,
            receive_queue_bytes: 256 << 20,
            decoder: DecoderConfig::default(),
        }
    }

    fn link(&self) -> LinkConfig {
        LinkConfig {
            decoder: self.decoder,
            idle_timeout: self.idle_timeout,
            stall_timeout: self.stall_timeout,
            keep_alive: self.keep_alive,
            max_messages_per_s: None,
        }
    }
}

/// Why a connection could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The host has no address, or the text is not of the form `host:port`.
    #[error("cannot resolve `{address}`: {source}; write it as host:port")]
    Resolve {
        /// What was to be resolved.
        address: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// No address of the host takes the connection.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// The address tried last.
        address: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
}

/// Something that happened to a [`Client`].
#[derive(Debug)]
pub enum ClientEvent {
    /// Connected; what is sent now goes out.
    Connected {
        /// To which address.
        peer: SocketAddr,
    },
    /// A message came.
    Message(RawMessage),
    /// Something came that is no message.
    Rejected(StreamError),
    /// The connection ended; a new one is being made, unless the reason is [`Disconnect::Shutdown`].
    Disconnected {
        /// Why.
        reason: Disconnect,
    },
    /// A connection could not be made.
    ConnectFailed {
        /// Why.
        error: ConnectError,
        /// When the next attempt follows.
        retry_in: Duration,
    },
}

/// Why a message was not taken for sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// There is no connection now. Nothing waits for one: it would be old when it comes.
    #[error("there is no connection")]
    NotConnected,
    /// The message cannot be written.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// A client's numbers so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClientStats {
    /// Connections made.
    pub connects: u64,
    /// Attempts that failed.
    pub connect_failures: u64,
    /// Messages that wait to be sent.
    pub queued: usize,
    /// What went in and out.
    pub traffic: TrafficCounts,
}

/// A connection to a server that is made anew whenever it is lost.
///
/// Dropping it disconnects. See [`net`](crate::net) for an example.
#[derive(Debug)]
pub struct Client {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    config: ClientConfig,
    events: Mailbox<ClientEvent>,
    state: Mutex<State>,
    changed: Condvar,
    buffers: EncodeBuffers,
    traffic: Traffic,
    keep_alive: Arc<KeepAlive>,
    connects: AtomicU64,
    connect_failures: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    link: Option<Link>,
    stopping: bool,
    finished: bool,
}

#[derive(Debug)]
struct Link {
    stream: TcpStream,
    queue: Arc<SendQueue>,
}

impl Client {
    /// How long [`Client::shutdown`] waits for what is still to be sent, and then for the thread.
    const GRACE: Duration = Duration::from_millis(400);

    /// Starts to connect, in a thread of its own. Fails only if there can be no thread.
    pub fn start(config: ClientConfig) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            events: Mailbox::new(config.receive_queue, config.receive_queue_bytes),
            config,
            state: Mutex::default(),
            changed: Condvar::new(),
            buffers: EncodeBuffers::default(),
            traffic: Traffic::default(),
            keep_alive: Arc::default(),
            connects: AtomicU64::new(0),
            connect_failures: AtomicU64::new(0),
        });
        let run = Arc::clone(&shared);
        let thread = thread::Builder::new().name("igtl-client".into()).spawn(move || run.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The next event, waiting for it at most so long.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<ClientEvent, RecvError> {
        self.shared.events.pop(Some(timeout))
    }

    /// The next event, waiting for it as long as it takes.
    pub fn recv(&self) -> Result<ClientEvent, RecvError> {
        self.shared.events.pop(None)
    }

    /// Waits for a connection at most so long, and says whether there is one. Takes no event.
    pub fn wait_connected(&self, timeout: Duration) -> bool {
        self.shared.wait(timeout, |state| state.link.is_some() || state.stopping).link.is_some()
    }

    /// Puts a message into the queue. A full queue lets its oldest message go.
    pub fn send(&self, message: &Message<'_>) -> Result<(), SendError> {
        self.queue(self.shared.buffers.message(message)?)
    }

    /// Puts a message that came from elsewhere into the queue, as it is.
    pub fn send_raw(&self, raw: &RawMessage) -> Result<(), SendError> {
        self.queue(self.shared.buffers.raw(raw))
    }

    fn queue(&self, bytes: Outgoing) -> Result<(), SendError> {
        let queue = self.shared.lock().link.as_ref().map(|link| Arc::clone(&link.queue));
        match queue {
            Some(queue) if queue.push(bytes, &self.shared.traffic) => Ok(()),
            _ => Err(SendError::NotConnected),
        }
    }

    /// Sends this message, and not a STATUS OK of header version 1, where nothing else was sent for
    /// the time of the configuration.
    pub fn set_keep_alive(&self, message: &Message<'_>) -> Result<(), EncodeError> {
        self.shared.keep_alive.set(message)
    }

    /// Counts a message whose body turned out to be no message of its type.
    pub fn count_rejected(&self, error: &DecodeError) {
        self.shared.traffic.reject(error.into());
    }

    /// The numbers so far.
    pub fn stats(&self) -> ClientStats {
        ClientStats {
            connects: self.shared.connects.load(Relaxed),
            connect_failures: self.shared.connect_failures.load(Relaxed),
            queued: self.shared.lock().link.as_ref().map_or(0, |link| link.queue.len()),
            traffic: self.shared.traffic.counts(),
        }
    }

    /// Sends what waits, for a moment at most, and disconnects.
    pub fn shutdown(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        let mut state = self.shared.lock();
        state.stopping = true;
        if let Some(link) = &state.link {
            link.queue.close();
        }
        drop(state);
        self.shared.changed.notify_all();
        let mut state = self.shared.wait(Self::GRACE, |state| state.finished);
        if let Some(link) = state.link.take() {
            let _ = link.stream.shutdown(Shutdown::Both);
        }
        drop(state);
        // A thread that waits for a name server or for an answer to a connection request cannot
        // be woken; it ends by itself, without a word, as soon as it has one.
        if self.shared.wait(Self::GRACE, |state| state.finished).finished {
            let _ = thread.join();
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `done`, at most so long.
    fn wait(&self, timeout: Duration, done: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let state = self.lock();
        self.changed
            .wait_timeout_while(state, timeout, |state| !done(state))
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    fn tell(&self, event: ClientEvent) {
        // Connections come and go rarely; when there is no room, a message goes.
        let bytes = if let ClientEvent::Message(raw) = &event { raw.body().len() } else { 0 };
        let pushed = self.events.push(event, bytes, |event| matches!(event, ClientEvent::Message(_)));
        if let Pushed::Stored { evicted } = pushed {
            self.traffic.drop_in(evicted);
        }
    }

    fn run(&self) {
        let mut retry = self.config.first_retry;
        while !self.lock().stopping {
            match self.connect() {
                Ok((stream, peer)) => {
                    self.connects.fetch_add(1, Relaxed);
                    let (bytes_before, since) = (self.traffic.counts().bytes_in, Instant::now());
                    let Some(reason) = self.serve(stream, peer) else { break };
                    self.tell(ClientEvent::Disconnected { reason });
                    // A server that takes connections only to close them is not there yet.
                    let came = self.traffic.counts().bytes_in > bytes_before;
                    if came || since.elapsed() > self.config.longest_retry {
                        retry = self.config.first_retry;
                    }
                }
                Err(error) => {
                    self.connect_failures.fetch_add(1, Relaxed);
                    self.tell(ClientEvent::ConnectFailed { error, retry_in: retry });
                }
            }
            drop(self.wait(retry, |state| state.stopping));
            retry = (retry * 2).min(self.config.longest_retry);
        }
        self.events.close();
        self.lock().finished = true;
        self.changed.notify_all();
    }

    fn connect(&self) -> Result<(TcpStream, SocketAddr), ConnectError> {
        let address = &self.config.address;
        let resolve = |source| ConnectError::Resolve { address: address.clone(), source };
        let none = || resolve(io::Error::new(io::ErrorKind::NotFound, "the host has no address"));
        let addresses = address.to_socket_addrs().map_err(resolve)?;
        let mut failed = None;
        for address in addresses {
            let connected = TcpStream::connect_timeout(&address, self.config.connect_timeout)
                .and_then(|stream| prepare(&stream, self.config.link()).map(|()| stream));
            match connected {
                Ok(stream) => return Ok((stream, address)),
                Err(source) => failed = Some(ConnectError::Connect { address, source }),
            }
        }
        Err(failed.unwrap_or_else(none))
    }

    /// Reads and writes until the connection ends. `None` if the client is stopping already.
    fn serve(&self, stream: TcpStream, peer: SocketAddr) -> Option<Disconnect> {
        let queue = Arc::new(SendQueue::new(self.config.send_queue, Arc::clone(&self.keep_alive)));
        let kept = match stream.try_clone() {
            Ok(kept) => kept,
            Err(error) => return Some(Disconnect::Io(error.kind())),
        };
        let mut state = self.lock();
        if state.stopping {
            return None;
        }
        state.link = Some(Link { stream: kept, queue: Arc::clone(&queue) });
        // Told under the lock, so that whoever hears of the connection can use it.
        self.tell(ClientEvent::Connected { peer });
        drop(state);
        self.changed.notify_all();

        let take = |result| match result {
            Ok(raw) => self.tell(ClientEvent::Message(raw)),
            Err(error) => self.tell(ClientEvent::Rejected(error)),
        };
        let (config, name) = (self.config.link(), "igtl-client-write".into());
        let reason =
            link::run(&stream, &queue, config, &self.traffic, name, take, || self.lock().link = None);
        let stopping = self.lock().stopping;
        Some(if stopping { Disconnect::Shutdown } else { reason })
    }
}
