//! Frames and poses from a scanner that speaks OpenIGTLink.
//!
//! In come messages, over a [`Link`] that keeps itself connected. Out go [`LiveFrame`]s of one IMAGE device, with the
//! scanner's own timestamp and placement; poses go into a [`PoseBook`], from which they are taken by a frame's time.
//! What cannot be used is named once and counted.
//!
//! ```
//! use std::time::{Duration, Instant, SystemTime};
//! use ultramotion_gateway::config::SourceConfig;
//! use ultramotion_gateway::receive::{Received, Receiver};
//! use ultramotion_igtlink::{Content, Image, Message, Server, ServerConfig, Timestamp};
//!
//! let scanner = Server::start(ServerConfig::listening_on("127.0.0.1:0".parse()?))?;
//! let config = SourceConfig::connecting_to(scanner.local_addrs()[0].to_string());
//! let mut receiver = Receiver::open(&config)?;
//!
//! assert!(scanner.wait_clients(1, Duration::from_secs(5)));
//! let image = Image::grey8(4, 3, vec![7; 12]);
//! let sent = Message::new("Image_Probe".parse()?, Content::Image(image)).at(Timestamp::from_nanos(17, 500));
//! scanner.broadcast(&sent)?;
//! let frame = loop {
//!     match receiver.next(Duration::from_secs(5))? {
//!         Received::Frame(frame) => break frame,
//!         Received::Connected { peer, .. } => println!("connected to {peer}"),
//!         other => println!("{other:?}"),
//!     }
//! };
//! assert_eq!((frame.width(), frame.height(), frame.timestamp), (4, 3, sent.timestamp));
//! frame.ticket.answered();
//! assert_eq!(receiver.books().account().received, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod backlog;
mod frame;
pub mod greeting;
mod link;
mod peers;
pub mod pixels;
pub mod placement;
pub mod poses;
pub mod source_clock;
pub mod tracked_frame;
pub mod validity;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

pub use frame::LiveFrame;
pub(crate) use frame::named_transform;
pub use link::{Link, LinkError, LinkEvent, LinkStats};
pub use poses::{MatchedPose, PoseBook};
use ultramotion_igtlink::{
    ConnectError, Content, DecodeError, DeviceName, Disconnect, Image, Message, RawMessage, RecvError,
    Refusal, StreamError, Timestamp,
};
use ultramotion_types::TimeSource;

use crate::books::{Books, DropReason};
use crate::complaints::Complaints;
use crate::config::SourceConfig;
use crate::receive::greeting::greeting;
use crate::receive::peers::{PeerId, Peers};
use crate::receive::tracked_frame::{TRACKED_FRAME, TrackedFrame, TrackedPose};
use crate::recycle::Recycler;

/// What a [`Receiver`] met.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a box for each frame would be an allocation for each")]
pub enum Received {
    /// A frame to be computed.
    Frame(LiveFrame),
    /// A message with poses, which are in the book now.
    Poses(RawMessage),
    /// A message that is of no use here, or that was rejected or dropped, and counted.
    Other,
    /// The scanner is there, or one of several peers.
    Connected {
        /// Its address.
        peer: SocketAddr,
        /// Whether it is the only one.
        only: bool,
    },
    /// The scanner is gone, or one of several peers.
    Disconnected {
        /// Why.
        reason: Disconnect,
        /// Whether the images were its, or nobody is left.
        was_source: bool,
    },
    /// The scanner cannot be reached.
    ConnectFailed(ConnectError),
}

/// What several stages share about a source.
#[derive(Debug)]
pub struct SourceState {
    /// The connection.
    pub link: Link,
    /// What became of the frames.
    pub books: Arc<Books>,
    /// What is wrong.
    pub complaints: Arc<Complaints>,
    poses: Mutex<PoseBook>,
    /// Images of other devices.
    other_images: AtomicU64,
    /// Messages with poses.
    pose_messages: AtomicU64,
}

impl SourceState {
    /// Starts to connect, or to listen.
    pub fn open(config: &SourceConfig) -> Result<Self, LinkError> {
        let link = Link::open(config)?;
        Ok(SourceState {
            link,
            books: Arc::default(),
            complaints: Arc::default(),
            poses: Mutex::new(
                PoseBook::new(config.pose_tolerance_ms, &config.transforms)
                    .believing_identity(config.identity_is_valid)
                    .keeping(needed_poses(config)),
            ),
            other_images: AtomicU64::new(0),
            pose_messages: AtomicU64::new(0),
        })
    }

