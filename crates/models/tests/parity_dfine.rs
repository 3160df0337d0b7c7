//! Every D-FINE against the official code's outputs, where the fixtures are at hand.
#![allow(clippy::print_stdout)] // a test that is skipped says so

use std::path::PathBuf;

use ultramotion_engine::Device;
use ultramotion_models::parity::{self, ParityOptions};

/// A file of the folder of fixtures, or `None`, said so, where there is none.
fn fixture(name: &str) -> Option<PathBuf> {
    let shared = std::env::var_os("ULTRAMOTION_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let path = shared.join("reference").join(name);
    if !path.exists() {
        println!(
            "skipped: {} is not here; set ULTRAMOTION_SHARED to the folder with fixtures",
            path.display()
        );
        return None;
    }
    Some(path)
}

fn passes(name: &str, device: &Device, options: &ParityOptions) {
    let Some(path) = fixture(name) else { return };
    let report = parity::check(&path, device, options).unwrap_or_else(|e| panic!("{e}"));
    assert!(report.pass, "{report}");
    assert!(report.checks.len() >= 6);
}

#[test]
fn nano_with_trained_weights_on_the_reference() {
    passes("trained/dfine_n_320_carotid.safetensors", &Device::reference(), &ParityOptions::default());
}

#[test]
fn nano_with_trained_weights() {
    passes("trained/dfine_n_320_carotid.safetensors", &Device::cpu(2), &ParityOptions::default());
    passes("trained/dfine_n_320_usgra.safetensors", &Device::cpu(2), &ParityOptions::default());
}

#[test]
fn nano_with_another_salt() {
    let options = ParityOptions { salt: Some("another".into()) };
    passes("trained/dfine_n_320_carotid.safetensors", &Device::cpu(2), &options);
}

#[test]
fn nano() {
    passes("dfine_n.safetensors", &Device::cpu(2), &ParityOptions::default());
}

#[test]
fn small_with_eighty_classes() {
    passes("dfine_s.safetensors", &Device::cpu(2), &ParityOptions::default());
}

#[test]
fn medium() {
    passes("dfine_m.safetensors", &Device::cpu(2), &ParityOptions::default());
}

#[test]
fn large() {
    passes("dfine_l.safetensors", &Device::cpu(2), &ParityOptions::default());
}

#[test]
fn extra_large() {
    passes("dfine_x.safetensors", &Device::cpu(2), &ParityOptions::default());
}
