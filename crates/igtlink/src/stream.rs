//! Bytes in, messages out: cuts a stream into messages, whatever way the network cut it.
//!
//! The body size is compared with the limit before anything is allocated, and the buffer grows
//! with the bytes that really arrive, so that a claim alone costs no memory. The checksum is
//! verified before a message is handed on. Nothing here reads from a socket.

use std::sync::{Arc, Mutex, PoisonError};

use crate::content::KNOWN_TYPES;
use crate::crc::crc64;
use crate::error::DecodeError;
use crate::header::{HEADER_SIZE, Header};
use crate::message::Message;

/// What to do when bytes that should be a header are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum BadHeader {
    /// Take nothing more from this stream: its position is lost.
    #[default]
    Close,
    /// Look for the next header of a known type with a body that has its checksum.
    Resync,
}

/// How a [`StreamDecoder`] works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecoderConfig {
    /// Largest body that is taken, in bytes. A stream holds one body while it comes in, and up to
    /// four buffers for the next ones: no more than its peer has really sent.
    pub max_body_bytes: u64,
    /// Whether a body must have the checksum in its header. Some senders leave it 0.
    pub check_crc: bool,
    /// What to do after a bad header.
    pub on_bad_header: BadHeader,
}

impl Default for DecoderConfig {
    /// 64 MiB, checksums verified, closed after a bad header.
    fn default() -> Self {
        Self { max_body_bytes: 64 << 20, check_crc: true, on_bad_header: BadHeader::Close }
    }
}

/// Why bytes of a stream were not taken as a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// A header is none: [`DecodeError::Version`] or [`DecodeError::Field`].
    #[error(transparent)]
    Header(DecodeError),
    /// A header announces a larger body than is allowed.
    #[error("header: body size = {body_size}, the limit is {limit}")]
    TooLarge {
        /// What the header says.
        body_size: u64,
        /// The limit set.
        limit: u64,
    },
    /// A body does not have the checksum in its header. The stream goes on behind it.
    #[error("header: crc = {stored:#018x}, but the body's CRC-64 is {computed:#018x}")]
    Crc {
        /// What the header says.
        stored: u64,
        /// What the body has.
        computed: u64,
    },
    /// A header was bad before, and the stream was given up.
    #[error("the stream was given up after a bad header")]
    Closed,
}

/// Why something was rejected, for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum RejectReason {
    /// The header's version is unknown.
    Version,
    /// The header's type name is not printable text.
    TypeName,
    /// The body is larger than allowed.
    TooLarge,
    /// The checksum does not match.
    Crc,
    /// The stream ended inside a message.
    Truncated,
    /// The body contradicts the format or itself.
    Malformed,
}

impl RejectReason {
    /// All reasons, in the order of [`RejectCounts`].
    pub const ALL: [Self; 6] =
        [Self::Version, Self::TypeName, Self::TooLarge, Self::Crc, Self::Truncated, Self::Malformed];

    /// A short name for logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::TypeName => "type_name",
            Self::TooLarge => "too_large",
            Self::Crc => "crc",
            Self::Truncated => "truncated",
            Self::Malformed => "malformed",
        }
    }
}

impl From<&DecodeError> for RejectReason {
    fn from(error: &DecodeError) -> Self {
        match error {
            DecodeError::Short { .. } => Self::Truncated,
            DecodeError::Version { .. } => Self::Version,
            DecodeError::Crc { .. } => Self::Crc,
            DecodeError::Field { part: "header", .. } => Self::TypeName,
            DecodeError::Field { .. } => Self::Malformed,
        }
    }
}

impl StreamError {
    /// Why something was rejected; `None` for [`StreamError::Closed`], which rejects nothing new.
    pub fn reason(&self) -> Option<RejectReason> {
        match self {
            StreamError::Header(error) => Some(error.into()),
            StreamError::TooLarge { .. } => Some(RejectReason::TooLarge),
            StreamError::Crc { .. } => Some(RejectReason::Crc),
            StreamError::Closed => None,
        }
    }
}

/// How often something was rejected, by reason, and how many bytes a resynchronisation skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RejectCounts {
    counts: [u64; RejectReason::ALL.len()],
    /// Bytes passed over while looking for a header.
    pub skipped_bytes: u64,
}

