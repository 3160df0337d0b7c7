//! Tensor operations on raw views, channels last.
//!
//! Conventions
//! - A matrix `[R, C]` or feature map `[N, H, W, C]` is a pitched view: `C` contiguous elements a row (a
//!   pixel), rows `pitch >= C` elements apart. So the parts of a channel concatenation or split are views
//!   of one buffer, and kernels read and write them in place. [`Map`] says how rows form images.
//! - Weights come in PyTorch's layout and are packed once into a `Packed…` object for a [`Level`](super::Level).
//! - [`Epilogue`] is what a product does with its result before it is written.
//! - Sizes are checked at the door: a wrong one is a bug of the caller and panics with a message. Kernels
//!   allocate nothing.
#![allow(unsafe_code)]

mod aligned;
mod conv2d;
mod epilogue;
mod gemm;
#[cfg(test)]
mod testing;
mod tile;
mod view;

pub use aligned::AlignedVec;
pub use conv2d::{ConvShape, PackedConv, conv2d};
pub use epilogue::{Act, Epilogue};
pub use gemm::{PackedLinear, linear};
pub use view::{Map, View, ViewMut};
