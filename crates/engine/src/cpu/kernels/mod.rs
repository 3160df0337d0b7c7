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
// Register tiles are indexed by row and vector, in several arrays at once.
#![allow(clippy::needless_range_loop)]

mod aligned;
mod attention;
mod conv2d;
mod conv_transpose;
mod deformable;
mod depthwise;
mod elementwise;
mod epilogue;
mod fused;
mod gather;
mod gemm;
mod image;
mod matmul;
mod panels;
mod pooling;
mod rows;
#[cfg(test)]
mod testing;
mod tile;
mod top_k;
mod transpose;
mod view;
mod window_attention;
mod winograd;

pub use aligned::AlignedVec;
pub use attention::{AttentionShape, Heads, attention};
pub use conv_transpose::{PackedConvTranspose, conv_transpose2x2};
pub use conv2d::{PackedConv, conv2d};
pub use deformable::{SampledLevel, SamplingPoints, deformable};
pub use depthwise::{PackedDepthwise, depthwise};
pub use elementwise::{Binary, Broadcast, Unary, binary, copy, unary};
pub use epilogue::{Act, Epilogue};
pub use fused::{inverted_bottleneck, mlp};
pub use gather::gather;
pub use gemm::{PackedLinear, linear};
pub use image::{ImageError, ImagePlacement, ImagePlan, image};
pub use matmul::matmul;
pub use pooling::{max_pool, upsample_nearest2};
pub use rows::{LayerNorm, Reduce, layer_norm, reduce, softmax};
pub use top_k::top_k;
pub use transpose::transpose;
pub(super) use view::reach;
pub use view::{ConvShape, Element, Map, Pitched, View, ViewMut};
pub use window_attention::{WindowAttention, window_attention};
