//! `ResultPacket`: what was found in a frame.

use std::sync::Arc;

use numpy::ndarray::Array2;
use numpy::{IntoPyArray, PyArray1, PyArray2};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;
use serde::Serialize;
use ultramotion_types::{DetectedObject, Frame, Quality, ResultPacket as Packet, TimeSource};

use crate::errors::value_error;
use crate::tensor::Tensor;

/// What was found in a frame, and the frame itself where this package has read it.
#[derive(Default)]
pub(crate) struct Shot {
    pub packet: Packet,
    pub frame: Frame,
}

/// Everything that is known about a frame: what `ultramotion run` writes as a line of results.jsonl.
///
/// Arrays have a row for each object, best first; `len(packet)` is their number. Masks are unpacked when `masks` is
/// first read, and kept. A packet stays what it is however many frames come after it.
#[pyclass(frozen, module = "ultramotion", name = "ResultPacket")]
pub(crate) struct ResultPacket {
    shot: Arc<Shot>,
    masks_as_numpy: bool,
    masks: PyOnceLock<Py<PyAny>>,
    image: PyOnceLock<Py<PyAny>>,
}

impl ResultPacket {
    pub(crate) fn new(shot: Arc<Shot>, masks_as_numpy: bool) -> Self {
        ResultPacket { shot, masks_as_numpy, masks: PyOnceLock::new(), image: PyOnceLock::new() }
    }

    fn packet(&self) -> &Packet {
        &self.shot.packet
    }

    fn column<'py, T: numpy::Element>(
        &self,
        py: Python<'py>,
        of: impl Fn(&DetectedObject) -> T,
    ) -> Bound<'py, PyArray1<T>> {
        self.packet().objects.iter().map(of).collect::<Vec<T>>().into_pyarray(py)
    }
}

/// As Python's json reads what serde writes: the text is the one that files have.
fn as_python<'py>(py: Python<'py>, value: &impl Serialize) -> PyResult<Bound<'py, PyAny>> {
    py.import("json")?.call_method1("loads", (json(value)?,))
}

fn json(value: &impl Serialize) -> PyResult<String> {
    serde_json::to_string(value).map_err(|error| value_error(error.to_string()))
}

/// Masks of one size, one bit a pixel, one after another → `[count, height, width]`.
pub(crate) fn unpacked(bits: &[u8], shape: &[usize]) -> Tensor {
    let width = shape.last().copied().unwrap_or(1).max(1);
    let mut pixels = Vec::with_capacity(shape.iter().product());
    for row in bits.chunks_exact(width.div_ceil(8)) {
        let end = pixels.len() + width;
        for byte in row {
            pixels.extend((0..8).map(|bit| byte >> bit & 1 == 1));
        }
        pixels.truncate(end);
    }
    Tensor::new(shape, pixels)
}

#[pymethods]
impl ResultPacket {
    /// Number of the frame in its source, from 0.
    #[getter]
    fn frame_id(&self) -> u64 {
        self.packet().frame_id
    }

    /// The source's own time in seconds; never re-stamped.
    #[getter]
    fn timestamp(&self) -> f64 {
        self.packet().timestamp_s
    }

