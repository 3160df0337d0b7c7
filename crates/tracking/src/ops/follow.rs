//! `follow_begin` and `follow_finish`: what somebody pointed at, from frame to frame on the device; its slots are a state
//! tensor. Between the two the segmenter outlines the rows.

use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use ultramotion_engine::graph::{CpuCall, CudaCall, CustomOp, Graph, GraphError, Tensor, TensorType};
use ultramotion_engine::launch::{Launch, Operand};
use ultramotion_engine::reference::Values;
use ultramotion_engine::tensor::{DType, HostTensor};

use super::cuda::FOLLOW;
use super::{clamp_count, describe, f32s, holds, tensor};
use crate::follow::{self, FollowConfig, Outlines, SLOT_LEN, TOKENS, Tokens};
use crate::quality::SCORES;
use crate::track::TrackerConfig;

/// Name of the slots among a graph's states.
pub const FOLLOW_SLOTS: &str = "follow_slots";

/// Prompts of a frame, with room for P objects.
#[derive(Clone, Copy, Debug)]
pub struct FollowPrompts {
    /// `[P, 2, 2]`, pixels of the segmenter's input.
    pub positions: Tensor,
    /// `[P, 2]` i32: see [`follow::token`].
    pub kinds: Tensor,
    /// `[P]` i32: slot of each row, −1 for none.
    pub slots: Tensor,
    /// `[1]` i32: how many rows there are.
    pub count: Tensor,
    /// `[P]` i32: whose what is remembered of each row is, as in [`Tokens::keys`].
    pub keys: Tensor,
    /// The slots before this frame, and after its beginning.
    state: [Tensor; 2],
}

/// What the segmenter gives for the rows of [`FollowPrompts`].
#[derive(Clone, Copy, Debug)]
pub struct FollowOutlines {
    /// P values: the estimate of each outline's IoU with the truth.
    pub iou: Tensor,
    /// P values, i32.
    pub area_px: Tensor,
    /// P boxes of 4 values, i32, around the largest part of each: left, top, right, bottom, the latter two exclusive, pixels of the
    /// frame.
    pub box_xyxy: Tensor,
    /// `[P, 6]`: how well each shows, see [`SCORES`].
    pub quality: Tensor,
}

/// Adds the beginning of a frame: `commands` `[P, 12]` are rows as of [`follow::Command::values`], `dt_s` `[1]` the seconds since
/// the last frame, `input_wh` the frame's size in the segmenter's input.
pub fn follow_begin(
    graph: &mut Graph,
    config: TrackerConfig,
    commands: Tensor,
    dt_s: Tensor,
    input_wh: [f32; 2],
) -> Result<FollowPrompts, GraphError> {
    let room = graph.shape(commands)[0];
    let slots = HostTensor::f32([room, SLOT_LEN], vec![0.0; room * SLOT_LEN]);
    let before = graph.state(FOLLOW_SLOTS, slots)?;
    let out = graph.custom(Arc::new(FollowBegin { config, input_wh }), &[commands, before, dt_s])?;
    Ok(FollowPrompts {
        positions: out[0],
        kinds: out[1],
        slots: out[2],
        count: out[3],
        keys: out[4],
        state: [before, out[5]],
    })
}

/// Adds the end of a frame. Gives what became of each row, `[P]` i32: see [`follow::status`].
pub fn follow_finish(
    graph: &mut Graph,
    config: TrackerConfig,
    follow: FollowConfig,
    prompts: &FollowPrompts,
    outlines: FollowOutlines,
    dt_s: Tensor,
    frame_wh: [f32; 2],
) -> Result<Tensor, GraphError> {
    let op = FollowFinish { config, follow, frame_wh };
    let FollowOutlines { iou, area_px, box_xyxy, quality } = outlines;
    let [before, begun] = prompts.state;
    let inputs = [begun, prompts.slots, prompts.count, iou, area_px, box_xyxy, quality, dt_s];
    let out = graph.custom(Arc::new(op), &inputs)?;
    graph.set_state(before, out[1])?;
    Ok(out[0])
}

/// Inputs: commands `[P, 12]`, slots `[P, 12]`, dt_s `[1]`. Outputs: the first five fields of [`FollowPrompts`], then the slots.
#[derive(Clone, Debug)]
pub struct FollowBegin {
    config: TrackerConfig,
    input_wh: [f32; 2],
}

/// Inputs: slots `[P, 12]`, slot of each row `[P]` i32, count `[1]` i32, IoU estimates P, areas P i32, boxes 4 P i32, quality
/// `[P, 6]`, dt_s `[1]`.
/// Outputs: statuses `[P]` i32, slots `[P, 12]`.
#[derive(Clone, Debug)]
pub struct FollowFinish {
    config: TrackerConfig,
    follow: FollowConfig,
    frame_wh: [f32; 2],
}

