//! `ultramotion doctor`: what this machine can run, and why not.

use std::process::ExitCode;

use anyhow::Result;
use ultramotion_engine::cpu::Level;
use ultramotion_engine::{Device, Precision};
use ultramotion_models::zoo::BUILTIN;

use crate::output::say;

/// What this machine can run, and why not
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_args: Args) -> Result<ExitCode> {
    say!(
        "ultramotion   {} on {} {}",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH
    )?;
    let device = Device::cpu(0);
    let levels: Vec<&str> = Level::available().iter().map(|l| l.name()).collect();
    say!("processor     {}", processor().unwrap_or_else(|| "unknown".into()))?;
    say!("threads       {}", device.threads())?;
    say!("instructions  {} in use; this processor has {}", device.instructions(), levels.join(", "))?;
    if let Some((total, available)) = memory_gib() {
        say!("memory        {total:.1} GiB, {available:.1} GiB available")?;
    }
    say!("cpu           ready, f32")?;
    match Device::cuda(0, Precision::F16) {
        Ok(gpu) => say!("cuda          ready, f16 and f32: {}", gpu.description())?,
        Err(reason) => say!("cuda          no: {reason}")?,
    }
    match BUILTIN {
        [] => say!("models        none built in: give --detector and --segmenter")?,
        models => {
            let names: Vec<&str> = models.iter().map(|m| m.name).collect();
            say!("models        {} built in", names.join(", "))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn processor() -> Option<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|l| l.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn memory_gib() -> Option<(f64, f64)> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let gib = |name: &str| -> Option<f64> {
        let line = info.lines().find_map(|l| l.strip_prefix(name))?;
        let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib / (1024.0 * 1024.0))
    };
    Some((gib("MemTotal:")?, gib("MemAvailable:")?))
}
