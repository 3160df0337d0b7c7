//! `--device`, `--threads` and `--precision`.

use anyhow::Result;
use clap::{Args, ValueEnum};
use ultramotion_engine::{Device, Precision};

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
    /// Opens the device.
    pub(crate) fn open(&self) -> Result<Device> {
        match self.wish()? {
            Wish::Cpu => self.cpu(),
            Wish::Reference => Ok(Device::reference()),
            Wish::Cuda(ordinal) => Ok(Device::cuda(ordinal, self.gpu_precision())?),
            Wish::Auto => match Device::cuda(0, self.gpu_precision()) {
                Ok(device) => {
                    tracing::info!("device auto: {}", device.description());
                    Ok(device)
                }
                Err(reason) => {
                    tracing::warn!("device auto: the CPU, because {reason}");
                    Ok(self.cpu()?.instead(reason.to_string()))
                }
            },
        }
    }

    /// Opens the device; a GPU that is asked for and cannot be had becomes one whose programs can be looked at only.
    pub(crate) fn open_for_plan(&self) -> Result<Device> {
        match self.wish()? {
            Wish::Cuda(ordinal) => match Device::cuda(ordinal, self.gpu_precision()) {
                Ok(device) => Ok(device),
                #[cfg(feature = "cuda")]
                Err(reason) => {
                    let reason = reason.to_string();
                    tracing::warn!("the plan only, without times: {reason}");
                    Ok(Device::cuda_plan_only(self.gpu_precision()).instead(reason))
                }
                #[cfg(not(feature = "cuda"))]
                Err(reason) => Err(reason.into()),
            },
            _ => self.open(),
        }
    }

    fn wish(&self) -> Result<Wish> {
        match self.device.as_str() {
            "cpu" => Ok(Wish::Cpu),
            "auto" => Ok(Wish::Auto),
            "reference" => Ok(Wish::Reference),
            "cuda" => Ok(Wish::Cuda(0)),
            other => match other.strip_prefix("cuda:").and_then(|n| n.parse().ok()) {
                Some(ordinal) => Ok(Wish::Cuda(ordinal)),
                None => Err(usage(format!("--device '{other}' is not known; auto, cpu and cuda[:N] are"))),
            },
        }
    }

    fn cpu(&self) -> Result<Device> {
        if self.device == "cpu" && self.precision == Some(PrecisionArg::F16) {
            return Err(usage("--precision f16: the CPU computes in f32"));
        }
        Ok(Device::cpu(self.threads))
    }

    fn gpu_precision(&self) -> Precision {
        match self.precision {
            Some(PrecisionArg::F32) => Precision::F32,
            Some(PrecisionArg::F16) | None => Precision::F16,
        }
    }
}

/// What `--device` names.
enum Wish {
    Auto,
    Cpu,
    Reference,
    Cuda(usize),
}
