//! Reads and checks the header.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use super::element::{ElementType, Window};
use crate::error::MediaError;
use ultramotion_types::{MAX_SIDE_PX, NamedTransform};

/// A line longer than this is not a header's.
pub(super) const MAX_LINE_BYTES: u64 = 1 << 16;

/// Where the pixels are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum DataFile {
    /// Behind the header.
    Local,
    /// In a file beside it.
    Beside(String),
}

/// What a sequence says about one frame.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct FrameFields {
    /// The text, when it is not a number.
    pub(crate) timestamp_s: Option<Result<f64, String>>,
    pub(crate) image_status: Option<String>,
    pub(crate) transforms: Vec<NamedTransform>,
}

#[derive(Clone, Debug)]
pub(crate) struct Header {
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) frame_count: u64,
    /// Slices that share one set of per-frame fields; 1 but for sequences of volumes.
    pub(crate) slices_per_entry: u64,
    pub(crate) channels: usize,
    pub(crate) element: ElementType,
    pub(crate) big_endian: bool,
    pub(crate) compressed: bool,
    pub(crate) compressed_size: Option<u64>,
    pub(crate) spacing_mm: Option<[f64; 2]>,
    pub(crate) window: Option<Window>,
    pub(crate) orientation: Option<String>,
    pub(crate) data_file: DataFile,
    /// Bytes to skip at the start of a separate data file; -1 means the pixels are at its end.
    pub(crate) skip_bytes: i64,
    /// Length of the header itself.
    pub(crate) header_bytes: u64,
    /// Length of its last line, which says where the pixels are.
    pub(crate) last_line_bytes: u64,
    pub(crate) fields: BTreeMap<u64, FrameFields>,
}

impl Header {
    pub(crate) fn frame_bytes(&self) -> usize {
        // At most 8192 * 8192 * 3 * 8, checked when read.
        self.width * self.height * self.channels * self.element.bytes()
    }

    /// The file with the pixels, where the header is in `path`.
    pub(crate) fn data_path(&self, path: &Path) -> PathBuf {
        match &self.data_file {
            DataFile::Local => path.to_owned(),
            DataFile::Beside(name) => path.parent().unwrap_or(Path::new("")).join(name),
        }
    }

    /// Reads up to and including the line `ElementDataFile`.
    pub(crate) fn read(reader: &mut impl BufRead, path: &Path) -> Result<Self, MediaError> {
        let mut values: BTreeMap<String, String> = BTreeMap::new();
        let mut fields: BTreeMap<u64, FrameFields> = BTreeMap::new();
        let mut indices: BTreeMap<u64, Index> = BTreeMap::new();
        let mut header_bytes = 0;
        let mut line = Vec::new();
        let data_file = loop {
            line.clear();
            let length = reader
                .by_ref()
                .take(MAX_LINE_BYTES)
                .read_until(b'\n', &mut line)
                .map_err(MediaError::io("read", path))? as u64;
            header_bytes += length;
            if length == 0 {
                let problem = if values.is_empty() {
                    "is missing: the file is not a MetaImage"
                } else {
                    "is missing: the header ends early, record or copy the file again"
                };
                return Err(MediaError::header(path, "ElementDataFile", problem));
            }
            // Names of people and places in a header are not always UTF-8.
            let text = String::from_utf8_lossy(&line);
            let is_whole = line.last() == Some(&b'\n') || length < MAX_LINE_BYTES;
            let Some((key, value)) = text.split_once('=').filter(|_| is_whole) else {
                if text.trim().is_empty() && is_whole {
                    continue;
                }
                let problem = "is missing before a line that is not 'Key = Value': the file is not a MetaImage or is damaged";
                return Err(MediaError::header(path, "ElementDataFile", problem));
            };
            let (key, value) = (key.trim(), value.trim());
            if key == "ElementDataFile" {
                if line.last() != Some(&b'\n') {
                    let problem =
                        "is the last thing in the file and cut short: record or copy the file again";
                    return Err(MediaError::header(path, key, problem));
                }
                break value.to_owned();
            }
            match key.strip_prefix("Seq_Frame").and_then(|rest| rest.split_once('_')) {
                Some((number, name)) => {
                    let index: u64 = number.parse().map_err(|_| {
                        MediaError::header(path, key, "has no frame number: correct the header")
                    })?;
                    let of_frame = (fields.entry(index).or_default(), indices.entry(index).or_default());
                    keep_frame_field(of_frame, name, value);
                }
                None => {
                    values.insert(key.to_owned(), value.to_owned());
                }
            }
        };
        let last_line_bytes = line.len() as u64;
        Ok(Self {
            last_line_bytes,
            ..Self::check(&Values { path, values }, fields, data_file, header_bytes)?
        })
    }

