//! Memory over many frames; a program of its own, as other tests would disturb the measurement.

mod small;

use small::{grey, options, picture, pipeline};
use ultramotion_pipeline::PipelineOptions;
use ultramotion_types::Residency;

/// Memory of this process, bytes, where the system tells.
fn resident_bytes() -> Option<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(statm.split(' ').nth(1)?.parse::<usize>().ok()? * 4096)
}

#[test]
fn memory_does_not_grow() {
    for (residency, frames) in [(Residency::Device, 240), (Residency::Host, 80)] {
        let mut pipeline = pipeline(1, PipelineOptions { residency, ..options() });
        let mut after_warm_up = 0;
        for id in 0..frames {
            if id == 20 {
                let Some(bytes) = resident_bytes() else {
                    println!("skipped: this system has no /proc/self/statm");
                    return;
                };
                after_warm_up = bytes;
            }
            pipeline.process(&grey(id, &picture(id))).unwrap();
        }
        let grown = resident_bytes().unwrap().saturating_sub(after_warm_up);
        assert!(grown < 2 << 20, "{residency}: {} kB more after {frames} frames", grown / 1000);
    }
}
