//! Live service on OpenIGTLink.
//!
//! - [`simulate`]: a scanner that is none, to try everything else on.

pub mod simulate;
