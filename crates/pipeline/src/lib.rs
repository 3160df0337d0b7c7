//! Frame in, packet out: builds the device program and owns its modes.
//!
//! In: frames of any size, grey or colour, with their own timestamps. Out: a [`ResultPacket`] for each, with tracked
//! and outlined structures, times and transfers. [`Orchestrator`] does one frame at a time; [`stream`] keeps a live
//! source from queueing up.
//!
//! ```no_run
//! use ultramotion_engine::Device;
//! use ultramotion_models::zoo::{Detector, Segmenter};
//! use ultramotion_pipeline::{Frame, Orchestrator, PipelineOptions, PixelFormat};
//!
//! let (detector, segmenter) = (Detector::open("ultrasound-n")?, Segmenter::open("ultrasound-sam")?);
//! let mut pipeline = Orchestrator::new(Device::cpu(0), detector, segmenter, PipelineOptions::default())?;
//! let pixels = vec![0; 480 * 640];
//! let packet = pipeline.process(&Frame {
//!     frame_id: 0,
//!     timestamp_s: 0.0,
//!     source: "example",
//!     width: 640,
//!     height: 480,
//!     format: PixelFormat::Grey8,
//!     pixels: &pixels,
//! })?;
//! for object in &packet.objects {
//!     println!("{} {} {:?}", object.track_id, packet.label(object.class), object.box_xyxy);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod kpi;
pub mod stream;

mod by_format;
mod error;
mod frame;
mod options;
mod orchestrator;
mod outcome;
mod packet;
mod resident;
mod staged;
mod stages;

pub use by_format::ByFormat;
pub use error::PipelineError;
pub use frame::{Frame, FrameError, MAX_SIDE_PX, PixelFormat};
pub use options::{MAX_OBJECTS, Modes, PipelineOptions, Residency};
pub use orchestrator::Orchestrator;
pub use packet::{DetectedObject, Fault, LatencyMs, MaskView, ResultPacket};
