//! Who is connected to the results, and who was not pleased with them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use ultramotion_igtlink::{ClientId, Disconnect, HeaderVersion};

/// A client that leaves so early was not pleased.
const SHORT: Duration = Duration::from_secs(2);
/// So often in a row is no accident.
const OFTEN: u32 = 2;
/// Addresses that are remembered.
const MAX_ADDRESSES: usize = 64;

/// The clients.
#[derive(Debug, Default)]
pub(crate) struct Guests {
    present: BTreeMap<ClientId, Guest>,
    /// How often in a row clients of an address left early.
    early: BTreeMap<IpAddr, u32>,
}

#[derive(Debug)]
struct Guest {
    address: IpAddr,
    since: Instant,
    speaks_version_2: bool,
    /// It was taken for one that does not know version 2.
    is_old: bool,
}

impl Guests {
    /// A client came; says whether those of its address seem not to know header version 2.
    pub(crate) fn came(&mut self, client: ClientId, address: IpAddr) -> bool {
        let is_old = self.early.get(&address).is_some_and(|times| *times >= OFTEN);
        let guest = Guest { address, since: Instant::now(), speaks_version_2: false, is_old };
        self.present.insert(client, guest);
        is_old
    }

    /// It sent a message; says whether that shows that its address does know version 2.
    pub(crate) fn heard(&mut self, client: ClientId, version: HeaderVersion) -> bool {
        let Some(guest) = self.present.get_mut(&client).filter(|_| version.is_extended()) else {
            return false;
        };
        guest.speaks_version_2 = true;
        self.early.remove(&guest.address).is_some()
    }

    /// It went. If clients of its address do so again and again right after they came, without a word in header version
    /// 2, the address: they seem not to know that version.
    pub(crate) fn gone(&mut self, client: ClientId, reason: Disconnect) -> Option<IpAddr> {
        let guest = self.present.remove(&client)?;
        let by_itself = matches!(reason, Disconnect::PeerClosed | Disconnect::MidMessage | Disconnect::Io(_));
        let stayed = guest.since.elapsed() >= SHORT;
        if guest.speaks_version_2 || (stayed && !guest.is_old) {
            self.early.remove(&guest.address);
        }
        if !by_itself || guest.speaks_version_2 || stayed {
            return None;
        }
        if self.early.len() >= MAX_ADDRESSES {
            self.early.clear();
        }
        let times = self.early.entry(guest.address).or_default();
        *times += 1;
        (*times >= OFTEN).then_some(guest.address)
    }
}
