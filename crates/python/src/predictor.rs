//! `SamPredictor`: an image once, masks as often as wanted.

use std::path::PathBuf;

use numpy::{PyArrayDyn, PyArrayMethods, PyUntypedArrayMethods};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use ultramotion_models::segmenter::{
    LabelledPoint, Masks, ObjectPrompt, PredictOptions, PredictorOptions, SamPredictor as Predictor,
};
use ultramotion_models::zoo::Segmenter;

use crate::errors::{OrRaise, type_error, value_error};
use crate::exclusive::{Exclusive, unpanicked};
use crate::image::Image;
use crate::packet::unpacked;
use crate::settings::device_choice;
use crate::tensor::Tensor;

/// A promptable segmenter (MobileSAM): set an image once, then ask for masks as often as wanted.
///
/// Names, order and shapes are those of the official SamPredictor.
///
/// model
///     A name from `ultramotion models list` ('ultrasound-sam', the trained one), or a checkpoint (mobile_sam.pt,
///     .safetensors).
/// device, threads, precision
///     As for Orchestrator.
///
/// Raises ValueError for a checkpoint of something else, FileNotFoundError and its kin for files, RuntimeError for the
/// device.
#[pyclass(frozen, module = "ultramotion", name = "SamPredictor")]
pub(crate) struct SamPredictor {
    inner: Exclusive<Predictor>,
    origin: String,
    device: &'static str,
    gpu: Option<usize>,
}

/// A numeric array that a caller gave, as f32.
struct Floats {
    shape: Vec<usize>,
    values: Vec<f32>,
}

/// Prompts of some objects.
#[derive(Default)]
struct Prompts {
    /// `[B, N]` points.
    points: Vec<Vec<LabelledPoint>>,
    /// `[B]`.
    boxes_xyxy: Vec<[f32; 4]>,
    /// `[B, h, w]` logits.
    masks: Vec<Vec<f32>>,
}

/// Masks with what belongs to them.
type Predicted = (Py<PyAny>, Py<PyAny>, Option<Py<PyAny>>);

impl Floats {
    fn of(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = value.py();
        let array = py.import("numpy")?.call_method1("asarray", (value, "float32")).map_err(|_| {
            type_error(format!("{name} is an array of numbers, or what numpy.asarray makes one of"))
        })?;
        let array = array
            .cast::<PyArrayDyn<f32>>()
            .map_err(|_| type_error(format!("{name} is an array of numbers")))?;
        let shape = array.shape().to_vec();
        Ok(Floats { shape, values: array.readonly().as_array().iter().copied().collect() })
    }

    fn wrong(&self, name: &str, expected: &str) -> PyErr {
        value_error(format!("{name} has the shape {:?}, but it must be {expected}", self.shape))
    }
}

impl Prompts {
    /// How many objects all parts are about; an error where they do not agree.
    fn objects(&self) -> PyResult<usize> {
        let counts = [self.points.len(), self.boxes_xyxy.len(), self.masks.len()];
        let objects = counts.into_iter().max().unwrap_or(0);
        if counts.iter().any(|&count| count != 0 && count != objects) {
            return Err(value_error(format!(
                "the prompts are of different numbers of objects: {} of points, {} boxes, {} masks",
                counts[0], counts[1], counts[2]
            )));
        }
        Ok(objects)
    }

