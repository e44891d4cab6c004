//! Benchmark of the pure core.

fn main() {}
