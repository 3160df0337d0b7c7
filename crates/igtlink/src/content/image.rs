//! IMAGE: pixels of a frame or a volume, with their place in space.

use std::borrow::Cow;

use crate::codes::closed_enum;
use crate::content::body::{Body, Wire};
use crate::error::{DecodeError, EncodeError, Problem};
use crate::value::{Fields, Numbers, Value};
use crate::wire::{Endian, Reader, Writer};

const PART: &str = "IMAGE";
const HEADER_SIZE: usize = 72;
/// The only version of the image header.
const VERSION: u16 = 1;

closed_enum! {
    /// Type of one pixel component.
    ScalarType("2 to 7, 10 or 11") {
        /// 8-bit signed.
        Int8 = 2,
        /// 8-bit unsigned.
        Uint8 = 3,
        /// 16-bit signed.
        Int16 = 4,
        /// 16-bit unsigned.
        Uint16 = 5,
        /// 32-bit signed.
        Int32 = 6,
        /// 32-bit unsigned.
        Uint32 = 7,
        /// IEEE 754 single precision.
        Float32 = 10,
        /// IEEE 754 double precision.
        Float64 = 11,
    }
}

impl ScalarType {
    /// Bytes of one component.
    pub const fn size_bytes(self) -> usize {
        match self {
            Self::Int8 | Self::Uint8 => 1,
            Self::Int16 | Self::Uint16 => 2,
            Self::Int32 | Self::Uint32 | Self::Float32 => 4,
            Self::Float64 => 8,
        }
    }
}

closed_enum! {
    /// Which way the axes of the world point, seen from the patient.
    CoordinateSystem("1 or 2") {
        /// Right, anterior, superior.
        Ras = 1,
        /// Left, posterior, superior.
        Lps = 2,
    }
}

/// Where an image lies: what one step along each index means in the world, and where its middle is.
///
/// All in millimetres. The position is that of the image's centre, not of its first pixel: the
/// protocol document says so in a note of 2011, and 3D Slicer, PLUS and pyigtl take the centre to
/// be at index `(size - 1) / 2`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Placement {
    /// World vector from a pixel to its neighbour along index i; its length is the spacing.
    pub step_i: [f32; 3],
    /// The same along j.
    pub step_j: [f32; 3],
    /// The same along k.
    pub step_k: [f32; 3],
    /// World position of the image's centre.
    pub center: [f32; 3],
}

impl Placement {
    /// Unit steps along the world's axes, centred on its origin.
    pub const IDENTITY: Self =
        Self { step_i: [1.0, 0.0, 0.0], step_j: [0.0, 1.0, 0.0], step_k: [0.0, 0.0, 1.0], center: [0.0; 3] };

    /// From the matrix that takes (i, j, k, 1) to world coordinates, by rows.
    pub fn from_world_from_ijk(matrix: [[f64; 4]; 4], size: [u16; 3]) -> Self {
        let column = |c: usize| [matrix[0][c], matrix[1][c], matrix[2][c]];
        let mut center = column(3);
        for (axis, &n) in size.iter().enumerate() {
            let half = (f64::from(n) - 1.0) / 2.0;
            for (c, s) in center.iter_mut().zip(column(axis)) {
                *c += half * s;
            }
        }
        let narrow = |v: [f64; 3]| v.map(|x| x as f32);
        Self {
            step_i: narrow(column(0)),
            step_j: narrow(column(1)),
            step_k: narrow(column(2)),
            center: narrow(center),
        }
    }

    /// The matrix that takes (i, j, k, 1) to world coordinates, by rows.
    pub fn world_from_ijk(&self, size: [u16; 3]) -> [[f64; 4]; 4] {
        let mut matrix = [[0.0, 0.0, 0.0, 0.0], [0.0; 4], [0.0; 4], [0.0, 0.0, 0.0, 1.0]];
        for (row, line) in matrix.iter_mut().take(3).enumerate() {
            let steps = [self.step_i[row], self.step_j[row], self.step_k[row]].map(f64::from);
            let mut origin = f64::from(self.center[row]);
            for (step, n) in steps.iter().zip(size) {
                origin -= step * (f64::from(n) - 1.0) / 2.0;
            }
            *line = [steps[0], steps[1], steps[2], origin];
        }
        matrix
    }

