//! The listener, and the clients: a thread to write and one to read for each.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ultramotion_igtlink::{Budget, DecoderConfig, HeaderVersion, StreamDecoder};

use super::compose::{Bundle, Fault, Outgoing, keep_alive};
use super::config::{
    LOG, MAX_ARRIVALS_PER_S, MAX_CLIENTS, MAX_CLIENTS_PER_ADDRESS, MAX_MESSAGE_BYTES, MAX_MESSAGES_PER_S,
    SimulateError,
};
use super::summary::Books;

/// A client that was sent nothing for so long gets a STATUS (half of PlusServer's socket time-out).
const KEEP_ALIVE: Duration = Duration::from_millis(250);
/// A client that takes nothing for so long is disconnected.
const STALL: Duration = Duration::from_secs(10);
/// How long a client may take to close its end.
const GRACE: Duration = Duration::from_secs(1);

/// What waits for a client.
#[derive(Debug)]
enum Parcel {
    Frame(Arc<Bundle>),
    /// End the connection.
    End,
}

/// Everyone who listens.
#[derive(Debug)]
pub(crate) struct Connections {
    shared: Arc<Shared>,
    local_addr: SocketAddr,
    listener: Option<JoinHandle<()>>,
    queue: usize,
    /// Bundles between uses.
    bundles: Vec<Arc<Bundle>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct State {
    links: Vec<Link>,
    next_id: u64,
    /// Threads that serve a client.
    running: usize,
    stopping: bool,
}

#[derive(Debug)]
struct Link {
    id: u64,
    address: IpAddr,
    parcels: SyncSender<Parcel>,
    stream: TcpStream,
    /// It was ended with a full queue.
    blocked: Arc<AtomicBool>,
    /// It has spoken the configured header version.
    speaks: Arc<AtomicBool>,
    /// That version.
    configured: HeaderVersion,
}

impl Connections {
    /// Listens, with room for so many frames that wait for each client.
    pub(crate) fn listen(
        address: SocketAddr,
        queue: usize,
        configured: HeaderVersion,
    ) -> Result<Self, SimulateError> {
        let failed = |source| SimulateError::Listen { address, source };
        let socket = TcpListener::bind(address).map_err(failed)?;
        let local_addr = socket.local_addr().map_err(failed)?;
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        let listener = thread::Builder::new()
            .name("simulate-listen".into())
            .spawn(move || Shared::accept(&accepting, &socket, queue, configured))
            .map_err(SimulateError::Thread)?;
        Ok(Self { shared, local_addr, listener: Some(listener), queue, bundles: Vec::new() })
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// How many clients there are.
    pub(crate) fn count(&self) -> usize {
        self.shared.lock().links.len()
    }

    /// Waits at most so long until there are so many clients, and says whether there are.
    pub(crate) fn wait_for(&self, clients: usize, timeout: Duration) -> bool {
        self.shared.wait(timeout, |state| state.links.len() >= clients).links.len() >= clients
    }

    /// The books now.
    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        self.shared.books()
    }

    /// Fills a bundle that nobody reads any more, or a new one, and leaves it for every client. Says for how many.
    ///
    /// Each client gets the header version that it has spoken itself, up to the configured one, and 1 before.
    pub(crate) fn offer<E>(
        &mut self,
        mut fill: impl FnMut(HeaderVersion, &mut Bundle) -> Result<(), E>,
    ) -> Result<usize, E> {
        let heard = self.shared.versions();
        let mut filled = Vec::with_capacity(heard.len());
        for version in heard {
            let free = self.bundles.iter_mut().position(|bundle| Arc::get_mut(bundle).is_some());
            let mut bundle = free.map_or_else(Arc::default, |at| self.bundles.swap_remove(at));
            // Nobody else has it.
            if let Some(bundle) = Arc::get_mut(&mut bundle) {
                fill(version, bundle)?;
            }
            filled.push((version, bundle));
        }
        let clients = self.shared.offer(&filled);
        for (_, bundle) in filled {
            if self.bundles.len() < 2 * (self.queue + 2) {
                self.bundles.push(bundle);
            }
        }
        Ok(clients)
    }

    /// Ends all connections after what waits for them.
    pub(crate) fn cut(&self) {
        self.shared.lock().links.iter().for_each(Link::end);
    }

