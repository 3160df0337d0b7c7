//! The generator and the file shared with `reference.py`.
#![allow(dead_code, clippy::unwrap_used)]

use serde_json::Value;
use std::path::Path;
use ultramotion_engine::testing::device_for_tests;
use ultramotion_engine::{Device, Precision};

/// The device that the CUDA forms are tested on, where there is one.
pub fn cuda() -> Option<Device> {
    device_for_tests(&[Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ops/kernels")], Precision::F16)
}

/// SplitMix64 of `seed` and the index, upper 24 bits as floats in [0, 1).
pub fn uniform(seed: u64, n: usize) -> Vec<f32> {
    (1..=n as u64)
        .map(|i| {
            let mut z = seed.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
            ((z ^ z >> 31) >> 40) as f32 / (1 << 24) as f32
        })
        .collect()
}

/// The cases under `name` in `reference.json`.
pub fn cases(name: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("../reference.json")).unwrap();
    let cases = all[name].as_array().unwrap().clone();
    assert!(!cases.is_empty());
    cases
}

/// A count in a case.
pub fn count(case: &Value, name: &str) -> usize {
    case[name].as_u64().unwrap() as usize
}

/// Pairs in a case.
pub fn pairs(case: &Value, name: &str) -> Vec<(usize, usize)> {
    serde_json::from_value(case[name].clone()).unwrap()
}
