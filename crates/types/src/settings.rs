//! Settings as tables of keys: each key has its name, default, range and sentence in one place.
//!
//! [`settings!`](crate::settings!) declares a table as a struct. From it come the configuration file and what explains
//! it, options of the command line, and keywords elsewhere: they read [`Table::KEYS`] and never list keys themselves.
//!
//! ```
//! use ultramotion_types::settings::{Range, Table};
//!
//! ultramotion_types::settings! {
//!     /// Between receiving and computing
//!     #[derive(Copy)]
//!     pub struct StreamConfig in "stream" {
//!         /// Frames that may wait
//!         pub depth: usize = 2, in Range::within(1.0, 64.0);
//!         /// Milliseconds after which a frame is too old
//!         pub max_lag_ms: u64 = 500;
//!     }
//! }
//!
//! assert_eq!(StreamConfig::KEYS[0].sentence(), "Frames that may wait");
//! let wrong = StreamConfig { depth: 99, ..StreamConfig::default() };
//! assert_eq!(wrong.check().unwrap_err().to_string(), "stream.depth is 99, but it must be 1 to 64");
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use thiserror::Error;

use crate::modes::{MatcherMode, Residency};

/// A value that the type of its key allows and its meaning does not.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{key} is {value}, but it must be {range}")]
pub struct SettingError {
    /// Table and key, or the option's name where there is one.
    pub key: String,
    /// What was given.
    pub value: String,
    /// What is taken.
    pub range: String,
}

/// Numbers that a key takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    min: f64,
    max: f64,
    unit: &'static str,
}

impl Range {
    /// A share: 0 to 1.
    pub const SHARE: Range = Range::within(0.0, 1.0);
    /// 0 or more, and finite.
    pub const NOT_NEGATIVE: Range = Range::within(0.0, f64::INFINITY);
    /// Above 0, and finite.
    pub const POSITIVE: Range = Range::within(f64::MIN_POSITIVE, f64::INFINITY);
    /// Seconds up to a day, which is as good as never.
    pub const SECONDS: Range = Range { min: 0.0, max: 86_400.0, unit: " seconds" };

    /// From `min` to `max`, both included.
    pub const fn within(min: f64, max: f64) -> Self {
        Range { min, max, unit: "" }
    }

    /// Whether a number is in range.
    pub fn contains(self, number: f64) -> bool {
        number.is_finite() && (self.min..=self.max).contains(&number)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.min, self.max) {
            (f64::MIN_POSITIVE, f64::INFINITY) => f.write_str("above 0, and finite"),
            (min, f64::INFINITY) => write!(f, "{min} or more, and finite"),
            (min, max) => write!(f, "{min} to {max}{}", self.unit),
        }
    }
}

/// What kind of text names a value.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Yes or no: an option without a value.
    Flag,
    /// A whole number.
    Count,
    /// A number.
    Number,
    /// Any text.
    Text,
    /// One of these words; each with what it means.
    Words(&'static [(&'static str, &'static str)]),
    /// A word that this function knows, or an error that names those that it does.
    Checked(fn(&str) -> Result<(), String>),
    /// A list or a table: in files only.
    Structure,
}

/// A type that a key can have.
pub trait SettingValue {
    /// How it is written.
    const KIND: Kind;

    /// The number, for [`Range`]s; `None` for what is not one.
    fn number(&self) -> Option<f64> {
        None
    }
}

macro_rules! setting_values {
    ($($kind:expr => $($ty:ty),*;)*) => {$($(
        impl SettingValue for $ty {
            const KIND: Kind = $kind;
        }
    )*)*};
}

macro_rules! setting_numbers {
    ($($kind:expr => $($ty:ty),*;)*) => {$($(
        impl SettingValue for $ty {
            const KIND: Kind = $kind;
            fn number(&self) -> Option<f64> {
                Some(*self as f64)
            }
        }
    )*)*};
}

setting_numbers! {
    Kind::Count => u16, u32, u64, usize;
    Kind::Number => f64;
}

setting_values! {
    Kind::Flag => bool;
    Kind::Text => String, PathBuf, SocketAddr;
    Kind::Structure => [f64; 2], Vec<String>, BTreeMap<String, [f64; 16]>;
    Kind::Checked(|word| word.parse::<Residency>().map(drop).map_err(|error| error.to_string())) => Residency;
    Kind::Words(&[
        ("exact", "Optimal assignment on the device"),
        ("greedy", "Column-wise minimum on the device"),
        ("host", "Optimal assignment on the host"),
    ]) => MatcherMode;
}

impl SettingValue for f32 {
    const KIND: Kind = Kind::Number;
    /// By way of its digits: 0.1, and not the number of an f64 that is nearest to it.
    fn number(&self) -> Option<f64> {
        self.to_string().parse().ok()
    }
}

impl<T: SettingValue> SettingValue for Option<T> {
    const KIND: Kind = T::KIND;
    fn number(&self) -> Option<f64> {
        self.as_ref().and_then(T::number)
    }
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Name in its table.
    pub name: &'static str,
    /// What it means, in lines.
    pub lines: &'static [&'static str],
    /// How it is written.
    pub kind: Kind,
    /// Numbers that it takes, where not all of its type's.
    pub range: Option<Range>,
    /// A value as a file has it, for a key without a default.
    pub example: Option<&'static str>,
    /// On the command line: what stands for its value in help texts. Empty for a key that is no option.
    pub value_name: &'static str,
}