    /// Ends all connections after what waits for them, a moment later at the latest, and takes no new ones.
    pub(crate) fn stop(&mut self) {
        let Some(listener) = self.listener.take() else { return };
        let mut state = self.shared.lock();
        state.stopping = true;
        state.links.iter().for_each(Link::end);
        drop(state);
        // The listener waits for a connection, so it gets one. If it cannot, it is left alone.
        if TcpStream::connect_timeout(&reachable(self.local_addr), GRACE).is_ok() {
            let _ = listener.join();
        }
        let state = self.shared.wait(2 * GRACE, |state| state.running == 0);
        state.links.iter().for_each(|link| drop(link.stream.shutdown(Shutdown::Both)));
        drop(state);
        drop(self.shared.wait(GRACE, |state| state.running == 0));
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Link {
    fn version(&self) -> HeaderVersion {
        if self.speaks.load(Ordering::SeqCst) { self.configured } else { HeaderVersion::V1 }
    }

    fn end(&self) {
        if let Err(TrySendError::Full(_)) = self.parcels.try_send(Parcel::End) {
            // It does not even take what waits.
            self.blocked.store(true, Ordering::SeqCst);
            let _ = self.stream.shutdown(Shutdown::Both);
        }
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

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// As asked, between two messages.
    Cut,
    /// As asked, inside a message.
    Halved,
    /// The client took nothing for too long.
    Stalled,
    /// The client went.
    Left,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `done`, at most so long.
    fn wait(&self, timeout: Duration, done: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let state = self.lock();
        self.changed
            .wait_timeout_while(state, timeout, |state| !done(state))
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    /// The header versions that clients have spoken; version 1 if there are no clients.
    fn versions(&self) -> Vec<HeaderVersion> {
        let state = self.lock();
        let mut versions: Vec<HeaderVersion> = state.links.iter().map(Link::version).collect();
        versions.sort_unstable_by_key(|version| *version as u16);
        versions.dedup();
        if versions.is_empty() {
            versions.push(HeaderVersion::V1);
        }
        versions
    }

    fn offer(&self, bundles: &[(HeaderVersion, Arc<Bundle>)]) -> usize {
        let state = self.lock();
        let mut books = self.books();
        for link in &state.links {
            let spoken = link.version();
            // Who has come, or raised the version, since the bundles were filled gets the first of them.
            let (_, bundle) = bundles.iter().find(|(version, _)| *version == spoken).unwrap_or(&bundles[0]);
            let full = link.parcels.try_send(Parcel::Frame(Arc::clone(bundle))).is_err();
            for message in &bundle.messages {
                let counts = books.of(message.kind);
                counts.offered += 1;
                counts.skipped += u64::from(full);
            }
        }
        state.links.len()
    }

    fn accept(shared: &Arc<Self>, socket: &TcpListener, queue: usize, configured: HeaderVersion) {
        let mut arrivals = Budget::per_second(MAX_ARRIVALS_PER_S);
        loop {
            let accepted = socket.accept();
            let pause = match accepted {
                Ok(_) => arrivals.take(Instant::now()),
                // The peer is gone again, or this process has too many files open: the latter would make a busy loop
                // without a pause.
                Err(_) => Duration::from_millis(50),
            };
            if shared.wait(pause, |state| state.stopping).stopping {
                return;
            }
            let Ok((stream, peer)) = accepted else { continue };
            if let Err(error) = Self::admit(shared, stream, peer.ip(), queue, configured) {
                let mut books = shared.books();
                books.connections.refused += 1;
                if books.connections.refused == 1 {
                    tracing::warn!(%peer, %error, "turned away; others are counted");
                }
            }
        }
    }

    fn admit(
        shared: &Arc<Self>,
        stream: TcpStream,
        address: IpAddr,
        queue: usize,
        configured: HeaderVersion,
    ) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(STALL))?;
        let kept = stream.try_clone()?;
        let (parcels, waiting) = mpsc::sync_channel(queue);
        let mut state = shared.lock();
        if state.links.len() >= MAX_CLIENTS {
            return Err(io::Error::other(format!("there are {MAX_CLIENTS} clients already")));
        }
        if state.links.iter().filter(|link| link.address == address).count() >= MAX_CLIENTS_PER_ADDRESS {
            let many = format!("there are {MAX_CLIENTS_PER_ADDRESS} clients of this address already");
            return Err(io::Error::other(many));
        }
        let id = state.next_id;
        let blocked = Arc::new(AtomicBool::new(false));
        let (run, was_blocked) = (Arc::clone(shared), Arc::clone(&blocked));
        let speaks = Arc::new(AtomicBool::new(configured == HeaderVersion::V1));
        let heard = Arc::clone(&speaks);
        thread::Builder::new()
            .name(format!("simulate-{id}"))
            .spawn(move || run.serve(id, &stream, &waiting, &was_blocked, &heard))?;
        state.next_id += 1;
        state.running += 1;
        state.links.push(Link { id, address, parcels, stream: kept, blocked, speaks, configured });
        shared.books().came();
        tracing::info!(target: LOG, clients = state.links.len(), "a client came");
        drop(state);
        shared.changed.notify_all();
        Ok(())
    }

    fn serve(
        &self,
        id: u64,
        stream: &TcpStream,
        waiting: &Receiver<Parcel>,
        blocked: &AtomicBool,
        speaks: &AtomicBool,
    ) {
        // Waits until `admit` has put the link there.
        drop(self.lock());
        let (gone, client_gone) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let reader =
                thread::Builder::new().name(format!("simulate-{id}-read")).spawn_scoped(scope, move || {
                    self.listen_to(stream, speaks);
                    // Nothing more will be asked for: wakes the writer.
                    self.forget(id);
                    let _ = stream.shutdown(Shutdown::Both);
                    drop(gone);
                });
            let ended = if reader.is_ok() { self.write(stream, waiting) } else { Ended::Left };
            let stopping = self.forget(id);
            let by_us = matches!(ended, Ended::Cut | Ended::Halved);
            if by_us {
                // Noted before the client hears of it: it may be back at once.
                if !stopping {
                    self.books().sent_away();
                }
                // What was sent shall arrive, so the client's end is waited for.
                let _ = stream.shutdown(Shutdown::Write);
            }
            let mut books = self.books();
            for parcel in waiting.try_iter() {
                if let Parcel::Frame(bundle) = parcel {
                    lose(&mut books, &bundle.messages);
                }
            }
            let counts = &mut books.connections;
            match ended {
                Ended::Cut if stopping => {}
                Ended::Cut => counts.cut += 1,
                Ended::Halved => counts.halved += 1,
                Ended::Left if !blocked.load(Ordering::SeqCst) => counts.left += 1,
                Ended::Left | Ended::Stalled => counts.stalled += 1,
            }
            drop(books);
            tracing::info!(target: LOG, ?ended, "a connection ended");
            if by_us {
                let _ = client_gone.recv_timeout(GRACE);
            }
            let _ = stream.shutdown(Shutdown::Both);
        });
        self.lock().running -= 1;
        self.changed.notify_all();
    }

