//! A server for several clients.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::error::{DecodeError, EncodeError};
use crate::message::Message;
use crate::net::DEFAULT_PORT;
use crate::net::allow::AllowList;
use crate::net::budget::Budget;
use crate::net::client::SendError;
use crate::net::link::{
    self, Disconnect, EncodeBuffers, KeepAlive, LinkConfig, Outgoing, SendQueue, Traffic, TrafficCounts,
    prepare,
};
use crate::net::mailbox::{Mailbox, Pushed, RecvError};
use crate::stream::{DecoderConfig, RawMessage, StreamError};

/// How a [`Server`] works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// Addresses to listen on; port 0 takes any free one. `127.0.0.1:18944` by default: nobody
    /// outside this machine reaches that. `0.0.0.0` and `[::]` are everyone's.
    pub listen: Vec<SocketAddr>,
    /// From where connections are taken. From everywhere.
    pub allow: AllowList,
    /// Most clients at a time. 16.
    pub max_clients: usize,
    /// Most clients of one address at a time. 8.
    pub max_clients_per_address: usize,
    /// Where there is no room, let go the client that is there longest without having sent a whole
    /// message, and turn away who comes only if there is none. Off: most only listen.
    pub displace_silent: bool,
    /// Messages that are read from a client in a second; more wait at its end. Any number.
    pub max_messages_per_s: Option<u32>,
    /// Disconnect a client that sends no whole message for so long. Off: most only listen.
    pub idle_timeout: Option<Duration>,
    /// Disconnect a client that takes nothing for so long. 10 s.
    pub stall_timeout: Option<Duration>,
    /// Send a STATUS message to a client that was sent nothing else for so long. Off; PlusServer
    /// has 0.25 s.
    pub keep_alive: Option<Duration>,
    /// Messages that may wait for each client. 16.
    pub send_queue: usize,
    /// Events that may wait to be taken. 64.
    pub receive_queue: usize,
    /// Bytes that the messages among them may have together. 256 MiB.
    pub receive_queue_bytes: usize,
    /// How the streams are cut.
    pub decoder: DecoderConfig,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self::listening_on(SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)))
    }
}

impl ServerConfig {
    /// The defaults on this address.
    pub fn listening_on(address: SocketAddr) -> Self {
        Self {
            listen: vec![address],
            allow: AllowList::any(),
            max_clients: 16,
            max_clients_per_address: 8,
            displace_silent: false,
            max_messages_per_s: None,
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
            max_messages_per_s: self.max_messages_per_s,
        }
    }
}

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// No address was given.
    #[error("there is no address to listen on")]
    NoAddress,
    /// An address cannot be listened on: it is in use, or not this machine's.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
    /// There can be no thread.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// A client of a server; never used again for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(u64);

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Why a client was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is not in the allow-list.
    NotAllowed,
    /// There are [`ServerConfig::max_clients`].
    Full,
    /// There are [`ServerConfig::max_clients_per_address`] of its address.
    AddressFull,
}

/// Something that happened to a [`Server`].
#[derive(Debug)]
pub enum ServerEvent {
    /// A client came.
    Connected {
        /// Its number.
        client: ClientId,
        /// Its address.
        peer: SocketAddr,
    },
    /// A client was turned away. Where many are, not each is told of: [`ServerStats::refused`] counts.
    Refused {
        /// Its address.
        peer: SocketAddr,
        /// Why.
        why: Refusal,
    },
    /// A message came.
    Message {
        /// From whom.
        client: ClientId,
        /// The message.
        raw: RawMessage,
    },
    /// Something came that is no message.
    Rejected {
        /// From whom.
        client: ClientId,
        /// What is wrong with it.
        error: StreamError,
    },
    /// A client went.
    Disconnected {
        /// Its number.
        client: ClientId,
        /// Why.
        reason: Disconnect,
    },
}

/// A connected client's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientInfo {
    /// Its number.
    pub id: ClientId,
    /// Its address.
    pub peer: SocketAddr,
    /// Messages that wait for it.
    pub queued: usize,
    /// Messages sent to it.
    pub sent: u64,
    /// Messages that had to go because it was slow.
    pub dropped: u64,
}

