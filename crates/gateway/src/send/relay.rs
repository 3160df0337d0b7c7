//! The source's own messages, passed on.
//!
//! TRANSFORM and TDATA go as they came. 3D Slicer has no device for QTRANS, POSITION and QTDATA, so these become
//! TRANSFORM and TDATA. To clients of header version 1 metadata cannot be said, so poses of tools that were not seen do
//! not go to them. Images, and poses beside them, go under names with a prefix where that is asked for.

use std::borrow::Cow;

use ultramotion_igtlink::{
    Content, DecodeError, DeviceName, EncodeError, HeaderVersion, Message, Metadata, RawMessage, TrackedTool,
    Transform,
};

use crate::config::OutputConfig;
use crate::receive::poses::{from_quaternion, matrix_of, narrowed};
use crate::receive::validity::{CUT_NAME_BYTES, is_ok, status_of_pose, tool_of_tdata};
use crate::send::header_version;

/// Why a message was not passed on.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// It cannot be read as a message of its type.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// It makes no message under its new name.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// Passes messages on as the configuration wishes.
#[derive(Debug)]
pub struct Relay {
    config: OutputConfig,
    version: HeaderVersion,
}

/// A message in the form in which it goes out.
#[derive(Debug, Clone, Copy)]
pub enum Passed<'m> {
    /// As it came.
    Raw(&'m RawMessage),
    /// Made anew.
    Message(&'m Message<'m>),
}

impl Relay {
    /// For a checked configuration.
    pub fn new(config: &OutputConfig) -> Self {
        Relay { config: config.clone(), version: header_version(config) }
    }

    /// The same for clients of version 1.
    pub(crate) fn in_version_1(&self) -> Self {
        Relay { config: self.config.clone(), version: HeaderVersion::V1 }
    }

    /// Hands what becomes of a message of the source to `send`.
    pub fn pass(
        &self,
        raw: &RawMessage,
        mut send: impl FnMut(Passed<'_>) -> Result<(), EncodeError>,
    ) -> Result<(), RelayError> {
        let OutputConfig { transforms, source, convert_poses, .. } = self.config;
        let kind = raw.header().type_name;
        let is_native = ["TRANSFORM", "TDATA"].iter().any(|&native| kind == native);
        let is_pose = kind != "IMAGE";
        let fits = self.version.is_extended() || !raw.header().version.is_extended();
        if transforms && is_native && fits {
            send(Passed::Raw(raw))?;
        }
        let again = transforms && is_pose && if is_native { !fits } else { convert_poses };
        if !again && !source {
            return Ok(());
        }
        let Some(message) = self.converted(raw.decode()?) else { return Ok(()) };
        if again {
            send(Passed::Message(&message))?;
        }
        if source {
            send(Passed::Message(&self.renamed(message)))?;
        }
        Ok(())
    }

    /// As IMAGE, TRANSFORM or TDATA in the version of the output; `None` for what cannot be said in it.
    fn converted<'m>(&self, mut message: Message<'m>) -> Option<Message<'m>> {
        let metadata = match self.version {
            HeaderVersion::V1 => Some(std::mem::take(&mut message.metadata)),
            _ => None,
        };
        if metadata.as_ref().and_then(status_of_pose).is_some_and(|status| !is_ok(&status)) {
            return None;
        }
        message.content = match message.content {
            Content::TrackingData(tools) => Content::TrackingData(seen(tools, metadata.as_ref())),
            Content::QTrackingData(tools) => {
                let tool = |tool: TrackedTool<_>| {
                    let pose = narrowed(&from_quaternion(&tool.pose));
                    TrackedTool { kind: tool.kind, ..TrackedTool::new(tool.name, pose) }
                };
                Content::TrackingData(seen(tools.into_iter().map(tool).collect(), metadata.as_ref()))
            }
            image @ Content::Image(_) => image,
            content => Content::Transform(narrowed(&matrix_of(&content)?)),
        };
        message.version = self.version;
        if !self.version.is_extended() {
            message.message_id = 0;
            message.extension = Cow::Borrowed(&[]);
        }
        Some(message)
    }

    /// Under a name of ours: beside the source's own connection no name is there twice.
    fn renamed<'m>(&self, mut message: Message<'m>) -> Message<'m> {
        let prefix = &self.config.prefix;
        let whole = match message.metadata.get("IGTL_DEVICE_NAME") {
            Some(whole) => format!("{prefix}{whole}"),
            None => format!("{prefix}{}", message.device_name.to_string_lossy()),
        };
        message.metadata.entries.retain(|entry| *entry.key != *b"IGTL_DEVICE_NAME");
        message.device_name = DeviceName::truncated(&whole);
        if let Content::TrackingData(tools) = &mut message.content {
            for tool in tools.iter_mut() {
                tool.name = DeviceName::truncated(&format!("{prefix}{}", tool.name.to_string_lossy()));
            }
            for entry in &mut message.metadata.entries {
                let is_of_tool = entry.key.ends_with(b"Status") || entry.key.ends_with(b"Index");
                if is_of_tool {
                    entry.key = Cow::Owned([prefix.as_bytes(), &entry.key[..]].concat());
                }
            }
        } else if message.version.is_extended() && whole.len() > CUT_NAME_BYTES {
            message.metadata.push("IGTL_DEVICE_NAME", whole);
        }
        message
    }
}

/// The tools that were seen, as far as metadata that is lost now has said; all of them where nothing is lost.
fn seen(tools: Vec<TrackedTool<Transform>>, lost: Option<&Metadata<'_>>) -> Vec<TrackedTool<Transform>> {
    let Some(metadata) = lost else { return tools };
    let is_seen = |(index, tool): &(usize, TrackedTool<Transform>)| {
        let name = tool.name.to_string_lossy();
        tool_of_tdata(&name, *index, metadata).1.is_none_or(|status| is_ok(&status))
    };
    tools.into_iter().enumerate().filter(is_seen).map(|(_, tool)| tool).collect()
}
