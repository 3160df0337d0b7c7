//! Fine-grained distribution refinement (D-FINE, section 4.1): each edge of a box is a distribution over offsets
//! from an initial box, and each decoder layer adds to the distributions' logits.

use ultramotion_engine::graph::{GraphError, Tensor, UnaryOp};

use super::config::DecoderConfig;
use super::layers::Builder;

/// Largest probabilities of an edge that the quality estimator sees.
const TOP: usize = 4;
/// Hidden width of the quality estimator.
const QUALITY_HIDDEN: usize = 64;

/// The weighting function's shape.
#[derive(Debug, Clone, Copy)]
pub(super) struct EdgeScale {
    /// Upper bound `a`.
    pub up: f64,
    /// Curvature `c`; also the unit of offsets, `extent / c`.
    pub reg_scale: f64,
}

impl EdgeScale {
    /// From the checkpoint where it has them, else as published.
    pub fn read(b: &mut Builder<'_, '_>, config: &DecoderConfig) -> Self {
        let mut value =
            |name, published| f64::from(b.p.optional(name, &[1]).map_or(published, |v| v[0]).abs());
        EdgeScale { up: value("up", config.up), reg_scale: value("reg_scale", config.reg_scale) }
    }

    /// W(n) of the paper's equation 3 for n = 0 … reg_max: dense near zero, symmetric, the outermost two bins twice
    /// the bound.
    fn weights(self, reg_max: usize) -> Vec<f64> {
        let bound = self.up * self.reg_scale;
        let step = (bound + 1.0).powf(2.0 / (reg_max as f64 - 2.0));
        let half = reg_max as i32 / 2;
        let weight = |n: i32| match (n - half, n) {
            (0, _) => 0.0,
            (d, _) if d.abs() == half => f64::from(d.signum()) * 2.0 * bound,
            (d, _) => f64::from(d.signum()) * (step.powi(d.abs()) - 1.0),
        };
        (0..=reg_max as i32).map(weight).collect()
    }

    /// The integral over the bins and the paper's equation 2 in one matrix `[4, 4 · (reg_max + 1)]`: probabilities of
    /// the edges (left, top, right, bottom) → change of (cx, cy, w, h) in units of the initial width and height.
    ///
    /// With edge offsets d in units of extent / c, `x1 = cx − (c/2 + d_left)·w/c` and `x2 = cx + (c/2 + d_right)·w/c`;
    /// so the centre moves by `(d_right − d_left)/2c` widths and the width grows by `(d_left + d_right)/c` widths.
    pub fn box_from_distribution(self, reg_max: usize) -> Vec<f32> {
        let weights = self.weights(reg_max);
        let rows = [[-0.5, 0.0, 0.5, 0.0], [0.0, -0.5, 0.0, 0.5], [1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0]];
        let unit = 1.0 / self.reg_scale;
        let matrix = rows.iter().flatten();
        matrix.flat_map(|share| weights.iter().map(move |w| (share * unit * w) as f32)).collect()
    }
}

/// Location quality estimator (D-FINE, appendix): how peaked the four distributions are, as a correction of the
/// logits. probabilities `[Q, 4, reg_max + 1]` → `[Q, 1]`.
pub(super) fn quality(b: &mut Builder<'_, '_>, probabilities: Tensor) -> Result<Tensor, GraphError> {
    let queries = b.g.shape(probabilities)[0];
    let (top, _) = b.g.top_k(probabilities, TOP)?;
    let top = b.g.reshape(top, [queries, 4 * TOP])?;
    // The first layer sees each edge's largest probabilities and their mean; the mean is put into its weights.
    let with_mean = b.p.values("reg_conf.layers.0.weight", &[QUALITY_HIDDEN, 4 * (TOP + 1)]);
    let edges = with_mean.chunks_exact(TOP + 1);
    let weight: Vec<f32> =
        edges.flat_map(|edge| edge[..TOP].iter().map(|w| w + edge[TOP] / TOP as f32)).collect();
    let weight = b.constant(&[QUALITY_HIDDEN, 4 * TOP], weight);
    let bias = b.p.constant(b.g, "reg_conf.layers.0.bias", &[QUALITY_HIDDEN]);
    let hidden = b.g.linear(top, weight, Some(bias))?;
    let hidden = b.g.unary(UnaryOp::Relu, hidden)?;
    b.scoped("reg_conf.layers.1", |b| b.linear(hidden, QUALITY_HIDDEN, 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCALE: EdgeScale = EdgeScale { up: 0.5, reg_scale: 4.0 };

    #[test]
    fn the_weighting_function_is_symmetric_and_bounded() {
        let w = SCALE.weights(32);
        assert_eq!(w.len(), 33);
        assert_eq!((w[0], w[16], w[32]), (-4.0, 0.0, 4.0));
        assert!(w.windows(2).all(|p| p[0] < p[1]));
        assert!((0..33).all(|n| w[n] == -w[32 - n]));
        // The second to last bin is at the bound itself, as the exponent there is 1.
        assert!((w[31] - 2.0).abs() < 1e-12);
    }

    #[test]
    fn a_certain_distribution_moves_its_edge() {
        let matrix = SCALE.box_from_distribution(32);
        // All of the left edge's mass in the last bin (offset 4 of c = 4 units: one width to the left), the others
        // at zero: the width doubles, and the centre moves left by half the old width.
        let mut p = [0.0f32; 132];
        (p[32], p[33 + 16], p[66 + 16], p[99 + 16]) = (1.0, 1.0, 1.0, 1.0);
        let change = [0, 1, 2, 3].map(|i| (0..132).map(|j| matrix[i * 132 + j] * p[j]).sum::<f32>());
        assert_eq!(change, [-0.5, 0.0, 1.0, 0.0]);
    }
}
