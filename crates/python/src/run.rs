//! `run`: packets of a source, one after another.

use std::path::PathBuf;
use std::time::Duration;

use pyo3::exceptions::PyRuntimeWarning;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use ultramotion::source::default_limit;
use ultramotion::{Pace, Session, Source, Stop};

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

struct Running {
    /// None once it has ended.
    session: Option<Session>,
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
    let name = source.to_str().ok_or_else(|| value_error("the source's name is not text"))?.to_owned();
    if frames == Some(0) {
        return Err(value_error("frames is 0, but it must be 1 or more"));
    }
    let settings = crate::settings::settings(config, settings)?;
    let choice = device_choice(device, threads, precision)?;
    let limit = frames.or(default_limit(&name)).unwrap_or(u64::MAX);
    let pace = if realtime { Pace::RealTime } else { Pace::AsAsked };
    let stop = Stop::default();
    let session = py.detach(|| {
        unpanicked(|| {
            let source = Source::open(&name).or_raise()?;
            let pipeline = settings.build(choice).or_raise()?;
            Session::start(pipeline, source, pace, limit, stop.clone()).or_raise()
        })
    })?;
    let running = Running { session: Some(session), shots: Shots::default(), skipped: 0, dropped: None };
    Ok(Run { running: Exclusive::new("this run", running), stop, source: name })
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

    /// Lets source and pipeline go.
    fn end(&mut self) -> PyResult<()> {
        if let Some(session) = self.session.take() {
            (_, self.dropped) = session.finish().or_raise()?;
        }
        Ok(())
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
