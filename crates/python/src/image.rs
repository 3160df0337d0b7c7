//! Images as callers have them → 8-bit pixels as the library takes them.

use dlpark::ffi::{DLDevice, DLDeviceType};
use dlpark::python::{ImportRequest, ImportedDlpack};
use numpy::ndarray::{ArrayBase, ArrayViewD, Axis, Ix3, IxDyn, RawData};
use numpy::{PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;
use ultramotion_engine::InputBytes;
use ultramotion_types::PixelFormat;

use crate::errors::{type_error, value_error};
use crate::memory::{self, LegacyDefaultStream, count_copy};

/// Longest side of an image, as of the library's frames.
const MAX_SIDE_PX: usize = ultramotion_types::MAX_SIDE_PX;

/// An image with its pixels, which are the caller's own where they are contiguous and 8-bit.
pub(crate) struct Image<'py> {
    pub width: usize,
    pub height: usize,
    pub pixel_format: PixelFormat,
    pixels: Pixels<'py>,
}

enum Pixels<'py> {
    Numpy(PyReadonlyArrayDyn<'py, u8>),
    Dlpack(ImportedDlpack),
    /// On the GPU with this number, which the object computes on.
    Gpu(ImportedDlpack, usize),
    Converted(Vec<u8>),
}

/// What a sample is.
trait Sample: Copy + 'static {
    /// As 8 bits; `None` for what is no sample.
    fn to_u8(self) -> Option<u8>;
}

impl Sample for u8 {
    fn to_u8(self) -> Option<u8> {
        Some(self)
    }
}
impl Sample for f32 {
    fn to_u8(self) -> Option<u8> {
        f64::from(self).to_u8()
    }
}
impl Sample for f64 {
    fn to_u8(self) -> Option<u8> {
        // Not a number is in no range.
        (0.0..=1.0).contains(&self).then(|| (self * 255.0).round() as u8)
    }
}

/// Whose pixels serve: the caller's, or converted ones.
enum Taken {
    Borrowed,
    Converted(Vec<u8>),
}

struct Size {
    width: usize,
    height: usize,
    channels: usize,
}

impl<'py> Image<'py> {
    /// An image in `[H, W]`, `[H, W, 1 or 3]`, `[1 or 3, H, W]` or `[1, C, H, W]`: uint8, or floats from 0 to 1.
    ///
    /// `gpu` is the number of the GPU that is to compute with it, where one is: an array there stays there.
    ///
    /// # Errors
    /// `TypeError` for what is no array or has another dtype, `ValueError` for another shape, an empty or too large image,
    /// floats out of range, and for an array on another device.
    pub(crate) fn of(object: &Bound<'py, PyAny>, gpu: Option<usize>) -> PyResult<Self> {
        let py = object.py();
        if object.cast::<PyUntypedArray>().is_ok() {
            return Image::of_numpy(object);
        }
        if object.hasattr("__dlpack__")? {
            return Image::of_dlpack(object, gpu);
        }
        if object.hasattr("__array_interface__")? || object.hasattr("__array__")? {
            // A picture of PIL's, for example.
            let array = py.import("numpy")?.call_method1("asarray", (object,))?;
            count_copy(array.getattr("nbytes")?.extract()?);
            return Image::of_numpy(&array);
        }
        let kind = object.get_type().name()?;
        Err(type_error(format!("an image is a NumPy array or anything with __dlpack__, not {kind}")))
    }

