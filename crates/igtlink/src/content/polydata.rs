//! POLYDATA: surfaces, lines and points with attributes, after VTK's polygonal data.

use std::borrow::Cow;

use crate::codes::open_enum;
use crate::content::body::{Body, Wire};
use crate::error::{DecodeError, EncodeError, Problem, fits};
use crate::value::{Fields, Value, lossy};
use crate::wire::{Reader, Writer};

const PART: &str = "POLYDATA";
/// Ten numbers: one count for the points, count and size for four kinds of cells, one count.
const HEADER_SIZE: usize = 40;
/// Type, components and count of an attribute.
const ATTRIBUTE_ENTRY_SIZE: usize = 6;

/// Cells of one kind: for each cell the number of its points, then their indices.
///
/// ```
/// use ultramotion_igtlink::Cells;
/// let mut outline = Cells::default();
/// outline.push(&[0, 1, 2, 0]);
/// assert_eq!(outline.iter().next(), Some(&[0, 1, 2, 0][..]));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cells {
    /// How many cells there are.
    count: u32,
    /// Number of points and indices, cell after cell.
    list: Vec<u32>,
}

impl Cells {
    /// Appends a cell with these points.
    ///
    /// # Panics
    /// With more than 2^32 - 1 cells or points in a cell, which memory does not hold either.
    pub fn push(&mut self, points: &[u32]) {
        self.count = self.count.checked_add(1).expect("fewer than 2^32 cells");
        self.list.push(u32::try_from(points.len()).expect("fewer than 2^32 points in a cell"));
        self.list.extend_from_slice(points);
    }

    /// The cells, each as the indices of its points.
    pub fn iter(&self) -> impl Iterator<Item = &[u32]> {
        let mut rest = &self.list[..];
        std::iter::from_fn(move || {
            let (&len, after) = rest.split_first()?;
            let (cell, after) = after.split_at_checked(len as usize)?;
            rest = after;
            Some(cell)
        })
    }

    /// How many cells there are.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn value(&self) -> Value {
        self.iter().map(|cell| cell.iter().copied().collect::<Value>()).collect()
    }

    fn size_bytes(&self) -> usize {
        self.list.len() * 4
    }

    fn read(r: &mut Reader<'_>, sizes: CellSizes) -> Result<Self, DecodeError> {
        if !sizes.bytes.is_multiple_of(4) {
            return Err(r.error(sizes.field, sizes.bytes.into(), Problem::MultipleOf(4)));
        }
        let bytes = r.bytes(sizes.field, sizes.bytes.into())?;
        let (words, _) = bytes.as_chunks::<4>();
        let list: Vec<u32> = words.iter().map(|&word| u32::from_be_bytes(word)).collect();
        let cells = Self { count: sizes.count, list };
        let (mut found, mut claimed) = (0u64, 0);
        for cell in cells.iter() {
            found += 1;
            claimed += 1 + cell.len();
        }
        if claimed != cells.list.len() {
            let left = (cells.list.len() - claimed - 1) as u64;
            return Err(r.error("points of a cell", cells.list[claimed].into(), Problem::Exceeds(left)));
        }
        if found != u64::from(sizes.count) {
            return Err(r.error("number of cells", sizes.count.into(), Problem::Expected(found)));
        }
        Ok(cells)
    }

    fn write(&self, w: &mut Writer<'_>) {
        self.list.iter().for_each(|&value| w.u32(value));
    }
}

impl<'p> FromIterator<&'p [u32]> for Cells {
    fn from_iter<I: IntoIterator<Item = &'p [u32]>>(cells: I) -> Self {
        let mut all = Self::default();
        cells.into_iter().for_each(|cell| all.push(cell));
        all
    }
}

/// Count and size of a kind of cells as the header claims them.
#[derive(Clone, Copy)]
struct CellSizes {
    count: u32,
    bytes: u32,
    field: &'static str,
}

impl CellSizes {
    fn read(r: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        Ok(Self { count: r.u32("number of cells")?, bytes: r.u32(field)?, field })
    }
}