impl RejectCounts {
    /// Counts one rejection.
    pub fn record(&mut self, reason: RejectReason) {
        self.counts[reason as usize] += 1;
    }

    /// Rejections for this reason.
    pub fn get(&self, reason: RejectReason) -> u64 {
        self.counts[reason as usize]
    }

    /// Rejections for all reasons.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Reasons and counts.
    pub fn iter(&self) -> impl Iterator<Item = (RejectReason, u64)> + '_ {
        RejectReason::ALL.into_iter().map(|reason| (reason, self.get(reason)))
    }
}

/// A message as it came from a stream: a header, and a body with the right size and checksum.
///
/// When it is dropped its buffer goes back to the [`StreamDecoder`] that made it.
#[derive(Debug)]
pub struct RawMessage {
    header: Header,
    body: Vec<u8>,
    home: Option<Arc<BufferPool>>,
}

impl RawMessage {
    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The message, borrowing from these bytes.
    pub fn decode(&self) -> Result<Message<'_>, DecodeError> {
        Message::from_parts(&self.header, &self.body)
    }

    /// Bytes of the whole message.
    pub fn wire_len(&self) -> usize {
        HEADER_SIZE + self.body.len()
    }

    /// The message's bytes as they came, to be passed on; replaces what is in `out`.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.header.encode());
        out.extend_from_slice(&self.body);
    }
}

impl Clone for RawMessage {
    fn clone(&self) -> Self {
        Self { header: self.header, body: self.body.clone(), home: None }
    }
}

impl Drop for RawMessage {
    fn drop(&mut self) {
        if let Some(home) = &self.home {
            home.put(std::mem::take(&mut self.body));
        }
    }
}

/// Body buffers between uses, so that a stream of images allocates nothing once it runs.
#[derive(Debug, Default)]
struct BufferPool {
    buffers: Mutex<Vec<Vec<u8>>>,
}

impl BufferPool {
    /// More than these are let go.
    const MAX_BUFFERS: usize = 4;
    /// Smaller buffers are not worth the trouble.
    const MIN_BYTES: usize = 4096;

    fn put(&self, buffer: Vec<u8>) {
        if buffer.capacity() < Self::MIN_BYTES {
            return;
        }
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        if buffers.len() < Self::MAX_BUFFERS {
            buffers.push(buffer);
        }
    }

    /// A buffer that fits without wasting much, or a new one.
    fn take(&self, size: usize) -> Vec<u8> {
        if size < Self::MIN_BYTES {
            return Vec::new();
        }
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting = buffers.iter().position(|b| (size..=size.saturating_mul(4)).contains(&b.capacity()));
        match fitting {
            Some(index) => buffers.swap_remove(index),
            None => {
                // Let an unfitting buffer go, or a change of image size would leave the pool full
                // of buffers that fit nothing.
                buffers.pop();
                Vec::new()
            }
        }
    }
}

/// Cuts a stream of bytes into messages.
///
/// ```
/// use ultramotion_igtlink::{Content, StreamDecoder, DecoderConfig, Message};
/// let bytes = Message::new("Note".parse()?, Content::string("hello")).to_bytes()?;
/// let mut decoder = StreamDecoder::new(DecoderConfig::default());
/// for piece in bytes.chunks(7) {
///     let mut rest = piece;
///     while let Some(raw) = decoder.feed(&mut rest) {
///         assert_eq!(raw?.decode()?.device_name, "Note");
///     }
/// }
/// assert_eq!(decoder.pending_bytes(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct StreamDecoder {
    config: DecoderConfig,
    state: State,
    /// The header as far as it has come.
    head: [u8; HEADER_SIZE],
    head_len: usize,
    /// Initialised bytes for the body; the first `body_len` of them have come.
    body: Vec<u8>,
    body_len: usize,
    counts: RejectCounts,
    pool: Arc<BufferPool>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Collecting a header where one must be.
    Header,
    /// Looking for a header in a stream whose position is lost.
    Scan,
    /// Collecting the body of this header. After a scan its checksum must match in any case.
    Body { header: Header, found_by_scan: bool },
    /// Given up.
    Closed,
}

