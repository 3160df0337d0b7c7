//! Sources by name: `phantom[:SEED]`, a file, a folder of images or of a recording, a camera or capture card (`device:NAME`),
//! `igtl://HOST[:PORT][/DEVICE]`.

use std::path::Path;

use thiserror::Error;
use ultramotion_gateway::config::{ConfigError, SourceConfig};
use ultramotion_gateway::receive::{LinkError, Receiver};
use ultramotion_gateway::record::first_part;
use ultramotion_media::MediaError;
use ultramotion_media::source::{DicomOptions, FrameSource, Video};
use ultramotion_phantom::{Phantom, PhantomConfig, PhantomError, PhantomFrame};
use ultramotion_types::{Frame, NamedTransform, PixelFormat};

/// Frames of a phantom unless a limit says otherwise.
pub const PHANTOM_FRAMES: u64 = 150;

/// What a URL of a live source begins with.
const LIVE: &str = "igtl://";

/// What the name of a camera or capture card begins with.
const CAMERA: &str = "device:";

/// Where frames come from.
#[derive(Debug)]
pub enum Source {
    /// Files or the phantom: frames wait until they are read.
    Recorded(Box<dyn FrameSource>),
    /// A scanner: frames come when they come.
    Live(Box<Receiver>),
}

/// Why a source cannot be opened.
#[derive(Debug, Error)]
pub enum SourceError {
    /// A phantom whose seed is no number.
    #[error("SOURCE '{0}': the phantom's seed is a number, as in phantom:7")]
    Seed(String),
    /// A URL without a host.
    #[error("SOURCE '{0}': the host is missing, as in igtl://localhost:18944")]
    Host(String),
    /// A URL whose parts cannot be used.
    #[error("SOURCE '{name}': {error}")]
    Live {
        /// The URL.
        name: String,
        /// What is wrong.
        error: ConfigError,
    },
    /// A file or folder that cannot be opened.
    #[error(transparent)]
    Media(#[from] MediaError),
    /// The link to a scanner cannot be opened.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The phantom cannot be made.
    #[error(transparent)]
    Phantom(#[from] PhantomError),
}

impl SourceError {
    /// Whether the name itself is wrong, and not what it names.
    pub fn is_in_name(&self) -> bool {
        matches!(self, SourceError::Seed(_) | SourceError::Host(_) | SourceError::Live { .. })
    }
}

impl Source {
    /// Opens what a name names.
    pub fn open(name: &str) -> Result<Self, SourceError> {
        Self::open_with(name, &DicomOptions::default())
    }

    /// The same, with what is to be read of a study in DICOM.
    pub fn open_with(name: &str, dicom: &DicomOptions) -> Result<Self, SourceError> {
        match live(name) {
            Some(config) => Ok(Source::Live(Box::new(Receiver::open(&config?)?))),
            None => Ok(Source::Recorded(open_recorded_with(name, dicom)?)),
        }
    }

    /// Frames that it gives at most, bad ones included, when that is known.
    pub fn frame_count_hint(&self) -> Option<u64> {
        match self {
            Source::Recorded(source) => source.frame_count_hint(),
            Source::Live(_) => None,
        }
    }
}

/// Opens what a name names, but for a scanner: such frames can be read again.
pub fn open_recorded(name: &str) -> Result<Box<dyn FrameSource>, SourceError> {
    open_recorded_with(name, &DicomOptions::default())
}

fn open_recorded_with(name: &str, dicom: &DicomOptions) -> Result<Box<dyn FrameSource>, SourceError> {
    if name == "phantom" {
        return PhantomSource::open(0);
    }
    if let Some(seed) = name.strip_prefix("phantom:") {
        return PhantomSource::open(seed.parse().map_err(|_| SourceError::Seed(name.to_owned()))?);
    }
    if let Some(device) = name.strip_prefix(CAMERA) {
        return Ok(Box::new(Video::open_device(device)?));
    }
    let path = Path::new(name);
    Ok(ultramotion_media::source::open_with(first_part(path).as_deref().unwrap_or(path), dicom)?)
}

/// How many frames a source with this name gives where no limit is set: the phantom has no end.
pub fn default_limit(name: &str) -> Option<u64> {
    (name == "phantom" || name.starts_with("phantom:")).then_some(PHANTOM_FRAMES)
}

/// The settings of `igtl://HOST[:PORT][/DEVICE]`; `None` if the name is something else.
fn live(name: &str) -> Option<Result<SourceConfig, SourceError>> {
    let rest = name.strip_prefix(LIVE)?;
    let (host, device) = rest.split_once('/').unwrap_or((rest, ""));
    if host.is_empty() {
        return Some(Err(SourceError::Host(name.to_owned())));
    }
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    // The colons of an IPv6 address stand in brackets.
    let address = if has_port && !host.ends_with(']') {
        host.to_owned()
    } else {
        format!("{host}:{}", ultramotion_igtlink::DEFAULT_PORT)
    };
    let config = SourceConfig { device: device.to_owned(), ..SourceConfig::connecting_to(address) };
    let checked = config.validate().map(|()| config);
    Some(checked.map_err(|error| SourceError::Live { name: name.to_owned(), error }))
}

/// The phantom as a source of frames.
#[derive(Debug)]
struct PhantomSource {
    phantom: Phantom,
    scratch: PhantomFrame,
    name: String,
    next: u64,
}

impl PhantomSource {
    fn open(seed: u64) -> Result<Box<dyn FrameSource>, SourceError> {
        let phantom = Phantom::new(PhantomConfig { seed, ..PhantomConfig::default() })?;
        let scratch = phantom.frame(0);
        Ok(Box::new(PhantomSource { phantom, scratch, name: format!("phantom:{seed}"), next: 0 }))
    }
}

impl FrameSource for PhantomSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn description(&self) -> String {
        "simulated ultrasound".into()
    }

    fn frame_count_hint(&self) -> Option<u64> {
        Some(PHANTOM_FRAMES)
    }

    fn read_into(&mut self, frame: &mut Frame) -> Option<Result<(), MediaError>> {
        self.phantom.render_into(self.next, &mut self.scratch);
        frame.frame_id = self.next;
        frame.timestamp_s = self.scratch.timestamp_s;
        self.name.clone_into(&mut frame.source);
        (frame.width, frame.height) = (self.scratch.width, self.scratch.height);
        frame.pixel_format = PixelFormat::Grey8;
        self.scratch.pixels.clone_into(&mut frame.pixels);
        frame.spacing_mm = Some([self.scratch.spacing_mm; 2]);
        frame.transforms.clear();
        frame.transforms.push(NamedTransform {
            name: "ProbeToTracker".into(),
            matrix: self.scratch.tracker_from_probe,
            valid: true,
        });
        self.next += 1;
        Some(Ok(()))
    }

    fn rewind(&mut self) -> Result<(), MediaError> {
        self.next = 0;
        Ok(())
    }

    /// The phantom's frames have times of their own.
    fn set_nominal_frames_per_second(&mut self, _frames_per_second: f64) {}
}
