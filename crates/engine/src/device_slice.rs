//! Bytes for a program's input, wherever they are: in the host's memory, or on a GPU where somebody else keeps them.
#![allow(unsafe_code)]

use std::marker::PhantomData;

/// Bytes on a GPU that their owner keeps there for `'a`.
#[derive(Debug, Clone, Copy)]
pub struct DeviceSlice<'a> {
    gpu: usize,
    address: u64,
    bytes: usize,
    owner: PhantomData<&'a [u8]>,
}

impl DeviceSlice<'_> {
    /// Bytes at an address of the GPU with this number, as the driver counts GPUs.
    ///
    /// # Safety
    /// For `'a`, and until the run of a program that took them was waited for, whoever calls this keeps `bytes` bytes from
    /// `address` on in memory of that GPU (of the emulated GPU, which is number 0: in memory of this process), and nobody writes
    /// to them. Whatever made them is done, or was started on the
    /// GPU's legacy default stream, or that stream waits for it: what DLPack's producers do for a consumer that names stream 1.
    pub unsafe fn from_raw_parts(gpu: usize, address: u64, bytes: usize) -> Self {
        DeviceSlice { gpu, address, bytes, owner: PhantomData }
    }

    /// Number of the GPU.
    pub fn gpu(&self) -> usize {
        self.gpu
    }
    /// Where they begin.
    pub fn address(&self) -> u64 {
        self.address
    }
    /// How many they are.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Bytes for one value of a program's input block; see [`Program::upload_with`](crate::Program::upload_with).
#[derive(Debug, Clone, Copy)]
pub enum InputBytes<'a> {
    /// In the host's memory.
    Host(&'a [u8]),
    /// On a GPU.
    Device(DeviceSlice<'a>),
}

impl InputBytes<'_> {
    /// How many they are.
    pub fn bytes(&self) -> usize {
        match self {
            InputBytes::Host(bytes) => bytes.len(),
            InputBytes::Device(slice) => slice.bytes,
        }
    }
}

impl<'a> From<&'a [u8]> for InputBytes<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        InputBytes::Host(bytes)
    }
}

impl<'a> From<DeviceSlice<'a>> for InputBytes<'a> {
    fn from(slice: DeviceSlice<'a>) -> Self {
        InputBytes::Device(slice)
    }
}
