//! Where a frame lies in the network's input, and what of the frame a box there stands for.

use std::ops::Range;

use super::config::MobileSamConfig;

/// Where a frame lies in the network's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaskGeometry {
    /// Side of the network's input.
    pub input_size: usize,
    /// Height and width of the frame in the input, at the top left.
    pub resized_hw: [usize; 2],
    /// Height and width of the frame itself.
    pub source_hw: [usize; 2],
}

impl MaskGeometry {
    /// A frame whose longest side fills the input.
    pub fn new(config: &MobileSamConfig, source_hw: [usize; 2]) -> Self {
        let resized_hw = config.resized_hw(source_hw[0], source_hw[1]);
        MaskGeometry { input_size: config.input_size(), resized_hw, source_hw }
    }

    /// Bytes of a packed row.
    pub fn row_bytes(&self) -> usize {
        self.source_hw[1].div_ceil(8)
    }

    /// Pixels (x, then y) of the frame whose centre lies in a box of the input, enlarged on each side by `margin`
    /// times its own size.
    pub(super) fn allowed(&self, box_xyxy: [f64; 4], margin: f64) -> [Range<usize>; 2] {
        [0, 1].map(|axis| {
            let (low, high) = (box_xyxy[axis], box_xyxy[axis + 2]);
            let grow = margin * (high - low);
            let (source, resized) = (self.source_hw[1 - axis], self.resized_hw[1 - axis]);
            let scale = source as f64 / resized as f64;
            let start = ((low - grow) * scale - 0.5).ceil().max(0.0) as usize;
            let end = ((high + grow) * scale + 0.5).floor().max(0.0) as usize;
            let end = end.min(source);
            start.min(end)..end
        })
    }
}
