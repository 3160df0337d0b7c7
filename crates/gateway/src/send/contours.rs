//! Outlines as POLYDATA, in the form that every reader reads.
//!
//! The reference library, which 3D Slicer uses, knows scalars, vectors and normals of points, and takes attributes of
//! cells for tensors, of which it then reads more than there are. So what is known of an outline stands at each of its
//! points.

use std::borrow::Cow;

use ultramotion_igtlink::{Attribute, AttributeKind, Cells, PolyData};

/// What is known of an outline.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OutlineValues {
    /// `TrackId`: the identity of its object.
    pub track_id: i32,
    /// `Class`: the class's number.
    pub class: usize,
    /// `Score`: 0 to 1.
    pub score: f32,
}

/// Closed lines with values.
///
/// ```
/// use ultramotion_gateway::send::{Contours, OutlineValues};
///
/// let mut contours = Contours::default();
/// let corners = [[0.0, 0.0, 1.0], [2.0, 0.0, 1.0], [2.0, 3.0, 1.0]];
/// contours.push(corners.into_iter(), OutlineValues { track_id: 7, class: 0, score: 0.5 });
/// let data = contours.finish();
/// assert_eq!(data.lines.iter().next(), Some(&[0, 1, 2, 0][..]));
/// assert_eq!(data.attributes[0].values, [7.0; 3], "one for each point");
/// ```
#[derive(Debug, Default)]
pub struct Contours {
    points: Vec<[f32; 3]>,
    lines: Cells,
    cell: Vec<u32>,
    values: [Vec<f32>; 3],
}

impl Contours {
    /// Adds an outline; its last point is joined to its first.
    pub fn push(&mut self, points: impl Iterator<Item = [f32; 3]>, values: OutlineValues) {
        let first = self.points.len() as u32;
        self.points.extend(points);
        self.cell.clear();
        self.cell.extend((first..self.points.len() as u32).chain([first]));
        self.lines.push(&self.cell);
        let OutlineValues { track_id, class, score } = values;
        for (all, value) in self.values.iter_mut().zip([track_id as f32, class as f32, score]) {
            all.resize(self.points.len(), value);
        }
    }

    /// All of it; without outlines it is empty, and without attributes.
    pub fn finish(self) -> PolyData<'static> {
        let Contours { points, lines, values, .. } = self;
        let attribute = |(name, values): (&'static str, _)| Attribute {
            kind: AttributeKind::PointScalars,
            components: 1,
            name: Cow::Borrowed(name.as_bytes()),
            values,
        };
        let names = ["TrackId", "Class", "Score"];
        let attributes = if lines.is_empty() {
            Vec::new()
        } else {
            names.into_iter().zip(values).map(attribute).collect()
        };
        PolyData { points, lines, attributes, ..PolyData::default() }
    }
}
