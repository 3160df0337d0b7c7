//! OpenIGTLink.
mod content;
mod crc;
mod error;
mod framer;
mod header;
mod message;
mod metadata;
mod timestamp;
mod wire;

pub use content::*;
pub use crc::crc64;
pub use error::{DecodeError, EncodeError, ErrorClass, Problem};
pub use framer::{BadHeader, Frame, FrameError, Framer, FramerConfig, RejectCounts, RejectReason};
pub use header::{DeviceName, HEADER_SIZE, Header, HeaderVersion, TypeName};
pub use message::Message;
pub use metadata::{Metadata, MetadataEntry};
pub use timestamp::Timestamp;
pub use wire::{CharacterEncoding, FixedString, NameTooLong, Text};