    /// The pixels: rows from the top, `[height, width, channels]`.
    ///
    /// # Errors
    /// `ValueError` where an array on a GPU is not what it was.
    pub(crate) fn pixels(&self) -> PyResult<InputBytes<'_>> {
        match &self.pixels {
            Pixels::Gpu(tensor, gpu) => {
                let bytes = self.width * self.height * self.pixel_format.channels();
                Ok(memory::gpu_bytes(tensor, *gpu, bytes)?.into())
            }
            _ => Ok(self.host_pixels().into()),
        }
    }

    /// Pixels in the host's memory; none of those on a GPU.
    fn host_pixels(&self) -> &[u8] {
        match &self.pixels {
            Pixels::Numpy(array) => memory_order(array.as_array()),
            Pixels::Dlpack(tensor) => memory::host_view(tensor).map(memory_order).unwrap_or_default(),
            Pixels::Converted(pixels) => pixels,
            Pixels::Gpu(..) => &[],
        }
    }

    /// The same image with red and blue in each other's place.
    ///
    /// # Errors
    /// `ValueError` for colours on a GPU.
    pub(crate) fn with_red_and_blue_swapped(mut self) -> PyResult<Self> {
        if self.pixel_format == PixelFormat::Rgb8 {
            if matches!(self.pixels, Pixels::Gpu(..)) {
                return Err(value_error(
                    "colours on a GPU are taken as RGB only; give image.flip(-1).contiguous() with image_format='RGB'",
                ));
            }
            let mut pixels = self.host_pixels().to_vec();
            pixels.as_chunks_mut::<3>().0.iter_mut().for_each(|pixel| pixel.swap(0, 2));
            count_copy(pixels.len());
            self.pixels = Pixels::Converted(pixels);
        }
        Ok(self)
    }

    fn new(size: Size, pixels: Pixels<'py>) -> Self {
        let Size { width, height, channels } = size;
        let pixel_format = if channels == 1 { PixelFormat::Grey8 } else { PixelFormat::Rgb8 };
        Image { width, height, pixel_format, pixels }
    }

    fn of_numpy(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        macro_rules! read {
            ($ty:ty) => {
                if let Ok(array) = object.cast::<PyArrayDyn<$ty>>() {
                    let array = array.try_readonly().map_err(|error| value_error(error.to_string()))?;
                    let (size, taken) = take(array.as_array())?;
                    return Ok(Image::new(
                        size,
                        match taken {
                            Taken::Converted(pixels) => Pixels::Converted(pixels),
                            Taken::Borrowed => Pixels::Numpy(object.extract()?),
                        },
                    ));
                }
            };
        }
        read!(u8);
        read!(f32);
        read!(f64);
        let dtype = object.cast::<PyUntypedArray>()?.dtype();
        Err(wrong_dtype(&dtype.str()?.to_string()))
    }

    fn of_dlpack(object: &Bound<'py, PyAny>, gpu: Option<usize>) -> PyResult<Self> {
        let request = ImportRequest::new(object.as_borrowed())?;
        let device = request.device()?;
        if let Some(gpu) = gpu.filter(|&gpu| on_gpu(device, gpu)) {
            return Image::of_gpu(request.import(Some(&LegacyDefaultStream), None)?, gpu);
        }
        if device.device_type != DLDeviceType::CPU {
            let here = gpu.map_or_else(|| "the CPU".into(), |gpu| format!("GPU {gpu}"));
            return Err(value_error(format!(
                "the image is on another device (DLPack type {}, number {}) than this object, which computes on {here}; \
                 give an array in the host's memory, such as image.cpu()",
                device.device_type.0, device.device_id
            )));
        }
        let tensor = request.import(None, None)?;
        macro_rules! read {
            ($ty:ty) => {
                if let Ok(view) = memory::host_view::<$ty>(&tensor) {
                    let (size, taken) = take(view)?;
                    return Ok(Image::new(
                        size,
                        match taken {
                            Taken::Converted(pixels) => Pixels::Converted(pixels),
                            Taken::Borrowed => Pixels::Dlpack(tensor),
                        },
                    ));
                }
            };
        }
        read!(u8);
        read!(f32);
        read!(f64);
        Err(wrong_dlpack_dtype(&tensor)?)
    }

    /// An array on the GPU that is to compute with it.
    fn of_gpu(tensor: ImportedDlpack, gpu: usize) -> PyResult<Self> {
        let Some(array) = memory::gpu_layout(&tensor)? else {
            return Err(wrong_dlpack_dtype(&tensor)?);
        };
        let image = rows_columns_channels(array)?;
        let (height, width, channels) = image.dim();
        if !image.is_standard_layout() {
            return Err(value_error(
                "an image on a GPU is contiguous in [H, W] or [H, W, C], so that it need not be rearranged; give \
                 image.permute(1, 2, 0).contiguous() of [C, H, W]",
            ));
        }
        Ok(Image::new(Size { width, height, channels }, Pixels::Gpu(tensor, gpu)))
    }
}

