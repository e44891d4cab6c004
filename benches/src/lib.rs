//! Benchmarks of the core and of the simulated world; see `benches/`.