impl Key {
    /// What it means, without the full stop at the end.
    pub fn sentence(&self) -> String {
        let lines: Vec<&str> = self.lines.iter().map(|line| line.trim()).collect();
        lines.join(" ")
    }

    /// Name of its option on the command line, if it is one.
    pub fn option(&self) -> Option<String> {
        (!self.value_name.is_empty()).then(|| self.name.replace('_', "-"))
    }

    /// An error unless the value is in range. `table` is empty for keys that stand in none.
    pub fn check(&self, table: &str, value: &impl SettingValue) -> Result<(), SettingError> {
        match (self.range, value.number()) {
            (Some(range), Some(number)) if !range.contains(number) => {
                let value = number.to_string();
                Err(SettingError { key: self.full_name(table), value, range: range.to_string() })
            }
            _ => Ok(()),
        }
    }

    fn full_name(&self, table: &str) -> String {
        match self.option() {
            Some(option) => option,
            None if table.is_empty() => self.name.to_owned(),
            None => format!("{table}.{}", self.name),
        }
    }
}

/// What is known of a table without having one.
#[derive(Debug, Clone, Copy)]
pub struct TableInfo {
    /// Name in the file, such as `tracker.weights`; empty for the keys that stand first.
    pub name: &'static str,
    /// What it is about, in lines.
    pub about: &'static [&'static str],
    /// Its keys.
    pub keys: &'static [Key],
}

/// A struct declared by [`settings!`](crate::settings!).
pub trait Table: Default {
    /// Name in the file; empty for the keys that stand first.
    const NAME: &'static str;
    /// What it is about, in lines.
    const ABOUT: &'static [&'static str];
    /// Its keys, in order.
    const KEYS: &'static [Key];

    /// The table, and those inside.
    fn tables() -> Vec<TableInfo>;

    /// Names the first value that is out of its range, here or in the tables inside.
    fn check(&self) -> Result<(), SettingError>;
}

/// Declares a table of settings: see [`settings`](mod@crate::settings).
///
/// After a key's default may follow, in this order: `in RANGE` ([`Range`]); `such as "TOML"`, an example for a key without
/// a default; `option "VALUE"`, which makes it an option of the command line (a flag has any value name). Tables
/// inside follow as `tables { NAME: TYPE; }`.
#[macro_export]
macro_rules! settings {
    (
        $(#[doc = $about:literal])+
        $(#[derive($($derive:ident),+)])?
        $vis:vis struct $name:ident in $table:literal {
            $(
                $(#[doc = $line:literal])+
                $(#[serde($($serde:tt)+)])?
                pub $key:ident: $ty:ty = $default:expr
                    $(, in $range:expr)? $(, such as $example:literal)? $(, option $value_name:literal)?;
            )*
        }
        $(tables {
            $(
                $(#[doc = $inner_line:literal])+
                pub $inner:ident: $inner_ty:ty;
            )*
        })?
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq, ::serde::Serialize, ::serde::Deserialize)]
        $(#[derive($($derive),+)])?
        #[serde(deny_unknown_fields, default)]
        $vis struct $name {
            $(
                $(#[doc = $line])+
                $(#[serde($($serde)+)])?
                pub $key: $ty,
            )*
            $($(
                $(#[doc = $inner_line])+
                pub $inner: $inner_ty,
            )*)?
        }

        impl Default for $name {
            fn default() -> Self {
                $name {
                    $($key: $default,)*
                    $($($inner: <$inner_ty>::default(),)*)?
                }
            }
        }

        impl $crate::settings::Table for $name {
            const NAME: &'static str = $table;
            const ABOUT: &'static [&'static str] = &[$($about),+];
            #[allow(unused_mut, unused_assignments)]
            const KEYS: &'static [$crate::settings::Key] = &[$({
                let mut key = $crate::settings::Key {
                    name: stringify!($key),
                    lines: &[$($line),+],
                    kind: <$ty as $crate::settings::SettingValue>::KIND,
                    range: None,
                    example: None,
                    value_name: "",
                };
                $(key.range = Some($range);)?
                $(key.example = Some($example);)?
                $(key.value_name = $value_name;)?
                key
            }),*];

            fn tables() -> Vec<$crate::settings::TableInfo> {
                let own = $crate::settings::TableInfo { name: Self::NAME, about: Self::ABOUT, keys: Self::KEYS };
                let inside: [Vec<$crate::settings::TableInfo>; _] =
                    [$($(<$inner_ty as $crate::settings::Table>::tables()),*)?];
                [own].into_iter().chain(inside.into_iter().flatten()).collect()
            }

            fn check(&self) -> Result<(), $crate::settings::SettingError> {
                let mut keys = Self::KEYS.iter();
                $(
                    if let Some(key) = keys.next() {
                        key.check(Self::NAME, &self.$key)?;
                    }
                )*
                $($($crate::settings::Table::check(&self.$inner)?;)*)?
                Ok(())
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_say_what_they_take() {
        assert!(Range::POSITIVE.contains(1e-300) && !Range::POSITIVE.contains(0.0));
        for range in [Range::SHARE, Range::NOT_NEGATIVE, Range::POSITIVE, Range::SECONDS] {
            assert!(![f64::NAN, f64::INFINITY, -1.0].into_iter().any(|number| range.contains(number)));
        }
        let texts =
            [Range::SHARE, Range::NOT_NEGATIVE, Range::POSITIVE, Range::SECONDS].map(|r| r.to_string());
        assert_eq!(texts, ["0 to 1", "0 or more, and finite", "above 0, and finite", "0 to 86400 seconds"]);
        assert_eq!(0.1f32.number(), Some(0.1));
    }
}