    /// Where the time is from: 'source', or 'arrival' where the source gives none.
    #[getter]
    fn time_source(&self) -> &'static str {
        match self.packet().time_source {
            TimeSource::Source => "source",
            TimeSource::Arrival => "arrival",
        }
    }

    /// Where the frame comes from: a file's path, a URL, 'phantom:0', or 'array'.
    #[getter]
    fn source(&self) -> &str {
        &self.packet().source
    }

    /// Width of the frame in pixels.
    #[getter]
    fn width(&self) -> usize {
        self.packet().width
    }

    /// Height of the frame in pixels.
    #[getter]
    fn height(&self) -> usize {
        self.packet().height
    }

    /// State of the scene: 'VISIBLE', 'RELOCALIZING' or 'LOST'.
    #[getter]
    fn state(&self) -> &'static str {
        self.packet().state.as_str()
    }

    /// None, or the network whose answers to this frame were not finite numbers: 'detector' or 'segmenter'. Nothing is
    /// drawn from such a frame.
    #[getter]
    fn fault<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        as_python(py, &self.packet().fault)
    }

    /// Milliseconds: 'total', 'upload', 'detect', 'match', 'segment', 'download'.
    #[getter]
    fn latency_ms<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        as_python(py, &self.packet().latency_ms)
    }

    /// What this frame took on the device: copies in and out with their bytes, waits, allocations.
    #[getter]
    fn transfers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        as_python(py, &self.packet().transfers)
    }

    /// Device that computed it: 'cpu', 'cuda'.
    #[getter]
    fn device(&self) -> &'static str {
        self.packet().device
    }

    /// None, or why it was computed there and not on the requested device.
    #[getter]
    fn fallback(&self) -> Option<&str> {
        self.packet().fallback.as_deref()
    }

    /// How it was computed: 'residency', 'matcher', 'precision'.
    #[getter]
    fn modes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        as_python(py, &self.packet().modes)
    }

    /// Left, top, right, bottom of each object in pixels of the frame: [N, 4] float32.
    #[getter]
    fn boxes_xyxy<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let objects = &self.packet().objects;
        let corners: Vec<f32> = objects.iter().flat_map(|object| object.box_xyxy).collect();
        let corners = Array2::from_shape_vec((objects.len(), 4), corners)
            .map_err(|error| value_error(error.to_string()))?;
        Ok(corners.into_pyarray(py))
    }

    /// Score of each object, 0 to 1: [N] float32.
    #[getter]
    fn scores<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f32>> {
        self.column(py, |object| object.score)
    }

    /// Name of each object's class: a list of N strings.
    #[getter]
    fn labels(&self) -> Vec<&str> {
        self.packet().objects.iter().map(|object| self.packet().label(object.class)).collect()
    }

    /// Number of each object's class, from 0: [N] int64.
    #[getter]
    fn class_ids<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<i64>> {
        self.column(py, |object| object.class as i64)
    }

    /// Name of each class that the detector knows, by its number.
    #[getter]
    fn class_names(&self) -> Vec<&str> {
        self.packet().labels.iter().map(String::as_str).collect()
    }

    /// Identity of each object, never given twice in a run: [N] int64.
    #[getter]
    fn track_ids<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<i64>> {
        self.column(py, |object| i64::from(object.track_id))
    }

    /// Whether each object's track was seen often enough to be believed: [N] bool.
    #[getter]
    fn confirmed<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<bool>> {
        self.column(py, |object| object.confirmed)
    }

    /// Whether somebody pointed at each object (Orchestrator.prompt): [N] bool.
    #[getter]
    fn prompted<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<bool>> {
        self.column(py, |object| object.prompted)
    }

    /// The segmenter's estimate of each mask's IoU with the truth: [N] float32.
    #[getter]
    fn mask_scores<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<f32>> {
        self.column(py, |object| object.mask_score)
    }

    /// Pixels of each mask: [N] int64.
    #[getter]
    fn mask_areas_px<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<i64>> {
        self.column(py, |object| object.mask_area_px as i64)
    }

    /// How well each object shows, 0 to 1: [N] float32 of "edge", "contrast", "continuity", "stability", "likeness" and their
    /// weighted "mean". Not a number where it is not computed: with a matcher on the host.
    #[getter]
    fn quality<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let all = PyDict::new(py);
        let put = |name, score: fn(&Quality) -> f32| {
            all.set_item(name, self.column(py, |object| object.quality.as_ref().map_or(f32::NAN, score)))
        };
        put("edge", |quality| quality.edge)?;
        put("contrast", |quality| quality.contrast)?;
        put("continuity", |quality| quality.continuity)?;
        put("stability", |quality| quality.stability)?;
        put("likeness", |quality| quality.likeness)?;
        put("mean", |quality| quality.mean)?;
        Ok(all)
    }

    /// Masks at the frame's size: [N, height, width] bool, an array of NumPy (read-only) or a Tensor, as the call asked.
    ///
    /// Unpacked from one bit a pixel when this is first read, and kept: reading it again costs nothing.
    #[getter]
    fn masks(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let masks = self.masks.get_or_try_init(py, || {
            let packet = self.packet();
            let shape = [packet.objects.len(), packet.height, packet.width];
            py.detach(|| unpacked(packet.mask_bits(), &shape)).into_result(py, self.masks_as_numpy)
        })?;
        Ok(masks.clone_ref(py))
    }

    /// The frame's pixels, where this package has read them (`ultramotion.run`): [height, width] or [height, width, 3]
    /// uint8, read-only. None for an image that the caller has.
    #[getter]
    fn image(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let frame = &self.shot.frame;
        if frame.pixels.is_empty() {
            return Ok(None);
        }
        let image = self.image.get_or_try_init(py, || {
            let mut shape = vec![frame.height, frame.width];
            shape.extend([frame.pixel_format.channels()].into_iter().filter(|&channels| channels > 1));
            Tensor::new(shape, frame.pixels.clone()).into_result(py, true)
        })?;
        Ok(Some(image.clone_ref(py)))
    }

    /// Width and height of a pixel in millimetres, where the source says it; else None.
    #[getter]
    fn spacing_mm(&self) -> Option<(f64, f64)> {
        self.shot.frame.spacing_mm.map(|[width, height]| (width, height))
    }

    /// The line of results.jsonl as a dictionary; masks are run lengths as COCO has them.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        as_python(py, self.packet())
    }

    /// The line of results.jsonl as it is written.
    fn to_json(&self) -> PyResult<String> {
        json(self.packet())
    }

    /// An `sv.Detections` of the supervision package, with masks, identities and class names.
    ///
    /// Raises ImportError where supervision is not installed: `pip install supervision`.
    fn to_supervision<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("ultramotion.exports")?.getattr("to_supervision")?.call1((slf,))
    }

    fn __len__(&self) -> usize {
        self.packet().objects.len()
    }

    fn __bool__(&self) -> bool {
        true
    }

    fn __repr__(&self) -> String {
        let packet = self.packet();
        let objects: Vec<String> = packet
            .objects
            .iter()
            .map(|object| format!("{} #{} {:.2}", packet.label(object.class), object.track_id, object.score))
            .collect();
        format!(
            "ResultPacket(frame {} of {:?} at {:.3} s, {}x{}, {}, [{}], {:.1} ms on {})",
            packet.frame_id,
            packet.source,
            packet.timestamp_s,
            packet.width,
            packet.height,
            packet.state,
            objects.join(", "),
            packet.latency_ms.total,
            packet.device
        )
    }
}
