//! `quality`: how well the objects of a frame show; what their tracks looked like is a state tensor.

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use ultramotion_engine::graph::{CpuCall, CudaCall, CustomOp, Graph, GraphError, Tensor, TensorType};
use ultramotion_engine::launch::Launch;
use ultramotion_engine::reference::Values;
use ultramotion_engine::tensor::{DType, HostTensor};

use super::cuda::QUALITY;
use super::{clamp_count, describe, f32s, holds, tensor};
use crate::quality::{Image, Judged, MEMORY_LEN, Mask, Motion, QualityConfig, SCORES, judge};

/// What [`quality()`] takes of a frame with room for K objects.
#[derive(Clone, Copy, Debug)]
pub struct QualityInputs {
    /// `[H, W, C]` u8, C 1 or 3.
    pub frame: Tensor,
    /// `[K, …, H, ceil(W / 8)]` u8: bit 0 is the leftmost of 8 pixels.
    pub mask_bits: Tensor,
    /// 4 K values, i32: the smallest box around each mask, pixels, ends exclusive.
    pub box_xyxy: Tensor,
    /// `[1]` i32: how many objects there are.
    pub count: Tensor,
    /// `[K]` i32: the row of the memory that is each object's, below 0 for none: such an object is not judged.
    pub slots: Tensor,
    /// `[K]` i32: whose memory it is, not 0. A row that was another's is begun anew, and one with a key below 0 always is.
    pub keys: Tensor,
    /// `[6]`: see [`Motion`].
    pub motion: Tensor,
}

/// Results of [`quality()`].
#[derive(Clone, Copy, Debug)]
pub struct QualityTensors {
    /// `[K, 6]`: see [`SCORES`].
    pub scores: Tensor,
    /// `[K, 4]` i32: the box around the largest part of each mask, as in [`Judged::core_xyxy`].
    pub core_xyxy: Tensor,
}

/// Adds the scores of a frame's objects. The memory of `rows` tracks is the graph's state `state`.
pub fn quality(
    graph: &mut Graph,
    config: QualityConfig,
    state: &str,
    rows: usize,
    inputs: QualityInputs,
) -> Result<QualityTensors, GraphError> {
    let memory = graph.state(state, HostTensor::i32([rows, MEMORY_LEN], vec![0; rows * MEMORY_LEN]))?;
    let QualityInputs { frame, mask_bits, box_xyxy, count, slots, keys, motion } = inputs;
    let inputs = [frame, mask_bits, box_xyxy, count, slots, keys, motion, memory];
    let frame_hwc = <[usize; 3]>::try_from(graph.shape(frame).dims()).unwrap_or_default();
    let out = graph.custom(Arc::new(Quality { config, frame_hwc }), &inputs)?;
    graph.set_state(memory, out[2])?;
    Ok(QualityTensors { scores: out[0], core_xyxy: out[1] })
}

/// Inputs: the fields of [`QualityInputs`], then the memory `[T, MEMORY_LEN]` i32. Outputs: the fields of [`QualityTensors`], then
/// the memory.
#[derive(Clone, Debug)]
pub struct Quality {
    config: QualityConfig,
    /// Height, width and channels of a frame.
    frame_hwc: [usize; 3],
}

/// A frame's objects on the host.
struct Objects<'o> {
    image: Image<'o>,
    mask_bits: &'o [u8],
    box_xyxy: &'o [i32],
    count: usize,
    slots: &'o [i32],
    keys: &'o [i32],
    motion: Motion,
}

impl Quality {
    fn image<'i>(&self, pixels: &'i [u8]) -> Image<'i> {
        let [height, width, channels] = self.frame_hwc;
        Image { pixels, width, height, channels }
    }

    /// Gives each object that is judged to `take`, with its number.
    fn step(&self, objects: &Objects<'_>, memory: &mut [i32], mut take: impl FnMut(usize, Judged)) {
        let (memory, _) = memory.as_chunks_mut::<MEMORY_LEN>();
        let (boxes, _) = objects.box_xyxy.as_chunks::<4>();
        let mask_bytes = objects.image.height * objects.image.width.div_ceil(8);
        let masks = objects.mask_bits.chunks_exact(mask_bytes);
        for (k, (bits, &box_xyxy)) in masks.zip(boxes).take(objects.count).enumerate() {
            let row = usize::try_from(objects.slots[k]).ok().and_then(|slot| memory.get_mut(slot));
            let Some(row) = row else { continue };
            let mask = Mask { bits, box_xyxy };
            take(k, judge(&self.config, &objects.image, &mask, &objects.motion, objects.keys[k], row));
        }
    }
}

fn motion_of(values: &[f32]) -> Motion {
    Motion { previous_from_current: values.try_into().expect("a motion has six values") }
}

/// A [`QualityConfig`] as `quality.cu` has it.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct CudaConfig {
    weights: [f32; SCORES - 1],
    least: f32,
}

