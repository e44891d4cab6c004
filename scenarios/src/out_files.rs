//! What `--out` writes: the topics as a read_committed consumer sees them, the trace, the verdict.

use crate::runner::Played;
use properties::history::TopicRecord;
use serde::Serialize;
use serde_json::value::RawValue;
use sim::trace::TraceLine;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// A file that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}: {source}; give --out a folder that can be written to", path = path.display())]
pub struct OutError {
    path: PathBuf,
    source: io::Error,
}

/// One record, as a line.
#[derive(Serialize)]
struct Line<'a> {
    partition: i32,
    offset: i64,
    timestamp: i64,
    key: Option<String>,
    headers: serde_json::Map<String, serde_json::Value>,
    value: Content<'a>,
}

/// Bytes as JSON: as they are if they are JSON, else as text, else in the hexadecimal digits.
#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Json(&'a RawValue),
    Text(&'a str),
    Bytes { hex: String },
    Nothing(()),
}

fn content(bytes: Option<&[u8]>) -> Content<'_> {
    let Some(bytes) = bytes else {
        return Content::Nothing(());
    };
    let Ok(text) = std::str::from_utf8(bytes) else {
        let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        return Content::Bytes { hex };
    };
    // A line feed inside would break the line.
    match serde_json::from_str(text) {
        Ok(raw) if !text.contains('\n') => Content::Json(raw),
        _ => Content::Text(text),
    }
}

/// Writes `outputs.jsonl`, `dlq.jsonl`, `trace.jsonl` and `verdict.json` into `folder`, which is
/// created when it is new.
///
/// # Errors
/// When a file cannot be written.
pub fn write(folder: &Path, played: &Played) -> Result<(), OutError> {
    std::fs::create_dir_all(folder).map_err(|source| OutError {
        path: folder.to_owned(),
        source,
    })?;
    in_file(folder, "outputs.jsonl", |file| {
        write_topic(file, &played.history.outputs)
    })?;
    in_file(folder, "dlq.jsonl", |file| {
        write_topic(file, &played.history.dead_letters)
    })?;
    in_file(folder, "trace.jsonl", |file| {
        write_trace(file, &played.trace)
    })?;
    in_file(folder, "verdict.json", |file| {
        serde_json::to_writer_pretty(&mut *file, &played.report)?;
        file.write_all(b"\n")
    })
}

fn in_file(
    folder: &Path,
    name: &str,
    fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), OutError> {
    let path = folder.join(name);
    let written = File::create(&path).and_then(|file| {
        let mut file = BufWriter::new(file);
        fill(&mut file)?;
        file.flush()
    });
    written.map_err(|source| OutError { path, source })
}

fn write_topic(file: &mut impl Write, records: &[TopicRecord]) -> io::Result<()> {
    for record in records {
        let headers = record.headers.iter().map(|(name, value)| {
            let text = String::from_utf8_lossy(value).into_owned();
            (name.clone(), serde_json::Value::String(text))
        });
        let line = Line {
            partition: record.partition,
            offset: record.offset,
            timestamp: record.timestamp_ms,
            key: record
                .key
                .as_ref()
                .map(|key| String::from_utf8_lossy(key).into_owned()),
            headers: headers.collect(),
            value: content(record.value.as_deref()),
        };
        serde_json::to_writer(&mut *file, &line)?;
        file.write_all(b"\n")?;
    }
    Ok(())
}

fn write_trace(file: &mut impl Write, trace: &[TraceLine]) -> io::Result<()> {
    for line in trace {
        serde_json::to_writer(&mut *file, line)?;
        file.write_all(b"\n")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::write_topic;
    use bytes::Bytes;
    use properties::history::TopicRecord;

    #[test]
    fn every_record_is_one_line_of_json_whatever_its_bytes() {
        let record = |value: Option<&'static [u8]>| TopicRecord {
            partition: 1,
            offset: 7,
            timestamp_ms: 9,
            key: Some(Bytes::from_static(b"AMZN")),
            value: value.map(Bytes::from_static),
            headers: vec![("sequence".to_owned(), Bytes::from_static(b"3"))],
        };
        let records = [
            record(Some(b"{\"avg_price\":1.10}")),
            record(Some(b"[1,\n2]")),
            record(Some(b"\xff")),
            record(None),
        ];
        let mut file = Vec::new();
        write_topic(&mut file, &records).expect("memory");
        let text = String::from_utf8(file).expect("JSON is UTF-8");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "{\"partition\":1,\"offset\":7,\"timestamp\":9,\"key\":\"AMZN\",\
             \"headers\":{\"sequence\":\"3\"},\"value\":{\"avg_price\":1.10}}"
        );
        assert!(
            lines[1].ends_with("\"value\":\"[1,\\n2]\"}"),
            "{}",
            lines[1]
        );
        assert!(
            lines[2].ends_with("\"value\":{\"hex\":\"ff\"}}"),
            "{}",
            lines[2]
        );
        assert!(lines[3].ends_with("\"value\":null}"), "{}", lines[3]);
        assert_eq!(lines.len(), 4);
    }
}
