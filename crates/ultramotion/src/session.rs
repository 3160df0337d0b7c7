//! Frames in, packets out.

use std::time::Duration;

use thiserror::Error;
use ultramotion_media::MediaError;
use ultramotion_media::source::crop::{Crop, FRAMES_LOOKED_AT, PictureFinder, Rectangle};
use ultramotion_pipeline::{DeviceChoice, Orchestrator, PipelineError};
use ultramotion_types::{Frame, ResultPacket};

use crate::feed::{Feed, FeedError, Pace, Stop};
use crate::settings::{BuildError, Settings};
use crate::source::{Source, SourceError, default_limit};

/// A source, and the pipeline that its frames go through.
pub struct Session {
    pipeline: Orchestrator,
    feed: Feed,
    crop: Cut,
    frame: Frame,
    packet: ResultPacket,
}

/// The part of frames that the pipeline gets.
#[derive(Debug, Default)]
struct Cut {
    rectangle: Option<Rectangle>,
    /// Memory that is used again.
    pixels: Vec<u8>,
}

impl Cut {
    /// Processes a frame, or the part of it; the packet is of the whole frame.
    fn process(
        &mut self,
        pipeline: &mut Orchestrator,
        frame: &Frame,
        packet: &mut ResultPacket,
    ) -> Result<(), SessionError> {
        let Some(rectangle) = self.rectangle else {
            return pipeline.process_into(&frame.view(), packet).map_err(|error| of_frame(frame, error));
        };
        let Frame { frame_id, width, height, .. } = *frame;
        if !rectangle.is_in(width, height) {
            return Err(SessionError::OutsideFrame { rectangle, frame_id, width, height });
        }
        let result = pipeline.process_into(&rectangle.cut(frame, &mut self.pixels), packet);
        let placed =
            result.and_then(|()| Ok(packet.place_in(width, height, [rectangle.left, rectangle.top])?));
        placed.map_err(|error| of_frame(frame, error))
    }
}

/// Why a session cannot begin, or what is wrong with a frame.
#[derive(Debug, Error)]
pub enum SessionError {
    /// The source cannot be opened.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The pipeline cannot be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The source's frames cannot be had.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// A frame cannot be read. The next one may be.
    #[error(transparent)]
    Unreadable(#[from] MediaError),
    /// A frame does not have the part that is to be looked at.
    #[error(
        "frame {frame_id} has {width}x{height} pixels, and not all of the part {rectangle} (left, top, width, height)"
    )]
    OutsideFrame {
        /// The part.
        rectangle: Rectangle,
        /// Number in the source.
        frame_id: u64,
        /// Width of the frame.
        width: usize,
        /// Height of the frame.
        height: usize,
    },
    /// The picture cannot be told from what is around it.
    #[error(
        "no picture was found in the first frames of {0}: give its place, as --crop LEFT,TOP,WIDTH,HEIGHT"
    )]
    NoPicture(String),
    /// A frame cannot be processed. After a [`PipelineError::Frame`] the next one may be.
    #[error("frame {frame_id} of {source_name}: {error}")]
    Pipeline {
        /// Number in the source.
        frame_id: u64,
        /// The source.
        source_name: String,
        /// What is wrong.
        error: Box<PipelineError>,
    },
}

impl SessionError {
    /// Whether it is about one frame, so that the next one may be processed.
    pub fn is_about_one_frame(&self) -> bool {
        match self {
            SessionError::Unreadable(_) | SessionError::OutsideFrame { .. } => true,
            SessionError::Pipeline { error, .. } => matches!(**error, PipelineError::Frame(_)),
            SessionError::Source(_)
            | SessionError::Build(_)
            | SessionError::Feed(_)
            | SessionError::NoPicture(_) => false,
        }
    }
}

impl Session {
    /// Everything by name, frames as fast as they are asked for.
    pub fn open(settings: &Settings, device: DeviceChoice, source: &str) -> Result<Self, SessionError> {
        let limit = default_limit(source).unwrap_or(u64::MAX);
        let source = Source::open(source)?;
        let pipeline = settings.build(device)?;
        Session::start(pipeline, source, None, Pace::AsAsked, limit, Stop::default())
    }

    /// A pipeline and up to `limit` frames of a source, or of a part of each; `stop` ends it between two frames. Results are in the
    /// coordinates of the whole frame either way.
    ///
    /// For a recording, the program for its first frame is compiled before anything is played: see [`Session::prepare`].
    pub fn start(
        mut pipeline: Orchestrator,
        mut source: Source,
        crop: Option<Rectangle>,
        pace: Pace,
        limit: u64,
        stop: Stop,
    ) -> Result<Self, SessionError> {
        Session::prepare(&mut pipeline, &mut source, crop)?;
        let mut session = Session::new(pipeline, Feed::new(source, pace, limit, stop)?);
        session.crop.rectangle = crop;
        Ok(session)
    }

