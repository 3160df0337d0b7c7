//! Plain numbers: SENSOR and NDARRAY.

use std::borrow::Cow;
use std::fmt;

use crate::codes::closed_enum;
use crate::content::body::{Body, Wire};
use crate::error::{DecodeError, EncodeError, Problem, fits};
use crate::value::{Fields, Numbers, Value};
use crate::wire::{Endian, Reader, Writer};

/// An SI unit in 64 bits: a prefix, and up to six base or derived units with exponents
/// (protocol document, `unit.md`).
///
/// ```
/// use ultramotion_igtlink::Unit;
/// let acceleration = Unit::new(0, &[(Unit::METER, 1), (Unit::SECOND, -2)]).expect("exponents within -7 to 7");
/// assert_eq!(acceleration.to_string(), "m s^-2");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Unit(pub u64);

/// Symbols by unit code.
const UNIT_SYMBOLS: [&str; 0x1c] = [
    "", "m", "g", "s", "A", "K", "mol", "cd", "rad", "sr", "Hz", "N", "Pa", "J", "W", "C", "V", "F", "Ohm",
    "S", "Wb", "T", "H", "lm", "lx", "Bq", "Gy", "Sv",
];
/// Symbols by prefix code.
const PREFIX_SYMBOLS: [&str; 16] =
    ["", "da", "h", "k", "M", "G", "T", "P", "", "d", "c", "m", "u", "n", "p", "f"];

impl Unit {
    /// No unit given.
    pub const NONE: Self = Self(0);
    /// Code of the metre.
    pub const METER: u8 = 1;
    /// Code of the gram.
    pub const GRAM: u8 = 2;
    /// Code of the second.
    pub const SECOND: u8 = 3;
    /// Code of the newton.
    pub const NEWTON: u8 = 0x0b;

    /// From a prefix code and up to six (unit code, exponent) pairs; `None` where a code exceeds
    /// its bits or an exponent lies outside -7 to 7.
    pub fn new(prefix: u8, factors: &[(u8, i8)]) -> Option<Self> {
        if prefix > 0xf || factors.len() > 6 {
            return None;
        }
        let mut bits = u64::from(prefix) << 60;
        for (slot, &(unit, exponent)) in factors.iter().enumerate() {
            if unit > 0x3f || !(-7..=7).contains(&exponent) {
                return None;
            }
            let pair = u64::from(unit) << 4 | u64::from(exponent as u8 & 0xf);
            bits |= pair << (50 - 10 * slot);
        }
        Some(Self(bits))
    }

    /// The prefix code.
    pub const fn prefix(self) -> u8 {
        (self.0 >> 60) as u8
    }

    /// The (unit code, exponent) pairs that are there.
    pub fn factors(self) -> impl Iterator<Item = (u8, i8)> {
        (0..6).filter_map(move |slot| {
            let pair = (self.0 >> (50 - 10 * slot)) as u16 & 0x3ff;
            let exponent = ((pair as i8) << 4) >> 4;
            (pair >> 4 != 0).then_some(((pair >> 4) as u8, exponent))
        })
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX_SYMBOLS[usize::from(self.prefix())])?;
        for (position, (unit, exponent)) in self.factors().enumerate() {
            let gap = if position > 0 { " " } else { "" };
            match UNIT_SYMBOLS.get(usize::from(unit)) {
                Some(symbol) => write!(f, "{gap}{symbol}")?,
                None => write!(f, "{gap}unit{unit:#04x}")?,
            }
            if exponent != 1 {
                write!(f, "^{exponent}")?;
            }
        }
        Ok(())
    }
}

/// Readings of sensors with a common unit (protocol document, `sensordata.md`).
#[derive(Debug, Clone, PartialEq)]
pub struct Sensor {
    /// Reserved by the standard; kept as it came.
    pub status: u8,
    /// Unit of all values.
    pub unit: Unit,
    /// Up to 255 values.
    pub values: Vec<f64>,
}

impl Body<'_> for Sensor {
    fn decode(_: &'static str, content: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("SENSOR", content);
        let count = r.u8("array length")?;
        let (status, unit) = (r.u8("status")?, Unit(r.u64("unit")?));
        if r.remaining() != usize::from(count) * 8 {
            return Err(r.error("array length", count.into(), Problem::Expected(r.remaining() as u64 / 8)));
        }
        let mut values = Vec::with_capacity(count.into());
        for _ in 0..count {
            values.push(r.f64("data")?);
        }
        Ok(Self { status, unit, values })
    }
}

impl Wire for Sensor {
    fn size(&self) -> Result<usize, EncodeError> {
        Ok(10 + 8 * fits("SENSOR", "values", self.values.len(), u8::MAX.into())?)
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.u8(self.values.len() as u8);
        w.u8(self.status);
        w.u64(self.unit.0);
        self.values.iter().for_each(|&value| w.f64(value));
    }

    fn fields(&self, _: usize) -> Fields {
        vec![
            ("status", self.status.into()),
            ("unit", self.unit.to_string().into()),
            ("unit_bits", self.unit.0.into()),
            ("values", self.values.iter().copied().collect()),
        ]
    }
}

closed_enum! {
    /// Type of an array's elements.
    ArrayType("2 to 7, 10, 11 or 13") {
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
        /// Two doubles, real and imaginary.
        Complex = 13,
    }
}

