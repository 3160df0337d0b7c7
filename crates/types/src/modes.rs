//! Choices that a packet names: how it was computed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A word that names no mode.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown {what} '{word}'; expected {expected}")]
pub struct UnknownMode {
    /// What is chosen.
    pub what: &'static str,
    /// The word.
    pub word: String,
    /// The words that are known.
    pub expected: &'static str,
}

/// Where stages hand over their tensors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Residency {
    /// On the device: one program, one copy in, one copy out.
    #[default]
    Device,
    /// Through host memory after every stage: for comparison and debugging.
    Host,
}

impl fmt::Display for Residency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Residency::Device => "device",
            Residency::Host => "host",
        })
    }
}

impl FromStr for Residency {
    type Err = UnknownMode;

    fn from_str(word: &str) -> Result<Self, UnknownMode> {
        match word {
            "device" => Ok(Residency::Device),
            "host" => Ok(Residency::Host),
            _ => {
                Err(UnknownMode { what: "residency", word: word.to_owned(), expected: "`device` or `host`" })
            }
        }
    }
}

/// How detections find their tracks: which solver, and where it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MatcherMode {
    /// The optimal assignment, inside the device program.
    #[default]
    Exact,
    /// The greedy one, inside the device program.
    Greedy,
    /// The optimal assignment, on the host, between two device programs.
    Host,
}

impl MatcherMode {
    /// Whether it runs on the host, so that detections have to be downloaded first.
    pub fn on_host(self) -> bool {
        self == Self::Host
    }
}

impl fmt::Display for MatcherMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exact => "exact",
            Self::Greedy => "greedy",
            Self::Host => "host",
        })
    }
}

impl FromStr for MatcherMode {
    type Err = UnknownMode;

    fn from_str(word: &str) -> Result<Self, UnknownMode> {
        match word {
            "exact" => Ok(Self::Exact),
            "greedy" => Ok(Self::Greedy),
            "host" => Ok(Self::Host),
            _ => Err(UnknownMode {
                what: "matcher",
                word: word.to_owned(),
                expected: "`exact`, `greedy` or `host`",
            }),
        }
    }
}

/// The modes a packet was computed in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Modes {
    /// Where stages hand over.
    pub residency: Residency,
    /// How detections and tracks are paired.
    pub matcher: MatcherMode,
    /// Number format of activations.
    pub precision: &'static str,
}
