//! Frame in, packet out: builds the device program and owns its modes.
//!
//! In: frames of any size, grey or colour, with their own timestamps. Out: a [`ResultPacket`](ultramotion_types::ResultPacket) for each, with tracked
//! and outlined structures, times and transfers. [`Orchestrator`] does one frame at a time.
//!
//! ```no_run
//! use ultramotion_engine::Device;
//! use ultramotion_models::zoo::{Detector, Segmenter};
//! use ultramotion_pipeline::{Orchestrator, PipelineOptions};
//! use ultramotion_types::Frame;
//!
//! let (detector, segmenter) = (Detector::open("ultrasound-n")?, Segmenter::open("ultrasound-sam")?);
//! let mut pipeline = Orchestrator::new(Device::cpu(0), detector, segmenter, PipelineOptions::default())?;
//! let frame = Frame::grey8(640, 480, vec![0; 480 * 640]);
//! let packet = pipeline.process(&frame.view())?;
//! for object in &packet.objects {
//!     println!("{} {} {:?}", object.track_id, packet.label(object.class), object.box_xyxy);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod kpi;

mod device_choice;
mod error;
mod motion;
mod options;
mod orchestrator;
mod outcome;
mod ports;
mod programs;
mod prompting;
mod resident;
mod run;
mod staged;
mod stages;
mod time_unit;

pub use device_choice::{DeviceChoice, DeviceChoiceError, RequestedDevice};
pub use error::PipelineError;
pub use options::{MAX_OBJECTS, MAX_PROMPTS, PipelineOptions};
pub use orchestrator::{Orchestrator, transfers};
pub use run::{FIRST_PROMPT_ID, Run};
