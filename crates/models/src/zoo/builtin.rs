//! The models that ship inside the program (feature `builtin-weights`).

use super::Kind;

/// A model inside the program.
#[derive(Debug, Clone, Copy)]
pub struct Builtin {
    /// Name on the command line.
    pub name: &'static str,
    /// What it is for.
    pub kind: Kind,
    /// The checkpoint.
    pub bytes: &'static [u8],
    /// What it is, what it was trained on, how good it is.
    pub card: &'static str,
}

/// All of them; empty without the feature. A static: a constant would stand in the program once for each crate that reads it.
pub static BUILTIN: &[Builtin] = &[
    #[cfg(feature = "builtin-weights")]
    Builtin {
        name: "ultrasound-n",
        kind: Kind::Detector,
        bytes: include_bytes!("../../../../weights/ultrasound-n.safetensors"),
        card: include_str!("../../../../weights/ultrasound-n.md"),
    },
    #[cfg(feature = "builtin-weights")]
    Builtin {
        name: "ultrasound-sam",
        kind: Kind::Segmenter,
        bytes: include_bytes!("../../../../weights/ultrasound-sam.safetensors"),
        card: include_str!("../../../../weights/ultrasound-sam.md"),
    },
];
