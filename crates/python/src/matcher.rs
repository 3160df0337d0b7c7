//! `HungarianMatcher`: which of a detector's queries answers for which target, as training code asks it.

use numpy::{
    PyArray1, PyArrayDescrMethods, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArray,
    PyUntypedArrayMethods,
};
use pyo3::exceptions::{PyKeyError, PyOverflowError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyMapping, PySequence, PyTuple};
use ultramotion::DeviceChoice;
use ultramotion_engine::Precision;
use ultramotion_tracking::assignment::{self, BatchItem, ClassCost, CostWeights, Solver};
use ultramotion_tracking::ops::DeviceMatcher;
use ultramotion_types::MatcherMode;

use crate::errors::{OrRaise, type_error, value_error};
use crate::exclusive::{Exclusive, unpanicked};
use crate::memory::count_copy;
use crate::tensor::Tensor;

/// Keys of `weight_dict`.
const WEIGHTS: [&str; 3] = ["cost_class", "cost_bbox", "cost_giou"];

/// Which of a detector's queries answers for which target: the pairs at the least total cost.
///
/// A pair costs cost_class * class cost + cost_bbox * L1 distance of the boxes - cost_giou * generalised IoU. The class
/// cost is minus the softmax probability of the target's class, or with use_focal_loss the focal loss of that class
/// against that of any other, on its sigmoid. A pair whose cost is not a number costs 1.
///
/// weight_dict
///     Exactly 'cost_class', 'cost_bbox' and 'cost_giou': finite numbers, not all 0.
/// use_focal_loss
///     The focal class cost instead of the softmax one.
/// alpha
///     Weight of the focal cost's positive side, 0 to 1.
/// gamma
///     How fast an easy example stops counting in it, 0 or more.
/// use_gpu_match
///     Match on the device, greedily unless mode says otherwise. False: the optimum, on the host.
/// device
///     Where it matches with use_gpu_match: 'auto' (the first NVIDIA GPU that can be had, else the CPU), 'cpu' or
///     'cuda[:N]'. It is opened when it is first needed.
/// mode
///     'exact': the optimum. 'greedy': each target takes its cheapest query; where two want the same, the cheaper pair
///     stays and the other goes on to its next best. None: greedy on the device, exact on the host.
///
/// Called as matcher(outputs, targets, return_topk=False, use_gpu_match=None, *, mode=None):
///
/// outputs
///     A mapping with 'pred_logits' [B, Q, C] and 'pred_boxes' [B, Q, 4], floats: B images, Q queries, C classes, boxes as
///     (cx, cy, w, h), normally as shares of the image. Other keys are not looked at.
/// targets
///     A list of B mappings with 'labels' [T], integers from 0 to C - 1, and 'boxes' [T, 4]. Each image has its own T, 0
///     included. Other keys are not looked at.
/// return_topk
///     k (1 to Q) matches each target k times: all pairs of the first round, then of the second, and so on. A query that
///     is taken costs at least a million in the rounds that follow.
/// use_gpu_match, mode
///     As above, for this call; None takes the matcher's own.
///
/// Returns {'indices': [(i, j), ...]} with one pair of int64 arrays an image: query i[n] answers for target j[n], min(Q, T)
/// of them, i ascending. With return_topk {'indices_o2m': ...}, of k rounds. The arrays are as 'pred_logits' is: NumPy's,
/// PyTorch's (in the host's memory, as indices are), else ultramotion.Tensor.
///
/// Raises ValueError for shapes that do not fit each other, labels that are no class, and missing keys; TypeError for what
/// is no array, or one of another dtype; RuntimeError if the device fails.
///
/// Arrays are NumPy's, or anything with __dlpack__ in the host's memory; PyTorch's may be on a GPU, from which they are
/// copied, and require gradients, which do not flow through a match. Costs are float32. Several threads may share a
/// matcher; other threads run while it computes.
#[pyclass(frozen, module = "ultramotion", name = "HungarianMatcher")]
pub(crate) struct HungarianMatcher {
    weights: [f64; 3],
    use_focal_loss: bool,
    alpha: f64,
    gamma: f64,
    use_gpu_match: bool,
    device: String,
    mode: Option<Solver>,
    choice: DeviceChoice,
    /// Made with the first batch for it.
    on_device: Exclusive<Option<DeviceMatcher>>,
}