    fn check(
        values: &Values<'_>,
        fields: BTreeMap<u64, FrameFields>,
        data_file: String,
        header_bytes: u64,
    ) -> Result<Self, MediaError> {
        let path = values.path;
        if let Some(kind) = values.get(&["ObjectType"]).filter(|&kind| kind != "Image") {
            return Err(values.wrong("ObjectType", kind, "is not Image: only images can be read"));
        }
        if values.flag(&["BinaryData"])? == Some(false) {
            return Err(values.wrong(
                "BinaryData",
                "False",
                "means numbers as text: convert the file to binary data",
            ));
        }
        let dimensions = values.required("NDims")?;
        let dimensions: usize = match dimensions.parse() {
            Ok(n @ 2..=4) => n,
            _ => {
                return Err(values.wrong(
                    "NDims",
                    dimensions,
                    "is not 2, 3 or 4: only images and sequences can be read",
                ));
            }
        };
        let sizes = values.required("DimSize")?;
        let size: Vec<u64> =
            sizes.split_whitespace().map(str::parse).collect::<Result<_, _>>().map_err(|_| {
                values.wrong("DimSize", sizes, "is not a list of whole numbers: correct the header")
            })?;
        if size.len() != dimensions {
            let problem =
                format!("does not have the {dimensions} numbers that NDims announces: correct the header");
            return Err(values.wrong("DimSize", sizes, &problem));
        }
        let (width, height) = (size[0], size[1]);
        let limit = 1..=MAX_SIDE_PX as u64;
        if !limit.contains(&width) || !limit.contains(&height) {
            return Err(MediaError::Size { path: path.to_owned(), width, height });
        }
        let slices_per_entry = if dimensions == 4 { size[2] } else { 1 };
        let frame_count = size[2..]
            .iter()
            .try_fold(1u64, |product, &n| product.checked_mul(n))
            .filter(|&count| count > 0 && count < u64::MAX >> 32)
            .ok_or_else(|| {
                values.wrong("DimSize", sizes, "gives no frames or too many: correct the header")
            })?;
        let channels = match values.get(&["ElementNumberOfChannels"]).unwrap_or("1") {
            "1" => 1,
            "3" => 3,
            other => {
                let problem = "is not 1 or 3: only grey and red-green-blue pixels can be read";
                return Err(values.wrong("ElementNumberOfChannels", other, problem));
            }
        };
        let type_name = values.required("ElementType")?;
        let element = ElementType::from_name(type_name).ok_or_else(|| {
            values.wrong("ElementType", type_name, "is not a numeric type such as MET_UCHAR")
        })?;
        let compressed_size = match values.get(&["CompressedDataSize"]) {
            None => None,
            // MetaIO writes 0 where it did not know.
            Some(text) => match text.parse::<u64>() {
                Ok(size) => Some(size).filter(|&size| size > 0),
                Err(_) => return Err(values.wrong("CompressedDataSize", text, "is not a number of bytes")),
            },
        };
        let skip_bytes = match values.get(&["HeaderSize"]) {
            None => 0,
            Some(text) => match text.parse::<i64>() {
                Ok(bytes) if bytes >= -1 => bytes,
                _ => {
                    return Err(values.wrong(
                        "HeaderSize",
                        text,
                        "is not -1 or a number of bytes: correct the header",
                    ));
                }
            },
        };
        let spacing: Option<Vec<f64>> = values
            .get(&["ElementSpacing", "ElementSize"])
            .and_then(|text| text.split_whitespace().map(|number| number.parse().ok()).collect());
        let spacing_mm = spacing
            .filter(|s| s.len() >= 2 && s[..2].iter().all(|mm| mm.is_finite() && *mm > 0.0))
            .map(|s| [s[0], s[1]]);
        let bound = |key| {
            values.get(&[key]).and_then(|text| text.parse::<f64>().ok()).filter(|value| value.is_finite())
        };
        let window = match (bound("ElementMin"), bound("ElementMax")) {
            (Some(low), Some(high)) if low < high => Some(Window { low, high }),
            _ => None,
        };
        let data_file = match data_file.as_str() {
            "LOCAL" | "Local" | "local" => DataFile::Local,
            "" => {
                return Err(MediaError::header(
                    path,
                    "ElementDataFile",
                    "is empty: name the file with the pixels",
                ));
            }
            name if name.starts_with("LIST") || name.contains('%') => {
                let problem =
                    "lists one file a slice: join the slices into one file, or give the folder of images";
                return Err(values.wrong("ElementDataFile", name, problem));
            }
            name => DataFile::Beside(name.to_owned()),
        };
        Ok(Self {
            width: width as usize,
            height: height as usize,
            frame_count,
            slices_per_entry,
            channels,
            element,
            big_endian: values.flag(&["BinaryDataByteOrderMSB", "ElementByteOrderMSB"])?.unwrap_or(false),
            compressed: values.flag(&["CompressedData"])?.unwrap_or(false),
            compressed_size,
            spacing_mm,
            window,
            orientation: values.get(&["UltrasoundImageOrientation"]).map(str::to_owned),
            data_file,
            skip_bytes,
            header_bytes,
            last_line_bytes: 0,
            fields,
        })
    }
}

