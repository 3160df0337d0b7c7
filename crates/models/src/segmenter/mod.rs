//! What a promptable segmenter is to those who use one: an image and prompts in, masks out, whichever network computes
//! them.
//!
//! The image is encoded once ([`SegmenterNetwork::encode`]); any number of prompts is decoded against it
//! ([`SegmenterNetwork::decode`]), and the masks are brought to the frame's size
//! ([`SegmenterNetwork::masks_to_source`]). A network with its weights is a [`Segmenter`](crate::zoo::Segmenter);
//! [`SamPredictor`] does all of it for single images.

mod predictor;

use std::fmt::Debug;
use std::sync::Arc;

pub use predictor::{
    LabelledPoint, Mask, MaskValues, Masks, ObjectPrompt, PredictOptions, PredictorError, PredictorOptions,
    SamPredictor,
};
use ultramotion_engine::graph::{Graph, GraphError, ImageTransform, Tensor};
use ultramotion_engine::tensor::{DType, Shape};

use crate::parameters::{ConfigError, Parameters};

/// Longest side of a frame in pixels.
pub(crate) const MAX_SOURCE_SIDE: usize = 16384;

/// A network that outlines what it is pointed at.
pub trait SegmenterNetwork: Debug + Send + Sync {
    /// Height and width of its input in pixels.
    fn input_hw(&self) -> [usize; 2];

    /// The same network, with the same parameters, for another input size in pixels.
    fn with_input_hw(&self, input_hw: [usize; 2]) -> Result<Arc<dyn SegmenterNetwork>, ConfigError>;

    /// How a raw frame of this height and width becomes its input.
    fn image_transform(&self, source_hw: [usize; 2]) -> ImageTransform;

    /// Shape of the image embedding.
    fn embedding_shape(&self) -> Shape;

    /// Height and width of its low-resolution masks.
    fn low_res_hw(&self) -> [usize; 2];

    /// Adds the image encoder to a graph: image `[1, H, W, 3]` f32 → embedding.
    fn encode(
        &self,
        g: &mut Graph,
        image: Tensor,
        parameters: &mut Parameters<'_>,
    ) -> Result<Tensor, GraphError>;

    /// Adds what makes masks of an embedding and prompts.
    fn decode(
        &self,
        g: &mut Graph,
        embedding: Tensor,
        prompts: &Prompts,
        output: MaskOutput,
        parameters: &mut Parameters<'_>,
    ) -> Result<DecodedMasks, GraphError>;

    /// Adds what brings low-resolution logits `[K, …, h, w]` to the size of a frame, and the threshold at 0.
    fn masks_to_source(
        &self,
        g: &mut Graph,
        low_res_masks: Tensor,
        source_hw: [usize; 2],
    ) -> Result<SourceMasks, GraphError>;

    /// Adds what brings low-resolution logits `[K, …, h, w]` to the size of a frame: `[K, …, H, W]` f32.
    fn logits_to_source(
        &self,
        g: &mut Graph,
        low_res_masks: Tensor,
        source_hw: [usize; 2],
    ) -> Result<Tensor, GraphError>;

    /// Whether inference leaves this name of an official checkpoint unread.
    fn unused_parameter(&self, name: &str) -> bool;
}

/// What a point means, as the graph wants it: the value to put in [`Prompts::points`]' kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum PointKind {
    /// Fills up a shorter list; its position does not matter.
    Padding = 0,
    /// Not part of the object.
    Negative = 1,
    /// Part of the object.
    Positive = 2,
}

/// Tensors with the prompts of K objects. All leading dimensions are K, row-counted or not.
#[derive(Debug, Clone, Copy, Default)]
pub struct Prompts {
    /// `[K, 4]`: x1, y1, x2, y2 in pixels of the network's input.
    pub boxes_xyxy: Option<Tensor>,
    /// `[K, P, 2]`: x, y in pixels of the network's input, and `[K, P]` i32: a [`PointKind`] each.
    pub points: Option<(Tensor, Tensor)>,
    /// `[K, T, 2]`: x, y in pixels of the network's input, and `[K, T]` i32: a [`TokenKind`] each. Points and corners that are told
    /// apart on the device; nothing is added to them, so the padding that goes with points alone must be among them.
    pub tokens: Option<(Tensor, Tensor)>,
    /// `[K, h, w, 1]`: low-resolution logits of an earlier prediction.
    pub mask: Option<Tensor>,
}

/// What a token means: the values of [`Prompts::tokens`]' kinds. The first three are those of [`PointKind`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum TokenKind {
    /// No point; its position does not matter.
    Padding = 0,
    /// Not part of the object.
    Negative = 1,
    /// Part of the object.
    Positive = 2,
    /// Left top corner of the object's box; the next token is the other corner.
    TopLeft = 3,
    /// Right bottom corner.
    BottomRight = 4,
}

impl Prompts {
    /// Boxes alone.
    pub fn boxes(boxes_xyxy: Tensor) -> Self {
        Prompts { boxes_xyxy: Some(boxes_xyxy), ..Prompts::default() }
    }

    /// Tokens as they are, positions and kinds.
    pub fn tokens(positions: Tensor, kinds: Tensor) -> Self {
        Prompts { tokens: Some((positions, kinds)), ..Prompts::default() }
    }
}

/// How many masks there are for each prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaskOutput {
    /// One mask, for prompts that are not ambiguous (a box).
    One,
    /// Three masks: whole, part and subpart.
    Three,
}

impl MaskOutput {
    /// Masks for each prompt.
    pub fn count(self) -> usize {
        match self {
            MaskOutput::One => 1,
            MaskOutput::Three => 3,
        }
    }
}

/// What a segmenter computes for K prompts and M masks each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodedMasks {
    /// `[K, M, h, w]` logits: positive inside.
    pub low_res_masks: Tensor,
    /// `[K, M]`: the network's estimate of each mask's IoU with the truth.
    pub iou: Tensor,
    /// Values on the way by name, in the order of computation, for comparison with the official code.
    pub features: Vec<(String, Tensor)>,
}

/// Masks of the source frame. All leading dimensions are those of the logits, with their row count; of the rows that
/// are not valid, areas and boxes are 0 and bits undefined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceMasks {
    /// `[…, H, ceil(W / 8)]` u8: bit 0 is the leftmost of 8 pixels, bits beyond the width are 0.
    pub bits: Tensor,
    /// `[…]` i32: pixels inside.
    pub area_px: Tensor,
    /// `[…, 4]` i32: x1, y1, x2, y2 of the smallest box around the mask, x2 and y2 exclusive; zeros for none.
    pub box_xyxy: Tensor,
}

/// The parameters that a segmenter reads.
pub(crate) fn described(network: &dyn SegmenterNetwork) -> Result<Parameters<'static>, GraphError> {
    let (mut g, mut parameters) = (Graph::new("describe"), Parameters::describe());
    let [h, w] = network.input_hw();
    let image = g.input("image", DType::F32, [1, h, w, 3])?;
    let embedding = network.encode(&mut g, image, &mut parameters)?;
    let prompts = Prompts::boxes(g.input("boxes", DType::F32, [1, 4])?);
    network.decode(&mut g, embedding, &prompts, MaskOutput::One, &mut parameters)?;
    Ok(parameters)
}
