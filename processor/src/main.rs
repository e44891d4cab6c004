//! The binary `processor`.

fn main() {}
