//! How fast frames come on one core: `cargo run --release -p ultramotion-phantom --example throughput`.

use std::time::Instant;

use ultramotion_phantom::{Phantom, PhantomConfig, PhantomError, PhantomFrame};

#[allow(clippy::print_stdout)]
fn main() -> Result<(), PhantomError> {
    for side in [256, 400, 512, 1024] {
        let start = Instant::now();
        let phantom =
            Phantom::new(PhantomConfig { seed: 1, width: side, height: side, ..Default::default() })?;
        let scene_ms = start.elapsed().as_secs_f64() * 1e3;
        let mut frame = PhantomFrame::default();
        let mut times_ms: Vec<f64> = (0..100)
            .map(|index| {
                let start = Instant::now();
                phantom.render_into(index, &mut frame);
                start.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        times_ms.sort_by(f64::total_cmp);
        let (best_ms, p50_ms) = (times_ms[0], times_ms[50]);
        println!(
            "{side}x{side}: scene {scene_ms:.0} ms, frame best {best_ms:.2} ms, p50 {p50_ms:.2} ms, {:.0} frames/s",
            1e3 / p50_ms
        );
    }
    Ok(())
}