    fn of_objects(&self, objects: usize) -> Vec<ObjectPrompt<'_>> {
        let prompt = |object: usize| ObjectPrompt {
            box_xyxy: self.boxes_xyxy.get(object).copied(),
            points: self.points.get(object).cloned().unwrap_or_default(),
            mask: self.masks.get(object).map(Vec::as_slice),
        };
        (0..objects).map(prompt).collect()
    }

    /// Points `[B, N, 2]` and labels `[B, N]`; for one object without the B.
    fn read_points(
        &mut self,
        coords: Option<&Bound<'_, PyAny>>,
        labels: Option<&Bound<'_, PyAny>>,
        batched: bool,
    ) -> PyResult<()> {
        let (coords, labels) = match (coords, labels) {
            (Some(coords), Some(labels)) => (coords, labels),
            (None, None) => return Ok(()),
            _ => {
                return Err(value_error(
                    "point_coords and point_labels are given together: a label for each point",
                ));
            }
        };
        let (coords, labels) = (Floats::of("point_coords", coords)?, Floats::of("point_labels", labels)?);
        let (objects, points) = match (&coords.shape[..], batched) {
            (&[points, 2], false) => (1, points),
            (&[objects, points, 2], true) => (objects, points),
            _ => return Err(coords.wrong("point_coords", if batched { "[B, N, 2]" } else { "[N, 2]" })),
        };
        if labels.values.len() != objects * points || labels.shape.len() != coords.shape.len() - 1 {
            return Err(labels.wrong(
                "point_labels",
                &format!("{:?}: a label for each point", &coords.shape[..coords.shape.len() - 1]),
            ));
        }
        let (places, _) = coords.values.as_chunks::<2>();
        for (places, labels) in places.chunks(points.max(1)).zip(labels.values.chunks(points.max(1))) {
            let mut object = Vec::with_capacity(points);
            for (&[x, y], &label) in places.iter().zip(labels) {
                match label {
                    1.0 => object.push(LabelledPoint { x, y, positive: true }),
                    0.0 => object.push(LabelledPoint { x, y, positive: false }),
                    // Fills up a shorter list of a batch.
                    -1.0 => {}
                    _ => {
                        return Err(value_error(format!(
                            "a point's label is {label}, but it must be 1 (inside), 0 (outside) or -1 (no point)"
                        )));
                    }
                }
            }
            self.points.push(object);
        }
        Ok(())
    }

    /// Boxes `[B, 4]`; one object's may be `[4]`.
    fn read_boxes(&mut self, name: &str, boxes: Option<&Bound<'_, PyAny>>, batched: bool) -> PyResult<()> {
        let Some(boxes) = boxes else { return Ok(()) };
        let boxes = Floats::of(name, boxes)?;
        match (&boxes.shape[..], batched) {
            ([4], false) | ([1, 4], false) | ([_, 4], true) => {
                self.boxes_xyxy = boxes.values.as_chunks::<4>().0.to_vec();
                Ok(())
            }
            _ => Err(boxes
                .wrong(name, if batched { "[B, 4]: x1, y1, x2, y2 each" } else { "[4]: x1, y1, x2, y2" })),
        }
    }

    /// Logits `[B, 1, h, w]`; one object's are `[1, h, w]`.
    fn read_masks(&mut self, masks: Option<&Bound<'_, PyAny>>, batched: bool) -> PyResult<()> {
        let Some(masks) = masks else { return Ok(()) };
        let masks = Floats::of("mask_input", masks)?;
        match (&masks.shape[..], batched) {
            (&[1, h, w], false) | (&[_, 1, h, w], true) if h * w > 0 => {
                self.masks = masks.values.chunks(h * w).map(<[f32]>::to_vec).collect();
                Ok(())
            }
            _ => Err(masks.wrong("mask_input", if batched { "[B, 1, h, w]" } else { "[1, h, w]" })),
        }
    }
}

impl SamPredictor {
    fn masks_of(&self, py: Python<'_>, prompts: &Prompts, options: PredictOptions) -> PyResult<Masks> {
        let objects = prompts.objects()?;
        if objects == 0 {
            return Err(value_error("there is no prompt: give points with labels, a box, or both"));
        }
        self.inner.with(py, |predictor| predictor.predict(&prompts.of_objects(objects), options).or_raise())
    }

    /// Masks, scores and low-resolution logits with these leading dimensions.
    fn results(
        py: Python<'_>,
        masks: Masks,
        leading: &[usize],
        options: PredictOptions,
        as_numpy: bool,
    ) -> PyResult<Predicted> {
        let with = |inner: [usize; 2]| [leading, &inner].concat();
        let (full, low_res) = (with(masks.source_hw()), with(masks.low_res_hw()));
        let values = masks.into_values();
        let masks = if options.return_logits {
            Tensor::new(full, values.logits)
        } else {
            py.detach(|| unpacked(&values.bits, &full))
        };
        let low_res = options.low_res.then(|| Tensor::new(low_res, values.low_res));
        Ok((
            masks.into_result(py, as_numpy)?,
            Tensor::new(leading, values.iou).into_result(py, as_numpy)?,
            low_res.map(|low_res| low_res.into_result(py, as_numpy)).transpose()?,
        ))
    }
}

