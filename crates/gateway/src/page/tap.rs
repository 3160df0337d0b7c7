//! The tap on the stream: frames for whoever looks, encoded once for all.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ImageEncoder, ImageResult};
use serde::Serialize;
use tokio::sync::watch;
use ultramotion_types::{Mailbox, ResultPacket, known_spacing_mm};

use crate::receive::LiveFrame;
use crate::send::Answer;

/// Fine speckle needs some; with this, 30 frames a second of 512x512 are about 10 Mbit/s.
const JPEG_QUALITY: u8 = 75;
/// How long a frame can be saved after it was shown.
const KEPT_FOR: Duration = Duration::from_secs(11);
/// And the most bytes of pixels that this may take.
const KEPT_BYTES: usize = 128 << 20;

/// How pictures are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Picture {
    /// With some loss.
    Jpeg,
    /// Every pixel as it came.
    Png,
}

/// An encoded frame: a message for each kind of viewer that was there.
#[derive(Debug)]
pub(super) struct Shown {
    messages: [Option<Bytes>; 2],
}

impl Shown {
    pub(super) fn message(&self, picture: Picture) -> Option<&Bytes> {
        self.messages[picture as usize].as_ref()
    }
}

/// What stands before the picture of a frame's message.
#[derive(Serialize)]
struct Head<'a> {
    packet: &'a ResultPacket,
    /// Of the frame, when it was encoded.
    age_ms: f64,
    spacing_mm: Option<[f64; 2]>,
    image: ImageHead,
}

#[derive(Serialize)]
struct ImageHead {
    #[serde(rename = "type")]
    kind: &'static str,
    width: usize,
    height: usize,
}

/// Frames by when they were shown.
type Kept = VecDeque<(Instant, Arc<Answer>)>;

/// Where frames leave the stream for those who look.
#[derive(Debug)]
pub(crate) struct Tap {
    latest: Mailbox<Arc<Answer>>,
    /// By [`Picture`].
    viewers: [AtomicUsize; 2],
    shown: watch::Sender<Option<Arc<Shown>>>,
    /// The last frames shown, while they can be saved.
    kept: Option<Mutex<Kept>>,
}

/// A viewer, for as long as it is there.
pub(super) struct Viewing<'t> {
    tap: &'t Tap,
    picture: Picture,
}

impl Drop for Viewing<'_> {
    fn drop(&mut self) {
        self.tap.viewers[self.picture as usize].fetch_sub(1, SeqCst);
    }
}

impl Tap {
    /// `keeps` frames that were shown for a while, so that they can be saved.
    pub(crate) fn new(keeps: bool) -> Self {
        Tap {
            latest: Mailbox::new(1),
            viewers: Default::default(),
            shown: watch::Sender::new(None),
            kept: keeps.then(Mutex::default),
        }
    }

    /// Shows a frame, if somebody looks. Waits for nobody, and copies nothing.
    pub(crate) fn offer(&self, answer: &Arc<Answer>) {
        if self.viewers() > 0 {
            drop(self.latest.put(Arc::clone(answer)));
        }
    }

    /// Who looks.
    pub(crate) fn viewers(&self) -> usize {
        self.viewers.iter().map(|viewers| viewers.load(SeqCst)).sum()
    }

    /// Nothing is shown any more.
    pub(super) fn close(&self) {
        self.latest.close();
    }

    pub(super) fn enter(&self, picture: Picture) -> Viewing<'_> {
        self.viewers[picture as usize].fetch_add(1, SeqCst);
        Viewing { tap: self, picture }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Option<Arc<Shown>>> {
        self.shown.subscribe()
    }

    /// A frame that was shown a moment ago.
    pub(crate) fn kept(&self, frame_id: u64) -> Option<Arc<Answer>> {
        let kept = self.kept.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter()
            .find(|(_, answer)| answer.packet.frame_id == frame_id)
            .map(|(_, answer)| Arc::clone(answer))
    }

    /// Encodes what is offered, until the tap is closed.
    pub(super) fn encode(&self) {
        while let Some(answer) = self.latest.take() {
            let message = |picture: Picture| {
                let wanted = self.viewers[picture as usize].load(SeqCst) > 0;
                wanted.then(|| message(&answer, picture))
            };
            let messages = [message(Picture::Jpeg), message(Picture::Png)];
            self.keep(answer);
            self.shown.send_replace(Some(Arc::new(Shown { messages })));
        }
    }

    fn keep(&self, answer: Arc<Answer>) {
        let Some(kept) = &self.kept else { return };
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        kept.push_back((now, answer));
        let mut bytes: usize = kept.iter().map(|(_, answer)| answer.frame.pixels.len()).sum();
        while kept.len() > 1
            && (bytes > KEPT_BYTES || kept.front().is_some_and(|(at, _)| now - *at > KEPT_FOR))
        {
            bytes -= kept.pop_front().map_or(0, |(_, answer)| answer.frame.pixels.len());
        }
    }
}

/// Length of the JSON in four bytes, the JSON, the picture.
fn message(answer: &Answer, picture: Picture) -> Bytes {
    let Answer { frame, packet, .. } = answer;
    let mut pixels = Vec::new();
    let kind = match encode(frame, picture, &mut pixels) {
        Ok(()) if picture == Picture::Png => "image/png",
        Ok(()) => "image/jpeg",
        Err(_) => {
            pixels.clear();
            "none"
        }
    };
    let head = Head {
        packet,
        age_ms: frame.age().as_secs_f64() * 1e3,
        spacing_mm: known_spacing_mm(frame.spacing_mm()),
        image: ImageHead { kind, width: frame.width(), height: frame.height() },
    };
    // Numbers and texts alone: this cannot fail.
    let json = serde_json::to_vec(&head).unwrap_or_default();
    let mut message = Vec::with_capacity(4 + json.len() + pixels.len());
    message.extend((json.len() as u32).to_le_bytes());
    message.extend(json);
    message.extend(pixels);
    message.into()
}

fn encode(frame: &LiveFrame, picture: Picture, out: &mut Vec<u8>) -> ImageResult<()> {
    let color = frame.color_type();
    let (width, height) = (u32::from(frame.size[0]), u32::from(frame.size[1]));
    match picture {
        Picture::Jpeg => {
            JpegEncoder::new_with_quality(out, JPEG_QUALITY).write_image(&frame.pixels, width, height, color)
        }
        Picture::Png => PngEncoder::new_with_quality(out, CompressionType::Fast, FilterType::Sub)
            .write_image(&frame.pixels, width, height, color),
    }
}
