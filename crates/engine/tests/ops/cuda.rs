//! The device that the CUDA suites run on: a GPU where `ULTRAMOTION_GPU` is its number, else this machine's processor.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ultramotion_engine::cuda::build_for_host;
use ultramotion_engine::{Device, Precision};

/// `None`, and a message, where there is neither.
pub fn device(precision: Precision) -> Option<Device> {
    if let Ok(ordinal) = std::env::var("ULTRAMOTION_GPU") {
        let ordinal = ordinal.parse().expect("ULTRAMOTION_GPU is a number");
        return Some(Device::cuda(ordinal, precision).expect("the GPU that ULTRAMOTION_GPU names"));
    }
    let seed = std::env::var("ULTRAMOTION_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    Some(Device::emulated_cuda(kernels()?, precision, seed).expect("kernels that were just built"))
}

/// The kernels of the engine and of this suite, built for this machine's processor. `None`, and a message, where there
/// is no C++ compiler.
#[allow(clippy::print_stdout)]
pub fn kernels() -> Option<&'static Path> {
    static KERNELS: OnceLock<Option<PathBuf>> = OnceLock::new();
    let kernels = KERNELS.get_or_init(|| {
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
        if std::process::Command::new(&compiler).arg("--version").output().is_err() {
            println!("skipped: no C++ compiler '{compiler}' to build the kernels for this machine");
            return None;
        }
        let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ops/kernels");
        let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernels");
        Some(build_for_host(&[ours], &out).unwrap_or_else(|e| panic!("{e}")))
    });
    kernels.as_deref()
}
