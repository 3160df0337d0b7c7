//! ultramotion-pipeline
