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
//!         Received::Connected { peer } => println!("connected to {peer}"),
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
pub mod pixels;
pub mod placement;
pub mod poses;
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
    Timestamp,
};
use ultramotion_types::TimeSource;

use crate::books::{Books, DropReason};
use crate::complaints::Complaints;
use crate::config::SourceConfig;
use crate::receive::backlog::Backlog;
use crate::receive::greeting::greeting;
use crate::receive::tracked_frame::{TRACKED_FRAME, TrackedFrame, TrackedPose};
use crate::recycle::Recycler;

/// What a [`Receiver`] met.
#[derive(Debug)]
pub enum Received {
    /// A frame to be computed.
    Frame(LiveFrame),
    /// A message with poses, which are in the book now.
    Poses(RawMessage),
    /// A message that is of no use here, or that was rejected or dropped, and counted.
    Other,
    /// The scanner is there.
    Connected {
        /// Its address.
        peer: SocketAddr,
    },
    /// The scanner is gone.
    Disconnected {
        /// Why.
        reason: Disconnect,
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
    /// The device that is taken; empty until one is.
    device: Mutex<DeviceName>,
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
                    .believing_identity(config.identity_is_valid),
            ),
            other_images: AtomicU64::new(0),
            pose_messages: AtomicU64::new(0),
            device: Mutex::new(DeviceName::truncated(&config.device)),
        })
    }

    /// The book of poses, for a short look.
    pub fn with_poses<T>(&self, look: impl FnOnce(&mut PoseBook) -> T) -> T {
        // A ring of poses is whole whatever its other user died of.
        look(&mut self.poses.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Images of devices other than the one that is taken.
    pub fn other_images(&self) -> u64 {
        self.other_images.load(Relaxed)
    }

    /// Messages with poses.
    pub fn pose_messages(&self) -> u64 {
        self.pose_messages.load(Relaxed)
    }

    /// The IMAGE device that is taken; empty until the first was seen.
    pub fn device(&self) -> DeviceName {
        *self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether images of this device are taken. The first one seen on a connection is, unless one is configured.
    fn takes(&self, device: DeviceName) -> bool {
        let mut taken = self.device.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.is_empty() {
            *taken = device;
        }
        *taken == device
    }
}

/// Takes frames and poses from a [`Link`].
#[derive(Debug)]
pub struct Receiver {
    state: Arc<SourceState>,
    config: SourceConfig,
    backlog: Option<Backlog>,
    keeps_messages: bool,
    session: Session,
    /// Connections in a row that the scanner ended right after the greeting.
    curt: u32,
    pool: Recycler<Vec<u8>>,
    source: Arc<str>,
}

/// What is noted of a connection.
#[derive(Debug)]
struct Session {
    since: Instant,
    /// Whether a message of header version 2 came.
    speaks_version_2: bool,
    images: u64,
    /// Messages with pictures in a form that is not read.
    unread: u64,
}

impl Session {
    /// A connection that a peer ends so early was not to its liking.
    const SHORT: Duration = Duration::from_secs(2);
    /// So many messages without one IMAGE are worth a word.
    const UNREAD_WORTH_A_WORD: u64 = 10;

    fn new() -> Self {
        Session { since: Instant::now(), speaks_version_2: false, images: 0, unread: 0 }
    }
}

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
            backlog: None,
            keeps_messages: false,
            session: Session::new(),
            curt: 0,
            pool: Recycler::default(),
            source: "".into(),
        }
    }

    /// The same, for one who is not interested in what the scanner had kept before it was connected, if it is older
    /// than this.
    pub fn without_backlog(self, max_lag: Duration) -> Self {
        Receiver { backlog: Some(Backlog::new(max_lag)), ..self }
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
            LinkEvent::Message(raw) => self.take(raw),
            LinkEvent::Rejected(error) => {
                let kind = error.reason().map_or("rejected", |reason| reason.name());
                complaints.say(kind, format_args!("a message from the scanner was rejected: {error}"));
                Received::Other
            }
            LinkEvent::Connected { peer } => {
                complaints.over("connect");
                self.forget_device();
                self.session = Session::new();
                self.backlog.iter_mut().for_each(Backlog::restart);
                greeting(&self.config).iter().for_each(|message| self.state.link.send(message));
                Received::Connected { peer }
            }
            LinkEvent::Disconnected { reason } => {
                self.note_curtness(reason);
                Received::Disconnected { reason }
            }
            LinkEvent::ConnectFailed(error) => {
                complaints.say("connect", format_args!("{error}; trying on"));
                Received::ConnectFailed(error)
            }
            LinkEvent::Refused { peer } => {
                complaints.say("source_refused", format_args!("a connection from {peer} was refused"));
                Received::Other
            }
        })
    }

    /// A peer that does not know header version 2 ends the connection at the first message of it.
    fn note_curtness(&mut self, reason: Disconnect) {
        let by_peer = matches!(reason, Disconnect::PeerClosed | Disconnect::MidMessage | Disconnect::Io(_));
        let greeted = self.config.version == 2 && matches!(self.state.link, Link::Client(..));
        let curt = greeted && by_peer && !self.session.speaks_version_2;
        self.curt = if curt && self.session.since.elapsed() < Session::SHORT { self.curt + 1 } else { 0 };
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

    /// Says what is wrong with a scanner that sends its pictures in a form that is not read.
    fn note_unread(&mut self, raw: &RawMessage) {
        let header = raw.header();
        let what = match header.type_name.as_bytes() {
            b"VIDEO" => "compressed pictures",
            b"USMESSAGE" => "pictures in a form of PlusServer's own",
            _ => return,
        };
        self.session.unread += 1;
        if self.session.images == 0 && self.session.unread == Session::UNREAD_WORTH_A_WORD {
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

    /// A scanner that comes back may have another device to give, unless one is configured. Where several can connect,
    /// the first one's stays.
    fn forget_device(&mut self) {
        if self.config.device.is_empty() && matches!(self.state.link, Link::Client(..)) {
            *self.state.device.lock().unwrap_or_else(PoisonError::into_inner) = DeviceName::EMPTY;
            self.source = "".into();
        }
    }

    fn take(&mut self, raw: RawMessage) -> Received {
        let header = raw.header();
        let is_image = header.type_name == "IMAGE";
        let device = header.device_name;
        self.session.speaks_version_2 |= header.version.is_extended();
        self.session.images += u64::from(is_image);
        if is_image && !self.state.takes(device) {
            self.state.other_images.fetch_add(1, Relaxed);
            let taken = self.state.device();
            self.state.complaints.say(
                "other_images",
                format_args!(
                    "images of '{device}' are left aside: those of '{taken}' are taken, see source.device"
                ),
            );
            return Received::Other;
        }
        match raw.decode() {
            Ok(message) => {
                if let Content::Unknown { bytes, .. } = &message.content
                    && header.type_name == TRACKED_FRAME
                {
                    return self.tracked_frame(&message, bytes).map_or(Received::Other, Received::Frame);
                }
                if let Content::Image(image) = &message.content {
                    let Some(mut frame) = self.image(device, &message, image) else { return Received::Other };
                    frame.message = self.keeps_messages.then_some(raw);
                    return Received::Frame(frame);
                }
                if !self.read_poses(|book| book.read(&message)) {
                    self.note_unread(&raw);
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
        let (read, doubted) = self.state.with_poses(|book| (read(book), book.take_doubted()));
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
    fn tracked_frame(&mut self, message: &Message<'_>, bytes: &[u8]) -> Option<LiveFrame> {
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
        if self.session.images > 0 {
            return None;
        }
        // PlusServer gives it no name, so it is the device that is wanted.
        let names = [message.device_name, DeviceName::truncated(&self.config.device)];
        let device = names.into_iter().find(|name| !name.is_empty());
        let device = device.unwrap_or_else(|| DeviceName::truncated("TrackedFrame"));
        if !self.state.takes(device) {
            self.state.other_images.fetch_add(1, Relaxed);
            return None;
        }
        let mut frame = self.image(device, message, &tracked.image)?;
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
    fn image(&mut self, device: DeviceName, message: &Message<'_>, image: &Image<'_>) -> Option<LiveFrame> {
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
        if self.source.is_empty() {
            self.source = format!("{}/{}", self.state.link.url(), device).into();
        }
        let (mut timestamp, mut time_source) = (message.timestamp, TimeSource::Source);
        if timestamp == Timestamp::NONE {
            (timestamp, time_source) = (Timestamp::now(), TimeSource::Arrival);
            self.state.complaints.say(
                "unstamped",
                format_args!("images of '{device}' have no timestamp: the time of their arrival is taken"),
            );
        } else if let Some(backlog) = &mut self.backlog
            && backlog.is_old(timestamp, ticket.arrived(), SystemTime::now())
        {
            ticket.dropped(DropReason::Stale);
            self.state.complaints.say(
                "backlog",
                format_args!("frames that the scanner had kept before the connection was made are left out"),
            );
            return None;
        }
        Some(LiveFrame {
            ticket,
            timestamp,
            time_source,
            device,
            source: Arc::clone(&self.source),
            size: image.size,
            format,
            pixels,
            placement: image.placement,
            coordinates: image.coordinates,
            statuses: validity::statuses_of_image(&message.metadata),
            message: None,
            is_renamed: message.metadata.get("FriendlyDeviceName").is_some(),
        })
    }
}