/// Transforms of a frame that are looked through one by one; where there are more, they are found by an index.
const FEW_TRANSFORMS: usize = 64;

/// Where the transforms of a frame are, by name; empty while it has few.
type Index = HashMap<String, usize>;

fn keep_frame_field((fields, index): (&mut FrameFields, &mut Index), name: &str, value: &str) {
    if name == "Timestamp" {
        let number = value.parse::<f64>().ok().filter(|seconds| seconds.is_finite());
        fields.timestamp_s = Some(number.ok_or_else(|| value.to_owned()));
    } else if name == "ImageStatus" {
        fields.image_status = Some(value.to_owned());
    } else if let Some(name) = name.strip_suffix("TransformStatus") {
        transform_named(fields, index, name).valid &= value == "OK";
    } else if let Some(name) = name.strip_suffix("Transform") {
        let transform = transform_named(fields, index, name);
        match parse_matrix(value) {
            Some(matrix) => transform.matrix = matrix,
            None => transform.valid = false,
        }
    }
}

/// The transform of that name, made valid and identity when it is new: matrix and status come in any order.
fn transform_named<'a>(fields: &'a mut FrameFields, index: &mut Index, name: &str) -> &'a mut NamedTransform {
    let transforms = &mut fields.transforms;
    let count = transforms.len();
    let place = if count <= FEW_TRANSFORMS {
        transforms.iter().position(|transform| transform.name == name)
    } else {
        if index.is_empty() {
            index.extend(transforms.iter().enumerate().map(|(at, transform)| (transform.name.clone(), at)));
        }
        index.get(name).copied()
    };
    let place = place.unwrap_or_else(|| {
        let matrix = std::array::from_fn(|i| std::array::from_fn(|j| f64::from(u8::from(i == j))));
        transforms.push(NamedTransform { name: name.to_owned(), matrix, valid: true });
        if count > FEW_TRANSFORMS {
            index.insert(name.to_owned(), count);
        }
        count
    });
    &mut transforms[place]
}

fn parse_matrix(text: &str) -> Option<[[f64; 4]; 4]> {
    let mut matrix = [[0.0; 4]; 4];
    let mut numbers = text.split_whitespace();
    for value in matrix.iter_mut().flatten() {
        *value = numbers.next()?.parse().ok().filter(|number: &f64| number.is_finite())?;
    }
    numbers.next().is_none().then_some(matrix)
}

/// The lines that are not about one frame.
struct Values<'a> {
    path: &'a Path,
    values: BTreeMap<String, String>,
}

impl Values<'_> {
    /// The first of these keys that is there: some have two spellings.
    fn get(&self, keys: &[&str]) -> Option<&str> {
        keys.iter().find_map(|key| self.values.get(*key)).map(String::as_str)
    }

    fn required(&self, key: &str) -> Result<&str, MediaError> {
        self.get(&[key]).ok_or_else(|| {
            MediaError::header(self.path, key, "is missing: the file is not a MetaImage or is damaged")
        })
    }

    fn flag(&self, keys: &[&str]) -> Result<Option<bool>, MediaError> {
        match self.get(keys).map(|text| (text, text.to_ascii_lowercase())) {
            None => Ok(None),
            Some((_, text)) if ["true", "t", "1", "yes"].contains(&text.as_str()) => Ok(Some(true)),
            Some((_, text)) if ["false", "f", "0", "no"].contains(&text.as_str()) => Ok(Some(false)),
            Some((text, _)) => Err(self.wrong(keys[0], text, "is not True or False: correct the header")),
        }
    }

    fn wrong(&self, field: &str, value: &str, problem: &str) -> MediaError {
        // A damaged header may hold anything: keep the sentence short and printable.
        let shown: String = value.chars().filter(|c| !c.is_control()).take(60).collect();
        MediaError::header(self.path, field, format!("= {shown} {problem}"))
    }
}
