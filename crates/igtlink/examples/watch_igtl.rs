//! Connects to a server, PlusServer for one, and prints a line for each message, for ever.
//!
//! ```text
//! cargo run --release -p ultramotion-igtlink --example watch_igtl -- localhost:18944
//! ```
#![allow(clippy::print_stdout)]

use ultramotion_igtlink::{Client, ClientConfig, ClientEvent};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "localhost:18944".into());
    let client = Client::start(ClientConfig::new(address))?;
    loop {
        match client.recv()? {
            ClientEvent::Connected { peer } => println!("connected to {peer}"),
            ClientEvent::Message(raw) => match raw.decode() {
                Ok(message) => println!("{message}"),
                Err(error) => println!("{}: {error}", raw.header().device_name),
            },
            ClientEvent::Rejected(error) => println!("rejected: {error}"),
            ClientEvent::Disconnected { reason } => println!("disconnected: {reason}"),
            ClientEvent::ConnectFailed { error, retry_in } => println!("{error}; again in {retry_in:?}"),
        }
    }
}
