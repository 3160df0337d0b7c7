//! `run`: packets of a source, one after another.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pyo3::exceptions::{PyRuntimeError, PyRuntimeWarning};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use ultramotion::source::default_limit;
use ultramotion::{Feed, Orchestrator as Pipeline, Pace, Session, SessionError, Source, Stop};

use crate::errors::{OrRaise, Raise, value_error};
use crate::exclusive::{Exclusive, unpanicked};
use crate::packet::ResultPacket;
use crate::settings::device_choice;
use crate::shots::Shots;

/// How long a frame of a scanner is waited for before it is looked whether Ctrl-C was pressed.
const TICK: Duration = Duration::from_millis(50);

/// The packets of a source, one after another: what `ultramotion.run` gives.
///
/// It ends by itself at the source's end, by `close()`, at the end of a `with` block, and when a loop over it is left.
#[pyclass(frozen, module = "ultramotion", name = "Run")]
pub(crate) struct Run {
    running: Exclusive<Running>,
    stop: Stop,
    source: String,
}

/// Where a pipeline is when no run has it.
pub(crate) type Home = Arc<Mutex<Option<Pipeline>>>;

struct Running {
    /// None once it has ended.
    session: Option<Session>,
    /// Where its pipeline goes then.
    home: Home,
    shots: Shots,
    skipped: u64,
    dropped: Option<u64>,
}

/// Finds, tracks and outlines structures in everything that a source gives.
///
/// source
///     What `ultramotion run` takes: 'phantom[:SEED]', a .mha, .mhd or .igs.mha sequence, an image, a folder of images, or a
///     scanner: 'igtl://HOST[:PORT][/DEVICE]'. A string or a path.
/// frames
///     Stop after so many; None: all, and 150 of the phantom.
/// realtime
///     Play a recording at its own pace; frames that come while the pipeline is busy are dropped, oldest first.
/// config
///     Path of a configuration file (TOML).
/// device, threads, precision, **settings
///     As for Orchestrator.
///
/// Returns an iterator of ResultPackets, whose `image` is the frame. A frame that cannot be read is skipped with a
/// RuntimeWarning and counted. Ctrl-C ends it with KeyboardInterrupt, at once.
///
/// Raises ValueError for the source's name and for settings, FileNotFoundError and its kin for files, OSError for a
/// scanner, RuntimeError for the device.
///
/// >>> for packet in ultramotion.run("scan.igs.mha", detector="my.pth"):
/// ...     print(packet.state, packet.boxes_xyxy)
#[pyfunction]
#[pyo3(signature = (source, *, frames=None, realtime=false, config=None, device="auto", threads=0, precision=None, **settings))]
#[expect(clippy::too_many_arguments, reason = "keywords of Python")]
pub(crate) fn run(
    py: Python<'_>,
    source: PathBuf,
    frames: Option<u64>,
    realtime: bool,
    config: Option<PathBuf>,
    device: &str,
    threads: usize,
    precision: Option<&str>,
    settings: Option<&Bound<'_, PyDict>>,
) -> PyResult<Run> {
    let plan = Plan::new(source, frames, realtime)?;
    let settings = crate::settings::settings(config, settings)?;
    let choice = device_choice(device, threads, precision)?;
    py.detach(|| {
        unpanicked(|| {
            // First: what is wrong with a name is said without waiting for models.
            let source = plan.open()?;
            let pipeline = settings.build(choice).or_raise()?;
            plan.start(source, Arc::new(Mutex::new(Some(pipeline))), |_| Ok(()))
        })
    })
}

/// What is to be run, and how.
pub(crate) struct Plan {
    pub source: String,
    limit: u64,
    pace: Pace,
}

impl Plan {
    pub(crate) fn new(source: PathBuf, frames: Option<u64>, realtime: bool) -> PyResult<Self> {
        let source = source.to_str().ok_or_else(|| value_error("the source's name is not text"))?.to_owned();
        if frames == Some(0) {
            return Err(value_error("frames is 0, but it must be 1 or more"));
        }
        let limit = frames.or(default_limit(&source)).unwrap_or(u64::MAX);
        Ok(Plan { source, limit, pace: if realtime { Pace::RealTime } else { Pace::AsAsked } })
    }