open_enum! {
    /// What an attribute says, and of what.
    AttributeKind: u8 {
        /// Numbers of the points.
        PointScalars = 0x00,
        /// Vectors of the points.
        PointVectors = 0x01,
        /// Normals of the points.
        PointNormals = 0x02,
        /// 3x3 tensors of the points.
        PointTensors = 0x03,
        /// Colours of the points.
        PointRgba = 0x04,
        /// Numbers of the cells.
        CellScalars = 0x10,
        /// Vectors of the cells.
        CellVectors = 0x11,
        /// Normals of the cells.
        CellNormals = 0x12,
        /// 3x3 tensors of the cells.
        CellTensors = 0x13,
        /// Colours of the cells.
        CellRgba = 0x14,
    }
}

impl AttributeKind {
    /// What is wrong with this number of components for this kind, if anything. The reference library knows scalars,
    /// vectors and normals of points, and writes anything else as tensors: 9 numbers for each element, whatever the kind.
    fn problem_with(self, components: u8) -> Option<Problem> {
        let kind = u8::from(self);
        let required = match kind & 0x0f {
            _ if components == 9 && kind > AttributeKind::PointNormals.into() => return None,
            1 | 2 => 3,
            3 => 9,
            4 => 4,
            _ => return (components == 0).then_some(Problem::AtLeast(1)),
        };
        (components != required).then_some(Problem::Expected(required.into()))
    }
}

/// Values that go with the points or the cells.
///
/// The reference library compares the type with scalars, vectors and normals of points, and reads any other as tensors,
/// past the end of the message if it must: send it those three, and tensors.
#[derive(Debug, Clone, PartialEq)]
pub struct Attribute<'a> {
    /// What the values say, and of what.
    pub kind: AttributeKind,
    /// Numbers per point or cell; 9 for any kind but those three where the reference library wrote it.
    pub components: u8,
    /// Name of up to 255 bytes, without its final zero byte.
    pub name: Cow<'a, [u8]>,
    /// The values, the components of an element together.
    pub values: Vec<f32>,
}

/// Polygonal data (protocol document, `polydata.md`).
///
/// Indices are not compared with the number of points while decoding: see
/// [`PolyData::indices_are_valid`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PolyData<'a> {
    /// In millimetres.
    pub points: Vec<[f32; 3]>,
    /// Cells of loose points.
    pub vertices: Cells,
    /// Polylines.
    pub lines: Cells,
    /// Polygons.
    pub polygons: Cells,
    /// Triangle strips.
    pub triangle_strips: Cells,
    /// Values that go with points or cells.
    pub attributes: Vec<Attribute<'a>>,
}

impl<'a> PolyData<'a> {
    /// A closed contour through these points, as one polyline that ends where it began.
    ///
    /// # Panics
    /// With 2^32 points or more.
    pub fn closed_contour(points: Vec<[f32; 3]>) -> Self {
        let count = u32::try_from(points.len()).expect("fewer than 2^32 points");
        let around: Vec<u32> = (0..count).chain((count > 0).then_some(0)).collect();
        let lines = Cells::from_iter((count > 0).then_some(&around[..]));
        Self { points, lines, ..Self::default() }
    }

    /// Whether all cells speak of points that are there.
    pub fn indices_are_valid(&self) -> bool {
        let within =
            |cells: &Cells| cells.iter().flatten().all(|&index| (index as usize) < self.points.len());
        [&self.vertices, &self.lines, &self.polygons, &self.triangle_strips].into_iter().all(within)
    }

    /// The same data with its own copy of the names.
    pub fn into_owned(self) -> PolyData<'static> {
        let own = |a: Attribute<'_>| Attribute {
            kind: a.kind,
            components: a.components,
            name: Cow::Owned(a.name.into_owned()),
            values: a.values,
        };
        PolyData {
            points: self.points,
            vertices: self.vertices,
            lines: self.lines,
            polygons: self.polygons,
            triangle_strips: self.triangle_strips,
            attributes: self.attributes.into_iter().map(own).collect(),
        }
    }
}

