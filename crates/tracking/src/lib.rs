//! ultramotion-tracking
