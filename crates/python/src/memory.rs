//! Arrays of the library as NumPy and DLPack see them: the memory itself, with whoever keeps it.
#![allow(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dlpark::ffi::{DLDataType, DLDevice, DLDeviceType};
use dlpark::metadata::Dynamic;
use dlpark::python::consumer::stream::cuda;
use dlpark::python::{DlpackStream, ImportedDlpack, StreamArg};
use dlpark::{DlpackElement, DlpackFlags, Managed, ManagedTensorBase};
use numpy::ndarray::{ArrayViewD, IxDyn, RawArrayView, ShapeBuilder};
use numpy::{PyArrayDyn, PyArrayMethods};
use pyo3::prelude::*;
use ultramotion_engine::DeviceSlice;

use crate::errors::value_error;

/// Where host memory is.
pub(crate) const DEVICE: DLDevice = DLDevice::CPU;

static COPIED_BYTES: AtomicU64 = AtomicU64::new(0);

/// Counts a copy of an array that a caller gave or gets.
pub(crate) fn count_copy(bytes: usize) {
    COPIED_BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
}

/// Bytes of callers' arrays that this package has copied since it was imported: images that had to be converted to
/// contiguous 8-bit pixels, and a matcher's inputs that had to become contiguous float32. A contiguous uint8 image costs
/// none, nor does `Tensor.numpy()`.
#[pyfunction]
pub(crate) fn copied_bytes() -> u64 {
    COPIED_BYTES.load(Ordering::Relaxed)
}

macro_rules! values {
    ($($variant:ident($ty:ty, $name:literal, $dlpack:ident)),* $(,)?) => {
        /// Elements of one of the types that results have.
        pub(crate) enum Values {
            $($variant(Vec<$ty>),)*
        }

        $(impl From<Vec<$ty>> for Values {
            fn from(values: Vec<$ty>) -> Self {
                Values::$variant(values)
            }
        })*

        impl Values {
            pub(crate) fn len(&self) -> usize {
                match self { $(Values::$variant(values) => values.len(),)* }
            }

            /// NumPy's name of the type.
            pub(crate) fn dtype(&self) -> &'static str {
                match self { $(Values::$variant(_) => $name,)* }
            }

            fn dlpack_dtype(&self) -> DLDataType {
                match self { $(Values::$variant(_) => DLDataType::$dlpack,)* }
            }

            fn address(&self, start: usize) -> *const u8 {
                match self { $(Values::$variant(values) => values[start..].as_ptr().cast(),)* }
            }
        }

        /// A read-only array of NumPy over a part of the values. `keeper` is the Python object that keeps them.
        pub(crate) fn numpy_view<'py>(
            values: &Arc<Values>,
            start: usize,
            shape: &[usize],
            keeper: Bound<'py, PyAny>,
        ) -> PyResult<Bound<'py, PyAny>> {
            let length = shape.iter().product::<usize>();
            match &**values {
                $(Values::$variant(values) => {
                    let part = &values[start..start + length];
                    let view = ArrayViewD::from_shape(IxDyn(shape), part)
                        .map_err(|error| value_error(error.to_string()))?;
                    // SAFETY: `keeper` holds the values for as long as the array lives, they never move, and nothing
                    // writes them: the array is made read-only before anyone has it.
                    let array = unsafe { PyArrayDyn::<$ty>::borrow_from_array(&view, keeper) };
                    array.readwrite().make_nonwriteable();
                    Ok(array.into_any())
                })*
            }
        }
    };
}

values! {
    Bool(bool, "bool", BOOL),
    U8(u8, "uint8", U8),
    I32(i32, "int32", I32),
    I64(i64, "int64", I64),
    F32(f32, "float32", F32),
}

impl Values {
    /// A part as numbers.
    pub(crate) fn to_f64(&self, start: usize, len: usize) -> Vec<f64> {
        let end = start + len;
        match self {
            Values::Bool(v) => v[start..end].iter().map(|&v| f64::from(u8::from(v))).collect(),
            Values::U8(v) => v[start..end].iter().map(|&v| f64::from(v)).collect(),
            Values::I32(v) => v[start..end].iter().map(|&v| f64::from(v)).collect(),
            Values::I64(v) => v[start..end].iter().map(|&v| v as f64).collect(),
            Values::F32(v) => v[start..end].iter().map(|&v| f64::from(v)).collect(),
        }
    }

    /// A part with elements of another type, by NumPy's name; `None` for a type that results do not have.
    pub(crate) fn converted(&self, start: usize, len: usize, dtype: &str) -> Option<Values> {
        let numbers = self.to_f64(start, len).into_iter();
        Some(match dtype {
            "bool" => Values::Bool(numbers.map(|v| v != 0.0).collect()),
            "uint8" => Values::U8(numbers.map(|v| v as i64 as u8).collect()),
            "int32" => Values::I32(numbers.map(|v| v as i64 as i32).collect()),
            "int64" => Values::I64(numbers.map(|v| v as i64).collect()),
            "float32" => Values::F32(numbers.map(|v| v as f32).collect()),
            _ => return None,
        })
    }
}

