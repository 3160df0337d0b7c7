//! `Tensor`: a result's array, wherever it lies.

use std::sync::Arc;

use dlpark::python::{ExportAbi, ExportRequest};
use numpy::PyArrayDescrMethods;
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;

use crate::errors::{type_error, value_error};
use crate::memory::{self, Values};

/// A result's array, in the memory that it was written to.
///
/// It keeps its memory: a frame's results stay what they are while anyone holds them, and the pipeline takes other
/// memory meanwhile. Nothing is copied until it is asked for: `numpy()` and `torch.from_dlpack(tensor)` are views of the
/// same memory, read-only. Results of a GPU are in the host's memory: they come with the frame's one copy from the GPU.
///
/// Code written for NumPy's arrays and code written for a GPU's tensors both run on it: it has `shape`, `dtype`,
/// `device`, `astype(bool)`, `bool()`, `cpu()`, comparisons with a number, and rows by index.
#[pyclass(frozen, module = "ultramotion", name = "Tensor")]
pub(crate) struct Tensor {
    values: Arc<Values>,
    /// Where its elements begin.
    start: usize,
    shape: Vec<usize>,
}

/// How to compare.
type Compare = fn(&f64, &f64) -> bool;

impl Tensor {
    /// All of `values`, in this shape.
    pub(crate) fn new(shape: impl Into<Vec<usize>>, values: impl Into<Values>) -> Self {
        let (shape, values) = (shape.into(), values.into());
        debug_assert_eq!(shape.iter().product::<usize>(), values.len());
        Tensor { values: Arc::new(values), start: 0, shape }
    }

    fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// As a NumPy array if that is wanted, else as it is.
    pub(crate) fn into_result(self, py: Python<'_>, as_numpy: bool) -> PyResult<Py<PyAny>> {
        let tensor = Bound::new(py, self)?;
        if as_numpy { Ok(Tensor::numpy(&tensor)?.unbind()) } else { Ok(tensor.into_any().unbind()) }
    }

    fn compare(&self, with: &Bound<'_, PyAny>, compare: Compare) -> PyResult<Tensor> {
        let number: f64 = with
            .extract()
            .map_err(|_| type_error("a Tensor is compared with a number; for more, take its numpy()"))?;
        let values = self.values.to_f64(self.start, self.len());
        Ok(Tensor::new(self.shape.clone(), values.iter().map(|v| compare(v, &number)).collect::<Vec<bool>>()))
    }
}

#[pymethods]
impl Tensor {
    /// Sizes, outermost first.
    #[getter]
    fn shape<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, pyo3::types::PyTuple>> {
        pyo3::types::PyTuple::new(py, &self.shape)
    }

    /// Number of dimensions.
    #[getter]
    fn ndim(&self) -> usize {
        self.shape.len()
    }

