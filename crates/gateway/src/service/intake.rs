//! The stage that takes what the scanner sends.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use ultramotion_igtlink::{Disconnect, RawMessage, RecvError, Timestamp};

use super::{Shared, TICK};
use crate::books::DropReason;
use crate::complaints::Comings;
use crate::receive::{LiveFrame, Received, Receiver};
use crate::send::{GatewayState, Relay};
use crate::supervise::BoxError;

/// A connected scanner without frames for so long is said to be silent.
const SILENT_AFTER: Duration = Duration::from_secs(2);
/// A connection with frames that lasted so long was a good one.
const GOOD_CONNECTION: Duration = Duration::from_secs(10);

impl Shared {
    /// Scanner to mailbox.
    pub(super) fn receive(&self) -> Result<(), BoxError> {
        let max_lag = Duration::from_millis(self.config.stream.max_lag_ms);
        let receiver = Receiver::of(Arc::clone(&self.source), &self.config.source);
        let mut receiver = receiver.without_backlog(max_lag).with_messages(self.config.output.source);
        let relay = Relay::new(&self.config.output);
        let mut last_frame = Instant::now();
        let (mut connected_at, mut frames, mut news) = (Instant::now(), 0u64, true);
        let complaints = &self.source.complaints;
        let mut comings = Comings::new("connections to the scanner");
        while !self.stop.is_set() {
            match receiver.next(TICK) {
                Ok(Received::Frame(mut frame)) => {
                    frame.message.take().iter().for_each(|raw| self.pass(&relay, raw));
                    last_frame = Instant::now();
                    frames += 1;
                    complaints.over("silent");
                    self.put(frame);
                }
                Ok(Received::Poses(raw)) => self.pass(&relay, &raw),
                Ok(Received::Other) => {}
                Ok(Received::Connected { peer, only }) => {
                    if news {
                        comings.say(Instant::now(), format_args!("connected to the scanner at {peer}"));
                    }
                    if only {
                        last_frame = Instant::now();
                        (connected_at, frames) = (last_frame, 0);
                    }
                    if self.status.state() == GatewayState::SourceLost {
                        self.say(GatewayState::Waiting, Timestamp::now());
                    }
                }
                Ok(Received::Disconnected { reason: Disconnect::Shutdown, .. }) => {}
                Ok(Received::Disconnected { was_source: false, reason }) => {
                    complaints.say("peer_gone", format_args!("a peer of source.listen went: {reason}"));
                }
                Ok(Received::Disconnected { reason, .. }) => {
                    // A connection that went well is news again when it ends; one that flutters is not.
                    if frames > 0 && connected_at.elapsed() >= GOOD_CONNECTION {
                        complaints.over("disconnected");
                    }
                    news = complaints.say("disconnected", format_args!("lost the scanner: {reason}"));
                    if !self.source.link.stats().connected {
                        self.say(GatewayState::SourceLost, Timestamp::now());
                    }
                }
                Ok(Received::ConnectFailed(_)) | Err(RecvError::Timeout) => {}
                Err(RecvError::Closed) => break,
            }
            let silence = last_frame.elapsed();
            if silence > SILENT_AFTER
                && self.status.state() != GatewayState::Silent
                && self.source.link.stats().connected
            {
                let seconds = SILENT_AFTER.as_secs();
                self.source.complaints.say(
                    "silent",
                    format_args!("the scanner is connected, but sent no frame for {seconds} s"),
                );
                self.say(GatewayState::Silent, Timestamp::now());
            }
        }
        Ok(())
    }

    /// A message of the source, passed on to clients.
    fn pass(&self, relay: &Relay, raw: &RawMessage) {
        let passed = self.audience.pass(&self.server, relay, raw);
        if let Err(error) = passed {
            let device = raw.header().device_name;
            self.source.complaints.say("relay", format_args!("'{device}' is not passed on: {error}"));
        }
    }

    fn put(&self, frame: LiveFrame) {
        self.queue.fetch_add(1, Relaxed);
        if let Some(pushed_out) = self.waiting.put(frame) {
            self.queue.fetch_sub(1, Relaxed);
            let closed = self.waiting.is_closed();
            pushed_out.ticket.dropped(if closed { DropReason::Shutdown } else { DropReason::Superseded });
        }
    }
}
