//! ultramotion-tracking
pub mod assignment;
mod error;
pub use error::TrackingError;
