//! `--device`, `--threads` and `--precision`.

use anyhow::Result;
use clap::{Args, ValueEnum};
use ultramotion_engine::{Device, Precision};
use ultramotion_pipeline::DeviceChoice;

use crate::usage::usage;

/// Where to compute.
#[derive(Debug, Clone, Args)]
pub(crate) struct DeviceArgs {
    /// auto, cpu or cuda[:N]; auto takes the first NVIDIA GPU that can run this program, else the CPU, and says why
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    pub device: String,
    /// Threads on the CPU; 0 takes one for each core
    #[arg(long, default_value_t = 0, value_name = "T")]
    pub threads: usize,
    /// Number format of features: the CPU computes in f32, a GPU in f16 or f32 [default: f32 on the CPU, f16 on a GPU]
    #[arg(long, value_name = "P")]
    pub precision: Option<PrecisionArg>,
}

/// A number format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrecisionArg {
    F32,
    F16,
}

impl DeviceArgs {
    /// What is asked for.
    pub(crate) fn choice(&self) -> Result<DeviceChoice> {
        let precision = self.precision.map(|precision| match precision {
            PrecisionArg::F32 => Precision::F32,
            PrecisionArg::F16 => Precision::F16,
        });
        let device = self.device.parse().map_err(usage)?;
        DeviceChoice::new(device, self.threads, precision).map_err(usage)
    }

    /// Opens the device.
    pub(crate) fn open(&self) -> Result<Device> {
        Ok(self.choice()?.open()?)
    }
}
