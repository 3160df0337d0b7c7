//! The connection to the scanner: the gateway connects to it, or waits for it.

use std::net::SocketAddr;
use std::time::Duration;

use thiserror::Error;
use ultramotion_igtlink::{
    Client, ClientEvent, ClientId, ConnectError, DecodeError, Disconnect, Message, RawMessage, RecvError,
    Refusal, RejectCounts, Server, ServerError, ServerEvent, StreamError, TrafficCounts,
};

use crate::config::{ConfigError, SourceConfig};
use crate::receive::greeting::sign_of_life;

/// Why a source cannot be opened.
#[derive(Debug, Error)]
pub enum LinkError {
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address cannot be listened on.
    #[error("source.listen: {0}; choose another address or stop the process using it")]
    Listen(#[from] ServerError),
    /// There can be no thread.
    #[error("cannot start a thread for the source: {0}")]
    Thread(std::io::Error),
}

/// Something that happened on the link.
#[derive(Debug)]
pub enum LinkEvent {
    /// A scanner is there.
    Connected {
        /// Its connection; `None` is the only one, where the gateway connects.
        client: Option<ClientId>,
        /// Its address.
        peer: SocketAddr,
    },
    /// A message came.
    Message {
        /// On which connection.
        client: Option<ClientId>,
        /// The message.
        raw: RawMessage,
    },
    /// Something came that is no message.
    Rejected(StreamError),
    /// A connection ended.
    Disconnected {
        /// Which.
        client: Option<ClientId>,
        /// Why.
        reason: Disconnect,
    },
    /// No connection could be made; the next attempt follows by itself.
    ConnectFailed(ConnectError),
    /// Somebody was turned away.
    Refused {
        /// Their address.
        peer: SocketAddr,
        /// Why.
        why: Refusal,
    },
}

/// A link's numbers so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Whether there is a connection now.
    pub connected: bool,
    /// Connections made.
    pub connects: u64,
    /// Attempts that failed.
    pub connect_failures: u64,
    /// Messages that came.
    pub messages: u64,
    /// Messages that had to go because the receiving stage was slow.
    pub evicted: u64,
    /// What was rejected.
    pub rejects: RejectCounts,
}

/// The connection to the scanner.
#[derive(Debug)]
pub enum Link {
    /// The gateway connects, and connects again.
    Client(Client, String),
    /// The scanner connects.
    Server(Server),
}

impl Link {
    /// Starts to connect, or to listen.
    pub fn open(config: &SourceConfig) -> Result<Self, LinkError> {
        config.validate()?;
        Ok(match config.listen {
            Some(address) => {
                let server = Server::start(config.server(address)?)?;
                // A STATUS without words always makes a message.
                let _ = server.set_keep_alive(&sign_of_life(config));
                Link::Server(server)
            }
            None => {
                let client = Client::start(config.client()).map_err(LinkError::Thread)?;
                let _ = client.set_keep_alive(&sign_of_life(config));
                Link::Client(client, config.connect.clone())
            }
        })
    }

    /// As a URL, without a device.
    pub fn url(&self) -> String {
        match self {
            Link::Client(_, address) => format!("igtl://{address}"),
            Link::Server(server) => match server.local_addrs() {
                [address, ..] => format!("igtl://{address}"),
                [] => "igtl://".to_owned(),
            },
        }
    }

    /// Where it listens, if it does.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Link::Client(..) => None,
            Link::Server(server) => server.local_addrs().first().copied(),
        }
    }

    /// The next event, waiting for it at most so long.
    pub fn next(&self, timeout: Duration) -> Result<LinkEvent, RecvError> {
        Ok(match self {
            Link::Client(client, _) => match client.recv_timeout(timeout)? {
                ClientEvent::Connected { peer } => LinkEvent::Connected { client: None, peer },
                ClientEvent::Message(raw) => LinkEvent::Message { client: None, raw },
                ClientEvent::Rejected(error) => LinkEvent::Rejected(error),
                ClientEvent::Disconnected { reason } => LinkEvent::Disconnected { client: None, reason },
                ClientEvent::ConnectFailed { error, .. } => LinkEvent::ConnectFailed(error),
            },
            Link::Server(server) => match server.recv_timeout(timeout)? {
                ServerEvent::Connected { client, peer } => {
                    LinkEvent::Connected { client: Some(client), peer }
                }
                ServerEvent::Message { client, raw } => LinkEvent::Message { client: Some(client), raw },
                ServerEvent::Rejected { error, .. } => LinkEvent::Rejected(error),
                ServerEvent::Disconnected { client, reason } => {
                    LinkEvent::Disconnected { client: Some(client), reason }
                }
                ServerEvent::Refused { peer, why } => LinkEvent::Refused { peer, why },
            },
        })
    }

    /// Puts a message into the queue for the scanner, if the gateway is the one that connects.
    pub fn send(&self, message: &Message<'_>) {
        if let Link::Client(client, _) = self {
            // Fails when the scanner is gone again, which it will be told anew when it is back.
            let _ = client.send(message);
        }
    }

    /// Counts a message whose body turned out to be no message of its type.
    pub fn count_rejected(&self, error: &DecodeError) {
        match self {
            Link::Client(client, _) => client.count_rejected(error),
            Link::Server(server) => server.count_rejected(error),
        }
    }

    /// The numbers so far.
    pub fn stats(&self) -> LinkStats {
        let with = |traffic: TrafficCounts| LinkStats {
            messages: traffic.messages_in,
            evicted: traffic.dropped_in,
            rejects: traffic.rejects,
            ..LinkStats::default()
        };
        match self {
            Link::Client(client, _) => {
                let stats = client.stats();
                LinkStats {
                    connected: client.wait_connected(Duration::ZERO),
                    connects: stats.connects,
                    connect_failures: stats.connect_failures,
                    ..with(stats.traffic)
                }
            }
            Link::Server(server) => {
                let stats = server.stats();
                LinkStats { connected: stats.clients > 0, connects: stats.accepted, ..with(stats.traffic) }
            }
        }
    }
}
