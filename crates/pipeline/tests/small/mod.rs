//! A pipeline small enough for tests: the untrained networks at their least sizes. They find noise, but the same noise
//! each time.

#![allow(clippy::unwrap_used, dead_code, unsafe_code)] // each test program uses some of it

use ultramotion_engine::{Device, DeviceSlice};
use ultramotion_models::zoo::{Detector, Segmenter};
use ultramotion_pipeline::{Orchestrator, PipelineOptions, Run};
use ultramotion_types::{FrameView, PixelFormat, TimeSource};

pub const WIDTH: usize = 60;
pub const HEIGHT: usize = 44;

/// Options with which the untrained detector finds something.
pub fn options() -> PipelineOptions {
    PipelineOptions { max_objects: 4, score_threshold: 0.05, ..PipelineOptions::default() }
}

pub fn pipeline(threads: usize, options: PipelineOptions) -> Orchestrator {
    pipeline_on(Device::cpu(threads), options)
}

pub fn pipeline_on(device: Device, options: PipelineOptions) -> Orchestrator {
    pipeline_in(&Run::default(), device, options)
}

pub fn pipeline_in(run: &Run, device: Device, options: PipelineOptions) -> Orchestrator {
    let detector = Detector::open("dfine_n").unwrap().with_input_hw([64, 64]).unwrap();
    let segmenter = Segmenter::open("mobile_sam").unwrap().with_input_size(64).unwrap();
    Orchestrator::in_run(run, device, detector, segmenter, options).unwrap()
}

/// A grey picture that drifts with the frame's number.
pub fn picture(frame_id: u64) -> Vec<u8> {
    let value = |x: usize, y: usize| (x * 5 + y * 9 + (x * y) / 7) as u8;
    (0..HEIGHT * WIDTH).map(|i| value(i % WIDTH + frame_id as usize, i / WIDTH)).collect()
}

/// A grey frame.
pub fn grey(frame_id: u64, pixels: &[u8]) -> FrameView<'_> {
    FrameView {
        frame_id,
        timestamp_s: 0.04 * frame_id as f64,
        time_source: TimeSource::Source,
        source: "test",
        width: WIDTH,
        height: HEIGHT,
        pixel_format: PixelFormat::Grey8,
        pixels,
        tracker_from_pixels: None,
    }
}

/// The pixels as a GPU has them whose memory is this process's: the emulated one, and that of `driver.c`.
pub fn on_gpu(gpu: usize, pixels: &[u8]) -> DeviceSlice<'_> {
    // SAFETY: they are borrowed for as long, and are where the slice says on such a GPU; any other is to refuse them.
    unsafe { DeviceSlice::from_raw_parts(gpu, pixels.as_ptr() as u64, pixels.len()) }
}
