//! The five sizes as lines of the [registry](crate::zoo::ARCHITECTURES), and a D-FINE as a detector.

use std::sync::Arc;

use ultramotion_engine::graph::{Graph, GraphError, ImageTransform, Tensor};

use super::{DfineConfig, Variant};
use crate::checkpoint::weights::Weights;
use crate::detector::{DetectorNetwork, DetectorTensors};
use crate::parameters::Parameters;
use crate::registry::{ConfigError, Entry, Kind, Network, Sizes};

impl Entry for Variant {
    fn name(&self) -> &'static str {
        Variant::name(*self)
    }

    fn family(&self) -> &'static str {
        "D-FINE"
    }

    fn kind(&self) -> Kind {
        Kind::Detector
    }

    /// Sizes are told apart by the width of the backbone's stem and of the transformer.
    fn recognises(&self, weights: &Weights) -> bool {
        let config = DfineConfig::new(*self);
        let rows = |name: &str| weights.get(name).and_then(|t| t.shape().first().copied());
        rows("backbone.stem.stem4.conv.weight") == Some(config.backbone.stem[1])
            && rows("decoder.enc_output.proj.weight") == Some(config.decoder.dim)
    }

    /// The rows of the encoder's score head.
    fn num_classes(&self, weights: &Weights) -> Option<usize> {
        weights.get("decoder.enc_score_head.weight")?.shape().first().copied()
    }

    /// D-FINE stores its anchors, in logit space, one per cell of every level; the last one sits half a cell before the
    /// bottom right corner of the level of stride 32, so `1 − sigmoid(x) = 0.5 / columns`.
    fn input_hw(&self, weights: &Weights) -> Option<[usize; 2]> {
        let strides = DfineConfig::new(*self).strides();
        let anchors = weights.get("decoder.anchors")?;
        let &[1, count, 4] = anchors.shape() else { return None };
        let level = |h: usize, w: usize, s: usize| (32 * h / s) * (32 * w / s);
        let cells = |h, w| strides.iter().map(|&s| level(h, w, s)).sum::<usize>();
        let matches = |h: usize, w: usize| h > 0 && w > 0 && count == cells(h, w);
        let values = anchors.to_f32();
        let last = values.last_chunk::<4>()?;
        let extent = |logit: f32| {
            let cells = 0.5 * (1.0 + f64::from(logit).exp());
            // Far beyond any input in use; also keeps the products above from overflowing.
            (cells.is_finite() && cells < 4096.0).then_some(cells.round() as usize)
        };
        if let (Some(w), Some(h)) = (extent(last[0]), extent(last[1]))
            && matches(h, w)
        {
            return Some([32 * h, 32 * w]);
        }
        // Inputs over 1600 pixels have an infinity there; most inputs are square.
        (1..4096).find(|&n| matches(n, n)).map(|n| [32 * n, 32 * n])
    }

    fn network(&self, sizes: Sizes) -> Result<Network, ConfigError> {
        let published = DfineConfig::new(*self);
        let config = DfineConfig {
            num_classes: sizes.num_classes.unwrap_or(published.num_classes),
            input_hw: sizes.input_hw.unwrap_or(published.input_hw),
            ..published
        };
        config.validate()?;
        Ok(Network::Detector(Arc::new(config)))
    }
}

impl DetectorNetwork for DfineConfig {
    fn input_hw(&self) -> [usize; 2] {
        self.input_hw
    }

    /// Multiples of 32.
    fn with_input_hw(&self, input_hw: [usize; 2]) -> Result<Arc<dyn DetectorNetwork>, ConfigError> {
        let config = DfineConfig { input_hw, ..self.clone() };
        config.validate()?;
        Ok(Arc::new(config))
    }

    fn num_classes(&self) -> usize {
        self.num_classes
    }

    /// The whole frame, stretched, from 0 to 1.
    fn image_transform(&self, _source_hw: [usize; 2]) -> ImageTransform {
        ImageTransform {
            output_hw: self.input_hw,
            resized_hw: self.input_hw,
            scale: [1.0 / 255.0; 3],
            shift: [0.0; 3],
        }
    }

    fn build(
        &self,
        g: &mut Graph,
        image: Tensor,
        parameters: &mut Parameters<'_>,
    ) -> Result<DetectorTensors, GraphError> {
        super::build(g, image, parameters, self)
    }

    /// Counters, denoising embeddings, stored anchors (they follow from the input size), duplicates of shared constants,
    /// and the heads of earlier layers, which only serve training.
    fn unused_parameter(&self, name: &str) -> bool {
        const TRAINING_ONLY: [&str; 7] = [
            "decoder.anchors",
            "decoder.valid_mask",
            "decoder.denoising_class_embed.weight",
            "decoder.decoder.up",
            "decoder.decoder.reg_scale",
            "decoder.decoder.project",
            "decoder.integral.project",
        ];
        let layer = |prefix: &str| {
            name.strip_prefix(prefix).and_then(|rest| rest.split('.').next()?.parse::<usize>().ok())
        };
        let last = self.decoder.layers.saturating_sub(1);
        name.ends_with(".num_batches_tracked")
            || TRAINING_ONLY.contains(&name)
            || ["decoder.decoder.layers.", "decoder.dec_bbox_head."]
                .iter()
                .any(|p| layer(p).is_some_and(|i| i > last))
            || ["decoder.decoder.lqe_layers.", "decoder.dec_score_head."]
                .iter()
                .any(|p| layer(p).is_some_and(|i| i != last))
    }

    fn constructed_parameter(&self, name: &str) -> bool {
        ["anchors", "valid_mask", "decoder.up", "decoder.reg_scale", "project"]
            .iter()
            .any(|k| name.contains(k))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::WeightTensor;

    fn anchors(strides: &[usize], [height, width]: [usize; 2], finite: bool) -> Weights {
        let mut values = Vec::new();
        for s in strides {
            let (rows, columns) = (height / s, width / s);
            for y in 0..rows {
                for x in 0..columns {
                    let logit = |c: usize, n: usize| {
                        let p = (c as f64 + 0.5) / n as f64;
                        if finite { (p / (1.0 - p)).ln() as f32 } else { f32::INFINITY }
                    };
                    values.extend([logit(x, columns), logit(y, rows), 0.0, 0.0]);
                }
            }
        }
        let mut weights = Weights::new("a test");
        let tensor =
            WeightTensor::from_f32("a", &[1, values.len() / 4, 4], &values).expect("fills its shape");
        weights.insert("decoder.anchors", tensor);
        weights
    }

    #[test]
    fn the_input_size_is_read_from_the_anchors() {
        for size in [[320, 320], [640, 640], [480, 640], [32, 1600]] {
            let weights = anchors(&[8, 16, 32], size, true);
            assert_eq!(Variant::S.input_hw(&weights), Some(size));
        }
        assert_eq!(Variant::N.input_hw(&anchors(&[16, 32], [320, 480], true)), Some([320, 480]));
        assert_eq!(Variant::N.input_hw(&anchors(&[16, 32], [640, 640], false)), Some([640, 640]));
        assert_eq!(Variant::N.input_hw(&anchors(&[8, 16, 32], [320, 480], true)), None);
    }
}
