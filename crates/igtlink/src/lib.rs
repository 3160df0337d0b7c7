//! OpenIGTLink versions 1 to 3: a codec without I/O, a stream decoder, a client and a server.
//!
//! OpenIGTLink carries images, poses, contours and words between the devices of image-guided
//! therapy: scanners ([PLUS](https://plustoolkit.github.io)), trackers, robots, and navigation such
//! as [3D Slicer](https://slicer.org). This crate is written after the
//! [protocol documents](https://github.com/openigtlink/OpenIGTLink/tree/master/Documents/Protocol),
//! and holds the reference library's own test messages, byte for byte.
//!
//! # The rooms
//! - [`Message`] and [`Content`]: bytes in, typed values out, and back. Pixels, texts and other
//!   blocks are borrowed from the bytes; encoding writes into a buffer of the caller's.
//! - [`StreamDecoder`]: a stream in, [`RawMessage`]s out, whatever way the network cut it. What a peer claims
//!   never decides how much memory is used.
//! - [`Value`]: what a message says as a tree of named values, to be shown or, with the feature
//!   `serde`, serialised.
//! - [`net`]: [`Client`] and [`Server`] on threads, with bounded queues.
//!
//! Bytes from outside never panic: what is wrong with them comes back as a small error that names
//! the field and its value ([`DecodeError`]).
//!
//! # Sending
//! ```
//! use ultramotion_igtlink::{Content, Image, Message, Timestamp};
//!
//! let pixels = vec![0u8; 640 * 480];
//! let mut message = Message::new("Image_Reference".parse()?, Content::Image(Image::grey8(640, 480, &pixels)))
//!     .at(Timestamp::from_nanos(1_700_000_000, 40_000_000));
//! message.metadata.push("Depth", "50 mm");
//!
//! let mut buffer = Vec::new(); // used again for the next message
//! message.encode_into(&mut buffer)?;
//! # assert_eq!(buffer.len(), 58 + 12 + 72 + 640 * 480 + 2 + 8 + 10);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Receiving
//! ```
//! use ultramotion_igtlink::{Content, DecodeError, Message};
//!
//! # let bytes = Message::new("ProbeToTracker".parse()?, Content::string("hello")).to_bytes()?;
//! match Message::decode(&bytes) {
//!     Ok(message) => match message.content {
//!         Content::Image(image) => println!("{} x {}", image.size[0], image.size[1]),
//!         Content::Transform(pose) => println!("{} at {:?}", message.device_name, pose.translation),
//!         other => println!("{} from {}", other.type_name(), message.device_name),
//!     },
//!     Err(DecodeError::Short { needed, have }) => println!("{} bytes are still to come", needed - have),
//!     Err(error) => println!("not a message: {error}"),
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is lenient, and what is not
//! Reserved fields, unknown status codes, tool kinds and message types are kept as they are.
//! A body must have exactly the size that its fields say, and its checksum unless
//! [`DecoderConfig::check_crc`] is off. Where the protocol documents and the reference library
//! differ, the type's documentation says which of the two it follows.

#![forbid(unsafe_code)]

mod codes;
mod content;
mod crc;
mod error;
mod header;
mod message;
mod metadata;
pub mod net;
#[cfg(feature = "serde")]
mod serialise;
mod stream;
mod timestamp;
mod value;
mod wire;

pub use content::*;
pub use crc::crc64;
pub use error::{DecodeError, EncodeError, ErrorClass, Problem};
pub use header::{DeviceName, HEADER_SIZE, Header, HeaderVersion, TypeName};
pub use message::Message;
pub use metadata::{Metadata, MetadataEntry};
pub use net::*;
pub use stream::{
    BadHeader, DecoderConfig, RawMessage, RejectCounts, RejectReason, StreamDecoder, StreamError,
};
pub use timestamp::Timestamp;
pub use value::{Fields, Numbers, Value};
pub use wire::{CharacterEncoding, Endian, FixedString, NameTooLong, Text};

/// Keeps the examples of the README running.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
