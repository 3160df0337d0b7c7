//! Who is connected to the source, and whose images are taken.
//!
//! Where the gateway connects there is one peer. Where it listens there may be several, such as a scanner and a tracker:
//! each has its own session, and the frames are those of one device of one of them, until that one goes or falls silent.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ultramotion_igtlink::{ClientId, DeviceName};

use crate::receive::backlog::Backlog;
use crate::receive::source_clock::SourceClock;

/// A connection; `None` is the only one, where the gateway connects.
pub(super) type PeerId = Option<ClientId>;

/// Images of another connection are taken after those of the one so far have not come for so long.
const SILENT: Duration = Duration::from_secs(2);
/// Sessions that are kept. More are those of peers of whose end nothing was heard, and the oldest go first.
const MAX_SESSIONS: usize = 64;

/// What is noted of a connection.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) since: Instant,
    /// Whether a message of header version 2 came.
    pub(super) speaks_version_2: bool,
    pub(super) images: u64,
    /// Messages with pictures in a form that is not read.
    pub(super) unread: u64,
    pub(super) backlog: Option<Backlog>,
    pub(super) clock: SourceClock,
}

/// All connections.
#[derive(Debug)]
pub(super) struct Peers {
    sessions: BTreeMap<PeerId, Session>,
    taken: Option<Taken>,
    /// The configured device; empty for any.
    wanted: DeviceName,
    /// A frame that is older when a connection begins is old.
    pub(super) max_lag: Option<Duration>,
}

/// Whose images are taken.
#[derive(Debug)]
struct Taken {
    peer: PeerId,
    device: DeviceName,
    last: Instant,
}

impl Peers {
    pub(super) fn new(wanted: DeviceName) -> Self {
        Peers { sessions: BTreeMap::new(), taken: None, wanted, max_lag: None }
    }

    /// A connection begins; says whether it is the only one.
    pub(super) fn came(&mut self, peer: PeerId) -> bool {
        self.sessions.remove(&peer);
        self.session(peer);
        self.sessions.len() == 1
    }

    /// A connection ended; says whether the images were its, or nobody is left.
    pub(super) fn gone(&mut self, peer: PeerId) -> bool {
        self.sessions.remove(&peer);
        let was_taken = self.taken.take_if(|taken| taken.peer == peer).is_some();
        was_taken || self.sessions.is_empty()
    }

    pub(super) fn session(&mut self, peer: PeerId) -> &mut Session {
        if self.sessions.len() >= MAX_SESSIONS && !self.sessions.contains_key(&peer) {
            self.sessions.pop_first();
        }
        let backlog = self.max_lag.map(Backlog::new);
        let new = || Session {
            since: Instant::now(),
            speaks_version_2: false,
            images: 0,
            unread: 0,
            backlog,
            clock: SourceClock::new(),
        };
        self.sessions.entry(peer).or_insert_with(new)
    }

    /// Whether an image of this device is taken that comes on this connection now. The configured device is; if there
    /// is none, the first one that was seen. The same device of a second connection is not.
    pub(super) fn takes(&mut self, peer: PeerId, device: DeviceName, now: Instant) -> bool {
        if !self.wanted.is_empty() && device != self.wanted {
            return false;
        }
        let others = self.taken.as_ref().filter(|taken| (taken.peer, taken.device) != (peer, device));
        if others.is_some_and(|t| t.peer == peer || now.saturating_duration_since(t.last) < SILENT) {
            return false;
        }
        self.taken = Some(Taken { peer, device, last: now });
        true
    }

    /// The device whose images are taken.
    pub(super) fn taken(&self) -> Option<DeviceName> {
        self.taken.as_ref().map(|taken| taken.device)
    }
}
