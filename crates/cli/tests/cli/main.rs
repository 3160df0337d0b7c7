//! The program as its users meet it: started as a process, judged by what it prints, writes and returns.
//!
//! The networks are the untrained ones at their least sizes, saved as checkpoints: they find noise, but the same noise
//! each time, and no test needs data from elsewhere.
#![allow(clippy::unwrap_used)]

mod bad_input;
mod eval;
mod exports;
mod help;
mod igtl;
mod images;
mod live;
mod models;
mod modes;
mod outputs;
mod program;
mod recovery;
mod reports;
mod results;
mod simulate;
mod stopping;
