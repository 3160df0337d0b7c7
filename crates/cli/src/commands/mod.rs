//! One file for each subcommand.

pub(crate) mod audit;
pub(crate) mod bench;
pub(crate) mod doctor;
pub(crate) mod eval;
pub(crate) mod export;
pub(crate) mod igtl;
pub(crate) mod models;
pub(crate) mod parity;
pub(crate) mod recover;
pub(crate) mod run;
pub(crate) mod serve;
pub(crate) mod simulate;