impl HungarianMatcher {
    /// What an `Orchestrator` takes of it. Greedy is done on its device, wherever this matcher does it.
    pub(crate) fn settings(&self) -> (CostWeights, ClassCost, MatcherMode) {
        let mode = match (self.solver(self.use_gpu_match, None), self.use_gpu_match) {
            (Solver::Greedy, _) => MatcherMode::Greedy,
            (Solver::Exact, true) => MatcherMode::Exact,
            (Solver::Exact, false) => MatcherMode::Host,
        };
        (self.cost_weights(), self.class_cost(), mode)
    }

    fn cost_weights(&self) -> CostWeights {
        let [class, bbox, giou] = self.weights.map(|weight| weight as f32);
        CostWeights { class, bbox, giou }
    }

    fn class_cost(&self) -> ClassCost {
        if self.use_focal_loss {
            ClassCost::Focal { alpha: self.alpha as f32, gamma: self.gamma as f32 }
        } else {
            ClassCost::Softmax
        }
    }

    /// How a call matches that asks for `mode`.
    fn solver(&self, on_device: bool, mode: Option<Solver>) -> Solver {
        mode.or(self.mode).unwrap_or(if on_device { Solver::Greedy } else { Solver::Exact })
    }

    fn matcher(&self, solver: Solver, rounds: usize) -> PyResult<assignment::HungarianMatcher> {
        assignment::HungarianMatcher::builder()
            .weights(self.cost_weights())
            .class_cost(self.class_cost())
            .mode(match solver {
                Solver::Exact => MatcherMode::Exact,
                Solver::Greedy => MatcherMode::Greedy,
            })
            .return_topk(rounds)
            .build()
            .or_raise()
    }
}

#[pymethods]
impl HungarianMatcher {
    #[new]
    #[pyo3(signature = (weight_dict, use_focal_loss=false, alpha=0.25, gamma=2.0, use_gpu_match=false, *, device="auto", mode=None))]
    #[allow(clippy::too_many_arguments)] // the documented ones
    fn new(
        weight_dict: &Bound<'_, PyAny>,
        use_focal_loss: bool,
        alpha: f64,
        gamma: f64,
        use_gpu_match: bool,
        device: &str,
        mode: Option<&str>,
    ) -> PyResult<Self> {
        // The costs are f32 on every device; they are few, and one thread works on them.
        let choice = DeviceChoice::new(device.parse().or_raise()?, 1, Some(Precision::F32)).or_raise()?;
        let matcher = HungarianMatcher {
            weights: weights(weight_dict)?,
            use_focal_loss,
            alpha,
            gamma,
            use_gpu_match,
            device: device.to_owned(),
            mode: mode.map(solver).transpose()?,
            choice,
            on_device: Exclusive::new("this matcher", None),
        };
        matcher.matcher(Solver::Exact, 1)?;
        Ok(matcher)
    }

