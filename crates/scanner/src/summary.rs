//! The books.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::compose::{Fault, Kind};

/// What became of everything. A message is counted once for each client that it was meant for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The address listened on.
    pub listen: String,
    /// The source.
    pub source: String,
    /// Time from the first frame on.
    pub seconds: f64,
    /// Frames of the source.
    pub frames: FrameCounts,
    /// IMAGE messages.
    pub images: MessageCounts,
    /// TRANSFORM or TDATA messages.
    pub poses: MessageCounts,
    /// Clients.
    pub connections: ConnectionCounts,
    /// What clients sent.
    pub heard: HeardCounts,
}

/// Frames of the source: `made = dropped + unheard + those whose messages were offered to clients`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct FrameCounts {
    /// Frames whose turn came.
    pub made: u64,
    /// Of these, left out on purpose.
    pub dropped: u64,
    /// Of these, not left out, but nobody was connected.
    pub unheard: u64,
    /// Of these, those that came later than the next was due; the clock was set back by as much.
    pub late: u64,
    /// Frames that the source could not read.
    pub unreadable: u64,
}

/// Messages of a kind: `offered = sent + bad_crc + halved + skipped + lost`, once all connections have ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct MessageCounts {
    /// Messages meant for a client that was connected.
    pub offered: u64,
    /// Sent as they should be.
    pub sent: u64,
    /// Sent with a bit turned.
    pub bad_crc: u64,
    /// Sent in part.
    pub halved: u64,
    /// Not sent because too much was waiting for this client.
    pub skipped: u64,
    /// Not sent, or not wholly, because the connection ended first.
    pub lost: u64,
}

/// Clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct ConnectionCounts {
    /// Connections taken.
    pub accepted: u64,
    /// Connections turned away, because there were too many.
    pub refused: u64,
    /// Connections ended between two messages, on purpose.
    pub cut: u64,
    /// Connections ended inside a message, on purpose.
    pub halved: u64,
    /// Connections that the client ended.
    pub left: u64,
    /// Connections ended because the client took nothing for too long.
    pub stalled: u64,
    /// How long it took until a client came back after a connection was ended on purpose.
    pub reconnects: Reconnects,
}

/// Times to reconnect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Reconnects {
    /// How many.
    pub count: u64,
    /// Their mean.
    pub mean_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl Reconnects {
    pub(crate) fn add(&mut self, time: Duration) {
        let ms = time.as_secs_f64() * 1e3;
        self.mean_ms += (ms - self.mean_ms) / (self.count + 1) as f64;
        self.max_ms = self.max_ms.max(ms);
        self.count += 1;
    }
}

/// What clients sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct HeardCounts {
    /// Whole messages.
    pub messages: u64,
    /// What was no message.
    pub rejected: u64,
}

/// The part of the books that connections keep.
#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) images: MessageCounts,
    pub(crate) poses: MessageCounts,
    pub(crate) connections: ConnectionCounts,
    pub(crate) heard: HeardCounts,
    /// When connections were ended on purpose, of those whose clients are not back yet.
    pub(crate) away: std::collections::VecDeque<Instant>,
}

impl Books {
    pub(crate) fn of(&mut self, kind: Kind) -> &mut MessageCounts {
        match kind {
            Kind::Image => &mut self.images,
            Kind::Pose => &mut self.poses,
        }
    }

    pub(crate) fn sent(&mut self, kind: Kind, fault: Fault) {
        let counts = self.of(kind);
        match fault {
            Fault::None => counts.sent += 1,
            Fault::BadCrc => counts.bad_crc += 1,
            Fault::Half(_) => counts.halved += 1,
        }
    }

    pub(crate) fn came(&mut self) {
        self.connections.accepted += 1;
        if let Some(since) = self.away.pop_front() {
            self.connections.reconnects.add(since.elapsed());
        }
    }

    pub(crate) fn sent_away(&mut self) {
        // More than there can be clients at a time are nobody's.
        self.away.truncate(super::config::MAX_CLIENTS - 1);
        self.away.push_back(Instant::now());
    }
}
