//! `track_update`: one frame of tracking on the device, the table of tracks in two state tensors.

use super::cuda::{EXACT_BYTES_PER_COLUMN, SHARED_BYTES, TRACK_UPDATE, threads_for};
use super::{clamp_count, describe, f32s, holds, scratch_buffers, scratch_of, tensor};
use crate::TrackingError;
use crate::assignment::{Scratch, Solver, Workspace};
use crate::track::table::{f32_len, i32_len};
use crate::track::{Detections, TrackOutput, TrackTableMut, TrackerConfig, scratch_sizes, update};
use bytemuck::{Pod, Zeroable};
use std::sync::Arc;
use ultramotion_engine::graph::{CpuCall, CudaCall, CustomOp, Graph, GraphError, Tensor, TensorType};
use ultramotion_engine::launch::Launch;
use ultramotion_engine::reference::Values;
use ultramotion_engine::tensor::{DType, HostTensor};
use ultramotion_types::Visibility;

/// Name of the f32 half of the table among a graph's states.
pub const TRACK_F32S: &str = "track_f32s";
/// Name of the i32 half.
pub const TRACK_I32S: &str = "track_i32s";

/// The op. Inputs: boxes `[K, 4]`, scores `[K]`, classes `[K]` i32, count `[1]` i32, dt_s `[1]`, then the table's
/// two halves. Outputs: the fields of [`TrackTensors`], then the table's next values.
#[derive(Clone, Debug)]
pub struct TrackUpdate {
    config: TrackerConfig,
    capacity: usize,
}

/// A frame's detections on the device, with room for K.
#[derive(Clone, Copy, Debug)]
pub struct DetectionTensors {
    /// `[K, 4]`, fractions of the image.
    pub boxes_cxcywh: Tensor,
    /// `[K]`.
    pub scores: Tensor,
    /// `[K]` i32.
    pub classes: Tensor,
    /// `[1]` i32: how many there are.
    pub count: Tensor,
}

/// Results of [`track()`]: see [`TrackOutput`]. All i32.
#[derive(Clone, Copy, Debug)]
pub struct TrackTensors {
    /// `[K]`: identity, 0 where a row is no detection.
    pub track_ids: Tensor,
    /// `[K]`: 1 where the track is confirmed.
    pub confirmed: Tensor,
    /// `[K]`: [`Visibility`] of each track.
    pub visibility: Tensor,
    /// `[K]`: slot of each track in the table, −1 for none.
    pub slots: Tensor,
    /// `[1]`: [`Visibility`] of the scene.
    pub scene: Tensor,
}

/// Adds tracking to a graph: the states [`TRACK_F32S`] and [`TRACK_I32S`] with `capacity` slots, and the op that
/// renews them. `dt_s` is `[1]`, the seconds since the last frame ([`FrameClock`](crate::track::FrameClock)).
pub fn track(
    graph: &mut Graph,
    config: TrackerConfig,
    capacity: usize,
    detections: DetectionTensors,
    dt_s: Tensor,
) -> Result<TrackTensors, GraphError> {
    let op = TrackUpdate { config, capacity };
    let f32s = graph.state(TRACK_F32S, HostTensor::zeros(DType::F32, [f32_len(capacity)]))?;
    let i32s = graph.state(TRACK_I32S, HostTensor::zeros(DType::I32, [i32_len(capacity)]))?;
    let DetectionTensors { boxes_cxcywh, scores, classes, count } = detections;
    let out = graph.custom(Arc::new(op), &[boxes_cxcywh, scores, classes, count, dt_s, f32s, i32s])?;
    graph.set_state(f32s, out[5])?;
    graph.set_state(i32s, out[6])?;
    Ok(TrackTensors {
        track_ids: out[0],
        confirmed: out[1],
        visibility: out[2],
        slots: out[3],
        scene: out[4],
    })
}

impl TrackUpdate {
    /// An op for a table of `capacity` slots.
    pub fn new(config: TrackerConfig, capacity: usize) -> Result<Self, TrackingError> {
        config.validate()?;
        Ok(Self { config, capacity })
    }