impl ArrayType {
    /// Bytes of one element.
    pub const fn size_bytes(self) -> usize {
        match self {
            Self::Int8 | Self::Uint8 => 1,
            Self::Int16 | Self::Uint16 => 2,
            Self::Int32 | Self::Uint32 | Self::Float32 => 4,
            Self::Float64 => 8,
            Self::Complex => 16,
        }
    }
}

/// An array of any rank (protocol document, `ndarray.md`).
///
/// ```
/// use ultramotion_igtlink::NdArray;
/// let array = NdArray::from_f64(vec![2, 2], &[1.0, 2.0, 3.0, 4.0]);
/// assert_eq!(array.to_f64().as_deref(), Some(&[1.0, 2.0, 3.0, 4.0][..]));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NdArray<'a> {
    /// Type of the elements.
    pub scalar: ArrayType,
    /// Length along each of the 1 to 255 axes.
    pub shape: Vec<u16>,
    /// The elements, big-endian, the last axis running fastest.
    pub data: Cow<'a, [u8]>,
}

impl<'a> NdArray<'a> {
    /// An array of doubles; encoding fails if shape and number of values differ.
    pub fn from_f64(shape: Vec<u16>, values: &[f64]) -> NdArray<'static> {
        let data = values.iter().flat_map(|value| value.to_be_bytes()).collect();
        NdArray { scalar: ArrayType::Float64, shape, data: Cow::Owned(data) }
    }

    /// The values of an array of doubles, or `None` for another type.
    pub fn to_f64(&self) -> Option<Vec<f64>> {
        if self.scalar != ArrayType::Float64 {
            return None;
        }
        let (chunks, _) = self.data.as_chunks::<8>();
        Some(chunks.iter().map(|&chunk| f64::from_be_bytes(chunk)).collect())
    }

    /// The same array with its own copy of the data.
    pub fn into_owned(self) -> NdArray<'static> {
        NdArray { scalar: self.scalar, shape: self.shape, data: Cow::Owned(self.data.into_owned()) }
    }

    fn consistent(&self) -> Result<(), (&'static str, u64, Problem)> {
        if self.shape.is_empty() {
            return Err(("dimensions", 0, Problem::AtLeast(1)));
        }
        // A product beyond 64 bits is no size that data can have; so is its saturated value.
        let elements = self.shape.iter().try_fold(1u64, |n, &size| n.checked_mul(size.into()));
        let bytes = elements.and_then(|n| n.checked_mul(self.scalar.size_bytes() as u64)).unwrap_or(u64::MAX);
        if bytes != self.data.len() as u64 {
            return Err(("data bytes", self.data.len() as u64, Problem::Expected(bytes)));
        }
        Ok(())
    }
}

impl<'a> Body<'a> for NdArray<'a> {
    fn decode(_: &'static str, content: &'a [u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("NDARRAY", content);
        let scalar = ArrayType::read(&mut r, "scalar type")?;
        let rank = r.u8("dimensions")?;
        if usize::from(rank) * 2 > r.remaining() {
            return Err(r.error("dimensions", rank.into(), Problem::Exceeds(r.remaining() as u64 / 2)));
        }
        let mut shape = Vec::with_capacity(rank.into());
        for _ in 0..rank {
            shape.push(r.u16("size")?);
        }
        let array = Self { scalar, shape, data: Cow::Borrowed(r.take_rest()) };
        array
            .consistent()
            .map_err(|(field, value, problem)| DecodeError::field("NDARRAY", field, value, problem))?;
        Ok(array)
    }
}

impl Wire for NdArray<'_> {
    fn size(&self) -> Result<usize, EncodeError> {
        let rank = fits("NDARRAY", "dimensions", self.shape.len(), u8::MAX.into())?;
        self.consistent()
            .map_err(|(field, value, problem)| EncodeError::field("NDARRAY", field, value, problem))?;
        Ok(2 + 2 * rank + self.data.len())
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.u8(self.scalar.code());
        w.u8(self.shape.len() as u8);
        w.u16s(&self.shape);
        w.bytes(&self.data);
    }

    fn fields(&self, _: usize) -> Fields {
        let (code, bytes) = (self.scalar.code(), self.data.to_vec());
        vec![
            ("scalar_type", self.scalar.into()),
            ("shape", self.shape.iter().copied().collect()),
            ("values", Value::Numbers(Numbers { code, endian: Endian::Big, bytes })),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn units_survive(prefix in 0u8..16, factors in proptest::collection::vec((1u8..64, -7i8..8), 0..7)) {
            let unit = Unit::new(prefix, &factors).expect("within range");
            prop_assert_eq!(unit.prefix(), prefix);
            prop_assert_eq!(unit.factors().collect::<Vec<_>>(), factors);
        }

        #[test]
        fn any_bits_print(bits: u64) {
            let _ = Unit(bits).to_string();
        }
    }

    #[test]
    fn the_documents_example() {
        // Torque, from `sensordata.md`, which writes the exponents as 0.
        let unit = Unit(0x02c0_1000_0000_0000);
        assert_eq!(unit.factors().collect::<Vec<_>>(), [(Unit::NEWTON, 0), (Unit::METER, 0)]);
        let torque = Unit::new(0, &[(Unit::NEWTON, 1), (Unit::METER, 1)]).expect("within range");
        assert_eq!((torque.0, torque.to_string().as_str()), (0x02c4_1100_0000_0000, "N m"));
        assert_eq!(Unit::new(0xb, &[(Unit::METER, 1)]).expect("within range").to_string(), "mm");
    }
}