fn on_gpu(device: DLDevice, gpu: usize) -> bool {
    device.device_type == DLDeviceType::CUDA && usize::try_from(device.device_id) == Ok(gpu)
}

/// # Errors
/// `ValueError` for what is no tensor.
fn wrong_dlpack_dtype(tensor: &ImportedDlpack) -> PyResult<PyErr> {
    let dtype = tensor.validate().map_err(|error| value_error(error.to_string()))?.dtype();
    Ok(wrong_dtype(&format!("of DLPack's code {} with {} bits", dtype.code.0, dtype.bits)))
}

fn wrong_dtype(dtype: &str) -> PyErr {
    type_error(format!("an image is uint8, or floats from 0 to 1, not {dtype}"))
}

/// The elements as they lie, which [`take`] has seen to be in the order of `[H, W, C]`.
fn memory_order(array: ArrayViewD<'_, u8>) -> &[u8] {
    array.to_slice_memory_order().unwrap_or_default()
}

/// The array's size as an image, and its pixels where they had to be converted.
fn take<T: Sample>(array: ArrayViewD<'_, T>) -> PyResult<(Size, Taken)> {
    let image = rows_columns_channels(array)?;
    let (height, width, channels) = image.dim();
    let size = Size { width, height, channels };
    if std::any::TypeId::of::<T>() == std::any::TypeId::of::<u8>() && image.is_standard_layout() {
        return Ok((size, Taken::Borrowed));
    }
    let mut pixels = Vec::with_capacity(image.len());
    for &sample in &image {
        pixels.push(sample.to_u8().ok_or_else(|| {
            value_error("the image has a sample that is not a number from 0 to 1; floats are shares of white: divide 8-bit values by 255")
        })?);
    }
    count_copy(pixels.len());
    Ok((size, Taken::Converted(pixels)))
}

/// `[H, W, C]` with 1 or 3 channels, of any layout that is taken.
fn rows_columns_channels<S: RawData>(array: ArrayBase<S, IxDyn>) -> PyResult<ArrayBase<S, Ix3>> {
    let shape = array.shape().to_vec();
    let colours = |n: usize| n == 1 || n == 3;
    let image = match shape[..] {
        [_, _] => array.insert_axis(Axis(2)),
        [_, _, c] if colours(c) => array,
        [c, _, _] if colours(c) => array.permuted_axes(vec![1, 2, 0]),
        [1, c, _, _] if colours(c) => array.index_axis_move(Axis(0), 0).permuted_axes(vec![1, 2, 0]),
        _ => {
            return Err(value_error(format!(
                "an image has the shape [H, W], [H, W, 1 or 3], [1 or 3, H, W] or [1, C, H, W], not {shape:?}"
            )));
        }
    };
    let image = image.into_dimensionality::<Ix3>().map_err(|error| value_error(error.to_string()))?;
    let (height, width, _) = image.dim();
    if height == 0 || width == 0 {
        return Err(value_error(format!("the image is empty: its shape is {shape:?}")));
    }
    if height > MAX_SIDE_PX || width > MAX_SIDE_PX {
        return Err(value_error(format!(
            "the image is {width}x{height} pixels; images of 1x1 to {MAX_SIDE_PX}x{MAX_SIDE_PX} are taken"
        )));
    }
    Ok(image)
}
