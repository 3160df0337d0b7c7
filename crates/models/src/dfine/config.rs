//! Everything in which the five sizes of D-FINE differ, and what a user chooses.
//!
//! Sizes as in the paper's appendix (Peng et al. 2024, arXiv:2410.13842) and its published configurations; the
//! backbones are PP-HGNetV2 B0 (N, S), B2 (M), B4 (L) and B5 (X).

use thiserror::Error;

/// Attention heads of the encoder and of the decoder, in every size.
pub const HEADS: usize = 8;

/// One of the five published sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Variant {
    /// Nano: strides 16 and 32 only, width 128.
    N,
    /// Small.
    S,
    /// Medium.
    M,
    /// Large.
    L,
    /// Extra large.
    X,
}

impl Variant {
    /// All sizes, smallest first.
    pub const ALL: [Variant; 5] = [Variant::N, Variant::S, Variant::M, Variant::L, Variant::X];

    /// `dfine_n` … `dfine_x`.
    pub fn name(self) -> &'static str {
        match self {
            Variant::N => "dfine_n",
            Variant::S => "dfine_s",
            Variant::M => "dfine_m",
            Variant::L => "dfine_l",
            Variant::X => "dfine_x",
        }
    }
}

/// One stage of HGNetV2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageConfig {
    /// Channels of each layer in a block.
    pub mid: usize,
    /// Channels of the stage's output.
    pub out: usize,
    /// Blocks; all but the first have a residual connection.
    pub blocks: usize,
    /// Layers whose outputs a block concatenates.
    pub layers: usize,
    /// A layer is a pointwise and a depthwise convolution instead of a full one.
    pub light: bool,
    /// Kernel size of the layers.
    pub kernel: usize,
}

/// HGNetV2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackboneConfig {
    /// Channels inside and after the stem.
    pub stem: [usize; 2],
    /// The four stages, at strides 4, 8, 16 and 32.
    pub stages: [StageConfig; 4],
    /// Each activation is followed by a learnable scale and shift (the learnable affine block of B0 and B2).
    pub learnable_affine: bool,
    /// First stage handed to the encoder: 1 (stride 8) or 2 (stride 16); all later ones follow.
    pub first_level: usize,
}

/// Hybrid encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncoderConfig {
    /// Channels of every level.
    pub dim: usize,
    /// Hidden width of the transformer layer's feed-forward part.
    pub feed_forward: usize,
    /// Channels inside a fusion block: half of `dim` times the expansion (0.34, 0.5, 1).
    pub csp_dim: usize,
    /// RepVGG blocks in each half of a fusion block: three times the depth multiplier.
    pub csp_blocks: usize,
}

/// Decoder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DecoderConfig {
    /// Width of a query.
    pub dim: usize,
    /// Hidden width of a layer's feed-forward part.
    pub feed_forward: usize,
    /// Layers that inference runs; a checkpoint's further layers only serve its training.
    pub layers: usize,
    /// Sampling points per head on each level, finest first.
    pub points: &'static [usize],
    /// Bins of an edge's distribution less one.
    pub reg_max: usize,
    /// Curvature `c` of the weighting function, where the checkpoint does not hold it.
    pub reg_scale: f32,
    /// Upper bound `a` of the weighting function, where the checkpoint does not hold it.
    pub up: f32,
}

/// A D-FINE to build.
///
/// ```
/// use ultramotion_models::dfine::DfineConfig;
///
/// let config = DfineConfig { num_classes: 2, input_hw: [320, 480], ..DfineConfig::named("dfine_s")? };
/// config.validate()?;
/// assert_eq!(config.strides(), [8, 16, 32]);
/// # Ok::<(), ultramotion_models::dfine::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct DfineConfig {
    /// Size.
    pub variant: Variant,
    /// Classes that the heads tell apart.
    pub num_classes: usize,
    /// Height and width of the input in pixels, multiples of 32.
    pub input_hw: [usize; 2],
    /// Queries that the decoder refines, 300 in all published models; fewer are faster. Never more than there are
    /// anchors in use.
    pub num_queries: usize,
    /// Backbone.
    pub backbone: BackboneConfig,
    /// Encoder.
    pub encoder: EncoderConfig,
    /// Decoder.
    pub decoder: DecoderConfig,
}