    #[pyo3(signature = (outputs, targets, return_topk=None, use_gpu_match=None, *, mode=None))]
    fn __call__<'py>(
        &self,
        py: Python<'py>,
        outputs: &Bound<'py, PyAny>,
        targets: &Bound<'py, PyAny>,
        return_topk: Option<&Bound<'py, PyAny>>,
        use_gpu_match: Option<bool>,
        mode: Option<&str>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let on_device = use_gpu_match.unwrap_or(self.use_gpu_match);
        let solver = self.solver(on_device, mode.map(solver).transpose()?);
        let batch = Batch::of(outputs, targets)?;
        let top_k = return_topk.map(|k| rounds(k, batch.queries)).transpose()?.flatten();
        let matcher = self.matcher(solver, top_k.unwrap_or(1))?;
        let items = batch.items()?;
        let pairs = if on_device {
            self.on_device.with(py, |on_device| {
                let on_device = match on_device {
                    Some(on_device) => on_device,
                    None => on_device.insert(DeviceMatcher::new(self.choice.open().or_raise()?)),
                };
                on_device.assign(&matcher, &items).or_raise()
            })?
        } else {
            py.detach(|| unpanicked(|| matcher.assign(&items).or_raise()))?
        };
        let indices = PyList::empty(py);
        for pairs in pairs {
            let (i, j): (Vec<i64>, Vec<i64>) = pairs.iter().map(|&(i, j)| (i as i64, j as i64)).unzip();
            indices.append((batch.kind.array(py, i)?, batch.kind.array(py, j)?))?;
        }
        let result = PyDict::new(py);
        result.set_item(if top_k.is_some() { "indices_o2m" } else { "indices" }, indices)?;
        Ok(result)
    }

    /// What each term of the cost counts.
    #[getter]
    fn weight_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let weights = PyDict::new(py);
        WEIGHTS.iter().zip(self.weights).try_for_each(|(key, weight)| weights.set_item(key, weight))?;
        Ok(weights)
    }

    /// Weight of the class cost.
    #[getter]
    fn cost_class(&self) -> f64 {
        self.weights[0]
    }

    /// Weight of the boxes' L1 distance.
    #[getter]
    fn cost_bbox(&self) -> f64 {
        self.weights[1]
    }

    /// Weight of the generalised IoU.
    #[getter]
    fn cost_giou(&self) -> f64 {
        self.weights[2]
    }

    /// Whether the class cost is the focal one.
    #[getter]
    fn use_focal_loss(&self) -> bool {
        self.use_focal_loss
    }

    /// Weight of the focal cost's positive side.
    #[getter]
    fn alpha(&self) -> f64 {
        self.alpha
    }

    /// How fast an easy example stops counting in the focal cost.
    #[getter]
    fn gamma(&self) -> f64 {
        self.gamma
    }

    /// Whether it matches on the device.
    #[getter]
    fn use_gpu_match(&self) -> bool {
        self.use_gpu_match
    }

    /// The device that was asked for.
    #[getter]
    fn device(&self) -> &str {
        &self.device
    }

    /// 'exact', 'greedy', or None: greedy on the device, exact on the host.
    #[getter]
    fn mode(&self) -> Option<&'static str> {
        self.mode.map(|solver| match solver {
            Solver::Exact => "exact",
            Solver::Greedy => "greedy",
        })
    }

    fn __getnewargs_ex__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyTuple>, Bound<'py, PyDict>)> {
        let weights = self.weight_dict(py)?;
        let args =
            (weights, self.use_focal_loss, self.alpha, self.gamma, self.use_gpu_match).into_pyobject(py)?;
        let keywords = PyDict::new(py);
        keywords.set_item("device", &self.device)?;
        keywords.set_item("mode", self.mode())?;
        Ok((args, keywords))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let (args, keywords) = self.__getnewargs_ex__(py)?;
        let names = ["weight_dict", "use_focal_loss", "alpha", "gamma", "use_gpu_match"];
        let mut parts = Vec::new();
        for (name, value) in names.into_iter().zip(args) {
            parts.push(format!("{name}={}", value.repr()?));
        }
        for (name, value) in keywords {
            parts.push(format!("{name}={}", value.repr()?));
        }
        Ok(format!("HungarianMatcher({})", parts.join(", ")))
    }
}

fn solver(mode: &str) -> PyResult<Solver> {
    match mode {
        "exact" => Ok(Solver::Exact),
        "greedy" => Ok(Solver::Greedy),
        other => Err(value_error(format!("mode '{other}' is not known; 'exact', 'greedy' and None are"))),
    }
}

fn weights(weight_dict: &Bound<'_, PyAny>) -> PyResult<[f64; 3]> {
    let taken = || WEIGHTS.join(", ");
    let weight_dict = weight_dict.cast::<PyMapping>().map_err(|_| {
        let kind = weight_dict.get_type();
        type_error(format!("weight_dict is a dictionary with {}, not {kind}", taken()))
    })?;
    for key in weight_dict.keys()? {
        if !WEIGHTS.iter().any(|known| key.eq(known).unwrap_or(false)) {
            return Err(value_error(format!(
                "weight_dict has the key {}; it takes {}",
                key.repr()?,
                taken()
            )));
        }
    }
    let mut weights = [0.0; 3];
    for (weight, key) in weights.iter_mut().zip(WEIGHTS) {
        if !weight_dict.contains(key)? {
            return Err(value_error(format!("weight_dict has no '{key}'; it takes {}", taken())));
        }
        let value = weight_dict.get_item(key)?;
        *weight = value
            .extract()
            .map_err(|_| type_error(format!("weight_dict['{key}'] is {value}, but it must be a number")))?;
        if !(*weight as f32).is_finite() {
            return Err(value_error(format!("weight_dict['{key}'] is {value}, but it must be finite")));
        }
    }
    Ok(weights)
}

/// `return_topk` as a number of rounds; `None` for what is false.
fn rounds(return_topk: &Bound<'_, PyAny>, queries: usize) -> PyResult<Option<usize>> {
    if !return_topk.is_truthy()? {
        return Ok(None);
    }
    let most = queries.max(1);
    let out_of_range = || {
        value_error(format!("return_topk is {return_topk}, but it must be False, or 1 to {most} (queries)"))
    };
    let rounds: usize = return_topk.extract().map_err(|error: PyErr| {
        if error.is_instance_of::<PyOverflowError>(return_topk.py()) {
            out_of_range()
        } else {
            type_error(format!("return_topk is {return_topk}, but it must be False or a whole number"))
        }
    })?;
    if rounds <= most { Ok(Some(rounds)) } else { Err(out_of_range()) }
}

