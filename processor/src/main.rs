//! The binary `processor`: runs the processor, and everything that an operator does around it.
//!
//! Comes in: a command line and one configuration file. Goes out: an exit status, and whatever the
//! command is for.
//! Never here: how records are processed; that is the library.

#[allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "commands run on a real machine: real time, real threads, a real operating system"
)]
mod commands;

use std::process::ExitCode;

/// librdkafka's threads allocate what the workers free: glibc's allocator takes twice as long for that.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    commands::main()
}
