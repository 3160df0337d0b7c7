//! Messages as trees: every field of every type by name.

use ultramotion_igtlink::{
    ArrayType, Bind, BindChild, Cells, Content, DecodeError, Endian, FixedString, Header, Image, ImageInfo,
    LabelInfo, Message, NdArray, Orientation, Parameters, Placement, Point, PolyData, Query, ScalarType,
    Text, ToolKind, TrackedTool, Trajectory, Transform, Video, VideoInfo,
};

use super::tree::Node;

type Fields = Vec<(&'static str, Node)>;

/// Longer lists are summarised …
const LONGEST_LIST: usize = 24;
/// … and this much of them is shown.
const SHOWN: usize = 8;
/// Longer texts are cut.
const LONGEST_TEXT: usize = 400;
/// A message in a message in a message … is not looked into any deeper.
const DEEPEST_BIND: usize = 8;

/// Makes trees.
pub(crate) struct Describer {
    /// Nothing is summarised.
    pub(crate) full: bool,
}

impl Describer {
    /// The fields of a message.
    pub(crate) fn message(&self, message: &Message<'_>) -> Fields {
        let mut fields = vec![
            ("type", name(&message.content.type_name())),
            ("device_name", name(&message.device_name)),
            ("version", (message.version as u16).into()),
            ("timestamp_s", message.timestamp.as_secs_f64().into()),
            // In 2^-32 s, since a float is not exact.
            ("timestamp_bits", message.timestamp.to_bits().into()),
        ];
        if message.version.is_extended() {
            fields.push(("message_id", message.message_id.into()));
            let pairs = message.metadata.iter().map(|(key, value)| (self.cut(&key), self.cut(&value)));
            fields.push(("metadata", Node::Pairs(pairs.collect())));
        }
        if !message.extension.is_empty() {
            fields.push(("header_extension", self.bytes(&message.extension)));
        }
        fields.push(("content", self.content(&message.content, 0)));
        fields
    }

    /// The fields of a header whose body cannot be read.
    pub(crate) fn header(&self, header: &Header) -> Fields {
        vec![
            ("type", name(&header.type_name)),
            ("device_name", name(&header.device_name)),
            ("version", (header.version as u16).into()),
            ("timestamp_s", header.timestamp.as_secs_f64().into()),
            ("body_size", header.body_size.into()),
        ]
    }

    /// What is wrong inside a message that is whole: with the children of a BIND, which are decoded on demand.
    pub(crate) fn find_problem(&self, message: &Message<'_>) -> Option<DecodeError> {
        problem_in(&message.content, 0)
    }

    fn content(&self, content: &Content<'_>, depth: usize) -> Node {
        let list = |values: Vec<Fields>| Node::List(values.into_iter().map(Node::Map).collect());
        Node::Map(match content {
            Content::Transform(pose) => vec![("matrix", matrix(pose))],
            Content::Position(position) => {
                let orientation = match position.orientation {
                    Orientation::None => Node::Null,
                    Orientation::Compressed(values) => values.into(),
                    Orientation::Quaternion(values) => values.into(),
                };
                vec![("position_mm", position.position.into()), ("quaternion", orientation)]
            }
            Content::QTransform(pose) => {
                vec![("position_mm", pose.position.into()), ("quaternion", pose.quaternion.into())]
            }
            Content::Image(image) => self.image(image),
            Content::Status(status) => vec![
                ("code", u16::from(status.code).into()),
                ("meaning", format!("{:?}", status.code).into()),
                ("subcode", status.subcode.into()),
                ("name", name(&status.name)),
                ("message", self.cut(&status.message_lossy()).into()),
            ],
            Content::Capability(types) => vec![("types", Node::List(types.iter().map(name).collect()))],
            Content::String(text) => self.text(text),
            Content::Points(points) => vec![("points", list(points.iter().map(point).collect()))],
            Content::TrackingData(tools) => {
                let pose = |tool: &TrackedTool<Transform>| vec![("matrix", matrix(&tool.pose))];
                vec![("tools", list(tools.iter().map(|t| tool(&t.name, t.kind, pose(t))).collect()))]
            }
            Content::QTrackingData(tools) => {
                let described = tools.iter().map(|t| {
                    let pose =
                        [("position_mm", t.pose.position.into()), ("quaternion", t.pose.quaternion.into())];
                    tool(&t.name, t.kind, pose.into())
                });
                vec![("tools", list(described.collect()))]
            }
            Content::Trajectories(paths) => {
                vec![("trajectories", list(paths.iter().map(trajectory).collect()))]
            }
            Content::Sensor(sensor) => vec![
                ("status", sensor.status.into()),
                ("unit", sensor.unit.to_string().into()),
                ("unit_bits", sensor.unit.0.into()),
                ("values", self.numbers(&sensor.values)),
            ],
            Content::NdArray(array) => self.array(array),
            Content::Bind(bind) => vec![("messages", list(self.children(bind, depth)))],
            Content::ColorTable(table) => vec![
                ("index_type", format!("{:?}", table.index).into()),
                ("map_type", format!("{:?}", table.map).into()),
                ("table", self.bytes(&table.table)),
            ],
            Content::ImageList(images) => vec![("images", list(images.iter().map(image_info).collect()))],
            Content::LabelList(labels) => vec![("labels", list(labels.iter().map(label_info).collect()))],
            Content::VideoList(videos) => vec![("videos", list(videos.iter().map(video_info).collect()))],
            Content::PolyData(data) => self.polydata(data),
            Content::Command(command) | Content::CommandReply(command) => {
                let mut fields = vec![("id", command.id.into()), ("name", name(&command.name))];
                fields.extend(self.text(&command.text));
                fields
            }
            Content::Video(video) => self.video(video),
            Content::Query(query) => self.query(query),
            Content::Unavailable(_) => vec![("available", false.into())],
            Content::Unknown { bytes, .. } => vec![("known", false.into()), ("bytes", self.bytes(bytes))],
            other => vec![("summary", other.to_string().into())],
        })
    }

    fn image(&self, image: &Image<'_>) -> Fields {
        let mut fields = vec![
            ("size", image.size.into()),
            ("components", image.components.into()),
            ("scalar_type", format!("{:?}", image.scalar).into()),
            ("endian", format!("{:?}", image.endian).into()),
            ("coordinates", format!("{:?}", image.coordinates).to_uppercase().into()),
            ("spacing_mm", image.placement.spacing_mm().map(|mm| mm as f32).into()),
        ];
        fields.extend(placement(&image.placement, image.size));
        if !image.is_whole() {
            fields.push(("subvolume_offset", image.subvolume_offset.into()));
            fields.push(("subvolume_size", image.subvolume_size.into()));
        }
        fields.push(("pixels", self.scalars(image.scalar, image.endian, &image.pixels)));
        fields
    }

    fn video(&self, video: &Video<'_>) -> Fields {
        let mut fields = vec![
            ("codec", four_characters(video.codec)),
            ("frame_type", video.frame_type.into()),
            ("size", video.size.into()),
            ("endian", format!("{:?}", video.endian).into()),
            ("coordinates", format!("{:?}", video.coordinates).to_uppercase().into()),
        ];
        fields.extend(placement(&video.placement, video.size));
        fields.push(("subvolume_offset", video.subvolume_offset.into()));
        fields.push(("subvolume_size", video.subvolume_size.into()));
        fields.push(("data", self.bytes(&video.data)));
        fields
    }

    fn array(&self, array: &NdArray<'_>) -> Fields {
        let values = match array.scalar {
            ArrayType::Int8 => self.scalars(ScalarType::Int8, Endian::Big, &array.data),
            ArrayType::Uint8 => self.scalars(ScalarType::Uint8, Endian::Big, &array.data),
            ArrayType::Int16 => self.scalars(ScalarType::Int16, Endian::Big, &array.data),
            ArrayType::Uint16 => self.scalars(ScalarType::Uint16, Endian::Big, &array.data),
            ArrayType::Int32 => self.scalars(ScalarType::Int32, Endian::Big, &array.data),
            ArrayType::Uint32 => self.scalars(ScalarType::Uint32, Endian::Big, &array.data),
            ArrayType::Float32 => self.scalars(ScalarType::Float32, Endian::Big, &array.data),
            // Of a complex number first the real, then the imaginary part.
            ArrayType::Float64 | ArrayType::Complex => {
                self.scalars(ScalarType::Float64, Endian::Big, &array.data)
            }
        };
        vec![
            ("scalar_type", format!("{:?}", array.scalar).into()),
            ("shape", array.shape.clone().into()),
            ("values", values),
        ]
    }

    fn polydata(&self, data: &PolyData<'_>) -> Fields {
        let points: Vec<f32> = data.points.iter().flatten().copied().collect();
        let mut fields = vec![
            ("points", data.points.len().into()),
            ("coordinates_mm", self.numbers(&points)),
            ("indices_valid", data.indices_are_valid().into()),
        ];
        let kinds: [(&str, &Cells); 4] = [
            ("vertices", &data.vertices),
            ("lines", &data.lines),
            ("polygons", &data.polygons),
            ("triangle_strips", &data.triangle_strips),
        ];
        for (kind, cells) in kinds {
            fields.push((kind, self.cells(cells)));
        }
        let attribute = |a: &ultramotion_igtlink::Attribute<'_>| {
            Node::Map(vec![
                ("name", self.cut(&String::from_utf8_lossy(&a.name)).into()),
                ("kind", format!("{:?}", a.kind).into()),
                ("components", a.components.into()),
                ("values", self.numbers(&a.values)),
            ])
        };
        fields.push(("attributes", Node::List(data.attributes.iter().map(attribute).collect())));
        fields
    }

    fn cells(&self, cells: &Cells) -> Node {
        let shown = if self.full || cells.len() <= LONGEST_LIST { cells.len() } else { SHOWN };
        let first = Node::List(cells.iter().take(shown).map(|cell| self.numbers(cell)).collect());
        if shown == cells.len() {
            return first;
        }
        Node::Map(vec![("count", cells.len().into()), ("first", first)])
    }

    fn children(&self, bind: &Bind<'_>, depth: usize) -> Vec<Fields> {
        let child = |child: &BindChild<'_>| {
            let mut fields = vec![
                ("type", name(&child.type_name)),
                ("device_name", self.cut(&String::from_utf8_lossy(&child.device_name)).into()),
            ];
            fields.push(if depth + 1 == DEEPEST_BIND {
                ("bytes", self.bytes(&child.body))
            } else {
                match child.content() {
                    Ok(content) => ("content", self.content(&content, depth + 1)),
                    Err(error) => ("error", error.to_string().into()),
                }
            });
            fields
        };
        bind.children.iter().map(child).collect()
    }

    fn query(&self, query: &Query<'_>) -> Fields {
        let mut fields = vec![("verb", format!("{:?}", query.verb).into()), ("target", name(&query.target))];
        match &query.parameters {
            Parameters::None => {}
            Parameters::Status(status) => fields.push(("status", (*status).into())),
            Parameters::Interval(interval) => fields.push(("interval_s", interval.as_secs_f64().into())),
            Parameters::Tracking { resolution_ms, coordinate_name } => {
                fields.push(("resolution_ms", (*resolution_ms).into()));
                fields.push(("coordinate_name", name(coordinate_name)));
            }
            Parameters::Video { codec, interval_ms, use_compression } => {
                fields.push(("codec", four_characters(*codec)));
                fields.push(("interval_ms", (*interval_ms).into()));
                fields.extend(use_compression.map(|byte| ("use_compression", byte.into())));
            }
            Parameters::Bind { interval, children } => {
                fields.extend(interval.map(|interval| ("interval_s", interval.as_secs_f64().into())));
                let child = |(type_name, device): &(_, std::borrow::Cow<'_, [u8]>)| {
                    let device = self.cut(&String::from_utf8_lossy(device));
                    Node::Map(vec![("type", name(type_name)), ("device_name", device.into())])
                };
                fields.push(("messages", Node::List(children.iter().map(child).collect())));
            }
            Parameters::Other(bytes) => fields.push(("bytes", self.bytes(bytes))),
        }
        fields
    }

    fn text(&self, text: &Text<'_>) -> Fields {
        let mut fields = vec![("encoding", text.encoding.0.into())];
        fields.push(match text.to_str() {
            Some(text) => ("text", self.cut(&text).into()),
            None => ("bytes", self.bytes(&text.bytes)),
        });
        fields
    }

    fn cut(&self, text: &str) -> String {
        match text.char_indices().nth(LONGEST_TEXT) {
            Some((end, _)) if !self.full => format!("{}… ({} bytes)", &text[..end], text.len()),
            _ => text.to_owned(),
        }
    }

    /// Bytes that are no numbers of a known type, in hexadecimal.
    fn bytes(&self, bytes: &[u8]) -> Node {
        let shown = if self.full { bytes.len() } else { bytes.len().min(LONGEST_LIST) };
        let hex: String = bytes[..shown].iter().map(|byte| format!("{byte:02x}")).collect();
        let rest = if shown < bytes.len() { "…" } else { "" };
        Node::Map(vec![("count", bytes.len().into()), ("hex", format!("{hex}{rest}").into())])
    }

    fn scalars(&self, scalar: ScalarType, endian: Endian, bytes: &[u8]) -> Node {
        macro_rules! numbers {
            ($type:ty) => {{
                let value = |chunk: &[u8; size_of::<$type>()]| match endian {
                    Endian::Big => <$type>::from_be_bytes(*chunk),
                    Endian::Little => <$type>::from_le_bytes(*chunk),
                };
                let values: Vec<$type> = bytes.as_chunks().0.iter().map(value).collect();
                self.numbers(&values)
            }};
        }
        match scalar {
            ScalarType::Int8 => numbers!(i8),
            ScalarType::Uint8 => numbers!(u8),
            ScalarType::Int16 => numbers!(i16),
            ScalarType::Uint16 => numbers!(u16),
            ScalarType::Int32 => numbers!(i32),
            ScalarType::Uint32 => numbers!(u32),
            ScalarType::Float32 => numbers!(f32),
            ScalarType::Float64 => numbers!(f64),
        }
    }

    /// A list of numbers, or how many there are, their range, and the first of them.
    fn numbers<T: Copy + PartialOrd + Into<Node>>(&self, values: &[T]) -> Node {
        if self.full || values.len() <= LONGEST_LIST {
            return values.to_vec().into();
        }
        // What is not a number is neither the least nor the greatest.
        let ordered = || values.iter().copied().filter(|value| value.partial_cmp(value).is_some());
        let least = ordered().reduce(|a, b| if b < a { b } else { a });
        let greatest = ordered().reduce(|a, b| if b > a { b } else { a });
        Node::Map(vec![
            ("count", values.len().into()),
            ("least", least.map_or(Node::Null, Into::into)),
            ("greatest", greatest.map_or(Node::Null, Into::into)),
            ("first", values[..SHOWN].to_vec().into()),
        ])
    }
}

