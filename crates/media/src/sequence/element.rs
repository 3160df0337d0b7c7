//! The scalar types of pixels and their way to 8 bits.

/// A scalar type of MetaImage pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ElementType {
    /// `MET_UCHAR`
    U8,
    /// `MET_CHAR`
    I8,
    /// `MET_USHORT`
    U16,
    /// `MET_SHORT`
    I16,
    /// `MET_UINT`, and `MET_ULONG`, which MetaIO defines as 4 bytes
    U32,
    /// `MET_INT`, and `MET_LONG`, which MetaIO defines as 4 bytes
    I32,
    /// `MET_ULONG_LONG`
    U64,
    /// `MET_LONG_LONG`
    I64,
    /// `MET_FLOAT`
    F32,
    /// `MET_DOUBLE`
    F64,
}

impl ElementType {
    /// Every type.
    pub const ALL: [Self; 10] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::U64,
        Self::I64,
        Self::F32,
        Self::F64,
    ];

    /// Its name in a header.
    pub fn name(self) -> &'static str {
        match self {
            Self::U8 => "MET_UCHAR",
            Self::I8 => "MET_CHAR",
            Self::U16 => "MET_USHORT",
            Self::I16 => "MET_SHORT",
            Self::U32 => "MET_UINT",
            Self::I32 => "MET_INT",
            Self::U64 => "MET_ULONG_LONG",
            Self::I64 => "MET_LONG_LONG",
            Self::F32 => "MET_FLOAT",
            Self::F64 => "MET_DOUBLE",
        }
    }

    /// The type of a header's `ElementType`; `None` where it is no numeric type.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.strip_suffix("_ARRAY").unwrap_or(name);
        match name {
            "MET_ULONG" => Some(Self::U32),
            "MET_LONG" => Some(Self::I32),
            _ => Self::ALL.into_iter().find(|element| element.name() == name),
        }
    }

    /// A number of this type as its bytes, little-endian; one beyond the type's range becomes its end.
    pub(crate) fn parse(self, text: &str) -> Option<Vec<u8>> {
        if let (Self::U64 | Self::I64, Ok(whole)) = (self, text.parse::<i128>()) {
            return Some(match self {
                Self::U64 => (whole.clamp(0, u64::MAX.into()) as u64).to_le_bytes().to_vec(),
                _ => (whole.clamp(i64::MIN.into(), i64::MAX.into()) as i64).to_le_bytes().to_vec(),
            });
        }
        let number: f64 = text.parse().ok()?;
        Some(match self {
            Self::U8 => (number as u8).to_le_bytes().to_vec(),
            Self::I8 => (number as i8).to_le_bytes().to_vec(),
            Self::U16 => (number as u16).to_le_bytes().to_vec(),
            Self::I16 => (number as i16).to_le_bytes().to_vec(),
            Self::U32 => (number as u32).to_le_bytes().to_vec(),
            Self::I32 => (number as i32).to_le_bytes().to_vec(),
            Self::U64 => (number as u64).to_le_bytes().to_vec(),
            Self::I64 => (number as i64).to_le_bytes().to_vec(),
            Self::F32 => (number as f32).to_le_bytes().to_vec(),
            Self::F64 => number.to_le_bytes().to_vec(),
        })
    }

    /// Bytes of one value.
    pub fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }
}

/// The values that become 0 and 255.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Window {
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// Calls `$each` with every value of `$raw` as f64.
macro_rules! for_values {
    ($raw:expr, $type:ty, $big_endian:expr, $each:expr) => {{
        const BYTES: usize = size_of::<$type>();
        let mut each = $each;
        for chunk in $raw.chunks_exact(BYTES) {
            let mut bytes = [0u8; BYTES];
            bytes.copy_from_slice(chunk);
            let value =
                if $big_endian { <$type>::from_be_bytes(bytes) } else { <$type>::from_le_bytes(bytes) };
            each(value as f64);
        }
    }};
}

fn each_value(raw: &[u8], element: ElementType, big_endian: bool, each: impl FnMut(f64)) {
    match element {
        ElementType::U8 => for_values!(raw, u8, big_endian, each),
        ElementType::I8 => for_values!(raw, i8, big_endian, each),
        ElementType::U16 => for_values!(raw, u16, big_endian, each),
        ElementType::I16 => for_values!(raw, i16, big_endian, each),
        ElementType::U32 => for_values!(raw, u32, big_endian, each),
        ElementType::I32 => for_values!(raw, i32, big_endian, each),
        ElementType::U64 => for_values!(raw, u64, big_endian, each),
        ElementType::I64 => for_values!(raw, i64, big_endian, each),
        ElementType::F32 => for_values!(raw, f32, big_endian, each),
        ElementType::F64 => for_values!(raw, f64, big_endian, each),
    }
}

impl Window {
    /// From the smallest to the largest finite value; `None` if there are not two different ones.
    pub(crate) fn of(raw: &[u8], element: ElementType, big_endian: bool) -> Option<Self> {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        each_value(raw, element, big_endian, |value| {
            if value.is_finite() {
                low = low.min(value);
                high = high.max(value);
            }
        });
        (low < high).then_some(Self { low, high })
    }

    /// Converts `raw` into `grey`, one byte a value.
    pub(crate) fn apply(self, raw: &[u8], element: ElementType, big_endian: bool, grey: &mut Vec<u8>) {
        grey.clear();
        grey.reserve(raw.len() / element.bytes());
        // Halved first, because the range of two finite numbers may not be finite.
        let half_range = 0.5 * self.high - 0.5 * self.low;
        each_value(raw, element, big_endian, |value| {
            let share = (0.5 * value - 0.5 * self.low) / half_range;
            // A cast saturates, and takes NaN to 0.
            grey.push((255.0 * share).round() as u8);
        });
    }
}