    pub(crate) fn open(&self) -> PyResult<Source> {
        Source::open(&self.source).or_raise()
    }

    /// Begins with the pipeline that is at home, which goes back there at the end. An error leaves it there.
    pub(crate) fn start(
        self,
        mut source: Source,
        home: Home,
        ready: impl FnOnce(&mut Pipeline) -> PyResult<()>,
    ) -> PyResult<Run> {
        let stop = Stop::default();
        let session = {
            let mut at_home = at_home(&home);
            let pipeline = at_home.as_mut().ok_or_else(away)?;
            ready(pipeline)?;
            Session::prepare(pipeline, &mut source, None).or_raise()?;
            let feed = Feed::new(source, self.pace, self.limit, stop.clone())
                .map_err(SessionError::from)
                .or_raise()?;
            at_home.take().map(|pipeline| Session::new(pipeline, feed))
        };
        let running = Running { session, home, shots: Shots::default(), skipped: 0, dropped: None };
        Ok(Run { running: Exclusive::new("this run", running), stop, source: self.source })
    }
}

/// The pipeline, if no run has it.
pub(crate) fn at_home(home: &Home) -> MutexGuard<'_, Option<Pipeline>> {
    home.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is said if one has it.
pub(crate) fn away() -> PyErr {
    PyRuntimeError::new_err(
        "this Orchestrator is in a run; end that first, by its close() or by leaving its loop",
    )
}

/// What came of waiting for the next frame.
enum Next {
    Waiting,
    Packet(ResultPacket),
    Skipped(String),
    End,
}

impl Running {
    fn next(&mut self) -> PyResult<Next> {
        let Some(session) = &mut self.session else { return Ok(Next::End) };
        if !session.ready_within(TICK) {
            return Ok(Next::Waiting);
        }
        let result =
            self.shots.fill(|shot| match session.next_result_into(&mut shot.frame, &mut shot.packet) {
                Some(Ok(())) => Ok(()),
                Some(Err(error)) => Err(Some(error)),
                None => Err(None),
            });
        match result {
            Ok((shot, ())) => Ok(Next::Packet(ResultPacket::new(shot, true))),
            Err(Some(error)) if error.is_about_one_frame() => {
                self.skipped += 1;
                Ok(Next::Skipped(error.to_string()))
            }
            Err(Some(error)) => Err(error.raise()),
            Err(None) => {
                self.end()?;
                Ok(Next::End)
            }
        }
    }

    /// Lets the source go, and the pipeline home.
    fn end(&mut self) -> PyResult<()> {
        if let Some(session) = self.session.take() {
            let (pipeline, dropped) = session.finish();
            *at_home(&self.home) = Some(pipeline);
            self.dropped = dropped.or_raise()?;
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A loop that was left. What a scanner was at fault for is of no use to anyone any more.
        let _ = self.end();
    }
}

#[pymethods]
impl Run {
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<ResultPacket>> {
        loop {
            py.check_signals()?;
            match self.running.with(py, Running::next)? {
                Next::Waiting => {}
                Next::Packet(packet) => return Ok(Some(packet)),
                Next::Skipped(why) => {
                    let text = std::ffi::CString::new(format!("skipped: {why}")).unwrap_or_default();
                    PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &text, 1)?;
                }
                Next::End => return Ok(None),
            }
        }
    }

    /// Frames that could not be read so far.
    #[getter]
    fn skipped(&self, py: Python<'_>) -> PyResult<u64> {
        self.running.with(py, |running| Ok(running.skipped))
    }

    /// Frames that were dropped to keep up, once it has ended; None where none can be.
    #[getter]
    fn dropped(&self, py: Python<'_>) -> PyResult<Option<u64>> {
        self.running.with(py, |running| Ok(running.dropped))
    }

    /// Ends it. What was given out stays valid; the next packet is the end.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        self.stop.set();
        self.running.with(py, Running::end)
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_error))]
    fn __exit__(&self, py: Python<'_>, _error: &Bound<'_, pyo3::types::PyTuple>) -> PyResult<()> {
        self.close(py)
    }

    fn __repr__(&self) -> String {
        format!("Run({:?})", self.source)
    }
}
