//! The devices that tests of CUDA forms run on: a tool for the tests of every crate that has such forms.

use std::path::PathBuf;

use crate::backend::Precision;
use crate::device::Device;

/// The GPU whose number is in `ULTRAMOTION_GPU`, or else [`emulated_for_tests`], with `ULTRAMOTION_SEED` as its seed.
///
/// # Panics
/// If there is no such GPU, or kernels do not compile: this is a tool for tests.
pub fn device_for_tests(more: &[PathBuf], precision: Precision) -> Option<Device> {
    if let Ok(ordinal) = std::env::var("ULTRAMOTION_GPU") {
        let ordinal = ordinal.parse().expect("ULTRAMOTION_GPU is a number");
        return Some(
            Device::cuda(ordinal, precision).unwrap_or_else(|e| panic!("ULTRAMOTION_GPU={ordinal}: {e}")),
        );
    }
    let seed = std::env::var("ULTRAMOTION_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    emulated_for_tests(more, precision, seed)
}

/// This machine's processor with the engine's kernels and those in the folders of `more`. `None`, and a message, where there
/// is no C++ compiler, or no CUDA backend in the build. `seed` sets what is left to chance.
///
/// # Panics
/// If kernels do not compile.
#[cfg(feature = "cuda")]
pub fn emulated_for_tests(more: &[PathBuf], precision: Precision, seed: u64) -> Option<Device> {
    let kernels = kernels_for_tests(more)?;
    Some(Device::emulated_cuda(&kernels, precision, seed).unwrap_or_else(|e| panic!("{e}")))
}

/// The library that [`emulated_for_tests`] opens.
#[cfg(feature = "cuda")]
#[allow(clippy::print_stdout)]
pub(crate) fn kernels_for_tests(more: &[PathBuf]) -> Option<PathBuf> {
    use std::path::Path;
    use std::sync::{Mutex, PoisonError};

    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    if std::process::Command::new(&compiler).arg("--version").output().is_err() {
        println!("skipped: no C++ compiler '{compiler}' to build the kernels for this machine");
        return None;
    }
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from);
    // One build at a time: the tests of a program that want it would all start the compiler.
    static BUILD: Mutex<()> = Mutex::new(());
    let _building = BUILD.lock().unwrap_or_else(PoisonError::into_inner);
    Some(crate::cuda::build_for_host(more, &target.join("tmp/kernels")).unwrap_or_else(|e| panic!("{e}")))
}

/// None: this build has no CUDA backend.
#[cfg(not(feature = "cuda"))]
#[allow(clippy::print_stdout)]
pub fn emulated_for_tests(_more: &[PathBuf], _precision: Precision, _seed: u64) -> Option<Device> {
    println!("skipped: this build has no CUDA backend");
    None
}