fn read_attributes<'a>(r: &mut Reader<'a>, count: u32) -> Result<Vec<Attribute<'a>>, DecodeError> {
    // Each attribute takes an entry and a name of at least its zero byte.
    let most = r.remaining() / (ATTRIBUTE_ENTRY_SIZE + 1);
    if count as usize > most {
        return Err(r.error("number of attributes", count.into(), Problem::Exceeds(most as u64)));
    }
    let entries = r.bytes("number of attributes", u64::from(count) * ATTRIBUTE_ENTRY_SIZE as u64)?;
    let mut attributes = Vec::with_capacity(count as usize);
    let mut name_bytes = 0;
    for entry in entries.chunks_exact(ATTRIBUTE_ENTRY_SIZE) {
        let mut entry = Reader::new(PART, entry);
        let kind: AttributeKind = entry.u8("attribute type")?.into();
        let components = entry.u8("attribute components")?;
        if let Some(problem) = kind.problem_with(components) {
            return Err(entry.error("attribute components", components.into(), problem));
        }
        let name = read_name(r)?;
        name_bytes += name.len() + 1;
        let values = Vec::new();
        attributes.push((
            entry.u32("attribute size")?,
            Attribute { kind, components, name: Cow::Borrowed(name), values },
        ));
    }
    if name_bytes % 2 == 1 {
        r.u8("padding")?;
    }
    let mut filled = Vec::with_capacity(attributes.len());
    for (elements, mut attribute) in attributes {
        let bytes = r.bytes("attribute size", u64::from(elements) * u64::from(attribute.components) * 4)?;
        let (words, _) = bytes.as_chunks::<4>();
        attribute.values = words.iter().map(|&word| f32::from_be_bytes(word)).collect();
        filled.push(attribute);
    }
    Ok(filled)
}

fn read_name<'a>(r: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
    let len = r.position_of_zero().ok_or(r.error(
        "attribute name bytes",
        r.remaining() as u64,
        Problem::AtLeast(1),
    ))?;
    let name = r.bytes("attribute name", len as u64)?;
    r.u8("attribute name")?;
    Ok(name)
}

impl Attribute<'_> {
    fn consistent(&self) -> Result<(), EncodeError> {
        let len = self.values.len() as u64;
        if let Some(at) = self.name.iter().position(|&b| b == 0) {
            let (found, problem) = (self.name.len() as u64, Problem::Expected(at as u64));
            return Err(EncodeError::field(PART, "attribute name length", found, problem));
        }
        fits(PART, "attribute name", self.name.len(), 255)?;
        if let Some(problem) = self.kind.problem_with(self.components) {
            return Err(EncodeError::field(PART, "attribute components", self.components.into(), problem));
        }
        if !len.is_multiple_of(self.components.into()) {
            let problem = Problem::MultipleOf(self.components.into());
            return Err(EncodeError::field(PART, "attribute values", len, problem));
        }
        fits(PART, "attribute values", self.values.len(), u32::MAX.into())?;
        Ok(())
    }
}

impl<'a> Body<'a> for PolyData<'a> {
    fn decode(_: &'static str, content: &'a [u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(PART, content);
        let point_count = r.u32("number of points")?;
        let vertices = CellSizes::read(&mut r, "size of vertices")?;
        let lines = CellSizes::read(&mut r, "size of lines")?;
        let polygons = CellSizes::read(&mut r, "size of polygons")?;
        let strips = CellSizes::read(&mut r, "size of triangle strips")?;
        let attribute_count = r.u32("number of attributes")?;
        if u64::from(point_count) * 12 > r.remaining() as u64 {
            let most = r.remaining() as u64 / 12;
            return Err(r.error("number of points", point_count.into(), Problem::Exceeds(most)));
        }
        let mut points = Vec::with_capacity(point_count as usize);
        for _ in 0..point_count {
            points.push(r.f32s("points")?);
        }
        let data = Self {
            points,
            vertices: Cells::read(&mut r, vertices)?,
            lines: Cells::read(&mut r, lines)?,
            polygons: Cells::read(&mut r, polygons)?,
            triangle_strips: Cells::read(&mut r, strips)?,
            attributes: read_attributes(&mut r, attribute_count)?,
        };
        r.finish(content.len())?;
        Ok(data)
    }
}