/// The params of `quality.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct QualityParams {
    inputs: [u64; 8],
    outputs: [u64; 3],
    config: CudaConfig,
    height: u32,
    width: u32,
    channels: u32,
    most: u32,
    rows: u32,
    reserved: u32,
}

impl CustomOp for Quality {
    fn name(&self) -> &str {
        "quality"
    }

    fn output_types(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, String> {
        let refused = || {
            format!(
                "needs a frame u8 [H, W, C], masks u8 [K, H, ceil(W / 8)], boxes i32 [K, 4], a count i32 [1], slots and keys i32 \
                 [K], a motion f32 [6] and a memory i32 [T, {MEMORY_LEN}], got {}",
                describe(inputs)
            )
        };
        let [frame, mask_bits, box_xyxy, count, slots, keys, motion, memory] = inputs else {
            return Err(refused());
        };
        let [height, width, channels @ (1 | 3)] = self.frame_hwc else { return Err(refused()) };
        let room = slots.shape.numel();
        let fits = height > 0
            && width > 0
            && holds(frame, DType::U8, height * width * channels)
            && holds(mask_bits, DType::U8, room * height * width.div_ceil(8))
            && holds(box_xyxy, DType::I32, 4 * room)
            && holds(count, DType::I32, 1)
            && holds(slots, DType::I32, room)
            && holds(keys, DType::I32, room)
            && holds(motion, DType::F32, 6)
            && memory.dtype == DType::I32
            && memory.shape.numel() % MEMORY_LEN == 0;
        if !fits {
            return Err(refused());
        }
        Ok(vec![
            tensor(DType::F32, [room, SCORES]),
            tensor(DType::I32, [room, 4]),
            tensor(DType::I32, memory.shape.clone()),
        ])
    }

    fn reference(&self, inputs: &[Values], outputs: &mut [Values]) {
        let [frame, mask_bits, box_xyxy, count, slots, keys, motion, memory] = inputs else {
            panic!("quality has eight arguments")
        };
        let [scores, core_xyxy, next] = outputs else { panic!("quality has three results") };
        next.i32_mut().copy_from_slice(memory.as_i32());
        let objects = Objects {
            image: self.image(frame.as_u8()),
            mask_bits: mask_bits.as_u8(),
            box_xyxy: box_xyxy.as_i32(),
            count: clamp_count(count.as_i32()[0], slots.as_i32().len()),
            slots: slots.as_i32(),
            keys: keys.as_i32(),
            motion: motion_of(&f32s(motion.as_f64())),
        };
        self.step(&objects, next.i32_mut(), |k, judged| {
            let scores = &mut scores.f64_mut()[SCORES * k..][..SCORES];
            scores.iter_mut().zip(judged.scores).for_each(|(to, from)| *to = f64::from(from));
            core_xyxy.i32_mut()[4 * k..][..4].copy_from_slice(&judged.core_xyxy);
        });
    }

    fn cpu(&self, call: &mut CpuCall<'_>) {
        let [frame, mask_bits, box_xyxy, count, slots, keys, motion, memory] = call.inputs else {
            panic!("quality has eight arguments")
        };
        let [scores, core_xyxy, next] = &mut *call.outputs else { panic!("quality has three results") };
        next.i32().copy_from_slice(memory.i32());
        let (scores, core_xyxy) = (scores.f32(), core_xyxy.i32());
        scores.fill(0.0);
        core_xyxy.fill(0);
        let objects = Objects {
            image: self.image(frame.u8()),
            mask_bits: mask_bits.u8(),
            box_xyxy: box_xyxy.i32(),
            count: clamp_count(count.i32()[0], slots.i32().len()),
            slots: slots.i32(),
            keys: keys.i32(),
            motion: motion_of(motion.f32()),
        };
        self.step(&objects, next.i32(), |k, judged| {
            scores[SCORES * k..][..SCORES].copy_from_slice(&judged.scores);
            core_xyxy[4 * k..][..4].copy_from_slice(&judged.core_xyxy);
        });
    }

    fn cuda(&self, call: &CudaCall<'_>) -> Option<Vec<Launch>> {
        let [height, width, channels] = self.frame_hwc.map(|side| side as u32);
        let rows = call.input_types[7].shape.numel() / MEMORY_LEN;
        let params = QualityParams {
            inputs: std::array::from_fn(|i| call.inputs[i].data),
            outputs: std::array::from_fn(|i| call.outputs[i].data),
            config: CudaConfig { weights: self.config.weights(), least: self.config.least },
            height,
            width,
            channels,
            most: call.input_types[4].shape.numel() as u32,
            rows: rows as u32,
            reserved: 0,
        };
        // A block a row of the memory, and one for the objects without a row.
        Some(vec![Launch::new(&QUALITY, "quality", &params).grid([rows as u32 + 1, 1, 1]).block([256, 1, 1])])
    }
}
