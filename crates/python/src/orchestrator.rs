//! `Orchestrator`: images in, packets out.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use pyo3::exceptions::PyUserWarning;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping};
use ultramotion_types::{FrameView, Prompt, PromptCommand, PromptPoint, Residency, TimeSource};

use crate::errors::{OrRaise, type_error, value_error};
use crate::exclusive::Exclusive;
use crate::image::Image;
use crate::matcher::HungarianMatcher;
use crate::packet::ResultPacket;
use crate::run::{Home, Plan, Run, at_home, away};
use crate::settings::device_choice;
use crate::shots::Shots;

/// The pipeline: detector, tracks and segmenter on a device. Images in, packets out.
///
/// config
///     None, the path of a configuration file (TOML, as `ultramotion run --config` takes it), or the dictionary
///     {"matcher": HungarianMatcher(...), "sam_config": {"as_numpy": ..., "device_consistent": ...},
///     "orchestrator_config": {"sam_as_numpy": ..., "gpu_resident": ...}}, each part of which may be left out.
/// device
///     'auto' (the first NVIDIA GPU that can run this program, else the CPU, and every packet says why), 'cpu' or 'cuda[:N]'.
/// threads
///     Threads on the CPU; 0 takes one for each core.
/// precision
///     'f32', or on a GPU 'f16'; None for the device's own.
/// **settings
///     Every key of the configuration file, tables as dictionaries: detector="my.pth", score_threshold=0.6,
///     tracker={"birth_score": 0.5}. They win over the file.
///
/// Calls from several threads wait for each other; the interpreter's lock is free while a frame is computed. Identities
/// hold from one call to the next: an Orchestrator is for one stream.
///
/// Raises ValueError for settings, FileNotFoundError and its kin for files, RuntimeError for the device.
#[pyclass(frozen, module = "ultramotion", name = "Orchestrator")]
pub(crate) struct Orchestrator {
    inner: Exclusive<Inner>,
    configured: Configured,
    device: &'static str,
    gpu: Option<usize>,
    threads: usize,
    class_names: Vec<String>,
}

struct Inner {
    /// Empty while a run has the pipeline.
    home: Home,
    shots: Shots,
    frames: u64,
}

/// What calls do that do not say otherwise.
#[derive(Clone, Copy)]
struct Configured {
    residency: Residency,
    masks_as_numpy: bool,
}

/// What the dictionary says, where it says something.
#[derive(Default)]
struct Legacy {
    matcher: Option<Py<HungarianMatcher>>,
    as_numpy: Option<bool>,
    gpu_resident: Option<bool>,
}

#[pymethods]
impl Orchestrator {
    #[new]
    #[pyo3(signature = (config=None, *, device="auto", threads=0, precision=None, **settings))]
    fn new(
        py: Python<'_>,
        config: Option<&Bound<'_, PyAny>>,
        device: &str,
        threads: usize,
        precision: Option<&str>,
        settings: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let (file, legacy) = match config {
            None => (None, Legacy::default()),
            Some(config) => match config.cast::<PyDict>() {
                Ok(dictionary) => (None, Legacy::read(dictionary)?),
                Err(_) => (Some(path(config)?), Legacy::default()),
            },
        };
        let keywords = legacy.under(py, settings)?;
        let settings = crate::settings::settings(file, Some(&keywords))?;
        let choice = device_choice(device, threads, precision)?;
        let configured =
            Configured { residency: settings.residency, masks_as_numpy: legacy.as_numpy.unwrap_or(true) };
        let pipeline = py.detach(|| crate::exclusive::unpanicked(|| settings.build(choice).or_raise()))?;
        Ok(Orchestrator {
            configured,
            device: pipeline.device().name(),
            gpu: pipeline.device().gpu(),
            threads: pipeline.device().threads(),
            class_names: pipeline.detector().labels().to_vec(),
            inner: Exclusive::new(
                "this Orchestrator",
                Inner { home: Arc::new(Mutex::new(Some(pipeline))), shots: Shots::default(), frames: 0 },
            ),
        })
    }

