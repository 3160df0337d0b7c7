//! The service between a scanner and clients, over real sockets on this machine.
//!
//! The networks are the untrained ones at their least sizes: they find noise, but the same noise each time. Nothing
//! here sleeps: a test waits for a message or a figure, for so long that only a defect makes it fail.
#![allow(clippy::unwrap_used)]

mod bench;
mod dialogue;
#[cfg(target_os = "linux")]
#[path = "../../../pipeline/tests/driver/mod.rs"]
mod driver;
mod hostile;
mod page;
mod plus;
mod recording;
mod results;
mod safety;
mod stages;
