//! The live gateway: ultrasound frames come in over OpenIGTLink, tracked outlines go out.
//!
//! - [`config`]: the settings, and an example of all of them.
//! - [`receive`]: the scanner's messages become frames and poses.
//! - [`send`]: results become messages, for 3D Slicer and others.
//! - [`record`]: results become files, which `ultramotion run` computes again.
//! - [`service`]: the stages between; [`supervise`] starts them again when they die.
//! - [`books`]: every frame is answered, dropped for a reason, or on its way. [`complaints`]: what is wrong is said
//!   once, and counted. [`report`]: all figures.
//! - `page`: a live page for browsers, figures for Prometheus; [`prompts`]: what somebody points at, there and elsewhere.
//!
//! ```no_run
//! use ultramotion_engine::Device;
//! use ultramotion_gateway::config::GatewayConfig;
//! use ultramotion_gateway::service::{Gateway, Perceive};
//! use ultramotion_models::zoo::{Detector, Segmenter};
//! use ultramotion_pipeline::{Orchestrator, PipelineOptions};
//!
//! let build = || {
//!     let (detector, segmenter) = (Detector::open("ultrasound-n")?, Segmenter::open("ultrasound-sam")?);
//!     let pipeline = Orchestrator::new(Device::cpu(0), detector, segmenter, PipelineOptions::default())?;
//!     Ok(Box::new(pipeline) as Box<dyn Perceive>)
//! };
//! let mut gateway = Gateway::start(GatewayConfig::default(), Box::new(build))?;
//! for _ in 0..60 {
//!     std::thread::sleep(std::time::Duration::from_secs(1));
//!     println!("{}", gateway.report());
//! }
//! println!("{}", gateway.stop().summary());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod books;
pub mod complaints;
pub mod config;
mod metrics;
mod observe;
mod page;
pub mod prompts;
pub mod receive;
pub mod record;
mod recycle;
pub mod report;
pub mod send;
pub mod service;
pub mod supervise;
pub mod xml;
