//! The networks on the CUDA backend: a GPU, or its kernels run on this machine's processor.
#![allow(clippy::print_stdout)] // a test that is skipped says so

use std::path::{Path, PathBuf};

use ultramotion_engine::cuda::device_for_tests;
use ultramotion_engine::{Device, Precision};
use ultramotion_models::parity::{self, ParityOptions};

fn device(precision: Precision) -> Option<Device> {
    device_for_tests(&[Path::new(env!("CARGO_MANIFEST_DIR")).join("src/kernels")], precision)
}

fn check(path: &Path, precision: Precision, tolerance: f64) {
    let Some(device) = device(precision) else { return };
    let report = parity::check(path, &device, &ParityOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    println!("{report}");
    assert!(report.checks.iter().all(|c| c.relative_error < tolerance), "{report}");
}

#[test]
fn mobile_sam() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mobile_sam/mobile_sam_128.safetensors");
    check(&fixture, Precision::F32, 1e-5);
    check(&fixture, Precision::F16, 1e-2);
}

#[test]
fn dfine_with_trained_weights() {
    let shared = std::env::var_os("ULTRAMOTION_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let fixture = shared.join("reference/trained/dfine_n_320_carotid.safetensors");
    if !fixture.exists() {
        println!(
            "skipped: {} is not here; set ULTRAMOTION_SHARED to the folder with fixtures",
            fixture.display()
        );
        return;
    }
    check(&fixture, Precision::F32, 1e-3);
    check(&fixture, Precision::F16, 1e-2);
}
