//! Where a violation is. Checkers say it in words, always in the same ones: partition, offset, window.

use super::events::Shown;
use reports::page::run::{Place, Topic};

/// The place that a checker's message names first, as far as it names one.
pub(super) fn of(message: &str, shown: &Shown) -> Place {
    let topic = [
        ("input partition ", Topic::Input),
        ("dead letter at partition ", Topic::DeadLetters),
        ("result at partition ", Topic::Output),
        ("source partition ", Topic::Input),
        ("partition ", Topic::Input),
    ];
    let named = topic
        .into_iter()
        .filter_map(|(words, topic)| {
            let (before, after) = message.split_once(words)?;
            Some((before.len(), topic, number(after)?))
        })
        .min_by_key(|(at, ..)| *at);
    let Some((_, topic, partition)) = named else {
        return Place::default();
    };
    let partition = i32::try_from(partition).ok();
    let offset = message.split_once("offset ").and_then(|(_, n)| number(n));
    let source = message.split_once("source partition ");
    let source = source.and_then(|(_, n)| i32::try_from(number(n)?).ok());
    let window = window(message).and_then(|(ticker, start_ms)| {
        let partition = source.or(partition)?;
        Some((partition, ticker, start_ms))
    });
    let at_ms = match topic {
        Topic::Input => partition
            .zip(offset)
            .and_then(|(p, o)| shown.record_at(p, o)),
        Topic::Output | Topic::DeadLetters => {
            let sequence = message.split_once("sequence ");
            let sequence = sequence.and_then(|(_, n)| number(n));
            source.zip(sequence).and_then(|(p, s)| shown.sent_at(p, s))
        }
    };
    Place {
        topic: Some(topic),
        partition,
        offset,
        at_ms: at_ms.or_else(|| shown.window_at(window.as_ref()?)),
        window,
    }
}

/// The number at the beginning of a text.
fn number(text: &str) -> Option<i64> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text[..end].parse().ok()
}

/// `window TICKER@START`.
fn window(message: &str) -> Option<(String, i64)> {
    let (_, rest) = message.split_once("window ")?;
    let (ticker, start) = rest.split_once('@')?;
    let is_one_word = !ticker.contains(' ');
    Some((ticker.to_owned(), number(start)?)).filter(|_| is_one_word)
}

#[cfg(test)]
mod tests {
    use super::of;
    use crate::page::events::Shown;
    use reports::page::run::{Place, Topic};

    #[test]
    fn the_place_is_read_off_the_words_of_each_checker() {
        let shown = Shown::default();
        for (message, topic, partition, offset, window) in [
            (
                "result at partition 1 offset 7 (source partition 0, sequence 3, at record 9, window \
                 AAPL@60000 revision 0): stands behind",
                Topic::Output,
                1,
                Some(7),
                Some((0, "AAPL".to_owned(), 60_000)),
            ),
            (
                "input partition 2 offset 5 is a duplicate: expected 0 dead letters",
                Topic::Input,
                2,
                Some(5),
                None,
            ),
            (
                "source partition 3, window MSFT@120000: expected 2 revisions, found 1",
                Topic::Input,
                3,
                None,
                Some((3, "MSFT".to_owned(), 120_000)),
            ),
            (
                "commit record of partition 4 at offset 12: its watermark is None",
                Topic::Input,
                4,
                Some(12),
                None,
            ),
        ] {
            let expected = Place {
                topic: Some(topic),
                partition: Some(partition),
                offset,
                at_ms: None,
                window,
            };
            assert_eq!(of(message, &shown), expected, "{message}");
        }
        let nowhere = of("the processor refused to go on", &shown);
        assert_eq!(nowhere, Place::default());
    }
}