    /// Pixel spacing along i, j and k.
    pub fn spacing_mm(&self) -> [f64; 3] {
        [self.step_i, self.step_j, self.step_k]
            .map(|step| step.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt())
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let [step_i, step_j, step_k] = [r.f32s("matrix")?, r.f32s("matrix")?, r.f32s("matrix")?];
        let center = r.f32s("center")?;
        Ok(Self { step_i, step_j, step_k, center })
    }

    /// The centre, and the matrix in the precision of the wire.
    pub(crate) fn fields(&self, size: [u16; 3]) -> Fields {
        let matrix = self.world_from_ijk(size).map(|row| row.map(|value| value as f32));
        vec![("center_mm", self.center.into()), ("world_from_ijk", matrix.into())]
    }

    pub(crate) fn write(&self, w: &mut Writer<'_>) {
        for vector in [&self.step_i, &self.step_j, &self.step_k, &self.center] {
            w.f32s(vector);
        }
    }
}

/// A frame or volume, or a box cut out of one (protocol document, `image.md`).
///
/// Pixels are stored with i (columns) running fastest, then j, then k; the components of a pixel
/// lie together. An image of no pixels is legal; whether it is useful is for the receiver to say.
///
/// ```
/// use ultramotion_igtlink::Image;
/// let image = Image::grey8(4, 2, &[0, 1, 2, 3, 4, 5, 6, 7]);
/// assert_eq!(image.size, [4, 2, 1]);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Image<'a> {
    /// Numbers per pixel: 1 for grey, 3 for RGB.
    pub components: u8,
    /// Type of each.
    pub scalar: ScalarType,
    /// Byte order of each.
    pub endian: Endian,
    /// Axes of the world that `placement` speaks of.
    pub coordinates: CoordinateSystem,
    /// Pixels of the whole image along i, j and k.
    pub size: [u16; 3],
    /// Where the whole image lies.
    pub placement: Placement,
    /// First pixel of the part that this message carries.
    pub subvolume_offset: [u16; 3],
    /// Pixels of the part that this message carries; equal to `size` where it carries all.
    pub subvolume_size: [u16; 3],
    /// The pixels of that part.
    pub pixels: Cow<'a, [u8]>,
}

impl<'a> Image<'a> {
    /// A grey frame of 8 bits at unit spacing, in the LPS system.
    ///
    /// `pixels` has `width * height` bytes, row by row; encoding fails if it has not.
    pub fn grey8(width: u16, height: u16, pixels: impl Into<Cow<'a, [u8]>>) -> Self {
        Self::new(ScalarType::Uint8, 1, [width, height, 1], pixels)
    }

    /// A whole image in native byte order at unit spacing, in the LPS system.
    pub fn new(scalar: ScalarType, components: u8, size: [u16; 3], pixels: impl Into<Cow<'a, [u8]>>) -> Self {
        Self {
            components,
            scalar,
            endian: Endian::NATIVE,
            coordinates: CoordinateSystem::Lps,
            size,
            placement: Placement::IDENTITY,
            subvolume_offset: [0; 3],
            subvolume_size: size,
            pixels: pixels.into(),
        }
    }

    /// The same image at this place.
    pub fn placed(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }

    /// Whether the message carries the whole image.
    pub fn is_whole(&self) -> bool {
        self.subvolume_offset == [0; 3] && self.subvolume_size == self.size
    }

    /// The pixels in native byte order: borrowed where they are already.
    pub fn native_pixels(&self) -> Cow<'_, [u8]> {
        let size = self.scalar.size_bytes();
        if self.endian == Endian::NATIVE || size == 1 {
            return Cow::Borrowed(&self.pixels);
        }
        let mut pixels = self.pixels.to_vec();
        pixels.chunks_exact_mut(size).for_each(<[u8]>::reverse);
        Cow::Owned(pixels)
    }

    /// The same image with its own copy of the pixels.
    pub fn into_owned(self) -> Image<'static> {
        Image { pixels: Cow::Owned(self.pixels.into_owned()), ..self }
    }

    /// Whether the fields agree with each other and with the number of pixels.
    fn consistent(&self) -> Result<(), (&'static str, u64, Problem)> {
        if self.components == 0 {
            return Err(("components", 0, Problem::AtLeast(1)));
        }
        for axis in 0..3 {
            let [offset, part, size] =
                [self.subvolume_offset[axis], self.subvolume_size[axis], self.size[axis]].map(u64::from);
            if offset + part > size {
                return Err(("subvolume end", offset + part, Problem::Exceeds(size)));
            }
        }
        // At most 255 * 8 * 65535^3 < 2^60.
        let pixels: u64 = self.subvolume_size.iter().map(|&n| u64::from(n)).product();
        let bytes = pixels * u64::from(self.components) * self.scalar.size_bytes() as u64;
        if bytes != self.pixels.len() as u64 {
            return Err(("pixel bytes", self.pixels.len() as u64, Problem::Expected(bytes)));
        }
        Ok(())
    }
}

