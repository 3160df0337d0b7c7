//! ultramotion-models

pub mod checkpoint;
