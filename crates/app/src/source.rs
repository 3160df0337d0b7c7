//! `SOURCE`: the phantom, a recording, an image, a folder, a scanner.

use std::path::Path;

use anyhow::Result;
use ultramotion_gateway::config::SourceConfig;
use ultramotion_media::MediaError;
use ultramotion_media::source::FrameSource;
use ultramotion_phantom::{Phantom, PhantomConfig, PhantomFrame};
use ultramotion_types::{Frame, NamedTransform, PixelFormat};

use crate::usage::usage;

/// Frames of a phantom unless `--frames` says otherwise.
pub(crate) const PHANTOM_FRAMES: u64 = 150;

/// Opens what `SOURCE` names.
pub(crate) fn open(source: &str) -> Result<Box<dyn FrameSource>> {
    if source == "phantom" {
        return PhantomSource::open(0);
    }
    if let Some(seed) = source.strip_prefix("phantom:") {
        let seed = seed.parse().map_err(|_| {
            usage(format!("SOURCE '{source}': the phantom's seed is a number, as in phantom:7"))
        })?;
        return PhantomSource::open(seed);
    }
    Ok(ultramotion_media::source::open(Path::new(source))?)
}

/// What a URL of a live source begins with.
const LIVE: &str = "igtl://";

/// The settings of `igtl://HOST[:PORT][/DEVICE]`; `None` if `SOURCE` is something else.
pub(crate) fn live(source: &str) -> Option<Result<SourceConfig>> {
    let rest = source.strip_prefix(LIVE)?;
    let (host, device) = rest.split_once('/').unwrap_or((rest, ""));
    if host.is_empty() {
        let example = "igtl://localhost:18944";
        return Some(Err(usage(format!("SOURCE '{source}': the host is missing, as in {example}"))));
    }
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    // The colons of an IPv6 address stand in brackets.
    let address = if has_port && !host.ends_with(']') {
        host.to_owned()
    } else {
        format!("{host}:{}", ultramotion_igtlink::DEFAULT_PORT)
    };
    let config = SourceConfig { device: device.to_owned(), ..SourceConfig::connecting_to(address) };
    Some(config.validate().map(|()| config).map_err(|error| usage(format!("SOURCE '{source}': {error}"))))
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
    fn open(seed: u64) -> Result<Box<dyn FrameSource>> {
        let phantom = Phantom::new(PhantomConfig { seed, ..PhantomConfig::default() })?;
        let scratch = phantom.frame(0);
        Ok(Box::new(PhantomSource { phantom, scratch, name: format!("phantom:{seed}"), next: 0 }))
    }
}

impl FrameSource for PhantomSource {
    fn name(&self) -> &str {
        &self.name
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
