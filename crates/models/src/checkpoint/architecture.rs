//! Which network a set of weights belongs to, told by its shapes.

use std::fmt;
use std::str::FromStr;

use super::weights::Weights;

/// A network this crate can build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// D-FINE nano: HGNetV2-B0, two feature levels (strides 16, 32), width 128.
    DfineN,
    /// D-FINE small: HGNetV2-B0, three feature levels (strides 8, 16, 32), width 256.
    DfineS,
    /// D-FINE medium: HGNetV2-B2.
    DfineM,
    /// D-FINE large: HGNetV2-B4.
    DfineL,
    /// D-FINE extra large: HGNetV2-B5.
    DfineX,
    /// MobileSAM: TinyViT image encoder with the prompt encoder and mask decoder of Segment Anything.
    MobileSam,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::DfineN, Self::DfineS, Self::DfineM, Self::DfineL, Self::DfineX, Self::MobileSam];

    /// The name used in metadata and on the command line: `dfine_n` to `dfine_x`, `mobile_sam`.
    pub fn name(self) -> &'static str {
        match self {
            Self::DfineN => "dfine_n",
            Self::DfineS => "dfine_s",
            Self::DfineM => "dfine_m",
            Self::DfineL => "dfine_l",
            Self::DfineX => "dfine_x",
            Self::MobileSam => "mobile_sam",
        }
    }

    /// Whether it is one of the D-FINE detectors.
    pub fn is_detector(self) -> bool {
        self != Self::MobileSam
    }

    /// The network whose official shapes these are, or `None`.
    ///
    /// D-FINE sizes are told apart by the width of the backbone's stem and of the transformer.
    pub fn detect(weights: &Weights) -> Option<Self> {
        let rows = |name: &str| weights.get(name).and_then(|t| t.shape().first().copied());
        if let (Some(stem), Some(width)) =
            (rows("backbone.stem.stem4.conv.weight"), rows("decoder.enc_output.proj.weight"))
        {
            return match (stem, width) {
                (16, 128) => Some(Self::DfineN),
                (16, 256) => Some(Self::DfineS),
                (32, 256) => Some(Self::DfineM),
                (48, 256) => Some(Self::DfineL),
                (64, 256) => Some(Self::DfineX),
                _ => None,
            };
        }
        let is_sam = weights.contains("image_encoder.patch_embed.seq.0.c.weight")
            && weights.contains("mask_decoder.iou_token.weight");
        is_sam.then_some(Self::MobileSam)
    }

    /// Strides of the feature levels of a D-FINE.
    fn strides(self) -> &'static [usize] {
        match self {
            Self::DfineN => &[16, 32],
            Self::MobileSam => &[],
            _ => &[8, 16, 32],
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name is none of `dfine_n`, `dfine_s`, `dfine_m`, `dfine_l`, `dfine_x`, `mobile_sam`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown architecture `{0}`; use dfine_n, dfine_s, dfine_m, dfine_l, dfine_x or mobile_sam")]
pub struct UnknownArchitecture(pub String);

impl FromStr for Architecture {
    type Err = UnknownArchitecture;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|a| a.name() == name).ok_or_else(|| UnknownArchitecture(name.to_owned()))
    }
}

/// Number of classes of a D-FINE: the rows of its encoder score head.
pub(super) fn num_classes(weights: &Weights) -> Option<usize> {
    weights.get("decoder.enc_score_head.weight")?.shape().first().copied()
}

/// Input size (height, width) that the weights were made for.
///
/// D-FINE stores its anchors, in logit space, one per cell of every level; the last one sits half a cell before the
/// bottom right corner of the level of stride 32, so `1 − sigmoid(x) = 0.5 / columns`. MobileSAM does not say.
pub(super) fn input_size(architecture: Architecture, weights: &Weights) -> Option<[usize; 2]> {
    let anchors = weights.get("decoder.anchors")?;
    let &[1, count, 4] = anchors.shape() else { return None };
    let level = |h: usize, w: usize, s: usize| (32 * h / s) * (32 * w / s);
    let cells = |h, w| architecture.strides().iter().map(|&s| level(h, w, s)).sum::<usize>();
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
            assert_eq!(input_size(Architecture::DfineS, &weights), Some(size));
        }
        assert_eq!(input_size(Architecture::DfineN, &anchors(&[16, 32], [320, 480], true)), Some([320, 480]));
        assert_eq!(
            input_size(Architecture::DfineN, &anchors(&[16, 32], [640, 640], false)),
            Some([640, 640])
        );
        assert_eq!(input_size(Architecture::DfineN, &anchors(&[8, 16, 32], [320, 480], true)), None);
    }

    #[test]
    fn names_round_trip() {
        for architecture in Architecture::ALL {
            assert_eq!(architecture.name().parse(), Ok(architecture));
        }
        assert!("dfine_xxl".parse::<Architecture>().is_err());
    }
}
