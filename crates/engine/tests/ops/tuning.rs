//! Measuring tiles: not how fast they are, which an emulated device cannot know, but that every product gets a choice.

use ultramotion_engine::graph::{Graph, Padding};
use ultramotion_engine::tensor::{DType, HostTensor};
use ultramotion_engine::{Precision, tune};

#[test]
fn every_product_gets_a_measured_tile() {
    let Some(device) = crate::cuda::emulated(Precision::F16, 1) else { return };
    let mut g = Graph::new("tune");
    let x = g.input("x", DType::F32, [1, 6, 6, 64]).expect("an input");
    let w = g.constant(HostTensor::f32([40, 64, 3, 3], vec![0.25; 40 * 64 * 9]));
    let v = g.constant(HostTensor::f32([10, 40], vec![0.5; 400]));
    let y = g.conv2d(x, w, None, 1, Padding::same(1), 1).expect("fits");
    let y = g.linear(y, v, None).expect("fits");
    g.output("y", y).expect("named once");
    let x = HostTensor::zeros(DType::F32, [1, 6, 6, 64]);
    let text = tune(&g, &[&x], &device, 1).expect("every candidate runs");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].starts_with("f16 rows 1 36 10 40: "), "{text}");
    assert!(lines[1].starts_with("f16 windows 1 36 40 576: "), "{text}");
    assert!(lines.iter().all(|line| line.contains("  # ") && line.contains(" us")), "{text}");
}