/// What arrays a caller works with.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Numpy,
    Torch,
    Other,
}

impl Kind {
    fn of(object: &Bound<'_, PyAny>) -> PyResult<Kind> {
        if object.cast::<PyUntypedArray>().is_ok() {
            return Ok(Kind::Numpy);
        }
        // By name: PyTorch need not be there. Tensors of other libraries may be derived from its own.
        for class in object.get_type().mro() {
            let (module, name) = (class.getattr("__module__")?, class.getattr("__name__")?);
            if module.eq("torch")? && name.eq("Tensor")? {
                return Ok(Kind::Torch);
            }
        }
        Ok(Kind::Other)
    }

    /// Indices as the caller's library has them.
    fn array(self, py: Python<'_>, values: Vec<i64>) -> PyResult<Bound<'_, PyAny>> {
        if self == Kind::Numpy {
            return Ok(PyArray1::from_vec(py, values).into_any());
        }
        let tensor = Bound::new(py, Tensor::new([values.len()], values))?.into_any();
        match self {
            Kind::Torch => py.import("torch")?.call_method1("from_dlpack", (tensor,)),
            Kind::Numpy | Kind::Other => Ok(tensor),
        }
    }
}

/// What is matched, in the host's memory.
struct Batch<'py> {
    kind: Kind,
    queries: usize,
    classes: usize,
    /// `[B, Q, C]`
    logits: PyReadonlyArrayDyn<'py, f32>,
    /// `[B, Q, 4]`
    boxes: PyReadonlyArrayDyn<'py, f32>,
    targets: Vec<Targets<'py>>,
}

/// The targets of one image.
struct Targets<'py> {
    labels: Vec<i32>,
    /// `[T, 4]`
    boxes: PyReadonlyArrayDyn<'py, f32>,
}

impl<'py> Batch<'py> {
    fn of(outputs: &Bound<'py, PyAny>, targets: &Bound<'py, PyAny>) -> PyResult<Self> {
        let (logits, boxes) =
            (item(outputs, "outputs", "pred_logits")?, item(outputs, "outputs", "pred_boxes")?);
        let kind = Kind::of(&logits)?;
        let logits: PyReadonlyArrayDyn<'py, f32> = read(&logits, "outputs['pred_logits']")?;
        let boxes = read(&boxes, "outputs['pred_boxes']")?;
        let &[images, queries, classes] = logits.shape() else {
            return Err(wrong_shape(
                "outputs['pred_logits']",
                logits.shape(),
                "[B, Q, C]: images, queries, classes",
            ));
        };
        if boxes.shape() != [images, queries, 4] {
            let expected = format!("[{images}, {queries}, 4], a box for each query of 'pred_logits'");
            return Err(wrong_shape("outputs['pred_boxes']", boxes.shape(), &expected));
        }
        if queries > 0 && classes == 0 {
            return Err(wrong_shape(
                "outputs['pred_logits']",
                logits.shape(),
                "[B, Q, C] with at least one class",
            ));
        }
        let kind_of_targets = targets.get_type();
        let targets = targets.cast::<PySequence>().map_err(|_| {
            type_error(format!("targets is a list with a dictionary for each image, not {kind_of_targets}"))
        })?;
        if targets.len()? != images {
            return Err(value_error(format!(
                "targets is of {} images, and outputs['pred_logits'] of {images}; give a dictionary for each",
                targets.len()?
            )));
        }
        let targets = targets.try_iter()?.enumerate().map(|(index, of_image)| Targets::of(&of_image?, index));
        let targets = targets.collect::<PyResult<Vec<_>>>()?;
        Ok(Batch { kind, queries, classes, logits, boxes, targets })
    }

    fn items(&self) -> PyResult<Vec<BatchItem<'_>>> {
        let (logits, boxes) = (slice(&self.logits)?, slice(&self.boxes)?);
        let per_image = [self.queries * self.classes, self.queries * 4];
        let items = self.targets.iter().enumerate().map(|(index, targets)| {
            Ok(BatchItem {
                logits: &logits[index * per_image[0]..][..per_image[0]],
                boxes_cxcywh: &boxes[index * per_image[1]..][..per_image[1]],
                target_labels: &targets.labels,
                target_boxes_cxcywh: slice(&targets.boxes)?,
            })
        });
        items.collect()
    }
}

