//! MobileSAM against the official code's outputs, where the fixture is at hand.

#![allow(
    clippy::print_stdout,
    reason = "a test that is skipped says so, one that compares says how close it is"
)]

use std::path::PathBuf;

use ultramotion_engine::Device;
use ultramotion_models::parity::{self, ParityOptions};

/// The fixture, or `None`, said so, where there is none.
fn fixture() -> Option<PathBuf> {
    let shared = std::env::var_os("ULTRAMOTION_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let path = shared.join("reference/mobile_sam.safetensors");
    if !path.exists() {
        println!(
            "skipped: {} is not here; set ULTRAMOTION_SHARED to the folder with fixtures",
            path.display()
        );
        return None;
    }
    Some(path)
}

fn passes(options: &ParityOptions) {
    let Some(path) = fixture() else { return };
    let report = parity::check(&path, &Device::cpu(2), options).unwrap_or_else(|e| panic!("{e}"));
    println!("{report}");
    assert!(report.pass, "{report}");
    assert_eq!(report.checks.len(), 7);
}

#[test]
fn it_is_the_official_network() {
    passes(&ParityOptions::default());
}

#[test]
fn with_another_salt() {
    passes(&ParityOptions { salt: Some("another".into()) });
}
