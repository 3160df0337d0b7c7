//! `Detector`: boxes, scores and labels of single images.

use std::path::PathBuf;

use numpy::IntoPyArray;
use numpy::ndarray::Array2;
use pyo3::prelude::*;
use ultramotion_models::detector::DetectorPredictor;
use ultramotion_models::zoo;
use ultramotion_types::{FrameView, TimeSource};

use crate::errors::{OrRaise, value_error};
use crate::exclusive::{Exclusive, unpanicked};
use crate::image::Image;
use crate::settings::device_choice;

/// A detector by itself: boxes, scores and labels of single images, without tracks.
///
/// name_or_path
///     A name from `ultramotion models list`, or a checkpoint (.pth of D-FINE, .safetensors).
/// device, threads, precision
///     As for Orchestrator.
///
/// Raises ValueError for a checkpoint of something else, FileNotFoundError and its kin for files, RuntimeError for the
/// device.
#[pyclass(frozen, module = "ultramotion", name = "Detector")]
pub(crate) struct Detector {
    inner: Exclusive<DetectorPredictor>,
    labels: Vec<String>,
    origin: String,
    input_hw: (usize, usize),
    device: &'static str,
    gpu: Option<usize>,
}

#[pymethods]
impl Detector {
    #[new]
    #[pyo3(signature = (name_or_path, *, device="auto", threads=0, precision=None))]
    fn new(
        py: Python<'_>,
        name_or_path: PathBuf,
        device: &str,
        threads: usize,
        precision: Option<&str>,
    ) -> PyResult<Self> {
        let name = name_or_path.to_str().ok_or_else(|| value_error("the detector's path is not text"))?;
        let choice = device_choice(device, threads, precision)?;
        py.detach(|| {
            unpanicked(|| {
                let device = choice.open().or_raise()?;
                let detector = zoo::Detector::open(name).or_raise()?;
                let [height, width] = detector.network().input_hw();
                Ok(Detector {
                    labels: detector.labels().to_vec(),
                    origin: detector.origin().to_string(),
                    input_hw: (height, width),
                    device: device.name(),
                    gpu: device.gpu(),
                    inner: Exclusive::new("this Detector", DetectorPredictor::new(&device, detector)),
                })
            })
        })
    }

    /// Finds structures in an image.
    ///
    /// image
    ///     As Orchestrator.run_inference takes it; any size, it is resized to the network's input.
    /// score_threshold
    ///     Least score, 0 to 1.
    ///
    /// Returns Detections(boxes_xyxy [N, 4] float32 in pixels of the image, scores [N] float32, labels: N strings), best
    /// first, 300 at most. Raises ValueError or TypeError for the image or the threshold, RuntimeError for the device.
    #[pyo3(signature = (image, score_threshold=0.5))]
    fn predict<'py>(
        &self,
        py: Python<'py>,
        image: &Bound<'py, PyAny>,
        score_threshold: f32,
    ) -> PyResult<Bound<'py, PyAny>> {
        let image = Image::of(image, self.gpu)?;
        let frame = FrameView {
            frame_id: 0,
            timestamp_s: 0.0,
            time_source: TimeSource::Arrival,
            source: "array",
            width: image.width,
            height: image.height,
            pixel_format: image.pixel_format,
            pixels: image.pixels()?,
            tracker_from_pixels: None,
        };
        let found = self.inner.with(py, |predictor| predictor.predict(&frame, score_threshold).or_raise())?;
        let corners: Vec<f32> = found.iter().flat_map(|detection| detection.box_xyxy).collect();
        let boxes_xyxy = Array2::from_shape_vec((found.len(), 4), corners)
            .map_err(|error| value_error(error.to_string()))?;
        let scores: Vec<f32> = found.iter().map(|detection| detection.score).collect();
        let label = |class: usize| self.labels.get(class).map_or("unknown", String::as_str);
        let labels: Vec<&str> = found.iter().map(|detection| label(detection.class)).collect();
        let detections = py.import("ultramotion.detections")?.getattr("Detections")?;
        detections.call1((boxes_xyxy.into_pyarray(py), scores.into_pyarray(py), labels))
    }

    /// Name of each class.
    #[getter]
    fn class_names(&self) -> Vec<String> {
        self.labels.clone()
    }

    /// Height and width of the network's input in pixels.
    #[getter]
    fn input_hw(&self) -> (usize, usize) {
        self.input_hw
    }

    /// Where it computes: 'cpu', 'cuda'.
    #[getter]
    fn device(&self) -> &'static str {
        self.device
    }

    /// Gives threads and memory back; further calls raise RuntimeError.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.inner.close(py)
    }

    fn __repr__(&self) -> String {
        format!("Detector({}, device={}, classes={:?})", self.origin, self.device, self.labels)
    }
}
