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

    /// Offset of each bin, outwards, in widths or heights of the initial box: in the paper's equation 2, offsets are in units of
    /// `extent / c`.
    pub fn offsets(self, reg_max: usize) -> Vec<f32> {
        self.weights(reg_max).into_iter().map(|w| (w / self.reg_scale) as f32).collect()
    }
}

/// Location quality estimator (D-FINE, appendix): how peaked the four distributions are, as a correction of the
/// logits. edge_logits `[Q, 4 · (reg_max + 1)]` → `[Q, 1]`.
pub(super) fn quality(b: &mut Builder<'_, '_>, edge_logits: Tensor) -> Result<Tensor, GraphError> {
    let shape = b.g.shape(edge_logits).clone();
    let queries = shape[0];
    let edges = b.g.reshape(edge_logits, [queries, 4, shape[1] / 4])?;
    let probabilities = b.g.softmax(edges)?;
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
    use ultramotion_engine::graph::Graph;
    use ultramotion_engine::tensor::{DType, HostTensor};
    use ultramotion_engine::{CompileOptions, Device, Program};

    use super::super::integral::box_integral;
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
        let mut g = Graph::new("integral");
        let logits = g.input("logits", DType::F32, [1, 132]).unwrap();
        let initial = g.input("initial", DType::F32, [1, 4]).unwrap();
        let offsets = g.constant(HostTensor::f32([33], SCALE.offsets(32)));
        let boxes = box_integral(&mut g, logits, initial, offsets).unwrap();
        g.output("boxes", boxes).unwrap();
        // All of the left edge's mass in the last bin (offset 4 of c = 4 units: one width to the left), the others
        // at zero: the width doubles, and the centre moves left by half the old width.
        let mut certain = vec![0.0; 132];
        [32, 33 + 16, 66 + 16, 99 + 16].into_iter().for_each(|bin| certain[bin] = 1e3);
        let inputs = [HostTensor::f32([1, 132], certain), HostTensor::f32([1, 4], vec![0.5, 0.5, 0.2, 0.4])];
        for device in [Device::reference(), Device::cpu(1)] {
            let mut program = Program::compile(g.clone(), &device, &CompileOptions::default()).unwrap();
            let boxes = program.run(&inputs.each_ref()).unwrap();
            assert_eq!(boxes[0].as_f32().unwrap(), [0.4, 0.5, 0.4, 0.4]);
        }
    }
}
