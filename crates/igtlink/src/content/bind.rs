//! BIND: several messages in one, so that they arrive together.

use std::borrow::Cow;

use crate::content::Content;
use crate::content::body::{Body, Wire};
use crate::error::{DecodeError, EncodeError, Problem, fits};
use crate::header::TypeName;
use crate::value::{Fields, Value, lossy};
use crate::wire::{Reader, Writer};

/// Bytes of a child in the table: type name and size.
const ENTRY_SIZE: usize = 20;

/// A message inside a BIND: it has no header of its own.
///
/// Its content is decoded on demand, so that a BIND in a BIND in a BIND costs no stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindChild<'a> {
    /// Type of the content.
    pub type_name: TypeName,
    /// The child's device name, without its final zero byte.
    pub device_name: Cow<'a, [u8]>,
    /// The content's bytes.
    pub body: Cow<'a, [u8]>,
}

impl BindChild<'static> {
    /// A child of this content.
    pub fn new(device_name: &str, content: &Content<'_>) -> Result<Self, EncodeError> {
        let mut body = vec![0; content.size()?];
        content.write(&mut Writer::new(&mut body));
        Ok(Self {
            type_name: content.type_name(),
            device_name: Cow::Owned(device_name.as_bytes().to_vec()),
            body: Cow::Owned(body),
        })
    }
}

impl BindChild<'_> {
    /// The child's content.
    pub fn content(&self) -> Result<Content<'_>, DecodeError> {
        Content::decode(&self.type_name, &self.body)
    }
}

/// Several messages with a common header (protocol document, `bind.md`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bind<'a> {
    /// The messages.
    pub children: Vec<BindChild<'a>>,
}

impl<'a> Bind<'a> {
    /// Messages in messages in messages … are not looked into any deeper when one is shown.
    pub const MAX_DEPTH: usize = 8;

    /// The same messages with their own copy of the bytes.
    pub fn into_owned(self) -> Bind<'static> {
        let own = |child: BindChild<'_>| BindChild {
            type_name: child.type_name,
            device_name: Cow::Owned(child.device_name.into_owned()),
            body: Cow::Owned(child.body.into_owned()),
        };
        Bind { children: self.children.into_iter().map(own).collect() }
    }
}

impl<'a> Body<'a> for Bind<'a> {
    fn decode(_: &'static str, content: &'a [u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("BIND", content);
        let count = r.u16("children")?;
        if usize::from(count) * ENTRY_SIZE > r.remaining() {
            return Err(r.error(
                "children",
                count.into(),
                Problem::Exceeds((r.remaining() / ENTRY_SIZE) as u64),
            ));
        }
        let mut entries = Reader::new("BIND", r.bytes("children", (usize::from(count) * ENTRY_SIZE) as u64)?);
        let mut names = NameTable::read(&mut r)?;
        let mut children = Vec::with_capacity(count.into());
        for _ in 0..count {
            let type_name = entries.text("child type")?;
            let size = entries.u64("child size")?;
            let body = Cow::Borrowed(r.bytes("child size", size)?);
            if size % 2 == 1 {
                r.u8("padding")?;
            }
            children.push(BindChild { type_name, device_name: Cow::Borrowed(names.next()?), body });
        }
        names.finish()?;
        r.finish(content.len())?;
        Ok(Self { children })
    }
}

impl Wire for Bind<'_> {
    fn size(&self) -> Result<usize, EncodeError> {
        let count = fits("BIND", "children", self.children.len(), u16::MAX.into())?;
        let table = name_table_size(self.children.iter().map(|child| &*child.device_name))?;
        let bodies: usize = self.children.iter().map(|child| child.body.len().next_multiple_of(2)).sum();
        Ok(2 + count * ENTRY_SIZE + 2 + table + bodies)
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.u16(self.children.len() as u16);
        for child in &self.children {
            w.text(&child.type_name);
            w.u64(child.body.len() as u64);
        }
        write_name_table(self.children.iter().map(|child| &*child.device_name), w);
        for child in &self.children {
            w.bytes(&child.body);
            if child.body.len() % 2 == 1 {
                w.u8(0);
            }
        }
    }

    fn fields(&self, depth: usize) -> Fields {
        let child = |child: &BindChild<'_>| {
            let content = match child.content() {
                _ if depth + 1 == Self::MAX_DEPTH => ("bytes", Value::Bytes(child.body.to_vec())),
                Ok(content) => ("content", content.fields_at(depth + 1).into()),
                Err(error) => ("error", error.to_string().into()),
            };
            vec![("type", child.type_name.into()), ("device_name", lossy(&child.device_name)), content]
        };
        vec![("messages", self.children.iter().map(child).collect())]
    }
}

/// Names that each end in a zero byte, filled up to an even length.
pub(crate) struct NameTable<'a> {
    rest: &'a [u8],
}

impl<'a> NameTable<'a> {
    pub(crate) fn read(r: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let size = r.u16("name table size")?;
        if size % 2 == 1 {
            return Err(r.error("name table size", size.into(), Problem::MultipleOf(2)));
        }
        Ok(Self { rest: r.bytes("name table size", size.into())? })
    }

    pub(crate) fn next(&mut self) -> Result<&'a [u8], DecodeError> {
        let Some(end) = self.rest.iter().position(|&b| b == 0) else {
            let left = self.rest.len() as u64;
            return Err(DecodeError::field("BIND", "unfinished name bytes", left, Problem::Expected(0)));
        };
        let name = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        Ok(name)
    }

    /// One byte of padding may be left.
    pub(crate) fn finish(self) -> Result<(), DecodeError> {
        if self.rest.len() <= 1 {
            return Ok(());
        }
        let left = self.rest.len() as u64;
        Err(DecodeError::field("BIND", "unclaimed name table bytes", left, Problem::Expected(0)))
    }
}

pub(crate) fn name_table_size<'n>(names: impl Iterator<Item = &'n [u8]>) -> Result<usize, EncodeError> {
    let mut size = 0;
    for name in names {
        if let Some(at) = name.iter().position(|&b| b == 0) {
            return Err(EncodeError::field(
                "BIND",
                "name length",
                name.len() as u64,
                Problem::Expected(at as u64),
            ));
        }
        size += name.len() + 1;
    }
    // Even, like the limit.
    fits("BIND", "name table", size.next_multiple_of(2), u64::from(u16::MAX) - 1)
}

pub(crate) fn write_name_table<'n>(names: impl Iterator<Item = &'n [u8]> + Clone, w: &mut Writer<'_>) {
    let size: usize = names.clone().map(|name| name.len() + 1).sum();
    w.u16(size.next_multiple_of(2) as u16);
    for name in names {
        w.bytes(name);
        w.u8(0);
    }
    if size % 2 == 1 {
        w.u8(0);
    }
}
