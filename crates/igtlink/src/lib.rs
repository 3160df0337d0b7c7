//! ultramotion-igtlink
