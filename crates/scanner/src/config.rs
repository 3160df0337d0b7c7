//! What is sent and how, and what goes wrong on purpose.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ultramotion_igtlink::{DEFAULT_PORT, DeviceName, EncodeError, HeaderVersion};
use ultramotion_media::MediaError;

/// Where figures and comings and goings are logged: beside the gateway's own, which are shown unasked.
pub(super) const LOG: &str = "ultramotion_simulator";
/// More clients are turned away.
pub(super) const MAX_CLIENTS: usize = 16;
/// More of one address are turned away.
pub(super) const MAX_CLIENTS_PER_ADDRESS: usize = 8;
/// More connections in a second wait.
pub(super) const MAX_ARRIVALS_PER_S: u32 = 200;
/// More messages of a client in a second wait at its end.
pub(super) const MAX_MESSAGES_PER_S: u32 = 100;
/// A larger message of a client ends its connection.
pub(super) const MAX_MESSAGE_BYTES: u64 = 64 << 10;

/// How a [`Simulator`](super::Simulator) works.
#[derive(Debug, Clone, PartialEq)]
pub struct SimulatorConfig {
    /// Where clients connect; port 0 takes any free one. `127.0.0.1:18944`: nobody outside this machine reaches that.
    pub listen: SocketAddr,
    /// Version 1 for peers of before 2017: without metadata.
    /// Otherwise what a client is raised to once it has spoken it.
    pub header_version: HeaderVersion,
    /// `From_To`, at most 20 bytes: the IMAGE's device name, and the two coordinate systems between which its matrix
    /// is the transform. Where the poses of a frame do not connect them, the matrix has the pixel spacing alone.
    pub image_device: String,
    /// How poses are sent.
    pub poses: PoseMessages,
    /// When frames are sent.
    pub pace: Pace,
    /// What stands in the messages' headers.
    pub timestamps: Timestamps,
    /// Begin again when the source ends.
    pub repeat: bool,
    /// Stop after so many frames.
    pub frames: Option<u64>,
    /// Begin once so many clients are connected.
    pub wait_clients: usize,
    /// Frames that may wait for a client. One more and the newest is skipped for that client.
    pub queue: usize,
    /// What goes wrong.
    pub mischief: Mischief,
}

impl Default for SimulatorConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)),
            header_version: HeaderVersion::V2,
            image_device: "Image_Reference".into(),
            poses: PoseMessages::Transform,
            pace: Pace::Source,
            timestamps: Timestamps::Clock,
            repeat: false,
            frames: None,
            wait_clients: 0,
            queue: 8,
            mischief: Mischief::default(),
        }
    }
}

/// How poses are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoseMessages {
    /// A TRANSFORM for each, after the IMAGE.
    Transform,
    /// One TDATA for all, after the IMAGE.
    TrackingData,
    /// Not at all; the IMAGE keeps its matrix.
    None,
}

/// When frames are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// As far apart as their times in the source.
    Source,
    /// So many a second.
    Hertz(f64),
}

/// What stands in the messages' headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timestamps {
    /// The system clock's time at which the frame was due, as PlusServer does.
    Clock,
    /// The source's own times; a repetition goes on where the last one ended.
    Source,
}

/// What goes wrong on purpose. The same seed spoils the same frames, whoever is connected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mischief {
    /// Decides what goes wrong when.
    pub seed: u64,
    /// Frames are sent up to so much late, evenly spread; their timestamps are not.
    pub jitter_ms: f64,
    /// Share of frames that are left out, with their poses.
    pub drop: f64,
    /// Share of messages in which one bit is turned after the checksum was made.
    pub bad_crc: f64,
    /// Share of messages of which only a part is sent, before the connection ends.
    pub half_message: f64,
    /// When all connections are ended, between two frames.
    pub cuts: Option<Cuts>,
}

impl Default for Mischief {
    /// None.
    fn default() -> Self {
        Self { seed: 0, jitter_ms: 0.0, drop: 0.0, bad_crc: 0.0, half_message: 0.0, cuts: None }
    }
}

/// When all connections are ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cuts {
    /// After this share of frames.
    Share(f64),
    /// Each time that so much time has passed.
    Every(Duration),
}

/// Why there is no simulation.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// The address is in use, or not this machine's.
    #[error("cannot listen on {address}: {source}; choose another address or end the program that has it")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
    /// There can be no thread.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// A setting has no meaning.
    #[error("{setting} = {value} is not possible: {expected}")]
    Setting {
        /// Which.
        setting: &'static str,
        /// Its value.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// The source cannot begin again.
    #[error(transparent)]
    Source(#[from] MediaError),
    /// A frame that no message can carry.
    #[error("frame {frame_id} of {source_name} cannot be sent: {problem}")]
    Encode {
        /// Its number in the source.
        frame_id: u64,
        /// The source.
        source_name: String,
        /// Why.
        problem: EncodeError,
    },
}

impl SimulatorConfig {
    /// Says what has no meaning.
    pub(crate) fn check(&self) -> Result<DeviceName, SimulateError> {
        let wrong =
            |setting, value: String, expected| Err(SimulateError::Setting { setting, value, expected });
        let mischief = &self.mischief;
        let mut shares = vec![
            ("drop", mischief.drop),
            ("bad CRC", mischief.bad_crc),
            ("half message", mischief.half_message),
        ];
        match mischief.cuts {
            Some(Cuts::Share(share)) => shares.push(("disconnect", share)),
            Some(Cuts::Every(interval)) if interval.is_zero() => {
                return wrong("disconnect", "0 s".into(), "give more than 0 seconds");
            }
            _ => {}
        }
        for (setting, share) in shares {
            if !(0.0..=1.0).contains(&share) {
                return wrong(setting, share.to_string(), "give a share from 0 to 1");
            }
        }
        if !(0.0..=60_000.0).contains(&mischief.jitter_ms) {
            return wrong("jitter", format!("{} ms", mischief.jitter_ms), "give 0 to 60000 ms");
        }
        match self.pace {
            Pace::Hertz(rate) if !(0.001..=10_000.0).contains(&rate) => {
                return wrong("rate", format!("{rate} Hz"), "give 0.001 to 10000 frames a second");
            }
            _ => {}
        }
        if self.queue == 0 {
            return wrong("queue", "0".into(), "give at least 1 frame");
        }
        let ends = self.image_device.split_once('_');
        match DeviceName::new(&self.image_device) {
            Ok(name) if ends.is_some_and(|(from, to)| !from.is_empty() && !to.is_empty()) => Ok(name),
            _ => wrong(
                "image device",
                self.image_device.clone(),
                "give From_To in at most 20 bytes, as in Image_Reference",
            ),
        }
    }
}