#[pymethods]
impl SamPredictor {
    #[new]
    #[pyo3(signature = (model, device="auto", *, threads=0, precision=None))]
    fn new(
        py: Python<'_>,
        model: PathBuf,
        device: &str,
        threads: usize,
        precision: Option<&str>,
    ) -> PyResult<Self> {
        let name = model.to_str().ok_or_else(|| value_error("the model's path is not text"))?;
        let choice = device_choice(device, threads, precision)?;
        py.detach(|| {
            unpanicked(|| {
                let device = choice.open().or_raise()?;
                let segmenter = Segmenter::open(name).or_raise()?;
                let origin = segmenter.origin().to_string();
                let predictor = Predictor::new(&device, segmenter, PredictorOptions::default()).or_raise()?;
                Ok(SamPredictor {
                    inner: Exclusive::new("this SamPredictor", predictor),
                    origin,
                    device: device.name(),
                    gpu: device.gpu(),
                })
            })
        })
    }

    /// Encodes an image, which prompts are then about.
    ///
    /// image
    ///     [H, W], [H, W, 1 or 3], [3, H, W] or [1, C, H, W], of 1 to 8192 pixels a side: uint8, or floats from 0 to 1; a
    ///     NumPy array, or anything with __dlpack__. It is resized with its aspect kept. A contiguous uint8 array in [H, W] or
    ///     [H, W, C] on this object's own GPU is taken from there, without the host.
    /// image_format
    ///     Order of the colours: 'RGB' or 'BGR'.
    ///
    /// Raises ValueError or TypeError for the image, RuntimeError for the device. After an error of the device no image is
    /// set.
    #[pyo3(signature = (image, image_format="RGB"))]
    fn set_image(&self, py: Python<'_>, image: &Bound<'_, PyAny>, image_format: &str) -> PyResult<()> {
        let image = match image_format {
            "RGB" => Image::of(image, self.gpu)?,
            "BGR" => Image::of(image, self.gpu)?.with_red_and_blue_swapped()?,
            _ => {
                return Err(value_error(format!(
                    "image_format is '{image_format}', but it must be 'RGB' or 'BGR'"
                )));
            }
        };
        let (width, height, channels) = (image.width, image.height, image.pixel_format.channels());
        let pixels = image.pixels()?;
        self.inner.with(py, |predictor| predictor.set_image_from(pixels, width, height, channels).or_raise())
    }

