//! One output: a window result or a dead letter, with its headers read.

use crate::code::{Code, code_fields};
use crate::history::TopicRecord;
use crate::moment::{Forced, Moment};
use bytes::Bytes;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// The topic on which an output stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Output topic.
    Result,
    /// Dead-letter topic.
    DeadLetter,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Result => "result",
            Kind::DeadLetter => "dead letter",
        })
    }
}

/// Who sent an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its term: a later owner has a higher one.
    pub term: i64,
    /// Its incarnation.
    pub incarnation: String,
}

/// Of which window a result is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Ticker.
    pub ticker: String,
    /// Start, Unix milliseconds.
    pub start_ms: i64,
    /// End (first millisecond after it), Unix milliseconds.
    pub end_ms: i64,
    /// Events in it.
    pub count: i64,
}

/// Value of a result: its fields as raw JSON, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row<'a> {
    /// All fields: name and exact text.
    pub fields: Vec<(String, &'a str)>,
}

/// A result or dead letter, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Which of the two.
    pub kind: Kind,
    /// Partition of its topic.
    pub partition: i32,
    /// Offset in that partition.
    pub offset: i64,
    /// The timestamp that Kafka stored, Unix milliseconds.
    pub timestamp_ms: i64,
    /// Key.
    pub key: Option<Bytes>,
    /// Value.
    pub value: Option<Bytes>,
    /// Partition of the input topic that it comes from.
    pub source_partition: i32,
    /// Its number among the outputs of that partition.
    pub sequence: i64,
    /// Correlation id.
    pub correlation_id: String,
    /// What caused it.
    pub moment: Moment,
    /// Watermark in force after its cause, Unix milliseconds.
    pub watermark_ms: i64,
    /// Newest forced advance that it declares.
    pub forced: Option<Forced>,
    /// Its sender, if it says so.
    pub owner: Option<Owner>,
    /// Results: revision of the window.
    pub revision: i64,
    /// Results: identity of the set of events.
    pub event_set_hash: String,
    /// Results: the window, or why the value could not be read.
    pub window: Result<Window, String>,
    /// Dead letters: whether it says that its record came too late.
    pub says_too_late: bool,
}

impl Output {
    /// Reads the headers (all of which must be there) and, of a result, the value.
    ///
    /// # Errors
    /// Names the header that is missing or wrong.
    pub fn read(kind: Kind, record: &TopicRecord) -> Result<Self, String> {
        let headers = Headers(record);
        let is_result = kind == Kind::Result;
        let watermark_ms = headers.number("watermark")?;
        let cause_offset = headers.number("cause-offset")?;
        let moment = match headers.text("cause")? {
            "record" => Moment::record(cause_offset),
            "idle" => Moment::idle(cause_offset, watermark_ms),
            other => {
                return Err(format!(
                    "header `cause` is {other:?}, expected `record` or `idle`"
                ));
            }
        };
        Ok(Self {
            kind,
            partition: record.partition,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            key: record.key.clone(),
            value: record.value.clone(),
            source_partition: i32::try_from(headers.number("source-partition")?)
                .map_err(|_| "header `source-partition` is no partition number".to_owned())?,
            sequence: headers.number("sequence")?,
            correlation_id: headers.text("correlation-id")?.to_owned(),
            moment,
            watermark_ms,
            forced: headers.forced()?,
            owner: headers.owner()?,
            revision: if is_result {
                headers.number("revision")?
            } else {
                0
            },
            event_set_hash: if is_result {
                headers.text("event-set-hash")?.to_owned()
            } else {
                String::new()
            },
            window: if is_result {
                Window::read(record)
            } else {
                Err("not a result".to_owned())
            },
            says_too_late: !is_result && says_too_late(record),
        })
    }

    /// Where it stands and what it is, for messages.
    #[must_use]
    pub fn place(&self) -> String {
        let window = match &self.window {
            Ok(window) => format!(
                ", window {}@{} revision {}",
                window.ticker, window.start_ms, self.revision
            ),
            Err(_) => String::new(),
        };
        format!(
            "{} at partition {} offset {} (source partition {}, sequence {}, {}{window})",
            self.kind,
            self.partition,
            self.offset,
            self.source_partition,
            self.sequence,
            self.moment
        )
    }

    /// Results: how many events it says that it holds; 0 when its value could not be read.
    #[must_use]
    pub fn count(&self) -> i64 {
        self.window.as_ref().map_or(0, |window| window.count)
    }

    /// The value as text.
    ///
    /// # Errors
    /// When it is null or not UTF-8.
    pub fn text(&self) -> Result<&str, String> {
        text(self.value.as_deref())
    }

    /// About how many bytes it holds in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let content = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        size_of::<Self>() + content(&self.key) + content(&self.value) + OUTPUT_TEXT_BYTES
    }
}

/// Bytes of the texts of an output's headers and window, about.
const OUTPUT_TEXT_BYTES: usize = 160;

