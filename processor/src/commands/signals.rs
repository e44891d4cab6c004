//! SIGTERM and SIGINT.

use anyhow::Context;
use futures_util::future::{Either, select};
use std::pin::pin;
use tokio::signal::unix::{SignalKind, signal};

/// A signal that asks for the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// Its name.
    pub name: &'static str,
    /// Exit status of a process that it ends.
    pub status: i32,
}

/// Calls `handle` for each SIGTERM and SIGINT, with how many came before, on a thread of its own.
///
/// # Errors
/// When signals cannot be handled.
pub fn watch(handle: impl Fn(Ending, u32) + Send + 'static) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    // Handled from now on, not from whenever the thread runs.
    let inside = runtime.enter();
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be handled")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT cannot be handled")?;
    drop(inside);
    let wait = async move {
        for before in 0.. {
            let (terminated, interrupted) = (pin!(terminate.recv()), pin!(interrupt.recv()));
            let ending = match select(terminated, interrupted).await {
                Either::Left(_) => Ending {
                    name: "SIGTERM",
                    status: 143,
                },
                Either::Right(_) => Ending {
                    name: "SIGINT",
                    status: 130,
                },
            };
            handle(ending, before);
        }
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || runtime.block_on(wait))?;
    Ok(())
}
