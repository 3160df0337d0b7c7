//! STATUS: how the gateway is doing, said when it changes and to everyone who comes.

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use ultramotion_igtlink::{
    Content, DeviceName, FixedString, HeaderVersion, Message, Status, StatusCode, Timestamp,
};

/// How the gateway is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GatewayState {
    /// No frame came yet since the start, or since the scanner came back.
    #[default]
    Waiting,
    /// The scanner is there, but no frame comes.
    Silent,
    /// The scanner is gone.
    SourceLost,
    /// The pipeline died and is built again.
    Rebuilding,
    /// Frames come; the structures are `VISIBLE`, `RELOCALIZING` or `LOST`.
    Scene(&'static str),
    /// The same, but a tool that places the images was not seen.
    Unplaced(&'static str),
    /// The service ends.
    ShuttingDown,
}

impl GatewayState {
    /// All words for it.
    pub const NAMES: [&str; 9] = [
        "WAITING",
        "SILENT",
        "SOURCE_LOST",
        "REBUILDING",
        "VISIBLE",
        "RELOCALIZING",
        "LOST",
        "UNPLACED",
        "SHUTTING_DOWN",
    ];

    /// A word for it.
    pub fn name(self) -> &'static str {
        match self {
            GatewayState::Waiting => "WAITING",
            GatewayState::Silent => "SILENT",
            GatewayState::SourceLost => "SOURCE_LOST",
            GatewayState::Rebuilding => "REBUILDING",
            GatewayState::Scene(name) => name,
            GatewayState::Unplaced(_) => "UNPLACED",
            GatewayState::ShuttingDown => "SHUTTING_DOWN",
        }
    }

    /// The protocol's code, and a sentence.
    fn words(self) -> (StatusCode, &'static str) {
        match self {
            GatewayState::Waiting => (StatusCode::NotReady, "waiting for frames from the scanner"),
            GatewayState::Silent => (StatusCode::TimeOut, "the scanner is connected but sends no frames"),
            GatewayState::SourceLost => (StatusCode::TimeOut, "the connection to the scanner is lost"),
            GatewayState::Rebuilding => {
                (StatusCode::UnknownError, "the pipeline died and is built again; tracks begin anew")
            }
            GatewayState::Scene("VISIBLE") => (StatusCode::Ok, "structures are in sight"),
            GatewayState::Scene("RELOCALIZING") => {
                (StatusCode::Busy, "structures were in sight a moment ago and are looked for")
            }
            GatewayState::Scene(_) => (StatusCode::NotFound, "no structure is in sight"),
            GatewayState::Unplaced(_) => (
                StatusCode::NotPresent,
                "a tool that places the images was not seen: they lie elsewhere than they say, and nothing is sent in the \
                 tracker's frame",
            ),
            GatewayState::ShuttingDown => (StatusCode::ShutDown, "the gateway ends"),
        }
    }
}

/// The state, and the message that says so.
#[derive(Debug)]
pub struct StatusBoard {
    name: DeviceName,
    version: HeaderVersion,
    current: Mutex<(GatewayState, Timestamp)>,
    since: Mutex<Instant>,
}

impl StatusBoard {
    /// A gateway that waits for its scanner.
    pub fn new(name: DeviceName, version: HeaderVersion) -> Self {
        StatusBoard {
            name,
            version,
            current: Mutex::new((GatewayState::Waiting, Timestamp::now())),
            since: Mutex::new(Instant::now()),
        }
    }

    /// Notes the state; true if it is another than before. A scene's state has its frame's timestamp, any other the
    /// system clock's.
    pub fn change(&self, state: GatewayState, at: Timestamp) -> bool {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let allowed = match (current.0, state) {
            // What ends does not come back.
            (GatewayState::ShuttingDown, _) => false,
            // Results of a scanner that is gone do not mean that it is there.
            (GatewayState::SourceLost, next) => {
                matches!(next, GatewayState::Waiting | GatewayState::ShuttingDown)
            }
            _ => true,
        };
        let changed = allowed && current.0 != state;
        if changed {
            *current = (state, at);
            *self.since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
        changed
    }

    /// The state.
    pub fn state(&self) -> GatewayState {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    /// When it came to that state.
    pub fn since(&self) -> Instant {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state and its sentence.
    pub fn words(&self) -> String {
        let state = self.state();
        format!("{}: {}", state.name(), state.words().1)
    }

    /// The message.
    pub fn message(&self) -> Message<'static> {
        let (state, at) = *self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let (code, sentence) = state.words();
        let status = Status {
            code,
            subcode: 0,
            name: FixedString::truncated(state.name()),
            message: Cow::Borrowed(sentence.as_bytes()),
        };
        let mut message = Message::new(self.name, Content::Status(status)).at(at);
        message.version = self.version;
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_source_is_lost_until_it_comes_back() {
        let board = StatusBoard::new(DeviceName::truncated("UM_Status"), HeaderVersion::V2);
        let at = Timestamp::from_nanos(7, 0);
        let scene = GatewayState::Scene("VISIBLE");
        let steps = [
            (GatewayState::Waiting, false),
            (scene, true),
            (scene, false),
            (GatewayState::SourceLost, true),
            (scene, false),
            (GatewayState::Silent, false),
            (GatewayState::Waiting, true),
            (scene, true),
            (GatewayState::ShuttingDown, true),
            (GatewayState::Waiting, false),
        ];
        for (state, changes) in steps {
            assert_eq!(board.change(state, at), changes, "{state:?}");
        }
        let message = board.message();
        let Content::Status(status) = message.content else { panic!("a STATUS") };
        assert_eq!((status.code, status.name.as_str()), (StatusCode::ShutDown, Some("SHUTTING_DOWN")));
    }
}
