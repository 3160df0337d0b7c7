//! Questions and their bare answers: GET_, STT_, STP_ and RTS_ messages.

use std::borrow::Cow;

use crate::content::bind::{NameTable, name_table_size, write_name_table};
use crate::content::body::Wire;
use crate::error::{DecodeError, EncodeError, Problem, fits};
use crate::header::TypeName;
use crate::timestamp::Timestamp;
use crate::value::{Fields, Value, lossy};
use crate::wire::{FixedString, Reader, Writer};

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// `GET_`: send one message.
    Get,
    /// `STT_`: start sending.
    Start,
    /// `STP_`: stop sending.
    Stop,
    /// `RTS_`: the answer to one of these.
    ReturnStatus,
}

impl Verb {
    const ALL: [Verb; 4] = [Verb::Get, Verb::Start, Verb::Stop, Verb::ReturnStatus];

    /// The prefix in the type name.
    pub const fn prefix(self) -> &'static str {
        match self {
            Verb::Get => "GET_",
            Verb::Start => "STT_",
            Verb::Stop => "STP_",
            Verb::ReturnStatus => "RTS_",
        }
    }
}

/// A query, or the answer to one (protocol document, `query.md`).
///
/// ```
/// use ultramotion_igtlink::{Content, Query, Verb};
/// let query = Query::new(Verb::Get, "CAPABIL")?;
/// assert_eq!(Content::Query(query).type_name(), "GET_CAPABIL");
/// # Ok::<(), ultramotion_igtlink::NameTooLong>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Query<'a> {
    /// What is asked.
    pub verb: Verb,
    /// Of which type, without the prefix, shortened as the standard has it: `IMAGE`, `TRANS`, `CAPABIL`.
    pub target: FixedString<8>,
    /// What else the body says.
    pub parameters: Parameters<'a>,
}

/// The body of a query.
#[derive(Debug, Clone, PartialEq)]
pub enum Parameters<'a> {
    /// An empty body.
    None,
    /// RTS_: 0 for success, 1 for error.
    Status(u8),
    /// STT_ of most types: the shortest interval between messages, in the form of a timestamp.
    Interval(Timestamp),
    /// STT_TDATA and STT_QTDATA.
    Tracking {
        /// Shortest interval between messages; 0 for as fast as possible.
        resolution_ms: i32,
        /// Coordinate system that the poses shall be in; empty for the server's own.
        coordinate_name: FixedString<32>,
    },
    /// STT_VIDEO.
    Video {
        /// Four-character code of the codec asked for.
        codec: [u8; 4],
        /// Shortest interval between frames; 0 for as fast as possible.
        interval_ms: u32,
        /// The ninth byte, which some versions of the reference library send.
        use_compression: Option<u8>,
    },
    /// GET_BIND and STT_BIND: which messages to bind.
    Bind {
        /// STT_BIND: the shortest interval between messages.
        interval: Option<Timestamp>,
        /// Type and device name of each.
        children: Vec<(TypeName, Cow<'a, [u8]>)>,
    },
    /// Something else.
    Other(Cow<'a, [u8]>),
}

/// Splits a type name into verb and target.
pub(crate) fn split_type_name(type_name: &TypeName) -> Option<(Verb, FixedString<8>)> {
    let name = type_name.as_bytes();
    let verb = Verb::ALL.into_iter().find(|verb| name.starts_with(verb.prefix().as_bytes()))?;
    Some((verb, FixedString::from_bytes(&name[4..]).ok()?))
}

impl<'a> Query<'a> {
    /// A query without parameters.
    pub fn new(verb: Verb, target: &str) -> Result<Self, crate::NameTooLong> {
        Ok(Self { verb, target: target.parse()?, parameters: Parameters::None })
    }

    /// The answer to a query for `target`.
    pub fn answer(target: FixedString<8>, success: bool) -> Self {
        Self { verb: Verb::ReturnStatus, target, parameters: Parameters::Status(u8::from(!success)) }
    }

    /// The type name: prefix and target.
    pub fn type_name(&self) -> TypeName {
        let mut raw = [0; 12];
        raw[..4].copy_from_slice(self.verb.prefix().as_bytes());
        raw[4..].copy_from_slice(self.target.raw());
        TypeName::from_raw(raw)
    }

    /// The same query with its own copy of the bytes.
    pub fn into_owned(self) -> Query<'static> {
        let own = |bytes: Cow<'_, [u8]>| Cow::Owned(bytes.into_owned());
        let parameters = match self.parameters {
            Parameters::None => Parameters::None,
            Parameters::Status(status) => Parameters::Status(status),
            Parameters::Interval(interval) => Parameters::Interval(interval),
            Parameters::Tracking { resolution_ms, coordinate_name } => {
                Parameters::Tracking { resolution_ms, coordinate_name }
            }
            Parameters::Video { codec, interval_ms, use_compression } => {
                Parameters::Video { codec, interval_ms, use_compression }
            }
            Parameters::Bind { interval, children } => Parameters::Bind {
                interval,
                children: children.into_iter().map(|(type_name, name)| (type_name, own(name))).collect(),
            },
            Parameters::Other(bytes) => Parameters::Other(own(bytes)),
        };
        Query { verb: self.verb, target: self.target, parameters }
    }

    pub(crate) fn decode(verb: Verb, target: FixedString<8>, content: &'a [u8]) -> Result<Self, DecodeError> {
        let parameters = match (verb, target.as_bytes(), content.len()) {
            (_, _, 0) => Parameters::None,
            (Verb::ReturnStatus, _, 1) => Parameters::Status(content[0]),
            (Verb::Start, b"TDATA" | b"QTDATA", _) => {
                let mut r = Reader::new("STT_TDATA", content);
                let resolution_ms = r.u32("resolution")? as i32;
                let coordinate_name = r.text("coordinate name")?;
                r.finish(content.len())?;
                Parameters::Tracking { resolution_ms, coordinate_name }
            }
            (Verb::Start, b"VIDEO", _) => {
                let mut r = Reader::new("STT_VIDEO", content);
                let (codec, interval_ms) = (r.array("codec")?, r.u32("time interval")?);
                let use_compression = if r.remaining() > 0 { Some(r.u8("use compression")?) } else { None };
                r.finish(content.len())?;
                Parameters::Video { codec, interval_ms, use_compression }
            }
            (Verb::Get, b"BIND", _) => decode_bind("GET_BIND", content, false)?,
            // `bind.md` has the interval or the list, the reference library has the interval
            // and then the list.
            (Verb::Start, b"BIND", n) if n != 8 => decode_bind("STT_BIND", content, true)?,
            (Verb::Start, _, 8) => {
                Parameters::Interval(Timestamp::from_bits(Reader::new("STT_", content).u64("resolution")?))
            }
            _ => Parameters::Other(Cow::Borrowed(content)),
        };
        Ok(Self { verb, target, parameters })
    }
}