code_fields!(Owner { term, incarnation });
code_fields!(Window {
    ticker,
    start_ms,
    end_ms,
    count
});
code_fields!(Output {
    kind,
    partition,
    offset,
    timestamp_ms,
    key,
    value,
    source_partition,
    sequence,
    correlation_id,
    moment,
    watermark_ms,
    forced,
    owner,
    revision,
    event_set_hash,
    window,
    says_too_late,
});

impl Code for Kind {
    fn put(&self, to: &mut Vec<u8>) {
        (*self == Kind::Result).put(to);
    }

    fn take(from: &mut &[u8]) -> Option<Self> {
        bool::take(from).map(|result| {
            if result {
                Kind::Result
            } else {
                Kind::DeadLetter
            }
        })
    }
}

fn says_too_late(record: &TopicRecord) -> bool {
    text(record.value.as_deref())
        .and_then(object_fields)
        .is_ok_and(|fields| fields.contains(&("error_type".to_owned(), "\"too_late\"")))
}

fn text(value: Option<&[u8]>) -> Result<&str, String> {
    let value = value.ok_or("the value is null")?;
    std::str::from_utf8(value).map_err(|_| "the value is not UTF-8".to_owned())
}

/// The headers of one record.
struct Headers<'a>(&'a TopicRecord);

impl<'a> Headers<'a> {
    /// The text of a header that may be absent; more than one is an error.
    fn optional(&self, name: &str) -> Result<Option<&'a str>, String> {
        let mut values = self.0.headers.iter().filter(|(key, _)| key == name);
        let Some((_, value)) = values.next() else {
            return Ok(None);
        };
        if values.next().is_some() {
            return Err(format!("header `{name}` stands there more than once"));
        }
        std::str::from_utf8(value)
            .map(Some)
            .map_err(|_| format!("header `{name}` is not text"))
    }

    fn text(&self, name: &str) -> Result<&'a str, String> {
        self.optional(name)?
            .ok_or_else(|| format!("header `{name}` is missing"))
    }

    fn number(&self, name: &str) -> Result<i64, String> {
        decimal(name, self.text(name)?)
    }

    fn forced(&self) -> Result<Option<Forced>, String> {
        let Some(text) = self.optional("forced")? else {
            return Ok(None);
        };
        let (position, watermark) = text
            .split_once(':')
            .ok_or_else(|| format!("header `forced` is {text:?}, expected `offset:watermark`"))?;
        Ok(Some(Forced {
            position: decimal("forced", position)?,
            watermark_ms: decimal("forced", watermark)?,
        }))
    }

    fn owner(&self) -> Result<Option<Owner>, String> {
        let Some(text) = self.optional("owner")? else {
            return Ok(None);
        };
        let (term, incarnation) = text
            .split_once('/')
            .ok_or_else(|| format!("header `owner` is {text:?}, expected `term/incarnation`"))?;
        Ok(Some(Owner {
            term: decimal("owner", term)?,
            incarnation: incarnation.to_owned(),
        }))
    }
}

fn decimal(name: &str, text: &str) -> Result<i64, String> {
    text.parse()
        .map_err(|_| format!("header `{name}` is {text:?}, expected a decimal number"))
}

impl Window {
    fn read(record: &TopicRecord) -> Result<Self, String> {
        let row = Row::read(text(record.value.as_deref())?)?;
        let number = |name: &str| -> Result<i64, String> {
            let text = row
                .field(name)
                .ok_or_else(|| format!("field `{name}` is missing"))?;
            text.parse()
                .map_err(|_| format!("field `{name}` is {text}, expected an integer"))
        };
        let ticker = row.field("ticker").ok_or("field `ticker` is missing")?;
        Ok(Self {
            ticker: serde_json::from_str(ticker)
                .map_err(|_| format!("field `ticker` is {ticker}, expected a string"))?,
            start_ms: number("window_start")?,
            end_ms: number("window_end")?,
            count: number("count")?,
        })
    }
}

impl<'a> Row<'a> {
    /// Reads the value of a result.
    ///
    /// # Errors
    /// When it is not one JSON object.
    pub fn read(text: &'a str) -> Result<Self, String> {
        object_fields(text).map(|fields| Self { fields })
    }

    /// Exact text of a field.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'a str> {
        field(&self.fields, name)
    }
}

fn field<'a>(fields: &[(String, &'a str)], name: &str) -> Option<&'a str> {
    fields
        .iter()
        .find(|(key, _)| key == name)
        .map(|(_, text)| *text)
}

/// The fields of a JSON object in their order, values as they are written.
///
/// # Errors
/// When the text is not one JSON object.
pub fn object_fields(text: &str) -> Result<Vec<(String, &str)>, String> {
    struct Fields;
    impl<'de> Visitor<'de> for Fields {
        type Value = Vec<(String, &'de str)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut fields = Vec::with_capacity(16);
            while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                fields.push((name, value.get()));
            }
            Ok(fields)
        }
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let fields = deserializer
        .deserialize_map(Fields)
        .map_err(|error| format!("not a JSON object: {error}"))?;
    deserializer
        .end()
        .map_err(|error| format!("not one JSON object: {error}"))?;
    Ok(fields)
}
