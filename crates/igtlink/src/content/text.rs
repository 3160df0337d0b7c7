//! Messages made of words: STATUS, STRING, COMMAND and its reply.

use std::borrow::Cow;

use crate::codes::open_enum;
use crate::content::body::{Body, Wire};
use crate::error::{DecodeError, EncodeError, fits};
use crate::value::{Fields, Value, lossy};
use crate::wire::{CharacterEncoding, FixedString, Reader, Text, Writer};

open_enum! {
    /// How the sender is doing (protocol document, `status.md`).
    StatusCode: u16 {
        /// Not a valid status.
        Invalid = 0,
        /// All well.
        Ok = 1,
        /// An error without a code of its own.
        UnknownError = 2,
        /// Emergency.
        PanicMode = 3,
        /// A file, configuration or device is not there.
        NotFound = 4,
        /// Access denied.
        AccessDenied = 5,
        /// Busy.
        Busy = 6,
        /// Time out, or connection lost.
        TimeOut = 7,
        /// Overflow, or out of reach.
        Overflow = 8,
        /// A checksum did not match.
        ChecksumError = 9,
        /// A configuration is wrong.
        ConfigError = 10,
        /// Not enough memory, storage, or the like.
        ResourceError = 11,
        /// An instruction that is unknown or not implemented.
        IllegalInstruction = 12,
        /// Starting up.
        NotReady = 13,
        /// The device takes no commands.
        ManualMode = 14,
        /// The device is disabled.
        Disabled = 15,
        /// The device is not there.
        NotPresent = 16,
        /// The device's version is not known.
        UnknownVersion = 17,
        /// Hardware failure.
        HardwareFailure = 18,
        /// Exiting, or shutting down.
        ShutDown = 19,
    }
}

/// How the sender is doing, in a number and in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status<'a> {
    /// The protocol's code.
    pub code: StatusCode,
    /// The device's own code.
    pub subcode: i64,
    /// A short name for people, such as `OK`.
    pub name: FixedString<20>,
    /// A sentence for people, without the zero byte that ends it on the wire.
    pub message: Cow<'a, [u8]>,
}

impl<'a> Status<'a> {
    /// All well, with nothing to say.
    pub const OK: Status<'static> = Status {
        code: StatusCode::Ok,
        subcode: 0,
        name: FixedString::from_raw(*b"OK\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
        message: Cow::Borrowed(&[]),
    };

    /// A code with a sentence.
    pub fn new(code: StatusCode, message: &'a str) -> Self {
        let message = Cow::Borrowed(message.as_bytes());
        Self { code, subcode: 0, name: FixedString::EMPTY, message }
    }

    /// The sentence, with a replacement character for what is not UTF-8.
    pub fn message_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.message)
    }

    /// The same status with its own copy of the sentence.
    pub fn into_owned(self) -> Status<'static> {
        Status { message: Cow::Owned(self.message.into_owned()), ..self }
    }
}

impl<'a> Body<'a> for Status<'a> {
    fn decode(_: &'static str, content: &'a [u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("STATUS", content);
        let (code, subcode, name) = (r.u16("code")?.into(), r.u64("subcode")? as i64, r.text("error name")?);
        // The sentence is optional, and its final zero byte is a habit of the reference library
        // that the protocol document does not ask for.
        let rest = r.take_rest();
        let message = Cow::Borrowed(rest.strip_suffix(&[0]).unwrap_or(rest));
        Ok(Self { code, subcode, name, message })
    }
}

impl Wire for Status<'_> {
    fn size(&self) -> Result<usize, EncodeError> {
        Ok(30 + self.message.len() + 1)
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.u16(self.code.into());
        w.u64(self.subcode as u64);
        w.text(&self.name);
        w.bytes(&self.message);
        w.u8(0);
    }

    fn fields(&self, _: usize) -> Fields {
        vec![
            ("code", u16::from(self.code).into()),
            ("meaning", self.code.into()),
            ("subcode", self.subcode.into()),
            ("name", self.name.into()),
            ("message", lossy(&self.message)),
        ]
    }
}

/// STRING is a text of up to 65535 bytes (protocol document, `string.md`).
impl Wire for Text<'_> {
    fn size(&self) -> Result<usize, EncodeError> {
        Ok(4 + fits("STRING", "text", self.bytes.len(), u16::MAX.into())?)
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.u16(self.encoding.0);
        w.u16(self.bytes.len() as u16);
        w.bytes(&self.bytes);
    }

    fn fields(&self, _: usize) -> Fields {
        let text = match self.to_str() {
            Some(text) => ("text", text.into()),
            None => ("bytes", Value::Bytes(self.bytes.to_vec())),
        };
        vec![("encoding", self.encoding.0.into()), text]
    }
}

impl<'a> Body<'a> for Text<'a> {
    fn decode(_: &'static str, content: &'a [u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("STRING", content);
        let encoding = CharacterEncoding(r.u16("encoding")?);
        let len = r.u16("length")?;
        let bytes = Cow::Borrowed(r.bytes("length", len.into())?);
        r.finish(content.len())?;
        Ok(Text { encoding, bytes })
    }
}

/// A command, or the reply to one, usually in XML (protocol document, `command.md`).
///
/// In a reply the id is that of the command, and the name is an error text where it failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command<'a> {
    /// The command's number.
    pub id: u32,
    /// The command's name.
    pub name: FixedString<128>,
    /// The command itself.
    pub text: Text<'a>,
}

impl<'a> Command<'a> {
    /// The same command with its own copy of the text.
    pub fn into_owned(self) -> Command<'static> {
        Command { id: self.id, name: self.name, text: self.text.into_owned() }
    }
}

impl<'a> Body<'a> for Command<'a> {
    fn decode(type_name: &'static str, content: &'a [u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(type_name, content);
        let (id, name) = (r.u32("command id")?, r.text("command name")?);
        let encoding = CharacterEncoding(r.u16("encoding")?);
        let len = r.u32("length")?;
        let bytes = Cow::Borrowed(r.bytes("length", len.into())?);
        r.finish(content.len())?;
        Ok(Self { id, name, text: Text { encoding, bytes } })
    }
}

impl Wire for Command<'_> {
    fn size(&self) -> Result<usize, EncodeError> {
        Ok(138 + fits("COMMAND", "text", self.text.bytes.len(), u32::MAX.into())?)
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.u32(self.id);
        w.text(&self.name);
        w.u16(self.text.encoding.0);
        w.u32(self.text.bytes.len() as u32);
        w.bytes(&self.text.bytes);
    }

    fn fields(&self, _: usize) -> Fields {
        let mut fields = vec![("id", self.id.into()), ("name", self.name.into())];
        fields.extend(self.text.fields(0));
        fields
    }
}