impl<'a> Body<'a> for Image<'a> {
    fn decode(_: &'static str, content: &'a [u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(PART, content);
        let version = r.u16("image version")?;
        if version != VERSION {
            return Err(r.error("image version", version.into(), Problem::Expected(VERSION.into())));
        }
        let image = Self {
            components: r.u8("components")?,
            scalar: ScalarType::read(&mut r, "scalar type")?,
            endian: Endian::read(&mut r, "endian")?,
            coordinates: CoordinateSystem::read(&mut r, "coordinate system")?,
            size: r.u16s("size")?,
            placement: Placement::read(&mut r)?,
            subvolume_offset: r.u16s("subvolume offset")?,
            subvolume_size: r.u16s("subvolume size")?,
            pixels: Cow::Borrowed(r.take_rest()),
        };
        image
            .consistent()
            .map_err(|(field, value, problem)| DecodeError::field(PART, field, value, problem))?;
        Ok(image)
    }
}

impl Wire for Image<'_> {
    fn size(&self) -> Result<usize, EncodeError> {
        self.consistent()
            .map_err(|(field, value, problem)| EncodeError::field(PART, field, value, problem))?;
        Ok(HEADER_SIZE + self.pixels.len())
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.u16(VERSION);
        w.u8(self.components);
        w.u8(self.scalar.code());
        w.u8(self.endian.code());
        w.u8(self.coordinates.code());
        w.u16s(&self.size);
        self.placement.write(w);
        w.u16s(&self.subvolume_offset);
        w.u16s(&self.subvolume_size);
        w.bytes(&self.pixels);
    }

    fn fields(&self, _: usize) -> Fields {
        let mut fields = vec![
            ("size", self.size.into()),
            ("components", self.components.into()),
            ("scalar_type", self.scalar.into()),
            ("endian", self.endian.into()),
            ("coordinates", format!("{:?}", self.coordinates).to_uppercase().into()),
            ("spacing_mm", self.placement.spacing_mm().map(|mm| mm as f32).into()),
        ];
        fields.extend(self.placement.fields(self.size));
        if !self.is_whole() {
            fields.push(("subvolume_offset", self.subvolume_offset.into()));
            fields.push(("subvolume_size", self.subvolume_size.into()));
        }
        let (code, bytes) = (self.scalar.code(), self.pixels.to_vec());
        fields.push(("pixels", Value::Numbers(Numbers { code, endian: self.endian, bytes })));
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn placement_and_matrix_are_inverse(
            v in proptest::array::uniform12(-100.0f32..100.0),
            size in proptest::array::uniform3(1u16..500),
        ) {
            let placement = Placement {
                step_i: [v[0], v[1], v[2]],
                step_j: [v[3], v[4], v[5]],
                step_k: [v[6], v[7], v[8]],
                center: [v[9], v[10], v[11]],
            };
            let back = Placement::from_world_from_ijk(placement.world_from_ijk(size), size);
            prop_assert_eq!(back.step_i, placement.step_i);
            for (a, b) in back.center.iter().zip(placement.center) {
                prop_assert!((a - b).abs() < 1e-4, "{} {}", a, b);
            }
        }
    }

    #[test]
    fn the_centre_is_in_the_middle() {
        let image = Image::grey8(3, 5, vec![0; 15]).placed(Placement {
            step_i: [0.5, 0.0, 0.0],
            step_j: [0.0, 2.0, 0.0],
            ..Placement::IDENTITY
        });
        let matrix = image.placement.world_from_ijk(image.size);
        assert_eq!([matrix[0][3], matrix[1][3], matrix[2][3]], [-0.5, -4.0, 0.0]);
        assert_eq!(image.placement.spacing_mm(), [0.5, 2.0, 1.0]);
    }

    #[test]
    fn byte_order_is_turned() {
        let mut image = Image::new(ScalarType::Uint16, 1, [2, 1, 1], vec![1, 2, 3, 4]);
        assert_eq!(*image.native_pixels(), [1, 2, 3, 4]);
        image.endian = if Endian::NATIVE == Endian::Big { Endian::Little } else { Endian::Big };
        assert_eq!(*image.native_pixels(), [2, 1, 4, 3]);
    }
}