impl StreamDecoder {
    /// The buffer for a body starts with at most this and doubles as bytes arrive.
    const FIRST_BODY_BYTES: usize = 64 << 10;

    /// A decoder at the start of a stream.
    pub fn new(config: DecoderConfig) -> Self {
        Self {
            config,
            state: State::Header,
            head: [0; HEADER_SIZE],
            head_len: 0,
            body: Vec::new(),
            body_len: 0,
            counts: RejectCounts::default(),
            pool: Arc::default(),
        }
    }

    /// Takes bytes from the front of `input` up to the end of a message, and returns it, or what
    /// is wrong with it. `None` means that `input` is used up: call again with the next bytes.
    ///
    /// After an error with [`BadHeader::Close`] that concerns the header every further call
    /// returns [`StreamError::Closed`]; after any other error simply go on.
    pub fn feed(&mut self, input: &mut &[u8]) -> Option<Result<RawMessage, StreamError>> {
        loop {
            match self.state {
                State::Closed => {
                    *input = &[];
                    return Some(Err(StreamError::Closed));
                }
                State::Header | State::Scan => {
                    if !self.fill_head(input) {
                        return None;
                    }
                    if let Err(error) = self.accept_head() {
                        return Some(Err(error));
                    }
                }
                State::Body { header, found_by_scan } => {
                    // Within the limit, which `accept_head` has compared.
                    let missing = header.body_size as usize - self.body_len;
                    let taken = missing.min(input.len());
                    let (now, later) = input.split_at(taken);
                    self.make_room(taken, header.body_size as usize);
                    self.body[self.body_len..self.body_len + taken].copy_from_slice(now);
                    self.body_len += taken;
                    *input = later;
                    if taken < missing {
                        return None;
                    }
                    return Some(self.complete(header, found_by_scan));
                }
            }
        }
    }

    /// Where the rest of a large body can be read to without a detour through [`StreamDecoder::feed`]:
    /// read into this, say how much came by [`StreamDecoder::advance`], then call `feed`, with no bytes
    /// if there are none yet. Empty unless a body is being collected that misses `least` bytes.
    pub fn body_room(&mut self, least: usize) -> &mut [u8] {
        let State::Body { header, .. } = self.state else { return &mut [] };
        let missing = header.body_size as usize - self.body_len;
        if missing < least.max(1) {
            return &mut [];
        }
        self.make_room(missing.min(Self::FIRST_BODY_BYTES), header.body_size as usize);
        let end = self.body.len().min(header.body_size as usize);
        &mut self.body[self.body_len..end]
    }

    /// Tells that the first `len` bytes of [`StreamDecoder::body_room`] were filled.
    ///
    /// # Panics
    /// If that is more than there was room for.
    pub fn advance(&mut self, len: usize) {
        assert!(self.body_len + len <= self.body.len(), "no more bytes than there was room for");
        self.body_len += len;
    }

    /// Whether bytes of an unfinished message are held.
    pub fn pending_bytes(&self) -> usize {
        match self.state {
            State::Header => self.head_len,
            State::Body { .. } => HEADER_SIZE + self.body_len,
            State::Scan | State::Closed => 0,
        }
    }

    /// Tells that the stream has ended: an unfinished message is counted as truncated and
    /// forgotten. Returns whether there was one.
    pub fn end(&mut self) -> bool {
        let unfinished = self.pending_bytes() > 0;
        if unfinished {
            self.counts.record(RejectReason::Truncated);
        }
        self.restart(State::Header);
        unfinished
    }

    /// Whether the stream was given up after a bad header.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// What was rejected so far.
    pub fn counts(&self) -> &RejectCounts {
        &self.counts
    }

    fn restart(&mut self, state: State) {
        self.state = state;
        self.head_len = 0;
        self.body_len = 0;
    }

    /// Whether the header is complete now.
    fn fill_head(&mut self, input: &mut &[u8]) -> bool {
        let taken = (HEADER_SIZE - self.head_len).min(input.len());
        let (now, later) = input.split_at(taken);
        self.head[self.head_len..self.head_len + taken].copy_from_slice(now);
        self.head_len += taken;
        *input = later;
        self.head_len == HEADER_SIZE
    }