/// The motion model of a [`TrackerConfig`], as `motion.cuh` has it, and the thresholds.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct CudaConfig {
    measurement_noise: f32,
    acceleration_noise: f32,
    nominal_dt_s: f32,
    coast_s: f32,
    least_iou: f32,
    least_quality: f32,
    most_of_frame: f32,
    most_growth: f32,
    forget_s: f32,
    reserved: u32,
}

impl CudaConfig {
    fn of(config: &TrackerConfig, follow: &FollowConfig) -> Self {
        CudaConfig {
            measurement_noise: config.measurement_noise,
            acceleration_noise: config.acceleration_noise,
            nominal_dt_s: config.nominal_dt_s,
            coast_s: config.coast_s,
            least_iou: follow.least_iou,
            least_quality: follow.least_quality,
            most_of_frame: follow.most_of_frame,
            most_growth: follow.most_growth,
            forget_s: follow.forget_s,
            reserved: 0,
        }
    }
}

/// A tensor of P values as `follow.cu` has it.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct PValues {
    data: u64,
    pitch: u32,
    reserved: u32,
}

impl From<Operand> for PValues {
    fn from(operand: Operand) -> Self {
        // One value a row, or all in one row.
        let pitch = if operand.cols == 1 { operand.pitch } else { 1 };
        PValues { data: operand.data, pitch, reserved: 0 }
    }
}

/// The params of `follow_begin` in `follow.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct BeginParams {
    inputs: [u64; 3],
    outputs: [u64; 6],
    config: CudaConfig,
    size: [f32; 2],
    most: u32,
    reserved: u32,
}

/// The params of `follow_finish`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct FinishParams {
    slots: u64,
    rows: u64,
    count: u64,
    iou: PValues,
    area_px: PValues,
    box_xyxy: u64,
    quality: u64,
    dt_s: u64,
    outputs: [u64; 2],
    config: CudaConfig,
    size: [f32; 2],
    most: u32,
    reserved: u32,
}

impl CustomOp for FollowBegin {
    fn name(&self) -> &str {
        "follow_begin"
    }

    fn output_types(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, String> {
        let refused = || {
            format!(
                "needs commands f32 [P, {SLOT_LEN}], slots like them and dt_s f32 [1], got {}",
                describe(inputs)
            )
        };
        let [commands, slots, dt_s] = inputs else { return Err(refused()) };
        let room = commands.shape.numel() / SLOT_LEN;
        let fits = room > 0
            && holds(commands, DType::F32, room * SLOT_LEN)
            && holds(slots, DType::F32, room * SLOT_LEN)
            && holds(dt_s, DType::F32, 1);
        if !fits {
            return Err(refused());
        }
        Ok(vec![
            tensor(DType::F32, [room, TOKENS, 2]),
            tensor(DType::I32, [room, TOKENS]),
            tensor(DType::I32, [room]),
            tensor(DType::I32, [1]),
            tensor(DType::I32, [room]),
            tensor(DType::F32, slots.shape.clone()),
        ])
    }

    fn reference(&self, inputs: &[Values], outputs: &mut [Values]) {
        let [commands, slots, dt_s] = inputs else { panic!("follow_begin has three arguments") };
        let [positions, kinds, rows, count, keys, next] = outputs else {
            panic!("follow_begin has six results")
        };
        let mut slots = f32s(slots.as_f64());
        let mut places = vec![0.0; positions.as_f64().len()];
        let mut tokens = Tokens {
            positions: &mut places,
            kinds: kinds.i32_mut(),
            slots: rows.i32_mut(),
            keys: keys.i32_mut(),
        };
        let commands = f32s(commands.as_f64());
        let dt_s = dt_s.as_f64()[0] as f32;
        count.i32_mut()[0] =
            follow::begin(&self.config, &mut slots, &commands, dt_s, self.input_wh, &mut tokens) as i32;
        positions.f64_mut().iter_mut().zip(places).for_each(|(to, from)| *to = f64::from(from));
        next.f64_mut().iter_mut().zip(slots).for_each(|(to, from)| *to = f64::from(from));
    }

    fn cpu(&self, call: &mut CpuCall<'_>) {
        let [commands, slots, dt_s] = call.inputs else { panic!("follow_begin has three arguments") };
        let [positions, kinds, rows, count, keys, next] = &mut *call.outputs else {
            panic!("follow_begin has six results")
        };
        next.f32().copy_from_slice(slots.f32());
        let mut tokens =
            Tokens { positions: positions.f32(), kinds: kinds.i32(), slots: rows.i32(), keys: keys.i32() };
        count.i32()[0] = follow::begin(
            &self.config,
            next.f32(),
            commands.f32(),
            dt_s.f32()[0],
            self.input_wh,
            &mut tokens,
        ) as i32;
    }

    fn cuda(&self, call: &CudaCall<'_>) -> Option<Vec<Launch>> {
        let room = call.input_types[0].shape.numel() / SLOT_LEN;
        let params = BeginParams {
            inputs: std::array::from_fn(|i| call.inputs[i].data),
            outputs: std::array::from_fn(|i| call.outputs[i].data),
            config: CudaConfig::of(&self.config, &FollowConfig::default()),
            size: self.input_wh,
            most: room as u32,
            reserved: 0,
        };
        Some(vec![Launch::new(&FOLLOW, "follow_begin", &params).block([32, 1, 1])])
    }
}

impl CustomOp for FollowFinish {
    fn name(&self) -> &str {
        "follow_finish"
    }

