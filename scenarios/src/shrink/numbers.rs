//! Round numbers, wherever they stand in the plan.

use super::search::Search;
use sim::plan::Plan;
use toml::Value;

/// The time of day at the start stays as it is: events are told by it. Seeds are no quantities.
const KEPT: [&str; 2] = ["start_unix_ms", "seed"];

/// Each number as round as it may be.
pub(super) fn round(search: &mut Search<'_>) {
    let mut place = 0;
    while !search.is_over() {
        let Some(whole) = tree(search.plan()) else {
            return;
        };
        let numbers = paths(&whole, |value| value.is_integer());
        let Some(path) = numbers
            .iter()
            .filter(|path| !KEPT.contains(&path[0].as_str()))
            .nth(place)
        else {
            return;
        };
        place += 1;
        let Some(Value::Integer(now)) = at(&mut whole.clone(), path).cloned() else {
            continue;
        };
        let is_permille = path.last().is_some_and(|key| key.ends_with("permille"));
        let rounder = rounder(now, is_permille).into_iter().filter_map(|number| {
            let mut tree = whole.clone();
            *at(&mut tree, path)? = Value::Integer(number);
            from_tree(tree)
        });
        search.first("round numbers", rounder);
    }
}

/// Memory and the waits of windows at their extremes: what is rare at their usual values may then take
/// few records. (Intervals of polls and commits at theirs would make runs slow.)
pub(super) fn extremes(search: &mut Search<'_>) {
    let Some(whole) = tree(search.plan()) else {
        return;
    };
    let numbers = paths(&whole, |value| value.is_integer());
    let sections = ["state", "windows"];
    let is_extreme = |path: &&Vec<String>| {
        path[0] == "processor" && path.get(1).is_some_and(|s| sections.contains(&s.as_str()))
    };
    for path in numbers.iter().filter(is_extreme) {
        let whole = tree(search.plan());
        let proposals = [0, 1].into_iter().filter_map(|number| {
            let mut tree = whole.clone()?;
            *at(&mut tree, path)? = Value::Integer(number);
            from_tree(tree)
        });
        search.first("extreme configuration", proposals);
    }
}

/// Rounder numbers than this, the simplest first.
fn rounder(number: i64, is_permille: bool) -> Vec<i64> {
    let mut rounder = vec![0, 1];
    if is_permille {
        rounder.push(1_000);
    }
    for digits in [1, 2, 3] {
        let unit = unit(number, digits);
        let down = number / unit * unit;
        rounder.extend([down, down + unit * number.signum()]);
    }
    rounder.retain(|other| *other != number);
    rounder
}

/// What the last of the first `digits` digits counts.
fn unit(number: i64, digits: u32) -> i64 {
    let length = number.unsigned_abs().checked_ilog10().unwrap_or(0) + 1;
    10_i64.pow(length.saturating_sub(digits))
}

/// A plan as a tree of keys and values.
pub(super) fn tree(plan: &Plan) -> Option<Value> {
    Value::try_from(plan).ok()
}

/// The plan that a tree says, if it is one.
pub(super) fn from_tree(tree: Value) -> Option<Plan> {
    tree.try_into().ok()
}

/// The paths of all values that are `wanted`, outer ones first; items of lists by their number.
pub(super) fn paths(tree: &Value, wanted: fn(&Value) -> bool) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    collect(tree, wanted, &mut Vec::new(), &mut found);
    found
}

fn collect(
    value: &Value,
    wanted: fn(&Value) -> bool,
    path: &mut Vec<String>,
    found: &mut Vec<Vec<String>>,
) {
    if !path.is_empty() && wanted(value) {
        found.push(path.clone());
    }
    let mut go_into = |key: String, value: &Value| {
        path.push(key);
        collect(value, wanted, path, found);
        path.pop();
    };
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                go_into(key.clone(), value);
            }
        }
        Value::Array(items) => {
            for (place, value) in items.iter().enumerate() {
                go_into(place.to_string(), value);
            }
        }
        _ => {}
    }
}

/// The value at a path.
pub(super) fn at<'a>(tree: &'a mut Value, path: &[String]) -> Option<&'a mut Value> {
    path.iter().try_fold(tree, |value, key| match value {
        Value::Table(table) => table.get_mut(key),
        Value::Array(items) => items.get_mut(key.parse::<usize>().ok()?),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::rounder;

    #[test]
    fn rounder_numbers_have_fewer_digits() {
        assert_eq!(
            rounder(231_456, false),
            [0, 1, 200_000, 300_000, 230_000, 240_000, 231_000, 232_000]
        );
        assert_eq!(rounder(-90_500, false)[2..4], [-90_000, -100_000]);
        assert_eq!(rounder(350, true)[..3], [0, 1, 1_000]);
    }
}