    /// Finds, tracks and outlines structures in an image.
    ///
    /// image
    ///     [H, W], [H, W, 1 or 3], [3, H, W] or [1, C, H, W], RGB where it has colours, of 1 to 8192 pixels a side: uint8, or
    ///     floats from 0 to 1; a NumPy array, or anything with __dlpack__ (PyTorch, CuPy). A contiguous uint8 array in
    ///     [H, W] or [H, W, C] is taken without a copy: do not write to it during the call. Such an array on this object's own
    ///     GPU stays there: one copy within the GPU takes it in.
    /// sam_as_numpy
    ///     Whether the packet's `masks` are an array of NumPy; False: a Tensor. The configuration can ask for Tensors for
    ///     all calls.
    /// gpu_resident
    ///     True: this frame stays on the device from its upload to its packet, whatever the configuration says. False: as
    ///     configured (`residency`, which is 'device' unless set). The results are the same.
    /// timestamp
    ///     The image's own time in seconds. Tracks move by these times. None: the time of the call.
    ///
    /// Returns a ResultPacket. Raises ValueError or TypeError for the image, which leaves the tracks as they are, and
    /// RuntimeError for the device, or after close().
    #[pyo3(signature = (image, sam_as_numpy=true, gpu_resident=false, timestamp=None))]
    fn run_inference(
        &self,
        py: Python<'_>,
        image: &Bound<'_, PyAny>,
        sam_as_numpy: bool,
        gpu_resident: bool,
        timestamp: Option<f64>,
    ) -> PyResult<ResultPacket> {
        let Configured { residency, masks_as_numpy } = self.configured;
        let residency = if gpu_resident { Residency::Device } else { residency };
        if timestamp.is_some_and(|seconds| !seconds.is_finite()) {
            return Err(value_error("the timestamp is not a finite number of seconds"));
        }
        let image = Image::of(image, self.gpu)?;
        let (width, height, pixel_format, pixels) =
            (image.width, image.height, image.pixel_format, image.pixels()?);
        let shot = self.inner.with(py, |inner| {
            let (timestamp_s, time_source) = match timestamp {
                Some(seconds) => (seconds, TimeSource::Source),
                None => (now_s(), TimeSource::Arrival),
            };
            let frame = FrameView {
                frame_id: inner.frames,
                timestamp_s,
                time_source,
                source: "array",
                width,
                height,
                pixel_format,
                pixels,
                tracker_from_pixels: None,
            };
            let Inner { home, shots, .. } = inner;
            let mut home = at_home(home);
            let pipeline = home.as_mut().ok_or_else(away)?;
            pipeline.set_residency(residency);
            let (shot, ()) = shots.fill(|shot| pipeline.process_into(&frame, &mut shot.packet)).or_raise()?;
            inner.frames += 1;
            Ok(shot)
        })?;
        Ok(ResultPacket::new(shot, sam_as_numpy && masks_as_numpy))
    }

    /// Follows something from the next image on, beside what the detector finds: its objects have `prompted` set. Needs room:
    /// Orchestrator(max_prompts=8).
    ///
    /// points
    ///     (x, y) or (x, y, positive) in pixels of the image, at most two of them: positive (the default) are in the object,
    ///     the others beside it.
    /// box
    ///     (left, top, right, bottom) around the object, in pixels of the image.
    /// label
    ///     What to call it, instead of 'user'.
    ///
    /// Raises ValueError for what cannot be followed, with the reason.
    #[pyo3(signature = (points=None, *, r#box=None, label=None))]
    fn prompt(
        &self,
        py: Python<'_>,
        points: Option<Vec<Bound<'_, PyAny>>>,
        r#box: Option<[f32; 4]>,
        label: Option<String>,
    ) -> PyResult<()> {
        let points = points.unwrap_or_default().iter().map(point_of).collect::<PyResult<_>>()?;
        self.obey(py, PromptCommand::Follow(Prompt { points, box_xyxy: r#box, label }))
    }

    /// Follows something no more: what has this identity or this label, or, without either, all that was pointed at.
    ///
    /// Raises ValueError where nothing that was pointed at has the identity.
    #[pyo3(signature = (track_id=None, *, label=None))]
    fn let_go(&self, py: Python<'_>, track_id: Option<i32>, label: Option<String>) -> PyResult<()> {
        self.obey(py, PromptCommand::LetGo { track_id, label })
    }

    /// Where it computes: 'cpu', 'cuda'.
    #[getter]
    fn device(&self) -> &'static str {
        self.device
    }

    /// Threads of the host that take part.
    #[getter]
    fn threads(&self) -> usize {
        self.threads
    }

    /// Where stages hand over unless a call says otherwise: 'device' or 'host'.
    #[getter]
    fn residency(&self) -> String {
        self.configured.residency.to_string()
    }

    /// Name of each class that the detector knows.
    #[getter]
    fn class_names(&self) -> Vec<String> {
        self.class_names.clone()
    }

    /// Bytes of the device's memory that its programs hold.
    fn memory_bytes(&self, py: Python<'_>) -> PyResult<usize> {
        self.inner.with(py, |inner| Ok(at_home(&inner.home).as_ref().ok_or_else(away)?.memory_bytes()))
    }

    /// Packets of a source by this pipeline: `ultramotion.run` for many recordings, whose models are opened and whose
    /// programs are compiled once.
    ///
    /// source, frames, realtime
    ///     As for ultramotion.run.
    ///
    /// Tracks begin anew, with the first identity again: each recording's packets are those that a run of its own gives.
    /// Until the run has ended, which leaving its loop does as well, other calls raise RuntimeError.
    ///
    /// Returns and raises what ultramotion.run does.
    #[pyo3(signature = (source, *, frames=None, realtime=false))]
    fn run(&self, py: Python<'_>, source: PathBuf, frames: Option<u64>, realtime: bool) -> PyResult<Run> {
        let plan = Plan::new(source, frames, realtime)?;
        let residency = self.configured.residency;
        self.inner.with(py, |inner| {
            let source = plan.open()?;
            plan.start(source, inner.home.clone(), |pipeline| {
                pipeline.set_residency(residency);
                pipeline.begin_stream().or_raise()
            })
        })
    }

    /// Gives threads and memory back. Packets stay valid; further calls raise RuntimeError.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.inner.close(py)
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_error))]
    fn __exit__(&self, py: Python<'_>, _error: &Bound<'_, pyo3::types::PyTuple>) -> PyResult<()> {
        self.close(py)
    }

    fn __repr__(&self) -> String {
        format!(
            "Orchestrator(device={}, threads={}, residency={}, classes={:?})",
            self.device, self.threads, self.configured.residency, self.class_names
        )
    }
}

