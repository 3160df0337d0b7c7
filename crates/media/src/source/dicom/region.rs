//! The parts of a scanner's screen, and how large their pixels are (PS3.3 section C.8.5.5).

use dicom_dictionary_std::tags;

use super::elements::DataSet;
use crate::source::crop::Rectangle;

/// Which part of the screen becomes the frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Region {
    /// All of it.
    #[default]
    Whole,
    /// The first region that is two-dimensional tissue (B-mode); all of the screen where the file names none.
    Auto,
    /// The region at this place in the file's list, from 1.
    Number(usize),
}

impl std::str::FromStr for Region {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "whole" => Ok(Region::Whole),
            "auto" => Ok(Region::Auto),
            number => match number.parse() {
                Ok(number @ 1..) => Ok(Region::Number(number)),
                _ => Err("it must be whole, auto, or the number of a region, from 1".into()),
            },
        }
    }
}

/// What a file says about a part of its screen.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Part {
    rectangle: Option<Rectangle>,
    spatial_format: u16,
    data_type: u16,
    spacing_mm: Option<[f64; 2]>,
}

/// What is cut out, and the size of its pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cut {
    pub(super) rectangle: Option<Rectangle>,
    pub(super) spacing_mm: Option<[f64; 2]>,
}

/// Value of "Region Spatial Format" for a plane.
const PLANE: u16 = 1;
/// Value of "Region Data Type" for tissue.
const TISSUE: u16 = 1;
/// Value of "Physical Units" for centimetres.
const CENTIMETRES: u16 = 3;

impl Part {
    fn of(item: &DataSet, width: usize, height: usize) -> Self {
        let corner = |tag| item.long(tag).map(|value| value as usize);
        let rectangle = (|| {
            let (left, top) = (corner(tags::REGION_LOCATION_MIN_X0)?, corner(tags::REGION_LOCATION_MIN_Y0)?);
            // Some scanners give the first pixel that is outside.
            let right = corner(tags::REGION_LOCATION_MAX_X1)?.min(width - 1);
            let bottom = corner(tags::REGION_LOCATION_MAX_Y1)?.min(height - 1);
            (left <= right && top <= bottom).then(|| Rectangle {
                left,
                top,
                width: right - left + 1,
                height: bottom - top + 1,
            })
        })();
        let side_mm = |units, delta| {
            let is_length = item.word(units) == Some(CENTIMETRES);
            // The sign is the direction of the axis.
            item.double(delta).map(|cm: f64| 10.0 * cm.abs()).filter(|&mm| is_length && mm > 0.0)
        };
        let spacing_mm = side_mm(tags::PHYSICAL_UNITS_X_DIRECTION, tags::PHYSICAL_DELTA_X)
            .zip(side_mm(tags::PHYSICAL_UNITS_Y_DIRECTION, tags::PHYSICAL_DELTA_Y));
        Self {
            rectangle,
            spatial_format: item.word(tags::REGION_SPATIAL_FORMAT).unwrap_or(0),
            data_type: item.word(tags::REGION_DATA_TYPE).unwrap_or(0),
            spacing_mm: spacing_mm.map(|(x, y)| [x, y]),
        }
    }

    /// "1: 2D tissue, 600x400 pixels at 10,20"
    fn describe(&self, number: usize) -> String {
        let format = match self.spatial_format {
            PLANE => "2D",
            2 => "M-mode",
            3 => "spectral",
            4 => "wave form",
            5 => "graphics",
            _ => "unknown",
        };
        let kind = match self.data_type {
            TISSUE => "tissue",
            2 => "colour flow",
            3 | 4 => "Doppler",
            _ => "other",
        };
        match self.rectangle {
            Some(r) => {
                format!("{number}: {format} {kind}, {}x{} pixels at {},{}", r.width, r.height, r.left, r.top)
            }
            None => format!("{number}: {format} {kind}, outside of the picture"),
        }
    }
}

/// What to cut out of the frames of a file of `width` by `height` pixels; an error says what is wrong with the choice.
pub(super) fn cut(data_set: &DataSet, region: Region, width: usize, height: usize) -> Result<Cut, String> {
    let parts: Vec<Part> = data_set
        .items(tags::SEQUENCE_OF_ULTRASOUND_REGIONS)
        .iter()
        .map(|item| Part::of(item, width, height))
        .collect();
    let plane_of_tissue =
        |part: &&Part| part.spatial_format == PLANE && part.data_type == TISSUE && part.rectangle.is_some();
    let chosen = match region {
        Region::Whole => None,
        Region::Auto => parts.iter().find(plane_of_tissue),
        Region::Number(number) => {
            let part = number.checked_sub(1).and_then(|index| parts.get(index));
            Some(part.filter(|part| part.rectangle.is_some()).ok_or_else(|| {
                let list: Vec<String> =
                    parts.iter().take(16).enumerate().map(|(i, part)| part.describe(i + 1)).collect();
                match list.is_empty() {
                    true => format!(
                        "region {number} cannot be taken, for the file names no regions: take the whole"
                    ),
                    false => format!("region {number} cannot be taken: choose one of {}", list.join("; ")),
                }
            })?)
        }
    };
    if let Some(part) = chosen {
        return Ok(Cut { rectangle: part.rectangle, spacing_mm: part.spacing_mm });
    }
    // One size for all of the screen, where its planes agree on one.
    let mut sizes =
        parts.iter().filter(|part| part.spatial_format == PLANE).filter_map(|part| part.spacing_mm);
    let spacing_mm = match sizes.next() {
        Some(first) => {
            let same =
                |size: [f64; 2]| (0..2).all(|axis| (size[axis] - first[axis]).abs() <= 1e-6 * first[axis]);
            Some(first).filter(|_| sizes.all(same))
        }
        None => pixel_spacing_mm(data_set).filter(|_| parts.is_empty()),
    };
    Ok(Cut { rectangle: None, spacing_mm })
}

/// "Pixel Spacing": between rows, then between columns.
fn pixel_spacing_mm(data_set: &DataSet) -> Option<[f64; 2]> {
    match data_set.decimals(tags::PIXEL_SPACING).as_slice() {
        &[between_rows, between_columns] if between_rows > 0.0 && between_columns > 0.0 => {
            Some([between_columns, between_rows])
        }
        _ => None,
    }
}
