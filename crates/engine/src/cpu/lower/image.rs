//! Raw frames to network inputs.

use super::{Context, Lowered};
use crate::cpu::kernels::{self, ImagePlacement, ImagePlan};
use crate::graph::ImageTransform;

pub(super) fn image_to_tensor(context: &Context<'_>, transform: &ImageTransform) -> Lowered {
    let shape = context.input_shape(0).clone();
    let placement = ImagePlacement {
        size: transform.resized_hw,
        corner: [0, 0],
        input: transform.output_hw,
        scale: transform.scale,
        shift: transform.shift,
    };
    let plan =
        ImagePlan::new(shape[0], shape[1], shape[2], placement).expect("the graph builder checks sizes");
    let (frame, mut out, level) = (context.input(0), context.output(), context.level);
    Lowered::new("image_to_tensor", move |call| {
        kernels::image(level, call.pool, &plan, frame.slice().u8(), out.view_mut(None));
    })
}
