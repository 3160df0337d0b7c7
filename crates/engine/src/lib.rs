//! Static tensor graphs on a device: describe ([`graph`]), compile, run.
//!
//! In: a graph of a closed list of ops with static shapes. Out: a program that runs again and again without
//! allocating and without asking the host anything. Every transfer is counted in one place.

pub mod graph;
pub mod reference;
pub mod tensor;