    /// Type of the elements: 'bool', 'uint8', 'int32', 'int64' or 'float32'.
    #[getter]
    fn dtype(&self) -> &'static str {
        self.values.dtype()
    }

    /// Where it lies: 'cpu'.
    #[getter]
    fn device(&self) -> &'static str {
        "cpu"
    }

    /// The array in NumPy: a view of the same memory, read-only, without a copy.
    fn numpy<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let tensor = slf.get();
        memory::numpy_view(&tensor.values, tensor.start, &tensor.shape, slf.clone().into_any())
    }

    /// The same tensor in the host's memory: itself.
    fn cpu(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    /// NumPy's protocol: `numpy.asarray(tensor)` makes no copy.
    #[pyo3(signature = (dtype=None, copy=None))]
    fn __array__<'py>(
        slf: &Bound<'py, Self>,
        dtype: Option<&Bound<'py, PyAny>>,
        copy: Option<bool>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let array = Tensor::numpy(slf)?;
        let other_type = match dtype {
            Some(dtype) => !array.getattr("dtype")?.eq(dtype)?,
            None => false,
        };
        match (dtype, copy) {
            (Some(_), Some(false)) if other_type => {
                Err(value_error("another dtype needs a copy, and copy=False forbids it"))
            }
            (Some(dtype), _) if other_type => array.call_method1("astype", (dtype,)),
            (_, Some(true)) => array.call_method0("copy"),
            _ => Ok(array),
        }
    }

    /// DLPack: `torch.from_dlpack(tensor)`, `numpy.from_dlpack(tensor)` and their kin, without a copy.
    #[pyo3(signature = (*, stream=None, max_version=None, dl_device=None, copy=None))]
    fn __dlpack__(
        &self,
        py: Python<'_>,
        stream: Option<&Bound<'_, PyAny>>,
        max_version: Option<(u32, u32)>,
        dl_device: Option<(u32, i32)>,
        copy: Option<bool>,
    ) -> PyResult<Py<PyAny>> {
        let request = ExportRequest::parse(stream, max_version, dl_device, copy)?;
        // The older form has no word for memory that must not be written.
        let flags = match request.abi() {
            ExportAbi::Legacy => dlpark::DlpackFlags::empty(),
            ExportAbi::Versioned => dlpark::DlpackFlags::READ_ONLY,
        };
        let export = (&self.values, self.start, &self.shape[..]);
        request.export_zero_copy(
            py,
            memory::DEVICE,
            flags,
            || memory::export(export, dlpark::DlpackFlags::empty()),
            || memory::export(export, dlpark::DlpackFlags::READ_ONLY),
        )
    }

    /// DLPack's type and number of the device.
    fn __dlpack_device__(&self) -> (u32, i32) {
        memory::DEVICE.into()
    }

    /// The same elements in another shape, which shares the memory. One size may be -1: what is left.
    #[pyo3(signature = (*shape))]
    fn reshape(&self, shape: Vec<isize>) -> PyResult<Tensor> {
        let known: usize = shape.iter().filter_map(|&n| usize::try_from(n).ok()).product();
        let size = |&n: &isize| match usize::try_from(n) {
            Ok(n) => Some(n),
            Err(_) if n == -1 => self.len().checked_div(known),
            Err(_) => None,
        };
        let sizes: Option<Vec<usize>> = shape.iter().map(size).collect();
        match sizes {
            Some(sizes) if sizes.iter().product::<usize>() == self.len() => {
                Ok(Tensor { values: self.values.clone(), start: self.start, shape: sizes })
            }
            _ => Err(value_error(format!("a Tensor of the shape {:?} cannot become {shape:?}", self.shape))),
        }
    }

    /// With elements of another type, as NumPy converts them; itself if it has that type.
    ///
    /// `dtype` is bool, int, float, or what `numpy.dtype` takes that comes to one of a Tensor's types.
    fn astype<'py>(slf: Bound<'py, Self>, dtype: &Bound<'py, PyAny>) -> PyResult<Bound<'py, Self>> {
        let py = slf.py();
        let wanted = numpy::PyArrayDescr::new(py, dtype)?;
        let name: String = wanted.getattr("name")?.extract()?;
        let tensor = slf.get();
        if name == tensor.values.dtype() {
            return Ok(slf);
        }
        let values = tensor.values.converted(tensor.start, tensor.len(), &name).ok_or_else(|| {
            value_error(format!(
                "a Tensor holds bool, uint8, int32, int64 or float32, not {name} ({} bytes); take its numpy()",
                wanted.itemsize()
            ))
        })?;
        Bound::new(py, Tensor::new(tensor.shape.clone(), values))
    }

    /// Whether each element is not 0.
    fn bool<'py>(slf: Bound<'py, Self>) -> PyResult<Bound<'py, Self>> {
        let tensor = slf.get();
        let values = tensor.values.converted(tensor.start, tensor.len(), "bool");
        match values {
            Some(values) if tensor.values.dtype() != "bool" => {
                Bound::new(slf.py(), Tensor::new(tensor.shape.clone(), values))
            }
            _ => Ok(slf),
        }
    }

    fn __lt__(&self, other: &Bound<'_, PyAny>) -> PyResult<Tensor> {
        self.compare(other, f64::lt)
    }
    fn __le__(&self, other: &Bound<'_, PyAny>) -> PyResult<Tensor> {
        self.compare(other, f64::le)
    }
    fn __gt__(&self, other: &Bound<'_, PyAny>) -> PyResult<Tensor> {
        self.compare(other, f64::gt)
    }
    fn __ge__(&self, other: &Bound<'_, PyAny>) -> PyResult<Tensor> {
        self.compare(other, f64::ge)
    }
    fn __eq__(&self, other: &Bound<'_, PyAny>) -> PyResult<Tensor> {
        self.compare(other, f64::eq)
    }
    fn __ne__(&self, other: &Bound<'_, PyAny>) -> PyResult<Tensor> {
        self.compare(other, f64::ne)
    }

    fn __len__(&self) -> PyResult<usize> {
        self.shape.first().copied().ok_or_else(|| type_error("a Tensor without dimensions has no length"))
    }

    /// A row, which shares the memory.
    fn __getitem__(&self, index: isize) -> PyResult<Tensor> {
        let rows = self.__len__()?;
        let row = if index < 0 { index + rows as isize } else { index };
        let row = usize::try_from(row)
            .ok()
            .filter(|&row| row < rows)
            .ok_or_else(|| PyIndexError::new_err(format!("row {index} of a Tensor with {rows}")))?;
        let shape = self.shape[1..].to_vec();
        let start = self.start + row * shape.iter().product::<usize>();
        Ok(Tensor { values: self.values.clone(), start, shape })
    }

    fn __bool__(&self) -> PyResult<bool> {
        if self.len() == 1 {
            return Ok(self.values.to_f64(self.start, 1)[0] != 0.0);
        }
        Err(value_error(
            "a Tensor of several elements is neither true nor false; use numpy().any() or .all()",
        ))
    }

    fn __repr__(&self) -> String {
        format!("Tensor(shape={:?}, dtype={}, device=cpu)", self.shape, self.values.dtype())
    }
}