fn problem_in(content: &Content<'_>, depth: usize) -> Option<DecodeError> {
    let Content::Bind(bind) = content else { return None };
    if depth + 1 == DEEPEST_BIND {
        return None;
    }
    bind.children.iter().find_map(|child| match child.content() {
        Ok(content) => problem_in(&content, depth + 1),
        Err(error) => Some(error),
    })
}

fn name<const N: usize>(text: &FixedString<N>) -> Node {
    text.to_string_lossy().into_owned().into()
}

fn four_characters(code: [u8; 4]) -> Node {
    String::from_utf8_lossy(&code).into_owned().into()
}

fn matrix(pose: &Transform) -> Node {
    pose.to_matrix().into()
}

/// By rows, from index to world.
fn placement(placement: &Placement, size: [u16; 3]) -> Fields {
    let matrix = placement.world_from_ijk(size);
    vec![
        ("center_mm", placement.center.into()),
        ("world_from_ijk", matrix.map(|row| row.map(|value| value as f32)).into()),
    ]
}

fn tool(tool_name: &FixedString<20>, kind: ToolKind, pose: Fields) -> Fields {
    let mut fields = vec![("name", name(tool_name)), ("kind", format!("{kind:?}").into())];
    fields.extend(pose);
    fields
}

fn point(point: &Point) -> Fields {
    vec![
        ("name", name(&point.name)),
        ("group", name(&point.group)),
        ("rgba", point.rgba.into()),
        ("position_mm", point.position.into()),
        ("diameter_mm", point.diameter.into()),
        ("owner", name(&point.owner)),
    ]
}

