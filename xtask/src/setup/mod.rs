//! What the steps need beside cargo: found, or installed, or named with the command that installs it.

mod system;

use anyhow::{Context, bail};
use std::process::{Command, Stdio};

/// A component of the tool chain.
struct Component {
    /// Arguments that make cargo show its version.
    probe: &'static [&'static str],
    /// What rustup calls it.
    name: &'static str,
}

const COMPONENTS: [Component; 2] = [
    Component {
        probe: &["fmt", "--version"],
        name: "rustfmt",
    },
    Component {
        probe: &["clippy", "--version"],
        name: "clippy",
    },
];

/// Sees to it that everything is there that `cargo xtask test` needs.
///
/// # Errors
/// When something is missing and cannot be installed from here; the message has the command.
pub fn prepare() -> anyhow::Result<()> {
    system::prepare()?;
    for component in COMPONENTS {
        if !works("cargo", component.probe) {
            install("rustup", &["component", "add", component.name])?;
        }
    }
    if !works("cargo", &["deny", "--version"]) {
        install("cargo", &["install", "--locked", "cargo-deny"])?;
    }
    Ok(())
}

/// True when the program can be run with these arguments and succeeds.
fn works(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn install(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let shown = format!("{program} {}", arguments.join(" "));
    println!("== missing, so: {shown}");
    let status = Command::new(program)
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .status()
        .with_context(|| {
            format!("cannot run `{shown}`; run it by hand, then again: cargo xtask test")
        })?;
    if !status.success() {
        bail!("`{shown}` failed; run it by hand, then again: cargo xtask test");
    }
    Ok(())
}