    /// Which part of a source's frames is meant: for [`Crop::Auto`] its first frames are looked at.
    pub fn find_picture(crop: Crop, source: &mut Source) -> Result<Rectangle, SessionError> {
        let source = match (crop, source) {
            (Crop::At(rectangle), _) => return Ok(rectangle),
            (Crop::Auto, Source::Recorded(source)) => source,
            (Crop::Auto, Source::Live(_)) => return Err(SessionError::NoPicture("a live stream".into())),
        };
        let (mut finder, mut frame) = (PictureFinder::default(), Frame::default());
        for _ in 0..FRAMES_LOOKED_AT {
            match source.read_into(&mut frame) {
                Some(Ok(())) => finder.look_at(&frame),
                Some(Err(_)) => {}
                None => break,
            }
        }
        let found = finder.found().ok_or_else(|| SessionError::NoPicture(source.name().to_owned()))?;
        source.rewind()?;
        Ok(found)
    }

    /// Compiles for a recording's first frame, so that neither that frame's latency nor the real-time clock pays for it.
    /// What is wrong with the frame is said when its turn comes.
    pub fn prepare(
        pipeline: &mut Orchestrator,
        source: &mut Source,
        crop: Option<Rectangle>,
    ) -> Result<(), SessionError> {
        let Source::Recorded(source) = source else { return Ok(()) };
        let mut frame = Frame::default();
        if let Some(Ok(())) = source.read_into(&mut frame) {
            let mut pixels = Vec::new();
            let view = match crop.filter(|part| part.is_in(frame.width, frame.height)) {
                Some(part) => part.cut(&frame, &mut pixels),
                None => frame.view(),
            };
            match pipeline.prepare(&view) {
                Ok(()) | Err(PipelineError::Frame(_)) => {}
                Err(error) => return Err(of_frame(&frame, error)),
            }
        }
        Ok(source.rewind()?)
    }

    /// A pipeline and the frames that it gets.
    pub fn new(pipeline: Orchestrator, feed: Feed) -> Self {
        Session {
            pipeline,
            feed,
            crop: Cut::default(),
            frame: Frame::default(),
            packet: ResultPacket::default(),
        }
    }

    /// The next frame with what was found in it; `None` at the end.
    pub fn next_result(&mut self) -> Option<Result<(&Frame, &ResultPacket), SessionError>> {
        let Session { pipeline, feed, crop, frame, packet } = self;
        let result = next_into(pipeline, feed, crop, frame, packet)?;
        Some(result.map(|()| (&self.frame, &self.packet)))
    }

    /// The same into memory of the caller's, which is used again. After an error its content means nothing.
    pub fn next_result_into(
        &mut self,
        frame: &mut Frame,
        packet: &mut ResultPacket,
    ) -> Option<Result<(), SessionError>> {
        next_into(&mut self.pipeline, &mut self.feed, &mut self.crop, frame, packet)
    }

    /// Waits for a frame, or the end, for `time` at most: see [`Feed::ready_within`].
    pub fn ready_within(&self, time: Duration) -> bool {
        self.feed.ready_within(time)
    }

    /// What was found in the next frame; `None` at the end.
    pub fn next_packet(&mut self) -> Option<Result<&ResultPacket, SessionError>> {
        self.next_result().map(|result| result.map(|(_, packet)| packet))
    }

    /// The pipeline.
    pub fn pipeline(&self) -> &Orchestrator {
        &self.pipeline
    }

    /// Ends it: the pipeline, and how many frames were dropped to keep up, where they can be, or what a scanner is at
    /// fault for.
    pub fn finish(self) -> (Orchestrator, Result<Option<u64>, SessionError>) {
        (self.pipeline, self.feed.finish().map_err(SessionError::from))
    }
}

fn next_into(
    pipeline: &mut Orchestrator,
    feed: &mut Feed,
    crop: &mut Cut,
    frame: &mut Frame,
    packet: &mut ResultPacket,
) -> Option<Result<(), SessionError>> {
    Some(match feed.next_frame_into(frame)? {
        Ok(()) => crop.process(pipeline, frame, packet),
        Err(error) => Err(error.into()),
    })
}

pub(crate) fn of_frame(frame: &Frame, error: PipelineError) -> SessionError {
    SessionError::Pipeline {
        frame_id: frame.frame_id,
        source_name: frame.source.clone(),
        error: Box::new(error),
    }
}