/// A server's numbers so far, over all clients there were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ServerStats {
    /// Clients now.
    pub clients: usize,
    /// Connections taken.
    pub accepted: u64,
    /// Connections turned away.
    pub refused: u64,
    /// What went in and out.
    pub traffic: TrafficCounts,
}

/// Sends messages to all who connect, and takes theirs.
///
/// Dropping it disconnects all clients. See [`net`](crate::net) for an example.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    local_addrs: Vec<SocketAddr>,
    listeners: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    config: ServerConfig,
    events: Mailbox<ServerEvent>,
    state: Mutex<State>,
    changed: Condvar,
    buffers: EncodeBuffers,
    traffic: Traffic,
    keep_alive: Arc<KeepAlive>,
    accepted: AtomicU64,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    clients: BTreeMap<ClientId, Link>,
    next_id: u64,
    threads: Vec<JoinHandle<()>>,
    stopping: bool,
}

#[derive(Debug)]
struct Link {
    peer: SocketAddr,
    stream: TcpStream,
    queue: Arc<SendQueue>,
    /// Whether a whole message came.
    has_spoken: Arc<AtomicBool>,
}

impl Server {
    /// How long [`Server::shutdown`] waits for what is still to be sent.
    const GRACE: Duration = Duration::from_millis(400);

    /// Connections that are taken or turned away in a second at each address; more wait in [`Self::BACKLOG`].
    const MAX_ARRIVALS_PER_S: u32 = 200;

    /// Connections that the operating system may keep for us.
    const BACKLOG: i32 = 128;

    /// Listens on all addresses, or fails for the first that cannot be.
    pub fn start(config: ServerConfig) -> Result<Self, ServerError> {
        if config.listen.is_empty() {
            return Err(ServerError::NoAddress);
        }
        let mut sockets = Vec::new();
        let mut local_addrs = Vec::new();
        for &address in &config.listen {
            let failed = |source| ServerError::Listen { address, source };
            let socket = listen(address).map_err(failed)?;
            local_addrs.push(socket.local_addr().map_err(failed)?);
            sockets.push(socket);
        }
        let shared = Arc::new(Shared {
            events: Mailbox::new(config.receive_queue, config.receive_queue_bytes),
            config,
            state: Mutex::default(),
            changed: Condvar::new(),
            buffers: EncodeBuffers::default(),
            traffic: Traffic::default(),
            keep_alive: Arc::default(),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        });
        let mut server = Self { shared, local_addrs, listeners: Vec::new() };
        for socket in sockets {
            let shared = Arc::clone(&server.shared);
            let thread = thread::Builder::new().name("igtl-listen".into());
            // If this fails, dropping `server` ends the threads that run already.
            let thread =
                thread.spawn(move || Shared::accept(&shared, &socket)).map_err(ServerError::Thread)?;
            server.listeners.push(thread);
        }
        Ok(server)
    }