    fn output_types(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, String> {
        let refused = || {
            format!(
                "needs slots f32 [P, {SLOT_LEN}], their rows i32 [P], a count i32 [1], estimates f32 [P], areas i32 [P], boxes \
                 i32 [P, 4], quality f32 [P, {SCORES}] and dt_s f32 [1], got {}",
                describe(inputs)
            )
        };
        let [slots, rows, count, iou, area_px, box_xyxy, quality, dt_s] = inputs else {
            return Err(refused());
        };
        let room = rows.shape.numel();
        let fits = holds(slots, DType::F32, room * SLOT_LEN)
            && holds(rows, DType::I32, room)
            && holds(count, DType::I32, 1)
            && holds(iou, DType::F32, room)
            && holds(area_px, DType::I32, room)
            && holds(box_xyxy, DType::I32, 4 * room)
            && holds(quality, DType::F32, SCORES * room)
            && holds(dt_s, DType::F32, 1);
        if !fits {
            return Err(refused());
        }
        Ok(vec![tensor(DType::I32, [room]), tensor(DType::F32, slots.shape.clone())])
    }

    fn reference(&self, inputs: &[Values], outputs: &mut [Values]) {
        let [slots, rows, count, iou, area_px, box_xyxy, quality, dt_s] = inputs else {
            panic!("follow_finish has eight arguments")
        };
        let [statuses, next] = outputs else { panic!("follow_finish has two results") };
        let mut slots = f32s(slots.as_f64());
        let outlines = Outlines {
            slots: rows.as_i32(),
            count: clamp_count(count.as_i32()[0], rows.as_i32().len()),
            iou: &f32s(iou.as_f64()),
            area_px: area_px.as_i32(),
            box_xyxy: box_xyxy.as_i32(),
            quality: &f32s(quality.as_f64()),
            frame_wh: self.frame_wh,
        };
        let dt_s = dt_s.as_f64()[0] as f32;
        follow::finish(&self.config, &self.follow, &mut slots, &outlines, dt_s, statuses.i32_mut());
        next.f64_mut().iter_mut().zip(slots).for_each(|(to, from)| *to = f64::from(from));
    }

    fn cpu(&self, call: &mut CpuCall<'_>) {
        let [slots, rows, count, iou, area_px, box_xyxy, quality, dt_s] = call.inputs else {
            panic!("follow_finish has eight arguments")
        };
        let [statuses, next] = &mut *call.outputs else { panic!("follow_finish has two results") };
        next.f32().copy_from_slice(slots.f32());
        let outlines = Outlines {
            slots: rows.i32(),
            count: clamp_count(count.i32()[0], rows.i32().len()),
            iou: iou.f32(),
            area_px: area_px.i32(),
            box_xyxy: box_xyxy.i32(),
            quality: quality.f32(),
            frame_wh: self.frame_wh,
        };
        follow::finish(&self.config, &self.follow, next.f32(), &outlines, dt_s.f32()[0], statuses.i32());
    }

    fn cuda(&self, call: &CudaCall<'_>) -> Option<Vec<Launch>> {
        let room = call.input_types[1].shape.numel();
        let &[slots, rows, count, iou, area_px, box_xyxy, quality, dt_s] = call.inputs else {
            panic!("follow_finish has eight arguments")
        };
        let params = FinishParams {
            slots: slots.data,
            rows: rows.data,
            count: count.data,
            iou: iou.into(),
            area_px: area_px.into(),
            box_xyxy: box_xyxy.data,
            quality: quality.data,
            dt_s: dt_s.data,
            outputs: std::array::from_fn(|i| call.outputs[i].data),
            config: CudaConfig::of(&self.config, &self.follow),
            size: self.frame_wh,
            most: room as u32,
            reserved: 0,
        };
        Some(vec![Launch::new(&FOLLOW, "follow_finish", &params).block([32, 1, 1])])
    }
}
