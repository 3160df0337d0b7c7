//! `--device` and `--threads`.

use anyhow::Result;
use clap::Args;
use ultramotion_engine::Device;

use crate::usage::usage;

/// Where to compute.
#[derive(Debug, Clone, Args)]
pub(crate) struct DeviceArgs {
    /// auto, cpu or cuda[:N]; auto takes a GPU when there is one that this build can use
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    pub device: String,
    /// Threads on the CPU; 0 takes one for each core
    #[arg(long, default_value_t = 0, value_name = "T")]
    pub threads: usize,
}

/// Why this build does not compute on a GPU.
pub(crate) const NO_CUDA: &str = "this build has no CUDA backend yet";

impl DeviceArgs {
    /// Opens the device.
    pub(crate) fn open(&self) -> Result<Device> {
        match self.device.as_str() {
            "cpu" => Ok(Device::cpu(self.threads)),
            "auto" => {
                tracing::warn!("device auto: the CPU, because {NO_CUDA}");
                Ok(Device::cpu(self.threads))
            }
            "reference" => Ok(Device::reference()),
            name if name == "cuda"
                || name.strip_prefix("cuda:").is_some_and(|n| n.parse::<usize>().is_ok()) =>
            {
                Err(usage(format!("--device {name}: {NO_CUDA}; use --device cpu")))
            }
            other => Err(usage(format!("--device '{other}' is not known; auto, cpu and cuda[:N] are"))),
        }
    }
}
