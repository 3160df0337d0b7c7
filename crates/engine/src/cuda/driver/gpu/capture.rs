//! A schedule captured into a CUDA graph, its branches side by side.

use std::sync::Arc;

use cudarc::driver::{result, sys};

use super::handles::Event;
use super::kernels::Kernel;
use super::{Shared, check};
use crate::cuda::driver::{CudaError, Schedule};

/// Streams that exist while a graph is captured. None of them is the device's own: what other threads start there meanwhile
/// would become part of the graph.
struct Branches {
    gpu: Arc<Shared>,
    streams: Vec<sys::CUstream>,
}

impl Branches {
    fn new(gpu: &Arc<Shared>, count: usize) -> Result<Branches, CudaError> {
        let mut branches = Branches { gpu: gpu.clone(), streams: Vec::new() };
        for _ in 0..count.max(1) {
            let kind = result::stream::StreamKind::NonBlocking;
            branches.streams.push(check("cuStreamCreate", result::stream::create(kind))?);
        }
        Ok(branches)
    }
    fn stream(&self, branch: usize) -> sys::CUstream {
        self.streams[branch]
    }
}

impl Drop for Branches {
    fn drop(&mut self) {
        if self.gpu.enter().is_ok() {
            for &stream in &self.streams {
                // SAFETY: created by `new`, and the capture that used it has ended.
                let _ = unsafe { result::stream::destroy(stream) };
            }
        }
    }
}

/// A CUDA graph that can be launched.
pub(super) struct Captured {
    gpu: Arc<Shared>,
    pub graph: sys::CUgraphExec,
}

// SAFETY: a driver handle, used with the context current.
unsafe impl Send for Captured {}

impl Captured {
    /// A driver that does not capture kernels that overlap gets them one after another.
    pub(super) fn new(
        gpu: &Arc<Shared>,
        schedule: &Schedule,
        kernels: &[Vec<Kernel>],
    ) -> Result<Captured, CudaError> {
        let captured = Self::capture(gpu, schedule, kernels, gpu.overlap);
        match captured {
            Err(error) if gpu.overlap => {
                tracing::warn!("{error}; kernels will not overlap");
                Self::capture(gpu, schedule, kernels, false)
            }
            captured => captured,
        }
    }

    fn capture(
        gpu: &Arc<Shared>,
        schedule: &Schedule,
        kernels: &[Vec<Kernel>],
        overlap: bool,
    ) -> Result<Captured, CudaError> {
        let count = schedule.steps.iter().map(|s| s.branch + 1).max().unwrap_or(1);
        let branches = Branches::new(gpu, count)?;
        // SAFETY: the stream is valid; relaxed, because other threads may allocate meanwhile.
        check("cuStreamBeginCapture", unsafe {
            let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
            result::stream::begin_capture(branches.stream(0), mode)
        })?;
        let recorded = Self::record(gpu, schedule, kernels, &branches, overlap);
        // The capture is ended whatever came of it: a stream must not be destroyed before.
        // SAFETY: the stream is capturing.
        let graph = unsafe { result::stream::end_capture(branches.stream(0)) };
        recorded?;
        let graph = check("cuStreamEndCapture", graph)?;
        // SAFETY: the graph was just captured, and is destroyed here.
        let executable = unsafe {
            let executable = result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0));
            let _ = result::graph::destroy(graph);
            check("cuGraphInstantiate", executable)?
        };
        let captured = Captured { gpu: gpu.clone(), graph: executable };
        // SAFETY: both handles are valid.
        check("cuGraphUpload", unsafe { result::graph::upload(executable, gpu.stream) })?;
        Ok(captured)
    }

    /// Every step on its branch's stream. Branches begin after the capture's first event and are joined at its end. With `overlap` a
    /// kernel that follows another one, and waits for no other branch, may begin before that one is done: the kernels themselves wait.
    fn record(
        gpu: &Arc<Shared>,
        schedule: &Schedule,
        kernels: &[Vec<Kernel>],
        branches: &Branches,
        overlap: bool,
    ) -> Result<(), CudaError> {
        let begin = Event::new(gpu, false)?;
        begin.record(branches.stream(0))?;
        for &stream in &branches.streams[1..] {
            begin.hold_back(stream)?;
        }
        let mut waited_for = vec![false; schedule.steps.len()];
        schedule.steps.iter().flat_map(|s| &s.waits).for_each(|&w| waited_for[w] = true);
        let mut ends: Vec<Option<Event>> = Vec::with_capacity(schedule.steps.len());
        // Whether the last thing in each stream is a kernel.
        let mut after_kernel = vec![false; branches.streams.len()];
        for (index, step) in schedule.steps.iter().enumerate() {
            let stream = branches.stream(step.branch);
            for &earlier in &step.waits {
                if let Some(end) = &ends[earlier] {
                    end.hold_back(stream)?;
                    after_kernel[step.branch] = false;
                }
            }
            for kernel in &kernels[index] {
                let after_kernel = &mut after_kernel[step.branch];
                kernel.launch(stream, overlap && *after_kernel)?;
                *after_kernel = true;
            }
            ends.push(if waited_for[index] {
                let end = Event::new(gpu, false)?;
                end.record(stream)?;
                Some(end)
            } else {
                None
            });
        }
        for &stream in &branches.streams[1..] {
            let end = Event::new(gpu, false)?;
            end.record(stream)?;
            end.hold_back(branches.stream(0))?;
        }
        Ok(())
    }
}

impl Drop for Captured {
    fn drop(&mut self) {
        if self.gpu.enter().is_ok() {
            // SAFETY: instantiated by `new`; the replay has waited for its runs.
            let _ = unsafe { result::graph::exec_destroy(self.graph) };
        }
    }
}