impl<'py> Targets<'py> {
    fn of(of_image: &Bound<'py, PyAny>, index: usize) -> PyResult<Self> {
        let (name, labels_name, boxes_name) = (
            format!("targets[{index}]"),
            format!("targets[{index}]['labels']"),
            format!("targets[{index}]['boxes']"),
        );
        let labels: PyReadonlyArrayDyn<'py, i64> = read(&item(of_image, &name, "labels")?, &labels_name)?;
        let boxes = read(&item(of_image, &name, "boxes")?, &boxes_name)?;
        let &[count] = labels.shape() else {
            return Err(wrong_shape(&labels_name, labels.shape(), "[T], a class for each target"));
        };
        if boxes.shape() != [count, 4] {
            return Err(wrong_shape(
                &boxes_name,
                boxes.shape(),
                &format!("[{count}, 4], a box for each label"),
            ));
        }
        // What no i32 holds is no class either, and named as one by the matcher.
        let within = |&label: &i64| label.clamp(i32::MIN.into(), i32::MAX.into()) as i32;
        let labels = slice(&labels)?.iter().map(within).collect();
        Ok(Targets { labels, boxes })
    }
}

fn wrong_shape(name: &str, shape: &[usize], expected: &str) -> PyErr {
    value_error(format!("{name} has the shape {shape:?}, but it must be {expected}"))
}

/// The entry of a mapping.
fn item<'py>(mapping: &Bound<'py, PyAny>, name: &str, key: &str) -> PyResult<Bound<'py, PyAny>> {
    mapping.get_item(key).map_err(|error| {
        if error.is_instance_of::<PyKeyError>(mapping.py()) {
            value_error(format!("{name} has no '{key}'"))
        } else {
            type_error(format!("{name} is a dictionary, not {}", mapping.get_type()))
        }
    })
}

/// Elements that the matcher reads, and what NumPy converts to them.
trait Read: numpy::Element {
    /// NumPy's name.
    const DTYPE: &'static str;
    /// Kinds of NumPy's types that are taken.
    const KINDS: &'static [u8];
    /// The same in words.
    const TAKEN: &'static str;
}

impl Read for f32 {
    const DTYPE: &'static str = "float32";
    const KINDS: &'static [u8] = b"f";
    const TAKEN: &'static str = "floats";
}

impl Read for i64 {
    const DTYPE: &'static str = "int64";
    const KINDS: &'static [u8] = b"iu";
    const TAKEN: &'static str = "integers";
}

/// An array of any library as one of NumPy's, contiguous: itself, a view of the same memory, or a copy if it must be.
fn read<'py, T: Read>(object: &Bound<'py, PyAny>, name: &str) -> PyResult<PyReadonlyArrayDyn<'py, T>> {
    let py = object.py();
    let numpy = py.import("numpy")?;
    let array = match Kind::of(object)? {
        Kind::Numpy => object.clone(),
        Kind::Torch => {
            let mut tensor = object.call_method0("detach")?;
            if tensor.call_method0("is_floating_point")?.is_truthy()? {
                // NumPy has no bfloat16.
                tensor = tensor.call_method0("float")?;
            }
            let keywords = PyDict::new(py);
            keywords.set_item("force", true)?;
            tensor.call_method("numpy", (), Some(&keywords))?
        }
        Kind::Other if object.hasattr("__dlpack__")? => {
            numpy.call_method1("from_dlpack", (object,)).map_err(|error| {
                value_error(format!("{name} cannot be read, it must be in the host's memory: {error}"))
            })?
        }
        Kind::Other => {
            return Err(type_error(format!(
                "{name} is a NumPy array or anything with __dlpack__, not {}",
                object.get_type()
            )));
        }
    };
    let dtype = array.cast::<PyUntypedArray>()?.dtype();
    if !T::KINDS.contains(&dtype.kind()) {
        return Err(type_error(format!("{name} is {dtype}, but it must be {}", T::TAKEN)));
    }
    let contiguous = numpy.call_method1("require", (&array, T::DTYPE, ["C", "A"]))?;
    let readable = contiguous.cast::<PyArrayDyn<T>>()?;
    if !contiguous.is(&array) {
        count_copy(readable.len() * size_of::<T>());
    }
    readable.try_readonly().map_err(|error| value_error(format!("{name} cannot be read: {error}")))
}

/// The elements of an array that [`read`] made.
fn slice<'a, T: Read>(array: &'a PyReadonlyArrayDyn<'_, T>) -> PyResult<&'a [T]> {
    array.as_slice().map_err(|error| value_error(error.to_string()))
}
