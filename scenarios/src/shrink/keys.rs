//! Keys of the plan that may be left out: configuration, optional fields.

use super::numbers::{at, from_tree, paths, tree};
use super::search::Search;
use sim::plan::Plan;
use toml::Value;

/// What is no simplification to leave out: the bug itself, and what the plan demands.
const KEPT: [&str; 3] = ["bug", "refusal", "seed"];

/// Without one of the keys that a plan may be without.
pub(super) fn drop(search: &mut Search<'_>) {
    let mut passed = 0;
    loop {
        let Some(whole) = tree(search.plan()) else {
            return;
        };
        // Sections before what is in them.
        let keys: Vec<_> = paths(&whole, |_| true)
            .into_iter()
            .filter(|path| !KEPT.contains(&path[0].as_str()))
            .collect();
        let proposals = keys.iter().skip(passed).map(|path| without(&whole, path));
        let proposals: Vec<(usize, Plan)> = proposals
            .enumerate()
            .filter_map(|(place, plan)| Some((place, plan?)))
            .collect();
        let places: Vec<usize> = proposals.iter().map(|(place, _)| *place).collect();
        match search.first("fewer keys", proposals.into_iter().map(|(_, plan)| plan)) {
            Some(taken) => passed += places[taken],
            None => return,
        }
    }
}

fn without(whole: &Value, path: &[String]) -> Option<Plan> {
    let mut tree = whole.clone();
    let (key, parent) = path.split_last()?;
    match at(&mut tree, parent)? {
        Value::Table(table) => {
            table.remove(key)?;
        }
        _ => return None, // items of lists have passes of their own
    }
    from_tree(tree)
}