impl Wire for PolyData<'_> {
    fn size(&self) -> Result<usize, EncodeError> {
        let max = u64::from(u32::MAX);
        let mut size = HEADER_SIZE + 12 * fits(PART, "points", self.points.len(), max)?;
        for cells in [&self.vertices, &self.lines, &self.polygons, &self.triangle_strips] {
            size += fits(PART, "cells", cells.size_bytes(), max)?;
        }
        size += ATTRIBUTE_ENTRY_SIZE * fits(PART, "attributes", self.attributes.len(), max)?;
        let mut names = 0;
        for attribute in &self.attributes {
            attribute.consistent()?;
            names += attribute.name.len() + 1;
            size += 4 * attribute.values.len();
        }
        Ok(size + names.next_multiple_of(2))
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.u32(self.points.len() as u32);
        for cells in [&self.vertices, &self.lines, &self.polygons, &self.triangle_strips] {
            w.u32(cells.count);
            w.u32(cells.size_bytes() as u32);
        }
        w.u32(self.attributes.len() as u32);
        self.points.iter().for_each(|point| w.f32s(point));
        for cells in [&self.vertices, &self.lines, &self.polygons, &self.triangle_strips] {
            cells.write(w);
        }
        for attribute in &self.attributes {
            w.u8(attribute.kind.into());
            w.u8(attribute.components);
            // `consistent` has seen to it that there is at least one component.
            let elements = attribute.values.len() / usize::from(attribute.components.max(1));
            w.u32(elements as u32);
        }
        let mut names = 0;
        for attribute in &self.attributes {
            w.bytes(&attribute.name);
            w.u8(0);
            names += attribute.name.len() + 1;
        }
        if names % 2 == 1 {
            w.u8(0);
        }
        self.attributes.iter().for_each(|attribute| w.f32s(&attribute.values));
    }

    fn fields(&self, _: usize) -> Fields {
        let attribute = |a: &Attribute<'_>| {
            vec![
                ("name", lossy(&a.name)),
                ("kind", a.kind.into()),
                ("components", a.components.into()),
                ("values", a.values.iter().copied().collect()),
            ]
        };
        vec![
            ("points", self.points.len().into()),
            ("coordinates_mm", self.points.as_flattened().iter().copied().collect()),
            ("indices_valid", self.indices_are_valid().into()),
            ("vertices", self.vertices.value()),
            ("lines", self.lines.value()),
            ("polygons", self.polygons.value()),
            ("triangle_strips", self.triangle_strips.value()),
            ("attributes", self.attributes.iter().map(attribute).collect()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the reference library makes of attributes of cells: 9 numbers for each, whatever their kind.
    #[test]
    fn attributes_of_cells_are_read_as_the_standard_and_as_the_reference_library_write_them() {
        let two_lines: Cells = [&[0, 1][..], &[1, 0]].into_iter().collect();
        for (kind, own) in [
            (AttributeKind::CellScalars, 1),
            (AttributeKind::CellVectors, 3),
            (AttributeKind::CellNormals, 3),
            (AttributeKind::CellRgba, 4),
            (AttributeKind::PointRgba, 4),
        ] {
            for components in [own, 9] {
                let values = (0..2 * components).map(f32::from).collect();
                let data = PolyData {
                    points: vec![[0.0; 3]; 2],
                    lines: two_lines.clone(),
                    attributes: vec![Attribute { kind, components, name: b"A".into(), values }],
                    ..PolyData::default()
                };
                let mut bytes = vec![0; data.size().unwrap()];
                data.write(&mut Writer::new(&mut bytes));
                assert_eq!(PolyData::decode("POLYDATA", &bytes).unwrap(), data, "{kind:?} {components}");
            }
        }
        let of_points = AttributeKind::PointVectors;
        assert_eq!(of_points.problem_with(9), Some(Problem::Expected(3)), "these the library does know");
    }
}
