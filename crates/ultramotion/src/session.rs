//! Frames in, packets out.

use std::time::Duration;

use thiserror::Error;
use ultramotion_media::MediaError;
use ultramotion_pipeline::{DeviceChoice, Orchestrator, PipelineError};
use ultramotion_types::{Frame, ResultPacket};

use crate::feed::{Feed, FeedError, Pace, Stop};
use crate::settings::{BuildError, Settings};
use crate::source::{Source, SourceError, default_limit};

/// A source, and the pipeline that its frames go through.
pub struct Session {
    pipeline: Orchestrator,
    feed: Feed,
    frame: Frame,
    packet: ResultPacket,
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
            SessionError::Unreadable(_) => true,
            SessionError::Pipeline { error, .. } => matches!(**error, PipelineError::Frame(_)),
            SessionError::Source(_) | SessionError::Build(_) | SessionError::Feed(_) => false,
        }
    }
}

impl Session {
    /// Everything by name, frames as fast as they are asked for.
    pub fn open(settings: &Settings, device: DeviceChoice, source: &str) -> Result<Self, SessionError> {
        let limit = default_limit(source).unwrap_or(u64::MAX);
        let source = Source::open(source)?;
        let pipeline = settings.build(device)?;
        Session::start(pipeline, source, Pace::AsAsked, limit, Stop::default())
    }

    /// A pipeline and up to `limit` frames of a source; `stop` ends it between two frames.
    ///
    /// For a recording, the program for its first frame is compiled before anything is played: see [`Session::prepare`].
    pub fn start(
        mut pipeline: Orchestrator,
        mut source: Source,
        pace: Pace,
        limit: u64,
        stop: Stop,
    ) -> Result<Self, SessionError> {
        Session::prepare(&mut pipeline, &mut source)?;
        Ok(Session::new(pipeline, Feed::new(source, pace, limit, stop)?))
    }

    /// Compiles for a recording's first frame, so that neither that frame's latency nor the real-time clock pays for it.
    /// What is wrong with the frame is said when its turn comes.
    pub fn prepare(pipeline: &mut Orchestrator, source: &mut Source) -> Result<(), SessionError> {
        let Source::Recorded(source) = source else { return Ok(()) };
        let mut frame = Frame::default();
        if let Some(Ok(())) = source.read_into(&mut frame) {
            match pipeline.prepare(&frame.view()) {
                Ok(()) | Err(PipelineError::Frame(_)) => {}
                Err(error) => return Err(of_frame(&frame, error)),
            }
        }
        Ok(source.rewind()?)
    }

    /// A pipeline and the frames that it gets.
    pub fn new(pipeline: Orchestrator, feed: Feed) -> Self {
        Session { pipeline, feed, frame: Frame::default(), packet: ResultPacket::default() }
    }

    /// The next frame with what was found in it; `None` at the end.
    pub fn next_result(&mut self) -> Option<Result<(&Frame, &ResultPacket), SessionError>> {
        let Session { pipeline, feed, frame, packet } = self;
        let result = next_into(pipeline, feed, frame, packet)?;
        Some(result.map(|()| (&self.frame, &self.packet)))
    }

    /// The same into memory of the caller's, which is used again. After an error its content means nothing.
    pub fn next_result_into(
        &mut self,
        frame: &mut Frame,
        packet: &mut ResultPacket,
    ) -> Option<Result<(), SessionError>> {
        next_into(&mut self.pipeline, &mut self.feed, frame, packet)
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
    frame: &mut Frame,
    packet: &mut ResultPacket,
) -> Option<Result<(), SessionError>> {
    Some(match feed.next_frame_into(frame)? {
        Ok(()) => pipeline.process_into(&frame.view(), packet).map_err(|error| of_frame(frame, error)),
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
