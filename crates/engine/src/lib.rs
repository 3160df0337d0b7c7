//! ultramotion-engine
