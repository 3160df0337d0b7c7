//! ultramotion command
fn main() {}
