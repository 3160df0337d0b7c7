//! Which device computes: what was requested, and what is taken when it cannot be had or fails.
//!
//! | requested | it cannot be had | it fails in a stream |
//! |---|---|---|
//! | `auto` | the CPU, and every packet says why | the CPU, and every packet says why; a pipeline that dies on it is followed by one on the CPU |
//! | `cuda[:N]` | an error | the CPU, and every packet says why; a pipeline that dies is followed by one on the same GPU |
//! | `cpu`, `reference` | – | an error |
//!
//! Nothing else decides about it: the command line only fills in a [`DeviceChoice`], pipelines and those who build them
//! again after a death share a [`Run`](crate::Run).

use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;
use ultramotion_engine::CudaError;
use ultramotion_engine::{Device, Precision};

/// What was requested.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceChoice {
    device: RequestedDevice,
    threads: usize,
    precision: Option<Precision>,
}

/// A device by name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RequestedDevice {
    /// `auto`: the first NVIDIA GPU that can run this program, else the CPU.
    #[default]
    Auto,
    /// `cpu`.
    Cpu,
    /// `reference`: the interpreter that judges the others.
    Reference,
    /// `cuda[:N]`: the NVIDIA GPU of that number.
    Cuda(usize),
}

/// A request that cannot be met anywhere.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DeviceChoiceError {
    /// No such device.
    #[error("--device '{0}' is not known; auto, cpu and cuda[:N] are")]
    Unknown(String),
    /// A number format that the device does not have.
    #[error("--precision f16: the CPU computes in f32")]
    F16OnCpu,
}

impl FromStr for RequestedDevice {
    type Err = DeviceChoiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(RequestedDevice::Auto),
            "cpu" => Ok(RequestedDevice::Cpu),
            "reference" => Ok(RequestedDevice::Reference),
            "cuda" => Ok(RequestedDevice::Cuda(0)),
            other => match other.strip_prefix("cuda:").and_then(|n| n.parse().ok()) {
                Some(ordinal) => Ok(RequestedDevice::Cuda(ordinal)),
                None => Err(DeviceChoiceError::Unknown(other.to_owned())),
            },
        }
    }
}

impl DeviceChoice {
    /// A device, the threads of the CPU (0: one for each core) wherever it computes, and a number format of features
    /// (`None`: f32 on the CPU, f16 on a GPU).
    pub fn new(
        device: RequestedDevice,
        threads: usize,
        precision: Option<Precision>,
    ) -> Result<Self, DeviceChoiceError> {
        if device == RequestedDevice::Cpu && precision == Some(Precision::F16) {
            return Err(DeviceChoiceError::F16OnCpu);
        }
        Ok(DeviceChoice { device, threads, precision })
    }

    /// What was asked for by name.
    pub fn device(&self) -> RequestedDevice {
        self.device
    }

    /// Opens the device.
    ///
    /// # Errors
    /// A GPU that was asked for by name and cannot be had.
    pub fn open(&self) -> Result<Device, CudaError> {
        match self.device {
            RequestedDevice::Cpu => Ok(Device::cpu(self.threads)),
            RequestedDevice::Reference => Ok(Device::reference()),
            RequestedDevice::Cuda(ordinal) => Device::cuda(ordinal, self.gpu_precision()),
            RequestedDevice::Auto => match Device::cuda(0, self.gpu_precision()) {
                Ok(device) => {
                    tracing::info!("device auto: {}", device.description());
                    Ok(device)
                }
                Err(reason) => {
                    tracing::warn!("device auto: the CPU, because {reason}");
                    Ok(self.cpu_instead(reason.to_string()))
                }
            },
        }
    }

    /// Opens the device; a GPU that is asked for and cannot be had becomes one whose programs can be looked at only.
    ///
    /// # Errors
    /// A GPU that was asked for in a build without the CUDA backend.
    pub fn open_for_plan(&self) -> Result<Device, CudaError> {
        match (self.device, self.open()) {
            #[cfg(feature = "cuda")]
            (RequestedDevice::Cuda(_), Err(reason)) => {
                tracing::warn!("the plan only, without times: {reason}");
                Ok(Device::cuda_plan_only(self.gpu_precision()).instead(reason.to_string()))
            }
            (_, opened) => opened,
        }
    }

    /// The CPU, with the threads that were requested, in place of a GPU.
    pub fn cpu_instead(&self, reason: impl Into<Arc<str>>) -> Device {
        Device::cpu(self.threads).instead(reason)
    }

    fn gpu_precision(&self) -> Precision {
        self.precision.unwrap_or(Precision::F16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_names() {
        let named = ["auto", "cpu", "reference", "cuda", "cuda:3"].map(str::parse);
        let [auto, cpu, reference, first, fourth] =
            named.map(|d: Result<RequestedDevice, _>| d.expect("a name"));
        assert_eq!((auto, cpu), (RequestedDevice::Auto, RequestedDevice::Cpu));
        assert_eq!(reference, RequestedDevice::Reference);
        assert_eq!((first, fourth), (RequestedDevice::Cuda(0), RequestedDevice::Cuda(3)));
        for wrong in ["", "gpu", "cuda:", "cuda:x", "cuda:-1"] {
            let error = wrong.parse::<RequestedDevice>().expect_err("not a name").to_string();
            assert_eq!(error, format!("--device '{wrong}' is not known; auto, cpu and cuda[:N] are"));
        }
    }

    #[test]
    fn the_cpu_has_the_threads_that_were_requested() {
        for device in [RequestedDevice::Auto, RequestedDevice::Cpu] {
            let choice = DeviceChoice::new(device, 3, None).expect("can be had");
            assert_eq!(choice.cpu_instead("a reason").threads(), 3);
            assert_eq!(choice.cpu_instead("a reason").fallback(), Some("a reason"));
        }
        let f16 = DeviceChoice::new(RequestedDevice::Cpu, 0, Some(Precision::F16));
        assert_eq!(f16, Err(DeviceChoiceError::F16OnCpu));
        assert!(DeviceChoice::new(RequestedDevice::Auto, 0, Some(Precision::F16)).is_ok());
    }
}
