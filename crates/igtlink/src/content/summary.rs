//! One line about a message, for logs and terminals.

use std::fmt;

use crate::content::{Content, Parameters};
use crate::message::Message;
use crate::wire::Text;

/// Texts are cut to so many characters.
const LONGEST_TEXT: usize = 60;

impl fmt::Display for Content<'_> {
    /// The type, and what is most telling about its content.
    ///
    /// ```
    /// use ultramotion_igtlink::{Content, Image};
    /// let content = Content::Image(Image::grey8(2, 1, &[0, 255]));
    /// assert_eq!(content.to_string(), "IMAGE 2x1x1, 1 x Uint8, spacing 1 1 1 mm, Lps");
    /// ```
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.type_name())?;
        match self {
            Content::Transform(pose) => write_point(f, "translation", pose.translation),
            Content::Position(position) => write_point(f, "position", position.position),
            Content::QTransform(pose) => write_point(f, "position", pose.position),
            Content::Image(image) => {
                let ([i, j, k], [x, y, z]) = (image.size, image.placement.spacing_mm());
                write!(f, " {i}x{j}x{k}, {} x {:?}, spacing {x} {y} {z} mm", image.components, image.scalar)?;
                write!(f, ", {:?}", image.coordinates)?;
                if image.is_whole() {
                    return Ok(());
                }
                let ([i, j, k], [x, y, z]) = (image.subvolume_size, image.subvolume_offset);
                write!(f, ", part {i}x{j}x{k} at {x} {y} {z}")
            }
            Content::Status(status) => {
                write!(f, " {:?} {}", status.code, status.name)?;
                write_text(f, &status.message_lossy())
            }
            Content::Capability(types) => types.iter().try_for_each(|type_name| write!(f, " {type_name}")),
            Content::String(text) => write_words(f, text),
            Content::Points(points) => points.iter().try_for_each(|point| write!(f, " {}", point.name)),
            Content::TrackingData(tools) => tools.iter().try_for_each(|tool| write!(f, " {}", tool.name)),
            Content::QTrackingData(tools) => tools.iter().try_for_each(|tool| write!(f, " {}", tool.name)),
            Content::Trajectories(paths) => paths.iter().try_for_each(|path| write!(f, " {}", path.name)),
            Content::Sensor(sensor) => write!(f, " {:?} {}", sensor.values, sensor.unit),
            Content::NdArray(array) => write!(f, " {:?} of {:?}", array.shape, array.scalar),
            Content::Bind(bind) => bind
                .children
                .iter()
                .try_for_each(|child| write!(f, " {} {}", child.type_name, Name(&child.device_name))),
            Content::ColorTable(table) => write!(f, " {:?} to {:?}", table.index, table.map),
            Content::ImageList(list) => list.iter().try_for_each(|image| write!(f, " {}", image.device_name)),
            Content::LabelList(list) => list.iter().try_for_each(|label| write!(f, " {}", label.device_name)),
            Content::VideoList(list) => list.iter().try_for_each(|video| write!(f, " {}", video.device_name)),
            Content::PolyData(data) => write!(
                f,
                " {} points, {} vertices, {} lines, {} polygons, {} strips, {} attributes",
                data.points.len(),
                data.vertices.len(),
                data.lines.len(),
                data.polygons.len(),
                data.triangle_strips.len(),
                data.attributes.len()
            ),
            Content::Command(command) | Content::CommandReply(command) => {
                write!(f, " {} {}", command.id, command.name)?;
                write_words(f, &command.text)
            }
            Content::Video(video) => {
                let [i, j, k] = video.size;
                write!(f, " {i}x{j}x{k}, {}, {} bytes", Name(&video.codec), video.data.len())
            }
            Content::Query(query) => match &query.parameters {
                Parameters::None => Ok(()),
                Parameters::Other(bytes) => write!(f, " {} bytes", bytes.len()),
                parameters => write!(f, " {parameters:?}"),
            },
            Content::Unavailable(_) => f.write_str(" not available"),
            Content::Unknown { bytes, .. } => write!(f, " {} bytes", bytes.len()),
        }
    }
}

impl fmt::Display for Message<'_> {
    /// Time, device, content and metadata.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.timestamp, self.device_name, self.content)?;
        for (position, entry) in self.metadata.entries.iter().enumerate() {
            write!(f, "{} {}=", if position == 0 { " |" } else { "," }, Name(&entry.key))?;
            write_cut(f, &String::from_utf8_lossy(&entry.value.bytes))?;
        }
        Ok(())
    }
}

/// A name without quotes, with what a terminal might obey made visible.
struct Name<'n>(&'n [u8]);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", String::from_utf8_lossy(self.0).escape_debug())
    }
}

fn write_point(f: &mut fmt::Formatter<'_>, name: &str, [x, y, z]: [f32; 3]) -> fmt::Result {
    write!(f, " {name} {x} {y} {z} mm")
}

fn write_words(f: &mut fmt::Formatter<'_>, text: &Text<'_>) -> fmt::Result {
    match text.to_str() {
        Some(text) => write_text(f, &text),
        None => write!(f, " {} bytes in encoding {}", text.bytes.len(), text.encoding.0),
    }
}

fn write_text(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    if text.is_empty() {
        return Ok(());
    }
    f.write_str(" ")?;
    write_cut(f, text)
}

/// The beginning of a text in quotes, with what a terminal might obey made visible.
fn write_cut(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    match text.char_indices().nth(LONGEST_TEXT) {
        Some((end, _)) => write!(f, "{:?}…", &text[..end]),
        None => write!(f, "{text:?}"),
    }
}