    /// Judges a complete header, and goes on to its body or, while scanning, to the next place
    /// where a header may begin.
    fn accept_head(&mut self) -> Result<(), StreamError> {
        let scanning = matches!(self.state, State::Scan);
        let judged = Header::decode(&self.head).map_err(StreamError::Header).and_then(|header| {
            let (body_size, limit) = (header.body_size, self.config.max_body_bytes.min(isize::MAX as u64));
            if body_size > limit { Err(StreamError::TooLarge { body_size, limit }) } else { Ok(header) }
        });
        match judged {
            Ok(header) if !scanning || may_begin_header(&self.head) => {
                self.body = self.pool.take(header.body_size as usize);
                self.restart(State::Body { header, found_by_scan: scanning });
                Ok(())
            }
            Err(error) if !scanning => {
                error.reason().into_iter().for_each(|reason| self.counts.record(reason));
                match self.config.on_bad_header {
                    BadHeader::Close => self.restart(State::Closed),
                    BadHeader::Resync => {
                        self.state = State::Scan;
                        self.skip_to_candidate();
                    }
                }
                Err(error)
            }
            _ => {
                self.skip_to_candidate();
                Ok(())
            }
        }
    }

    /// Drops bytes from the front of the header, at least one, until what is left may begin one.
    fn skip_to_candidate(&mut self) {
        let skip = (1..HEADER_SIZE).find(|&at| may_begin_header(&self.head[at..])).unwrap_or(HEADER_SIZE);
        self.head.copy_within(skip.., 0);
        self.head_len = HEADER_SIZE - skip;
        self.counts.skipped_bytes += skip as u64;
    }

    /// Makes the body buffer hold `more` bytes after those that have come.
    fn make_room(&mut self, more: usize, body_size: usize) {
        let needed = self.body_len + more;
        if self.body.len() >= needed {
            return;
        }
        // Memory that a recycled buffer already has costs nothing to use.
        let target = needed.max(self.body_len * 2).max(Self::FIRST_BODY_BYTES).max(self.body.capacity());
        let target = target.min(body_size);
        // Exactly, so that not even a growing buffer has more than the limit.
        self.body.reserve_exact(target - self.body.len());
        self.body.resize(target, 0);
    }

    fn complete(&mut self, header: Header, found_by_scan: bool) -> Result<RawMessage, StreamError> {
        let mut body = std::mem::take(&mut self.body);
        body.truncate(self.body_len);
        let raw = RawMessage { header, body, home: Some(Arc::clone(&self.pool)) };
        if self.config.check_crc || found_by_scan {
            let computed = crc64(&raw.body);
            if computed != header.crc {
                let state = if found_by_scan { State::Scan } else { State::Header };
                self.restart(state);
                self.counts.record(RejectReason::Crc);
                return Err(StreamError::Crc { stored: header.crc, computed });
            }
        }
        self.restart(State::Header);
        Ok(raw)
    }
}

/// Whether a header of a known type may begin with these bytes: a version, then a type name that
/// is followed by zeros. Stricter than [`Header::decode`], since in the middle of pixels many
/// things look like a header of some type.
fn may_begin_header(bytes: &[u8]) -> bool {
    let version = match bytes {
        [] => true,
        [high] => *high == 0,
        [high, low, ..] => *high == 0 && (1..=3).contains(low),
    };
    let type_name = bytes.get(2..bytes.len().min(14)).unwrap_or_default();
    version && (type_name.is_empty() || may_begin_type_name(type_name))
}

fn may_begin_type_name(bytes: &[u8]) -> bool {
    let begins = |name: &[u8]| {
        let text = name.len().min(bytes.len());
        bytes[..text] == name[..text] && bytes[text..].iter().all(|&b| b == 0)
    };
    let query = [&b"GET_"[..], b"STT_", b"STP_", b"RTS_"].into_iter().any(|prefix| {
        let text = prefix.len().min(bytes.len());
        let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
        bytes[..text] == prefix[..text]
            && bytes[..end].iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b'_')
            && bytes[end..].iter().all(|&b| b == 0)
    });
    query || KNOWN_TYPES.iter().any(|name| begins(name.as_bytes()))
}
