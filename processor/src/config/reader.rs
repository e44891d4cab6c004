//! Takes values out of TOML tables, and notes whatever is wrong instead of stopping at it.

use crate::config::errors::ConfigError;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use toml::{Table, Value};

/// One table of the file while it is read.
pub(super) struct Section<'a> {
    /// Dotted name; empty for the file itself.
    name: String,
    table: Table,
    known: Vec<&'static str>,
    errors: &'a mut Vec<ConfigError>,
}

impl<'a> Section<'a> {
    pub(super) fn new(name: &str, table: Table, errors: &'a mut Vec<ConfigError>) -> Self {
        Section {
            name: name.to_owned(),
            table,
            known: Vec::new(),
            errors,
        }
    }

    pub(super) fn key(&self, key: &str) -> String {
        if self.name.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.name)
        }
    }

    pub(super) fn wrong(&mut self, key: &str, value: impl ToString, allowed: impl ToString) {
        let (key, value, allowed) = (self.key(key), value.to_string(), allowed.to_string());
        self.errors.push(ConfigError::Wrong {
            key,
            value,
            allowed,
        });
    }

    fn missing(&mut self, key: &str, allowed: &str) {
        self.errors.push(ConfigError::Missing {
            key: self.key(key),
            allowed: allowed.to_owned(),
        });
    }

    pub(super) fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.table.remove(key)
    }

    /// A table inside this one; absent is empty.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'_> {
        let table = match self.take(key) {
            None => Table::new(),
            Some(Value::Table(table)) => table,
            Some(other) => {
                self.wrong(key, other, format!("a table: [{key}]"));
                Table::new()
            }
        };
        Section::new(&self.key(key), table, self.errors)
    }

    /// A table of texts whose keys are free; absent is empty. Numbers and truth values are taken as
    /// their text.
    pub(super) fn texts(&mut self, key: &'static str) -> BTreeMap<String, String> {
        let mut texts = BTreeMap::new();
        let name = self.key(key);
        let table = match self.take(key) {
            None => Table::new(),
            Some(Value::Table(table)) => table,
            Some(other) => {
                self.wrong(key, other, format!("a table: [{name}]"));
                Table::new()
            }
        };
        for (property, value) in table {
            let text = match value {
                Value::String(text) => text,
                Value::Integer(_) | Value::Boolean(_) => value.to_string(),
                other => {
                    let allowed = format!(
                        "a text, a number or a truth value; write names with dots in quotes: [{name}] \"{property}\" = …"
                    );
                    self.wrong(&format!("{key}.{property}"), other, allowed);
                    continue;
                }
            };
            texts.insert(property, text);
        }
        texts
    }

    /// An array of tables; absent is empty.
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<Table> {
        let allowed = format!("a list of tables: [[{}]]", self.key(key));
        match self.take(key) {
            None => Vec::new(),
            Some(Value::Array(items)) => {
                let mut tables = Vec::with_capacity(items.len());
                for item in items {
                    match item {
                        Value::Table(table) => tables.push(table),
                        other => self.wrong(key, other, &allowed),
                    }
                }
                tables
            }
            Some(other) => {
                self.wrong(key, other, &allowed);
                Vec::new()
            }
        }
    }

    pub(super) fn errors(&mut self) -> &mut Vec<ConfigError> {
        self.errors
    }

    /// An integer within a range.
    pub(super) fn integer(
        &mut self,
        key: &'static str,
        default: i64,
        range: RangeInclusive<i64>,
    ) -> i64 {
        match self.take(key) {
            None => default,
            Some(Value::Integer(value)) if range.contains(&value) => value,
            Some(other) => {
                let allowed = format!("an integer from {} to {}", range.start(), range.end());
                self.wrong(key, other, allowed);
                default
            }
        }
    }

    /// A truth value.
    pub(super) fn truth(&mut self, key: &'static str, default: bool) -> bool {
        match self.take(key) {
            None => default,
            Some(Value::Boolean(value)) => value,
            Some(other) => {
                self.wrong(key, other, "true or false");
                default
            }
        }
    }

    /// A duration in milliseconds within a range.
    pub(super) fn duration_ms(
        &mut self,
        key: &'static str,
        default: i64,
        range: RangeInclusive<i64>,
    ) -> u64 {
        assert!(*range.start() >= 0, "a duration is not negative");
        self.integer(key, default, range) as u64
    }

    /// A text that `accept` takes; without a default it is required.
    pub(super) fn text(
        &mut self,
        key: &'static str,
        default: Option<&str>,
        allowed: &str,
        accept: impl Fn(&str) -> bool,
    ) -> String {
        match self.take(key) {
            Some(Value::String(text)) if accept(&text) => return text,
            Some(other) => self.wrong(key, other, allowed),
            None if default.is_none() => self.missing(key, allowed),
            None => {}
        }
        default.unwrap_or_default().to_owned()
    }

    /// One of several words; the first one is the default.
    pub(super) fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> T {
        let default = choices.first().expect("a choice has choices").1;
        let Some(value) = self.take(key) else {
            return default;
        };
        let found = choices
            .iter()
            .find(|(word, _)| value.as_str() == Some(word));
        if let Some(&(_, choice)) = found {
            return choice;
        }
        let words: Vec<String> = choices
            .iter()
            .map(|(word, _)| format!("\"{word}\""))
            .collect();
        self.wrong(key, value, words.join(" or "));
        default
    }

    /// Notes every key that nobody asked for.
    pub(super) fn finish(self) {
        for key in self.table.keys() {
            let near = self
                .known
                .iter()
                .map(|known| (edit_distance(key, known), known))
                .filter(|(distance, known)| *distance <= known.len().div_ceil(3))
                .min()
                .map(|(_, known)| self.key(known));
            self.errors.push(ConfigError::Unknown {
                key: self.key(key),
                near,
            });
        }
    }
}

/// Insertions, deletions and replacements from one text to the other.
fn edit_distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}
