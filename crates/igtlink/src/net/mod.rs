//! Sockets: a [`Client`] that keeps itself connected, and a [`Server`] for several peers.
//!
//! Both run on threads of the standard library, one to read and one to write for each connection,
//! and talk to their owner through bounded queues: what comes in waits as events until it is
//! taken, what goes out waits until its peer takes it. A full queue lets its oldest message go and
//! counts it, so a slow peer or a slow owner loses messages and never holds up another.
//!
//! ```
//! use std::time::Duration;
//! use ultramotion_igtlink::*;
//!
//! let server = Server::start(ServerConfig::listening_on("127.0.0.1:0".parse()?))?;
//! let client = Client::start(ClientConfig::new(server.local_addrs()[0].to_string()))?;
//! while !matches!(client.recv_timeout(Duration::from_secs(5))?, ClientEvent::Connected { .. }) {}
//!
//! // One way …
//! client.send(&Message::new("Question".parse()?, Content::string("anyone there?")))?;
//! let from = loop {
//!     if let ServerEvent::Message { client, raw } = server.recv_timeout(Duration::from_secs(5))? {
//!         assert_eq!(raw.decode()?.device_name, "Question");
//!         break client;
//!     }
//! };
//! // … and the other.
//! server.send_to(from, &Message::new("Answer".parse()?, Content::string("yes")))?;
//! loop {
//!     if let ClientEvent::Message(raw) = client.recv_timeout(Duration::from_secs(5))? {
//!         assert_eq!(raw.decode()?.device_name, "Answer");
//!         break;
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod allow;
mod budget;
mod client;
mod link;
mod mailbox;
mod server;

pub use allow::{AllowList, AllowListError};
pub use budget::Budget;
pub use client::{Client, ClientConfig, ClientEvent, ClientStats, ConnectError, SendError};
pub use link::{Disconnect, TrafficCounts};
pub use mailbox::RecvError;
pub use server::{
    ClientId, ClientInfo, Refusal, Server, ServerConfig, ServerError, ServerEvent, ServerStats,
};

/// The port that OpenIGTLink servers listen on by custom.
pub const DEFAULT_PORT: u16 = 18944;