    fn step(
        &self,
        table: (&mut [f32], &mut [i32]),
        detections: &Detections<'_>,
        dt_s: f32,
        mut scratch: Scratch<'_>,
        mut output: TrackOutput<'_>,
    ) -> Visibility {
        TrackTableMut::from_slices(self.capacity, table.0, table.1)
            .and_then(|mut table| {
                update(&self.config, &mut table, detections, dt_s, &mut scratch, &mut output)
            })
            .expect("the buffers have the declared sizes")
    }
}

/// A [`TrackerConfig`] as `track_update.cu` has it.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct CudaConfig {
    greedy: u32,
    independent: u32,
    class_must_agree: u32,
    confirm_hits: u32,
    confirm_window: u32,
    forget_frames: u32,
    class_weight: f32,
    bbox_weight: f32,
    giou_weight: f32,
    max_cost: f32,
    gate_distance: f32,
    gate_growth_per_s: f32,
    gate_giou: f32,
    age_cost_per_s: f32,
    unconfirmed_cost: f32,
    birth_score: f32,
    duplicate_iou: f32,
    relocalize_s: f32,
    forget_s: f32,
    measurement_noise: f32,
    acceleration_noise: f32,
    nominal_dt_s: f32,
    coast_s: f32,
    score_gain: f32,
}

impl From<&TrackerConfig> for CudaConfig {
    fn from(config: &TrackerConfig) -> Self {
        CudaConfig {
            greedy: (config.solver == Solver::Greedy).into(),
            independent: config.independent.into(),
            class_must_agree: config.class_must_agree.into(),
            confirm_hits: config.confirm_hits,
            confirm_window: config.confirm_window,
            forget_frames: config.forget_frames,
            class_weight: config.weights.class,
            bbox_weight: config.weights.bbox,
            giou_weight: config.weights.giou,
            max_cost: config.max_cost,
            gate_distance: config.gate_distance,
            gate_growth_per_s: config.gate_growth_per_s,
            gate_giou: config.gate_giou,
            age_cost_per_s: config.age_cost_per_s,
            unconfirmed_cost: config.unconfirmed_cost,
            birth_score: config.birth_score,
            duplicate_iou: config.duplicate_iou,
            relocalize_s: config.relocalize_s,
            forget_s: config.forget_s,
            measurement_noise: config.measurement_noise,
            acceleration_noise: config.acceleration_noise,
            nominal_dt_s: config.nominal_dt_s,
            coast_s: config.coast_s,
            score_gain: config.score_gain,
        }
    }
}

/// The params of `track_update.cu`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct TrackUpdateParams {
    inputs: [u64; 7],
    outputs: [u64; 7],
    memory: u64,
    config: CudaConfig,
    most: u32,
    capacity: u32,
}

impl TrackUpdate {
    /// Bytes that the kernel works in for up to `k` detections: see its first lines.
    fn cuda_memory(&self, k: usize) -> usize {
        let n = self.capacity;
        let lists = 2 * k + n;
        n.max(k) * EXACT_BYTES_PER_COLUMN + 4 * (2 * n * k + f32_len(n) + i32_len(n) + lists)
    }
}

impl CustomOp for TrackUpdate {
    fn name(&self) -> &str {
        "track_update"
    }

