//! ultramotion-phantom