    /// The addresses listened on, with their real ports, in the order of the configuration.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.local_addrs
    }

    /// The next event, waiting for it at most so long.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<ServerEvent, RecvError> {
        self.shared.events.pop(Some(timeout))
    }

    /// The next event, waiting for it as long as it takes.
    pub fn recv(&self) -> Result<ServerEvent, RecvError> {
        self.shared.events.pop(None)
    }

    /// Waits at most so long until there are this many clients, and says whether there are. Takes
    /// no event.
    pub fn wait_clients(&self, count: usize, timeout: Duration) -> bool {
        self.shared.wait(timeout, |state| state.clients.len() >= count).clients.len() >= count
    }

    /// Puts a message into the queues of all clients, and says how many they are. It is encoded
    /// once. A full queue lets its oldest message go.
    pub fn broadcast(&self, message: &Message<'_>) -> Result<usize, EncodeError> {
        self.broadcast_to(message, |_| true)
    }

    /// Puts a message into the queues of some clients, and says how many they are.
    pub fn broadcast_to(
        &self,
        message: &Message<'_>,
        chosen: impl Fn(ClientId) -> bool,
    ) -> Result<usize, EncodeError> {
        Ok(self.queue_for(&self.shared.buffers.message(message)?, chosen))
    }

    /// Puts a message that came from elsewhere into the queues of all clients, as it is.
    pub fn broadcast_raw(&self, raw: &RawMessage) -> usize {
        self.broadcast_raw_to(raw, |_| true)
    }

    /// Puts a message that came from elsewhere into the queues of some clients, as it is.
    pub fn broadcast_raw_to(&self, raw: &RawMessage, chosen: impl Fn(ClientId) -> bool) -> usize {
        self.queue_for(&self.shared.buffers.raw(raw), chosen)
    }

    /// Puts a message into the queue of one client.
    pub fn send_to(&self, client: ClientId, message: &Message<'_>) -> Result<(), SendError> {
        let bytes = self.shared.buffers.message(message)?;
        let state = self.shared.lock();
        match state.clients.get(&client) {
            Some(link) if link.queue.push(bytes, &self.shared.traffic) => Ok(()),
            _ => Err(SendError::NotConnected),
        }
    }

    fn queue_for(&self, bytes: &Outgoing, chosen: impl Fn(ClientId) -> bool) -> usize {
        let state = self.shared.lock();
        let push = |link: &&Link| link.queue.push(Arc::clone(bytes), &self.shared.traffic);
        let links = state.clients.iter().filter(|(client, _)| chosen(**client)).map(|(_, link)| link);
        links.filter(push).count()
    }

    /// Ends the connection to a client; it may connect again.
    pub fn disconnect(&self, client: ClientId) {
        if let Some(link) = self.shared.lock().clients.get(&client) {
            link.queue.close();
        }
    }

    /// The clients now.
    pub fn clients(&self) -> Vec<ClientInfo> {
        let info = |(&id, link): (&ClientId, &Link)| ClientInfo {
            id,
            peer: link.peer,
            queued: link.queue.len(),
            sent: link.queue.sent.load(Relaxed),
            dropped: link.queue.dropped.load(Relaxed),
        };
        self.shared.lock().clients.iter().map(info).collect()
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
    pub fn stats(&self) -> ServerStats {
        ServerStats {
            clients: self.shared.lock().clients.len(),
            accepted: self.shared.accepted.load(Relaxed),
            refused: self.shared.refused.load(Relaxed),
            traffic: self.shared.traffic.counts(),
        }
    }

    /// Takes no more clients, sends what waits, for a moment at most, and disconnects all.
    pub fn shutdown(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        let mut state = self.shared.lock();
        state.stopping = true;
        state.clients.values().for_each(|link| link.queue.close());
        drop(state);
        for (thread, &address) in self.listeners.drain(..).zip(&self.local_addrs) {
            // A listener waits for a connection, so it gets one. If it cannot, it is left alone.
            if TcpStream::connect_timeout(&reachable(address), Self::GRACE).is_ok() {
                let _ = thread.join();
            }
        }
        let mut state = self.shared.wait(Self::GRACE, |state| state.clients.is_empty());
        state.clients.values().for_each(|link| drop(link.stream.shutdown(Shutdown::Both)));
        let threads = std::mem::take(&mut state.threads);
        drop(state);
        threads.into_iter().for_each(|thread| drop(thread.join()));
        self.shared.events.close();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An address at which a listener on `address` can be reached from this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // So that `0.0.0.0` and `[::]` can be listened on side by side, on every system.
        socket.set_only_v6(true)?;
    }
    // A restarted server takes its port back at once. On Windows the option means to share it.
    #[cfg(not(windows))]
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(Server::BACKLOG)?;
    Ok(socket.into())
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

    fn tell(&self, event: ServerEvent) {
        // Clients come and go rarely; when there is no room, a message goes.
        let bytes = if let ServerEvent::Message { raw, .. } = &event { raw.body().len() } else { 0 };
        let pushed = self.events.push(event, bytes, |event| matches!(event, ServerEvent::Message { .. }));
        if let Pushed::Stored { evicted } = pushed {
            self.traffic.drop_in(evicted);
        }
    }

    fn accept(shared: &Arc<Self>, socket: &TcpListener) {
        let mut arrivals = Budget::per_second(Server::MAX_ARRIVALS_PER_S);
        loop {
            let accepted = socket.accept();
            let pause = match accepted {
                Ok(_) => arrivals.take(Instant::now()),
                // The peer is gone again, or this process has too many files open: the latter
                // would make a busy loop without a pause.
                Err(_) => Duration::from_millis(50),
            };
            if shared.wait(pause, |state| state.stopping).stopping {
                return;
            }
            if let Ok((stream, peer)) = accepted {
                Self::admit(shared, stream, peer);
            }
        }
    }

    /// Why a client of this address cannot be taken, if it cannot. May let one go for it.
    fn refusal(&self, state: &mut State, address: IpAddr) -> Option<Refusal> {
        if !self.config.allow.allows(address) {
            return Some(Refusal::NotAllowed);
        }
        let of_address = |link: &&Link| link.peer.ip() == address;
        let address_full =
            state.clients.values().filter(of_address).count() >= self.config.max_clients_per_address;
        if !address_full && state.clients.len() < self.config.max_clients {
            return None;
        }
        let is_in_the_way =
            |link: &Link| (!address_full || link.peer.ip() == address) && !link.has_spoken.load(Relaxed);
        let silent = state.clients.iter().find(|(_, link)| is_in_the_way(link)).map(|(id, _)| *id);
        match silent.filter(|_| self.config.displace_silent).and_then(|id| state.clients.remove(&id)) {
            Some(link) => {
                link.queue.close();
                let _ = link.stream.shutdown(Shutdown::Both);
                None
            }
            None => Some(if address_full { Refusal::AddressFull } else { Refusal::Full }),
        }
    }

    fn admit(shared: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let mut state = shared.lock();
        if let Some(why) = shared.refusal(&mut state, peer.ip()) {
            drop(state);
            shared.refused.fetch_add(1, Relaxed);
            // A crowd at the door pushes out nothing that those inside have to say.
            if shared.events.is_roomy() {
                shared.tell(ServerEvent::Refused { peer, why });
            }
            return;
        }
        let Ok(kept) = prepare(&stream, shared.config.link()).and_then(|()| stream.try_clone()) else {
            // The peer is gone again.
            return;
        };
        let client = ClientId(state.next_id);
        state.next_id += 1;
        let queue = Arc::new(SendQueue::new(shared.config.send_queue, Arc::clone(&shared.keep_alive)));
        let has_spoken = Arc::new(AtomicBool::new(false));
        let run = Arc::clone(shared);
        let (run_queue, speaks) = (Arc::clone(&queue), Arc::clone(&has_spoken));
        let thread = thread::Builder::new().name(format!("igtl-server-{client}"));
        let Ok(thread) = thread.spawn(move || run.serve(client, &stream, &run_queue, &speaks)) else {
            return;
        };
        state.threads.retain(|thread| !thread.is_finished());
        state.threads.push(thread);
        state.clients.insert(client, Link { peer, stream: kept, queue, has_spoken });
        shared.accepted.fetch_add(1, Relaxed);
        // Told under the lock, so that it is the client's first event.
        shared.tell(ServerEvent::Connected { client, peer });
        drop(state);
        shared.changed.notify_all();
    }

    fn serve(&self, client: ClientId, stream: &TcpStream, queue: &SendQueue, has_spoken: &AtomicBool) {
        // Waits until `admit` has told of the client.
        drop(self.lock());
        let take = |result| match result {
            Ok(raw) => {
                has_spoken.store(true, Relaxed);
                self.tell(ServerEvent::Message { client, raw });
            }
            Err(error) => self.tell(ServerEvent::Rejected { client, error }),
        };
        let (config, name) = (self.config.link(), format!("igtl-server-{client}-write"));
        let reason = link::run(stream, queue, config, &self.traffic, name, take, || {});
        let mut state = self.lock();
        let displaced = state.clients.remove(&client).is_none();
        let reason = match reason {
            _ if state.stopping => Disconnect::Shutdown,
            _ if displaced => Disconnect::Displaced,
            reason => reason,
        };
        drop(state);
        self.changed.notify_all();
        self.tell(ServerEvent::Disconnected { client, reason });
    }
}
