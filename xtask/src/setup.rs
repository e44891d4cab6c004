//! What the steps need beside cargo: found, or installed, or named with the command that installs it.

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
    linker()?;
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

/// Rust links by the system's C compiler driver.
fn linker() -> anyhow::Result<()> {
    const PACKAGES: [&str; 4] = ["install", "--yes", "gcc", "libc6-dev"];
    if works("cc", &["--version"]) {
        return Ok(());
    }
    if is_root() && works("apt-get", &["--version"]) {
        install("apt-get", &["update"])?;
        return install("apt-get", &PACKAGES);
    }
    bail!(
        "no C compiler (`cc`) to link with; on Debian: sudo apt-get {}",
        PACKAGES.join(" ")
    );
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output();
    output.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

fn works(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
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
        .status()
        .with_context(|| {
            format!("cannot run `{shown}`; run it by hand, then again: cargo xtask test")
        })?;
    if !status.success() {
        bail!("`{shown}` failed; run it by hand, then again: cargo xtask test");
    }
    Ok(())
}