/// A choice that no D-FINE can be built with.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// No such size.
    #[error("'{0}' is no D-FINE: use dfine_n, dfine_s, dfine_m, dfine_l or dfine_x")]
    UnknownName(String),
    /// Not a multiple of 32, or zero, or larger than the limit.
    #[error(
        "a D-FINE cannot take an input of {height} x {width}: both must be multiples of 32 from 32 to {limit}",
        limit = DfineConfig::MAX_SIDE
    )]
    InputSize {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
    /// Nothing to detect, or too much.
    #[error(
        "a D-FINE needs 1 to {limit} classes and at least one query, got {num_classes} and {num_queries}",
        limit = DfineConfig::MAX_CLASSES
    )]
    Counts {
        /// Classes.
        num_classes: usize,
        /// Queries.
        num_queries: usize,
    },
}

const fn stages(widths: [[usize; 2]; 4], blocks: [usize; 4], layers: usize) -> [StageConfig; 4] {
    let mut stages = [StageConfig { mid: 0, out: 0, blocks: 0, layers, light: false, kernel: 3 }; 4];
    let mut i = 0;
    while i < 4 {
        stages[i].mid = widths[i][0];
        stages[i].out = widths[i][1];
        stages[i].blocks = blocks[i];
        if i >= 2 {
            stages[i].light = true;
            stages[i].kernel = 5;
        }
        i += 1;
    }
    stages
}

const B0: BackboneConfig = BackboneConfig {
    stem: [16, 16],
    stages: stages([[16, 64], [32, 256], [64, 512], [128, 1024]], [1, 1, 2, 1], 3),
    learnable_affine: true,
    first_level: 1,
};
const B2: BackboneConfig = BackboneConfig {
    stem: [24, 32],
    stages: stages([[32, 96], [64, 384], [128, 768], [256, 1536]], [1, 1, 3, 1], 4),
    learnable_affine: true,
    first_level: 1,
};
const B4: BackboneConfig = BackboneConfig {
    stem: [32, 48],
    stages: stages([[48, 128], [96, 512], [192, 1024], [384, 2048]], [1, 1, 3, 1], 6),
    learnable_affine: false,
    first_level: 1,
};
const B5: BackboneConfig = BackboneConfig {
    stem: [32, 64],
    stages: stages([[64, 128], [128, 512], [256, 1024], [512, 2048]], [1, 2, 5, 2], 6),
    learnable_affine: false,
    first_level: 1,
};
const DECODER: DecoderConfig = DecoderConfig {
    dim: 256,
    feed_forward: 1024,
    layers: 6,
    points: &[3, 6, 3],
    reg_max: 32,
    reg_scale: 4.0,
    up: 0.5,
};

impl DfineConfig {
    /// Longest side in pixels that is accepted.
    pub const MAX_SIDE: usize = 4096;
    /// Most classes that are accepted.
    pub const MAX_CLASSES: usize = 10_000;

