//! ultramotion-engine
pub mod cpu;