/// A part of some values, and its shape, for DLPack.
pub(crate) fn export<M: ManagedTensorBase>(
    (values, start, shape): (&Arc<Values>, usize, &[usize]),
    flags: DlpackFlags,
) -> PyResult<Managed<M>> {
    let failed =
        |error: &dyn ToString| value_error(format!("this tensor cannot be exported: {}", error.to_string()));
    let shape: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
    let mut tensor =
        Dynamic::compact(shape).initialize_as::<M>(values.clone()).map_err(|error| failed(&error))?;
    tensor
        .set_data(values.address(start).cast_mut().cast())
        .set_dtype(values.dlpack_dtype())
        .set_device(DEVICE);
    tensor.set_flags(flags).map_err(|error| failed(&error))?;
    // SAFETY: the context is the values themselves, which never move; the shape is a part of them from `start` on.
    Ok(unsafe { tensor.finish() })
}

/// An imported tensor of elements `T` in the host's memory.
///
/// # Errors
/// `ValueError` for another element type, another device, or strides that go backwards.
pub(crate) fn host_view<T: DlpackElement>(tensor: &ImportedDlpack) -> PyResult<ArrayViewD<'_, T>> {
    let failed = |error: &dyn ToString| value_error(error.to_string());
    let tensor = tensor.validate().map_err(|error| failed(&error))?;
    if tensor.device().device_type != DLDeviceType::CPU || !tensor.dtype().is::<T>() {
        return Err(value_error("another device or another type of element"));
    }
    let (shape, strides) = layout(&tensor)?;
    if tensor.num_elements() == 0 {
        return ArrayViewD::from_shape(IxDyn(&shape), &[]).map_err(|error| failed(&error));
    }
    // SAFETY: the producer says that this memory holds elements of this type at these places, and keeps it for as long as
    // the tensor is held, which the view borrows.
    unsafe {
        let data = tensor.offset_data_ptr::<T>().map_err(|error| failed(&error))?;
        Ok(ArrayViewD::from_shape_ptr(IxDyn(&shape).strides(IxDyn(&strides)), data))
    }
}

/// Sizes and strides in elements.
fn layout(tensor: &dlpark::TensorRef<'_>) -> PyResult<(Vec<usize>, Vec<usize>)> {
    let size = |&n: &i64| usize::try_from(n).map_err(|_| value_error("an array whose strides go backwards"));
    let strides = tensor.strides_or_compact().map_err(|error| value_error(error.to_string()))?;
    Ok((
        tensor.shape().iter().map(size).collect::<PyResult<_>>()?,
        strides.iter().map(size).collect::<PyResult<_>>()?,
    ))
}

/// The stream that a GPU's producers are asked to be ready on: what they do on others, this one waits for. The engine takes
/// bytes in after it.
pub(crate) struct LegacyDefaultStream;

// SAFETY: a GPU has this stream always; CUDA's convention for it is a null handle, DLPack's is 1, which `cuda` makes of that.
unsafe impl DlpackStream for LegacyDefaultStream {
    fn as_python_arg(&self, _py: Python<'_>, _device: DLDevice) -> PyResult<StreamArg> {
        Ok(cuda(std::ptr::null_mut()))
    }
}

/// Where the bytes of an imported tensor on a GPU are, as an array whose elements nobody here can read; `None` for elements
/// that are no bytes.
pub(crate) fn gpu_layout(tensor: &ImportedDlpack) -> PyResult<Option<RawArrayView<u8, IxDyn>>> {
    let failed = |error: &dyn ToString| value_error(error.to_string());
    let tensor = tensor.validate().map_err(|error| failed(&error))?;
    if !tensor.dtype().is::<u8>() {
        return Ok(None);
    }
    let (shape, strides) = layout(&tensor)?;
    // SAFETY: the array serves for arithmetic with its address and strides alone, which are the producer's; no address is null
    // here.
    unsafe {
        let data = tensor.offset_data_ptr::<u8>().map_err(|error| failed(&error))?;
        Ok(Some(RawArrayView::from_shape_ptr(IxDyn(&shape).strides(IxDyn(&strides)), data)))
    }
}

/// So many bytes from the start of an imported tensor on the GPU with this number.
pub(crate) fn gpu_bytes(tensor: &ImportedDlpack, gpu: usize, bytes: usize) -> PyResult<DeviceSlice<'_>> {
    let layout = gpu_layout(tensor)?.filter(|layout| layout.len() == bytes);
    let layout = layout.ok_or_else(|| value_error("another number of bytes than the image has"))?;
    // SAFETY: the producer says that this memory of its GPU holds so many bytes, keeps it for as long as the tensor is held,
    // which the slice borrows, and was asked for it on the stream that `DeviceSlice` wants. Whoever takes the slice here waits
    // for the run before it returns.
    Ok(unsafe { DeviceSlice::from_raw_parts(gpu, layout.as_ptr() as u64, bytes) })
}