fn decode_bind<'a>(
    part: &'static str,
    content: &'a [u8],
    timed: bool,
) -> Result<Parameters<'a>, DecodeError> {
    let mut r = Reader::new(part, content);
    let interval = if timed { Some(Timestamp::from_bits(r.u64("resolution")?)) } else { None };
    let count = r.u16("children")?;
    if usize::from(count) * 12 > r.remaining() {
        return Err(r.error("children", count.into(), Problem::Exceeds(r.remaining() as u64 / 12)));
    }
    let mut types = Reader::new(part, r.bytes("children", u64::from(count) * 12)?);
    let mut names = NameTable::read(&mut r)?;
    let mut children = Vec::with_capacity(count.into());
    for _ in 0..count {
        children.push((types.text("child type")?, Cow::Borrowed(names.next()?)));
    }
    names.finish()?;
    r.finish(content.len())?;
    Ok(Parameters::Bind { interval, children })
}

impl Wire for Query<'_> {
    fn size(&self) -> Result<usize, EncodeError> {
        Ok(match &self.parameters {
            Parameters::None => 0,
            Parameters::Status(_) => 1,
            Parameters::Interval(_) => 8,
            Parameters::Tracking { .. } => 36,
            Parameters::Video { use_compression, .. } => 8 + usize::from(use_compression.is_some()),
            Parameters::Bind { interval, children } => {
                let count = fits("GET_BIND", "children", children.len(), u16::MAX.into())?;
                let names = name_table_size(children.iter().map(|(_, name)| &**name))?;
                8 * usize::from(interval.is_some()) + 2 + 12 * count + 2 + names
            }
            Parameters::Other(bytes) => bytes.len(),
        })
    }

    fn write(&self, w: &mut Writer<'_>) {
        match &self.parameters {
            Parameters::None => {}
            Parameters::Status(status) => w.u8(*status),
            Parameters::Interval(interval) => w.u64(interval.to_bits()),
            Parameters::Tracking { resolution_ms, coordinate_name } => {
                w.u32(*resolution_ms as u32);
                w.text(coordinate_name);
            }
            Parameters::Video { codec, interval_ms, use_compression } => {
                w.bytes(codec);
                w.u32(*interval_ms);
                use_compression.iter().for_each(|&byte| w.u8(byte));
            }
            Parameters::Bind { interval, children } => {
                interval.iter().for_each(|interval| w.u64(interval.to_bits()));
                w.u16(children.len() as u16);
                children.iter().for_each(|(type_name, _)| w.text(type_name));
                write_name_table(children.iter().map(|(_, name)| &**name), w);
            }
            Parameters::Other(bytes) => w.bytes(bytes),
        }
    }

    fn fields(&self, _: usize) -> Fields {
        let mut fields = vec![("verb", format!("{:?}", self.verb).into()), ("target", self.target.into())];
        match &self.parameters {
            Parameters::None => {}
            Parameters::Status(status) => fields.push(("status", (*status).into())),
            Parameters::Interval(interval) => fields.push(("interval_s", (*interval).into())),
            Parameters::Tracking { resolution_ms, coordinate_name } => {
                fields.push(("resolution_ms", (*resolution_ms).into()));
                fields.push(("coordinate_name", (*coordinate_name).into()));
            }
            Parameters::Video { codec, interval_ms, use_compression } => {
                fields.extend([("codec", lossy(codec)), ("interval_ms", (*interval_ms).into())]);
                fields.extend(use_compression.map(|byte| ("use_compression", byte.into())));
            }
            Parameters::Bind { interval, children } => {
                fields.extend(interval.map(|interval| ("interval_s", interval.into())));
                let child = |(type_name, device): &(TypeName, Cow<'_, [u8]>)| {
                    vec![("type", (*type_name).into()), ("device_name", lossy(device))]
                };
                fields.push(("messages", children.iter().map(child).collect()));
            }
            Parameters::Other(bytes) => fields.push(("bytes", Value::Bytes(bytes.to_vec()))),
        }
        fields
    }
}