fn trajectory(path: &Trajectory) -> Fields {
    vec![
        ("name", name(&path.name)),
        ("group", name(&path.group)),
        ("kind", format!("{:?}", path.kind).into()),
        ("rgba", path.rgba.into()),
        ("entry_mm", path.entry.into()),
        ("target_mm", path.target.into()),
        ("diameter_mm", path.diameter.into()),
        ("owner", name(&path.owner)),
    ]
}

fn image_info(image: &ImageInfo) -> Fields {
    vec![
        ("name", name(&image.name)),
        ("device_name", name(&image.device_name)),
        ("modality", name(&image.modality)),
        ("patient_name", name(&image.patient_name)),
        ("patient_id", name(&image.patient_id)),
        ("timestamp_s", image.timestamp.as_secs_f64().into()),
        ("size", image.size.into()),
        ("scalar_type", image.scalar_type.into()),
    ]
}

fn label_info(label: &LabelInfo) -> Fields {
    vec![
        ("name", name(&label.name)),
        ("device_name", name(&label.device_name)),
        ("label", label.label.into()),
        ("rgba", label.rgba.into()),
        ("size", label.size.into()),
        ("owner", name(&label.owner)),
    ]
}

fn video_info(video: &VideoInfo) -> Fields {
    let mut fields = vec![
        ("name", name(&video.name)),
        ("device_name", name(&video.device_name)),
        ("patient_name", name(&video.patient_name)),
        ("patient_id", name(&video.patient_id)),
        ("zoom_level", video.zoom_level.into()),
        ("focal_length_mm", video.focal_length_mm.into()),
        ("size", video.size.into()),
    ];
    fields.extend(placement(&video.placement, video.size));
    fields.push(("scalar_type", video.scalar_type.into()));
    fields
}
