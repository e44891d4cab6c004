//! Searches simulated code for what would make two runs of one plan differ. A line is allowed by a
//! comment on it, or on the line before: `// determinism: REASON`.

use anyhow::{Context, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// Code that runs, or is drawn, inside a simulation.
const ROOMS: [&str; 6] = [
    "sim/src",
    "processor/src",
    "scenarios/src/generator",
    "scenarios/src/scenario.rs",
    "scenarios/src/catalog.rs",
    "scenarios/src/plan_file.rs",
];

/// Rooms inside of these that no simulation enters: what ships beside the simulated code.
const OUTSIDE: [&str; 3] = [
    "processor/src/adapters",
    "processor/src/commands",
    "processor/src/main.rs",
];

/// What is searched for, and what to use instead.
const FORBIDDEN: [(&str, &str); 7] = [
    (
        "Instant::now",
        "ask the Clock trait, or the time of the fabric",
    ),
    (
        "SystemTime::now",
        "ask the Clock trait, or the time of the fabric",
    ),
    ("thread::spawn", "one run is one thread"),
    ("thread_rng", "draw by sim::draw"),
    ("rand::", "draw by sim::draw"),
    ("HashMap", "use BTreeMap"),
    ("HashSet", "use BTreeSet"),
];

/// What allows a line.
const ALLOWED: &str = "// determinism:";

/// One find.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Find {
    /// Number of the line, from 1.
    line: usize,
    what: &'static str,
    instead: &'static str,
}

/// Searches all simulated code below `root`.
///
/// # Errors
/// When something was found (each place is printed), or a file cannot be read.
pub fn check(root: &Path) -> anyhow::Result<()> {
    let mut files = Vec::new();
    for room in ROOMS {
        collect(&root.join(room), &mut files)?;
    }
    files.retain(|path| {
        !OUTSIDE
            .iter()
            .any(|outside| path.starts_with(root.join(outside)))
    });
    files.sort();
    let mut found = 0;
    for path in &files {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        for find in search(&text) {
            let place = path.strip_prefix(root).unwrap_or(path).display();
            eprintln!("{place}:{}: {}: {}", find.line, find.what, find.instead);
            found += 1;
        }
    }
    if found > 0 {
        bail!(
            "{found} places where two runs may differ; replace them, or say why not by `{ALLOWED} REASON`"
        );
    }
    Ok(())
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    if path.is_file() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path).with_context(|| path.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() || path.extension().is_some_and(|ending| ending == "rs") {
            collect(&path, files)?;
        }
    }
    Ok(())
}

fn search(text: &str) -> Vec<Find> {
    let lines: Vec<&str> = text.lines().collect();
    let is_allowed = |index: usize| {
        let before = index.checked_sub(1).map_or("", |before| lines[before]);
        [lines[index], before].iter().any(|line| {
            line.split_once(ALLOWED)
                .is_some_and(|(_, reason)| !reason.trim().is_empty())
        })
    };
    let mut finds = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        let mut add = |what, instead| {
            if !is_allowed(index) {
                finds.push(Find {
                    line: index + 1,
                    what,
                    instead,
                });
            }
        };
        for (what, instead) in FORBIDDEN {
            if mentions(code, what) {
                add(what, instead);
            }
        }
        if mentions(code, "select!") && !begins_biased(code, &lines[index + 1..]) {
            add("select!", "begin it with `biased;`");
        }
    }
    finds
}

/// True when `what` stands in `code` and is not the end of a longer name.
fn mentions(code: &str, what: &str) -> bool {
    code.match_indices(what).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

/// True when the first word inside of the macro is `biased`. A `use` of the macro needs none.
fn begins_biased(code: &str, following: &[&str]) -> bool {
    let inside = code.split("select!").nth(1).unwrap_or_default();
    let words = std::iter::once(inside)
        .chain(following.iter().copied())
        .map(|line| line.trim_start_matches([' ', '\t', '{', '(']).trim());
    let first = words
        .into_iter()
        .find(|line| !line.is_empty() && !line.starts_with("//"));
    first.is_some_and(|line| line.starts_with("biased"))
}

#[cfg(test)]
mod tests {
    use super::search;

    fn lines(text: &str) -> Vec<usize> {
        search(text).iter().map(|find| find.line).collect()
    }

    #[test]
    fn clocks_threads_and_hash_order_are_found_with_their_lines() {
        let text = "fn f() {\n    let t = Instant::now();\n    let m: HashMap<u8, u8>;\n}\n";
        assert_eq!(lines(text), [2, 3]);
        assert_eq!(lines("std::thread::spawn(run);"), [1]);
        assert_eq!(lines("use rand::Rng;"), [1]);
    }

    #[test]
    fn comments_and_longer_names_are_not_code() {
        assert!(lines("// no HashMap here\n/// SystemTime::now is forbidden\n").is_empty());
        assert!(lines("use strand::X; let MyHashMap = 1;").is_empty());
    }

    #[test]
    fn a_reason_allows_a_line_and_an_empty_one_does_not() {
        assert!(
            lines("// determinism: only its length is read\nlet s = HashSet::new();").is_empty()
        );
        assert!(lines("let s = HashSet::new(); // determinism: never iterated").is_empty());
        assert_eq!(lines("// determinism:\nlet s = HashSet::new();"), [2]);
    }

    #[test]
    fn select_must_be_biased() {
        assert_eq!(lines("select! {\n    a = b => {}\n}"), [1]);
        assert!(lines("select! {\n    biased;\n    a = b => {}\n}").is_empty());
        assert!(lines("select! { biased; a = b => {} }").is_empty());
        // `futures` has a macro of its own name for that.
        assert!(lines("select_biased! { a = b => {} }").is_empty());
    }
}
