//! The table of networks: all that names, recognises, sizes or lists them goes through [`ARCHITECTURES`].

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use crate::checkpoint::weights::Weights;
use crate::detector::DetectorNetwork;
use crate::dfine::Variant;
use crate::mobile_sam::MobileSam;
pub use crate::parameters::ConfigError;
use crate::segmenter::SegmenterNetwork;

/// Every network that this crate can build: to add one is to add its line here.
pub static ARCHITECTURES: [Architecture; 6] = [
    Architecture(&Variant::N),
    Architecture(&Variant::S),
    Architecture(&Variant::M),
    Architecture(&Variant::L),
    Architecture(&Variant::X),
    Architecture(&MobileSam),
];

/// What a network is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Finds structures.
    Detector,
    /// Outlines them.
    Segmenter,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Detector => "detector",
            Kind::Segmenter => "segmenter",
        })
    }
}

/// A network, not yet with weights.
#[derive(Debug, Clone)]
pub enum Network {
    /// Finds structures.
    Detector(Arc<dyn DetectorNetwork>),
    /// Outlines them.
    Segmenter(Arc<dyn SegmenterNetwork>),
}

/// What a checkpoint or a user says about a network's sizes; what is not said is as published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Classes that it tells apart.
    pub num_classes: Option<usize>,
    /// Height and width of its input in pixels.
    pub input_hw: Option<[usize; 2]>,
}

/// A line of the table: what is known of a network before it is built.
pub trait Entry: fmt::Debug + Sync {
    /// The name used in metadata and on the command line: `dfine_n` to `dfine_x`, `mobile_sam`.
    fn name(&self) -> &'static str;

    /// What people call it and its other sizes.
    fn family(&self) -> &'static str;

    /// What it is for.
    fn kind(&self) -> Kind;

    /// Whether these weights, under official names, have its shapes.
    fn recognises(&self, weights: &Weights) -> bool;

    /// Number of classes that the weights are for, where they tell.
    fn num_classes(&self, _weights: &Weights) -> Option<usize> {
        None
    }

    /// Height and width of the input that the weights were made for, where they tell.
    fn input_hw(&self, _weights: &Weights) -> Option<[usize; 2]> {
        None
    }

    /// The network in a size.
    fn network(&self, sizes: Sizes) -> Result<Network, ConfigError>;
}

/// A network this crate can build: a line of [`ARCHITECTURES`], told apart by its name.
#[derive(Clone, Copy)]
pub struct Architecture(&'static dyn Entry);

impl Architecture {
    /// The network whose official shapes these are, or `None`.
    pub fn detect(weights: &Weights) -> Option<Self> {
        ARCHITECTURES.into_iter().find(|a| a.recognises(weights))
    }
}

impl std::ops::Deref for Architecture {
    type Target = dyn Entry;
    fn deref(&self) -> &Self::Target {
        self.0
    }
}

impl PartialEq for Architecture {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}
impl Eq for Architecture {}
impl Hash for Architecture {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl fmt::Debug for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no network of the table has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown architecture `{0}`; use {known}", known = listed(&names(), "or"))]
pub struct UnknownArchitecture(pub String);

impl FromStr for Architecture {
    type Err = UnknownArchitecture;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = ARCHITECTURES.into_iter().find(|a| a.name() == name);
        found.ok_or_else(|| UnknownArchitecture(name.to_owned()))
    }
}

/// Names of all networks.
pub(crate) fn names() -> Vec<&'static str> {
    ARCHITECTURES.iter().map(|a| a.name()).collect()
}

/// Families of a kind: `D-FINE`.
pub(crate) fn families(kind: Kind) -> String {
    let mut families: Vec<&str> =
        ARCHITECTURES.iter().filter(|a| a.kind() == kind).map(|a| a.family()).collect();
    families.dedup();
    listed(&families, "or")
}

/// `a, b or c`.
pub(crate) fn listed(names: &[&str], word: &str) -> String {
    match names {
        [first @ .., last] if !first.is_empty() => format!("{} {word} {last}", first.join(", ")),
        names => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for architecture in ARCHITECTURES {
            assert_eq!(architecture.name().parse(), Ok(architecture));
        }
        let error = "dfine_xxl".parse::<Architecture>().expect_err("there is none").to_string();
        let known = "use dfine_n, dfine_s, dfine_m, dfine_l, dfine_x or mobile_sam";
        assert_eq!(error, format!("unknown architecture `dfine_xxl`; {known}"));
    }

    #[test]
    fn networks_are_of_the_kind_that_their_lines_say() {
        for architecture in ARCHITECTURES {
            let kind = match architecture.network(Sizes::default()).expect("as published") {
                Network::Detector(_) => Kind::Detector,
                Network::Segmenter(_) => Kind::Segmenter,
            };
            assert_eq!(kind, architecture.kind(), "{architecture}");
        }
    }
}
