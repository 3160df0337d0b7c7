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
}

impl Guests {
    /// A client came.
    pub(crate) fn came(&mut self, client: ClientId, address: IpAddr) {
        self.present.insert(client, Guest { address, since: Instant::now(), speaks_version_2: false });
    }

    /// It sent a message.
    pub(crate) fn heard(&mut self, client: ClientId, version: HeaderVersion) {
        if let Some(guest) = self.present.get_mut(&client) {
            guest.speaks_version_2 |= version.is_extended();
        }
    }

    /// It went. If clients of its address do so again and again right after they came, without a word in header version
    /// 2, the address: they seem not to know that version.
    pub(crate) fn gone(&mut self, client: ClientId, reason: Disconnect) -> Option<IpAddr> {
        let guest = self.present.remove(&client)?;
        let by_itself = matches!(reason, Disconnect::PeerClosed | Disconnect::MidMessage | Disconnect::Io(_));
        if !by_itself || guest.speaks_version_2 || guest.since.elapsed() >= SHORT {
            self.early.remove(&guest.address);
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
