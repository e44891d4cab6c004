//! Single keys given on a command line, over those of a file.

use toml::{Table, Value};

/// A word that sets no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("--set {0}: write it as section.key=value, e.g. kafka.group_id=ticks")]
pub struct NoOverride(String);

/// Reads `key.of.a.section=value` words into one table; later ones win. A value that is not TOML is a
/// text.
///
/// # Errors
/// The first word that is not of this form.
pub fn parse_overrides<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Table, NoOverride> {
    let mut table = Table::new();
    for word in words {
        lay_over(&mut table, word).ok_or_else(|| NoOverride(word.to_owned()))?;
    }
    Ok(table)
}

fn lay_over(table: &mut Table, word: &str) -> Option<()> {
    let (key, value) = word.split_once('=')?;
    let (sections, key) = key.trim().rsplit_once('.')?;
    let mut at = table;
    for section in sections.split('.') {
        let inner = at
            .entry(section)
            .or_insert_with(|| Value::Table(Table::new()));
        at = inner.as_table_mut()?;
    }
    let value = value.trim();
    let parsed = format!("value = {value}").parse::<Table>();
    let value = match parsed.ok().and_then(|mut table| table.remove("value")) {
        Some(value) => value,
        None => Value::String(value.to_owned()),
    };
    at.insert(key.to_owned(), value);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_are_toml_where_they_can_be_and_text_otherwise() {
        let words = [
            "kafka.bootstrap_servers=b1:9092,b2:9092",
            "kafka.properties.socket_keepalive=true",
            "worker.count = 2",
            "worker.count = 3",
            "recovery.accept_reset_partitions=[1, 2]",
            "kafka.group_id=\"7\"",
        ];
        let expected = "
            [kafka]
            bootstrap_servers = 'b1:9092,b2:9092'
            group_id = '7'
            properties = { socket_keepalive = true }
            [worker]
            count = 3
            [recovery]
            accept_reset_partitions = [1, 2]
        ";
        let expected = expected.parse::<Table>().expect("it is TOML");
        assert_eq!(parse_overrides(words), Ok(expected));
    }

    #[test]
    fn a_word_that_sets_no_key_is_refused() {
        for words in [
            &["kafka"][..],
            &["group_id=x"],
            &["kafka.group_id"],
            &["kafka.group_id=x", "kafka.group_id.y=1"],
        ] {
            let error = parse_overrides(words.iter().copied()).expect_err("it is wrong");
            assert!(error.to_string().contains("section.key=value"), "{error}");
        }
    }
}