    /// Masks of one object in the image that is set.
    ///
    /// point_coords, point_labels
    ///     [N, 2] x, y in pixels of the image, and [N]: 1 is part of the object, 0 is not, -1 is no point.
    /// box
    ///     [4] x1, y1, x2, y2 around the object in pixels of the image; parts may lie outside.
    /// mask_input
    ///     [1, h, w] low-resolution logits of an earlier prediction (256 x 256 for the usual input of 1024).
    /// multimask_output
    ///     True: three masks (whole, part, subpart), for prompts that are ambiguous, such as a single point. False: one.
    /// return_logits
    ///     True: logits at the image's size, positive inside, rather than bools.
    /// as_numpy
    ///     False: Tensors, which copy nothing until they are asked to. (Those of a GPU's results lie in the host's memory.)
    /// return_low_res
    ///     False: None in place of the low-resolution logits.
    ///
    /// Returns (masks [C, H, W] bool or float32, scores [C] float32: the estimated IoU with the truth, low_res_logits
    /// [C, h, w] float32), C being 3 or 1. Raises ValueError or TypeError for prompts, RuntimeError without an image, after
    /// close(), and for the device.
    #[pyo3(signature = (point_coords=None, point_labels=None, r#box=None, mask_input=None, multimask_output=true, return_logits=false, as_numpy=true, return_low_res=true))]
    #[expect(clippy::too_many_arguments, reason = "the official signature")]
    fn predict(
        &self,
        py: Python<'_>,
        point_coords: Option<&Bound<'_, PyAny>>,
        point_labels: Option<&Bound<'_, PyAny>>,
        r#box: Option<&Bound<'_, PyAny>>,
        mask_input: Option<&Bound<'_, PyAny>>,
        multimask_output: bool,
        return_logits: bool,
        as_numpy: bool,
        return_low_res: bool,
    ) -> PyResult<Predicted> {
        let mut prompts = Prompts::default();
        prompts.read_points(point_coords, point_labels, false)?;
        prompts.read_boxes("box", r#box, false)?;
        prompts.read_masks(mask_input, false)?;
        let options = PredictOptions { multimask: multimask_output, return_logits, low_res: return_low_res };
        let masks = self.masks_of(py, &prompts, options)?;
        let leading = [masks.per_object()];
        Self::results(py, masks, &leading, options, as_numpy)
    }

    /// Masks of several objects in the image that is set, B at once.
    ///
    /// point_coords, point_labels
    ///     [B, N, 2] and [B, N]; -1 among the labels fills up an object with fewer points.
    /// boxes
    ///     [B, 4].
    /// mask_input
    ///     [B, 1, h, w].
    ///
    /// Coordinates are pixels of the image; `predictor.transform`, which the official code has its callers apply first,
    /// leaves them as they are, so that code written for either runs.
    ///
    /// Returns Tensors: (masks [B, C, H, W], scores [B, C], low_res_logits [B, C, h, w]); otherwise as predict().
    #[pyo3(signature = (point_coords=None, point_labels=None, boxes=None, mask_input=None, multimask_output=true, return_logits=false))]
    #[expect(clippy::too_many_arguments, reason = "the official signature")]
    fn predict_torch(
        &self,
        py: Python<'_>,
        point_coords: Option<&Bound<'_, PyAny>>,
        point_labels: Option<&Bound<'_, PyAny>>,
        boxes: Option<&Bound<'_, PyAny>>,
        mask_input: Option<&Bound<'_, PyAny>>,
        multimask_output: bool,
        return_logits: bool,
    ) -> PyResult<Predicted> {
        let mut prompts = Prompts::default();
        prompts.read_points(point_coords, point_labels, true)?;
        prompts.read_boxes("boxes", boxes, true)?;
        prompts.read_masks(mask_input, true)?;
        let options = PredictOptions { multimask: multimask_output, return_logits, low_res: true };
        let masks = self.masks_of(py, &prompts, options)?;
        let leading = [masks.objects(), masks.per_object()];
        Self::results(py, masks, &leading, options, false)
    }

    /// The embedding of the image that is set: a Tensor [1, 256, h, w] float32.
    ///
    /// Raises RuntimeError without an image.
    fn get_image_embedding(&self, py: Python<'_>) -> PyResult<Tensor> {
        let (shape, values) = self.inner.with(py, |predictor| predictor.image_embedding().or_raise())?;
        let [_, height, width, channels] = *shape.dims() else {
            return Err(PyRuntimeError::new_err(format!("the embedding has the shape {shape}")));
        };
        // Channels last on the device, channels first for the caller.
        let mut planes: Vec<f32> = Vec::with_capacity(values.len());
        for channel in 0..channels {
            planes.extend(values[channel..].iter().step_by(channels));
        }
        Ok(Tensor::new([1, channels, height, width], planes))
    }

    /// Forgets the image.
    fn reset_image(&self, py: Python<'_>) -> PyResult<()> {
        self.inner.with(py, |predictor| {
            predictor.reset_image();
            Ok(())
        })
    }

    /// Whether an image is set.
    #[getter]
    fn is_image_set(&self, py: Python<'_>) -> PyResult<bool> {
        self.inner.with(py, |predictor| Ok(predictor.source_hw().is_some()))
    }

    /// Height and width of the image that is set, or None.
    #[getter]
    fn original_size(&self, py: Python<'_>) -> PyResult<Option<(usize, usize)>> {
        self.inner.with(py, |predictor| Ok(predictor.source_hw().map(|[height, width]| (height, width))))
    }

    /// Where it computes: 'cpu', 'cuda'.
    #[getter]
    fn device(&self) -> &'static str {
        self.device
    }

    /// What the official code has its callers apply to the prompts of predict_torch(): here it changes nothing.
    #[getter]
    fn transform<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        py.import("ultramotion.segmentation")?.getattr("Untransformed")?.call0()
    }

    /// Gives threads and memory back; further calls raise RuntimeError.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.inner.close(py)
    }

    fn __repr__(&self) -> String {
        format!("SamPredictor({}, device={})", self.origin, self.device)
    }
}
