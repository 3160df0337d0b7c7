//! Ultramotion as a library: what the command does, for programs.
//!
//! - [`settings`](mod@settings): every choice, from a file, from options, or by name.
//! - [`source`](mod@source): where frames come from, by name: the phantom, files, a scanner.
//! - [`feed`]: a source's frames one by one, at once or at their own pace.
//! - [`Session`]: frames in, packets out.
//! - [`audit`](mod@audit): does the data stay on the device?
//!
//! ```no_run
//! use ultramotion::{DeviceChoice, Session, Settings};
//!
//! let settings = Settings { score_threshold: 0.6, ..Settings::default() };
//! let mut session = Session::open(&settings, DeviceChoice::default(), "recording.igs.mha")?;
//! while let Some(result) = session.next_packet() {
//!     let packet = result?;
//!     for object in &packet.objects {
//!         println!("{} {} {:?}", object.track_id, packet.label(object.class), object.box_xyxy);
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod audit;
pub mod feed;
pub mod settings;
pub mod source;

mod session;

pub use feed::{Feed, Pace, Stop};
pub use session::{Session, SessionError};
pub use settings::{Settings, SettingsError};
pub use source::{Source, SourceError};
pub use ultramotion_engine::Device;
pub use ultramotion_pipeline::{DeviceChoice, Orchestrator, Run};
pub use ultramotion_types::{Frame, FrameView, ResultPacket};
