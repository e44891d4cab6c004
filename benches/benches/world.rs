//! Benchmark of the simulated world.

fn main() {}
