//! HGNetV2 (PP-HGNet, PaddleClas): stem and four stages, at strides 4 to 32.

use ultramotion_engine::graph::{GraphError, Padding, Tensor, UnaryOp};

use super::config::{BackboneConfig, StageConfig};
use super::layers::{Builder, Conv};

/// Even kernels of stride 1 keep the size with one more row and column of zeros.
const BELOW_AND_RIGHT: Padding = Padding { top: 0, left: 0, bottom: 1, right: 1 };

/// A feature map, and a bound that none of its values is under.
#[derive(Clone, Copy)]
struct Activated {
    map: Tensor,
    at_least: f32,
}

/// image `[1, H, W, 3]` in 0..1 → maps `[1, H/s, W/s, C]` of the stages from `first_level` on.
pub(super) fn backbone(
    b: &mut Builder<'_, '_>,
    image: Tensor,
    config: &BackboneConfig,
) -> Result<Vec<Tensor>, GraphError> {
    let net = Hgnet { affine: config.learnable_affine };
    let mut x = b.scoped("stem", |b| net.stem(b, image, config.stem))?;
    let mut channels = config.stem[1];
    let mut levels = Vec::new();
    for (i, stage) in config.stages.iter().enumerate() {
        x = b.scoped(format!("stages.{i}"), |b| net.stage(b, x, channels, stage, i > 0))?;
        channels = stage.out;
        if i >= config.first_level {
            levels.push(x);
        }
    }
    Ok(levels)
}

#[derive(Clone, Copy)]
struct Hgnet {
    affine: bool,
}

impl Hgnet {
    /// Convolution, batch norm, ReLU and, in the smaller backbones, a learnable scale and shift.
    fn activated(self, b: &mut Builder<'_, '_>, x: Tensor, conv: Conv) -> Result<Activated, GraphError> {
        let x = b.conv_norm(x, conv, "bn")?;
        let map = b.g.unary(UnaryOp::Relu, x)?;
        if !self.affine {
            return Ok(Activated { map, at_least: 0.0 });
        }
        b.scoped("lab", |b| {
            let (scale, shift) = (b.p.values("scale", &[1])[0], b.p.values("bias", &[1])[0]);
            let map = b.g.affine(map, scale, shift)?;
            Ok(Activated { map, at_least: if scale >= 0.0 { shift } else { f32::NEG_INFINITY } })
        })
    }

    fn stem(
        self,
        b: &mut Builder<'_, '_>,
        image: Tensor,
        [mid, out]: [usize; 2],
    ) -> Result<Tensor, GraphError> {
        let half = Conv::new(mid, mid / 2, 2).padding(BELOW_AND_RIGHT);
        let x = b.scoped("stem1", |b| self.activated(b, image, Conv::new(3, mid, 3).stride(2)))?;
        let deep = b.scoped("stem2a", |b| self.activated(b, x.map, half))?;
        let conv = Conv { c_in: mid / 2, c_out: mid, ..half };
        let deep = b.scoped("stem2b", |b| self.activated(b, deep.map, conv))?;
        // The pool sees zeros beyond the border. Only where values can be negative does that differ from ignoring
        // the border, which needs no padded copy of the network's largest map.
        let pooled = if x.at_least >= 0.0 {
            b.g.max_pool2d(x.map, 2, 1, BELOW_AND_RIGHT)?
        } else {
            let padded = b.g.pad(x.map, BELOW_AND_RIGHT)?;
            b.g.max_pool2d(padded, 2, 1, Padding::default())?
        };
        let x = b.g.concat(&[pooled, deep.map], 3)?;
        let x = b.scoped("stem3", |b| self.activated(b, x, Conv::new(2 * mid, mid, 3).stride(2)))?;
        let x = b.scoped("stem4", |b| self.activated(b, x.map, Conv::new(mid, out, 1)))?;
        Ok(x.map)
    }

    fn stage(
        self,
        b: &mut Builder<'_, '_>,
        x: Tensor,
        c_in: usize,
        stage: &StageConfig,
        downsample: bool,
    ) -> Result<Tensor, GraphError> {
        let mut x = x;
        if downsample {
            let conv = Conv::new(c_in, c_in, 3).stride(2).depthwise();
            x = b.scoped("downsample", |b| b.conv_norm(x, conv, "bn"))?;
        }
        for i in 0..stage.blocks {
            x = b.scoped(format!("blocks.{i}"), |b| {
                let y = self.block(b, x, if i == 0 { c_in } else { stage.out }, stage)?;
                if i == 0 { Ok(y) } else { b.g.add(y, x) }
            })?;
        }
        Ok(x)
    }

    /// All layers' outputs side by side, squeezed and expanded.
    fn block(
        self,
        b: &mut Builder<'_, '_>,
        x: Tensor,
        c_in: usize,
        stage: &StageConfig,
    ) -> Result<Tensor, GraphError> {
        let mut maps = vec![x];
        for i in 0..stage.layers {
            let (input, channels) = (maps[i], if i == 0 { c_in } else { stage.mid });
            let y = b.scoped(format!("layers.{i}"), |b| self.layer(b, input, channels, stage))?;
            maps.push(y);
        }
        let joined = b.g.concat(&maps, 3)?;
        let wide = c_in + stage.layers * stage.mid;
        let x =
            b.scoped("aggregation.0", |b| self.activated(b, joined, Conv::new(wide, stage.out / 2, 1)))?;
        let conv = Conv::new(stage.out / 2, stage.out, 1);
        Ok(b.scoped("aggregation.1", |b| self.activated(b, x.map, conv))?.map)
    }

    fn layer(
        self,
        b: &mut Builder<'_, '_>,
        x: Tensor,
        c_in: usize,
        stage: &StageConfig,
    ) -> Result<Tensor, GraphError> {
        if !stage.light {
            return Ok(self.activated(b, x, Conv::new(c_in, stage.mid, stage.kernel))?.map);
        }
        let x = b.scoped("conv1", |b| b.conv_norm(x, Conv::new(c_in, stage.mid, 1), "bn"))?;
        let conv = Conv::new(stage.mid, stage.mid, stage.kernel).depthwise();
        Ok(b.scoped("conv2", |b| self.activated(b, x, conv))?.map)
    }
}

#[cfg(test)]
mod tests {
    use ultramotion_engine::graph::{Graph, Op};
    use ultramotion_engine::tensor::DType;

    use super::*;
    use crate::checkpoint::{WeightTensor, Weights};
    use crate::parameters::Parameters;

    /// Whether the stem pads the map that it pools.
    fn pads(affine: bool, shift: f32) -> bool {
        let mut weights = Weights::new("a test");
        for (name, value) in [("stem1.lab.scale", 1.0), ("stem1.lab.bias", shift)] {
            weights.insert(name, WeightTensor::from_f32(name, &[1], &[value]).expect("one value"));
        }
        let mut parameters = Parameters::new(&weights);
        let mut g = Graph::new("stem");
        let image = g.input("image", DType::F32, [1, 32, 32, 3]).expect("a new name");
        let mut b = Builder { g: &mut g, p: &mut parameters };
        let out = Hgnet { affine }.stem(&mut b, image, [16, 24]).expect("a sound graph");
        assert_eq!(g.shape(out).dims(), [1, 8, 8, 24]);
        g.nodes().iter().any(|n| matches!(n.op, Op::Pad { .. }))
    }

    #[test]
    fn zeros_beyond_the_border_are_pooled_where_they_could_win() {
        assert!(pads(true, -0.1));
        assert!(!pads(true, 0.1) && !pads(false, 0.0));
    }
}
