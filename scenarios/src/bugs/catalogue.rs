//! The bugs: promises of the world, and patches of the processor.

use super::BugError;
use sim::sabotage::Sabotage;
use std::fs;
use std::path::Path;

/// Where the patches are, from the project's root.
const FOLDER: &str = "properties/bugs";
const PUBLISHED: &str = "Published: ";
const BREAKS: &str = "Breaks: ";

/// How a bug is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Made {
    /// The world breaks a promise.
    Promise(Sabotage),
    /// The processor is built with this patch in it: a unified diff.
    Patch(String),
}

/// A bug that is to be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlantedBug {
    /// Its name: letters and dashes.
    pub name: String,
    /// What is wrong, in plain words.
    pub says: String,
    /// Where somebody else's software had it.
    pub published: Option<String>,
    /// How it is made.
    pub made: Made,
}

/// All bugs, by name; the patches are read from the project at `root`.
///
/// # Errors
/// When a patch cannot be read, or is not written as patches are.
pub fn catalogue(root: &Path) -> Result<Vec<PlantedBug>, BugError> {
    let promises = Sabotage::ALL.into_iter().chain(Sabotage::PUBLISHED);
    let promises = promises.chain([Sabotage::BacklogCalledIdle]);
    let mut bugs: Vec<PlantedBug> = promises
        .map(|promise| PlantedBug {
            name: name_of(promise),
            says: promise.meaning().to_owned(),
            published: promise.published().map(str::to_owned),
            made: Made::Promise(promise),
        })
        .collect();
    let folder = root.join(FOLDER);
    let failed = |cause| BugError::Io {
        path: folder.display().to_string(),
        cause,
    };
    for entry in fs::read_dir(&folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "patch")
        {
            bugs.push(read(&path)?);
        }
    }
    bugs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(bugs)
}

/// As plans write it.
fn name_of(promise: Sabotage) -> String {
    let name = serde_json::to_value(promise).ok();
    let name = name.and_then(|name| name.as_str().map(str::to_owned));
    name.unwrap_or_else(|| promise.to_string())
}

fn read(path: &Path) -> Result<PlantedBug, BugError> {
    let shown = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|cause| BugError::Io {
        path: shown.clone(),
        cause,
    })?;
    let wrong = |what: &str| BugError::Patch {
        path: shown.clone(),
        what: what.to_owned(),
    };
    let name = path.file_stem().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| wrong("its name is not plain text"))?;
    let (head, diff) = text.split_once("\n--- ").ok_or_else(|| {
        wrong("there is no diff in it: a line that begins with `--- ` begins one")
    })?;
    let mut lines = head.lines();
    if !lines.next().is_some_and(|line| line.starts_with(BREAKS)) {
        return Err(wrong("its first line has to be `Breaks: PROPERTY`"));
    }
    let published = lines
        .clone()
        .next()
        .and_then(|line| line.strip_prefix(PUBLISHED));
    let says: Vec<&str> = lines.filter(|line| !line.starts_with(PUBLISHED)).collect();
    let says = says.join(" ").trim().trim_end_matches('.').to_owned();
    if says.is_empty() {
        return Err(wrong("it does not say what is wrong"));
    }
    if !diff.contains(&format!("\"{name}\"")) {
        return Err(wrong(
            "nothing in it asks `crate::planted::is` for the bug's own name",
        ));
    }
    Ok(PlantedBug {
        name: name.to_owned(),
        says,
        published: published.map(str::to_owned),
        made: Made::Patch(format!("--- {diff}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bugs::folder_of_test;

    fn root() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    #[test]
    fn there_are_many_of_each_kind_and_no_two_have_one_name() {
        let bugs = catalogue(&root()).expect("they can be read");
        let mut names: Vec<&str> = bugs.iter().map(|bug| bug.name.as_str()).collect();
        names.dedup();
        assert_eq!(names.len(), bugs.len());
        assert!(bugs.len() >= 40, "{}", bugs.len());
        let published = bugs.iter().filter(|bug| bug.published.is_some()).count();
        assert!(published >= 15, "{published}");
    }

    #[test]
    fn a_patch_that_is_not_written_as_patches_are_is_an_error_that_names_the_fix() {
        let folder = folder_of_test("bugs");
        let path = folder.join("some-bug.patch");
        for (text, fix) in [
            ("Breaks: order\nSays.\n", "begins with `--- `"),
            ("Says.\n\n--- a/x\n", "`Breaks: PROPERTY`"),
            ("Breaks: order\n\n--- a/x \"some-bug\"\n", "what is wrong"),
            ("Breaks: order\nSays.\n\n--- a/x\n", "own name"),
        ] {
            fs::write(&path, text).expect("it can be written");
            let error = read(&path).expect_err(text).to_string();
            assert!(error.contains(fix), "{error}");
            assert!(error.contains("some-bug.patch"), "{error}");
        }
        fs::remove_dir_all(&folder).expect("it can be removed");
    }
}
