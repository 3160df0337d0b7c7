//! A simulated scanner: frames come in from any [`FrameSource`](ultramotion_media::source::FrameSource), and go out
//! over OpenIGTLink to all who connect, as a scanner with PlusServer would send them; on request it misbehaves.
//!
//! - `config.rs`: what is sent and how, and what goes wrong on purpose.
//! - `poses.rs`: where image and probe are, of what the source knows and of stand-ins for what it does not.
//! - `compose.rs`: a frame as messages, spoiled where the dice say so. `dice.rs`: the dice.
//! - `connections.rs`: the listener, and a thread to write and one to read for each client.
//! - `play.rs`: [`Simulator`], frame after frame at the right time.
//! - `summary.rs`: [`Summary`], the books: every message is sent, spoiled, skipped or lost, and counted.
//!
//! The library's own [`Server`](ultramotion_igtlink::Server) is not used here: it sends nothing but whole messages.
//!
//! # PlusServer's habits
//! After PLUS's sources (`vtkPlusIgtlMessageFactory.cxx`, `vtkPlusIgtlMessageCommon.cxx`,
//! `vtkPlusOpenIGTLinkServer.cxx`):
//! - It sends to whoever connects, without waiting for an `STT_` message (but TDATA, which is sent here all the same).
//! - It begins with header version 1, and goes on in version 2 once a client has sent a message of version 2.
//! - For each frame first the IMAGE, named `From_To` as in `Image_Reference`: its matrix is the transform between the two;
//!   then a TRANSFORM for each pose, named `ProbeToTracker`, or one TDATA with all of them. All have the frame's time.
//! - With header version 2 the metadata of the IMAGE has the frame's number and poses, that of a TRANSFORM
//!   `TransformValid` and `TransformStatus`. Poses that the tracker has lost are not sent.
//! - A name of more than 20 bytes is cut, and stands in full in the metadata (`IGTL_DEVICE_NAME`).
//! - A STATUS goes to a client that was sent nothing for a quarter of a second.
//!
//! Beyond its header version, what clients send is read and counted, and not obeyed: there are no commands here.
//!
//! ```
//! use std::time::Duration;
//! use ultramotion_scanner::{Pace, Simulator, SimulatorConfig};
//! use ultramotion_igtlink::{Client, ClientConfig, ClientEvent, Content};
//! # use ultramotion_media::metaimage::{Layout, SequenceWriter};
//! # use ultramotion_types::Frame;
//! # let folder = std::env::temp_dir().join(format!("simulate-example-{}", std::process::id()));
//! # std::fs::create_dir_all(&folder)?;
//! # let path = folder.join("three.igs.mha");
//! # let mut writer = SequenceWriter::create(&path, Layout::grey8(4, 3))?;
//! # for n in 0..3 {
//! #     writer.write(&Frame { timestamp_s: f64::from(n), ..Frame::grey8(4, 3, vec![7; 12]) })?;
//! # }
//! # writer.finish()?;
//!
//! let mut source = ultramotion_media::source::open(&path)?;
//! let simulator = Simulator::start(SimulatorConfig {
//!     listen: "127.0.0.1:0".parse()?,
//!     pace: Pace::Hertz(100.0),
//!     wait_clients: 1,
//!     ..SimulatorConfig::default()
//! })?;
//! let client = Client::start(ClientConfig::new(simulator.local_addr().to_string()))?;
//! let summary = simulator.play(source.as_mut(), &|| false, &mut |_| {})?;
//! assert_eq!((summary.frames.made, summary.images.sent), (3, 3));
//!
//! let mut images = 0;
//! while images < 3 {
//!     if let ClientEvent::Message(raw) = client.recv_timeout(Duration::from_secs(5))? {
//!         images += usize::from(matches!(raw.decode()?.content, Content::Image(_)));
//!     }
//! }
//! # std::fs::remove_dir_all(&folder)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod compose;
mod config;
mod connections;
mod dice;
mod play;
mod poses;
mod summary;
#[cfg(test)]
mod tests;

pub use config::{Cuts, Mischief, Pace, PoseMessages, SimulateError, SimulatorConfig, Timestamps};
pub use play::{Progress, Simulator};
pub use summary::{ConnectionCounts, FrameCounts, HeardCounts, MessageCounts, Reconnects, Summary};
