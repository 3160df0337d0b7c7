//! Enums whose values stand on the wire as numbers.

/// An enum of the values that the standard names, and `Other` for the rest.
macro_rules! open_enum {
    ($(#[$doc:meta])* $name:ident : $int:ty { $($(#[$variant_doc:meta])* $variant:ident = $value:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
            /// A value that the standard does not name.
            Other($int),
        }

        impl From<$int> for $name {
            fn from(value: $int) -> Self {
                match value {
                    $($value => Self::$variant,)*
                    other => Self::Other(other),
                }
            }
        }

        impl From<$name> for $int {
            fn from(value: $name) -> $int {
                match value {
                    $($name::$variant => $value,)*
                    $name::Other(other) => other,
                }
            }
        }

        impl From<$name> for crate::value::Value {
            fn from(value: $name) -> Self {
                format!("{value:?}").into()
            }
        }
    };
}

/// An enum of the only values that the standard allows.
macro_rules! closed_enum {
    ($(#[$doc:meta])* $name:ident($list:literal) { $($(#[$variant_doc:meta])* $variant:ident = $value:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$variant_doc])* $variant = $value,)*
        }

        impl From<$name> for crate::value::Value {
            fn from(value: $name) -> Self {
                format!("{value:?}").into()
            }
        }

        impl $name {
            pub(crate) fn read(
                r: &mut crate::wire::Reader<'_>,
                field: &'static str,
            ) -> Result<Self, crate::error::DecodeError> {
                match r.u8(field)? {
                    $($value => Ok(Self::$variant),)*
                    other => Err(r.error(field, other.into(), crate::error::Problem::OneOf($list))),
                }
            }

            /// The value on the wire.
            pub const fn code(self) -> u8 {
                self as u8
            }
        }
    };
}

pub(crate) use {closed_enum, open_enum};
