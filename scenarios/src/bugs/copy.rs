//! A copy of the sources with all patches in it, and the program that is built from it.

use super::{BugError, Made, PlantedBug};
use diffy::{Patch, apply};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The environment's variable that names the bug which a patched process has.
pub const SWITCH: &str = "TICKPROOF_BUG";

/// What all patches ask.
const SWITCH_PATCH: &str = "properties/bugs/switch.diff";
/// What the copy consists of.
const SOURCES: [&str; 10] = [
    "Cargo.toml",
    "Cargo.lock",
    "processor",
    "sim",
    "properties",
    "reports",
    "scenarios",
    "benches",
    "xtask",
    "README.md",
];

/// A copy that was built.
#[derive(Debug, Clone)]
pub struct Copied {
    /// Its `tickproof`.
    pub program: PathBuf,
}

impl Copied {
    /// Copies the project at `root` below its `target`, puts the patches in, and builds.
    ///
    /// # Errors
    /// When something cannot be written, a patch does not fit the sources any more, or the copy does not
    /// build.
    pub fn make(root: &Path, bugs: &[PlantedBug]) -> Result<Copied, BugError> {
        let folder = root.join("target/bugs");
        let sources = folder.join("sources");
        if sources.exists() {
            fs::remove_dir_all(&sources).map_err(io(&sources))?;
        }
        for name in SOURCES {
            copy(&root.join(name), &sources.join(name))?;
        }
        let switch = root.join(SWITCH_PATCH);
        let text = fs::read_to_string(&switch).map_err(io(&switch))?;
        patch(&sources, SWITCH_PATCH, &text)?;
        for bug in bugs {
            if let Made::Patch(text) = &bug.made {
                patch(&sources, &bug.name, text)?;
            }
        }
        build(&sources, &folder.join("target"))
    }
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> BugError {
    let path = path.display().to_string();
    move |cause| BugError::Io {
        path: path.clone(),
        cause,
    }
}

/// Copies files, with the times at which they were changed, so that nothing is built that has not changed.
fn copy(from: &Path, to: &Path) -> Result<(), BugError> {
    if from.is_dir() {
        fs::create_dir_all(to).map_err(io(to))?;
        for entry in fs::read_dir(from).map_err(io(from))? {
            let name = entry.map_err(io(from))?.file_name();
            if name != "target" {
                copy(&from.join(&name), &to.join(&name))?;
            }
        }
        return Ok(());
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(io(folder))?;
    }
    fs::copy(from, to).map_err(io(to))?;
    let changed = from.metadata().and_then(|meta| meta.modified());
    let written = fs::File::options().write(true).open(to);
    let kept = written.and_then(|file| file.set_modified(changed?));
    kept.map_err(io(to))
}

/// Puts a patch of one or more files into the sources.
fn patch(sources: &Path, name: &str, text: &str) -> Result<(), BugError> {
    let wrong = |what: String| BugError::Patch {
        path: name.to_owned(),
        what,
    };
    let text = format!("\n{text}");
    for part in text.split("\n--- ").skip(1) {
        let diff = format!("--- {}\n", part.trim_end_matches('\n'));
        let parsed = Patch::from_str(&diff).map_err(|e| wrong(e.to_string()))?;
        let file = parsed
            .modified()
            .and_then(|file| file.strip_prefix("b/"))
            .ok_or_else(|| wrong("its second line has to be `+++ b/FILE`".to_owned()))?;
        let path = sources.join(file);
        let before = match part.starts_with("/dev/null") {
            true => String::new(),
            false => fs::read_to_string(&path).map_err(io(&path))?,
        };
        let after = apply(&before, &parsed).map_err(|e| {
            wrong(format!(
                "it does not fit {file} any more ({e}): make it anew"
            ))
        })?;
        fs::write(&path, after).map_err(io(&path))?;
    }
    Ok(())
}

#[allow(
    clippy::disallowed_methods,
    reason = "builds a program; nothing here is simulated"
)]
fn build(sources: &Path, target: &Path) -> Result<Copied, BugError> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--release", "--locked", "--package", "scenarios"])
        .arg("--target-dir")
        .arg(target)
        .current_dir(sources)
        .status()
        .map_err(io(sources))?;
    if !status.success() {
        return Err(BugError::Build(sources.display().to_string()));
    }
    Ok(Copied {
        program: target.join("release/tickproof"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bugs::{catalogue, folder_of_test};

    /// The patches fit the sources as they are now, one after the other.
    #[test]
    fn every_patch_fits() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let folder = folder_of_test("copy");
        copy(&root.join("processor/src"), &folder.join("processor/src")).expect("it can be copied");
        let switch = fs::read_to_string(root.join(SWITCH_PATCH)).expect("it is there");
        patch(&folder, SWITCH_PATCH, &switch).unwrap_or_else(|e| panic!("{e}"));
        for bug in catalogue(&root).expect("they can be read") {
            if let Made::Patch(text) = &bug.made {
                patch(&folder, &bug.name, text).unwrap_or_else(|e| panic!("{e}"));
            }
        }
        fs::remove_dir_all(&folder).expect("it can be removed");
    }

    #[test]
    fn a_patch_that_does_not_fit_is_an_error_that_names_it() {
        let folder = folder_of_test("unfit");
        fs::write(folder.join("x.rs"), "one\ntwo\n").expect("it can be written");
        let text = "--- a/x.rs\n+++ b/x.rs\n@@ -1,2 +1,2 @@\n one\n-three\n+four\n";
        let error = patch(&folder, "some-bug", text).expect_err("it does not fit");
        assert!(error.to_string().contains("some-bug"), "{error}");
        assert!(error.to_string().contains("make it anew"), "{error}");
        fs::remove_dir_all(&folder).expect("it can be removed");
    }
}
