//! What a product does with its result before writing it.
use super::aligned::AlignedVec;
use crate::cpu::simd::{Simd, math};
use crate::error::OutOfMemory;

/// An activation function.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Act {
    /// `x`
    #[default]
    None,
    /// `max(x, 0)`
    Relu,
    /// `x · sigmoid(x)`
    Silu,
    /// `x Φ(x)`, the erf form
    Gelu,
    /// `1 / (1 + e^-x)`
    Sigmoid,
    /// Hyperbolic tangent
    Tanh,
    /// `min(max(x, low), high)`
    Clamp {
        /// Lower bound.
        low: f32,
        /// Upper bound.
        high: f32,
    },
}

impl Act {
    #[inline(always)]
    pub(crate) fn apply<S: Simd>(self, x: S::V) -> S::V {
        match self {
            Act::None => x,
            Act::Relu => S::max(S::zero(), x),
            Act::Silu => S::mul(x, math::sigmoid::<S>(x)),
            Act::Gelu => math::gelu::<S>(x),
            Act::Sigmoid => math::sigmoid::<S>(x),
            Act::Tanh => math::tanh::<S>(x),
            // In this order what is not a number stays that.
            Act::Clamp { low, high } => S::min(S::splat(high), S::max(S::splat(low), x)),
        }
    }
}

/// `y = act2(scale · act1(x + bias) + shift + residual)`: bias per column, scale and shift scalars, and the
/// residual, if any, given with the call.
#[derive(Clone, Debug, Default)]
pub struct Epilogue {
    /// Added per output column (channel).
    pub bias: Option<Vec<f32>>,
    /// Applied after the bias.
    pub act1: Act,
    /// `(scale, shift)`, applied after `act1` (HGNetV2's learnable affine block).
    pub scale_shift: Option<(f32, f32)>,
    /// Applied last, after the residual.
    pub act2: Act,
}

impl Epilogue {
    /// A bias and an activation.
    pub fn bias_act(bias: &[f32], act: Act) -> Self {
        Epilogue { bias: Some(bias.to_vec()), act1: act, ..Default::default() }
    }

    /// The bias of `n` columns, or zeros, up to a multiple of `width`.
    pub(crate) fn padded_bias(&self, n: usize, width: usize) -> Result<AlignedVec, OutOfMemory> {
        let mut padded = AlignedVec::try_zeros(n.next_multiple_of(width))?;
        if let Some(bias) = &self.bias {
            assert_eq!(bias.len(), n, "a bias of {} for {n} output columns", bias.len());
            padded[..n].copy_from_slice(bias);
        }
        Ok(padded)
    }

    pub(crate) fn post(&self) -> Post {
        let (scale, shift) = self.scale_shift.unwrap_or((1.0, 0.0));
        Post { act1: self.act1, affine: self.scale_shift.is_some(), scale, shift, act2: self.act2 }
    }
}

/// The epilogue without its bias, which starts the sums.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Post {
    pub act1: Act,
    pub affine: bool,
    pub scale: f32,
    pub shift: f32,
    pub act2: Act,
}

impl Post {
    /// Leaves everything as it is.
    pub const NONE: Post = Post { act1: Act::None, affine: false, scale: 1.0, shift: 0.0, act2: Act::None };

    /// Nothing to do but perhaps a ReLU and an affine map: kernels do that in registers.
    pub fn is_simple(&self) -> bool {
        matches!(self.act1, Act::None | Act::Relu) && self.act2 == Act::None
    }

    /// The epilogue, if it is simple and without a residual.
    #[inline(always)]
    pub fn apply_simple<S: Simd, const N: usize>(&self, values: &mut [S::V; N]) {
        if self.act1 == Act::Relu {
            for v in values.iter_mut() {
                *v = S::max(S::zero(), *v);
            }
        }
        if self.affine {
            let (scale, shift) = (S::splat(self.scale), S::splat(self.shift));
            for v in values.iter_mut() {
                *v = S::fma(*v, scale, shift);
            }
        }
    }

    #[inline(always)]
    pub fn apply<S: Simd>(&self, x: S::V, residual: Option<S::V>) -> S::V {
        let mut y = self.act1.apply::<S>(x);
        if self.affine {
            y = S::fma(y, S::splat(self.scale), S::splat(self.shift));
        }
        if let Some(r) = residual {
            y = S::add(y, r);
        }
        self.act2.apply::<S>(y)
    }
}