    /// The book of poses, for a short look.
    pub fn with_poses<T>(&self, look: impl FnOnce(&mut PoseBook) -> T) -> T {
        // A ring of poses is whole whatever its other user died of.
        look(&mut self.poses.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Names of poses that went because there were too many.
    pub fn poses_evicted(&self) -> u64 {
        self.with_poses(|book| book.evicted())
    }

    /// Images of devices other than the one that is taken.
    pub fn other_images(&self) -> u64 {
        self.other_images.load(Relaxed)
    }

    /// Messages with poses.
    pub fn pose_messages(&self) -> u64 {
        self.pose_messages.load(Relaxed)
    }
}

/// Takes frames and poses from a [`Link`].
#[derive(Debug)]
pub struct Receiver {
    state: Arc<SourceState>,
    config: SourceConfig,
    keeps_messages: bool,
    peers: Peers,
    /// Connections in a row that the scanner ended right after the greeting.
    curt: u32,
    /// What ended the last connection, if a setting may be the cause of it.
    last_end: &'static str,
    pool: Recycler<Vec<u8>>,
    /// The device of the last frame, and its URL.
    device: DeviceName,
    source: Arc<str>,
}

/// Names of the poses that results need: those that are configured, and those that a configured device has by its name.
fn needed_poses(config: &SourceConfig) -> Vec<String> {
    let mut needed = poses::chain_of_device(&config.device).unwrap_or_default();
    needed.extend_from_slice(&config.image_to_tracker);
    needed.extend(config.ask_for.iter().filter(|name| !name.contains('_')).cloned());
    needed
}

/// A connection that a peer ends so early was not to its liking.
const CURT: Duration = Duration::from_secs(2);
/// So many messages without one IMAGE are worth a word.
const UNREAD_WORTH_A_WORD: u64 = 10;

impl Receiver {
    /// Opens a source for a single user.
    pub fn open(config: &SourceConfig) -> Result<Self, LinkError> {
        Ok(Self::of(Arc::new(SourceState::open(config)?), config))
    }

    /// Receives from an open source.
    pub fn of(state: Arc<SourceState>, config: &SourceConfig) -> Self {
        Receiver {
            state,
            config: config.clone(),
            keeps_messages: false,
            peers: Peers::new(DeviceName::truncated(&config.device)),
            curt: 0,
            last_end: "",
            pool: Recycler::default(),
            device: DeviceName::EMPTY,
            source: "".into(),
        }
    }

    /// The same, for one who is not interested in what the scanner had kept before it was connected, if it is older
    /// than this.
    pub fn without_backlog(mut self, max_lag: Duration) -> Self {
        self.peers.max_lag = Some(max_lag);
        self
    }

    /// The same, with each frame's message in it.
    pub fn with_messages(self, keeps_messages: bool) -> Self {
        Receiver { keeps_messages, ..self }
    }

    /// What became of the frames.
    pub fn books(&self) -> &Books {
        &self.state.books
    }

    /// The source.
    pub fn state(&self) -> &Arc<SourceState> {
        &self.state
    }

    /// The next thing that happens, waiting for it at most so long.
    pub fn next(&mut self, timeout: Duration) -> Result<Received, RecvError> {
        let complaints = Arc::clone(&self.state.complaints);
        Ok(match self.state.link.next(timeout)? {
            LinkEvent::Message { client, raw } => self.take(client, raw),
            LinkEvent::Rejected(error) => {
                let kind = error.reason().map_or("rejected", |reason| reason.name());
                complaints.say(kind, format_args!("a message from the scanner was rejected: {error}"));
                Received::Other
            }
            LinkEvent::Connected { client, peer } => {
                complaints.over("connect");
                let only = self.peers.came(client);
                greeting(&self.config).iter().for_each(|message| self.state.link.send(message));
                Received::Connected { peer, only }
            }
            LinkEvent::Disconnected { client, reason } => {
                self.note_curtness(client, reason);
                self.note_repetition(reason);
                let was_source = self.peers.gone(client);
                Received::Disconnected { reason, was_source }
            }
            LinkEvent::ConnectFailed(error) => {
                complaints.say("connect", format_args!("{error}; trying on"));
                Received::ConnectFailed(error)
            }
            LinkEvent::Refused { peer, why } => {
                let why = match why {
                    Refusal::NotAllowed => "it is not in source.allow",
                    Refusal::Full | Refusal::AddressFull => "too many are connected",
                };
                complaints.say("source_refused", format_args!("a connection from {peer} was refused: {why}"));
                Received::Other
            }
        })
    }

    /// A peer that does not know header version 2 ends the connection at the first message of it.
    fn note_curtness(&mut self, peer: PeerId, reason: Disconnect) {
        let by_peer = matches!(reason, Disconnect::PeerClosed | Disconnect::MidMessage | Disconnect::Io(_));
        let greeted = self.config.version == 2 && matches!(self.state.link, Link::Client(..));
        let session = self.peers.session(peer);
        let curt = greeted && by_peer && !session.speaks_version_2 && session.since.elapsed() < CURT;
        self.curt = if curt { self.curt + 1 } else { 0 };
        if self.curt >= 2 {
            self.state.complaints.say(
                "source_version",
                format_args!(
                    "the scanner ends each connection right after our first message, which has header version 2; if it is \
                     older than 2017, set source.version = 1"
                ),
            );
        }
    }

    /// A link that ends twice in a row for a reason that a setting may be the cause of goes on like that.
    fn note_repetition(&mut self, reason: Disconnect) {
        let (kind, advice) = match reason {
            Disconnect::BadHeader(StreamError::TooLarge { body_size, limit }) => (
                "always_too_large",
                format!(
                    "by a message of {} MiB where {} MiB are allowed: set source.max_message_mb",
                    body_size.div_ceil(1 << 20),
                    limit >> 20
                ),
            ),
            Disconnect::BadHeader(_) => (
                "always_bad_header",
                "by what is no OpenIGTLink message: see whether source.connect is the scanner's address"
                    .to_owned(),
            ),
            Disconnect::Idle => (
                "always_idle",
                format!(
                    "since no whole message came for {} s: see source.idle_timeout_s",
                    self.config.idle_timeout_s
                ),
            ),
            _ => ("", String::new()),
        };
        if kind.is_empty() || self.last_end != kind {
            self.last_end = kind;
        } else {
            let problem = format_args!("the connection to the scanner ends again and again, {advice}");
            self.state.complaints.say(kind, problem);
        }
    }

    /// Says what is wrong with a scanner that sends its pictures in a form that is not read.
    fn note_unread(&mut self, peer: PeerId, raw: &RawMessage) {
        let header = raw.header();
        let what = match header.type_name.as_bytes() {
            b"VIDEO" => "compressed pictures",
            b"USMESSAGE" => "pictures in a form of PlusServer's own",
            _ => return,
        };
        let session = self.peers.session(peer);
        session.unread += 1;
        if session.images == 0 && session.unread == UNREAD_WORTH_A_WORD {
            let (kind, device) = (&header.type_name, &header.device_name);
            self.state.complaints.say(
                "unread",
                format_args!(
                    "the scanner sends {kind} of '{device}', {what}, and no IMAGE: add IMAGE to the MessageTypes of its \
                     configuration, or list what it shall send in source.ask_for"
                ),
            );
        }
    }

    /// Whether an image of this device is taken; notes the device.
    fn takes(&mut self, peer: PeerId, device: DeviceName) -> bool {
        let taken = self.peers.takes(peer, device, Instant::now());
        if taken && self.device != device {
            self.device = device;
            self.source = format!("{}/{device}", self.state.link.url()).into();
        } else if !taken {
            self.state.other_images.fetch_add(1, Relaxed);
        }
        taken
    }

    fn take(&mut self, peer: PeerId, raw: RawMessage) -> Received {
        let header = raw.header();
        let is_image = header.type_name == "IMAGE";
        let device = header.device_name;
        let session = self.peers.session(peer);
        session.speaks_version_2 |= header.version.is_extended();
        session.images += u64::from(is_image);
        if is_image && !self.takes(peer, device) {
            let taken = match self.peers.taken() {
                Some(taken) if taken == device => "another connection gives it already".to_owned(),
                Some(taken) => format!("those of '{taken}' are taken, see source.device"),
                None => format!("source.device is '{}'", self.config.device),
            };
            let problem = format_args!("images of '{device}' are left aside: {taken}");
            self.state.complaints.say("other_images", problem);
            return Received::Other;
        }
        match raw.decode() {
            Ok(message) => {
                if let Content::Unknown { bytes, .. } = &message.content
                    && header.type_name == TRACKED_FRAME
                {
                    return self
                        .tracked_frame(peer, &message, bytes)
                        .map_or(Received::Other, Received::Frame);
                }
                if let Content::Image(image) = &message.content {
                    let Some(mut frame) = self.image(peer, device, &message, image) else {
                        return Received::Other;
                    };
                    frame.message = self.keeps_messages.then_some(raw);
                    return Received::Frame(frame);
                }
                if !self.read_poses(|book| book.read(&message)) {
                    self.note_unread(peer, &raw);
                    return Received::Other;
                }
            }
            Err(error) => {
                self.reject(&raw, is_image, &error);
                return Received::Other;
            }
        }
        self.state.pose_messages.fetch_add(1, Relaxed);
        Received::Poses(raw)
    }

    /// Enters poses, and says so if one of them is not believed.
    fn read_poses<T>(&self, read: impl FnOnce(&mut PoseBook) -> T) -> T {
        let (read, doubted, crowded) = self.state.with_poses(|book| {
            let before = book.evicted();
            (read(book), book.take_doubted(), book.evicted() > before)
        });
        if crowded {
            self.state.complaints.say(
                "pose_names",
                format_args!(
                    "too many transforms have names of their own: those that were not heard of for longest are forgotten, \
                     but for those in source.image_to_tracker and source.ask_for"
                ),
            );
        }
        if let Some(name) = doubted {
            self.state.complaints.say(
                "identity",
                format_args!(
                    "'{name}' is the identity, and no metadata says that its tool was seen: it is taken as not seen, see \
                     source.identity_is_valid"
                ),
            );
        }
        read
    }

    /// The frame of a TRACKEDFRAME, whose poses are entered; `None` if it cannot be read, or if there are IMAGE messages.
    fn tracked_frame(&mut self, peer: PeerId, message: &Message<'_>, bytes: &[u8]) -> Option<LiveFrame> {
        let tracked = match TrackedFrame::decode(bytes) {
            Ok(tracked) => tracked,
            Err(error) => {
                self.state.books.receive().dropped(DropReason::Malformed);
                self.state.complaints.say("malformed", format_args!("a message was rejected: {error}"));
                return None;
            }
        };
        self.read_poses(|book| {
            for (name, matrix, status) in tracked.poses.iter().filter_map(TrackedPose::entry) {
                book.enter(name, message.timestamp, matrix, status);
            }
        });
        self.state.pose_messages.fetch_add(1, Relaxed);
        if self.peers.session(peer).images > 0 {
            return None;
        }
        // PlusServer gives it no name, so it is the device that is wanted.
        let names = [message.device_name, DeviceName::truncated(&self.config.device)];
        let device = names.into_iter().find(|name| !name.is_empty());
        let device = device.unwrap_or_else(|| DeviceName::truncated("TrackedFrame"));
        if !self.takes(peer, device) {
            return None;
        }
        let mut frame = self.image(peer, device, message, &tracked.image)?;
        frame.statuses = tracked.statuses();
        Some(frame)
    }

    fn reject(&self, raw: &RawMessage, is_image: bool, error: &DecodeError) {
        let header = raw.header();
        self.state.link.count_rejected(error);
        if is_image {
            self.state.books.receive().dropped(DropReason::Malformed);
        }
        let (kind, device) = (&header.type_name, &header.device_name);
        self.state.complaints.say("malformed", format_args!("a {kind} of '{device}' was rejected: {error}"));
    }

    /// A frame, or `None` if the image cannot be used.
    fn image(
        &mut self,
        peer: PeerId,
        device: DeviceName,
        message: &Message<'_>,
        image: &Image<'_>,
    ) -> Option<LiveFrame> {
        let ticket = self.state.books.receive();
        let mut pixels = self.pool.take();
        let format = match pixels::write_pixels(image, self.config.window, &mut pixels) {
            Ok(format) => format,
            Err(error) => {
                let reason = error.reason();
                ticket.dropped(reason);
                self.state.complaints.say(reason.name(), format_args!("'{device}' sent {error}"));
                return None;
            }
        };
        let (mut timestamp, mut time_source) = (message.timestamp, TimeSource::Source);
        if timestamp == Timestamp::NONE {
            (timestamp, time_source) = (Timestamp::now(), TimeSource::Arrival);
            self.state.complaints.say(
                "unstamped",
                format_args!("images of '{device}' have no timestamp: the time of their arrival is taken"),
            );
        }
        let mut late_by = None;
        if time_source == TimeSource::Source {
            let (session, now) = (self.peers.session(peer), SystemTime::now());
            late_by = session.clock.late_by(timestamp, ticket.arrived(), now);
            if session.backlog.as_mut().is_some_and(|b| b.is_old(timestamp, ticket.arrived(), now)) {
                ticket.dropped(DropReason::Stale);
                self.state.complaints.say(
                    "backlog",
                    format_args!(
                        "frames that the scanner had kept before the connection was made are left out"
                    ),
                );
                return None;
            }
        }
        Some(LiveFrame {
            ticket,
            timestamp,
            time_source,
            late_by,
            device,
            source: Arc::clone(&self.source),
            size: image.size,
            format,
            pixels,
            tracker_from_pixels: None,
            placement: image.placement,
            coordinates: image.coordinates,
            statuses: validity::statuses_of_image(&message.metadata),
            message: None,
            is_renamed: message.metadata.get("FriendlyDeviceName").is_some(),
        })
    }
}