    /// Takes the client off the list, and says whether all are being sent home.
    fn forget(&self, id: u64) -> bool {
        let mut state = self.lock();
        state.links.retain(|link| link.id != id);
        state.stopping
    }

    /// Sends what waits until the connection ends.
    fn write(&self, stream: &TcpStream, waiting: &Receiver<Parcel>) -> Ended {
        loop {
            let bundle = match waiting.recv_timeout(KEEP_ALIVE) {
                Ok(Parcel::Frame(bundle)) => bundle,
                Ok(Parcel::End) => return Ended::Cut,
                Err(RecvTimeoutError::Disconnected) => return Ended::Left,
                Err(RecvTimeoutError::Timeout) => match write_whole(stream, &keep_alive()) {
                    Ok(()) => continue,
                    Err(ended) => return ended,
                },
            };
            for (index, message) in bundle.messages.iter().enumerate() {
                let bytes = &bundle.bytes[message.bytes.clone()];
                let part = match message.fault {
                    Fault::Half(len) => &bytes[..len],
                    _ => bytes,
                };
                let written = write_whole(stream, part);
                let mut books = self.books();
                if let Err(ended) = written {
                    lose(&mut books, &bundle.messages[index..]);
                    return ended;
                }
                books.sent(message.kind, message.fault);
                if matches!(message.fault, Fault::Half(_)) {
                    lose(&mut books, &bundle.messages[index + 1..]);
                    return Ended::Halved;
                }
            }
        }
    }

    /// Reads and counts what the client sends until it goes.
    fn listen_to(&self, mut stream: &TcpStream, speaks: &AtomicBool) {
        let config = DecoderConfig { max_body_bytes: MAX_MESSAGE_BYTES, ..DecoderConfig::default() };
        let mut decoder = StreamDecoder::new(config);
        let mut budget = Budget::per_second(MAX_MESSAGES_PER_S);
        let mut buffer = [0; 4096];
        loop {
            let mut rest = match stream.read(&mut buffer) {
                Ok(0) => return,
                Ok(len) => &buffer[..len],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            while let Some(result) = decoder.feed(&mut rest) {
                let wait = budget.take(Instant::now());
                if !wait.is_zero() && self.wait(wait, |state| state.stopping).stopping {
                    return;
                }
                let mut books = self.books();
                match result {
                    Ok(raw) => {
                        books.heard.messages += 1;
                        drop(books);
                        let header = raw.header();
                        if header.version.is_extended() {
                            speaks.store(true, Ordering::SeqCst);
                        }
                        tracing::debug!(target: LOG, message = %header.type_name, device = %header.device_name, "a client sent");
                    }
                    Err(error) => {
                        books.heard.rejected += 1;
                        drop(books);
                        tracing::debug!(target: LOG, %error, "a client sent");
                        if decoder.is_closed() {
                            return;
                        }
                    }
                }
            }
        }
    }
}

fn lose(books: &mut Books, messages: &[Outgoing]) {
    messages.iter().for_each(|message| books.of(message.kind).lost += 1);
}

fn write_whole(mut stream: &TcpStream, mut bytes: &[u8]) -> Result<(), Ended> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(0) => return Err(Ended::Left),
            Ok(len) => bytes = &bytes[len..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Which of the two it is depends on the operating system.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Err(Ended::Stalled);
            }
            Err(_) => return Err(Ended::Left),
        }
    }
    Ok(())
}