    /// A size with the published settings: 80 classes, input 640 x 640, 300 queries.
    pub fn new(variant: Variant) -> Self {
        let (backbone, encoder, decoder) = match variant {
            Variant::N => (
                BackboneConfig { first_level: 2, ..B0 },
                EncoderConfig { dim: 128, feed_forward: 512, csp_dim: 21, csp_blocks: 2 },
                DecoderConfig { dim: 128, feed_forward: 512, layers: 3, points: &[6, 6], ..DECODER },
            ),
            Variant::S => (
                B0,
                EncoderConfig { dim: 256, feed_forward: 1024, csp_dim: 64, csp_blocks: 1 },
                DecoderConfig { layers: 3, ..DECODER },
            ),
            Variant::M => (
                B2,
                EncoderConfig { dim: 256, feed_forward: 1024, csp_dim: 128, csp_blocks: 2 },
                DecoderConfig { layers: 4, ..DECODER },
            ),
            Variant::L => {
                (B4, EncoderConfig { dim: 256, feed_forward: 1024, csp_dim: 128, csp_blocks: 3 }, DECODER)
            }
            Variant::X => (
                B5,
                EncoderConfig { dim: 384, feed_forward: 2048, csp_dim: 192, csp_blocks: 3 },
                DecoderConfig { reg_scale: 8.0, ..DECODER },
            ),
        };
        DfineConfig {
            variant,
            num_classes: 80,
            input_hw: [640, 640],
            num_queries: 300,
            backbone,
            encoder,
            decoder,
        }
    }

    /// Nano.
    pub fn n() -> Self {
        Self::new(Variant::N)
    }
    /// Small.
    pub fn s() -> Self {
        Self::new(Variant::S)
    }
    /// Medium.
    pub fn m() -> Self {
        Self::new(Variant::M)
    }
    /// Large.
    pub fn l() -> Self {
        Self::new(Variant::L)
    }
    /// Extra large.
    pub fn x() -> Self {
        Self::new(Variant::X)
    }

    /// By name: `dfine_n` … `dfine_x`.
    pub fn named(name: &str) -> Result<Self, ConfigError> {
        let variant = Variant::ALL.into_iter().find(|v| v.name() == name);
        variant.map(Self::new).ok_or_else(|| ConfigError::UnknownName(name.to_owned()))
    }

    /// Name of the size.
    pub fn name(&self) -> &'static str {
        self.variant.name()
    }

    /// Whether a network can be built.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let [height, width] = self.input_hw;
        if self.input_hw.iter().any(|&s| s == 0 || s > Self::MAX_SIDE || !s.is_multiple_of(32)) {
            return Err(ConfigError::InputSize { height, width });
        }
        if !(1..=Self::MAX_CLASSES).contains(&self.num_classes) || self.num_queries == 0 {
            let (num_classes, num_queries) = (self.num_classes, self.num_queries);
            return Err(ConfigError::Counts { num_classes, num_queries });
        }
        Ok(())
    }

    /// Strides of the levels, finest first.
    pub fn strides(&self) -> Vec<usize> {
        (self.backbone.first_level..4).map(|stage| 4 << stage).collect()
    }

    /// Height and width of each level's map, finest first.
    pub fn levels_hw(&self) -> Vec<[usize; 2]> {
        self.strides().into_iter().map(|s| self.input_hw.map(|side| side / s)).collect()
    }

    /// Queries that come out: `num_queries`, or the number of anchors of a very small input.
    pub fn queries(&self) -> usize {
        self.num_queries.min(self.levels_hw().iter().map(|[h, w]| h * w).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_choices_are_told_in_one_sentence() {
        let bad =
            |input_hw| DfineConfig { input_hw, ..DfineConfig::n() }.validate().map_err(|e| e.to_string());
        let sentence =
            "a D-FINE cannot take an input of 320 x 300: both must be multiples of 32 from 32 to 4096";
        assert_eq!(bad([320, 300]), Err(sentence.into()));
        assert!(bad([0, 32]).is_err() && bad([1 << 20, 32]).is_err() && bad([32, 4096]).is_ok());
        assert!(DfineConfig { num_classes: usize::MAX, ..DfineConfig::n() }.validate().is_err());
        assert!(DfineConfig { num_queries: 0, ..DfineConfig::n() }.validate().is_err());
        assert!(DfineConfig::named("dfine_xl").is_err());
    }

    #[test]
    fn a_tiny_input_has_fewer_queries_than_asked_for() {
        assert_eq!(DfineConfig { input_hw: [64, 64], ..DfineConfig::n() }.queries(), 16 + 4);
        assert_eq!(DfineConfig::s().queries(), 300);
    }
}
