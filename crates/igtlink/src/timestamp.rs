//! Time on the wire: seconds since 1970 as an unsigned 32.32 fixed-point number.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point in time, or an interval, in seconds as 32.32 fixed point (protocol document,
/// `timestamp.md`). The bits are kept, so nothing is lost between the wire and the wire; nanoseconds
/// survive the way there and back as well, `f64` seconds do to about a quarter of a microsecond.
///
/// ```
/// use ultramotion_igtlink::Timestamp;
/// let t = Timestamp::from_nanos(1_234_567_890, 123_456_789);
/// assert_eq!((t.seconds(), t.subsec_nanos()), (1_234_567_890, 123_456_789));
/// assert_eq!(Timestamp::from_bits(t.to_bits()), t);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

const NANOS_PER_SECOND: u64 = 1_000_000_000;

impl Timestamp {
    /// No timestamp given.
    pub const NONE: Self = Self(0);

    /// The 64 bits on the wire.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The 64 bits on the wire.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// Seconds and nanoseconds (below 1e9; more carries over), to the nearest 2^-32 s.
    pub const fn from_nanos(seconds: u32, nanos: u32) -> Self {
        let fraction = (((nanos as u64) << 32) + NANOS_PER_SECOND / 2) / NANOS_PER_SECOND;
        Self(((seconds as u64) << 32).saturating_add(fraction))
    }

    /// Whole seconds.
    pub const fn seconds(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The fraction of a second, in units of 2^-32 s.
    pub const fn fraction(self) -> u32 {
        self.0 as u32
    }

    /// The fraction of a second in nanoseconds, rounded; less than 1e9.
    pub const fn subsec_nanos(self) -> u32 {
        let nanos = (self.fraction() as u64 * NANOS_PER_SECOND + (1 << 31)) >> 32;
        // The last half nanosecond of a second stays in its second.
        if nanos >= NANOS_PER_SECOND { 999_999_999 } else { nanos as u32 }
    }

    /// Seconds as a float: good to a quarter of a microsecond for dates of this century.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / (1u64 << 32) as f64
    }

    /// From seconds; negative and not-a-number become [`Timestamp::NONE`], too large the largest.
    pub fn from_secs_f64(seconds: f64) -> Self {
        // A float-to-integer cast saturates, and takes NaN to 0.
        Self((seconds * (1u64 << 32) as f64).round() as u64)
    }

    /// The time since 1970, to the nearest nanosecond.
    pub const fn as_duration(self) -> Duration {
        Duration::new(self.seconds() as u64, self.subsec_nanos())
    }

    /// From a time since 1970; beyond 2106 the largest timestamp.
    pub fn from_duration(duration: Duration) -> Self {
        match u32::try_from(duration.as_secs()) {
            Ok(seconds) => Self::from_nanos(seconds, duration.subsec_nanos()),
            Err(_) => Self(u64::MAX),
        }
    }

    /// The system clock's time.
    pub fn now() -> Self {
        SystemTime::now().into()
    }
}

impl From<SystemTime> for Timestamp {
    /// Times before 1970 become [`Timestamp::NONE`].
    fn from(time: SystemTime) -> Self {
        Self::from_duration(time.duration_since(UNIX_EPOCH).unwrap_or_default())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.seconds(), self.subsec_nanos())
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Timestamp({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nanoseconds_survive(seconds: u32, nanos in 0u32..1_000_000_000) {
            let time = Timestamp::from_nanos(seconds, nanos);
            prop_assert_eq!((time.seconds(), time.subsec_nanos()), (seconds, nanos));
            prop_assert_eq!(Timestamp::from_duration(time.as_duration()), time);
        }

        #[test]
        fn float_seconds_are_close(bits: u64) {
            let time = Timestamp::from_bits(bits);
            let back = Timestamp::from_secs_f64(time.as_secs_f64());
            prop_assert!(back.to_bits().abs_diff(bits) <= 1 << 11, "{:?} {:?}", time, back);
        }
    }

    #[test]
    fn odd_values_saturate() {
        assert_eq!(Timestamp::from_secs_f64(-1.0), Timestamp::NONE);
        assert_eq!(Timestamp::from_secs_f64(f64::NAN), Timestamp::NONE);
        assert_eq!(Timestamp::from_secs_f64(1e30).to_bits(), u64::MAX);
        assert_eq!(Timestamp::from_bits(u64::MAX).subsec_nanos(), 999_999_999);
        assert_eq!(Timestamp::from_secs_f64(0.5).to_bits(), 1 << 31);
    }
}
