//! The fastest tile for each product of a graph, measured on the device at hand.
//!
//! In: a graph with inputs that are like those of real runs. Out: lines for `cuda/lower/measured_tiles.txt`, or for the file that
//! `ULTRAMOTION_TILES` names.

use std::collections::BTreeMap;
use std::time::Duration;

#[cfg(feature = "cuda")]
use crate::cuda::with_candidate;
use crate::device::Device;
use crate::error::DeviceError;
use crate::graph::Graph;
use crate::program::{CompileOptions, Program};
use crate::tensor::HostTensor;

/// Runs before the first one that counts.
const WARM_UP: usize = 3;

/// There are no candidates: without the CUDA backend no product has a tile.
#[cfg(not(feature = "cuda"))]
fn with_candidate<R>(_index: usize, body: impl FnOnce() -> R) -> R {
    body()
}

/// Compiles the graph with one candidate after another for all its products, runs each `runs` times, and returns for
/// every product the choice with the least median time: one line each, with the time and, where it was not the first,
/// that of the choice by rule.
///
/// A product's time is summed over the steps that have its sizes. Steps run one after another meanwhile, so what is
/// measured is each by itself.
pub fn tune(
    graph: &Graph,
    inputs: &[&HostTensor],
    device: &Device,
    runs: usize,
) -> Result<String, DeviceError> {
    // For each product's sizes: its lines, the one by rule first, with their times.
    let mut measured: BTreeMap<String, Vec<(String, Duration)>> = BTreeMap::new();
    let options = CompileOptions { profile: true, ..CompileOptions::default() };
    for candidate in 0.. {
        let mut program = with_candidate(candidate, || Program::compile(graph.clone(), device, &options))?;
        let mut times: Vec<Vec<Duration>> = vec![Vec::with_capacity(runs); program.kernel_times().len()];
        for run in 0..WARM_UP + runs.max(1) {
            program.run(inputs)?;
            if run >= WARM_UP {
                let kernels = program.kernel_times();
                times.iter_mut().zip(&kernels).for_each(|(times, kernel)| times.push(kernel.time));
            }
        }
        let mut round: BTreeMap<String, Duration> = BTreeMap::new();
        for (kernel, times) in program.kernel_times().into_iter().zip(&mut times) {
            if !kernel.tile.is_empty() {
                times.sort_unstable();
                *round.entry(kernel.tile).or_default() += times[times.len() / 2];
            }
        }
        let mut news = false;
        for (line, time) in round {
            let sizes = line.split(": ").next().unwrap_or_default().to_owned();
            let tried = measured.entry(sizes).or_default();
            // A product with fewer candidates than others stays with its last one.
            if tried.iter().all(|(other, _)| *other != line) {
                tried.push((line, time));
                news = true;
            }
        }
        if !news {
            break;
        }
    }
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let mut text = String::new();
    for tried in measured.values() {
        let (rule, best) = (&tried[0], tried.iter().min_by_key(|(_, time)| *time).unwrap_or(&tried[0]));
        text += &format!("{}  # {:.1} us", best.0, micros(best.1));
        if best.0 != rule.0 {
            text += &format!(", by the rule {:.1}", micros(rule.1));
        }
        text.push('\n');
    }
    Ok(text)
}
