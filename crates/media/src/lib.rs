//! ultramotion-media