    fn output_types(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, String> {
        self.config.validate().map_err(|error| error.to_string())?;
        let [boxes, scores, classes, count, dt_s, table_f32s, table_i32s] = inputs else {
            return Err(format!("needs seven arguments, got {}", inputs.len()));
        };
        let k = scores.shape.numel();
        let fits = holds(boxes, DType::F32, 4 * k)
            && holds(scores, DType::F32, k)
            && holds(classes, DType::I32, k)
            && holds(count, DType::I32, 1)
            && holds(dt_s, DType::F32, 1)
            && holds(table_f32s, DType::F32, f32_len(self.capacity))
            && holds(table_i32s, DType::I32, i32_len(self.capacity));
        if !fits {
            return Err(format!(
                "needs boxes f32 [K, 4], scores f32 [K], classes i32 [K], a count i32 [1], dt_s f32 [1] and a table \
                 of {} tracks, got {}",
                self.capacity,
                describe(inputs)
            ));
        }
        if k > self.capacity {
            return Err(format!("a table of {} tracks is too small for {k} detections", self.capacity));
        }
        let mut types = vec![tensor(DType::I32, [k]); 4];
        types.extend([tensor(DType::I32, [1]), tensor(DType::F32, table_f32s.shape.clone())]);
        types.push(tensor(DType::I32, table_i32s.shape.clone()));
        Ok(types)
    }

    fn scratch(&self, inputs: &[TensorType]) -> Vec<(DType, usize)> {
        scratch_buffers(scratch_sizes(inputs[1].shape.numel(), self.capacity))
    }

    fn reference(&self, inputs: &[Values], outputs: &mut [Values]) {
        let [boxes, scores, classes, count, dt_s, table_f32s, table_i32s] = inputs else {
            panic!("track_update has seven arguments")
        };
        let [track_ids, confirmed, visibility, slots, scene, next_f32s, next_i32s] = outputs else {
            panic!("track_update has seven results")
        };
        let (boxes, scores) = (f32s(boxes.as_f64()), f32s(scores.as_f64()));
        let mut table = f32s(table_f32s.as_f64());
        next_i32s.i32_mut().copy_from_slice(table_i32s.as_i32());
        scene.i32_mut()[0] = self.step(
            (&mut table, next_i32s.i32_mut()),
            &Detections {
                boxes_cxcywh: &boxes,
                scores: &scores,
                classes: classes.as_i32(),
                count: clamp_count(count.as_i32()[0], scores.len()),
            },
            dt_s.as_f64()[0] as f32,
            Workspace::with_sizes(scratch_sizes(scores.len(), self.capacity)).scratch(),
            TrackOutput {
                track_ids: track_ids.i32_mut(),
                confirmed: confirmed.i32_mut(),
                visibility: visibility.i32_mut(),
                slots: slots.i32_mut(),
            },
        ) as i32;
        next_f32s.f64_mut().iter_mut().zip(table).for_each(|(to, from)| *to = f64::from(from));
    }

    fn cpu(&self, call: &mut CpuCall<'_>) {
        let [boxes, scores, classes, count, dt_s, table_f32s, table_i32s] = call.inputs else {
            panic!("track_update has seven arguments")
        };
        let [track_ids, confirmed, visibility, slots, scene, next_f32s, next_i32s] = &mut *call.outputs
        else {
            panic!("track_update has seven results")
        };
        next_f32s.f32().copy_from_slice(table_f32s.f32());
        next_i32s.i32().copy_from_slice(table_i32s.i32());
        scene.i32()[0] = self.step(
            (next_f32s.f32(), next_i32s.i32()),
            &Detections {
                boxes_cxcywh: boxes.f32(),
                scores: scores.f32(),
                classes: classes.i32(),
                count: clamp_count(count.i32()[0], scores.f32().len()),
            },
            dt_s.f32()[0],
            scratch_of(call.scratch),
            TrackOutput {
                track_ids: track_ids.i32(),
                confirmed: confirmed.i32(),
                visibility: visibility.i32(),
                slots: slots.i32(),
            },
        ) as i32;
    }
    fn cuda_scratch(&self, inputs: &[TensorType]) -> Vec<(DType, usize)> {
        let bytes = self.cuda_memory(inputs[1].shape.numel());
        if bytes <= SHARED_BYTES { Vec::new() } else { vec![(DType::U8, bytes)] }
    }

    fn cuda(&self, call: &CudaCall<'_>) -> Option<Vec<Launch>> {
        let most = call.input_types[1].shape.numel();
        let bytes = self.cuda_memory(most);
        let memory = call.scratch.first().map_or(0, |buffer| buffer.data);
        let params = TrackUpdateParams {
            inputs: std::array::from_fn(|i| call.inputs[i].data),
            outputs: std::array::from_fn(|i| call.outputs[i].data),
            memory,
            config: CudaConfig::from(&self.config),
            most: most as u32,
            capacity: self.capacity as u32,
        };
        let shared = if memory == 0 { bytes as u32 } else { 0 };
        let launch = Launch::new(&TRACK_UPDATE, "track_update", &params);
        Some(vec![launch.block([threads_for(self.capacity), 1, 1]).shared(shared)])
    }
}