impl Orchestrator {
    fn obey(&self, py: Python<'_>, command: PromptCommand) -> PyResult<()> {
        self.inner.with(py, |inner| {
            let mut home = at_home(&inner.home);
            let pipeline = home.as_mut().ok_or_else(away)?;
            pipeline.prompt(&command).map_err(|error| value_error(error.to_string()))
        })
    }
}

/// (x, y) or (x, y, positive).
fn point_of(point: &Bound<'_, PyAny>) -> PyResult<PromptPoint> {
    let whole = point.extract::<(f32, f32, bool)>();
    let (x, y, positive) = whole
        .or_else(|_| point.extract::<(f32, f32)>().map(|(x, y)| (x, y, true)))
        .map_err(|_| type_error("a point is (x, y) or (x, y, positive), in pixels of the image"))?;
    Ok(PromptPoint { x, y, positive })
}

fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn path(config: &Bound<'_, PyAny>) -> PyResult<PathBuf> {
    config.extract().map_err(|_| type_error("config is a dictionary, or the path of a configuration file"))
}

impl Legacy {
    fn read(config: &Bound<'_, PyDict>) -> PyResult<Self> {
        let mut legacy = Legacy::default();
        for (part, value) in config {
            let part: String = part.extract().map_err(|_| type_error("the keys of config are strings"))?;
            match part.as_str() {
                "matcher" => {
                    let matcher = value.cast::<HungarianMatcher>();
                    let matcher =
                        matcher.map_err(|_| type_error("config['matcher'] is a HungarianMatcher"))?;
                    legacy.matcher = Some(matcher.clone().unbind());
                }
                "sam_config" => legacy.read_flags(&part, &value, &["as_numpy", "device_consistent"])?,
                "orchestrator_config" => {
                    legacy.read_flags(&part, &value, &["sam_as_numpy", "gpu_resident"])?
                }
                _ => {
                    return Err(value_error(format!(
                        "config['{part}'] is not known: matcher, sam_config and orchestrator_config are; settings are keywords"
                    )));
                }
            }
        }
        Ok(legacy)
    }

    fn read_flags(&mut self, part: &str, flags: &Bound<'_, PyAny>, known: &[&str]) -> PyResult<()> {
        let flags =
            flags.cast::<PyDict>().map_err(|_| type_error(format!("config['{part}'] is a dictionary")))?;
        for (name, value) in flags {
            let name: String = name
                .extract()
                .map_err(|_| type_error(format!("the keys of config['{part}'] are strings")))?;
            if !known.contains(&name.as_str()) {
                return Err(value_error(format!(
                    "config['{part}']['{name}'] is not known: {} are",
                    known.join(" and ")
                )));
            }
            let value: bool = value
                .extract()
                .map_err(|_| type_error(format!("config['{part}']['{name}'] is True or False")))?;
            match name.as_str() {
                "gpu_resident" => self.gpu_resident = Some(value),
                "device_consistent" if value => {}
                "device_consistent" => {
                    let text =
                        c"everything of a pipeline is on one device: device_consistent=False changes nothing";
                    PyErr::warn(flags.py(), &flags.py().get_type::<PyUserWarning>(), text, 2)?;
                }
                // Either of the two keeps masks in Tensors.
                _ => self.as_numpy = Some(self.as_numpy.unwrap_or(true) && value),
            }
        }
        Ok(())
    }

    /// Keywords that say what the dictionary says, and then what the caller's own keywords say.
    fn under<'py>(
        &self,
        py: Python<'py>,
        keywords: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let (all, tracker) = (PyDict::new(py), PyDict::new(py));
        if let Some(matcher) = &self.matcher {
            let (weights, _, mode) = matcher.get().settings();
            all.set_item("matcher", mode.to_string())?;
            let table = PyDict::new(py);
            for (name, weight) in [("class", weights.class), ("bbox", weights.bbox), ("giou", weights.giou)] {
                table.set_item(name, f64::from(weight))?;
            }
            tracker.set_item("weights", table)?;
        }
        // The former system's arrays in the host's memory: every stage goes through it.
        match (self.gpu_resident, self.as_numpy) {
            (Some(true), _) | (None, Some(false)) => all.set_item("residency", "device")?,
            (Some(false), Some(true)) => all.set_item("residency", "host")?,
            _ => {}
        }
        if let Some(keywords) = keywords {
            all.update(keywords.as_mapping())?;
        }
        if let Some(given) = all.get_item("tracker")? {
            tracker.update(given.cast::<PyMapping>()?)?;
        }
        all.set_item("tracker", tracker)?;
        Ok(all)
    }
}
