//! ultramotion-models
