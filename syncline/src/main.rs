//! The `syncline` program.

fn main() {}
