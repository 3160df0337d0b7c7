//! What the CUDA suites run on.

use std::path::{Path, PathBuf};

use ultramotion_engine::testing::{device_for_tests, emulated_for_tests};
use ultramotion_engine::{Device, Precision};

fn ours() -> [PathBuf; 1] {
    [Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ops/kernels")]
}

/// A GPU where `ULTRAMOTION_GPU` is its number, else this machine's processor. `None`, and a message, where there is
/// neither.
pub fn device(precision: Precision) -> Option<Device> {
    device_for_tests(&ours(), precision)
}

/// This machine's processor, whatever GPU there is: for tests of the emulation.
pub fn emulated(precision: Precision, seed: u64) -> Option<Device> {
    emulated_for_tests(&ours(), precision, seed)
}
