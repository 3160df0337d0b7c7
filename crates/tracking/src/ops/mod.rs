//! Assignment and tracks as device ops, so that a frame's program needs no decision by the host.
//!
//! | file | op | what |
//! |---|---|---|
//! | [`mod@assign`] | `assign` | cost matrix with device-resident row and column counts in, matches and dual variables out |
//! | [`match_cost`] | `match_cost` | logits, boxes and targets in, the matcher's cost matrix out |
//! | [`device_matcher`] | both | batches in, pairs out: the programs of a matcher on a device |
//! | [`track_update`] | `track_update` | one frame's detections in, identities out; the tracks are state tensors |
//! | [`mod@follow`] | `follow_begin`, `follow_finish` | what was pointed at in, prompts for the segmenter out; its outlines in, what became of each out |
//! | [`mod@quality`] | `quality` | a frame and its masks in, how well they show out; what tracks looked like is a state tensor |
//!
//! The CPU forms are the same functions that the library offers for slices. What the ops decide (pairs, identities)
//! is decided in f32 and f64 in every form, so that all backends agree on it; only the costs are judged in float64.
//!
//! ```
//! use ultramotion_engine::graph::Graph;
//! use ultramotion_engine::tensor::{DType, HostTensor};
//! use ultramotion_engine::{CompileOptions, Device, Program};
//! use ultramotion_tracking::ops::{self, TrackInputs};
//! use ultramotion_tracking::track::{TrackTable, TrackerConfig};
//!
//! let mut g = Graph::new("tracks");
//! let inputs = TrackInputs {
//!     boxes_cxcywh: g.input("boxes", DType::F32, [2, 4])?,
//!     scores: g.input("scores", DType::F32, [2])?,
//!     classes: g.input("classes", DType::I32, [2])?,
//!     count: g.input("count", DType::I32, [1])?,
//!     dt_s: g.input("dt_s", DType::F32, [1])?,
//! };
//! let tracked = ops::track(&mut g, TrackerConfig::default(), &TrackTable::new(8), inputs)?;
//! g.output("track_ids", tracked.track_ids)?;
//! let mut program = Program::compile(g, &Device::cpu(1), &CompileOptions::default())?;
//! for x in [0.5, 0.51, 0.52] {
//!     let outputs = program.run(&[
//!         &HostTensor::f32([2, 4], vec![x, 0.5, 0.1, 0.1, 0.0, 0.0, 0.0, 0.0]),
//!         &HostTensor::f32([2], vec![0.9, 0.0]),
//!         &HostTensor::i32([2], vec![1, 0]),
//!         &HostTensor::i32([1], vec![1]),
//!         &HostTensor::f32([1], vec![0.05]),
//!     ])?;
//!     assert_eq!(outputs[0].as_i32(), Some(&[1, 0][..]));
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod assign;
mod cuda;
pub mod device_matcher;
pub mod follow;
pub mod match_cost;
pub mod quality;
pub mod track_update;

pub use assign::{Assign, AssignTensors, assign};
pub use device_matcher::DeviceMatcher;
pub use follow::{FollowOutlines, FollowPrompts, follow_begin, follow_finish};
pub use match_cost::{MatchCost, TargetTensors, match_targets};
pub use quality::{QualityInputs, QualityTensors, quality};
pub use track_update::{TrackInputs, TrackTensors, TrackUpdate, track};

use crate::assignment::{Scratch, ScratchSizes};
use ultramotion_engine::graph::{SliceMut, TensorType};
use ultramotion_engine::tensor::DType;

/// Scratch buffers for a solver: a device has no f64 tensors, so those come as bytes, with room to align them.
fn scratch_buffers(sizes: ScratchSizes) -> Vec<(DType, usize)> {
    let f64_bytes = (sizes.f64s + 1) * size_of::<f64>();
    vec![(DType::F32, sizes.f32s), (DType::U8, f64_bytes), (DType::I32, sizes.i32s)]
}

/// The buffers of [`scratch_buffers`] as a solver takes them.
fn scratch_of<'a>(buffers: &'a mut [SliceMut<'_>]) -> Scratch<'a> {
    match buffers {
        [SliceMut::F32(f32s), SliceMut::U8(bytes), SliceMut::I32(i32s)] => {
            Scratch { f32s, f64s: bytemuck::pod_align_to_mut(bytes).1, i32s }
        }
        other => panic!("{} scratch buffers are not the three that were declared", other.len()),
    }
}

/// A count from the device as a number of rows: at least 0, at most `bound`.
fn clamp_count(count: i32, bound: usize) -> usize {
    usize::try_from(count).unwrap_or(0).min(bound)
}

fn describe(inputs: &[TensorType]) -> String {
    inputs.iter().map(|t| format!("{} {}", t.dtype, t.shape)).collect::<Vec<_>>().join(", ")
}

fn tensor(dtype: DType, dims: impl Into<ultramotion_engine::tensor::Shape>) -> TensorType {
    TensorType { dtype, shape: dims.into(), rows: None }
}

/// Whether a type is `dtype` with `n` elements, whatever its shape.
fn holds(ty: &TensorType, dtype: DType, n: usize) -> bool {
    ty.dtype == dtype && ty.shape.numel() == n
}

fn f32s(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&v| v as f32).collect()
}
