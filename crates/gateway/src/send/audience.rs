//! Clients by the header version that they are sent.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ultramotion_igtlink::{
    ClientId, Content, DeviceName, EncodeError, FixedString, HeaderVersion, Message, Metadata, Point,
    RawMessage, Server,
};

use crate::send::relay::{Passed, Relay, RelayError};

/// Group of points that 3D Slicer shows as not selected.
pub(super) const UNSELECTED: &str = "Unselected";

/// The clients that know version 1 alone, where all others get another.
#[derive(Debug, Default)]
pub(crate) struct Audience {
    old: Mutex<BTreeSet<ClientId>>,
}

impl Audience {
    /// Notes whether a client knows version 1 alone.
    pub(crate) fn note(&self, client: ClientId, is_old: bool) {
        let mut old = self.lock();
        if is_old {
            old.insert(client);
        } else {
            old.remove(&client);
        }
    }

    /// Whether a client is taken for one that knows version 1 alone.
    pub(crate) fn is_old(&self, client: ClientId) -> bool {
        self.lock().contains(&client)
    }

    /// Sends a message to all, in the version of each.
    pub(crate) fn broadcast(&self, server: &Server, message: &Message<'_>) -> Result<(), EncodeError> {
        let old = self.lock().clone();
        server.broadcast_to(message, |client| !old.contains(&client))?;
        if !old.is_empty() {
            server.broadcast_to(&in_version_1(message), |client| old.contains(&client))?;
        }
        Ok(())
    }

    /// Sends an answer to one.
    pub(crate) fn reply(&self, server: &Server, client: ClientId, message: &Message<'_>) {
        let is_old = self.lock().contains(&client);
        // Fails when the client is gone again, which is no one's fault.
        let _ = if is_old {
            server.send_to(client, &in_version_1(message))
        } else {
            server.send_to(client, message)
        };
    }

    /// Passes a message of the source on to all, in the version of each.
    pub(crate) fn pass(&self, server: &Server, relay: &Relay, raw: &RawMessage) -> Result<(), RelayError> {
        let old = self.lock().clone();
        let to = |relay: &Relay, are_old: bool| {
            relay.pass(raw, |passed| {
                let chosen = |client| old.contains(&client) == are_old;
                match passed {
                    Passed::Raw(raw) => {
                        server.broadcast_raw_to(raw, chosen);
                        Ok(())
                    }
                    Passed::Message(message) => server.broadcast_to(message, chosen).map(drop),
                }
            })
        };
        to(relay, false)?;
        if old.is_empty() { Ok(()) } else { to(&relay.in_version_1(), true) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<ClientId>> {
        self.old.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same in version 1, which has no metadata.
pub(crate) fn in_version_1<'m>(message: &Message<'m>) -> Message<'m> {
    let mut plain = message.clone();
    plain.version = HeaderVersion::V1;
    plain.metadata = Metadata::default();
    plain.message_id = 0;
    plain.extension = std::borrow::Cow::Borrowed(&[]);
    if matches!(&plain.content, Content::Points(points) if points.is_empty()) {
        plain.content = Content::Points(vec![unseen_point(DeviceName::EMPTY, [0.0; 3])]);
    }
    plain
}

/// The reference library does not read a message without a body, and keeps the points it has. One that cannot be seen
/// replaces them.
pub(super) fn unseen_point(owner: DeviceName, position: [f32; 3]) -> Point {
    let group = FixedString::truncated(UNSELECTED);
    Point { group, rgba: [0; 4], owner, ..Point::new(FixedString::EMPTY, position) }
}
